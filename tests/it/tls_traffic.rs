//! Requests over TLS, on either side: who is shown which certificate, who is told who the client is, who is believed.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::forge::{Authority, Pair};
use super::support::client::Client;
use super::support::pace;
use super::support::secure::{Serving, Trusting, der};
use super::support::teal::Teal;
use super::support::upstream::{Act, Arrived, Manner, Upstream, ok};

/// An authority, its folder, and what is behind.
struct Site {
    authority: Authority,
    folder: TempDir,
    blue: Upstream,
}

impl Site {
    /// With `shop.crt` for `shop.test` and an upstream that does what `script` says.
    fn new(script: impl Fn(&Arrived) -> Act + Send + Sync + 'static) -> Site {
        let site = Site {
            authority: Authority::new("Site"),
            folder: tempfile::tempdir().unwrap(),
            blue: Upstream::start(script),
        };
        site.issue("shop", &["shop.test"]);
        site
    }

    fn plain() -> Site {
        Site::new(|_| Act::Answer(ok("blue")))
    }

    /// A certificate and its key as files of this name.
    fn issue(&self, name: &str, hosts: &[&str]) -> Pair {
        let pair = self.authority.issue(hosts);
        pair.write(self.folder.path(), name);
        pair
    }

    /// Teal with this listener and a service of the pool `blue`, and more lines of the service.
    fn start(self, listen: &str, more: &str) -> (Teal, Authority, Upstream) {
        let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
        let text = format!(
            "version: 1\nlisten: {listen}\nadmin: 127.0.0.1:0\nstate: none\nworkers: 2\nservices:\n  shop:\n    pools: {{ blue: '{}' }}\n    health: off\n{more}",
            self.blue.url()
        );
        fs::write(self.folder.path().join("teal.yaml"), text).unwrap();
        (Teal::from_folder(self.folder), self.authority, self.blue)
    }
}

const SHOP: &str = "certificates: { cert: shop.crt, key: shop.key }";

/// A listener with TLS of these keys, and more keys of its own.
fn listener(tls: &str, more: &str) -> String {
    format!("{{ address: '127.0.0.1:0', tls: {{ {tls} }}{more} }}")
}

fn shown(teal: &Teal, tls: &Trusting, name: &str) -> Result<Vec<u8>, String> {
    tls.shown(TcpStream::connect(teal.address).unwrap(), name)
}

#[test]
fn requests_over_tls_are_like_others_and_say_so() {
    let big: &'static str = Box::leak("0123456789abcdef".repeat(1 << 16).into_boxed_str());
    let site = Site::new(move |request| match request.line.split(' ').nth(1) {
        Some("/big") => Act::Answer(ok(big)),
        Some("/chunks") => {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            Act::Answer(format!("{head}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").into_bytes())
        }
        _ => Act::Answer(ok("blue")),
    });
    let (teal, authority, blue) = site.start(&listener(SHOP, ""), "");
    let mut client = Client::secure(teal.address, &Trusting::of(&authority), "shop.test");
    assert_eq!(client.get("/", "X-Forwarded-Proto: http\r\n").body, "blue");
    assert_eq!(blue.arrived()[0].header("x-forwarded-proto"), Some("https"));
    for _ in 0..3 {
        assert!(client.post("/big", big).body == big);
        assert_eq!(client.get("/chunks", "").body, "abcde");
    }
    client.send("GET /1 HTTP/1.1\r\nHost: shop.test\r\n\r\nGET /chunks HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!([client.answer().unwrap().body, client.answer().unwrap().body], ["blue", "abcde"], "pipelined");
    assert!(
        blue.arrived().iter().filter(|request| request.line.contains("/big")).all(|one| one.body == big.as_bytes())
    );
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n");
    assert_eq!(client.answer().unwrap().body, "blue");
    assert!(client.is_closed(), "with a proper end of TLS: anything else is an error here");
    assert_eq!(blue.connections(), 1, "one worker, one connection");
}

#[test]
fn plain_http_on_the_secure_port_gets_a_sentence() {
    let (teal, _, blue) = Site::plain().start(&listener(SHOP, ""), "");
    let answer = teal.client().get("/", "");
    assert!(answer.status == 400 && answer.body.contains("https://"), "{answer:?}");
    assert_eq!(blue.count(), 0);
}

#[test]
fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
    let site = Site::plain();
    let first = site.issue("first", &["first.test"]);
    let exact = site.issue("exact", &["a.shop.test"]);
    let wild = site.issue("wild", &["*.shop.test"]);
    let certificates =
        ["first", "exact", "wild"].map(|name| format!("{{ cert: {name}.crt, key: {name}.key }}")).join(", ");
    let (teal, authority, _blue) = site.start(&listener(&format!("certificates: [{certificates}]"), ""), "");
    let tls = Trusting::of(&authority);
    for (name, pair) in
        [("first.test", &first), ("a.shop.test", &exact), ("A.Shop.Test", &exact), ("b.shop.test", &wild)]
    {
        assert_eq!(shown(&teal, &tls, name), Ok(der(pair)), "{name}");
    }
    for name in ["a.b.shop.test", "shop.test", "other.test"] {
        let refusal = shown(&teal, &tls, name).unwrap_err();
        assert!(refusal.contains("not valid for name"), "{name}: it is shown the first, and says {refusal}");
    }
    let stranger = Trusting::of(&Authority::new("Somebody else"));
    assert!(shown(&teal, &stranger, "first.test").is_err());
    assert_eq!(Client::secure(teal.address, &tls, "b.shop.test").get("/", "").body, "blue", "routes go by Host alone");
}

