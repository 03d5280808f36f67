//! The composition root: builds both planes, starts them in order and ends them in order.
//!
//! Start: sockets first (the likeliest failure), then the store, then the first table, then the workers, and when they
//! have come up everything that may move something: driver, health checks, admin API. End: not ready, then no more
//! accepts, then the requests in flight, then judge, driver, store. A process that has a successor ends its control
//! plane first: the state is no longer its own.
//!
//! Invariant: a worker accepts nothing before it has a table; the store closes last.

pub mod inherit;
mod manager;
mod pair;
mod plane;
mod sockets;
pub mod succession;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use self::inherit::Inherited;
use self::plane::{Control, Ends};
use self::sockets::Sockets;
use self::succession::{Hands, Predecessor, Program, Successor};
use crate::bridge::admission::Admission;
use crate::bridge::roster::Ending;
use crate::bridge::table::Plane;
use crate::clock;
use crate::config::settings::{Bind, Settings, Shutdown, State};
use crate::control::command::Refusal;
use crate::control::controller::Controller;
use crate::control::materials::Materials;
use crate::control::store::{Journal, Loaded, Store};
use crate::control::upgrade::{Upgrade, Upgraded};
use crate::proxy::access::AccessBuffer;
use crate::proxy::listener::Listening;
use crate::proxy::unix_socket::SocketFile;
use crate::proxy::{descriptors, worker};
use crate::telemetry::access_log::Log;

/// How long workers may take to come up.
const COME_UP: Duration = Duration::from_secs(5);

/// Why Teal did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: Bind,
        /// Why.
        error: io::Error,
    },
    /// The access log cannot be opened.
    #[error("cannot write the access log: {0}")]
    AccessLog(io::Error),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// The store cannot be used.
    #[error("cannot use the state: {0}")]
    State(String),
    /// The process that is to be succeeded is gone, or wants to stay.
    #[error("there is nobody to succeed: {0}")]
    Succession(io::Error),
    /// The system refused a thread or a runtime.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// A running Teal.
pub struct Running {
    /// Where clients connect over TCP.
    pub listen: Vec<SocketAddr>,
    /// Where the admin API answers.
    pub admin: Option<SocketAddr>,
    /// The handle to the control plane.
    pub controller: Controller,
    sockets: Vec<OwnedFd>,
    socket_files: Vec<SocketFile>,
    plane: Arc<Plane>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    access: Option<Log>,
    control: JoinHandle<()>,
    stop_control: oneshot::Sender<()>,
    keeps_state: bool,
    shutdown: Shutdown,
}

/// Starts everything; returns once requests are served.
///
/// # Errors
/// See [`StartError`]. After the store is open what was started is not stopped again: the process is expected to end.
pub fn start(settings: Settings, file: Option<PathBuf>) -> Result<Running, StartError> {
    begin(settings, file, Inherited::default(), None)
}

/// The same with sockets that are there already, perhaps in another process's place.
fn begin(
    settings: Settings,
    file: Option<PathBuf>,
    mut inherited: Inherited,
    mut predecessor: Option<&mut Predecessor>,
) -> Result<Running, StartError> {
    let workers = settings.workers.get();
    let sockets = Sockets::open(&settings, &mut inherited)?;
    // What was not wanted listens no more.
    drop(inherited);
    let materials = Materials::build(&settings, &Materials::default()).map_err(StartError::Tls)?;
    let Sockets { dealt, kept, listen, files, admin } = sockets;
    let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
    if let Some(predecessor) = &mut predecessor {
        predecessor.await_state().map_err(StartError::Succession)?;
    }
    let (store, loaded) = open(&settings.state).map_err(StartError::State)?;
    let access = Log::start(&settings.access_log).map_err(StartError::AccessLog)?;
    let journal = Journal::spawn(store)?;

    let connections = descriptors::raise(settings.client.max_connections);
    let plane = Plane { admission: Arc::new(Admission::new(connections)), ..Plane::new(workers) };
    let plane = Arc::new(plane);
    let keeps_state = settings.state != State::Ephemeral;
    let shutdown = settings.shutdown.clone();
    let control = Control::new(settings, materials, file, Arc::clone(&plane), journal, admin);
    let controller = control.controller.clone();
    let (stop_control, stop) = oneshot::channel();
    let (open_control, opens) = oneshot::channel();
    let (first_table, ready) = std_mpsc::channel();
    let ends = Ends { first_table, opens, stop };
    let control = std::thread::Builder::new().name("control".into()).spawn(move || control.run(loaded, ends))?;
    match ready.recv() {
        Ok(Ok(())) => {}
        Ok(Err(text)) => return Err(StartError::State(text)),
        Err(_) => return Err(StartError::State("the control thread ended".to_owned())),
    }
    if let Some(predecessor) = &mut predecessor {
        predecessor.await_word().map_err(StartError::Succession)?;
    }
    let start = |(index, listeners): (usize, Vec<(usize, Listening)>)| {
        let access = access.as_ref().map(|log| AccessBuffer::new(log.batches.clone()));
        let start = worker::Start { index, plane: Arc::clone(&plane), listeners, access };
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || worker::run(start))
    };
    let workers = dealt.into_iter().enumerate().map(start).collect::<io::Result<Vec<_>>>()?;
    let running = Running {
        listen,
        admin: admin_address,
        controller,
        sockets: kept,
        socket_files: files,
        plane,
        workers,
        access,
        control,
        stop_control,
        keeps_state,
        shutdown,
    };
    if let Err(error) = running.come_up() {
        running.shutdown();
        return Err(error.into());
    }
    // An error means that the control thread has ended already.
    let _ = open_control.send(());
    Ok(running)
}

