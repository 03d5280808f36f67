//! Buffers, recycled per worker: what a connection reads into and writes from while something is in flight.
//!
//! An idle connection holds none, so ten thousand of them cost little; a busy one takes a warm buffer from the
//! worker and gives it back. The free list is bounded: after a burst the memory goes back to the allocator.
//!
//! Invariant: a buffer in the free list is empty, and nothing ever reads what an earlier owner left in it.

use std::cell::RefCell;

/// Room for a usual head with a small body, and for what one read brings: no more is held by most exchanges.
pub const SMALL: usize = 16 * 1024;
/// The largest buffer of a streaming body: larger reads gain nothing measurable.
pub const LARGE: usize = 128 * 1024;
/// Free buffers kept of each size: a busy worker's share, 4 MiB and 8 MiB at most.
const SPARE_SMALL: usize = 256;
const SPARE_LARGE: usize = 64;

/// Bytes in the order they came; the front is consumed, the end is filled.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// What is there and not consumed.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How much that is.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// True if all of it was consumed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if it holds memory.
    pub fn is_allocated(&self) -> bool {
        self.bytes.capacity() != 0
    }

    /// Lets `n` bytes at the front go.
    pub fn consume(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.bytes.len());
        if self.start >= self.bytes.len() {
            self.clear();
        }
    }

    /// Lets everything go.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    /// The end, for appending; bytes before it must be left alone.
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Makes room for at least one byte by moving what is left to the front, or by growing up to `limit` bytes of
    /// content. False if it is full.
    pub fn make_room(&mut self, limit: usize) -> bool {
        if self.bytes.len() < self.bytes.capacity() && self.bytes.len() < limit.saturating_add(self.start) {
            return true;
        }
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        if self.bytes.len() >= limit {
            return false;
        }
        if self.bytes.len() == self.bytes.capacity() {
            let grown = (self.bytes.capacity() * 2).clamp(SMALL, limit.max(SMALL));
            self.bytes.reserve_exact(grown - self.bytes.len());
        }
        true
    }

    /// Takes the first `n` bytes as a buffer of their own; what follows stays here, in `spare`'s memory.
    pub fn split_front(&mut self, n: usize, mut spare: Buffer) -> Vec<u8> {
        spare.clear();
        let rest = &self.filled()[n..];
        if !rest.is_empty() {
            spare.bytes.extend_from_slice(rest);
        }
        let front = std::mem::replace(self, spare);
        let mut bytes = front.bytes;
        bytes.truncate(front.start + n);
        if front.start > 0 {
            bytes.drain(..front.start);
        }
        bytes
    }
}

/// The free buffers of one worker.
#[derive(Debug, Default)]
pub struct Buffers {
    small: RefCell<Vec<Vec<u8>>>,
    large: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    /// An empty buffer with room for at least `size` bytes, [`LARGE`] at most.
    pub fn take(&self, size: usize) -> Buffer {
        let (list, capacity) = if size <= SMALL { (&self.small, SMALL) } else { (&self.large, LARGE) };
        let bytes = list.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(capacity));
        Buffer { bytes, start: 0 }
    }

    /// A [`SMALL`] stretch of memory without content.
    pub fn take_bytes(&self) -> Vec<u8> {
        self.take(SMALL).bytes
    }

    /// Takes a buffer back, with whatever is in it.
    pub fn put(&self, buffer: Buffer) {
        self.put_bytes(buffer.bytes);
    }

    /// Takes a buffer's memory back.
    pub fn put_bytes(&self, mut bytes: Vec<u8>) {
        let (list, most) = match bytes.capacity() {
            SMALL => (&self.small, SPARE_SMALL),
            LARGE => (&self.large, SPARE_LARGE),
            _ => return,
        };
        let mut list = list.borrow_mut();
        if list.len() < most {
            bytes.clear();
            list.push(bytes);
        }
    }

    /// Lets half of the free memory go: called now and then while little is in flight.
    pub fn shrink(&self) {
        for list in [&self.small, &self.large] {
            let mut list = list.borrow_mut();
            let half = list.len() / 2;
            list.truncate(half);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(text: &[u8]) -> Buffer {
        let mut buffer = Buffers::default().take(1);
        buffer.end().extend_from_slice(text);
        buffer
    }

    #[test]
    fn what_follows_a_head_stays_when_the_head_is_taken() {
        let mut buffer = holding(b"..headbody");
        buffer.consume(2);
        assert_eq!(buffer.split_front(4, Buffer::default()), b"head");
        assert_eq!(buffer.filled(), b"body");
    }

    #[test]
    fn room_is_made_by_moving_before_growing_and_never_past_the_limit() {
        let mut buffer = holding(&[7; SMALL]);
        assert!(!buffer.make_room(SMALL));
        buffer.consume(1);
        assert!(buffer.make_room(SMALL));
        assert_eq!((buffer.len(), buffer.end().capacity()), (SMALL - 1, SMALL));
        buffer.end().push(7);
        assert!(buffer.make_room(2 * SMALL));
        assert_eq!(buffer.end().capacity(), 2 * SMALL);
    }

    #[test]
    fn a_buffer_comes_back_empty_and_a_grown_one_not_at_all() {
        let buffers = Buffers::default();
        buffers.put(holding(b"secret"));
        let again = buffers.take(100);
        assert!(again.is_empty() && again.is_allocated());
        let mut grown = holding(b"");
        grown.end().reserve_exact(3 * SMALL);
        buffers.put(grown);
        assert_eq!((buffers.small.borrow().len(), buffers.large.borrow().len()), (0, 0));
        buffers.put(buffers.take(LARGE));
        assert_eq!(buffers.large.borrow().len(), 1);
    }
}
