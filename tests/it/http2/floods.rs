//! Attacks by hand-written frames: each is ended within bounds and counted, and others are served meanwhile.

use std::thread;

use super::raw::{self, Raw, Told, *};
use super::{limited, metric, shop};
use crate::support::process::Process;
use crate::support::teal::{Teal, shop_text};
use crate::support::upstream::{Act, Upstream, ok};

/// Sends `frame` until the connection ends, 100,000 times at most, while the answers are read.
/// The number sent, and the code of the GOAWAY.
fn flood(client: &mut Raw, mut frame: impl FnMut(u32) -> Vec<u8> + Send) -> Option<u32> {
    let mut out = client.stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for at in 0..100_000 {
                if std::io::Write::write_all(&mut out, &frame(at)).is_err() {
                    return;
                }
            }
        });
        client.ended()
    })
}

/// Connections ended for these reasons.
fn abuses(teal: &Teal, reasons: &[&str]) -> u64 {
    reasons.iter().map(|reason| metric(teal, &format!("teal_http2_abuses_total{{reason=\"{reason}\"}}"))).sum()
}

/// What the counter of frames ends.
const CONTROL: &[&str] = &["control_frames"];
/// What `h2` ends by a limit of its own; the counter of frames may come first, if many came at once.
const EITHER: &[&str] = &["excess", "header_block", "resets", "control_frames"];

#[test]
fn floods_end_their_connection_with_a_word_and_nobody_elses() {
    let (blue, teal) = shop();
    let stream = |at: u32| 2 * at + 1;
    type Frames = Box<dyn FnMut(u32) -> Vec<u8> + Send>;
    let table: Vec<(&str, &[&str], Vec<u8>, Frames)> = vec![
        ("pings", CONTROL, vec![], Box::new(|_| frame(PING, 0, 0, &[0; 8]))),
        ("settings", CONTROL, vec![], Box::new(|_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0]))),
        ("empty settings", CONTROL, vec![], Box::new(|_| frame(SETTINGS, 0, 0, &[]))),
        ("priorities", CONTROL, vec![], Box::new(|_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]))),
        ("windows", CONTROL, vec![], Box::new(|_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        ("unknown frames", CONTROL, vec![], Box::new(|_| frame(0xbe, 0, 0, &[0; 100]))),
        (
            "continuations",
            EITHER,
            raw::frame(HEADERS, 0, 1, &block(&GET)),
            Box::new(|_| frame(CONTINUATION, 0, 1, &[])),
        ),
        (
            "continuations full of fields",
            EITHER,
            raw::frame(HEADERS, 0, 1, &block(&GET)),
            Box::new(|_| frame(CONTINUATION, 0, 1, &block(&[("x", "y")]).repeat(3_000))),
        ),
        ("empty data", EITHER, raw::post(1, &[]), Box::new(|_| frame(DATA, 0, 1, &[]))),
        ("padding alone", EITHER, raw::post(1, &[]), Box::new(|_| frame(DATA, 0x8, 1, &[3, 0, 0, 0]))),
        (
            "rapid resets",
            EITHER,
            vec![],
            Box::new(move |at| [raw::get(stream(at), &[]), frame(RST_STREAM, 0, stream(at), &[0, 0, 0, 8])].concat()),
        ),
        ("streams past the limit", EITHER, vec![], Box::new(move |at| raw::post(stream(at), &[]))),
        (
            "errors that make us reset",
            EITHER,
            vec![],
            Box::new(move |at| {
                [raw::post(stream(at), &[]), frame(WINDOW_UPDATE, 0, stream(at), &[0x7f, 0xff, 0xff, 0xff])].concat()
            }),
        ),
    ];
    for (name, reason, first, frames) in table {
        let before = abuses(&teal, reason);
        let mut client = Raw::connect(teal.address);
        client.send(&first);
        assert_eq!(flood(&mut client, frames), Some(ENHANCE_YOUR_CALM), "{name}");
        assert_eq!(abuses(&teal, reason), before + 1, "{name}");
        assert_eq!(teal.client().get("/", "").body, "blue", "{name}");
    }
    drop(blue);
}

