//! The PROXY protocol: known headers, every cut of them, forgeries, a round trip, and garbage.

use proptest::prelude::*;

use super::*;

fn tcp(source: &str, destination: &str) -> Origin {
    Origin::Tcp { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

/// A version 2 header with these addresses and extensions.
fn v2(command: u8, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = V2.to_vec();
    bytes.extend([command, kind]);
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

const FOUR: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x30, 0x39, 1, 187];

fn with_extensions(extensions: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&FOUR[..], extensions].concat())
}

/// The same with a checksum, `off` from the right one.
fn with_checksum(off: u32) -> Vec<u8> {
    let mut bytes = with_extensions(&[4, 0, 1, 7, CHECKSUM, 0, 4, 0, 0, 0, 0]);
    let at = bytes.len() - 4;
    let sum = crc32c(&bytes, at..at + 4).wrapping_add(off);
    bytes[at..].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn headers_are_read() {
    let four = tcp("192.0.2.1:12345", "198.51.100.2:443");
    let six = tcp("[2001:db8::1]:0", "[::1]:65535");
    let mut sixteen = Vec::new();
    encode(Version::V2, &six, &mut sixteen);
    let longest =
        "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    let unknown =
        "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!((longest.len(), unknown.len()), (104, LONGEST_V1));
    let ones = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    let table: Vec<(Vec<u8>, Origin)> = vec![
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 12345 443\r\n".to_vec(), four.clone()),
        (b"PROXY TCP6 2001:db8::1 ::1 0 65535\r\n".to_vec(), six.clone()),
        (longest.into(), tcp(ones, ones)),
        (b"PROXY UNKNOWN\r\n".to_vec(), Origin::Unknown),
        (unknown.into(), Origin::Unknown),
        (with_extensions(&[]), four.clone()),
        (with_extensions(&[1, 0, 2, b'h', b'2', 4, 0, 0]), four.clone()),
        (with_checksum(0), four),
        (sixteen, six),
        (v2(0x20, 0x00, &[]), Origin::Local),
        (v2(0x20, 0x11, &FOUR), Origin::Local),
        (v2(0x21, 0x00, &[9; 5]), Origin::Unknown),
        (v2(0x21, 0x31, &[7; 216]), Origin::Unix(Box::new(UnixPaths { source: [7; 108], destination: [7; 108] }))),
        (v2(0x21, 0x00, &[0; LONGEST_V2 - V2_HEAD]), Origin::Unknown),
    ];
    for (bytes, origin) in table {
        let expected = Parsed::Header(Header { origin, consumed: bytes.len() });
        assert_eq!(parse(&bytes), expected, "{}", bytes.escape_ascii());
        assert_eq!(parse(&[&bytes[..], b"GET /"].concat()), expected, "what follows changed it");
        for cut in 0..bytes.len() {
            let Parsed::Incomplete(least) = parse(&bytes[..cut]) else { panic!("{cut}: {}", bytes.escape_ascii()) };
            assert!((1..=bytes.len() - cut).contains(&least), "{cut}: {least}");
        }
    }
}

#[test]
fn anything_else_is_refused_with_its_reason() {
    use Invalid::{Address, Checksum, Kind, Length, Line, Signature, TooLong};
    let line = |line: &str| format!("PROXY {line}\r\n").into_bytes();
    let table: Vec<(Vec<u8>, Invalid)> = vec![
        (b"GET / HTTP/1.1\r\n".to_vec(), Signature),
        (b"\x16\x03\x01\x02\x00".to_vec(), Signature),
        (b"proxy TCP4".to_vec(), Signature),
        (b"PROXYTCP4".to_vec(), Signature),
        (b" PROXY".to_vec(), Signature),
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), Signature),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n".to_vec(), Line),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 2\rX".to_vec(), Line),
        (b"PROXY \r\n".to_vec(), Line),
        (b"PROXY UNKNOWN\n".to_vec(), Line),
        (b"PROXY UNKNOWNX\r\n".to_vec(), Line),
        ([V1, &[b'A'; 101]].concat(), TooLong),
        ([V1, b"UNKNOWN ", &[b'A'; 92], b"\r"].concat(), TooLong),
        (line("TCP4 192.0.2.1 198.51.100.2 1"), Line),
        (line("TCP4 192.0.2.1 198.51.100.2 1 2 3"), Line),
        (line("TCP4 192.0.2.1 198.51.100.2 1 2 "), Line),
        (line("TCP4  192.0.2.1 198.51.100.2 1 2"), Line),
        (line("TCP4\t192.0.2.1 198.51.100.2 1 2 3"), Line),
        (line("UDP4 192.0.2.1 198.51.100.2 1 2"), Line),
        (line("TCP5 192.0.2.1 198.51.100.2 1 2"), Line),
        (line("TCP4 ::1 ::1 1 2"), Address),
        (line("TCP6 192.0.2.1 198.51.100.2 1 2"), Address),
        (line("TCP6 [::1] ::1 1 2"), Address),
        (line("TCP6 fe80::1%eth0 ::1 1 2"), Address),
        (line("TCP4 192.0.2.01 198.51.100.2 1 2"), Address),
        (line("TCP4 192.0.2 198.51.100.2 1 2"), Address),
        (line("TCP4 192.0.2.1 198.51.100.2 65536 2"), Address),
        (line("TCP4 192.0.2.1 198.51.100.2 01 2"), Address),
        (line("TCP4 192.0.2.1 198.51.100.2 +1 2"), Address),
        (line("TCP4 192.0.2.1 198.51.100.2 -1 2"), Address),
        (line("TCP4 192.0.2.1 198.51.100.2 1 \u{665}"), Address),
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 1 \xff\r\n".to_vec(), Line),
        (v2(0x11, 0x11, &FOUR), Kind),
        (v2(0x22, 0x11, &FOUR), Kind),
        (v2(0x21, 0x12, &FOUR), Kind),
        (v2(0x21, 0x10, &FOUR), Kind),
        (v2(0x21, 0x41, &FOUR), Kind),
        (v2(0x21, 0x11, &FOUR[..11]), Length),
        (v2(0x21, 0x21, &[0; 35]), Length),
        (v2(0x21, 0x31, &[0; 215]), Length),
        (v2(0x21, 0x00, &[0; LONGEST_V2 - V2_HEAD + 1]), TooLong),
        (with_extensions(&[4]), Length),
        (with_extensions(&[4, 0]), Length),
        (with_extensions(&[4, 0, 1]), Length),
        (with_extensions(&[4, 255, 255, 0]), Length),
        (with_extensions(&[CHECKSUM, 0, 3, 0, 0, 0]), Length),
        (with_checksum(1), Checksum),
    ];
    for (bytes, reason) in table {
        assert_eq!(parse(&bytes), Parsed::Invalid(reason), "{}", bytes.escape_ascii());
    }
}

