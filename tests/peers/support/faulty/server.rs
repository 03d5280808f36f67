//! The faulty upstream's own side: HTTP/1.1 by hand, a thread for each connection.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::load::PADDING;
use super::super::pace;
use super::{Behaviour, MARK};

/// Before a cut, so that what was written is not taken back by the reset: the client is to see the beginning.
const LINGER: Duration = Duration::from_millis(20);

struct Server {
    name: String,
    delay: Duration,
    seed: u64,
    log: File,
    behaviour: Mutex<Behaviour>,
    /// Requests with an id so far.
    turn: AtomicU64,
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Answered,
    Failed,
    Hung,
    /// Breaks in the middle of the answer's body.
    Cut,
    Broken(Point),
}

/// Where a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Point {
    /// Bytes are there, none was read as a request.
    Unread,
    /// The head was read, the body was not.
    Head,
    /// The request was read whole.
    Whole,
    /// Within the head of the answer.
    AnswerHead,
    /// Within its body.
    AnswerBody,
    /// Behind it, without notice.
    Answered,
}

const POINTS: [Point; 6] =
    [Point::Unread, Point::Head, Point::Whole, Point::AnswerHead, Point::AnswerBody, Point::Answered];

/// Serves until its standard input ends.
pub(super) fn run(role: &str) {
    let mut words = role.splitn(5, ' ');
    let mut word = || words.next().unwrap();
    let (name, address, delay, seed, log) = (word(), word(), word(), word(), word());
    let server = Arc::new(Server {
        name: name.to_owned(),
        delay: Duration::from_micros(delay.parse().unwrap()),
        seed: seed.parse().unwrap(),
        log: File::options().create(true).append(true).open(log).unwrap(),
        behaviour: Mutex::new(Behaviour::Answer),
        turn: AtomicU64::new(0),
    });
    let listener = TcpListener::bind(address).unwrap();
    let serving = Arc::clone(&server);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let server = Arc::clone(&serving);
            std::thread::spawn(move || {
                let socket = stream.try_clone().unwrap();
                // Whatever ends a connection is an end as good as any.
                let _ = server.serve(stream);
                let _ = socket.shutdown(Shutdown::Both);
            });
        }
    });
    acknowledge();
    for order in io::stdin().lock().lines().map_while(Result::ok) {
        let (word, share) = order.split_once(' ').unwrap();
        *server.behaviour.lock().unwrap() = Behaviour::parse(word, share.parse().unwrap()).unwrap();
        acknowledge();
    }
    std::process::exit(0);
}

/// The harness may have left its line open: ours begins on a new one.
fn acknowledge() {
    let mut out = io::stdout().lock();
    writeln!(out, "\n{MARK}").and_then(|()| out.flush()).unwrap();
}

fn wall() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

struct Head {
    post: bool,
    id: u64,
    length: Option<usize>,
    closes: bool,
}

impl Server {
    fn behaviour(&self) -> Behaviour {
        *self.behaviour.lock().unwrap()
    }

    fn note(&self, sign: &str, what: &str, id: u64) {
        // One write for one line: lines of other threads and lives do not mix with it.
        let line = format!("{sign} {:.6} {what} {id} .\n", wall());
        (&self.log).write_all(line.as_bytes()).unwrap();
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut input = BufReader::new(stream.try_clone()?);
        loop {
            while self.behaviour() == Behaviour::Deaf {
                pace(Duration::from_millis(10));
            }
            if input.fill_buf()?.is_empty() {
                return Ok(());
            }
            if self.behaviour() == Behaviour::Deaf {
                continue;
            }
            let fate = self.fate();
            if fate == Fate::Broken(Point::Unread) {
                return reset(&stream);
            }
            let Some(head) = head(&mut input)? else { return Ok(()) };
            if head.id != 0 {
                self.turn.fetch_add(1, SeqCst);
                self.note(">", if head.post { "POST" } else { "GET" }, head.id);
            }
            let is_counted = head.id != 0 || fate == Fate::Hung;
            let fate = if is_counted { fate } else { Fate::Answered };
            if fate == Fate::Broken(Point::Head) {
                return reset(&stream);
            }
            body(&mut input, head.length)?;
            if !self.answer(&stream, &head, fate)? || head.closes {
                return Ok(());
            }
        }
    }

