//! The edge: who a client is behind balancers, what endpoints are told of it, and the ways in and out that are no port.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use teal::bridge::endpoint::Health;

use super::support::client::Client;
use super::support::names::Names;
use super::support::proxied;
use super::support::teal::{Teal, shop_text};
use super::support::upstream::{Act, Arrived, Manner, Upstream, ok};

/// Teal with one pool, this listener and these lines at the top.
fn behind(blue: &str, listen: &str, top: &str, more: &str) -> Teal {
    let text = shop_text("none", &[("blue", blue)], &format!("health: off\n{more}"));
    let text = text.replace("listen: 127.0.0.1:0", &format!("listen: {listen}"));
    Teal::start(&text.replace("services:", &format!("{top}\nservices:")))
}

/// A listener behind a balancer of this network.
fn balanced(trusted: &str, strict: bool) -> String {
    format!("{{ address: '127.0.0.1:0', proxy_protocol: {{ trusted: {trusted}, strict: {strict} }} }}")
}

/// A client that begins with these bytes.
fn greeting(teal: &Teal, bytes: &[u8]) -> Client {
    let mut client = teal.client();
    client.send_bytes(bytes);
    client
}

fn turned_away(teal: &Teal) -> u64 {
    let mut admin = teal.admin();
    let answer = admin.order("GET", "/metrics", "", "");
    let series = "teal_client_connections_refused_total{reason=\"proxy_protocol\"} ";
    let line = answer.body.lines().find_map(|line| line.strip_prefix(series).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {series} in {}", answer.body)).parse().unwrap()
}

#[test]
fn the_client_is_whom_the_balancer_names() {
    let blue = Upstream::plain("blue");
    let teal = behind(&blue.url(), &balanced("127.0.0.0/8", true), "", "");
    let own = SocketAddr::from(([127, 0, 0, 1], 0)).ip().to_string();
    let table: [(Vec<u8>, &str); 6] = [
        (b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n".to_vec(), "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::9 2001:db8::1 4711 443\r\n".to_vec(), "2001:db8::9"),
        (b"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:192.0.2.1 4711 443\r\n".to_vec(), "203.0.113.9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), &own),
        (proxied::version_2("203.0.113.7:4711", "192.0.2.1:443"), "203.0.113.7"),
        (proxied::local_2(), &own),
    ];
    for (header, seen) in table {
        let mut client = greeting(&teal, &header);
        // What a client adds itself is not believed: nobody is trusted to forward.
        for forged in ["", "X-Forwarded-For: 6.6.6.6\r\n"] {
            assert_eq!(client.get("/", forged).body, "blue");
            let request = blue.arrived().pop().unwrap();
            assert_eq!(request.all("x-forwarded-for"), [seen], "{}", header.escape_ascii());
        }
    }
    // Header and request in one segment, and the header in two.
    let mut client =
        greeting(&teal, b"PROXY TCP4 203.0.113.9 192.0.2.1 1 2\r\nGET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!(client.answer().unwrap().body, "blue");
    let mut client = greeting(&teal, b"PROXY TCP4 203.0.1");
    client.send("13.8 192.0.2.1 1 2\r\n");
    client.get("/", "");
    assert_eq!(blue.arrived().pop().unwrap().header("x-forwarded-for"), Some("203.0.113.8"));
    assert_eq!(turned_away(&teal), 0);
}

#[test]
fn a_trusted_peer_without_a_header_is_turned_away_and_nothing_goes_up() {
    let blue = Upstream::plain("blue");
    let teal = behind(&blue.url(), &balanced("127.0.0.0/8", false), "", "");
    let nonsense: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 4711\r\n",
        b"PROXY TCP4 203.0.113.999 192.0.2.1 4711 443\r\nGET / HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\nGET / HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
    ];
    for (number, bytes) in (1..).zip(nonsense) {
        let mut client = greeting(&teal, bytes);
        assert!(client.is_closed(), "{}", bytes.escape_ascii());
        teal.until("it is counted", || turned_away(&teal) == number);
    }
    assert_eq!(blue.count(), 0);
}

#[test]
fn peers_outside_the_balancers_network_speak_for_themselves_or_not_at_all() {
    let blue = Upstream::plain("blue");
    let forged = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n";
    let strict = behind(&blue.url(), &balanced("127.0.0.2", true), "", "");
    assert!(greeting(&strict, forged).is_closed());
    assert!(strict.client().is_closed(), "not even to be asked");
    assert_eq!(turned_away(&strict), 2);
    let mut balancer = Client::from_source([127, 0, 0, 2], strict.address);
    balancer.send_bytes(forged);
    assert_eq!(balancer.get("/", "").status, 200);

    let open = behind(&blue.url(), &balanced("127.0.0.2", false), "", "");
    assert_eq!(open.client().get("/", "").status, 200);
    assert_eq!(blue.arrived().pop().unwrap().header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(greeting(&open, forged).answer().map(|answer| answer.status), Some(400), "a header is no request");
    let plain = behind(&blue.url(), "127.0.0.1:0", "", "");
    assert_eq!(greeting(&plain, forged).answer().map(|answer| answer.status), Some(400), "nor where none is expected");
}

#[test]
fn places_are_counted_by_the_client_that_the_balancer_names() {
    let blue = Upstream::plain("blue");
    let top = "client: { max_connections_per_source: 2 }";
    let teal = behind(&blue.url(), &balanced("127.0.0.1", true), top, "");
    let named = |ip: &str| greeting(&teal, format!("PROXY TCP4 {ip} 192.0.2.1 1 2\r\n").as_bytes());
    let served = |client: &mut Client| {
        client.try_send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            && client.answer().is_some_and(|answer| answer.status == 200)
    };
    let mut many: Vec<Client> = ["203.0.113.1", "203.0.113.1", "203.0.113.2"].into_iter().map(named).collect();
    assert!(many.iter_mut().all(served));
    assert!(!served(&mut named("203.0.113.1")), "one too many");
    assert!(served(&mut named("203.0.113.2")), "others are not held to account");
    many.truncate(1);
    teal.until("a place is free again", || served(&mut named("203.0.113.1")));
}

/// An upstream that wants PROXY headers, and how it is to be named in a pool.
fn wanting(version: &str) -> (Upstream, String) {
    let manner = Manner { proxied: true, ..Manner::default() };
    let blue = Upstream::in_manner(manner, |_| Act::Answer(ok("blue")));
    let pool = format!("{{ endpoints: '{}', proxy_protocol: {version} }}", blue.url());
    (blue, pool)
}

#[test]
fn endpoints_are_told_the_client_and_no_connection_serves_two() {
    for (version, begin) in [("v1", "PROXY TCP4 "), ("v2", "v2 ")] {
        let (blue, pool) = wanting(version);
        let teal = behind(&pool, "127.0.0.1:0", "", "");
        let (mut first, mut second) =
            (Client::from_source([127, 0, 0, 2], teal.address), Client::from_source([127, 0, 0, 3], teal.address));
        for _ in 0..3 {
            assert_eq!((first.get("/", "").status, second.get("/", "").status), (200, 200));
        }
        let arrived = blue.arrived();
        for request in &arrived {
            let client = request.header("x-forwarded-for").unwrap();
            assert!(request.proxied.starts_with(&format!("{begin}{client}")), "{version}: {}", request.proxied);
            assert!(request.proxied.ends_with(&teal.address.port().to_string()), "{version}: {}", request.proxied);
            let same = arrived.iter().filter(|other| other.connection == request.connection);
            assert!(same.clone().all(|other| other.proxied == request.proxied), "{version}: {arrived:?}");
        }
    }
}

#[test]
fn whom_the_balancer_named_is_told_to_the_endpoints_as_well() {
    let (blue, pool) = wanting("v1");
    let teal = behind(&pool, &balanced("127.0.0.1", true), "", "");
    let header = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n";
    greeting(&teal, header).get("/", "");
    assert_eq!(blue.arrived()[0].proxied, "PROXY TCP4 203.0.113.9 192.0.2.1 4711 443");
    greeting(&teal, b"PROXY TCP6 2001:db8::9 2001:db8::1 4711 443\r\n").get("/", "");
    assert_eq!(blue.arrived()[1].proxied, "PROXY TCP6 2001:db8::9 2001:db8::1 4711 443");
}

#[test]
fn health_checks_of_endpoints_that_want_a_header_say_that_they_are_nobodys() {
    for version in ["v1", "v2"] {
        let (blue, pool) = wanting(version);
        let more = "health: { path: /healthz, interval: 100ms }";
        let teal = Teal::with(&[("blue", &pool)], more);
        teal.until("a check", || blue.count() > 0);
        let said = blue.arrived()[0].proxied.clone();
        assert_eq!(said, if version == "v1" { "PROXY UNKNOWN" } else { "v2 local" });
        teal.until("healthy", || health(&teal, 0) == [Health::Healthy]);
    }
}

fn health(teal: &Teal, pool: usize) -> Vec<Health> {
    let table = teal.running().controller.plane().table.load_full();
    table.services[0].pools[pool].endpoints.iter().map(|endpoint| endpoint.health()).collect()
}

/// What an upstream was told of where a request came from.
fn told(request: &Arrived) -> [Option<String>; 5] {
    let names = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "forwarded"];
    names.map(|name| Some(request.all(name).join(" + ")).filter(|said| !said.is_empty()))
}

#[test]
fn a_trusted_forwarder_is_believed_and_appended_to_and_nobody_else_is() {
    let blue = Upstream::plain("blue");
    let said = "X-Forwarded-For: 198.51.100.1, 203.0.113.9\r\nx-forwarded-for: 127.0.0.7\r\nX-Forwarded-Proto: https\r\n\
                X-Forwarded-Host: www.test\r\nX-Forwarded-Port: 8443\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n";
    let trusting = behind(&blue.url(), "127.0.0.1:0", "client: { trusted: 127.0.0.0/8 }", "");
    trusting.client().get("/", said);
    let request = blue.arrived().pop().unwrap();
    let expected = ["198.51.100.1, 203.0.113.9, 127.0.0.7, 127.0.0.1", "https", "www.test", "8443"];
    assert_eq!(
        told(&request),
        [Some(expected[0]), Some(expected[1]), Some(expected[2]), Some(expected[3]), None]
            .map(|text| text.map(str::to_owned))
    );
    assert_eq!(request.header("x-real-ip"), None);
    for trusted in ["none", "10.0.0.0/8"] {
        let top = if trusted == "none" { String::new() } else { format!("client: {{ trusted: {trusted} }}") };
        behind(&blue.url(), "127.0.0.1:0", &top, "").client().get("/", said);
        let expected = [Some("127.0.0.1"), Some("http"), Some("shop.test"), None, None];
        assert_eq!(told(&blue.arrived().pop().unwrap()), expected.map(|text| text.map(str::to_owned)), "{trusted}");
    }
}

#[test]
fn the_other_style_is_read_and_written_where_it_is_asked_for() {
    let blue = Upstream::plain("blue");
    let top = "client: { trusted: 127.0.0.0/8, forwarded_by: forwarded }";
    let teal = behind(&blue.url(), "127.0.0.1:0", top, "");
    teal.client()
        .get("/", "Forwarded: for=\"[2001:db8::9]:4711\";proto=https;host=www.test\r\nX-Forwarded-For: 6.6.6.6\r\n");
    let request = blue.arrived().pop().unwrap();
    assert_eq!(
        request.all("forwarded"),
        ["for=\"[2001:db8::9]:4711\";proto=https;host=www.test, for=127.0.0.1;host=\"shop.test\";proto=http"]
    );
    assert_eq!(request.all("x-forwarded-for"), ["2001:db8::9, 127.0.0.1"]);
    assert_eq!(
        (request.header("x-forwarded-proto"), request.header("x-forwarded-host")),
        (Some("https"), Some("www.test"))
    );
    teal.client().get("/", "Forwarded: for=broken;;=\r\n");
    assert_eq!(blue.arrived().pop().unwrap().all("forwarded"), ["for=127.0.0.1;host=\"shop.test\";proto=http"]);
}

#[test]
fn overrides_and_the_split_go_by_the_client_that_trust_tells() {
    let (blue, green) = (Upstream::plain("blue"), Upstream::plain("green"));
    let more = "split_by: client\noverrides: [{ name: qa, match: { client: 203.0.113.0/24 }, pool: green }]\nhealth: off\nguard: off";
    let text = shop_text("none", &[("blue", &blue.url()), ("green", &green.url())], more);
    let teal = Teal::start(&text.replace("services:", "client: { trusted: 127.0.0.1 }\nservices:"));
    let by = |client: &mut Client, ip: &str| client.get("/", &format!("X-Forwarded-For: {ip}\r\n")).body;
    let mut client = teal.client();
    assert_eq!((by(&mut client, "203.0.113.9").as_str(), by(&mut client, "198.51.100.1").as_str()), ("green", "blue"));
    assert_eq!(by(&mut client, "203.0.113.9, 198.51.100.1"), "blue", "the right-most that is not trusted");
    let mut stranger = Client::from_source([127, 0, 0, 2], teal.address);
    assert_eq!(by(&mut stranger, "203.0.113.9"), "blue", "who is not trusted only says so");

    teal.weigh(50).unwrap();
    let sides: Vec<String> = (0..40).map(|n| by(&mut client, &format!("198.51.100.{n}"))).collect();
    let again: Vec<String> = (0..40).map(|n| by(&mut teal.client(), &format!("198.51.100.{n}"))).collect();
    assert_eq!(sides, again, "one client, one side, whatever the connection");
    let greens = sides.iter().filter(|side| *side == "green").count();
    assert!((5..=35).contains(&greens), "{greens} of 40 clients, though the connection is one");
    let strangers: Vec<String> = (0..20).map(|n| by(&mut stranger, &format!("198.51.100.{n}"))).collect();
    assert!(strangers.iter().all(|side| *side == strangers[0]), "one address has one side: {strangers:?}");
}

#[test]
fn a_unix_socket_is_listened_on_and_gone_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("teal.sock");
    let blue = Upstream::plain("blue");
    let listen = format!("['127.0.0.1:0', {{ address: 'unix:{}', mode: '0620' }}]", path.display());
    let teal = behind(&blue.url(), &listen, "", "");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o620);
    let mut client = Client::unix(&path);
    for _ in 0..3 {
        assert_eq!(client.post("/", &"x".repeat(100_000)).body, "blue");
    }
    let request = blue.arrived().pop().unwrap();
    assert_eq!((request.header("x-forwarded-for"), request.body.len()), (Some("127.0.0.1"), 100_000));
    assert_eq!(teal.client().get("/", "").body, "blue", "and the port beside it");
    teal.shutdown();
    assert!(!path.exists());
}

#[test]
fn a_unix_socket_may_be_behind_a_balancer_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("teal.sock");
    let blue = Upstream::plain("blue");
    let listen =
        format!("['127.0.0.1:0', {{ address: 'unix:{}', proxy_protocol: {{ trusted: 127.0.0.1 }} }}]", path.display());
    let _teal = behind(&blue.url(), &listen, "", "");
    let mut client = Client::unix(&path);
    client.send("PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n");
    assert_eq!(client.get("/", "").body, "blue");
    assert_eq!(blue.arrived()[0].header("x-forwarded-for"), Some("203.0.113.9"));
    assert!({
        let mut client = Client::unix(&path);
        client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        client.is_closed()
    });
}

