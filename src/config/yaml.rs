//! YAML text becomes a tree in which every key and value knows its place.
//!
//! The grammar is `saphyr-parser`'s. Its own tree is not used, because it stops at the first duplicate key, and
//! because aliases can make a small file a huge tree. Refused here: duplicate keys, anchors and aliases, tags,
//! more than one document, keys that are not text, and nesting past [`MAX_DEPTH`].
//!
//! Invariant: the tree is never deeper than [`MAX_DEPTH`], so that walking it by recursion is safe.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::report::{Problem, Span};
use super::section::quoted;

/// Levels of lists and mappings; the deepest legal file needs eight.
pub(super) const MAX_DEPTH: usize = 32;

/// A value and its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) span: Span,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Kind {
    /// Nothing, `~` or `null`.
    Null,
    /// Text, as yet of no type.
    Scalar(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping in the order of the file, without duplicates.
    Mapping(Vec<(Key, Node)>),
    /// An alias: already reported, so that readers pass over it in silence.
    Refused,
}

/// A mapping's key and its place.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) span: Span,
}

/// Reads `text`, which has no byte order mark. What is wrong goes to `problems`; without a tree, at least one does.
pub(super) fn parse(text: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    let places = Places::new(text);
    let mut builder = Builder { problems, open: Vec::new(), root: None };
    for event in Parser::new_from_str(text) {
        let step = match event {
            Ok((event, span)) => {
                let span = Span { start: places.byte(&span.start), end: places.byte(&span.end) };
                builder.take(event, span)
            }
            Err(error) => builder.end_with(not_yaml(error.info(), text, places.byte(error.marker()))),
        };
        step?;
    }
    match builder.root {
        Some(Node { kind: Kind::Null, .. }) | None => {
            let help = "the shortest legal file is in config/minimal.yaml";
            builder.problems.push(Problem::new("empty", Span::default(), "the file holds no settings").help(help));
            None
        }
        root => root,
    }
}

/// The parser's own words, but for the commonest slip, where they are puzzling.
fn not_yaml(info: &str, text: &str, at: usize) -> Problem {
    let line = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let indent = text[line..].len() - text[line..].trim_start_matches([' ', '\t']).len();
    let (at, message) = match text[line..line + indent].find('\t') {
        Some(tab) => (line + tab, "YAML is indented by spaces, never by tabs".to_owned()),
        None => (at, format!("this is not YAML: {info}")),
    };
    let problem = Problem::new("syntax", Span { start: at, end: at + 1 }, message);
    match text[line..at].ends_with("${") || text[line..at].ends_with('$') {
        true => problem.help("inside `{ }` and `[ ]` a value with `${NAME}` needs quotes"),
        false => problem,
    }
}

/// A list or mapping whose end is still to come.
struct Open {
    span: Span,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    Mapping { entries: Vec<(Key, Node)>, seen: HashMap<String, Span>, key: PendingKey },
}

/// What is known of the key whose value comes next.
enum PendingKey {
    /// A key is due.
    Due,
    /// This is it.
    Read(Key),
    /// It was refused; its value is dropped.
    Refused,
}

struct Builder<'p> {
    problems: &'p mut Vec<Problem>,
    open: Vec<Open>,
    root: Option<Node>,
}

