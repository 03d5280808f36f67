//! Configuration: a YAML file becomes valid runtime settings, or a list of errors with their places.
//!
//! Text (`yaml`) becomes a tree with places; grips on it (`section`, `scalar`) serve flat readers (`file`, `service`,
//! `routes`, `overrides`, `rollout`, ...), each of which goes on after a problem; all problems together make a [`Report`].
//!
//! Invariant: settings come from here only if nothing at all was wrong.

mod address;
mod balance;
mod breaker;
mod conditions;
mod edge;
mod edits;
mod ejection;
mod environment;
mod file;
mod health;
mod intake;
mod limits;
mod listener;
mod overrides;
mod redact;
mod report;
mod retry;
mod rollout;
mod routes;
mod scalar;
mod section;
mod service;
pub mod settings;
mod targets;
#[cfg(test)]
mod tests;
pub mod tls;
mod upstream;
mod yaml;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use address::InvalidAddress;
pub use report::{CODES, Located, Problem, Report, Span};
use section::Input;
use settings::Settings;

/// Bytes of a file. A thousand services fit; a log or a disk image given by mistake is not read to its end.
pub const MAX_FILE: u64 = 1024 * 1024;

/// Reads the file at `path`. Variables are looked up in `environment`; relative paths start at the file's folder.
///
/// # Errors
/// With everything that is wrong with the file, in the order of the file.
pub fn load(path: &Path, environment: &dyn Fn(&str) -> Option<String>) -> Result<Settings, Report> {
    let name = path.display().to_string();
    let whole =
        |code, message: String| Report::new(&name, String::new(), vec![Problem::new(code, Span::default(), message)]);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| whole("unreadable", format!("the file cannot be read: {error}")))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(whole("too_large", "the file is larger than 1 MiB".to_owned()));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        whole("unreadable", format!("the file is not UTF-8 text: line {line} holds a byte that cannot be"))
    })?;
    parse(&name, &text, environment, path.parent().unwrap_or(Path::new("")))
}

/// Reads a configuration's text. `name` stands for the file in reports; relative paths start at `folder`.
///
/// # Errors
/// As [`load`].
pub fn parse(
    name: &str,
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    folder: &Path,
) -> Result<Settings, Report> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let input = Input {
        environment,
        folder,
        problems: RefCell::default(),
        files: RefCell::default(),
        patterns: Cell::default(),
        keys: Cell::default(),
    };
    if let Some(problem) = not_text(text) {
        return Err(Report::new(name, redact::by_lines(text), vec![problem]));
    }
    let Some(root) = yaml::parse(text, &mut input.problems.borrow_mut()) else {
        return Err(Report::new(name, redact::by_lines(text), input.problems.take()));
    };
    let settings = file::settings(&input, &root);
    match (settings, input.problems.into_inner()) {
        (Some(settings), problems) if problems.is_empty() => Ok(settings),
        (_, problems) => {
            Err(Report::new(name, redact::by_tree(text, &root), problems).beside(input.files.into_inner()))
        }
    }
}

/// Refuses what no editor shows: the YAML parser would take a NUL for the end and drop the rest in silence.
fn not_text(text: &str) -> Option<Problem> {
    if text.len() as u64 > MAX_FILE {
        return Some(Problem::new("too_large", Span::default(), "the file is larger than 1 MiB"));
    }
    // Lone carriage returns are line breaks to YAML and nothing to most editors.
    let hidden = |at: usize, character: char| match character {
        '\t' | '\n' => false,
        '\r' => !text[at + 1..].starts_with('\n'),
        _ => character.is_control(),
    };
    let (at, character) = text.char_indices().find(|(at, character)| hidden(*at, *character))?;
    let span = Span { start: at, end: at + character.len_utf8() };
    Some(Problem::new("syntax", span, format!("the control character U+{:04X} stands here", u32::from(character))))
}
