//! Python with a package from PyPI: a virtual environment for each, made once and kept with the build.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use super::process::peer;

/// A Python that can import `module`, which `package` (a requirement with its version) brings.
pub fn python_with(package: &str, module: &str) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    // Another test may have failed here: what it left is tried out below.
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("peers-python-{module}"));
    let python = folder.join("bin/python");
    let has = |python: &Path| {
        let found = Command::new(python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    };
    if has(&python) {
        return python;
    }
    let made =
        Command::new(peer("python3", "python3 python3-venv")).args(["-m", "venv"]).arg(&folder).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(made.status.success(), "no virtual environment (package python3-venv?): {}", text(&made.stdout));
    let pip = Command::new(&python).args(["-m", "pip", "install", "-q", package]).output().unwrap();
    assert!(pip.status.success() && has(&python), "`pip install {package}` failed: {}", text(&pip.stderr));
    python
}
