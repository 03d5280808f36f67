//! Heads between `h2`'s header map and the neutral form, both ways.
//!
//! A request is flattened into bytes and offsets once, under the rules that hold for HTTP/1.1 as well: what could
//! mean two things to the server behind is refused, whatever HTTP/2 itself would allow. `h2` has already refused what
//! RFC 9113 section 8.2 forbids: names in capitals, connection fields, pseudo-fields that are unknown, late or double.
//!
//! Invariant: a flattened head holds no control character, one authority, and a target in visible ASCII.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

use crate::proxy::connection::Client;
use crate::proxy::error::Fault;
use crate::proxy::head::{Field, Fields, Known, RequestHead, ResponseHead, Span, Version};
use crate::proxy::hop::{self, Additions};
use crate::proxy::http1::framing::{self, Framing};
use crate::proxy::http1::parse::{self, MAX_TARGET};
use crate::proxy::http2::names::Names;

/// What a request asks for beside its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where its body ends; a length is held by `h2` already, chunks stand for an end that only the stream tells.
    pub framing: Framing,
    /// It waits for a `100 Continue`.
    pub expects_continue: bool,
}

/// Flattens a request into `head`, which is empty. `is_over` if no body follows; at most `max_fields` fields are
/// taken, each crumb of a cookie counted for itself.
///
/// # Errors
/// The client's fault.
pub fn request(parts: Parts, is_over: bool, max_fields: usize, head: &mut RequestHead) -> Result<Asked, Fault> {
    let Parts { method, uri, headers, .. } = parts;
    if headers.len() > max_fields {
        return Err(Fault::LargeHead);
    }
    parse::check_method(method.as_str().as_bytes())?;
    if uri.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Err(Fault::BadRequest("an unknown scheme"));
    }
    head.version = Version::Http2;
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    head.bytes.reserve_exact(method.as_str().len() + target.len() + room(&uri, &headers));
    head.list.reserve_exact(headers.len());
    head.method = head.push(method.as_str().as_bytes());
    if target.len() > MAX_TARGET {
        return Err(Fault::LongTarget);
    }
    if !is_target(target.as_bytes(), method.as_str()) {
        return Err(Fault::BadRequest("an invalid target"));
    }
    head.target = head.push(target.as_bytes());
    let host = authority(uri.authority().map(|authority| authority.as_str().as_bytes()), &headers)?;
    head.host = head.push(host);
    fields(headers, head)?;
    if head.fields().known(Known::TransferEncoding).next().is_some() {
        return Err(Fault::BadRequest("a Transfer-Encoding in HTTP/2"));
    }
    let framing = match framing::of_request(Version::Http2, head.fields())? {
        Framing::Length(1..) if is_over => return Err(Fault::BrokenBody),
        Framing::None if !is_over => Framing::Chunked,
        framing => framing,
    };
    Ok(Asked { framing, expects_continue: parse::expects_continue(Version::Http2, framing, head.fields())? })
}

/// Bytes of authority and fields at most.
fn room(uri: &http::Uri, headers: &HeaderMap) -> usize {
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len().max(2) + value.len()).sum();
    fields + uri.authority().map_or(0, |authority| authority.as_str().len())
}

/// Origin-form, or `*` where it is legal.
fn is_target(target: &[u8], method: &str) -> bool {
    let form = target.first() == Some(&b'/') || (target == b"*" && method == "OPTIONS");
    form && target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#')
}

/// The one authority: `:authority`, and `Host` only as far as it says the same (RFC 9113 section 8.3.1).
fn authority<'a>(pseudo: Option<&'a [u8]>, headers: &'a HeaderMap) -> Result<&'a [u8], Fault> {
    let mut hosts = headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Fault::BadRequest("more than one Host"));
    }
    if let (Some(pseudo), Some(host)) = (pseudo, host)
        && !pseudo.eq_ignore_ascii_case(host)
    {
        return Err(Fault::BadRequest("a Host that differs from the authority"));
    }
    let authority = pseudo.or(host).ok_or(Fault::BadRequest("no authority"))?;
    if parse::is_host(authority) { Ok(authority) } else { Err(Fault::BadRequest("an invalid authority")) }
}

