//! A service manager that wants to know (systemd's `NOTIFY_SOCKET`): when we serve, who serves, when we end.
//!
//! Invariant: a manager that is not there, or does not listen, changes nothing.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that this process serves.
pub(super) fn ready() {
    tell("READY=1");
}

/// Says that this process ends.
pub(super) fn stopping() {
    tell("STOPPING=1");
}

/// Says that from now on another process is the service's main one.
pub(super) fn succeeded_by(process: u32) {
    tell(&format!("MAINPID={process}"));
}

fn tell(what: &str) {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&place, what) {
        tracing::warn!(%error, what, "the service manager was not told");
    }
}

fn send(place: &std::ffi::OsStr, what: &str) -> std::io::Result<()> {
    let name = place.as_encoded_bytes();
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(place)?,
    };
    UnixDatagram::unbound()?.send_to_addr(what.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_told_by_name_or_by_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("teal-test-{}", std::process::id());
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (socket, place) in [(by_path, path.into_os_string()), (by_name, format!("@{name}").into())] {
            send(&place, "MAINPID=7").unwrap();
            let mut heard = [0; 64];
            let length = socket.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"MAINPID=7");
        }
        assert!(send("/nowhere/at/all".as_ref(), "READY=1").is_err());
    }
}
