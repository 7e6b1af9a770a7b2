//! `GET /metrics`, for Prometheus.

use std::sync::Arc;

use axum::{extract::State, http::header, response::IntoResponse};

use super::schema::Faults;
use crate::{metrics::CONTENT_TYPE, state::AppState};

/// What was counted and measured, as OpenMetrics text.
#[utoipa::path(
    get, path = "/metrics", tag = "health",
    responses(
        (status = 200, description = "The metrics.", body = String, content_type = "application/openmetrics-text"),
        Faults
    )
)]
pub(super) async fn metrics(State(state): State<Arc<AppState>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], state.metrics.encode(&state.models))
}
