//! Rust source as the house rules see it: code told apart from comments, text and what only tests compile.
//!
//! A scanner, not a parser: it knows strings, raw strings, characters, lifetimes and nested comments, and trusts the
//! compiler for everything else.
//!
//! Invariant: `code` has the length and the lines of `text`, so that an offset means the same in both.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

/// One file.
pub(crate) struct Source {
    /// From the top of the tree, with `/`.
    pub(crate) path: String,
    /// As it is on disk.
    pub(crate) text: String,
    /// `text` with comments and the insides of strings and characters blanked.
    pub(crate) code: String,
    /// The strings: where each begins, and what is in it.
    pub(crate) strings: Vec<(usize, String)>,
    /// A file of tests as a whole.
    pub(crate) is_test: bool,
    test_items: Vec<Range<usize>>,
}

/// Something that breaks a rule, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Breach {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) rule: &'static str,
    pub(crate) detail: String,
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.detail)
    }
}

/// The folder of the manifest.
pub(crate) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file under `src`, `tests` and `benches`.
pub(crate) fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    for folder in ["src", "tests", "benches"] {
        collect(&top().join(folder), folder, &mut files);
    }
    mark_test_files(&mut files);
    assert!(files.len() > 100, "only {} files found: the scan itself is broken", files.len());
    files
}

fn collect(folder: &Path, named: &str, files: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<_> = entries.map(|entry| entry.expect("the folder is readable").path()).collect();
    entries.sort();
    for path in entries {
        let name = format!("{named}/{}", path.file_name().expect("an entry has a name").to_string_lossy());
        if path.is_dir() {
            collect(&path, &name, files);
        } else if name.ends_with(".rs") {
            files.push(Source::new(&name, &fs::read_to_string(&path).expect("the file is text")));
        }
    }
}

/// Finds the files behind `#[cfg(test)] mod name;`.
pub(crate) fn mark_test_files(files: &mut [Source]) {
    let mut roots = BTreeSet::new();
    for file in files.iter() {
        for item in &file.test_items {
            let item = &file.code[item.clone()];
            let Some(declared) = item.trim_end().strip_suffix(';') else { continue };
            if let Some((_, name)) = declared.rsplit_once("mod ") {
                roots.insert(format!("{}/{}", file.folder_of_children(), name.trim()));
            }
        }
    }
    for file in files {
        let stem = file.path.trim_end_matches(".rs");
        file.is_test |= roots.iter().any(|root| stem == root || stem.starts_with(&format!("{root}/")));
    }
}

impl Source {
    /// A file by its path and text.
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let (code, strings) = mask(text);
        let test_items = test_items(&code);
        let is_test = path.starts_with("tests/");
        Source { path: path.to_owned(), text: text.to_owned(), code, strings, is_test, test_items }
    }

    /// Where a module declared here has its file.
    fn folder_of_children(&self) -> String {
        let stem = self.path.trim_end_matches(".rs");
        let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        if matches!(name, "mod" | "lib" | "main") { folder.to_owned() } else { stem.to_owned() }
    }

    /// `control` for `src/control/judge.rs`, `clock` for `src/clock.rs`; nothing outside `src`.
    pub(crate) fn top_module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs"))
    }

    /// How many modules deep the file is: 1 for `src/clock.rs` and `src/proxy/mod.rs`.
    pub(crate) fn depth(&self) -> usize {
        let folder = self.folder_of_children();
        folder.split('/').count() - 1
    }

    /// True if what stands there is compiled for tests only.
    pub(crate) fn is_test_at(&self, at: usize) -> bool {
        self.is_test || self.test_items.iter().any(|item| item.contains(&at))
    }

    /// The line of an offset, from 1.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    /// A breach at an offset.
    pub(crate) fn breach(&self, at: usize, rule: &'static str, detail: impl Into<String>) -> Breach {
        Breach { path: self.path.clone(), line: self.line(at), rule, detail: detail.into() }
    }

    /// Where `word` stands in the code as a whole word (`.elapsed()` and `a::b` are words, too).
    pub(crate) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        let bytes = self.code.as_bytes();
        let apart = |byte: Option<&u8>, edge: u8| !is_name(edge) || !byte.is_some_and(|byte| is_name(*byte));
        let (first, last) = (word.as_bytes()[0], word.as_bytes()[word.len() - 1]);
        self.code.match_indices(word).map(|(at, _)| at).filter(move |at| {
            let before = at.checked_sub(1).and_then(|at| bytes.get(at));
            apart(before, first) && apart(bytes.get(at + word.len()), last)
        })
    }

    /// Every function with a body: its name, where it begins and how many lines it has.
    pub(crate) fn functions(&self) -> Vec<(String, usize, usize)> {
        let function = |at: usize| {
            let name: String = self.code[at + 2..].trim_start().chars().take_while(|c| is_name_char(*c)).collect();
            let end = end_of_item(&self.code, at);
            let has_body = !name.is_empty() && self.code[..end].ends_with('}');
            has_body.then(|| (name, at, self.line(end - 1) - self.line(at) + 1))
        };
        self.words("fn").filter_map(function).collect()
    }
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// One past the end of the item that begins at `at`: past its body's `}`, or past its `;`.
fn end_of_item(code: &str, at: usize) -> usize {
    let (mut round, mut curly) = (0_i32, 0_i32);
    for (offset, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round -= 1,
            b'{' => curly += 1,
            b'}' => {
                curly -= 1;
                if curly <= 0 {
                    return offset + 1;
                }
            }
            b';' if round == 0 && curly == 0 => return offset + 1,
            _ => {}
        }
    }
    code.len()
}

