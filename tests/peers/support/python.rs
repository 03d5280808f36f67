//! Python with packages that Debian does not have: made once, kept with the build.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::process::peer;

/// A Python that can import `module`, which `requirement` installs.
pub fn with(module: &str, requirement: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers-python");
    let python = folder.join("bin/python");
    let has = || {
        let found = Command::new(&python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    };
    if has() {
        return python;
    }
    if !python.exists() {
        let venv = Command::new(peer("python3", "python3 python3-venv")).args(["-m", "venv"]).arg(&folder).output();
        let said = String::from_utf8_lossy(&venv.as_ref().unwrap().stdout).into_owned();
        assert!(venv.unwrap().status.success(), "no virtual environment (package python3-venv?): {said}");
    }
    let pip = Command::new(&python).args(["-m", "pip", "install", "-q", requirement]).output().unwrap();
    let said = String::from_utf8_lossy(&pip.stderr);
    assert!(pip.status.success() && has(), "`pip install {requirement}` failed: {said}");
    python
}
