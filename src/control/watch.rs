//! Watching the configuration file: a change on disk is a reload.
//!
//! The folder is watched, not the file: editors and Kubernetes replace files by renames and symlink swaps, after
//! which a watch on the old file would stay silent. Bursts are gathered before anything is read.
//!
//! Invariant: a file that cannot be read or is not legal changes nothing; the reload says so.

use std::path::Path;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::control::controller::Controller;

/// Quiet time after the last change before the file is read.
const QUIET: Duration = Duration::from_millis(200);

/// Reloads whenever something changes in the file's folder; runs until dropped.
///
/// # Errors
/// When the folder cannot be watched.
pub async fn run(file: &Path, controller: Controller) -> notify::Result<()> {
    let (changed, mut changes) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // A full channel means a change is pending already.
            let _ = changed.try_send(());
        }
    })?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    while changes.recv().await.is_some() {
        while let Ok(Some(())) = tokio::time::timeout(QUIET, changes.recv()).await {}
        // The outcome is an event of its own, whichever way it goes.
        let _ = controller.reload("file watch").await;
    }
    Ok(())
}
