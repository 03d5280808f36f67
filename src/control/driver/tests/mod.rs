//! The driver over a real publisher and a real store, with simulated workers, in tokio's paused time.
//!
//! A worker is a task that takes up every table and reports it; it notes what it took up, and a test may stop it.

mod crash;
mod hold;
mod races;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tokio::task::JoinSet;

use super::*;
use crate::config::settings::{Address, Listen, Pool, Probe, Service, State};
use crate::control::controller::Controller;
use crate::control::store::Store;
use crate::control::store::crash::Disk;
use crate::domain::rollout::machine::Phase;
use crate::domain::rollout::plan::{OnInconclusive, Pause, Plan, Step};

const SHOP: &str = "shop";
const WORKERS: usize = 3;

fn percent(percent: u16) -> Share {
    Share::from_basis_points(percent * 100).unwrap()
}

/// 5 %, approval, 25 %, analysis, 100 %.
fn plan() -> Plan {
    let analyze = Step::Analyze { dwell: Duration::from_millis(200), deadline: None };
    let steps = vec![
        Step::Weight(percent(5)),
        Step::Pause(Pause::UntilApproved),
        Step::Weight(percent(25)),
        analyze,
        Step::Weight(Share::ALL),
    ];
    Plan { steps, on_inconclusive: OnInconclusive::Hold }
}

fn settings() -> Settings {
    let pool = |name: &str, port| {
        let endpoints = vec![Address::http("127.0.0.1", port)];
        Pool::new(name, endpoints)
    };
    let mut shop = Service::new(SHOP.to_owned(), vec![pool("blue", 1), pool("green", 2)]);
    shop.health.probe = Probe::Off;
    shop.rollout = plan();
    Settings {
        listen: vec![Listen::plain(([127, 0, 0, 1], 0).into())],
        admin: None,
        state: State::Ephemeral,
        workers: WORKERS.try_into().unwrap(),
        access_log: crate::config::settings::AccessLog::Off,
        client: Default::default(),
        resolver: Default::default(),
        shutdown: Default::default(),
        services: vec![shop],
    }
}

/// What a table gives to which pool, as a worker saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    active: String,
    green: Share,
}

/// A control plane with simulated workers.
struct Rig {
    controller: Controller,
    publisher: Arc<Publisher>,
    plane: Arc<Plane>,
    events: Arc<Events>,
    views: Views,
    commands: mpsc::UnboundedSender<Command>,
    /// Worker 1 takes nothing up while this is set.
    stuck: Arc<AtomicBool>,
    /// Every split that worker 0 took up.
    seen: Arc<Mutex<Vec<Seen>>>,
    /// Ended with the rig.
    _tasks: JoinSet<()>,
}

impl Rig {
    /// A control plane over what is on `disk`.
    async fn start(disk: &Disk) -> Result<Rig, String> {
        Rig::with(disk, None).await
    }

    async fn with(disk: &Disk, source: Option<Source>) -> Result<Rig, String> {
        let mut store = Store::on_disk(disk).map_err(|error| error.to_string())?;
        let loaded = store.load().map_err(|error| error.to_string())?;
        let journal = Journal::spawn(store).unwrap();
        let plane = Arc::new(Plane::new(WORKERS));
        let publisher = Arc::new(Publisher::new(Arc::clone(&plane), WORKERS));
        let (events, views, shared) = (Arc::new(Events::default()), Views::default(), Arc::new(Shared::default()));
        let (commands, queue) = mpsc::unbounded_channel();
        let discovery = Discovery::new(&settings().resolver, Arc::clone(&publisher), Arc::clone(&events));
        let parts = Parts {
            publisher: Arc::clone(&publisher),
            plane: Arc::clone(&plane),
            journal,
            events: Arc::clone(&events),
            discovery: Arc::new(discovery),
            views: Arc::clone(&views),
            shared,
            settings: settings(),
            materials: Materials::build(&settings(), &Materials::default())?,
            source,
        };
        let controller = Controller::new(&parts, commands.clone());
        let driver = Driver::start(parts, loaded).await?;
        let (stuck, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::default()));
        let mut tasks = JoinSet::new();
        for number in 0..WORKERS {
            tasks.spawn(worker(number, Arc::clone(&plane), Arc::clone(&stuck), Arc::clone(&seen)));
        }
        plane.roster.acknowledged(1, ACKNOWLEDGE).await.unwrap();
        tasks.spawn(driver.run(queue));
        Ok(Rig { controller, publisher, plane, events, views, commands, stuck, seen, _tasks: tasks })
    }

    /// Worker 1 hangs, or comes loose and finds its wake-up waiting.
    fn stick(&self, stuck: bool) {
        self.stuck.store(stuck, SeqCst);
        self.plane.roster.wake_all();
    }

    /// The split that is published now.
    fn published(&self) -> Seen {
        seen(&self.plane)
    }

    async fn weigh(&self, green: u16) -> Result<Done, Refusal> {
        let shares = vec![("blue".to_owned(), percent(green).rest()), ("green".to_owned(), percent(green))];
        self.controller.set_weights(SHOP, shares, None, "ann").await
    }

    async fn deploy(&self, to: &str, plan: Option<Plan>) -> Result<String, Refusal> {
        let deploy = Deploy { service: SHOP.to_owned(), to: to.to_owned(), plan, key: None, by: "ann".to_owned() };
        match self.controller.deploy(deploy).await? {
            Found::Running(rollout) => Ok(rollout.order.id),
            Found::Over(over) => Ok(over.rollout.order.id),
        }
    }

    /// What the handle shows of the rollout under way.
    fn phase(&self) -> Option<Phase> {
        self.controller.service(SHOP).unwrap().rollout.map(|rollout| rollout.phase)
    }

    /// Waits until `done`, in virtual time; false if it took longer than a minute of it.
    async fn until(&self, mut done: impl FnMut() -> bool) -> bool {
        for _ in 0..6_000 {
            if done() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Lets the judge approve what is at the published epoch.
    fn approve(&self, canary: &str, baseline: &str) {
        let comparator = crate::domain::analysis::Comparator::new(Default::default());
        let view = crate::control::judge::View {
            canary: canary.to_owned(),
            baseline: baseline.to_owned(),
            epoch: self.publisher.epoch(SHOP).unwrap(),
            evidence: comparator.evidence(),
            approval: crate::domain::analysis::Approval::Passed,
        };
        self.views.lock().unwrap().insert(SHOP.to_owned(), view);
    }

    fn told(&self, kind: &str) -> Vec<String> {
        let events = self.events.after(0).into_iter().filter(|event| event.kind == kind);
        events.map(|event| event.sentence).collect()
    }
}

async fn worker(number: usize, plane: Arc<Plane>, stuck: Arc<AtomicBool>, seen_by_all: Arc<Mutex<Vec<Seen>>>) {
    loop {
        // Checked anew after every wait, so that a worker that comes loose takes up what it missed.
        if number != 1 || !stuck.load(SeqCst) {
            let version = plane.table.load().version;
            if number == 0 {
                let now = seen(&plane);
                let mut all = seen_by_all.lock().unwrap();
                if all.last() != Some(&now) {
                    all.push(now);
                }
            }
            plane.roster.report(number, version);
        }
        plane.roster.woken(number).await;
    }
}

fn seen(plane: &Plane) -> Seen {
    let table = plane.table.load();
    let service = &table.services[0];
    let sum: u32 = service.split.iter().map(|slot| u32::from(slot.share.basis_points())).sum();
    assert_eq!(sum, 10_000, "every table's shares sum to 100 %");
    Seen { active: service.pools[service.active].name.clone(), green: service.share(1) }
}
