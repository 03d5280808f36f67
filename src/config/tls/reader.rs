//! The sections `tls` (of listeners and of pools) and `hsts` of the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::files::{self, Blame};
use super::{Alpn, ClientAuth, Hsts, Identity, Roots, ServerTls, TlsVersion, Trust, UpstreamTls};
use crate::config::report::{Problem, Span};
use crate::config::section::{Section, Value};
use crate::config::settings::Address;
use crate::domain::route::HostPattern;

pub(in crate::config) const TLS: &[&str] =
    &["certificates", "min_version", "client_auth", "client_ca", "alpn", "resumption"];
pub(in crate::config) const CERTIFICATE: &[&str] = &["cert", "key", "ocsp", "hosts"];
pub(in crate::config) const HSTS: &[&str] = &["max_age", "include_subdomains", "preload"];
pub(in crate::config) const POOL_TLS: &[&str] =
    &["ca", "server_name", "insecure_skip_verify", "client_cert", "client_key", "min_version"];

/// Certificates of one listener, all read again at every reload.
const MAX_CERTIFICATES: usize = 512;
/// Names given to one certificate by hand.
const MAX_HOSTS: usize = 64;

const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);

/// Reads the TLS of a listener; `http2` says whether it speaks HTTP/2 at all.
pub(in crate::config) fn server(value: Value<'_>, http2: bool) -> Option<Arc<ServerTls>> {
    let section = value.section(TLS)?;
    let help = "write `certificates: { cert: shop.crt, key: shop.key }`";
    let certificates = section.required("certificates", help, certificates);
    let client_auth = client_auth(&section);
    let min_version = section.or("min_version", TlsVersion::Tls12, version);
    let offered = if http2 { vec![Alpn::Http2, Alpn::Http1] } else { vec![Alpn::Http1] };
    let alpn = section.or("alpn", offered, |v| alpn(v, http2));
    let resumption = section.or("resumption", true, on_or_off);
    Some(Arc::new(ServerTls { certificates: certificates?, min_version, client_auth: client_auth?, alpn, resumption }))
}

fn certificates(value: Value<'_>) -> Option<Vec<Identity>> {
    let items = match value.is_mapping() {
        true => vec![value],
        false => {
            let expected = "a certificate and its key, `{ cert: FILE, key: FILE }`, or a list of such pairs";
            value.one_or_more(MAX_CERTIFICATES, expected)?
        }
    };
    let count = items.len();
    let read: Vec<_> = items.into_iter().enumerate().filter_map(|(at, item)| certificate(item, at == 0)).collect();
    (read.len() == count).then_some(read)
}

fn certificate(value: Value<'_>, is_first: bool) -> Option<Identity> {
    let section = value.section(CERTIFICATE)?;
    let hosts = section.field("hosts").map(hosts);
    let ocsp = section.field("ocsp").map(|v| file(v, "a file in DER"));
    let cert = section.required("cert", "write `cert: shop.crt`, with the chain behind the certificate", pem);
    let key = section.required("key", "write `key: shop.key`", pem);
    let identity = identity(&section, ["cert", "key"], &cert?, &key?, ocsp.flatten().as_deref(), hosts.flatten())?;
    if identity.names.is_empty() && !is_first {
        let at = section.field("cert").unwrap_or(value);
        let problem = at.problem("certificate", "the certificate names no host, so no client would be shown it");
        return value.refuse(problem.help("say for whom it is by `hosts`, or put it first as the default"));
    }
    Some(identity)
}

