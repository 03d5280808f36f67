//! The scenarios: traffic that must not be mistaken for a worse canary, canaries that are worse, and approval.
//!
//! Each is played as many times as asked for, from one seed, and says what came of it; whether that is good
//! enough is for the caller. A scenario that expects silence counts what it was silent about.

use std::collections::VecDeque;
use std::sync::Arc;

use fastrand::Rng;
use teal::bridge::observations::Book;
use teal::domain::analysis::Policy;

use crate::limits;
use crate::traffic::{self, Behaviour, Latency, Traffic};
use crate::trial::Trial;

/// Seconds of traffic before a rollout that measures latency.
const WARM_UP: u32 = 60;
/// A worse canary is given this long to be found, in seconds.
const PATIENCE: u64 = 3_600;
/// How long a slow success takes, in ticks.
const SLOW: usize = 100;
/// The splits of the scenario with slow successes, each held for [`STEP`] ticks.
const STEPS: [f64; 8] = [0.01, 0.5, 0.05, 0.25, 0.8, 0.01, 0.5, 0.01];
const STEP: usize = 150;

/// How often a scenario is played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// Rollouts.
    pub(crate) runs: u64,
    /// How long each lasts at most.
    pub(crate) seconds: u64,
    /// Where chance begins.
    pub(crate) seed: u64,
}

/// What came of rollouts whose canary is no worse.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Alarms {
    /// Rollouts played.
    pub(crate) runs: u64,
    /// Rollouts that ended in a rollback, each a false one.
    pub(crate) fired: u64,
    /// Requests that the judge was shown.
    pub(crate) requests: u64,
    /// Errors among them.
    pub(crate) errors: u64,
    /// Books still being read at the end, beyond the newest.
    pub(crate) unread: u64,
    /// The largest e-value of all rollouts that ended well.
    pub(crate) strongest: f64,
}

/// A canary that is worse.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regression {
    /// The canary's share.
    pub(crate) split: f64,
    /// How the baseline answers.
    pub(crate) baseline: Behaviour,
    /// How the canary answers.
    pub(crate) canary: Behaviour,
    /// The chance of a false rollback that is allowed.
    pub(crate) alpha: f64,
}

/// How soon a worse canary was found.
#[derive(Clone, Debug)]
pub(crate) struct Delay {
    /// Rollouts played.
    pub(crate) runs: u64,
    /// Those in which it was found.
    pub(crate) found: u64,
    /// Mean canary requests until then.
    pub(crate) requests: f64,
    /// Median seconds until then.
    pub(crate) median: f64,
    /// Seconds within which 95 % were found.
    pub(crate) p95: f64,
    /// Canary requests that the best possible test needs on average.
    pub(crate) limit: f64,
}

/// How often, and when, a canary was approved.
#[derive(Clone, Debug)]
pub(crate) struct Approvals {
    /// Rollouts played.
    pub(crate) runs: u64,
    /// Those approved.
    pub(crate) approved: u64,
    /// Median seconds of those.
    pub(crate) median: f64,
    /// Seconds within which 95 % of those were approved.
    pub(crate) p95: f64,
}

/// When a request is counted under a split.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Keyed {
    /// The one it was dispatched under, as Teal does.
    ByDispatch,
    /// The one it ends under, as a naive counter would.
    ByEnd,
}

/// Both pools answer alike.
pub(crate) fn alike(split: f64, behaviour: Behaviour, scale: Scale) -> Alarms {
    let traffic = Traffic::new(split, behaviour, behaviour);
    alarms(scale, |trial, random| play(trial, &[(scale.seconds, &traffic)], random))
}

/// Both pools answer alike, and both break down together half-way.
pub(crate) fn degrading_together(split: f64, scale: Scale) -> Alarms {
    let (sound, broken) = (Behaviour::timed(0.001, 1.0), Behaviour::timed(0.2, 3.0));
    let [sound, broken] = [sound, broken].map(|behaviour| Traffic::new(split, behaviour, behaviour));
    let half = scale.seconds / 2;
    alarms(scale, |trial, random| play(trial, &[(half, &sound), (scale.seconds - half, &broken)], random))
}

/// Both pools answer alike, errors at once and successes after ten seconds, while the split moves to and fro.
/// Its length is its own: [`STEPS`] times [`STEP`].
pub(crate) fn slow_successes(keyed: Keyed, scale: Scale) -> Alarms {
    let behaviour = Behaviour::failing(0.01);
    let steps = STEPS.map(|split| Traffic::new(split, behaviour, behaviour));
    alarms(scale, |trial, random| {
        let mut waiting = VecDeque::with_capacity(SLOW);
        for traffic in &steps {
            trial.step();
            for _ in 0..STEP {
                if slow_tick(trial, traffic, &mut waiting, keyed, random) {
                    return true;
                }
            }
        }
        false
    })
}

/// Successes on their way: the book and worker of their dispatch, and how many for each pool.
type Waiting = VecDeque<(Arc<Book>, usize, [u32; 2])>;

fn slow_tick(trial: &mut Trial, traffic: &Traffic, waiting: &mut Waiting, keyed: Keyed, random: &mut Rng) -> bool {
    if waiting.len() == SLOW
        && let Some((book, worker, successes)) = waiting.pop_front()
    {
        let counted = if keyed == Keyed::ByDispatch { &book } else { trial.book() };
        for (pool, successes) in successes.into_iter().enumerate() {
            for _ in 0..successes {
                counted.cell(worker, pool).settled(false);
                book.cell(worker, pool).closed();
            }
        }
    }
    let (book, worker) = (Arc::clone(trial.book()), trial.worker());
    let mut successes = traffic.arrivals(random);
    for (pool, requests) in successes.iter_mut().enumerate() {
        let cell = book.cell(worker, pool);
        let failures = traffic.failures(pool, *requests, random);
        (0..*requests).for_each(|_| cell.opened());
        for _ in 0..failures {
            cell.settled(true);
            cell.closed();
        }
        *requests -= failures;
    }
    waiting.push_back((book, worker, successes));
    trial.look().is_some()
}

