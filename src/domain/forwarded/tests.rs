//! Who the client is: honest chains, spoofed ones, and the promise that an untrusted peer changes nothing.

use proptest::prelude::*;

use super::*;

/// Claims as a request has them.
#[derive(Clone, Debug, Default)]
struct Said(Vec<(Field, Vec<u8>)>);

impl Claims for Said {
    fn lines(&self, field: Field) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(known, _)| *known == field).map(|(_, line)| &line[..])
    }
}

fn said(lines: &[(Field, &str)]) -> Said {
    Said(lines.iter().map(|(field, line)| (*field, line.as_bytes().to_vec())).collect())
}

/// The balancers of 10.0.0.0/8 are believed.
fn trust(style: Style) -> Trust {
    Trust { networks: ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()].into_iter().collect(), style }
}

fn hop(peer: &str) -> Hop<'static> {
    Hop { peer: peer.parse().unwrap(), scheme: Scheme::Http, host: b"shop.example" }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = b"x: ".to_vec();
    write(&mut bytes);
    String::from_utf8(bytes.split_off(3)).unwrap()
}

const LB: &str = "10.0.0.1";

#[test]
fn the_client_is_the_last_address_that_is_not_trusted() {
    let table: [(&str, &[&str], &str); 24] = [
        // Peer, lines of X-Forwarded-For, client.
        ("203.0.113.9", &["198.51.100.1"], "203.0.113.9"),
        (LB, &[], LB),
        (LB, &["198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
        ("fd00::1", &["2001:db8::1"], "2001:db8::1"),
        (LB, &["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        (LB, &["198.51.100.1", "10.0.0.2"], "198.51.100.1"),
        (LB, &["198.51.100.1, 10.0.0.2, 10.0.0.3"], "198.51.100.1"),
        (LB, &["10.1.1.1, 10.0.0.2"], "10.1.1.1"),
        (LB, &["::ffff:198.51.100.1"], "198.51.100.1"),
        (LB, &["198.51.100.1:4711"], "198.51.100.1"),
        (LB, &["[2001:db8::1]:4711"], "2001:db8::1"),
        (LB, &["[2001:db8::1]"], "2001:db8::1"),
        (LB, &["  198.51.100.1\t, ,"], "198.51.100.1"),
        // Spoofing: the client writes the left of the chain.
        (LB, &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        (LB, &["10.0.0.7, 198.51.100.1"], "198.51.100.1"),
        (LB, &["127.0.0.1", "10.0.0.7", "198.51.100.1"], "198.51.100.1"),
        (LB, &["1.1.1.1, nonsense, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        (LB, &["10.0.0.7\u{0}, 198.51.100.1"], "198.51.100.1"),
        // What is no address vouches for nothing: the nearest hop that was named counts.
        (LB, &["198.51.100.1, unknown"], LB),
        (LB, &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
        (LB, &["198.51.100.1, \"10.0.0.2\""], LB),
        (LB, &["198.51.100.1, 10.0.0.2/8"], LB),
        (LB, &["[10.0.0.2]"], LB),
    ];
    for (peer, lines, client) in table {
        let lines: Vec<_> = lines.iter().map(|line| (Field::For, *line)).collect();
        let claims = said(&lines);
        assert_eq!(origin(&trust(Style::XForwarded), hop(peer), &claims).client, ip(client), "{peer} {lines:?}");
    }
}

#[test]
fn the_same_goes_for_forwarded() {
    let table: [(&str, &[&str], &str); 11] = [
        ("203.0.113.9", &["for=198.51.100.1"], "203.0.113.9"),
        (LB, &["for=198.51.100.1"], "198.51.100.1"),
        (LB, &["for=\"[2001:db8::1]:4711\";proto=https, for=10.0.0.2"], "2001:db8::1"),
        (LB, &["for=1.1.1.1", "for=198.51.100.1", "for=10.0.0.2"], "198.51.100.1"),
        (LB, &["for=10.0.0.2"], "10.0.0.2"),
        (LB, &["for=198.51.100.1, for=unknown, for=10.0.0.2"], "10.0.0.2"),
        (LB, &["for=198.51.100.1, for=_hidden"], LB),
        // Spoofing: an open quote that is to swallow what the balancer appends.
        (LB, &["for=1.1.1.1;x=\", for=198.51.100.1"], LB),
        (LB, &["for=1.1.1.1;x=\"", "for=198.51.100.1"], "198.51.100.1"),
        (LB, &["for=1.1.1.1;for=10.0.0.2", "for=198.51.100.1"], "198.51.100.1"),
        (LB, &["proto=https"], LB),
    ];
    for (peer, lines, client) in table {
        let lines: Vec<_> = lines.iter().map(|line| (Field::Forwarded, *line)).collect();
        assert_eq!(origin(&trust(Style::Forwarded), hop(peer), &said(&lines)).client, ip(client), "{peer} {lines:?}");
    }
}

#[test]
fn only_the_style_that_is_in_use_is_read() {
    let x = [(Field::For, "198.51.100.1"), (Field::Proto, "https"), (Field::RealIp, "198.51.100.2")];
    let standard = [(Field::Forwarded, "for=198.51.100.3;proto=https;host=evil.example")];
    let claims = said(&[&x[..], &standard].concat());
    assert_eq!(origin(&trust(Style::XForwarded), hop(LB), &claims).client, ip("198.51.100.1"));
    assert_eq!(origin(&trust(Style::Forwarded), hop(LB), &claims).client, ip("198.51.100.3"));
    for (style, claims) in [(Style::XForwarded, said(&standard)), (Style::Forwarded, said(&x))] {
        let origin = origin(&trust(style), hop(LB), &claims);
        assert_eq!((origin.client, origin.scheme, origin.host), (ip(LB), Scheme::Http, &b"shop.example"[..]));
    }
}

#[test]
fn x_real_ip_counts_where_there_is_no_chain() {
    use Field::{For, RealIp};
    let table: [(&[(Field, &str)], &str); 5] = [
        (&[(RealIp, "198.51.100.1")], "198.51.100.1"),
        (&[(RealIp, "198.51.100.1"), (For, "198.51.100.2")], "198.51.100.2"),
        (&[(RealIp, "198.51.100.1"), (For, "unknown")], LB),
        (&[(RealIp, "198.51.100.1"), (RealIp, "198.51.100.2")], LB),
        (&[(RealIp, "198.51.100.1, 198.51.100.2")], LB),
    ];
    for (lines, client) in table {
        assert_eq!(origin(&trust(Style::XForwarded), hop(LB), &said(lines)).client, ip(client), "{lines:?}");
    }
}

#[test]
fn scheme_host_and_port_are_the_trusted_peers_own_word() {
    use Field::{Host, Port, Proto};
    let default: (Scheme, &str, Option<u16>) = (Scheme::Http, "shop.example", None);
    type Row = (&'static [(Field, &'static str)], (Scheme, &'static str, Option<u16>));
    let table: [Row; 14] = [
        (&[], default),
        (&[(Proto, "https")], (Scheme::Https, default.1, None)),
        (&[(Proto, "WSS")], (Scheme::Https, default.1, None)),
        (&[(Proto, "https, http")], default),
        (&[(Proto, "http"), (Proto, "https")], (Scheme::Https, default.1, None)),
        (&[(Proto, "ftp")], default),
        (&[(Proto, "https;x")], default),
        (&[(Host, "www.example:8443")], (Scheme::Http, "www.example:8443", None)),
        (&[(Host, "evil.example, www.example")], (Scheme::Http, "www.example", None)),
        (&[(Host, "user@evil.example")], default),
        (&[(Host, "a/b")], default),
        (&[(Port, "8443")], (Scheme::Http, default.1, Some(8443))),
        (&[(Port, "0")], default),
        (&[(Port, "+443")], default),
    ];
    for (lines, (scheme, host, port)) in table {
        let claims = said(lines);
        let origin = origin(&trust(Style::XForwarded), hop(LB), &claims);
        assert_eq!((origin.scheme, origin.host, origin.port), (scheme, host.as_bytes(), port), "{lines:?}");
    }
    // An element's words belong to its own node.
    let claims = said(&[(
        Field::Forwarded,
        "for=1.1.1.1;proto=http;host=evil, for=198.51.100.1;proto=https;host=www.example, for=10.0.0.2;proto=http",
    )]);
    let origin = origin(&trust(Style::Forwarded), hop(LB), &claims);
    assert_eq!((origin.client, origin.scheme), (ip("198.51.100.1"), Scheme::Https));
    assert_eq!(origin.host, b"www.example");
}

#[test]
fn what_goes_up_is_appended_to_or_replaced() {
    let claims = said(&[(Field::For, "198.51.100.1"), (Field::For, "10.0.0.2"), (Field::Forwarded, "for=1.1.1.1")]);
    let up = |style, peer, claims: &Said| {
        let origin = origin(&trust(style), hop(peer), claims);
        let mut forwarded = Vec::new();
        let is_written = origin.write_forwarded(claims, &mut forwarded);
        assert_eq!(is_written, !forwarded.is_empty());
        (text(|into| origin.write_for(claims, into)), String::from_utf8(forwarded).unwrap())
    };
    let table = [
        (Style::XForwarded, "203.0.113.9", "203.0.113.9", ""),
        (Style::XForwarded, LB, "198.51.100.1, 10.0.0.2, 10.0.0.1", ""),
        (Style::Forwarded, "203.0.113.9", "203.0.113.9", "for=203.0.113.9;host=\"shop.example\";proto=http"),
        (Style::Forwarded, LB, "1.1.1.1, 10.0.0.1", "for=1.1.1.1, for=10.0.0.1;host=\"shop.example\";proto=http"),
        (
            Style::Forwarded,
            "fd00::1",
            "1.1.1.1, fd00::1",
            "for=1.1.1.1, for=\"[fd00::1]\";host=\"shop.example\";proto=http",
        ),
    ];
    for (style, peer, forwarded_for, forwarded) in table {
        assert_eq!(up(style, peer, &claims), (forwarded_for.to_owned(), forwarded.to_owned()));
    }
    // A malformed line is not passed on as if somebody vouched for it.
    let broken = said(&[(Field::Forwarded, "for=1.1.1.1;x=\""), (Field::Forwarded, "for=198.51.100.1")]);
    let (forwarded_for, forwarded) = up(Style::Forwarded, LB, &broken);
    assert_eq!(forwarded_for, "198.51.100.1, 10.0.0.1");
    assert_eq!(forwarded, "for=198.51.100.1, for=10.0.0.1;host=\"shop.example\";proto=http");
    assert_eq!(up(Style::Forwarded, LB, &said(&[])).0, LB);
}

const FIELDS: [Field; 6] = [Field::For, Field::Proto, Field::Host, Field::Port, Field::Forwarded, Field::RealIp];

/// Lines as attackers write them: sometimes well-formed.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just("10.0.0.7".to_owned()),
        Just("127.0.0.1".to_owned()),
        Just("for=10.0.0.7".to_owned()),
        Just("for=\"[fd00::1]\";proto=https;host=evil".to_owned()),
        Just("https".to_owned()),
        Just("\"".to_owned()),
        Just(",".to_owned()),
        "[ -~]{0,12}",
    ];
    let text = prop::collection::vec(part, 0..5).prop_map(|parts| parts.join(", ").into_bytes());
    prop_oneof![text, prop::collection::vec(any::<u8>(), 0..40)]
}

fn claims() -> impl Strategy<Value = Said> {
    prop::collection::vec((prop::sample::select(&FIELDS[..]), line()), 0..8).prop_map(Said)
}

fn styles() -> impl Strategy<Value = Style> {
    prop::sample::select(&[Style::XForwarded, Style::Forwarded][..])
}

proptest! {
    #[test]
    fn an_untrusted_peer_never_influences_the_outcome(
        claims in claims(),
        style in styles(),
        peer in any::<[u8; 16]>().prop_map(IpAddr::from),
    ) {
        let (trust, none) = (trust(style), Said::default());
        prop_assume!(!trust.networks.contains(peer));
        let hop = Hop { peer, ..hop(LB) };
        let (with, without) = (origin(&trust, hop, &claims), origin(&trust, hop, &none));
        prop_assert_eq!(with, without);
        prop_assert_eq!(text(|into| with.write_for(&claims, into)), text(|into| without.write_for(&none, into)));
        prop_assert_eq!(
            text(|into| assert_eq!(with.write_forwarded(&claims, into), style == Style::Forwarded)),
            text(|into| assert_eq!(without.write_forwarded(&none, into), style == Style::Forwarded))
        );
    }

    #[test]
    fn a_client_behind_a_trusted_balancer_never_chooses_who_it_is(sent in claims(), same_line in any::<bool>()) {
        // The balancer appends the client to what it got, and says itself how it was spoken to.
        let client = ip("198.51.100.1");
        let append = |claims: &mut Said, field, entry: &str| {
            match claims.0.iter_mut().rev().find(|(known, _)| *known == field).filter(|_| same_line) {
                Some((_, line)) => line.extend_from_slice(format!(", {entry}").as_bytes()),
                None => claims.0.push((field, entry.as_bytes().to_vec())),
            }
        };
        let mut claims = sent.clone();
        append(&mut claims, Field::For, "198.51.100.1");
        append(&mut claims, Field::Proto, "http");
        append(&mut claims, Field::Host, "www.example");
        let found = origin(&trust(Style::XForwarded), hop(LB), &claims);
        prop_assert_eq!((found.client, found.scheme, found.host), (client, Scheme::Http, &b"www.example"[..]));

        let mut claims = sent;
        append(&mut claims, Field::Forwarded, "for=198.51.100.1;proto=http;host=www.example");
        let found = origin(&trust(Style::Forwarded), hop(LB), &claims);
        // On one line an open quote may swallow the balancer's words: then the balancer is all that is known.
        prop_assert!(found.client == client || (same_line && found.client == ip(LB)), "{}", found.client);
        prop_assert_eq!(found.scheme, Scheme::Http);
        prop_assert!(found.host == b"www.example" || same_line && found.host == b"shop.example");
    }
}
