//! Watching the configuration file: a change on disk is a reload.
//!
//! The folder is watched, not the file: editors and Kubernetes replace files by renames and symlink swaps, after
//! which a watch on the old file would stay silent. Bursts are gathered before anything is read. Whatever else
//! lives in the folder (a log, the state) makes events as well, so a file whose bytes are as they were is not
//! read again.
//!
//! Invariant: a file that cannot be read or is not legal changes nothing; the reload says so.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::config::MAX_FILE;
use crate::control::controller::Controller;

/// Quiet time after the last change before the file is read.
const QUIET: Duration = Duration::from_millis(200);
/// A folder that never gets quiet, such as one with a log in it, is read this long after a change all the same.
const LONGEST: Duration = Duration::from_secs(1);

/// Reloads whenever something changes in the file's folder; runs until dropped.
///
/// # Errors
/// When the folder cannot be watched.
pub async fn run(file: &Path, controller: Controller) -> notify::Result<()> {
    let (changed, mut changes) = mpsc::channel(1);
    let before = changed.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // A full channel means a change is pending already.
            let _ = changed.try_send(());
        }
    })?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    // What changed since the start and before the watch made no event.
    let _ = before.try_send(());
    drop(before);
    let mut seen = None;
    while changes.recv().await.is_some() {
        let quiet = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, changes.recv()).await {} };
        let _ = tokio::time::timeout(LONGEST, quiet).await;
        let bytes = contents(file);
        if seen.replace(bytes.clone()) == Some(bytes) {
            continue;
        }
        // The outcome is an event of its own, whichever way it goes.
        let _ = controller.reload("file watch").await;
    }
    Ok(())
}

/// The file's bytes as far as a configuration may be long; `None` if it cannot be read.
fn contents(file: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file).ok()?.take(MAX_FILE + 1).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
