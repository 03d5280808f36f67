//! Framing: where a message's body ends (RFC 9112 section 6), decided from its head without leniency.
//!
//! A message that says it in two ways, or in one way twice, is refused: what this hop and the next would read
//! differently is how requests are smuggled. So is every transfer coding but a single `chunked`.
//!
//! Invariant: a message gets exactly one framing, or none of it is forwarded.

use crate::proxy::error::Fault;
use crate::proxy::head::{Fields, Known, Version};

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection; responses only.
    UntilClose,
}

/// Lengths past this are refused: sums of them must not overflow anywhere.
const MAX_LENGTH: u64 = i64::MAX as u64;

/// The framing of a request.
///
/// # Errors
/// The client's fault: [`Fault::BadRequest`], or [`Fault::Coding`] for a coding that exists but is not for us.
pub fn of_request(version: Version, fields: Fields<'_>) -> Result<Framing, Fault> {
    let length = length(fields).map_err(Fault::BadRequest)?;
    let mut codings = fields.known(Known::TransferEncoding);
    let Some(coding) = codings.next() else {
        return Ok(length.map_or(Framing::None, Framing::Length));
    };
    if version == Version::Http10 {
        return Err(Fault::BadRequest("a transfer encoding in HTTP/1.0"));
    }
    if length.is_some() {
        return Err(Fault::BadRequest("both Content-Length and Transfer-Encoding"));
    }
    if codings.next().is_some() {
        return Err(Fault::BadRequest("more than one Transfer-Encoding"));
    }
    if coding.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    // A coding before a final `chunked` is legal and unknown to us; anything else cannot be delimited.
    let mut list = coding.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let last_is_chunked = list.next_back().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let plain = |coding: &[u8]| !coding.is_empty() && coding.iter().all(u8::is_ascii_alphanumeric);
    match last_is_chunked && list.all(|coding| plain(coding) && !coding.eq_ignore_ascii_case(b"chunked")) {
        true => Err(Fault::Coding),
        false => Err(Fault::BadRequest("an invalid Transfer-Encoding")),
    }
}

/// The framing of a response to a request with or without `HEAD`.
///
/// # Errors
/// The upstream's fault, in words.
pub fn of_response(to_head: bool, status: u16, version: Version, fields: Fields<'_>) -> Result<Framing, &'static str> {
    let length = length(fields)?;
    let mut codings = fields.known(Known::TransferEncoding);
    let coding = codings.next();
    if coding.is_some() && length.is_some() {
        return Err("both Content-Length and Transfer-Encoding");
    }
    if coding.is_some() && version == Version::Http10 {
        return Err("a transfer encoding in HTTP/1.0");
    }
    if codings.next().is_some() || coding.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
        return Err("a transfer encoding other than chunked");
    }
    Ok(match (coding, length) {
        // Whatever their fields say (RFC 9112 section 6.3).
        _ if to_head || (100..200).contains(&status) || status == 204 || status == 304 => Framing::None,
        (Some(_), _) => Framing::Chunked,
        (None, Some(length)) => Framing::Length(length),
        (None, None) => Framing::UntilClose,
    })
}

