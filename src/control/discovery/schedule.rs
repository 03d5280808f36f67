//! When a name is asked for again, and what of its answer is news.
//!
//! Time is an argument. A good answer is kept for its TTL within the resolver's bounds; a failure is tried again sooner,
//! then less and less often.
//!
//! Invariant: `known` only ever changes to an answer with at least one address.

use std::net::SocketAddr;
use std::time::Duration;

use crate::clock::Micros;
use crate::config::settings::Resolver;

/// Longest wait between two attempts at a name that fails.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A name that moves with every answer is told about once in this time.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// What a name was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Where: sorted, each once.
    pub(super) at: Vec<SocketAddr>,
    /// How long that holds.
    pub(super) ttl: Duration,
}

/// What is known of one name.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    known: Vec<SocketAddr>,
    due: Micros,
    in_a_row: u32,
    failures: u64,
    told: Option<Micros>,
}

/// What an answer changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing that was not said before.
    None,
    /// Other addresses; `told` unless that was said a moment ago, or they are the first.
    Moved {
        /// Worth an event.
        told: bool,
    },
    /// It began to fail, with this reason.
    Failing(String),
    /// It stopped failing, with the addresses it had.
    Recovered,
}

impl Entry {
    /// Where it is, as far as is known.
    pub(super) fn known(&self) -> &[SocketAddr] {
        &self.known
    }

    /// When to ask again.
    pub(super) fn due(&self) -> Micros {
        self.due
    }

    /// How often it failed in all.
    pub(super) fn failures(&self) -> u64 {
        self.failures
    }

    /// Takes an answer in.
    pub(super) fn learn(&mut self, found: Result<Answer, String>, now: Micros, resolver: &Resolver) -> News {
        let found = found.and_then(|answer| match answer.at.is_empty() {
            true => Err("the answer holds no address".to_owned()),
            false => Ok(answer),
        });
        let Answer { at, ttl } = match found {
            Ok(answer) => answer,
            Err(why) => return self.fail(why, now, resolver),
        };
        self.due = now.after(ttl.clamp(resolver.ttl_floor, resolver.ttl_ceiling));
        let failed = std::mem::take(&mut self.in_a_row) > 0;
        if self.known == at {
            return if failed { News::Recovered } else { News::None };
        }
        let is_first = self.known.is_empty();
        self.known = at;
        let quiet = self.told.is_none_or(|told| now >= told.after(TOLD_EVERY));
        let told = failed || (!is_first && quiet);
        if told {
            self.told = Some(now);
        }
        News::Moved { told }
    }

    fn fail(&mut self, why: String, now: Micros, resolver: &Resolver) -> News {
        let longest = LONGEST_WAIT.min(resolver.ttl_ceiling);
        let wait = resolver.ttl_floor.saturating_mul(1 << self.in_a_row.min(16)).min(longest);
        self.due = now.after(wait);
        self.failures += 1;
        self.in_a_row = self.in_a_row.saturating_add(1);
        if self.in_a_row == 1 { News::Failing(why) } else { News::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(addresses: &[&str], seconds: u64) -> Result<Answer, String> {
        let at = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Ok(Answer { at, ttl: Duration::from_secs(seconds) })
    }

    const ONE: &str = "10.0.0.1:80";
    const TWO: &str = "10.0.0.2:80";

    #[test]
    fn an_answer_is_kept_for_its_ttl_within_the_bounds() {
        let resolver = Resolver::default();
        for (ttl, kept) in [(0, 1), (1, 1), (30, 30), (300, 300), (301, 300), (86_400, 300)] {
            let (mut entry, now) = (Entry::default(), Micros(7));
            entry.learn(answer(&[ONE], ttl), now, &resolver);
            assert_eq!(entry.due().since(now), kept * 1_000_000, "{ttl}");
        }
    }

    #[test]
    fn a_failure_is_tried_again_sooner_and_then_less_and_less_often() {
        let resolver = Resolver::default();
        let mut entry = Entry::default();
        entry.learn(answer(&[ONE], 60), Micros(0), &resolver);
        let waits = [(); 8].map(|()| {
            entry.learn(Err("down".to_owned()), Micros(0), &resolver);
            entry.due().0 / 1_000_000
        });
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        entry.learn(answer(&[ONE], 60), Micros(0), &resolver);
        entry.learn(Err("down".to_owned()), Micros(0), &resolver);
        assert_eq!((entry.due(), entry.failures()), (Micros(1_000_000), 9));
        // Nobody who asks for answers not older than so is served older failures.
        let strict = Resolver { ttl_ceiling: Duration::from_secs(3), ..resolver };
        (0..40).for_each(|_| drop(entry.learn(Err("down".to_owned()), Micros(0), &strict)));
        assert_eq!(entry.due(), Micros(3_000_000));
    }

    #[test]
    fn news_is_what_was_not_said_before() {
        let resolver = Resolver::default();
        let mut entry = Entry::default();
        let down = || Err("down".to_owned());
        let failing = || News::Failing("down".to_owned());
        let minute = TOLD_EVERY.as_micros() as u64;
        let story = [
            // Moment, answer, news, where it is then.
            (0, down(), failing(), vec![]),
            (1, down(), News::None, vec![]),
            (2, answer(&[ONE], 1), News::Moved { told: true }, vec![ONE]),
            (3, answer(&[ONE], 1), News::None, vec![ONE]),
            (4, answer(&[ONE, TWO], 1), News::Moved { told: false }, vec![ONE, TWO]),
            (2 + minute, answer(&[TWO], 1), News::Moved { told: true }, vec![TWO]),
            (3 + minute, down(), failing(), vec![TWO]),
            (4 + minute, answer(&[], 1), News::None, vec![TWO]),
            (5 + minute, answer(&[TWO], 1), News::Recovered, vec![TWO]),
            (6 + minute, answer(&[], 1), News::Failing("the answer holds no address".to_owned()), vec![TWO]),
            (7 + minute, answer(&[ONE], 1), News::Moved { told: true }, vec![ONE]),
        ];
        for (at, found, news, known) in story {
            assert_eq!(entry.learn(found, Micros(at), &resolver), news, "{at}");
            let known: Vec<SocketAddr> = known.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(entry.known(), known, "{at}");
        }
        let mut fresh = Entry::default();
        assert_eq!(fresh.learn(answer(&[ONE], 1), Micros(0), &resolver), News::Moved { told: false });
    }
}
