//! Active health checks: one small task per endpoint.
//!
//! The first result decides at once; after that an endpoint changes sides only after several results in a row, so
//! that one lost packet takes nobody out ([`crate::domain::health`]). While it is not well it is asked more often: its
//! end is confirmed and its return noticed soon. Checks are jittered so that a fleet does not probe in step.
//!
//! A check may also ask what runs there. An endpoint that is well but reports something else than its pool is for gets
//! no requests until it does; one that does not answer keeps the last word it gave.
//!
//! Invariant: only endpoints of the current table are checked.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use crate::bridge::endpoint::{Endpoint, Health, Obstacle, Target};
use crate::bridge::table::{Plane, Service};
use crate::config::settings::{self, Probe};
use crate::control::events::Events;
use crate::control::probe::Speech;
use crate::domain::health::{self, Streak};

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
                for (at, pool) in service.pools.iter().enumerate() {
                    let examination = Examination::of(service, at);
                    for endpoint in &pool.endpoints {
                        let kept = checks.remove(&endpoint.id).filter(|check| check.examination.is_like(&examination));
                        let begin = || Check::start(service, &examination, endpoint, &events);
                        wanted.insert(endpoint.id, kept.unwrap_or_else(begin));
                    }
                }
            }
            checks = wanted;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What is asked of a pool's endpoints, and how.
#[derive(Clone, Debug)]
pub struct Examination {
    /// The check.
    pub health: settings::Health,
    speech: Speech,
    /// What they must report; `None` if the check does not ask, or nobody said what is right.
    expected: Option<String>,
}

impl Examination {
    /// That of the service's pool of this index.
    pub fn of(service: &Service, pool: usize) -> Examination {
        let settings = &service.settings;
        let asks = settings.health.version.is_some() && settings.health.probe != Probe::Off;
        let expected = settings.pools[pool].expected_version().filter(|_| asks).map(str::to_owned);
        Examination { health: settings.health.clone(), speech: Speech::of(&service.pools[pool]), expected }
    }

    /// The same is asked. How is not compared: an endpoint that is spoken to in another way is another endpoint.
    fn is_like(&self, other: &Examination) -> bool {
        self.health == other.health && self.expected == other.expected
    }

    /// One check.
    ///
    /// # Errors
    /// Says in which way the endpoint is not what it should be.
    pub async fn check(&self, endpoint: &Endpoint) -> Result<(), Fault> {
        let target = endpoint.resolved().ok_or_else(|| Fault::Unwell("its name has not resolved".to_owned()))?;
        let settings::Health { probe, timeout, version, .. } = &self.health;
        let version = version.as_ref().filter(|_| self.expected.is_some());
        let asking = async {
            if *probe == Probe::Off {
                return Ok(None);
            }
            let stream = connect(target).await.map_err(|error| error.to_string())?;
            self.speech.ask(stream, &endpoint.address, probe, version).await
        };
        let asked = tokio::time::timeout(*timeout, asking).await;
        let late = || Err(format!("no answer within {}", humantime::format_duration(*timeout)));
        let reported = asked.unwrap_or_else(|_| late()).map_err(Fault::Unwell)?;
        match (&self.expected, reported) {
            (Some(expected), Some(reported)) => {
                let reported = reported.as_deref().map_err(String::as_str);
                health::is_expected(expected, reported).map_err(Fault::OtherVersion)
            }
            _ => Ok(()),
        }
    }
}

/// What a check has against an endpoint, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not answer as it should.
    Unwell(String),
    /// It does, but runs something else than its pool is for.
    OtherVersion(String),
}

/// The running check of one endpoint; ends when dropped.
struct Check {
    examination: Examination,
    task: JoinHandle<()>,
}

