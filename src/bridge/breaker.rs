//! A live breaker: the pure machine of [`crate::domain::breaker`] in one word that all workers share.
//!
//! While it is closed, a request costs one load to pass and, when it went well, a load and two stores into its worker's
//! own counts. Only a bad outcome writes the shared word, and only then the workers' counts are added up: exactness is
//! paid for by failures. What is counted belongs to the time since the breaker closed, so one that has just closed
//! never opens again by what came before.
//!
//! The policy is the caller's: it comes from the table that the request works by.
//!
//! Invariants: the word changes only by what the machine says, in one exchange; each worker writes its own counts.

use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

use crate::bridge::counters::PerWorker;
use crate::domain::breaker::{Answer, Cause, Change, Counts, Phase, Policy, Report, SLOTS, State, Trial};

/// A breaker of a pool or an endpoint.
#[derive(Debug, Default)]
pub struct Breaker {
    word: AtomicU64,
    /// There once a policy is: an endpoint without a breaker does not carry them.
    counts: OnceLock<PerWorker<Ring>>,
    trips: AtomicU64,
    /// The latest opening, see [`Opening`]: two words that are shown, never decided by.
    cause: AtomicU64,
    cool_down: AtomicU64,
}

/// The latest opening of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Why.
    pub cause: Cause,
    /// For how long, in milliseconds.
    pub cool_down: u64,
}

/// A request is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Another try makes sense after so many milliseconds.
    pub wait: u64,
}

impl Breaker {
    /// Makes ready for counting by so many workers, before a request meets a policy.
    pub fn arm(&self, workers: usize) {
        self.counts.get_or_init(|| PerWorker::new(workers));
    }

    /// Forgets everything: other rules hold from `now` (microseconds) on.
    pub fn reset(&self, now: u64) {
        self.word.store(pack(State::closed(millis(now))), Release);
    }

    /// Takes over where another stands.
    pub fn succeed(&self, other: &Breaker) {
        self.word.store(other.word.load(Acquire), Release);
        self.trips.store(other.trips.load(Relaxed), Relaxed);
    }

    /// True if requests pass: what nearly every request asks.
    pub fn is_closed(&self) -> bool {
        self.word.load(Relaxed) >> KIND == CLOSED
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        unpack(self.word.load(Acquire))
    }

    /// How often it opened.
    pub fn trips(&self) -> u64 {
        self.trips.load(Relaxed)
    }

    /// Its latest opening, if it ever opened.
    pub fn opening(&self) -> Option<Opening> {
        let cool_down = self.cool_down.load(Relaxed);
        (self.trips() > 0).then(|| Opening { cause: cause_of(self.cause.load(Relaxed)), cool_down })
    }

    /// Would a request pass at `now`? Nothing is taken.
    ///
    /// # Errors
    /// When it would be blocked.
    pub fn would_admit(&self, policy: &Policy, now: u64) -> Result<(), Blocked> {
        match self.state().admit(policy.trials, millis(now)).1 {
            Answer::Blocked { wait } => Err(Blocked { wait }),
            Answer::Pass | Answer::OnTrial(_) => Ok(()),
        }
    }

    /// A request passes at `now`, perhaps on trial.
    ///
    /// # Errors
    /// When it is blocked.
    pub fn enter(&self, policy: &Policy, now: u64) -> Result<Option<Trial>, Blocked> {
        if self.is_closed() {
            return Ok(None);
        }
        match self.change(|state| state.admit(policy.trials, millis(now))) {
            Answer::Pass => Ok(None),
            Answer::OnTrial(trial) => Ok(Some(trial)),
            Answer::Blocked { wait } => Err(Blocked { wait }),
        }
    }

    /// A request of `worker` turned out like this at `now`. True if that may have changed whether requests pass.
    pub fn tell(&self, policy: &Policy, worker: usize, now: u64, report: Report, trial: Option<Trial>) -> bool {
        let now = millis(now);
        let word = self.word.load(Relaxed);
        if word >> KIND == CLOSED {
            let (since, row) = closed(word);
            let slot = now.saturating_sub(since) / policy.slot();
            if let Some(counts) = self.counts.get() {
                counts.of(worker).add(since, slot, report);
            }
            if !report.bad && !report.slow && row == 0 {
                return false;
            }
        } else if trial.is_none() {
            return false;
        }
        let change = self.change(|state| {
            let counts = || match state.phase {
                Phase::Closed { since, .. } => self.counted(policy, since, now),
                _ => Counts::default(),
            };
            state.tell(policy, now, report, trial, counts)
        });
        if let Some(Change::Opened { cause, cool_down }) = change {
            self.cause.store(cause_word(cause), Relaxed);
            self.cool_down.store(cool_down, Relaxed);
            self.trips.fetch_add(1, Release);
        }
        change.is_some()
    }

    /// A request on trial ended without a word about the target.
    pub fn give_back(&self, trial: Trial) {
        self.change(|state| (state.give_back(trial), ()));
    }

    /// Looks at the clock; true if the cool-down was over.
    pub fn tick(&self, now: u64) -> bool {
        !self.is_closed() && self.change(|state| state.tick(millis(now))).is_some()
    }

