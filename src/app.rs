//! The composition root: builds both planes, starts them in order and ends them in order.
//!
//! Start: sockets first (the likeliest failure), then the store, then the first table, then the admin API, which is
//! not ready until the last step is done: the workers. End: not ready, then no more accepts, then the requests in
//! flight, then judge, driver, store.
//!
//! Invariant: a worker accepts nothing before it has a table; the store closes last.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::bridge::admission::Admission;
use crate::bridge::table::Plane;
use crate::config::settings::{self, Bind, Settings, State};
use crate::control::controller::Controller;
use crate::control::discovery::Discovery;
use crate::control::driver::{self, Driver, Shared, Source};
use crate::control::events::Events;
use crate::control::judge::{Judge, Views};
use crate::control::ledger::Ledger;
use crate::control::materials::Materials;
use crate::control::publisher::Publisher;
use crate::control::store::{Journal, Loaded, Store};
use crate::control::{admin, health, watch};
use crate::proxy::access::AccessBuffer;
use crate::proxy::listener::{self, Listening};
use crate::proxy::unix_socket::{self, SocketFile};
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
    /// The system refused a thread or a runtime.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// A running Teal.
pub struct Running {
    /// Where clients connect over TCP.
    pub listen: Vec<SocketAddr>,
    socket_files: Vec<SocketFile>,
    /// Where the admin API answers.
    pub admin: Option<SocketAddr>,
    /// The handle to the control plane.
    pub controller: Controller,
    plane: Arc<Plane>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    access: Option<Log>,
    control: JoinHandle<()>,
    stop_control: oneshot::Sender<()>,
    shutdown: crate::config::settings::Shutdown,
}

/// Starts everything; returns once requests are served.
///
/// # Errors
/// See [`StartError`]. After the store is open what was started is not stopped again: the process is expected to end.
pub fn start(settings: Settings, file: Option<PathBuf>) -> Result<Running, StartError> {
    let workers = settings.workers.get();
    let mut listeners: Vec<Vec<Listening>> = (0..workers).map(|_| Vec::new()).collect();
    let (mut listen, mut socket_files) = (Vec::new(), Vec::new());
    for settings::Listen { address, .. } in &settings.listen {
        let bound = match address {
            Bind::Tcp(address) => bind_tcp(*address, workers, &mut listen),
            Bind::Unix(socket) => bind_unix(socket, workers, &mut socket_files),
        };
        let bound = bound.map_err(|error| StartError::Listen { address: address.clone(), error })?;
        listeners.iter_mut().zip(bound).for_each(|(list, socket)| list.push(socket));
    }
    let materials = Materials::build(&settings, &Materials::default()).map_err(StartError::Tls)?;
    let admin = settings.admin.as_ref().map(|admin| bind_admin(admin.listen)).transpose()?;
    let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
    let (store, loaded) = open(&settings.state).map_err(StartError::State)?;
    let access = Log::start(&settings.access_log).map_err(StartError::AccessLog)?;
    let journal = Journal::spawn(store)?;

    let connections = descriptors::raise(settings.client.max_connections);
    let plane = Plane { admission: Arc::new(Admission::new(connections)), ..Plane::new(workers) };
    let plane = Arc::new(plane);
    let control = Control::new(settings.clone(), materials, file, Arc::clone(&plane), journal, admin);
    let controller = control.controller.clone();
    let (stop_control, stop) = oneshot::channel();
    let (first_table, ready) = std_mpsc::channel();
    let control =
        std::thread::Builder::new().name("control".into()).spawn(move || control.run(loaded, first_table, stop))?;
    match ready.recv() {
        Ok(Ok(())) => {}
        Ok(Err(text)) => return Err(StartError::State(text)),
        Err(_) => return Err(StartError::State("the control thread ended".to_owned())),
    }
    let start = |(index, listeners): (usize, Vec<Listening>)| {
        let start = worker::Start {
            index,
            plane: Arc::clone(&plane),
            listeners,
            access: access.as_ref().map(|log| AccessBuffer::new(log.batches.clone())),
            grace: settings.shutdown.grace,
        };
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || worker::run(start))
    };
    let workers = listeners.into_iter().enumerate().map(start).collect::<io::Result<Vec<_>>>()?;
    let running = Running {
        listen,
        socket_files,
        admin: admin_address,
        controller,
        plane,
        workers,
        access,
        control,
        stop_control,
        shutdown: settings.shutdown,
    };
    if let Err(error) = running.come_up() {
        running.shutdown();
        return Err(error.into());
    }
    Ok(running)
}

