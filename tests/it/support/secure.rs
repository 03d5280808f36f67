//! TLS for tests, on either side, over blocking sockets: an independent hand would be better, so the drills have one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned, crypto,
};

use super::super::forge::{Authority, Pair};

/// A client that trusts one authority.
#[derive(Clone)]
pub struct Trusting(Arc<ClientConfig>);

/// A server that shows one certificate.
pub struct Serving(Arc<ServerConfig>);

impl Trusting {
    /// Shows no certificate of its own.
    pub fn of(authority: &Authority) -> Trusting {
        Trusting::made(authority, None)
    }

    /// Shows this certificate.
    pub fn showing(authority: &Authority, own: &Pair) -> Trusting {
        Trusting::made(authority, Some(own))
    }

    fn made(authority: &Authority, own: Option<&Pair>) -> Trusting {
        let builder = ClientConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots(authority));
        let mut config = match own {
            Some(pair) => builder.with_client_auth_cert(chain(pair), key(pair)).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Trusting(Arc::new(config))
    }

    /// A stream that asks for `name`; it shakes hands with the first byte either way.
    pub fn over(&self, stream: TcpStream, name: &str) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        StreamOwned::new(ClientConnection::new(Arc::clone(&self.0), name).unwrap(), stream)
    }

    /// The certificate that a server shows for `name`, or why there is none.
    ///
    /// # Errors
    /// The handshake's, in words.
    pub fn shown(&self, mut stream: TcpStream, name: &str) -> Result<Vec<u8>, String> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::clone(&self.0), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream).map_err(|error| error.to_string())?;
        }
        Ok(connection.peer_certificates().unwrap()[0].to_vec())
    }
}

impl Serving {
    /// Asks nobody for a certificate.
    pub fn with(pair: &Pair) -> Arc<Serving> {
        let builder = server().with_no_client_auth();
        Arc::new(Serving(Arc::new(builder.with_single_cert(chain(pair), key(pair)).unwrap())))
    }

    /// Serves those only whom `clients` vouches for.
    pub fn requiring(pair: &Pair, clients: &Authority) -> Arc<Serving> {
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(clients)), provider).build().unwrap();
        let builder = server().with_client_cert_verifier(verifier);
        Arc::new(Serving(Arc::new(builder.with_single_cert(chain(pair), key(pair)).unwrap())))
    }

    /// A stream that shakes hands with the first byte either way.
    pub fn over<S: Read + Write>(&self, socket: S) -> StreamOwned<ServerConnection, S> {
        StreamOwned::new(ServerConnection::new(Arc::clone(&self.0)).unwrap(), socket)
    }
}

fn server() -> tokio_rustls::rustls::ConfigBuilder<ServerConfig, tokio_rustls::rustls::WantsVerifier> {
    ServerConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
}

fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    roots
}

/// The certificate of a pair, as it is shown.
pub fn der(pair: &Pair) -> Vec<u8> {
    chain(pair)[0].to_vec()
}

fn chain(pair: &Pair) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()]
}

fn key(pair: &Pair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap()
}
