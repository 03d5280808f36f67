//! Large bodies past a slow reader: does resident memory stay flat?
//!
//! The sender writes as fast as it is let, the reader takes a fixed rate; whatever the proxy keeps of the difference
//! shows in its resident memory. Down, up, and both ways at once on one connection (the upstream sends back what it
//! reads).
//!
//! Invariant: a body that arrives shorter than announced fails the run.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::arguments::Arguments;
use crate::observe;
use crate::process::is_free;
use crate::proxies::{Proxy, Shape, UPSTREAM};
use crate::stage::{Stage, told};

const MEBIBYTE: u64 = 1 << 20;
/// What the slow reader takes per second: far less than loopback gives.
const SLOW: u64 = 128 * MEBIBYTE;
const BLOCK: usize = 64 * 1024;
/// Between two looks at the memory.
const LOOK: Duration = Duration::from_millis(20);
/// A stream that stands still for so long is broken.
const STALLED: Duration = Duration::from_secs(20);

/// Which way the body goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Down,
    Up,
    Both,
}

impl Way {
    const ALL: [(Way, &'static str); 3] = [(Way::Down, "down"), (Way::Up, "up"), (Way::Both, "both")];

    fn named(name: &str) -> Option<Way> {
        Way::ALL.iter().find(|(_, known)| *known == name).map(|(way, _)| *way)
    }
}

/// Prints the table.
pub(crate) fn run(stage: &Stage, arguments: &Arguments) -> Outcome<()> {
    let size = arguments.size * MEBIBYTE;
    println!("{}\n", observe::machine());
    println!(
        "{} MiB past a reader of {} MiB/s; resident memory of the proxy, looked at every {} ms.\n",
        arguments.size,
        SLOW / MEBIBYTE,
        LOOK.as_millis()
    );
    println!("| proxy | way | s | MiB before | MiB at most | MiB more |");
    println!("|---|---|---|---|---|---|");
    is_free(UPSTREAM)?;
    let listener = told("upstream", TcpListener::bind((Ipv4Addr::LOCALHOST, UPSTREAM)))?;
    std::thread::spawn(move || serve_all(&listener));
    for proxy in arguments.proxies_or(&[Proxy::Teal]) {
        let process = proxy.start(stage, Shape::SINGLE)?;
        // What the first request makes it allocate belongs to what was there before.
        stream(proxy.plain_port(), Way::Both, "both", MEBIBYTE)?;
        for (way, name) in Way::ALL {
            let begin = Instant::now();
            let (before, most) = watched(process.id(), || stream(proxy.plain_port(), way, name, size))?;
            let [before, most] = [before, most].map(|kibibytes| kibibytes as f64 / 1024.0);
            let (seconds, more) = (begin.elapsed().as_secs_f64(), most - before);
            println!("| {} | {name} | {seconds:.1} | {before:.1} | {most:.1} | {more:.1} |", proxy.name());
        }
    }
    Ok(())
}

/// Resident memory before and at most, while `work` runs.
fn watched(process: u32, work: impl FnOnce() -> Outcome<()> + Send) -> Outcome<(u64, u64)> {
    let before = observe::resident(process);
    let mut most = before;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let outcome = work();
            over.store(true, SeqCst);
            outcome
        });
        while !over.load(SeqCst) {
            most = most.max(observe::resident(process));
            std::thread::sleep(LOOK);
        }
        working.join().unwrap_or_else(|_| Err("the stream's thread broke".to_owned()))
    })?;
    Ok((before, most))
}

/// One request with a body of `size` the way asked for; ends when all of it has arrived.
fn stream(port: u16, way: Way, name: &str, size: u64) -> Outcome<()> {
    let mut input = told(name, TcpStream::connect((Ipv4Addr::LOCALHOST, port)))?;
    told(name, input.set_read_timeout(Some(STALLED)))?;
    told(name, input.set_write_timeout(Some(STALLED)))?;
    let mut output = told(name, input.try_clone())?;
    let upload = if way == Way::Down { 0 } else { size };
    let method = if way == Way::Down { "GET" } else { "POST" };
    let head = format!(
        "{method} /{name}/{size} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {upload}\r\n\r\n"
    );
    told(name, output.write_all(head.as_bytes()))?;
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || send(&mut output, upload));
        let (head, begun) = told(name, read_head(&mut input))?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(format!("{name}: {}", head.lines().next().unwrap_or("no answer")));
        }
        let expected = length_of(&head).ok_or_else(|| format!("{name}: an answer without a length"))?;
        told(name, receive(&mut input, expected - begun, SLOW))?;
        told(name, sending.join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into())))
    })
}

fn serve_all(listener: &TcpListener) {
    for stream in listener.incoming().map_while(Result::ok) {
        // A proxy may keep a connection and send the next request on it.
        std::thread::spawn(move || while serve(&stream).is_ok() {});
    }
}

/// Answers one request by its path, `/WAY/SIZE`.
fn serve(stream: &TcpStream) -> std::io::Result<()> {
    let (mut input, mut output) = (stream, stream);
    let (head, begun) = read_head(&mut input)?;
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (way, size) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    let (way, size) = (Way::named(way).ok_or(std::io::ErrorKind::InvalidData)?, size.parse().unwrap_or(0));
    let answer = |length: u64| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    match way {
        Way::Down => {
            output.write_all(answer(size).as_bytes())?;
            send(&mut output, size)
        }
        Way::Up => {
            receive(&mut input, length_of(&head).unwrap_or(0) - begun, SLOW)?;
            output.write_all(answer(0).as_bytes())
        }
        Way::Both => {
            output.write_all(answer(size).as_bytes())?;
            send(&mut output, begun)?;
            let mut block = vec![0; BLOCK];
            let mut left = length_of(&head).unwrap_or(0) - begun;
            while left > 0 {
                let length = read_some(&mut input, &mut block, left)?;
                output.write_all(&block[..length])?;
                left -= length as u64;
            }
            Ok(())
        }
    }
}

/// A head and how many bytes of the body came with it, which are read and dropped.
fn read_head(input: &mut impl Read) -> std::io::Result<(String, u64)> {
    let mut bytes = Vec::new();
    let mut block = vec![0; BLOCK];
    loop {
        let length = input.read(&mut block)?;
        if length == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&block[..length]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some(end) = text.find("\r\n\r\n") {
            return Ok((text[..end].to_owned(), (bytes.len() - end - 4) as u64));
        }
    }
}

fn length_of(head: &str) -> Option<u64> {
    let named = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    };
    head.lines().find_map(named)
}

fn send(output: &mut impl Write, size: u64) -> std::io::Result<()> {
    let block = vec![b'x'; BLOCK];
    let mut left = size;
    while left > 0 {
        let length = left.min(BLOCK as u64);
        output.write_all(&block[..length as usize])?;
        left -= length;
    }
    Ok(())
}

/// Reads `size` bytes, at most `per_second` of them a second.
fn receive(input: &mut impl Read, size: u64, per_second: u64) -> std::io::Result<()> {
    let begin = Instant::now();
    let mut block = vec![0; BLOCK];
    let mut left = size;
    while left > 0 {
        left -= read_some(input, &mut block, left)? as u64;
        let due = Duration::from_secs_f64((size - left) as f64 / per_second as f64);
        std::thread::sleep(due.saturating_sub(begin.elapsed()));
    }
    Ok(())
}

/// Some bytes of a body of which `left` are missing; its early end is an error.
fn read_some(input: &mut impl Read, block: &mut [u8], left: u64) -> std::io::Result<usize> {
    let room = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    match input.read(&mut block[..room])? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        length => Ok(length),
    }
}