/// Serves until SIGTERM or SIGINT, then ends in order. SIGHUP reloads the file; a second SIGTERM or SIGINT ends
/// the process at once.
///
/// # Errors
/// When it cannot start.
pub fn run(settings: Settings, file: Option<PathBuf>) -> Result<(), StartError> {
    let signals = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Caught from the very start: a signal during the start must not skip the ending.
    let mut ends = signals.block_on(async { Signals::new() })?;
    let running = start(settings, file)?;
    let (listen, admin) = (addresses(&running.listen), addresses(running.admin.as_slice()));
    tracing::info!(%listen, %admin, version = env!("CARGO_PKG_VERSION"), "serving");
    signals.block_on(ends.until_end(&running.controller));
    tracing::info!("ending: requests in flight are finished first");
    let impatient = std::thread::Builder::new().name("signals".into()).spawn(move || {
        signals.block_on(ends.next_end());
        tracing::warn!("ended at once");
        std::process::exit(1);
    });
    running.shutdown();
    tracing::info!("ended");
    drop(impatient);
    Ok(())
}

fn addresses(list: &[SocketAddr]) -> String {
    list.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ")
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

    async fn until_end(&mut self, controller: &Controller) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
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

    /// Ends in order: readiness fails, accepting stops, requests in flight finish within the grace time, what is
    /// owed is written. Blocks until all threads have ended.
    pub fn shutdown(self) {
        self.controller.not_ready();
        std::thread::sleep(self.shutdown.delay);
        self.plane.roster.drain();
        for worker in self.workers {
            match worker.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a worker failed"),
                Err(_) => tracing::error!("a worker panicked"),
            }
        }
        drop(self.socket_files);
        if let Some(access) = self.access {
            access.finish();
        }
        // An error means that the control thread has ended already.
        let _ = self.stop_control.send(());
        let _ = self.control.join();
    }
}

fn bind_tcp(address: SocketAddr, workers: usize, listen: &mut Vec<SocketAddr>) -> io::Result<Vec<Listening>> {
    refuse_taken(address)?;
    let bound = listener::bind(address, workers)?;
    listen.push(bound[0].local_addr()?);
    Ok(bound.into_iter().map(Listening::Tcp).collect())
}

fn bind_unix(
    settings: &settings::UnixSocket,
    workers: usize,
    files: &mut Vec<SocketFile>,
) -> io::Result<Vec<Listening>> {
    let (socket, file) = unix_socket::bind(settings)?;
    files.push(file);
    (0..workers).map(|_| socket.try_clone().map(Listening::Unix)).collect()
}

