//! Admission: how many client connections there are, in all and from one source, and why one did not come or stay.
//!
//! A place is reserved before a connection is accepted, by a compare-and-add, so that no number of workers passes the
//! limit. It goes with the connection, from worker to worker if need be, and is free again when dropped. Sources are
//! counted only where a limit is set: switched off they cost nothing.
//!
//! Invariant: places taken never exceed the limit they were asked for with; what a place counted, its end uncounts.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Locks over the sources, so that workers seldom meet at one.
const SHARDS: usize = 32;

/// Connections at one time where neither the file nor the process's descriptors say less. Idle ones cost two KiB
/// each, so these fit into a small machine.
pub const USUAL: usize = 20_000;

/// Counts client connections over all workers. Touched when one opens or closes, never by a request.
#[derive(Debug)]
pub struct Admission {
    open: AtomicUsize,
    by_default: usize,
    sources: [Mutex<HashMap<Source, usize>>; SHARDS],
    hasher: RandomState,
}

/// Whom a connection or a request is counted for: an IPv4 address, or the /64 that one IPv6 customer has at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The address.
    V4(u32),
    /// The first half of the address.
    V6(u64),
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    source: Option<Source>,
}

/// A connection's socket, whatever it is.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// A connection that was accepted and waits to be served.
#[derive(Debug)]
pub struct Arrival {
    /// The socket, not blocking and not yet registered with any runtime.
    pub socket: Socket,
    /// The other end.
    pub peer: SocketAddr,
    /// The number of the listener that received it.
    pub listener: usize,
    /// Its place.
    pub place: Place,
}

macro_rules! reasons {
    ($(#[$about:meta])* $kind:ident { $($(#[$doc:meta])* $case:ident = $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum $kind { $($(#[$doc])* $case,)* }

        impl $kind {
            /// The names in metrics and logs, in the order of the numbers.
            pub const NAMES: [&'static str; [$($name),*].len()] = [$($name),*];

            /// The name in metrics and logs.
            pub const fn name(self) -> &'static str {
                $kind::NAMES[self as usize]
            }
        }
    };
}

reasons! {
    /// Why a connection was closed before it was served.
    Refusal {
        /// Its source has as many as it may have.
        SourceLimit = "source_limit",
        /// The system could not register the socket.
        Setup = "setup",
        /// No PROXY protocol header from a peer that owes one, or a peer that may not connect.
        ProxyProtocol = "proxy_protocol",
    }
}

reasons! {
    /// Why accepting paused.
    Pause {
        /// As many connections as there may be.
        Limit = "limit",
        /// No file descriptor left, in the process or the system.
        Descriptors = "descriptors",
        /// No memory for a socket.
        Memory = "memory",
        /// Something else that does not pass with the connection it met.
        Other = "other",
    }
}

reasons! {
    /// Why Teal closed a connection that it served.
    Closed {
        /// A request head was not complete in time, or never began.
        HeadTimeout = "head_timeout",
        /// Idle between requests for too long.
        KeepAlive = "keep_alive",
        /// Idle while the process ends.
        Drained = "drained",
        /// The client did not read the rest of an answer.
        Unread = "unread",
    }
}

reasons! {
    /// Why a request was refused by a process that has enough to do.
    Shed {
        /// As many requests in flight as there may be.
        InFlight = "in_flight",
        /// The worker's loop runs late.
        Lag = "lag",
        /// No descriptor or memory left.
        Resources = "resources",
    }
}

reasons! {
    /// How a client's HTTP/2 ended its connection.
    Abuse {
        /// Frames that move nothing, more than anyone needs.
        ControlFrames = "control_frames",
        /// A header block of too many frames or bytes.
        HeaderBlock = "header_block",
        /// Most of its streams were reset by the client.
        Resets = "resets",
        /// A frame larger than allowed.
        FrameSize = "frame_size",
        /// A limit of stored things: streams reset before they were looked at, tiny frames that wait, huge header lists.
        Excess = "excess",
        /// A rule of HTTP/2 was broken.
        Protocol = "protocol",
    }
}

impl Default for Admission {
    fn default() -> Admission {
        Admission::new(USUAL)
    }
}

impl Admission {
    /// Nothing open yet; `by_default` is the limit where the file names none.
    pub fn new(by_default: usize) -> Admission {
        Admission {
            open: AtomicUsize::new(0),
            by_default,
            sources: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
        }
    }

    /// The limit, given the file's.
    pub fn limit(&self, configured: Option<NonZeroUsize>) -> usize {
        configured.map_or(self.by_default, NonZeroUsize::get)
    }

    /// Reserves a place if fewer than `limit` are taken.
    pub fn enter(self: &Arc<Admission>, limit: usize) -> Option<Place> {
        let one_more = |open: usize| (open < limit).then_some(open + 1);
        self.open.try_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Place { admission: Arc::clone(self), source: None })
    }

    /// Places taken now.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    fn shard(&self, source: Source) -> MutexGuard<'_, HashMap<Source, usize>> {
        let shard = (self.hasher.hash_one(source) % SHARDS as u64) as usize;
        // Nothing that can panic runs under this lock but an allocation, before anything is changed.
        self.sources[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Counts this connection for its source; false, and not counted, if that has `limit` already.
    pub fn claim(&mut self, peer: IpAddr, limit: NonZeroUsize) -> bool {
        let source = Source::of(peer);
        let mut shard = self.admission.shard(source);
        let count = shard.entry(source).or_default();
        let admitted = *count < limit.get();
        if admitted {
            *count += 1;
        }
        drop(shard);
        if admitted && let Some(before) = self.source.replace(source) {
            self.admission.release(before);
        }
        admitted
    }
}

impl Admission {
    fn release(&self, source: Source) {
        let mut shard = self.shard(source);
        if let Some(count) = shard.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&source);
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(source) = self.source {
            self.admission.release(source);
        }
        self.admission.open.fetch_sub(1, Relaxed);
    }
}

