//! Counts what a client sends: pure, fed with the bytes as they come, in pieces of any size.
//!
//! `h2` parses frames and bounds what it stores; it does not bound what costs work and brings nothing (CVE-2019-9512
//! and its kin). The scanner reads frame headers only, skips every payload, and says when it is enough:
//!
//! - Frames that move nothing (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, unknown ones, ...) fill a leaking
//!   bucket of [`BUCKET`] frames. A reset to zero on progress would let a client buy a thousand PINGs with each cheap
//!   request. So progress gives back in proportion instead: [`PER_STREAM`] frames for a stream that opens, one for
//!   every [`PER_FRAME`] bytes of body either way (a client that reads sends WINDOW_UPDATEs, two for each stretch it
//!   took), and [`PER_SECOND`] for a second of time, so that keep-alive pings never add up.
//! - One header block may have twice the bytes of a decoded head, in frames that are not all small.
//! - Of more than [`FEW_STREAMS`] streams at most half may be reset by the client (CVE-2023-44487).
//! - No frame is larger than we allow.
//!
//! Invariant: the verdict depends on the bytes and times, not on how the bytes were cut.

use crate::bridge::admission::Abuse;
use crate::clock::Micros;
use crate::proxy::http2::preface::PREFACE;

/// Frames without progress that are too many at once.
pub const BUCKET: u64 = 1_000;
/// Frames that go with a stream: priorities, windows, a ping; more than any client in use sends.
const PER_STREAM: u64 = 16;
/// Bytes of body that excuse a frame. Windows are refilled every few KiB by all clients looked at.
const PER_FRAME: u64 = 256;
/// Frames that may come each second whatever else happens.
const PER_SECOND: u64 = 100;
/// CONTINUATION frames of one header block beside those that its bytes may fill.
const CONTINUATIONS: usize = 4;
/// Streams before resets are looked at: a page may well be left while it loads.
const FEW_STREAMS: u32 = 200;
/// Streams after which both counts are halved: what a client did long ago neither excuses nor convicts it.
const MEMORY: u32 = 1_000;
/// The largest frame that our SETTINGS allow (RFC 9113 section 6.5.2 has it as the least one).
pub const MAX_FRAME: u32 = 16_384;

/// Bytes of a frame header.
const HEADER: usize = 9;

mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const CONTINUATION: u8 = 9;
}

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;

/// What one client connection sent so far.
#[derive(Clone, Debug)]
pub struct Scanner {
    /// Bytes to pass over before the next frame header.
    skip: u32,
    header: [u8; HEADER],
    have: usize,
    bucket: Bucket,
    block: Block,
    newest: u32,
    streams: u32,
    resets: u32,
}

/// Frames without progress, each as [`PER_FRAME`] parts.
#[derive(Clone, Debug)]
struct Bucket {
    level: u64,
    /// Until when time was taken off.
    leaked: Micros,
}

/// The header block that is being received.
#[derive(Clone, Debug)]
struct Block {
    is_open: bool,
    frames: usize,
    bytes: usize,
    max_bytes: usize,
}

impl Scanner {
    /// Expects the preface, from `now` on; a head may have `max_head` bytes.
    pub fn new(max_head: usize, now: Micros) -> Scanner {
        Scanner {
            skip: PREFACE.len() as u32,
            header: [0; HEADER],
            have: 0,
            bucket: Bucket { level: 0, leaked: now },
            block: Block { is_open: false, frames: 0, bytes: 0, max_bytes: max_head.saturating_mul(2) },
            newest: 0,
            streams: 0,
            resets: 0,
        }
    }

    /// Takes the next bytes, which came at `now`.
    ///
    /// # Errors
    /// What the client did too much of; nothing more is to be read from it.
    pub fn feed(&mut self, mut bytes: &[u8], now: Micros) -> Result<(), Abuse> {
        while !bytes.is_empty() {
            let skipped = bytes.len().min(self.skip as usize);
            self.skip -= skipped as u32;
            bytes = &bytes[skipped..];
            let part = bytes.len().min(HEADER - self.have);
            self.header[self.have..self.have + part].copy_from_slice(&bytes[..part]);
            self.have += part;
            bytes = &bytes[part..];
            if self.have == HEADER {
                self.have = 0;
                self.frame(now)?;
            }
        }
        Ok(())
    }

