//! An upstream that speaks HTTP/2 by the `h2` crate, counts what reaches it and misbehaves on demand.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// One request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Arrived {
    /// `GET http://authority/path`.
    pub line: String,
    /// Its fields, in order.
    pub fields: Vec<(String, String)>,
    /// Its body, if the act waited for it.
    pub body: Vec<u8>,
    /// Fields behind the body.
    pub trailers: Vec<(String, String)>,
    /// Which request it is, counted from 1.
    pub number: u64,
}

impl Arrived {
    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Said {
    /// Interim statuses before it.
    pub interim: Vec<u16>,
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub fields: Vec<(&'static str, String)>,
    /// Its body, each stretch a frame.
    pub body: Vec<Bytes>,
    /// Fields behind the body.
    pub trailers: Vec<(&'static str, &'static str)>,
}

/// What the upstream does with a request, decided at its head.
#[derive(Clone, Debug)]
pub enum Act {
    /// Reads the body, then answers.
    Answer(Said),
    /// Reads the body, waits, then answers.
    Slowly(Duration, Said),
    /// Resets the stream at once.
    Reset(Reason),
    /// Answers, but resets the stream in place of its end.
    Cut(Said, Reason),
    /// Never answers.
    Hang,
    /// Answers with so many bytes, as fast as it may.
    Pour(usize),
    /// Sends the body back while it comes, and a trailer behind it.
    Echo,
}

/// A whole 200 with this body.
pub fn ok(body: &'static str) -> Said {
    Said { interim: Vec::new(), status: 200, fields: Vec::new(), body: vec![body.into()], trailers: Vec::new() }
}

type Script = Box<dyn Fn(&Arrived) -> Act + Send + Sync>;

/// A running upstream; stops when dropped.
pub struct Http2 {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    script: Script,
    streams: u32,
    tls: Option<Arc<ServerConfig>>,
    arrived: Mutex<Vec<Arrived>>,
    count: AtomicU64,
    connections: AtomicU64,
    open: AtomicU64,
    most_open: AtomicU64,
    resets: Mutex<Vec<Reason>>,
    poured: AtomicU64,
    stop: AtomicBool,
    /// Tells every connection to go away gracefully.
    goes: Notify,
    ends: Notify,
}

impl Http2 {
    /// An upstream that answers everything with `body`.
    pub fn plain(body: &'static str) -> Http2 {
        Http2::start(move |_| Act::Answer(ok(body)))
    }

    /// An upstream that does what `script` says.
    pub fn start(script: impl Fn(&Arrived) -> Act + Send + Sync + 'static) -> Http2 {
        Http2::with(100, None, script)
    }

    /// An upstream that allows so many streams a connection, over TLS with this configuration if there is one.
    pub fn with(
        streams: u32,
        tls: Option<Arc<ServerConfig>>,
        script: impl Fn(&Arrived) -> Act + Send + Sync + 'static,
    ) -> Http2 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            streams,
            tls,
            arrived: Mutex::default(),
            count: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            open: AtomicU64::new(0),
            most_open: AtomicU64::new(0),
            resets: Mutex::default(),
            poured: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            goes: Notify::new(),
            ends: Notify::new(),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(accept(listener, serving));
        });
        Http2 { address, shared }
    }

    /// A pool of it alone, as the configuration says it; with more keys of the pool.
    pub fn pool(&self, more: &str) -> String {
        let scheme = if self.shared.tls.is_some() { "https" } else { "http" };
        format!("{{ endpoints: [{scheme}://{}], {more} }}", self.address)
    }

    /// Requests whose heads arrived.
    pub fn count(&self) -> u64 {
        self.shared.count.load(SeqCst)
    }

    /// Connections accepted.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> u64 {
        self.shared.open.load(SeqCst)
    }

    /// The most requests that one connection had at a time.
    pub fn most_open(&self) -> u64 {
        self.shared.most_open.load(SeqCst)
    }

    /// The requests themselves.
    pub fn arrived(&self) -> Vec<Arrived> {
        self.shared.arrived.lock().unwrap().clone()
    }

    /// Why clients reset streams.
    pub fn resets(&self) -> Vec<Reason> {
        self.shared.resets.lock().unwrap().clone()
    }

    /// Bytes poured out so far.
    pub fn poured(&self) -> u64 {
        self.shared.poured.load(SeqCst)
    }

    /// Tells every client to go away, and serves what is there to the end.
    pub fn go_away(&self) {
        self.shared.goes.notify_waiters();
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.shared.ends.notify_one();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            () = shared.ends.notified() => return,
        };
        stream.set_nodelay(true).unwrap();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            shared.connections.fetch_add(1, SeqCst);
            shared.open.fetch_add(1, SeqCst);
            match &shared.tls {
                None => serve(stream, &shared).await,
                Some(config) => match TlsAcceptor::from(Arc::clone(config)).accept(stream).await {
                    Ok(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                        serve(stream, &shared).await;
                    }
                    Ok(stream) => serve_http1(stream, &shared).await,
                    Err(_) => {}
                },
            }
            shared.open.fetch_sub(1, SeqCst);
        });
    }
}

