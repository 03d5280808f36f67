//! What people read: the API's answers as tables and sentences.
//!
//! Pure functions from wire values to text, so that every line is tested as an exact string.

use std::fmt::Write;

use super::output::LOUD;
use super::table::{Side, table};
use crate::control::admin::wire::{
    ActiveFault, Concurrency, Done, Event, Ordered, PoolStatus, Reloaded, Rollout, Room, ServiceStatus, Services,
};

const POOL_HEADING: [&str; 12] =
    ["POOL", "SHARE", "IN-FLIGHT", "2XX", "4XX", "5XX", "FAILED", "RESCUED", "P50", "P99", "HEALTHY", ""];
const POOL_COLUMNS: [Side; 12] = {
    let mut columns = [Side::Right; 12];
    (columns[0], columns[11]) = (Side::Left, Side::Left);
    columns
};

/// All services, one below the other.
pub(super) fn services(services: &Services) -> String {
    let texts: Vec<_> = services.services.iter().map(service).collect();
    texts.join("\n")
}

/// One service: its pools, its rollout, what the judge sees.
pub(super) fn service(status: &ServiceStatus) -> String {
    let heading = POOL_HEADING.map(str::to_owned).to_vec();
    let rows = status.pools.iter().map(|pool| pool_row(pool, pool.name == status.active));
    let rows: Vec<_> = std::iter::once(heading).chain(rows).collect();
    let mut text: String = status.faults.iter().map(|fault| loud_fault(&status.name, fault)).collect();
    let _ = writeln!(text, "{}: active {}, epoch {}", status.name, status.active, status.epoch);
    text.push_str(&table(2, &POOL_COLUMNS, &rows));
    for pool in &status.pools {
        for endpoint in pool.endpoints.iter().filter(|endpoint| !endpoint.obstacles.is_empty()) {
            let words = endpoint.obstacles.join(", ").replace('_', " ");
            let why = endpoint.reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
            let _ = writeln!(text, "  {words}  {} of {}{why}", endpoint.address, pool.name);
        }
    }
    for pool in &status.pools {
        // With one priority, or all requests at the first one, there is nothing to say.
        if pool.priorities.0.iter().skip(1).any(|(_, share)| share != "0%") {
            let parts: Vec<_> =
                pool.priorities.0.iter().map(|(priority, share)| format!("{priority}: {share}")).collect();
            let _ = writeln!(text, "  priority   {} of {}", parts.join(", "), pool.name);
        }
        if pool.panics {
            let _ = writeln!(text, "  panic      {}: ejections and breakers of its endpoints do not count", pool.name);
        }
        breakers(pool, &mut text);
        let Room { waiting, overflowed, queued_too_long } = pool.room;
        if waiting + overflowed + queued_too_long > 0 {
            let turned = overflowed + queued_too_long;
            let _ = writeln!(text, "  limits   {}: {waiting} wait, {turned} turned away", pool.name);
        }
    }
    for limit in &status.intake.rate_limits {
        let place = limit.route.as_ref().map_or(String::new(), |route| format!(" of route {route}"));
        let _ = writeln!(text, "  limit    {}{place}, {}: {} refused", limit.name, limit.rate, limit.refused);
    }
    if let Some(Concurrency { in_flight, limit, shed }) = status.intake.concurrency {
        let _ = writeln!(text, "  in flight {in_flight} of {limit}, {shed} refused");
    }
    if let Some(rollout) = &status.rollout {
        let _ = writeln!(text, "  rollout  {} to {}, {}", rollout.baseline, rollout.canary, place(rollout));
    }
    if let Some(judge) = &status.judge {
        let _ = writeln!(text, "  judge    {}", judge.sentence);
    }
    text
}

/// The breakers of a pool and its endpoints that are not closed.
fn breakers(pool: &PoolStatus, text: &mut String) {
    let own = std::iter::once((pool.name.clone(), &pool.breaker));
    let all = pool.endpoints.iter().map(|one| (format!("{} of {}", one.address, pool.name), &one.breaker));
    let shown = own.chain(all).filter_map(|(name, breaker)| Some((name, breaker.as_ref()?)));
    for (name, breaker) in shown.filter(|(_, breaker)| breaker.state != "closed") {
        let state = breaker.state.replace('_', " ");
        let wait =
            breaker.wait_ms.map_or(String::new(), |ms| format!(" for {}", latency(Some(ms.saturating_mul(1_000)))));
        let _ = writeln!(text, "  breaker  {name} {state}{wait}: {} (opened {} times)", breaker.reason, breaker.trips);
    }
}

