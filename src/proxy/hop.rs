//! What a gateway changes on the way up and down, whatever the wire: said once, as fields given to whoever writes.
//!
//! Up: hop-by-hop fields and those the client nominated in `Connection` go, forwarding fields are replaced by
//! what this hop knows, twins of them with `_` or `.` are dropped (upstreams fold them into the same variable),
//! `Via` and a request id are added, the authority asked for becomes `Host`. Down: hop-by-hop fields go, `Via` is
//! added. Framing is left to the writer, who alone knows it.
//!
//! Invariant: no field that means something for one connection crosses to another.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use crate::bridge::injection::Live;
use crate::domain::forwarded::Origin;
use crate::domain::route::{Action, Layers, PathEdit, Rewrite};
use crate::proxy::connection::Client;
use crate::proxy::head::{Fields, Known, RequestHead, ResponseHead, Span, Version};
use crate::proxy::injection;
use crate::proxy::recorder::Place;
use crate::proxy::worker::Worker;

/// Longest request id taken over from a client.
const LONGEST_ID: usize = 128;

/// What tells browsers to come back by https only.
pub const STRICT_TRANSPORT: &str = "strict-transport-security";

/// Names the pool that failed a request which the active one answered.
const RESCUED: &[u8] = b"x-teal-rescued";

/// The id of a request: the client's if it is sane, else ours.
#[derive(Clone, Copy, Debug)]
pub enum RequestId {
    /// In the request's head.
    Theirs(Span),
    /// Drawn by us: 32 hexadecimal digits.
    Ours([u8; 32]),
}

impl RequestId {
    /// The id of a request with this head.
    pub fn of(head: &RequestHead, worker: &Worker) -> RequestId {
        let mut theirs = head.list.iter().filter(|field| field.known == Known::RequestId).map(|field| field.value);
        let sane = |value: &Span| {
            (1..=LONGEST_ID).contains(&value.len()) && value.of(&head.bytes).iter().all(u8::is_ascii_graphic)
        };
        theirs.next().filter(sane).map_or_else(|| RequestId::fresh(worker), RequestId::Theirs)
    }

    /// An id of our own.
    pub fn fresh(worker: &Worker) -> RequestId {
        let mut text = [0; 32];
        let bits = [worker.random(), worker.random()];
        let bytes = bits.iter().flat_map(|bits| bits.to_be_bytes());
        for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            *pair = [byte >> 4, byte & 0xf].map(|digit| b"0123456789abcdef"[usize::from(digit)]);
        }
        RequestId::Ours(text)
    }

    /// The id's bytes: visible ASCII.
    pub fn bytes<'a>(&'a self, head: &'a RequestHead) -> &'a [u8] {
        match self {
            RequestId::Theirs(span) => span.of(&head.bytes),
            RequestId::Ours(text) => text,
        }
    }

    /// The id as text.
    pub fn text<'a>(&'a self, head: &'a RequestHead) -> &'a str {
        std::str::from_utf8(self.bytes(head)).unwrap_or_default()
    }
}

/// A request on its way up.
#[derive(Clone, Copy)]
pub struct Upward<'a> {
    /// As the client sent it.
    pub head: &'a RequestHead,
    /// Whose connection it came over.
    pub client: &'a Client,
    /// Where it came from.
    pub origin: &'a Origin<'a>,
    /// The request's id.
    pub id: &'a RequestId,
    /// Where it goes, by what its rules say.
    pub place: &'a Place,
    /// The protocol it wants to switch to.
    pub upgrade: Option<Span>,
    /// It waits for a `100 Continue`.
    pub expects_continue: bool,
    /// Its client takes trailers. `TE` itself is for one hop, so it is for the writer to say what this hop takes.
    pub takes_trailers: bool,
}

impl<'a> Upward<'a> {
    fn rewrite(&self) -> Option<&'a Rewrite> {
        match &self.place.route().action {
            Action::Forward(rewrite) => Some(rewrite),
            Action::Redirect(_) => None,
        }
    }

    /// The target that goes up.
    pub fn target(&self) -> Cow<'a, [u8]> {
        let asked = self.head.target();
        let rewritten = self.rewrite().filter(|rewrite| rewrite.path != PathEdit::Keep).and_then(|rewrite| {
            let target = rewrite.target(std::str::from_utf8(asked).ok()?);
            Some(Cow::Owned(target.into_owned().into_bytes()))
        });
        rewritten.unwrap_or(Cow::Borrowed(asked))
    }

    /// The authority that goes up.
    pub fn host(&self) -> &'a [u8] {
        let rewritten = self.rewrite().and_then(|rewrite| rewrite.host.as_deref());
        rewritten.map_or_else(|| self.head.host(), str::as_bytes)
    }

    /// Gives every field that goes up, but for `Host`, the framing and (HTTP/1.1) the fields of an upgrade.
    pub fn fields(&self, mut emit: impl FnMut(&[u8], &[u8])) {
        let edits = Layers::new(&self.place.route().request_headers, &self.place.settings().request_headers);
        if edits.is_empty() {
            return self.unedited(emit);
        }
        self.unedited(|name, value| {
            if !edits.drops(name) {
                emit(name, value);
            }
        });
        edited(edits, self.place, self.origin.client, self.id.text(self.head), emit);
    }

    fn unedited(&self, mut emit: impl FnMut(&[u8], &[u8])) {
        for (name, value, known) in self.head.fields().iter() {
            if matches!(known, Known::Other | Known::Via) {
                emit(name, value);
            }
        }
        if self.expects_continue {
            emit(b"expect", b"100-continue");
        }
        self.forwarding(&mut emit);
        self.client.identity().iter().for_each(|(name, value)| emit(name.as_bytes(), value.as_bytes()));
        emit(b"x-request-id", self.id.bytes(self.head));
        emit(b"via", via(self.head.version));
    }

    /// Says where the request came from.
    fn forwarding(&self, emit: &mut impl FnMut(&[u8], &[u8])) {
        let origin = self.origin;
        let mut value = Vec::new();
        if !origin.host.is_empty() {
            emit(b"x-forwarded-host", origin.host);
        }
        if origin.is_trusted {
            origin.write_for(self.head, &mut value);
            emit(b"x-forwarded-for", &value);
            value.clear();
        } else {
            emit(b"x-forwarded-for", self.client.forwarded_for().as_bytes());
        }
        emit(b"x-forwarded-proto", origin.scheme.name().as_bytes());
        if let Some(port) = origin.port {
            emit(b"x-forwarded-port", port.to_string().as_bytes());
        }
        if origin.write_forwarded(self.head, &mut value) {
            emit(b"forwarded", &value);
        }
    }
}

