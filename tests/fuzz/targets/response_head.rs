//! The response head: whatever is accepted has one reading, and comes bit by bit as well.

#![no_main]

mod second;

use libfuzzer_sys::fuzz_target;
use teal::proxy::head::{Fields, Version};
use teal::proxy::http1::framing::Framing;
use teal::proxy::http1::parse;

fuzz_target!(|input: &[u8]| {
    let Some((flags, bytes)) = input.split_first() else { return };
    let to_head = flags & 1 == 1;
    let mut list = Vec::new();
    let Ok(Some(parsed)) = parse::response(bytes, to_head, &mut list) else { return };
    let head = &bytes[..parsed.length];
    assert!(head.ends_with(b"\r\n\r\n") && second::find(head, b"\r\n\r\n") == Some(head.len() - 4));
    let lines = second::split(&head[..head.len() - 4], b"\r\n");
    for line in &lines {
        let stray = |byte: &u8| *byte != b'\t' && (*byte < b' ' || *byte == 127);
        assert!(!line.iter().any(stray) && !line.starts_with(b" ") && !line.starts_with(b"\t"));
    }
    let version = if parsed.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let start = format!("{version} {}", parsed.status);
    assert!((100..600).contains(&parsed.status) && lines[0].starts_with(start.as_bytes()));
    let fields = Fields { bytes, list: &list };
    assert_eq!(lines.len() - 1, list.len());
    for ((name, value, _), line) in fields.iter().zip(&lines[1..]) {
        let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
        assert_eq!((name, value), (&line[..colon], line[colon + 1..].trim_ascii()));
    }
    let all = |known: &str| fields.iter().filter(|(name, ..)| name.eq_ignore_ascii_case(known.as_bytes())).count();
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    assert!(lengths + codings <= 1);
    let bodiless = to_head || parsed.status < 200 || matches!(parsed.status, 204 | 304);
    match parsed.framing {
        Framing::None => assert!(bodiless),
        Framing::Length(_) => assert!(!bodiless && lengths == 1),
        Framing::Chunked => assert!(!bodiless && codings == 1),
        Framing::UntilClose => assert!(!bodiless && lengths + codings == 0 && !parsed.keeps_alive),
    }
    for cut in [1, parsed.length / 2, parsed.length - 1] {
        assert_eq!(parse::response(&bytes[..cut], to_head, &mut Vec::new()), Ok(None), "cut at {cut}");
    }
});
