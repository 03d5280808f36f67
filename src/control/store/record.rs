//! Border file: what the store writes, as versioned JSON, and back.
//!
//! Mirrors the plain types so that they can change without the disk noticing. Reading checks what the
//! types promise (shares within 100 %, a step within its plan), so a damaged record is an error here and
//! never a panic later. Times of this process (`Rollout::entered`) and an approval in flight are not
//! written: a restart waits anew, which is the safer side.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::state::{Finished, ServiceState};
use crate::domain::drain::Part;
use crate::domain::rollout::machine::{Cause, End, Millis, Order, Phase, Rollout, UnixMillis};
use crate::domain::rollout::plan::{OnInconclusive, Pause, Plan, Step};
use crate::domain::split::Share;

/// The version written; every version up to it is read.
const VERSION: u32 = 1;

/// The bytes of a service's state.
pub(super) fn encode_state(state: &ServiceState) -> Vec<u8> {
    encode(StateRecord::from(state))
}

/// A service's state, or what is wrong with the bytes.
pub(super) fn decode_state(bytes: &[u8]) -> Result<ServiceState, String> {
    decode::<StateRecord>(bytes)?.try_into()
}

/// The bytes of an ended rollout.
pub(super) fn encode_finished(finished: &Finished) -> Vec<u8> {
    encode(FinishedRecord { rollout: (&finished.rollout).into(), ended_at: finished.ended_at.0 })
}

/// An ended rollout, or what is wrong with the bytes.
pub(super) fn decode_finished(bytes: &[u8]) -> Result<Finished, String> {
    let record: FinishedRecord = decode(bytes)?;
    Ok(Finished { rollout: record.rollout.try_into()?, ended_at: UnixMillis(record.ended_at) })
}

