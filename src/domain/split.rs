//! The split: which share of a service's traffic each pool gets, and which pool one request falls to.
//!
//! Shares are basis points (1/100 %) so that a split is exact integers that sum to 10,000, never
//! floats that almost do. The choice is weighted rendezvous hashing (Decisions 8): each pool draws a
//! score from the request's key and the pool's own seed, and the best score per share wins. Raising
//! one pool's share therefore moves keys only towards that pool, for any number of pools.
//!
//! Invariant: a pool whose share is zero is never chosen.

use std::fmt;
use std::str::FromStr;

/// A share of traffic in basis points: 0 (none) to 10,000 (everything).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Share(u16);

impl Share {
    /// No traffic.
    pub const NONE: Share = Share(0);
    /// All traffic.
    pub const ALL: Share = Share(10_000);

    /// A share of `points` basis points, or `None` past 10,000.
    pub const fn from_basis_points(points: u16) -> Option<Share> {
        if points <= 10_000 { Some(Share(points)) } else { None }
    }

    /// The share in basis points, 0 to 10,000.
    pub const fn basis_points(self) -> u16 {
        self.0
    }

    /// The share as a fraction, 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 10_000.0
    }

    /// What is left of all traffic beside this share.
    pub const fn rest(self) -> Share {
        Share(10_000 - self.0)
    }

    /// True for the share that gets nothing.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 100, self.0 % 100);
        match part {
            0 => write!(f, "{whole}%"),
            _ if part % 10 == 0 => write!(f, "{whole}.{}%", part / 10),
            _ => write!(f, "{whole}.{part:02}%"),
        }
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a share is a percentage from 0% to 100% with at most two decimals, such as 10% or 0.5%")]
pub struct InvalidShare;

impl FromStr for Share {
    type Err = InvalidShare;

    /// Reads `10%`, `0.5%`, `12.25%`. The percent sign is required: a bare `10` could mean basis points.
    fn from_str(text: &str) -> Result<Share, InvalidShare> {
        let number = text.trim().strip_suffix('%').ok_or(InvalidShare)?.trim_end();
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 2 || whole.len() > 3 {
            return Err(InvalidShare);
        }
        let whole: u16 = whole.parse().map_err(|_| InvalidShare)?;
        let scale = if part.len() == 1 { 10 } else { 1 };
        let part: u16 = part.parse().map_err(|_| InvalidShare)?;
        Share::from_basis_points(whole * 100 + part * scale).ok_or(InvalidShare)
    }
}

/// A pool's place in a split: its stable seed (from its name and the rollout's salt) and its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Stable per pool and rollout; see [`seed`].
    pub seed: u64,
    /// The pool's share of traffic.
    pub share: Share,
}

/// The seed of a pool in one rollout. The salt differs per rollout, else the same users always go first.
pub fn seed(pool_name: &str, salt: u64) -> u64 {
    hash_bytes(pool_name.as_bytes(), salt)
}

/// A stable 64-bit hash of `bytes` under `seed`: FNV-1a finished by a strong mixer.
///
/// Written here rather than taken from `std`, whose hasher may change between releases: where a user
/// falls must survive an upgrade.
pub fn hash_bytes(bytes: &[u8], seed: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ mix(seed);
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(hash)
}

/// The finaliser of splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
pub(super) const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The index of the slot that `key` falls to, or `None` when no slot has a share.
///
/// Weighted rendezvous hashing (Schindelhauer, Schomaker: "Weighted distributed hash tables", 2005):
/// the smallest `-ln(u) / share` wins, where `u` is uniform from the key and the slot's seed.
pub fn choose(slots: &[Slot], key: u64) -> Option<usize> {
    let mut taking = slots.iter().enumerate().filter(|(_, slot)| !slot.share.is_none());
    let (first, first_slot) = taking.next()?;
    let Some((second, second_slot)) = taking.next() else {
        return Some(first);
    };
    let score = |slot: &Slot| {
        // 53 bits and a half step: uniform strictly inside (0, 1), so the logarithm is finite.
        let unit = ((mix(key ^ slot.seed) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -unit.ln() / slot.share.fraction()
    };
    let mut best = (first, score(first_slot));
    for (index, slot) in std::iter::once((second, second_slot)).chain(taking) {
        let score = score(slot);
        if score < best.1 {
            best = (index, score);
        }
    }
    Some(best.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slots(shares: &[u16]) -> Vec<Slot> {
        let names = ["blue", "green", "red", "grey"];
        let share = |points: &u16| Share::from_basis_points(*points).unwrap();
        let slot = |(name, points): (&&str, &u16)| Slot { seed: seed(name, 7), share: share(points) };
        names.iter().zip(shares).map(slot).collect()
    }

    #[test]
    fn shares_are_read_and_written_as_percentages() {
        for (text, points) in [("0%", 0), ("10%", 1000), ("0.5%", 50), ("12.25%", 1225), ("0.05%", 5), ("100%", 10_000)]
        {
            let share: Share = text.parse().unwrap();
            assert_eq!((share.basis_points(), share.to_string().as_str()), (points, text));
        }
        for text in ["10", "", "%", "-1%", "101%", "1.234%", "1e1%", "100.01%", ".5%", "5.%", "+5%"] {
            assert_eq!(text.parse::<Share>(), Err(InvalidShare), "{text}");
        }
    }

    #[test]
    fn a_pool_without_a_share_is_never_chosen() {
        assert_eq!(choose(&slots(&[0, 0]), 1), None);
        assert!((0..10_000).all(|key| choose(&slots(&[0, 10_000]), key) == Some(1)));
        assert!((0..10_000).all(|key| choose(&slots(&[5_000, 0, 5_000]), key) != Some(1)));
    }

    #[test]
    fn where_a_key_falls_is_stable_across_releases() {
        let falls: Vec<_> = (0..16).map(|key| choose(&slots(&[5_000, 5_000]), key).unwrap()).collect();
        assert_eq!(hash_bytes(b"alice", 1), 15_098_462_263_524_216_011);
        assert_eq!(falls, [0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 1, 0, 1, 1, 1, 0]);
    }

    proptest! {
        #[test]
        fn shares_are_met(points in 1u16..10_000, salt: u64) {
            let share = |p| Share::from_basis_points(p).unwrap();
            let slots = [
                Slot { seed: seed("blue", salt), share: share(10_000 - points) },
                Slot { seed: seed("green", salt), share: share(points) },
            ];
            let n = 20_000u64;
            let green = (0..n).filter(|key| choose(&slots, mix(*key)) == Some(1)).count() as f64;
            let p = f64::from(points) / 10_000.0;
            let sigma = (p * (1.0 - p) * n as f64).sqrt();
            prop_assert!((green - p * n as f64).abs() < 6.0 * sigma + 1.0, "{} of {}", green, n);
        }

        #[test]
        fn raising_a_share_moves_keys_only_towards_it(key: u64, salt: u64, a in 1u16..2_000, b in 1u16..2_000, c in 1u16..2_000, more in 1u16..2_000) {
            // Relative shares are what counts: raising c while a and b keep their ratio.
            let slot = |name, points| Slot { seed: seed(name, salt), share: Share::from_basis_points(points).unwrap() };
            let before = choose(&[slot("a", a), slot("b", b), slot("c", c)], key).unwrap();
            let after = choose(&[slot("a", a), slot("b", b), slot("c", c + more)], key).unwrap();
            prop_assert!(after == before || after == 2);
        }
    }
}
