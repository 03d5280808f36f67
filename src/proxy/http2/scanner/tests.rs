//! Floods in every form, and what honest clients send.

use proptest::prelude::*;

use super::*;

const NOW: Micros = Micros(1_000_000);

/// A frame of zeros.
fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + length);
    frame.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.resize(HEADER + length, 0);
    frame
}

/// A scanner behind the preface.
fn scanner() -> Scanner {
    let mut scanner = Scanner::new(32 * 1024, NOW);
    scanner.feed(PREFACE, NOW).unwrap();
    scanner
}

/// How many of the same frame pass at one moment, and what stops them; the scanner is left as it was.
fn run(scanner: &Scanner, frame: &[u8]) -> (u64, Option<Abuse>) {
    let mut scanner = scanner.clone();
    for passed in 0..10_000 {
        if let Err(abuse) = scanner.feed(frame, NOW) {
            return (passed, Some(abuse));
        }
    }
    (10_000, None)
}

/// A scanner whose bucket is full.
fn full() -> Scanner {
    let mut scanner = scanner();
    scanner.bucket.level = BUCKET * PER_FRAME;
    scanner
}

const PING: u8 = 6;
const SETTINGS: u8 = 4;

#[test]
fn what_moves_nothing_may_come_a_thousand_times() {
    let table = [
        ("ping", frame(PING, 0, 0, 8)),
        ("ping acknowledged", frame(PING, 1, 0, 8)),
        ("settings", frame(SETTINGS, 0, 0, 6)),
        ("priority", frame(2, 0, 1, 5)),
        ("window update", frame(8, 0, 0, 4)),
        ("empty data", frame(kind::DATA, 0, 1, 0)),
        ("unknown", frame(0xbe, 0, 0, 3)),
        ("push promise", frame(5, END_HEADERS, 1, 4)),
        ("go away", frame(7, 0, 0, 8)),
        ("trailers again and again", frame(kind::HEADERS, END_HEADERS, 0, 1)),
        ("resets of one stream", frame(kind::RST_STREAM, 0, 1, 4)),
    ];
    for (name, frame) in table {
        assert_eq!(run(&scanner(), &frame), (BUCKET, Some(Abuse::ControlFrames)), "{name}");
    }
}

#[test]
fn what_moves_something_may_come_for_ever() {
    let table = [
        ("data", frame(kind::DATA, 0, 1, 1)),
        ("the end of a body", frame(kind::DATA, END_STREAM, 1, 0)),
        ("padded data", frame(kind::DATA, PADDED, 1, 5)),
    ];
    for (name, frame) in table {
        assert_eq!(run(&scanner(), &frame), (10_000, None), "{name}");
    }
    let mut scanner = scanner();
    for stream in 0..10_000 {
        scanner.feed(&frame(kind::HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, 30), NOW).unwrap();
    }
}

