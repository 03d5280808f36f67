//! nginx as an upstream, with a configuration and an unbuffered access log of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::client::Client;
use super::load::PADDING;
use super::process::{Process, peer};
use super::{free_address, until};

/// A running nginx: one process, gone when dropped.
pub struct Nginx {
    pub address: SocketAddr,
    folder: PathBuf,
    process: Process,
}

/// A line of its access log.
#[derive(Debug)]
pub struct Line {
    /// When the request's first byte was read, in wall-clock seconds; to the millisecond.
    pub arrived: f64,
    pub method: String,
    pub id: u64,
}

/// An answer that names pool and request, for a configuration's `return`.
pub fn answer(pool: &str) -> String {
    format!("return 200 \"{pool} $arg_id {}\";", "x".repeat(PADDING))
}

impl Nginx {
    /// nginx as pool `name`, with more lines for the `http` and the `server` block.
    pub fn start(folder: &Path, name: &str, http: &str, server: &str) -> Nginx {
        let folder = folder.join(name);
        std::fs::create_dir_all(folder.join("files")).unwrap();
        let address = free_address();
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = kinds.iter().map(|kind| format!("{kind}_temp_path temp-{kind};\n")).collect();
        let text = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log warn;\n\
             events {{ worker_connections 2048; }}\n\
             http {{\n{temporary}default_type text/plain;\n\
             log_format drill '$msec $request_time $request_method $arg_id';\naccess_log access.log drill;\n{http}\n\
             server {{\nlisten {address} backlog=1024;\nroot files;\n{server}\n}}\n}}\n"
        );
        std::fs::write(folder.join("nginx.conf"), text).unwrap();
        let prefix = format!("{}/", folder.display());
        let log = std::fs::File::create(folder.join("stderr.log")).unwrap();
        let mut command = Command::new(peer("nginx", "nginx"));
        command.args(["-p", &prefix, "-e", "error.log", "-c", "nginx.conf"]).stdin(Stdio::null());
        let process = Process::start(command.stdout(Stdio::null()).stderr(log));
        let mut nginx = Nginx { address, folder, process };
        until("nginx answers", Duration::from_secs(10), || {
            assert!(nginx.process.ended().is_none(), "nginx ended: {}", nginx.complaints());
            Client::connect(address).ok().and_then(|mut client| client.get("/?id=0").ok())
        });
        nginx
    }

    /// The peer `name` that answers every request with [`answer`].
    pub fn plain(folder: &Path, name: &str, server: &str) -> Nginx {
        Nginx::start(folder, name, "", &format!("{server}\nlocation / {{ {} }}", answer(name)))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The folder that it serves files from.
    pub fn files(&self) -> PathBuf {
        self.folder.join("files")
    }

    /// Ends it and returns its access log: the requests of the load, without checks.
    pub fn finish(mut self) -> Vec<Line> {
        self.process.signal("QUIT");
        self.process.wait(Duration::from_secs(10));
        let text = std::fs::read_to_string(self.folder.join("access.log")).unwrap();
        text.lines().filter_map(parse).filter(|line| line.id != 0).collect()
    }

    fn complaints(&self) -> String {
        let read = |name| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        read("error.log") + &read("stderr.log")
    }
}

fn parse(line: &str) -> Option<Line> {
    let mut words = line.split(' ');
    let (ended, took): (f64, f64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let method = words.next()?.to_owned();
    Some(Line { arrived: ended - took, method, id: words.next()?.parse().ok()? })
}

/// How often each request of `method` reached the upstreams.
pub fn arrivals<'a>(logs: impl IntoIterator<Item = &'a [Line]>, method: &str) -> BTreeMap<u64, u32> {
    let mut counts = BTreeMap::new();
    for line in logs.into_iter().flatten().filter(|line| line.method == method) {
        *counts.entry(line.id).or_default() += 1;
    }
    counts
}
