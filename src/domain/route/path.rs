//! Readings of a path: what different upstreams may make of one text, and how to decide in spite of that.
//!
//! `/%61dmin`, `//admin`, `/x;v=1/admin`, `/x%2Fadmin`, `/x/../admin`: one upstream finds `/admin` in each of them,
//! another in none. A proxy that decides by its own reading can be walked around; one that rewrites every path to
//! its own taste breaks those who rely on `%2F`. So Teal forwards paths as they were sent, and decides by them
//! only where it does not matter how they are read:
//!
//! - the *strict* reading ([`canonical`]) does what RFC 3986 section 6.2.2 says is no change at all: `%61` is `a`,
//!   `%c3` is `%C3`;
//! - the *loose* reading does everything an upstream might: it decodes all that is visible (but once only), takes `\`
//!   for `/`, cuts parameters from `;`, a decoded query from `?`, and merges empty segments;
//! - [`settle`] decides by both, and where they disagree the path is refused as ambiguous;
//! - a `.` or `..` segment in any spelling, a NUL, a broken `%` and an encoded separator within parameters are always
//!   ambiguous. Browsers and other clients resolve dot segments before they send, so nobody misses them.
//!
//! Decisions that do not look at the path never ask, so a service that holds a whole host takes any path.
//!
//! Invariant: for prefixes and exact paths in the form of [`pattern`], a settled decision is the one that every
//! reading between the strict and the loose one leads to: loosening only ever adds matches.

use std::borrow::Cow;

/// The readings of a path lead to different places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an ambiguous path")]
pub struct AmbiguousPath;

/// Why a text cannot be a path to match by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// It does not begin with `/`.
    #[error("a path begins with `/`")]
    Relative,
    /// It holds what different upstreams read differently.
    #[error(
        "leave out `.` and `..`, `//`, `;`, `\\`, `%2F`, `%3B`, `%3F` and other signs that are encoded for no reason"
    )]
    Odd,
}

/// A path to match by, in the one form that paths are compared in.
///
/// # Errors
/// When it could be read in more than one way, and so would match by luck.
pub fn pattern(text: &str) -> Result<String, InvalidPath> {
    if !text.starts_with('/') {
        return Err(InvalidPath::Relative);
    }
    let strict = canonical(text).into_owned();
    if loose(text).as_ref() == Some(&strict) { Ok(strict) } else { Err(InvalidPath::Odd) }
}

/// True if there is but one way to read the path; the cheap question, asked first.
pub fn is_plain(path: &str) -> bool {
    let mut before = 0;
    path.bytes().all(|byte| {
        let odd = match byte {
            b'%' | b'\\' | b';' | 0x80.. => true,
            b'/' | b'.' => before == b'/',
            _ => false,
        };
        before = byte;
        !odd
    })
}

/// Decides by a path, if all its readings lead to the same decision.
///
/// # Errors
/// When they do not.
pub fn settle<T: PartialEq>(path: &str, decide: impl Fn(&str) -> T) -> Result<T, AmbiguousPath> {
    if is_plain(path) {
        return Ok(decide(path));
    }
    let (strict, loose) = (canonical(path), loose(path).ok_or(AmbiguousPath)?);
    let decision = decide(&strict);
    match strict == loose || decide(&loose) == decision {
        true => Ok(decision),
        false => Err(AmbiguousPath),
    }
}

/// The strict reading: what was encoded without need is decoded, the rest is encoded in one way.
pub fn canonical(path: &str) -> Cow<'_, str> {
    if path.bytes().all(|byte| byte != b'%' && byte.is_ascii()) {
        return Cow::Borrowed(path);
    }
    let mut text = String::with_capacity(path.len());
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    for piece in pieces(path) {
        match piece {
            Piece::Encoded(byte) if unreserved(byte) => text.push(char::from(byte)),
            Piece::Encoded(byte) => encode(byte, &mut text),
            Piece::Plain(byte) if byte.is_ascii() => text.push(char::from(byte)),
            Piece::Plain(byte) => encode(byte, &mut text),
            Piece::Broken => text.push('%'),
        }
    }
    Cow::Owned(text)
}