fn encode<T: Serialize>(body: T) -> Vec<u8> {
    serde_json::to_vec(&Versioned { version: VERSION, body }).expect("records have text keys and plain values")
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, String> {
    // The version first: a record of a newer one need not look like ours.
    let Version { version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if version == 0 || version > VERSION {
        return Err(format!("record version {version}, this teal knows 1 to {VERSION}"));
    }
    serde_json::from_slice(bytes).map(|Versioned { body, .. }| body).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    body: T,
}

#[derive(Serialize, Deserialize)]
struct StateRecord {
    active: String,
    shares: BTreeMap<String, u16>,
    epoch: u64,
    salt: u64,
    rolled_back: BTreeSet<String>,
    /// Missing in what was written before there were drains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    drained: Vec<PartRecord>,
    rollout: Option<RolloutRecord>,
    changed_by: String,
    changed_at: u64,
}

#[derive(Serialize, Deserialize)]
struct PartRecord {
    pool: String,
    endpoint: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct FinishedRecord {
    rollout: RolloutRecord,
    ended_at: u64,
}

#[derive(Serialize, Deserialize)]
struct RolloutRecord {
    id: String,
    service: String,
    baseline: String,
    canary: String,
    steps: Vec<StepRecord>,
    on_inconclusive: OnInconclusiveRecord,
    started_by: String,
    started_at: u64,
    phase: PhaseRecord,
    step: usize,
    applied: u16,
    verdict: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StepRecord {
    Weight(u16),
    Analyze { dwell_ms: u64, deadline_ms: Option<u64> },
    PauseFor { ms: u64 },
    PauseUntilApproved,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OnInconclusiveRecord {
    Hold,
    Rollback,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PhaseRecord {
    Ready,
    Applying { share: u16 },
    Analyzing,
    Waiting,
    Held(CauseRecord),
    Promoting,
    RollingBack(EndRecord),
    Ended(EndRecord),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CauseRecord {
    Advised,
    Breaker,
    Inconclusive,
    Paused,
    Failed,
    Restarted,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EndRecord {
    Promoted,
    RolledBack,
    Aborted,
}

impl From<&ServiceState> for StateRecord {
    fn from(state: &ServiceState) -> StateRecord {
        StateRecord {
            active: state.active.clone(),
            shares: state.shares.iter().map(|(pool, share)| (pool.clone(), share.basis_points())).collect(),
            epoch: state.epoch,
            salt: state.salt,
            rolled_back: state.rolled_back.clone(),
            drained: state.drained.parts().map(PartRecord::from).collect(),
            rollout: state.rollout.as_ref().map(RolloutRecord::from),
            changed_by: state.changed_by.clone(),
            changed_at: state.changed_at.0,
        }
    }
}

impl TryFrom<StateRecord> for ServiceState {
    type Error = String;

    fn try_from(record: StateRecord) -> Result<ServiceState, String> {
        let total: u32 = record.shares.values().copied().map(u32::from).sum();
        if total != u32::from(Share::ALL.basis_points()) {
            return Err(format!("shares sum to {total} basis points instead of 10000"));
        }
        let shares = record.shares.into_iter().map(|(pool, points)| Ok((pool, share(points)?)));
        Ok(ServiceState {
            active: record.active,
            shares: shares.collect::<Result<_, String>>()?,
            epoch: record.epoch,
            salt: record.salt,
            rolled_back: record.rolled_back,
            drained: record.drained.into_iter().map(Part::from).collect(),
            rollout: record.rollout.map(Rollout::try_from).transpose()?,
            changed_by: record.changed_by,
            changed_at: UnixMillis(record.changed_at),
        })
    }
}

impl From<&Part> for PartRecord {
    fn from(part: &Part) -> PartRecord {
        PartRecord { pool: part.pool.clone(), endpoint: part.endpoint.clone() }
    }
}

impl From<PartRecord> for Part {
    fn from(PartRecord { pool, endpoint }: PartRecord) -> Part {
        Part { pool, endpoint }
    }
}

impl From<&Rollout> for RolloutRecord {
    fn from(rollout: &Rollout) -> RolloutRecord {
        let Rollout { order, phase, step, applied, entered: _, approved: _, verdict, reason } = rollout;
        RolloutRecord {
            id: order.id.clone(),
            service: order.service.clone(),
            baseline: order.baseline.clone(),
            canary: order.canary.clone(),
            steps: order.plan.steps.iter().map(StepRecord::from).collect(),
            on_inconclusive: match order.plan.on_inconclusive {
                OnInconclusive::Hold => OnInconclusiveRecord::Hold,
                OnInconclusive::Rollback => OnInconclusiveRecord::Rollback,
            },
            started_by: order.started_by.clone(),
            started_at: order.started_at.0,
            phase: (*phase).into(),
            step: *step,
            applied: applied.basis_points(),
            verdict: verdict.clone(),
            reason: reason.clone(),
        }
    }
}

impl TryFrom<RolloutRecord> for Rollout {
    type Error = String;

    fn try_from(record: RolloutRecord) -> Result<Rollout, String> {
        if record.steps.is_empty() || record.step > record.steps.len() {
            return Err(format!("step {} of a plan of {} steps", record.step, record.steps.len()));
        }
        let steps = record.steps.into_iter().map(Step::try_from).collect::<Result<_, String>>()?;
        let on_inconclusive = match record.on_inconclusive {
            OnInconclusiveRecord::Hold => OnInconclusive::Hold,
            OnInconclusiveRecord::Rollback => OnInconclusive::Rollback,
        };
        Ok(Rollout {
            order: Order {
                id: record.id,
                service: record.service,
                baseline: record.baseline,
                canary: record.canary,
                plan: Plan { steps, on_inconclusive },
                started_by: record.started_by,
                started_at: UnixMillis(record.started_at),
            },
            phase: record.phase.try_into()?,
            step: record.step,
            applied: share(record.applied)?,
            entered: Millis(0),
            approved: false,
            verdict: record.verdict,
            reason: record.reason,
        })
    }
}

impl From<&Step> for StepRecord {
    fn from(step: &Step) -> StepRecord {
        match step {
            Step::Weight(share) => StepRecord::Weight(share.basis_points()),
            Step::Analyze { dwell, deadline } => {
                StepRecord::Analyze { dwell_ms: millis(*dwell), deadline_ms: deadline.map(millis) }
            }
            Step::Pause(Pause::For(time)) => StepRecord::PauseFor { ms: millis(*time) },
            Step::Pause(Pause::UntilApproved) => StepRecord::PauseUntilApproved,
        }
    }
}

impl TryFrom<StepRecord> for Step {
    type Error = String;

    fn try_from(record: StepRecord) -> Result<Step, String> {
        Ok(match record {
            StepRecord::Weight(points) => Step::Weight(share(points)?),
            StepRecord::Analyze { dwell_ms, deadline_ms } => Step::Analyze {
                dwell: Duration::from_millis(dwell_ms),
                deadline: deadline_ms.map(Duration::from_millis),
            },
            StepRecord::PauseFor { ms } => Step::Pause(Pause::For(Duration::from_millis(ms))),
            StepRecord::PauseUntilApproved => Step::Pause(Pause::UntilApproved),
        })
    }
}

impl From<Phase> for PhaseRecord {
    fn from(phase: Phase) -> PhaseRecord {
        match phase {
            Phase::Ready => PhaseRecord::Ready,
            Phase::Applying { share } => PhaseRecord::Applying { share: share.basis_points() },
            Phase::Analyzing => PhaseRecord::Analyzing,
            Phase::Waiting => PhaseRecord::Waiting,
            Phase::Held(cause) => PhaseRecord::Held(match cause {
                Cause::Advised => CauseRecord::Advised,
                Cause::Breaker => CauseRecord::Breaker,
                Cause::Inconclusive => CauseRecord::Inconclusive,
                Cause::Paused => CauseRecord::Paused,
                Cause::Failed => CauseRecord::Failed,
                Cause::Restarted => CauseRecord::Restarted,
            }),
            Phase::Promoting => PhaseRecord::Promoting,
            Phase::RollingBack(end) => PhaseRecord::RollingBack(end.into()),
            Phase::Ended(end) => PhaseRecord::Ended(end.into()),
        }
    }
}

impl TryFrom<PhaseRecord> for Phase {
    type Error = String;

    fn try_from(record: PhaseRecord) -> Result<Phase, String> {
        Ok(match record {
            PhaseRecord::Ready => Phase::Ready,
            PhaseRecord::Applying { share: points } => Phase::Applying { share: share(points)? },
            PhaseRecord::Analyzing => Phase::Analyzing,
            PhaseRecord::Waiting => Phase::Waiting,
            PhaseRecord::Held(cause) => Phase::Held(match cause {
                CauseRecord::Advised => Cause::Advised,
                CauseRecord::Breaker => Cause::Breaker,
                CauseRecord::Inconclusive => Cause::Inconclusive,
                CauseRecord::Paused => Cause::Paused,
                CauseRecord::Failed => Cause::Failed,
                CauseRecord::Restarted => Cause::Restarted,
            }),
            PhaseRecord::Promoting => Phase::Promoting,
            PhaseRecord::RollingBack(end) => Phase::RollingBack(end.into()),
            PhaseRecord::Ended(end) => Phase::Ended(end.into()),
        })
    }
}

impl From<End> for EndRecord {
    fn from(end: End) -> EndRecord {
        match end {
            End::Promoted => EndRecord::Promoted,
            End::RolledBack => EndRecord::RolledBack,
            End::Aborted => EndRecord::Aborted,
        }
    }
}

impl From<EndRecord> for End {
    fn from(end: EndRecord) -> End {
        match end {
            EndRecord::Promoted => End::Promoted,
            EndRecord::RolledBack => End::RolledBack,
            EndRecord::Aborted => End::Aborted,
        }
    }
}

fn share(points: u16) -> Result<Share, String> {
    Share::from_basis_points(points).ok_or_else(|| format!("a share of {points} basis points"))
}

/// Whole milliseconds; past 584 million years, the most that can be written.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
