//! What a health check says over an open connection, and what it makes of the answer: nothing, an HTTP request by the
//! protocol the pool speaks, or gRPC's health protocol over HTTP/2.
//!
//! The pool's own TLS is used, so an endpoint whose certificate clients of the pool would refuse is not healthy. Of a
//! body no more is read than [`LONGEST_BODY`].
//!
//! Invariant: a check speaks to an endpoint as requests do: same trust, same name, same protocol.

mod ask;
mod report;

use std::sync::Arc;

use http::{HeaderMap, Request, header};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::bridge::table::Pool;
use crate::bridge::tls::{Connector, is_http2};
use crate::config::settings::{Address, Probe, Protocol, Question};
use crate::domain::grpc_health::{self, Serving};
use crate::domain::health::VersionSource;
use crate::domain::proxy_protocol::{self, Origin, Version};

/// Bytes of an answer's body that are read: a page that says how a service is doing, not a download.
pub const LONGEST_BODY: usize = 64 * 1024;

const AGENT: &str = concat!("teal-health/", env!("CARGO_PKG_VERSION"));

/// How the endpoints of a pool are spoken to.
#[derive(Clone, Debug, Default)]
pub struct Speech {
    protocol: Protocol,
    connector: Option<Arc<Connector>>,
    proxy_protocol: Option<Version>,
}

/// What an endpoint that is well reports of what it runs, or in words why that is not known; `None` if nobody asked.
pub type Reported = Option<Result<String, String>>;

/// An answer, as far as it was read.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    /// The body was longer than what was read of it.
    is_cut: bool,
    trailers: HeaderMap,
}

impl Speech {
    /// The pool's own.
    pub fn of(pool: &Pool) -> Speech {
        let (protocol, connector) = (pool.protocol, pool.connector.clone());
        Speech { protocol, connector, proxy_protocol: pool.proxy_protocol }
    }

    /// Asks over a fresh connection to `named`, and for its version if that is asked for.
    ///
    /// # Errors
    /// Says in which way the endpoint is not well.
    pub async fn ask<IO>(
        &self,
        mut stream: IO,
        named: &Address,
        probe: &Probe,
        version: Option<&VersionSource>,
    ) -> Result<Reported, String>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if let Some(version) = self.proxy_protocol {
            // Nobody's connection but our own.
            let mut header = Vec::new();
            proxy_protocol::encode(version, &Origin::Local, &mut header);
            stream.write_all(&header).await.map_err(|error| error.to_string())?;
        }
        // gRPC is HTTP/2, whatever else the pool speaks.
        let protocol = if matches!(probe, Probe::Grpc(_)) { Protocol::Http2 } else { self.protocol };
        let Some(connector) = &self.connector else {
            return examine(stream, protocol == Protocol::Http2, "http", named, probe, version).await;
        };
        let stream = connector.connect_for(protocol, named, stream).await.map_err(|error| error.to_string())?;
        let http2 = is_http2(&stream);
        examine(stream, http2, "https", named, probe, version).await
    }
}

async fn examine<IO>(
    stream: IO,
    http2: bool,
    scheme: &str,
    named: &Address,
    probe: &Probe,
    version: Option<&VersionSource>,
) -> Result<Reported, String>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let answer = match probe {
        Probe::Off | Probe::Connect => return Ok(None),
        Probe::Http(question) => {
            let wants_body = question.body.is_some() || matches!(version, Some(VersionSource::Json(_)));
            let most = if wants_body { LONGEST_BODY } else { 0 };
            let host = question.host.clone().unwrap_or_else(|| named.authority());
            let request = request(question, http2.then_some(scheme), &host)?;
            let answer = match http2 {
                true => ask::by_http2(stream, request, None, most).await?,
                false => ask::by_http1(stream, request, most).await?,
            };
            is_good(question, &answer)?;
            answer
        }
        Probe::Grpc(service) => {
            let url = format!("{scheme}://{}{}", named.authority(), grpc_health::PATH);
            let request = Request::post(url)
                .header(header::CONTENT_TYPE, "application/grpc")
                .header(header::TE, "trailers")
                .header(header::USER_AGENT, AGENT)
                .body(())
                .map_err(|error| error.to_string())?;
            let question = grpc_health::question(service);
            let answer = ask::by_http2(stream, request, Some(question), grpc_health::LONGEST).await?;
            serves(service, &answer)?;
            answer
        }
    };
    Ok(version.map(|source| reported(source, &answer)))
}

