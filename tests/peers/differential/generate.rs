//! Requests and answers to disagree about: valid ones, odd ones, hostile ones, and any of them with a few bytes changed.
//!
//! The parts are the ones that proxies and servers were found to read differently. Everything comes from one seed.

use fastrand::Rng;

/// Stands in bodies and behind messages: whoever loses track of where a message ends takes it for one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: smuggled\r\n\r\n";

/// What is sent over one connection.
pub struct Made {
    pub bytes: Vec<u8>,
    /// What is to go up, if all of it is valid.
    pub expected: Vec<Expected>,
}

/// A request as it is to go up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub method: String,
    pub target: String,
    pub body: Vec<u8>,
}

const METHODS: &[&str] =
    &["GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "M-SEARCH"];

const SUFFIXES: &[&str] = &[
    "",
    "",
    "",
    "/",
    "?",
    "?a=b&c=%20",
    "//x",
    "/a%2fb",
    "/;p=1",
    "?x=http://y/",
    "/~a(b)'c'",
    "/!$&*+,=:@",
    "?[]",
    "/\"x\"",
    "/{x}|y",
    "/a\\b",
    "/^`",
    "/<x>",
    "/%",
    "/a/./b",
];

const FIELDS: &[&str] = &[
    "Accept: */*",
    "X-A:1",
    "X-A: \t spaced \t ",
    "X-Empty:",
    "x-a: repeated",
    "Cookie: a=b; c=\"d\"",
    "User-Agent: peers/1.0 (odd; \u{e4})",
    "Connection: keep-alive",
    "Connection: x-hop, keep-alive\r\nX-Hop: 1",
    "Connection: content-length, transfer-encoding, host",
    "Keep-Alive: timeout=5",
    "TE: trailers",
    "Via: 1.0 before",
    "X-Forwarded-For: 6.6.6.6",
    "X_Forwarded_For: 6.6.6.6",
    "Content_Length: 3",
    "Transfer.Encoding: chunked",
    "Upgrade: h2c",
    "Connection: upgrade\r\nUpgrade: websocket",
    "Content-Type: text/plain",
    "!#$%&'*+-.^_`|~: odd",
    "Proxy-Connection: keep-alive",
    "Trailer: X-T",
    "Range: bytes=0-",
    "X-Json: {\"a\":[1,2]}",
];

/// Lines that frame, or seem to.
const FRAMING: &[&str] = &[
    "Content-Length: 5",
    "Content-Length: 0",
    "Content-Length: 43",
    "Content-Length: 005",
    "Content-Length: 5, 5",
    "Content-Length: +5",
    "Content-Length: 0x5",
    "Content-Length: 5 ",
    "Content-Length: 5\t",
    "Content-Length:",
    "Content-Length: -1",
    "Content-Length: 5\x0b",
    "Content-Length : 5",
    "Content-Length\t: 5",
    " Content-Length: 5",
    "Content-Length: 99999999999999999999",
    "Content-Length: 18446744073709551621",
    "content-length: 6",
    "Transfer-Encoding: chunked",
    "transfer-encoding:CHUNKED",
    "Transfer-Encoding: chunked ",
    "Transfer-Encoding: \tchunked\t",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: chunked;a=b",
    "Transfer-Encoding:",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding\r\n : chunked",
    "Transfer-Encoding : chunked",
    " Transfer-Encoding: chunked",
    "Transfer-Encoding:\x0bchunked",
    "Transfer-Encoding:\x0cchunked",
    "Transfer-Encoding: chunked\x00",
    "Transfer-Encoding: \u{a0}chunked",
    "X: y\nTransfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\r\rTransfer-Encoding: chunked",
    "X: y\n\rTransfer-Encoding: chunked",
    "\rTransfer-Encoding: chunked",
    "Transfer-Encoding\x00: chunked",
    "Trans\x00fer-Encoding: chunked",
    "Expect: 100-continue",
    "Expect: 100-continue, x",
    "Expect: 200",
    "Host: other",
    "Host : other",
    "\u{e4}: x",
    "no colon",
    ": no name",
    "Connection: close",
];

const ENDS: &[&str] =
    &["\n", "\r", "\r\r\n", "\n\r", "\r\n\r", "", "\x0b\r\n", " \r\n", "\r\n ", "\x00\r\n", "\u{85}", "\r\n\r\n"];

const LINES: &[&str] = &[
    "GET  / HTTP/1.1",
    "GET /  HTTP/1.1",
    "GET / HTTP/1.1 ",
    "GET /\tHTTP/1.1",
    "GET\t/ HTTP/1.1",
    " GET / HTTP/1.1",
    "\r\nGET / HTTP/1.1",
    "\nGET / HTTP/1.1",
    "GET / HTTP/1.0",
    "GET / HTTP/2.0",
    "GET / HTTP/1.2",
    "GET / HTTP/0.9",
    "GET / HTTP/1.10",
    "GET / http/1.1",
    "GET /",
    "GET",
    "GET /a b HTTP/1.1",
    "GET /a\x0bHTTP/1.1 HTTP/1.1",
    "GET /\u{e4} HTTP/1.1",
    "GET /#f HTTP/1.1",
    "GET * HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "GET http://other/ HTTP/1.1",
    "GET http://other HTTP/1.1",
    "OPTIONS http://other HTTP/1.1",
    "GET http://user@other/ HTTP/1.1",
    "GET HTTPS://other:443/x HTTP/1.1",
    "GET other:80 HTTP/1.1",
    "CONNECT other:80 HTTP/1.1",
    "TRACE / HTTP/1.1",
    "get / HTTP/1.1",
    "head / HTTP/1.1",
    "G\x00T / HTTP/1.1",
    "GET /\x00 HTTP/1.1",
    "POST / HTTP/1.1",
    "PUT / HTTP/1.0",
    "GET /../../x HTTP/1.1",
    "GET /%00 HTTP/1.1",
];

const CHUNK_LINES: &[&str] = &[
    "5",
    "05",
    "5;x",
    "5;x=\"y;z\"",
    "5 ",
    " 5",
    "5\t",
    "+5",
    "-5",
    "0x5",
    "5,5",
    "5;\n",
    "5;x\rY",
    "5\n",
    "5\r",
    "000000000000005",
    "0000000000000005",
    "10000000000000005",
    "ffffffffffffffff",
    "",
    "g",
    "5;\u{e4}",
    "5 ;x",
    "5; x = y",
];

/// One connection's worth of requests.
pub fn requests(rng: &mut Rng, number: usize) -> Made {
    let kind = rng.u32(..100);
    let count = if rng.u32(..5) == 0 { 2 } else { 1 };
    // What is changed must not look like another that is valid.
    let tag = format!("{}{number}", if kind < 40 { "v" } else { "m" });
    let valid: Vec<_> = (0..count).map(|at| valid_request(rng, &tag, at)).collect();
    let mut bytes: Vec<u8> = valid.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
    match kind {
        0..40 => {
            return Made { bytes, expected: valid.into_iter().map(|(_, expected)| expected).collect() };
        }
        40..85 => bytes = hostile_request(rng, number),
        _ => mutate(rng, &mut bytes),
    }
    if rng.bool() {
        bytes.extend_from_slice(SMUGGLED.as_bytes());
    }
    Made { bytes, expected: Vec::new() }
}

fn valid_request(rng: &mut Rng, tag: &str, at: usize) -> (Vec<u8>, Expected) {
    let method = pick(rng, METHODS).to_owned();
    let target = format!("/{tag}-{at}{}", pick(rng, SUFFIXES));
    let asked = match rng.u32(..8) {
        0 => format!("http://shop.test{target}"),
        _ => target.clone(),
    };
    let mut fields = vec![format!("{}: shop.test{}", pick(rng, &["Host", "host", "HOST"]), pick(rng, &["", ":80"]))];
    fields.extend((0..rng.usize(..6)).map(|_| pick(rng, FIELDS).to_owned()));
    let length = rng.usize(..200);
    let body: Vec<u8> = match rng.u32(..3) {
        0 => SMUGGLED.as_bytes().to_vec(),
        1 => (0..length).map(|_| rng.u8(..)).collect(),
        _ => "x".repeat(length).into_bytes(),
    };
    let upgrades = fields.iter().any(|field| field.contains("websocket"));
    let framing = if upgrades { 0 } else { rng.u32(..3) };
    let (framed, body) = match framing {
        0 => (Vec::new(), Vec::new()),
        1 => {
            fields.push(format!(
                "{}: {}{}",
                pick(rng, &["Content-Length", "content-length"]),
                pick(rng, &["", "00"]),
                body.len()
            ));
            (body.clone(), body)
        }
        _ => {
            fields.push(format!(
                "{}:{}",
                pick(rng, &["Transfer-Encoding", "transfer-encoding"]),
                pick(rng, &["chunked", " Chunked "])
            ));
            (in_chunks(rng, &body), body)
        }
    };
    rng.shuffle(&mut fields);
    let head = format!("{method} {asked} HTTP/1.1\r\n{}\r\n\r\n", fields.join("\r\n"));
    ([head.into_bytes(), framed].concat(), Expected { method, target, body })
}

fn in_chunks(rng: &mut Rng, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(1 + rng.usize(..rest.len()));
        let extension = pick(rng, &["", "", "", ";x", ";x=\"a b\"", ";"]);
        let zeros = pick(rng, &["", "", "0", "00"]);
        let size = if rng.bool() { format!("{:x}", chunk.len()) } else { format!("{:X}", chunk.len()) };
        out.extend_from_slice(format!("{zeros}{size}{extension}\r\n").as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        rest = after;
    }
    let trailers = pick(rng, &["", "", "X-T: 1\r\n", "X-T: 1\r\nContent-Length: 7\r\nX-U:\r\n"]);
    out.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    out
}

fn hostile_request(rng: &mut Rng, number: usize) -> Vec<u8> {
    let line = match rng.u32(..3) {
        0 => pick(rng, LINES).to_owned(),
        _ => format!("{} /h{number} HTTP/1.1", pick(rng, METHODS)),
    };
    let mut lines = vec![line];
    if rng.u32(..12) != 0 {
        lines.push("Host: shop.test".to_owned());
    }
    for _ in 0..rng.usize(..3) {
        lines.push(pick(rng, FIELDS).to_owned());
    }
    for _ in 0..=rng.usize(..2) {
        lines.push(pick(rng, FRAMING).to_owned());
    }
    let mut out = Vec::new();
    for line in &lines {
        out.extend_from_slice(&latin1(line));
        out.extend_from_slice(&latin1(if rng.u32(..25) == 0 { pick(rng, ENDS) } else { "\r\n" }));
    }
    out.extend_from_slice(&latin1(if rng.u32(..25) == 0 { pick(rng, ENDS) } else { "\r\n" }));
    match rng.u32(..4) {
        0 => out.extend_from_slice(b"hello"),
        1 => out.extend_from_slice(SMUGGLED.as_bytes()),
        2 => out.extend_from_slice(&in_chunks(rng, SMUGGLED.as_bytes())),
        _ => hostile_chunks(rng, &mut out),
    }
    out
}

fn hostile_chunks(rng: &mut Rng, out: &mut Vec<u8>) {
    let end = |rng: &mut Rng| latin1(if rng.u32(..10) == 0 { pick(rng, ENDS) } else { "\r\n" });
    for _ in 0..=rng.usize(..2) {
        out.extend_from_slice(&latin1(pick(rng, CHUNK_LINES)));
        out.extend(end(rng));
        out.extend_from_slice(if rng.u32(..6) == 0 { b"hello!" } else { b"hello" });
        out.extend(end(rng));
    }
    out.extend_from_slice(pick(rng, &["0", "00", "0;x", "0 ", "-0", "0x0"]).as_bytes());
    out.extend(end(rng));
    if rng.u32(..4) == 0 {
        out.extend_from_slice(&latin1(pick(rng, FRAMING)));
        out.extend(end(rng));
    }
    out.extend(end(rng));
}

/// Changes a few bytes.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    const SPECIAL: &[u8] = b"\r\n\0\t :;,0159xX\"\\/#?%+-\x0b\x0c\x7f\x80\xff";
    for _ in 0..=rng.usize(..3) {
        let at = rng.usize(..bytes.len());
        let byte = SPECIAL[rng.usize(..SPECIAL.len())];
        match rng.u32(..5) {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => drop(bytes.remove(at)),
            3 => bytes[at] ^= 1 << rng.u32(..8),
            _ => {
                let end = bytes.len().min(at + rng.usize(1..20));
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
        if bytes.is_empty() {
            bytes.push(byte);
        }
    }
}

const STATUS_LINES: &[&str] = &[
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 404 Not Found",
    "HTTP/1.1 500 x",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 200",
    "HTTP/1.1 200 ",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 299 \u{e4}",
    "HTTP/1.1 205 Reset Content",
    "HTTP/1.1 206 Partial Content",
    "HTTP/1.1 301 Moved",
    "HTTP/1.1 401 No",
];

const ODD_STATUS_LINES: &[&str] = &[
    "HTTP/1.1 99 x",
    "HTTP/1.1 600 x",
    "HTTP/1.1 1000 x",
    "HTTP/2.0 200 OK",
    "HTTP/1.1  200 OK",
    "http/1.1 200 OK",
    "ICY 200 OK",
    "HTTP/1.1 2x0 OK",
    "HTTP/1.1 101 Switching Protocols",
    "HTTP/1.1 200 a\rb",
    "HTTP/1.1 200 a\x00b",
    "\r\nHTTP/1.1 200 OK",
    "HTTP/1.1",
    "HTTP/1.1 100 Continue",
    "HTTP/1.1 103 Early Hints",
];

/// An upstream's answer, whole or not.
pub fn answer(rng: &mut Rng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..if rng.u32(..5) == 0 { rng.usize(..3) } else { 0 } {
        out.extend_from_slice(
            pick(rng, &["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]).as_bytes(),
        );
    }
    let hostile = rng.u32(..100) < 45;
    let line = if hostile && rng.u32(..4) == 0 { pick(rng, ODD_STATUS_LINES) } else { pick(rng, STATUS_LINES) };
    let mut fields: Vec<_> = (0..rng.usize(..4)).map(|_| pick(rng, FIELDS).to_owned()).collect();
    let data = SMUGGLED
        .replace("GET /smuggled HTTP/1.1", "HTTP/1.1 200 OK")
        .replace("Host: smuggled", "Content-Length: 0")
        .into_bytes();
    let body = match rng.u32(..4) {
        0 => Vec::new(),
        1 => {
            fields.push(format!("Content-Length: {}", data.len()));
            data
        }
        2 => {
            fields.push("Transfer-Encoding: chunked".to_owned());
            in_chunks(rng, &data)
        }
        _ => data,
    };
    if hostile {
        (0..=rng.usize(..2)).for_each(|_| fields.push(pick(rng, FRAMING).to_owned()));
    }
    rng.shuffle(&mut fields);
    for line in std::iter::once(line.to_owned()).chain(fields).chain(std::iter::once(String::new())) {
        out.extend_from_slice(&latin1(&line));
        out.extend_from_slice(&latin1(if hostile && rng.u32(..25) == 0 { pick(rng, ENDS) } else { "\r\n" }));
    }
    if hostile && rng.u32(..4) == 0 {
        hostile_chunks(rng, &mut out);
    } else {
        out.extend_from_slice(&body);
    }
    match rng.u32(..10) {
        0 => mutate(rng, &mut out),
        1 => out.truncate(rng.usize(..=out.len())),
        2 => out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        _ => {}
    }
    out
}

fn pick<'a>(rng: &mut Rng, list: &[&'a str]) -> &'a str {
    list[rng.usize(..list.len())]
}

/// Characters below 256 as one byte each.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}
