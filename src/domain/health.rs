//! Health: what follows from the results of checks, what a good answer looks like, and whether an endpoint is what its
//! pool is for.
//!
//! ```text
//!              first result good                 `unhealthy_after` bad ones in a row
//!   unknown ──────────────────────▶ healthy ────────────────────────────────────────▶ unhealthy
//!      │                               ◀────────────────────────────────────────────      ▲
//!      │                                    `healthy_after` good ones in a row             │
//!      └──────────────────────────── first result bad ─────────────────────────────────────┘
//! ```
//!
//! Invariant: an endpoint changes sides only by the result that completes a streak.

use std::fmt;
use std::ops::RangeInclusive;

use crate::domain::route::Pattern;

/// Where an endpoint stands by its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// Not checked yet.
    Unknown = 0,
    /// It answers.
    Healthy = 1,
    /// It failed its checks; it gets no requests.
    Unhealthy = 2,
}

/// How many results in a row change sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Bad ones that take a healthy endpoint out.
    pub unhealthy_after: u32,
    /// Good ones that bring an unhealthy one back.
    pub healthy_after: u32,
}

/// Results of the same kind in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streak {
    passed: bool,
    length: u32,
}

impl Streak {
    /// The health that follows from one more result.
    pub fn next(&mut self, before: Health, passed: bool, thresholds: Thresholds) -> Health {
        self.length = if self.passed == passed { self.length.saturating_add(1) } else { 1 };
        self.passed = passed;
        match (before, passed) {
            (Health::Unknown, true) => Health::Healthy,
            (Health::Unknown, false) => Health::Unhealthy,
            (Health::Healthy, false) if self.length >= thresholds.unhealthy_after => Health::Unhealthy,
            (Health::Unhealthy, true) if self.length >= thresholds.healthy_after => Health::Healthy,
            (unchanged, _) => unchanged,
        }
    }
}

/// The statuses of good answers: single ones and ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// These ranges; see [`statuses`] for how one is written.
    pub fn new(ranges: Vec<RangeInclusive<u16>>) -> Statuses {
        Statuses(ranges)
    }

    /// True if `status` is one of them.
    pub fn contain(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for Statuses {
    fn default() -> Statuses {
        Statuses(vec![200..=299])
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            match (range.start(), range.end()) {
                (one, other) if one == other => write!(f, "{comma}{one}")?,
                (first, last) => write!(f, "{comma}{first} to {last}")?,
            }
        }
        Ok(())
    }
}

/// Reads `204` or `300-399`.
pub fn statuses(text: &str) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        // An interim status is never the answer.
        text.parse::<u16>().ok().filter(|status| digits && (200..=599).contains(status))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = status(first.trim())?..=status(last.trim())?;
    (range.start() <= range.end()).then_some(range)
}

/// What the body of a good answer has in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyTest {
    /// This text, somewhere.
    Contains(String),
    /// Something that this expression matches; made to match the whole body.
    Matches(Pattern),
}

impl BodyTest {
    /// True if it is there.
    pub fn passes(&self, body: &[u8]) -> bool {
        match self {
            BodyTest::Contains(text) => body.windows(text.len().max(1)).any(|window| window == text.as_bytes()),
            BodyTest::Matches(pattern) => pattern.matches(body),
        }
    }
}

/// Where an endpoint says what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionSource {
    /// In this header field of its answer; lower case.
    Header(String),
    /// At this JSON pointer (RFC 6901) into its answer's body.
    Json(String),
}

impl fmt::Display for VersionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VersionSource::Header(name) => write!(f, "its answer has no `{name}`"),
            VersionSource::Json(pointer) => write!(f, "its answer has nothing at `{pointer}`"),
        }
    }
}

/// A JSON pointer is empty (the whole document) or begins with `/`; `~` stands before `0` or `1` only (RFC 6901
/// section 3).
pub fn is_json_pointer(text: &str) -> bool {
    let escapes = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    (text.is_empty() || text.starts_with('/')) && text.len() <= 256 && escapes
}

/// Characters of a reported version that are shown.
const SHOWN: usize = 128;

