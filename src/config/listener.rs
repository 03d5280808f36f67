//! One listener: where clients connect, and how they are received. An address alone is the short form.
//!
//! Invariant: a listener that redirects to https has no TLS of its own.

use std::net::SocketAddr;

use super::file::socket;
use super::section::Value;

pub(super) const LISTEN: &[&str] = &["address", "http2", "redirect_https"];

/// What `https://` without a port means (RFC 9110 section 4.2.2).
pub(super) const HTTPS_PORT: u16 = 443;

/// Where clients connect, and how they are received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// IP address and port; port 0 is any.
    pub address: SocketAddr,
    /// HTTP/2 is spoken beside HTTP/1.1: by ALPN over TLS, by prior knowledge without.
    pub http2: bool,
    /// Every request is answered by 308 to `https://` at this port; never beside TLS.
    pub redirect_https: Option<u16>,
}

impl Listen {
    /// A listener without TLS and with the defaults of everything else.
    pub fn plain(address: SocketAddr) -> Listen {
        Listen { address, http2: true, redirect_https: None }
    }
}

/// Reads a listener: a mapping, or an address alone.
pub(super) fn listener(value: Value<'_>) -> Option<Listen> {
    if !value.is_mapping() {
        return socket(value).map(Listen::plain);
    }
    let section = value.section(LISTEN)?;
    let http2 = section.or("http2", true, |v| v.choice(&[("on", true), ("off", false)]));
    let redirect_https = section.or("redirect_https", None, redirect);
    let address = section.required("address", "write `address: 0.0.0.0:8443`", socket)?;
    Some(Listen { address, http2, redirect_https })
}

/// `true`, `false`, or the port to redirect to.
fn redirect(value: Value<'_>) -> Option<Option<u16>> {
    match () {
        () if value.is("true") => Some(Some(HTTPS_PORT)),
        () if value.is("false") => Some(None),
        () => value.count(1..=u16::MAX).map(Some),
    }
}
