//! Active health checks: one small task per endpoint.
//!
//! The first result decides at once; after that an endpoint changes sides only after several results in a row, so
//! that one lost packet takes nobody out. Checks are jittered so that a fleet does not probe in step.
//!
//! Invariant: only endpoints of the current table are checked.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use crate::bridge::endpoint::{Endpoint, Health, Target};
use crate::bridge::table::{Plane, Pool, Service};
use crate::config::settings::{self, Probe};
use crate::control::events::Events;
use crate::control::probe::Speech;

/// How often the set of endpoints is compared with the table.
const LOOK: Duration = Duration::from_millis(100);

/// Checks every endpoint of the current table until dropped.
pub async fn run(plane: Arc<Plane>, events: Arc<Events>) {
    let mut version = 0;
    let mut checks: HashMap<u64, Check> = HashMap::new();
    loop {
        let table = plane.table.load_full();
        if std::mem::replace(&mut version, table.version) != table.version {
            let mut wanted = HashMap::new();
            for service in &table.services {
                let endpoints = service.pools.iter().flat_map(|pool| pool.endpoints.iter().map(move |one| (pool, one)));
                for (pool, endpoint) in endpoints {
                    let kept = checks.remove(&endpoint.id).filter(|check| *check.settings == service.settings.health);
                    let check = kept.unwrap_or_else(|| Check::start(service, pool, endpoint, &events));
                    wanted.insert(endpoint.id, check);
                }
            }
            checks = wanted;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The running check of one endpoint; ends when dropped.
struct Check {
    settings: Box<settings::Health>,
    task: JoinHandle<()>,
}

impl Check {
    fn start(service: &Service, pool: &Pool, endpoint: &Arc<Endpoint>, events: &Arc<Events>) -> Check {
        let health = service.settings.health.clone();
        let name = service.settings.name.clone();
        // An endpoint that is spoken to in another way is another endpoint: this holds for as long as the check.
        let speech = Speech::of(pool);
        let task = tokio::spawn(watch(name, Arc::clone(endpoint), speech, health.clone(), Arc::clone(events)));
        Check { settings: Box::new(health), task }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn watch(
    service: String,
    endpoint: Arc<Endpoint>,
    speech: Speech,
    health: settings::Health,
    events: Arc<Events>,
) {
    let mut streak = Streak::default();
    loop {
        if health.probe == Probe::Off {
            endpoint.set_health(Health::Unknown);
        } else {
            let passed = check(&endpoint, &speech, &health).await;
            let before = endpoint.health();
            let after = streak.next(before, passed.is_ok(), &health);
            endpoint.set_health(after);
            if before != after && (before != Health::Unknown || after == Health::Unhealthy) {
                let why = passed.err().map_or(String::new(), |error| format!(": {error}"));
                let word = if after == Health::Healthy { "healthy" } else { "unhealthy" };
                events.tell("health", Some(&service), None, format!("{endpoint} is {word}{why}"));
            }
        }
        tokio::time::sleep(jittered(health.interval)).await;
    }
}

/// A tenth more or less.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}

/// Results of the same kind in a row.
#[derive(Debug, Default)]
struct Streak {
    passed: bool,
    length: u32,
}

impl Streak {
    /// The health that follows from one more result.
    fn next(&mut self, before: Health, passed: bool, health: &settings::Health) -> Health {
        self.length = if self.passed == passed { self.length.saturating_add(1) } else { 1 };
        self.passed = passed;
        match (before, passed) {
            (Health::Unknown, true) => Health::Healthy,
            (Health::Unknown, false) => Health::Unhealthy,
            (Health::Healthy, false) if self.length >= health.unhealthy_after => Health::Unhealthy,
            (Health::Unhealthy, true) if self.length >= health.healthy_after => Health::Healthy,
            (unchanged, _) => unchanged,
        }
    }
}

/// One check.
///
/// # Errors
/// Says in which way the endpoint is not well.
pub async fn check(endpoint: &Endpoint, speech: &Speech, health: &settings::Health) -> Result<(), String> {
    let target = endpoint.resolved().ok_or("its name has not resolved")?;
    let probe = async {
        if health.probe == Probe::Off {
            return Ok(());
        }
        let stream = connect(target).await.map_err(|error| error.to_string())?;
        speech.ask(stream, &endpoint.address, &health.probe).await
    };
    let limit = tokio::time::timeout(health.timeout, probe).await;
    limit.unwrap_or_else(|_| Err(format!("no answer within {}", humantime::format_duration(health.timeout))))
}

/// A stream of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn connect(target: &Target) -> io::Result<Box<dyn Stream>> {
    Ok(match target {
        Target::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        Target::Unix(path) => Box::new(UnixStream::connect(path).await?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_result_decides_and_then_it_takes_several_in_a_row() {
        let health = settings::Health::default();
        let mut streak = Streak::default();
        let mut now = Health::Unknown;
        let mut feed = |passed: bool| {
            now = streak.next(now, passed, &health);
            now == Health::Healthy
        };
        let results = [true, false, false, true, false, false, false, true, false, true, true];
        let expected = [true, true, true, true, true, true, false, false, false, false, true];
        assert_eq!(results.map(&mut feed), expected);
    }

    #[tokio::test]
    async fn a_closed_port_fails_its_check_and_an_open_one_passes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = Endpoint::new(1, settings::Address::http("127.0.0.1", port), 1);
        let health = settings::Health { timeout: Duration::from_secs(5), ..settings::Health::default() };
        assert_eq!(check(&endpoint, &Speech::default(), &health).await, Ok(()));
        drop(listener);
        assert!(check(&endpoint, &Speech::default(), &health).await.is_err());
    }

    #[tokio::test]
    async fn an_endpoint_on_a_unix_socket_is_checked_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let address = format!("unix:{}", path.display()).parse().unwrap();
        let endpoint = Endpoint::new(1, address, 1);
        let health = settings::Health { timeout: Duration::from_secs(5), ..settings::Health::default() };
        assert!(check(&endpoint, &Speech::default(), &health).await.is_err());
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert_eq!(check(&endpoint, &Speech::default(), &health).await, Ok(()));
        drop(listener);
        assert!(check(&endpoint, &Speech::default(), &health).await.is_err());
    }

    #[tokio::test]
    async fn a_name_that_was_never_found_says_so() {
        let endpoint = Endpoint::new(1, "http://app.test".parse().unwrap(), 1);
        let found = check(&endpoint, &Speech::default(), &settings::Health::default()).await;
        assert_eq!(found, Err("its name has not resolved".to_owned()));
    }
}
