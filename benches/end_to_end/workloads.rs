//! The workloads: what is asked, how, and at which rate latency is measured.
//!
//! Invariant: a workload asks every proxy for the same bytes; rates are what each of the proxies can hold on one core.

use clap::ValueEnum;

/// A workload, by its letter; the same letters as in the table of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// GET, 128 bytes
    A,
    /// GET as browsers send it: 12 headers each way, 128 bytes
    B,
    /// GET, 64 KiB
    C,
    /// POST of 4 KiB, 128 bytes back
    D,
    /// a over TLS 1.3
    E,
    /// b over TLS 1.3
    Eb,
    /// c over TLS 1.3
    Ec,
    /// a over HTTP/2 with prior knowledge
    F,
    /// b over HTTP/2 with prior knowledge
    Fb,
    /// c over HTTP/2 with prior knowledge
    Fc,
}

/// How a workload reaches the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Plain,
    Tls,
    Http2,
}

/// Header fields of a browser's request.
const BROWSER: [(&str, &str); 11] = [
    (
        "User-Agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    ),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Accept-Language", "en-US,en;q=0.9,fr;q=0.8"),
    ("Cache-Control", "no-cache"),
    (
        "Cookie",
        "_ga=GA1.2.1234567890.1690000000; session=8f14e45fceea167a5a36dedd4bea2543; theme=dark; \
         csrftoken=Zr3hIoXkq9eQ0b7C",
    ),
    ("Referer", "https://www.example.com/products/list?page=2&sort=price"),
    ("Sec-Ch-Ua", "\"Chromium\";v=\"126\", \"Not.A/Brand\";v=\"24\""),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Upgrade-Insecure-Requests", "1"),
];

impl Workload {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Workload; 10] = [
        Workload::A,
        Workload::B,
        Workload::C,
        Workload::D,
        Workload::E,
        Workload::Eb,
        Workload::Ec,
        Workload::F,
        Workload::Fb,
        Workload::Fc,
    ];
    /// Those that need no other tools than a C compiler.
    pub(crate) const PLAIN: [Workload; 4] = [Workload::A, Workload::B, Workload::C, Workload::D];

    /// Its letter.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Workload::A => "a",
            Workload::B => "b",
            Workload::C => "c",
            Workload::D => "d",
            Workload::E => "e",
            Workload::Eb => "eb",
            Workload::Ec => "ec",
            Workload::F => "f",
            Workload::Fb => "fb",
            Workload::Fc => "fc",
        }
    }

    /// What it is, for people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Workload::A => "GET 128 B",
            Workload::B => "GET, 12+12 headers",
            Workload::C => "GET 64 KiB",
            Workload::D => "POST 4 KiB",
            Workload::E => "TLS, GET 128 B",
            Workload::Eb => "TLS, 12+12 headers",
            Workload::Ec => "TLS, GET 64 KiB",
            Workload::F => "HTTP/2, GET 128 B",
            Workload::Fb => "HTTP/2, 12+12 headers",
            Workload::Fc => "HTTP/2, GET 64 KiB",
        }
    }

    /// How it reaches the proxy.
    pub(crate) fn wire(self) -> Wire {
        match self {
            Workload::A | Workload::B | Workload::C | Workload::D => Wire::Plain,
            Workload::E | Workload::Eb | Workload::Ec => Wire::Tls,
            Workload::F | Workload::Fb | Workload::Fc => Wire::Http2,
        }
    }

    /// Requests per second when latency is measured: near half of what the slower proxies can do.
    pub(crate) fn rate(self) -> u32 {
        match self {
            Workload::A | Workload::B => 8_000,
            Workload::C | Workload::Fc => 2_000,
            Workload::D | Workload::E => 6_000,
            Workload::Eb => 5_000,
            Workload::Ec => 1_000,
            Workload::F | Workload::Fb => 8_000,
        }
    }

    /// The path asked for; the upstream goes by its first letter.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Workload::A | Workload::E | Workload::F => "/s",
            Workload::B | Workload::Eb | Workload::Fb => "/h/products/list?page=2&sort=price",
            Workload::C | Workload::Ec | Workload::Fc => "/b",
            Workload::D => "/p",
        }
    }

    /// Header fields beside `Host`.
    pub(crate) fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Workload::B | Workload::Eb | Workload::Fb => &BROWSER,
            _ => &[],
        }
    }

    /// The request as HTTP/1.1 bytes.
    pub(crate) fn request(self) -> String {
        let (path, body) = (self.path(), if self == Workload::D { 4_096 } else { 0 });
        let (method, host) = (
            if body > 0 { "POST" } else { "GET" },
            if self.headers().is_empty() { "127.0.0.1" } else { "www.example.com" },
        );
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in self.headers() {
            text += &format!("{name}: {value}\r\n");
        }
        if body > 0 {
            text += &format!("Content-Type: application/octet-stream\r\nContent-Length: {body}\r\n");
        }
        text + "\r\n" + &"y".repeat(body)
    }
}
