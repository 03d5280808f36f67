//! One request over a link, and its answer.
//!
//! The head is queued at the beginning and leaves in the first poll, with what is already there of the body in the same
//! write; see [`link`](crate::proxy::http2::link) for why it never leaves later. The first stretch of a body is taken
//! from the client only once more has to follow, or an answer came: so a request that the endpoint did not process (it
//! said so, RFC 9113 section 8.7) can be sent again with its body, whatever its method. An answer's head is
//! flattened into the neutral form; its body is shown where `h2` holds it, and room for more is given back as it goes.
//!
//! Invariant: dropping an exchange before its end resets its stream and nothing else.

use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};

use crate::clock::{self, Micros};
use crate::domain::outcome::Failure;
use crate::proxy::buffer::{Buffers, SMALL};
use crate::proxy::error::Fault;
use crate::proxy::exchange::{Broken, Upload};
use crate::proxy::head::{Field, Fields, Known, ResponseHead, Span, Version};
use crate::proxy::hop::{self, Upward};
use crate::proxy::http1::framing::{self, Framing};
use crate::proxy::http1::parse::MAX_RESPONSE_FIELDS;
use crate::proxy::http2::link::Seat;
use crate::proxy::recorder::Attempt;

/// Bytes taken from the client at once: what one read of it brings.
const UPLOAD: usize = SMALL;
/// Interim answers to one request: more than any protocol needs.
const MAX_INTERIM: u8 = 16;

/// A request and its answer on a link.
pub struct Exchange {
    stage: Stage,
    request: Option<SendStream<Bytes>>,
    upload: Uploading,
    /// Bytes that went up but were not taken from the client yet.
    untaken: usize,
    /// Something of the body was taken from the client.
    is_spent: bool,
    /// The endpoint takes no more of the body; it may still answer.
    is_deaf: bool,
    to_head: bool,
    status: u16,
    fields: Flat,
    framing: Framing,
    interim: u8,
    chunk: Bytes,
    /// Bytes of the answer's body so far.
    received: u64,
    grpc_status: Option<u16>,
    asked: Micros,
    /// Bytes on the link before this request.
    written: u64,
    /// It broke because the link ended, after having served others.
    is_stale: bool,
    // Last: the streams above are reset before their place is free.
    seat: Seat,
}

enum Stage {
    /// It did not even begin.
    Stillborn(Broken),
    Head(ResponseFuture),
    Body(RecvStream),
    End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Uploading {
    /// So many bytes are left of a body of known length.
    Length(u64),
    /// Until the client says that it is over.
    Open,
    Done,
}

/// Fields in the neutral form.
#[derive(Default)]
struct Flat {
    bytes: Vec<u8>,
    list: Vec<Field>,
}

impl Exchange {
    /// Queues the head; it leaves with the first poll, which has to follow at once.
    pub fn begin(seat: Seat, request: Upward<'_>, framing: Framing) -> Box<Exchange> {
        let upload = match framing {
            Framing::Length(length @ 1..) => Uploading::Length(length),
            Framing::Chunked => Uploading::Open,
            Framing::None | Framing::Length(0) | Framing::UntilClose => Uploading::Done,
        };
        let written = seat.written();
        let link = seat.link();
        let asked = request_of(request, framing, &link.scheme, || link.endpoint.address.authority());
        let asked = asked.map_err(Broken::Client).and_then(|request| {
            seat.ask(request, upload == Uploading::Done).map_err(|error| {
                tracing::debug!(endpoint = %link.endpoint.address, ?error, "a connection takes no request");
                Broken::Unsent
            })
        });
        let (stage, request_stream) = match asked {
            Ok((answer, stream)) => (Stage::Head(answer), Some(stream)),
            Err(broken) => (Stage::Stillborn(broken), None),
        };
        Box::new(Exchange {
            is_stale: matches!(stage, Stage::Stillborn(Broken::Unsent)) && seat.is_proven(),
            stage,
            request: request_stream,
            upload,
            untaken: 0,
            is_spent: false,
            is_deaf: false,
            to_head: request.head.is("HEAD"),
            status: 0,
            fields: Flat::default(),
            framing: Framing::None,
            interim: 0,
            chunk: Bytes::new(),
            received: 0,
            grpc_status: None,
            asked: clock::now(),
            written,
            seat,
        })
    }

