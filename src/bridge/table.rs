//! The routing table: an immutable value from the control plane to the workers, swapped as one.
//!
//! One writer (the publisher) builds a table and stores it; workers cache what they loaded and never hold a
//! guard across an await. Two counters tell tables apart (Decisions 2): the *version* counts every table,
//! the *epoch* of a service counts only changes of its split.
//!
//! Invariant: within one table every index (service, pool, endpoint) is in range and shares sum to 100 %.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::bridge::admission::{Abuse, Admission, Arrival, Closed, Pause, Refusal, Shed};
use crate::bridge::balancer::Balancer;
use crate::bridge::breaker::Breaker;
use crate::bridge::counters::{PerWorker, Tally};
use crate::bridge::ejection::Bench;
use crate::bridge::endpoint::Endpoint;
use crate::bridge::handover::Handover;
use crate::bridge::injection::Faults;
use crate::bridge::intake::Intake;
use crate::bridge::observations::{Book, PoolTally};
use crate::bridge::pace::Pace;
use crate::bridge::purse::Purse;
use crate::bridge::room::Room;
use crate::bridge::roster::Roster;
use crate::bridge::streams::Streams;
use crate::bridge::tls::{Connector, Handshakes, Server};
use crate::config::settings;
use crate::domain::balance::Standing;
use crate::domain::outlier;
use crate::domain::proxy_protocol::Version;
use crate::domain::route::{self, RequestView, Router};
use crate::domain::split::{self, Share, Slot};

/// What both planes hold: the current table and the workers' roster.
#[derive(Debug)]
pub struct Plane {
    /// The current table. Only the publisher stores.
    pub table: ArcSwap<Table>,
    /// Who works by which version.
    pub roster: Roster,
    /// What the workers count beside any service.
    pub workers: PerWorker<WorkerTally>,
    /// How many client connections there are, over all workers.
    pub admission: Arc<Admission>,
    /// How they are shared between the workers.
    pub handover: Handover<Arrival>,
    /// What has been in flight for long.
    pub streams: Streams,
}

/// Counters of one worker.
#[derive(Debug, Default)]
pub struct WorkerTally {
    /// Client connections it began to serve.
    pub accepted: Tally,
    /// Client connections it accepted and handed to another worker.
    pub handed_over: Tally,
    /// Client connections closed before they were served, by [`Refusal`].
    pub turned_away: [Tally; Refusal::NAMES.len()],
    /// Client connections it closed by itself, by [`Closed`].
    pub closed: [Tally; Closed::NAMES.len()],
    /// Client connections that began to speak HTTP/2.
    pub http2: Tally,
    /// Those that were ended for how the client used it, by [`Abuse`].
    pub abuses: [Tally; Abuse::NAMES.len()],
    /// How often it stopped accepting, by [`Pause`].
    pub pauses: [Tally; Pause::NAMES.len()],
    /// The worst recent delay of its loop in microseconds.
    pub lag: Tally,
    /// Requests that reached it, whatever became of them.
    pub requests: Tally,
    /// Requests that no service claimed, or that were refused before routing.
    pub refused: Tally,
    /// Requests that were cut because their endpoint or the process had no more time for them.
    pub cut: Tally,
    /// Requests answered 503 at once because this process has enough to do, by [`Shed`].
    pub shed: [Tally; Shed::NAMES.len()],
    /// Handshakes of TLS.
    pub handshakes: Handshakes,
    /// Access log lines dropped because the log could not keep up.
    pub log_dropped: Tally,
}

/// An immutable routing table.
#[derive(Debug)]
pub struct Table {
    /// Counts tables; higher is newer.
    pub version: u64,
    /// From host and path to an index into `services`.
    pub router: Arc<Router>,
    /// All services.
    pub services: Vec<Arc<Service>>,
    /// Limits of client connections.
    pub client: settings::Client,
    /// One per bound address, in the order they were bound.
    pub listeners: Vec<Arc<Listener>>,
}

/// One listener as the workers see it. A reload replaces it for connections to come.
#[derive(Debug)]
pub struct Listener {
    /// The definition, from the file.
    pub settings: settings::Listen,
    /// The server side of TLS; `None` for plain HTTP.
    pub tls: Option<Arc<Server>>,
    /// The value of `Strict-Transport-Security` that every answer carries.
    pub strict_transport: Option<String>,
}

/// One service as the workers see it.
#[derive(Debug)]
pub struct Service {
    /// The definition, from the file.
    pub settings: Arc<settings::Service>,
    /// Counts changes of the split; higher is newer.
    pub epoch: u64,
    /// The pool that rollbacks return to.
    pub active: usize,
    /// One slot per pool: its hash seed and its share. Shares sum to 100 %.
    pub split: Vec<Slot>,
    /// One pool per pool of the settings.
    pub pools: Vec<Arc<Pool>>,
    /// Where this epoch's observations go.
    pub book: Arc<Book>,
    /// What it may spend on further attempts; survives tables.
    pub purse: Arc<Purse>,
    /// What a request passes before it gets a pool; what is counted there survives tables.
    pub intake: Arc<Intake>,
    /// Faults that are injected for a drill; mostly none.
    pub faults: Faults,
}

