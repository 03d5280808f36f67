//! Parsing heads: `httparse` finds the parts, this module says which of them are legal (RFC 9112).
//!
//! `httparse` takes some things that two parsers could read differently, bare line feeds above all; they are
//! refused here. What is kept are offsets, so a head is read once and copied once: when it is written anew.
//!
//! Invariant: an accepted head has CRLF line ends only, one Host, a target in visible ASCII and no folded lines.

use std::mem::MaybeUninit;

use httparse::{Error, Header, Status};

use crate::proxy::error::Fault;
use crate::proxy::head::{Field, Fields, Known, RequestHead, Span, Version, mark_nominated};
use crate::proxy::http1::framing::{self, Framing};

/// Longest request line: 8 KiB is what servers commonly take; more is answered 414.
pub const MAX_TARGET: usize = 8 * 1024;
/// Fields of a response head: what no sane server passes, and what costs little.
pub const MAX_RESPONSE_FIELDS: usize = 256;
/// Bytes of a response head; an upstream is trusted further than a client, not without end.
pub const MAX_RESPONSE_HEAD: usize = 64 * 1024;
/// Options in `Connection`: each is compared with every field, so thousands would cost milliseconds.
const MAX_OPTIONS: usize = 32;
/// The most fields that a configuration may allow.
const MOST_FIELDS: usize = 1_000;
/// Fields of most requests: a small array costs no stack.
const USUAL_FIELDS: usize = 128;

/// What a client may send as a head.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
}

/// What a request's head says about the connection and the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes of the head.
    pub length: usize,
    /// Where the body ends.
    pub framing: Framing,
    /// The client is ready for another request on this connection.
    pub keeps_alive: bool,
    /// It waits for a `100 Continue`.
    pub expects_continue: bool,
    /// The protocol it asks to switch to.
    pub upgrade: Option<Span>,
}

/// What a response's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// Bytes of the head.
    pub length: usize,
    /// The status code, 100 to 599.
    pub status: u16,
    /// How it was sent.
    pub version: Version,
    /// Where the body ends.
    pub framing: Framing,
    /// The connection can take another request once the body is over.
    pub keeps_alive: bool,
}

/// Parses a request head at the beginning of `bytes` into `head`, whose own bytes are left alone: the spans count from
/// the beginning of `bytes`. `None` if it is not complete yet.
///
/// # Errors
/// The client's fault.
pub fn request(bytes: &[u8], limits: Limits, head: &mut RequestHead) -> Result<Option<Request>, Fault> {
    if limits.fields <= USUAL_FIELDS {
        request_in(&mut [const { MaybeUninit::uninit() }; USUAL_FIELDS], bytes, limits, head)
    } else {
        request_in(&mut [const { MaybeUninit::uninit() }; MOST_FIELDS], bytes, limits, head)
    }
}

fn request_in<'b>(
    room: &mut [MaybeUninit<Header<'b>>],
    bytes: &'b [u8],
    limits: Limits,
    head: &mut RequestHead,
) -> Result<Option<Request>, Fault> {
    let most = limits.fields.min(room.len());
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed.parse_with_uninit_headers(bytes, &mut room[..most]).map_err(|error| match error {
        Error::TooManyHeaders => Fault::LargeHead,
        Error::Version if has_version(bytes) => Fault::Version,
        Error::Version | Error::Token | Error::Status => Fault::BadRequest("an invalid request line"),
        Error::HeaderName => Fault::BadRequest("an invalid field name"),
        Error::HeaderValue => Fault::BadRequest("an invalid field value"),
        Error::NewLine => Fault::BadRequest("an invalid line end"),
    })?;
    let target_so_far = parsed.path.map_or_else(|| line_so_far(bytes), str::len);
    if target_so_far > MAX_TARGET {
        return Err(Fault::LongTarget);
    }
    let Status::Complete(length) = status else {
        return if bytes.len() >= limits.bytes { Err(Fault::LargeHead) } else { Ok(None) };
    };
    if length > limits.bytes {
        return Err(Fault::LargeHead);
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Fault::BadRequest("an invalid request line"));
    };
    let at = |part: &[u8]| span(bytes, part);
    head.method = at(method.as_bytes());
    head.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let line = method.len() + 1 + target.len() + 1 + "HTTP/1.1".len();
    collect(bytes, line, length, parsed.headers, &mut head.list).map_err(Fault::BadRequest)?;
    (head.target, head.host) = target_of(bytes, at(method.as_bytes()), at(target.as_bytes()), head)?;
    decide(bytes, length, head).map(Some)
}

