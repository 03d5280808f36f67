//! How the endpoints of one pool are spoken to: their scheme, TLS, and the protocol.
//!
//! Invariant: a pool has TLS exactly if its endpoints are `https://`, and all of them or none are; every name that a
//! certificate will be checked against can be one.

use std::sync::Arc;

use tokio_rustls::rustls::pki_types::ServerName;

use super::report::{Problem, Span};
use super::section::{Section, Value};
use super::settings::{Address, Endpoint, Pool, Protocol, Resolve};
use super::{edge, tls};

/// Reads what a pool says beside its endpoints.
pub(super) fn pool(section: &Section<'_>, endpoints: Option<Vec<(Endpoint, Span)>>) -> Option<Pool> {
    let value = section.value();
    let tls = section.field("tls").map(tls::upstream);
    let protocol = section.or("protocol", Protocol::default(), protocol);
    let resolve = section.or("resolve", Resolve::default(), edge::resolve);
    let proxy_protocol = section.or("proxy_protocol", None, edge::sent);
    let endpoints = endpoints?;
    let named = tls.iter().flatten().any(|tls| tls.server_name.is_some());
    if !named {
        endpoints
            .iter()
            .filter(|(endpoint, _)| endpoint.address.tls)
            .try_for_each(|(endpoint, at)| can_be_named(value, &endpoint.address, *at))?;
    }
    let pool = Pool::new(value.name, of_one_scheme(value, endpoints)?);
    if let (Some(at), None) = (section.field("tls"), &pool.tls) {
        let problem = Problem::new("conflict", at.at, "the endpoints are `http://`, so `tls` would have no meaning");
        return value.refuse(problem.help("write `https://` before every endpoint, or leave `tls` out"));
    }
    if let (Protocol::Auto, None, Some(at)) = (protocol, &pool.tls, section.field("protocol")) {
        let problem = Problem::new("conflict", at.at, "without TLS there is nothing to choose the protocol by");
        return value.refuse(problem.help("write `protocol: h1` or `protocol: h2`, or endpoints with `https://`"));
    }
    if let (true, Some(at)) = (protocol != Protocol::Http1 && proxy_protocol.is_some(), section.field("proxy_protocol"))
    {
        let problem =
            Problem::new("conflict", at.at, "the PROXY protocol gives a connection to one client, HTTP/2 to many");
        return value.refuse(problem.help("write `protocol: h1`, or `proxy_protocol: off`"));
    }
    let tls = match tls {
        Some(read) => Some(Arc::new(read?)),
        None => pool.tls,
    };
    Some(Pool { tls, protocol, resolve, proxy_protocol, ..pool })
}

/// The endpoints, if all of them are `https://` or none is.
pub(super) fn of_one_scheme(value: Value<'_>, endpoints: Vec<(Endpoint, Span)>) -> Option<Vec<Endpoint>> {
    let first = endpoints.first().map(|(endpoint, at)| (endpoint.address.tls, *at));
    let other = endpoints.iter().find(|(endpoint, _)| first.is_some_and(|(tls, _)| tls != endpoint.address.tls));
    if let (Some((_, first_at)), Some((_, at))) = (first, other) {
        let problem = Problem::new("conflict", *at, "a pool speaks TLS to all of its endpoints or to none");
        return value.refuse(problem.related(first_at, "the first one"));
    }
    Some(endpoints.into_iter().map(|(endpoint, _)| endpoint).collect())
}

fn can_be_named(value: Value<'_>, address: &Address, at: Span) -> Option<()> {
    match ServerName::try_from(address.host().trim_end_matches('.')) {
        Ok(_) => Some(()),
        Err(_) => {
            let problem = Problem::new("bad_value", at, "no certificate can be issued for such a host");
            value.refuse(problem.help("say which name the certificate has: `tls: { server_name: shop.internal }`"))
        }
    }
}

fn protocol(value: Value<'_>) -> Option<Protocol> {
    value.choice(&[("h1", Protocol::Http1), ("h2", Protocol::Http2), ("auto", Protocol::Auto)])
}