#[test]
fn who_a_client_proved_to_be_goes_up_and_nobody_can_say_it_for_himself() {
    let forged = "X-Client-Verified: true\r\nx-client-cert-subject: CN=root\r\nX_Client_Cert_San: DNS=root\r\nX-Client-Cert-Anything: 1\r\nConnection: x-client-verified\r\n";
    let of = |request: &Arrived| {
        let names = ["x-client-verified", "x-client-cert-subject", "x-client-cert-san", "x-client-cert-fingerprint"];
        assert!(request.headers.iter().all(|line| !line.contains("root") && !line.contains("nything")), "{request:?}");
        names.map(|name| request.all(name).join(" + "))
    };
    for mode in ["off", "optional", "required"] {
        let site = Site::plain();
        let clients = Authority::new("Clients");
        fs::write(site.folder.path().join("clients.crt"), &clients.pem).unwrap();
        let ask = if mode == "off" { String::new() } else { format!(", client_auth: {mode}, client_ca: clients.crt") };
        let (teal, authority, blue) = site.start(&listener(&format!("{SHOP}{ask}"), ""), "");
        let known = Trusting::showing(&authority, &clients.issue(&["ann.test"]));
        let mut client = Client::secure(teal.address, &known, "shop.test");
        for _ in 0..2 {
            assert_eq!(client.get("/", forged).status, 200, "{mode}");
        }
        let said = blue.arrived().iter().map(of).collect::<Vec<_>>();
        assert_eq!(said[0], said[1], "{mode}: of every request");
        match mode {
            "off" => assert_eq!(said[0], [""; 4]),
            _ => {
                assert_eq!(said[0][..3], ["true", "CN=ann.test", "DNS=ann.test"], "{mode}");
                assert_eq!(said[0][3].len(), 64, "{mode}: {}", said[0][3]);
            }
        }
        // Without a certificate, or with one that nobody vouches for.
        let nobody = Trusting::of(&authority);
        let stranger = Trusting::showing(&authority, &Authority::new("Forgers").issue(&["ann.test"]));
        let served = |tls: &Trusting| {
            let mut client = Client::secure(teal.address, tls, "shop.test");
            let request = format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{forged}\r\n");
            client.try_send(request.as_bytes()) && client.head().is_some_and(|answer| answer.status == 200)
        };
        assert_eq!((served(&nobody), served(&stranger)), (mode != "required", mode == "off"), "{mode}");
        if mode == "optional" {
            assert_eq!(of(&blue.arrived().pop().unwrap()), ["false", "", "", ""]);
        }
        assert_eq!(
            blue.count(),
            [("off", 4), ("optional", 3), ("required", 2)].iter().find(|(m, _)| *m == mode).unwrap().1
        );
    }
}

