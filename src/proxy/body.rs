//! Bodies, both ways, unboxed: what goes up to an endpoint and what comes down to a client.
//!
//! A [`Download`] owns the upstream connection while the response streams and drives it whenever it is asked
//! for a frame: reading, writing and back-pressure happen in the client's own task (Decisions 10).
//!
//! Invariant: a response that the upstream cut short ends in an error, never as if it were complete.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::bridge::observations::Failure;
use crate::proxy::access::Line;
use crate::proxy::connection::Client;
use crate::proxy::recorder::{self, Attempt};
use crate::proxy::upstream::Connection;
use crate::proxy::worker::Worker;

/// A request body on its way up.
pub enum Upload {
    /// None.
    Empty,
    /// As the client sends it.
    Stream {
        /// The client's body.
        incoming: Incoming,
        /// Tells the attempt what happens.
        report: Rc<recorder::Upload>,
    },
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Upload::Stream { incoming, report } = self.get_mut() else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        report.waiting.set(polled.is_pending());
        match &polled {
            Poll::Ready(Some(Err(_))) => report.client_failed.set(true),
            Poll::Ready(frame) => {
                report.moved.set(true);
                report.done.set(frame.is_none() || incoming.is_end_stream());
            }
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Upload::Empty => true,
            Upload::Stream { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Upload::Empty => SizeHint::with_exact(0),
            Upload::Stream { incoming, .. } => incoming.size_hint(),
        }
    }
}

/// A response body on its way down, and what is to be done once it is over.
pub struct Body {
    source: Source,
    ending: Ending,
}

enum Source {
    /// Our own short text, or nothing.
    Own(Option<Bytes>),
    /// An upstream's answer.
    Upstream(Download),
}

/// An upstream's answer, with the connection it comes over.
pub struct Download {
    incoming: Incoming,
    /// Both gone once the answer is over.
    over: Option<(Box<Connection>, Attempt)>,
}

/// Runs when the answer is over, however it ends: the client is idle again and the request is logged.
pub struct Ending {
    worker: Rc<Worker>,
    client: Rc<Client>,
    sent: u64,
    line: Option<Box<Line>>,
}

/// The upstream broke off its answer; the client's connection is closed without a proper end.
#[derive(Debug, thiserror::Error)]
#[error("the upstream's answer ended early")]
pub struct EndedEarly;

impl Ending {
    /// For an answer to `client`; `line` goes to the access log.
    pub fn new(worker: &Rc<Worker>, client: &Rc<Client>, line: Option<Box<Line>>) -> Ending {
        Ending { worker: Rc::clone(worker), client: Rc::clone(client), sent: 0, line }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.client.idle();
        if let (Some(line), Some(access)) = (self.line.take(), &self.worker.access) {
            access.push(line.finished(self.sent), &self.worker.tally().log_dropped);
        }
    }
}

impl Body {
    /// Our own text.
    pub fn own(text: Bytes, ending: Ending) -> Body {
        Body { source: Source::Own(Some(text)), ending }
    }

    /// An upstream's answer over `connection`.
    pub fn upstream(incoming: Incoming, connection: Box<Connection>, attempt: Attempt, ending: Ending) -> Body {
        let mut download = Download { incoming, over: Some((connection, attempt)) };
        if download.incoming.is_end_stream() {
            download.complete(&ending.worker);
        }
        Body { source: Source::Upstream(download), ending }
    }
}

impl Download {
    fn complete(&mut self, worker: &Worker) {
        if let Some((connection, attempt)) = self.over.take() {
            attempt.complete();
            worker.connections.put(connection);
        }
    }

    fn fail(&mut self, failure: Failure) -> EndedEarly {
        if let Some((_, attempt)) = self.over.take().filter(|(_, attempt)| !attempt.blames_client()) {
            attempt.fail(failure);
        }
        EndedEarly
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>, worker: &Worker) -> Poll<Option<Result<Frame<Bytes>, EndedEarly>>> {
        let Some((connection, attempt)) = &mut self.over else {
            return Poll::Ready(None);
        };
        if attempt.is_expired() {
            return Poll::Ready(Some(Err(self.fail(Failure::Timeout))));
        }
        let mut polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_pending() {
            // Asking first tells hyper that bytes are wanted; driving then reads them.
            connection.drive(cx);
            polled = Pin::new(&mut self.incoming).poll_frame(cx);
        }
        match polled {
            Poll::Pending => {
                attempt.waits();
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                attempt.moved();
                // Trailers are the end too; hyper does not ask again after them.
                if frame.is_trailers() || self.incoming.is_end_stream() {
                    self.complete(worker);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(self.fail(Failure::Truncated)))),
            Poll::Ready(None) => {
                self.complete(worker);
                Poll::Ready(None)
            }
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = EndedEarly;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EndedEarly>>> {
        let Body { source, ending } = self.get_mut();
        let polled = match source {
            Source::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Source::Upstream(download) => download.poll_frame(cx, &ending.worker),
        };
        if let Poll::Ready(Some(Err(_))) = &polled {
            ending.client.cut_short();
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            ending.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(text) => text.as_ref().is_none_or(Bytes::is_empty),
            Source::Upstream(download) => download.over.is_none() || download.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Source::Upstream(download) => download.incoming.size_hint(),
        }
    }
}
