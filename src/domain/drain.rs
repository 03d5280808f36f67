//! Drains: what of a service is out of use by an order, and how an order that was given comes to its end.
//!
//! [`Orders`] outlive the process: an endpoint that somebody took out of use stays out until somebody puts it back. A
//! [`Drain`] is the way there: what is in flight ends by itself, and only an order that names a deadline cuts the rest.
//!
//! ```text
//!            nothing in flight ─────────────────────────▶ Ended
//! Waiting ──┤                                               ▲
//!            deadline ─▶ Cutting ── nothing in flight, or ──┘
//!                                   nothing helps
//! ```
//!
//! Invariant: without a deadline nothing is ever cut.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// What was cut has this long to notice. The workers look every ten milliseconds; a client that reads nothing takes
/// longer, and is not waited for.
const NOTICE: Duration = Duration::from_secs(5);

/// A part of a service: a pool, or one address of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The pool.
    pub pool: String,
    /// The address, as it is configured; `None` for all of the pool.
    pub endpoint: Option<String>,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Some(endpoint) => write!(f, "{endpoint} of `{}`", self.pool),
            None => write!(f, "pool `{}`", self.pool),
        }
    }
}

/// What of one service is out of use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders(BTreeSet<Part>);

impl Orders {
    /// True if this address of a pool is out of use, by itself or with its pool.
    pub fn cover(&self, pool: &str, endpoint: &str) -> bool {
        let named = |part: &Part| part.endpoint.as_deref().is_none_or(|known| known == endpoint);
        self.0.iter().any(|part| part.pool == pool && named(part))
    }

    /// True if the pool is out of use as a whole.
    pub fn cover_pool(&self, pool: &str) -> bool {
        self.0.iter().any(|part| part.pool == pool && part.endpoint.is_none())
    }

    /// Takes a part out of use.
    pub fn drain(&mut self, part: Part) {
        self.0.insert(part);
    }

    /// Puts a part into use again; a pool with all its addresses.
    pub fn undrain(&mut self, part: &Part) {
        self.0.retain(|known| known.pool != part.pool || (part.endpoint.is_some() && known.endpoint != part.endpoint));
    }

    /// Every part that was named.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.0.iter()
    }
}

impl FromIterator<Part> for Orders {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Orders {
        Orders(parts.into_iter().collect())
    }
}

/// An order on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    began: u64,
    at_first: u64,
    deadline: Option<u64>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Cutting { cut: u64, until: u64 },
}

/// What is to be done about a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet.
    Wait,
    /// Cut what is left.
    Cut,
    /// It is over.
    Ended(Ended),
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Requests in flight when it began.
    pub at_first: u64,
    /// Of these, those that were cut.
    pub cut: u64,
    /// Of these, those that did not even end then.
    pub left: u64,
    /// From the order to the end, in microseconds.
    pub took: u64,
}

impl Drain {
    /// An order given at `now` (microseconds), with so many requests in flight. After `deadline` the rest is cut.
    pub fn new(now: u64, in_flight: u64, deadline: Option<Duration>) -> Drain {
        let deadline = deadline.map(|deadline| now.saturating_add(micros(deadline)));
        Drain { began: now, at_first: in_flight, deadline, phase: Phase::Waiting }
    }

