//! TLS as the file describes it: certificates, whom to trust, versions; read from their files and checked at load.
//!
//! Certificates and keys are part of the settings, not just their paths: a renewed certificate makes other settings,
//! so a reload takes it up although the text of the configuration is the same.
//!
//! Invariant: the key of an [`Identity`] belongs to its certificate, and every certificate here parses.

#[cfg(test)]
pub(crate) mod desk;
mod files;
#[cfg(test)]
pub(crate) mod forge;
mod reader;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio_rustls::rustls::crypto::aws_lc_rs::{self, kx_group};
use tokio_rustls::rustls::crypto::{CryptoProvider, hash};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::sign::CertifiedKey;

use super::settings::Settings;
use crate::domain::route::HostPattern;

#[cfg(test)]
pub(super) use reader::{CERTIFICATE, HSTS, POOL_TLS, TLS};
pub(super) use reader::{hsts, on_or_off, server, upstream};

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// At least one; the first answers a client that names no host or one that no certificate has.
    pub certificates: Vec<Identity>,
    /// Older clients are refused.
    pub min_version: TlsVersion,
    /// Whether clients show certificates.
    pub client_auth: ClientAuth,
    /// What is offered by ALPN, best first; at least one.
    pub alpn: Vec<Alpn>,
    /// Clients may resume a session without a full handshake.
    pub resumption: bool,
}

/// TLS towards the endpoints of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Who vouches for an endpoint.
    pub trust: Trust,
    /// The name asked for and checked, in place of each endpoint's host.
    pub server_name: Option<String>,
    /// What is shown to endpoints that ask for a certificate.
    pub identity: Option<Identity>,
    /// Older endpoints are refused.
    pub min_version: TlsVersion,
}

impl Default for UpstreamTls {
    fn default() -> UpstreamTls {
        UpstreamTls { trust: Trust::System, server_name: None, identity: None, min_version: TlsVersion::Tls12 }
    }
}

/// A version of the protocol; older ones are broken (RFC 8996) and not spoken at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2, RFC 5246.
    Tls12,
    /// TLS 1.3, RFC 8446.
    Tls13,
}

/// Whether clients show certificates. One that is shown is always verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    Off,
    /// They are asked, and may come without.
    Optional(Roots),
    /// They do not get in without.
    Required(Roots),
}

/// Who vouches for an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whom the system trusts.
    System,
    /// Only these.
    Roots(Roots),
    /// Nobody has to: whoever answers is believed.
    Unverified,
}

/// A protocol offered by ALPN (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// `h2`.
    Http2,
    /// `http/1.1`.
    Http1,
}

impl Alpn {
    /// The registered identifier.
    pub fn id(self) -> &'static [u8] {
        match self {
            Alpn::Http2 => b"h2",
            Alpn::Http1 => b"http/1.1",
        }
    }
}

/// What a browser is told to remember: to come by https only (RFC 6797).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hsts {
    /// For how long, in whole seconds.
    pub max_age: Duration,
    /// It holds for every name below the host's.
    pub include_subdomains: bool,
    /// The host may be built into browsers.
    pub preload: bool,
}

impl Hsts {
    /// The value of `Strict-Transport-Security`.
    pub fn field(&self) -> String {
        let subdomains = if self.include_subdomains { "; includeSubDomains" } else { "" };
        let preload = if self.preload { "; preload" } else { "" };
        format!("max-age={}{subdomains}{preload}", self.max_age.as_secs())
    }
}

/// A certificate with its chain and key. Equal if all bytes and names are.
#[derive(Clone)]
pub struct Identity {
    /// Where the certificate was read.
    pub file: PathBuf,
    /// Chain, key and, if given, an OCSP response.
    pub certified: Arc<CertifiedKey>,
    /// The hosts it answers for; a wildcard stands for one label here (RFC 9525 section 6.3).
    pub names: Vec<HostPattern>,
    /// When the certificate expires, in seconds since 1970.
    pub not_after: i64,
    /// Every file it was read from.
    files: Vec<PathBuf>,
    /// SHA-256 over everything that was read.
    digest: [u8; 32],
}