    /// Takes from the client and sends, until one side has to be waited for; whatever is queued leaves in this poll.
    pub fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        upload: &mut impl Upload,
        attempt: &Attempt,
    ) -> Poll<Result<(), Broken>> {
        let polled = self.fill(cx, upload, attempt);
        self.seat.flush();
        polled
    }

    fn fill(&mut self, cx: &mut Context<'_>, upload: &mut impl Upload, attempt: &Attempt) -> Poll<Result<(), Broken>> {
        while self.upload != Uploading::Done {
            attempt.upload_waits(false);
            let Some(request) = self.request.as_mut().filter(|_| !self.is_deaf) else { return Poll::Pending };
            if self.untaken > 0 {
                upload.took(mem::take(&mut self.untaken));
                self.is_spent = true;
            }
            let data = match upload.poll_upload(cx) {
                Poll::Pending => {
                    attempt.upload_waits(!upload.awaits_leave());
                    return Poll::Pending;
                }
                Poll::Ready(data) => data.map_err(Broken::Client)?,
            };
            let Some(data) = data else {
                self.end_upload(upload)?;
                continue;
            };
            let wanted = data.len().min(UPLOAD);
            request.reserve_capacity(wanted);
            // A stream has no room before its head has left; the first stretch goes with it, in the same write.
            let n = if self.is_spent { request.capacity().min(wanted) } else { wanted };
            let is_all = n == data.len();
            if n == 0 {
                self.is_deaf = !matches!(ready!(request.poll_capacity(cx)), Some(Ok(_)));
                continue;
            }
            let bytes = Bytes::copy_from_slice(&data[..n]);
            let is_last = match &mut self.upload {
                Uploading::Length(left) => {
                    *left = left.checked_sub(n as u64).ok_or(Broken::Client(Fault::BrokenBody))?;
                    *left == 0
                }
                Uploading::Open | Uploading::Done => is_all && upload.is_last(),
            };
            self.untaken = n;
            self.seat.hold();
            self.is_deaf = request.send_data(bytes, is_last).is_err();
            attempt.upload_moved(n);
            if is_last {
                self.upload = Uploading::Done;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The client's body is over.
    fn end_upload(&mut self, upload: &impl Upload) -> Result<(), Broken> {
        if matches!(self.upload, Uploading::Length(_)) {
            return Err(Broken::Client(Fault::BrokenBody));
        }
        let mut trailers = HeaderMap::new();
        let mut is_sound = true;
        hop::trailers(upload.trailers(), |name, value| is_sound &= append(&mut trailers, name, value).is_some());
        if !is_sound {
            return Err(Broken::Client(Fault::BrokenBody));
        }
        let Some(request) = &mut self.request else { return Ok(()) };
        self.seat.hold();
        let sent = match trailers.is_empty() {
            true => request.send_data(Bytes::new(), true),
            false => request.send_trailers(trailers),
        };
        self.is_deaf = sent.is_err();
        self.upload = Uploading::Done;
        Ok(())
    }

    /// Waits for a response head.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, buffers: &Buffers) -> Poll<Result<(), Broken>> {
        let answer = match &mut self.stage {
            Stage::Head(answer) => answer,
            Stage::Stillborn(broken) => return Poll::Ready(Err(*broken)),
            Stage::Body(_) | Stage::End => return Poll::Ready(Ok(())),
        };
        let (head, body) = match ready!(answer.poll_informational(cx)) {
            Some(Ok(interim)) => (interim.into_parts().0, None),
            Some(Err(error)) => return Poll::Ready(Err(self.broken(&error))),
            None => match ready!(Pin::new(answer).poll(cx)) {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    (head, Some(body))
                }
                Err(error) => return Poll::Ready(Err(self.broken(&error))),
            },
        };
        self.seat.answered();
        let taken = self.take_head(head.status.as_u16(), &head.headers, body, buffers);
        Poll::Ready(taken.map_err(|error| {
            tracing::debug!(endpoint = %self.seat.link().endpoint.address, error, "malformed answer");
            Broken::Upstream(Failure::Malformed)
        }))
    }

    fn take_head(
        &mut self,
        status: u16,
        fields: &HeaderMap,
        body: Option<RecvStream>,
        buffers: &Buffers,
    ) -> Result<(), &'static str> {
        if fields.len() > MAX_RESPONSE_FIELDS {
            return Err("too many fields");
        }
        if !(100..600).contains(&status) {
            return Err("an invalid status");
        }
        if self.fields.bytes.capacity() == 0 {
            self.fields.bytes = buffers.take_bytes();
        }
        self.fields.flatten(fields);
        self.status = status;
        self.framing = framing::of_response(self.to_head, status, Version::Http2, self.fields.fields())?;
        let Some(body) = body else {
            self.interim += 1;
            return if self.interim > MAX_INTERIM { Err("interim answers without end") } else { Ok(()) };
        };
        if self.framing == Framing::UntilClose && body.is_end_stream() {
            self.framing = Framing::Length(0);
        }
        self.note_grpc_status();
        self.stage = Stage::Body(body);
        Ok(())
    }

