//! Asking for a name: the hosts file, then the DNS.
//!
//! Both the hosts file and the system's resolver configuration are read again when they change, as people expect of
//! long-running processes. Nothing is cached here: when to ask is decided by the caller, from the records' own TTL.
//!
//! Invariant: an answer's addresses are sorted and each is there once, so that servers that rotate them change nothing.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, Resolver as Client, TokioResolver, system_conf};

use super::schedule::Answer;
use crate::config::settings::{Address, Family, Place, Resolver};

const HOSTS: &str = "/etc/hosts";
const SYSTEM: &str = "/etc/resolv.conf";
/// The hosts file has no TTLs; looking at its date again costs next to nothing.
const HOSTS_TTL: Duration = Duration::from_secs(5);
/// Hosts files past this are lists of blocked sites: reading one would hold up everything else.
const LARGEST_HOSTS: u64 = 1024 * 1024;
/// Everything that one name may take: search domains, servers and repetitions included.
const LONGEST: Duration = Duration::from_secs(30);
/// Addresses of one name, and hosts of one service.
const MOST: usize = 256;

/// Asks for names.
pub(super) struct Lookup {
    settings: Resolver,
    hosts: Fresh<Hosts>,
    client: Fresh<Result<TokioResolver, String>>,
}

/// Addresses and how long they hold; `None` if the name has none of the kind.
type Found = Option<(Vec<IpAddr>, Duration)>;

impl Lookup {
    pub(super) fn new(settings: Resolver) -> Lookup {
        let system = settings.servers.is_empty().then(|| PathBuf::from(SYSTEM));
        Lookup { settings, hosts: Fresh::of(Some(HOSTS.into())), client: Fresh::of(system) }
    }

    /// The same with another hosts file.
    #[cfg(test)]
    pub(super) fn with_hosts(settings: Resolver, hosts: PathBuf) -> Lookup {
        Lookup { hosts: Fresh::of(Some(hosts)), ..Lookup::new(settings) }
    }

    /// Asks for a name.
    ///
    /// # Errors
    /// Why there is no answer, or that there is no such name.
    pub(super) async fn find(&self, address: &Address) -> Result<Answer, String> {
        let asking = async {
            match &address.place {
                Place::Host { host, port } => {
                    let (ips, ttl) = self.addresses(host).await?;
                    Ok(answer(ips.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect(), ttl))
                }
                Place::Srv(name) => self.services(name).await,
                Place::Unix(_) => Err("a path is not looked up".to_owned()),
            }
        };
        let limit = tokio::time::timeout(LONGEST, asking).await;
        limit.unwrap_or_else(|_| Err(format!("no answer within {}", humantime::format_duration(LONGEST))))
    }

    /// The addresses of a host in the families that count.
    async fn addresses(&self, host: &str) -> Result<(Vec<IpAddr>, Duration), String> {
        use RecordType::{A, AAAA};
        let found = match self.settings.family {
            Family::Ipv4First => match self.of_kind(host, A).await? {
                None => self.of_kind(host, AAAA).await?,
                found => found,
            },
            Family::Ipv6First => match self.of_kind(host, AAAA).await? {
                None => self.of_kind(host, A).await?,
                found => found,
            },
            Family::Both => match tokio::try_join!(self.of_kind(host, A), self.of_kind(host, AAAA))? {
                (Some((mut four, ttl)), Some((six, other))) => {
                    four.extend(six);
                    Some((four, ttl.min(other)))
                }
                (four, six) => four.or(six),
            },
        };
        found.ok_or_else(|| format!("{host} has no address"))
    }

    async fn of_kind(&self, host: &str, kind: RecordType) -> Result<Found, String> {
        let name = Name::from_utf8(host).map_err(|error| error.to_string())?;
        if let Some(ips) = self.in_hosts_file(&name, kind) {
            return Ok(Some((ips, HOSTS_TTL)));
        }
        let found = match self.client()?.lookup(name, kind).await {
            Ok(found) => found,
            Err(error) => return no_records(error).map(|()| None),
        };
        let ips: Vec<_> = found.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
        Ok((!ips.is_empty()).then(|| (ips, shortest(found.answers().iter().map(|record| record.ttl)))))
    }

