//! The independent readers: hyper in this process, h11 and Node behind a pipe, nginx and curl over sockets.
//!
//! Each is given a message and tells what it read, in one form; none of them knows what the others said.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::support::nginx::Nginx;
use crate::support::process::peer;
use crate::support::python;

/// What a reader made of some bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub messages: Vec<Message>,
    /// Why it stopped, if that was not at an end.
    pub error: Option<String>,
}

/// One message; what a reader cannot tell is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub method: String,
    pub target: String,
    pub status: u16,
    pub fields: Option<Vec<(String, String)>>,
    pub body: Option<Vec<u8>>,
    pub length: usize,
    /// Its end was seen.
    pub whole: bool,
    /// Bytes behind its end.
    pub rest: usize,
}

/// Reads requests as a server.
pub trait Server {
    /// How it is called in reports.
    fn name(&self) -> &'static str;
    /// Reads `bytes`, behind which the stream ends: a whole message, or one that was cut.
    fn requests(&mut self, bytes: &[u8], whole: bool) -> Seen;
}

/// hyper's server over a pipe in memory.
pub struct Hyper(tokio::runtime::Runtime);

impl Hyper {
    pub fn start() -> Hyper {
        Hyper(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap())
    }
}

impl Server for Hyper {
    fn name(&self) -> &'static str {
        "hyper"
    }

    fn requests(&mut self, bytes: &[u8], _whole: bool) -> Seen {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let error = self.0.block_on(async {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            far.write_all(bytes).await.unwrap();
            far.shutdown().await.unwrap();
            let into = Rc::clone(&seen);
            let service = service_fn(move |request| note(Rc::clone(&into), request));
            let mut server = hyper::server::conn::http1::Builder::new();
            let served = server.half_close(true).max_headers(300).serve_connection(TokioIo::new(near), service).await;
            served.err().map(|error| format!("{error:?}"))
        });
        Seen { messages: seen.take(), error }
    }
}

async fn note(
    seen: Rc<RefCell<Vec<Message>>>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let text = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    let fields = head.headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes())));
    let message = Message {
        method: head.method.to_string(),
        target: head.uri.to_string(),
        fields: Some(fields.collect()),
        ..Message::default()
    };
    let at = seen.borrow().len();
    seen.borrow_mut().push(message);
    if let Ok(body) = body.collect().await {
        let body = body.to_bytes().to_vec();
        let message = &mut seen.borrow_mut()[at];
        (message.length, message.whole, message.body) = (body.len(), true, Some(body));
    }
    Ok(hyper::Response::new(Empty::new()))
}

/// A script that reads a line and answers with one.
pub struct Script {
    name: &'static str,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Script {
    /// h11, the parser beneath httpx and uvicorn.
    pub fn h11() -> Script {
        let text = include_str!("h11_reader.py");
        Script::start("h11", Command::new(python::with("h11", "h11==0.16.0")).args(["-c", text]))
    }

    /// Node's parser, llhttp, in its server and its client.
    pub fn node() -> Script {
        let text = include_str!("node_reader.js");
        Script::start("node", Command::new(peer("node", "nodejs")).args(["-e", text]))
    }

    fn start(name: &'static str, command: &mut Command) -> Script {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Script { name, child, input, output }
    }

    /// Reads the answers to a request of this method, as a client.
    pub fn answers(&mut self, method: &str, bytes: &[u8]) -> Seen {
        self.read("client", method, bytes)
    }

    fn read(&mut self, role: &str, method: &str, bytes: &[u8]) -> Seen {
        let data: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(self.input, "{role} {method} {}", if data.is_empty() { "-" } else { &data }).unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let value: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{} is silent: {line:?}", self.name));
        let messages = value["messages"].as_array().unwrap().iter().map(message_of).collect();
        Seen { messages, error: value["error"].as_str().map(str::to_owned) }
    }
}