    /// The client's bytes that may be let go now that an answer came.
    pub fn take_untaken(&mut self) -> usize {
        self.is_spent |= self.untaken > 0;
        mem::take(&mut self.untaken)
    }

    /// What a broken stream says about the request.
    fn broken(&mut self, error: &h2::Error) -> Broken {
        tracing::debug!(endpoint = %self.seat.link().endpoint.address, %error, "no answer");
        let is_lost = error.is_io() && self.seat.written() == self.written;
        let refused = error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM);
        let left_behind = error.is_remote() && error.is_go_away();
        self.is_stale = (error.is_io() || left_behind) && self.seat.is_proven();
        match () {
            // Not processed (RFC 9113 section 8.7), or never sent.
            () if is_lost || refused || left_behind => Broken::Unsent,
            () if error.is_library() => Broken::Upstream(Failure::Malformed),
            () => Broken::Upstream(Failure::Reset),
        }
    }

    /// The head that came.
    pub fn head(&self) -> ResponseHead<'_> {
        ResponseHead { status: self.status, version: Version::Http2, fields: self.fields.fields() }
    }

    /// Where the answer's body ends: after its length, or with its stream.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Lets an interim head go.
    pub fn skip_interim(&mut self) {
        self.fields.clear();
    }

    /// Lets the head go.
    pub fn drop_head(&mut self) {
        self.fields.clear();
    }

    /// The bytes of the body that are there; 0 at its end.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Failure>> {
        while self.chunk.is_empty() {
            let Stage::Body(body) = &mut self.stage else { return Poll::Ready(Ok(0)) };
            match ready!(body.poll_data(cx)) {
                Some(Ok(data)) => {
                    if self.framing == Framing::None && !data.is_empty() {
                        return Poll::Ready(Err(Failure::Truncated));
                    }
                    self.received += data.len() as u64;
                    self.chunk = data;
                }
                // All of it came, whatever became of the link since.
                Some(Err(_)) if self.framing == Framing::Length(self.received) => {
                    self.fields.clear();
                    self.stage = Stage::End;
                }
                Some(Err(error)) => {
                    tracing::debug!(endpoint = %self.seat.link().endpoint.address, %error, "an answer was cut");
                    return Poll::Ready(Err(Failure::Truncated));
                }
                None => {
                    let trailers = ready!(body.poll_trailers(cx)).map_err(|_| Failure::Truncated)?;
                    self.fields.flatten(&trailers.unwrap_or_default());
                    self.note_grpc_status();
                    self.stage = Stage::End;
                }
            }
        }
        Poll::Ready(Ok(self.chunk.len()))
    }

    /// The first `n` bytes of what was announced.
    pub fn data(&self, n: usize) -> &[u8] {
        &self.chunk[..n]
    }

    /// `n` bytes of the body were used: the endpoint may send as many more.
    pub fn took(&mut self, n: usize) {
        self.chunk.advance(n);
        if let Stage::Body(body) = &mut self.stage {
            // Fails only for more than came.
            let _ = body.flow_control().release_capacity(n);
        }
    }

    /// Fields behind the body, at its end.
    pub fn trailers(&self) -> Fields<'_> {
        match self.stage {
            Stage::End => self.fields.fields(),
            Stage::Stillborn(_) | Stage::Head(_) | Stage::Body(_) => Fields::NONE,
        }
    }

    /// What a gRPC answer says of itself, in its trailers or in a head that is all there is of it.
    pub fn grpc_status(&self) -> Option<u16> {
        self.grpc_status
    }

    fn note_grpc_status(&mut self) {
        let said = self.fields.fields().named("grpc-status").next();
        let number = said.and_then(|text| std::str::from_utf8(text).ok()).and_then(|text| text.parse().ok());
        self.grpc_status = number.or(self.grpc_status);
    }

    /// True once all of the request went up.
    pub fn is_uploaded(&self) -> bool {
        self.upload == Uploading::Done && !self.is_deaf
    }

    /// True if it broke with a link that had served others: that says nothing about the request.
    pub fn is_reused(&self) -> bool {
        self.is_stale
    }

    /// Lets go of the stream; if it has not ended, it is reset.
    pub fn release(mut self: Box<Self>, buffers: &Buffers) {
        buffers.put_bytes(mem::take(&mut self.fields.bytes));
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if matches!(self.stage, Stage::Head(_)) {
            self.seat.doubt(self.asked);
        }
    }
}

