//! Teal: a Layer-7 proxy that switches traffic between two versions of a service and judges the new one itself.
//!
//! This page is the map: how the parts fit, what happens to a request, a weight, a rollout and a rollback, what
//! always holds, and which word means what. Read it once from top to bottom, then [`proxy::pipeline`].
//!
//! # Bird's eye
//!
//! ```text
//!    clients                                               people, scripts, scrapers
//!       │ HTTP/1.1, HTTP/2, TLS                                      │ HTTP, JSON
//!  ┌────▼──────────────── DATA PLANE ───────────────┐   ┌────────────▼── CONTROL PLANE ─────────────┐
//!  │ worker-0   listener ▶ connection ▶ pipeline    │   │ control   admin ▶ controller ▶ driver     │
//!  │               route ▶ override or split ▶      │   │              │ health, watch   │ machine  │
//!  │               balance ▶ forward ▶ record       │   │ judge     comparator per canary│          │
//!  │ worker-1   the same, sharing nothing it writes │   │ store     journal, ledger ▶ one file      │
//!  └───────┬─────────────▲──────────────────┬───────┘   └────────┬────────────────────▲─────────────┘
//!          │             │ snapshot,        │ counts             │ publisher:         │ reads
//!          │             │ acknowledged     │                    │ one writer         │
//!          │      ┌──────┴──────────────────▼───── BRIDGE ───────▼────────────────────┴──┐
//!          │      │ table (immutable, swapped as one) · roster · endpoints · observations│
//!          │      └──────────────────────────────────────────────────────────────────────┘
//!          ▼
//!    pools of endpoints (blue, green)                DOMAIN: every decision, as pure functions
//! ```
//!
//! Each worker is a thread with its own runtime, listeners, upstream connections and counters. The control plane has
//! three threads: `control` runs API, driver and health checks, `judge` weighs evidence, `teal-store` waits for the
//! disk. The planes share memory and nothing else: a table flows down, counts flow up, a version comes back.
//! [`app`] builds all of it and ends it in order.
//!
//! # Life of a request
//!
//! 1. [`proxy::listener`]: a worker accepts a connection, finds it a place, and serves it or hands it to a less loaded
//!    worker. At the limit it pauses.
//! 2. [`proxy::connection`]: whose connection it is (PROXY protocol, TLS) and what it speaks. A sweep, not a timer, cuts
//!    silent clients.
//! 3. [`proxy::http1`] or [`proxy::http2`] reads a head, refuses what is malformed or ambiguous, and makes it a
//!    [`proxy::head::RequestHead`]: from here on the wire makes no difference.
//! 4. [`proxy::pipeline`]: the rest of this list, in one page of code.
//! 5. [`bridge::table`] asks [`domain::route`] for service and route. [`proxy::admission`] lets it in or refuses it at
//!    once. The first override that matches names the pool; without one, [`domain::split`] draws it from the request's
//!    key.
//!    If that pool's breaker is open, a request of the split goes to the active pool; after a cool-down a few real ones
//!    pass on trial ([`proxy::breaker`], [`domain::breaker`]).
//!    Where the pool has all it may have, the request waits its turn ([`proxy::queue`], [`bridge::room`]).
//! 6. [`domain::balance`]: an endpoint of that pool by priority, weight and policy, among those that are eligible: nothing
//!    stands against them, neither a failed check nor another version nor their own results
//!    ([`bridge::endpoint::Obstacle`]).
//! 7. [`proxy::forwarder`]: takes a connection from [`proxy::upstream`] or opens one. Then, without yielding, it asks
//!    the current table again whether the pool may still get requests, books the attempt, and writes the head. If the
//!    table says no, the request goes back to step 5. [`proxy::hop`] says which fields go up and down.
//! 8. A setback, or an answer that is not good enough, goes round again if [`domain::retry`] says so: a canary's failure to
//!    the active pool ([`domain::rescue`]), another to another endpoint. Nothing is done twice, and budgets have room.
//! 9. [`proxy::exchange`]: request and answer stream in the client's own task; a cut upstream response ends as an error.
//! 10. [`proxy::recorder`]: counts the attempt in the book of the weight epoch it was dispatched under, into the
//!     worker's own cells ([`bridge::observations`]). One failure in a row too many takes the endpoint out before the next
//!     request ([`bridge::ejection`]). [`proxy::access`] hands the log line over, if there is a log.
//! 11. Whatever was not answered by an upstream is a [`proxy::error::Fault`]; one place makes it a [`proxy::reply`].
//!
//! # Life of a weight change
//!
//! `teal weight shop green=10%` reaches the [`control::driver`] through [`control::controller`]. It refuses what is
//! not legal: shares that do not sum to 100 %, a pool without an eligible endpoint, a service in a rollout. Then:
//!
//! 1. **Journal.** The intent is durable ([`control::store`]). A crash from here on drops it.
//! 2. **Publish.** [`control::publisher`] stores a table with a higher version, and a new epoch for the service with
//!    an empty book. A rollback that came first has used up the epoch: then the move is refused as overtaken.
//! 3. **Acknowledge.** Every worker swaps its snapshot and reports the version ([`bridge::roster`]). After its report
//!    a worker dispatches nothing by the old split. The wait ends after a second; a straggler is named, and the split
//!    before is published again.
//! 4. **Settle.** The new state is durable as settled. Only now the caller is told, with the time it took.
//!
//! # Life of a rollout
//!
//! `teal deploy shop --to green` first asks green's endpoints whether they answer, then journals a rollout. Its plan
//! ([`domain::rollout::plan`]) is steps of `weight`, `analyze` and `pause`. [`domain::rollout::machine`] says what
//! happens next; the driver performs it and reports back. Each `weight` is a weight change as above.
//!
//! While the canary's breaker is not closed the rollout is held; it begins its step again once it is.
//!
//! Meanwhile [`control::judge`] looks ten times a second at what the workers counted and gives it to a
//! [`domain::analysis::Comparator`]. Evidence that green is worse and evidence that it is not are kept apart; neither
//! is derived from a lack of the other. `analyze` waits for the second, at least its dwell. Without it the rollout
//! stays; at a deadline it holds or rolls back, as the plan says. After the last weight green becomes the active pool
//! and the rollout is `promoted`. The judge's evidence is written every second ([`control::ledger`]), so that a
//! restart neither forgets it nor spends alpha twice.
//!
//! # Life of a drain
//!
//! `teal drain shop blue http://10.0.0.11:8080` takes an endpoint out of use, or a whole pool. The order is durable
//! first, then the endpoint gets an obstacle, and the table is published once more as it is: once every worker has
//! taken that up, nothing new goes there. Idle connections to it close at once, busy ones after their request. The
//! driver counts what is left, tells when it is over, and cuts it only at a deadline that the order named. Endpoints
//! that a reload or the DNS took away leave in the same way.
//!
//! # Life of a process
//!
//! SIGTERM: readiness fails, `shutdown.delay` passes, accepting ends. Clients are told to go one after another, idle
//! ones first ([`domain::farewell`]): by GOAWAY, or by `Connection: close` with their next answer. What is in flight
//! has until the end of the grace time, then it is cut and counted.
//!
//! `teal upgrade`: the process starts its own successor from the same command line and gives it every listening socket
//! ([`app::succession`]). The successor reads its file, waits until the state is let go of, opens it, publishes its
//! first table, and only when it is told so it accepts; then the old one stops accepting and drains, its control plane
//! ended. Whatever goes wrong before that ends the successor, and the old one takes the state back. Meanwhile changes
//! wait. A rollback does not: it is published where it was asked for, and calls the upgrade off.
//!
//! # Life of a rollback
//!
//! It begins with the judge, with `teal rollback` or with `teal abort`. Whoever begins it publishes first: the judge
//! from its own thread, the others before they queue for the driver. [`control::publisher::Publisher::revert`] needs
//! no disk, no queue and no network; it gives the active pool everything and marks the others as rolled back, so that
//! overrides stay away from them unless they insist. The driver then waits for the workers, tells how long it took,
//! and journals; a journal that fails is tried again by the clock, the traffic has moved already.
//!
//! # After a crash
//!
//! The store holds the settled state. An intent that was not settled is dropped, so there is never more canary than
//! was acknowledged. A rollout begins its wait anew, falls back to the gate before the move it was in, or is held; one
//! that was rolling back reverts again.
//!
//! # Codemap
//!
//! | module | what is there |
//! |---|---|
//! | [`app`] | builds both planes, starts and ends them in order; the only one that knows both. Sockets that were there before, and processes that follow each other |
//! | [`bridge::admission`] | how many connections there are, in all and from one source; why one ended |
//! | [`bridge::handover`] | what each worker carries, and an inbox for connections it is given |
//! | [`bridge::table`] | the routing table and what a request gets from it |
//! | [`bridge::balancer`] | whose turn it is and how priorities stand, for each worker; the pick |
//! | [`bridge::ejection`] | an endpoint's results, and its pool's seats for those that are out |
//! | [`bridge::endpoint`] | an endpoint's health, obstacles, in-flight counts and where it was found; survives tables |
//! | [`bridge::injection`] | faults that are injected for a drill |
//! | [`bridge::intake`] | what a request passes before it gets a pool: rate limits, places among those in flight |
//! | [`bridge::rate`] | what each key of a rate limit has used, in a table of fixed size that nobody locks |
//! | [`bridge::observations`] | books, cells and tallies: what workers count, per weight epoch and in total |
//! | [`bridge::breaker`] | a breaker of a pool or an endpoint, shared by all workers |
//! | [`bridge::counters`] | counters with one writer each |
//! | [`bridge::streams`] | long streams: WebSockets, events, gRPC, with their age |
//! | [`bridge::tls`] | TLS ready for use, both sides; who a client proved to be; how handshakes ended |
//! | [`bridge::pace`] | how long a pool's answers take of late, for hedging |
//! | [`bridge::purse`] | what a service may spend on further attempts, over all workers |
//! | [`bridge::room`] | how many requests and connections a pool has, and who waits |
//! | [`bridge::roster`] | which worker has taken up which version |
//! | [`cli`] | the command line, one file per verb |
//! | [`clock`] | the only reader of time |
//! | [`config`] | YAML to valid [`config::settings`], or every problem with its place |
//! | [`control::admin`] | the admin API: entry checks, routes, wire types, events, metrics |
//! | [`control::breakers`] | what breakers do, told; the clock of their cool-downs |
//! | [`control::command`] | what can be asked of the control plane |
//! | [`control::concurrency`] | moves the limits of services that find their own |
//! | [`control::controller`] | the handle through which it is asked |
//! | [`control::discovery`] | where the names of endpoints are, asked again by TTL |
//! | [`control::driver`] | the one task that owns run-time state and performs moves, rollouts, reloads |
//! | [`control::ejection`] | ends ejections, compares the endpoints of a pool |
//! | [`control::events`] | what happened, as a bounded ring of sentences |
//! | [`control::faults`] | faults to inject: begun by API, ended by time |
//! | [`control::health`] | active checks; [`control::probe`] is what a check says |
//! | [`control::case`] | one canary on trial: its books and its evidence |
//! | [`control::judge`] | compares canary and baseline, rolls back |
//! | [`control::ledger`] | the judge's evidence on disk |
//! | [`control::materials`] | the TLS of a configuration, made ready for a table |
//! | [`control::pacer`] | measures that pace |
//! | [`control::publisher`] | the one writer of the table |
//! | [`control::standing`] | tells when a pool panics or fails over |
//! | [`control::state`] | what users and rollouts change at run time |
//! | [`control::store`] | one crash-safe file, and its thread |
//! | [`control::upgrade`] | an order for a new process |
//! | [`control::watch`] | a changed file or certificate is a reload |
//! | `demo` | the embedded demo: two versions, users, a fault |
//! | [`domain::analysis`] | the comparator, its findings and approvals |
//! | [`domain::balance`] | which endpoint of a pool: policies, weights, priorities, panic, slow start |
//! | [`domain::breaker`] | when a breaker opens, tries and closes |
//! | [`domain::budget`] | further attempts as a share of requests |
//! | [`domain::drain`] | what is out of use by an order, and how such an order ends |
//! | [`domain::farewell`] | how fast clients are told to go when a process ends |
//! | [`domain::concurrency`] | how many requests may be in flight, by what latency says |
//! | [`domain::forwarded`] | who the client is behind trusted proxies, and what upstreams are told |
//! | [`domain::grpc_health`] | the messages of gRPC's health protocol |
//! | [`domain::health`] | what follows from checks; what a good answer looks like; is it the right version |
//! | [`domain::hedge`] | when a second attempt begins beside a slow one |
//! | [`domain::injection`] | what an injected fault does, to which requests, until when |
//! | [`domain::network`] | sets of IP networks |
//! | [`domain::outcome`] | what an attempt turned out to be |
//! | [`domain::outlier`] | which endpoints their own results take out, and for how long |
//! | [`domain::placement`] | which worker takes a fresh connection |
//! | [`domain::proxy_protocol`] | the PROXY protocol, read and written |
//! | [`domain::rate`] | how often something may happen |
//! | [`domain::rescue`] | what failed on a canary and the active pool may answer |
//! | [`domain::retry`] | what may be sent again, and how often |
//! | [`domain::rollout`] | plan and state machine |
//! | [`domain::route`] | hosts, paths, routes (rewrites, redirects, header edits), overrides |
//! | [`domain::split`] | shares, and the pool a key falls to |
//! | [`domain::stats`] | e-values, the spending recursion, latency buckets |
//! | [`domain::upload`] | whether an upload comes fast enough |
//! | [`proxy`] | the data plane, files in request order |
//! | [`telemetry`] | metric names, process log, access log |
//!
//! # Decisions
//!
//! What was expensive to find out, and would be expensive to get wrong. Comments cite these numbers ("Decisions 12").
//!
//! 1. **Acknowledged means done.** A worker decides by its own cached snapshot and asks the current one again at the
//!    moment of dispatch, so that nothing is sent to a pool whose share has become zero. A change counts when every
//!    worker has reported its version.
//! 2. **Two counters.** The *version* counts tables, a service's *epoch* counts its splits. Observations belong to the
//!    epoch at dispatch and are read until its last request has ended.
//! 3. **Who is judged.** The first attempt of what the split assigned. Finding no endpoint or a refused connection is a
//!    bad unit; overrides are left out. A client that goes away is neutral from then on.
//! 4. **Latency** is dispatch to response head. A request enters the books when its head comes or when it passes the
//!    mark, whichever is first: hanging is slow at once. After the head only errors count.
//! 5. **Cells** have one writer, and a count and its bad part are read as one word.
//! 6. **The judge always watches** when pools share traffic, whoever shared it. Its evidence survives a restart.
//! 7. **Breakers.** A canary's breaker that opens is a reversible hold, not a verdict: its requests go to the active pool
//!    and are judged for neither, the rollout waits and goes on by itself. Only trials, and what is answered 503, are
//!    units. Openings past `rollback_after` roll back by rule, outside the judge's guarantee.
//! 8. **Split.** Weighted rendezvous hashing, salted per rollout: raising one share moves keys only towards it. A sticky
//!    cookie holds an id, never a pool. Overrides avoid a pool that was rolled back, unless they insist.
//! 9. **Rescue** is decided by the head of the canary's answer, or by its lack: what comes after is charged, not rescued.
//!    A canary that may be rescued is waited for only so long, and who takes longer counts as failed in every pool: else
//!    the judge would compare limits. Safe methods by default; bodies that fit are kept, longer ones pass as ever.
//! 10. **One exchange drives both ways.** Upload and download of a request run in the client's own task. HTTP/1.1 is our
//!     own wire path on both sides, HTTP/2 is the `h2` crate's; both meet in one neutral head and one set of rules.
//! 11. **Uneven workers.** Whoever accepts a connection compares what the workers carry, busy connections first, and
//!     hands it to a notably less loaded one before its first byte is read. Equal workers keep what the kernel gave them.
//! 12. **One writer; back is faster than forth.** Forward: journal, publish, acknowledge. Back: publish first. Judge and
//!     store have threads of their own.
//! 13. **File and state.** The file defines, the store remembers; `active` in a file only seeds. The default plan is 1,
//!     5, 25, 50, 100 % with analysis between. Drains are state: they outlive reloads and restarts. A pool with traffic cannot be taken away, one that does not answer
//!     cannot be deployed to.
//! 15. **Upgrade.** The store has one process. The old one hands over sockets and state, in this order, and only drains;
//!     at any time at most one of them has the state open, and at least one accepts.
//! 18. **Reuse and retry.** A request that met a dead idle connection goes out again on another. Otherwise one retry by
//!     default, only of what cannot happen twice, within a budget of a tenth of the requests. An answer is kept until
//!     another attempt has brought one.
//! 19. **Tick.** The judge looks every 100 ms; a rollback is published within a tick of the deciding answer.
//! 20. **A bad instance is not a bad release.** What takes an endpoint out by its results is what another instance of the
//!     same release can do better: by default only failures to answer at all. A share of a pool is the most that may be
//!     out, never all: a pool whose endpoints all fail is the judge's case.
//!
//! The numbers between belong to what is not there yet: 14 audit chain, 16 point of no return, 17 fleet.
//!
//! # Invariants
//!
//! The first eight are about traffic; the rest is about the code, and held by `tests/tidy.rs`.
//!
//! 1. What was answered as done is with every worker and on disk.
//! 2. A pool with a share of zero gets nothing but what an override sends there.
//! 3. After a crash there is never more canary than was acknowledged.
//! 4. A late weight never undoes a rollback: epochs only rise, and a used one is refused.
//! 5. A canary that is no worse than tolerated is rolled back with a chance of at most alpha per rollout.
//! 6. No traffic is inconclusive. It is never success, and never failure.
//! 7. A request is answered exactly once; an answer that was cut short never looks complete.
//! 8. Whatever a stranger could make grow has a limit: connections, heads, bodies, events, histories.
//! 9. `domain` is pure: time and chance are arguments.
//! 10. `proxy` and `control` never import each other; they meet in `bridge`, and only `app` knows both.
//! 11. Only [`clock`] reads time, only border files know serde, only [`telemetry::names`] names metrics.
//!
//! # Glossary
//!
//! - *service*: what hosts and paths lead to. *pool*: a named set of endpoints. *endpoint*: one upstream address.
//! - *split*: the shares between pools, in basis points. *share*: one pool's part. *active*: the pool rollbacks go to.
//! - *blue, green*: names of pools. *baseline, canary*: roles in one rollout.
//! - *override*: a rule that beats the split. *sticky*: the split's key is a cookie with a random id.
//! - *obstacle*: what stands against giving an endpoint requests. *ejection*: its own results took it out for a *term*;
//!   *seats*: how many of a pool may be out at a time.
//! - *connections*: kept open to upstreams; never called a pool. *balance*: the choice of an endpoint.
//! - *weight*: an endpoint's part beside others of its *priority*; a lower priority is used first. *panic*: too few are
//!   eligible for what their own results hold against the others to count.
//! - *version*: counts tables. *epoch*: counts a service's splits. *book*: the observations of one epoch.
//! - *mark*: a latency against which requests are counted. *unit*: one judged request, good or bad.
//! - *analysis* compares; *finding*: proof of worse; *approval*: proof of not worse; *evidence*: how far a proof is.
//! - *retry*: another attempt by the same split. *rescue*: one at the active pool, of what failed on a canary. *replay*: what
//!   was kept of a body for either. *hedge*: a second attempt
//!   beside a slow one. *purse*: what they may cost.
//! - *guard*: what a finding leads to: rollback, hold, observe or off.
//! - *breaker*: open means that requests are blocked. *trial*: a real request let through to see. *diverted*: sent to the
//!   active pool because the breaker of its own is open. *cool-down*: how long it stays open.
//! - *rollout*: a walk through a plan; ends *promoted*, *rolled back* or *aborted*. *held*: it stays where it is.
//! - *intake*: what a request passes before it gets a pool: rate limits, a place among those in flight. *shed*: answered
//!   503 at once because there is enough to do.
//! - *injected fault*: a drill: stands in for what a pool would do, is judged as the pool's own, and has an end.
//! - *drain*: no new requests, wait for those in flight. *settled*: durable and acknowledged.
//!
//! # Not there yet
//!
//! Deliberately, and named so that nobody looks for it: TLS of the admin API; HTTP/3; absolute objectives and strata in
//! the analysis; gates, hooks, warm-up and a point of no return in
//! plans; stickiness beyond the cookie and the keyed split; endpoint discovery beyond names that are resolved again;
//! edits of definitions by API; an audit chain; the dashboard; a fleet.

pub mod app;
pub mod bridge;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod demo;
pub mod domain;
pub mod proxy;
pub mod telemetry;
