//! Real clients through Teal: curl in its ways of speaking HTTP, Python's `http.client`, WebSocket, server-sent events.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use crate::support::nginx::Nginx;
use crate::support::process::{Process, peer};
use crate::support::slow::Slow;
use crate::support::teal::Teal;
use crate::support::{free_address, python, until};

const MIB: usize = 1024 * 1024;

/// nginx with files to fetch and a folder to upload to, behind Teal.
struct Scene {
    teal: Teal,
    nginx: Nginx,
    folder: tempfile::TempDir,
}

impl Scene {
    fn start() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let http = "gzip on; gzip_proxied any; gzip_min_length 100; client_max_body_size 100m;";
        let server = "location / { }\nlocation = / { return 200 up; }\n\
                      location /up/ { dav_methods PUT; create_full_put_path on; }";
        let nginx = Nginx::start(folder.path(), "files", http, server);
        let teal = Teal::shop(folder.path(), &nginx.url(), &nginx.url(), "", "");
        Scene { teal, nginx, folder }
    }

    fn curl(&self, arguments: &[&str], path: &str) -> Output {
        let url = format!("http://{}{path}", self.teal.listen);
        let output = Command::new(peer("curl", "curl"))
            .args(["-sS", "--max-time", "60", "--noproxy", "*"])
            .args(arguments)
            .arg(url)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "curl {arguments:?} {path}: {output:?}");
        output
    }

    /// Puts a file of `size` random bytes where nginx serves it.
    fn file(&self, name: &str, size: usize) -> Vec<u8> {
        let bytes = noise(size);
        std::fs::write(self.nginx.files().join(name), &bytes).unwrap();
        bytes
    }

    fn local(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Fails unless nginx has got exactly `bytes` as `/up/NAME`.
    fn got(&self, name: &str, bytes: &[u8]) {
        let stored = std::fs::read(self.nginx.files().join("up").join(name)).unwrap();
        assert!(stored == bytes, "{name}: {} bytes instead of {}, or others", stored.len(), bytes.len());
    }
}

fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    fastrand::Rng::with_seed(size as u64).fill(&mut bytes);
    bytes
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn curl_speaks_http_2_from_the_first_byte() {
    const H2: &str = "--http2-prior-knowledge";
    let scene = Scene::start();
    let (small, large) = (scene.file("small", 5_000), scene.file("large", 5 * MIB));
    let answer = scene.curl(&[H2, "-w", "%{stderr}%{http_version} %{http_code}"], "/small");
    assert_eq!((answer.stdout == small, text(&answer.stderr)), (true, "2 200".to_owned()));
    assert!(scene.curl(&[H2], "/large").stdout == large);
    let head = text(&scene.curl(&[H2, "-I"], "/small").stdout);
    assert!(head.starts_with("HTTP/2 200") && head.contains("content-length: 5000"), "{head}");
    let up = scene.local("body", &large);
    scene.curl(&[H2, "-T", up.to_str().unwrap()], "/up/two");
    scene.got("two", &large);
    // Of the upgrade that curl offers without prior knowledge Teal takes no notice (RFC 9113 section 3.1).
    let offered = scene.curl(&["--http2", "-w", "%{stderr}%{http_version}"], "/small");
    assert_eq!((offered.stdout == small, text(&offered.stderr)), (true, "1.1".to_owned()));
}