#[test]
fn what_is_wrong_is_refused_before_it_is_whole() {
    let mut over = V2.to_vec();
    over.extend([0x21, 0x00, 0xff, 0xff]);
    for bytes in [&b"GET"[..], b"PROXX", b"\r\n\r\n\0\r\nQUIT\n\x31", &over] {
        assert!(matches!(parse(bytes), Parsed::Invalid(_)), "{}", bytes.escape_ascii());
    }
}

#[test]
fn the_checksum_is_the_published_one() {
    assert_eq!(crc32c(b"123456789", 0..0), 0xe306_9283);
}

#[test]
fn version_1_is_written_as_specified() {
    let table = [
        (tcp("192.0.2.1:1", "198.51.100.2:2"), "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n"),
        (tcp("[::ffff:192.0.2.1]:1", "198.51.100.2:2"), "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\n"),
        (tcp("[2001:db8::1]:1", "198.51.100.2:2"), "PROXY TCP6 2001:db8::1 ::ffff:198.51.100.2 1 2\r\n"),
        (Origin::Local, "PROXY UNKNOWN\r\n"),
        (Origin::Unknown, "PROXY UNKNOWN\r\n"),
        (
            Origin::Unix(Box::new(UnixPaths { source: [0; UNIX_PATH], destination: [0; UNIX_PATH] })),
            "PROXY UNKNOWN\r\n",
        ),
    ];
    for (origin, text) in table {
        let mut bytes = Vec::new();
        encode(Version::V1, &origin, &mut bytes);
        assert_eq!(bytes.escape_ascii().to_string(), text.as_bytes().escape_ascii().to_string());
    }
}

#[test]
fn only_a_tcp_client_has_a_source() {
    assert_eq!(tcp("[::ffff:192.0.2.1]:7", "[::1]:1").source(), Some("192.0.2.1:7".parse().unwrap()));
    assert_eq!((Origin::Local.source(), Origin::Unknown.source()), (None, None));
}

fn origins() -> impl Strategy<Value = Origin> {
    let four = any::<([u8; 4], [u8; 4], u16, u16)>().prop_map(|(a, b, from, to)| Origin::Tcp {
        source: SocketAddr::new(IpAddr::from(a), from),
        destination: SocketAddr::new(IpAddr::from(b), to),
    });
    // Without those that IPv4 addresses are written as: these come back as IPv4.
    let wide = |mut ip: [u8; 16]| {
        ip[0] |= 0x20;
        IpAddr::from(ip)
    };
    let six = any::<([u8; 16], [u8; 16], u16, u16)>().prop_map(move |(a, b, from, to)| Origin::Tcp {
        source: SocketAddr::new(wide(a), from),
        destination: SocketAddr::new(wide(b), to),
    });
    let unix = any::<(u8, u8)>()
        .prop_map(|(a, b)| Origin::Unix(Box::new(UnixPaths { source: [a; UNIX_PATH], destination: [b; UNIX_PATH] })));
    prop_oneof![Just(Origin::Local), Just(Origin::Unknown), four, six, unix]
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(origin in origins(), rest in any::<[u8; 4]>()) {
        for version in [Version::V1, Version::V2] {
            let mut bytes = Vec::new();
            encode(version, &origin, &mut bytes);
            let consumed = bytes.len();
            bytes.extend(rest);
            let said = match (version, &origin) {
                (Version::V1, Origin::Local | Origin::Unix(_)) => Origin::Unknown,
                _ => origin.clone(),
            };
            prop_assert_eq!(parse(&bytes), Parsed::Header(Header { origin: said, consumed }));
        }
    }

    #[test]
    fn garbage_never_panics_and_a_prefix_is_never_a_header(
        start in prop_oneof![Just(V1), Just(&V2[..]), Just(&b"PROXY TCP4 "[..]), Just(&b""[..])],
        tail in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [start, &tail].concat();
        if let Parsed::Header(header) = parse(&bytes) {
            prop_assert!(header.consumed <= bytes.len());
            for cut in 0..header.consumed {
                prop_assert!(matches!(parse(&bytes[..cut]), Parsed::Incomplete(_)), "{}", cut);
            }
        }
    }

    #[test]
    fn a_flipped_bit_is_refused_or_well_formed(origin in origins(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut bytes = Vec::new();
        encode(Version::V2, &origin, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if at < V2.len() {
            prop_assert_eq!(parse(&bytes), Parsed::Invalid(Invalid::Signature));
        } else if let Parsed::Header(header) = parse(&bytes) {
            prop_assert!(header.consumed <= bytes.len());
        }
    }
}
