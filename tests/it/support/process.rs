//! Teal as a process of its own, for what a process has: descriptors, threads, processor time.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::Client;

/// A running `teal run`; killed when dropped.
pub struct Process {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where its admin API answers.
    pub admin: SocketAddr,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
}

impl Process {
    /// Teal with this configuration, after the shell has done `before`, such as `ulimit -n 64`.
    pub fn start(before: &str, text: &str) -> Process {
        Process::with_input(before, text, Stdio::null())
    }

    /// The same with something to read from.
    pub fn with_input(before: &str, text: &str, input: Stdio) -> Process {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("teal.yaml");
        std::fs::write(&file, text).unwrap();
        let mut child = Command::new("sh")
            .args(["-c", &format!("{before} && exec \"$0\" run -c \"$1\""), env!("CARGO_BIN_EXE_teal")])
            .arg(&file)
            .env_clear()
            .stdin(input)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (Arc::clone(&log), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| lines.lock().unwrap().push(line));
        });
        let mut process =
            Process { listen: SocketAddr::from(([0; 4], 0)), admin: SocketAddr::from(([0; 4], 0)), child, log, folder };
        process.until("it serves", |process| !process.logged("serving").is_empty());
        let serving = process.logged("serving").remove(0);
        let address = |key: &str| serving.split(key).nth(1)?.split(' ').next()?.parse().ok();
        process.listen = address("listen=").unwrap_or_else(|| panic!("{serving}"));
        process.admin = address("admin=").unwrap_or_else(|| panic!("{serving}"));
        process
    }

    /// Waits until `done` says so, at most half a minute; fails if the process ends.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&Process) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            assert!(begin.elapsed() < Duration::from_secs(30), "never: {what}\n{:?}", self.logged(""));
            assert!(self.is_running(), "it ended before {what}\n{:?}", self.logged(""));
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes its configuration anew.
    pub fn write(&self, text: &str) {
        std::fs::write(self.folder.path().join("teal.yaml"), text).unwrap();
    }

    /// True as long as it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The lines of its log so far that say this.
    pub fn logged(&self, what: &str) -> Vec<String> {
        self.log.lock().unwrap().iter().filter(|line| line.contains(what)).cloned().collect()
    }

    /// A new client connection.
    pub fn client(&self) -> Client {
        Client::connect(self.listen)
    }

    /// The processor time that it uses while a busy loop gets so much, both in hundredths of a second (`USER_HZ`). On
    /// a crowded machine, where time by the wall says little, one of its threads that spins gets as much as the loop.
    pub fn spends_while_spinning(&self, ticks: u64) -> u64 {
        let own = || ticks_of(&std::fs::read_to_string("/proc/thread-self/stat").unwrap());
        let (begin, before) = (own(), self.ticks());
        while own() < begin + ticks {
            (0..100_000).for_each(|_| std::hint::spin_loop());
        }
        self.ticks() - before
    }

    /// The processor time of all its threads so far.
    fn ticks(&self) -> u64 {
        let tasks = std::fs::read_dir(self.of("task")).unwrap();
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
        stats.map(|stat| ticks_of(&stat)).sum()
    }

    /// Its soft and hard limit of open files.
    pub fn descriptors(&self) -> (u64, u64) {
        let limits = std::fs::read_to_string(self.of("limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// Its resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(self.of("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    fn of(&self, file: &str) -> std::path::PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(file)
    }
}

/// Waits until `done` says so, at most half a minute: the machine may be busy.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(30), "never: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The 14th and 15th field; the second is a name in parentheses and may hold blanks.
fn ticks_of(stat: &str) -> u64 {
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
