//! The life of one request, top to bottom, whatever wire it came over. Read this page first.
//!
//! [`handle`] takes a parsed head, then tries: route, override or split, balance, forward; a setback goes round again
//! if the request's [`course`](crate::proxy::course) says so. Every round decides on the current table, so a request that waited (for a slow
//! connect, for its retry) never follows a split that has meanwhile changed (Decisions 1). The client's side is a
//! [`Downstream`]: HTTP/1.1 and HTTP/2 differ in how they read and write, not in what is decided here.
//!
//! Invariant: a request is answered exactly once, and dispatched only where the current table allows it.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::bridge::admission::Shed;
use crate::bridge::balancer::Ask;
use crate::bridge::endpoint::Endpoint;
use crate::bridge::injection::Live;
use crate::bridge::table::{Destination, Pool};
use crate::clock;
use crate::config::settings::{self, SplitBy};
use crate::domain::forwarded::{self, Hop, Origin};
use crate::domain::outcome::Failure;
use crate::domain::retry::Trouble;
use crate::domain::route::{self, Action, Redirect, RequestView, Scheme, Vars};
use crate::domain::split;
use crate::proxy::access::{Line, Logged};
use crate::proxy::admission::Pass;
use crate::proxy::breaker;
use crate::proxy::connection::{Client, Waiter};
use crate::proxy::course::Course;
use crate::proxy::error::{self, Fault};
use crate::proxy::exchange::{Exchange, Upload};
use crate::proxy::forwarder::{self, Carried, Setback};
use crate::proxy::head::{Known, RequestHead, ResponseHead, Span, View};
use crate::proxy::hedge::{self, Hedged};
use crate::proxy::hop::{Additions, RequestId, Upward};
use crate::proxy::http1::framing::Framing;
use crate::proxy::injection::{self, Stood};
use crate::proxy::queue::{self, Turned};
use crate::proxy::recorder::Place;
use crate::proxy::reply::Reply;
use crate::proxy::worker::Worker;
use crate::telemetry::access_log::Entry;

/// Logged as the status of a request whose client went away before its answer began.
const GONE: u16 = 499;

/// A request that was accepted.
pub struct Request<'a> {
    /// Whose connection it came over.
    pub client: &'a Client,
    /// Its head.
    pub head: &'a RequestHead,
    /// Its id.
    pub id: RequestId,
    /// Where it came from, as far as who forwarded it is trusted.
    pub origin: Origin<'a>,
    /// Where its body ends.
    pub framing: Framing,
    /// It waits for a `100 Continue`.
    pub expects_continue: bool,
    /// The protocol it asks to switch to.
    pub upgrade: Option<Span>,
}

/// An upstream's answer, ready to go down.
pub struct Answer {
    /// The exchange, at its final response head.
    pub exchange: Exchange,
    /// What goes down beside the upstream's own fields.
    pub additions: Additions,
}

/// Why no upstream's answer goes down.
enum Refusal {
    /// Somebody is at fault.
    Fault(Fault),
    /// A fault that somebody injected stands in for the pool's answer.
    Injected(u16, Arc<Live>),
    /// The client is sent elsewhere.
    Redirect(Reply),
    /// The client is gone.
    Gone,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        Refusal::Fault(fault)
    }
}

impl From<Reply> for Refusal {
    fn from(redirect: Reply) -> Refusal {
        Refusal::Redirect(redirect)
    }
}

/// Whoever asks, until there is an answer.
pub trait Asker: Upload {
    /// Who the client is.
    fn client(&self) -> &Client;
    /// Reaches the task that waits.
    fn waiter(&self) -> Rc<Waiter>;
    /// Ready once the client is gone for certain.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// Sends an interim head down, if the client takes such.
    fn interim(&mut self, head: ResponseHead<'_>) -> impl Future<Output = ()>;
}

/// The client's side of one request.
pub trait Downstream: Asker {
    /// Sends an answer down, and returns how many bytes of its body went.
    fn deliver(&mut self, answer: Answer) -> impl Future<Output = u64>;
    /// Sends our own answer.
    fn reply(&mut self, reply: Reply) -> impl Future<Output = ()>;
}

impl<'a> Request<'a> {
    /// A request that `client` sent, without a body; the wire sets what it knows beyond that.
    pub fn new(worker: &Worker, client: &'a Client, head: &'a RequestHead) -> Request<'a> {
        let hop = Hop { peer: client.peer(), scheme: client.scheme(), host: head.host() };
        let origin = forwarded::origin(&worker.snapshot().table.client.trust, hop, head);
        let id = RequestId::of(head, worker);
        Request { client, head, id, origin, framing: Framing::None, expects_continue: false, upgrade: None }
    }
}

