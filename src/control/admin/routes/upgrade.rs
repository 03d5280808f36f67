//! `POST /v1/upgrade`: this process is succeeded by a new one.
//!
//! Which program that is cannot be said here: it is the one that runs, as it is on the disk now. Otherwise whoever
//! reaches the API could run any other.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use http::HeaderMap;

use super::{Api, entry, finish};
use crate::control::admin::wire::{self, Problem};

/// The paths of this file.
pub(super) fn routes() -> Router<Api> {
    Router::new().route("/v1/upgrade", post(upgrade))
}

async fn upgrade(State(api): State<Api>, headers: HeaderMap) -> Result<Json<wire::upgrade::Upgraded>, Problem> {
    let by = entry::actor(&headers)?;
    let upgraded = finish(async move { api.controller.upgrade(&by).await }).await?;
    Ok(Json(upgraded.into()))
}
