//! The HTTP service: what each path does.

mod body;
mod docs;
mod fields;
pub mod form;
mod health;
mod json;
mod metrics;
mod models;
mod origin;
mod recording;
pub mod request;
mod schema;
pub mod speech;
mod transcribe;
mod transcriptions;
mod voice_consents;
mod voices;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{from_fn, from_fn_with_state, map_response},
};
use tower::util::option_layer;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{AllowHeaders, AllowOrigin, CorsLayer},
};
use utoipa::{OpenApi, openapi};
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

use crate::{access, auth, error::Error, listener::refuse_on_spare_connections, state::AppState};

/// All paths, with what every request gets.
pub fn router(state: &Arc<AppState>) -> Router {
    let swagger: Router<Arc<AppState>> = SwaggerUi::new("/docs").url("/openapi.json", document()).into();
    let swagger =
        swagger.layer(map_response(docs::explain_missing)).layer(from_fn(refuse_on_spare_connections));
    // Keys are asked for where routes are declared, so that no spelling of a path gets around them.
    let v1 = v1().layer(from_fn_with_state(Arc::clone(state), auth::require_key));
    let v1 = v1.layer(from_fn(refuse_on_spare_connections));
    let routes: Router<Arc<AppState>> = v1.merge(operations()).into();
    let origins = &state.config.serve.cors_origins;
    routes
        .merge(swagger)
        .fallback(|| async { Error::NoRoute })
        .method_not_allowed_fallback(|| async { Error::MethodNotAllowed })
        .layer(option_layer((!origins.is_empty()).then(|| cors(origins))))
        .layer(CatchPanicLayer::custom(access::answer_panic))
        .layer(from_fn_with_state(Arc::clone(state), access::observe))
        .with_state(Arc::clone(state))
}

/// The OpenAPI document.
pub fn document() -> openapi::OpenApi {
    let routes = OpenApiRouter::with_openapi(docs::Document::openapi()).merge(v1()).merge(operations());
    docs::finish(routes.into_openapi())
}

/// The API: with a key, where there are keys.
fn v1() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::default()
        .routes(routes!(transcriptions::create_transcription))
        .routes(routes!(transcriptions::create_translation))
        .routes(routes!(speech::create_speech))
        .routes(routes!(voices::create_voice, voices::list_voices))
        .routes(routes!(voices::delete_voice))
        .routes(routes!(voice_consents::create_consent, voice_consents::list_consents))
        .routes(routes!(
            voice_consents::retrieve_consent,
            voice_consents::rename_consent,
            voice_consents::delete_consent
        ))
        .routes(routes!(models::list))
        .routes(routes!(models::retrieve))
}

/// For whoever runs the server: without a key.
fn operations() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::default()
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(health::started))
        .routes(routes!(metrics::metrics))
}

/// Which web pages may call. A wrong origin was refused at the start.
fn cors(origins: &[String]) -> CorsLayer {
    let origin = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([
            access::HEADER,
            header::RETRY_AFTER,
            HeaderName::from_static("retry-after-ms"),
            HeaderName::from_static("x-should-retry"),
        ])
}
