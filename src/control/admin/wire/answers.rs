//! From the control plane's plain types to the JSON they are shown as.
//!
//! Invariant: every number is finite, since JSON has no other.

use crate::bridge::endpoint::Health;
use crate::clock;
use crate::config::settings::Guard;
use crate::control::admin::wire::{
    ActiveFaults, Analyze, Bounds, Breaker, Done, Ended, EndpointStatus, Event, Intake, JudgeStatus, Judged,
    OnInconclusive, Ordered, Plan, PoolStatus, Reloaded, Rollout, Room, ServiceStatus, Step,
};
use crate::control::{command, events, state};
use crate::domain::outcome::Failure;
use crate::domain::rescue::Refused;
use crate::domain::rollout::machine::{self, Cause, End, Phase};
use crate::domain::rollout::plan;

/// Classes of statuses, in the order of `PoolTally::classes`.
pub(in crate::control::admin) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl From<command::ServiceStatus> for ServiceStatus {
    fn from(status: command::ServiceStatus) -> ServiceStatus {
        ServiceStatus {
            name: status.name,
            hosts: status.hosts,
            paths: status.paths,
            active: status.active,
            epoch: status.epoch,
            guard: guard(status.guard).to_owned(),
            pools: status.pools.into_iter().map(PoolStatus::from).collect(),
            rollout: status.rollout.map(Rollout::from),
            judge: status.judge.map(JudgeStatus::from),
            intake: Intake::from(status.intake),
            faults: ActiveFaults::from(status.faults).faults,
            changed_by: status.changed_by,
            changed_at: clock::rfc3339(status.changed_at.0),
        }
    }
}

impl From<command::PoolStatus> for PoolStatus {
    fn from(pool: command::PoolStatus) -> PoolStatus {
        PoolStatus {
            name: pool.name,
            share: pool.share.to_string(),
            rolled_back: pool.rolled_back,
            in_flight: pool.in_flight,
            responses: named(CLASSES, pool.responses),
            failures: named(Failure::ALL.map(Failure::name), pool.failures),
            retries: pool.retries,
            rescued: pool.rescued,
            rescue_refused: named(Refused::ALL.map(Refused::name), pool.unrescued),
            p50_us: pool.p50_us,
            p99_us: pool.p99_us,
            panics: pool.panics,
            priorities: Ordered(pool.priorities.into_iter().map(priority).collect()),
            breaker: pool.breaker.map(Breaker::from),
            room: Room::from(pool.room),
            endpoints: pool.endpoints.into_iter().map(EndpointStatus::from).collect(),
        }
    }
}

/// A priority and its share, in whole percents.
fn priority((priority, share): (u8, f64)) -> (String, String) {
    (priority.to_string(), format!("{:.0}%", share * 100.0))
}

fn named<const N: usize>(names: [&str; N], counts: [u64; N]) -> Ordered<u64> {
    Ordered(names.into_iter().map(str::to_owned).zip(counts).collect())
}

impl From<command::EndpointStatus> for EndpointStatus {
    fn from(endpoint: command::EndpointStatus) -> EndpointStatus {
        let health = match endpoint.health {
            Health::Unknown => "unknown",
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        };
        EndpointStatus {
            address: endpoint.address,
            weight: endpoint.rank.weight,
            priority: endpoint.rank.priority,
            health: health.to_owned(),
            obstacles: endpoint.obstacles.into_iter().map(|obstacle| obstacle.name().to_owned()).collect(),
            reason: endpoint.reason,
            in_flight: endpoint.in_flight,
            breaker: endpoint.breaker.map(Breaker::from),
        }
    }
}

impl From<command::JudgeStatus> for JudgeStatus {
    fn from(judge: command::JudgeStatus) -> JudgeStatus {
        let judged = |(all, bad)| Judged { all, bad };
        JudgeStatus {
            canary: judge.canary,
            baseline: judge.baseline,
            evidence: finite(judge.evidence),
            needed: finite(judge.needed),
            p: finite(judge.p),
            canary_requests: judged(judge.canary_units),
            baseline_requests: judged(judge.baseline_units),
            approved: judge.approved,
            sentence: judge.sentence,
        }
    }
}

/// Evidence can overflow; its largest finite value says as much. A not-a-number says nothing: zero.
fn finite(number: f64) -> f64 {
    if number.is_nan() { 0.0 } else { number.clamp(f64::MIN, f64::MAX) }
}

impl From<command::Done> for Done {
    fn from(done: command::Done) -> Done {
        Done {
            epoch: done.epoch,
            version: done.version,
            acknowledged_us: done.acknowledged_us,
            weights: Ordered(done.shares.into_iter().map(|(pool, share)| (pool, share.to_string())).collect()),
        }
    }
}

