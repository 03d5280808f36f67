//! Heads, whatever wire they came over: owned bytes, and where in them the fields are.
//!
//! HTTP/1.1 parses into this form and HTTP/2 is flattened into it, so that every rule about fields exists once
//! (in [`crate::proxy::hop`]) and routing sees one kind of request. Each field is classified when the head is
//! built; later rules compare a tag instead of names.
//!
//! Invariant: every span lies within the bytes of its head; targets are visible ASCII.

use std::net::IpAddr;

use crate::domain::forwarded::{self, Claims, Origin};
use crate::domain::route::{RequestView, Scheme};

/// A stretch of a head's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// From `start` to `end`, which lie within a head of at most 1 MiB.
    pub fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    /// The stretch itself.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }

    /// How long it is.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// True if nothing is in it.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// What a field's name means to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: it passes.
    Other,
    /// `Host`.
    Host,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Connection`.
    Connection,
    /// `Upgrade`.
    Upgrade,
    /// `TE`.
    Te,
    /// `Trailer`.
    Trailer,
    /// `Keep-Alive`, `Proxy-Connection`, `Proxy-Authenticate`, `Proxy-Authorization`, `HTTP2-Settings`: for one hop only.
    HopByHop,
    /// Named in `Connection`, so for one hop only.
    Nominated,
    /// `Expect`.
    Expect,
    /// `Via`.
    Via,
    /// `X-Request-Id`.
    RequestId,
    /// `Forwarded`, `X-Real-IP`, `X-Forwarded-*`: only the last hop's word counts.
    Forwarding,
    /// `X-Client-Verified`, `X-Client-Cert-*`: what this proxy says of a client's certificate.
    Identity,
    /// A name that upstreams read as one of the above once `_` and `.` are folded to `-`.
    Twin,
}

impl Known {
    /// What `name` means, whatever its case. Asked for every field of every message: length and first letter settle it
    /// for nearly all.
    pub fn of(name: &[u8]) -> Known {
        let first = name.first().map_or(0, |byte| byte | 0x20);
        let may_be_known = matches!(
            (first, name.len()),
            (b't', 2 | 7 | 17)
                | (b'v', 3)
                | (b'h', 4 | 14)
                | (b'e', 6)
                | (b'u', 7)
                | (b'f', 9)
                | (b'x', 9 | 12..)
                | (b'c', 10 | 14)
                | (b'k', 10)
                | (b'p', 16 | 18 | 19)
        );
        match if may_be_known { Known::named(name) } else { Known::Other } {
            Known::Other if may_be_twin(name) => twin(name),
            known => known,
        }
    }

    fn named(name: &[u8]) -> Known {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let begins =
            |known: &str| name.get(..known.len()).is_some_and(|part| part.eq_ignore_ascii_case(known.as_bytes()));
        match name.len() {
            2 if is("te") => Known::Te,
            3 if is("via") => Known::Via,
            4 if is("host") => Known::Host,
            6 if is("expect") => Known::Expect,
            7 if is("upgrade") => Known::Upgrade,
            7 if is("trailer") => Known::Trailer,
            9 if is("forwarded") || is("x-real-ip") => Known::Forwarding,
            10 if is("connection") => Known::Connection,
            10 if is("keep-alive") => Known::HopByHop,
            12 if is("x-request-id") => Known::RequestId,
            14 if is("content-length") => Known::ContentLength,
            14 if is("http2-settings") => Known::HopByHop,
            16 if is("proxy-connection") => Known::HopByHop,
            17 if is("transfer-encoding") => Known::TransferEncoding,
            18 if is("proxy-authenticate") => Known::HopByHop,
            19 if is("proxy-authorization") => Known::HopByHop,
            12.. if begins("x-forwarded-") => Known::Forwarding,
            17 if is("x-client-verified") => Known::Identity,
            14.. if begins("x-client-cert-") => Known::Identity,
            _ => Known::Other,
        }
    }
}

/// True if there is a `_` or `.` in it; eight bytes at a time.
fn may_be_twin(name: &[u8]) -> bool {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const TOPS: u64 = u64::from_le_bytes([0x80; 8]);
    let holds = |word: &[u8; 8]| {
        let has = |byte: u8| {
            let rest = u64::from_le_bytes(*word) ^ (ONES * u64::from(byte));
            rest.wrapping_sub(ONES) & !rest & TOPS != 0
        };
        has(b'_') || has(b'.')
    };
    match name.last_chunk() {
        Some(last) => name.as_chunks().0.iter().any(holds) || holds(last),
        None => name.iter().any(|byte| matches!(byte, b'_' | b'.')),
    }
}

/// Upstreams that turn names into variables fold `_` and `.` like `-`; what then looks like ours must not pass.
fn twin(name: &[u8]) -> Known {
    let mut folded = [0; 40];
    let length = name.len().min(folded.len());
    for (place, byte) in folded.iter_mut().zip(name) {
        *place = if matches!(byte, b'_' | b'.') { b'-' } else { *byte };
    }
    match Known::of(&folded[..length]) {
        Known::Other | Known::Te | Known::Trailer | Known::Upgrade | Known::HopByHop => Known::Other,
        _ => Known::Twin,
    }
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name, as sent.
    pub name: Span,
    /// Its value, without white space around it.
    pub value: Span,
    /// What the name means.
    pub known: Known,
}

/// The fields of a head, in order, over the bytes that hold them.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    /// What the spans point into.
    pub bytes: &'a [u8],
    /// The fields.
    pub list: &'a [Field],
}

impl<'a> Fields<'a> {
    /// No fields.
    pub const NONE: Fields<'static> = Fields { bytes: &[], list: &[] };

    /// Name, value and meaning of each.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8], Known)> {
        self.list.iter().map(move |field| (field.name.of(self.bytes), field.value.of(self.bytes), field.known))
    }

    /// The values of a kind of field, in order.
    pub fn known(self, known: Known) -> impl Iterator<Item = &'a [u8]> {
        self.list.iter().filter(move |field| field.known == known).map(move |field| field.value.of(self.bytes))
    }

    /// The values of the fields with this name, in order; case does not matter.
    pub fn named(self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let matches = move |field: &&Field| field.name.of(self.bytes).eq_ignore_ascii_case(name.as_bytes());
        self.list.iter().filter(matches).map(move |field| field.value.of(self.bytes))
    }

    /// The members of all fields of a kind, as comma-separated lists (RFC 9110 section 5.6.1).
    pub fn members(self, known: Known) -> impl Iterator<Item = &'a [u8]> {
        self.known(known)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|m| !m.is_empty())
    }
}

/// The version a message was sent with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
    /// HTTP/2.
    Http2,
}

impl Version {
    /// As `Via` names it (RFC 9110 section 7.6.3).
    pub fn number(self) -> &'static str {
        match self {
            Version::Http10 => "1.0",
            Version::Http11 => "1.1",
            Version::Http2 => "2.0",
        }
    }
}

/// A request's head. One value serves a connection for all its requests, so that its memory is reused.
#[derive(Debug, Default)]
pub struct RequestHead {
    /// What the spans point into.
    pub bytes: Vec<u8>,
    /// The method token.
    pub method: Span,
    /// The target in origin-form, or `*`; nothing stands for `*`, which need not be among the bytes.
    pub target: Span,
    /// The authority asked for: of the target, or the `Host` field.
    pub host: Span,
    /// The fields.
    pub list: Vec<Field>,
    /// How it was sent.
    pub version: Version,
}

impl RequestHead {
    /// The method token.
    pub fn method(&self) -> &[u8] {
        self.method.of(&self.bytes)
    }

    /// The target in origin-form, or `*`.
    pub fn target(&self) -> &[u8] {
        if self.target.is_empty() { b"*" } else { self.target.of(&self.bytes) }
    }

    /// The authority asked for, as sent; empty if there is none.
    pub fn host(&self) -> &[u8] {
        self.host.of(&self.bytes)
    }

    /// The fields.
    pub fn fields(&self) -> Fields<'_> {
        Fields { bytes: &self.bytes, list: &self.list }
    }

    /// True if the method is `method`.
    pub fn is(&self, method: &str) -> bool {
        self.method() == method.as_bytes()
    }

    /// True if it says that its client takes trailers.
    pub fn takes_trailers(&self) -> bool {
        let is_trailers = |member: &[u8]| member.eq_ignore_ascii_case(b"trailers");
        self.version != Version::Http10 && self.fields().members(Known::Te).any(is_trailers)
    }

    /// Marks the fields that `Connection` nominates, except those that decide about the message itself: a client must
    /// not be able to strip them (RFC 9110 section 7.6.1).
    pub fn mark_nominated(&mut self) {
        mark_nominated(&self.bytes, &mut self.list);
    }

    /// Appends a stretch of bytes, for heads that are put together.
    pub fn push(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span::new(start, self.bytes.len())
    }
}

impl Claims for RequestHead {
    fn lines(&self, field: forwarded::Field) -> impl Iterator<Item = &[u8]> {
        let name = match field {
            forwarded::Field::For => "x-forwarded-for",
            forwarded::Field::Proto => "x-forwarded-proto",
            forwarded::Field::Host => "x-forwarded-host",
            forwarded::Field::Port => "x-forwarded-port",
            forwarded::Field::Forwarded => "forwarded",
            forwarded::Field::RealIp => "x-real-ip",
        };
        self.fields().named(name)
    }
}

/// See [`RequestHead::mark_nominated`]; responses nominate as well.
pub fn mark_nominated(bytes: &[u8], list: &mut [Field]) {
    if !list.iter().any(|field| field.known == Known::Connection) {
        return;
    }
    for at in 0..list.len() {
        let Field { name, known, .. } = list[at];
        let droppable = !matches!(
            known,
            Known::Host
                | Known::ContentLength
                | Known::TransferEncoding
                | Known::Connection
                | Known::Upgrade
                // Who sends it has to nominate it (RFC 9110 section 10.1.4), and means it for this hop.
                | Known::Te
        );
        let named = |member: &[u8]| member.eq_ignore_ascii_case(name.of(bytes));
        if droppable && (Fields { bytes, list }).members(Known::Connection).any(named) {
            list[at].known = Known::Nominated;
        }
    }
}

/// A response's head, over the bytes that whoever received it holds.
#[derive(Clone, Copy)]
pub struct ResponseHead<'a> {
    /// The status code, 100 to 599.
    pub status: u16,
    /// How it was sent.
    pub version: Version,
    /// The fields.
    pub fields: Fields<'a>,
}

/// A request as the decisions see it.
pub struct View<'a> {
    head: &'a RequestHead,
    origin: &'a Origin<'a>,
}

impl<'a> View<'a> {
    /// The view of a request that came from `origin`.
    pub fn new(head: &'a RequestHead, origin: &'a Origin<'a>) -> View<'a> {
        View { head, origin }
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    bytes.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')).then(|| std::str::from_utf8(bytes).ok()).flatten()
}

impl RequestView for View<'_> {
    fn method(&self) -> &str {
        text(self.head.method()).unwrap_or_default()
    }

    fn path(&self) -> &str {
        let target = self.head.target();
        let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        text(&target[..end]).unwrap_or_default()
    }

    fn query(&self) -> &str {
        let target = self.head.target();
        let start = target.iter().position(|byte| *byte == b'?').map_or(target.len(), |mark| mark + 1);
        text(&target[start..]).unwrap_or_default()
    }

    fn host(&self) -> &str {
        let host = text(self.head.host()).unwrap_or_default();
        match host.rfind(':') {
            // A bracketed address has colons of its own.
            Some(at) if !host[at..].contains(']') => &host[..at],
            _ => host,
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let value = match name {
            "host" => Some(self.head.host()),
            _ => {
                let fields = self.head.fields();
                let mut fields = fields.list.iter().map(|field| (field.name.of(fields.bytes), field.value));
                let found = fields.find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
                found.map(|(_, value)| value.of(&self.head.bytes))
            }
        };
        value.and_then(text)
    }

    fn client(&self) -> IpAddr {
        self.origin.client
    }

    fn scheme(&self) -> Scheme {
        self.origin.scheme
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_classified_whatever_their_case() {
        let table = [
            ("Host", Known::Host),
            ("CONTENT-LENGTH", Known::ContentLength),
            ("transfer-Encoding", Known::TransferEncoding),
            ("Keep-Alive", Known::HopByHop),
            ("Proxy-Authorization", Known::HopByHop),
            ("x-forwarded-for", Known::Forwarding),
            ("X-Forwarded-Anything", Known::Forwarding),
            ("X-Real-IP", Known::Forwarding),
            ("X-Client-Verified", Known::Identity),
            ("x-client-cert-subject", Known::Identity),
            ("x_client_cert_san", Known::Twin),
            ("Forwarded", Known::Forwarding),
            ("x-request-id", Known::RequestId),
            ("x_request.id", Known::Twin),
            ("X_Forwarded_For", Known::Twin),
            ("X.Forwarded-A_B", Known::Twin),
            ("Content_Length", Known::Twin),
            ("transfer_encoding", Known::Twin),
            ("x_real_ip", Known::Twin),
            ("my_header", Known::Other),
            ("accept", Known::Other),
            ("x-forwarde", Known::Other),
        ];
        for (name, known) in table {
            assert_eq!(Known::of(name.as_bytes()), known, "{name}");
        }
    }

    #[test]
    fn the_quick_look_at_a_name_overlooks_nothing() {
        let names = [
            "te",
            "via",
            "host",
            "expect",
            "upgrade",
            "trailer",
            "forwarded",
            "x-real-ip",
            "connection",
            "keep-alive",
            "x-request-id",
            "content-length",
            "http2-settings",
            "proxy-connection",
            "transfer-encoding",
            "proxy-authenticate",
            "proxy-authorization",
            "x-forwarded-",
            "x-forwarded-for",
            "x-client-verified",
            "x-client-cert-",
            "x-client-cert-subject",
        ];
        for name in names {
            for name in [name.to_owned(), name.to_uppercase()] {
                assert_ne!(Known::of(name.as_bytes()), Known::Other, "{name}");
                assert_eq!(Known::of(name.as_bytes()), Known::named(name.as_bytes()), "{name}");
            }
        }
    }

    #[test]
    fn a_twin_is_seen_wherever_its_mark_is() {
        for length in 1..40 {
            for at in 0..length {
                for mark in [b'_', b'.'] {
                    let mut name = vec![b'-'; length];
                    assert!(!may_be_twin(&name));
                    name[at] = mark;
                    assert!(may_be_twin(&name), "{mark} at {at} of {length}");
                    name[at] = mark ^ 1;
                    assert!(!may_be_twin(&name));
                }
            }
        }
    }

    #[test]
    fn what_connection_names_is_marked_but_never_what_frames_the_message() {
        let mut head = RequestHead::default();
        for (name, value) in [
            ("Connection", "close, X-Secret ,content-length"),
            ("x-secret", "1"),
            ("Content-Length", "3"),
            ("host", "a"),
        ] {
            let (name_span, value) = (head.push(name.as_bytes()), head.push(value.as_bytes()));
            head.list.push(Field { name: name_span, value, known: Known::of(name.as_bytes()) });
        }
        head.mark_nominated();
        let kinds: Vec<_> = head.list.iter().map(|field| field.known).collect();
        assert_eq!(kinds, [Known::Connection, Known::Nominated, Known::ContentLength, Known::Host]);
    }

    #[test]
    fn who_nominates_te_as_it_must_is_heard() {
        let mut head = RequestHead::default();
        for (name, value) in [("Connection", "TE"), ("TE", "trailers")] {
            let (name_span, value) = (head.push(name.as_bytes()), head.push(value.as_bytes()));
            head.list.push(Field { name: name_span, value, known: Known::of(name.as_bytes()) });
        }
        head.mark_nominated();
        assert!(head.takes_trailers());
    }

    #[test]
    fn the_view_splits_target_and_host() {
        let mut head = RequestHead::default();
        head.method = head.push(b"GET");
        head.target = head.push(b"/a/b?c=/d?");
        head.host = head.push(b"[::1]:80");
        let hop = forwarded::Hop { peer: IpAddr::from([127, 0, 0, 1]), scheme: Scheme::Http, host: b"" };
        let nothing = RequestHead::default();
        let origin = forwarded::origin(&forwarded::Trust::default(), hop, &nothing);
        let view = View::new(&head, &origin);
        assert_eq!((view.method(), view.path(), view.query(), view.host()), ("GET", "/a/b", "c=/d?", "[::1]"));
        assert_eq!(view.header("host"), Some("[::1]:80"));
        head.host = head.push(b"shop:8080");
        assert_eq!(View::new(&head, &origin).host(), "shop");
    }
}
