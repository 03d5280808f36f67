//! Bodies cut up in every way: whatever an attempt took, the next one sees all of it, or is told that it cannot.

use std::task::Waker;

use proptest::prelude::*;

use super::*;
use crate::proxy::head::Fields;

/// A client that sends these pieces, with a wait before each.
struct Pieces {
    pieces: Vec<Vec<u8>>,
    /// The next poll finds nothing.
    waits: bool,
    taken: usize,
    ends: bool,
}

impl Pieces {
    fn of(pieces: &[&[u8]]) -> Pieces {
        let pieces = pieces.iter().rev().map(|piece| piece.to_vec()).collect();
        Pieces { pieces, waits: true, taken: 0, ends: false }
    }
}

impl Upload for Pieces {
    fn poll_upload(&mut self, _: &mut Context<'_>) -> Poll<Result<Option<&[u8]>, Fault>> {
        if std::mem::take(&mut self.waits) {
            return Poll::Pending;
        }
        assert!(!self.ends, "its end was asked for twice");
        self.ends = self.pieces.is_empty();
        Poll::Ready(Ok(self.pieces.last().map(Vec::as_slice)))
    }

    fn took(&mut self, n: usize) {
        let Some(piece) = self.pieces.last_mut().filter(|_| n > 0) else { return };
        piece.drain(..n);
        self.taken += n;
        if piece.is_empty() {
            self.pieces.pop();
            self.waits = true;
        }
    }

    fn trailers(&self) -> Fields<'_> {
        Fields::NONE
    }

    fn is_last(&self) -> bool {
        self.pieces.len() <= 1
    }

    fn awaits_leave(&self) -> bool {
        false
    }
}

/// An attempt that takes `most` bytes at a time until it has seen `up_to` bytes or the end; what it saw.
fn attempt(replay: &mut Replay, client: &mut Pieces, buffers: &Buffers, most: usize, up_to: usize) -> Vec<u8> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut seen = Vec::new();
    while seen.len() < up_to {
        let n = match replay.poll_upload(&mut cx, client, buffers) {
            Poll::Pending => continue,
            Poll::Ready(Ok(Some(data))) => {
                let n = data.len().min(most).min(up_to - seen.len());
                assert!(n > 0);
                seen.extend_from_slice(&data[..n]);
                n
            }
            Poll::Ready(Ok(None)) => return seen,
            Poll::Ready(Err(fault)) => panic!("{fault}"),
        };
        replay.took(n, client, buffers);
    }
    seen
}

#[test]
fn a_second_attempt_begins_with_the_first_byte_and_goes_on_with_the_client() {
    let (buffers, mut client) = (Buffers::default(), Pieces::of(&[b"one ", b"two ", b"three"]));
    let mut replay = Replay::of(64);
    assert_eq!(attempt(&mut replay, &mut client, &buffers, 3, 6), b"one tw");
    assert!(replay.is_whole());
    replay.rewind();
    assert_eq!(attempt(&mut replay, &mut client, &buffers, 64, usize::MAX), b"one two three");
    // And a third one, now that the client has nothing more to say.
    replay.rewind();
    assert_eq!(attempt(&mut replay, &mut client, &buffers, 64, usize::MAX), b"one two three");
}

#[test]
fn what_does_not_fit_passes_and_is_not_kept() {
    let (buffers, mut client) = (Buffers::default(), Pieces::of(&[b"12345", b"67890", b"tail"]));
    let mut replay = Replay::of(8);
    assert_eq!(attempt(&mut replay, &mut client, &buffers, 64, 5), b"12345");
    assert!(replay.is_whole());
    assert_eq!(attempt(&mut replay, &mut client, &buffers, 64, usize::MAX), b"67890tail");
    assert!(!replay.is_whole() && !replay.kept.is_allocated());
}

#[test]
fn what_was_shown_but_not_used_is_not_lost() {
    let mut cx = Context::from_waker(Waker::noop());
    for most in [0, 3, 64] {
        let (buffers, mut client) = (Buffers::default(), Pieces::of(&[b"body"]));
        let mut replay = Replay::of(most);
        let mut polled = replay.poll_upload(&mut cx, &mut client, &buffers);
        if polled.is_pending() {
            polled = replay.poll_upload(&mut cx, &mut client, &buffers);
        }
        assert!(matches!(polled, Poll::Ready(Ok(Some(b"body")))), "{most}");
        replay.took(0, &mut client, &buffers);
        assert!(replay.is_whole(), "nothing of it was used: {most}");
        replay.rewind();
        assert_eq!(attempt(&mut replay, &mut client, &buffers, 64, usize::MAX), b"body");
        assert_eq!(replay.is_whole(), most == 64);
    }
}

#[test]
fn the_last_attempt_gives_the_memory_back_once_it_has_caught_up() {
    let (buffers, mut client) = (Buffers::default(), Pieces::of(&[b"one ", b"two"]));
    let mut replay = Replay::of(64);
    attempt(&mut replay, &mut client, &buffers, 64, 4);
    replay.rewind();
    replay.ends(&buffers);
    assert!(replay.kept.is_allocated());
    assert_eq!(attempt(&mut replay, &mut client, &buffers, 64, usize::MAX), b"one two");
    assert!(!replay.kept.is_allocated() && !replay.is_whole());
}

#[test]
fn only_the_last_bytes_are_the_last() {
    let (buffers, mut client) = (Buffers::default(), Pieces::of(&[b"one ", b"two"]));
    let mut replay = Replay::of(64);
    attempt(&mut replay, &mut client, &buffers, 64, 4);
    attempt(&mut replay, &mut client, &buffers, 64, 2);
    assert!(replay.is_last(&client));
    replay.rewind();
    assert!(replay.is_last(&client), "what is shown now reaches to the end");
}

proptest! {
    /// Attempts that break off anywhere see a prefix of the body each; the last one all of it.
    #[test]
    fn every_attempt_sees_the_body_without_a_gap(
        pieces in prop::collection::vec(1usize..40_000, 0..8),
        attempts in prop::collection::vec((1usize..20_000, 0usize..200_000), 1..5),
        most in 0usize..140_000,
    ) {
        let mut next = 0u8;
        let mut piece = |length: usize| -> Vec<u8> {
            (0..length).map(|_| { next = next.wrapping_mul(31).wrapping_add(7); next }).collect()
        };
        let pieces: Vec<Vec<u8>> = pieces.into_iter().map(&mut piece).collect();
        let body = pieces.concat();
        let mut client = Pieces::of(&pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let (buffers, mut replay) = (Buffers::default(), Replay::of(most));
        for (at_once, up_to) in attempts {
            let seen = attempt(&mut replay, &mut client, &buffers, at_once, up_to);
            prop_assert!(body.starts_with(&seen), "a gap");
            prop_assert!(replay.kept.len() <= most.min(MOST));
            if !replay.is_whole() {
                prop_assert!(client.taken > 0);
                return Ok(());
            }
            replay.rewind();
        }
        replay.ends(&buffers);
        prop_assert_eq!(attempt(&mut replay, &mut client, &buffers, usize::MAX, usize::MAX), body);
    }
}
