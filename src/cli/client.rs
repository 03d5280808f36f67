//! The admin API's client: one request per connection, everything bounded in time and size.
//!
//! A serde border file: bodies are encoded and decoded here and nowhere else.
//!
//! Invariant: whatever the other side sends, the result is a value, or a [`Failure`] in a sentence.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::failure::Failure;
use super::sse::{Message, Parser};
use crate::config::settings::Address;
use crate::control::admin::wire::{Event, Problem};

/// Bytes of an answer: the status of some thousand services.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
/// Who asks, for the audit.
const ACTOR: HeaderName = HeaderName::from_static("x-teal-actor");
/// Bytes of it.
const MAX_ACTOR: usize = 64;
/// The last event a follower saw.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How long the client waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// To open a connection.
    pub(super) connect: Duration,
    /// From the connection to the end of the answer (of its head, when following events).
    pub(super) request: Duration,
    /// For the next byte when following events; Teal sends something more often.
    pub(super) silence: Duration,
    /// Between two attempts to reach a Teal that went away.
    pub(super) again: Duration,
    /// Between two looks at a rollout that is followed.
    pub(super) look: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connect: Duration::from_secs(2),
            request: Duration::from_secs(30),
            silence: Duration::from_secs(60),
            again: Duration::from_secs(1),
            look: Duration::from_secs(2),
        }
    }
}

/// Asks one Teal.
#[derive(Clone, Debug)]
pub(super) struct Client {
    admin: Address,
    /// Sent with every request: host, token, actor.
    fields: HeaderMap,
    /// How long it waits.
    pub(super) limits: Limits,
}

impl Client {
    /// A client of the admin API at `admin`. An actor that Teal would refuse is left out.
    ///
    /// # Errors
    /// When no header field can hold the token.
    pub(super) fn new(
        admin: Address,
        token: Option<&str>,
        actor: Option<&str>,
        limits: Limits,
    ) -> Result<Client, Failure> {
        let host =
            HeaderValue::from_str(&admin.authority()).map_err(|_| Failure::Usage(format!("no host: {admin}")))?;
        let mut fields = HeaderMap::from_iter([(HOST, host)]);
        if let Some(token) = token {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Failure::Usage("the token holds characters that a token cannot have".to_owned()))?;
            bearer.set_sensitive(true);
            fields.insert(AUTHORIZATION, bearer);
        }
        if let Some(actor) = actor.filter(|actor| is_word(actor)).and_then(|actor| HeaderValue::from_str(actor).ok()) {
            fields.insert(ACTOR, actor);
        }
        Ok(Client { admin, fields, limits })
    }

    /// Reads what is at `path`.
    pub(super) async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, Failure> {
        self.ask(Method::GET, path, Bytes::new(), HeaderMap::new()).await
    }

    /// Sends an order to `path`, with header fields beyond the usual.
    pub(super) async fn send<B: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        order: &B,
        mut fields: HeaderMap,
    ) -> Result<A, Failure> {
        let body = serde_json::to_vec(order).map_err(|error| Failure::Local(format!("not JSON: {error}")))?;
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.ask(method, path, body.into(), fields).await
    }

    /// Sends an order that needs no body.
    pub(super) async fn post<A: DeserializeOwned>(&self, path: &str) -> Result<A, Failure> {
        let fields = HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from_static("0"))]);
        self.ask(Method::POST, path, Bytes::new(), fields).await
    }

    /// Follows the events after the one with the id `after`; `None` leaves it to Teal where to begin.
    pub(super) async fn events(&self, after: Option<&str>) -> Result<EventStream, Failure> {
        let mut fields = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("text/event-stream"))]);
        if let Some(id) = after.and_then(|id| HeaderValue::from_str(id).ok()) {
            fields.insert(LAST_EVENT_ID, id);
        }
        let exchange = self.exchange(Method::GET, "/v1/events", Bytes::new(), fields);
        let response = self.in_time(exchange).await?;
        if response.status() != StatusCode::OK {
            return Err(self.in_time(self.refusal(response)).await.unwrap_or_else(|failure| failure));
        }
        let kind = response.headers().get(CONTENT_TYPE).map_or(b"".as_slice(), HeaderValue::as_bytes);
        if !kind.starts_with(b"text/event-stream") {
            return Err(self.garbled("the answer is no stream of events"));
        }
        Ok(EventStream {
            client: self.clone(),
            body: response.into_body(),
            parser: Parser::default(),
            ready: Vec::new(),
        })
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        fields: HeaderMap,
    ) -> Result<A, Failure> {
        let whole = async {
            let response = self.exchange(method, path, body, fields).await?;
            if !response.status().is_success() {
                return Err(self.refusal(response).await?);
            }
            let answer = self.collect(response.into_body()).await?;
            serde_json::from_slice(&answer)
                .map_err(|error| self.garbled(format!("the answer is not what was asked for: {error}")))
        };
        self.in_time(whole).await
    }

    /// One request on a connection of its own: the head of the answer.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        fields: HeaderMap,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = self.connect().await?;
        let broken = |error: hyper::Error| self.broken(error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Ends with the exchange: when both `sender` and the body are dropped. Its errors come out of those two.
        tokio::spawn(connection);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|_| Failure::Usage(format!("`{path}` cannot be asked for")))?;
        request.headers_mut().extend(self.fields.clone());
        request.headers_mut().extend(fields);
        sender.send_request(request).await.map_err(broken)
    }

    async fn connect(&self) -> Result<TcpStream, Failure> {
        let opened = timeout(self.limits.connect, TcpStream::connect(self.admin.authority())).await;
        let unreachable = |cause| Failure::Unreachable { admin: self.admin.to_string(), cause };
        match opened {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Err(Failure::Refused(self.admin.to_string()))
            }
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => {
                Err(unreachable(format!("no connection within {}", humantime::format_duration(self.limits.connect))))
            }
        }
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, Failure> {
        let collected = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| self.broken(error))?;
        Ok(collected.to_bytes())
    }

    /// What a status that is no success means: the problem it carries, or one made from the status alone.
    async fn refusal(&self, response: Response<Incoming>) -> Result<Failure, Failure> {
        let status = response.status();
        let body = self.collect(response.into_body()).await?;
        let problem = serde_json::from_slice(&body).unwrap_or_else(|_| Problem {
            problem_type: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Unknown status").to_owned(),
            status: 0,
            detail: format!("{} answered {status} without an explanation: is it teal's admin API?", self.admin),
            instance: None,
            code: "unexplained".to_owned(),
            suggestion: None,
            current_epoch: None,
        });
        Ok(Failure::Problem(Box::new(Problem { status: status.as_u16(), ..problem })))
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let limit = self.limits.connect + self.limits.request;
        let late = || {
            Failure::Timeout(format!(
                "no answer from teal at {} within {}",
                self.admin,
                humantime::format_duration(self.limits.request)
            ))
        };
        timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
    }

    fn broken(&self, cause: impl ToString) -> Failure {
        Failure::Broken { admin: self.admin.to_string(), cause: cause.to_string() }
    }

    fn garbled(&self, cause: impl ToString) -> Failure {
        Failure::Garbled { admin: self.admin.to_string(), cause: cause.to_string() }
    }
}

