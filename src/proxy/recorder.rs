//! Recording: every attempt that is in flight, and what is booked of it when.
//!
//! An attempt is dispatched, gets a response head, and ends. For each latency mark it enters the books when its
//! head comes or when it is older than the mark, whichever is first (Decisions 4): a sweep over the attempts in
//! flight books the hung ones, and the same sweep finds those past their timeouts, so no request owns a timer.
//! For errors it enters the books when it fails or ends, or once it has streamed for [`STREAM_SETTLES`]: a
//! stream of hours is a success long before it closes. What the client breaks off is no error; the marks it had passed by then stay booked.
//!
//! Invariant: an attempt is booked at most once per mark and at most once for errors, in the book of the epoch
//! it was dispatched under.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::bridge::ejection;
use crate::bridge::endpoint::Endpoint;
use crate::bridge::observations::{Cell as ObservedCell, PoolTally};
use crate::bridge::room::Taken;
use crate::bridge::streams::{Kind, Stream, Streams};
use crate::bridge::table::{Pool, Service};
use crate::clock::{self, Micros};
use crate::config::settings::{self, Timeouts};
use crate::domain::analysis::MARKS;
use crate::domain::outcome::{Failure, Outcome};
use crate::domain::rescue::Refused;
use crate::domain::route::{Route, Vars};
use crate::domain::upload::Pace;
use crate::proxy::breaker::Trials;
use crate::proxy::connection::Waiter;
use crate::proxy::worker::{Snapshot, Worker};

/// After this long of streaming an answer counts as good.
pub const STREAM_SETTLES: Duration = Duration::from_secs(10);

/// Where an attempt goes: indices into a snapshot, which it keeps alive.
#[derive(Clone)]
pub struct Place {
    /// The snapshot that the indices belong to.
    pub snapshot: Rc<Snapshot>,
    /// Index of the service.
    pub service: usize,
    /// Index of the route within the service.
    pub route: usize,
    /// Index of the pool within the service.
    pub pool: usize,
    /// The split sent it, so the judge may count it (Decisions 3).
    pub judged: bool,
    /// Its place among the pool's requests in flight, where those are limited.
    pub seat: Option<Rc<Taken>>,
    /// How long its response head is waited for.
    pub patience: Patience,
}

/// How long a response head is waited for, where that differs from the route's timeouts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    /// Then the attempt is given up, because another one may follow.
    pub cut: Option<Duration>,
    /// Then the attempt counts as bad, given up or not.
    pub bad: Option<Duration>,
}

impl Place {
    /// A place that the judge does not count, with the patience of its route.
    pub fn new(snapshot: Rc<Snapshot>, service: usize, route: usize, pool: usize) -> Place {
        Place { snapshot, service, route, pool, judged: false, seat: None, patience: Patience::default() }
    }

    /// The service.
    pub fn service(&self) -> &Service {
        &self.snapshot.table.services[self.service]
    }

    /// The pool.
    pub fn pool(&self) -> &Pool {
        &self.service().pools[self.pool]
    }

    /// The pool's definition.
    pub fn settings(&self) -> &settings::Pool {
        &self.service().settings.pools[self.pool]
    }

    /// The route.
    pub fn route(&self) -> &Route {
        &self.service().settings.routes.all()[self.route]
    }

    /// The timeouts that its requests have.
    pub fn timeouts(&self) -> Timeouts {
        self.service().settings.timeouts_of(self.route())
    }

    /// What header edits may name.
    pub fn vars<'a>(&'a self, request_id: &'a str, client: IpAddr) -> Vars<'a> {
        let version = self.settings().version.as_deref().unwrap_or_default();
        let (service, route) = (&self.service().settings.name, &self.route().name);
        Vars { pool: &self.pool().name, version, service, route, request_id, client }
    }

    fn cell(&self, worker: usize) -> &ObservedCell {
        self.service().book.cell(worker, self.pool)
    }

