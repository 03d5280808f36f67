//! Accepting TLS: from an open connection to a stream whose client is known as far as it showed itself.
//!
//! The first byte is looked at before anything is read: a browser sent to the wrong port by an old link deserves a
//! sentence, not an alert in bytes. Whatever comes before or inside of a handshake and is not part of it ends the
//! connection, so nothing sent in the clear is ever taken for a request.
//!
//! Invariant: a stream comes out only after a complete handshake, within [`HANDSHAKE`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::rustls::{AlertDescription, Error, HandshakeKind};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, rustls};

use crate::bridge::tls::{ClientIdentity, Failure, Server};
use crate::config::settings::tls::{Alpn, ClientAuth};

/// From accept to the end of the handshake. Slow links need two seconds; browsers open connections ahead of need
/// and are used to losing them.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// A client behind TLS.
#[derive(Debug)]
pub struct Accepted {
    /// Its stream, at the first byte of its first request.
    pub stream: TlsStream<TcpStream>,
    /// HTTP/2 was agreed on; else it is HTTP/1.1.
    pub http2: bool,
    /// The session goes on from an earlier connection.
    pub resumed: bool,
    /// Who it is; `None` if the listener does not ask.
    pub identity: Option<Arc<ClientIdentity>>,
}

/// Shakes hands.
///
/// # Errors
/// See [`Failure`]. The connection is closed.
pub async fn accept(server: &Server, stream: TcpStream) -> Result<Accepted, Failure> {
    tokio::time::timeout(HANDSHAKE, shake(server, stream)).await.unwrap_or(Err(Failure::TimedOut))
}

async fn shake(server: &Server, stream: TcpStream) -> Result<Accepted, Failure> {
    match first_byte(&stream).await? {
        HANDSHAKE_RECORD => {}
        b'A'..=b'Z' => return Err(refuse_plain(stream).await),
        _ => return Err(Failure::NotTls),
    }
    let stream = TlsAcceptor::from(Arc::clone(&server.config)).accept(stream).await;
    let stream = stream.map_err(|error| kind_of(&error))?;
    let connection = stream.get_ref().1;
    let http2 = connection.alpn_protocol() == Some(Alpn::Http2.id());
    let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
    let identity = match &server.settings.client_auth {
        ClientAuth::Off => None,
        ClientAuth::Optional(_) | ClientAuth::Required(_) => Some(Arc::new(identity(connection))),
    };
    Ok(Accepted { stream, http2, resumed, identity })
}

/// What every TLS connection begins with: a record of type handshake (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

async fn first_byte(stream: &TcpStream) -> Result<u8, Failure> {
    let mut byte = [0];
    match stream.peek(&mut byte).await {
        Ok(0) | Err(_) => Err(Failure::Closed),
        Ok(_) => Ok(byte[0]),
    }
}

/// A certificate that is here was verified: the handshake would have ended otherwise. Resumed sessions carry theirs.
fn identity(connection: &rustls::ServerConnection) -> ClientIdentity {
    let certificate = connection.peer_certificates().and_then(<[_]>::first);
    certificate.map_or_else(ClientIdentity::unverified, ClientIdentity::of)
}

const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 56\r\nconnection: close\r\n\r\nThis port speaks https: use https:// in place of http://";

/// Answers somebody who speaks HTTP without TLS, in the language they understand.
async fn refuse_plain(mut stream: TcpStream) -> Failure {
    // What was sent is taken, up to a point: closing over unread bytes would reset the answer away.
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await;
    if stream.write_all(PLAIN).await.is_ok() {
        let _ = stream.shutdown().await;
    }
    Failure::PlainHttp
}

/// What kind of failure an error of the handshake is.
fn kind_of(error: &io::Error) -> Failure {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return Failure::Closed;
    };
    match error {
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Failure::Incompatible,
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => Failure::ClientCertificate,
        Error::AlertReceived(AlertDescription::UserCanceled | AlertDescription::CloseNotify) => Failure::Closed,
        Error::AlertReceived(_) => Failure::Refused,
        _ => Failure::Broken,
    }
}

#[cfg(test)]
mod tests;
