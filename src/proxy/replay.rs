//! The replay buffer: what went up of a request's body, so that another attempt can send it again.
//!
//! It stands between the client and the upstream and keeps what passes, as long as that fits and another attempt may
//! follow. A new attempt is shown what was kept and then goes on with the client. What does not fit passes through,
//! and with the first byte of it the request can no longer be repeated: it is never refused for that. A request
//! without a body has nothing to keep and costs nothing.
//!
//! Invariant: every attempt sees the body from its first byte, without a gap, or none does after the first.

use std::task::{Context, Poll, ready};

use crate::proxy::buffer::{Buffer, Buffers, LARGE, SMALL};
use crate::proxy::error::Fault;
use crate::proxy::exchange::Upload;

/// The most that can be kept: one pooled buffer.
pub const MOST: usize = LARGE;

/// What was kept of one request's body.
#[derive(Debug, Default)]
pub struct Replay {
    kept: Buffer,
    /// How far the present attempt has got with what was kept.
    at: usize,
    /// How much may be kept; 0 once nothing is kept any more.
    most: usize,
    /// The client's body is over.
    is_ended: bool,
    /// Something passed that was not kept.
    is_spent: bool,
}

impl Replay {
    /// Keeps up to `most` bytes; 0 lets everything pass.
    pub fn of(most: usize) -> Replay {
        Replay { most: most.min(MOST), ..Replay::default() }
    }

    /// Everything that was used of the body can be shown again.
    pub fn is_whole(&self) -> bool {
        !self.is_spent
    }

    /// The next attempt begins with the first byte.
    pub fn rewind(&mut self) {
        debug_assert!(self.is_whole());
        self.at = 0;
    }

    /// No other attempt follows: what comes from now on passes.
    pub fn ends(&mut self, buffers: &Buffers) {
        self.most = 0;
        self.let_go(buffers);
    }

    /// Gives the memory back.
    pub fn put(self, buffers: &Buffers) {
        if self.kept.is_allocated() {
            buffers.put(self.kept);
        }
    }

    /// The next bytes for the present attempt, see [`Upload::poll_upload`].
    pub fn poll_upload<'a, U: Upload>(
        &'a mut self,
        cx: &mut Context<'_>,
        upload: &'a mut U,
        buffers: &Buffers,
    ) -> Poll<Result<Option<&'a [u8]>, Fault>> {
        if self.at == self.kept.len() {
            if self.is_ended {
                return Poll::Ready(Ok(None));
            }
            if self.most == 0 {
                let polled = upload.poll_upload(cx);
                self.is_ended = matches!(polled, Poll::Ready(Ok(None)));
                return polled;
            }
            let shown = match ready!(upload.poll_upload(cx))? {
                None => {
                    self.is_ended = true;
                    return Poll::Ready(Ok(None));
                }
                Some(data) if self.kept.len() + data.len() <= self.most => {
                    self.kept = room_for(std::mem::take(&mut self.kept), data.len(), buffers);
                    self.kept.end().extend_from_slice(data);
                    data.len()
                }
                Some(_) => 0,
            };
            if shown == 0 {
                self.ends(buffers);
                // The same bytes once more: nothing was taken.
                return upload.poll_upload(cx);
            }
            upload.took(shown);
        }
        let rest = &self.kept.filled()[self.at..];
        Poll::Ready(Ok((!rest.is_empty()).then_some(rest)))
    }

    /// `n` bytes of those last shown were used.
    pub fn took(&mut self, n: usize, upload: &mut impl Upload, buffers: &Buffers) {
        if self.at < self.kept.len() {
            self.at += n;
            self.let_go(buffers);
        } else if n > 0 {
            self.is_spent = true;
            upload.took(n);
        }
    }

    /// The bytes last shown are certainly the last; see [`Upload::is_last`].
    pub fn is_last(&self, upload: &impl Upload) -> bool {
        match self.is_ended {
            true => upload.trailers().list.is_empty(),
            false => upload.is_last(),
        }
    }

    /// Lets what was kept go once nobody can ask for it again.
    fn let_go(&mut self, buffers: &Buffers) {
        if self.most == 0 && self.at == self.kept.len() && self.kept.is_allocated() {
            self.is_spent |= self.at > 0;
            self.at = 0;
            buffers.put(std::mem::take(&mut self.kept));
        }
    }
}

/// The same bytes with room for `more`: in the smallest pooled buffer that holds them.
fn room_for(kept: Buffer, more: usize, buffers: &Buffers) -> Buffer {
    let wanted = kept.len() + more;
    let capacity = match kept.is_allocated() {
        false => 0,
        true if kept.len() <= SMALL && wanted > SMALL => SMALL,
        true => wanted,
    };
    if capacity >= wanted {
        return kept;
    }
    let mut larger = buffers.take(wanted);
    larger.end().extend_from_slice(kept.filled());
    if kept.is_allocated() {
        buffers.put(kept);
    }
    larger
}

#[cfg(test)]
mod tests;