impl Builder<'_> {
    /// Takes one event; `None` ends the reading.
    fn take(&mut self, event: Event<'_>, span: Span) -> Option<()> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(anchor, tag, span);
                let null = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let kind = if null { Kind::Null } else { Kind::Scalar(text.into_owned()) };
                self.place(Node { kind, span });
            }
            Event::Alias(_) => {
                self.problems.push(no_anchors(span));
                self.place(Node { kind: Kind::Refused, span });
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(anchor, tag, span);
                self.descend(Open { span, items: Items::List(Vec::new()) })?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(anchor, tag, span);
                let items = Items::Mapping { entries: Vec::new(), seen: HashMap::new(), key: PendingKey::Due };
                self.descend(Open { span, items })?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.ascend(span),
            Event::DocumentStart(_) if self.root.is_some() => {
                let message = "a second document begins here; a configuration is one document";
                return self
                    .end_with(Problem::new("syntax", span, message).help("remove the `---` and what follows it"));
            }
            _ => {}
        }
        Some(())
    }

    fn end_with(&mut self, problem: Problem) -> Option<()> {
        self.problems.push(problem);
        None
    }

    fn descend(&mut self, open: Open) -> Option<()> {
        if self.open.len() == MAX_DEPTH {
            let message = format!("lists and mappings are nested more than {MAX_DEPTH} deep");
            return self.end_with(Problem::new("too_deep", open.span, message));
        }
        self.open.push(open);
        Some(())
    }

    fn ascend(&mut self, end: Span) {
        // The parser balances beginnings and ends.
        let Some(Open { span, items }) = self.open.pop() else { return };
        let span = Span { start: span.start, end: end.end.max(span.end) };
        let kind = match items {
            Items::List(items) => Kind::List(items),
            Items::Mapping { entries, .. } => Kind::Mapping(entries),
        };
        self.place(Node { kind, span });
    }

    /// Puts a finished node where it belongs: under the pending key, into the list, or at the root.
    fn place(&mut self, node: Node) {
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::List(items)) => items.push(node),
            Some(Items::Mapping { entries, seen, key }) => match std::mem::replace(key, PendingKey::Due) {
                PendingKey::Due => *key = accept_key(node, seen, self.problems),
                PendingKey::Read(key) => entries.push((key, node)),
                PendingKey::Refused => {}
            },
        }
    }

    fn refuse_extras(&mut self, anchor: usize, tag: Option<Cow<'_, Tag>>, span: Span) {
        if anchor > 0 {
            self.problems.push(no_anchors(span));
        }
        if tag.is_some() {
            self.problems
                .push(Problem::new("syntax", span, "tags (`!name`) are not used in this file").help("remove the tag"));
        }
    }
}

fn accept_key(node: Node, seen: &mut HashMap<String, Span>, problems: &mut Vec<Problem>) -> PendingKey {
    let text = match node.kind {
        Kind::Scalar(text) => text,
        Kind::Refused => return PendingKey::Refused,
        _ => {
            problems.push(Problem::new("wrong_type", node.span, "a key must be a plain word"));
            return PendingKey::Refused;
        }
    };
    if let Some(first) = seen.get(&text) {
        let message = format!("the key {} stands here twice", quoted(&text));
        problems
            .push(Problem::new("duplicate_key", node.span, message).label("again here").related(*first, "first here"));
        return PendingKey::Refused;
    }
    seen.insert(text.clone(), node.span);
    PendingKey::Read(Key { text, span: node.span })
}

fn no_anchors(span: Span) -> Problem {
    Problem::new("syntax", span, "anchors (`&name`) and aliases (`*name`) are not used in this file")
        .help("write the value out; text that begins with `&` or `*` needs quotes")
}

/// From the parser's places to bytes.
///
/// Lines and columns are followed rather than the parser's running index, so that a miscount cannot outlive its line.
struct Places {
    /// The byte offset of each character, and of the end.
    offsets: Vec<usize>,
    /// The number of each line's first character.
    lines: Vec<usize>,
}

impl Places {
    fn new(text: &str) -> Places {
        let after_breaks =
            text.chars().enumerate().filter(|(_, character)| *character == '\n').map(|(index, _)| index + 1);
        let lines = [0].into_iter().chain(after_breaks).collect();
        Places { offsets: text.char_indices().map(|(at, _)| at).chain([text.len()]).collect(), lines }
    }

    fn byte(&self, marker: &Marker) -> usize {
        let end = self.offsets.len() - 1;
        let first = self.lines.get(marker.line().saturating_sub(1)).copied().unwrap_or(end);
        self.offsets[(first + marker.col()).min(end)]
    }
}