    fn in_hosts_file(&self, name: &Name, kind: RecordType) -> Option<Vec<IpAddr>> {
        let hosts = self.hosts.read(|path| read_hosts(path).unwrap_or_default());
        let found = hosts.lookup_static_host(&Query::query(name.clone(), kind))?;
        let ips: Vec<_> = found.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
        (!ips.is_empty()).then_some(ips)
    }

    /// The hosts of a service with the lowest priority, and their addresses. Weights have no say: requests go to the less
    /// busy endpoint, which is what a weight is a guess at.
    async fn services(&self, name: &str) -> Result<Answer, String> {
        let query = Name::from_utf8(name).map_err(|error| error.to_string())?;
        let found = match self.client()?.lookup(query, RecordType::SRV).await {
            Ok(found) => found,
            Err(error) => return no_records(error).and_then(|()| Err(format!("{name} has no SRV record"))),
        };
        let services: Vec<_> = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(service) => Some(service),
                _ => None,
            })
            // A root target says that there is no such service (RFC 2782).
            .filter(|service| !service.target.is_root() && service.port > 0)
            .collect();
        let lowest = services.iter().map(|service| service.priority).min();
        let chosen = services.iter().filter(|service| Some(service.priority) == lowest).take(MOST);
        let mut ttl = shortest(found.answers().iter().map(|record| record.ttl));
        let (mut at, mut problem) = (Vec::new(), format!("{name} names no host"));
        for service in chosen {
            match self.addresses(&service.target.to_utf8()).await {
                Ok((ips, other)) => {
                    ttl = ttl.min(other);
                    at.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, service.port)));
                }
                // One host that is not found does not take the others along.
                Err(why) => problem = why,
            }
        }
        if at.is_empty() { Err(problem) } else { Ok(answer(at, ttl)) }
    }

    fn client(&self) -> Result<TokioResolver, String> {
        self.client.read(|_| build(&self.settings)).as_ref().clone()
    }
}

fn answer(mut at: Vec<SocketAddr>, ttl: Duration) -> Answer {
    at.sort_unstable();
    at.dedup();
    at.truncate(MOST);
    Answer { at, ttl }
}

fn shortest(ttls: impl Iterator<Item = u32>) -> Duration {
    Duration::from_secs(ttls.min().unwrap_or(0).into())
}

/// That a name does not exist, or has nothing of the kind, is an answer; everything else is a failure.
fn no_records(error: NetError) -> Result<(), String> {
    if error.is_no_records_found() { Ok(()) } else { Err(error.to_string()) }
}

fn build(settings: &Resolver) -> Result<TokioResolver, String> {
    let (config, mut options) = match settings.servers.is_empty() {
        true => system_conf::read_system_conf().map_err(|error| format!("{SYSTEM}: {error}"))?,
        false => {
            let servers = settings.servers.iter().map(|server| name_server(*server)).collect();
            (ResolverConfig::from_name_servers(servers), ResolverOpts::default())
        }
    };
    options.timeout = settings.timeout;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    let mut builder = Client::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().map_err(|error| error.to_string())
}

/// By UDP, and by TCP for what does not fit.
fn name_server(server: SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    NameServerConfig::new(server.ip(), true, [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(at_port).into())
}

fn read_hosts(path: &PathBuf) -> io::Result<Hosts> {
    let mut hosts = Hosts::default();
    hosts.read_hosts_conf(io::Read::take(fs::File::open(path)?, LARGEST_HOSTS))?;
    Ok(hosts)
}

/// What was made from a file, made anew once the file is another.
struct Fresh<T> {
    path: Option<PathBuf>,
    made: Mutex<Option<(Stamp, Arc<T>)>>,
}

/// Date and length of a file; `None` for one that is not there.
type Stamp = Option<(SystemTime, u64)>;

impl<T> Fresh<T> {
    fn of(path: Option<PathBuf>) -> Fresh<T> {
        Fresh { path, made: Mutex::default() }
    }

    fn read(&self, make: impl FnOnce(&PathBuf) -> T) -> Arc<T> {
        let nowhere = PathBuf::new();
        let path = self.path.as_ref().unwrap_or(&nowhere);
        let stamp = fs::metadata(path).ok().and_then(|file| Some((file.modified().ok()?, file.len())));
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match &*made {
            Some((known, value)) if *known == stamp => Arc::clone(value),
            _ => Arc::clone(&made.insert((stamp, Arc::new(make(path)))).1),
        }
    }
}
