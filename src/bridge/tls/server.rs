//! The server side of one listener: certificates by name, client certificates, resumption.
//!
//! Tickets only, no session cache: a cache would be a lock that all workers share, and tickets are enough for every
//! client of TLS 1.2 and 1.3. No early data: it can be replayed, and a request must not happen twice.
//!
//! Invariant: tickets are carried over to new material only if it trusts the same clients in the same way; else a
//! client that is not welcome any more could resume a session from when it was.

use std::sync::Arc;

use tokio_rustls::rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig, SupportedProtocolVersion, crypto::aws_lc_rs::Ticketer, version};

use super::client::store_of;
use super::names::Names;
use crate::config::settings::tls::{Alpn, ClientAuth, Roots, ServerTls, TlsVersion, provider};

/// The TLS of one listener.
#[derive(Debug)]
pub struct Server {
    /// What it was made from.
    pub settings: Arc<ServerTls>,
    /// For every new connection.
    pub config: Arc<ServerConfig>,
    tickets: Option<Arc<dyn ProducesTickets>>,
}

impl Server {
    /// Makes the server side; `before` is the same listener's until now, whose sessions may go on.
    ///
    /// # Errors
    /// In words, when authorities of clients cannot be used or there is no randomness.
    pub fn new(settings: &Arc<ServerTls>, before: Option<&Server>) -> Result<Server, String> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|error| error.to_string())?;
        let builder = match &settings.client_auth {
            ClientAuth::Off => builder.with_no_client_auth(),
            ClientAuth::Optional(roots) => builder.with_client_cert_verifier(verifier(roots, true)?),
            ClientAuth::Required(roots) => builder.with_client_cert_verifier(verifier(roots, false)?),
        };
        let items = settings.certificates.iter().map(|known| (Arc::clone(&known.certified), &known.names[..]));
        let mut config = builder.with_cert_resolver(Arc::new(Certificates(Names::new(items))));
        config.alpn_protocols = settings.alpn.iter().map(|protocol| protocol.id().to_vec()).collect();
        if settings.alpn.contains(&Alpn::Http1) {
            // What serves 1.1 serves 1.0, and some clients (`curl --http1.0`) ask for nothing else.
            config.alpn_protocols.push(b"http/1.0".to_vec());
        }
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let tickets = match before.filter(|before| is_as_strict(&before.settings, settings)) {
            _ if !settings.resumption => None,
            Some(Server { tickets: Some(tickets), .. }) => Some(Arc::clone(tickets)),
            _ => Some(Ticketer::new().map_err(|error| error.to_string())?),
        };
        match &tickets {
            Some(tickets) => config.ticketer = Arc::clone(tickets),
            None => config.send_tls13_tickets = 0,
        }
        Ok(Server { settings: Arc::clone(settings), config: Arc::new(config), tickets })
    }
}

/// A session made under `before` says as much about a client as one under `after`.
fn is_as_strict(before: &ServerTls, after: &ServerTls) -> bool {
    before.client_auth == after.client_auth && before.min_version == after.min_version
}

/// The versions from `least` on.
pub(super) fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_12: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match least {
        TlsVersion::Tls12 => &FROM_12,
        TlsVersion::Tls13 => &FROM_12[..1],
    }
}

fn verifier(roots: &Roots, optional: bool) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store_of(&roots.certificates)), provider());
    let builder = if optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|error| format!("`{}`: {error}", roots.file.display()))
}

/// Picks the certificate: by name, then the first whose signature the client can check.
#[derive(Debug)]
struct Certificates(Names<Arc<CertifiedKey>>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = self.0.find(hello.server_name());
        let can_check = |known: &&Arc<CertifiedKey>| known.key.choose_scheme(hello.signature_schemes()).is_some();
        candidates.iter().find(can_check).or(candidates.first()).cloned()
    }
}
