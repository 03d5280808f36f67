//! Checks against endpoints of every kind, over real sockets.

use bytes::Bytes;
use http::Response;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::bridge::tls::{Server, SystemRoots};
use crate::config::settings::tls::desk::Desk;
use crate::config::settings::tls::forge::Authority;

/// Answers one connection, by HTTP/2 if `http2` says so, and gives what `Host` or authority it was asked for.
async fn answer<IO>(stream: IO, http2: bool, status: u16) -> Option<String>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    use hyper::service::service_fn;
    use tokio::sync::mpsc::unbounded_channel;
    if http2 {
        let mut connection = h2::server::handshake(stream).await.ok()?;
        let (request, mut respond) = connection.accept().await?.ok()?;
        let response = Response::builder().status(status).body(()).unwrap();
        respond.send_response(response, true).ok()?;
        let authority = request.uri().authority().map(ToString::to_string);
        // Until the client has its answer.
        while connection.accept().await.is_some() {}
        return authority;
    }
    let (asked, mut hosts) = unbounded_channel();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let host = request.headers()[header::HOST].to_str().unwrap().to_owned();
        let _ = asked.send(host);
        let response = Response::builder().status(status).body(Empty::<Bytes>::new());
        async move { response }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    hosts.recv().await
}

/// An endpoint: its TLS, if any, and what it speaks without.
struct Endpoint {
    tls: Option<Server>,
    http2: bool,
    status: u16,
}

impl Endpoint {
    /// Lets a pool check this endpoint: what it finds, and what the endpoint was asked for.
    async fn checked(&self, speech: &Speech, host: &str, probe: &Probe) -> (Result<(), String>, Option<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let named = Address { tls: self.tls.is_some(), ..Address::http(host, port) };
        let serving = async {
            let (stream, _) = listener.accept().await.unwrap();
            let Some(tls) = &self.tls else { return answer(stream, self.http2, self.status).await };
            let stream = TlsAcceptor::from(Arc::clone(&tls.config)).accept(stream).await.ok()?;
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            answer(stream, http2, self.status).await
        };
        let asking = async {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            speech.ask(stream, &named, probe, None).await.map(drop)
        };
        let (found, host) = tokio::join!(asking, serving);
        (found, host.map(|host| host.replace(&port.to_string(), "PORT")))
    }
}

fn speech(desk: &Desk, lines: &str) -> Speech {
    let pool = desk.pool(lines).unwrap();
    let connector = pool.tls.map(|tls| Connector::new(&tls, pool.protocol, &SystemRoots::default()).unwrap());
    Speech { protocol: pool.protocol, connector: connector.map(Arc::new), proxy_protocol: pool.proxy_protocol }
}

#[tokio::test]
async fn an_endpoint_is_asked_in_the_language_of_its_pool() {
    let desk = Desk::new();
    let secure = || Some(Server::new(&desk.server("").unwrap(), None).unwrap());
    let get = Probe::get("/healthz");
    let table = [
        ("endpoints: 'http://a.test'", None, false),
        ("endpoints: 'http://a.test', protocol: h2", None, true),
        ("endpoints: 'https://a.test', tls: { ca: ca.crt }", secure(), false),
        ("endpoints: 'https://a.test', protocol: h2, tls: { ca: ca.crt }", secure(), true),
        ("endpoints: 'https://a.test', protocol: auto, tls: { ca: ca.crt }", secure(), true),
    ];
    for (lines, tls, http2) in table {
        let speech = speech(&desk, lines);
        let mut endpoint = Endpoint { tls, http2, status: 204 };
        let found = endpoint.checked(&speech, "a.test", &get).await;
        assert_eq!(found, (Ok(()), Some("a.test:PORT".to_owned())), "{lines}");
        endpoint.status = 503;
        let (found, _) = endpoint.checked(&speech, "a.test", &get).await;
        assert_eq!(found, Err("answered 503 Service Unavailable".to_owned()), "{lines}");
    }
}

#[tokio::test]
async fn an_endpoint_that_requests_would_refuse_is_not_healthy() {
    let desk = Desk::new();
    let endpoint =
        Endpoint { tls: Some(Server::new(&desk.server("").unwrap(), None).unwrap()), http2: false, status: 200 };
    desk.write("others.crt", Authority::new("Others").pem);
    for probe in [Probe::Connect, Probe::get("/")] {
        let trusting = speech(&desk, "endpoints: 'https://a.test', tls: { ca: ca.crt }");
        assert_eq!(endpoint.checked(&trusting, "a.test", &probe).await.0, Ok(()));
        let (found, _) = endpoint.checked(&trusting, "c.test", &probe).await;
        assert!(found.unwrap_err().contains("certificate"));
        let others = speech(&desk, "endpoints: 'https://a.test', tls: { ca: others.crt }");
        let (found, _) = endpoint.checked(&others, "a.test", &probe).await;
        assert!(found.unwrap_err().contains("UnknownIssuer"));
    }
}

