//! `/openapi.json` and `/docs`: what this server can do, generated from its handlers.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self,
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::speech::{SpeechDelta, SpeechDone};
use crate::{
    error::{Error, ErrorBody},
    render::{Json, VerboseJson, stream},
};

/// What does not belong to one path.
#[derive(OpenApi)]
#[openapi(
    info(title = "speechd", description = "Speech to text and text to speech by your own models, in the shape of the OpenAI audio API."),
    // In the order of the page.
    tags(
        (name = "audio", description = "Recordings to text"),
        (name = "speech", description = "Texts to speech, and voices"),
        (name = "models", description = "What is served"),
        (name = "health", description = "For whoever runs the server")
    ),
    components(schemas(ErrorBody, Json<'static>, VerboseJson<'static>, stream::Delta<'static>, stream::Done<'static>, SpeechDelta, SpeechDone)),
    modifiers(&Key)
)]
pub(super) struct Document;

struct Key;

impl Modify for Key {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let key = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document.components.get_or_insert_default().add_security_scheme("key", key);
    }
}

/// The router's wildcards in the document's spelling.
pub(super) fn finish(mut document: openapi::OpenApi) -> openapi::OpenApi {
    let paths = std::mem::take(&mut document.paths.paths);
    document.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    document
}

/// A file that the pages do not have is no different from any other path.
pub(super) async fn explain_missing(response: Response) -> Response {
    if response.status() == StatusCode::NOT_FOUND { Error::NoRoute.into_response() } else { response }
}
