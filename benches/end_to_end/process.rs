//! Child processes: pinned, and gone when their owner is.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::stage::{Stage, told};

/// For a start on a busy machine; Envoy is the slowest.
const COME_UP: Duration = Duration::from_secs(20);
/// Between the polite end and the other one.
const END: Duration = Duration::from_secs(5);

/// A running child; ended by its id when dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
}

/// A command that will run on `cores`, such as `0` or `0,1`, ahead of what else wants them.
pub(crate) fn pinned(stage: &Stage, cores: &str, program: &Path) -> Command {
    let mut command = Command::new(stage.path("bin/pin"));
    command.arg(cores).arg(program).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

impl Process {
    /// Starts `command`; what it complains about goes to `logs/NAME.log`.
    pub(crate) fn start(stage: &Stage, name: &str, command: &mut Command) -> Outcome<Process> {
        let log = told("log", File::create(stage.path(&format!("logs/{name}.log"))))?;
        let child = told(name, command.stderr(log).spawn())?;
        Ok(Process { child, name: name.to_owned() })
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits until it accepts connections.
    pub(crate) fn accepts(&mut self, stage: &Stage, port: u16) -> Outcome<()> {
        let begin = Instant::now();
        while !is_open(port) {
            if told(&self.name, self.child.try_wait())?.is_some() {
                let log = std::fs::read_to_string(stage.path(&format!("logs/{}.log", self.name))).unwrap_or_default();
                return Err(format!("{} ended at its start:\n{log}", self.name));
            }
            if begin.elapsed() > COME_UP {
                return Err(format!("{} does not accept connections at port {port}", self.name));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn ends_within(&mut self, limit: Duration) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A master process takes its workers with it only if it is asked.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).stderr(Stdio::null()).status();
        if !self.ends_within(END) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Refuses a port that somebody else has: what answered there would be measured instead.
pub(crate) fn is_free(port: u16) -> Outcome<()> {
    let taken = || format!("something listens on 127.0.0.1:{port} already: does another run go on?");
    (!is_open(port)).then_some(()).ok_or_else(taken)
}

fn is_open(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}
