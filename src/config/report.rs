//! What is wrong with a configuration file: every problem found in one run, each with its place.
//!
//! A problem carries a stable code (see [`CODES`]), so that scripts can tell problems apart without reading
//! sentences. Excerpts come from the file with its secrets blanked out.
//!
//! Invariant: a report holds at least one problem, ordered by place.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::renderer::Renderer;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Snippet};

/// Problems listed in one report. A file of garbage would otherwise print for minutes; nobody reads past this.
const MOST_PROBLEMS: usize = 100;

/// Every problem code and what it means.
pub const CODES: &[(&str, &str)] = &[
    ("bad_value", "The value has the right kind but is not well-formed, such as an address without a port."),
    ("certificate", "A certificate, its key or an authority cannot be read from its file, or cannot be used."),
    ("conflict", "Two settings that are fine alone contradict each other."),
    ("duplicate", "An item is listed twice where each must be unique."),
    ("duplicate_key", "A key stands twice in one mapping; YAML readers differ in which one they take."),
    ("empty", "The file holds no settings."),
    ("environment", "A ${NAME} cannot be replaced from the environment."),
    ("exposed_admin", "The admin API would be open to the network without a token."),
    ("missing_key", "A key without a default is missing."),
    ("no_state_folder", "No folder for state is set and none can be told from the environment."),
    ("out_of_range", "A number, duration, size or count is past its limit."),
    ("plan", "The steps of a rollout do not make a plan."),
    ("secret", "A secret cannot be read from its file, or cannot be used."),
    ("syntax", "The file is not YAML, or uses a part of YAML that is refused."),
    ("too_deep", "Lists and mappings are nested deeper than any legal file."),
    ("too_large", "The file is larger than any legal file."),
    ("unknown_key", "A key has no meaning here; it is refused rather than ignored."),
    ("unknown_pool", "A pool is named that the service does not have."),
    ("unknown_value", "The value is not one of the words accepted here."),
    ("unreadable", "The file cannot be read, or is not UTF-8 text."),
    ("unsupported", "It is understood, but Teal cannot do it."),
    ("wrong_type", "A list, a mapping or a single value stands where another kind belongs."),
];

/// A byte range of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Stable; one of [`CODES`].
    pub code: &'static str,
    /// One sentence, without a full stop.
    pub message: String,
    /// Where, in bytes of the file (without a byte order mark).
    pub span: Span,
    /// A few words beside the caret; may be empty.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The other place of a problem that has two, and its label.
    pub related: Option<(Span, String)>,
}

impl Problem {
    pub(super) fn new(code: &'static str, span: Span, message: impl Into<String>) -> Problem {
        debug_assert!(CODES.iter().any(|(known, _)| *known == code), "undocumented code {code}");
        Problem { code, message: message.into(), span, label: String::new(), help: None, related: None }
    }

    pub(super) fn label(self, label: impl Into<String>) -> Problem {
        Problem { label: label.into(), ..self }
    }

    pub(super) fn help(self, help: impl Into<String>) -> Problem {
        Problem { help: Some(help.into()), ..self }
    }

    pub(super) fn related(self, span: Span, label: impl Into<String>) -> Problem {
        Problem { related: Some((span, label.into())), ..self }
    }
}

/// A problem with its place counted out, for output to machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located<'a> {
    /// The problem itself.
    pub problem: &'a Problem,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// Everything that is wrong with one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    name: String,
    source: String,
    problems: Vec<Problem>,
    omitted: usize,
    files: Vec<PathBuf>,
}

impl std::error::Error for Report {}

impl Report {
    /// `source` must have its secrets blanked out; `problems` must not be empty.
    pub(super) fn new(name: &str, source: String, mut problems: Vec<Problem>) -> Report {
        debug_assert!(!problems.is_empty(), "a report needs a problem");
        problems.sort_by_key(|problem| problem.span.start);
        problems.dedup();
        let omitted = problems.len().saturating_sub(MOST_PROBLEMS);
        problems.truncate(MOST_PROBLEMS);
        // A carriage return would show as a sign of its own; a blank keeps every place where it is.
        Report { name: name.to_owned(), source: source.replace('\r', " "), problems, omitted, files: Vec::new() }
    }

    /// The same, with the files it may be about.
    pub(super) fn beside(self, files: Vec<PathBuf>) -> Report {
        Report { files, ..self }
    }

    /// Certificates and keys that were looked for, found or not: a change of one may end the problem.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The file's name as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The problems in the order of the file, the first 100 of them.
    pub fn problems(&self) -> impl Iterator<Item = Located<'_>> {
        self.problems.iter().map(|problem| {
            let line = self.line_at(problem.span.start);
            let before = &self.source[line.start..self.clamp(problem.span.start)];
            Located { problem, line: self.line_number(line.start), column: before.chars().count() + 1 }
        })
    }

    /// How many problems there are beyond those listed.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// The report as text: each problem with `file:line:column`, an excerpt and a caret.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for problem in &self.problems {
            text += &renderer.render(&[self.group(problem)]);
            text += "\n\n";
        }
        let count = self.problems.len() + self.omitted;
        text += &format!("{}: {count} problem{}", self.name, if count == 1 { "" } else { "s" });
        if self.omitted > 0 {
            text += &format!(", {} of them not shown", self.omitted);
        }
        text + "\n"
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let title = Level::ERROR.primary_title(problem.message.as_str()).id(problem.code);
        let help = problem.help.as_ref().map(|help| Level::HELP.message(help.as_str()));
        if self.source.is_empty() {
            return title.element(Origin::path(self.name.as_str())).elements(help);
        }
        let primary = self.on_one_line(problem.span);
        let related = problem.related.as_ref().map(|(span, label)| (self.on_one_line(*span), label));
        // Only the lines concerned are handed over: the renderer reads all it is given, for every problem.
        let first = related.as_ref().map_or(primary.start, |(span, _)| span.start.min(primary.start));
        let last = related.as_ref().map_or(primary.end, |(span, _)| span.end.max(primary.end));
        let window = self.line_at(first).start..self.line_at(last).end;
        let shift = |span: Range<usize>| span.start - window.start..span.end - window.start;
        let label = (!problem.label.is_empty()).then_some(problem.label.as_str());
        let snippet = Snippet::source(&self.source[window.clone()])
            .line_start(self.line_number(window.start))
            .annotation(AnnotationKind::Primary.span(shift(primary)).label(label))
            .annotations(related.map(|(span, label)| AnnotationKind::Context.span(shift(span)).label(label.as_str())));
        title.element(snippet.path(self.name.as_str())).elements(help)
    }

    /// The part of a span that lies on its first line: a section is pointed at by its beginning.
    fn on_one_line(&self, span: Span) -> Range<usize> {
        let start = self.clamp(span.start);
        let line_end = self.line_at(start).end;
        start..self.clamp(span.end).clamp(start, line_end.max(start))
    }

    /// The line around an offset, without its line break.
    fn line_at(&self, offset: usize) -> Range<usize> {
        let offset = self.clamp(offset);
        let start = self.source[..offset].rfind('\n').map_or(0, |at| at + 1);
        let end = self.source[offset..].find('\n').map_or(self.source.len(), |at| offset + at);
        start..end
    }

    fn line_number(&self, offset: usize) -> usize {
        self.source[..offset].bytes().filter(|byte| *byte == b'\n').count() + 1
    }

    fn clamp(&self, offset: usize) -> usize {
        self.source.floor_char_boundary(offset.min(self.source.len()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}