impl Check {
    fn start(service: &Service, examination: &Examination, endpoint: &Arc<Endpoint>, events: &Arc<Events>) -> Check {
        let watcher = Watcher {
            service: service.settings.name.clone(),
            endpoint: Arc::clone(endpoint),
            examination: examination.clone(),
            events: Arc::clone(events),
            streak: Streak::default(),
        };
        Check { examination: examination.clone(), task: tokio::spawn(watcher.watch()) }
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Watcher {
    service: String,
    endpoint: Arc<Endpoint>,
    examination: Examination,
    events: Arc<Events>,
    streak: Streak,
}

impl Watcher {
    async fn watch(mut self) {
        if self.examination.expected.is_none() {
            self.endpoint.obstruct(Obstacle::WrongVersion, false);
        }
        loop {
            let health = &self.examination.health;
            if health.probe == Probe::Off {
                self.endpoint.set_health(Health::Unknown);
                return;
            }
            let found = self.examination.check(&self.endpoint).await;
            self.take(&found);
            let health = &self.examination.health;
            let is_well = found.is_ok() && self.endpoint.health() == Health::Healthy;
            let pause = if is_well { health.interval } else { health.interval_unhealthy };
            tokio::time::sleep(jittered(pause)).await;
        }
    }

    /// Puts the obstacles right after one more check, and tells what changed.
    fn take(&mut self, found: &Result<(), Fault>) {
        let (endpoint, thresholds) = (&self.endpoint, self.examination.health.thresholds);
        let unwell = match found {
            Err(Fault::Unwell(why)) => Some(why),
            _ => None,
        };
        let before = endpoint.health();
        let after = self.streak.next(before, unwell.is_none(), thresholds);
        if let (Some(why), Health::Unhealthy) = (unwell, after) {
            endpoint.explain(Obstacle::Unhealthy, why.as_str());
        }
        endpoint.set_health(after);
        if before != after && (before != Health::Unknown || after == Health::Unhealthy) {
            let why = unwell.map_or(String::new(), |why| format!(": {why}"));
            let word = if after == Health::Healthy { "healthy" } else { "unhealthy" };
            self.tell(format!("{endpoint} is {word}{why}"));
        }
        match found {
            Err(Fault::Unwell(_)) => {}
            Err(Fault::OtherVersion(why)) => {
                endpoint.explain(Obstacle::WrongVersion, why.as_str());
                if endpoint.obstruct(Obstacle::WrongVersion, true) {
                    self.tell(format!("{endpoint} gets no requests: {why}"));
                }
            }
            Ok(()) => {
                if endpoint.obstruct(Obstacle::WrongVersion, false) {
                    self.tell(format!("{endpoint} reports what its pool is for: it may get requests again"));
                }
            }
        }
    }

    fn tell(&self, sentence: String) {
        self.events.tell("health", Some(&self.service), None, sentence);
    }
}

/// A tenth more or less.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
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

    fn by(timeout: Duration) -> Examination {
        let health = settings::Health { timeout, ..settings::Health::default() };
        Examination { health, speech: Speech::default(), expected: None }
    }

    fn patient() -> Examination {
        by(Duration::from_secs(5))
    }

    #[tokio::test]
    async fn a_closed_port_fails_its_check_and_an_open_one_passes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = Endpoint::new(1, settings::Address::http("127.0.0.1", port), 1);
        assert_eq!(patient().check(&endpoint).await, Ok(()));
        drop(listener);
        assert!(patient().check(&endpoint).await.is_err());
    }

    #[tokio::test]
    async fn an_endpoint_on_a_unix_socket_is_checked_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let address = format!("unix:{}", path.display()).parse().unwrap();
        let endpoint = Endpoint::new(1, address, 1);
        assert!(patient().check(&endpoint).await.is_err());
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert_eq!(patient().check(&endpoint).await, Ok(()));
        drop(listener);
        assert!(patient().check(&endpoint).await.is_err());
    }

    #[tokio::test]
    async fn a_name_that_was_never_found_says_so() {
        let endpoint = Endpoint::new(1, "http://app.test".parse().unwrap(), 1);
        let found = by(Duration::from_secs(1)).check(&endpoint).await;
        assert_eq!(found, Err(Fault::Unwell("its name has not resolved".to_owned())));
    }

    #[test]
    fn obstacles_follow_what_checks_find() {
        let (unwell, other) = (Fault::Unwell("refused".to_owned()), Fault::OtherVersion("reports v1".to_owned()));
        let endpoint = Arc::new(Endpoint::new(1, "http://10.0.0.7:80".parse().unwrap(), 1));
        endpoint.await_check();
        assert_eq!((endpoint.is_eligible(), endpoint.reason().as_deref()), (false, Some("not checked yet")));
        let events = Arc::new(Events::default());
        let mut watcher = Watcher {
            service: "shop".to_owned(),
            endpoint: Arc::clone(&endpoint),
            examination: patient(),
            events: Arc::clone(&events),
            streak: Streak::default(),
        };
        let table = [
            // what a check finds -> obstacles, why, what is told
            (Ok(()), &[][..], None, None),
            (Err(&other), &[Obstacle::WrongVersion], Some("reports v1"), Some("gets no requests: reports v1")),
            (Err(&other), &[Obstacle::WrongVersion], Some("reports v1"), None),
            // Two failures more do not change sides, nor the last word about its version.
            (Err(&unwell), &[Obstacle::WrongVersion], Some("reports v1"), None),
            (Err(&unwell), &[Obstacle::WrongVersion], Some("reports v1"), None),
            (Ok(()), &[], None, Some("reports what its pool is for: it may get requests again")),
            (Err(&unwell), &[], None, None),
            (Err(&unwell), &[], None, None),
            (Err(&unwell), &[Obstacle::Unhealthy], Some("refused"), Some("is unhealthy: refused")),
            (Ok(()), &[Obstacle::Unhealthy], Some("refused"), None),
            (Ok(()), &[], None, Some("is healthy")),
        ];
        for (at, (found, obstacles, reason, told)) in table.into_iter().enumerate() {
            let newest = *events.follow().borrow();
            watcher.take(&found.map_err(Fault::clone));
            assert_eq!(endpoint.obstacles().collect::<Vec<_>>(), obstacles, "{at}");
            assert_eq!(endpoint.reason().as_deref(), reason, "{at}");
            let sentences = events.after(newest).into_iter().map(|event| event.sentence).collect::<Vec<_>>();
            let expected: Vec<_> = told.iter().map(|told| format!("http://10.0.0.7:80 {told}")).collect();
            assert_eq!(sentences, expected, "{at}");
        }
    }
}
