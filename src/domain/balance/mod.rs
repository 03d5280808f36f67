//! Balancing: which endpoint of a pool takes a request.
//!
//! A [`Plan`] is made once from the pool's policy and its endpoints' ranks, and serves until one of them changes. What
//! moves (who is eligible, how busy, how fast) is asked of a [`Live`] view at every pick. Endpoints of one priority are
//! a level; [`standing`] says how the levels share the requests, each level then picks by its policy:
//!
//! - round robin: all in turn, each as often as it weighs ([`cycle`]);
//! - least request and peak EWMA: two drawn by weight, the less busy or the faster one takes it ("power of two choices",
//!   Mitzenmacher 2001), which copes with endpoints of unequal speed and never scans the pool ([`draw`], [`pace`]);
//! - ring hash and Maglev: the same key always the same endpoint, as long as that is eligible and not far busier than
//!   the others ([`ring`], [`maglev`]).
//!
//! An endpoint that has just come back is thinned out: it is passed over at random (for a hash: by the key, so that the
//! keys that have returned stay) until it is warm. That gives exactly the scaled weight, with nothing to rebuild.
//!
//! Invariant: an endpoint that is not open is never picked, and an open one is always found if there is one.

mod cycle;
mod draw;
mod hashing;
mod level;
mod maglev;
pub mod pace;
mod ring;
pub mod standing;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::domain::split::{Share, mix};
use draw::Dice;
pub use hashing::{Hashing, Key};
use level::Level;
pub use standing::Standing;

/// Priorities there are, from 0 to one below this.
pub const LEVELS: usize = 8;
/// The largest weight of an endpoint.
pub const HEAVIEST: u16 = 1_000;
/// The warmth of an endpoint that has been in use for long enough.
pub const WARM: u32 = 1_024;
/// The warmth of one that has just come back: a tenth.
const COLD: u32 = 102;

/// How a pool is balanced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Who is picked among the endpoints of one priority.
    pub policy: Policy,
    /// With less of the pool eligible than this, obstacles that come from its own results do not count.
    pub panic: Share,
    /// How long an endpoint that comes back takes to its full weight; zero for at once.
    pub slow_start: Duration,
    /// How much more than its share of the requests a level can carry.
    pub overprovision: Factor,
}

/// Who is picked.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// Each in turn.
    RoundRobin,
    /// The less busy of two drawn at random.
    #[default]
    LeastRequest,
    /// The faster of two drawn at random, by latency and requests in flight.
    PeakEwma,
    /// By a key, on a ring of hashes.
    RingHash(Hashing),
    /// By a key, from a lookup table.
    Maglev(Hashing),
}

impl Default for Balance {
    fn default() -> Balance {
        Balance {
            policy: Policy::default(),
            panic: Share::from_basis_points(5_000).expect("50%"),
            slow_start: Duration::ZERO,
            overprovision: Factor::from_hundredths(140),
        }
    }
}

/// A number in hundredths, so that it is compared exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factor(u32);

impl Factor {
    /// `hundredths / 100`.
    pub const fn from_hundredths(hundredths: u32) -> Factor {
        Factor(hundredths)
    }

    /// The factor in hundredths.
    pub const fn hundredths(self) -> u32 {
        self.0
    }
}

/// What an endpoint gets beside the others of its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// 1 to [`HEAVIEST`].
    pub weight: u16,
    /// 0 to [`LEVELS`] less one; a lower one is used first.
    pub priority: u8,
}

impl Default for Rank {
    fn default() -> Rank {
        Rank { weight: 1, priority: 0 }
    }
}

/// One endpoint as a plan sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// A hash of where it is: the same after a restart and on every machine.
    pub seat: u64,
    /// What it gets.
    pub rank: Rank,
}

