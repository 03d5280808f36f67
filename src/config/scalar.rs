//! Single values: durations, sizes, shares, percentages, counts and words.
//!
//! A unit is always written (`2s`, `64KiB`, `10%`): a bare number leaves the reader to guess, and guessing wrong by a
//! factor of a thousand is how timeouts get lost. Every number has a least and a greatest value, named in the error.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::environment::expand;
use super::report::{Problem, Span};
use super::section::{Value, meant};
use super::yaml::Kind;
use crate::domain::split::Share;

impl Value<'_> {
    /// The text of a single value, with its variables replaced.
    pub(super) fn text(self, expected: &str) -> Option<String> {
        let Kind::Scalar(raw) = &self.node.kind else {
            return self.wrong_type(expected);
        };
        match expand(raw, self.input.environment) {
            Ok(text) if text.trim().is_empty() => {
                let problem = self.problem("bad_value", format!("`{}` is empty", self.name));
                self.refuse(problem.help(format!("it needs {expected}")))
            }
            Ok(text) => Some(text),
            Err((message, help)) => self.refuse(self.problem("environment", message).help(help)),
        }
    }

    /// Reports that the value is not well-formed. The value is not repeated: it may come from the environment.
    fn malformed<T>(self, expected: &str, help: impl Into<String>) -> Option<T> {
        let problem = self.problem("bad_value", format!("`{}` needs {expected}", self.name));
        self.refuse(problem.label("not well-formed").help(help))
    }

    fn within<T: PartialOrd>(self, value: T, range: &RangeInclusive<T>, show: impl Fn(&T) -> String) -> Option<T> {
        if range.contains(&value) {
            return Some(value);
        }
        let side = if value < *range.start() { "too little" } else { "too much" };
        let (least, most) = (show(range.start()), show(range.end()));
        let message = format!("`{}` must be between {least} and {most}", self.name);
        self.refuse(self.problem("out_of_range", message).label(side))
    }

    /// A duration such as `2s`, `500ms`, `1h 30m`.
    pub(super) fn duration(self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let expected = "a duration such as `2s` or `500ms`";
        let text = self.text(expected)?;
        let text = text.trim();
        if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return self.malformed(expected, "a bare number has no unit: write it with `ms`, `s`, `m` or `h`");
        }
        match humantime::parse_duration(text) {
            Ok(duration) => self.within(duration, &range, |limit| humantime::format_duration(*limit).to_string()),
            Err(_) => self.malformed(expected, "the units are `ms`, `s`, `m`, `h` and `days`"),
        }
    }

    /// A size such as `64KiB`.
    pub(super) fn size(self, range: RangeInclusive<usize>) -> Option<usize> {
        let expected = "a size such as `64KiB`";
        let text = self.text(expected)?;
        let text = text.trim();
        if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return self.malformed(expected, "a bare number has no unit: write it with `B`, `KiB` or `MiB`");
        }
        let show = |limit: &usize| bytesize::ByteSize::b(*limit as u64).display().iec().to_string().replace(".0 ", "");
        match text.parse::<bytesize::ByteSize>() {
            Ok(size) => self.within(usize::try_from(size.as_u64()).unwrap_or(usize::MAX), &range, show),
            Err(_) => self.malformed(expected, "the units are `B`, `KiB`, `MiB` (of 1024) and `kB`, `MB` (of 1000)"),
        }
    }

    /// A share of traffic, in hundredths of a percent.
    pub(super) fn share(self) -> Option<Share> {
        self.parsed("a share such as `10%`")
    }

    /// A percentage as a fraction; `range` is in percent.
    pub(super) fn percentage(self, range: RangeInclusive<f64>) -> Option<f64> {
        let expected = "a percentage such as `1%`";
        let text = self.text(expected)?;
        let Some(number) = text.trim().strip_suffix('%').map(str::trim_end).filter(|number| is_decimal(number)) else {
            return self.malformed(expected, "the percent sign is part of it; decimals are fine");
        };
        // Scaled in decimal, so that `0.1%` is the very number that `0.001` is.
        let (percent, fraction) = (number.parse::<f64>().ok()?, format!("{number}e-2").parse::<f64>().ok()?);
        self.within(percent, &range, |limit| format!("{limit}%"))?;
        Some(fraction)
    }

    /// A number with decimals.
    pub(super) fn number(self, range: RangeInclusive<f64>) -> Option<f64> {
        let expected = "a number such as `1.05`";
        let text = self.text(expected)?;
        match text.trim().parse() {
            Ok(number) if is_decimal(text.trim()) => self.within(number, &range, f64::to_string),
            _ => self.malformed(expected, "digits, and a point if needed"),
        }
    }

    /// A whole number.
    pub(super) fn count<T: FromStr + PartialOrd + Display>(self, range: RangeInclusive<T>) -> Option<T> {
        let expected = "a whole number";
        let text = self.text(expected)?;
        let digits = text.trim();
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return self.malformed(expected, "digits only, without a unit or separators");
        }
        match digits.parse() {
            Ok(number) => self.within(number, &range, T::to_string),
            // All digits and yet no number: it is larger than the type, hence than the limit.
            Err(_) => {
                let message = format!("`{}` must be between {} and {}", self.name, range.start(), range.end());
                self.refuse(self.problem("out_of_range", message).label("too much"))
            }
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(self) -> Option<bool> {
        self.choice(&[("true", true), ("false", false)])
    }

    /// One of some words.
    pub(super) fn choice<T: Clone>(self, words: &[(&str, T)]) -> Option<T> {
        let accepted: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let text = self.text(&format!("one of `{}`", accepted.join("`, `")))?;
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, setting)) => Some(setting.clone()),
            None => {
                let message = format!("`{}` does not know this value", self.name);
                self.refuse(self.problem("unknown_value", message).help(meant(&text, &accepted)))
            }
        }
    }

    /// Anything that reads itself from text and explains itself when it cannot.
    pub(super) fn parsed<T: FromStr<Err: Display>>(self, expected: &str) -> Option<T> {
        let text = self.text(expected)?;
        match text.trim().parse() {
            Ok(setting) => Some(setting),
            Err(error) => self.refuse(self.problem("bad_value", format!("`{}`: {error}", self.name))),
        }
    }

    /// A path, relative to the file's folder.
    pub(super) fn path(self, expected: &str) -> Option<PathBuf> {
        let text = self.text(expected)?;
        if text.starts_with('~') {
            return self.malformed(expected, "`~` is a shell's word: write `${HOME}`");
        }
        Some(self.input.folder.join(text))
    }

    /// A name of ours: up to 63 lower-case letters, digits, `-` and `_`. It is checked where it stands as a key.
    pub(super) fn own_name(self) -> Option<String> {
        self.checked_name(self.name, self.at)
    }

    /// The same, standing as a value.
    pub(super) fn name_value(self) -> Option<String> {
        let text = self.text("a name")?;
        self.checked_name(&text, self.node.span)
    }

    fn checked_name(self, name: &str, at: Span) -> Option<String> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        if (1..=63).contains(&name.len()) && name.bytes().all(fits) {
            return Some(name.to_owned());
        }
        let problem = Problem::new("bad_value", at, "this cannot be a name");
        self.refuse(problem.help("a name is 1 to 63 lower-case letters, digits, `-` and `_`"))
    }

    /// The name of a header or cookie: a token of RFC 9110 section 5.6.2, at most 128 long.
    pub(super) fn token(self) -> Option<String> {
        let text = self.text("a name")?;
        self.checked_token(&text, self.node.span)
    }

    /// The same, standing as a key.
    pub(super) fn own_token(self) -> Option<String> {
        self.checked_token(self.name, self.at)
    }

    fn checked_token(self, name: &str, at: Span) -> Option<String> {
        if name.len() <= 128 && is_token(name) {
            return Some(name.to_owned());
        }
        let problem = Problem::new("bad_value", at, "this cannot be the name of a header or cookie");
        self.refuse(problem.help("such a name is 1 to 128 letters, digits and a few signs such as `-` and `_`"))
    }
}

/// A token of RFC 9110 section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

fn is_decimal(text: &str) -> bool {
    let digits = |part: &str| (1..=18).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    digits(whole) && digits(part)
}