/// Everything past the syntax: what the fields mean for this hop.
fn decide(bytes: &[u8], length: usize, head: &mut RequestHead) -> Result<Request, Fault> {
    let fields = Fields { bytes, list: &head.list };
    let framing = framing::of_request(head.version, fields)?;
    check_method(head.method.of(bytes))?;
    check_options(fields).map_err(Fault::BadRequest)?;
    let expects_continue = expects_continue(head.version, framing, fields)?;
    let keeps_alive = keeps_alive(head.version, fields);
    let upgrade = upgrade_of(bytes, head);
    if upgrade.is_some() && !matches!(framing, Framing::None | Framing::Length(0)) {
        return Err(Fault::BadRequest("an upgrade with a body"));
    }
    mark_nominated(bytes, &mut head.list);
    Ok(Request { length, framing, keeps_alive, expects_continue, upgrade })
}

/// CONNECT and TRACE are not for gateways. Methods are case-sensitive, but not to everybody: what an upstream could take
/// for one that frames its answer differently must not reach it.
///
/// # Errors
/// The client's fault.
pub fn check_method(method: &[u8]) -> Result<(), Fault> {
    let alike = |known: &[u8]| method.eq_ignore_ascii_case(known);
    if alike(b"CONNECT") || alike(b"TRACE") {
        return Err(Fault::Method);
    }
    if alike(b"HEAD") && method != b"HEAD" {
        return Err(Fault::BadRequest("an invalid method"));
    }
    Ok(())
}

/// See [`MAX_OPTIONS`]; empty ones count as well.
fn check_options(fields: Fields<'_>) -> Result<(), &'static str> {
    let in_value = |value: &[u8]| 1 + value.iter().filter(|byte| **byte == b',').count();
    let options: usize = fields.known(Known::Connection).map(in_value).sum();
    if options > MAX_OPTIONS { Err("too many connection options") } else { Ok(()) }
}

/// Whether the client waits for a `100 Continue` (RFC 9110 section 10.1.1): from HTTP/1.0 the field is ignored, and without
/// a body there is nothing to wait for.
///
/// # Errors
/// [`Fault::Expectation`] for any other expectation.
pub fn expects_continue(version: Version, framing: Framing, fields: Fields<'_>) -> Result<bool, Fault> {
    let mut expectations = fields.known(Known::Expect);
    match expectations.next() {
        None => Ok(false),
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") && expectations.next().is_none() => {
            Ok(version != Version::Http10 && !matches!(framing, Framing::None | Framing::Length(0)))
        }
        Some(_) => Err(Fault::Expectation),
    }
}