/// One pool as the workers see it; survives tables while its endpoints stay the same.
#[derive(Debug)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Rolled back and not deployed since: overrides that do not insist stay away.
    pub rolled_back: bool,
    /// Its endpoints.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Picks one of them; survives tables while endpoints, ranks and policy stay the same.
    pub balancer: Arc<Balancer>,
    /// What they speak.
    pub protocol: settings::Protocol,
    /// The client side of TLS; `None` without.
    pub connector: Option<Arc<Connector>>,
    /// Each connection begins with whose it is, and then serves that client only.
    pub proxy_protocol: Option<Version>,
    /// How long its answers take of late, if anybody measures it; survives tables.
    pub pace: Arc<Pace>,
    /// What it has answered since the process began; survives tables.
    pub tally: Arc<PerWorker<PoolTally>>,
    /// Its breaker, at rest unless the settings have one; survives tables while its rules stay the same.
    pub breaker: Arc<Breaker>,
    /// How much it has of what it may have; survives tables while its limits stay the same.
    pub room: Arc<Room>,
    /// When its endpoints are taken out by their own results.
    pub ejection: outlier::Policy,
    /// How many are out; survives tables.
    pub bench: Arc<Bench>,
}

/// Why a request goes where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An override matched (index into the service's overrides).
    Override(usize),
    /// By the split.
    Split,
    /// By the split to another pool, whose breaker is open: to the active one in its place.
    Diverted,
    /// It failed elsewhere, and the active pool answers instead.
    Rescue,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Index of the pool.
    pub pool: usize,
    /// Why.
    pub reason: Reason,
}

/// Whom a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Index of the service.
    pub service: usize,
    /// Index of its route.
    pub route: usize,
}

/// Why a request belongs nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrouted {
    /// Nobody claims host and path.
    #[error("no service for this host and path")]
    NoService,
    /// No route of the service matches.
    #[error("no route for this request")]
    NoRoute,
    /// Its path can be read in ways that lead to different places.
    #[error("an ambiguous path")]
    AmbiguousPath,
}

impl Service {
    /// The pool for a request: the first override that matches, else the split by `key`.
    ///
    /// `None` only if no pool has a share, which a published table never shows.
    pub fn assign(&self, request: &impl RequestView, key: u64) -> Option<Assignment> {
        let overrides = self.settings.overrides.iter().enumerate();
        let insists =
            |rule: &crate::domain::route::Override| rule.even_when_rolled_back || !self.pools[rule.pool].rolled_back;
        let chosen = overrides.filter(|(_, rule)| insists(rule)).find(|(_, rule)| rule.matches(request));
        if let Some((index, rule)) = chosen {
            return Some(Assignment { pool: rule.pool, reason: Reason::Override(index) });
        }
        split::choose(&self.split, key).map(|pool| Assignment { pool, reason: Reason::Split })
    }

    /// May a request assigned so still be sent? Asked again at the moment of dispatch (Decisions 1).
    pub fn still_allows(&self, assignment: Assignment) -> bool {
        match assignment.reason {
            Reason::Split => !self.split[assignment.pool].share.is_none(),
            Reason::Diverted | Reason::Rescue => {
                assignment.pool == self.active && !self.split[self.active].share.is_none()
            }
            Reason::Override(index) => {
                self.settings.overrides[index].even_when_rolled_back || !self.pools[assignment.pool].rolled_back
            }
        }
    }

    /// The share of a pool.
    pub fn share(&self, pool: usize) -> Share {
        self.split[pool].share
    }

    /// The index of a pool by name.
    pub fn pool_named(&self, name: &str) -> Option<usize> {
        self.pools.iter().position(|pool| pool.name == name)
    }
}

impl Pool {
    /// How its priorities share the requests `now` (microseconds), and whether it panics; for people, a worker has its own.
    pub fn standing(&self, now: u64) -> Standing {
        self.balancer.standing(&self.endpoints, now)
    }
}

impl Table {
    /// The service and the route that a request belongs to.
    ///
    /// # Errors
    /// When there is none, or the path does not say clearly which.
    pub fn find(&self, request: &impl RequestView) -> Result<Destination, Unrouted> {
        let decision = route::decide(request.path(), |path| {
            let found = self.router.find(request.host(), path);
            let Some(service) = found.service else { return (Err(Unrouted::NoService), found.by_path) };
            let routes = &self.services[service].settings.routes;
            let route = routes.find(request, path).ok_or(Unrouted::NoRoute);
            (route.map(|route| Destination { service, route }), found.by_path || routes.by_path())
        });
        decision.unwrap_or(Err(Unrouted::AmbiguousPath))
    }