#[tokio::test]
async fn an_endpoint_that_wants_to_know_whose_connection_it_is_hears_that_it_is_ours() {
    use tokio::io::AsyncReadExt;
    let desk = Desk::new();
    let table = [
        ("endpoints: 'http://a.test', proxy_protocol: v1", &b"PROXY UNKNOWN\r\n"[..]),
        ("endpoints: 'http://a.test', proxy_protocol: v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ];
    for (lines, header) in table {
        let speech = speech(&desk, lines);
        let (near, mut far) = tokio::io::duplex(1_000);
        let asking = async {
            let named = "http://a.test".parse().unwrap();
            speech.ask(near, &named, &Probe::get("/"), None).await.map(drop)
        };
        let hearing = async {
            let mut first = vec![0; header.len()];
            far.read_exact(&mut first).await.unwrap();
            let request = answer(far, false, 204).await;
            (first, request)
        };
        let (found, (first, host)) = tokio::join!(asking, hearing);
        assert_eq!((found, &first[..], host), (Ok(()), header, Some("a.test:80".to_owned())), "{lines}");
    }
}

/// Asks one HTTP/1.1 endpoint that says `answer`, and gives what came of it and the request as it arrived.
async fn asked(question: &str, version: &str, answer: &[u8]) -> (Result<Reported, String>, String) {
    use tokio::io::AsyncReadExt;
    let text = format!("health: {{ path: /status, {question} {version} }}");
    let health = crate::config::settings::Health::clone(&service(&text).health);
    let (near, mut far) = tokio::io::duplex(200_000);
    let asking = async {
        let named = "http://a.test".parse().unwrap();
        Speech::default().ask(near, &named, &health.probe, health.version.as_ref()).await
    };
    let answering = async {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(far.read_u8().await.unwrap());
        }
        // Whoever has read enough hangs up.
        let _ = far.write_all(answer).await;
        drop(far);
        String::from_utf8(request).unwrap()
    };
    tokio::join!(asking, answering)
}

fn service(line: &str) -> crate::config::settings::Service {
    let text = format!(
        "version: 1\nstate: none\nservices: {{ s: {{ pools: {{ b: {{ endpoints: 'http://a.test', version: '2' }} }}, {line} }} }}"
    );
    crate::config::parse("t", &text, &|_| None, std::path::Path::new(".")).unwrap().services.remove(0)
}

fn said(status: &str, fields: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{fields}\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn a_question_is_asked_as_it_was_written() {
    let lines = "method: HEAD, host: shop.internal:81, headers: { X-Probe: a b, user-agent: mine },";
    let (found, request) = asked(lines, "", b"HTTP/1.1 200 OK\r\n\r\n").await;
    assert_eq!(found, Ok(None));
    let expected = "HEAD /status HTTP/1.1\r\nhost: shop.internal:81\r\nconnection: close\r\nx-probe: a b\r\nuser-agent: mine\r\n\r\n";
    assert_eq!(request, expected);
    let (_, request) = asked("", "", &said("200 OK", "", "")).await;
    assert!(request.starts_with("GET /status HTTP/1.1\r\nhost: a.test:80\r\n"), "{request}");
    assert!(request.contains("\r\nuser-agent: teal-health/"), "{request}");
}

#[tokio::test]
async fn an_answer_is_good_if_it_is_what_was_expected() {
    let long = format!("{}late", "x".repeat(LONGEST_BODY));
    let missing = "answered 200, but without the expected text";
    let table = [
        ("", said("204 No Content", "", ""), Ok(())),
        ("", said("302 Found", "", ""), Err("answered 302 Found")),
        ("", said("299 Odd", "", ""), Ok(())),
        ("", said("599 Odd", "", ""), Err("answered 599")),
        ("expect: { status: [200, 300-302] },", said("302 Found", "", ""), Ok(())),
        ("expect: { status: 200 },", said("204 No Content", "", ""), Err("answered 204 No Content")),
        ("expect: { body: well },", said("200 OK", "", "all is well."), Ok(())),
        ("expect: { body: well },", said("200 OK", "", "all is lost"), Err(missing)),
        ("expect: { body: well },", said("503 Busy", "", "well"), Err("answered 503 Service Unavailable")),
        ("expect: { body: { regex: 'v[0-9]' } },", said("200 OK", "", "\nis v2\n"), Ok(())),
        ("expect: { body: { regex: 'v[0-9]' } },", said("200 OK", "", "is v"), Err(missing)),
        (
            "expect: { body: late },",
            said("200 OK", "", &long),
            Err("answered 200, but without the expected text in its first 64 KiB"),
        ),
        ("expect: { body: xx },", said("200 OK", "", &long), Ok(())),
    ];
    for (lines, answer, expected) in table {
        let (found, _) = asked(lines, "", &answer).await;
        assert_eq!(found.map(drop), expected.map_err(str::to_owned), "{lines}");
    }
    let (cut, _) = asked("expect: { body: a },", "", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab").await;
    assert!(cut.is_err(), "a cut answer is no answer");
}

#[tokio::test]
async fn an_answer_may_say_what_runs_there() {
    let header = "version: { header: X-Version },";
    let json = "version: { json: /build/version },";
    let long = format!("{{\"a\": \"{}\"}}", "x".repeat(LONGEST_BODY));
    let table = [
        ("", said("200 OK", "X-Version: 2\r\n", ""), None),
        (header, said("200 OK", "X-Version:  2.1 \r\n", ""), Some(Ok("2.1"))),
        (header, said("200 OK", "", ""), Some(Err("its answer has no `x-version`"))),
        (json, said("200 OK", "", "{\"build\": {\"version\": \"2.1\"}}"), Some(Ok("2.1"))),
        (json, said("200 OK", "", "{\"build\": 1}"), Some(Err("its answer has nothing at `/build/version`"))),
        (json, said("200 OK", "", "ok"), Some(Err("its answer is not JSON"))),
        (json, said("200 OK", "", &long), Some(Err("its answer is longer than 64 KiB"))),
    ];
    for (version, answer, expected) in table {
        let (found, _) = asked("", version, &answer).await;
        let expected = expected.map(|told: Result<&str, &str>| told.map(str::to_owned).map_err(str::to_owned));
        assert_eq!(found, Ok(expected), "{version}");
    }
}

/// What a gRPC server does with the one call it gets.
type Call = fn(h2::server::SendResponse<Bytes>);

async fn grpc_asked(service: &str, call: Call) -> (Result<Reported, String>, Vec<u8>) {
    let (near, far) = tokio::io::duplex(10_000);
    let asking = async {
        let (named, probe) = ("http://a.test".parse().unwrap(), Probe::Grpc(service.to_owned()));
        let version = VersionSource::Header("x-version".to_owned());
        // The pool speaks HTTP/1.1: that does not matter.
        Speech::default().ask(near, &named, &probe, Some(&version)).await
    };
    let answering = async {
        let mut connection = h2::server::handshake(far).await.unwrap();
        let (request, respond) = connection.accept().await.unwrap().unwrap();
        assert_eq!(request.uri(), "http://a.test:80/grpc.health.v1.Health/Check");
        assert_eq!(
            (&request.headers()["te"], &request.headers()["content-type"]),
            (&"trailers".parse().unwrap(), &"application/grpc".parse().unwrap())
        );
        let mut body = request.into_body();
        let reading = async {
            let mut message = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                message.extend_from_slice(&data);
            }
            call(respond);
            message
        };
        let (message, ()) = tokio::join!(reading, async { while connection.accept().await.is_some() {} });
        message
    };
    tokio::join!(asking, answering)
}

fn grpc_says(mut respond: h2::server::SendResponse<Bytes>, message: &'static [u8]) {
    let head = Response::builder().header("x-version", "2").body(()).unwrap();
    let mut down = respond.send_response(head, false).unwrap();
    down.send_data(Bytes::from_static(message), false).unwrap();
    down.send_trailers([("grpc-status".parse().unwrap(), "0".parse().unwrap())].into_iter().collect()).unwrap();
}

fn grpc_refuses(mut respond: h2::server::SendResponse<Bytes>, code: &str) {
    let head = Response::builder().header("grpc-status", code).body(()).unwrap();
    respond.send_response(head, true).unwrap();
}

#[tokio::test]
async fn grpc_health_serves_or_says_why_not() {
    let table: [(Call, Result<(), &str>); 9] = [
        (|respond| grpc_says(respond, b"\0\0\0\0\x02\x08\x01"), Ok(())),
        (|respond| grpc_says(respond, b"\0\0\0\0\x02\x08\x02"), Err("gRPC health says NOT_SERVING")),
        (|respond| grpc_says(respond, b"\0\0\0\0\0"), Err("gRPC health says UNKNOWN")),
        (|respond| grpc_says(respond, b"\0\0\0\0\x02\x08\x03"), Err("gRPC health knows no service `t.T`")),
        (|respond| grpc_says(respond, b"\0\0"), Err("its answer is cut off or overlong")),
        (|respond| grpc_refuses(respond, "5"), Err("gRPC health knows no service `t.T`")),
        (|respond| grpc_refuses(respond, "12"), Err("has no gRPC health service")),
        (|respond| grpc_refuses(respond, "14"), Err("gRPC health failed with status 14")),
        (
            |mut respond| drop(respond.send_response(Response::builder().status(404).body(()).unwrap(), true)),
            Err("answered 404, gRPC answers 200"),
        ),
    ];
    for (call, expected) in table {
        let (found, message) = grpc_asked("t.T", call).await;
        assert_eq!(found, expected.map(|()| Some(Ok("2".to_owned()))).map_err(str::to_owned));
        assert_eq!(message, b"\0\0\0\0\x05\x0a\x03t.T");
    }
}
