//! Rate limits over all workers: what each key has used, in a table of fixed size that nobody locks.
//!
//! A key's whole memory is one word: a fingerprint of 16 bits and the time of [`Pace::check`] in 48. It lives in a set
//! of eight, one cache line, chosen by its hash; changing it is one compare-and-swap. A key that is not there takes the
//! place of the one whose time is furthest back, and takes that time over. Mostly it lies in the past and costs nothing.
//! If the table is too small for those who are busy, a newcomer begins with some of another's debt: so flooding the
//! table with keys never makes anybody's limit higher. It is counted, because the remedy is a larger table.
//!
//! Two keys share one word if set and fingerprint are the same: with a full table of the usual size that is one in
//! 8,000. The hash is keyed anew for every limit, so nobody can choose whom to share with.
//!
//! The times are 48 bits of ticks and wrap after 203 days. What lies less than a day ahead is ahead, all else is past.
//!
//! Invariants: a key is never allowed more than its limit says, by however many workers; the values in a set only
//! rise, which is why two workers that miss a key at the same time meet at the same word, and one of them tries again.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::bridge::admission::Source;
use crate::bridge::counters::{PerWorker, Tally};
use crate::domain::rate::{By, LONGEST, Limit, Pace, Wait};
use crate::domain::route::RequestView;

/// Keys in a set: a cache line of words.
const WAYS: usize = 8;
/// Bits of a time.
const BITS: u32 = 48;
const TIME: u64 = (1 << BITS) - 1;

/// One limit with the memory of its keys; survives tables while its settings stay the same.
#[derive(Debug)]
pub struct Limiter {
    /// The definition, from the file.
    pub limit: Limit,
    pace: Pace,
    keys: Keys,
    hasher: RandomState,
    tally: PerWorker<LimiterTally>,
}

/// What one worker counted of a limit.
#[derive(Debug, Default)]
pub struct LimiterTally {
    /// Requests refused.
    pub refused: Tally,
    /// Keys that took over the debt of another because the table is too small.
    pub crowded: Tally,
}

impl Limiter {
    /// A limit that nobody has used anything of; `None` if its burst would not come back within a day.
    pub fn new(limit: Limit, workers: usize) -> Option<Limiter> {
        let keys = Keys::new(if limit.by == By::All { 1 } else { limit.keys });
        let pace = Pace::new(limit.rate, limit.burst)?;
        Some(Limiter { limit, pace, keys, hasher: RandomState::new(), tally: PerWorker::new(workers) })
    }

    /// Counts a request at `now` (ticks), unless it is none of those this limit is about.
    ///
    /// # Errors
    /// When it is one too many: how long until it would not be.
    pub fn take(&self, worker: usize, request: &impl RequestView, now: u64) -> Result<(), Wait> {
        if !self.limit.matches.is_everything() && !self.limit.matches.matches(request, request.path()) {
            return Ok(());
        }
        let hash = match &self.limit.by {
            By::All => 0,
            By::Client => self.hasher.hash_one(Source::of(request.client())),
            By::Header(name) => self.hasher.hash_one(request.header(name)),
        };
        let taken = self.keys.take(hash, self.pace, now);
        let tally = self.tally.of(worker);
        match taken {
            Ok(Taken { crowded: true }) => tally.crowded.add(1),
            Ok(Taken { crowded: false }) => {}
            Err(_) => tally.refused.add(1),
        }
        taken.map(|_| ())
    }

    /// What the workers counted.
    pub fn total(&self, read: impl Fn(&LimiterTally) -> u64) -> u64 {
        self.tally.iter().map(read).fold(0, u64::wrapping_add)
    }
}

/// The words of a limit's keys.
#[derive(Debug)]
struct Keys(Box<[Set]>);

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; WAYS]);

/// How a place was found for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    /// In the place of a key that was not done yet.
    crowded: bool,
}

impl Keys {
    /// Room for at least so many.
    fn new(keys: usize) -> Keys {
        Keys((0..keys.div_ceil(WAYS).next_power_of_two()).map(|_| Set::default()).collect())
    }

