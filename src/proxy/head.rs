//! Heads: what is refused on arrival, and what is changed on the way up and down.
//!
//! Up: hop-by-hop fields and those the client nominated in `Connection` go, forwarding fields are replaced by
//! what this hop knows, twins of them with `_` or `.` are dropped (upstreams fold them into the same variable),
//! `Via` and a request id are added, `Host` is kept. Down: hop-by-hop fields go, `Via` is added.
//!
//! Invariant: no field that means something for one connection crosses to another.

use std::net::IpAddr;
use std::rc::Rc;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{Method, Request, Response, Uri, Version, request::Parts};
use hyper::body::{Body as _, Incoming};

use crate::domain::retry;
use crate::domain::route::{RequestView, Scheme};
use crate::proxy::body::Upload;
use crate::proxy::connection::Client;
use crate::proxy::error::Fault;
use crate::proxy::recorder;
use crate::proxy::worker::Worker;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");
const HTTP: HeaderValue = HeaderValue::from_static("http");
const OUR_VIA: HeaderValue = HeaderValue::from_static("1.1 teal");
const UPGRADE_TOKEN: HeaderValue = HeaderValue::from_static("upgrade");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Longest request id taken over from a client.
const LONGEST_ID: usize = 128;

/// The id of a request: the client's if it is sane, else ours.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id of a request with these headers.
    pub fn of(headers: &HeaderMap, worker: &Worker) -> RequestId {
        let sane = |value: &&HeaderValue| {
            (1..=LONGEST_ID).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
        };
        let ours = || {
            let mut text = [0; 32];
            let bits = [worker.random(), worker.random()];
            let digits = bits.iter().flat_map(|bits| (0..16).map(move |at| bits >> (60 - 4 * at) & 0xf));
            text.iter_mut().zip(digits).for_each(|(place, digit)| *place = b"0123456789abcdef"[digit as usize]);
            HeaderValue::from_bytes(&text).expect("hex digits are visible")
        };
        RequestId(headers.get(X_REQUEST_ID).filter(sane).cloned().unwrap_or_else(ours))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// A request that was accepted, ready to be sent up.
pub struct Inbound {
    /// The request as it goes up.
    pub request: Box<Request<Upload>>,
    /// Set while there is a body: what becomes of it.
    pub upload: Option<Rc<recorder::Upload>>,
    /// Repeating it has the effect of one.
    pub is_idempotent: bool,
    /// It asks for a WebSocket.
    pub wants_tunnel: bool,
}

/// Checks a request and makes it fit to be sent up.
///
/// # Errors
/// The client's fault.
pub fn accept(request: Request<Incoming>, client: &Client, id: &RequestId) -> Result<Inbound, Fault> {
    let (mut parts, incoming) = request.into_parts();
    refuse(&parts)?;
    let wants_tunnel = wants_websocket(&parts);
    if wants_tunnel && !incoming.is_end_stream() {
        return Err(Fault::BadRequest("an upgrade with a body"));
    }
    to_origin_form(&mut parts)?;
    drop_hop_by_hop(&mut parts.headers);
    if wants_tunnel {
        parts.headers.insert(CONNECTION, UPGRADE_TOKEN);
        parts.headers.insert(UPGRADE, WEBSOCKET);
    }
    forwarding(&mut parts.headers, client, id);
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let is_idempotent = retry::is_idempotent(parts.method.as_str());
    let (body, upload) = if incoming.is_end_stream() {
        (Upload::Empty, None)
    } else {
        if incoming.size_hint().exact().is_none() {
            // Said outright: by itself hyper takes a GET for bodiless and would send up nothing.
            parts.headers.insert(TRANSFER_ENCODING, CHUNKED);
        }
        let report = Rc::new(recorder::Upload::default());
        (Upload::Stream { incoming, report: Rc::clone(&report) }, Some(report))
    };
    let request = Box::new(Request::from_parts(parts, body));
    Ok(Inbound { request, upload, is_idempotent, wants_tunnel })
}

/// What a gateway must not forward, or cannot forward without guessing.
fn refuse(parts: &Parts) -> Result<(), Fault> {
    if matches!(parts.method, Method::CONNECT | Method::TRACE) {
        return Err(Fault::Method);
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Fault::BadRequest("more than one Host"));
    }
    if host.is_none() && parts.version == Version::HTTP_11 {
        return Err(Fault::BadRequest("no Host"));
    }
    if host.is_some_and(|host| !is_host(host.as_bytes())) {
        return Err(Fault::BadRequest("an invalid Host"));
    }
    // Of a Content-Length beside a Transfer-Encoding nothing is left here: hyper drops it and writes its own.
    if parts.headers.contains_key(TRANSFER_ENCODING) && parts.version != Version::HTTP_11 {
        return Err(Fault::BadRequest("a transfer encoding in HTTP/1.0"));
    }
    Ok(())
}

/// `uri-host [ ":" port ]` in the characters of RFC 3986 section 3.2.2, without userinfo or escapes.
fn is_host(host: &[u8]) -> bool {
    host.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']' | b'~'))
}

