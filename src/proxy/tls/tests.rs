//! Handshakes over real sockets, between what settings make and clients of every kind.

use std::sync::Mutex;

use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, NamedGroup, SignatureScheme, SupportedProtocolVersion,
};

use super::*;
use crate::bridge::tls::{CLIENT_FIELDS, Connector, SystemRoots};
use crate::clock;
use crate::config::settings::Address;
use crate::config::settings::tls::desk::Desk;
use crate::config::settings::tls::{ServerTls, forge::Authority, provider};

/// Both ends of one connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

fn server_of(tls: &Arc<ServerTls>) -> Server {
    Server::new(tls, None).unwrap()
}

/// A listener's TLS with the certificate for `a.test` and `*.b.test`.
fn server(desk: &Desk, lines: &str) -> Server {
    server_of(&desk.server(lines).unwrap())
}

/// A pool's TLS towards `https://a.test`.
fn connector(desk: &Desk, lines: &str) -> Connector {
    let pool = desk.pool(&format!("endpoints: 'https://a.test', {lines}")).unwrap();
    Connector::new(&pool.tls.unwrap(), pool.protocol, &SystemRoots::default()).unwrap()
}

fn named(host: &str) -> Address {
    Address { tls: true, ..Address::http(host, 443) }
}

type Met = (Result<Accepted, Failure>, io::Result<ClientStream<TcpStream>>);

/// Lets a pool's client side meet a server.
async fn meet(server: &Server, connector: &Connector, host: &str) -> Met {
    let (near, far) = pair().await;
    let address = named(host);
    tokio::join!(accept(server, far), connector.connect(&address, near))
}

/// Lets any client meet a server.
async fn meet_raw(server: &Server, config: &Arc<ClientConfig>) -> Met {
    let (near, far) = pair().await;
    let connect = TlsConnector::from(Arc::clone(config)).connect("a.test".try_into().unwrap(), near);
    tokio::join!(accept(server, far), connect)
}

/// A byte each way: with the answer, tickets reach the client.
async fn talk(server: &mut Accepted, client: &mut ClientStream<TcpStream>) {
    let mut byte = [0];
    client.write_all(b"?").await.unwrap();
    server.stream.read_exact(&mut byte).await.unwrap();
    server.stream.write_all(b"!").await.unwrap();
    client.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"!");
}

/// Believes everybody and remembers what it was shown.
#[derive(Debug)]
struct Watcher {
    schemes: Vec<SignatureScheme>,
    ocsp: Mutex<Vec<u8>>,
}

impl Watcher {
    fn client(
        schemes: &[SignatureScheme],
        versions: &[&'static SupportedProtocolVersion],
    ) -> (Arc<Watcher>, ClientConfig) {
        let watcher = Arc::new(Watcher { schemes: schemes.to_vec(), ocsp: Mutex::default() });
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::clone(&watcher) as _);
        (watcher, builder.with_no_client_auth())
    }
}

const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];

