//! Everything a comparator remembers, as plain numbers, so that a restart does not spend alpha again.
//!
//! Invariant: a [`State`] inside a comparator is sound; one from outside is checked before it is used.

use super::marks::{APPROVED, MARKS, THRESHOLDS};
use super::units::{Pair, Total};
use crate::domain::stats::{Table, Units, spending};

/// Alternatives for errors and for latency: how many odds ratios are watched at once.
pub(super) const ERROR_ODDS: usize = 7;
pub(super) const LATENCY_ODDS: usize = 5;
pub(super) const APPROVAL_ODDS: usize = 3;

/// Weight epochs that may have an unfinished block at once. Requests outlive a split change, but a dozen
/// changes back their units are too few to matter; the oldest epoch is dropped first.
pub const MAX_OPEN: usize = 16;

/// The memory of a comparator. Cells are mass of the spending recursion, see `domain::stats::spending`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Ticks so far.
    pub ticks: u64,
    /// Weight steps so far.
    pub steps: u32,
    /// Weight steps whose mass was given out; the others follow at the next tick.
    pub steps_spent: u32,
    /// Mass of the errors metric per alternative.
    pub errors: [f64; ERROR_ODDS],
    /// Mass of each latency quantile per alternative.
    pub latency: [[f64; LATENCY_ODDS]; THRESHOLDS],
    /// Largest e-value seen at any tick.
    pub max: f64,
    /// Requests and errors since the comparator began.
    pub error_totals: Pair,
    /// Requests and slow ones per mark since the comparator began.
    pub slow_totals: [Pair; MARKS],
    /// Unfinished blocks, by epoch, oldest first, at most [`MAX_OPEN`].
    pub open: Vec<OpenBlock>,
    /// What speaks for approval in the present step; `None` before the first step.
    pub step: Option<StepEvidence>,
}

/// A block of one weight epoch that does not carry enough traffic yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenBlock {
    /// The weight epoch at dispatch.
    pub epoch: u64,
    /// Requests and errors.
    pub errors: Table,
    /// Requests and slow ones per mark.
    pub slow: [Table; MARKS],
}

/// Evidence for approval, gathered since the last weight step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepEvidence {
    /// The weight epoch of the step.
    pub epoch: u64,
    /// Requests and errors in the step.
    pub errors: Pair,
    /// Requests and slow ones in the step, per approval mark.
    pub slow: [Pair; APPROVED.len()],
    /// Ticks since the step began.
    pub ticks: u64,
    /// Logarithm of the e-value against "errors too high".
    pub errors_log_e: f64,
    /// Logarithms of the e-values against "too slow", per approval mark and alternative.
    pub slow_log_e: [[f64; APPROVAL_ODDS]; APPROVED.len()],
}

/// Why a stored state was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored evidence is damaged: {0}")]
pub struct InvalidState(&'static str);

impl State {
    /// Checks numbers that come from outside.
    pub(super) fn check(&self) -> Result<(), InvalidState> {
        let cells = || self.errors.iter().chain(self.latency.iter().flatten());
        if !cells().all(|cell| (0.0..=spending::CEILING).contains(cell)) {
            return Err(InvalidState("a mass is out of range"));
        }
        if !(self.max.is_finite() && self.max >= 0.0) {
            return Err(InvalidState("the largest e-value is out of range"));
        }
        if self.steps_spent > self.steps {
            return Err(InvalidState("more steps spent than taken"));
        }
        if self.open.len() > MAX_OPEN || !self.open.is_sorted_by(|a, b| a.epoch < b.epoch) {
            return Err(InvalidState("open blocks are too many or out of order"));
        }
        if !self.pairs().all(|pair| sound(pair.canary) && sound(pair.baseline))
            || !self.open.iter().all(OpenBlock::sound)
        {
            return Err(InvalidState("more bad units than units"));
        }
        match &self.step {
            Some(step) if !step.logarithms().all(|log_e| log_e.is_finite()) => {
                Err(InvalidState("an approval e-value is not a number"))
            }
            _ => Ok(()),
        }
    }

    fn pairs(&self) -> impl Iterator<Item = &Pair> {
        let step = self.step.iter().flat_map(|step| step.slow.iter().chain([&step.errors]));
        self.slow_totals.iter().chain([&self.error_totals]).chain(step)
    }
}

impl OpenBlock {
    fn sound(&self) -> bool {
        let sound = |units: Units| units.bad <= units.n;
        self.slow.iter().chain([&self.errors]).all(|table| sound(table.canary) && sound(table.baseline))
    }
}

impl StepEvidence {
    fn logarithms(&self) -> impl Iterator<Item = f64> {
        self.slow_log_e.into_iter().flatten().chain([self.errors_log_e])
    }
}

fn sound(total: Total) -> bool {
    total.bad <= total.n
}