fn wants_websocket(parts: &Parts) -> bool {
    let Some(token) = parts.headers.get(UPGRADE) else { return false };
    token.as_bytes().eq_ignore_ascii_case(b"websocket")
        && parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && nominated(&parts.headers).any(|name| name.eq_ignore_ascii_case("upgrade"))
}

/// Absolute-form becomes origin-form, and its authority the Host (RFC 9112 section 3.2.2).
fn to_origin_form(parts: &mut Parts) -> Result<(), Fault> {
    let Some(authority) = parts.uri.authority() else { return Ok(()) };
    let host = HeaderValue::try_from(authority.as_str()).ok().filter(|host| is_host(host.as_bytes()));
    let host = host.ok_or(Fault::BadRequest("an invalid target"))?;
    parts.headers.insert(HOST, host);
    let path = parts.uri.path_and_query().cloned();
    let path = path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    parts.uri = Uri::from(path);
    Ok(())
}

/// The names that `Connection` nominates.
fn nominated(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

/// Drops what concerns one connection only (RFC 9110 section 7.6.1). The framing is hyper's to write anew.
fn drop_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let names: Vec<HeaderName> = nominated(headers).filter_map(|name| name.parse().ok()).collect();
        // A client must not be able to strip what decides about the message itself.
        let keeps = |name: &HeaderName| matches!(*name, HOST | CONTENT_LENGTH);
        names.iter().filter(|name| !keeps(name)).for_each(|name| drop(headers.remove(name)));
    }
    drop_where(headers, |name| {
        matches!(
            name,
            "connection"
                | "keep-alive"
                | "proxy-connection"
                | "proxy-authenticate"
                | "proxy-authorization"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
        )
    });
}

/// Drops the fields whose names `odd` picks: one pass over the names, and a lookup only for what is there.
fn drop_where(headers: &mut HeaderMap, odd: impl Fn(&str) -> bool) {
    while let Some(name) = headers.keys().find(|name| odd(name.as_str())).cloned() {
        headers.remove(name);
    }
}

/// Replaces what says where the request came from.
fn forwarding(headers: &mut HeaderMap, client: &Client, id: &RequestId) {
    drop_where(headers, |name| is_ours_to_say(name) || is_twin(name));
    if let Some(host) = headers.get(HOST).cloned() {
        headers.insert(X_FORWARDED_HOST, host);
    }
    headers.insert(X_FORWARDED_FOR, client.forwarded_for.clone());
    headers.insert(X_FORWARDED_PROTO, HTTP);
    headers.insert(X_REQUEST_ID, id.0.clone());
    headers.append(VIA, OUR_VIA);
}

/// Fields of which only the last hop's word counts, and `Expect`: we answer 100-continue ourselves, when the
/// upstream first asks for the body.
fn is_ours_to_say(name: &str) -> bool {
    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip" | "expect")
}

/// Names that upstreams may read as one of ours once `_` and `.` are folded to `-`.
fn is_twin(name: &str) -> bool {
    name.bytes().any(|b| matches!(b, b'_' | b'.')) && {
        let folded = name.replace(['_', '.'], "-");
        let managed = ["x-request-id", "host", "via", "content-length", "transfer-encoding", "connection"];
        is_ours_to_say(&folded) || managed.contains(&&*folded)
    }
}

/// Makes an upstream's head fit to be sent down. `tunnel` keeps the fields of the switch.
pub fn downwards<B>(response: &mut Response<B>, tunnel: bool) {
    let headers = response.headers_mut();
    if headers.contains_key(TRANSFER_ENCODING) {
        // The body was framed by the encoding; a length beside it is a lie (RFC 9112 section 6.3) that hyper would cut by.
        headers.remove(CONTENT_LENGTH);
    }
    let trailer = headers.get(TRAILER).cloned();
    drop_hop_by_hop(headers);
    if let Some(trailer) = trailer {
        headers.insert(TRAILER, trailer);
    }
    if tunnel {
        headers.insert(CONNECTION, UPGRADE_TOKEN);
        headers.insert(UPGRADE, WEBSOCKET);
    }
    headers.append(VIA, OUR_VIA);
    *response.version_mut() = Version::HTTP_11;
}

/// A request head as the decisions see it.
pub struct View<'a> {
    request: &'a Request<Upload>,
    client: IpAddr,
}

impl<'a> View<'a> {
    /// The view of a request from `client`.
    pub fn new(request: &'a Request<Upload>, client: &Client) -> View<'a> {
        View { request, client: client.peer.ip() }
    }
}

impl RequestView for View<'_> {
    fn method(&self) -> &str {
        self.request.method().as_str()
    }

    fn path(&self) -> &str {
        self.request.uri().path()
    }

    fn query(&self) -> &str {
        self.request.uri().query().unwrap_or_default()
    }

    fn host(&self) -> &str {
        let host = self.request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        match host.rfind(':') {
            // A bracketed address has colons of its own.
            Some(at) if !host[at..].contains(']') => &host[..at],
            _ => host,
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.request.headers().get(name).and_then(|value| value.to_str().ok())
    }

    fn client(&self) -> IpAddr {
        self.client
    }

    fn scheme(&self) -> Scheme {
        Scheme::Http
    }
}