/// The loose reading; `None` if no two readers would agree on it.
fn loose(path: &str) -> Option<String> {
    let mut text = String::with_capacity(path.len());
    let (mut end, mut in_parameters) = (None, false);
    for piece in pieces(path) {
        in_parameters = match piece {
            Piece::Plain(b'/') => false,
            Piece::Plain(b';') | Piece::Encoded(b';') => true,
            // Cut off with the parameters or read before they are: each leaves something else.
            Piece::Plain(b'\\') | Piece::Encoded(b'/' | b'\\' | b'?' | b'#') if in_parameters => return None,
            _ => in_parameters,
        };
        match piece {
            Piece::Encoded(0) | Piece::Broken => return None,
            Piece::Plain(b'\\') | Piece::Encoded(b'\\') => text.push('/'),
            Piece::Encoded(b'?' | b'#') => {
                // Here a careless reader stops; what follows still counts for those who do not.
                end = end.or(Some(text.len()));
                text.push('?');
            }
            Piece::Encoded(byte) if byte.is_ascii_graphic() && byte != b'%' => text.push(char::from(byte)),
            Piece::Encoded(byte) => encode(byte, &mut text),
            Piece::Plain(byte) if byte.is_ascii() => text.push(char::from(byte)),
            Piece::Plain(byte) => encode(byte, &mut text),
        }
    }
    if text.split('/').any(is_dots) {
        return None;
    }
    let mut merged = String::with_capacity(text.len());
    let mut last = "";
    for segment in text[..end.unwrap_or(text.len())].split('/') {
        last = segment.split(';').next().unwrap_or_default();
        if !last.is_empty() {
            merged.push('/');
            merged.push_str(last);
        }
    }
    if last.is_empty() {
        merged.push('/');
    }
    Some(merged)
}

fn is_dots(segment: &str) -> bool {
    matches!(segment.split([';', '?']).next(), Some("." | ".."))
}

/// A byte of a path, and how it was written.
enum Piece {
    Plain(u8),
    Encoded(u8),
    /// A `%` without two digits after it.
    Broken,
}

fn pieces(path: &str) -> impl Iterator<Item = Piece> {
    let mut rest = path.as_bytes();
    std::iter::from_fn(move || {
        let (piece, used) = match *rest.first()? {
            b'%' => encoded(rest).map_or((Piece::Broken, 1), |byte| (Piece::Encoded(byte), 3)),
            byte => (Piece::Plain(byte), 1),
        };
        rest = &rest[used..];
        Some(piece)
    })
}

/// The byte that `%XX` at the beginning of `text` stands for.
pub(super) fn encoded(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    let byte = 16 * digit(1)? + digit(2)?;
    if text.first() == Some(&b'%') { u8::try_from(byte).ok() } else { None }
}

