//! The valid runtime settings: what a configuration file means once it was read and checked.
//!
//! Invariant: every value here is legal (parse once); nothing past this type checks a setting again.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::domain::analysis::Policy as AnalysisPolicy;
use crate::domain::balance::{Balance, Rank};
use crate::domain::breaker::Policy as BreakerPolicy;
use crate::domain::budget::Budget;
use crate::domain::forwarded::Trust;
use crate::domain::outlier::Policy as EjectionPolicy;
use crate::domain::proxy_protocol::Version;
use crate::domain::rollout::plan::Plan;
use crate::domain::route::{Edits, HostPattern, Override, Route, Routes};
use crate::domain::{concurrency, hedge, rate, rescue, retry};

pub use super::address::{Address, Place};
pub use super::edge::{Bind, Expectation, Family, ProxyProtocol, Resolve, Resolver, UnixSocket};
pub use super::health::{Health, Initial, Probe, Question};
pub use super::listener::Listen;
pub use super::tls;

/// Everything a running proxy is told by its file.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where clients connect; at least one address.
    pub listen: Vec<Listen>,
    /// The admin API; `None` when switched off.
    pub admin: Option<Admin>,
    /// Where run-time state is kept.
    pub state: State,
    /// Data-plane threads.
    pub workers: NonZeroUsize,
    /// Where finished requests are written.
    pub access_log: AccessLog,
    /// What a client connection may do.
    pub client: Client,
    /// How names are looked up.
    pub resolver: Resolver,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// At least one service; names are unique; no two claim the same host and path.
    pub services: Vec<Service>,
}

/// The admin API's listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Loopback, or anything if there is a token.
    pub listen: SocketAddr,
    /// The bearer token callers must show; required off loopback.
    pub token: Option<Secret>,
}

/// A secret text: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: String) -> Secret {
        Secret(text)
    }

    /// The secret itself, for the one place that compares it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where splits, active pools and rollouts live between runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// In this folder.
    Folder(PathBuf),
    /// In memory only, gone with the process (`proxy` and `demo`).
    Ephemeral,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// To standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

/// Limits of a client connection. The defaults and their reasons are in `config/reference.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// From the first byte of a request head to its end.
    pub head_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub keep_alive: Duration,
    /// Connections at one time, over all workers; accepting pauses at the limit. `None` is the process's to decide.
    pub max_connections: Option<NonZeroUsize>,
    /// Of these, from one IPv4 address or IPv6 /64; what goes beyond is closed at once. `None` is no limit.
    pub max_connections_per_source: Option<NonZeroUsize>,
    /// Requests in flight at one time, over all workers; more are answered 503. `None` for no limit.
    pub max_in_flight: Option<NonZeroUsize>,
    /// While a worker's loop runs later than this it answers requests 503. `None` for never.
    pub max_lag: Option<Duration>,
    /// How long a client may leave an answer unread that is complete on our side.
    pub unread: Duration,
    /// Bytes a second that an upload brings at least; a slower one is given up. `None` for no limit.
    pub min_upload_rate: Option<NonZeroUsize>,
    /// Bytes of a request head.
    pub max_head: usize,
    /// Header fields in a request head.
    pub max_headers: usize,
    /// Who may say where a request came from.
    pub trust: Trust,
}

impl Default for Client {
    fn default() -> Client {
        Client {
            head_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            max_connections: None,
            max_connections_per_source: None,
            max_in_flight: None,
            max_lag: None,
            unread: Duration::from_secs(30),
            min_upload_rate: None,
            max_head: 32 * 1024,
            max_headers: 100,
            trust: Trust::default(),
        }
    }
}

/// How the process ends on SIGTERM: not ready first, then no accepts, then the in-flight requests finish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Between failing readiness and refusing connections, so that a balancer in front can look away.
    pub delay: Duration,
    /// How long in-flight requests may take before they are cut.
    pub grace: Duration,
    /// Connections told to go within a second, over all workers; `None` tells all at once.
    pub pace: Option<NonZeroUsize>,
    /// The same as `grace` where a successor serves already.
    pub handover: Duration,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown {
            delay: Duration::ZERO,
            grace: Duration::from_secs(30),
            pace: NonZeroUsize::new(1_000),
            handover: Duration::from_secs(300),
        }
    }
}

