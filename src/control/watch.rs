//! Watching the configuration file and the certificates it names: a change on disk is a reload.
//!
//! Folders are watched, not files: editors and Kubernetes replace files by renames and symlink swaps, after which a
//! watch on the old file would stay silent. Bursts are gathered before anything is read, so that a certificate and
//! its key are changed together. Whatever else lives in the folders (a log, the state) makes events as well, so files
//! whose bytes are as they were are not read again.
//!
//! Invariant: a file that cannot be read or is not legal changes nothing; the reload says so.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::config::MAX_FILE;
use crate::control::controller::Controller;

/// Quiet time after the last change before the files are read.
const QUIET: Duration = Duration::from_millis(200);
/// A folder that never gets quiet, such as one with a log in it, is read this long after a change all the same.
const LONGEST: Duration = Duration::from_secs(1);

/// Reloads whenever the file, or one that its settings came from, has changed; runs until dropped.
///
/// # Errors
/// When the file's folder cannot be watched.
pub async fn run(file: &Path, controller: Controller) -> notify::Result<()> {
    let (changed, mut changes) = mpsc::channel(1);
    let again = changed.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // A full channel means a change is pending already.
            let _ = changed.try_send(());
        }
    })?;
    let mut folders = Folders { watcher, watched: BTreeSet::new() };
    folders.watch(folder_of(file))?;
    // What changed since the start and before the watch made no event.
    let _ = again.try_send(());
    let mut seen = None;
    while changes.recv().await.is_some() {
        let quiet = async { while let Ok(Some(())) = tokio::time::timeout(QUIET, changes.recv()).await {} };
        let _ = tokio::time::timeout(LONGEST, quiet).await;
        let files = controller.files();
        folders.follow(file, &files);
        let contents: Vec<_> = std::iter::once(file).chain(files.iter().map(PathBuf::as_path)).map(contents).collect();
        let now = (files, contents);
        if seen.as_ref() == Some(&now) {
            continue;
        }
        // The outcome is an event of its own, whichever way it goes.
        let _ = controller.reload("file watch").await;
        if controller.files() != now.0 {
            // New files were read before they were watched: once more, with them.
            let _ = again.try_send(());
        }
        seen = Some(now);
    }
    Ok(())
}

/// The folders under watch.
struct Folders {
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
}

impl Folders {
    fn watch(&mut self, folder: &Path) -> notify::Result<()> {
        self.watcher.watch(folder, RecursiveMode::NonRecursive)?;
        self.watched.insert(folder.to_owned());
        Ok(())
    }

    /// Watches the folders of the files, and no others. A folder that is not there is tried again at the next change.
    fn follow(&mut self, file: &Path, files: &BTreeSet<PathBuf>) {
        let all = std::iter::once(file).chain(files.iter().map(PathBuf::as_path));
        let wanted: BTreeSet<_> = all.map(|path| folder_of(path).to_owned()).collect();
        for folder in wanted.difference(&self.watched.clone()) {
            if let Err(error) = self.watch(folder) {
                tracing::warn!(folder = %folder.display(), %error, "changes in this folder are not noticed");
            }
        }
        let gone = |folder: &PathBuf| !wanted.contains(folder) || !folder.exists();
        for folder in self.watched.extract_if(.., gone) {
            // An error means that the folder is gone, and the watch with it.
            let _ = self.watcher.unwatch(&folder);
        }
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file's bytes as far as one may be long; `None` if it cannot be read.
fn contents(file: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file).ok()?.take(MAX_FILE + 1).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
