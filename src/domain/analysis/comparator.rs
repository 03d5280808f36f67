//! The comparator: live evidence that the canary is worse than the baseline, and that it is not.
//!
//! Counts come in by weight epoch at dispatch, because a split change mixes slow requests of the old split
//! with fast ones of the new one. Each epoch has one open block; a table of it closes once it carries enough
//! traffic, whatever the outcomes, and its e-values go into the spending recursion of every metric.
//!
//! The family: errors hold half of the mass, latency .4, and .1 is never given out, kept for objectives and
//! business figures. There is one stratum now, so each metric puts its whole share on the pooled table; with
//! strata it will be .6 on the pooled one and .4 spread over them (Turner & Grünwald, arXiv 2302.11401),
//! with their number fixed in advance.
//!
//! Mass given to latency before the marks exist meets no latency units, thus `L = 1`: it waits unchanged and
//! has its full force when the first units arrive.
//!
//! Invariant: `sum M + unspent` is a supermartingale from 1 while the canary is no worse than tolerated, so
//! the chance of a [`Finding`] over the whole rollout is at most `alpha`. Blocks close in order of epoch,
//! so that a replay is identical to the last bit.

use super::approval::{self, Approval};
use super::evidence::Evidence;
use super::finding::{Finding, Metric};
use super::marks::{APPROVED, MARKS, Quantile, THRESHOLDS};
use super::state::{ERROR_ODDS, InvalidState, LATENCY_ODDS, MAX_OPEN, OpenBlock, State, StepEvidence};
use super::trend::Trend;
use super::{Block, Policy};
use crate::domain::stats::{Table, spending};

/// Shares of the mass; what is missing from 1 is never given out.
const ERRORS_SHARE: f64 = 0.5;
const LATENCY_SHARE: f64 = 0.4;
const RESERVED_SHARE: f64 = 1.0 - ERRORS_SHARE - LATENCY_SHARE;

/// How latency's share is split over the quantiles; sums to 1.
const QUANTILE_SHARES: [f64; THRESHOLDS] = [0.2, 0.1, 0.2, 0.15, 0.2, 0.15];

/// Odds ratios watched for errors, on top of the tolerated one, with their shares.
const ERRORS: [f64; ERROR_ODDS] = [1.4, 2.0, 4.0, 10.0, 40.0, 200.0, 1000.0];
const ERRORS_SHARES: [f64; ERROR_ODDS] = [0.10, 0.15, 0.20, 0.20, 0.15, 0.10, 0.10];

/// Odds ratios watched for slow requests, with their shares; the tolerance is in the marks.
const LATENCY: [f64; LATENCY_ODDS] = [1.15, 1.35, 1.8, 3.0, 8.0];
const LATENCY_SHARES: [f64; LATENCY_ODDS] = [0.15, 0.25, 0.25, 0.20, 0.15];

/// A finding needs this many bad canary units: one or two are an anecdote, whatever the odds.
const LEAST_BAD: u64 = 3;

/// Compares one canary with one baseline over one rollout.
#[derive(Clone, Debug)]
pub struct Comparator {
    policy: Policy,
    /// `ERRORS` times the tolerated odds.
    odds: [f64; ERROR_ODDS],
    state: State,
    errors_trend: Trend<ERROR_ODDS>,
    latency_trends: [Trend<LATENCY_ODDS>; THRESHOLDS],
}

/// What one tick's closed blocks say: `ln L` per metric and alternative, and the counts behind them.
#[derive(Default)]
struct Closed {
    errors: [f64; ERROR_ODDS],
    errors_table: Table,
    latency: [[f64; LATENCY_ODDS]; THRESHOLDS],
    latency_tables: [Table; THRESHOLDS],
}

impl Comparator {
    /// A comparator at the start of a rollout.
    pub fn new(policy: Policy) -> Comparator {
        let state = State { max: 1.0, open: Vec::with_capacity(MAX_OPEN), ..State::default() };
        Comparator::with(policy, state)
    }

