//! HTTP/2 by hand: frames as bytes, for what no library would send.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GO_AWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// Error codes (RFC 9113 section 7).
pub const PROTOCOL_ERROR: u32 = 1;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// An integer of HPACK with a prefix of 7 bits, of which the first byte says nothing else.
fn integer(mut value: usize, out: &mut Vec<u8>) {
    if value < 127 {
        return out.push(value as u8);
    }
    out.push(127);
    value -= 127;
    while value >= 128 {
        out.push(value as u8 | 128);
        value /= 128;
    }
    out.push(value as u8);
}

/// A header block of literal fields that are not indexed.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        integer(name.len(), &mut block);
        block.extend_from_slice(name.as_bytes());
        integer(value.len(), &mut block);
        block.extend_from_slice(value.as_bytes());
    }
    block
}

/// The pseudo-fields of a `GET`.
pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/")];
/// The pseudo-fields of a `POST`.
pub const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "shop.test"), (":path", "/")];

/// A whole `GET` with more fields.
pub fn get(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &block(&[&GET[..], more].concat()))
}

/// The head of a `POST` with more fields.
pub fn post(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(&[&POST[..], more].concat()))
}

/// A frame as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// The status of the first answer on a connection: later ones may be indexed.
    fn status(&self) -> u16 {
        const BY_INDEX: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
        match self.payload[0] {
            index @ 0x88..=0x8e => BY_INDEX[usize::from(index - 0x88)],
            // A literal under the name of index 8, its digits in Huffman code: 5 bits up to `2`, 6 bits above.
            _ => {
                let length = usize::from(self.payload[1] & 0x7f);
                let bits = self.payload[2..2 + length].iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
                let mut left = 8 * length;
                let mut take = |n: usize| {
                    left -= n;
                    bits >> left & ((1 << n) - 1)
                };
                (0..3).fold(0, |status, _| {
                    let five = take(5);
                    let digit = if five <= 2 { five } else { (five << 1 | take(1)) - 0b011001 + 3 };
                    status * 10 + digit as u16
                })
            }
        }
    }
}

/// What a client is told, at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// An answer of this status.
    Status(u16),
    /// The stream was reset with this code.
    Reset(u32),
    /// The connection ended, after a GOAWAY with this code.
    GoAway(u32),
    /// The connection ended without a word.
    Closed,
}

/// A connection of bare frames.
pub struct Raw {
    pub stream: TcpStream,
    input: Vec<u8>,
}

impl Raw {
    /// Connects and says nothing. Reads give up after ten seconds, so that a test fails rather than hangs.
    pub fn silent(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        Raw { stream, input: Vec::new() }
    }

    /// Connects and sends the preface with empty settings.
    pub fn connect(address: SocketAddr) -> Raw {
        Raw::with(address, &[])
    }

    /// Connects and sends the preface with these settings.
    pub fn with(address: SocketAddr, settings: &[(u16, u32)]) -> Raw {
        let mut raw = Raw::silent(address);
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat());
        raw
    }

    /// Sends bytes; false if the other side has closed.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// The next frame; `None` at the end of the connection.
    pub fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some([a, b, c, kind, flags, stream @ ..]) = self.input.first_chunk::<9>() {
                let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                let (kind, flags, stream) = (*kind, *flags, u32::from_be_bytes(*stream));
                if self.input.len() >= 9 + length {
                    let payload = self.input[9..9 + length].to_vec();
                    self.input.drain(..9 + length);
                    return Some(Frame { kind, flags, stream, payload });
                }
            }
            let mut piece = [0; 16 * 1024];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(n) => self.input.extend_from_slice(&piece[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    panic!("nothing came")
                }
                Err(_) => return None,
            }
        }
    }

    /// The next frame of a kind.
    pub fn frame_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().expect("a frame before the end");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// What the client is told about a stream, or about the connection.
    pub fn told(&mut self, stream: u32) -> Told {
        while let Some(frame) = self.frame() {
            match frame.kind {
                HEADERS if frame.stream == stream => return Told::Status(frame.status()),
                RST_STREAM if frame.stream == stream => return Told::Reset(frame.word(0)),
                GO_AWAY if frame.word(4) != 0 => {
                    let code = frame.word(4);
                    while self.frame().is_some() {}
                    return Told::GoAway(code);
                }
                _ => {}
            }
        }
        Told::Closed
    }

    /// Reads to the end of the connection: the code of the GOAWAY before it.
    pub fn ended(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.frame() {
            if frame.kind == GO_AWAY {
                code = Some(frame.word(4));
            }
        }
        code
    }
}
