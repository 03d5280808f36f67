//! The decoder's grips: a [`Value`] with its name and place, and a [`Section`] of named fields.
//!
//! A reader takes a value and gives `Some` setting, or reports what is wrong and gives `None`. Readers never stop at
//! the first problem: a field that failed falls back to its default, so that its neighbours are still read and one
//! run finds everything. This is why there is no `Result` here, and why serde, which stops, is not used.
//!
//! Invariant: whoever gets `None` for a key that is present may be sure that a problem was reported.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use super::environment::Lookup;
use super::report::{Problem, Span};
use super::yaml::{Key, Kind, Node};

/// What all readers share.
pub(super) struct Input<'a> {
    pub(super) environment: Lookup<'a>,
    /// Relative paths start here.
    pub(super) folder: &'a Path,
    pub(super) problems: RefCell<Vec<Problem>>,
    /// Certificates and keys that were looked for, found or not.
    pub(super) files: RefCell<Vec<PathBuf>>,
    /// Regular expressions read so far.
    pub(super) patterns: Cell<usize>,
    /// Keys of rate limits that memory is asked for so far.
    pub(super) keys: Cell<usize>,
}

impl Input<'_> {
    pub(super) fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }
}

/// A value of the file.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) input: &'a Input<'a>,
    pub(super) node: &'a Node,
    /// The key it stands under; a list's items carry the list's.
    pub(super) name: &'a str,
    /// Where the key stands; for an item, the item.
    pub(super) at: Span,
}

impl<'a> Value<'a> {
    /// A problem at this value.
    pub(super) fn problem(self, code: &'static str, message: impl Into<String>) -> Problem {
        Problem::new(code, self.node.span, message)
    }

    /// Reports a problem, and has no setting to give.
    pub(super) fn refuse<T>(self, problem: Problem) -> Option<T> {
        self.input.report(problem);
        None
    }

    /// Reports that another kind of value belongs here.
    pub(super) fn wrong_type<T>(self, expected: &str) -> Option<T> {
        let found = match &self.node.kind {
            Kind::Null => "nothing stands here",
            Kind::Scalar(_) => "this is a single value",
            Kind::List(_) => "this is a list",
            Kind::Mapping(_) => "this is a mapping",
            Kind::Refused => return None,
        };
        // A missing value has no width of its own: its key is pointed at.
        let span = if matches!(self.node.kind, Kind::Null) { self.at } else { self.node.span };
        self.refuse(Problem::new("wrong_type", span, format!("`{}` needs {expected}", self.name)).label(found))
    }

    /// Opens a mapping whose keys are known, and reports those that are not. One without a value has no fields.
    pub(super) fn section(self, keys: &'static [&'static str]) -> Option<Section<'a>> {
        if !matches!(self.node.kind, Kind::Null) {
            for member in self.members("a mapping")?.filter(|member| !keys.contains(&member.name)) {
                let problem = Problem::new("unknown_key", member.at, format!("unknown key {}", quoted(member.name)));
                let owner = if self.name.is_empty() { "the file".to_owned() } else { format!("`{}`", self.name) };
                self.input.report(problem.label(format!("not a key of {owner}")).help(meant(member.name, keys)));
            }
        }
        Some(Section { value: self, keys })
    }

    /// The members of a mapping, in order.
    pub(super) fn members(self, expected: &str) -> Option<impl Iterator<Item = Value<'a>> + use<'a>> {
        let Kind::Mapping(entries) = &self.node.kind else {
            return self.wrong_type(expected);
        };
        let input = self.input;
        Some(entries.iter().map(move |(key, node)| Value { input, node, name: &key.text, at: key.span }))
    }

    /// The items of a list.
    pub(super) fn items(self, most: usize, expected: &str) -> Option<impl Iterator<Item = Value<'a>> + use<'a>> {
        let Kind::List(nodes) = &self.node.kind else {
            return self.wrong_type(expected);
        };
        self.at_most(nodes.len(), most)?;
        Some(nodes.iter().map(move |node| Value { node, at: node.span, ..self }))
    }

    /// The items of a list, or the one item that stands in its place; at least one.
    pub(super) fn one_or_more(self, most: usize, expected: &str) -> Option<Vec<Value<'a>>> {
        match &self.node.kind {
            Kind::Scalar(_) => Some(vec![self]),
            Kind::List(nodes) if nodes.is_empty() => {
                let problem = self.problem("out_of_range", format!("`{}` is an empty list", self.name));
                self.refuse(problem.help(format!("`{}` needs {expected}", self.name)))
            }
            _ => Some(self.items(most, expected)?.collect()),
        }
    }

    /// Reports a count past its limit.
    pub(super) fn at_most(self, count: usize, most: usize) -> Option<()> {
        if count <= most {
            return Some(());
        }
        let message = format!("`{}` holds {count} items, at most {most} are accepted", self.name);
        self.refuse(Problem::new("out_of_range", self.at, message))
    }

    /// True for the plain word `word`, which may stand where something longer does.
    pub(super) fn is(self, word: &str) -> bool {
        matches!(&self.node.kind, Kind::Scalar(text) if text == word)
    }

    pub(super) fn is_mapping(self) -> bool {
        matches!(self.node.kind, Kind::Mapping(_))
    }
}

/// A mapping with known keys.
pub(super) struct Section<'a> {
    value: Value<'a>,
    keys: &'static [&'static str],
}

