//! The scene of a resilience drill: Teal between a load and two pools of upstreams that fail on demand.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::account::Account;
use super::client::{Api, share_of};
use super::faulty::{Faulty, Seen};
use super::load::{Load, Record, Shape};
use super::teal::Teal;

/// Long enough that some requests are in flight whenever something happens.
const DELAY: Duration = Duration::from_millis(10);

/// Everything of one drill; gone when dropped, Teal first.
pub struct Scene {
    pub teal: Teal,
    pub blue: Vec<Faulty>,
    pub green: Vec<Faulty>,
    folder: TempDir,
}

impl Scene {
    /// So many endpoints of blue and green, and more lines of the service.
    pub fn start(blue: usize, green: usize, more: &str) -> Scene {
        Scene::seeded(blue, green, more, 1)
    }

    /// The same with another seed of what the upstreams do by chance.
    pub fn seeded(blue: usize, green: usize, more: &str, seed: u64) -> Scene {
        Scene::arranged(blue, green, [more, ""], seed, listed)
    }

    /// One endpoint of each, and more lines at the top of the file.
    pub fn ending(top: &str) -> Scene {
        Scene::arranged(1, 1, ["", top], 1, listed)
    }

    /// The same with pools as `pool` writes them, and more lines of the service and of the file.
    pub fn arranged(
        blue: usize,
        green: usize,
        [more, top]: [&str; 2],
        seed: u64,
        pool: impl Fn(&[Faulty]) -> String,
    ) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let some = |name: &str, count: usize| -> Vec<Faulty> {
            (0..count).map(|_| Faulty::start(folder.path(), name, DELAY, seed)).collect()
        };
        let (blue, green) = (some("blue", blue), some("green", green));
        let teal = Teal::shop(folder.path(), &pool(&blue), &pool(&green), more, top);
        Scene { teal, blue, green, folder }
    }

    /// The folder that it all happens in.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// GETs and POSTs, about `rate` in a second.
    pub fn load(&self, rate: u64) -> Load {
        Scene::load_at(self.teal.listen, rate)
    }

    /// The same, asked elsewhere.
    pub fn load_at(address: SocketAddr, rate: u64) -> Load {
        let connections = 32;
        let pace = Duration::from_micros(connections * 1_000_000 / rate);
        Load::start(address, Shape { connections, pace, reconnects: true })
    }

    /// What reached the endpoints, blue's first.
    pub fn logs(&self) -> Vec<Vec<Seen>> {
        self.blue.iter().chain(&self.green).map(Faulty::seen).collect()
    }

    /// Both sides' counts; ends Teal first, so that nothing is on its way any more.
    pub fn close(mut self, records: &[Record]) -> Account {
        self.teal.kill();
        let logs = self.logs();
        Account::of(records, logs.iter().map(Vec::as_slice))
    }
}

fn listed(endpoints: &[Faulty]) -> String {
    let urls: Vec<_> = endpoints.iter().map(Faulty::url).collect();
    format!("[{}]", urls.join(", "))
}

/// Green's share, in percent.
pub fn green_share(api: &mut Api) -> f64 {
    share_of(&api.shop().unwrap(), "green")
}

/// A number of a pool's status.
pub fn figure(shop: &Value, pool: &str, path: &str) -> u64 {
    let pools = shop["pools"].as_array().unwrap();
    let known = pools.iter().find(|known| known["name"] == pool).unwrap();
    known.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {path} in {known}"))
}
