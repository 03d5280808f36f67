//! The control plane as `app` starts and ends it: one thread with everything that decides.
//!
//! Invariant: nothing is asked of it, and nothing moves by itself, before the workers have come up.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, mpsc as std_mpsc};

use tokio::sync::{mpsc, oneshot};

use super::environment;
use crate::bridge::table::Plane;
use crate::config::settings::{Secret, Settings};
use crate::control::controller::Controller;
use crate::control::discovery::Discovery;
use crate::control::driver::{self, Driver, Shared, Source};
use crate::control::events::Events;
use crate::control::judge::{Judge, Views};
use crate::control::ledger::Ledger;
use crate::control::materials::Materials;
use crate::control::publisher::Publisher;
use crate::control::store::{Journal, Loaded};
use crate::control::{admin, breakers, concurrency, ejection, faults, health, pacer, standing, watch};

/// What ties the control thread to whoever starts it.
pub(super) struct Ends {
    /// Told once the first table is published, or why there is none.
    pub(super) first_table: std_mpsc::Sender<Result<(), String>>,
    /// Heard once the workers have come up.
    pub(super) opens: oneshot::Receiver<()>,
    /// Heard when it is to end.
    pub(super) stop: oneshot::Receiver<()>,
}

/// Everything of the control plane before it runs.
pub(super) struct Control {
    pub(super) controller: Controller,
    driver: driver::Parts,
    file: Option<PathBuf>,
    admin: Option<TcpListener>,
    commands: mpsc::UnboundedSender<driver::Command>,
    queue: mpsc::UnboundedReceiver<driver::Command>,
}

impl Control {
    pub(super) fn new(
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
    pub(super) fn run(self, loaded: Loaded, ends: Ends) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ends.first_table.send(Err(error.to_string()))),
        };
        runtime.block_on(self.serve(loaded, ends));
    }

    async fn serve(self, loaded: Loaded, ends: Ends) {
        let Ends { first_table, opens, stop } = ends;
        let Control { controller, driver, file, admin, commands, queue } = self;
        let driver::Parts { publisher, plane, journal, events, discovery, views, settings, .. } = &driver;
        let (plane, journal, events) = (Arc::clone(plane), journal.clone(), Arc::clone(events));
        let discovery = Arc::clone(discovery);
        discovery.meet(settings).await;
        let ledger = Ledger::new(journal.clone(), loaded.evidence.clone());
        let workers = settings.workers.get();
        let token = settings.admin.as_ref().and_then(|admin| admin.token.clone());
        let judge = Judge::new(Arc::clone(&plane), Arc::clone(publisher), Arc::clone(views), commands, ledger, workers);
        let faults = faults::run(Arc::clone(publisher), Arc::clone(&events));
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
        let _ = first_table.send(Ok(()));
        // An error means that the start failed after all: then `stop` says so as well.
        let _ = opens.await;
        let driving = tokio::spawn(driver.run(queue));
        let checking = tokio::spawn(health::run(Arc::clone(&plane), Arc::clone(&events)));
        let ejecting = tokio::spawn(ejection::run(Arc::clone(&plane), Arc::clone(&events)));
        let breaking = tokio::spawn(breakers::run(Arc::clone(&plane), Arc::clone(&events)));
        let telling = tokio::spawn(standing::run(Arc::clone(&plane), events));
        let ending = tokio::spawn(faults);
        let adapting = tokio::spawn(concurrency::run(Arc::clone(&plane)));
        let finding = tokio::spawn(discovery.run(Arc::clone(&plane)));
        let pacing = tokio::spawn(pacer::run(Arc::clone(&plane)));
        let watching = file.map(|file| tokio::spawn(watch_file(file, controller.clone())));
        let (stop_admin, admin_stops) = oneshot::channel::<()>();
        let answering = admin.map(|socket| tokio::spawn(serve_admin(socket, controller.clone(), token, admin_stops)));

        // An error means that whoever holds the other end is gone: end as well.
        let _ = stop.await;
        watching.iter().for_each(tokio::task::JoinHandle::abort);
        checking.abort();
        breaking.abort();
        telling.abort();
        ejecting.abort();
        adapting.abort();
        ending.abort();
        finding.abort();
        pacing.abort();
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

async fn watch_file(file: PathBuf, controller: Controller) {
    if let Err(error) = watch::run(&file, controller).await {
        tracing::warn!(file = %file.display(), %error, "the file is not watched; use `teal reload`");
    }
}

async fn serve_admin(socket: TcpListener, controller: Controller, token: Option<Secret>, stop: oneshot::Receiver<()>) {
    let listener = match tokio::net::TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin API does not answer"),
    };
    admin::serve(listener, controller, token, async { drop(stop.await) }).await;
}