/// The items under `#[cfg(test)]`.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let attribute = "#[cfg(test)]";
    code.match_indices(attribute).map(|(at, _)| at..end_of_item(code, at + attribute.len())).collect()
}

/// Blanks comments and the insides of strings and characters; gives the strings as well.
fn mask(text: &str) -> (String, Vec<(usize, String)>) {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut strings = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let (blank, next) = if rest.starts_with("//") {
            let end = at + rest.find('\n').unwrap_or(rest.len());
            (at..end, end)
        } else if rest.starts_with("/*") {
            let end = at + comment(rest);
            (at..end, end)
        } else if let Some(open) = string_opening(text, at) {
            let (inside, end) = string(text, at + open, &rest[..open]);
            strings.push((at, text[inside.clone()].to_owned()));
            (inside, end)
        } else if let Some(length) = character(rest) {
            (at + 1..at + length - 1, at + length)
        } else {
            let next = at + rest.chars().next().map_or(1, char::len_utf8);
            (at..at, next)
        };
        code[blank].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        at = next;
    }
    (String::from_utf8(code).expect("whole characters are blanked"), strings)
}

/// The length of a nested comment.
fn comment(text: &str) -> usize {
    let mut depth = 0_u32;
    let mut at = 0;
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a string's opening (`"`, `b"`, `c"`, `r#"`, ...), if one begins at `at`.
fn string_opening(text: &str, at: usize) -> Option<usize> {
    let (bytes, rest) = (text.as_bytes(), &text[at..]);
    if at > 0 && is_name(bytes[at - 1]) {
        return None;
    }
    let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
    let hashes = rest[letters..].bytes().take_while(|byte| *byte == b'#').count();
    let known = matches!((&rest[..letters], hashes), ("" | "b" | "c", 0) | ("r" | "br" | "cr", _));
    (known && rest[letters + hashes..].starts_with('"')).then_some(letters + hashes + 1)
}

/// The inside of a string whose opening was read, and where it ends.
fn string(text: &str, from: usize, opening: &str) -> (Range<usize>, usize) {
    if opening.contains('r') {
        let close = format!("\"{}", "#".repeat(opening.matches('#').count()));
        let end = text[from..].find(&close).map_or(text.len(), |end| from + end);
        return (from..end, (end + close.len()).min(text.len()));
    }
    let mut escaped = false;
    for (offset, byte) in text.bytes().enumerate().skip(from) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return (from..offset, offset + 1),
            _ => {}
        }
    }
    (from..text.len(), text.len())
}

/// The length of a character literal; a lifetime is none.
fn character(rest: &str) -> Option<usize> {
    let inside = rest.strip_prefix('\'')?;
    if inside.starts_with('\\') {
        // The escaped character itself may be a quote.
        return inside[2..].find('\'').map(|end| end + 4);
    }
    let first = inside.chars().next()?;
    inside[first.len_utf8()..].starts_with('\'').then(|| first.len_utf8() + 2)
}
