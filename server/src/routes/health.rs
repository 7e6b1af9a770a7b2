//! Whether the process lives, has started, and can serve. Three questions of an orchestrator, three answers.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::schema::{Faults, NotReady};
use crate::{error::Error, state::AppState};

/// A good answer to a probe.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`: anything else is an error.
    #[schema(example = "ok")]
    status: &'static str,
}

const OK: Json<Health> = Json(Health { status: "ok" });

/// Whether the process answers at all. Touches no model.
#[utoipa::path(
    get, path = "/livez", tag = "health",
    responses((status = 200, description = "The process answers.", body = Health), Faults)
)]
pub(super) async fn live() -> Json<Health> {
    OK
}

/// Whether requests can be served: every model is loaded or has failed, one serves, and the server is not about to
/// stop.
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses((status = 200, description = "Requests can be served.", body = Health), NotReady)
)]
pub(super) async fn ready(State(state): State<Arc<AppState>>) -> Result<Json<Health>, Error> {
    state.ready().map(|()| OK)
}

/// Whether loading is over and a model serves, be the server about to stop or not.
#[utoipa::path(
    get, path = "/startupz", tag = "health",
    responses((status = 200, description = "The server has started.", body = Health), NotReady)
)]
pub(super) async fn started(State(state): State<Arc<AppState>>) -> Result<Json<Health>, Error> {
    state.models.settled().map(|()| OK)
}