/// One service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Unique; lower-case letters, digits, `-` and `_`.
    pub name: String,
    /// Hosts; none means any.
    pub hosts: Vec<HostPattern>,
    /// Path prefixes beginning with `/`; none means every path.
    pub paths: Vec<String>,
    /// At least one pool; names are unique.
    pub pools: Vec<Pool>,
    /// The index of the pool that seeds an empty store.
    pub active: usize,
    /// What decides which pool a request falls to.
    pub split_by: SplitBy,
    /// Remembers a client by a cookie that holds a random id.
    pub sticky: Option<Sticky>,
    /// First match wins and says what happens.
    pub routes: Routes,
    /// First match wins and beats the split.
    pub overrides: Vec<Override>,
    /// Active health checks.
    pub health: Health,
    /// What takes endpoints out by their own results, unless a pool says otherwise: each pool has its own.
    pub ejection: EjectionPolicy,
    /// How an endpoint is chosen inside a pool.
    pub balance: Balance,
    /// Upstream timeouts.
    pub timeouts: Timeouts,
    /// Upstream connection limits.
    pub connections: Connections,
    /// Further attempts.
    pub retry: retry::Policy,
    /// A second attempt beside one that takes long; `None` if there is none.
    pub hedge: Option<hedge::Policy>,
    /// What failed on a canary and is answered by the active pool; `None` if nothing is.
    pub rescue: Option<rescue::Policy>,
    /// Bytes of a request's body that are kept for another attempt.
    pub replay: usize,
    /// The breakers of its pools, unless a pool says otherwise: each pool has its own, with everything settled.
    pub breaker: Breaker,
    /// How much its pools may be given at a time, unless a pool says otherwise: each pool has its own, with everything settled.
    pub limits: Limits,
    /// How often requests may come, after the limits of their routes.
    pub rate_limits: Vec<rate::Limit>,
    /// How many requests may be in flight; `None` for no limit.
    pub concurrency: Option<concurrency::Policy>,
    /// What the judge does when two pools share traffic.
    pub guard: Guard,
    /// How the judge judges.
    pub analysis: AnalysisPolicy,
    /// What `deploy` runs when no plan is given with it.
    pub rollout: Plan,
}

impl Service {
    /// A service for every host and path with the defaults of everything else; the first pool is the active one.
    pub fn new(name: String, pools: Vec<Pool>) -> Service {
        Service {
            name,
            hosts: Vec::new(),
            paths: Vec::new(),
            pools,
            active: 0,
            split_by: SplitBy::default(),
            sticky: None,
            routes: Routes::default(),
            overrides: Vec::new(),
            health: Health::default(),
            ejection: EjectionPolicy::default(),
            balance: Balance::default(),
            timeouts: Timeouts::default(),
            connections: Connections::default(),
            retry: retry::Policy::default(),
            hedge: None,
            rescue: Some(rescue::Policy::default()),
            replay: 64 * 1024,
            breaker: Breaker::default(),
            limits: Limits::default(),
            rate_limits: Vec::new(),
            concurrency: None,
            guard: Guard::default(),
            analysis: AnalysisPolicy::default(),
            rollout: Plan::default(),
        }
    }

    /// What further attempts may cost.
    pub fn budgets(&self) -> (Budget, Option<Budget>, Option<Budget>) {
        let (rescue, hedge) = (self.rescue.as_ref(), self.hedge.as_ref());
        (self.retry.budget, rescue.map(|rescue| rescue.budget), hedge.map(|hedge| hedge.budget))
    }

    /// The timeouts of a route's requests: its own, else the service's.
    pub fn timeouts_of(&self, route: &Route) -> Timeouts {
        Timeouts {
            connect: self.timeouts.connect,
            head: route.timeouts.head.unwrap_or(self.timeouts.head),
            request: route.timeouts.request.unwrap_or(self.timeouts.request),
            idle: route.timeouts.idle.unwrap_or(self.timeouts.idle),
        }
    }
}

/// One pool of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Unique within the service.
    pub name: String,
    /// At least one; addresses are unique within the pool.
    pub endpoints: Vec<Endpoint>,
    /// There exactly if the endpoints are `https://`.
    pub tls: Option<Arc<tls::UpstreamTls>>,
    /// What the endpoints speak.
    pub protocol: Protocol,
    /// What runs there, for header edits and for checks; visible ASCII.
    pub version: Option<String>,
    /// What its endpoints report where that is not `version`, such as an image's digest.
    pub reports: Option<String>,
    /// What takes its endpoints out by their own results.
    pub ejection: EjectionPolicy,
    /// Edits of the head that goes up, after the route's.
    pub request_headers: Edits,
    /// Edits of the head that comes down, before the route's.
    pub response_headers: Edits,
    /// How an endpoint is chosen, if not as the service says.
    pub balance: Option<Balance>,
    /// Which of a name's addresses become endpoints.
    pub resolve: Resolve,
    /// Endpoints are told whose connection it is; never with HTTP/2, whose connections are many clients'.
    pub proxy_protocol: Option<Version>,
    /// Its breaker and those of its endpoints.
    pub breaker: Breaker,
    /// How much it may be given at a time.
    pub limits: Limits,
}

