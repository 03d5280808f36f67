//! Sockets that listened before this process began: a service manager's (`LISTEN_FDS`), or those of the process that
//! this one succeeds.
//!
//! They are told apart by where they listen, so their order and their number do not matter: a successor may have more
//! workers or fewer, and every socket it was given is served, with all that waits in its queue.
//!
//! Invariant: a socket that was inherited is either used or named as not wanted.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use listenfd::ListenFd;
use rustix::net::sockopt;
use socket2::{Domain, Socket};

use crate::config::settings::Bind;
use crate::proxy::listener::Listening;

/// Inherited sockets that nobody has asked for yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<(Place, Listening)>,
    /// Their files are ours to remove: a service manager removes its own.
    pub owns_files: bool,
}

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Tcp {
        address: SocketAddr,
        /// It takes IPv4 as well, though it is bound to `[::]`.
        is_dual: bool,
    },
    Unix(PathBuf),
}

impl Inherited {
    /// What a service manager passed, if there is one.
    ///
    /// # Errors
    /// When something it passed is no listening stream socket.
    pub fn from_manager() -> io::Result<Inherited> {
        let mut passed = ListenFd::from_env();
        let mut inherited = Inherited::default();
        for number in 0..passed.len() {
            let tcp = passed.take_tcp_listener(number).ok().flatten().map(OwnedFd::from);
            let unix = || passed.take_unix_listener(number).ok().flatten().map(OwnedFd::from);
            let Some(socket) = tcp.or_else(unix) else {
                let text = format!("socket {number} of LISTEN_FDS is no stream socket");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            };
            inherited.add(socket)?;
        }
        Ok(inherited)
    }

    /// What a predecessor gave away.
    ///
    /// # Errors
    /// When one of them is no listening stream socket.
    pub fn from_predecessor(sockets: Vec<OwnedFd>) -> io::Result<Inherited> {
        let mut inherited = Inherited { owns_files: true, ..Inherited::default() };
        sockets.into_iter().try_for_each(|socket| inherited.add(socket))?;
        Ok(inherited)
    }

    fn add(&mut self, socket: OwnedFd) -> io::Result<()> {
        let strange = || io::Error::new(io::ErrorKind::InvalidInput, "an inherited socket does not listen");
        if !sockopt::socket_acceptconn(&socket)? {
            return Err(strange());
        }
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let place = match (local.as_socket(), local.as_pathname()) {
            (Some(address), _) => {
                let is_dual = socket.domain()? == Domain::IPV6 && address.ip().is_unspecified() && !socket.only_v6()?;
                // Accepted sockets inherit it, which saves a call for each.
                socket.set_tcp_nodelay(true)?;
                Place::Tcp { address, is_dual }
            }
            (None, Some(path)) => Place::Unix(path.to_owned()),
            (None, None) => return Err(strange()),
        };
        let listening = match &place {
            Place::Tcp { .. } => Listening::Tcp(socket.into()),
            Place::Unix(_) => Listening::Unix(socket.into()),
        };
        self.sockets.push((place, listening));
        Ok(())
    }

    /// All sockets that listen where this is: at the very address, or, for port 0, wherever the first does that could have
    /// been meant.
    pub fn take(&mut self, bind: &Bind) -> Vec<Listening> {
        let exact = self.sockets.iter().find(|(place, _)| place.is(bind));
        let found = exact.or_else(|| self.sockets.iter().find(|(place, _)| place.may_be(bind)));
        let Some(wanted) = found.map(|(place, _)| place.clone()) else { return Vec::new() };
        let (taken, left) = std::mem::take(&mut self.sockets).into_iter().partition(|(place, _)| *place == wanted);
        self.sockets = left;
        taken.into_iter().map(|(_, socket)| socket).collect()
    }

    /// The socket of the admin API.
    pub fn take_admin(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.take(&Bind::Tcp(address)).into_iter().find_map(|socket| match socket {
            Listening::Tcp(socket) => Some(socket),
            Listening::Unix(_) => None,
        })
    }

