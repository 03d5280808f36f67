//! wrk and h2load: load by others, who count in their own way.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::process::{Process, peer};

/// Either of them at work.
pub struct Hammer {
    process: Process,
    out: PathBuf,
    is_wrk: bool,
}

/// What it counted.
#[derive(Debug, PartialEq, Eq)]
pub struct Struck {
    pub answered: u64,
    /// Answers that were not a 2xx or 3xx.
    pub wrong: u64,
    /// Connections that could not be opened.
    pub refused: u64,
    /// Requests that were begun and not answered, of all kinds.
    pub broken: u64,
}

impl Hammer {
    /// Starts wrk over so many connections, for a minute or until it is stopped.
    pub fn wrk(folder: &Path, address: SocketAddr, connections: u32) -> Hammer {
        let mut command = Command::new(peer("wrk", "wrk"));
        command.args(["-t1", &format!("-c{connections}"), "-d60s"]);
        Hammer::start(command, folder.join("wrk.txt"), address, true)
    }

    /// Starts h2load over so many HTTP/2 connections of ten streams, for `time`.
    pub fn h2load(folder: &Path, address: SocketAddr, connections: u32, time: Duration) -> Hammer {
        let mut command = Command::new(peer("h2load", "nghttp2-client"));
        command.args([&format!("-c{connections}"), "-m10", "-t1", &format!("-D{}", time.as_secs())]);
        Hammer::start(command, folder.join("h2load.txt"), address, false)
    }

    fn start(mut command: Command, out: PathBuf, address: SocketAddr, is_wrk: bool) -> Hammer {
        let file = File::create(&out).unwrap();
        command.arg(format!("http://{address}/?id=0")).stdin(Stdio::null());
        let process = Process::start(command.stderr(file.try_clone().unwrap()).stdout(file));
        Hammer { process, out, is_wrk }
    }

    /// Asks for the figures so far (wrk) or waits for the end (h2load).
    pub fn stop(mut self) -> (Struck, String) {
        if self.is_wrk {
            self.process.signal("INT");
        }
        assert!(self.process.wait(Duration::from_secs(70)).success());
        let text = std::fs::read_to_string(&self.out).unwrap();
        let struck = if self.is_wrk { of_wrk(&text) } else { of_h2load(&text) };
        (struck.unwrap_or_else(|| panic!("not understood: {text}")), text)
    }
}

/// The number before or after a word, as `12 done` or `read 3`.
fn before(text: &str, word: &str) -> Option<u64> {
    text.split(", ").find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
}

fn of_wrk(text: &str) -> Option<Struck> {
    let line = |begin: &str| text.lines().find_map(|line| line.trim().strip_prefix(begin));
    let answered = text.lines().find_map(|line| line.trim().split_once(" requests in"))?.0.parse().ok()?;
    let wrong = line("Non-2xx or 3xx responses: ").map_or(Some(0), |count| count.parse().ok())?;
    let errors = line("Socket errors: ").unwrap_or("connect 0, read 0, write 0, timeout 0");
    let of = |word: &str| errors.split(", ").find_map(|part| part.strip_prefix(word)?.trim().parse::<u64>().ok());
    Some(Struck { answered, wrong, refused: of("connect")?, broken: of("read")? + of("write")? + of("timeout")? })
}

fn of_h2load(text: &str) -> Option<Struck> {
    let requests = text.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let status = text.lines().find_map(|line| line.strip_prefix("status codes: "))?;
    let good = before(status, "2xx")?;
    let wrong = before(status, "3xx")? + before(status, "4xx")? + before(status, "5xx")?;
    let broken = before(requests, "errored")? + before(requests, "timeout")?;
    Some(Struck { answered: good + wrong, wrong, refused: 0, broken })
}