    /// What follows now that so many requests are in flight.
    pub fn step(&mut self, now: u64, in_flight: u64) -> Next {
        let ended =
            |cut, left| Next::Ended(Ended { at_first: self.at_first, cut, left, took: now.saturating_sub(self.began) });
        match self.phase {
            Phase::Waiting if in_flight == 0 => ended(0, 0),
            Phase::Waiting if self.deadline.is_some_and(|deadline| now >= deadline) => {
                self.phase = Phase::Cutting { cut: in_flight, until: now.saturating_add(micros(NOTICE)) };
                Next::Cut
            }
            Phase::Waiting => Next::Wait,
            Phase::Cutting { cut, until } if in_flight == 0 || now >= until => ended(cut, in_flight),
            Phase::Cutting { .. } => Next::Wait,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = Duration::from_millis(self.took / 1_000);
        write!(f, "{} in flight at first, over after {}", requests(self.at_first), humantime::format_duration(took))?;
        if self.cut > 0 {
            write!(f, ", {} cut at the deadline", self.cut)?;
        }
        if self.left > 0 {
            write!(f, ", {} of them still there", self.left)?;
        }
        Ok(())
    }
}

/// `1 request`, `2 requests`.
pub fn requests(count: u64) -> String {
    format!("{count} request{}", if count == 1 { "" } else { "s" })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(pool: &str, endpoint: Option<&str>) -> Part {
        Part { pool: pool.to_owned(), endpoint: endpoint.map(str::to_owned) }
    }

    #[test]
    fn a_pool_is_out_of_use_with_all_it_has_and_comes_back_with_all_it_has() {
        let mut orders = Orders::default();
        orders.drain(part("green", Some("http://a:1")));
        assert!(orders.cover("green", "http://a:1") && !orders.cover("green", "http://b:1"));
        assert!(!orders.cover("blue", "http://a:1") && !orders.cover_pool("green"));
        orders.drain(part("green", None));
        assert!(orders.cover("green", "http://b:1") && orders.cover_pool("green") && !orders.cover_pool("blue"));
        orders.undrain(&part("green", Some("http://a:1")));
        assert_eq!(orders.parts().collect::<Vec<_>>(), [&part("green", None)], "the pool's order stands by itself");
        orders.drain(part("green", Some("http://a:1")));
        orders.undrain(&part("green", None));
        assert_eq!(orders, Orders::default());
    }

    #[test]
    fn a_drain_waits_and_cuts_only_at_its_deadline() {
        const SECOND: u64 = 1_000_000;
        let deadline = Some(Duration::from_secs(30));
        let ended =
            |at_first, cut, left, seconds: u64| Next::Ended(Ended { at_first, cut, left, took: seconds * SECOND });
        // (deadline, in flight at first, steps of (second, in flight, what follows))
        let table = [
            (None, 0, vec![(0, 0, ended(0, 0, 0, 0))]),
            (None, 3, vec![(1, 3, Next::Wait), (9_000, 1, Next::Wait), (9_001, 0, ended(3, 0, 0, 9_001))]),
            (deadline, 3, vec![(29, 2, Next::Wait), (29, 0, ended(3, 0, 0, 29))]),
            (deadline, 3, vec![(30, 2, Next::Cut), (31, 1, Next::Wait), (32, 0, ended(3, 2, 0, 32))]),
            (deadline, 3, vec![(30, 2, Next::Cut), (34, 1, Next::Wait), (35, 1, ended(3, 2, 1, 35))]),
        ];
        for (deadline, at_first, steps) in table {
            let mut drain = Drain::new(7, at_first, deadline);
            for (second, in_flight, expected) in steps {
                assert_eq!(drain.step(7 + second * SECOND, in_flight), expected, "{deadline:?} {second}");
            }
        }
    }

    #[test]
    fn an_end_is_told_in_a_sentence() {
        let table = [
            ((0, 0, 0, 900), "0 requests in flight at first, over after 0s"),
            ((1, 0, 0, 12_345), "1 request in flight at first, over after 12ms"),
            ((9, 2, 0, 30_000_000), "9 requests in flight at first, over after 30s, 2 cut at the deadline"),
            (
                (9, 2, 1, 35_000_000),
                "9 requests in flight at first, over after 35s, 2 cut at the deadline, 1 of them still there",
            ),
        ];
        for ((at_first, cut, left, took), told) in table {
            assert_eq!(Ended { at_first, cut, left, took }.to_string(), told);
        }
    }

    proptest! {
        #[test]
        fn nothing_is_cut_without_a_deadline(steps in prop::collection::vec((any::<u32>(), 0_u64..4), 0..50)) {
            let (mut drain, mut now) = (Drain::new(0, 4, None), 0);
            for (later, in_flight) in steps {
                now += u64::from(later);
                let next = drain.step(now, in_flight);
                prop_assert_eq!(matches!(next, Next::Ended(Ended { cut: 0, left: 0, .. })), in_flight == 0);
                prop_assert_ne!(next, Next::Cut);
            }
        }
    }
}
