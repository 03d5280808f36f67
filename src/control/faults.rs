//! Injected faults from the control plane's side: what is asked for, when it ends, and who is told.
//!
//! A drill is loud: an event when it begins and when it ends, and a place in every status between. It lives in the table
//! alone. A restart ends it, because a process that comes back in trouble must not be in a drill.
//!
//! Invariant: a fault that was announced is announced to be over, unless its service itself went away.

use std::sync::Arc;
use std::time::Duration;

use crate::bridge::injection::Live;
use crate::bridge::table::Service;
use crate::clock;
use crate::control::command::Refusal;
use crate::control::events::Events;
use crate::control::publisher::Publisher;
use crate::domain::injection::{Effect, Injection};
use crate::domain::route::Match;
use crate::domain::split::Share;

/// Between two looks for faults that are over.
const LOOK: Duration = Duration::from_millis(100);

/// A fault to inject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultOrder {
    /// Unique within the service.
    pub name: String,
    /// The pool; every one if none is named.
    pub pool: Option<String>,
    /// Which requests.
    pub matches: Match,
    /// How many of them.
    pub share: Share,
    /// What happens to them.
    pub effect: Effect,
    /// For how long from now.
    pub lasts: Duration,
}

/// A fault that is being injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultStatus {
    /// Its name.
    pub name: String,
    /// The pool; every one if none is named.
    pub pool: Option<String>,
    /// It is about some requests only.
    pub is_partial: bool,
    /// How many of them.
    pub share: Share,
    /// What happens to them.
    pub effect: Effect,
    /// For how long still.
    pub left: Duration,
    /// Requests hit so far.
    pub injected: u64,
}

impl FaultOrder {
    /// The fault that begins at `now`, microseconds of monotonic time.
    fn begin(self, now: u64) -> Injection {
        let FaultOrder { name, pool, matches, share, effect, lasts } = self;
        let lasts = u64::try_from(lasts.as_micros()).unwrap_or(u64::MAX);
        Injection { name, pool, matches, share, effect, until: now.saturating_add(lasts) }
    }
}

impl FaultStatus {
    /// The faults of a service that are not over.
    pub fn of(service: &Service) -> Vec<FaultStatus> {
        let now = clock::now().0;
        let status = |live: &Arc<Live>| {
            let Injection { name, pool, matches, share, effect, .. } = &live.injection;
            FaultStatus {
                name: name.clone(),
                pool: pool.clone(),
                is_partial: !matches.is_everything(),
                share: *share,
                effect: *effect,
                left: live.injection.left(now),
                injected: live.injected(),
            }
        };
        service.faults.iter().filter(|live| !live.injection.is_over(now)).map(status).collect()
    }
}

/// Injects these faults into a service in place of all that were there; the version of the table that does.
///
/// # Errors
/// When there is no such service or pool.
pub fn replace(
    publisher: &Publisher,
    events: &Events,
    service: &Service,
    orders: Vec<FaultOrder>,
    by: &str,
) -> Result<u64, Refusal> {
    let known: Vec<&str> = service.settings.pools.iter().map(|pool| pool.name.as_str()).collect();
    for pool in orders.iter().filter_map(|order| order.pool.as_deref()) {
        if !known.contains(&pool) {
            let suggestion = crate::control::driver::nearest(pool, known.into_iter());
            return Err(Refusal::Unknown { kind: "pool", name: pool.to_owned(), suggestion });
        }
    }
    let name = &service.settings.name;
    let now = clock::now().0;
    let lasts: Vec<Duration> = orders.iter().map(|order| order.lasts).collect();
    let faults: Vec<_> = orders.into_iter().map(|order| order.begin(now)).collect();
    let told: Vec<String> = faults.iter().map(|fault| format!("`{}`: {fault}", fault.name)).collect();
    let unknown = || Refusal::Unknown { kind: "service", name: name.clone(), suggestion: None };
    let (version, before) = publisher.inject(name, faults).ok_or_else(unknown)?;
    for ended in before {
        events.tell("fault", Some(name), None, format!("the injected fault `{ended}` was ended by {by}"));
    }
    for (text, lasts) in told.into_iter().zip(lasts) {
        let lasts = humantime::format_duration(lasts);
        events.tell("fault", Some(name), None, format!("a fault is injected by {by} for {lasts}, {text}"));
    }
    Ok(version)
}

/// Takes out what is over, until dropped.
pub async fn run(publisher: Arc<Publisher>, events: Arc<Events>) {
    loop {
        for (service, fault) in publisher.end_injections(clock::now().0) {
            events.tell("fault", Some(&service), None, format!("the injected fault `{fault}` is over"));
        }
        tokio::time::sleep(LOOK).await;
    }
}
