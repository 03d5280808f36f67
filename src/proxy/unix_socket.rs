//! Unix sockets to listen on: made with their permissions, found stale and replaced, removed at the end.
//!
//! A socket's file outlives the process that made it, so one that is in the way is asked: who answers keeps it, where
//! nobody does it is what a crash left behind. Anything but a socket is left alone and is an error. The permissions are
//! set before the socket listens: until then a connection is refused, so nobody slips in under the wrong ones.
//!
//! Invariants: a file that is no socket is never removed; at the end only the file that was made here is.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::config::settings;

/// Queued connections: the kernel's own usual ceiling.
const BACKLOG: i32 = 4_096;

/// The file of a socket that is listened on; removed when dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// Device, inode, and when it was made: whoever replaced the file since owns it, and may well have got the same inode.
type Identity = (u64, u64, i64, i64);

/// Listens on a socket. There is one for all workers, each with a clone of it: unlike TCP, a path cannot be bound twice.
///
/// # Errors
/// `AddrInUse` if another process listens there, `AlreadyExists` if something else has that name, or what the system
/// says: the folder must exist and be writable.
pub fn bind(settings: &settings::UnixSocket) -> io::Result<(UnixListener, SocketFile)> {
    let path = settings.path.as_path();
    clear(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let made = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(&made) };
    fs::set_permissions(path, Permissions::from_mode(settings.mode))?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

/// Makes way for a socket at `path`.
fn clear(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the path is taken by what is not a socket"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        // Nobody has it open: only the name is left.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Gone meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // A full queue, or no right to ask: somebody may well be there.
        Err(error) => Err(error),
    }
}

impl SocketFile {
    /// The file of a socket that a predecessor made.
    ///
    /// # Errors
    /// When it is gone.
    pub fn of(path: &Path) -> io::Result<SocketFile> {
        let found = fs::symlink_metadata(path)?;
        Ok(SocketFile { path: path.to_owned(), identity: identity(&found) })
    }

    /// Leaves the file to a successor, who listens on its socket.
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

fn identity(file: &fs::Metadata) -> Identity {
    (file.dev(), file.ino(), file.mtime(), file.mtime_nsec())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket's file is left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(folder: &tempfile::TempDir) -> settings::UnixSocket {
        settings::UnixSocket { path: folder.path().join("teal.sock"), mode: 0o620 }
    }

    #[test]
    fn a_socket_has_its_permissions_and_is_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let settings = at(&folder);
        let (listener, file) = bind(&settings).unwrap();
        assert_eq!(fs::metadata(&settings.path).unwrap().mode() & 0o7777, 0o620);
        let client = UnixStream::connect(&settings.path).unwrap();
        assert!(listener.try_clone().unwrap().accept().is_ok());
        drop(client);
        drop(file);
        assert!(!settings.path.exists());
    }

    #[test]
    fn what_a_crash_left_behind_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let settings = at(&folder);
        drop(UnixListener::bind(&settings.path).unwrap());
        assert!(settings.path.exists(), "closing a socket does not remove its file");
        let (_listener, _file) = bind(&settings).unwrap();
        assert!(UnixStream::connect(&settings.path).is_ok());
    }

    #[test]
    fn what_somebody_uses_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let settings = at(&folder);
        let (_listener, _file) = bind(&settings).unwrap();
        assert_eq!(bind(&settings).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(UnixStream::connect(&settings.path).is_ok());
    }

    #[test]
    fn a_file_that_is_left_to_a_successor_is_removed_by_that_one() {
        let folder = tempfile::tempdir().unwrap();
        let settings = at(&folder);
        let (_listener, file) = bind(&settings).unwrap();
        let successors = SocketFile::of(&settings.path).unwrap();
        file.leave();
        assert!(UnixStream::connect(&settings.path).is_ok());
        drop(successors);
        assert!(!settings.path.exists());
    }

    #[test]
    fn a_file_that_is_no_socket_is_never_removed() {
        let folder = tempfile::tempdir().unwrap();
        let settings = at(&folder);
        fs::write(&settings.path, "precious").unwrap();
        assert_eq!(bind(&settings).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&settings.path).unwrap(), "precious");
        fs::remove_file(&settings.path).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &settings.path).unwrap();
        assert!(bind(&settings).is_err() && fs::symlink_metadata(&settings.path).is_ok());
    }

    #[test]
    fn a_successors_socket_outlives_the_predecessor() {
        let folder = tempfile::tempdir().unwrap();
        let settings = at(&folder);
        let (listener, file) = bind(&settings).unwrap();
        drop(listener);
        let (_successor, _file) = bind(&settings).unwrap();
        drop(file);
        assert!(UnixStream::connect(&settings.path).is_ok());
    }
}