#[test]
fn curl_downloads() {
    let scene = Scene::start();
    let small = scene.file("small", 5_000);
    assert!(scene.curl(&["--http1.1"], "/small").stdout == small);
    let old = scene.curl(&["--http1.0", "-w", "%{stderr}%{http_code}"], "/small");
    assert_eq!((old.stdout == small, text(&old.stderr)), (true, "200".to_owned()));
    // curl keeps a 1.0 connection only if it is told that it may.
    let kept = scene.curl(&["--http1.0", "-H", "Connection: keep-alive", "-i"], "/small");
    assert!(kept.stdout.ends_with(&small));

    let head = text(&scene.curl(&["-I"], "/small").stdout);
    assert!(head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("content-length: 5000"), "{head}");

    let page = "all work and no play makes a dull page\n".repeat(2_000);
    std::fs::write(scene.nginx.files().join("page.txt"), &page).unwrap();
    std::fs::write(scene.nginx.files().join("page.html"), &page).unwrap();
    let plain = scene.curl(&[], "/page.html");
    assert!(plain.stdout == page.as_bytes());
    let fields = scene.curl(&["--compressed", "-D", "fields", "-o", "out", "-w", "%{size_download}"], "/page.html");
    let sent: usize = text(&fields.stdout).parse().unwrap();
    let fields = text(&std::fs::read(scene.folder.path().join("fields")).unwrap()).to_lowercase();
    assert!(std::fs::read(scene.folder.path().join("out")).unwrap() == page.as_bytes());
    assert!(fields.contains("content-encoding: gzip") && sent < page.len() / 10, "{sent} bytes: {fields}");

    // What comes in chunks from upstream goes to a 1.0 client up to the end of the connection.
    let old = scene.curl(&["--http1.0", "--compressed", "-D", "fields"], "/page.html");
    let old_fields = text(&std::fs::read(scene.folder.path().join("fields")).unwrap()).to_lowercase();
    assert!(old.stdout == page.as_bytes() && !old_fields.contains("transfer-encoding"), "{old_fields}");

    let part = scene.curl(&["-r", "100-199", "-w", "%{stderr}%{http_code}"], "/small");
    assert_eq!((part.stdout == small[100..200], text(&part.stderr)), (true, "206".to_owned()));

    let large = scene.file("large", 64 * MIB);
    scene.curl(&["-o", "large"], "/large");
    let sums = Command::new(peer("sha256sum", "coreutils"))
        .args([scene.nginx.files().join("large"), scene.folder.path().join("large")])
        .output()
        .unwrap();
    let sums: Vec<_> = text(&sums.stdout).lines().map(|line| line[..64].to_owned()).collect();
    assert!(std::fs::read(scene.folder.path().join("large")).unwrap() == large);
    assert_eq!(sums[0], sums[1]);
    println!(
        "clients, curl: 1.1, 1.0, HEAD, range, gzip ({} to {sent} bytes), 64 MiB with sha256 {}",
        page.len(),
        sums[0]
    );
}

#[test]
fn curl_uploads() {
    let scene = Scene::start();
    let body = noise(3 * MIB + 17);
    let file = scene.local("body", &body);
    let created = |output: &Output| assert_eq!(text(&output.stdout), "201", "{}", text(&output.stderr));
    let code = ["-w", "%{http_code}"];

    // From standard input curl does not know the length and sends chunks.
    let url = format!("http://{}/up/chunked", scene.teal.listen);
    let chunked = Command::new(peer("curl", "curl"))
        .args(["-sS", "--max-time", "60", "--noproxy", "*", "-v", "-T", "-", "-w", "%{http_code}"])
        .arg(url)
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    created(&chunked);
    assert!(text(&chunked.stderr).contains("> Transfer-Encoding: chunked"), "{}", text(&chunked.stderr));
    scene.got("chunked", &body);

    let one = scene.local("one", &noise(MIB));
    let expecting = ["-v", "-H", "Expect: 100-continue", "--expect100-timeout", "20", "-T", one.to_str().unwrap()];
    let expected = scene.curl(&[&expecting[..], &code].concat(), "/up/expected");
    created(&expected);
    let said = text(&expected.stderr);
    assert!(said.contains("< HTTP/1.1 100 Continue"), "no 100 Continue: {said}");
    scene.got("expected", &noise(MIB));

    let plain = scene.curl(&[&["-H", "Expect:", "-T", file.to_str().unwrap()][..], &code].concat(), "/up/plain");
    created(&plain);
    scene.got("plain", &body);
    let empty = scene.local("empty", b"");
    created(&scene.curl(&[&["-T", empty.to_str().unwrap()][..], &code].concat(), "/up/empty"));
    scene.got("empty", b"");
    println!("clients, curl: uploads in chunks, after 100 Continue, with a length, empty: all as sent");
}

#[test]
fn python_keeps_its_connection() {
    let scene = Scene::start();
    let script = scene.local("keep_alive.py", PYTHON.as_bytes());
    let output = Command::new(peer("python3", "python3"))
        .arg(&script)
        .args(["127.0.0.1", &scene.teal.listen.port().to_string()])
        .output()
        .unwrap();
    scene.got("py", &b"0123456789abcdef".repeat(5_000));
    assert!(output.status.success(), "{}", text(&output.stderr));
    println!("clients, python: {}", text(&output.stdout).trim());
}

