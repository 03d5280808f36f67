//! An upstream that speaks HTTP/2 frame by frame, for what no library would say.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// Frame types (RFC 9113 section 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;

/// The flag that ends a stream, and that of an acknowledgement.
pub const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200` as HPACK has it in its table.
const OK: u8 = 0x88;

/// One connection.
pub struct Frames(TcpStream);

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frames {
    /// The next frame.
    pub fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        self.0.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Sends a frame.
    pub fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        self.0.write_all(&frame)
    }

    /// Waits for the next frame of a kind, acknowledging settings and, if `pongs`, pings on the way.
    pub fn await_kind(&mut self, kind: u8, pongs: bool) -> io::Result<Frame> {
        loop {
            let frame = self.read()?;
            match frame.kind {
                SETTINGS if frame.flags == 0 => self.write(SETTINGS, 1, 0, &[])?,
                PING if frame.flags == 0 && pongs => self.write(PING, 1, 0, &frame.payload)?,
                _ => {}
            }
            if frame.kind == kind {
                return Ok(frame);
            }
        }
    }

    /// Waits for a request to arrive whole, and returns its stream.
    pub fn request(&mut self) -> io::Result<u32> {
        let head = self.await_kind(HEADERS, true)?;
        let mut flags = head.flags;
        while flags & END_STREAM == 0 {
            flags = self.await_kind(DATA, true)?.flags;
        }
        Ok(head.stream)
    }

    /// Answers 200 with a body.
    pub fn answer(&mut self, stream: u32, body: &[u8]) -> io::Result<()> {
        self.write(HEADERS, END_HEADERS, stream, &[OK])?;
        self.write(DATA, END_STREAM, stream, body)
    }

    /// Says that streams behind `last` were not and will not be processed.
    pub fn go_away(&mut self, last: u32, error: u32) -> io::Result<()> {
        self.write(GOAWAY, 0, 0, &[last.to_be_bytes(), error.to_be_bytes()].concat())
    }
}

/// A running upstream. Its threads end with their connections.
pub struct Framed {
    /// Where it listens.
    pub address: SocketAddr,
    connections: Arc<AtomicU64>,
}

impl Framed {
    /// An upstream that plays `scene` on every connection, counted from 1, once settings were exchanged.
    pub fn start(scene: impl Fn(&mut Frames, u64) -> io::Result<()> + Send + Sync + 'static) -> Framed {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU64::new(0));
        let (counted, scene) = (Arc::clone(&connections), Arc::new(scene));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let number = counted.fetch_add(1, SeqCst) + 1;
                let scene = Arc::clone(&scene);
                std::thread::spawn(move || {
                    stream.set_nodelay(true).unwrap();
                    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    let mut frames = Frames(stream);
                    let mut preface = [0; 24];
                    let begun = frames.0.read_exact(&mut preface);
                    let _ = begun
                        .and_then(|()| frames.write(SETTINGS, 0, 0, &[]))
                        .and_then(|()| scene(&mut frames, number));
                });
            }
        });
        Framed { address, connections }
    }

    /// A pool of it alone, as the configuration says it.
    pub fn pool(&self) -> String {
        format!("{{ endpoints: [http://{}], protocol: h2 }}", self.address)
    }

    /// Connections accepted.
    pub fn connections(&self) -> u64 {
        self.connections.load(SeqCst)
    }
}
