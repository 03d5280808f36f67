//! A whole Teal for one test: configured by text, on free ports, ended when dropped.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use teal::app::{self, Running};
use teal::config::settings::Settings;
use teal::control::command::{Act, Deploy, Done, Found, Refusal, ServiceStatus};
use teal::domain::rollout::machine::{End, Phase};
use teal::domain::split::Share;
use tempfile::TempDir;

use super::client::Client;
use super::upstream::Upstream;

/// A running Teal.
pub struct Teal {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its folder, if it has one: `teal.yaml` and the state.
    pub folder: Option<TempDir>,
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
}

/// The text of a configuration with one service `shop` of these pools, and more lines under the service. Its state
/// goes to `state`, seen from the file's folder.
pub fn shop_text(state: &str, pools: &[(&str, &str)], more: &str) -> String {
    let pools: String = pools.iter().map(|(name, url)| format!("      {name}: {url}\n")).collect();
    let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "version: 1\nlisten: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: {state}\nworkers: 2\nservices:\n  shop:\n    pools:\n{pools}{more}"
    )
}

impl Teal {
    /// Teal with a service `shop` of the pools `blue` and `green`, and more lines under the service.
    pub fn shop(blue: &Upstream, green: &Upstream, more: &str) -> Teal {
        Teal::with(&[("blue", &blue.url()), ("green", &green.url())], more)
    }

    /// Teal with a service `shop` of these pools.
    pub fn with(pools: &[(&str, &str)], more: &str) -> Teal {
        Teal::start(&shop_text("none", pools, more))
    }

    /// Teal with this configuration.
    pub fn start(text: &str) -> Teal {
        Teal::running_as(app::start(settings(text, Path::new(".")), None).unwrap(), None)
    }

    /// Teal with this configuration in a file of its own folder.
    pub fn in_folder(text: &str) -> Teal {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("teal.yaml"), text).unwrap();
        Teal::from_folder(folder)
    }

    /// Teal with the `teal.yaml` and the state of a folder.
    pub fn from_folder(folder: TempDir) -> Teal {
        let file = folder.path().join("teal.yaml");
        let settings = teal::config::load(&file, &|_| None).unwrap_or_else(|report| panic!("{report}"));
        Teal::running_as(app::start(settings, Some(file)).unwrap(), Some(folder))
    }

    fn running_as(running: Running, folder: Option<TempDir>) -> Teal {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Teal { address: running.listen[0], folder, running: Some(running), runtime }
    }

    /// Ends this one and starts another from its folder.
    pub fn restart(mut self) -> Teal {
        let folder = self.folder.take().expect("a folder");
        drop(self);
        Teal::from_folder(folder)
    }

    /// Ends it in order; afterwards nothing of it runs. How many requests were cut.
    pub fn shutdown(mut self) -> u64 {
        self.running.take().expect("running until dropped").shutdown()
    }

    /// A new client connection to the admin API.
    pub fn admin(&self) -> Client {
        Client::connect(self.running().admin.expect("an admin address"))
    }

    /// Starts a rollout by the service's own plan; its id.
    pub fn deploy(&self, to: &str) -> Result<String, Refusal> {
        let deploy =
            Deploy { service: "shop".to_owned(), to: to.to_owned(), plan: None, key: None, by: "test".to_owned() };
        match self.wait(self.running().controller.deploy(deploy))? {
            Found::Running(rollout) => Ok(rollout.order.id),
            Found::Over(over) => Ok(over.rollout.order.id),
        }
    }

    /// Acts on a rollout.
    pub fn act(&self, id: &str, act: Act) -> Result<Found, Refusal> {
        self.wait(self.running().controller.act(id, act, "test"))
    }

    /// The service `shop` as it is now.
    pub fn shop_now(&self) -> ServiceStatus {
        self.running().controller.service("shop").unwrap()
    }

    /// Green's share in percent, and the active pool.
    pub fn split(&self) -> (f64, String) {
        let now = self.shop_now();
        let green = now.pools.iter().find(|pool| pool.name == "green").expect("a pool green");
        (f64::from(green.share.basis_points()) / 100.0, now.active)
    }

    /// The phase of the rollout under way.
    pub fn phase(&self) -> Option<Phase> {
        self.shop_now().rollout.map(|rollout| rollout.phase)
    }

    /// Waits for a rollout's end: how it ended and the sentence why.
    pub fn ended(&self, id: &str) -> (End, String) {
        let over = || match self.wait(self.running().controller.rollout(id)).unwrap() {
            Found::Over(over) => Some((over.rollout.end().unwrap(), over.rollout.reason)),
            Found::Running(_) => None,
        };
        self.until("the rollout ends", || over().is_some());
        over().unwrap()
    }

    /// The sentences of one kind of event so far.
    pub fn told(&self, kind: &str) -> Vec<String> {
        let events = self.running().controller.events().after(0).into_iter().filter(|event| event.kind == kind);
        events.map(|event| event.sentence).collect()
    }

    /// The parts a test may look at.
    pub fn running(&self) -> &Running {
        self.running.as_ref().expect("running until dropped")
    }

    /// Where its listener of this number (of those over TCP) listens.
    pub fn listener(&self, number: usize) -> SocketAddr {
        self.running().listen[number]
    }

    /// A new client connection.
    pub fn client(&self) -> Client {
        Client::connect(self.address)
    }

    /// Waits for something the control plane does.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Gives green this share (in percent) and blue the rest.
    pub fn weigh(&self, green: u16) -> Result<Done, Refusal> {
        let green = Share::from_basis_points(green * 100).unwrap();
        let shares = vec![("blue".to_owned(), green.rest()), ("green".to_owned(), green)];
        self.wait(self.running().controller.set_weights("shop", shares, None, "test"))
    }

    /// Waits until `done` says so, at most half a minute: the machine may be busy.
    pub fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(begin.elapsed() < Duration::from_secs(30), "never: {what}");
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

/// The settings that a text means.
pub fn settings(text: &str, folder: &Path) -> Settings {
    teal::config::parse("test.yaml", text, &|_| None, folder).unwrap_or_else(|report| panic!("{report}"))
}

impl Drop for Teal {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown();
        }
    }
}
