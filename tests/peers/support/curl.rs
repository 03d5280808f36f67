//! curl, asked to say what it got.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::process::peer;

/// Runs curl in `folder`, for at most a minute, without the environment's own proxies.
pub fn curl(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(peer("curl", "curl"))
        .args(["-sS", "--max-time", "60", "--noproxy", "*"])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What it wrote; fails if it failed.
pub fn said(folder: &Path, arguments: &[&str]) -> String {
    let output = curl(folder, arguments);
    assert!(output.status.success(), "curl {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