#[test]
fn a_resumed_session_is_the_same_client_and_is_counted() {
    let site = Site::plain();
    let clients = Authority::new("Clients");
    fs::write(site.folder.path().join("clients.crt"), &clients.pem).unwrap();
    let asking = format!("{SHOP}, client_auth: required, client_ca: clients.crt");
    let (teal, authority, blue) = site.start(&listener(&asking, ""), "");
    let tls = Trusting::showing(&authority, &clients.issue(&["ann.test"]));
    for _ in 0..4 {
        assert_eq!(Client::secure(teal.address, &tls, "shop.test").get("/", "").status, 200);
    }
    let metrics = teal.admin().order("GET", "/metrics", "", "").body;
    let resumed: Vec<&str> =
        metrics.lines().filter(|line| line.contains("handshake") && line.contains("resumed")).collect();
    assert!(resumed.iter().any(|line| !line.starts_with('#') && line.ends_with(" 3")), "{resumed:?}");
    let subjects: Vec<_> = blue.arrived().iter().map(|one| one.all("x-client-cert-subject").join("")).collect();
    assert_eq!(subjects, ["CN=ann.test"; 4]);
}

#[test]
fn strict_transport_is_promised_once_with_every_answer() {
    let own = "HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 0\r\n\r\n";
    let site = Site::new(move |request| match request.line.contains("/own") {
        true => Act::Answer(own.as_bytes().to_vec()),
        false => Act::Answer(ok("blue")),
    });
    let routes = "hosts: shop.test\nroutes:\n  - { name: edited, match: { path: { prefix: /edited } }, response_headers: { set: { strict-transport-security: max-age=2 } } }\n  - { name: gone, match: { path: { prefix: /gone } }, redirect: { to: /there } }\n  - { name: moved, match: { path: { prefix: /moved } }, redirect: { to: /there }, response_headers: { set: { strict-transport-security: max-age=3 } } }\n  - { name: own, match: { path: { prefix: /own } } }\n  - { name: small, match: { path: { prefix: /small } }, limits: { headers: 1 } }\n  - { name: rest, match: { path: { exact: / } } }";
    let hsts = listener(SHOP, ", hsts: { max_age: 30days, include_subdomains: true }");
    let (teal, authority, _blue) = site.start(&format!("[{hsts}, '127.0.0.1:0']"), routes);
    let tls = Trusting::of(&authority);
    let promise = "max-age=2592000; includeSubDomains";
    let table = [
        ("/", 200, promise),
        ("/own", 200, promise),
        ("/edited", 200, "max-age=2"),
        ("/gone", 307, promise),
        ("/moved", 307, "max-age=3"),
        ("/nowhere", 404, promise),
        ("/x/../own", 400, promise),
        ("/small", 431, promise),
    ];
    for (path, status, promised) in table {
        let answer = Client::secure(teal.address, &tls, "shop.test").get(path, "X: y\r\n");
        assert_eq!((answer.status, answer.all("strict-transport-security")), (status, vec![promised]), "{path}");
    }
    let mut client = Client::secure(teal.address, &tls, "shop.test");
    client.send("NONSENSE\r\n\r\n");
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.all("strict-transport-security")), (400, vec![promise]));
    let plain = Client::connect(teal.listener(1)).get("/", "");
    assert_eq!(plain.all("strict-transport-security"), [""; 0], "never in the clear");
    assert_eq!(Client::connect(teal.listener(1)).get("/own", "").all("strict-transport-security"), ["max-age=1"]);
}

#[test]
fn a_renewed_certificate_is_shown_to_new_connections_while_old_ones_go_on() {
    let (teal, authority, _blue) = Site::plain().start(&listener(SHOP, ""), "");
    let tls = Trusting::of(&authority);
    let mut kept = Client::secure(teal.address, &tls, "shop.test");
    assert_eq!(kept.get("/", "").body, "blue");
    let folder = teal.folder.as_ref().unwrap().path().to_owned();
    for _ in 0..3 {
        let renewed = authority.issue(&["shop.test"]);
        renewed.write(&folder, "shop");
        // Each worker takes the new table by itself: all of a few connections must show it.
        teal.until("it is shown", || (0..8).all(|_| shown(&teal, &tls, "shop.test") == Ok(der(&renewed))));
        assert_eq!(kept.get("/", "").body, "blue", "nothing was cut");
    }
    fs::write(folder.join("shop.crt"), "broken").unwrap();
    teal.until("it is refused", || !teal.told("reload_refused").is_empty());
    assert_eq!(Client::secure(teal.address, &tls, "shop.test").get("/", "").body, "blue", "the last good one stays");
    assert_eq!(kept.get("/", "").body, "blue");
}

