//! A whole Teal for one test: configured by text, on free ports, ended when dropped.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use teal::app::{self, Running};
use teal::control::command::{Done, Refusal};
use teal::domain::split::Share;

use super::client::Client;
use super::upstream::Upstream;

/// A running Teal.
pub struct Teal {
    /// Where it listens.
    pub address: SocketAddr,
    running: Option<Running>,
    runtime: tokio::runtime::Runtime,
}

impl Teal {
    /// Teal with a service `shop` of the pools `blue` and `green`, and more lines under the service.
    pub fn shop(blue: &Upstream, green: &Upstream, more: &str) -> Teal {
        Teal::with(&[("blue", &blue.url()), ("green", &green.url())], more)
    }

    /// Teal with a service `shop` of these pools.
    pub fn with(pools: &[(&str, &str)], more: &str) -> Teal {
        let pools: String = pools.iter().map(|(name, url)| format!("      {name}: {url}\n")).collect();
        let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
        Teal::start(&format!(
            "version: 1\nlisten: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: none\nworkers: 2\nservices:\n  shop:\n    pools:\n{pools}{more}"
        ))
    }

    /// Teal with this configuration.
    pub fn start(text: &str) -> Teal {
        let settings = teal::config::parse("test.yaml", text, &|_| None, Path::new("."));
        let settings = settings.unwrap_or_else(|report| panic!("{report}"));
        let running = app::start(settings, None).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Teal { address: running.listen[0], running: Some(running), runtime }
    }

    /// The parts a test may look at.
    pub fn running(&self) -> &Running {
        self.running.as_ref().expect("running until dropped")
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

    /// Waits until `done` says so, at most ten seconds.
    pub fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !done() {
            assert!(begin.elapsed() < Duration::from_secs(10), "never: {what}");
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

impl Drop for Teal {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.shutdown();
        }
    }
}