/// Serves until SIGTERM or SIGINT, or until a successor does, then ends in order. SIGHUP reloads the file; a second
/// SIGTERM or SIGINT ends the process at once.
///
/// # Errors
/// When it cannot start; the predecessor is told.
pub fn run(settings: Settings, file: Option<PathBuf>, predecessor: Option<Predecessor>) -> Result<(), StartError> {
    let program = Program::own()?;
    let signals = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Caught from the very start: a signal during the start must not skip the ending.
    let mut ends = signals.block_on(async { Signals::new() })?;
    let running = begin_or_tell(settings, file, predecessor)?;
    let (listen, admin) = (addresses(&running.listen), addresses(running.admin.as_slice()));
    tracing::info!(%listen, %admin, version = env!("CARGO_PKG_VERSION"), "serving");
    manager::ready();
    let mut orders = running.controller.take_upgrades();
    let successor = loop {
        match signals.block_on(ends.next(&running.controller, &mut orders)) {
            Call::End => break None,
            Call::Upgrade(order) => {
                if let Some(successor) = running.upgrade(order, &program, &signals) {
                    break Some(successor);
                }
            }
        }
    };
    tracing::info!("ending: requests in flight are finished first");
    let impatient = std::thread::Builder::new().name("signals".into()).spawn(move || {
        signals.block_on(ends.next_end());
        tracing::warn!("ended at once");
        std::process::exit(1);
    });
    let cut = match successor {
        Some(successor) => running.give_way(&successor),
        None => {
            manager::stopping();
            running.shutdown()
        }
    };
    tracing::info!(cut, "ended");
    drop(impatient);
    Ok(())
}

fn begin_or_tell(
    settings: Settings,
    file: Option<PathBuf>,
    mut predecessor: Option<Predecessor>,
) -> Result<Running, StartError> {
    let inherited = match &mut predecessor {
        Some(predecessor) => predecessor.sockets().map_err(StartError::Succession),
        None => Inherited::from_manager().map_err(StartError::System),
    };
    let running = inherited.and_then(|inherited| begin(settings, file, inherited, predecessor.as_mut()));
    match (running, predecessor) {
        (Ok(running), None) => Ok(running),
        (Ok(running), Some(mut predecessor)) => match predecessor.serves() {
            Ok(()) => Ok(running),
            // It serves: whether the other one knows makes no difference any more.
            Err(error) => {
                tracing::warn!(%error, "the process that was succeeded is gone already");
                Ok(running)
            }
        },
        (Err(error), Some(mut predecessor)) => {
            predecessor.fail(&error.to_string());
            Err(error)
        }
        (Err(error), None) => Err(error),
    }
}

fn addresses(list: &[SocketAddr]) -> String {
    list.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ")
}

/// What calls the main thread.
enum Call {
    End,
    Upgrade(Upgrade),
}

/// The signals that matter.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next_end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    async fn next(&mut self, controller: &Controller, orders: &mut mpsc::UnboundedReceiver<Upgrade>) -> Call {
        loop {
            tokio::select! {
                biased;
                _ = self.terminate.recv() => return Call::End,
                _ = self.interrupt.recv() => return Call::End,
                Some(order) = orders.recv() => return Call::Upgrade(order),
                // The outcome is an event of its own, whichever way it goes.
                _ = self.hang_up.recv() => drop(controller.reload("SIGHUP").await),
            }
        }
    }
}

