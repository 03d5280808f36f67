//! A worker: one OS thread of the data plane with everything a request needs on that thread.
//!
//! It caches the routing table as an `Rc`, so that holding a snapshot touches no memory another worker writes.
//! A watcher task swaps the cache when the publisher wakes it and reports the version. Because the worker runs
//! one task at a time, nothing can be dispatched by the old table once the swap is done: that is what makes the
//! report an acknowledgement (Decisions 1).
//!
//! Invariant: the cached snapshot is only replaced by the watcher, and only by a newer one.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tokio::sync::Notify;

use crate::bridge::table::{Plane, Table, WorkerTally};
use crate::clock::{self, Micros};
use crate::domain::farewell::Pace;
use crate::proxy::access::AccessBuffer;
use crate::proxy::buffer::Buffers;
use crate::proxy::connection::Client;
use crate::proxy::http2::names::Names;
use crate::proxy::lag::Lag;
use crate::proxy::listener::{self, Listening};
use crate::proxy::recorder::InFlight;
use crate::proxy::upstream::Connections;

/// How often attempts in flight are swept: the grain of timeouts and of hung-request detection.
const SWEEP: Duration = Duration::from_millis(10);
/// How often an idle worker looks at its idle connections.
const IDLE_SWEEP: Duration = Duration::from_millis(250);
/// How often clients are looked at while the worker drains: the grain of farewells.
const FAREWELL_SWEEP: Duration = Duration::from_millis(50);
/// For what is said to clients that were cut.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Sweeps without anything in flight before the worker slows down.
const QUIET_SWEEPS: u32 = 100;

/// One worker's view of the table.
#[derive(Debug)]
pub struct Snapshot {
    /// The table.
    pub table: Arc<Table>,
}

/// Everything of one worker; lives on its thread only.
pub struct Worker {
    /// Its number, from 0.
    pub index: usize,
    /// What it shares with the control plane.
    pub plane: Arc<Plane>,
    /// The attempts in flight.
    pub in_flight: InFlight,
    /// Free buffers.
    pub buffers: Buffers,
    /// Names of answers' fields that came lately.
    pub names: Names,
    /// Idle upstream connections.
    pub connections: Connections,
    /// Open client connections.
    clients: RefCell<Slab<Seat>>,
    /// Finished requests on their way to the access log; `None` when it is off.
    pub access: Option<AccessBuffer>,
    snapshot: RefCell<Rc<Snapshot>>,
    random: Cell<u64>,
    draining: Cell<Option<Micros>>,
    /// Clients that were told to go since then.
    told: Cell<usize>,
    drains: Notify,
    lag: Lag,
    quiet: Cell<bool>,
    stirred: Notify,
    emptied: Notify,
}

/// A client connection, and whether it is counted as busy.
struct Seat {
    client: Rc<Client>,
    busy: Cell<bool>,
}

/// What a worker thread is started with.
pub struct Start {
    /// Its number.
    pub index: usize,
    /// What it shares with the control plane.
    pub plane: Arc<Plane>,
    /// Its own listeners with their numbers, bound but not yet accepting.
    pub listeners: Vec<(usize, Listening)>,
    /// Where its access log lines go.
    pub access: Option<AccessBuffer>,
}

/// Runs a worker until it has drained; blocks the thread.
///
/// # Errors
/// When the runtime cannot be built or a listener cannot be registered.
pub fn run(start: Start) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async move {
        let worker = Rc::new(Worker::new(&start));
        worker.take_up();
        worker.plane.handover.open(worker.index);
        let receiving = tokio::task::spawn_local(listener::receive(Rc::clone(&worker)));
        let accepting = start.listeners.into_iter();
        let accepting = accepting.map(|(number, socket)| listener::accept(Rc::clone(&worker), number, socket));
        let accepting: Vec<_> = accepting.collect::<std::io::Result<_>>()?;
        let accepting: Vec<_> = accepting.into_iter().map(tokio::task::spawn_local).collect();
        let sweeping = tokio::task::spawn_local(sweep(Rc::clone(&worker)));
        watch(&worker).await;
        let drained = async {
            for task in accepting {
                let _ = task.await;
            }
            listener::receive_last(&worker);
            worker.drained().await;
        };
        let grace = worker.plane.roster.ending().map_or(Duration::ZERO, |ending| ending.grace);
        if tokio::time::timeout(grace, drained).await.is_err() {
            worker.cut_rest();
            // What was cut is told, as far as it reads.
            let _ = tokio::time::timeout(LAST_WORDS, worker.drained()).await;
        }
        receiving.abort();
        sweeping.abort();
        Ok(())
    })
}

