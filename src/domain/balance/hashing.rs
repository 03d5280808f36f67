//! Hashing: what of a request decides, and how busy the endpoint it falls to may be.
//!
//! A key that many requests share must not drown its endpoint: one may have no more than a bit above its part of the
//! requests in flight, the next one on the walk takes what is more ("consistent hashing with bounded loads", Mirrokni,
//! Thorup, Zadimoghaddam 2018).
//!
//! Invariant: no endpoint past its bound is picked while another one is below.

use std::net::IpAddr;

use super::Factor;
use crate::domain::route::{self, Pattern, RequestView, path};
use crate::domain::split::hash_bytes;

/// A policy that goes by a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashing {
    /// What the key is made of.
    pub by: Key,
    /// How far above the mean an endpoint may be loaded; `None` for any load.
    pub load_factor: Option<Factor>,
}

/// What of a request is its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A header's value (name in lower case).
    Header(String),
    /// A cookie's value.
    Cookie(String),
    /// The path without the query.
    Path,
    /// What the first group of a pattern catches of the path, or all of it if the pattern has no group.
    Part(Pattern),
    /// The client's address.
    Client,
}

impl Key {
    /// The key of a request; `None` if it has none.
    pub fn of(&self, request: &impl RequestView) -> Option<u64> {
        let hash = |bytes: &[u8]| Some(hash_bytes(bytes, 0));
        match self {
            Key::Header(name) => hash(request.header(name)?.as_bytes()),
            Key::Cookie(name) => hash(route::cookie(request, name)?.as_bytes()),
            Key::Path => hash(path::canonical(request.path()).as_bytes()),
            Key::Part(pattern) => hash(pattern.part(path::canonical(request.path()).as_bytes())?),
            Key::Client => match request.client().to_canonical() {
                IpAddr::V4(ip) => hash(&ip.octets()),
                IpAddr::V6(ip) => hash(&ip.octets()),
            },
        }
    }
}

/// What endpoints may carry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// Factor times requests, this one included; in hundredths.
    requests: u128,
    weights: u128,
}

impl Bound {
    /// For so many requests in flight at endpoints of so much weight in all.
    pub(super) fn new(factor: Factor, in_flight: u64, weights: u64) -> Bound {
        let requests = u128::from(factor.hundredths()) * (u128::from(in_flight) + 1);
        Bound { requests, weights: u128::from(weights.max(1)) }
    }

    /// May one of this weight with so many requests in flight be given another?
    pub(super) fn has_room(self, weight: u64, load: u64) -> bool {
        let most = (self.requests * u128::from(weight)).div_ceil(self.weights * 100);
        u128::from(load) < most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bound_is_a_bit_above_the_fair_part_and_never_nothing() {
        let bound = |in_flight| Bound::new(Factor::from_hundredths(125), in_flight, 4);
        assert!(bound(0).has_room(1, 0) && !bound(0).has_room(1, 1));
        // Of 40 requests a quarter and a quarter of that: 12.5, up.
        assert!(bound(39).has_room(1, 12) && !bound(39).has_room(1, 13));
        assert!(bound(39).has_room(2, 24) && !bound(39).has_room(2, 25));
    }

    proptest! {
        #[test]
        fn somebody_always_has_room(loads in prop::collection::vec((0_u64..1_000, 1_u64..1_000), 1..20), factor in 100_u32..1_000) {
            let (load, weight) = loads.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            let bound = Bound::new(Factor::from_hundredths(factor), load, weight);
            prop_assert!(loads.iter().any(|(load, weight)| bound.has_room(*weight, *load)));
        }
    }
}
