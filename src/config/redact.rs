//! Blanks secrets out of a file's text before any of it is shown.
//!
//! Where there is a tree, the values of keys that look like secrets are blanked, misspelt keys included. A torn file
//! has no tree; there the rest of a line that names a secret goes, and the deeper lines below it.
//!
//! Invariant: the text keeps its length and its lines, so that places stay true.

use super::report::Span;
use super::yaml::{Kind, Node};

/// Blanks the secrets that a tree knows.
pub(super) fn by_tree(text: &str, root: &Node) -> String {
    let mut secrets = Vec::new();
    collect(root, false, &mut secrets);
    let mut bytes = text.as_bytes().to_vec();
    secrets.iter().for_each(|span| blank(&mut bytes, *span));
    as_text(bytes)
}

/// Blanks what looks like a secret in a text that is not YAML.
pub(super) fn by_lines(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut start = 0;
    let mut below: Option<usize> = None;
    for line in text.split_inclusive('\n') {
        let indent = line.len() - line.trim_start().len();
        let end = start + line.len();
        below = below.filter(|owner| indent > *owner || line.trim().is_empty());
        if below.is_some() {
            blank(&mut bytes, Span { start: start + indent, end });
        } else if let Some(colon) = secret_colon(line) {
            blank(&mut bytes, Span { start: start + colon + 1, end });
            below = Some(indent);
        }
        start = end;
    }
    as_text(bytes)
}

/// The colon after the first key of a line that looks like a secret's.
fn secret_colon(line: &str) -> Option<usize> {
    line.match_indices(':').map(|(at, _)| at).find(|at| {
        let key = line[..*at].trim_end_matches(['"', '\'', ' ']);
        is_secret(key.rsplit([' ', '{', ',', '"', '\'', '\t']).next().unwrap_or(key))
    })
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let near = key.len() <= 8 && strsim::osa_distance(&key, "token") <= 2;
    near || ["token", "secret", "passw", "bearer"].iter().any(|word| key.contains(word))
}

fn collect(node: &Node, secret: bool, spans: &mut Vec<Span>) {
    match &node.kind {
        Kind::Scalar(text) if secret && !only_points(text) => spans.push(node.span),
        Kind::List(items) => items.iter().for_each(|item| collect(item, secret, spans)),
        Kind::Mapping(entries) => {
            entries.iter().for_each(|(key, value)| collect(value, secret || is_secret(&key.text), spans));
        }
        _ => {}
    }
}

/// True for `file:PATH` and `${NAME}`, which say where a secret is but not what it is.
fn only_points(text: &str) -> bool {
    let variable = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    text.starts_with("file:") || variable.is_some_and(|name| !name.contains([':', '$', '}']))
}

fn blank(bytes: &mut [u8], span: Span) {
    let end = span.end.min(bytes.len());
    let Some(part) = bytes.get_mut(span.start..end) else { return };
    part.iter_mut().filter(|byte| !matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b'*');
}

/// Spans fall on characters, so blanking leaves UTF-8; were one not to, the damage would only be cosmetic.
fn as_text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
