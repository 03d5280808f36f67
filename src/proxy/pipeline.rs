//! The life of one request, top to bottom. Read this page first.
//!
//! [`handle`] accepts a head, then tries: route, override or split, balance, forward; a setback that may be
//! repeated goes round again. Every round decides on the current table, so a request that waited (for a slow
//! connect, for its retry) never follows a split that has meanwhile changed (Decisions 1).
//!
//! Invariant: a request is answered exactly once, and dispatched only where the current table allows it.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONNECTION, HeaderValue, SET_COOKIE};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::bridge::endpoint::Endpoint;
use crate::bridge::observations::Failure;
use crate::bridge::table::{Pool, Reason};
use crate::clock;
use crate::config::settings::{self, SplitBy};
use crate::domain::balance;
use crate::domain::route::{self, RequestView};
use crate::domain::split;
use crate::proxy::access::Line;
use crate::proxy::body::{Body, Ending};
use crate::proxy::connection::Client;
use crate::proxy::error::Fault;
use crate::proxy::forwarder::{self, Answer, Setback};
use crate::proxy::head::{self, Inbound, RequestId, View};
use crate::proxy::recorder::Place;
use crate::proxy::worker::Worker;
use crate::telemetry::access_log::Entry;

/// Answers one request.
///
/// # Errors
/// Never: every fault is a response.
pub async fn handle(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    client.busy(request.version());
    worker.tally().requests.add(1);
    let id = RequestId::of(request.headers(), &worker);
    let mut line = worker.access.as_ref().map(|_| begin_line(&request, &client, &id));
    let answered = match head::accept(request, &client, &id) {
        Ok(inbound) => {
            client.uploads(inbound.upload.clone());
            answer(&worker, &client, inbound, &mut line).await
        }
        Err(fault) => Err(fault),
    };
    if matches!(answered, Err(Fault::BadRequest(_) | Fault::Method | Fault::NoService)) {
        worker.tally().refused.add(1);
    }
    if let Some(line) = &mut line {
        line.status(match &answered {
            Ok(answer) => answer.response.status(),
            Err(fault) => fault.status(),
        });
    }
    let ending = Ending::new(&worker, &client, line);
    let mut response = match answered {
        Ok(answer) => forwarder::deliver(answer, &client, ending).await,
        Err(fault) => fault.response(&id, ending),
    };
    if worker.plane.roster.is_ending() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // Told now, the client opens its next connection elsewhere; cut later, it might lose a request.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Goes round until an upstream answers or nothing more may be tried.
async fn answer(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    mut inbound: Inbound,
    line: &mut Option<Box<Line>>,
) -> Result<Answer, Fault> {
    let draw = worker.random();
    let mut tries = 0;
    let mut avoid = None;
    loop {
        let snapshot = worker.snapshot();
        let view = View::new(&inbound.request, client);
        let index = snapshot.table.route(&view).ok_or(Fault::NoService)?;
        let service = &snapshot.table.services[index];
        let key = key_of(&service.settings, &view, draw);
        let assignment = service.assign(&view, key.hash).ok_or(Fault::Upstream(Failure::NoEndpoint))?;
        let judged = assignment.reason == Reason::Split && tries == 0;
        let place = Place { snapshot: Rc::clone(&snapshot), service: index, pool: assignment.pool, judged };
        if tries == 0 {
            worker.budget.borrow_mut().deposit(service.settings.retry.budget.basis_points());
        }
        if let Some(line) = line {
            line.assigned(service, assignment);
        }
        let Some(endpoint) = balance(worker, &service.settings, place.pool(), avoid) else {
            place.charge(worker.index, Failure::NoEndpoint);
            return Err(Fault::Upstream(Failure::NoEndpoint));
        };
        if let Some(line) = line {
            line.sent_to(&endpoint);
        }
        match forwarder::send(worker, client, &place, assignment, &endpoint, inbound).await {
            Ok(mut answer) => {
                answer.remember = key.cookie(&service.settings);
                return Ok(answer);
            }
            Err(Setback::TableMoved(back)) => inbound = back,
            Err(Setback::Failed { failure, repeat: Some(back) })
                if tries < service.settings.retry.attempts && worker.budget.borrow_mut().withdraw() =>
            {
                tracing::debug!(endpoint = %endpoint.address, failure = failure.name(), "retrying");
                place.retried(worker.index);
                tries += 1;
                avoid = Some(endpoint.id);
                inbound = back;
            }
            Err(Setback::Failed { failure, .. }) => return Err(Fault::Upstream(failure)),
            Err(Setback::ClientFailed) => return Err(Fault::BrokenBody),
        }
    }
}

/// Picks an endpoint of a pool, if possible not the one that just failed.
fn balance(worker: &Worker, settings: &settings::Service, pool: &Pool, avoid: Option<u64>) -> Option<Arc<Endpoint>> {
    let all = &pool.endpoints;
    let load = |at: usize| all[at].in_flight_of(worker.index).read() as u32;
    let (turn, random) = (worker.turn(), worker.random());
    let pick =
        |eligible: &dyn Fn(usize) -> bool| balance::pick(settings.balance, all.len(), turn, random, eligible, load);
    let fresh = pick(&|at| all[at].is_eligible() && Some(all[at].id) != avoid);
    fresh.or_else(|| pick(&|at| all[at].is_eligible())).map(|at| Arc::clone(&all[at]))
}

/// What a request falls by.
struct Key {
    hash: u64,
    /// The client has no sticky id yet: it gets this one.
    new_id: Option<u64>,
}

/// The key of a request under a service's rules; `draw` is fresh entropy, the same in every round.
fn key_of(settings: &settings::Service, view: &View<'_>, draw: u64) -> Key {
    let by = |value: Option<&str>| value.map_or(draw, |value| split::hash_bytes(value.as_bytes(), 0));
    if let Some(sticky) = &settings.sticky {
        let known = route::cookie(view, &sticky.cookie).filter(|id| is_sticky_id(id));
        let id = |id: u64| split::hash_bytes(sticky_id(id).as_bytes(), 0);
        return match known {
            Some(known) => Key { hash: by(Some(known)), new_id: None },
            None => Key { hash: id(draw), new_id: Some(draw) },
        };
    }
    let hash = match &settings.split_by {
        SplitBy::Request => draw,
        SplitBy::Client => match view.client().to_canonical() {
            std::net::IpAddr::V4(ip) => split::hash_bytes(&ip.octets(), 0),
            std::net::IpAddr::V6(ip) => split::hash_bytes(&ip.octets(), 0),
        },
        SplitBy::Header(name) => by(view.header(name)),
        SplitBy::Cookie(name) => by(route::cookie(view, name)),
    };
    Key { hash, new_id: None }
}

fn sticky_id(id: u64) -> String {
    format!("{id:016x}")
}

/// Only ids of our own making are taken back, so that a cookie cannot carry anything else into logs.
fn is_sticky_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl Key {
    /// The cookie that remembers a new client, never a pool: a rollback moves everyone (Decisions 8).
    fn cookie(&self, settings: &settings::Service) -> Option<HeaderValue> {
        let (sticky, id) = (settings.sticky.as_ref()?, self.new_id?);
        let age = sticky.max_age.map(|age| format!("; Max-Age={}", age.as_secs())).unwrap_or_default();
        HeaderValue::try_from(format!("{}={}; Path=/; HttpOnly; SameSite=Lax{age}", sticky.cookie, sticky_id(id))).ok()
    }
}

/// Adds the sticky cookie to an answer.
pub fn remember<B>(response: &mut Response<B>, cookie: Option<HeaderValue>) {
    if let Some(cookie) = cookie {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
}

fn begin_line(request: &Request<Incoming>, client: &Client, id: &RequestId) -> Box<Line> {
    let host = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let entry = Entry {
        at: clock::wall_millis(),
        client: Some(client.peer.ip()),
        method: request.method().clone(),
        host: host.to_owned(),
        path: request.uri().path().to_owned(),
        id: id.as_str().to_owned(),
        ..Entry::default()
    };
    Box::new(Line::new(clock::now(), entry))
}