/// Takes up every new table until the process drains.
async fn watch(worker: &Rc<Worker>) {
    while !worker.plane.roster.is_draining() {
        worker.plane.roster.woken(worker.index).await;
        worker.take_up();
    }
    worker.draining.set(Some(clock::now()));
    worker.drains.notify_waiters();
    worker.stir();
    // Tables still change while the last requests end: rollbacks included.
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        loop {
            worker.plane.roster.woken(worker.index).await;
            worker.take_up();
        }
    });
}

/// Sweeps attempts, idle connections and silent clients.
async fn sweep(worker: Rc<Worker>) {
    let mut without = 0;
    let mut housekeeping = clock::now();
    loop {
        let pace = if worker.quiet.get() { IDLE_SWEEP } else { SWEEP };
        let before = clock::now();
        let slept = tokio::time::timeout(pace, worker.stirred.notified()).await.is_err();
        let now = clock::now();
        if slept {
            worker.tally().lag.set(worker.lag.woken(now, pace, now.since(before)));
        }
        worker.tally().cut.add(worker.in_flight.sweep(worker.index, &worker.plane.streams, now));
        without = if worker.in_flight.is_empty() { without + 1 } else { 0 };
        worker.quiet.set(without > QUIET_SWEEPS && !worker.is_draining());
        let pause = if worker.is_draining() { FAREWELL_SWEEP } else { IDLE_SWEEP };
        if now.since(housekeeping) >= pause.as_micros() as u64 {
            housekeeping = now;
            worker.connections.sweep(now);
            if worker.quiet.get() {
                worker.buffers.shrink();
            }
            worker.sweep_clients(now);
        }
        if let Some(access) = &worker.access {
            access.flush(&worker.tally().log_dropped);
        }
    }
}

impl Worker {
    fn new(start: &Start) -> Worker {
        Worker {
            index: start.index,
            plane: Arc::clone(&start.plane),
            in_flight: InFlight::default(),
            buffers: Buffers::default(),
            names: Names::default(),
            connections: Connections::default(),
            clients: RefCell::default(),
            access: start.access.clone(),
            snapshot: RefCell::new(Rc::new(Snapshot { table: Arc::new(Table::empty()) })),
            random: Cell::new(fastrand::u64(..) | 1),
            draining: Cell::default(),
            told: Cell::default(),
            drains: Notify::new(),
            lag: Lag::default(),
            quiet: Cell::default(),
            stirred: Notify::new(),
            emptied: Notify::new(),
        }
    }

    /// A worker that no thread runs, by the plane's current table: for whoever drives a connection by hand.
    pub fn alone(plane: &Arc<Plane>) -> Rc<Worker> {
        let plane = Arc::clone(plane);
        let start = Start { index: 0, plane, listeners: Vec::new(), access: None };
        let worker = Worker::new(&start);
        worker.take_up();
        Rc::new(worker)
    }

    /// The current snapshot.
    pub fn snapshot(&self) -> Rc<Snapshot> {
        Rc::clone(&self.snapshot.borrow())
    }

    /// True if this worker's share of the requests that may be in flight is taken.
    pub fn is_full(&self, most: NonZeroUsize) -> bool {
        self.in_flight.len() >= most.get().div_ceil(self.plane.workers.iter().count())
    }

    /// How late its loop runs, and not just once, in microseconds.
    pub fn lasting_lag(&self) -> u64 {
        self.lag.lasting()
    }