    /// The service that a request belongs to, whatever its route does.
    pub fn route(&self, request: &impl RequestView) -> Option<usize> {
        self.find(request).ok().map(|destination| destination.service)
    }

    /// The table of a process that has no services yet.
    pub fn empty() -> Table {
        Table {
            version: 0,
            router: Arc::default(),
            services: Vec::new(),
            client: settings::Client::default(),
            listeners: Vec::new(),
        }
    }
}

impl Plane {
    /// A plane of `workers` with an empty table.
    pub fn new(workers: usize) -> Plane {
        Plane {
            table: ArcSwap::from_pointee(Table::empty()),
            roster: Roster::new(workers),
            workers: PerWorker::new(workers),
            admission: Arc::default(),
            handover: Handover::new(workers),
            streams: Streams::new(workers),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::domain::route::{Claim, HostPattern, Match, PathTest, Route, Routes, Scheme, path};

    /// A `GET` of a host and a path.
    struct Request(&'static str, &'static str);

    impl RequestView for Request {
        fn method(&self) -> &str {
            "GET"
        }
        fn path(&self) -> &str {
            self.1
        }
        fn query(&self) -> &str {
            ""
        }
        fn host(&self) -> &str {
            self.0
        }
        fn header(&self, _: &str) -> Option<&str> {
            None
        }
        fn client(&self) -> IpAddr {
            IpAddr::from([127, 0, 0, 1])
        }
        fn scheme(&self) -> Scheme {
            Scheme::Http
        }
    }

    fn service(hosts: &str, claimed: &[&str], prefixes: &[&str]) -> settings::Service {
        let mut service = settings::Service::new(format!("of-{hosts}{}", claimed.len()), Vec::new());
        service.hosts = vec![hosts.parse().expect("a host")];
        service.paths = claimed.iter().map(|path| (*path).to_owned()).collect();
        let test = |prefix: &str| Some(PathTest::Prefix(path::pattern(prefix).expect("a path")));
        let matches = |prefix: &&str| Match { path: test(prefix), ..Match::default() };
        let route = |prefix: &&str| Route { matches: matches(prefix), ..Route::new(*prefix) };
        service.routes = Routes::new(prefixes.iter().map(route).collect());
        service
    }

    fn table(services: Vec<settings::Service>) -> Table {
        let claims = services
            .iter()
            .map(|service| -> (&str, &[HostPattern], &[String]) { (&service.name, &service.hosts, &service.paths) });
        let claims: Vec<_> = claims.map(|(service, hosts, paths)| Claim { service, hosts, paths }).collect();
        let router = Arc::new(Router::build(&claims).expect("no two claims are one"));
        let live = |settings| {
            let book = Arc::new(Book::new(0, 0, 0, 1, None));
            let (settings, purse) = (Arc::new(settings), Arc::new(Purse::new(1)));
            let (split, pools, intake, faults) = (Vec::new(), Vec::new(), Arc::default(), Arc::default());
            Arc::new(Service { settings, epoch: 0, active: 0, split, pools, book, purse, intake, faults })
        };
        Table { router, services: services.into_iter().map(live).collect(), ..Table::empty() }
    }

    #[test]
    fn a_request_finds_its_service_and_route_or_why_there_is_none() {
        let table = table(vec![
            service("whole.org", &[], &[]),
            service("routed.org", &[], &["/api", "/"]),
            service("part.org", &["/api"], &[]),
            service("strict.org", &[], &["/api"]),
        ]);
        let at = |service, route| Ok(Destination { service, route });
        let expected = [
            ("whole.org", "/x/../%2f;y", at(0, 0)),
            ("routed.org", "/api/x", at(1, 0)),
            ("routed.org", "/%61pi/x%2Fy", at(1, 0)),
            ("routed.org", "/x//y", at(1, 1)),
            ("routed.org", "//api", Err(Unrouted::AmbiguousPath)),
            ("routed.org", "/x/../api", Err(Unrouted::AmbiguousPath)),
            ("part.org", "/api/x", at(2, 0)),
            ("part.org", "/x", Err(Unrouted::NoService)),
            ("part.org", "/x%2F..%2Fapi", Err(Unrouted::AmbiguousPath)),
            ("strict.org", "/api", at(3, 0)),
            ("strict.org", "/x", Err(Unrouted::NoRoute)),
            ("nowhere.org", "/", Err(Unrouted::NoService)),
        ];
        for (host, path, expected) in expected {
            assert_eq!(table.find(&Request(host, path)), expected, "{host} {path}");
        }
    }
}
