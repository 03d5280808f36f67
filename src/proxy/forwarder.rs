//! Forwarding: one attempt of a request at one endpoint, and the delivery of its answer.
//!
//! A connection is taken from the list or opened; then, without yielding in between, the current table is asked
//! once more whether the pool may still get requests, the attempt is booked, and the head is written.
//!
//! Invariant: what comes back for another attempt can certainly be sent again without being done twice.

use std::rc::Rc;
use std::sync::Arc;

use http::header::HeaderValue;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::bridge::endpoint::Endpoint;
use crate::bridge::observations::Failure;
use crate::bridge::table::Assignment;
use crate::domain::retry;
use crate::proxy::body::{Body, Ending, Upload};
use crate::proxy::connection::Client;
use crate::proxy::head::{self, Inbound};
use crate::proxy::pipeline;
use crate::proxy::recorder::{Attempt, Place};
use crate::proxy::tunnel::Tunnel;
use crate::proxy::upstream::{Broken, Connection};
use crate::proxy::worker::Worker;

/// An upstream's response head, with what its body comes over.
pub struct Answer {
    /// Head and body handle.
    pub response: Response<Incoming>,
    /// A cookie to set, see [`pipeline::remember`].
    pub remember: Option<HeaderValue>,
    connection: Box<Connection>,
    attempt: Attempt,
}

/// Why an attempt brought no answer.
pub enum Setback {
    /// Before anything was sent the table changed so that this pool gets nothing any more.
    TableMoved(Inbound),
    /// The upstream failed; the request is there if it may be sent again.
    Failed {
        /// How.
        failure: Failure,
        /// The request, if repeating it is safe.
        repeat: Option<Inbound>,
    },
    /// The client broke off its upload: nobody else's fault.
    ClientFailed,
}

/// Sends a request to `endpoint` and waits for the response head.
///
/// # Errors
/// See [`Setback`].
pub async fn send(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    place: &Place,
    assignment: Assignment,
    endpoint: &Arc<Endpoint>,
    mut inbound: Inbound,
) -> Result<Answer, Setback> {
    loop {
        let settings = &place.service().settings;
        let mut connection = match worker.connections.take(endpoint) {
            Some(connection) => connection,
            None => match Connection::open(endpoint, &settings.connections, settings.timeouts.connect).await {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::debug!(endpoint = %endpoint.address, %error, "connect failed");
                    // By the present epoch: nobody reads the book of an old one that has nothing open any more.
                    present(worker, place).charge(worker.index, Failure::Connect);
                    return Err(Setback::Failed { failure: Failure::Connect, repeat: Some(inbound) });
                }
            },
        };
        if !worker.is_current(&place.snapshot) && !still_allowed(worker, place, assignment) {
            worker.connections.put(connection);
            return Err(Setback::TableMoved(inbound));
        }
        let Inbound { request, upload, is_idempotent, wants_tunnel } = inbound;
        let spare = (connection.is_reused && is_idempotent && upload.is_none()).then(|| copy_of(&request));
        let attempt = Attempt::begin(worker, client, present(worker, place), Arc::clone(endpoint), upload.clone());
        match connection.exchange(*request, &attempt).await {
            Ok(response) if is_unasked_switch(&response, wants_tunnel) => {
                attempt.fail(Failure::Reset);
                return Err(Setback::Failed { failure: Failure::Reset, repeat: None });
            }
            Ok(response) => {
                let owes = upload.as_ref().is_some_and(|upload| !upload.done.get());
                connection.is_spent = owes || response.version() == http::Version::HTTP_10;
                attempt.head(response.status().as_u16());
                return Ok(Answer { response, connection, attempt, remember: None });
            }
            // The connection had died while idle; that says nothing about the request or the endpoint.
            Err(Broken::Unsent(request)) if connection.is_reused => {
                inbound = Inbound { request, upload, is_idempotent, wants_tunnel };
            }
            Err(Broken::Unsent(request)) => {
                attempt.fail(Failure::Reset);
                let repeat = Some(Inbound { request, upload, is_idempotent, wants_tunnel });
                return Err(Setback::Failed { failure: Failure::Reset, repeat });
            }
            Err(Broken::Failed(_)) if upload.as_ref().is_some_and(|upload| upload.client_failed.get()) => {
                return Err(Setback::ClientFailed);
            }
            Err(Broken::Failed(failure)) => {
                attempt.fail(failure);
                let known = retry::Attempt {
                    unsent: false,
                    reused: connection.is_reused && failure == Failure::Reset,
                    idempotent: is_idempotent,
                    body_spent: upload.is_some(),
                };
                let again = spare.filter(|_| retry::may_repeat(known));
                let repeat = again.map(|request| Inbound { request, upload: None, is_idempotent, wants_tunnel });
                return Err(Setback::Failed { failure, repeat });
            }
        }
    }
}

/// The place by the table that is current now: observations belong to the epoch at dispatch (Decisions 2).
fn present(worker: &Worker, place: &Place) -> Place {
    let current = worker.snapshot();
    if Rc::ptr_eq(&current, &place.snapshot) {
        return place.clone();
    }
    let (name, pool) = (&place.service().settings.name, &place.pool().name);
    let services = &current.table.services;
    let service = services.iter().position(|service| service.settings.name == *name);
    match service.and_then(|service| Some((service, services[service].pool_named(pool)?))) {
        Some((service, pool)) => Place { snapshot: current, service, pool, judged: place.judged },
        None => place.clone(),
    }
}

/// Asks the current table whether the pool still gets requests.
fn still_allowed(worker: &Worker, place: &Place, assignment: Assignment) -> bool {
    let now = present(worker, place);
    if Rc::ptr_eq(&now.snapshot, &place.snapshot) {
        // The service or pool is gone.
        return false;
    }
    // After a reload overrides may have moved: deciding anew is always right.
    let same_rules = Arc::ptr_eq(&now.service().settings, &place.service().settings);
    same_rules && now.service().still_allows(Assignment { pool: now.pool, ..assignment })
}

/// A bodiless request again.
fn copy_of(request: &Request<Upload>) -> Box<Request<Upload>> {
    let mut copy = Request::new(Upload::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Box::new(copy)
}

fn is_unasked_switch(response: &Response<Incoming>, wants_tunnel: bool) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS && !wants_tunnel
}

/// Turns an upstream's answer into the client's; a 101 becomes a tunnel.
pub async fn deliver(answer: Answer, client: &Client, ending: Ending) -> Response<Body> {
    let Answer { mut response, connection, attempt, remember } = answer;
    let tunnel = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    head::downwards(&mut response, tunnel);
    pipeline::remember(&mut response, remember);
    let (parts, incoming) = response.into_parts();
    let body = if tunnel {
        attempt.tunnels();
        drop(incoming);
        if let Some(raw) = connection.into_raw().await {
            client.tunnels(Tunnel { raw, attempt });
        }
        Body::own(bytes::Bytes::new(), ending)
    } else {
        Body::upstream(incoming, connection, attempt, ending)
    };
    Response::from_parts(parts, body)
}