#[test]
fn an_endpoint_may_be_a_unix_socket_that_comes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let start = || {
        let manner = Manner { socket: Some(path.clone()), ..Manner::default() };
        Upstream::in_manner(manner, |request| match request.line.contains("/healthz") {
            true => Act::AnswerAndClose(ok("well")),
            false => Act::Answer(ok("from a socket")),
        })
    };
    let blue = start();
    let more = "health: { path: /healthz, interval: 100ms, unhealthy_after: 1, healthy_after: 1 }";
    let teal = Teal::with(&[("blue", &format!("'{}'", blue.url()))], more);
    teal.until("healthy", || health(&teal, 0) == [Health::Healthy]);
    let mut client = teal.client();
    for _ in 0..3 {
        assert_eq!(client.post("/", &"x".repeat(100_000)).body, "from a socket");
    }
    let served: Vec<Arrived> = blue.arrived().into_iter().filter(|one| one.line.starts_with("POST")).collect();
    assert!(served.iter().all(|one| one.connection == served[0].connection && one.body.len() == 100_000));
    assert_eq!((served[0].header("host"), served[0].header("x-forwarded-for")), (Some("shop.test"), Some("127.0.0.1")));
    blue.crash();
    drop(blue);
    std::fs::remove_file(&path).unwrap();
    teal.until("unhealthy", || health(&teal, 0) == [Health::Unhealthy]);
    assert_eq!(client.get("/", "").status, 503);
    let _back = start();
    teal.until("healthy again", || health(&teal, 0) == [Health::Healthy]);
    assert_eq!(client.get("/", "").body, "from a socket");
}