    fn take(&self, hash: u64, pace: Pace, now: u64) -> Result<Taken, Wait> {
        let Set(words) = &self.0[hash as usize & (self.0.len() - 1)];
        // Zero is for words that were never used.
        let fingerprint = (hash >> BITS).max(1);
        loop {
            let (mut at, mut seen, mut oldest, mut known) = (0, 0, u64::MAX, false);
            for (index, word) in words.iter().enumerate() {
                let word = word.load(Relaxed);
                if word >> BITS == fingerprint {
                    (at, seen, known) = (index, word, true);
                    break;
                }
                let age = order(word, now);
                if age < oldest {
                    (at, seen, oldest) = (index, word, age);
                }
            }
            let paid = paid(seen, now);
            let next = pace.check(paid, now)?;
            let word = fingerprint << BITS | next & TIME;
            // It only fails if another worker has moved on: somebody always does.
            if words[at].compare_exchange(seen, word, Relaxed, Relaxed).is_ok() {
                return Ok(Taken { crowded: !known && paid > now });
            }
        }
    }
}

/// The time in a word, which is ahead of `now` by at most what a burst may be, or does not matter.
fn paid(word: u64, now: u64) -> u64 {
    let ahead = word.wrapping_sub(now) & TIME;
    if word != 0 && ahead <= 2 * LONGEST { now + ahead } else { 0 }
}

