//! A child process that is gone when its owner is.

use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};
use std::time::Duration;

use super::until;

/// A running child; killed by its id when dropped.
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command`.
    pub fn start(command: &mut Command) -> Process {
        Process { child: command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}")) }
    }

    /// Its standard input and output; the command must have asked for both.
    pub fn pipes(&mut self) -> (ChildStdin, ChildStdout) {
        (self.child.stdin.take().unwrap(), self.child.stdout.take().unwrap())
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -\"$0\" \"$1\"", name, &id]).status().unwrap();
        assert!(sent.success(), "SIG{name} was not sent");
    }

    /// Ends it without a warning (SIGKILL) and collects it.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end, at most `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        until("the end of a child process", limit, || self.ended())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Where a peer is; a missing one fails the drill.
pub fn peer(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("this drill needs `{program}`: install the package `{package}`"))
}