impl ServerCertVerifier for Watcher {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.ocsp.lock().unwrap() = ocsp_response.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

#[tokio::test]
async fn the_key_exchange_survives_a_quantum_computer() {
    let desk = Desk::new();
    let (server, client) = meet(&server(&desk, ""), &connector(&desk, "tls: { ca: ca.crt }"), "a.test").await;
    let (server, client) = (server.unwrap(), client.unwrap());
    let group = |of: Option<&dyn rustls::crypto::SupportedKxGroup>| of.unwrap().name();
    assert_eq!(group(server.stream.get_ref().1.negotiated_key_exchange_group()), NamedGroup::X25519MLKEM768);
    assert_eq!(group(client.get_ref().1.negotiated_key_exchange_group()), NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
    let desk = Desk::new();
    for (name, hosts) in [("one", &["one.test"][..]), ("wild", &["*.wild.test"]), ("exact", &["x.wild.test"])] {
        desk.authority.issue(hosts).write(desk.path(), name);
    }
    let files = ["one", "wild", "exact"].map(|name| format!("{{ cert: {name}.crt, key: {name}.key }}")).join(", ");
    let tls = desk.listener(&format!("tls: {{ certificates: [{files}] }}")).unwrap().tls.unwrap();
    let server = server_of(&tls);
    let connector = connector(&desk, "tls: { insecure_skip_verify: true }");
    let table = [
        ("one.test", "one"),
        ("ONE.test", "one"),
        ("y.wild.test", "wild"),
        ("x.wild.test", "exact"),
        ("y.x.wild.test", "one"),
        ("wild.test", "one"),
        ("elsewhere.test", "one"),
        // Addresses are never asked for by name (RFC 6066 section 3).
        ("127.0.0.1", "one"),
    ];
    for (host, name) in table {
        let (_, client) = meet(&server, &connector, host).await;
        let client = client.unwrap();
        let shown = client.get_ref().1.peer_certificates().unwrap()[0].clone();
        let file = desk.path().join(format!("{name}.crt"));
        let of_file = tls.certificates.iter().find(|known| known.file == file).unwrap();
        assert_eq!(shown, of_file.certified.cert[0], "{host}");
    }
}

#[tokio::test]
async fn of_two_certificates_for_a_name_the_client_is_shown_one_it_can_verify() {
    let desk = Desk::new();
    desk.authority.issue_for(&["a.test"], &rcgen::PKCS_ED25519).write(desk.path(), "new");
    let both = "tls: { certificates: [{ cert: new.crt, key: new.key }, { cert: a.crt, key: a.key }] }";
    let tls = desk.listener(both).unwrap().tls.unwrap();
    for (scheme, index) in [(SignatureScheme::ED25519, 0), (ECDSA[0], 1)] {
        let (_, config) = Watcher::client(&[scheme], &[&TLS13]);
        let (_, client) = meet_raw(&server_of(&tls), &Arc::new(config)).await;
        let shown = client.unwrap().get_ref().1.peer_certificates().unwrap()[0].clone();
        assert_eq!(shown, tls.certificates[index].certified.cert[0]);
    }
}

#[tokio::test]
async fn a_staple_reaches_the_client() {
    let desk = Desk::new();
    let staple = [0x30, 3, 0x0a, 1, 0];
    desk.write("a.ocsp", staple);
    let tls = desk.listener("tls: { certificates: { cert: a.crt, key: a.key, ocsp: a.ocsp } }").unwrap().tls.unwrap();
    for version in [&TLS12, &TLS13] {
        let (watcher, config) = Watcher::client(ECDSA, &[version]);
        meet_raw(&server_of(&tls), &Arc::new(config)).await.1.unwrap();
        assert_eq!(*watcher.ocsp.lock().unwrap(), staple);
    }
}

#[tokio::test]
async fn the_protocol_is_agreed_on_by_alpn() {
    let desk = Desk::new();
    let offer = |protocols: &[&[u8]]| {
        let (_, mut config) = Watcher::client(ECDSA, &[&TLS13]);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    };
    let (both, one) = (server(&desk, ""), server(&desk, "alpn: http/1.1"));
    let table = [
        (&both, &[&b"http/1.1"[..], b"h2"][..], Ok(true)),
        (&both, &[b"http/1.1"], Ok(false)),
        (&both, &[], Ok(false)),
        (&one, &[b"h2", b"http/1.1"], Ok(false)),
        (&one, &[b"h2"], Err(Failure::Incompatible)),
        (&both, &[b"smtp"], Err(Failure::Incompatible)),
    ];
    for (server, offered, expected) in table {
        let (accepted, _) = meet_raw(server, &offer(offered)).await;
        assert_eq!(accepted.map(|accepted| accepted.http2), expected, "{offered:?}");
    }
}

#[tokio::test]
async fn sessions_are_resumed_unless_switched_off() {
    let desk = Desk::new();
    for version in [&TLS12, &TLS13] {
        for (lines, again) in [("", true), ("resumption: off", false)] {
            let server = server(&desk, lines);
            let (_, config) = Watcher::client(ECDSA, &[version]);
            let config = Arc::new(config);
            for resumed in [false, again] {
                let (accepted, client) = meet_raw(&server, &config).await;
                let (mut accepted, mut client) = (accepted.unwrap(), client.unwrap());
                talk(&mut accepted, &mut client).await;
                assert_eq!(accepted.resumed, resumed, "{version:?} {lines}");
                let kind = client.get_ref().1.handshake_kind();
                assert_eq!(kind == Some(HandshakeKind::Resumed), resumed);
            }
        }
    }
}

#[tokio::test]
async fn an_old_client_is_refused() {
    let desk = Desk::new();
    let server = server(&desk, "min_version: '1.3'");
    let (_, config) = Watcher::client(ECDSA, &[&TLS12]);
    assert_eq!(meet_raw(&server, &Arc::new(config)).await.0.unwrap_err(), Failure::Incompatible);
    let (_, config) = Watcher::client(ECDSA, &[&TLS12, &TLS13]);
    assert!(meet_raw(&server, &Arc::new(config)).await.0.is_ok());
}

#[tokio::test]
async fn clients_show_certificates_where_they_must() {
    let desk = Desk::new();
    let stranger = Authority::new("Stranger");
    stranger.issue(&["mallory.test"]).write(desk.path(), "mallory");
    desk.authority.issue(&["alice.test", "10.0.0.9"]).write(desk.path(), "alice");
    desk.authority.issue_expired(&["bob.test"]).write(desk.path(), "bob");
    let shows =
        |who: &str| connector(&desk, &format!("tls: {{ ca: ca.crt, client_cert: {who}.crt, client_key: {who}.key }}"));
    let nobody = connector(&desk, "tls: { ca: ca.crt }");
    let required = server(&desk, "client_auth: required, client_ca: ca.crt");
    let optional = server(&desk, "client_auth: optional, client_ca: ca.crt");
    for (server, who, expected) in [
        (&required, &nobody, Err(Failure::ClientCertificate)),
        (&required, &shows("mallory"), Err(Failure::ClientCertificate)),
        (&required, &shows("bob"), Err(Failure::ClientCertificate)),
        (&required, &shows("alice"), Ok(Some("true"))),
        (&optional, &nobody, Ok(Some("false"))),
        (&optional, &shows("mallory"), Err(Failure::ClientCertificate)),
        (&optional, &shows("alice"), Ok(Some("true"))),
        (&server(&desk, ""), &shows("alice"), Ok(None)),
    ] {
        let (accepted, _) = meet(server, who, "a.test").await;
        let verified = accepted.map(|accepted| accepted.identity.map(|identity| identity.fields[0].1.clone()));
        assert_eq!(verified.as_ref().map(Option::as_deref), expected.as_ref().copied());
    }
    let (accepted, _) = meet(&required, &shows("alice"), "a.test").await;
    let fields = accepted.unwrap().identity.unwrap().fields.clone();
    let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, CLIENT_FIELDS);
    assert_eq!((fields[1].1.as_str(), fields[2].1.as_str()), ("CN=alice.test", "DNS=alice.test,IP=10.0.0.9"));
    assert!(fields[3].1.len() == 64 && fields[3].1.bytes().all(|byte| byte.is_ascii_hexdigit()));
}

#[tokio::test]
async fn a_resumed_session_knows_who_the_client_was() {
    let desk = Desk::new();
    let server = server(&desk, "client_auth: optional, client_ca: ca.crt");
    let alice = connector(&desk, "tls: { ca: ca.crt, client_cert: a.crt, client_key: a.key }");
    let mut known = Vec::new();
    for resumed in [false, true] {
        let (accepted, client) = meet(&server, &alice, "a.test").await;
        let (mut accepted, mut client) = (accepted.unwrap(), client.unwrap());
        talk(&mut accepted, &mut client).await;
        assert_eq!(accepted.resumed, resumed);
        known.push(accepted.identity.unwrap());
    }
    assert_eq!(known[0], known[1]);
    assert_eq!(known[0].fields[0].1, "true");
}

#[tokio::test]
async fn a_reload_changes_what_new_clients_see_and_leaves_old_ones_alone() {
    let desk = Desk::new();
    let before = server(&desk, "client_auth: optional, client_ca: ca.crt");
    let alice = connector(&desk, "tls: { ca: ca.crt, client_cert: a.crt, client_key: a.key }");
    let (old, old_client) = meet(&before, &alice, "a.test").await;
    let (mut old, mut old_client) = (old.unwrap(), old_client.unwrap());
    talk(&mut old, &mut old_client).await;
    desk.authority.issue(&["a.test"]).write(desk.path(), "a");
    let renewed =
        Server::new(&desk.server("client_auth: optional, client_ca: ca.crt").unwrap(), Some(&before)).unwrap();
    drop(before);
    talk(&mut old, &mut old_client).await;
    let fresh = connector(&desk, "tls: { ca: ca.crt }");
    let (_, client) = meet(&renewed, &fresh, "a.test").await;
    let shown = client.unwrap().get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_eq!(shown, renewed.settings.certificates[0].certified.cert[0]);
    assert_ne!(shown, old_client.get_ref().1.peer_certificates().unwrap()[0]);
    // Sessions go on as long as clients are trusted in the same way, and not a moment longer.
    let (again, client) = meet(&renewed, &alice, "a.test").await;
    let mut again = again.unwrap();
    talk(&mut again, &mut client.unwrap()).await;
    assert!(again.resumed);
    desk.write("others.crt", Authority::new("Others").pem);
    let stricter = desk.server("client_auth: optional, client_ca: others.crt").unwrap();
    let stricter = Server::new(&stricter, Some(&renewed)).unwrap();
    let (refused, _) = meet(&stricter, &alice, "a.test").await;
    assert_eq!(refused.unwrap_err(), Failure::ClientCertificate);
}

#[tokio::test]
async fn an_endpoint_must_be_whom_the_pool_expects() {
    let desk = Desk::new();
    desk.authority.issue_expired(&["a.test"]).write(desk.path(), "old");
    let expired = desk.listener("tls: { certificates: { cert: old.crt, key: old.key } }").unwrap().tls.unwrap();
    let (good, expired) = (server(&desk, ""), server_of(&expired));
    desk.write("others.crt", Authority::new("Others").pem);
    let (ours, others) = (connector(&desk, "tls: { ca: ca.crt }"), connector(&desk, "tls: { ca: others.crt }"));
    let renamed = connector(&desk, "tls: { ca: ca.crt, server_name: a.test }");
    let anybody = connector(&desk, "tls: { insecure_skip_verify: true }");
    let table = [
        (&good, &ours, "a.test", None),
        (&good, &ours, "a.test.", None),
        (&good, &ours, "x.b.test", None),
        (&good, &ours, "10.0.0.1", None),
        (&good, &ours, "10.0.0.2", Some("NotValidForName")),
        (&good, &ours, "c.test", Some("NotValidForName")),
        (&good, &ours, "y.x.b.test", Some("NotValidForName")),
        (&good, &renamed, "c.test", None),
        (&good, &others, "a.test", Some("UnknownIssuer")),
        (&expired, &ours, "a.test", Some("Expired")),
        (&expired, &anybody, "c.test", None),
    ];
    for (server, connector, host, expected) in table {
        let (_, client) = meet(server, connector, host).await;
        match (client, expected) {
            (Ok(_), None) => {}
            (Err(error), Some(words)) => {
                assert!(
                    error.kind() == io::ErrorKind::InvalidData && format!("{error:?}").contains(words),
                    "{error:?}"
                );
            }
            (got, _) => panic!("{host}: {got:?}, not {expected:?}"),
        }
    }
}

#[tokio::test]
async fn a_pool_gets_the_protocol_it_wants_or_an_error() {
    let desk = Desk::new();
    let pool = |protocol: &str| connector(&desk, &format!("protocol: {protocol}, tls: {{ ca: ca.crt }}"));
    let (both, one, two) = (server(&desk, ""), server(&desk, "alpn: http/1.1"), server(&desk, "alpn: h2"));
    for (server, protocol, expected) in [
        (&both, "h1", Some(false)),
        (&both, "h2", Some(true)),
        (&both, "auto", Some(true)),
        (&one, "auto", Some(false)),
        (&two, "auto", Some(true)),
        (&one, "h2", None),
        (&two, "h1", None),
    ] {
        let (_, client) = meet(server, &pool(protocol), "a.test").await;
        let http2 = client.ok().map(|client| crate::bridge::tls::is_http2(&client));
        assert_eq!(http2, expected, "{protocol}");
    }
    // An endpoint that knows nothing of ALPN cannot be meant by `h2`.
    let mut silent = server(&desk, "");
    let mut config = (*silent.config).clone();
    config.alpn_protocols.clear();
    silent.config = Arc::new(config);
    assert!(meet(&silent, &pool("h2"), "a.test").await.1.is_err());
    assert!(meet(&silent, &pool("auto"), "a.test").await.1.is_ok());
}

/// Sends bytes, and gives how the server took them and all that it answered.
async fn sent(server: &Server, bytes: &[u8]) -> (Result<Accepted, Failure>, Vec<u8>) {
    let (mut near, far) = pair().await;
    near.write_all(bytes).await.unwrap();
    near.shutdown().await.unwrap();
    let accepting = accept(server, far);
    let mut answer = Vec::new();
    let reading = async {
        // A reset ends the answer as well.
        let _ = near.read_to_end(&mut answer).await;
    };
    let (accepted, ()) = tokio::join!(accepting, reading);
    (accepted, answer)
}

fn client_hello() -> Vec<u8> {
    let (_, config) = Watcher::client(ECDSA, &[&TLS13]);
    let mut client = ClientConnection::new(Arc::new(config), "a.test".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn what_is_sent_in_the_clear_is_never_taken_for_a_request() {
    let desk = Desk::new();
    let server = server(&desk, "");
    let plain = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let (accepted, answer) = sent(&server, plain).await;
    assert_eq!(accepted.unwrap_err(), Failure::PlainHttp);
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 ") && head.contains(&format!("content-length: {}", body.len())), "{text}");
    let hello = client_hello();
    let (accepted, _) = sent(&server, &[&plain[..], &hello].concat()).await;
    assert_eq!(accepted.unwrap_err(), Failure::PlainHttp);
    // The same in a record of its own, after the hello and before it.
    let record = [&[23, 3, 3, 0, plain.len() as u8][..], plain].concat();
    let (accepted, _) = sent(&server, &[&hello[..], &record].concat()).await;
    assert_eq!(accepted.unwrap_err(), Failure::Broken);
    let (accepted, _) = sent(&server, &[&record[..], &hello].concat()).await;
    assert_eq!(accepted.unwrap_err(), Failure::NotTls);
    for bytes in [&b"\0\0\0"[..], b"SSH-2.0-x\r\n", b"\x16\x03\x01\xff\xff", b"\x16\x03\x01\x00\x01x"] {
        assert!(sent(&server, bytes).await.0.is_err(), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_no_fault() {
    let desk = Desk::new();
    let server = server(&desk, "");
    let hello = client_hello();
    for length in [0, 1, hello.len() / 2, hello.len()] {
        let (mut near, far) = pair().await;
        near.write_all(&hello[..length]).await.unwrap();
        drop(near);
        assert_eq!(accept(&server, far).await.unwrap_err(), Failure::Closed, "{length}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_trust_us_is_counted_so() {
    let desk = Desk::new();
    desk.write("others.crt", Authority::new("Others").pem);
    let others = connector(&desk, "tls: { ca: others.crt }");
    assert_eq!(meet(&server(&desk, ""), &others, "a.test").await.0.unwrap_err(), Failure::Refused);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_its_time_and_no_more() {
    let desk = Desk::new();
    let server = server(&desk, "");
    let hello = client_hello();
    for length in [0, 1, hello.len() / 2, hello.len()] {
        let (mut near, far) = pair().await;
        near.write_all(&hello[..length]).await.unwrap();
        let begin = clock::now();
        assert_eq!(accept(&server, far).await.unwrap_err(), Failure::TimedOut, "{length}");
        let took = Duration::from_micros(clock::now().since(begin));
        assert!((HANDSHAKE..HANDSHAKE + Duration::from_millis(10)).contains(&took), "{took:?}");
        drop(near);
    }
}
