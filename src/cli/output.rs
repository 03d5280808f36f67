//! What a verb prints: text for people or JSON for scripts on standard output, failures on standard error.
//!
//! A serde border file. The JSON is the admin API's own, so that the command line adds no second format.
//!
//! Invariant: a text from outside never reaches a terminal with control characters in it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io::Write;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;

use super::failure::Failure;

/// How a line begins that nobody must overlook.
pub(super) const LOUD: &str = "!! ";

/// How results are printed: for people or for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    // Comments of variants would make clap's help of every verb three times as long.
    Table,
    Json,
}

/// Where and how results are printed.
#[derive(Clone, Copy)]
pub(super) struct Output<'a> {
    /// How.
    pub(super) format: Format,
    /// Lines that begin with [`LOUD`] stand out.
    pub(super) coloured: bool,
    /// Where results go.
    pub(super) out: &'a RefCell<dyn Write>,
    /// Where failures and remarks go.
    pub(super) err: &'a RefCell<dyn Write>,
}

impl Output<'_> {
    /// True if scripts read it.
    pub(super) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints a result: the value as indented JSON, or the text made of it.
    pub(super) fn show<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.say(&text(value)),
            Format::Json => self.print(&encoded(serde_json::to_string_pretty(value))?),
        }
    }

    /// Prints one of many results: the value as one line of JSON, or the text made of it.
    pub(super) fn show_line<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.say(&text(value)),
            Format::Json => self.print(&encoded(serde_json::to_string(value))?),
        }
    }

    /// Prints what only people want: nothing for scripts.
    pub(super) fn say(self, text: &str) -> Result<(), Failure> {
        let text = printable(text);
        match (self.is_json(), self.coloured && text.contains(LOUD)) {
            (true, _) => Ok(()),
            (false, true) => self.print(&loud(&text)),
            (false, false) => self.print(&text),
        }
    }

    /// Tells people something beside the result, on standard error.
    pub(super) fn remark(self, text: &str) {
        if !self.is_json() {
            let _ = writeln!(self.err.borrow_mut(), "teal: {}", printable(text));
        }
    }

    /// Says on standard error why the verb failed.
    pub(super) fn fail(self, failure: &Failure) {
        let text = match (failure, self.format) {
            (Failure::Closed, _) => return,
            (_, Format::Table) => format!("teal: {}", printable(&failure.to_string())),
            (Failure::Problem(problem), Format::Json) => {
                encoded(serde_json::to_string_pretty(problem)).unwrap_or_default()
            }
            (_, Format::Json) => format!("{:#}", local_problem(failure)),
        };
        // Nobody is left to tell if standard error is closed.
        let _ = writeln!(self.err.borrow_mut(), "{text}");
    }

    /// Prints a text with exactly one line break at its end.
    fn print(self, text: &str) -> Result<(), Failure> {
        let mut out = self.out.borrow_mut();
        writeln!(out, "{}", text.trim_end_matches('\n')).and_then(|()| out.flush()).map_err(|_| Failure::Closed)
    }
}

/// A failure that no server answered, in the shape of those it does; there is no status.
fn local_problem(failure: &Failure) -> serde_json::Value {
    let title = "The command did not succeed";
    json!({ "type": "about:blank", "title": title, "detail": failure.to_string(), "code": failure.code() })
}

fn encoded(text: serde_json::Result<String>) -> Result<String, Failure> {
    text.map_err(|error| Failure::Local(format!("the result cannot be written as JSON: {error}")))
}

/// The text with its loud lines in bold red.
fn loud(text: &str) -> String {
    let line = |line: &str| match line.strip_suffix('\n').unwrap_or(line) {
        bare if bare.starts_with(LOUD) => format!("\x1b[1;31m{bare}\x1b[0m{}", &line[bare.len()..]),
        _ => line.to_owned(),
    };
    text.split_inclusive('\n').map(line).collect()
}

/// The text with every control character but line breaks made visible as a replacement character.
fn printable(text: &str) -> Cow<'_, str> {
    let hidden = |character: char| character.is_control() && character != '\n';
    match text.contains(hidden) {
        true => Cow::Owned(text.replace(hidden, "\u{fffd}")),
        false => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(printable("a\x1b[31mb\r\nc\u{9b}"), "a\u{fffd}[31mb\u{fffd}\nc\u{fffd}");
        assert!(matches!(printable("plain\nlines"), Cow::Borrowed(_)));
    }

    #[test]
    fn loud_lines_are_painted_and_no_others() {
        assert_eq!(loud("a\n!! b\nc !! d\n!! e"), "a\n\x1b[1;31m!! b\x1b[0m\nc !! d\n\x1b[1;31m!! e\x1b[0m");
    }

    #[test]
    fn failures_without_a_server_look_like_problems() {
        let failure = Failure::Refused("http://127.0.0.1:9900".to_owned());
        let expected = r#"{
  "code": "unreachable",
  "detail": "cannot reach teal at http://127.0.0.1:9900: is it running?",
  "title": "The command did not succeed",
  "type": "about:blank"
}"#;
        assert_eq!(format!("{:#}", local_problem(&failure)), expected);
    }
}