    fn tally(&self, worker: usize) -> &PoolTally {
        self.pool().tally.of(worker)
    }

    /// An attempt that failed before anything could be dispatched.
    pub fn charge(&self, worker: usize, failure: Failure) {
        self.tally(worker).failures[failure as usize].add(1);
        if self.judged {
            self.cell(worker).settled(true);
        }
    }

    /// A further attempt after a failed one.
    pub fn retried(&self, worker: usize) {
        self.tally(worker).retries.add(1);
    }

    /// A second attempt beside one that takes long.
    pub fn hedged(&self, worker: usize) {
        self.tally(worker).hedges.add(1);
    }

    /// The second attempt answered first.
    pub fn hedge_won(&self, worker: usize) {
        self.tally(worker).hedge_wins.add(1);
    }

    /// What failed here was answered by the active pool.
    pub fn rescued(&self, worker: usize) {
        self.tally(worker).rescued.add(1);
        self.cell(worker).rescued();
    }

    /// What failed here would have been, but for this reason.
    pub fn unrescued(&self, worker: usize, refused: Refused) {
        self.tally(worker).unrescued[refused as usize].add(1);
    }

    /// When an attempt that was dispatched, or last moved, at `moment` is given up without a response head, and when it
    /// counts as bad.
    fn head_by(&self, moment: Micros) -> (Micros, Micros) {
        let head = self.timeouts().head;
        let by = |limit: Option<Duration>| limit.map_or(Micros(u64::MAX), |limit| moment.after(limit));
        (moment.after(head).min(by(self.patience.cut)), by(self.patience.bad))
    }
}

/// The attempts in flight on one worker.
#[derive(Default)]
pub struct InFlight(RefCell<Slab<Entry>>);

struct Entry {
    place: Place,
    endpoint: Arc<Endpoint>,
    waiter: Rc<Waiter>,
    trials: Trials,
    upload: Upload,
    dispatched: Micros,
    /// When the attempt is given up in its present phase.
    deadline: Micros,
    /// When it counts as bad, if there is no response head by then.
    bad_from: Micros,
    /// When it is given up whatever its phase.
    last_call: Micros,
    phase: Phase,
    idle: Duration,
    /// Bit per mark: booked already, or not to be booked.
    marked: u8,
    settled: bool,
    /// The endpoint has its mark for it.
    noted: bool,
    moved: bool,
    /// The next byte of the answer is the upstream's to send.
    waiting: bool,
    expired: bool,
    /// Expired by an order, which is nobody's fault.
    cut: bool,
    client: IpAddr,
    kind: Kind,
    /// Bytes up and down.
    bytes: (u64, u64),
    /// It has been streaming for long.
    is_long: bool,
    /// Its place among the long streams, as far as there was one.
    listed: Option<(usize, Arc<Stream>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Waiting for the response head.
    Head,
    /// The response streams since then.
    Body(Micros),
    /// The response waits for whether another attempt brings a better one.
    Resting,
    /// A tunnel, which watches itself.
    Tunnel,
}

const ALL_MARKED: u8 = u8::MAX;
const _: () = assert!(MARKS <= 8, "one bit per mark");

/// What is known of a request's body on its way up.
#[derive(Default, Debug)]
struct Upload {
    /// Bytes went up since the last sweep.
    moved: bool,
    /// The client stalled: not the upstream's fault.
    client_failed: bool,
    /// The next byte is the client's to send.
    waiting: bool,
    pace: Pace,
}

/// An attempt in flight. Dropping it without a word means the client went away: neutral.
pub struct Attempt {
    worker: Rc<Worker>,
    key: usize,
}

impl InFlight {
    /// How many attempts are in flight.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// True if nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Cuts whatever is in flight; how many that were.
    pub fn cut(&self) -> u64 {
        self.0.borrow_mut().iter_mut().map(|(_, entry)| u64::from(entry.cut())).sum()
    }

