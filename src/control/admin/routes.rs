//! Every path of the admin API and what answers it.
//!
//! Handlers translate: headers and JSON to a call of the controller, its answer back to JSON. A change that was
//! begun is finished even if the client goes away or the time is up, so that nothing is ever half done.
//!
//! Invariant: `GET` never changes anything.

mod endpoints;
mod streams;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use http::header::{CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::sync::{Semaphore, watch};

use crate::config::settings::Secret;
use crate::control::admin::wire::{self, Problem, body};
use crate::control::admin::{entry, metrics, problem, stream};
use crate::control::command::Refusal;
use crate::control::controller::Controller;

/// For a whole answer; a stream of events counts up to its first byte. Above the longest wait for workers.
const PATIENCE: Duration = Duration::from_secs(30);
/// Streams of events at one time: they must leave connections for orders.
const FOLLOWERS: usize = 64;
/// Rollouts in a history, by default and at most.
const HISTORY: (u32, u32) = (20, 100);
/// How often a share that was left to us is worked out anew because somebody else was faster.
const ATTEMPTS: usize = 64;

const OVERVIEW: &str = "\
Teal, admin API

GET  /v1                          what is running
GET  /v1/services                 all services
GET  /v1/services/{s}             one service (also .../status)
PUT  /v1/services/{s}/weights     {\"weights\": {\"green\": \"10%\"}}; If-Match: \"EPOCH\"
POST /v1/services/{s}/rollback    {\"reason\": \"...\"}
GET  /v1/services/{s}/endpoints   what they do; also .../pools/{p}/endpoints
PUT  /v1/services/{s}/pools/{p}   {\"state\": \"drained|in_use\", \"deadline\": \"30s\"}
PUT  .../pools/{p}/endpoints/{e}  the same for one address, percent-encoded
GET  /v1/services/{s}/streams     what has been in flight for ten seconds or more
GET  /v1/services/{s}/faults      what is injected for a drill
PUT  /v1/services/{s}/faults      {\"faults\": [{\"pool\": \"green\", \"share\": \"10%\", \"abort\": 503, \"for\": \"5m\"}]}
DELETE /v1/services/{s}/faults    ends them
GET  /v1/services/{s}/rollouts    newest first; ?limit=
POST /v1/services/{s}/rollouts    {\"to\": \"green\"}; Idempotency-Key
GET  /v1/rollouts/{id}            one rollout
POST /v1/rollouts/{id}/actions    {\"action\": \"pause|resume|approve|promote|abort\"}
POST /v1/config/reload            read the file again
POST /v1/upgrade                  a new process of the program on the disk takes over
GET  /v1/events                   server-sent events; ?after= or Last-Event-ID
GET  /metrics                     Prometheus
GET  /livez, /readyz              probes
";

/// What the handlers share.
#[derive(Clone)]
pub(super) struct Api {
    controller: Controller,
    followers: Arc<Semaphore>,
    ending: watch::Receiver<bool>,
}

type Answer = Result<Response, Problem>;

/// The whole API over `controller`; streams end once `ending` is true.
pub(super) fn router(controller: Controller, token: Option<Secret>, ending: watch::Receiver<bool>) -> Router {
    let api = Api { controller, followers: Arc::new(Semaphore::new(FOLLOWERS)), ending };
    guarded(routes().with_state(api), token)
}

/// The layers around the routes, innermost first.
fn guarded(routes: Router, token: Option<Secret>) -> Router {
    // As a service of its own, so that the layers see the `Allow` that the router adds at its very end.
    Router::new()
        .fallback_service(routes)
        .layer(middleware::from_fn(in_time))
        .layer(middleware::from_fn_with_state(Arc::new(token), entry::admit))
        .layer(middleware::from_fn(problem::clothe))
}

fn routes() -> Router<Api> {
    Router::new()
        .route("/", get(async || OVERVIEW))
        .route("/v1", get(index))
        .route("/v1/services", get(services))
        .route("/v1/services/{service}", get(service))
        .route("/v1/services/{service}/status", get(service))
        .route("/v1/services/{service}/weights", put(set_weights))
        .route("/v1/services/{service}/rollback", post(rollback))
        .route("/v1/services/{service}/faults", get(faults).put(set_faults).delete(end_faults))
        .route("/v1/services/{service}/rollouts", get(history).post(deploy))
        .merge(endpoints::routes())
        .merge(streams::routes())
        .merge(upgrade::routes())
        .route("/v1/rollouts/{id}", get(rollout))
        .route("/v1/rollouts/{id}/actions", post(act))
        .route("/v1/config/reload", post(reload))
        .route("/v1/events", get(events))
        .route("/metrics", get(scrape))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(ready))
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(PATIENCE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no answer within {} s; what was begun goes on", PATIENCE.as_secs());
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", detail).into_response()
        }
    }
}

async fn index(State(api): State<Api>) -> Json<wire::Index> {
    let table = api.controller.plane().table.load();
    Json(wire::Index {
        name: "teal".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        table_version: table.version,
        services: table.services.iter().map(|service| service.settings.name.clone()).collect(),
    })
}

async fn services(State(api): State<Api>) -> Json<wire::Services> {
    let services = api.controller.services().into_iter().map(wire::ServiceStatus::from).collect();
    Json(wire::Services { services })
}

async fn service(State(api): State<Api>, Path(name): Path<String>) -> Answer {
    let status = api.controller.service(&name)?;
    Ok(tagged(status.epoch, Json(wire::ServiceStatus::from(status))))
}

async fn set_weights(State(api): State<Api>, Path(service): Path<String>, request: Request) -> Answer {
    let (by, expected) = (entry::actor(request.headers())?, entry::expected_epoch(request.headers())?);
    let weights: wire::Weights = body::required(request).await?;
    let done = finish(async move {
        for _ in 0..ATTEMPTS {
            let status = api.controller.service(&service)?;
            let pools: Vec<&str> = status.pools.iter().map(|pool| pool.name.as_str()).collect();
            let shares = weights.resolve(&pools, &status.active)?;
            // The rest goes to the pool that is active at this epoch: at another it may be another.
            let basis = expected.or(weights.leaves_out(&status.active).then_some(status.epoch));
            match api.controller.set_weights(&service, shares, basis, &by).await {
                Err(Refusal::Stale { .. }) if expected.is_none() => {}
                result => return result,
            }
        }
        Err(Refusal::Conflict("too many others change the weights of this service right now".to_owned()))
    });
    let done = done.await?;
    Ok(tagged(done.epoch, Json(wire::Done::from(done))))
}

async fn rollback(State(api): State<Api>, Path(service): Path<String>, request: Request) -> Answer {
    let by = entry::actor(request.headers())?;
    let reason = body::optional::<wire::Rollback>(request).await?.resolve()?;
    let done = finish(async move { api.controller.rollback(&service, &by, &reason).await }).await?;
    Ok(tagged(done.epoch, Json(wire::Done::from(done))))
}

async fn faults(State(api): State<Api>, Path(service): Path<String>) -> Result<Json<wire::ActiveFaults>, Problem> {
    Ok(Json(api.controller.faults(&service)?.into()))
}

async fn set_faults(
    State(api): State<Api>,
    Path(service): Path<String>,
    request: Request,
) -> Result<Json<wire::ActiveFaults>, Problem> {
    let by = entry::actor(request.headers())?;
    let faults = body::required::<wire::Faults>(request).await?.resolve()?;
    let active = finish(async move { api.controller.set_faults(&service, faults, &by).await }).await?;
    Ok(Json(active.into()))
}

async fn end_faults(
    State(api): State<Api>,
    Path(service): Path<String>,
    headers: HeaderMap,
) -> Result<Json<wire::ActiveFaults>, Problem> {
    let by = entry::actor(&headers)?;
    let active = finish(async move { api.controller.set_faults(&service, Vec::new(), &by).await }).await?;
    Ok(Json(active.into()))
}

async fn deploy(State(api): State<Api>, Path(service): Path<String>, request: Request) -> Answer {
    let (by, key) = (entry::actor(request.headers())?, entry::idempotency_key(request.headers())?);
    let order = body::required::<wire::Deploy>(request).await?.resolve(service, key, by)?;
    let rollout = wire::Rollout::from(finish(async move { api.controller.deploy(order).await }).await?);
    let location = format!("/v1/rollouts/{}", rollout.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(rollout)).into_response())
}

async fn history(
    State(api): State<Api>,
    Path(service): Path<String>,
    Query(wire::Limit { limit }): Query<wire::Limit>,
) -> Answer {
    let (usual, most) = HISTORY;
    let limit = limit.unwrap_or(usual);
    if limit == 0 || limit > most {
        return Err(Problem::bad_request(format!("`limit` is 1 to {most}")));
    }
    let running = api.controller.service(&service)?.rollout.map(wire::Rollout::from);
    let over = api.controller.history(&service, limit as usize).await?;
    let over: Vec<wire::Rollout> = over.into_iter().map(wire::Rollout::from).collect();
    // One that just ended may be in both; the history knows when.
    let running = running.filter(|running| over.iter().all(|over| over.id != running.id));
    Ok(Json(wire::Rollouts { rollouts: running.into_iter().chain(over).collect() }).into_response())
}

async fn rollout(State(api): State<Api>, Path(id): Path<String>) -> Result<Json<wire::Rollout>, Problem> {
    Ok(Json(api.controller.rollout(&id).await?.into()))
}

async fn act(State(api): State<Api>, Path(id): Path<String>, request: Request) -> Result<Json<wire::Rollout>, Problem> {
    let by = entry::actor(request.headers())?;
    let act = body::required::<wire::Action>(request).await?.resolve()?;
    let found = finish(async move { api.controller.act(&id, act, &by).await }).await?;
    Ok(Json(found.into()))
}

async fn reload(State(api): State<Api>, headers: HeaderMap) -> Result<Json<wire::Reloaded>, Problem> {
    let by = entry::actor(&headers)?;
    let reloaded = finish(async move { api.controller.reload(&by).await }).await?;
    Ok(Json(reloaded.into()))
}

async fn events(
    State(api): State<Api>,
    Query(wire::After { after }): Query<wire::After>,
    headers: HeaderMap,
) -> Answer {
    // A browser that reconnects repeats the query as it was, and says in the header how far it came.
    let after = entry::last_event(&headers)?.or(after);
    let place = Arc::clone(&api.followers).try_acquire_owned().map_err(|_| {
        let detail = format!("{FOLLOWERS} streams of events are open already");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
    })?;
    Ok(stream::stream(api.controller, after, api.ending, place))
}

async fn scrape(State(api): State<Api>) -> Answer {
    let text = metrics::render(api.controller.plane(), &metrics::Facts::of(&api.controller));
    let text = text.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", error.to_string()))?;
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn ready(State(api): State<Api>) -> Result<&'static str, Problem> {
    let reason = match api.controller.is_ready() {
        true => return Ok("ready\n"),
        false if api.controller.is_ending() => "the process is ending",
        false => "not every worker has taken up a routing table",
    };
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", reason))
}

fn tagged(epoch: u64, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    let tag = HeaderValue::try_from(format!("\"{epoch}\"")).expect("digits in quotes are visible ASCII");
    response.headers_mut().insert(ETAG, tag);
    response
}

/// Runs a change to its end, whether or not anybody still waits for it.
async fn finish<T: Send + 'static>(
    change: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::spawn(change).await {
        Ok(result) => Ok(result?),
        Err(_) => {
            Err(Refusal::Failed("the change ended early; look at the service before trying again".to_owned()).into())
        }
    }
}

#[cfg(test)]
mod tests;
