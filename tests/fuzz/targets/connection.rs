//! A whole client connection: any bytes from the client, any bytes from the upstreams.
//!
//! Whatever comes, each upstream connection gets nothing but whole messages in canonical form (the last one may be
//! cut short), no more of them than requests were handled, and so does the client with its answers.

#![no_main]

mod second;
mod stage;

use libfuzzer_sys::fuzz_target;
use second::{Otherwise, Read};

/// Between the client's bytes and the upstreams', and between the parts of an upstream's.
const MARK: &[u8] = b"\xff\xff";
/// Between upstream connections.
const NEXT: &[u8] = b"\xff\xfe";

fuzz_target!(|input: &[u8]| {
    let Some((piece, input)) = input.split_first() else { return };
    let at = second::find(input, MARK).unwrap_or(input.len());
    let (sent, answers) = (&input[..at], input.get(at + MARK.len()..).unwrap_or_default());
    let scripts: Vec<_> =
        second::split(answers, NEXT).into_iter().take(3).map(|all| second::split(all, MARK)).collect();
    let played = stage::play(sent, *piece, &scripts, |_| true);
    if played.switched {
        return;
    }
    let messages: u64 = played.up.iter().map(|up| requests(up)).sum();
    assert!(messages <= played.requests, "{messages} messages for {} requests", played.requests);
    if second::find(sent, b"HEAD ").is_none() {
        let answers = answers_in(&played.down);
        assert!(answers <= played.requests + 1, "{answers} answers to {} requests", played.requests);
    }
});

/// The messages that an upstream connection got.
fn requests(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while !bytes.is_empty() {
        count += 1;
        match second::message(bytes, Otherwise::Empty) {
            Read::Whole(message) => {
                check(&message);
                bytes = &bytes[message.length..];
            }
            Read::Part => break,
            Read::Wrong(why) => panic!("upstream: {why}: {}", bytes.escape_ascii()),
        }
    }
    count
}

fn check(message: &second::Message<'_>) {
    let parts: Vec<_> = message.line.split(' ').collect();
    assert!(parts.len() == 3 && parts[2] == "HTTP/1.1", "{}", message.line);
    assert_eq!(message.values("host").len(), 1);
    for name in ["keep-alive", "proxy-connection", "te", "trailer", "proxy-authorization", "forwarded", "x-real-ip"] {
        assert!(message.values(name).is_empty(), "{name} went up");
    }
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-request-id"] {
        assert_eq!(message.values(name).len(), 1, "{name}");
    }
    assert!(matches!(message.values("connection")[..], [] | [b"upgrade"]));
}

/// The final answers that the client got.
fn answers_in(mut bytes: &[u8]) -> u64 {
    let mut count = 0;
    while !bytes.is_empty() {
        let bodiless = |status: &str| status.starts_with('1') || matches!(status, "204" | "304");
        let status = std::str::from_utf8(bytes.get(9..12).unwrap_or_default()).unwrap_or_default();
        // Lengths of bodies that a 304 only speaks of are not read here.
        let otherwise = if bodiless(status) { Otherwise::Empty } else { Otherwise::Close };
        if status == "304" {
            return count + 1;
        }
        match second::message(bytes, otherwise) {
            Read::Whole(message) => {
                assert!(message.line.starts_with("HTTP/1.1 "), "{}", message.line);
                count += u64::from(!status.starts_with('1'));
                bytes = &bytes[message.length..];
            }
            Read::Part => break,
            Read::Wrong(why) => panic!("client: {why}: {}", bytes.escape_ascii()),
        }
    }
    count
}