impl Flat {
    /// Takes over all fields of a map. Names are lower case by the protocol.
    fn flatten(&mut self, map: &HeaderMap) {
        self.clear();
        for (name, value) in map {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            let (name_span, value) = (self.push(name), self.push(value));
            self.list.push(Field { name: name_span, value, known: Known::of(name) });
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span::new(start, self.bytes.len())
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
    }

    fn fields(&self) -> Fields<'_> {
        Fields { bytes: &self.bytes, list: &self.list }
    }
}

/// A request as `h2` takes it. A client of HTTP/1.0 need not name a host; HTTP/2 has no way to say so, and the
/// endpoint's own name is what it would have meant.
fn request_of(
    request: Upward<'_>,
    framing: Framing,
    scheme: &Scheme,
    own_name: impl FnOnce() -> String,
) -> Result<Request<()>, Fault> {
    let head = request.head;
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme.clone());
    parts.authority = match request.host() {
        b"" => Authority::try_from(own_name()).ok(),
        host => Authority::try_from(host).ok(),
    };
    parts.path_and_query = PathAndQuery::try_from(&*request.target()).ok();
    let uri = Uri::from_parts(parts).map_err(|_| Fault::BadRequest("a target that is no URI"))?;
    let mut fields = HeaderMap::with_capacity(head.list.len() + 8);
    let mut is_sound = true;
    request.fields(|name, value| {
        is_sound &= append(&mut fields, name, value).is_some();
    });
    if !is_sound {
        return Err(Fault::BadRequest("a field that is none"));
    }
    if request.takes_trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Framing::Length(length) = framing {
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let mut asked = Request::new(());
    *asked.method_mut() = Method::from_bytes(head.method()).map_err(|_| Fault::BadRequest("an invalid method"))?;
    *asked.uri_mut() = uri;
    *asked.headers_mut() = fields;
    Ok(asked)
}

fn append(fields: &mut HeaderMap, name: &[u8], value: &[u8]) -> Option<()> {
    let name = HeaderName::from_bytes(name).ok()?;
    fields.try_append(name, HeaderValue::from_bytes(value).ok()?).ok().map(drop)
}