    /// Where those listen that nobody asked for.
    pub fn unwanted(&self) -> Vec<String> {
        let shown = |(place, _): &(Place, Listening)| match place {
            Place::Tcp { address, .. } => address.to_string(),
            Place::Unix(path) => format!("unix:{}", path.display()),
        };
        let mut all: Vec<_> = self.sockets.iter().map(shown).collect();
        all.dedup();
        all
    }
}

impl Place {
    fn is(&self, bind: &Bind) -> bool {
        match (self, bind) {
            (Place::Tcp { address, .. }, Bind::Tcp(wanted)) => address == wanted,
            (Place::Unix(path), Bind::Unix(wanted)) => *path == wanted.path,
            _ => false,
        }
    }

    fn may_be(&self, bind: &Bind) -> bool {
        let (Place::Tcp { address, is_dual }, Bind::Tcp(wanted)) = (self, bind) else { return false };
        let same_port = address.port() == wanted.port() || wanted.port() == 0;
        let same_ip = address.ip() == wanted.ip() || (*is_dual && wanted.ip().is_unspecified() && wanted.is_ipv4());
        same_port && same_ip
    }
}

/// Deals sockets out to workers: every socket to at least one, and to every worker at least one.
///
/// # Errors
/// When the process has no descriptor left.
pub fn deal(sockets: Vec<Listening>, workers: usize) -> io::Result<Vec<Vec<Listening>>> {
    let mut dealt: Vec<Vec<Listening>> = (0..workers).map(|_| Vec::new()).collect();
    for worker in sockets.len()..workers {
        dealt[worker].push(sockets[worker % sockets.len()].try_clone()?);
    }
    for (number, socket) in sockets.into_iter().enumerate() {
        dealt[number % workers].push(socket);
    }
    Ok(dealt)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::config::settings::UnixSocket;

    fn listening(address: &str) -> (SocketAddr, OwnedFd) {
        let socket = TcpListener::bind(address).unwrap();
        (socket.local_addr().unwrap(), socket.into())
    }

    #[test]
    fn sockets_are_found_by_where_they_listen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("teal.sock");
        let (first, one) = listening("127.0.0.1:0");
        let (second, other) = listening("127.0.0.1:0");
        let unix = UnixListener::bind(&path).unwrap();
        let twice = one.try_clone().unwrap();
        let mut inherited = Inherited::from_predecessor(vec![one, other, unix.into(), twice]).unwrap();
        assert!(inherited.take(&Bind::Tcp("127.0.0.1:1".parse().unwrap())).is_empty());
        assert_eq!(inherited.take(&Bind::Unix(UnixSocket { path, mode: 0o600 })).len(), 1);
        assert_eq!(inherited.take(&Bind::Tcp(second)).len(), 1);
        assert_eq!(inherited.unwanted(), [first.to_string()]);
        assert_eq!(inherited.take(&Bind::Tcp("127.0.0.1:0".parse().unwrap())).len(), 2, "any port is meant");
        assert_eq!(inherited.unwanted(), [""; 0]);
    }

    #[test]
    fn a_socket_of_both_families_is_taken_for_either() {
        let Ok(socket) = TcpListener::bind("[::]:0") else { return };
        let port = socket.local_addr().unwrap().port();
        let mut inherited = Inherited::from_predecessor(vec![socket.into()]).unwrap();
        assert!(inherited.take_admin(SocketAddr::from(([127, 0, 0, 1], port))).is_none());
        assert_eq!(inherited.take(&Bind::Tcp(SocketAddr::from(([0; 4], port)))).len(), 1);
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let (address, listener) = listening("127.0.0.1:0");
        let stream = std::net::TcpStream::connect(address).unwrap();
        assert!(Inherited::from_predecessor(vec![stream.into()]).is_err());
        drop(listener);
    }

    #[test]
    fn every_socket_and_every_worker_is_served() {
        for (sockets, workers, dealt) in [(1, 3, vec![1, 1, 1]), (2, 3, vec![1, 1, 1]), (5, 2, vec![3, 2])] {
            let given = (0..sockets).map(|_| Listening::Tcp(TcpListener::bind("127.0.0.1:0").unwrap())).collect();
            let counts: Vec<_> = deal(given, workers).unwrap().iter().map(Vec::len).collect();
            assert_eq!(counts, dealt, "{sockets} sockets, {workers} workers");
        }
    }
}