impl Running {
    fn come_up(&self) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        runtime.block_on(self.plane.roster.acknowledged(1, COME_UP)).map_err(io::Error::other)
    }

    /// Has this process succeeded, and tells whoever asked for it. `None` if it was not to be: it serves on.
    fn upgrade(&self, order: Upgrade, program: &Program, runtime: &Runtime) -> Option<Successor> {
        let Upgrade { by, reply } = order;
        let began = clock::now();
        let hands = Hands { controller: &self.controller, runtime, sockets: &self.sockets };
        let outcome = self.may_be_succeeded().and_then(|()| hands.succeed(program).map_err(Refusal::Failed));
        let events = self.controller.events();
        match outcome {
            Ok(successor) => {
                let took_us = clock::now().since(began);
                let Successor { process, version } = successor.clone();
                let told = format!("upgrade by {by}: process {process} (version {version}) serves from now on");
                events.tell_timed("upgrade", None, None, told, took_us);
                manager::succeeded_by(process);
                drop(reply.send(Ok(Upgraded { process, predecessor: std::process::id(), version, took_us })));
                Some(successor)
            }
            Err(refusal) => {
                events.tell("upgrade_failed", None, None, format!("upgrade by {by}: nothing changed: {refusal}"));
                drop(reply.send(Err(refusal)));
                None
            }
        }
    }

    fn may_be_succeeded(&self) -> Result<(), Refusal> {
        let refuse = |text: &str| Err(Refusal::Conflict(text.to_owned()));
        if !self.keeps_state {
            return refuse("the state is kept in memory only, and would be lost: name a `state:` folder first");
        }
        if std::process::id() == 1 {
            return refuse("this process is the first of its container, whose end would be its own: replace that one");
        }
        Ok(())
    }

    /// Ends in order: readiness fails, accepting stops, requests in flight finish within the grace time, what is
    /// owed is written. Blocks until all threads have ended; the number of requests that were cut.
    pub fn shutdown(self) -> u64 {
        self.controller.not_ready();
        std::thread::sleep(self.shutdown.delay);
        let Running { plane, sockets, socket_files, workers, access, control, stop_control, shutdown, .. } = self;
        // A socket listens for as long as anybody has it.
        drop(sockets);
        let ending = Ending { grace: shutdown.grace, pace: shutdown.pace, is_succeeded: false };
        let cut = end_workers(&plane, workers, ending);
        drop(socket_files);
        if let Some(access) = access {
            access.finish();
        }
        // An error means that the control thread has ended already.
        let _ = stop_control.send(());
        let _ = control.join();
        cut
    }

    /// Ends while another process serves in this one's place: nobody waits for it, so what is in flight has more time.
    fn give_way(self, successor: &Successor) -> u64 {
        self.controller.not_ready();
        let Running { plane, sockets, socket_files, workers, access, control, stop_control, shutdown, .. } = self;
        // The API of this process would answer what it can no longer do.
        let _ = stop_control.send(());
        let _ = control.join();
        drop(sockets);
        socket_files.into_iter().for_each(SocketFile::leave);
        tracing::info!(successor = successor.process, "succeeded: what is in flight here is finished");
        let ending = Ending { grace: shutdown.handover, pace: shutdown.pace, is_succeeded: true };
        let cut = end_workers(&plane, workers, ending);
        if let Some(access) = access {
            access.finish();
        }
        cut
    }
}

/// Has the workers finish what they have; the number of requests that were cut.
fn end_workers(plane: &Plane, workers: Vec<JoinHandle<io::Result<()>>>, ending: Ending) -> u64 {
    let before = cut(plane);
    plane.roster.drain(ending);
    for worker in workers {
        match worker.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a worker failed"),
            Err(_) => tracing::error!("a worker panicked"),
        }
    }
    cut(plane).wrapping_sub(before)
}

fn cut(plane: &Plane) -> u64 {
    plane.workers.iter().map(|tally| tally.cut.read()).fold(0, u64::wrapping_add)
}

fn open(state: &State) -> Result<(Store, Loaded), String> {
    let store = match state {
        State::Folder(folder) => Store::open(folder),
        State::Ephemeral => Store::ephemeral(),
    };
    let mut store = store.map_err(|error| error.to_string())?;
    let loaded = store.load().map_err(|error| error.to_string())?;
    Ok((store, loaded))
}

/// The process's environment, for `${NAME}` in the configuration.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
