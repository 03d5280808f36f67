//! The client side of one pool: whom to trust, what to show, what to ask for; and the handshake itself.
//!
//! Invariant: a stream from [`Connector::connect`] is verified as the pool says, and speaks a protocol the pool wants.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::server::versions;
use crate::config::settings::tls::{Alpn, Trust, UpstreamTls, provider};
use crate::config::settings::{Address, Protocol};

/// Sessions kept per pool, to resume with: more than endpoints of any pool.
const SESSIONS: usize = 256;

/// The TLS towards one pool.
#[derive(Debug)]
pub struct Connector {
    /// What it was made from.
    pub settings: Arc<UpstreamTls>,
    /// What it asks for by ALPN.
    pub protocol: Protocol,
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

/// Whom the system trusts; read at the first question.
#[derive(Debug, Default)]
pub struct SystemRoots(OnceLock<Result<Arc<RootCertStore>, String>>);

impl Connector {
    /// Makes the client side.
    ///
    /// # Errors
    /// In words, when the system trusts nobody although it has to be asked.
    pub fn new(settings: &Arc<UpstreamTls>, protocol: Protocol, system: &SystemRoots) -> Result<Connector, String> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|error| error.to_string())?;
        let verify = |roots: Arc<RootCertStore>| {
            WebPkiServerVerifier::builder_with_provider(roots, provider()).build().map_err(|error| error.to_string())
        };
        let builder = match &settings.trust {
            Trust::System => builder.with_webpki_verifier(verify(system.store()?)?),
            Trust::Roots(roots) => builder.with_webpki_verifier(verify(Arc::new(store_of(&roots.certificates)))?),
            Trust::Unverified => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody)),
        };
        let mut config = match &settings.identity {
            Some(identity) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from((*identity.certified).clone())))
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        config.alpn_protocols = identifiers(protocol);
        let server_name =
            settings.server_name.as_deref().map(name_of).transpose().map_err(|error| error.to_string())?;
        Ok(Connector { settings: Arc::clone(settings), protocol, config: Arc::new(config), server_name })
    }

    /// Shakes hands over an open connection to `address`. The caller sets the limit of time.
    ///
    /// # Errors
    /// Of kind `InvalidData` when the endpoint is not whom it should be or does not speak what the pool wants; else
    /// as the connection fails.
    pub async fn connect<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        address: &Address,
        stream: IO,
    ) -> io::Result<TlsStream<IO>> {
        self.connect_for(self.protocol, address, stream).await
    }

    /// Like [`Connector::connect`], for something that needs one of the pool's protocols in particular.
    ///
    /// # Errors
    /// As [`Connector::connect`].
    pub async fn connect_for<IO: AsyncRead + AsyncWrite + Unpin>(
        &self,
        protocol: Protocol,
        address: &Address,
        stream: IO,
    ) -> io::Result<TlsStream<IO>> {
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => name_of(address.host())?,
        };
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = match protocol == self.protocol {
            true => connector.connect(name, stream).await?,
            false => connector.with_alpn(identifiers(protocol)).connect(name, stream).await?,
        };
        if protocol == Protocol::Http2 && !is_http2(&stream) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the endpoint does not speak HTTP/2"));
        }
        Ok(stream)
    }
}

/// True if HTTP/2 was agreed on; without an agreement it is HTTP/1.1 (RFC 9113 section 3.2).
pub fn is_http2<IO>(stream: &TlsStream<IO>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(Alpn::Http2.id())
}

impl SystemRoots {
    fn store(&self) -> Result<Arc<RootCertStore>, String> {
        let read = || {
            let found = rustls_native_certs::load_native_certs();
            let store = store_of(&found.certs);
            match store.is_empty() {
                false => Ok(Arc::new(store)),
                true => Err("the system trusts no authority: say by `ca` whom to trust".to_owned()),
            }
        };
        self.0.get_or_init(read).clone()
    }
}

/// The authorities that can be trust anchors; of a system's list a few never can.
pub(super) fn store_of(certificates: &[CertificateDer<'static>]) -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(certificates.iter().cloned());
    store
}

fn identifiers(protocol: Protocol) -> Vec<Vec<u8>> {
    offered(protocol).iter().map(|offer| offer.id().to_vec()).collect()
}

fn offered(protocol: Protocol) -> &'static [Alpn] {
    match protocol {
        Protocol::Http1 => &[Alpn::Http1],
        Protocol::Http2 => &[Alpn::Http2],
        Protocol::Auto => &[Alpn::Http2, Alpn::Http1],
    }
}

/// A host as certificates name it: without the dot that ends a full DNS name.
fn name_of(host: &str) -> io::Result<ServerName<'static>> {
    let name = ServerName::try_from(host.trim_end_matches('.').to_owned());
    name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Believes whoever answers. The handshake's signatures are checked all the same: nothing is gained by garbage.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
