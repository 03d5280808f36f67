//! Border file: the judge's evidence on one service as versioned JSON, and back.
//!
//! Mirrors the comparator's state so that it can change without the disk noticing; counts are written as short
//! arrays, `[n, bad]`, the canary before the baseline. Numbers come back to the last bit. Reading checks the
//! shape only: `Comparator::resume` checks the values.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Case;
use crate::domain::analysis::{MARKS, OpenBlock, Pair, State, StepEvidence, THRESHOLDS, Total, Units};
use crate::domain::stats::Table;

/// The version written, and the only one read: evidence of another shape is worth a few minutes of traffic.
const VERSION: u32 = 1;

/// Alternatives of each test in version 1; a change of the comparator's needs a new version.
const ERROR_ODDS: usize = 7;
const LATENCY_ODDS: usize = 5;
const APPROVAL_ODDS: usize = 3;
const APPROVED: usize = MARKS - THRESHOLDS;

/// The bytes of a service's evidence, by canary.
pub(super) fn encode(cases: &BTreeMap<String, Case>) -> Vec<u8> {
    let canaries = cases.iter().map(|(canary, case)| {
        let record = CaseRecord { baseline: case.baseline.clone(), state: StateRecord::from(&case.state) };
        (canary.clone(), record)
    });
    let record = Record { version: VERSION, canaries: canaries.collect() };
    serde_json::to_vec(&record).expect("records have text keys and plain values")
}

/// A service's evidence by canary, or what is wrong with the bytes. No bytes are no evidence.
pub(super) fn decode(bytes: &[u8]) -> Result<BTreeMap<String, Case>, String> {
    if bytes.is_empty() {
        return Ok(BTreeMap::new());
    }
    // The version first: a record of another one need not look like ours.
    let Version { version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if version != VERSION {
        return Err(format!("record version {version}, this teal knows {VERSION}"));
    }
    let Record { canaries, .. } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let case = |case: CaseRecord| Case { baseline: case.baseline, state: case.state.into(), inherited: true };
    Ok(canaries.into_iter().map(|(canary, record)| (canary, case(record))).collect())
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    canaries: BTreeMap<String, CaseRecord>,
}

#[derive(Serialize, Deserialize)]
struct CaseRecord {
    baseline: String,
    state: StateRecord,
}

#[derive(Serialize, Deserialize)]
struct StateRecord {
    ticks: u64,
    steps: u32,
    steps_spent: u32,
    errors: [f64; ERROR_ODDS],
    latency: [[f64; LATENCY_ODDS]; THRESHOLDS],
    max: f64,
    error_totals: PairRecord,
    slow_totals: [PairRecord; MARKS],
    open: Vec<OpenRecord>,
    step: Option<StepRecord>,
}

#[derive(Serialize, Deserialize)]
struct OpenRecord {
    epoch: u64,
    errors: TableRecord,
    slow: [TableRecord; MARKS],
}

#[derive(Serialize, Deserialize)]
struct StepRecord {
    epoch: u64,
    errors: PairRecord,
    slow: [PairRecord; APPROVED],
    ticks: u64,
    errors_log_e: f64,
    slow_log_e: [[f64; APPROVAL_ODDS]; APPROVED],
}

/// `[[n, bad] of the canary, [n, bad] of the baseline]`.
#[derive(Serialize, Deserialize)]
struct PairRecord([[u64; 2]; 2]);

/// The same for the units of one block.
#[derive(Serialize, Deserialize)]
struct TableRecord([[u32; 2]; 2]);

impl From<&State> for StateRecord {
    fn from(state: &State) -> StateRecord {
        StateRecord {
            ticks: state.ticks,
            steps: state.steps,
            steps_spent: state.steps_spent,
            errors: state.errors,
            latency: state.latency,
            max: state.max,
            error_totals: state.error_totals.into(),
            slow_totals: state.slow_totals.map(PairRecord::from),
            open: state.open.iter().map(OpenRecord::from).collect(),
            step: state.step.as_ref().map(StepRecord::from),
        }
    }
}

impl From<StateRecord> for State {
    fn from(record: StateRecord) -> State {
        State {
            ticks: record.ticks,
            steps: record.steps,
            steps_spent: record.steps_spent,
            errors: record.errors,
            latency: record.latency,
            max: record.max,
            error_totals: record.error_totals.into(),
            slow_totals: record.slow_totals.map(Pair::from),
            open: record.open.into_iter().map(OpenBlock::from).collect(),
            step: record.step.map(StepEvidence::from),
        }
    }
}

impl From<&OpenBlock> for OpenRecord {
    fn from(open: &OpenBlock) -> OpenRecord {
        OpenRecord { epoch: open.epoch, errors: open.errors.into(), slow: open.slow.map(TableRecord::from) }
    }
}

impl From<OpenRecord> for OpenBlock {
    fn from(record: OpenRecord) -> OpenBlock {
        OpenBlock { epoch: record.epoch, errors: record.errors.into(), slow: record.slow.map(Table::from) }
    }
}

impl From<&StepEvidence> for StepRecord {
    fn from(step: &StepEvidence) -> StepRecord {
        StepRecord {
            epoch: step.epoch,
            errors: step.errors.into(),
            slow: step.slow.map(PairRecord::from),
            ticks: step.ticks,
            errors_log_e: step.errors_log_e,
            slow_log_e: step.slow_log_e,
        }
    }
}

impl From<StepRecord> for StepEvidence {
    fn from(record: StepRecord) -> StepEvidence {
        StepEvidence {
            epoch: record.epoch,
            errors: record.errors.into(),
            slow: record.slow.map(Pair::from),
            ticks: record.ticks,
            errors_log_e: record.errors_log_e,
            slow_log_e: record.slow_log_e,
        }
    }
}

impl From<Pair> for PairRecord {
    fn from(Pair { canary, baseline }: Pair) -> PairRecord {
        PairRecord([canary, baseline].map(|total| [total.n, total.bad]))
    }
}

impl From<PairRecord> for Pair {
    fn from(PairRecord(totals): PairRecord) -> Pair {
        let [canary, baseline] = totals.map(|[n, bad]| Total { n, bad });
        Pair { canary, baseline }
    }
}

impl From<Table> for TableRecord {
    fn from(Table { canary, baseline }: Table) -> TableRecord {
        TableRecord([canary, baseline].map(|units| [units.n, units.bad]))
    }
}

impl From<TableRecord> for Table {
    fn from(TableRecord(units): TableRecord) -> Table {
        let [canary, baseline] = units.map(|[n, bad]| Units { n, bad });
        Table { canary, baseline }
    }
}
