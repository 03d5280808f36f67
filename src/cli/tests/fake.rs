//! A fake Teal on a loopback port: it answers as the test says, and remembers what it was asked.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::FromArgMatches;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::cli::client::{Client, Limits};
use crate::cli::output::Output;
use crate::cli::{Cli, Command, answer, command};
use crate::control::admin::wire::Event;

/// What the fake does with one request.
pub(super) enum Reply {
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// These bytes, then silence.
    Open(Vec<u8>),
}

/// Where the fake is, and what it was asked: whole requests.
pub(super) struct Fake {
    pub(super) address: String,
    pub(super) asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// A fake that answers with `reply(request, how many were asked before with the same first line)`.
    pub(super) async fn start(reply: impl Fn(&str, usize) -> Reply + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, reply) = (Arc::clone(&asked), Arc::new(reply));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (log, reply) = (Arc::clone(&log), Arc::clone(&reply));
                tokio::spawn(async move {
                    let request = read(&mut stream).await;
                    let before = {
                        let mut log = log.lock().unwrap();
                        let same =
                            log.iter().filter(|earlier: &&String| earlier.lines().next() == request.lines().next());
                        let before = same.count();
                        log.push(request.clone());
                        before
                    };
                    match reply(&request, before) {
                        Reply::Bytes(bytes) => stream.write_all(&bytes).await.unwrap(),
                        Reply::Open(bytes) => {
                            stream.write_all(&bytes).await.unwrap();
                            // Until the client goes away.
                            let _ = stream.read(&mut [0]).await;
                        }
                    }
                });
            }
        });
        Fake { address, asked }
    }

    /// What was asked, in order.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn read(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return text,
            Ok(count) => text.push_str(std::str::from_utf8(&buffer[..count]).unwrap()),
        }
    }
}

/// An answer with a body.
pub(super) fn response(status: &str, kind: &str, body: &str) -> Reply {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}");
    Reply::Bytes(text.into_bytes())
}

/// `200` with JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Reply {
    response("200 OK", "application/json", &serde_json::to_string(value).unwrap())
}

/// A problem.
pub(super) fn problem(status: &str, code: &str, detail: &str) -> Reply {
    let (number, title) = status.split_once(' ').unwrap();
    let body =
        format!(r#"{{"type":"about:blank","title":"{title}","status":{number},"detail":"{detail}","code":"{code}"}}"#);
    response(status, "application/problem+json", &body)
}

/// The bytes of a stream of events without an end.
pub(super) fn stream(events: &[Event]) -> Vec<u8> {
    let mut text = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nretry: 2000\n\n".to_owned();
    for event in events {
        let data = serde_json::to_string(event).unwrap();
        text.push_str(&format!("id: {}\nevent: {}\ndata: {data}\n\n: quiet\n\n", event.id, event.kind));
    }
    text.into_bytes()
}

/// An event of the rollout `r1` of `shop`.
pub(super) fn event(id: u64, kind: &str, sentence: &str) -> Event {
    Event {
        id,
        at: "2026-01-02T03:04:05.006Z".to_owned(),
        service: Some("shop".to_owned()),
        rollout: Some("r1".to_owned()),
        kind: kind.to_owned(),
        sentence: sentence.to_owned(),
        took_us: None,
    }
}

/// Limits that no test should meet by accident; new attempts follow at once.
pub(super) fn limits() -> Limits {
    let long = Duration::from_secs(60);
    Limits { connect: long, request: long, silence: long, again: Duration::ZERO, look: long }
}

/// How a verb ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: u8,
    pub(super) out: String,
    pub(super) err: String,
}

/// Runs a command line against `address`.
pub(super) async fn teal(line: &str, address: &str) -> Ended {
    teal_with(line, address, limits()).await
}

/// The same with other limits.
pub(super) async fn teal_with(line: &str, address: &str, limits: Limits) -> Ended {
    let arguments = ["teal", "--admin", address, "--token", "secret"].into_iter().chain(line.split_whitespace());
    let matches = command().try_get_matches_from(arguments).unwrap();
    let cli = Cli::from_arg_matches(&matches).unwrap();
    let token = cli.global.token().unwrap();
    let client = Client::new(cli.global.admin, token.as_deref(), Some("ops"), limits).unwrap();
    let (out, err) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let code = {
        let output = Output { format: cli.global.output, coloured: false, out: &out, err: &err };
        let Command::Ask(question) = cli.command else { panic!("{line} asks nobody") };
        match answer(question, &client, output).await {
            Ok(exit) => exit as u8,
            Err(failure) => {
                output.fail(&failure);
                failure.exit() as u8
            }
        }
    };
    let text = |bytes: RefCell<Vec<u8>>| String::from_utf8(bytes.into_inner()).unwrap();
    Ended { code, out: text(out), err: text(err) }
}
