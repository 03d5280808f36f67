//! The binary under drill, as a child process with its own folder.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::client::{Api, Client};
use super::process::Process;
use super::{free_address, until};

/// For a start in a debug build on a busy machine.
const COME_UP: Duration = Duration::from_secs(20);

/// A running `teal run -c FILE`; killed when dropped.
pub struct Teal {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    /// The configuration file.
    pub file: PathBuf,
    folder: PathBuf,
    process: Process,
}

impl Teal {
    /// Teal with a service `shop` of these pools, `more` lines of the service, and `top` lines of the file. State is
    /// on disk, workers are two.
    pub fn shop(folder: &Path, blue: &str, green: &str, more: &str, top: &str) -> Teal {
        let more: String = more.lines().map(|line| format!("    {line}\n")).collect();
        Teal::start(
            folder,
            &format!("{top}\nservices:\n  shop:\n    pools:\n      blue: {blue}\n      green: {green}\n{more}"),
        )
    }

    /// Teal with this configuration, which begins with version, addresses and state.
    pub fn start(folder: &Path, rest: &str) -> Teal {
        Teal::listening(folder, |listen| listen.to_string(), rest)
    }

    /// The same with other listeners; the first is to be at the address that is given. Files that they name are beside
    /// the configuration, see [`Teal::beside`].
    pub fn listening(folder: &Path, listeners: impl FnOnce(SocketAddr) -> String, rest: &str) -> Teal {
        // The file has a folder of its own: what else changes there is taken for a change of the file.
        for name in ["etc", "logs", "state"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        let (listen, admin) = (free_address(), free_address());
        let file = folder.join("etc/teal.yaml");
        let listeners = listeners(listen);
        let text = format!("version: 1\nlisten: {listeners}\nadmin: {admin}\nstate: ../state\nworkers: 2\n{rest}");
        std::fs::write(&file, text).unwrap();
        let process = spawn(folder, &file);
        let mut teal = Teal { listen, admin, file, folder: folder.to_owned(), process };
        teal.ready();
        teal
    }

    /// The folder that its configuration will be in.
    pub fn beside(folder: &Path) -> PathBuf {
        let beside = folder.join("etc");
        std::fs::create_dir_all(&beside).unwrap();
        beside
    }

    /// Waits until it says that it is ready.
    pub fn ready(&mut self) {
        until("teal is ready", COME_UP, || {
            assert!(self.process.ended().is_none(), "teal ended: {}", self.log());
            let answer = Client::connect(self.admin).ok()?.get("/readyz").ok()?;
            (answer.status == 200).then_some(())
        });
    }

    /// A second process of the same configuration, with addresses and a state of its own.
    pub fn successor(&self) -> Teal {
        let (listen, admin) = (free_address(), free_address());
        let folder = self.folder.join("next");
        for name in ["etc", "logs", "state"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        let file = folder.join("etc/teal.yaml");
        let text = std::fs::read_to_string(&self.file).unwrap();
        let text = text.replace(&self.admin.to_string(), &admin.to_string());
        std::fs::write(&file, text.replace(&self.listen.to_string(), &listen.to_string())).unwrap();
        let process = spawn(&folder, &file);
        let mut teal = Teal { listen, admin, file, folder, process };
        teal.ready();
        teal
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again; returns the time from there to its first answer to a client.
    pub fn restart(&mut self) -> Duration {
        let begin = Instant::now();
        self.process = spawn(&self.folder, &self.file);
        until("teal serves again", COME_UP, || {
            assert!(self.process.ended().is_none(), "teal ended: {}", self.log());
            let answer = Client::connect(self.listen).ok()?.get("/?id=0").ok()?;
            (answer.status == 200).then_some(())
        });
        begin.elapsed()
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    pub fn api(&self) -> Api {
        Api::connect(self.admin).expect("the admin API accepts")
    }

    /// Runs a verb of the command line against it.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let admin = format!("http://{}", self.admin);
        teal().args(["--admin", &admin]).args(arguments).output().unwrap()
    }

    /// What it logged; the end of it if that is long.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("logs/teal.log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// The binary without the environment's own `TEAL_*`.
pub fn teal() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_teal"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
    command
}

fn spawn(folder: &Path, file: &Path) -> Process {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("logs/teal.log")).unwrap();
    Process::start(teal().arg("run").arg("-c").arg(file).stdout(Stdio::null()).stderr(log))
}