/// Reads an identity and puts the blame where the file is named.
fn identity(
    section: &Section<'_>,
    [cert_name, key_name]: [&'static str; 2],
    cert: &Path,
    key: &Path,
    ocsp: Option<&Path>,
    hosts: Option<Vec<HostPattern>>,
) -> Option<Identity> {
    let at = |name: &'static str| section.field(name).map_or(Span::default(), |value| value.node.span);
    let problem = match files::identity(cert, key, ocsp, hosts) {
        Ok(identity) => return Some(identity),
        Err(Blame::Certificate(why)) => Problem::new("certificate", at(cert_name), why),
        Err(Blame::Key(why)) => Problem::new("certificate", at(key_name), why),
        Err(Blame::Ocsp(why)) => Problem::new("certificate", at("ocsp"), why),
        Err(Blame::Mismatch) => {
            let message = "the key does not belong to the certificate, which must be the first of its file";
            Problem::new("certificate", at(key_name), message).related(at(cert_name), "this certificate")
        }
    };
    section.value().refuse(problem)
}

fn hosts(value: Value<'_>) -> Option<Vec<HostPattern>> {
    let expected = "a host such as `shop.example.com`, or a list of them";
    let items = value.one_or_more(MAX_HOSTS, expected)?;
    Some(items.into_iter().filter_map(|item| item.parsed("a host such as `shop.example.com`")).collect())
}

fn client_auth(section: &Section<'_>) -> Option<ClientAuth> {
    let words = [("off", None), ("optional", Some(true)), ("required", Some(false))];
    let optional = section.or("client_auth", None, |v| v.choice(&words));
    match (optional, section.field("client_ca")) {
        (None, None) => Some(ClientAuth::Off),
        (None, Some(ca)) => {
            let problem = Problem::new("conflict", ca.at, "`client_ca` is given, but clients are not asked");
            ca.refuse(problem.help("write `client_auth: required` or `client_auth: optional` beside it"))
        }
        (Some(_), None) => {
            let auth = section.field("client_auth").map_or(section.value().at, |value| value.at);
            let problem = Problem::new("missing_key", auth, "who vouches for clients? the key `client_ca` is missing");
            section.value().refuse(problem.help("write `client_ca: clients.crt`"))
        }
        (Some(true), Some(ca)) => roots(ca).map(ClientAuth::Optional),
        (Some(false), Some(ca)) => roots(ca).map(ClientAuth::Required),
    }
}

fn alpn(value: Value<'_>, http2: bool) -> Option<Vec<Alpn>> {
    let words = [("h2", Alpn::Http2), ("http/1.1", Alpn::Http1)];
    let items = value.one_or_more(words.len(), "`h2`, `http/1.1`, or both in a list")?;
    let mut offered = Vec::new();
    for item in items {
        let protocol = item.choice(&words)?;
        if protocol == Alpn::Http2 && !http2 {
            return value.refuse(item.problem("conflict", "`h2` is offered, but the listener says `http2: off`"));
        }
        if offered.contains(&protocol) {
            return value.refuse(item.problem("duplicate", "this is listed twice in `alpn`"));
        }
        offered.push(protocol);
    }
    Some(offered)
}

/// `off`, or a mapping.
pub(in crate::config) fn hsts(value: Value<'_>) -> Option<Option<Hsts>> {
    if value.is("off") {
        return Some(None);
    }
    let section = value.section(HSTS)?;
    let hsts = Hsts {
        max_age: section.or("max_age", YEAR, |v| v.duration(Duration::ZERO..=2 * YEAR + DAY)),
        include_subdomains: section.or("include_subdomains", false, Value::boolean),
        preload: section.or("preload", false, Value::boolean),
    };
    if hsts.preload && !(hsts.include_subdomains && hsts.max_age >= YEAR) {
        let at = section.field("preload").map_or(value.at, |preload| preload.at);
        let problem =
            Problem::new("conflict", at, "browsers preload a host only for a year or more, subdomains included");
        return value.refuse(problem.help("add `include_subdomains: true` and `max_age: 365days`, or leave it out"));
    }
    Some(Some(hsts))
}

/// Reads the TLS towards a pool's endpoints.
pub(in crate::config) fn upstream(value: Value<'_>) -> Option<UpstreamTls> {
    let section = value.section(POOL_TLS)?;
    let default = UpstreamTls::default();
    let skip = section.or("insecure_skip_verify", false, Value::boolean);
    let system = |v: Value<'_>| if v.is("system") { Some(Trust::System) } else { roots(v).map(Trust::Roots) };
    let trust = match section.field("ca") {
        Some(ca) if skip => {
            let at = section.field("insecure_skip_verify").map_or(ca.at, |value| value.at);
            let problem = Problem::new("conflict", at, "nobody is verified, yet `ca` says by whom");
            return value.refuse(problem.related(ca.at, "this one").help("leave one of them out"));
        }
        None if skip => Some(Trust::Unverified),
        Some(ca) => system(ca),
        None => Some(default.trust),
    };
    let server_name = section.read("server_name", server_name);
    let min_version = section.or("min_version", default.min_version, version);
    let identity = match (section.read("client_cert", pem), section.read("client_key", pem)) {
        (Some(cert), Some(key)) => identity(&section, ["client_cert", "client_key"], &cert, &key, None, None).map(Some),
        _ => alone(&section),
    };
    Some(UpstreamTls { trust: trust?, server_name, identity: identity?, min_version })
}

/// A client certificate without its key, or the other way round; nothing if there is neither.
fn alone(section: &Section<'_>) -> Option<Option<Identity>> {
    match (section.field("client_cert"), section.field("client_key")) {
        (Some(one), None) => missing(one, "client_key"),
        (None, Some(one)) => missing(one, "client_cert"),
        (None, None) => Some(None),
        // Both are there, and what is wrong was reported.
        (Some(_), Some(_)) => None,
    }
}

fn missing<T>(beside: Value<'_>, key: &str) -> Option<T> {
    let message = format!("`{}` is of no use without `{key}`", beside.name);
    beside.refuse(Problem::new("missing_key", beside.at, message))
}

/// A name that a certificate can be asked for: a host or an IP address.
fn server_name(value: Value<'_>) -> Option<String> {
    let expected = "a host such as `shop.internal`, or an IP address";
    let text = value.text(expected)?;
    // The same rules as for an endpoint's host.
    let address = if text.contains(':') { format!("https://[{text}]") } else { format!("https://{text}") };
    match address.parse::<Address>() {
        Ok(address) if !text.contains(['[', '/', '@']) => Some(address.host().to_owned()),
        _ => value.refuse(value.problem("bad_value", format!("`{}` needs {expected}", value.name))),
    }
}

fn roots(value: Value<'_>) -> Option<Roots> {
    files::roots(&pem(value)?).map_err(|why| value.input.report(value.problem("certificate", why))).ok()
}

fn pem(value: Value<'_>) -> Option<PathBuf> {
    file(value, "a file in PEM")
}

fn file(value: Value<'_>, expected: &str) -> Option<PathBuf> {
    let path = value.path(expected)?;
    value.input.files.borrow_mut().push(path.clone());
    Some(path)
}

fn version(value: Value<'_>) -> Option<TlsVersion> {
    value.choice(&[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)])
}

/// `on` or `off`.
pub(in crate::config) fn on_or_off(value: Value<'_>) -> Option<bool> {
    value.choice(&[("on", true), ("off", false)])
}