impl Request<'_> {
    /// What goes up of it.
    pub fn upward<'a>(&'a self, client: &'a Client, place: &'a Place) -> Upward<'a> {
        let Request { head, id, origin, expects_continue, .. } = self;
        let (upgrade, takes_trailers) = (self.switch(place), head.takes_trailers());
        Upward { head, client, origin, id, place, upgrade, expects_continue: *expects_continue, takes_trailers }
    }

    /// The protocol it asks to switch to, if its route lets it.
    pub fn switch(&self, place: &Place) -> Option<Span> {
        let allowed = |token: &Span| {
            std::str::from_utf8(token.of(&self.head.bytes)).is_ok_and(|token| place.route().allows_upgrade(token))
        };
        self.upgrade.filter(allowed)
    }

    /// A 101 answers what was asked, and names it.
    pub fn accepts_switch(&self, place: &Place, head: ResponseHead<'_>) -> bool {
        let asked = self.switch(place).map(|token| token.of(&self.head.bytes));
        let mut named = head.fields.known(Known::Upgrade);
        asked.is_some_and(|asked| named.next().is_some_and(|name| name.eq_ignore_ascii_case(asked)))
    }
}

/// Answers one request.
pub async fn handle<D: Downstream>(worker: &Rc<Worker>, request: Request<'_>, down: &mut D) {
    worker.tally().requests.add(1);
    let mut log = Logged::new(worker, || begin_line(&request));
    // Kept until the answer is out.
    let mut pass = Pass::default();
    match answer(worker, &request, down, &mut log, &mut pass).await {
        Ok(answer) => {
            log.status(answer.exchange.head().status);
            log.sent(down.deliver(answer).await);
        }
        Err(Refusal::Fault(fault)) => {
            log.status(fault.status());
            if fault.is_refusal() {
                worker.tally().refused.add(1);
            }
            down.reply(reply_to(fault, &request)).await;
        }
        Err(Refusal::Injected(status, by)) => {
            log.status(status);
            let mut reply = reply_to(Fault::Injected(status), &request);
            reply.fields.push((injection::FIELD.to_owned(), by.injection.name.as_bytes().to_vec()));
            down.reply(reply).await;
        }
        Err(Refusal::Redirect(reply)) => {
            log.status(reply.status);
            down.reply(reply).await;
        }
        Err(Refusal::Gone) => log.status(GONE),
    }
}

fn reply_to(fault: Fault, request: &Request<'_>) -> Reply {
    let id = request.id.text(request.head);
    match error::is_grpc(request.head.fields()) {
        true => Reply::to_grpc_fault(fault, id),
        false => Reply::to_fault(fault, id),
    }
}

/// Answers what is not even a request.
pub async fn refuse<D: Downstream>(worker: &Rc<Worker>, fault: Fault, down: &mut D) {
    worker.tally().refused.add(1);
    let id = RequestId::fresh(worker);
    down.reply(Reply::to_fault(fault, id.text(&RequestHead::default()))).await;
}

/// Why a round brought no answer.
enum Ended {
    /// Nothing was sent: the table changed. Decide anew.
    Moved,
    /// An attempt at this place failed.
    Failed(Place, Trouble),
    /// An injected fault answered with this status in place of this pool.
    Injected(Place, u16, Arc<Live>),
    /// No further round can change it.
    Refused(Refusal),
}

impl<R: Into<Refusal>> From<R> for Ended {
    fn from(refusal: R) -> Ended {
        Ended::Refused(refusal.into())
    }
}