    /// Books what passed a mark, wakes what passed a deadline, and cuts what is at an endpoint that was cut off; how many.
    pub fn sweep(&self, worker: usize, streams: &Streams, now: Micros) -> u64 {
        let mut cut = 0;
        for (_, entry) in self.0.borrow_mut().iter_mut() {
            match entry.endpoint.is_cut() {
                true => cut += u64::from(entry.cut()),
                false => {
                    entry.sweep(worker, now);
                    entry.grow_old(worker, streams, now);
                }
            }
        }
        cut
    }
}

impl Entry {
    fn sweep(&mut self, worker: usize, now: Micros) {
        let uploaded = std::mem::take(&mut self.upload.moved);
        if self.upload.waiting {
            // What the client takes its time over says nothing about the pool.
            self.marked = ALL_MARKED;
            self.trials.excuse();
        }
        match self.phase {
            Phase::Tunnel | Phase::Resting => return,
            Phase::Head if uploaded => (self.deadline, self.bad_from) = self.place.head_by(now),
            Phase::Head => {
                let age = now.since(self.dispatched);
                self.mark(worker, age, true);
                self.trials.waits(&self.place, &self.endpoint, worker, now, age);
                if now > self.bad_from {
                    self.settle(worker, true);
                }
            }
            Phase::Body(since) => {
                if std::mem::take(&mut self.moved) || uploaded {
                    self.deadline = now.after(self.idle);
                }
                if now > since.after(STREAM_SETTLES) {
                    self.settle(worker, false);
                }
            }
        }
        let least = self.place.snapshot.table.client.min_upload_rate;
        if least.is_some_and(|least| self.upload.pace.is_too_slow(now.0, self.upload.waiting, least.get() as u64)) {
            self.deadline = Micros(0);
        }
        if now > self.deadline.min(self.last_call) && !self.expired {
            self.upload.client_failed = self.upload.waiting;
            self.expire();
        }
    }

    /// Enters what has been streaming for long among the long streams, and keeps its bytes there up to date.
    fn grow_old(&mut self, worker: usize, streams: &Streams, now: Micros) {
        if self.phase == Phase::Head || now <= self.dispatched.after(STREAM_SETTLES) {
            return;
        }
        if !std::mem::replace(&mut self.is_long, true) {
            self.place.tally(worker).streams.add(1);
        }
        if self.listed.is_none() {
            let place = &self.place;
            self.listed = streams.enter(worker, || {
                let kind = if self.phase == Phase::Tunnel { Kind::Tunnel } else { self.kind };
                let named = (place.service().settings.name.as_str(), place.pool().name.as_str());
                Stream::new((named.0, named.1, self.endpoint.to_string()), kind, self.client, self.dispatched.0)
            });
        }
        if let Some((_, stream)) = &self.listed {
            stream.moved(self.bytes.0, self.bytes.1);
        }
    }

    fn expire(&mut self) {
        self.expired = true;
        let unread = matches!(self.phase, Phase::Body(_)) && !self.waiting;
        if unread { self.waiter.give_up() } else { self.waiter.wake() }
    }

    /// Ends it by an order; true the first time.
    fn cut(&mut self) -> bool {
        if std::mem::replace(&mut self.cut, true) {
            return false;
        }
        self.expire();
        true
    }

    /// Books the marks that are decided at this age: all of them once the head is there, else those passed.
    fn mark(&mut self, worker: usize, age: u64, waiting: bool) {
        if self.marked == ALL_MARKED {
            return;
        }
        let service = self.place.service();
        let Some(marks) = service.book.marks_for(self.place.pool) else { return };
        let cell = service.book.cell(worker, self.place.pool);
        for (at, mark) in marks.iter().enumerate() {
            let slow = age > *mark;
            if self.marked & (1 << at) == 0 && (slow || !waiting) {
                self.marked |= 1 << at;
                cell.marked(at, slow);
            }
        }
    }