    /// Draws what happens to the request that is coming. By its turn, so that the same seed gives the same course, but
    /// where connections break: their turns must not stand still while nothing is read as a request.
    fn fate(&self) -> Fate {
        let breaks = matches!(self.behaviour(), Behaviour::Break(_));
        let turn = if breaks { self.turn.fetch_add(1, SeqCst) } else { self.turn.load(SeqCst) };
        let mut dice = fastrand::Rng::with_seed(self.seed ^ turn.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (_, share) = self.behaviour().words();
        if dice.u32(0..100) >= share {
            return Fate::Answered;
        }
        match self.behaviour() {
            Behaviour::Answer | Behaviour::Deaf => Fate::Answered,
            Behaviour::Hang => Fate::Hung,
            Behaviour::Cut(_) => Fate::Cut,
            Behaviour::Fail(_) => Fate::Failed,
            Behaviour::Break(_) => Fate::Broken(POINTS[dice.usize(..POINTS.len())]),
        }
    }

    /// Returns whether the connection goes on.
    fn answer(&self, stream: &TcpStream, head: &Head, fate: Fate) -> io::Result<bool> {
        let mut out = stream;
        pace(self.delay);
        let status = if fate == Fate::Failed { 500 } else { 200 };
        let bytes = said(&self.name, head.id, status);
        let upto = match fate {
            Fate::Hung => {
                // Until the other side has had enough.
                io::copy(&mut &*stream, &mut io::sink())?;
                return Ok(false);
            }
            Fate::Broken(Point::Whole) => 0,
            Fate::Broken(Point::AnswerHead) => 20,
            Fate::Broken(Point::AnswerBody) | Fate::Cut => bytes.len() - PADDING / 2,
            _ => bytes.len(),
        };
        out.write_all(&bytes[..upto])?;
        if upto < bytes.len() {
            if upto > 0 {
                pace(LINGER);
            }
            // Half of them in order, as a process that ends does it, the others by a reset.
            return if head.id & 2 == 0 { Ok(false) } else { reset(stream).map(|()| false) };
        }
        if head.id != 0 {
            self.note("<", &status.to_string(), head.id);
        }
        Ok(fate != Fate::Broken(Point::Answered))
    }
}

/// What the load expects: with a length for even ids, in chunks for odd ones.
fn said(name: &str, id: u64, status: u16) -> Vec<u8> {
    let body = format!("{name} {id} {}", "x".repeat(PADDING));
    let head = format!("HTTP/1.1 {status} Drilled\r\nContent-Type: text/plain\r\n");
    if id & 1 == 0 {
        return format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    }
    let (begin, end) = body.split_at(body.len() - PADDING / 2);
    let (first, second) = (begin.len(), end.len());
    format!("{head}Transfer-Encoding: chunked\r\n\r\n{first:x}\r\n{begin}\r\n{second:x}\r\n{end}\r\n0\r\n\r\n")
        .into_bytes()
}

/// Ends the connection by a reset, whatever is still on its way.
fn reset(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Reads a head; none at the end of the connection.
fn head(input: &mut BufReader<TcpStream>) -> io::Result<Option<Head>> {
    let mut head = Head { post: false, id: 0, length: Some(0), closes: false };
    let (mut line, mut is_first) = (String::new(), true);
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let text = line.trim_end().to_ascii_lowercase();
        if is_first {
            head.post = text.starts_with("post ");
            let id = text.split_once("?id=").and_then(|(_, rest)| rest.split([' ', '&']).next());
            head.id = id.and_then(|id| id.parse().ok()).unwrap_or(0);
            is_first = false;
        } else if let Some(value) = text.strip_prefix("content-length:") {
            head.length = Some(value.trim().parse().map_err(io::Error::other)?);
        } else if text.starts_with("transfer-encoding:") {
            head.length = None;
        } else if text.starts_with("connection:") && text.contains("close") {
            head.closes = true;
        } else if text.is_empty() {
            return Ok(Some(head));
        }
    }
}

/// Reads a body of that length, or in chunks.
fn body(input: &mut BufReader<TcpStream>, length: Option<usize>) -> io::Result<()> {
    if let Some(length) = length {
        return input.read_exact(&mut vec![0; length]);
    }
    let mut line = String::new();
    loop {
        line.clear();
        input.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        input.read_exact(&mut vec![0; size + 2])?;
        if size == 0 {
            return Ok(());
        }
    }
}
