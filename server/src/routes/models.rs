//! `GET /v1/models`: what can be asked for.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::schema::Refusals;
use crate::{
    error::Error,
    state::{AppState, Model, ModelState, Serving},
};

/// A list of models as the OpenAI API writes it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// In the order in which they were given to the server.
    data: Vec<ModelObject>,
}

/// A model as the OpenAI API writes it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelObject {
    /// Its name in requests.
    id: String,
    /// Always `model`.
    #[schema(example = "model")]
    object: &'static str,
    /// When its bundle was made, in seconds since 1970; 0 until it is loaded.
    created: u64,
    /// Always `speechd`.
    #[schema(example = "speechd")]
    owned_by: &'static str,
    /// How far it is. Not part of the OpenAI API, whose clients ignore it.
    status: Status,
    /// What it turns into what, once it is loaded. Not part of the OpenAI API either.
    task: Option<ModelTask>,
}

/// How far a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// Requests have to wait.
    Loading,
    /// It serves.
    Ready,
    /// It could not be loaded.
    Failed,
}

/// What a model turns into what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ModelTask {
    /// Speech into text: `/v1/audio/transcriptions` and `/v1/audio/translations`.
    Transcription,
    /// Text into speech: `/v1/audio/speech`.
    Speech,
}

impl From<Model> for ModelObject {
    fn from(model: Model) -> Self {
        let (status, created, task) = match &model.state {
            ModelState::Loading => (Status::Loading, 0, None),
            ModelState::Ready(Serving::Hears(hearing)) => {
                (Status::Ready, hearing.created, Some(ModelTask::Transcription))
            }
            ModelState::Ready(Serving::Speaks(speaking)) => {
                (Status::Ready, speaking.created, Some(ModelTask::Speech))
            }
            ModelState::Failed(_) => (Status::Failed, 0, None),
        };
        let id = model.name.as_ref().to_owned();
        Self { id, object: "model", created, owned_by: "speechd", status, task }
    }
}

/// All models of this server.
#[utoipa::path(
    get, path = "/v1/models", tag = "models", security(("key" = []), ()),
    responses((status = 200, description = "The models.", body = ModelList), Refusals)
)]
pub(super) async fn list(State(state): State<Arc<AppState>>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: state.models.all().map(ModelObject::from).collect() })
}

/// One model. Slashes in its name may be written as `%2F` or as they are.
#[utoipa::path(
    get, path = "/v1/models/{*id}", tag = "models", security(("key" = []), ()),
    params(("id" = String, Path, description = "The model's name.")),
    responses((status = 200, description = "The model.", body = ModelObject), Refusals)
)]
pub(super) async fn retrieve(
    State(state): State<Arc<AppState>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelObject>, Error> {
    let Path(id) = id.map_err(|_| Error::ModelNotFound("a name that is not UTF-8".to_owned()))?;
    Ok(Json(state.models.get(&id)?.into()))
}
