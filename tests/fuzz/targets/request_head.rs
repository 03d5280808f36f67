//! The request head: whatever is accepted has one reading, which a naive reader shares, and comes bit by bit as well.

#![no_main]

mod second;

use libfuzzer_sys::fuzz_target;
use teal::proxy::head::{Known, RequestHead, Version};
use teal::proxy::http1::framing::Framing;
use teal::proxy::http1::parse::{self, Limits, Request};

fuzz_target!(|input: &[u8]| {
    let Some((limits, bytes)) = input.split_first() else { return };
    let limits = match limits % 4 {
        0 => Limits { bytes: 256, fields: 4 },
        1 => Limits { bytes: 64 * 1024, fields: 1_000 },
        _ => Limits { bytes: 32 * 1024, fields: 100 },
    };
    let mut head = RequestHead::default();
    let Ok(Some(parsed)) = parse::request(bytes, limits, &mut head) else { return };
    head.bytes = bytes[..parsed.length].to_vec();
    assert!(parsed.length <= limits.bytes && head.list.len() <= limits.fields);
    check_bytes(&head.bytes);
    check_parts(&head);
    check_framing(&head, &parsed);
    // A head that is accepted whole is waited for while it comes.
    let mut other = RequestHead::default();
    for cut in [1, parsed.length / 3, parsed.length / 2, parsed.length - 3, parsed.length - 1] {
        if cut < parsed.length {
            assert_eq!(parse::request(&bytes[..cut], limits, &mut other), Ok(None), "cut at {cut}");
        }
    }
    assert_eq!(parse::request(&bytes[..parsed.length], limits, &mut other), Ok(Some(parsed)));
});

/// One line end, no control characters but tabs.
fn check_bytes(head: &[u8]) {
    assert!(head.ends_with(b"\r\n\r\n") && second::find(head, b"\r\n\r\n") == Some(head.len() - 4));
    for (at, byte) in head.iter().enumerate() {
        match byte {
            b'\r' => assert_eq!(head.get(at + 1), Some(&b'\n')),
            b'\n' => assert!(at > 0 && head[at - 1] == b'\r'),
            b'\t' => {}
            0..=31 | 127 => panic!("{byte:#x} at {at}"),
            _ => {}
        }
    }
    for line in second::split(&head[..head.len() - 4], b"\r\n") {
        assert!(!line.starts_with(b" ") && !line.starts_with(b"\t"), "a fold");
    }
}

fn check_parts(head: &RequestHead) {
    let is_token = |bytes: &[u8]| {
        let tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        !bytes.is_empty() && bytes.iter().all(tchar)
    };
    assert!(is_token(head.method()));
    let target = head.target();
    assert!(target.starts_with(b"/") || (target == b"*" && head.is("OPTIONS")));
    assert!(target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#'));
    assert!(parse::is_host(head.host()));
    let lines = second::split(&head.bytes[..head.bytes.len() - 4], b"\r\n");
    assert_eq!(lines.len() - 1, head.list.len());
    for ((name, value, _), line) in head.fields().iter().zip(&lines[1..]) {
        assert!(is_token(name));
        let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
        assert_eq!((name, value), (&line[..colon], line[colon + 1..].trim_ascii()));
    }
    let hosts = head.fields().known(Known::Host).count();
    assert!(hosts == 1 || (hosts == 0 && head.version == Version::Http10));
}

fn check_framing(head: &RequestHead, parsed: &Request) {
    let all = |name: &str| head.fields().iter().filter(|(key, ..)| key.eq_ignore_ascii_case(name.as_bytes())).count();
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    match parsed.framing {
        Framing::None => assert_eq!((lengths, codings), (0, 0)),
        Framing::Length(_) => assert_eq!((lengths, codings), (1, 0)),
        Framing::Chunked => assert!((lengths, codings) == (0, 1) && head.version == Version::Http11),
        Framing::UntilClose => panic!("a request never ends with the connection"),
    }
    if parsed.upgrade.is_some() {
        assert!(matches!(parsed.framing, Framing::None | Framing::Length(0)));
    }
    assert!(!["CONNECT", "TRACE"].iter().any(|method| head.method().eq_ignore_ascii_case(method.as_bytes())));
}
