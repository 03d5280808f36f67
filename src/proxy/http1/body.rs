//! A body being received: how much of what was read belongs to it, and where it ends.
//!
//! Invariant: bytes behind the end are never touched; they are the next message.

use crate::proxy::http1::chunked::{self, Malformed, Step};
use crate::proxy::http1::framing::Framing;

/// The rest of a body.
#[derive(Debug, Clone, Default)]
pub enum Body {
    /// Nothing is left of it.
    #[default]
    Over,
    /// So many bytes are left.
    Length(u64),
    /// In chunks.
    Chunked(chunked::Decoder),
    /// Everything until the stream ends.
    UntilClose,
}

impl Body {
    /// The whole body of a message with this framing.
    pub fn of(framing: Framing) -> Body {
        match framing {
            Framing::None | Framing::Length(0) => Body::Over,
            Framing::Length(length) => Body::Length(length),
            Framing::Chunked => Body::Chunked(chunked::Decoder::default()),
            Framing::UntilClose => Body::UntilClose,
        }
    }

    /// What the front of `input` is; see [`Step`].
    ///
    /// # Errors
    /// When the chunked coding is violated.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Malformed> {
        let available = |most: u64| most.min(input.len() as u64) as usize;
        Ok(match self {
            Body::Over => Step::End { skip: 0 },
            Body::Chunked(decoder) => return decoder.step(input),
            _ if input.is_empty() => Step::More,
            Body::Length(left) => Step::Data { skip: 0, length: available(*left) },
            Body::UntilClose => Step::Data { skip: 0, length: input.len() },
        })
    }

    /// `n` bytes of the data last shown were used.
    pub fn took(&mut self, n: usize) {
        match self {
            Body::Length(left) if *left <= n as u64 => *self = Body::Over,
            Body::Length(left) => *left -= n as u64,
            Body::Chunked(decoder) => decoder.took(n),
            Body::Over | Body::UntilClose => {}
        }
    }

    /// True behind its end.
    pub fn is_over(&self) -> bool {
        match self {
            Body::Over => true,
            Body::Chunked(decoder) => decoder.is_done(),
            Body::Length(_) | Body::UntilClose => false,
        }
    }

    /// True if the rest of it lies within the next `available` bytes.
    pub fn is_within(&self, available: usize) -> bool {
        match self {
            Body::Length(left) => *left <= available as u64,
            Body::Over | Body::Chunked(_) | Body::UntilClose => self.is_over(),
        }
    }

    /// The stream ended; true if that is how the body was to end.
    pub fn ends_with_stream(&mut self) -> bool {
        let proper = matches!(self, Body::Over | Body::UntilClose);
        if proper {
            *self = Body::Over;
        }
        proper
    }

    /// The trailer section with its empty line, behind the end; empty if there is none.
    pub fn trailers(&self) -> &[u8] {
        match self {
            Body::Chunked(decoder) => decoder.trailers(),
            _ => &[],
        }
    }
}
