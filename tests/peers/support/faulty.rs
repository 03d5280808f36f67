//! An upstream of the drills' own that fails on demand, as a process of its own so that it can be killed.
//!
//! It is this very test binary, started anew for one "test" that serves. Orders go in by its standard input, each
//! acknowledged once it is in force; what reached it stands in a file, line by line, so that a `kill -9` takes nothing
//! of that away.
//!
//! Invariant: every request whose head was read is in the log before anything is done about it.

mod server;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use super::free_address;
use super::process::Process;

/// Says that a process is such an upstream, and which.
const ROLE: &str = "TEAL_DRILL_FAULTY";
/// Begins the lines that are for us: the test harness prints some of its own.
const MARK: &str = "faulty:";

/// What it does with requests. Shares are in percent of the requests that have an id; checks of health and the load of
/// wrk and h2load have none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Behaviour {
    /// Answers.
    Answer,
    /// Reads requests and never answers them.
    Hang,
    /// Accepts and reads nothing.
    Deaf,
    /// Begins answers, and breaks the connection in the middle of the body.
    Cut(u32),
    /// Answers 500.
    Fail(u32),
    /// Breaks the connection at a random point, from before the request is read to after it was answered.
    Break(u32),
}

impl Behaviour {
    fn words(self) -> (&'static str, u32) {
        match self {
            Behaviour::Answer => ("answer", 0),
            Behaviour::Hang => ("hang", 100),
            Behaviour::Deaf => ("deaf", 100),
            Behaviour::Cut(share) => ("cut", share),
            Behaviour::Fail(share) => ("fail", share),
            Behaviour::Break(share) => ("break", share),
        }
    }

    fn parse(word: &str, share: u32) -> Option<Behaviour> {
        let all = [
            Behaviour::Answer,
            Behaviour::Hang,
            Behaviour::Deaf,
            Behaviour::Cut(share),
            Behaviour::Fail(share),
            Behaviour::Break(share),
        ];
        all.into_iter().find(|behaviour| behaviour.words().0 == word)
    }
}

/// A request that reached it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// When its head was read, in wall-clock seconds.
    pub arrived: f64,
    pub post: bool,
    pub id: u64,
    /// When its answer had been written whole, and its status.
    pub answered: Option<(f64, u16)>,
}

/// One such upstream; killed when dropped.
pub struct Faulty {
    pub address: SocketAddr,
    name: String,
    delay: Duration,
    seed: u64,
    log: PathBuf,
    running: Option<Running>,
}

struct Running {
    process: Process,
    orders: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Faulty {
    /// Starts one that answers as the load expects it, as pool `name`, each answer after `delay`. What it does by
    /// chance follows from `seed` and the order in which requests arrive.
    pub fn start(folder: &Path, name: &str, delay: Duration, seed: u64) -> Faulty {
        let address = free_address();
        let log = folder.join(format!("faulty-{}.log", address.port()));
        let running = Some(Running::start(&format!("{name} {address} {} {seed}", delay.as_micros()), &log));
        Faulty { address, name: name.to_owned(), delay, seed, log, running }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From when this returns every new request is treated like this.
    pub fn behave(&mut self, behaviour: Behaviour) {
        let (word, share) = behaviour.words();
        self.running.as_mut().expect("it runs").order(&format!("{word} {share}"));
    }

    /// `kill -9`; returns once it is gone.
    pub fn kill(&mut self) {
        self.running.take().expect("it runs").process.kill();
    }

    /// Starts it again at the same address, where it answers.
    pub fn restart(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let Faulty { name, address, delay, seed, .. } = self;
        self.running = Some(Running::start(&format!("{name} {address} {} {seed}", delay.as_micros()), &self.log));
    }

    /// What reached it so far, in order, over all its lives.
    pub fn seen(&self) -> Vec<Seen> {
        let text = std::fs::read_to_string(&self.log).unwrap();
        let (mut seen, mut at) = (Vec::<Seen>::new(), BTreeMap::new());
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            // A line that is being written now is not there yet.
            match words[..] {
                [">", time, method, id, "."] => {
                    let id = id.parse().unwrap();
                    at.insert(id, seen.len());
                    seen.push(Seen { arrived: time.parse().unwrap(), post: method == "POST", id, answered: None });
                }
                ["<", time, status, id, "."] => {
                    let index = at[&id.parse::<u64>().unwrap()];
                    seen[index].answered = Some((time.parse().unwrap(), status.parse().unwrap()));
                }
                _ => {}
            }
        }
        seen
    }
}

impl Running {
    fn start(role: &str, log: &Path) -> Running {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "support::faulty::serves_if_started_for_it", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, format!("{role} {}", log.display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command);
        let (orders, told) = process.pipes();
        let mut running = Running { process, orders, told: BufReader::new(told) };
        running.acknowledged();
        running
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
        self.acknowledged();
    }

    fn acknowledged(&mut self) {
        let mut line = String::new();
        while !line.starts_with(MARK) {
            line.clear();
            assert!(self.told.read_line(&mut line).unwrap() > 0, "the faulty upstream ended");
        }
    }
}

/// How often each POST reached these upstreams.
pub fn posts<'a>(logs: impl IntoIterator<Item = &'a [Seen]>) -> BTreeMap<u64, u32> {
    let mut counts = BTreeMap::new();
    for seen in logs.into_iter().flatten().filter(|seen| seen.post) {
        *counts.entry(seen.id).or_default() += 1;
    }
    counts
}

/// Not a test: the other process. Without its role there is nothing to do.
#[test]
fn serves_if_started_for_it() {
    if let Ok(role) = std::env::var(ROLE) {
        server::run(&role);
    }
}