impl Server for Script {
    fn name(&self) -> &'static str {
        self.name
    }

    fn requests(&mut self, bytes: &[u8], _whole: bool) -> Seen {
        self.read("server", "-", bytes)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn message_of(value: &Value) -> Message {
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let digits = text("body");
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    let body: Vec<_> = (0..digits.len()).step_by(2).map(byte).collect();
    let pair = |pair: &Value| (pair[0].as_str().unwrap().to_ascii_lowercase(), pair[1].as_str().unwrap().to_owned());
    Message {
        method: text("method"),
        target: text("target"),
        status: value["status"].as_u64().unwrap_or_default() as u16,
        fields: value["fields"].as_array().map(|fields| fields.iter().map(pair).collect()),
        length: body.len(),
        body: Some(body),
        whole: value["whole"].as_bool().unwrap(),
        rest: value["rest"].as_u64().unwrap_or_default() as usize,
    }
}

/// A real nginx, which passes what it read to itself and answers with what arrived there.
pub struct NginxReader(Nginx);

/// Sent behind each message: nginx takes the end of a client's stream for its going away.
const LAST: &[u8] = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

impl NginxReader {
    pub fn start(folder: &Path) -> NginxReader {
        let sink = format!("unix:{}", folder.join("sink.sock").display());
        // In a field, because the answer to a HEAD has no body.
        let say = "add_header X-Read \"@@$request_method $request_uri length=$content_length\"; return 204;";
        let http = format!(
            "large_client_header_buffers 8 64k; client_max_body_size 10m; client_body_buffer_size 1m;\n\
             server {{ listen {sink}; location / {{ {say} }} }}"
        );
        let server = format!("location / {{ proxy_pass http://{sink}; }}");
        NginxReader(Nginx::start(folder, "reader", &http, &server))
    }
}

impl Server for NginxReader {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn requests(&mut self, bytes: &[u8], whole: bool) -> Seen {
        let text = exchange(self.0.address, &[bytes, if whole { LAST } else { b"" }].concat(), !whole);
        let mut seen = Seen::default();
        for line in text.split("@@").skip(1) {
            let mut words = line.lines().next().unwrap_or_default().splitn(2, ' ');
            let (method, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let (target, length) = rest.rsplit_once(" length=").unwrap_or_default();
            let length = length.parse().unwrap_or_default();
            let (method, target) = (method.to_owned(), target.to_owned());
            seen.messages.push(Message { method, target, length, whole: true, ..Message::default() });
        }
        let refused =
            text.split("HTTP/1.1 ").skip(1).map(|head| &head[..3]).find(|status| status.starts_with(['4', '5']));
        match seen.messages.last() {
            Some(last) if last.target == "/last" && last.method == "GET" => drop(seen.messages.pop()),
            _ => seen.error = Some("what stands behind was not read".to_owned()),
        }
        seen.error = refused.map(str::to_owned).or(seen.error);
        seen
    }
}

/// Sends everything, closes our side if asked to, and reads until the other side closes.
fn exchange(address: SocketAddr, bytes: &[u8], ends: bool) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let _ = stream.write_all(bytes);
    if ends {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let mut got = Vec::new();
    let _ = stream.read_to_end(&mut got);
    got.into_iter().map(char::from).collect()
}

/// What curl makes of answers: all of them in one run, each from a server that says just that and closes.
pub fn curl(folder: &Path, answers: &[(String, Vec<u8>)]) -> Vec<Seen> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let bytes: Vec<_> = answers.iter().map(|(_, bytes)| bytes.clone()).collect();
    let serving = std::thread::spawn(move || {
        for bytes in &bytes {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let out = |number: usize| folder.join(format!("curl-{number}"));
    let one = |(number, (method, _)): (usize, &(String, Vec<u8>))| {
        let head = if method == "HEAD" { "head\n" } else { "" };
        let file = out(number);
        let (file, tail) = (file.display(), "max-time = 20\nno-keepalive\nnoproxy = \"*\"\nsilent\nhttp1.1");
        format!(
            "{head}url = \"http://{address}/{number}\"\noutput = \"{file}\"\nwrite-out = \"%{{exitcode}} %{{http_code}}\\n\"\n{tail}\n"
        )
    };
    let config = folder.join("curl.config");
    std::fs::write(&config, answers.iter().enumerate().map(one).collect::<Vec<_>>().join("next\n")).unwrap();
    let output = Command::new(peer("curl", "curl")).arg("-K").arg(&config).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.lines().count(), answers.len(), "{said}");
    serving.join().unwrap();
    let read = |(number, line): (usize, &str)| {
        let (exit, status) = line.split_once(' ').unwrap();
        let file: PathBuf = out(number);
        let body = if answers[number].0 == "HEAD" { Vec::new() } else { std::fs::read(&file).unwrap_or_default() };
        let _ = std::fs::remove_file(file);
        let (whole, length) = (exit == "0", body.len());
        let message =
            Message { status: status.parse().unwrap(), body: Some(body), length, whole, ..Message::default() };
        Seen { messages: vec![message], error: (!whole).then(|| format!("exit code {exit}")) }
    };
    said.lines().enumerate().map(read).collect()
}