impl<'a> Section<'a> {
    /// The mapping itself.
    pub(super) fn value(&self) -> Value<'a> {
        self.value
    }

    /// The value of a key, if it is there.
    pub(super) fn field(&self, key: &'static str) -> Option<Value<'a>> {
        debug_assert!(self.keys.contains(&key), "`{key}` is read but not listed");
        let Kind::Mapping(entries) = &self.value.node.kind else { return None };
        let (found, node) = entries.iter().find(|(found, _)| found.text == key)?;
        Some(Value { input: self.value.input, node, name: key, at: found.span })
    }

    /// Reads a key that may be left out.
    pub(super) fn read<T>(&self, key: &'static str, reader: impl FnOnce(Value<'a>) -> Option<T>) -> Option<T> {
        reader(self.field(key)?)
    }

    /// The same for those who must know: `None` only if the key is there and wrong.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        reader: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        self.field(key).map_or(Some(None), |value| reader(value).map(Some))
    }

    /// Reads a key that has a default.
    pub(super) fn or<T>(&self, key: &'static str, default: T, reader: impl FnOnce(Value<'a>) -> Option<T>) -> T {
        self.read(key, reader).unwrap_or(default)
    }

    /// Reads a key that must be there.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        help: &str,
        reader: impl FnOnce(Value<'a>) -> Option<T>,
    ) -> Option<T> {
        match self.field(key) {
            Some(value) => reader(value),
            None if self.has_misspelt(key) => None,
            None => {
                let problem = Problem::new("missing_key", self.value.at, format!("the key `{key}` is missing"));
                self.value.refuse(problem.help(help))
            }
        }
    }

    /// A mapping that says nothing: reported, unless an unknown key was, which may be what should have said it.
    pub(super) fn says_nothing<T>(&self, message: &str, help: &str) -> Option<T> {
        let known = |found: &Key| self.keys.contains(&found.text.as_str());
        if let Kind::Mapping(entries) = &self.value.node.kind
            && !entries.iter().all(|(found, _)| known(found))
        {
            return None;
        }
        self.value.refuse(Problem::new("missing_key", self.value.at, message).help(help))
    }

    /// True if an unknown key, which is reported as such, probably is `key`.
    fn has_misspelt(&self, key: &str) -> bool {
        let Kind::Mapping(entries) = &self.value.node.kind else { return false };
        let mut unknown =
            entries.iter().map(|(found, _)| found.text.as_str()).filter(|found| !self.keys.contains(found));
        unknown.any(|found| nearest(found, self.keys) == Some(key))
    }

    /// Exactly one of the keys, where a choice is written as a mapping.
    pub(super) fn only(&self) -> Option<Value<'a>> {
        let mut present = self.keys.iter().filter_map(|key| self.field(key));
        match (present.next(), present.next()) {
            (Some(one), None) => Some(one),
            (first, second) => {
                let at = second.map_or(self.value.at, |value| value.at);
                let found = if first.is_some() { "more than one" } else { "none" };
                let message = format!("`{}` needs exactly one of its keys, {found} is here", self.value.name);
                // With an unknown key alone, that was the problem and is reported.
                let unknown_only =
                    first.is_none() && matches!(&self.value.node.kind, Kind::Mapping(all) if !all.is_empty());
                if unknown_only {
                    return None;
                }
                self.value.refuse(Problem::new("conflict", at, message).help(listed("the keys are", self.keys)))
            }
        }
    }
}

/// A text from the file for use in a message: short, and without control characters.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(LONGEST).is_some() { "..." } else { "" };
    format!("`{shown}{more}`")
}

/// What was probably meant, and everything that is accepted.
pub(super) fn meant(found: &str, accepted: &[&str]) -> String {
    let all = listed("accepted:", accepted);
    match nearest(found, accepted) {
        Some(near) if accepted.len() > 1 => format!("did you mean `{near}`? {all}"),
        Some(near) => format!("did you mean `{near}`?"),
        None => all,
    }
}

fn listed(lead: &str, words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    format!("{lead} {}", words.join(", "))
}

/// The accepted word that a typing error away, if there is one: a third of its letters may differ.
fn nearest<'a>(found: &str, accepted: &[&'a str]) -> Option<&'a str> {
    // Comparing costs the product of the lengths, so a text that cannot be near is not compared.
    let near = accepted.iter().filter(|word| found.len() <= 2 * word.len() + 2);
    let folded = found.to_ascii_lowercase().replace('-', "_");
    let distance = |word: &str| strsim::osa_distance(&folded, word);
    let best = near.map(|word| (distance(word), *word)).min()?;
    (best.0 <= best.1.len().div_ceil(3)).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_meant_and_nonsense_means_nothing() {
        let words = ["endpoints", "hosts", "paths", "head_timeout"];
        let table = [
            ("endpoint", Some("endpoints")),
            ("Hosts", Some("hosts")),
            ("head-timeout", Some("head_timeout")),
            ("pahts", Some("paths")),
            ("weather", None),
            ("", None),
        ];
        for (found, near) in table {
            assert_eq!(nearest(found, &words), near, "{found}");
        }
        assert_eq!(nearest(&"x".repeat(100_000), &words), None);
    }

    #[test]
    fn quoted_text_is_short_and_harmless() {
        assert_eq!(quoted("a\u{1b}[31m"), "`a\\u{1b}[31m`");
        assert_eq!(quoted(&"x".repeat(61)), format!("`{}...`", "x".repeat(60)));
    }
}