    /// Tells everybody who keeps count of the endpoint or the pool by their outcomes.
    fn report(&mut self, worker: usize, now: Micros, outcome: Outcome) {
        self.endpoint.turned_out(worker, now.0, outcome);
        self.trials.report(&self.place, &self.endpoint, worker, now, outcome);
        if !self.noted {
            self.noted = ejection::turned_out(self.place.pool(), &self.endpoint, worker, now.0, outcome);
        }
    }

    fn settle(&mut self, worker: usize, bad: bool) {
        if self.place.judged && !self.settled {
            self.place.cell(worker).settled(bad);
        }
        self.settled = true;
        if !bad && !self.noted {
            self.noted = true;
            ejection::went_well(self.place.pool(), &self.endpoint, worker);
        }
    }
}

impl Attempt {
    /// The moment of dispatch.
    pub fn begin(
        worker: &Rc<Worker>,
        waiter: &Rc<Waiter>,
        place: Place,
        endpoint: Arc<Endpoint>,
        client: IpAddr,
        trials: Trials,
    ) -> Attempt {
        let now = clock::now();
        let service = place.service();
        let Timeouts { request, idle, .. } = place.timeouts();
        let (deadline, bad_from) = place.head_by(now);
        let last_call = request.map_or(Micros(u64::MAX), |limit| now.after(limit));
        // Whether latency counts is settled here, not by how the request turns out.
        let marked = if place.judged && service.book.marks().is_some() { 0 } else { ALL_MARKED };
        place.tally(worker.index).in_flight.add(1);
        endpoint.in_flight_of(worker.index).add(1);
        if place.judged {
            place.cell(worker.index).opened();
        }
        let entry = Entry {
            waiter: Rc::clone(waiter),
            trials,
            upload: Upload { pace: Pace::begin(now.0), ..Upload::default() },
            dispatched: now,
            deadline,
            bad_from,
            last_call,
            phase: Phase::Head,
            idle,
            marked,
            settled: false,
            noted: false,
            moved: false,
            waiting: false,
            expired: false,
            cut: false,
            client,
            kind: Kind::Answer,
            bytes: (0, 0),
            is_long: false,
            listed: None,
            place,
            endpoint,
        };
        let key = worker.in_flight.0.borrow_mut().insert(entry);
        worker.stir();
        Attempt { worker: Rc::clone(worker), key }
    }

    /// The response head came, of an answer of this kind. An answer of 500 or above is a failure of the pool.
    pub fn head(&self, status: u16, kind: Kind) {
        let (worker, now) = (self.worker.index, clock::now());
        self.with(|entry| {
            let age = now.since(entry.dispatched);
            entry.report(worker, now, Outcome::Answered { status, latency: age });
            let tally = entry.place.tally(worker);
            tally.classes[usize::from(status / 100).clamp(1, 5) - 1].add(1);
            if status >= 500 {
                entry.settle(worker, true);
            } else {
                tally.took(age);
                entry.mark(worker, age, false);
            }
            entry.marked = ALL_MARKED;
            entry.phase = Phase::Body(now);
            entry.kind = kind;
            entry.deadline = now.after(entry.idle);
        });
    }

    /// The response waits: its client is not the one to be waited for, nor is its upstream.
    pub fn rests(&self) {
        self.with(|entry| entry.phase = Phase::Resting);
    }

    /// The response goes down after all.
    pub fn resumes(&self) {
        let now = clock::now();
        self.with(|entry| {
            entry.phase = Phase::Body(now);
            entry.deadline = now.after(entry.idle);
        });
    }

    /// So many bytes of the response moved on towards the client.
    pub fn moved(&self, bytes: usize) {
        self.with(|entry| {
            entry.moved = true;
            entry.bytes.1 += bytes as u64;
        });
    }

