//! What is on the wire: parsing heads, the chunked coding, and a whole request through a running Teal.
//!
//! The last rows count what all of the process allocates for a request; client and upstream are threads of this very
//! process that use fixed buffers, so what is counted is Teal's.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use teal::app::{self, Running};
use teal::proxy::head::RequestHead;
use teal::proxy::http1::chunked;
use teal::proxy::http1::parse::{self, Limits};

use crate::Table;

/// As a browser asks: twelve fields.
const REQUEST: &[u8] = b"GET /products/list?page=2&sort=price HTTP/1.1\r\nHost: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nReferer: https://shop.example.com/products\r\nDNT: 1\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\nSec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\nPriority: u=0, i\r\n\r\n";

/// As a server answers: twelve fields and a small body.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: example\r\nDate: Mon, 23 Nov 2026 09:00:00 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 16\r\nCache-Control: private, max-age=0\r\nETag: \"0123456789\"\r\n\
    Vary: Accept-Encoding\r\nX-Frame-Options: DENY\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
    Server-Timing: app;dur=1\r\nX-Version: 2\r\n\r\n{\"hello\":\"world\"";

pub(crate) fn rows(table: &Table) {
    let limits = Limits { bytes: 32 * 1024, fields: 100 };
    let mut head = RequestHead::default();
    table.row("parse: request head, 12 fields", || {
        parse::request(black_box(REQUEST), limits, &mut head).expect("a sound head").expect("a whole head").length
    });
    let mut list = Vec::new();
    table.row("parse: response head, 12 fields", || {
        parse::response(black_box(RESPONSE), false, &mut list).expect("a sound head").expect("a whole head").length
    });
    let (data, mut out) = ([b'x'; 4096], Vec::with_capacity(8192));
    table.row("chunk: encode 4 KiB", || {
        out.clear();
        chunked::encode(black_box(&data), &mut out);
        out.len()
    });
    table.row("chunk: decode 4 KiB", || chunked::Decoder::default().step(black_box(&out)).is_ok());
    if "request: GET through Teal, both sides kept".contains(&table.part) {
        whole(table);
    }
}

/// A request through a running Teal and its answer, over loopback.
fn whole(table: &Table) {
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = upstream.local_addr().expect("an address");
    std::thread::spawn(move || {
        upstream.incoming().flatten().for_each(|stream| drop(std::thread::spawn(|| serve(stream))))
    });
    let teal = start(address);
    let mut client = TcpStream::connect(teal.listen[0]).expect("Teal accepts");
    client.set_nodelay(true).expect("an open socket");
    let mut buffer = [0; 4096];
    table.row("request: GET through Teal, both sides kept", || {
        client.write_all(REQUEST).expect("Teal reads");
        let mut read = 0;
        while !buffer[..read].ends_with(&RESPONSE[RESPONSE.len() - 16..]) {
            read += client.read(&mut buffer[read..]).expect("Teal answers");
        }
        read
    });
    drop(client);
    teal.shutdown();
}

fn start(upstream: SocketAddr) -> Running {
    let text = format!(
        "version: 1\nlisten: 127.0.0.1:0\nadmin: off\nstate: none\nworkers: 1\nshutdown: {{ grace: 1s }}\nservices:\n  \
         bench: {{ pools: {{ blue: \"http://{upstream}\", green: \"http://{upstream}\" }}, health: off }}\n"
    );
    let settings = teal::config::parse("bench.yaml", &text, &|_| None, Path::new(".")).expect("a sound file");
    app::start(settings, None).expect("Teal starts")
}

/// Answers every request, without a look at it.
fn serve(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    let mut read = 0;
    let _ = stream.set_nodelay(true);
    while let Ok(n @ 1..) = stream.read(&mut buffer[read..]) {
        read += n;
        if buffer[..read].ends_with(b"\r\n\r\n") {
            read = 0;
            if stream.write_all(RESPONSE).is_err() {
                return;
            }
        }
    }
}