    /// So many bytes of answers went to the client: it may say that it took them.
    pub fn moved(&mut self, bytes: u64) {
        self.bucket.give_back(bytes);
    }

    /// A header block began and is not complete.
    pub fn is_inside_head(&self) -> bool {
        self.block.is_open
    }

    fn frame(&mut self, now: Micros) -> Result<(), Abuse> {
        let [a, b, c, kind, flags, stream @ ..] = self.header;
        let (length, stream) = (u32::from_be_bytes([0, a, b, c]), u32::from_be_bytes(stream) & 0x7fff_ffff);
        if length > MAX_FRAME {
            return Err(Abuse::FrameSize);
        }
        self.skip = length;
        match kind {
            kind::HEADERS => {
                self.block.begin(length, flags)?;
                self.headers(stream, now)
            }
            kind::CONTINUATION => self.block.go_on(length, flags),
            kind::DATA => self.data(length, flags, now),
            kind::RST_STREAM => {
                self.resets += 1;
                self.check_resets()?;
                self.bucket.fill(now)
            }
            _ => self.bucket.fill(now),
        }
    }

    fn headers(&mut self, stream: u32, now: Micros) -> Result<(), Abuse> {
        if stream <= self.newest {
            // Trailers; or nonsense, which is `h2`'s to refuse.
            return self.bucket.fill(now);
        }
        self.newest = stream;
        self.streams += 1;
        if self.streams == MEMORY {
            self.streams /= 2;
            self.resets /= 2;
        }
        self.bucket.give_back(PER_STREAM * PER_FRAME);
        Ok(())
    }

    fn data(&mut self, length: u32, flags: u8, now: Micros) -> Result<(), Abuse> {
        if length == 0 && flags & END_STREAM == 0 {
            return self.bucket.fill(now);
        }
        if flags & PADDED == 0 {
            self.bucket.give_back(length.into());
        }
        // Of a padded frame only its payload tells how much it carries. It neither costs nor pays; `h2` counts those
        // that hold nothing but padding.
        Ok(())
    }

    fn check_resets(&self) -> Result<(), Abuse> {
        let too_many = self.streams > FEW_STREAMS && u64::from(self.resets) * 2 > u64::from(self.streams);
        if too_many { Err(Abuse::Resets) } else { Ok(()) }
    }
}

impl Bucket {
    fn fill(&mut self, now: Micros) -> Result<(), Abuse> {
        let parts = now.since(self.leaked).saturating_mul(PER_SECOND * PER_FRAME) / 1_000_000;
        if parts > 0 {
            self.leaked = now;
            self.give_back(parts);
        }
        self.level += PER_FRAME;
        if self.level > BUCKET * PER_FRAME { Err(Abuse::ControlFrames) } else { Ok(()) }
    }

    fn give_back(&mut self, parts: u64) {
        self.level = self.level.saturating_sub(parts);
    }
}

impl Block {
    fn begin(&mut self, length: u32, flags: u8) -> Result<(), Abuse> {
        (self.frames, self.bytes) = (0, 0);
        self.add(length, flags)
    }

    fn go_on(&mut self, length: u32, flags: u8) -> Result<(), Abuse> {
        self.frames += 1;
        self.add(length, flags)
    }

    fn add(&mut self, length: u32, flags: u8) -> Result<(), Abuse> {
        self.bytes = self.bytes.saturating_add(length as usize);
        self.is_open = flags & END_HEADERS == 0;
        let max_frames = CONTINUATIONS + self.max_bytes / MAX_FRAME as usize;
        if self.frames > max_frames || self.bytes > self.max_bytes { Err(Abuse::HeaderBlock) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
