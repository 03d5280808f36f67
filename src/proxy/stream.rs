//! A byte stream to a client or an endpoint: TCP or a Unix socket, plain or under TLS, behind one type.
//!
//! An enum, not a trait object: a plain TCP read stays a direct call, and every kind is listed here.
//!
//! Invariant: a write that returned `n` took exactly the first `n` bytes; none are kept for a retry.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::bridge::admission::Socket;

/// An open stream.
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS with a client.
    TlsServer(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// TLS with an endpoint.
    TlsClient(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// Calls a method on whatever the stream is.
macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
            Stream::TlsServer($inner) => $call,
            Stream::TlsClient($inner) => $call,
        }
    };
}

impl Stream {
    /// Registers a socket, not blocking, with the present runtime.
    ///
    /// # Errors
    /// When the runtime cannot take it.
    pub fn from_socket(socket: Socket) -> io::Result<Stream> {
        match socket {
            Socket::Tcp(socket) => TcpStream::from_std(socket).map(Stream::Tcp),
            Socket::Unix(socket) => UnixStream::from_std(socket).map(Stream::Unix),
        }
    }

    /// Takes the socket back from the runtime, before anything was done with it.
    ///
    /// # Errors
    /// When it is lost, and under TLS.
    pub fn into_socket(self) -> io::Result<Socket> {
        match self {
            Stream::Tcp(stream) => stream.into_std().map(Socket::Tcp),
            Stream::Unix(stream) => stream.into_std().map(Socket::Unix),
            Stream::TlsServer(_) | Stream::TlsClient(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The address that the client connected to; `None` over a Unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Stream::Tcp(stream) => stream.local_addr().ok(),
            Stream::Unix(_) => None,
            Stream::TlsServer(stream) => stream.get_ref().0.local_addr().ok(),
            Stream::TlsClient(stream) => stream.get_ref().0.local_addr().ok(),
        }
    }

    /// Reads into the spare room of `bytes`, which must not be full; 0 is the end of the stream.
    pub fn poll_read_into(&mut self, cx: &mut Context<'_>, bytes: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        debug_assert!(bytes.len() < bytes.capacity());
        each!(self, stream => pin!(stream.read_buf(bytes)).poll(cx))
    }

    /// Writes some of `bytes`.
    pub fn poll_write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    /// Writes some of `first`, and of `second` behind it, at once.
    pub fn poll_write_two(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        let both = [IoSlice::new(first), IoSlice::new(second)];
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, &both))
    }

    /// Pushes out what TLS still holds back; nothing to do on plain streams.
    pub fn poll_flushed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => Poll::Ready(Ok(())),
            Stream::TlsServer(stream) => Pin::new(stream).poll_flush(cx),
            Stream::TlsClient(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Pending if there is certainly nothing to read, as far as the runtime knows: without a system call. Under TLS
    /// only reading tells, because deciphered bytes may wait inside.
    pub fn poll_stirred(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Stream::Tcp(stream) => stream.poll_read_ready(cx).map(drop),
            Stream::Unix(stream) => stream.poll_read_ready(cx).map(drop),
            Stream::TlsServer(_) | Stream::TlsClient(_) => Poll::Ready(()),
        }
    }

    /// Ready once there may be more to read, for whoever has read everything that was there: what TLS had deciphered too.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Stream::Tcp(stream) => stream.poll_read_ready(cx).map(drop),
            Stream::Unix(stream) => stream.poll_read_ready(cx).map(drop),
            Stream::TlsServer(stream) => stream.get_ref().0.poll_read_ready(cx).map(drop),
            Stream::TlsClient(stream) => stream.get_ref().0.poll_read_ready(cx).map(drop),
        }
    }

    /// True if nothing came since the last exchange: neither bytes nor the end.
    pub fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        if self.poll_stirred(&mut cx).is_pending() {
            return true;
        }
        let mut byte = [0];
        each!(self, stream => Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut byte))).is_pending()
    }

    /// Makes the end of the connection a reset, so that it cannot be taken for the end of an answer.
    /// Unix sockets know no such thing: what is cut there for a client of HTTP/1.0 looks whole.
    pub fn reset_on_close(&self) {
        let now = Some(Duration::ZERO);
        let _ = match self {
            Stream::Tcp(stream) => socket2::SockRef::from(stream).set_linger(now),
            Stream::Unix(_) => Ok(()),
            Stream::TlsServer(stream) => socket2::SockRef::from(stream.get_ref().0).set_linger(now),
            Stream::TlsClient(stream) => socket2::SockRef::from(stream.get_ref().0).set_linger(now),
        };
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_some(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flushed(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}