    /// True if `snapshot` is still the current one.
    pub fn is_current(&self, snapshot: &Rc<Snapshot>) -> bool {
        Rc::ptr_eq(snapshot, &self.snapshot.borrow())
    }

    fn take_up(&self) {
        let table = self.plane.table.load_full();
        let version = table.version;
        // The old snapshot is let go after the swap, outside the borrow.
        let old = self.snapshot.replace(Rc::new(Snapshot { table }));
        drop(old);
        self.connections.let_go();
        self.plane.roster.report(self.index, version);
    }

    /// This worker's own counters.
    pub fn tally(&self) -> &WorkerTally {
        self.plane.workers.of(self.index)
    }

    /// Fresh pseudo-random bits (xorshift64*): for balancing and request ids, never for secrets.
    pub fn random(&self) -> u64 {
        let mut x = self.random.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.random.set(x);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// No new requests: answer what is there and close.
    pub fn is_draining(&self) -> bool {
        self.draining.get().is_some()
    }

    /// Returns once the worker drains.
    pub async fn drains(&self) {
        let drains = self.drains.notified();
        if !self.is_draining() {
            drains.await;
        }
    }

    /// Something is in flight: sweep at full pace.
    pub fn stir(&self) {
        if self.quiet.replace(false) {
            self.stirred.notify_one();
        }
    }

    /// A client connection begins to be served. It was counted as open and busy when it was placed here.
    pub fn join(&self, client: &Rc<Client>) -> usize {
        self.tally().accepted.add(1);
        self.clients.borrow_mut().insert(Seat { client: Rc::clone(client), busy: Cell::new(true) })
    }

    /// A client connection closed.
    pub fn leave(&self, key: usize) {
        let seat = self.clients.borrow_mut().remove(key);
        self.plane.handover.left(self.index, seat.busy.get());
        if self.clients.borrow().is_empty() {
            self.emptied.notify_one();
        }
    }

    fn sweep_clients(&self, now: Micros) {
        if let Some(began) = self.draining.get() {
            self.bid_farewell(now, began);
        }
        let snapshot = self.snapshot();
        let mut busier = 0;
        for (_, Seat { client, busy }) in self.clients.borrow().iter() {
            let is_busy = client.is_busy(now);
            busier += i32::from(is_busy) - i32::from(busy.replace(is_busy));
            if let Some(closed) = client.sweep(now, &snapshot.table.client) {
                self.tally().closed[closed as usize].add(1);
            }
        }
        self.plane.handover.busier(self.index, busier);
    }

    /// Tells as many clients to go as it is time for, idle ones first: they have nothing to finish.
    fn bid_farewell(&self, now: Micros, began: Micros) {
        let Some(ending) = self.plane.roster.ending() else { return };
        let pace = Pace { per_second: ending.pace, grace: ending.grace };
        let clients = self.clients.borrow();
        let staying = || clients.iter().map(|(_, seat)| &seat.client).filter(|client| !client.is_leaving());
        let connections = self.told.get() + staying().count();
        let workers = self.plane.workers.iter().count();
        let due = pace.told(connections, workers, now.since(began)).saturating_sub(self.told.get());
        let idle = staying().filter(|client| client.is_idle());
        let busy = staying().filter(|client| !client.is_idle());
        let told = idle.chain(busy).take(due).inspect(|client| client.leave(now)).count();
        self.told.set(self.told.get() + told);
    }

    /// The time is over: cuts what is in flight, and every connection.
    fn cut_rest(&self) {
        self.tally().cut.add(self.in_flight.cut());
        self.clients.borrow().iter().for_each(|(_, seat)| seat.client.cut_off());
    }

    async fn drained(&self) {
        while !self.clients.borrow().is_empty() {
            self.emptied.notified().await;
        }
        if let Some(access) = &self.access {
            access.flush(&self.tally().log_dropped);
        }
    }
}

impl Drop for Worker {
    /// However a worker ended, nobody hands it connections any more.
    fn drop(&mut self) {
        drop(self.plane.handover.close(self.index));
    }
}