impl Source {
    /// Whom an address is counted for.
    pub fn of(peer: IpAddr) -> Source {
        match peer.to_canonical() {
            IpAddr::V4(ip) => Source::V4(ip.to_bits()),
            IpAddr::V6(ip) => Source::V6((ip.to_bits() >> 64) as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> NonZeroUsize {
        NonZeroUsize::new(2).unwrap()
    }

    #[test]
    fn no_number_of_workers_passes_the_limit() {
        let admission = Arc::new(Admission::default());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let place = admission.enter(3);
                        assert!(admission.open() <= 3);
                        drop(place);
                    }
                });
            }
        });
        assert_eq!(admission.open(), 0);
        let places: Vec<_> = (0..5).filter_map(|_| admission.enter(3)).collect();
        assert_eq!((places.len(), admission.open()), (3, 3));
    }

    #[test]
    fn what_the_file_leaves_open_the_process_decides() {
        let admission = Admission::new(500);
        assert_eq!((admission.limit(None), admission.limit(Some(two()))), (500, 2));
    }

    #[test]
    fn a_source_is_an_address_or_the_network_of_a_customer() {
        let table = [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::9", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            ("::1", "0.0.0.1", false),
        ];
        for (one, other, same) in table {
            let (one, other): (IpAddr, IpAddr) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(Source::of(one) == Source::of(other), same, "{one} {other}");
        }
    }

    #[test]
    fn a_source_has_its_limit_and_gets_its_places_back() {
        let admission = Arc::new(Admission::default());
        let enter = |ip: &str| {
            let mut place = admission.enter(100).unwrap();
            place.claim(ip.parse().unwrap(), two()).then_some(place)
        };
        let (first, second) = (enter("192.0.2.1"), enter("192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(enter("192.0.2.1").is_none(), "a third");
        let other = enter("192.0.2.2");
        assert!(other.is_some(), "another source");
        drop(first);
        let third = enter("192.0.2.1");
        assert!(third.is_some(), "one has left");
        drop((second, third, other));
        assert!(admission.sources.iter().all(|shard| shard.lock().unwrap().is_empty()), "nobody is remembered");
        assert_eq!(admission.open(), 0);
    }

    #[test]
    fn a_claim_for_the_client_behind_a_forwarder_replaces_the_first() {
        let admission = Arc::new(Admission::default());
        let mut place = admission.enter(9).unwrap();
        let (forwarder, client): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "198.51.100.7".parse().unwrap());
        assert!(place.claim(forwarder, two()) && place.claim(client, two()) && place.claim(client, two()));
        assert_eq!(admission.shard(Source::of(client)).get(&Source::of(client)), Some(&1));
        assert!(admission.shard(Source::of(forwarder)).is_empty());
    }

    #[test]
    fn reasons_have_names() {
        assert_eq!(
            (Refusal::Setup.name(), Pause::Memory.name(), Closed::Drained.name()),
            ("setup", "memory", "drained")
        );
    }
}