/// Appends the fields, but for `Host`, which is the authority now.
fn fields(headers: HeaderMap, head: &mut RequestHead) -> Result<(), Fault> {
    let mut run = Run { name: Span::default(), known: Known::Host, is_cookie: false, begin: 0 };
    // Values of one name follow each other; the name comes with the first.
    for (name, value) in headers {
        if !is_value(value.as_bytes()) {
            return Err(Fault::BadRequest("an invalid field value"));
        }
        let begins = name.is_some();
        if let Some(name) = name {
            let known = Known::of(name.as_str().as_bytes());
            let is_cookie = name == header::COOKIE;
            run = Run { name: head.push(name.as_str().as_bytes()), known, is_cookie, begin: head.bytes.len() };
        }
        if run.known == Known::Host {
            continue;
        }
        if run.is_cookie && !begins {
            // The crumbs of a cookie become one again (RFC 9113 section 8.2.3).
            head.list.pop();
            head.push(b"; ");
        } else {
            run.begin = head.bytes.len();
        }
        head.push(value.as_bytes());
        head.list.push(Field { name: run.name, value: Span::new(run.begin, head.bytes.len()), known: run.known });
    }
    Ok(())
}

/// A name and where its present value begins.
struct Run {
    name: Span,
    known: Known,
    is_cookie: bool,
    begin: usize,
}

/// Field values hold no control characters but tabs, and no blanks around them (RFC 9113 section 8.2.1).
fn is_value(value: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| byte.is_some_and(|byte| matches!(byte, b' ' | b'\t'));
    !blank(value.first()) && !blank(value.last())
}

/// Flattens trailer fields; `bytes` and `list` are empty.
pub fn trailers(trailers: &HeaderMap, bytes: &mut Vec<u8>, list: &mut Vec<Field>) {
    for (name, value) in trailers {
        let mut push = |part: &[u8]| {
            let start = bytes.len();
            bytes.extend_from_slice(part);
            Span::new(start, bytes.len())
        };
        let (name_span, value) = (push(name.as_str().as_bytes()), push(value.as_bytes()));
        list.push(Field { name: name_span, value, known: Known::of(name.as_str().as_bytes()) });
    }
}

/// Bytes of the values in most answers.
const USUAL_VALUES: usize = 512;
/// Fields that most answers get beside the upstream's own.
const USUAL_ADDITIONS: usize = 3;

/// The head of an answer: what goes down of an upstream's, with a length if one is known.
pub fn response(
    head: ResponseHead<'_>,
    length: Option<HeaderValue>,
    client: &Client,
    additions: &Additions,
    names: &Names,
) -> http::Response<()> {
    let most = head.fields.list.len() + USUAL_ADDITIONS;
    // All values in one allocation, of which each field has a share.
    let (mut values, mut fields) = (Vec::with_capacity(USUAL_VALUES), Vec::with_capacity(most));
    hop::downward(head, true, client, additions, |name, value| {
        if let Some(name) = names.of(name) {
            values.extend_from_slice(value);
            fields.push((name, value.len()));
        }
    });
    let mut values = Bytes::from(values);
    let mut headers = HeaderMap::with_capacity(fields.len() + 1);
    for (name, length) in fields {
        if let Ok(value) = HeaderValue::from_maybe_shared(values.split_to(length)) {
            let _ = headers.try_append(name, value);
        }
    }
    if let Some(length) = length {
        headers.append(header::CONTENT_LENGTH, length);
    }
    with_headers(head.status, headers)
}

/// An empty response of a status that a parser has let through, or 502.
pub fn with_headers(status: u16, headers: HeaderMap) -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    *response.headers_mut() = headers;
    response
}

/// The trailer fields that go down.
pub fn trailers_down(fields: Fields<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    hop::trailers(fields, |name, value| append(&mut headers, name, value));
    headers
}

/// Appends a field that a parser has let through; one that the map does not take is left out.
pub fn append(headers: &mut HeaderMap, name: &[u8], value: &[u8]) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        let _ = headers.try_append(name, value);
    }
}

#[cfg(test)]
mod tests;