    /// A comparator that continues where another one stopped; a damaged state is refused.
    pub fn resume(policy: Policy, mut state: State) -> Result<Comparator, InvalidState> {
        state.check()?;
        state.open.reserve_exact(MAX_OPEN - state.open.len());
        Ok(Comparator::with(policy, state))
    }

    /// All that must be kept for [`Comparator::resume`].
    pub fn state(&self) -> State {
        self.state.clone()
    }

    /// Adds what both pools finished since the last look, of requests dispatched in `epoch`.
    ///
    /// The order of calls between two ticks does not matter. Epochs older than the [`MAX_OPEN`] newest
    /// ones with an open block are counted in the totals only.
    pub fn observe(&mut self, epoch: u64, block: &Block) {
        let (canary, baseline) = (&block.canary, &block.baseline);
        self.state.error_totals.add(canary.errors, baseline.errors);
        for mark in 0..MARKS {
            self.state.slow_totals[mark].add(canary.slow[mark], baseline.slow[mark]);
        }
        if let Some(step) = self.state.step.as_mut().filter(|step| step.epoch == epoch) {
            step.errors.add(canary.errors, baseline.errors);
            for (place, mark) in (THRESHOLDS..MARKS).enumerate() {
                step.slow[place].add(canary.slow[mark], baseline.slow[mark]);
            }
        }
        if let Some(open) = self.open(epoch) {
            add(&mut open.errors, canary.errors, baseline.errors);
            for mark in 0..MARKS {
                add(&mut open.slow[mark], canary.slow[mark], baseline.slow[mark]);
            }
        }
    }

    /// The split moved: `epoch` is the new weight epoch. New mass is given out, and evidence for approval
    /// starts again from requests of this epoch.
    pub fn weight_step(&mut self, epoch: u64) {
        self.state.steps = self.state.steps.saturating_add(1);
        self.state.step = Some(StepEvidence { epoch, ..StepEvidence::default() });
    }

    /// Forgets the open block of an epoch whose last request has ended.
    pub fn retire(&mut self, epoch: u64) {
        self.state.open.retain(|open| open.epoch != epoch);
    }

    /// One tick. Returns the finding at every tick at which the evidence suffices.
    pub fn tick(&mut self) -> Option<Finding> {
        let injected = self.injected();
        self.state.step.iter_mut().for_each(approval::begin_tick);
        let closed = self.close();
        spending::accumulate(&mut self.state.errors, injected * ERRORS_SHARE, &ERRORS_SHARES, &closed.errors);
        for (quantile, share) in QUANTILE_SHARES.into_iter().enumerate() {
            let (mass, injected) = (&mut self.state.latency[quantile], injected * LATENCY_SHARE * share);
            spending::accumulate(mass, injected, &LATENCY_SHARES, &closed.latency[quantile]);
        }
        self.follow(&closed);
        self.state.ticks = self.state.ticks.saturating_add(1);
        let evidence = self.e_value();
        self.state.max = self.state.max.max(evidence);
        self.finding(evidence)
    }

    /// What speaks for approval in the present step.
    pub fn approval(&self) -> Approval {
        approval::judge(&self.policy, self.state.step.as_ref())
    }

    /// The evidence against the canary, for display.
    pub fn evidence(&self) -> Evidence {
        Evidence {
            now: self.e_value(),
            max: self.state.max,
            needed: self.needed(),
            errors: self.state.error_totals,
            slow: self.state.slow_totals,
            ticks: self.state.ticks,
            steps: self.state.steps,
        }
    }

    fn with(policy: Policy, state: State) -> Comparator {
        let odds = ERRORS.map(|odds| odds * policy.tolerate_errors_odds);
        Comparator {
            policy,
            odds,
            state,
            errors_trend: Trend::default(),
            latency_trends: [Trend::default(); THRESHOLDS],
        }
    }

    fn needed(&self) -> f64 {
        1.0 / self.policy.alpha
    }