#[test]
fn slow_resets_end_the_connection_once_they_are_most_of_its_streams() {
    let blue = Upstream::start(|_| Act::Hang);
    let teal = limited(&blue.url(), "keep_alive: 60s", "");
    let mut client = Raw::connect(teal.address);
    let mut streams = 0;
    // Each is begun for certain before it is reset: the ping is answered behind it.
    for stream in (1..).step_by(2) {
        client.send(&[raw::get(stream, &[]), frame(PING, 0, 0, &[7; 8])].concat());
        let Some(_) = std::iter::from_fn(|| client.frame()).find(|frame| frame.kind == PING) else { break };
        client.send(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
        streams += 1;
        assert!(streams < 1_000, "never");
    }
    assert!((200..=210).contains(&streams), "{streams}");
    assert_eq!(abuses(&teal, &["resets"]), 1);
    teal.until("nothing is in flight", || metric(&teal, "teal_pool_in_flight{service=\"shop\",pool=\"blue\"}") == 0);
}

#[test]
fn a_window_in_dribbles_is_no_progress() {
    let blue = Upstream::plain("a body that could be had a byte at a time, for ever and ever and ever");
    let teal = limited(&blue.url(), "keep_alive: 60s", "");
    let mut client = Raw::with(teal.address, &[(4, 0)]);
    client.send(&raw::get(1, &[]));
    // A window of one byte, then none again, and so on.
    let end = flood(&mut client, |at| match at % 2 {
        0 => frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
        _ => frame(PING, 0, 0, &[0; 8]),
    });
    assert_eq!(end, Some(ENHANCE_YOUR_CALM));
}

#[test]
fn an_honest_client_may_ping_and_open_windows_all_day() {
    let body = "x".repeat(100_000);
    let answer = ok(&body);
    let blue = Upstream::start(move |_| Act::Answer(answer.clone()));
    let teal = limited(&blue.url(), "keep_alive: 60s", "");
    let mut client = Raw::with(teal.address, &[(4, 16_384)]);
    for stream in (1..200).step_by(2) {
        client.send(&raw::get(stream, &[]));
        client.send(&frame(PING, 0, 0, &[1; 8]));
        let mut read = 0;
        while read < body.len() {
            let data = client.frame_of(DATA);
            let length = data.payload.len();
            read += length;
            let window = (length as u32).to_be_bytes();
            client.send(&[frame(WINDOW_UPDATE, 0, stream, &window), frame(WINDOW_UPDATE, 0, 0, &window)].concat());
        }
    }
}

/// Teal as a process of its own, with one pool.
fn process(url: &str) -> Process {
    Process::start("true", &shop_text("none", &[("blue", url)], "health: off"))
}

#[test]
fn a_header_bomb_costs_little_memory() {
    let blue = Upstream::plain("blue");
    let teal = process(&blue.url());
    let before = teal.resident();
    // One field of 3,000 bytes goes into the dynamic table; then each byte of a block means all of it.
    let mut seed = vec![0x40];
    seed.extend(&block(&[("bomb", &"x".repeat(3_000))])[1..]);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Raw::with(teal.listen, &[(4, 0)]);
        client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[block(&GET), seed.clone()].concat()));
        let mut worst = 0;
        for stream in (3..200).step_by(2) {
            let bomb = [block(&GET), vec![0x80 | 62; 10]].concat();
            worst += 1;
            if !client.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &bomb)) {
                break;
            }
        }
        assert!(worst > 0);
        clients.push(client);
    }
    for client in &mut clients {
        // The last of its streams was answered or refused: everything before it was decoded.
        client.send(&frame(PING, 0, 0, &[9; 8]));
        while client.frame().is_some_and(|frame| frame.kind != PING) {}
    }
    let grown = teal.resident().saturating_sub(before);
    assert!(grown < 64 * 1024 * 1024, "{grown} bytes for 20 clients");
    // A block that decodes to more than it may: 431 first, then the end.
    let mut huge = Raw::connect(teal.listen);
    huge.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[block(&GET), seed, vec![0x80 | 62; 11]].concat()));
    assert_eq!(huge.told(1), Told::Status(431));
    huge.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &[block(&GET), vec![0x80 | 62; 15_000]].concat()));
    assert_eq!(huge.ended(), Some(ENHANCE_YOUR_CALM));
    assert_eq!(teal.client().get("/", "").body, "blue");
}

#[test]
fn clients_that_open_no_window_cost_little_memory() {
    const SIZE: usize = 1024 * 1024;
    let answer = ok(&"x".repeat(SIZE));
    let blue = Upstream::start(move |_| Act::Answer(answer.clone()));
    let teal = process(&blue.url());
    let before = teal.resident();
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Raw::with(teal.listen, &[(4, 0)]);
        client.send(&(0..100).flat_map(|at| raw::get(2 * at + 1, &[])).collect::<Vec<_>>());
        for _ in 0..100 {
            client.frame_of(HEADERS);
        }
        clients.push(client);
    }
    let grown = teal.resident().saturating_sub(before);
    assert!(grown < 400 * 192 * 1024, "{grown} bytes for 400 streams of {SIZE} bytes");
    assert_eq!(teal.client().get("/", "").body.len(), SIZE);
}