/// Teal in front of an endpoint over TLS, with these keys of its pool.
fn over_tls(url: &str, folder: TempDir, pool: &str, more: &str) -> Teal {
    let text = format!(
        "version: 1\nlisten: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: none\nworkers: 1\nservices:\n  shop:\n    pools: {{ blue: {{ endpoints: '{url}', {pool} }} }}\n    {more}\n"
    );
    fs::write(folder.path().join("teal.yaml"), text).unwrap();
    Teal::from_folder(folder)
}

fn secure_upstream(tls: Arc<Serving>) -> Upstream {
    Upstream::in_manner(Manner { tls: Some(tls), ..Manner::default() }, |_| Act::Answer(ok("secure blue")))
}

/// A folder with the authority's certificate as `ca.crt`.
fn folder_of(authority: &Authority) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ca.crt"), &authority.pem).unwrap();
    folder
}

#[test]
fn an_endpoint_is_believed_only_if_it_proves_to_be_whom_it_should_be() {
    let (inside, other) = (Authority::new("Inside"), Authority::new("Other"));
    let by_ip = inside.issue(&["127.0.0.1"]);
    let by_name = inside.issue(&["blue.internal"]);
    let expired = inside.issue_expired(&["blue.internal"]);
    let stranger = other.issue(&["blue.internal"]);
    let table = [
        ("by its address", &by_ip, "tls: { ca: ca.crt }", 200),
        ("by its name", &by_name, "tls: { ca: ca.crt, server_name: blue.internal }", 200),
        ("another name", &by_name, "tls: { ca: ca.crt, server_name: green.internal }", 502),
        ("an address that it has not", &by_name, "tls: { ca: ca.crt }", 502),
        ("expired", &expired, "tls: { ca: ca.crt, server_name: blue.internal }", 502),
        ("by another authority", &stranger, "tls: { ca: ca.crt, server_name: blue.internal }", 502),
        ("whoever", &stranger, "tls: { insecure_skip_verify: true }", 200),
    ];
    for (what, pair, pool, status) in table {
        let blue = secure_upstream(Serving::with(pair));
        let teal = over_tls(&blue.url(), folder_of(&inside), pool, "health: off");
        let mut client = teal.client();
        for turn in 0..3 {
            let answer = client.post("/", "a secret");
            assert_eq!(answer.status, status, "{what}, {turn}");
        }
        match status {
            200 => {
                assert_eq!((blue.count(), blue.connections()), (3, 1), "{what}: one connection for all");
                let request = &blue.arrived()[0];
                assert_eq!(
                    (request.header("host"), request.header("x-forwarded-proto")),
                    (Some("shop.test"), Some("http"))
                );
            }
            _ => assert_eq!(blue.count(), 0, "{what}: nothing is said to it"),
        }
    }
}

#[test]
fn an_endpoint_that_asks_is_shown_who_we_are() {
    let (inside, clients) = (Authority::new("Inside"), Authority::new("Clients"));
    let server = inside.issue(&["127.0.0.1"]);
    for (pool, status) in [
        ("tls: { ca: ca.crt, client_cert: teal.crt, client_key: teal.key }", 200),
        ("tls: { ca: ca.crt, client_cert: other.crt, client_key: other.key }", 502),
        ("tls: { ca: ca.crt }", 502),
    ] {
        let folder = folder_of(&inside);
        clients.issue(&["teal.internal"]).write(folder.path(), "teal");
        inside.issue(&["teal.internal"]).write(folder.path(), "other");
        let blue = secure_upstream(Serving::requiring(&server, &clients));
        let teal = over_tls(&blue.url(), folder, pool, "health: off");
        assert_eq!(teal.client().get("/", "").status, status, "{pool}");
    }
}