    /// The open block of an epoch, made if there is room; the oldest gives way.
    fn open(&mut self, epoch: u64) -> Option<&mut OpenBlock> {
        let open = &mut self.state.open;
        let place = match open.binary_search_by_key(&epoch, |open| open.epoch) {
            Ok(place) => place,
            Err(place) => {
                let full = open.len() == MAX_OPEN;
                if full && place == 0 {
                    return None;
                }
                if full {
                    open.remove(0);
                }
                let place = place - usize::from(full);
                open.insert(place, OpenBlock { epoch, ..OpenBlock::default() });
                place
            }
        };
        open.get_mut(place)
    }

    /// This tick's mass, and that of weight steps since the last one.
    fn injected(&mut self) -> f64 {
        let steps = self.state.steps_spent..self.state.steps;
        // Steps past the first thousand have no mass left to give.
        let stepped: f64 = steps.take(1_000).map(|step| spending::step_mass(step + 1)).sum();
        self.state.steps_spent = self.state.steps;
        spending::tick_mass(self.state.ticks) + stepped
    }

    /// Closes every table that carries enough traffic, oldest epoch first.
    fn close(&mut self) -> Closed {
        let mut closed = Closed::default();
        let State { open, step, .. } = &mut self.state;
        for block in open {
            let mut step = step.as_mut().filter(|step| step.epoch == block.epoch);
            if let Some(table) = take_full(&mut block.errors) {
                table.add_log_e(&self.odds, self.policy.tolerate_errors_odds, &mut closed.errors);
                add(&mut closed.errors_table, table.canary, table.baseline);
                if let Some(step) = &mut step {
                    approval::add_errors(step, &table, &self.policy);
                }
            }
            for quantile in 0..THRESHOLDS {
                if let Some(table) = take_full(&mut block.slow[quantile]) {
                    table.add_log_e(&LATENCY, 1.0, &mut closed.latency[quantile]);
                    add(&mut closed.latency_tables[quantile], table.canary, table.baseline);
                }
            }
            for place in 0..APPROVED.len() {
                let table = take_full(&mut block.slow[THRESHOLDS + place]);
                if let (Some(table), Some(step)) = (table, &mut step) {
                    approval::add_slow(step, place, &table);
                }
            }
        }
        closed
    }

    fn follow(&mut self, closed: &Closed) {
        let Table { canary, baseline } = closed.errors_table;
        self.errors_trend.follow(&closed.errors, canary, baseline);
        let tables = closed.latency.iter().zip(&closed.latency_tables);
        for (trend, (log_e, table)) in self.latency_trends.iter_mut().zip(tables) {
            trend.follow(log_e, table.canary, table.baseline);
        }
    }

    fn e_value(&self) -> f64 {
        let state = &self.state;
        let unspent = spending::unspent(state.ticks, state.steps_spent);
        let spent: f64 = state.errors.iter().chain(state.latency.iter().flatten()).sum();
        spent + (1.0 - RESERVED_SHARE) * unspent + RESERVED_SHARE
    }

    fn finding(&self, evidence: f64) -> Option<Finding> {
        if evidence < self.needed() {
            return None;
        }
        let (metric, totals, recent) = self.leading();
        let found = totals.canary.bad >= LEAST_BAD;
        found.then(|| Finding {
            metric,
            evidence,
            needed: self.needed(),
            canary: recent.canary,
            baseline: recent.baseline,
        })
    }

    /// The metric that holds most of the evidence, the first one of equals; its totals, and those since it grew.
    fn leading(&self) -> (Metric, super::Pair, super::Pair) {
        let state = &self.state;
        let mut best = (Metric::Errors, state.error_totals, self.errors_trend.or(state.error_totals));
        let mut most: f64 = state.errors.iter().sum();
        for quantile in Quantile::all() {
            let at = quantile.index();
            let mass: f64 = state.latency[at].iter().sum();
            if mass > most {
                most = mass;
                let totals = state.slow_totals[at];
                best = (Metric::Latency { quantile }, totals, self.latency_trends[at].or(totals));
            }
        }
        best
    }
}

fn add(table: &mut Table, canary: super::Units, baseline: super::Units) {
    table.canary.add(canary);
    table.baseline.add(baseline);
}

/// The table, if it is full, leaving an empty one.
fn take_full(table: &mut Table) -> Option<Table> {
    table.is_full().then(|| std::mem::take(table))
}