/// What Teal takes for an actor: a short name in visible ASCII.
fn is_word(text: &str) -> bool {
    (1..=MAX_ACTOR).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Events as they come.
#[derive(Debug)]
pub(super) struct EventStream {
    client: Client,
    body: Incoming,
    parser: Parser,
    /// Arrived but not asked for yet, the newest first.
    ready: Vec<Message>,
}

impl EventStream {
    /// The next event and the id to resume after.
    pub(super) async fn next(&mut self) -> Result<(String, Event), Failure> {
        loop {
            if let Some(message) = self.ready.pop() {
                let event = serde_json::from_str(&message.data)
                    .map_err(|error| self.client.garbled(format!("an event is not what was asked for: {error}")))?;
                return Ok((message.id, event));
            }
            let silence = self.client.limits.silence;
            let quiet = |_| Failure::Timeout(format!("teal at {} fell silent", self.client.admin));
            let frame = timeout(silence, self.body.frame()).await.map_err(quiet)?;
            let frame = frame.ok_or_else(|| self.client.broken("the stream of events ended"))?;
            let frame = frame.map_err(|error| self.client.broken(error))?;
            if let Some(bytes) = frame.data_ref() {
                self.ready = self.parser.push(bytes).map_err(|error| self.client.garbled(error))?;
                self.ready.reverse();
            }
        }
    }
}

/// The path of `segments` below `/v1`. Names from outside cannot break out of their segment.
pub(super) fn path(segments: &[&str]) -> String {
    let mut path = "/v1".to_owned();
    for segment in segments {
        path.push('/');
        for byte in segment.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => path.push(char::from(byte)),
                _ => path.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    path
}