#[test]
fn what_plain_http_answers_on_a_secure_endpoints_port_is_not_delivered() {
    let inside = Authority::new("Inside");
    let blue = Upstream::plain("in the clear");
    let folder = folder_of(&inside);
    let more = "health: off\n    timeouts: { connect: 500ms }";
    let teal = over_tls(&format!("https://{}", blue.address), folder, "tls: { ca: ca.crt }", more);
    let answer = teal.client().get("/", "");
    assert!(answer.status == 502 && !answer.body.contains("in the clear"), "{answer:?}");
}

#[test]
fn health_is_asked_over_tls_and_an_endpoint_nobody_may_believe_is_unhealthy() {
    let inside = Authority::new("Inside");
    for (name, status) in [("blue.internal", 200), ("green.internal", 503)] {
        let blue = secure_upstream(Serving::with(&inside.issue(&["blue.internal"])));
        let pool = format!("tls: {{ ca: ca.crt, server_name: {name} }}");
        let teal = over_tls(&blue.url(), folder_of(&inside), &pool, "health: { path: /healthz, interval: 100ms }");
        let mut client = teal.client();
        teal.until("it is known", || client.get("/", "").status == status);
        assert_eq!(blue.count() > 0, status == 200, "{name}");
    }
}

#[test]
fn an_answer_over_tls_that_only_the_connections_end_delimits_needs_a_proper_end() {
    let inside = Authority::new("Inside");
    let manner = Manner { tls: Some(Serving::with(&inside.issue(&["127.0.0.1"]))), ..Manner::default() };
    // The end of the socket without the end of TLS: somebody in between may have cut it.
    let blue = Upstream::in_manner(manner, |_| Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\n\r\nhalf of it".to_vec()));
    let teal = over_tls(&blue.url(), folder_of(&inside), "tls: { ca: ca.crt }", "health: off");
    let mut client = teal.client();
    client.send("GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n");
    assert_eq!(client.answer(), None, "not as if it were whole");
}

#[test]
fn the_balancers_word_comes_before_tls() {
    let site = Site::plain();
    let (teal, authority, blue) = site.start(&listener(SHOP, ", proxy_protocol: { trusted: 127.0.0.1 }"), "");
    let mut stream = TcpStream::connect(teal.address).unwrap();
    stream.write_all(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n").unwrap();
    let mut client = Client::secure_over(stream, &Trusting::of(&authority), "shop.test");
    assert_eq!(client.get("/", "").body, "blue");
    let request = &blue.arrived()[0];
    assert_eq!(
        (request.header("x-forwarded-for"), request.header("x-forwarded-proto")),
        (Some("203.0.113.9"), Some("https"))
    );
    let mut bare = Client::secure(teal.address, &Trusting::of(&authority), "shop.test");
    assert!(!bare.try_send(b"GET / HTTP/1.1\r\n") || bare.is_closed(), "no handshake without it");
}

#[test]
fn a_header_to_a_secure_endpoint_comes_before_tls() {
    let inside = Authority::new("Inside");
    let manner = Manner { tls: Some(Serving::with(&inside.issue(&["127.0.0.1"]))), proxied: true, ..Manner::default() };
    let blue = Upstream::in_manner(manner, |_| Act::Answer(ok("blue")));
    let teal = over_tls(
        &blue.url(),
        folder_of(&inside),
        "proxy_protocol: v2, tls: { ca: ca.crt }",
        "health: { path: /healthz, interval: 100ms }",
    );
    let mut client = teal.client();
    teal.until("it serves", || client.get("/", "").body == "blue");
    let came = |from: &str| blue.arrived().iter().any(|one| one.proxied.starts_with(from));
    teal.until("a check and a request came", || came("v2 local") && came("v2 127.0.0.1:"));
}

#[test]
fn a_cut_answer_over_tls_has_no_proper_end_and_a_shutdown_has() {
    let site = Site::new(|request| match request.line.contains("/cut") {
        true => Act::AnswerAndClose(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n".to_vec()),
        false => Act::Answer(ok("blue")),
    });
    let (teal, authority, _blue) = site.start(&listener(SHOP, ""), "");
    let tls = Trusting::of(&authority);
    for version in ["1.0", "1.1"] {
        let mut client = Client::secure(teal.address, &tls, "shop.test");
        client.send(&format!("GET /cut HTTP/{version}\r\nHost: shop.test\r\n\r\n"));
        assert_eq!(client.answer(), None, "HTTP/{version}: not as if it were whole");
    }
    let mut idle = Client::secure(teal.address, &tls, "shop.test");
    assert_eq!(idle.get("/", "").body, "blue");
    teal.shutdown();
    assert!(idle.is_closed(), "with the end of TLS");
}

#[test]
fn a_tunnel_passes_through_tls_on_both_sides() {
    let inside = Authority::new("Inside");
    let manner = Manner { tls: Some(Serving::with(&inside.issue(&["127.0.0.1"]))), ..Manner::default() };
    let switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nearly";
    let blue = Upstream::in_manner(manner, move |_| Act::Echo(switching.as_bytes().to_vec()));
    let folder = folder_of(&inside);
    inside.issue(&["shop.test"]).write(folder.path(), "shop");
    let text = format!(
        "version: 1\nlisten: {}\nadmin: 127.0.0.1:0\nstate: none\nworkers: 1\nservices: {{ shop: {{ pools: {{ blue: {{ endpoints: '{}', tls: {{ ca: ca.crt }} }} }}, health: off }} }}\n",
        listener(SHOP, ""),
        blue.url()
    );
    fs::write(folder.path().join("teal.yaml"), text).unwrap();
    let teal = Teal::from_folder(folder);
    let mut client = Client::secure(teal.address, &Trusting::of(&inside), "shop.test");
    // The first words of the new protocol come right behind the request.
    client.send("GET /ws HTTP/1.1\r\nHost: shop.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nfirst");
    assert_eq!(client.head().map(|answer| answer.status), Some(101));
    assert_eq!(client.bytes(10), b"earlyfirst");
    for size in [1, 4_096, 60_000] {
        let word = "w".repeat(size);
        client.send(&word);
        assert_eq!(client.bytes(size), word.as_bytes());
    }
}

/// An endpoint with small buffers that begins its answer at once, then is slow to read, and ends when it has read all.
fn slow_reader(serving: Arc<Serving>) -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(128).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let serve = move |mut stream: Box<dyn ReadWrite>| -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n")?;
        pace(Duration::from_millis(300));
        stream.read_exact(&mut vec![0; length.parse().unwrap()])?;
        stream.write_all(b"4\r\nover\r\n0\r\n\r\n")
    };
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serving = Arc::clone(&serving);
            // The end of the test may be the end of a connection.
            std::thread::spawn(move || drop(serve(Box::new(serving.over(stream)))));
        }
    });
    address
}

