//! Injected faults: what a drill does to a share of a pool's requests, and until when.
//!
//! A drill asks whether a bad release would be noticed. So an injected fault stands in for what the pool would do: it is
//! counted and judged as the pool's own. It has an end from the beginning, because nobody remembers to end a drill.
//!
//! Invariant: past its end a fault does nothing, whoever forgets it.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::route::{Match, RequestView};
use super::split::Share;

/// Faults of one service at one time: every request walks them.
pub const MAX: usize = 8;
/// How long a drill may last.
pub const LASTS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// How long a request may be delayed.
pub const DELAY: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
/// What may stand in for an answer: statuses of failure.
pub const ABORT: RangeInclusive<u16> = 400..=599;

/// One injected fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// Unique within the service: lower-case letters, digits, `-` and `_`.
    pub name: String,
    /// By name, so that it means the same after a reload; `None` is every pool.
    pub pool: Option<String>,
    /// Which requests.
    pub matches: Match,
    /// How many of them; never none.
    pub share: Share,
    /// What happens to them.
    pub effect: Effect,
    /// When it ends, in microseconds of monotonic time.
    pub until: u64,
}

/// What happens to a request; at least one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    /// It waits first.
    pub delay: Option<Duration>,
    /// It is answered with this status in place of the pool.
    pub abort: Option<u16>,
}

impl Injection {
    /// True if it has ended.
    pub fn is_over(&self, now: u64) -> bool {
        now >= self.until
    }

    /// How long it has left.
    pub fn left(&self, now: u64) -> Duration {
        Duration::from_micros(self.until.saturating_sub(now))
    }

    /// True if it is this request's turn; `random` is fresh entropy.
    pub fn hits(&self, pool: &str, request: &impl RequestView, now: u64, random: u64) -> bool {
        !self.is_over(now)
            && self.pool.as_ref().is_none_or(|known| known == pool)
            && random % u64::from(Share::ALL.basis_points()) < u64::from(self.share.basis_points())
            && self.matches.matches(request, request.path())
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.delay.map(humantime::format_duration), self.abort) {
            (Some(delay), Some(status)) => write!(f, "answered {status} after {delay}"),
            (Some(delay), None) => write!(f, "delayed by {delay}"),
            (None, Some(status)) => write!(f, "answered {status}"),
            (None, None) => f.write_str("left alone"),
        }
    }
}

/// What it does, as part of a sentence: `10% of green is answered 503`.
impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pool = self.pool.as_deref().unwrap_or("every pool");
        let some = if self.matches.is_everything() { "" } else { " where it matches" };
        write!(f, "{} of {pool}{some} is {}", self.share, self.effect)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::domain::route::{PathTest, Scheme};

    struct Request(&'static str);

    impl RequestView for Request {
        fn method(&self) -> &str {
            "GET"
        }
        fn path(&self) -> &str {
            self.0
        }
        fn query(&self) -> &str {
            ""
        }
        fn host(&self) -> &str {
            ""
        }
        fn header(&self, _: &str) -> Option<&str> {
            None
        }
        fn client(&self) -> IpAddr {
            IpAddr::from([127, 0, 0, 1])
        }
        fn scheme(&self) -> Scheme {
            Scheme::Http
        }
    }

    fn injection(share: &str) -> Injection {
        Injection {
            name: "drill".to_owned(),
            pool: Some("green".to_owned()),
            matches: Match::default(),
            share: share.parse().unwrap(),
            effect: Effect { delay: None, abort: Some(503) },
            until: 1_000,
        }
    }

    #[test]
    fn it_hits_its_pool_its_requests_and_its_share_until_its_end() {
        let all = injection("100%");
        let api = Match { path: Some(PathTest::Prefix("/api".to_owned())), ..Match::default() };
        let some = Injection { matches: api, ..injection("100%") };
        let every = Injection { pool: None, ..injection("25%") };
        let table = [
            (&all, "green", "/", 0, 9_999, true),
            (&all, "blue", "/", 0, 0, false),
            (&all, "green", "/", 999, 0, true),
            (&all, "green", "/", 1_000, 0, false),
            (&some, "green", "/api/x", 0, 0, true),
            (&some, "green", "/apis", 0, 0, false),
            (&every, "blue", "/", 0, 2_499, true),
            (&every, "blue", "/", 0, 2_500, false),
            (&every, "green", "/", 0, 12_499, true),
        ];
        for (injection, pool, path, now, random, hits) in table {
            assert_eq!(
                injection.hits(pool, &Request(path), now, random),
                hits,
                "{injection}: {pool} {path} {now} {random}"
            );
        }
        assert_eq!((all.left(400), all.left(2_000)), (Duration::from_micros(600), Duration::ZERO));
    }

    #[test]
    fn it_says_what_it_does() {
        let with = |delay, abort| Injection {
            effect: Effect { delay: Option::map(delay, Duration::from_millis), abort },
            ..injection("10%")
        };
        assert_eq!(with(None, Some(503)).to_string(), "10% of green is answered 503");
        assert_eq!(with(Some(200), None).to_string(), "10% of green is delayed by 200ms");
        let everywhere = Injection { pool: None, ..with(Some(1_500), Some(500)) };
        assert_eq!(everywhere.to_string(), "10% of every pool is answered 500 after 1s 500ms");
    }
}