impl From<command::Reloaded> for Reloaded {
    fn from(reloaded: command::Reloaded) -> Reloaded {
        let command::Reloaded { version, changed, needs_restart } = reloaded;
        Reloaded { version, changed, needs_restart }
    }
}

impl From<command::Found> for Rollout {
    fn from(found: command::Found) -> Rollout {
        match found {
            command::Found::Running(rollout) => Rollout::from(*rollout),
            command::Found::Over(finished) => Rollout::from(*finished),
        }
    }
}

impl From<state::Finished> for Rollout {
    fn from(finished: state::Finished) -> Rollout {
        let mut rollout = Rollout::from(finished.rollout);
        if let Some(ended) = &mut rollout.ended {
            ended.at = Some(clock::rfc3339(finished.ended_at.0));
        }
        rollout
    }
}

impl From<machine::Rollout> for Rollout {
    fn from(rollout: machine::Rollout) -> Rollout {
        let total = rollout.order.plan.steps.len();
        let (phase, held) = phase(rollout.phase);
        Rollout {
            phase: phase.to_owned(),
            held: held.map(str::to_owned),
            step: total.min(rollout.step + 1),
            steps_total: total,
            place: rollout.place(),
            share: rollout.applied.to_string(),
            ended: rollout.end().map(|end| Ended { how: end_word(end).to_owned(), at: None }),
            id: rollout.order.id,
            service: rollout.order.service,
            baseline: rollout.order.baseline,
            canary: rollout.order.canary,
            approved: rollout.approved,
            verdict: rollout.verdict,
            reason: rollout.reason,
            started_by: rollout.order.started_by,
            started_at: clock::rfc3339(rollout.order.started_at.0),
            plan: Plan::from(rollout.order.plan),
        }
    }
}

/// A phase's word, and the word of its cause if it is a hold.
fn phase(phase: Phase) -> (&'static str, Option<&'static str>) {
    match phase {
        Phase::Ready => ("ready", None),
        Phase::Applying { .. } => ("applying", None),
        Phase::Analyzing => ("analyzing", None),
        Phase::Waiting => ("waiting", None),
        Phase::Held(cause) => ("held", Some(cause_word(cause))),
        Phase::Promoting => ("promoting", None),
        Phase::RollingBack(_) => ("rolling_back", None),
        Phase::Ended(_) => ("ended", None),
    }
}

const fn cause_word(cause: Cause) -> &'static str {
    match cause {
        Cause::Advised => "advised",
        Cause::Breaker => "breaker",
        Cause::Inconclusive => "inconclusive",
        Cause::Paused => "paused",
        Cause::Failed => "failed",
        Cause::Restarted => "restarted",
    }
}

const fn end_word(end: End) -> &'static str {
    match end {
        End::Promoted => "promoted",
        End::RolledBack => "rolled_back",
        End::Aborted => "aborted",
    }
}

const fn guard(guard: Guard) -> &'static str {
    match guard {
        Guard::Rollback => "rollback",
        Guard::Hold => "hold",
        Guard::Observe => "observe",
        Guard::Off => "off",
    }
}

impl From<plan::Plan> for Plan {
    fn from(plan: plan::Plan) -> Plan {
        let on_inconclusive = match plan.on_inconclusive {
            plan::OnInconclusive::Hold => OnInconclusive::Hold,
            plan::OnInconclusive::Rollback => OnInconclusive::Rollback,
        };
        Plan { steps: plan.steps.into_iter().map(Step::from).collect(), on_inconclusive }
    }
}

impl From<plan::Step> for Step {
    fn from(step: plan::Step) -> Step {
        let text = |time| humantime::format_duration(time).to_string();
        match step {
            plan::Step::Weight(share) => Step::Weight(share.to_string()),
            plan::Step::Analyze { dwell, deadline: None } => Step::Analyze(Analyze::Dwell(text(dwell))),
            plan::Step::Analyze { dwell, deadline } => {
                Step::Analyze(Analyze::Bounded(Bounds { dwell: text(dwell), deadline: deadline.map(text) }))
            }
            plan::Step::Pause(plan::Pause::For(time)) => Step::Pause(text(time)),
            plan::Step::Pause(plan::Pause::UntilApproved) => Step::Pause("approve".to_owned()),
        }
    }
}

impl From<events::Event> for Event {
    fn from(event: events::Event) -> Event {
        Event {
            id: event.id,
            at: clock::rfc3339(event.at),
            service: event.service,
            rollout: event.rollout,
            kind: event.kind.to_owned(),
            sentence: event.sentence,
            took_us: event.took_us,
        }
    }
}
