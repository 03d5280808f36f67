//! Endpoints one by one, and the orders that take them, or a whole pool, out of use.

use axum::extract::{Path, Request, State};
use axum::routing::{get, put};
use axum::{Json, Router};

use super::{Api, entry, finish};
use crate::control::admin::wire::{self, Problem, body};

/// The paths of this file.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/services/{service}/endpoints", get(of_service))
        .route("/v1/services/{service}/pools/{pool}", put(use_pool))
        .route("/v1/services/{service}/pools/{pool}/endpoints", get(of_pool))
        .route("/v1/services/{service}/pools/{pool}/endpoints/{endpoint}", put(use_endpoint))
}

async fn of_service(
    State(api): State<Api>,
    Path(service): Path<String>,
) -> Result<Json<wire::endpoints::Endpoints>, Problem> {
    list(&api, service, None)
}

async fn of_pool(
    State(api): State<Api>,
    Path((service, pool)): Path<(String, String)>,
) -> Result<Json<wire::endpoints::Endpoints>, Problem> {
    list(&api, service, Some(pool))
}

fn list(api: &Api, service: String, pool: Option<String>) -> Result<Json<wire::endpoints::Endpoints>, Problem> {
    let endpoints = api.controller.endpoints(&service, pool.as_deref())?;
    let endpoints = endpoints.into_iter().map(wire::endpoints::Endpoint::from).collect();
    Ok(Json(wire::endpoints::Endpoints { service, endpoints }))
}

async fn use_pool(
    State(api): State<Api>,
    Path((service, pool)): Path<(String, String)>,
    request: Request,
) -> Result<Json<wire::endpoints::Used>, Problem> {
    order(api, service, pool, None, request).await
}

async fn use_endpoint(
    State(api): State<Api>,
    Path((service, pool, endpoint)): Path<(String, String, String)>,
    request: Request,
) -> Result<Json<wire::endpoints::Used>, Problem> {
    order(api, service, pool, Some(endpoint), request).await
}

async fn order(
    api: Api,
    service: String,
    pool: String,
    endpoint: Option<String>,
    request: Request,
) -> Result<Json<wire::endpoints::Used>, Problem> {
    let by = entry::actor(request.headers())?;
    let order = body::required::<wire::endpoints::Use>(request).await?.resolve(service, pool, endpoint, by)?;
    let drained = finish(async move { api.controller.drain(order).await }).await?;
    Ok(Json(drained.into()))
}