/// The faults that are injected into a service.
pub(super) fn faults(service: &str, faults: &[ActiveFault]) -> String {
    match faults {
        [] => format!("{service}: no fault is injected"),
        _ => faults.iter().map(|fault| loud_fault(service, fault)).collect(),
    }
}

/// A drill is not to be overlooked by whoever looks for the cause of what it does.
fn loud_fault(service: &str, fault: &ActiveFault) -> String {
    let ActiveFault { name, pool, partial, share, effect, left_ms, injected } = fault;
    let pool = pool.as_deref().unwrap_or("every pool");
    let some = if *partial { " where it matches" } else { "" };
    let left = humantime::format_duration(std::time::Duration::from_secs(left_ms.div_ceil(1_000)));
    format!(
        "{LOUD}FAULT INJECTED into {service} ({name}): {share} of {pool}{some} is {effect}; {injected} so far, {left} left\n"
    )
}

fn pool_row(pool: &PoolStatus, active: bool) -> Vec<String> {
    let class = |name| pool.responses.find(name).copied().unwrap_or(0).to_string();
    let failed = pool.failures.0.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
    let healthy = pool.endpoints.iter().filter(|endpoint| endpoint.obstacles.is_empty()).count();
    let note = match (active, pool.rolled_back) {
        (true, _) => "active",
        (false, true) => "rolled back",
        (false, false) => "",
    };
    vec![
        pool.name.clone(),
        pool.share.clone(),
        pool.in_flight.to_string(),
        class("2xx"),
        class("4xx"),
        class("5xx"),
        failed.to_string(),
        pool.rescued.to_string(),
        latency(pool.p50_us),
        latency(pool.p99_us),
        format!("{healthy}/{}", pool.endpoints.len()),
        note.to_owned(),
    ]
}

/// Where a rollout is and why. The reason often begins with the place: it is said once.
fn place(rollout: &Rollout) -> String {
    let place = match (rollout.reason.is_empty(), rollout.reason.starts_with(&rollout.place)) {
        (true, _) => rollout.place.clone(),
        (false, true) => rollout.reason.clone(),
        (false, false) => format!("{}: {}", rollout.place, rollout.reason),
    };
    match (rollout.phase.as_str(), &rollout.held) {
        ("held", Some(cause)) => format!("held ({cause}): {place}"),
        ("rolling_back", _) => format!("rolling back: {place}"),
        _ => place,
    }
}

/// A rollout in one line: under way, or how it ended.
pub(super) fn rollout(rollout: &Rollout) -> String {
    let service = &rollout.service;
    match &rollout.ended {
        None => format!(
            "rollout {} of {service} from {} to {}, {}",
            rollout.id,
            rollout.baseline,
            rollout.canary,
            place(rollout)
        ),
        Some(ended) => {
            let reason = if rollout.reason.is_empty() { &rollout.verdict } else { &rollout.reason };
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("rollout of {service} {}{why}", ended.how.replace('_', " "))
        }
    }
}

/// A change of the split that is done.
pub(super) fn done(service: &str, done: &Done) -> String {
    let taken_up = latency(Some(done.acknowledged_us));
    format!("{service}: {} (epoch {}, every worker switched within {taken_up})", shares(&done.weights), done.epoch)
}

fn shares(shares: &Ordered<String>) -> String {
    let each: Vec<_> = shares.0.iter().map(|(pool, share)| format!("{pool} {share}")).collect();
    each.join(", ")
}

/// What a reload did.
pub(super) fn reloaded(reloaded: &Reloaded) -> String {
    let mut text = match reloaded.changed {
        true => format!("reloaded: table version {}\n", reloaded.version),
        false => "nothing changed: the file says what is running\n".to_owned(),
    };
    for what in &reloaded.needs_restart {
        let _ = writeln!(text, "needs a restart: {what}");
    }
    text
}

/// One event in one line.
pub(super) fn event(event: &Event) -> String {
    let service = event.service.as_deref().unwrap_or("teal");
    format!("{}  {service}  {}: {}", event.at, event.kind, event.sentence.replace('\n', " "))
}

/// Microseconds with the unit that fits and about three digits.
fn latency(micros: Option<u64>) -> String {
    match micros {
        None => "-".to_owned(),
        Some(us @ ..1_000) => format!("{us}us"),
        Some(us @ 1_000..9_950) => format!("{:.1}ms", us as f64 / 1e3),
        Some(us @ 9_950..999_500) => format!("{:.0}ms", us as f64 / 1e3),
        Some(us) => format!("{:.2}s", us as f64 / 1e6),
    }
}