/// Words by their times, the furthest back first.
fn order(word: u64, now: u64) -> u64 {
    if word == 0 { 0 } else { 1 + (word.wrapping_sub(now).wrapping_add(1 << (BITS - 1)) & TIME) }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::atomic::AtomicU64 as Clock;

    use super::*;
    use crate::domain::rate::{Rate, TICKS};
    use crate::domain::route::{Match, Scheme};

    const SECOND: u64 = 1_000_000 * TICKS;

    struct Request(&'static str, Option<&'static str>);

    impl RequestView for Request {
        fn method(&self) -> &str {
            "GET"
        }
        fn path(&self) -> &str {
            "/"
        }
        fn query(&self) -> &str {
            ""
        }
        fn host(&self) -> &str {
            ""
        }
        fn header(&self, name: &str) -> Option<&str> {
            self.1.filter(|_| name == "x-api-key")
        }
        fn client(&self) -> IpAddr {
            self.0.parse().unwrap()
        }
        fn scheme(&self) -> Scheme {
            Scheme::Http
        }
    }

    fn limiter(by: By, rate: &str, burst: u32, keys: usize) -> Limiter {
        let rate: Rate = rate.parse().unwrap();
        let limit = Limit { name: "l".to_owned(), matches: Match::default(), by, rate, burst, keys };
        Limiter::new(limit, 1).unwrap()
    }

    /// How many of `tries` are allowed at `now`.
    fn allowed(limiter: &Limiter, request: &Request, now: u64, tries: usize) -> usize {
        (0..tries).filter(|_| limiter.take(0, request, now).is_ok()).count()
    }

    #[test]
    fn keys_are_counted_apart_as_the_limit_says() {
        let one = |by, first: Request, second: Request| {
            let limiter = limiter(by, "1/s", 2, 64);
            let counted = (allowed(&limiter, &first, SECOND, 5), allowed(&limiter, &second, SECOND, 5));
            assert_eq!(limiter.total(|tally| tally.refused.read()), 10 - (counted.0 + counted.1) as u64);
            counted
        };
        let header = || By::Header("x-api-key".to_owned());
        assert_eq!(one(By::All, Request("192.0.2.1", None), Request("192.0.2.2", Some("a"))), (2, 0));
        assert_eq!(one(By::Client, Request("192.0.2.1", None), Request("192.0.2.2", None)), (2, 2));
        assert_eq!(one(By::Client, Request("2001:db8::1", None), Request("2001:db8::2:1", None)), (2, 0), "one /64");
        assert_eq!(one(By::Client, Request("2001:db8::1", None), Request("2001:db8:0:1::1", None)), (2, 2));
        assert_eq!(one(header(), Request("192.0.2.1", Some("a")), Request("192.0.2.1", Some("b"))), (2, 2));
        assert_eq!(one(header(), Request("192.0.2.1", Some("a")), Request("192.0.2.9", Some("a"))), (2, 0));
        assert_eq!(one(header(), Request("192.0.2.1", None), Request("192.0.2.9", None)), (2, 0), "none is one key");
        assert_eq!(one(header(), Request("192.0.2.1", None), Request("192.0.2.1", Some(""))), (2, 2));
    }

    #[test]
    fn only_what_matches_is_counted() {
        let matches = Match { methods: vec!["POST".to_owned()], ..Match::default() };
        let mut limit = limiter(By::All, "1/s", 1, 8).limit;
        limit.matches = matches;
        let limiter = Limiter::new(limit, 1).unwrap();
        assert_eq!(allowed(&limiter, &Request("192.0.2.1", None), SECOND, 9), 9);
    }

    #[test]
    fn a_full_set_gives_its_oldest_place_and_never_more_than_the_limit() {
        let keys = Keys::new(WAYS);
        let pace = Pace::new("1/s".parse().unwrap(), 3).unwrap();
        let key = |number: u64| (number + 1) << BITS;
        for number in 0..WAYS as u64 {
            assert_eq!(keys.take(key(number), pace, SECOND + number), Ok(Taken { crowded: false }));
        }
        // All are busy: a ninth begins with the debt of the first, one of three.
        assert_eq!(keys.take(key(8), pace, SECOND + 9), Ok(Taken { crowded: true }));
        assert_eq!(keys.take(key(8), pace, SECOND + 9), Ok(Taken { crowded: false }));
        assert!(keys.take(key(8), pace, SECOND + 9).is_err());
        // The first, now without a place, does not begin anew either.
        assert_eq!(keys.take(key(0), pace, SECOND + 10), Ok(Taken { crowded: true }));
        assert_eq!(keys.take(key(0), pace, SECOND + 10), Ok(Taken { crowded: false }));
        assert!(keys.take(key(0), pace, SECOND + 10).is_err());
        // Once the others are done, a newcomer owes nothing.
        for _ in 0..3 {
            assert_eq!(keys.take(key(20), pace, 60 * SECOND), Ok(Taken { crowded: false }));
        }
        assert!(keys.take(key(20), pace, 60 * SECOND).is_err());
    }

    #[test]
    fn times_that_wrap_are_still_times() {
        let pace = Pace::new("1/s".parse().unwrap(), 2).unwrap();
        let wrap = 1 << BITS;
        let keys = Keys::new(WAYS);
        let key = 7 << BITS;
        for now in [wrap - SECOND / 2, wrap + wrap / 2, 3 * wrap - 1] {
            assert!(keys.take(key, pace, now).is_ok() && keys.take(key, pace, now).is_ok());
            assert!(keys.take(key, pace, now + SECOND / 2).is_err());
            assert!(keys.take(key, pace, now + SECOND).is_ok());
        }
    }

    #[test]
    fn no_number_of_threads_gets_more_than_one_may() {
        // Few places and many keys, so that keys come and go under the threads' hands; the clock moves with them.
        let (rate, burst) = ("5000/s", 40);
        let limiter = limiter(By::Client, rate, burst, 16);
        let clock = Clock::new(SECOND);
        let clients: Vec<String> = (0..64).map(|number| format!("192.0.2.{number}")).collect();
        let counts: Vec<AtomicU64> = clients.iter().map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..8_usize {
                let (limiter, clock, clients, counts) = (&limiter, &clock, &clients, &counts);
                scope.spawn(move || {
                    for turn in 0..20_000_usize {
                        // Half of all requests are the first client's.
                        let at = if turn % 2 == 0 { 0 } else { (turn * 7 + thread) % clients.len() };
                        let now = clock.fetch_add(TICKS, Relaxed);
                        let hash = limiter.hasher.hash_one(Source::of(clients[at].parse().unwrap()));
                        if limiter.keys.take(hash, limiter.pace, now).is_ok() {
                            counts[at].fetch_add(1, Relaxed);
                        }
                    }
                });
            }
        });
        let passed = clock.load(Relaxed) - SECOND;
        // Two keys can share a word, which only ever makes them get less.
        let most = u64::from(burst) + passed.div_ceil(SECOND / 5_000);
        let got: Vec<u64> = counts.iter().map(|count| count.load(Relaxed)).collect();
        assert!(got.iter().all(|count| *count <= most), "{most}: {got:?}");
        assert!(got[0] > most / 2, "the busiest gets its own: {most}: {got:?}");
    }
}