/// Another Teal of the same user would share the port with this one in silence (`SO_REUSEPORT`), each with half of
/// the connections: a socket that does not share finds it out. It never listens, so no client ever meets it.
fn refuse_taken(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

fn bind_admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bind = || {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    bind().map_err(|error| StartError::Listen { address: address.into(), error })
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

/// Everything of the control plane before it runs.
struct Control {
    controller: Controller,
    driver: driver::Parts,
    file: Option<PathBuf>,
    admin: Option<TcpListener>,
    commands: mpsc::UnboundedSender<driver::Command>,
    queue: mpsc::UnboundedReceiver<driver::Command>,
}

impl Control {
    fn new(
        settings: Settings,
        materials: Materials,
        file: Option<PathBuf>,
        plane: Arc<Plane>,
        journal: Journal,
        admin: Option<TcpListener>,
    ) -> Control {
        let publisher = Arc::new(Publisher::new(Arc::clone(&plane), settings.workers.get()));
        let (events, views, shared) = (Arc::new(Events::default()), Views::default(), Arc::new(Shared::default()));
        let (commands, queue) = mpsc::unbounded_channel();
        let source = file.as_deref().map(source_of);
        let discovery = Discovery::new(&settings.resolver, Arc::clone(&publisher), Arc::clone(&events));
        let discovery = Arc::new(discovery);
        let driver =
            driver::Parts { publisher, plane, journal, events, discovery, views, shared, settings, materials, source };
        let controller = Controller::new(&driver, commands.clone());
        Control { controller, driver, file, admin, commands, queue }
    }

    /// The control thread.
    fn run(self, loaded: Loaded, first_table: std_mpsc::Sender<Result<(), String>>, stop: oneshot::Receiver<()>) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(first_table.send(Err(error.to_string()))),
        };
        runtime.block_on(self.serve(loaded, first_table, stop));
    }

    async fn serve(
        self,
        loaded: Loaded,
        first_table: std_mpsc::Sender<Result<(), String>>,
        stop: oneshot::Receiver<()>,
    ) {
        let Control { controller, driver, file, admin, commands, queue } = self;
        let driver::Parts { publisher, plane, journal, events, discovery, views, settings, .. } = &driver;
        let (plane, journal, events) = (Arc::clone(plane), journal.clone(), Arc::clone(events));
        let discovery = Arc::clone(discovery);
        discovery.meet(settings).await;
        let ledger = Ledger::new(journal.clone(), loaded.evidence.clone());
        let workers = settings.workers.get();
        let token = settings.admin.as_ref().and_then(|admin| admin.token.clone());
        let judge = Judge::new(Arc::clone(&plane), Arc::clone(publisher), Arc::clone(views), commands, ledger, workers);
        let driver = match Driver::start(driver, loaded).await {
            Ok(driver) => driver,
            Err(text) => {
                journal.close().await;
                return drop(first_table.send(Err(text)));
            }
        };
        let stop_judge = Arc::new(AtomicBool::new(false));
        let judge = match judge.spawn(Arc::clone(&stop_judge)) {
            Ok(judge) => judge,
            Err(error) => return drop(first_table.send(Err(error.to_string()))),
        };
        let driving = tokio::spawn(driver.run(queue));
        let checking = tokio::spawn(health::run(Arc::clone(&plane), events));
        let finding = tokio::spawn(discovery.run(Arc::clone(&plane)));
        let watching = file.map(|file| tokio::spawn(watch_file(file, controller.clone())));
        let (stop_admin, admin_stops) = oneshot::channel::<()>();
        let answering = admin.map(|socket| tokio::spawn(serve_admin(socket, controller.clone(), token, admin_stops)));
        let _ = first_table.send(Ok(()));

        // An error means that whoever holds the other end is gone: end as well.
        let _ = stop.await;
        watching.iter().for_each(tokio::task::JoinHandle::abort);
        checking.abort();
        finding.abort();
        drop(stop_admin);
        if let Some(answering) = answering {
            let _ = answering.await;
        }
        stop_judge.store(true, SeqCst);
        judge.thread().unpark();
        let _ = judge.join();
        controller.close().await;
        let _ = driving.await;
        journal.close().await;
    }
}

fn source_of(file: &Path) -> Source {
    let file = file.to_owned();
    Box::new(move || crate::config::load(&file, &environment))
}

/// The process's environment, for `${NAME}` in the configuration.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

async fn watch_file(file: PathBuf, controller: Controller) {
    if let Err(error) = watch::run(&file, controller).await {
        tracing::warn!(file = %file.display(), %error, "the file is not watched; use `teal reload`");
    }
}

async fn serve_admin(
    socket: TcpListener,
    controller: Controller,
    token: Option<crate::config::settings::Secret>,
    stop: oneshot::Receiver<()>,
) {
    let listener = match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin API does not answer"),
    };
    admin::serve(listener, controller, token, async { drop(stop.await) }).await;
}
