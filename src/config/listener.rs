//! One listener: where clients connect, and how they are received. An address alone is the short form.
//!
//! Invariant: a listener that redirects to https has no TLS of its own; only one with TLS promises to keep it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::edge::{self, Bind, ProxyProtocol};
use super::report::Problem;
use super::section::{Section, Value};
use super::tls::{self, Hsts, ServerTls, on_or_off};

pub(super) const LISTEN: &[&str] = &["address", "mode", "proxy_protocol", "tls", "hsts", "http2", "redirect_https"];

/// What `https://` without a port means (RFC 9110 section 4.2.2).
pub(super) const HTTPS_PORT: u16 = 443;

/// Where clients connect, and how they are received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub address: Bind,
    /// A header that says whose connection it is must come first; `None` if none may.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// TLS; `None` for plain HTTP.
    pub tls: Option<Arc<ServerTls>>,
    /// Sent with every answer; only beside TLS (RFC 6797 section 7.2).
    pub hsts: Option<Hsts>,
    /// HTTP/2 is spoken beside HTTP/1.1: by ALPN over TLS, by prior knowledge without.
    pub http2: bool,
    /// Every request is answered by 308 to `https://` at this port; never beside TLS.
    pub redirect_https: Option<u16>,
}

impl Listen {
    /// A listener without TLS and with the defaults of everything else.
    pub fn plain(address: SocketAddr) -> Listen {
        Listen::at(Bind::Tcp(address))
    }

    fn at(address: Bind) -> Listen {
        Listen { address, proxy_protocol: None, tls: None, hsts: None, http2: true, redirect_https: None }
    }
}

/// Reads a listener: a mapping, or an address alone.
pub(super) fn listener(value: Value<'_>) -> Option<Listen> {
    if !value.is_mapping() {
        return edge::bind(value, None).map(Listen::at);
    }
    let section = value.section(LISTEN)?;
    let http2 = section.or("http2", true, on_or_off);
    let tls = section.field("tls").map(|v| tls::server(v, http2));
    let hsts = section.or("hsts", None, tls::hsts);
    let redirect_https = section.or("redirect_https", None, redirect);
    if tls.is_some() && redirect_https.is_some() {
        contradicts(&section, "redirect_https", "the listener has TLS already: what would it redirect?");
    }
    if tls.is_none() && hsts.is_some() {
        // RFC 6797 section 7.2: over plain HTTP anybody could have said it.
        contradicts(&section, "hsts", "browsers believe this only over TLS: it belongs on a listener with `tls`");
    }
    let proxy_protocol = section.or("proxy_protocol", None, edge::received);
    let bind = |address| edge::bind(address, section.field("mode"));
    let address = section.required("address", "write `address: 0.0.0.0:8443`", bind)?;
    if tls.is_some() && matches!(address, Bind::Unix(_)) {
        contradicts(&section, "tls", "TLS goes with TCP: whoever reaches a Unix socket is on this machine");
    }
    Some(Listen { address, proxy_protocol, tls: tls.flatten(), hsts, http2, redirect_https })
}

fn contradicts(section: &Section<'_>, key: &'static str, message: &str) {
    if let Some(value) = section.field(key) {
        value.input.report(Problem::new("conflict", value.at, message));
    }
}

/// `true`, `false`, or the port to redirect to.
fn redirect(value: Value<'_>) -> Option<Option<u16>> {
    match () {
        () if value.is("true") => Some(Some(HTTPS_PORT)),
        () if value.is("false") => Some(None),
        () => value.count(1..=u16::MAX).map(Some),
    }
}