impl PartialEq for Identity {
    fn eq(&self, other: &Identity) -> bool {
        (&self.digest, &self.names, &self.files) == (&other.digest, &other.names, &other.files)
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key, and nobody wants to read DER.
        f.debug_struct("Identity").field("file", &self.file).field("names", &self.names).finish_non_exhaustive()
    }
}

/// Ahead of the end of a certificate by this much somebody should know: renewals run a month before, as a rule.
const SOON: i64 = 14 * DAY;
const DAY: i64 = 86_400;

impl Identity {
    /// What is worrying about its time of expiry, `now` in seconds since 1970.
    pub fn worry(&self, now: i64) -> Option<String> {
        let file = self.file.display();
        let left = self.not_after - now;
        match left {
            ..0 => Some(format!("the certificate in `{file}` has expired {}", days(-left, "ago"))),
            0..SOON => Some(format!("the certificate in `{file}` expires in {}", days(left, "")).trim_end().to_owned()),
            _ => None,
        }
    }
}

fn days(seconds: i64, end: &str) -> String {
    match seconds / DAY {
        0 => format!("less than a day {end}"),
        1 => format!("1 day {end}"),
        days => format!("{days} days {end}"),
    }
}

/// Certificates of authorities. Equal if their bytes are.
#[derive(Clone, PartialEq, Eq)]
pub struct Roots {
    /// Where they were read.
    pub file: PathBuf,
    /// At least one; each can be a trust anchor.
    pub certificates: Arc<Vec<CertificateDer<'static>>>,
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({}: {})", self.file.display(), self.certificates.len())
    }
}

impl Settings {
    /// Certificates with keys, of listeners and of pools.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        let servers = self.listen.iter().filter_map(|listener| listener.tls.as_deref());
        let upstreams = self.upstream_tls().filter_map(|tls| tls.identity.as_ref());
        servers.flat_map(|tls| &tls.certificates).chain(upstreams)
    }

    /// Every file beside the configuration whose change is a change of the settings.
    pub fn files(&self) -> Vec<&Path> {
        let client_roots = self.listen.iter().filter_map(|listener| match &listener.tls.as_deref()?.client_auth {
            ClientAuth::Off => None,
            ClientAuth::Optional(roots) | ClientAuth::Required(roots) => Some(roots),
        });
        let upstream_roots = self.upstream_tls().filter_map(|tls| match &tls.trust {
            Trust::Roots(roots) => Some(roots),
            Trust::System | Trust::Unverified => None,
        });
        let roots = client_roots.chain(upstream_roots).map(|roots| roots.file.as_path());
        let identities = self.identities().flat_map(|identity| identity.files.iter().map(PathBuf::as_path));
        let mut files: Vec<_> = identities.chain(roots).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    fn upstream_tls(&self) -> impl Iterator<Item = &UpstreamTls> {
        self.services.iter().flat_map(|service| &service.pools).filter_map(|pool| pool.tls.as_deref())
    }
}

/// The one provider of cryptography, with the key exchange that survives a quantum computer first.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
        Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
    });
    Arc::clone(&PROVIDER)
}

/// SHA-256 over the parts, each preceded by its length.
pub fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut context = sha256_provider().start();
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    fixed(context.finish())
}

/// The SHA-256 fingerprint of a certificate, as tools print it: over its DER bytes alone.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    fixed(sha256_provider().hash(certificate))
}

fn sha256_provider() -> &'static dyn hash::Hash {
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13().expect("it is a suite of TLS 1.3");
    suite.common.hash_provider
}

fn fixed(output: hash::Output) -> [u8; 32] {
    output.as_ref().try_into().expect("SHA-256 has 32 bytes")
}
