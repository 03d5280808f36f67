//! A Python with the clients that are packages of their own: made once, kept with the build.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::process::peer;

/// What is installed, and how it is asked for.
const PACKAGES: [&str; 2] = ["websockets==15.0.1", "httpx[http2]==0.28.1"];
const HAS_ALL: &str = "import websockets, httpx, h2";

/// The interpreter.
pub fn python() -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers-python");
    let python = folder.join("bin/python");
    let has_all = || {
        let found = Command::new(&python).args(["-c", HAS_ALL]).stderr(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    };
    if has_all() {
        return python;
    }
    let run = |command: &mut Command, what: &str| {
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let maker = peer("python3", "python3 python3-venv");
    run(Command::new(maker).args(["-m", "venv"]).arg(&folder), "no virtual environment (package python3-venv?)");
    run(Command::new(&python).args(["-m", "pip", "install", "-q"]).args(PACKAGES), "`pip install` failed");
    assert!(has_all(), "{HAS_ALL}");
    python
}
