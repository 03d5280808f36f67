//! What a health check says over an open connection: nothing, or `GET` by the protocol the pool speaks.
//!
//! The pool's own TLS is used, so an endpoint whose certificate clients of the pool would refuse is not healthy.
//!
//! Invariant: a check speaks to an endpoint as requests do: same trust, same name, same protocol.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::bridge::table::Pool;
use crate::bridge::tls::{Connector, is_http2};
use crate::config::settings::{Address, Probe, Protocol};
use crate::domain::proxy_protocol::{self, Origin, Version};

/// How the endpoints of a pool are spoken to.
#[derive(Clone, Debug, Default)]
pub struct Speech {
    protocol: Protocol,
    connector: Option<Arc<Connector>>,
    proxy_protocol: Option<Version>,
}

impl Speech {
    /// The pool's own.
    pub fn of(pool: &Pool) -> Speech {
        let (protocol, connector) = (pool.protocol, pool.connector.clone());
        Speech { protocol, connector, proxy_protocol: pool.proxy_protocol }
    }

    /// Asks over a fresh connection to `named`.
    ///
    /// # Errors
    /// Says in which way the endpoint is not well.
    pub async fn ask<IO>(&self, mut stream: IO, named: &Address, probe: &Probe) -> Result<(), String>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if let Some(version) = self.proxy_protocol {
            // Nobody's connection but our own.
            let mut header = Vec::new();
            proxy_protocol::encode(version, &Origin::Local, &mut header);
            stream.write_all(&header).await.map_err(|error| error.to_string())?;
        }
        let Some(connector) = &self.connector else {
            return get(stream, self.protocol == Protocol::Http2, "http", named, probe).await;
        };
        let stream = connector.connect(named, stream).await.map_err(|error| error.to_string())?;
        let http2 = is_http2(&stream);
        get(stream, http2, "https", named, probe).await
    }
}

async fn get<IO>(stream: IO, http2: bool, scheme: &str, named: &Address, probe: &Probe) -> Result<(), String>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Probe::Get(path) = probe else { return Ok(()) };
    let status = match http2 {
        true => by_http2(stream, &format!("{scheme}://{}{path}", named.authority())).await?,
        false => by_http1(stream, named, path).await?,
    };
    if status.is_success() { Ok(()) } else { Err(format!("answered {status}")) }
}

const AGENT: &str = concat!("teal-health/", env!("CARGO_PKG_VERSION"));

async fn by_http1<IO>(stream: IO, named: &Address, path: &str) -> Result<StatusCode, String>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let said = |error: hyper::Error| error.to_string();
    let (mut sender, link) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
    let request = Request::get(path)
        .header(header::HOST, named.authority())
        .header(header::USER_AGENT, AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        // The link may end in the very poll that delivered the answer.
        _ = link => answer.await,
    };
    response.map(|response| response.status()).map_err(said)
}

async fn by_http2<IO>(stream: IO, url: &str) -> Result<StatusCode, String>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let said = |error: h2::Error| error.to_string();
    let (sender, link) = h2::client::handshake(stream).await.map_err(said)?;
    let request = Request::get(url).header(header::USER_AGENT, AGENT).body(()).map_err(|error| error.to_string())?;
    let asking = async {
        let (answer, _) = sender.ready().await?.send_request(request, true)?;
        answer.await.map(|response: Response<_>| response.status())
    };
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        biased;
        status = &mut asking => status.map_err(said),
        ended = link => match ended {
            Ok(()) => asking.await.map_err(said),
            Err(error) => Err(said(error)),
        },
    }
}

#[cfg(test)]
mod tests;