/// Goes round until an upstream answers well enough or nothing more may be tried.
async fn answer<D: Downstream>(
    worker: &Rc<Worker>,
    request: &Request<'_>,
    down: &mut D,
    log: &mut Logged,
    pass: &mut Pass,
) -> Result<Answer, Refusal> {
    Pass::before_routing(worker)?;
    let mut course = Course::of(request, worker.random());
    loop {
        let refusal = match round(worker, request, down, log, pass, &mut course).await {
            Ok((place, answer)) => match course.takes(worker, &place, answer) {
                Some(answer) => return Ok(answer),
                None => None,
            },
            Err(Ended::Moved) => continue,
            Err(Ended::Failed(place, trouble)) if course.fails(worker, &place, trouble) => None,
            Err(Ended::Injected(place, status, _)) if course.fails_by(worker, &place, status) => None,
            Err(Ended::Injected(_, status, by)) => Some(Refusal::Injected(status, by)),
            Err(Ended::Failed(..)) => Some(Fault::Upstream(course.failure()).into()),
            Err(Ended::Refused(refusal)) => Some(refusal),
        };
        match refusal {
            Some(Refusal::Gone) => return Err(Refusal::Gone),
            Some(refusal) => return course.fall_back(worker).ok_or(refusal),
            None if course.waits(down).await => {}
            None => return Err(Refusal::Gone),
        }
    }
}

/// One attempt, by the current table.
async fn round<D: Downstream>(
    worker: &Rc<Worker>,
    request: &Request<'_>,
    down: &mut D,
    log: &mut Logged,
    pass: &mut Pass,
    course: &mut Course,
) -> Result<(Place, Answer), Ended> {
    let snapshot = worker.snapshot();
    let view = View::new(request.head, &request.origin);
    // Who spoke https to a trusted forwarder would be sent round in circles.
    if let Some(redirect) = down.client().redirect().filter(|_| view.scheme() == Scheme::Http) {
        return Err(redirected(redirect, &view)?.into());
    }
    let Destination { service: index, route } = snapshot.table.find(&view).map_err(Fault::Unrouted)?;
    let service = &snapshot.table.services[index];
    refuse_by(&service.settings, route, request, &view)?;
    pass.enter(worker, service, route, &view)?;
    let key = key_of(&service.settings, &view, course.draw);
    let assigned = course.assign(service, || service.assign(&view, key.hash));
    let assigned = assigned.ok_or_else(|| Fault::Upstream(course.failure()))?;
    let admitted = breaker::admit(worker, service, assigned);
    let assignment = admitted.unwrap_or(assigned);
    let snapshot = Rc::clone(&snapshot);
    let mut place = Place::new(snapshot, index, route, assignment.pool);
    course.enters(worker, &mut place, assignment);
    log.assigned(service, assignment, course.rescued_from());
    if let Err(blocked) = admitted {
        place.charge(worker.index, Failure::NoEndpoint);
        return Err(Fault::blocked(blocked).into());
    }
    match queue::enter(worker.index, &place, down).await {
        Ok(seat) => place.seat = seat,
        Err(Turned::ClientGone) => return Err(Refusal::Gone.into()),
        // Another try would only queue again; the active pool may have room for what a canary has none for.
        Err(Turned::Away(_)) => {
            place.charge(worker.index, Failure::NoEndpoint);
            return Err(Ended::Failed(place, Trouble::NoEndpoint));
        }
    }
    let Some(endpoint) = balance(worker, place.pool(), &view, course.tried()) else {
        place.charge(worker.index, Failure::NoEndpoint);
        return Err(Ended::Failed(place, Trouble::NoEndpoint));
    };
    log.sent_to(&endpoint);
    let (begun, fault) = match injection::inject(worker, &place, assignment, &endpoint, &view, down).await {
        Ok(begun) => begun,
        Err(Stood::TableMoved) => return Err(Ended::Moved),
        Err(Stood::Aborted(status, by)) => return Err(Ended::Injected(place, status, by)),
        Err(Stood::TimedOut) => return Err(Ended::Failed(place, Trouble::Timeout)),
        Err(Stood::Cut) => return Err(Fault::Drained.into()),
        Err(Stood::ClientGone) => return Err(Refusal::Gone.into()),
    };
    // What a fault delays has waited for its attempt already.
    let hedge = if course.is_first() && begun.is_none() { hedge::delay(request, &place) } else { None };
    let (endpoint, sent) = match hedge {
        None => {
            let carried = Carried { begun, replay: &mut course.replay };
            let sent = forwarder::send(worker, request, &place, assignment, &endpoint, carried, down).await;
            (endpoint, sent)
        }
        Some(delay) => {
            let hedged = Hedged { worker, request, place: &place, assignment, endpoint: &endpoint, delay };
            let rival = || {
                let other = balance(worker, place.pool(), &view, &[endpoint.id]);
                other.filter(|other| other.id != endpoint.id)
            };
            let (answered, sent) = Box::pin(hedged.send(down, rival)).await;
            if answered.id != endpoint.id {
                log.sent_to(&answered);
            }
            (answered, sent)
        }
    };
    if !matches!(sent, Err(Setback::TableMoved)) {
        course.was_at(endpoint.id);
    }
    match sent {
        Ok(exchange) => {
            let id = request.id.text(request.head);
            let mut additions = Additions::new(key.cookie(&service.settings), &place, request.origin.client, id);
            additions.fault = fault;
            Ok((place, Answer { exchange, additions }))
        }
        Err(Setback::TableMoved) => Err(Ended::Moved),
        Err(Setback::Failed(trouble)) => Err(Ended::Failed(place, trouble)),
        Err(Setback::ClientFailed(fault)) => Err(fault.into()),
        Err(Setback::ClientGone) => Err(Refusal::Gone.into()),
        Err(Setback::Exhausted) => {
            worker.tally().shed[Shed::Resources as usize].add(1);
            Err(Fault::Overloaded.into())
        }
    }
}