#[test]
fn an_endpoints_name_stands_for_all_its_addresses_as_they_come_and_go() {
    let at = |ip: [u8; 4], port: u16, body: &'static str| {
        let manner = Manner { address: Some(SocketAddr::from((ip, port))), ..Manner::default() };
        Upstream::in_manner(manner, move |_| Act::Answer(ok(body)))
    };
    let one = at([127, 0, 0, 1], 0, "one");
    let port = one.address.port();
    let (two, three) = (at([127, 0, 0, 2], port, "two"), at([127, 0, 0, 3], port, "three"));
    let names = Names::start(&[[127, 0, 0, 1], [127, 0, 0, 2]]);
    let top = format!("resolver: {{ servers: '{}' }}", names.address);
    let pool = format!("'http://app.test.:{port}'");
    let teal = behind(&pool, "127.0.0.1:0", &top, "balance: round_robin");
    let mut client = teal.client();
    let mut seen = || (0..8).map(|_| client.get("/", "").body).collect::<std::collections::BTreeSet<_>>();
    teal.until("both serve", || seen() == ["one", "two"].map(str::to_owned).into());
    assert_eq!(one.arrived()[0].header("host"), Some("shop.test"), "the client's, not the endpoint's");
    names.set(&[[127, 0, 0, 2], [127, 0, 0, 3]]);
    teal.until("one went and another came", || seen() == ["three", "two"].map(str::to_owned).into());
    names.set(&[]);
    let before = (two.count(), three.count());
    assert_eq!(seen(), ["three", "two"].map(str::to_owned).into(), "what was known last stays");
    assert!(two.count() > before.0 && three.count() > before.1);
    let first = format!("{{ endpoints: 'http://app.test.:{port}', resolve: first }}");
    names.set(&[[127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 3]]);
    let teal = behind(&first, "127.0.0.1:0", &top, "");
    let mut client = teal.client();
    teal.until("it serves", || client.get("/", "").status == 200);
    let body = client.get("/", "").body;
    assert!((0..8).all(|_| client.get("/", "").body == body), "one of them only");
}