/// The request of a check: with a whole URL for HTTP/2 (then `scheme` is there), with a `Host` for HTTP/1.1.
fn request(question: &Question, scheme: Option<&str>, host: &str) -> Result<Request<()>, String> {
    let builder = Request::builder().method(question.method);
    let mut builder = match scheme {
        Some(scheme) => builder.uri(format!("{scheme}://{host}{}", question.path)),
        None => builder.uri(&question.path).header(header::HOST, host).header(header::CONNECTION, "close"),
    };
    if !question.headers.iter().any(|(name, _)| name == header::USER_AGENT.as_str()) {
        builder = builder.header(header::USER_AGENT, AGENT);
    }
    for (name, value) in &question.headers {
        builder = builder.header(name, value);
    }
    builder.body(()).map_err(|error| error.to_string())
}

fn is_good(question: &Question, answer: &Answer) -> Result<(), String> {
    if !question.statuses.contain(answer.status) {
        let known = http::StatusCode::from_u16(answer.status).ok().and_then(|status| status.canonical_reason());
        let phrase = known.map_or(String::new(), |phrase| format!(" {phrase}"));
        return Err(format!("answered {}{phrase}", answer.status));
    }
    match &question.body {
        Some(test) if !test.passes(&answer.body) => {
            let read = if answer.is_cut { format!(" in its first {} KiB", LONGEST_BODY / 1024) } else { String::new() };
            Err(format!("answered {}, but without the expected text{read}", answer.status))
        }
        _ => Ok(()),
    }
}

/// Whether an answer to gRPC's question is that the service serves.
fn serves(service: &str, answer: &Answer) -> Result<(), String> {
    if answer.status != 200 {
        return Err(format!("answered {}, gRPC answers 200", answer.status));
    }
    // An answer without a message has everything in its head.
    let said = |name: &str| answer.trailers.get(name).or_else(|| answer.headers.get(name));
    let status = said("grpc-status").and_then(|value| value.to_str().ok()).map(str::trim);
    match status {
        Some("0") => {}
        Some("5") => return Err(format!("gRPC health knows no service `{service}`")),
        Some("12") => return Err("has no gRPC health service".to_owned()),
        Some(code) if code.len() <= 3 => return Err(format!("gRPC health failed with status {code}")),
        _ => return Err("answered without a gRPC status".to_owned()),
    }
    match grpc_health::answer(&answer.body).map_err(|error| error.to_string())? {
        Serving::Serving => Ok(()),
        Serving::NotServing => Err("gRPC health says NOT_SERVING".to_owned()),
        Serving::Unknown => Err("gRPC health says UNKNOWN".to_owned()),
        Serving::ServiceUnknown => Err(format!("gRPC health knows no service `{service}`")),
        Serving::Other(number) => Err(format!("gRPC health says {number}, which means nothing")),
    }
}

/// What an answer says of the version that runs, or why it does not.
fn reported(source: &VersionSource, answer: &Answer) -> Result<String, String> {
    match source {
        VersionSource::Header(name) => {
            let value = answer.headers.get(name).and_then(|value| value.to_str().ok());
            value.map(|value| value.trim().to_owned()).ok_or_else(|| source.to_string())
        }
        VersionSource::Json(_) if answer.is_cut => {
            Err(format!("its answer is longer than {} KiB", LONGEST_BODY / 1024))
        }
        VersionSource::Json(pointer) => match report::read(&answer.body, pointer) {
            Some(Ok(text)) => Ok(text),
            Some(Err(())) => Err("its answer is not JSON".to_owned()),
            None => Err(source.to_string()),
        },
    }
}

#[cfg(test)]
mod tests;
