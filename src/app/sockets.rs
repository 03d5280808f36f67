//! The sockets that are listened on: inherited where somebody passed them, else bound; dealt out to the workers.
//!
//! Of each one a handle is kept: that is what a successor gets (see [`super::succession`]). While a handle is open the
//! socket listens, so they are given up before the workers stop accepting.
//!
//! Invariant: whatever was inherited for an address that is listened on is served by some worker.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::StartError;
use super::inherit::{Inherited, deal};
use crate::config::settings::{self, Bind, Settings};
use crate::proxy::listener::{self, Listening};
use crate::proxy::unix_socket::{self, SocketFile};

/// Everything that listens.
pub(super) struct Sockets {
    /// Each worker's, with the numbers of their listeners.
    pub(super) dealt: Vec<Vec<(usize, Listening)>>,
    /// One handle for each.
    pub(super) kept: Vec<OwnedFd>,
    /// Where clients connect over TCP.
    pub(super) listen: Vec<SocketAddr>,
    /// Files to remove at the end.
    pub(super) files: Vec<SocketFile>,
    /// The admin API's.
    pub(super) admin: Option<TcpListener>,
}

impl Sockets {
    /// Finds or binds what the settings name.
    ///
    /// # Errors
    /// When an address cannot be listened on.
    pub(super) fn open(settings: &Settings, inherited: &mut Inherited) -> Result<Sockets, StartError> {
        let workers = settings.workers.get();
        let dealt = (0..workers).map(|_| Vec::new()).collect();
        let mut sockets = Sockets { dealt, kept: Vec::new(), listen: Vec::new(), files: Vec::new(), admin: None };
        for (number, settings::Listen { address, .. }) in settings.listen.iter().enumerate() {
            let opened = sockets.listen_at(number, address, workers, inherited);
            opened.map_err(|error| StartError::Listen { address: address.clone(), error })?;
        }
        if let Some(admin) = &settings.admin {
            let at = |error| StartError::Listen { address: admin.listen.into(), error };
            let socket = match inherited.take_admin(admin.listen) {
                Some(socket) => socket,
                None => TcpListener::bind(admin.listen).map_err(at)?,
            };
            socket.set_nonblocking(true).map_err(at)?;
            sockets.kept.push(socket.try_clone().map_err(at)?.into());
            sockets.admin = Some(socket);
        }
        for place in inherited.unwanted() {
            tracing::warn!(place, "an inherited socket is not listened on: the configuration does not name it");
        }
        Ok(sockets)
    }

    fn listen_at(
        &mut self,
        number: usize,
        address: &Bind,
        workers: usize,
        inherited: &mut Inherited,
    ) -> io::Result<()> {
        let owns_files = inherited.owns_files;
        let found = inherited.take(address);
        let opened = match address {
            Bind::Tcp(address) => {
                let opened = if found.is_empty() { bind_tcp(*address, workers)? } else { found };
                self.listen.extend(opened.first().map(Listening::local_address).transpose()?.flatten());
                opened
            }
            Bind::Unix(settings) if found.is_empty() => {
                let (socket, file) = unix_socket::bind(settings)?;
                self.files.push(file);
                vec![Listening::Unix(socket)]
            }
            Bind::Unix(settings) => {
                if owns_files {
                    self.files.push(SocketFile::of(&settings.path)?);
                }
                found
            }
        };
        for socket in &opened {
            self.kept.push(socket.try_clone()?.into());
        }
        for (dealt, sockets) in self.dealt.iter_mut().zip(deal(opened, workers)?) {
            dealt.extend(sockets.into_iter().map(|socket| (number, socket)));
        }
        Ok(())
    }
}

fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<Vec<Listening>> {
    refuse_taken(address)?;
    Ok(listener::bind(address, workers)?.into_iter().map(Listening::Tcp).collect())
}

/// Another Teal of the same user would share the port with this one in silence (`SO_REUSEPORT`), each with half of
/// the connections: a socket that does not share finds it out. It never listens, so no client ever meets it.
fn refuse_taken(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}
