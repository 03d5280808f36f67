//! One request from the client's bytes to the upstream's: the same method, target, fields, framing and body, and
//! exactly one message, whoever reads it.

#![no_main]

mod second;
mod stage;

use libfuzzer_sys::fuzz_target;
use second::{Chunked, Otherwise, Read};
use teal::proxy::head::{Known, RequestHead, Version};
use teal::proxy::http1::framing::Framing;
use teal::proxy::http1::parse::{self, Limits};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

fuzz_target!(|input: &[u8]| {
    let Some((piece, sent)) = input.split_first() else { return };
    if sent.starts_with(b"\r\n") {
        return;
    }
    let mut head = RequestHead::default();
    let Ok(Some(parsed)) = parse::request(sent, Limits { bytes: 32 * 1024, fields: 100 }, &mut head) else { return };
    head.bytes = sent[..parsed.length].to_vec();
    let rest = &sent[parsed.length..];
    let (body, follows) = match parsed.framing {
        Framing::Length(length) => match rest.get(..usize::try_from(length).unwrap_or(usize::MAX)) {
            Some(body) => (body.to_vec(), body.len()),
            None => return,
        },
        Framing::Chunked => match second::chunked(rest) {
            Chunked::Whole { data, trailers, length } if trailers.is_empty() => (data, length),
            _ => return,
        },
        Framing::None | Framing::UntilClose => (Vec::new(), 0),
    };
    let sent = &sent[..parsed.length + follows];
    let whole = |up: &[u8]| matches!(second::message(up, Otherwise::Empty), Read::Whole(_) | Read::Wrong(_));
    let played = stage::play(sent, *piece, &[vec![ANSWER]], whole);
    let up = &played.up[0];
    let Read::Whole(message) = second::message(up, Otherwise::Empty) else {
        panic!("{} became {}", sent.escape_ascii(), up.escape_ascii());
    };
    assert_eq!(message.length, up.len(), "more than one message");
    let line = [head.method(), b" ", head.target(), b" HTTP/1.1"].concat();
    assert_eq!(message.line.as_bytes(), line);
    assert_eq!((message.body, message.is_chunked), (body, parsed.framing == Framing::Chunked));
    read_again(up, &head, &parsed);
});

/// Teal itself reads what it wrote as what it was given.
fn read_again(up: &[u8], head: &RequestHead, parsed: &parse::Request) {
    let mut again = RequestHead::default();
    let read = parse::request(up, Limits { bytes: 64 * 1024, fields: 120 }, &mut again);
    let read = read.expect("it takes what it writes").expect("all of it is there");
    again.bytes = up[..read.length].to_vec();
    assert_eq!((again.method(), again.target(), again.host()), (head.method(), head.target(), head.host()));
    assert_eq!((again.version, read.framing), (Version::Http11, parsed.framing));
    assert_eq!(read.expects_continue, parsed.expects_continue);
    let passing = |head: &RequestHead| {
        let passes = |known: &Known| matches!(known, Known::Other | Known::Via);
        let fields = head.fields().iter().filter(|(.., known)| passes(known));
        fields.map(|(name, value, _)| (name.to_vec(), value.to_vec())).collect::<Vec<_>>()
    };
    let (mut expected, got) = (passing(head), passing(&again));
    expected.push((b"via".to_vec(), if head.version == Version::Http10 { b"1.0 teal" } else { b"1.1 teal" }.to_vec()));
    assert_eq!(got, expected);
}