/// Gives the fields that edits write.
fn edited(edits: Layers<'_>, place: &Place, client: IpAddr, id: &str, mut emit: impl FnMut(&[u8], &[u8])) {
    let vars = place.vars(id, client);
    let mut value = Vec::new();
    for (name, template) in edits.fields() {
        value.clear();
        template.write(&vars, &mut value);
        emit(name.as_bytes(), &value);
    }
}

/// What goes down beside an upstream's own fields.
#[derive(Default)]
pub struct Additions {
    /// A cookie to set.
    pub cookie: Option<String>,
    /// The pool that failed the request, if the answer is to say so.
    pub rescued_from: Option<String>,
    /// A fault that had a part in it.
    pub fault: Option<Arc<Live>>,
    /// The edits of pool and route, if there are any.
    edits: Option<Edited>,
}

struct Edited {
    place: Place,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Edited {
    fn drops(&self, name: &[u8]) -> bool {
        edits_down(&self.place).drops(name)
    }

    fn writes(&self, name: &str) -> bool {
        self.fields.iter().any(|(known, _)| known == name.as_bytes())
    }
}

impl Additions {
    /// For an answer to a request with this id that went to `place`.
    pub fn new(cookie: Option<String>, place: &Place, client: IpAddr, id: &str) -> Additions {
        let layers = edits_down(place);
        let edits = (!layers.is_empty()).then(|| {
            let mut fields = Vec::new();
            edited(layers, place, client, id, |name, value| fields.push((name.to_vec(), value.to_vec())));
            Edited { place: place.clone(), fields }
        });
        Additions { cookie, rescued_from: None, fault: None, edits }
    }
}

fn edits_down(place: &Place) -> Layers<'_> {
    Layers::new(&place.settings().response_headers, &place.route().response_headers)
}

/// Gives every field of an upstream's answer that goes down, but for the framing. `Trailer` passes if `trailers` will.
pub fn downward(
    head: ResponseHead<'_>,
    trailers: bool,
    client: &Client,
    additions: &Additions,
    mut emit: impl FnMut(&[u8], &[u8]),
) {
    let edits = additions.edits.as_ref();
    // Browsers take the first and no other (RFC 6797 section 8.1): an edit's, else the listener's, else the upstream's.
    let promise = client.strict_transport().filter(|_| !edits.is_some_and(|edits| edits.writes(STRICT_TRANSPORT)));
    let drops = |name: &[u8]| {
        edits.is_some_and(|edits| edits.drops(name))
            || promise.is_some() && name.eq_ignore_ascii_case(STRICT_TRANSPORT.as_bytes())
    };
    for (name, value, known) in head.fields.iter() {
        let passes = match known {
            Known::Trailer => trailers,
            Known::HopByHop
            | Known::Nominated
            | Known::Connection
            | Known::Te
            | Known::Upgrade
            | Known::TransferEncoding
            | Known::ContentLength => false,
            _ => true,
        };
        if passes && !drops(name) {
            emit(name, value);
        }
    }
    emit(b"via", via(head.version));
    if let Some(cookie) = &additions.cookie {
        emit(b"set-cookie", cookie.as_bytes());
    }
    if let Some(pool) = &additions.rescued_from {
        emit(RESCUED, pool.as_bytes());
    }
    if let Some(fault) = &additions.fault {
        emit(injection::FIELD.as_bytes(), fault.injection.name.as_bytes());
    }
    if let Some(promise) = promise {
        emit(STRICT_TRANSPORT.as_bytes(), promise.as_bytes());
    }
    if let Some(edits) = edits {
        edits.fields.iter().for_each(|(name, value)| emit(name, value));
    }
}

/// Gives the trailer fields that may pass: none that frame, route, authenticate or describe the head (RFC 9110 section 6.5.1).
pub fn trailers(fields: Fields<'_>, mut emit: impl FnMut(&[u8], &[u8])) {
    for (name, value, known) in fields.iter() {
        let describes = |text: &str| name.eq_ignore_ascii_case(text.as_bytes());
        let belongs_to_head = [
            "authorization",
            "cookie",
            "set-cookie",
            "content-type",
            "content-encoding",
            "content-range",
            "cache-control",
            "location",
            "max-forwards",
            "range",
            "if-match",
            "if-none-match",
            "www-authenticate",
        ];
        if known == Known::Other && !belongs_to_head.into_iter().any(describes) {
            emit(name, value);
        }
    }
}

fn via(version: Version) -> &'static [u8] {
    match version {
        Version::Http10 => b"1.0 teal",
        Version::Http11 => b"1.1 teal",
        Version::Http2 => b"2.0 teal",
    }
}