/// What moves while a plan stays. Endpoints are meant by their place in the pool.
pub trait Live {
    /// May it be given this request?
    fn is_open(&self, at: usize) -> bool;
    /// Requests in flight there, as far as the one who picks knows.
    fn load(&self, at: usize) -> u64;
    /// The latency to expect there in microseconds, see [`pace`].
    fn pace(&self, at: usize) -> f64;
    /// How warm it is, up to [`WARM`]; see [`warmth`].
    fn warmth(&self, at: usize) -> u32;
    /// Where a level's round stands.
    fn turn(&self, level: usize) -> u32;
    /// A level's round moves on to here.
    fn turned(&self, level: usize, turn: u32);
}

/// How one pool is balanced as long as its endpoints, their ranks and the policy stay the same.
#[derive(Debug)]
pub struct Plan {
    balance: Balance,
    members: usize,
    /// In the order of priorities; only those that somebody has.
    levels: Vec<Level>,
}

impl Plan {
    /// A plan for endpoints in the order of the pool.
    pub fn new(balance: Balance, members: &[Member]) -> Plan {
        let level = |priority| {
            let of = members.iter().enumerate().filter(|(_, member)| member.rank.priority == priority);
            let of: Vec<_> = of.collect();
            (!of.is_empty()).then(|| Level::new(&balance.policy, &of))
        };
        let levels = (0..LEVELS as u8).filter_map(level).collect();
        Plan { balance, members: members.len(), levels }
    }

    /// How it is balanced.
    pub fn balance(&self) -> &Balance {
        &self.balance
    }

    /// What of a request is its key, if the policy goes by one.
    pub fn key(&self) -> Option<&Key> {
        match &self.balance.policy {
            Policy::RingHash(hashing) | Policy::Maglev(hashing) => Some(&hashing.by),
            Policy::RoundRobin | Policy::LeastRequest | Policy::PeakEwma => None,
        }
    }

    /// True if a pick needs to know the time.
    pub fn heeds_time(&self) -> bool {
        self.balance.policy == Policy::PeakEwma || !self.balance.slow_start.is_zero()
    }

    /// The priorities that its levels have.
    pub fn priorities(&self) -> impl Iterator<Item = u8> {
        self.levels.iter().map(Level::priority)
    }

    /// How the levels share the requests. `eligible` are those that nothing stands against, `spare` those that are so
    /// when it comes to the worst, `warmth` is as of [`Live::warmth`].
    pub fn stand(
        &self,
        eligible: impl Fn(usize) -> bool,
        spare: impl Fn(usize) -> bool,
        warmth: impl Fn(usize) -> u32,
    ) -> Standing {
        standing::stand(&self.balance, self.members, &self.levels, eligible, spare, warmth)
    }

    /// Picks an endpoint that is open: for a request with this key, if the policy has one and the request too;
    /// `random` is fresh entropy. `None` if nobody is open.
    pub fn pick(&self, standing: &Standing, key: Option<u64>, random: u64, live: &impl Live) -> Option<usize> {
        let mut dice = Dice::new(random);
        let key = key.unwrap_or_else(|| dice.roll());
        let first = match self.levels.len() {
            1 => 0,
            // Mixed again: where a key falls in a level must not depend on which level it is.
            _ => standing.level(mix(key)),
        };
        let level = |at: usize| self.levels.get(at)?.pick(at, key, &mut dice, live);
        let others = (0..self.levels.len()).filter(|at| *at != first);
        std::iter::once(first).chain(others).find_map(level)
    }
}

/// How warm an endpoint is that became eligible at `since` and is looked at `now`, both in microseconds: from a tenth up
/// in a straight line, [`WARM`] after `slow_start`, and if it was always eligible (`None`).
pub fn warmth(slow_start: Duration, since: Option<u64>, now: u64) -> u32 {
    let Some(since) = since else { return WARM };
    let whole = slow_start.as_micros().min(u128::from(u64::MAX)) as u64;
    let part = now.saturating_sub(since);
    if part >= whole {
        return WARM;
    }
    COLD + (u128::from(WARM - COLD) * u128::from(part) / u128::from(whole)) as u32
}