impl Pool {
    /// A pool with the defaults of everything else.
    pub fn new(name: impl Into<String>, endpoints: impl IntoIterator<Item: Into<Endpoint>>) -> Pool {
        let endpoints: Vec<Endpoint> = endpoints.into_iter().map(Into::into).collect();
        let tls = endpoints.first().is_some_and(|first| first.address.tls).then(Arc::default);
        Pool {
            name: name.into(),
            endpoints,
            tls,
            protocol: Protocol::default(),
            balance: None,
            resolve: Resolve::default(),
            proxy_protocol: None,
            breaker: Breaker::default(),
            limits: Limits::default(),
            version: None,
            reports: None,
            ejection: EjectionPolicy::default(),
            request_headers: Edits::default(),
            response_headers: Edits::default(),
        }
    }

    /// Where its endpoints are, or where that is looked up.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.endpoints.iter().map(|endpoint| &endpoint.address)
    }

    /// What its endpoints must report, if they are asked.
    pub fn expected_version(&self) -> Option<&str> {
        self.reports.as_deref().or(self.version.as_deref())
    }
}

/// One endpoint of a pool, or a name that stands for several with the same rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is.
    pub address: Address,
    /// What it gets beside the others.
    pub rank: Rank,
}

impl From<Address> for Endpoint {
    fn from(address: Address) -> Endpoint {
        Endpoint { address, rank: Rank::default() }
    }
}

/// What the endpoints of a pool speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: by ALPN over TLS, by prior knowledge without.
    Http2,
    /// Whichever the endpoint picks by ALPN, preferably HTTP/2; only over TLS.
    Auto,
}

/// The key of the split.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum SplitBy {
    /// Every request is drawn anew.
    #[default]
    Request,
    /// By the client's address.
    Client,
    /// By a header's value (name in lower case); drawn anew where it is missing.
    Header(String),
    /// By a cookie's value; drawn anew where it is missing.
    Cookie(String),
}

/// A cookie that keeps a client on the side its random id falls to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: String,
    /// `Max-Age` of the cookie; `None` for a session cookie.
    pub max_age: Option<Duration>,
}

/// Upstream timeouts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To open a connection.
    pub connect: Duration,
    /// From dispatch to the response head.
    pub head: Duration,
    /// From dispatch to the end of the response; `None` for no limit (streams).
    pub request: Option<Duration>,
    /// Without a byte either way while a response streams or a tunnel is open.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            connect: Duration::from_secs(2),
            head: Duration::from_secs(30),
            request: None,
            idle: Duration::from_secs(60),
        }
    }
}

/// Upstream connection reuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Connections open to an endpoint at one time, over all workers; `None` for no limit.
    pub max: Option<NonZeroUsize>,
    /// Idle connections kept per endpoint and worker.
    pub max_idle: usize,
    /// How long an idle connection is kept: a little below what servers keep, so that ours closes first.
    pub idle: Duration,
    /// Requests in the life of a connection; a pool's [`Limits`] have it.
    pub max_requests: Option<NonZeroU32>,
}

impl Default for Connections {
    fn default() -> Connections {
        Connections { max: None, max_idle: 256, idle: Duration::from_secs(50), max_requests: None }
    }
}

/// The breakers of a pool. All are off by default: what is too many errors depends on the service, and a pool that is
/// blocked by mistake is an outage of our making.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Breaker {
    /// For the pool as a whole.
    pub pool: Option<BreakerPolicy>,
    /// For each of its endpoints by itself.
    pub endpoint: Option<BreakerPolicy>,
    /// So many openings of the canary's breaker within a rollout roll it back.
    pub rollback_after: Option<NonZeroU32>,
}

/// How much a pool may be given at a time, over all workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open to all of its endpoints; `None` for no limit.
    pub max_connections: Option<NonZeroUsize>,
    /// Requests in flight; `None` for no limit.
    pub max_in_flight: Option<NonZeroUsize>,
    /// Requests that may wait for a place: a burst is carried, a pool that is too slow is not queued up for.
    pub max_pending: usize,
    /// How long they may wait; users leave after a little more.
    pub queue_timeout: Duration,
    /// Requests in the life of a connection; `None` for no limit.
    pub max_requests_per_connection: Option<NonZeroU32>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: None,
            max_in_flight: None,
            max_pending: 100,
            queue_timeout: Duration::from_secs(1),
            max_requests_per_connection: None,
        }
    }
}

/// What happens when the judge finds the canary worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Guard {
    /// All traffic goes back to the active pool at once.
    #[default]
    Rollback,
    /// A rollout stops advancing; the split stays.
    Hold,
    /// It is reported, nothing more.
    Observe,
    /// Nobody judges.
    Off,
}
