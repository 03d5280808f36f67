//! Checks against endpoints of every kind, over real sockets.

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
            speech.ask(stream, &named, probe).await
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
    let get = Probe::Get("/healthz".to_owned());
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
    for probe in [Probe::Connect, Probe::Get("/".to_owned())] {
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
            speech.ask(near, &named, &Probe::Get("/".to_owned())).await
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
