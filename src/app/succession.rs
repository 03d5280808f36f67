//! Succession: a process that is replaced by a new one of the same command line, without a connection noticing.
//!
//! Both sides of it. The new process gets every listening socket, so nothing that waits in a queue is lost; then the
//! state, which only one process may have open; then it serves, and only then the old one stops accepting. What goes
//! wrong until there ends the new process, and the old one goes on as if nothing had been. See [`super::pair`] for
//! who says what when.
//!
//! While the state is on its way orders wait: they are done here if the succession fails, and refused with "shutting
//! down" if it succeeds, so that they are asked again of the successor. A rollback does not wait: it is published here
//! at once, and calls the succession off, because the successor would begin with the split before it.
//!
//! Invariant: at any time at most one of the two has the state open, and at least one accepts.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};

use tokio::runtime::Runtime;

use super::inherit::Inherited;
use super::pair::{Pair, Word};
use crate::control::controller::Controller;

/// Tells a process that its standard input leads to the one that it succeeds, by that one's number.
const SUCCEEDS: &str = "TEAL_SUCCEEDS";
/// What was meant for the process before.
const NOT_FOR_IT: [&str; 3] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// How this process was called.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// This process's own. To be asked early: later the file may be another.
    pub(super) fn own() -> io::Result<Program> {
        let mut arguments = std::env::args_os();
        // As it was called, if that was by a path: it may be a link that leads to another version by now.
        let called = arguments.next().map(PathBuf::from).filter(|called| called.components().count() > 1);
        let path = called.map_or_else(std::env::current_exe, Ok)?;
        Ok(Program { path, arguments: arguments.collect() })
    }
}

/// A process that serves in place of this one.
#[derive(Clone, Debug)]
pub(super) struct Successor {
    /// Its number.
    pub(super) process: u32,
    /// Its version.
    pub(super) version: String,
}

/// The hands that a succession needs in this process.
pub(super) struct Hands<'a> {
    pub(super) controller: &'a Controller,
    pub(super) runtime: &'a Runtime,
    pub(super) sockets: &'a [OwnedFd],
}

impl Hands<'_> {
    /// Has this process succeeded by a new one. When this returns, the new one serves.
    ///
    /// # Errors
    /// In words; then this process goes on.
    pub(super) fn succeed(&self, program: &Program) -> Result<Successor, String> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| format!("no socket pair: {error}"))?;
        let mut pair = Pair::new(ours).map_err(|error| error.to_string())?;
        let mut child = start(program, theirs)?;
        let mut has_state = true;
        let version = self.converse(&mut pair, &mut has_state);
        match version {
            Ok(version) => Ok(Successor { process: child.id(), version }),
            Err(why) => {
                drop(pair);
                let why = end(&mut child, why);
                if !has_state {
                    self.runtime.block_on(self.controller.reclaim_state());
                }
                Err(why)
            }
        }
    }

    fn converse(&self, pair: &mut Pair, has_state: &mut bool) -> Result<String, Ending> {
        let sockets: Vec<_> = self.sockets.iter().map(AsFd::as_fd).collect();
        pair.give(&sockets)?;
        pair.expect(Word::AwaitsState)?;
        let released = self.runtime.block_on(self.controller.release_state());
        released.map_err(|refusal| Ending::Here(refusal.to_string()))?;
        *has_state = false;
        pair.say(Word::State, "")?;
        pair.expect(Word::Prepared)?;
        if self.controller.is_overtaken() {
            return Err(Ending::Here("traffic was rolled back meanwhile: that came first".to_owned()));
        }
        pair.say(Word::Serve, "")?;
        Ok(pair.expect(Word::Serves)?)
    }
}

/// Why there is no successor.
enum Ending {
    /// What the new process said, or that it said nothing.
    There(io::Error),
    /// A reason of this process.
    Here(String),
}

impl From<io::Error> for Ending {
    fn from(error: io::Error) -> Ending {
        Ending::There(error)
    }
}

fn start(program: &Program, input: UnixStream) -> Result<Child, String> {
    let mut command = Command::new(&program.path);
    command.args(&program.arguments).env(SUCCEEDS, std::process::id().to_string()).stdin(OwnedFd::from(input));
    for name in NOT_FOR_IT {
        command.env_remove(name);
    }
    command.spawn().map_err(|error| format!("{} does not start: {error}", program.path.display()))
}

/// Sees to it that the new process is gone, and says why there is none.
fn end(child: &mut Child, why: Ending) -> String {
    // It may have ended by itself: then this says how.
    let ended = child.try_wait().ok().flatten();
    let _ = child.kill();
    let last = child.wait().ok();
    match why {
        Ending::Here(why) => why,
        Ending::There(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let how = ended.or(last).map_or_else(String::new, |status| format!(" ({status})"));
            format!("the new process ended before it served{how}; its log says why")
        }
        Ending::There(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            "the new process did not come up in time".to_owned()
        }
        Ending::There(error) => format!("the new process refused: {error}"),
    }
}

/// The process that this one is to succeed.
#[derive(Debug)]
pub struct Predecessor(Pair);

impl Predecessor {
    /// Whoever started this process to be succeeded by it.
    ///
    /// # Errors
    /// When it cannot be spoken to.
    pub fn find() -> io::Result<Option<Predecessor>> {
        let named = std::env::var(SUCCEEDS).ok().and_then(|number| number.parse().ok());
        // Of a process further up it says nothing.
        if named != Some(std::os::unix::process::parent_id()) {
            return Ok(None);
        }
        let input = std::io::stdin().as_fd().try_clone_to_owned()?;
        Pair::new(UnixStream::from(input)).map(|pair| Some(Predecessor(pair)))
    }

    /// Says why it will not be succeeded.
    pub fn fail(&mut self, why: &str) {
        // It may be gone; nobody else would care.
        let _ = self.0.say(Word::Failed, why);
    }

    /// Its listening sockets.
    pub(super) fn sockets(&mut self) -> io::Result<Inherited> {
        Inherited::from_predecessor(self.0.take()?)
    }

    /// Waits until the state is free.
    pub(super) fn await_state(&mut self) -> io::Result<()> {
        self.0.say(Word::AwaitsState, "")?;
        self.0.expect(Word::State).map(drop)
    }

    /// Waits for the word to serve.
    pub(super) fn await_word(&mut self) -> io::Result<()> {
        self.0.say(Word::Prepared, "")?;
        self.0.expect(Word::Serve).map(drop)
    }

    /// Says that it is succeeded.
    pub(super) fn serves(&mut self) -> io::Result<()> {
        self.0.say(Word::Serves, env!("CARGO_PKG_VERSION"))
    }
}