trait ReadWrite: Read + Write {}

impl<S: Read + Write> ReadWrite for S {}

/// The last of it may wait in TLS for room in the socket: whatever the room is, one of these sizes ends in there.
#[test]
fn an_upload_reaches_a_secure_endpoint_whole_though_its_answer_has_begun() {
    let inside = Authority::new("Inside");
    let address = slow_reader(Serving::with(&inside.issue(&["127.0.0.1"])));
    let teal = over_tls(&format!("https://{address}"), folder_of(&inside), "tls: { ca: ca.crt }", "health: off");
    let ask = |kilobytes: usize| {
        let mut client = teal.client();
        let (length, body) = (kilobytes * 1024, "x".repeat(kilobytes * 1024));
        let head = format!("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {length}\r\n\r\n");
        assert!(client.try_send(head.as_bytes()) && client.try_send(body.as_bytes()));
        assert_eq!(client.answer().map(|answer| answer.body).as_deref(), Some("begunover"), "{kilobytes} KiB");
    };
    for wave in 0..8 {
        std::thread::scope(|scope| {
            for n in 1..=16 {
                let ask = &ask;
                scope.spawn(move || ask(32 * (16 * wave + n)));
            }
        });
    }
}

#[test]
fn a_connection_under_tls_that_dozed_off_serves_on() {
    let (teal, authority, _blue) = Site::plain().start(&listener(SHOP, ""), "");
    let mut client = Client::secure(teal.address, &Trusting::of(&authority), "shop.test");
    for _ in 0..3 {
        assert_eq!(client.get("/", "").body, "blue");
        // Longer than an idle connection keeps the memory of its last request.
        pace(Duration::from_millis(1_100));
    }
}