/// What a service's route of this index says before anything is sent.
fn refuse_by(service: &settings::Service, route: usize, request: &Request<'_>, view: &View<'_>) -> Result<(), Refusal> {
    let route = &service.routes.all()[route];
    if route.limits.refuses_head(request.head.bytes.len(), request.head.list.len()) {
        return Err(Fault::LargeHead.into());
    }
    if let Framing::Length(length) = request.framing
        && route.limits.refuses_body(length)
    {
        return Err(Fault::LargeBody.into());
    }
    let Action::Redirect(redirect) = &route.action else { return Ok(()) };
    let mut reply = redirected(redirect, view)?;
    let request_id = request.id.text(request.head);
    let (client, service, route_name) = (view.client(), &service.name, &route.name);
    let vars = Vars { pool: "", version: "", service, route: route_name, request_id, client };
    reply.edit(&route.response_headers, &vars);
    Err(reply.into())
}

fn redirected(redirect: &Redirect, view: &View<'_>) -> Result<Reply, Fault> {
    let location = redirect.location(view).ok_or(Fault::BadRequest("no Host to redirect to"))?;
    Ok(Reply::redirect(redirect, location))
}

/// Picks an endpoint of a pool, if possible none of `avoid`.
fn balance(worker: &Worker, pool: &Pool, view: &View<'_>, avoid: &[u64]) -> Option<Arc<Endpoint>> {
    let plan = pool.balancer.plan();
    let key = plan.key().and_then(|key| key.of(view));
    let now = if plan.heeds_time() { clock::now().0 } else { 0 };
    let ask = Ask { worker: worker.index, key, random: worker.random(), now, avoid };
    pool.balancer.pick(&pool.endpoints, ask).map(Arc::clone)
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
    fn cookie(&self, settings: &settings::Service) -> Option<String> {
        let (sticky, id) = (settings.sticky.as_ref()?, self.new_id?);
        let age = sticky.max_age.map(|age| format!("; Max-Age={}", age.as_secs())).unwrap_or_default();
        Some(format!("{}={}; Path=/; HttpOnly; SameSite=Lax{age}", sticky.cookie, sticky_id(id)))
    }
}

fn begin_line(request: &Request<'_>) -> Box<Line> {
    let view = View::new(request.head, &request.origin);
    let entry = Entry {
        at: clock::wall_millis(),
        client: Some(request.origin.client),
        method: view.method().to_owned(),
        host: view.header("host").unwrap_or_default().to_owned(),
        path: view.path().to_owned(),
        id: request.id.text(request.head).to_owned(),
        ..Entry::default()
    };
    Box::new(Line::new(clock::now(), entry))
}