/// The one `Content-Length`, if there is any.
fn length(fields: Fields<'_>) -> Result<Option<u64>, &'static str> {
    let mut lengths = fields.known(Known::ContentLength);
    let Some(first) = lengths.next() else { return Ok(None) };
    if lengths.next().is_some() {
        return Err("more than one Content-Length");
    }
    // Digits alone: `parse` would take a sign.
    let digits = (1..=19).contains(&first.len()) && first.iter().all(u8::is_ascii_digit);
    let value = digits.then(|| first.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0')));
    value.filter(|length| *length <= MAX_LENGTH).map(Some).ok_or("an invalid Content-Length")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::head::{Field, RequestHead};

    fn head(fields: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::default();
        for (name, value) in fields {
            let (name_span, value) = (head.push(name.as_bytes()), head.push(value.as_bytes()));
            head.list.push(Field { name: name_span, value, known: Known::of(name.as_bytes()) });
        }
        head
    }

    const CL: &str = "Content-Length";
    const TE: &str = "Transfer-Encoding";

    #[test]
    fn requests_have_one_framing_or_none_is_forwarded() {
        let bad = Err(400);
        type Case = (Version, &'static [(&'static str, &'static str)], Result<Framing, u16>);
        let table: &[Case] = &[
            (Version::Http11, &[], Ok(Framing::None)),
            (Version::Http11, &[(CL, "0")], Ok(Framing::Length(0))),
            (Version::Http11, &[(CL, "0010")], Ok(Framing::Length(10))),
            (Version::Http11, &[(CL, "9223372036854775807")], Ok(Framing::Length(MAX_LENGTH))),
            (Version::Http11, &[(CL, "9223372036854775808")], bad),
            (Version::Http11, &[(CL, "99999999999999999999")], bad),
            (Version::Http11, &[(CL, "")], bad),
            (Version::Http11, &[(CL, "+5")], bad),
            (Version::Http11, &[(CL, "-5")], bad),
            (Version::Http11, &[(CL, "5 ")], bad),
            (Version::Http11, &[(CL, "5, 5")], bad),
            (Version::Http11, &[(CL, "0x5")], bad),
            (Version::Http11, &[(CL, "5"), (CL, "5")], bad),
            (Version::Http11, &[(TE, "chunked")], Ok(Framing::Chunked)),
            (Version::Http11, &[(TE, "CHUNKED")], Ok(Framing::Chunked)),
            (Version::Http10, &[(TE, "chunked")], bad),
            (Version::Http11, &[(TE, "chunked"), (CL, "5")], bad),
            (Version::Http11, &[(TE, "chunked"), (TE, "chunked")], bad),
            (Version::Http11, &[(TE, "chunked, chunked")], bad),
            (Version::Http11, &[(TE, "chunked, gzip")], bad),
            (Version::Http11, &[(TE, "identity")], bad),
            (Version::Http11, &[(TE, "xchunked")], bad),
            (Version::Http11, &[(TE, "")], bad),
            (Version::Http11, &[(TE, ", chunked")], bad),
            (Version::Http11, &[(TE, "chunked;x=1")], bad),
            (Version::Http11, &[(TE, "\"chunked\"")], bad),
            (Version::Http11, &[(TE, "gzip, chunked")], Err(501)),
        ];
        for (version, fields, expected) in table {
            let framing = of_request(*version, head(fields).fields()).map_err(Fault::status);
            assert_eq!(framing, *expected, "{version:?} {fields:?}");
        }
    }

    #[test]
    fn responses_too_and_some_never_have_a_body() {
        type Case = (bool, u16, Version, &'static [(&'static str, &'static str)], Option<Framing>);
        let table: &[Case] = &[
            (false, 200, Version::Http11, &[], Some(Framing::UntilClose)),
            (false, 200, Version::Http11, &[(CL, "7")], Some(Framing::Length(7))),
            (false, 200, Version::Http11, &[(TE, "Chunked")], Some(Framing::Chunked)),
            (true, 200, Version::Http11, &[(CL, "7")], Some(Framing::None)),
            (true, 200, Version::Http11, &[(TE, "chunked")], Some(Framing::None)),
            (false, 204, Version::Http11, &[(CL, "7")], Some(Framing::None)),
            (false, 304, Version::Http11, &[(CL, "7")], Some(Framing::None)),
            (false, 100, Version::Http11, &[], Some(Framing::None)),
            (false, 200, Version::Http11, &[(CL, "7"), (CL, "7")], None),
            (false, 200, Version::Http11, &[(CL, "7"), (TE, "chunked")], None),
            (true, 200, Version::Http11, &[(CL, "x")], None),
            (false, 200, Version::Http11, &[(TE, "gzip, chunked")], None),
            (false, 200, Version::Http11, &[(TE, "chunked"), (TE, "chunked")], None),
            (false, 200, Version::Http10, &[(TE, "chunked")], None),
            (false, 200, Version::Http10, &[], Some(Framing::UntilClose)),
        ];
        for (to_head, status, version, fields, expected) in table {
            let framing = of_response(*to_head, *status, *version, head(fields).fields()).ok();
            assert_eq!(framing, *expected, "{to_head} {status} {version:?} {fields:?}");
        }
    }
}