/// Parses a response head at the beginning of `bytes` into `list`. `None` if it is not complete yet.
///
/// # Errors
/// What the upstream did wrong.
pub fn response(bytes: &[u8], to_head: bool, list: &mut Vec<Field>) -> Result<Option<Response>, &'static str> {
    let mut room = [const { MaybeUninit::uninit() }; MAX_RESPONSE_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut room);
    let Status::Complete(length) = status.map_err(|_| "an invalid head")? else {
        return if bytes.len() >= MAX_RESPONSE_HEAD { Err("a head without end") } else { Ok(None) };
    };
    let (Some(minor), Some(status)) = (parsed.version, parsed.code) else { return Err("an invalid status line") };
    if length > MAX_RESPONSE_HEAD {
        return Err("a head without end");
    }
    if !(100..600).contains(&status) {
        return Err("an invalid status");
    }
    let line = bytes.iter().position(|byte| *byte == b'\n').unwrap_or_default();
    let line = line.checked_sub(1).filter(|end| bytes[*end] == b'\r').ok_or("a bare line feed")?;
    collect(bytes, line, length, parsed.headers, list)?;
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let fields = Fields { bytes, list };
    let framing = framing::of_response(to_head, status, version, fields)?;
    check_options(fields)?;
    // HTTP/1.0 connections are not worth keeping: whether one lasts is a guess.
    let keeps_alive = version == Version::Http11 && framing != Framing::UntilClose && keeps_alive(version, fields);
    mark_nominated(bytes, list);
    Ok(Some(Response { length, status, version, framing, keeps_alive }))
}

/// Parses a trailer section, `bytes` ending with its empty line.
///
/// # Errors
/// When it is not a legal list of fields.
pub fn trailers(bytes: &[u8], list: &mut Vec<Field>) -> Result<(), &'static str> {
    list.clear();
    let mut room = [httparse::EMPTY_HEADER; 64];
    match httparse::parse_headers(bytes, &mut room) {
        Ok(Status::Complete((length, fields))) if length == bytes.len() => {
            // The line before is the last chunk's, which is not ours to look at.
            collect_fields(bytes, 0, length, fields, list)
        }
        _ => Err("an invalid trailer"),
    }
}

/// Puts parsed fields into `list`, after a line that ends at `line`.
fn collect(
    bytes: &[u8],
    line: usize,
    length: usize,
    fields: &[Header<'_>],
    list: &mut Vec<Field>,
) -> Result<(), &'static str> {
    list.clear();
    if !bytes[line..].starts_with(b"\r\n") {
        return Err("a bare line feed");
    }
    collect_fields(bytes, line + 2, length, fields, list)
}

/// Between a value and the next name there is white space and CRLF, nothing else: so no bare line feed and no fold.
fn collect_fields(
    bytes: &[u8],
    mut next: usize,
    length: usize,
    fields: &[Header<'_>],
    list: &mut Vec<Field>,
) -> Result<(), &'static str> {
    for field in fields {
        let (name, value) = (span(bytes, field.name.as_bytes()), span(bytes, field.value));
        if name.of(bytes).as_ptr() != bytes[next..].as_ptr() || name.is_empty() {
            return Err("a bare line feed");
        }
        let mut end = if value.is_empty() { next + name.len() + 1 } else { offset(bytes, field.value) + value.len() };
        while matches!(bytes[end], b' ' | b'\t') {
            end += 1;
        }
        if !bytes[end..].starts_with(b"\r\n") {
            return Err("a bare line feed");
        }
        next = end + 2;
        list.push(Field { name, value, known: Known::of(name.of(bytes)) });
    }
    match &bytes[next..length] == b"\r\n" {
        true => Ok(()),
        false => Err("a bare line feed"),
    }
}

/// Whether another message may follow (RFC 9112 section 9.3).
fn keeps_alive(version: Version, fields: Fields<'_>) -> bool {
    let says = |option: &[u8]| fields.members(Known::Connection).any(|member| member.eq_ignore_ascii_case(option));
    match version {
        Version::Http10 => says(b"keep-alive") && !says(b"close"),
        _ => !says(b"close"),
    }
}

/// The single protocol a request asks to switch to (RFC 9110 section 7.8).
fn upgrade_of(bytes: &[u8], head: &RequestHead) -> Option<Span> {
    let fields = Fields { bytes, list: &head.list };
    let mut upgrades = head.list.iter().filter(|field| field.known == Known::Upgrade);
    let first = upgrades.next()?;
    let asks = fields.members(Known::Connection).any(|member| member.eq_ignore_ascii_case(b"upgrade"));
    let token = first.value.of(bytes).iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b',' | b';' | b'"'));
    let fits = head.version == Version::Http11 && head.method.of(bytes) == b"GET";
    (fits && asks && token && !first.value.is_empty() && upgrades.next().is_none()).then_some(first.value)
}