    /// What the window holds at `now` (milliseconds), over all workers.
    fn counted(&self, policy: &Policy, since: u64, now: u64) -> Counts {
        let slot = now.saturating_sub(since) / policy.slot();
        let rings = self.counts.get().into_iter().flat_map(PerWorker::iter);
        rings.fold(Counts::default(), |sum, ring| ring.add_to(sum, since, slot))
    }

    /// Replaces the state by what `step` makes of it.
    fn change<T>(&self, step: impl Fn(State) -> (State, T)) -> T {
        let mut word = self.word.load(Acquire);
        loop {
            let (next, result) = step(unpack(word));
            let next = pack(next);
            if next == word {
                return result;
            }
            match self.word.compare_exchange_weak(word, next, AcqRel, Acquire) {
                Ok(_) => return result,
                Err(other) => word = other,
            }
        }
    }
}

/// What one worker counted, by slots of the window.
#[derive(Debug, Default)]
struct Ring([Slot; SLOTS as usize]);

#[derive(Debug, Default)]
struct Slot {
    /// Which slot of which time it holds; 0 while it is being emptied.
    tag: AtomicU64,
    n: AtomicU32,
    bad: AtomicU32,
    slow: AtomicU32,
}

/// A slot's own number, which repeats only after years: never 0.
fn tag(since: u64, slot: u64) -> u64 {
    (since << 23 | slot & 0x007f_ffff) + 1
}

impl Ring {
    /// Adds a report; only ever called by the owning worker.
    fn add(&self, since: u64, slot: u64, report: Report) {
        let place = &self.0[(slot % SLOTS) as usize];
        let tag = tag(since, slot);
        if place.tag.load(Relaxed) != tag {
            // A reader that sees a new count has seen that the old tag is gone.
            place.tag.store(0, Release);
            for count in [&place.n, &place.bad, &place.slow] {
                count.store(0, Release);
            }
            place.tag.store(tag, Release);
        }
        let add = |count: &AtomicU32, more: bool| {
            if more {
                count.store(count.load(Relaxed).wrapping_add(1), Release);
            }
        };
        add(&place.n, report.is_first);
        add(&place.bad, report.bad);
        add(&place.slow, report.slow);
    }

    /// Adds what the window up to `slot` holds.
    fn add_to(&self, mut sum: Counts, since: u64, slot: u64) -> Counts {
        for back in 0..SLOTS.min(slot + 1) {
            let at = slot - back;
            let place = &self.0[(at % SLOTS) as usize];
            let wanted = tag(since, at);
            if place.tag.load(Acquire) != wanted {
                continue;
            }
            let [n, bad, slow] = [&place.n, &place.bad, &place.slow].map(|count| u64::from(count.load(Acquire)));
            if place.tag.load(Relaxed) == wanted {
                sum = Counts { n: sum.n + n, bad: sum.bad + bad, slow: sum.slow + slow };
            }
        }
        sum
    }
}

// The word: two bits of kind, five of strikes, and what the kind needs; times have 40 bits, which is 34 years.
const KIND: u32 = 62;
const STRIKES: u32 = 57;
const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;
const TIME: u64 = (1 << 40) - 1;

fn pack(state: State) -> u64 {
    let (kind, rest) = match state.phase {
        Phase::Closed { since, row } => (CLOSED, u64::from(row.min(0xfff)) << 40 | since & TIME),
        Phase::Open { until } => (OPEN, until & TIME),
        Phase::HalfOpen { since, given, good } => {
            (HALF_OPEN, u64::from(given & 0x7f) << 47 | u64::from(good & 0x7f) << 40 | since & TIME)
        }
    };
    kind << KIND | u64::from(state.strikes & 0x1f) << STRIKES | rest
}

fn unpack(word: u64) -> State {
    let time = word & TIME;
    let phase = match word >> KIND {
        CLOSED => Phase::Closed { since: time, row: closed(word).1 },
        OPEN => Phase::Open { until: time },
        _ => Phase::HalfOpen { since: time, given: (word >> 47 & 0x7f) as u8, good: (word >> 40 & 0x7f) as u8 },
    };
    State { phase, strikes: (word >> STRIKES & 0x1f) as u8 }
}

/// Since when, and errors in a row, of a word that is closed.
fn closed(word: u64) -> (u64, u16) {
    (word & TIME, (word >> 40 & 0xfff) as u16)
}

/// Two bits of kind and two counts; what does not fit is cut at the largest that does.
fn cause_word(cause: Cause) -> u64 {
    let count = |count: u64| count.min(0x7fff_ffff);
    let (kind, part, all) = match cause {
        Cause::Row(row) => (0, u64::from(row), 0),
        Cause::Errors { bad, n } => (1, count(bad), count(n)),
        Cause::Slow { slow, n } => (2, count(slow), count(n)),
        Cause::Trial => (3, 0, 0),
    };
    kind << 62 | part << 31 | all
}

fn cause_of(word: u64) -> Cause {
    let (part, n) = (word >> 31 & 0x7fff_ffff, word & 0x7fff_ffff);
    match word >> 62 {
        0 => Cause::Row(part as u16),
        1 => Cause::Errors { bad: part, n },
        2 => Cause::Slow { slow: part, n },
        _ => Cause::Trial,
    }
}

fn millis(now: u64) -> u64 {
    now / 1_000
}

#[cfg(test)]
mod tests;
