//! A client that speaks HTTP/2 through the `h2` crate, and an upstream that a closure plays over its bare socket.

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::task::JoinHandle;

/// Runs a test's own client, half a minute at most.
pub fn run<T>(scene: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), scene).await.expect("in time") })
}

/// A client connection.
pub struct Peer {
    /// Where requests go.
    pub send: SendRequest<Bytes>,
    connection: JoinHandle<Result<(), h2::Error>>,
}

/// One whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Peer {
    /// Connects with the settings that `h2` has by default.
    pub async fn connect(address: SocketAddr) -> Peer {
        Peer::with(address, &Builder::new()).await
    }

    /// Connects.
    pub async fn with(address: SocketAddr, builder: &Builder) -> Peer {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (send, connection) = builder.handshake(stream).await.unwrap();
        Peer { send, connection: tokio::spawn(connection) }
    }

    /// Begins a request.
    pub async fn begin(&mut self, request: Request<()>, is_all: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let mut send = self.send.clone().ready().await.unwrap();
        send.send_request(request, is_all).unwrap()
    }

    /// Sends a request with a body (empty: without) and waits for the whole answer.
    pub async fn ask(&mut self, request: Request<()>, body: &'static [u8]) -> Result<Answer, h2::Error> {
        let (answer, mut up) = self.begin(request, body.is_empty()).await;
        if !body.is_empty() {
            up.send_data(Bytes::from_static(body), true)?;
        }
        whole(answer.await?).await
    }

    /// `GET`s a path.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.ask(get(path), b"").await.unwrap()
    }

    /// Waits for the end of the connection, with no more requests to come.
    pub async fn closed(self) -> Result<(), h2::Error> {
        drop(self.send);
        self.connection.await.unwrap()
    }
}

/// A `GET`.
pub fn get(path: &str) -> Request<()> {
    Request::get(format!("http://shop.test{path}")).body(()).unwrap()
}

/// A `POST`.
pub fn post(path: &str) -> Request<()> {
    Request::post(format!("http://shop.test{path}")).body(()).unwrap()
}

/// Reads an answer to its end; gives window back as it goes.
pub async fn whole(response: Response<RecvStream>) -> Result<Answer, h2::Error> {
    let (head, mut down) = response.into_parts();
    let mut body = Vec::new();
    while let Some(data) = down.data().await {
        let data = data?;
        down.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = down.trailers().await?;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, trailers })
}

/// Sends a body as fast as the windows allow.
pub async fn upload(up: &mut SendStream<Bytes>, mut body: Bytes) -> Result<(), h2::Error> {
    while !body.is_empty() {
        up.reserve_capacity(body.len());
        let room = std::future::poll_fn(|cx| up.poll_capacity(cx)).await.expect("an open stream")?;
        up.send_data(body.split_to(room.min(body.len())), false)?;
    }
    up.send_data(Bytes::new(), true)
}

/// An upstream whose connections a closure plays, each on a thread of its own; closes them when dropped.
pub struct Stage {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Stage {
    pub fn play(part: impl Fn(TcpStream) + Send + Sync + 'static) -> Stage {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stage = Stage { address: listener.local_addr().unwrap(), stop: Arc::default(), open: Arc::default() };
        let (stop, open, part) = (Arc::clone(&stage.stop), Arc::clone(&stage.open), Arc::new(part));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok).take_while(|_| !stop.load(SeqCst)) {
                open.lock().unwrap().push(stream.try_clone().unwrap());
                let part = Arc::clone(&part);
                std::thread::spawn(move || part(stream));
            }
        });
        stage
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        drop(TcpStream::connect(self.address));
        self.open.lock().unwrap().drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

/// Reads a request's head: its lines.
pub fn head(input: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => return Some(lines),
            line => lines.push(line.to_owned()),
        }
    }
}

/// Reads one chunk; empty at the end, whose trailer section is left to be read.
pub fn chunk(input: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut size = String::new();
    input.read_line(&mut size).ok()?;
    let size = usize::from_str_radix(size.trim_end(), 16).ok()?;
    let mut chunk = vec![0; if size == 0 { 0 } else { size + 2 }];
    input.read_exact(&mut chunk).ok()?;
    chunk.truncate(size);
    Some(chunk)
}