#[test]
fn progress_gives_back_in_proportion() {
    let ping = frame(PING, 0, 0, 8);
    type Case = (&'static str, Box<dyn Fn(&mut Scanner)>, u64);
    let table: [Case; 4] = [
        ("a stream", Box::new(|s| s.feed(&frame(kind::HEADERS, END_HEADERS, 7, 9), NOW).unwrap()), PER_STREAM),
        ("a body going up", Box::new(|s| s.feed(&frame(kind::DATA, 0, 7, 2_560), NOW).unwrap()), 10),
        ("an answer going down", Box::new(|s| s.moved(2_560)), 10),
        ("nothing", Box::new(|_| {}), 0),
    ];
    for (name, progress, expected) in table {
        let mut scanner = full();
        progress(&mut scanner);
        assert_eq!(run(&scanner, &ping).0, expected, "{name}");
    }
}

#[test]
fn keep_alive_pings_never_add_up() {
    let mut scanner = scanner();
    for tenth in 0..100_000 {
        let now = Micros(NOW.0 + tenth * 10_000);
        scanner.feed(&frame(PING, 0, 0, 8), now).unwrap_or_else(|abuse| panic!("{abuse:?} at {tenth}"));
    }
}

#[test]
fn time_excuses_a_hundred_frames_each_second() {
    let (ping, mut scanner) = (frame(PING, 0, 0, 8), full());
    let later = Micros(NOW.0 + 1_000_000);
    assert_eq!((0..1_000).take_while(|_| scanner.feed(&ping, later).is_ok()).count() as u64, PER_SECOND);
}

#[test]
fn a_quiet_hour_does_not_buy_a_larger_flood() {
    let (ping, mut scanner) = (frame(PING, 0, 0, 8), scanner());
    let later = Micros(NOW.0 + 3_600_000_000);
    assert_eq!((0..10_000).take_while(|_| scanner.feed(&ping, later).is_ok()).count() as u64, BUCKET);
}

#[test]
fn a_header_block_has_few_frames_and_bytes() {
    let mut begun = scanner();
    begun.feed(&frame(kind::HEADERS, 0, 1, 10), NOW).unwrap();
    assert!(begun.is_inside_head());
    let (empty, large) = (frame(kind::CONTINUATION, 0, 1, 0), frame(kind::CONTINUATION, 0, 1, MAX_FRAME as usize));
    assert_eq!(run(&begun, &empty), (8, Some(Abuse::HeaderBlock)));
    assert_eq!(run(&begun, &large), (3, Some(Abuse::HeaderBlock)));
    begun.feed(&frame(kind::CONTINUATION, END_HEADERS, 1, 10), NOW).unwrap();
    assert!(!begun.is_inside_head());
    // The next block starts anew.
    begun.feed(&frame(kind::HEADERS, 0, 3, 10), NOW).unwrap();
    assert_eq!(run(&begun, &empty), (8, Some(Abuse::HeaderBlock)));
}

#[test]
fn a_larger_limit_of_heads_allows_more_frames() {
    let mut scanner = Scanner::new(1024 * 1024, NOW);
    scanner.feed(PREFACE, NOW).unwrap();
    scanner.feed(&frame(kind::HEADERS, 0, 1, MAX_FRAME as usize), NOW).unwrap();
    let full = frame(kind::CONTINUATION, 0, 1, MAX_FRAME as usize);
    assert_eq!(run(&scanner, &full), (127, Some(Abuse::HeaderBlock)));
}

#[test]
fn most_streams_may_not_be_reset() {
    let mut scanner = scanner();
    for stream in (1..).step_by(2) {
        scanner.feed(&frame(kind::HEADERS, END_HEADERS, stream, 20), NOW).unwrap();
        if let Err(abuse) = scanner.feed(&frame(kind::RST_STREAM, 0, stream, 4), NOW) {
            assert_eq!((abuse, stream), (Abuse::Resets, 2 * FEW_STREAMS + 1));
            break;
        }
    }
}

#[test]
fn half_of_the_streams_may_be_reset_for_ever() {
    let mut scanner = scanner();
    for stream in 0..20_000 {
        scanner.feed(&frame(kind::HEADERS, END_HEADERS, 2 * stream + 1, 20), NOW).unwrap();
        if stream % 2 == 1 {
            scanner.feed(&frame(kind::RST_STREAM, 0, 2 * stream + 1, 4), NOW).unwrap();
        }
    }
}

#[test]
fn a_good_past_buys_a_thousand_resets_at_most() {
    let mut scanner = scanner();
    for stream in 0..100_000 {
        scanner.feed(&frame(kind::HEADERS, END_HEADERS, 2 * stream + 1, 20), NOW).unwrap();
    }
    let mut resets = 0;
    for stream in 100_000..200_000 {
        let open = scanner.feed(&frame(kind::HEADERS, END_HEADERS, 2 * stream + 1, 20), NOW);
        if open.and(scanner.feed(&frame(kind::RST_STREAM, 0, 2 * stream + 1, 4), NOW)).is_err() {
            break;
        }
        resets += 1;
    }
    assert!((400..=1_000).contains(&resets), "{resets}");
}

#[test]
fn no_frame_is_larger_than_allowed() {
    for kind in [kind::DATA, kind::HEADERS, SETTINGS, 0xbe] {
        let mut large = frame(kind, END_HEADERS | END_STREAM, 1, 0);
        large[..3].copy_from_slice(&(MAX_FRAME + 1).to_be_bytes()[1..]);
        assert_eq!(scanner().feed(&large, NOW), Err(Abuse::FrameSize));
        assert_eq!(scanner().feed(&frame(kind, END_HEADERS | END_STREAM, 1, MAX_FRAME as usize), NOW), Ok(()));
    }
}

#[test]
fn the_reserved_bit_of_a_stream_means_nothing() {
    let mut scanner = scanner();
    scanner.feed(&frame(kind::HEADERS, END_HEADERS, 0x8000_0005, 1), NOW).unwrap();
    assert_eq!((scanner.newest, scanner.streams), (5, 1));
}

proptest! {
    /// However the bytes are cut, the verdict and what is remembered are the same; and no input panics.
    #[test]
    fn cuts_do_not_matter(
        frames in prop::collection::vec((0u8..12, any::<u8>(), 0u32..20, 0usize..600), 0..60),
        noise in prop::collection::vec(any::<u8>(), 0..200),
        cuts in prop::collection::vec(1usize..700, 1..40),
    ) {
        let mut bytes = PREFACE.to_vec();
        frames.iter().for_each(|(kind, flags, stream, length)| bytes.extend(frame(*kind, *flags, *stream, *length)));
        bytes.extend(noise);
        let mut whole = Scanner::new(1_000, NOW);
        let verdict = whole.feed(&bytes, NOW);
        let mut pieces = Scanner::new(1_000, NOW);
        let (mut rest, mut cuts, mut result) = (&bytes[..], cuts.into_iter().cycle(), Ok(()));
        while !rest.is_empty() && result.is_ok() {
            let (piece, after) = rest.split_at(cuts.next().unwrap().min(rest.len()));
            result = pieces.feed(piece, NOW);
            rest = after;
        }
        prop_assert_eq!(verdict, result);
        if verdict.is_ok() {
            prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        }
    }
}
