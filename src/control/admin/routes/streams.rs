//! Long streams of a service.

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};

use super::Api;
use crate::control::admin::wire::{self, Problem};

/// The paths of this file.
pub(super) fn routes() -> Router<Api> {
    Router::new().route("/v1/services/{service}/streams", get(streams))
}

async fn streams(State(api): State<Api>, Path(service): Path<String>) -> Result<Json<wire::streams::Streams>, Problem> {
    let (total, streams) = api.controller.streams(&service)?;
    let streams = streams.into_iter().map(wire::streams::Stream::from).collect();
    Ok(Json(wire::streams::Streams { service, total, streams }))
}
