//! A second opinion: readers of messages that are as simple as possible and share nothing with Teal's own.
//!
//! They know only the canonical form that Teal itself is to write, and the chunked coding as RFC 9112 draws it.
//!
//! Invariant: what they take has one reading.

#![allow(dead_code, reason = "every target uses its part")]

/// A message read whole.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Request or status line.
    pub line: &'a str,
    /// Name in lower case, and value.
    pub fields: Vec<(String, &'a [u8])>,
    /// Its body, decoded.
    pub body: Vec<u8>,
    /// It came in chunks.
    pub is_chunked: bool,
    /// Bytes of all of it.
    pub length: usize,
}

impl Message<'_> {
    /// The values of a field.
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        self.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| *value).collect()
    }
}

/// What is at the front of `bytes`.
#[derive(Debug)]
pub enum Read<'a> {
    /// A message.
    Whole(Message<'a>),
    /// The beginning of one.
    Part,
    /// Nothing that Teal may ever write.
    Wrong(String),
}

/// How the body of a message without a length ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Otherwise {
    /// There is none.
    Empty,
    /// With the stream.
    Close,
}

/// Reads one message in canonical form.
pub fn message(bytes: &[u8], otherwise: Otherwise) -> Read<'_> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        return if bytes.contains(&0) { Read::Wrong("a NUL".into()) } else { Read::Part };
    };
    let head = &bytes[..end];
    let mut lines = Vec::new();
    for line in split(head, b"\r\n") {
        if line.iter().any(|byte| matches!(byte, 0..=8 | 10..=31 | 127)) {
            return Read::Wrong(format!("a control character in {:?}", line.escape_ascii().to_string()));
        }
        lines.push(line);
    }
    let Ok(line) = std::str::from_utf8(lines[0]) else { return Read::Wrong("the first line is no text".into()) };
    let mut fields = Vec::new();
    for field in &lines[1..] {
        let Some(colon) = field.iter().position(|byte| *byte == b':') else {
            return Read::Wrong("a field without a colon".into());
        };
        let (name, value) = (&field[..colon], &field[colon + 1..]);
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || !name.iter().all(is_token) || !value.starts_with(b" ") {
            return Read::Wrong(format!("the field {:?}", field.escape_ascii().to_string()));
        }
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        fields.push((name, value[1..].trim_ascii()));
    }
    let mut message = Message { line, fields, body: Vec::new(), is_chunked: false, length: end + 4 };
    let rest = &bytes[end + 4..];
    let (lengths, codings) = (message.values("content-length"), message.values("transfer-encoding"));
    let framed = match (&lengths[..], &codings[..]) {
        ([], []) if otherwise == Otherwise::Close => Some((rest.to_vec(), rest.len())),
        ([], []) => Some((Vec::new(), 0)),
        ([], [coding]) if *coding == b"chunked" => match chunked(rest) {
            Chunked::Whole { data, length, .. } => {
                message.is_chunked = true;
                Some((data, length))
            }
            Chunked::Part => None,
            Chunked::Wrong => return Read::Wrong("its chunks".into()),
        },
        ([length], []) => match std::str::from_utf8(length).ok().and_then(|length| length.parse::<usize>().ok()) {
            Some(length) if rest.len() >= length => Some((rest[..length].to_vec(), length)),
            Some(_) => None,
            None => return Read::Wrong("its length".into()),
        },
        _ => return Read::Wrong(format!("its framing: {lengths:?} {codings:?}")),
    };
    match framed {
        Some((body, length)) => {
            message.body = body;
            message.length += length;
            Read::Whole(message)
        }
        None => Read::Part,
    }
}

/// What is at the front of a body in chunks.
#[derive(Debug, PartialEq, Eq)]
pub enum Chunked {
    /// All of it.
    Whole {
        /// The data.
        data: Vec<u8>,
        /// The trailer section with its empty line; empty if there is none.
        trailers: Vec<u8>,
        /// Bytes of all of it.
        length: usize,
    },
    /// The beginning.
    Part,
    /// Something else.
    Wrong,
}

/// Decodes a body in chunks: line by line, each of them ended by CRLF.
pub fn chunked(bytes: &[u8]) -> Chunked {
    let (mut at, mut data) = (0, Vec::new());
    loop {
        let line = match line(&bytes[at..], b"0123456789abcdefABCDEF") {
            Line::Whole(line) => line,
            Line::Part => return Chunked::Part,
            Line::Wrong => return Chunked::Wrong,
        };
        at += line.len() + 2;
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        if digits.len() > 15 {
            return Chunked::Wrong;
        }
        let size = usize::from_str_radix(std::str::from_utf8(digits).expect("digits"), 16).expect("a size");
        if size == 0 {
            break;
        }
        let Some(end) = at.checked_add(size).filter(|end| *end <= bytes.len()) else { return Chunked::Part };
        data.extend_from_slice(&bytes[at..end]);
        at = end;
        match bytes.get(at..at + 2) {
            Some(b"\r\n") => at += 2,
            Some(_) => return Chunked::Wrong,
            None if b"\r\n".starts_with(&bytes[at..]) => return Chunked::Part,
            None => return Chunked::Wrong,
        }
    }
    let begin = at;
    loop {
        match line(&bytes[at..], b"") {
            Line::Whole(b"") => break,
            Line::Whole(line) => at += line.len() + 2,
            Line::Part => return Chunked::Part,
            Line::Wrong => return Chunked::Wrong,
        }
    }
    let length = at + 2;
    let trailers = if at == begin { Vec::new() } else { bytes[begin..length].to_vec() };
    Chunked::Whole { data, trailers, length }
}

enum Line<'a> {
    Whole(&'a [u8]),
    Part,
    Wrong,
}

/// A line up to CRLF; at least one byte of `first` comes before everything else, if there are any.
fn line<'a>(bytes: &'a [u8], first: &[u8]) -> Line<'a> {
    let stop = |byte: &u8| *byte != b'\t' && (*byte < b' ' || *byte == 127);
    let end = bytes.iter().position(stop).unwrap_or(bytes.len());
    let digits = bytes[..end].iter().position(|byte| !first.contains(byte)).unwrap_or(end);
    if !first.is_empty() {
        let ended = digits == bytes.len();
        if (digits == 0 && !ended) || (digits < end && bytes[digits] != b';') || digits > 15 {
            return Line::Wrong;
        }
    }
    match bytes.get(end..end + 2) {
        Some(b"\r\n") => Line::Whole(&bytes[..end]),
        Some(_) => Line::Wrong,
        None if b"\r\n".starts_with(&bytes[end..]) => Line::Part,
        None => Line::Wrong,
    }
}

/// Where `part` is first found.
pub fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// `bytes` between every `by`.
pub fn split<'a>(mut bytes: &'a [u8], by: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = find(bytes, by) {
        parts.push(&bytes[..at]);
        bytes = &bytes[at + by.len()..];
    }
    parts.push(bytes);
    parts
}