async fn serve<IO: AsyncRead + AsyncWrite + Unpin>(stream: IO, shared: &Arc<Shared>) {
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(shared.streams).max_send_buffer_size(64 * 1024);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let open = Arc::new(AtomicU64::new(0));
    let goes = shared.goes.notified();
    tokio::pin!(goes);
    let mut is_going = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = &mut goes, if !is_going => {
                is_going = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((request, respond))) = accepted else { return };
        let now = open.fetch_add(1, SeqCst) + 1;
        shared.most_open.fetch_max(now, SeqCst);
        let (shared, open) = (Arc::clone(shared), Arc::clone(&open));
        tokio::spawn(async move {
            let _ = handle(request, respond, &shared).await;
            open.fetch_sub(1, SeqCst);
        });
    }
}

fn listed(map: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    map.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

async fn handle(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let mut arrived = Arrived {
        line: format!("{} {}", head.method, head.uri),
        fields: listed(&head.headers),
        number: shared.count.fetch_add(1, SeqCst) + 1,
        ..Arrived::default()
    };
    let act = (shared.script)(&arrived);
    if matches!(act, Act::Answer(_) | Act::Slowly(..) | Act::Cut(..)) {
        if arrived.field("expect").is_some() {
            respond.send_informational(Response::builder().status(100).body(()).unwrap())?;
        }
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            arrived.body.extend_from_slice(&data);
        }
        arrived.trailers = body.trailers().await?.as_ref().map(listed).unwrap_or_default();
    }
    shared.arrived.lock().unwrap().push(arrived);
    match act {
        Act::Answer(said) => say(respond, said, None).await?,
        Act::Slowly(time, said) => {
            tokio::time::sleep(time).await;
            say(respond, said, None).await?;
        }
        Act::Cut(said, reason) => say(respond, said, Some(reason)).await?,
        Act::Reset(reason) => respond.send_reset(reason),
        Act::Hang => {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await?;
            shared.resets.lock().unwrap().push(reason);
        }
        Act::Pour(bytes) => {
            let mut stream = respond.send_response(Response::new(()), false)?;
            let mut left = bytes;
            while left > 0 {
                let n = left.min(16 * 1024);
                match send(&mut stream, Bytes::from(vec![b'x'; n]), left == n).await {
                    Ok(()) => shared.poured.fetch_add(n as u64, SeqCst),
                    Err(_) => {
                        shared.resets.lock().unwrap().push(Reason::CANCEL);
                        return Ok(());
                    }
                };
                left -= n;
            }
        }
        Act::Echo => {
            let mut stream = respond.send_response(Response::new(()), false)?;
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                send(&mut stream, data, false).await?;
            }
            stream.send_trailers(map(&[("x-echoed", "whole")]))?;
        }
    }
    Ok(())
}

async fn say(mut respond: SendResponse<Bytes>, said: Said, cut: Option<Reason>) -> Result<(), h2::Error> {
    for status in said.interim {
        let interim = Response::builder().status(status).header("link", "</style.css>").body(()).unwrap();
        respond.send_informational(interim)?;
    }
    let mut head = Response::builder().status(said.status);
    for (name, value) in &said.fields {
        head = head.header(*name, value);
    }
    let body: usize = said.body.iter().map(Bytes::len).sum();
    let ends = body == 0 && said.trailers.is_empty() && cut.is_none();
    let mut stream = respond.send_response(head.body(()).unwrap(), ends)?;
    if ends {
        return Ok(());
    }
    let last = said.body.len();
    for (at, data) in said.body.into_iter().enumerate() {
        send(&mut stream, data, at + 1 == last && said.trailers.is_empty() && cut.is_none()).await?;
    }
    if let Some(reason) = cut {
        // Behind the data, not in place of it.
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.send_reset(reason);
    } else if !said.trailers.is_empty() {
        stream.send_trailers(map(&said.trailers))?;
    }
    Ok(())
}

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes, ends: bool) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = match stream.capacity() {
            0 => match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(room) => room?,
                None => return Err(Reason::CANCEL.into()),
            },
            room => room,
        };
        let part = data.split_to(room.min(data.len()));
        let last = ends && data.is_empty();
        stream.send_data(part, last)?;
    }
    Ok(())
}

/// Answers `http/1.1`, or switches and echoes.
async fn serve_http1<IO: AsyncRead + AsyncWrite + Unpin>(mut stream: IO, shared: &Shared) {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut buffer).await {
                Ok(n @ 1..) => seen.extend_from_slice(&buffer[..n]),
                _ => return,
            }
        }
        let head = String::from_utf8_lossy(&std::mem::take(&mut seen)).to_lowercase();
        shared.count.fetch_add(1, SeqCst);
        if !head.contains("upgrade: websocket") {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhttp/1.1";
            if stream.write_all(answer).await.is_err() {
                return;
            }
            continue;
        }
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        let _ = stream.write_all(answer).await;
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            let _ = stream.write_all(&buffer[..n]).await;
        }
    }
}