/// Plays rollouts that must end well; `play` is true when one does not.
fn alarms(scale: Scale, play: impl Fn(&mut Trial, &mut Rng) -> bool) -> Alarms {
    let mut random = Rng::with_seed(scale.seed);
    let mut alarms = Alarms { runs: scale.runs, ..Alarms::default() };
    for _ in 0..scale.runs {
        let mut trial = Trial::new(Policy::default());
        let fired = play(&mut trial, &mut random.fork());
        let evidence = trial.evidence();
        alarms.fired += u64::from(fired);
        alarms.requests += evidence.errors.canary.n + evidence.errors.baseline.n;
        alarms.errors += evidence.errors.canary.bad + evidence.errors.baseline.bad;
        alarms.unread += trial.books() as u64 - 1;
        if !fired {
            alarms.strongest = alarms.strongest.max(evidence.max);
        }
    }
    alarms
}

/// Plays phases of so many seconds one after the other; true as soon as the canary is found worse.
fn play(trial: &mut Trial, phases: &[(u64, &Traffic)], random: &mut Rng) -> bool {
    if let Some((_, traffic)) = phases.first() {
        traffic.warm_up(trial, WARM_UP * 10, random);
    }
    trial.step();
    let mut tick = |traffic: &Traffic| {
        traffic.tick(trial, random);
        trial.look().is_some()
    };
    phases.iter().any(|&(seconds, traffic)| (0..10 * seconds).any(|_| tick(traffic)))
}

impl Regression {
    /// More errors than the usual 0.1 %.
    pub(crate) fn errors(split: f64, rate: f64, alpha: f64) -> Regression {
        let [baseline, canary] = [0.001, rate].map(Behaviour::failing);
        Regression { split, baseline, canary, alpha }
    }

    /// Slower answers at 5 %, with no more errors than usual.
    pub(crate) fn latency(latency: Latency) -> Regression {
        let baseline = Behaviour::timed(0.001, 1.0);
        Regression { split: 0.05, baseline, canary: Behaviour { latency, ..baseline }, alpha: 0.01 }
    }

    /// How soon it is found.
    pub(crate) fn find(&self, runs: u64, seed: u64) -> Delay {
        let Regression { split, baseline, canary, alpha } = *self;
        let traffic = Traffic::new(split, baseline, canary);
        let mut random = Rng::with_seed(seed);
        let (mut requests, mut seconds) = (0, Vec::new());
        for _ in 0..runs {
            let mut trial = Trial::new(Policy { alpha, ..Policy::default() });
            if play(&mut trial, &[(PATIENCE, &traffic)], &mut random.fork()) {
                requests += trial.evidence().errors.canary.n;
                seconds.push(trial.seconds());
            }
        }
        let information = traffic::information(split, baseline, canary);
        Delay {
            runs,
            found: seconds.len() as u64,
            requests: requests as f64 / seconds.len() as f64,
            median: quantile(&mut seconds, 0.5),
            p95: quantile(&mut seconds, 0.95),
            limit: split * (1.0 / alpha).ln() / information,
        }
    }
}

impl Delay {
    /// Requests needed, as a multiple of the limit.
    pub(crate) fn ratio(&self) -> f64 {
        self.requests / self.limit
    }
}

/// A canary at the margin that approval must rule out: twice the odds of an error, and no slower.
pub(crate) fn at_errors_margin(baseline: Behaviour) -> Behaviour {
    let odds = Policy::default().approve_errors_odds;
    Behaviour { errors: limits::at_odds(baseline.errors, odds), ..baseline }
}

/// A canary at the other margin: slower throughout by as much as approval must rule out.
pub(crate) fn at_latency_margin(baseline: Behaviour) -> Behaviour {
    Behaviour::timed(baseline.errors, 1.0 + Policy::default().approve_latency)
}

/// The same in the tail alone.
pub(crate) fn at_p99_margin(baseline: Behaviour) -> Behaviour {
    Behaviour { latency: Latency::LongTail(1.0 + Policy::default().approve_latency), ..baseline }
}

/// Whether a canary at 50 % is approved at any look. A finding does not end the rollout: that a rollback
/// might come first is no excuse.
pub(crate) fn approvals(baseline: Behaviour, canary: Behaviour, scale: Scale) -> Approvals {
    let traffic = Traffic::new(0.5, baseline, canary);
    let mut random = Rng::with_seed(scale.seed);
    let mut seconds = Vec::new();
    for _ in 0..scale.runs {
        let (mut trial, random) = (Trial::new(Policy::default()), &mut random.fork());
        traffic.warm_up(&trial, WARM_UP * 10, random);
        trial.step();
        let passed = (0..10 * scale.seconds).any(|_| {
            traffic.tick(&trial, random);
            trial.look();
            trial.approval().is_passed()
        });
        seconds.extend(passed.then(|| trial.seconds()));
    }
    let approved = seconds.len() as u64;
    let [median, p95] = [0.5, 0.95].map(|q| quantile(&mut seconds, q));
    Approvals { runs: scale.runs, approved, median, p95 }
}

/// A quantile of `values`; not a number if there are none.
fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (q * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