/// Appends `%XX`.
pub(super) fn encode(byte: u8, text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::route::router::on_segment;

    #[test]
    fn readings() {
        let table = [
            ("/", "/", Some("/")),
            ("/a/b.c", "/a/b.c", Some("/a/b.c")),
            ("/.well-known/x", "/.well-known/x", Some("/.well-known/x")),
            ("/a/", "/a/", Some("/a/")),
            ("//a///b//", "//a///b//", Some("/a/b/")),
            ("/%61%2d%7e", "/a-~", Some("/a-~")),
            ("/%c3%a9/é", "/%C3%A9/%C3%A9", Some("/%C3%A9/%C3%A9")),
            ("/a%20b", "/a%20b", Some("/a%20b")),
            ("/a%2fb%5Cc\\d", "/a%2Fb%5Cc\\d", Some("/a/b/c/d")),
            ("/%40scope", "/%40scope", Some("/@scope")),
            ("/a;v=1/b;c", "/a;v=1/b;c", Some("/a/b")),
            ("/a%3Bv/b", "/a%3Bv/b", Some("/a/b")),
            ("/a/%3fb/c", "/a/%3Fb/c", Some("/a/")),
            ("/%2561", "/%2561", Some("/%2561")),
            ("/..", "/..", None),
            ("/a/./b", "/a/./b", None),
            ("/a/%2e%2E/b", "/a/../b", None),
            ("/a/..;x/b", "/a/..;x/b", None),
            ("/a/..%3Bx/b", "/a/..%3Bx/b", None),
            ("/a%2f..%2fb", "/a%2F..%2Fb", None),
            ("/a\\..\\b", "/a\\..\\b", None),
            ("/a%3f/../b", "/a%3F/../b", None),
            ("/..%3fx", "/..%3Fx", None),
            ("/a;x%3fy", "/a;x%3Fy", None),
            ("/a;x%2fy", "/a;x%2Fy", None),
            ("/a;x\\y", "/a;x\\y", None),
            ("/a%3fx;y", "/a%3Fx;y", Some("/a")),
            ("/a%00", "/a%00", None),
            ("/a%", "/a%", None),
            ("/a%4", "/a%4", None),
            ("/a%zz", "/a%zz", None),
            ("/a%+1", "/a%+1", None),
            ("/...", "/...", Some("/...")),
        ];
        for (path, strict, loosely) in table {
            assert_eq!((canonical(path).as_ref(), loose(path).as_deref()), (strict, loosely), "{path}");
        }
    }

    #[test]
    fn patterns_have_one_reading() {
        for text in ["/", "/api", "/v2/", "/.well-known", "/a%20b", "/~x/@y/a.b,c!"] {
            assert_eq!(pattern(text).as_deref(), Ok(text));
        }
        assert_eq!(pattern("/%7Ex%c3").as_deref(), Ok("/~x%C3"));
        assert_eq!(pattern("api"), Err(InvalidPath::Relative));
        for text in ["//", "/a//b", "/a;b", "/a/../b", "/.", "/a%2Fb", "/a\\b", "/%40a", "/a%", "/%00"] {
            assert_eq!(pattern(text), Err(InvalidPath::Odd), "{text}");
        }
    }

    #[test]
    fn an_odd_path_is_refused_only_where_it_matters() {
        let admin = |path: &str| on_segment(path, "/admin");
        let table = [
            ("/admin/x", Ok(true)),
            ("/public//x%2Fy;z=1", Ok(false)),
            ("/%61dmin", Ok(true)),
            ("/admin/a%2Fb", Ok(true)),
            ("//admin", Err(AmbiguousPath)),
            ("/admin;x", Err(AmbiguousPath)),
            ("/%2fadmin", Err(AmbiguousPath)),
            ("/public/../admin", Err(AmbiguousPath)),
            ("/public/..", Err(AmbiguousPath)),
        ];
        for (path, decision) in table {
            assert_eq!(settle(path, admin), decision, "{path}");
        }
    }

    /// An upstream that reads some of the odd things and not others, as `choices` say.
    fn some_reading(path: &str, choices: u64) -> String {
        let mut turn = 0;
        let mut choose = || {
            turn = (turn + 1) % 64;
            choices >> turn & 1 == 1
        };
        let (splits_query, cuts, merges, resolves) = (choose(), choose(), choose(), choose());
        let mut text = String::new();
        for piece in pieces(&canonical(path)) {
            match piece {
                Piece::Plain(b'\\') if choose() => text.push('/'),
                Piece::Plain(byte) => text.push(char::from(byte)),
                Piece::Encoded(b'?') if splits_query => break,
                Piece::Encoded(byte) if byte.is_ascii_graphic() && byte != b'%' && choose() => {
                    text.push(if byte == b'\\' { '/' } else { char::from(byte) });
                }
                Piece::Encoded(byte) => encode(byte, &mut text),
                Piece::Broken => text.push('%'),
            }
        }
        let cut = |name: &str| if cuts { name.split(';').next().unwrap().to_owned() } else { name.to_owned() };
        let mut names: Vec<String> = Vec::new();
        for name in text.split('/').map(cut) {
            match name.as_str() {
                "." if resolves => {}
                ".." if resolves => drop(names.pop()),
                _ => names.push(name),
            }
        }
        let text = names.join("/");
        if !merges {
            return text;
        }
        let mut merged: String = String::new();
        text.chars().for_each(|c| {
            if c != '/' || !merged.ends_with('/') {
                merged.push(c)
            }
        });
        merged
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn a_settled_decision_holds_for_every_reader(
            tokens in prop::collection::vec(prop::sample::select(vec![
                "/", "/", "/", "a", "b", "ab", "@", "%61", "%40", "%2f", "%5c", "\\", ";", "%3b", "%3F", ".", "%2e",
                "%20", "%25", "%c3", "é", "x",
            ]), 0..14),
            prefixes in prop::collection::vec("(/[ab@]{1,2}){1,3}/?", 1..5),
            exact in "(/[ab@]{1,2}){1,3}/?",
            choices in any::<u64>(),
        ) {
            let path = format!("/{}", tokens.concat());
            let decide = |path: &str| {
                let first = prefixes.iter().position(|prefix| on_segment(path, prefix));
                (path == exact, first)
            };
            if let Ok(decision) = settle(&path, decide) {
                let reading = some_reading(&path, choices);
                prop_assert_eq!(decide(&reading), decision, "{} read as {}", path, reading);
            }
        }

        #[test]
        fn the_cheap_question_is_right(path in "/[a-z/.%;\\\\2fe]{0,12}") {
            if is_plain(&path) {
                prop_assert_eq!(loose(&path), Some(path.clone()));
                prop_assert_eq!(canonical(&path).into_owned(), path);
            }
        }

        #[test]
        fn any_text_can_be_read(path in "\\PC{0,40}") {
            prop_assert!(canonical(&path).bytes().all(|byte| byte.is_ascii()));
            prop_assert!(loose(&path).is_none_or(|text| text.is_ascii()));
        }
    }
}