/// Whether what an endpoint reports is what its pool is for.
///
/// # Errors
/// Says what it reports instead.
pub fn is_expected(expected: &str, reported: Result<&str, &str>) -> Result<(), String> {
    match reported {
        Ok(reported) if reported == expected => Ok(()),
        Ok(reported) => {
            // A stranger wrote it: short, and nothing that a terminal would act on.
            let shown: String = reported.chars().take(SHOWN).flat_map(char::escape_debug).collect();
            Err(format!("reports {shown}, pool is {expected}"))
        }
        Err(missing) => Err(format!("reports no version ({missing}), pool is {expected}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const THREE_AND_TWO: Thresholds = Thresholds { unhealthy_after: 3, healthy_after: 2 };

    #[test]
    fn the_first_result_decides_and_then_it_takes_several_in_a_row() {
        let mut streak = Streak::default();
        let mut now = Health::Unknown;
        let mut feed = |passed: bool| {
            now = streak.next(now, passed, THREE_AND_TWO);
            now == Health::Healthy
        };
        let results = [true, false, false, true, false, false, false, true, false, true, true];
        let expected = [true, true, true, true, true, true, false, false, false, false, true];
        assert_eq!(results.map(&mut feed), expected);
    }

    #[test]
    fn every_state_moves_by_its_table() {
        use Health::{Healthy, Unhealthy, Unknown};
        let table = [
            // before, results of that kind so far, the result -> after
            (Unknown, 0, true, Healthy),
            (Unknown, 0, false, Unhealthy),
            (Healthy, 9, true, Healthy),
            (Healthy, 1, false, Healthy),
            (Healthy, 2, false, Unhealthy),
            (Unhealthy, 9, false, Unhealthy),
            (Unhealthy, 0, true, Unhealthy),
            (Unhealthy, 1, true, Healthy),
        ];
        for (before, length, passed, after) in table {
            let mut streak = Streak { passed, length };
            assert_eq!(streak.next(before, passed, THREE_AND_TWO), after, "{before:?} {length} {passed}");
            let mut turned = Streak { passed: !passed, length };
            turned.next(before, passed, THREE_AND_TWO);
            assert_eq!(turned, Streak { passed, length: 1 });
        }
    }

    #[test]
    fn statuses_are_single_ones_and_ranges() {
        let table = [("200", Some(200..=200)), ("300-399", Some(300..=399)), ("200 - 204", Some(200..=204))];
        for (text, range) in table {
            assert_eq!(statuses(text), range, "{text}");
        }
        for text in ["", "20", "2000", "100", "600", "-200", "200-", "399-300", "2xx", "+20", "200-300-400"] {
            assert_eq!(statuses(text), None, "{text}");
        }
        let some = Statuses::new(vec![200..=200, 300..=399]);
        let found = [200, 201, 299, 300, 399, 400].map(|status| some.contain(status));
        assert_eq!(found, [true, false, false, true, true, false]);
        assert_eq!(some.to_string(), "200, 300 to 399");
        assert_eq!(Statuses::default().to_string(), "200 to 299");
    }

    #[test]
    fn a_body_holds_what_it_should() {
        let holds = |text: &str, body: &[u8]| BodyTest::Contains(text.to_owned()).passes(body);
        assert!(holds("ok", b"all ok here") && holds("ok", b"ok") && !holds("ok", b"o k") && !holds("ok", b""));
        let matches = BodyTest::Matches("(?s:.*)(?:v[0-9]+)(?s:.*)".parse().unwrap());
        assert!(matches.passes(b"line\nv12\n\xff") && !matches.passes(b"v"));
    }

    #[test]
    fn a_version_is_expected_or_says_what_it_is() {
        let table = [
            (Ok("2.1"), Ok(())),
            (Ok("2.0"), Err("reports 2.0, pool is 2.1")),
            (Ok(""), Err("reports , pool is 2.1")),
            (Ok("\u{1b}[31m"), Err("reports \\u{1b}[31m, pool is 2.1")),
            (
                Err("its answer has no `x-version`"),
                Err("reports no version (its answer has no `x-version`), pool is 2.1"),
            ),
        ];
        for (reported, expected) in table {
            assert_eq!(is_expected("2.1", reported), expected.map_err(str::to_owned));
        }
        let long = is_expected("2", Ok(&"x".repeat(100_000))).unwrap_err();
        assert!(long.len() < 200, "{}", long.len());
    }

    #[test]
    fn pointers_are_those_of_rfc_6901() {
        let good = ["", "/", "/a", "/a/b/0", "/a~1b", "/m~0n", "//"];
        assert!(good.into_iter().all(is_json_pointer));
        let bad = ["a", "a/b", "/a~", "/a~2", "#/a", " /a"];
        assert!(!bad.into_iter().any(is_json_pointer));
    }

    proptest! {
        #[test]
        fn health_never_changes_against_the_result(results in prop::collection::vec(any::<bool>(), 0..60), after in 1..5_u32) {
            let thresholds = Thresholds { unhealthy_after: after, healthy_after: after };
            let (mut streak, mut now) = (Streak::default(), Health::Unknown);
            for passed in results {
                let next = streak.next(now, passed, thresholds);
                prop_assert!(next == now || (next == Health::Healthy) == passed);
                now = next;
            }
        }
    }
}