    /// Whether the next bytes of the response are the upstream's to send.
    pub fn waits(&self, waits: bool) {
        self.with(|entry| entry.waiting = waits);
    }

    /// So many bytes of the request went up.
    pub fn upload_moved(&self, bytes: usize) {
        self.with(|entry| {
            entry.upload.moved = true;
            entry.upload.pace.came(bytes as u64);
            entry.bytes.0 += bytes as u64;
        });
    }

    /// Whether the next bytes of the request are the client's to send.
    pub fn upload_waits(&self, waits: bool) {
        self.with(|entry| entry.upload.waiting = waits);
    }

    /// The client stalled its upload: what went wrong is its fault.
    pub fn blames_client(&self) -> bool {
        self.with(|entry| entry.upload.client_failed)
    }

    /// Past a timeout? The sweep decides; the client's task asks when it is woken.
    pub fn is_expired(&self) -> bool {
        self.with(|entry| entry.expired)
    }

    /// It was cut by an order, which is nobody's fault.
    pub fn is_cut(&self) -> bool {
        self.with(|entry| entry.cut)
    }

    /// Whom the sweep wakes.
    pub fn waiter(&self) -> Rc<Waiter> {
        self.with(|entry| Rc::clone(&entry.waiter))
    }

    /// The connection became a tunnel: good for the judge, in flight until it closes.
    pub fn tunnels(&self) {
        let worker = self.worker.index;
        self.with(|entry| {
            entry.settle(worker, false);
            entry.phase = Phase::Tunnel;
        });
    }

    /// The response is complete.
    pub fn complete(self) {
        let worker = self.worker.index;
        self.with(|entry| entry.settle(worker, false));
    }

    /// The attempt goes on, and owes these trials to the breakers.
    pub fn owing(self, trials: Trials) -> Attempt {
        self.with(|entry| entry.trials = trials);
        self
    }

    /// An injected fault answered in place of the pool, or let it run out of time: booked as the pool's own, while
    /// nothing is said of the endpoint, which had no part in it.
    pub fn stood_in(self, outcome: Outcome) {
        let (worker, now) = (self.worker.index, clock::now());
        self.with(|entry| {
            let tally = entry.place.tally(worker);
            match outcome {
                Outcome::Answered { status, .. } => tally.classes[usize::from(status / 100).clamp(1, 5) - 1].add(1),
                Outcome::Failed(failure) => tally.failures[failure as usize].add(1),
            }
            if !outcome.is_bad() {
                entry.mark(worker, now.since(entry.dispatched), false);
            }
            // Nobody who counts the endpoint's results is told.
            entry.noted = true;
            entry.trials.report_for_pool(&entry.place, worker, now, outcome);
            entry.settle(worker, outcome.is_bad());
        });
    }

    /// How long it has been going on, in microseconds.
    pub fn age(&self) -> u64 {
        let now = clock::now();
        self.with(|entry| now.since(entry.dispatched))
    }

    /// The attempt failed by the upstream's fault.
    pub fn fail(self, failure: Failure) {
        let worker = self.worker.index;
        self.with(|entry| {
            entry.place.tally(worker).failures[failure as usize].add(1);
            entry.report(worker, clock::now(), Outcome::Failed(failure));
            entry.settle(worker, true);
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Entry) -> T) -> T {
        act(&mut self.worker.in_flight.0.borrow_mut()[self.key])
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut entry = self.worker.in_flight.0.borrow_mut().remove(self.key);
        let worker = self.worker.index;
        if entry.is_long {
            entry.place.tally(worker).streams.subtract(1);
        }
        if let Some((key, _)) = entry.listed {
            self.worker.plane.streams.leave(worker, key);
        }
        entry.place.tally(worker).in_flight.subtract(1);
        entry.endpoint.in_flight_of(worker).subtract(1);
        if entry.place.judged {
            entry.place.cell(worker).closed();
        }
        entry.trials.give_back(&entry.place, &entry.endpoint);
    }
}
