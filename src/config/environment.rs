//! `${NAME}` in values, and secrets that live in files of their own.
//!
//! `${NAME}` is replaced from the environment, `${NAME:-default}` falls back when the variable is unset or empty, and
//! `$$` is one dollar sign. A dollar sign before anything else is itself.
//!
//! Invariant: no error here repeats the value of a variable or the content of a file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of a value after replacement, and of a secret's file: far more than any setting, and bounded.
const MAX_VALUE: u64 = 64 * 1024;

/// How a variable is looked up.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces every `${NAME}` in `raw`. The error is a sentence and what to do.
pub(super) fn expand(raw: &str, lookup: Lookup<'_>) -> Result<String, (String, &'static str)> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('$') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            text.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let (inside, after) = after
                .split_once('}')
                .ok_or(("`${` is never closed".to_owned(), "write `${NAME}`, or `$$` for a dollar sign"))?;
            text.push_str(&variable(inside, lookup)?);
            rest = after;
        } else {
            text.push('$');
        }
        if text.len() as u64 > MAX_VALUE {
            return Err(("the value is longer than 64 KiB after replacement".into(), "look at the variables it names"));
        }
    }
    text.push_str(rest);
    Ok(text)
}

fn variable(inside: &str, lookup: Lookup<'_>) -> Result<String, (String, &'static str)> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if inside.contains('$') {
        return Err(("`${` stands inside another `${...}`".to_owned(), "a default cannot hold a variable"));
    }
    let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    if !starts_well || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        let message = "the name in `${...}` is not the name of a variable".to_owned();
        return Err((message, "names hold letters, digits and `_`; write `$$` for a dollar sign"));
    }
    match (lookup(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => {
            let message = format!("the environment variable `{name}` is not set");
            Err((message, "set it, or give a default: `${NAME:-default}`"))
        }
    }
}

/// The trimmed content of a secret's file.
pub(super) fn read_secret(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_VALUE + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("cannot read the secret in `{shown}`: {error}"))?;
    if bytes.len() as u64 > MAX_VALUE {
        return Err(format!("the secret in `{shown}` is larger than 64 KiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("the secret in `{shown}` is not UTF-8 text"))?;
    match text.trim() {
        "" => Err(format!("the file `{shown}` is empty")),
        secret => Ok(secret.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(raw: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "HOST" => Some("h1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        expand(raw, &lookup).map_err(|(message, _)| message)
    }

    #[test]
    fn variables_are_replaced_and_dollars_kept() {
        let table = [
            ("plain", "plain"),
            ("http://${HOST}:80", "http://h1:80"),
            ("${HOST}${HOST}", "h1h1"),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}", "x"),
            ("${NONE:-}", ""),
            ("${NONE:-a:-b}", "a:-b"),
            ("$${HOST}", "${HOST}"),
            ("a$b$", "a$b$"),
            ("$$$$", "$$"),
        ];
        for (raw, text) in table {
            assert_eq!(expanded(raw).as_deref(), Ok(text), "{raw}");
        }
    }

    #[test]
    fn what_cannot_be_replaced_is_named() {
        assert_eq!(expanded("${A:-${HOST}}"), Err("`${` stands inside another `${...}`".into()));
        assert_eq!(expanded("${NONE}"), Err("the environment variable `NONE` is not set".into()));
        assert_eq!(expanded("a${HOST"), Err("`${` is never closed".into()));
        for raw in ["${}", "${1A}", "${A-B}", "${A B}", "${:-x}"] {
            assert!(expanded(raw).is_err(), "{raw}");
        }
        let long = "x".repeat(40_000);
        assert!(expand("${A}${A}", &|_| Some(long.clone())).is_err());
    }

    #[test]
    fn a_secret_is_trimmed_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let cases: [(&[u8], Option<&str>); 5] = [
            (b" abc\n", Some("abc")),
            (b"\n", None),
            (b"\xff", None),
            (&[b'a'; 65_536], Some(&"a".repeat(65_536))),
            (&[b'a'; 65_537], None),
        ];
        for (content, expected) in cases {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read_secret(&path).ok().as_deref(), expected);
        }
        assert!(read_secret(&folder.path().join("absent")).unwrap_err().contains("absent"));
    }
}