/// The target in origin-form and the authority (RFC 9112 sections 3.2 and 3.3).
fn target_of(bytes: &[u8], method: Span, target: Span, head: &RequestHead) -> Result<(Span, Span), Fault> {
    let text = target.of(bytes);
    if !text.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        return Err(Fault::BadRequest("an invalid target"));
    }
    let mut hosts = head.list.iter().filter(|field| field.known == Known::Host).map(|field| field.value);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Fault::BadRequest("more than one Host"));
    }
    if host.is_none() && head.version == Version::Http11 {
        return Err(Fault::BadRequest("no Host"));
    }
    let host = host.unwrap_or_default();
    if !is_host(host.of(bytes)) {
        return Err(Fault::BadRequest("an invalid Host"));
    }
    let is_options = method.of(bytes) == b"OPTIONS";
    if text[0] == b'/' || (text == b"*" && is_options) {
        return Ok((target, host));
    }
    if method.of(bytes).eq_ignore_ascii_case(b"CONNECT") {
        return Err(Fault::Method);
    }
    // Absolute-form: its authority counts, not the Host field (RFC 9112 section 3.2.2).
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| text.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme)));
    let rest = scheme.map(|scheme| scheme.len()).ok_or(Fault::BadRequest("an invalid target"))?;
    let end = text[rest..].iter().position(|byte| matches!(byte, b'/' | b'?')).map_or(text.len(), |end| rest + end);
    let begin = offset(bytes, text);
    let authority = Span::new(begin + rest, begin + end);
    if authority.is_empty() || !is_host(authority.of(bytes)) {
        return Err(Fault::BadRequest("an invalid target"));
    }
    // Without a path it is `/`, which has to be found among the bytes, or `*` for OPTIONS (RFC 9112 section 3.2.4).
    let path = match text.get(end) {
        Some(b'/') => Span::new(begin + end, begin + text.len()),
        Some(_) => return Err(Fault::BadRequest("an absolute target without a path")),
        None if is_options => Span::default(),
        None => Span::new(begin + rest - 1, begin + rest),
    };
    Ok((path, authority))
}

/// `uri-host [ ":" port ]` in the characters of RFC 3986 section 3.2.2, without userinfo or escapes.
pub fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host.iter().rposition(|byte| *byte == b':') {
        Some(at) if !host[at..].contains(&b']') => (&host[..at], Some(&host[at + 1..])),
        _ => (host, None),
    };
    let is_port = |port: &[u8]| !name.is_empty() && port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~');
    let literal = |inner: &[u8]| inner.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
    let is_name = match name {
        [b'[', inner @ .., b']'] => !inner.is_empty() && literal(inner),
        _ => name.iter().all(plain),
    };
    is_name && port.is_none_or(is_port)
}

/// True if the request line has three parts, the last of which is shaped like a version.
fn has_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut parts = line.split(|byte| *byte == b' ');
    let (_, _, version) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    parts.next().is_none()
        && matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// How long the target is as far as it came.
fn line_so_far(bytes: &[u8]) -> usize {
    let target = bytes.iter().position(|byte| *byte == b' ').map_or(0, |method| method + 1);
    bytes[target..].iter().position(|byte| matches!(byte, b' ' | b'\r' | b'\n')).unwrap_or(bytes.len() - target)
}

fn offset(bytes: &[u8], part: &[u8]) -> usize {
    part.as_ptr() as usize - bytes.as_ptr() as usize
}

/// Where a part of `bytes` lies in it.
fn span(bytes: &[u8], part: &[u8]) -> Span {
    if part.is_empty() {
        return Span::default();
    }
    let start = offset(bytes, part);
    Span::new(start, start + part.len())
}