/// Two hundred requests of four kinds on one connection, which must stay the same.
const PYTHON: &str = r#"
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=20)
connection.connect()
port = connection.sock.getsockname()[1]
body = b"0123456789abcdef" * 5000
for turn in range(200):
    kind = turn % 4
    if kind == 0:
        connection.request("GET", "/")
    elif kind == 1:
        connection.request("HEAD", "/")
    elif kind == 2:
        connection.request("PUT", "/up/py", body=body)
    else:
        chunks = (body[at:at + 7000] for at in range(0, len(body), 7000))
        connection.request("PUT", "/up/py", body=chunks, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    answer = connection.getresponse()
    said = answer.read()
    assert answer.status in ((200,) if kind < 2 else (201, 204)), (turn, answer.status, said)
    assert kind != 0 or said == b"up", (turn, said)
    assert connection.sock is not None and connection.sock.getsockname()[1] == port, f"a new connection at {turn}"
print("200 requests (GET, HEAD, PUT with a length, PUT in chunks) on one connection")
"#;

#[test]
fn websocket_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let python = python::with("websockets", "websockets==15.0.1");
    let script = folder.path().join("websocket.py");
    std::fs::write(&script, WEBSOCKET).unwrap();
    let upstream = free_address();
    let mut server = Command::new(&python);
    server.arg(&script).args(["serve", &upstream.port().to_string()]).stdin(Stdio::null());
    // It complains about every health check, which only opens a connection.
    let _server = Process::start(server.stderr(Stdio::null()));
    until("the WebSocket server listens", Duration::from_secs(20), || std::net::TcpStream::connect(upstream).ok());
    let url = format!("http://{upstream}");
    let teal = Teal::shop(folder.path(), &url, &url, "", "");
    let output = Command::new(&python)
        .arg(&script)
        .args(["ask", &teal.listen.port().to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    println!("clients, websocket: {}", text(&output.stdout).trim());
}

/// A server that speaks first, echoes, and closes with a code of its own; a client that checks all of it.
const WEBSOCKET: &str = r#"
import asyncio, os, sys, websockets
from websockets.exceptions import ConnectionClosed

async def echo(socket, *_):
    await socket.send("server speaks first")
    async for message in socket:
        if message == "close":
            await socket.close(4321, "as asked")
            return
        await socket.send(message)

async def serve(port):
    async with websockets.serve(echo, "127.0.0.1", port, max_size=2**24):
        await asyncio.Future()

async def one(port, number):
    async with websockets.connect(f"ws://127.0.0.1:{port}/chat", max_size=2**24, proxy=None) as socket:
        assert await socket.recv() == "server speaks first"
        for size in (0, 1, 125, 126, 65535, 65536, 1 << 20):
            message = os.urandom(size)
            await socket.send(message)
            assert await socket.recv() == message, size
        await socket.send(["in ", "three ", "parts"])
        assert await socket.recv() == "in three parts"
        await (await socket.ping())
        await socket.send("close")
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4321, "as asked"), closed
        else:
            raise AssertionError("not closed")

async def ask(port):
    await asyncio.wait_for(asyncio.gather(*(one(port, number) for number in range(8))), 60)
    print("8 connections: the server's first word, messages of 0 bytes to 1 MiB both ways, fragments, ping, close code")

asyncio.run({"serve": serve, "ask": ask}[sys.argv[1]](int(sys.argv[2])))
"#;

#[test]
fn events_arrive_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let (go_on, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    // Every further event waits until the one before was seen at the client.
    let slow = Slow::scripted(move |_, out| {
        out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for number in 0..3 {
            let event = format!("data: {number}\n\n");
            out.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
            told.lock().unwrap().recv_timeout(Duration::from_secs(20)).map_err(std::io::Error::other)?;
        }
        out.write_all(b"0\r\n\r\n")
    });
    let teal = Teal::shop(folder.path(), &slow.url(), &slow.url(), "health: off", "");
    let mut curl = Command::new(peer("curl", "curl"))
        .args(["-sSN", "--max-time", "30", "--noproxy", "*"])
        .arg(format!("http://{}/events?id=1", teal.listen))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines();
    for number in 0..3 {
        assert_eq!(lines.next().map(Result::unwrap), Some(format!("data: {number}")));
        assert_eq!(lines.next().map(Result::unwrap), Some(String::new()));
        go_on.send(()).unwrap();
    }
    assert!(lines.next().is_none());
    assert!(curl.wait().unwrap().success());
    println!("clients, events: 3 of 3 seen by curl before the upstream wrote the next");
}
