//! `GET /metrics`: the workers' own cells, read when asked, in the Prometheus text format.
//!
//! Nothing is registered and nothing is counted twice: a scrape walks the current table. The fine latency
//! buckets are folded into [`BOUNDS`], rounded so that a bound never claims a request that may have taken longer.
//!
//! Invariant: every family comes from `telemetry::names`, and its series differ in their labels.

mod attempts;
mod balance;
mod breakers;
mod endpoints;
mod intake;

use std::collections::BTreeMap;

use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Error, TextEncoder};

use crate::bridge::admission::{Abuse, Closed, Pause, Refusal};
use crate::bridge::counters::{PerWorker, Tally};
use crate::bridge::observations::{PoolTally, latency_of};
use crate::bridge::roster::Roster;
use crate::bridge::table::{Plane, Service, Table, WorkerTally};
use crate::bridge::tls::{Failure as Failed, Handshakes};
use crate::config::settings::tls::Identity;
use crate::control::admin::wire::CLASSES;
use crate::control::controller::Controller;
use crate::control::discovery::Known;
use crate::domain::outcome::Failure;
use crate::domain::stats::histogram;
use crate::telemetry::names;

/// The text format's media type.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of the exported latency buckets in microseconds: half a millisecond to a minute.
const BOUNDS: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// What only the controller knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Facts {
    /// The last reload was taken.
    pub(super) reload_ok: bool,
    /// Rollbacks by the judge, by people and by a breaker's rule.
    pub(super) rollbacks: (u64, u64, u64),
    /// Service, canary, evidence as a share of what a rollback needs.
    pub(super) evidence: Vec<(String, String, f64)>,
    /// How the names of endpoints are doing.
    pub(super) names: Vec<Known>,
}

impl Facts {
    /// As they are now.
    pub(super) fn of(controller: &Controller) -> Facts {
        let judged = controller.services().into_iter().filter_map(|service| Some((service.name, service.judge?)));
        Facts {
            reload_ok: controller.last_reload_ok(),
            rollbacks: controller.rollbacks(),
            evidence: judged.map(|(name, judge)| (name, judge.canary, judge.evidence / judge.needed)).collect(),
            names: controller.names(),
        }
    }
}

/// All metrics as text.
///
/// # Errors
/// When the encoder refuses a family, which is a fault of this file.
pub(super) fn render(plane: &Plane, facts: &Facts) -> Result<String, Error> {
    let table = plane.table.load_full();
    let mut families = process(plane, &table, facts);
    families.extend(connections(plane, &table));
    families.extend(workers(plane));
    families.extend(tls(plane, &table));
    families.extend(pools(&table));
    families.extend(attempts::families(&table));
    families.extend(services(&table, facts));
    families.extend(balance::families(&table));
    families.extend(endpoints::families(&table));
    families.extend(discovery(facts));
    families.extend(breakers::families(&table));
    families.extend(intake::families(plane, &table));
    // A family without a series has no place in the text.
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new().encode_to_string(&families)
}

fn process(plane: &Plane, table: &Table, facts: &Facts) -> Vec<MetricFamily> {
    let total =
        |tally: fn(&WorkerTally) -> u64| counter(&[], plane.workers.iter().map(tally).fold(0, u64::wrapping_add));
    let (judge, manual, breaker) = facts.rollbacks;
    let version = gauge(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    vec![
        family(names::BUILD_INFO, MetricType::GAUGE, [version]),
        family(names::TABLE_VERSION, MetricType::GAUGE, [gauge(&[], taken_up(&plane.roster, table.version) as f64)]),
        family(names::RELOAD_OK, MetricType::GAUGE, [gauge(&[], flag(facts.reload_ok))]),
        family(names::REQUESTS_REFUSED, MetricType::COUNTER, [total(|tally| tally.refused.read())]),
        family(names::REQUESTS_CUT, MetricType::COUNTER, [total(|tally| tally.cut.read())]),
        family(names::ACCESS_LOG_DROPPED, MetricType::COUNTER, [total(|tally| tally.log_dropped.read())]),
        family(
            names::ROLLBACKS,
            MetricType::COUNTER,
            [("judge", judge), ("manual", manual), ("breaker", breaker)]
                .map(|(kind, count)| counter(&[("kind", kind)], count)),
        ),
    ]
}

fn connections(plane: &Plane, table: &Table) -> [MetricFamily; 8] {
    let total = |read: &dyn Fn(&WorkerTally) -> u64| plane.workers.iter().map(read).fold(0, u64::wrapping_add);
    let by_reason = |names: &[&'static str], tallies: fn(&WorkerTally) -> &[Tally]| {
        let reason =
            |(at, name): (usize, &&str)| counter(&[("reason", name)], total(&|tally| tallies(tally)[at].read()));
        names.iter().enumerate().map(reason).collect::<Vec<_>>()
    };
    let limit = plane.admission.limit(table.client.max_connections);
    let accepted = counter(&[], total(&|tally| tally.accepted.read()));
    let http2 = counter(&[], total(&|tally| tally.http2.read()));
    [
        family(names::CONNECTIONS_OPEN, MetricType::GAUGE, [gauge(&[], plane.admission.open() as f64)]),
        family(names::CONNECTIONS_LIMIT, MetricType::GAUGE, [gauge(&[], limit as f64)]),
        family(names::CONNECTIONS_ACCEPTED, MetricType::COUNTER, [accepted]),
        family(names::CONNECTIONS_REFUSED, MetricType::COUNTER, by_reason(&Refusal::NAMES, |tally| &tally.turned_away)),
        family(names::CONNECTIONS_CLOSED, MetricType::COUNTER, by_reason(&Closed::NAMES, |tally| &tally.closed)),
        family(names::HTTP2_CONNECTIONS, MetricType::COUNTER, [http2]),
        family(names::HTTP2_ABUSES, MetricType::COUNTER, by_reason(&Abuse::NAMES, |tally| &tally.abuses)),
        family(names::ACCEPT_PAUSES, MetricType::COUNTER, by_reason(&Pause::NAMES, |tally| &tally.pauses)),
    ]
}

fn workers(plane: &Plane) -> [MetricFamily; 5] {
    let mut open = Vec::new();
    let mut busy = Vec::new();
    let mut handed_over = Vec::new();
    let mut requests = Vec::new();
    let mut lag = Vec::new();
    for (index, tally) in plane.workers.iter().enumerate() {
        let (number, load) = (index.to_string(), plane.handover.load(index));
        let place = [("worker", number.as_str())];
        open.push(gauge(&place, load.open.into()));
        busy.push(gauge(&place, load.busy.into()));
        handed_over.push(counter(&place, tally.handed_over.read()));
        requests.push(counter(&place, tally.requests.read()));
        lag.push(gauge(&place, seconds(tally.lag.read())));
    }
    [
        family(names::WORKER_CONNECTIONS, MetricType::GAUGE, open),
        family(names::WORKER_BUSY, MetricType::GAUGE, busy),
        family(names::WORKER_HANDED_OVER, MetricType::COUNTER, handed_over),
        family(names::WORKER_REQUESTS, MetricType::COUNTER, requests),
        family(names::WORKER_LAG, MetricType::GAUGE, lag),
    ]
}

fn tls(plane: &Plane, table: &Table) -> [MetricFamily; 3] {
    let sum = |read: &dyn Fn(&Handshakes) -> u64| {
        plane.workers.iter().map(|tally| read(&tally.handshakes)).fold(0, u64::wrapping_add)
    };
    let handshakes = [
        counter(&[("kind", "full")], sum(&|handshakes| handshakes.full.read())),
        counter(&[("kind", "resumed")], sum(&|handshakes| handshakes.resumed.read())),
    ];
    let failures = Failed::ALL
        .into_iter()
        .map(|kind| counter(&[("kind", kind.name())], sum(&|handshakes| handshakes.failed[kind as usize].read())));
    // One file may serve several listeners and pools: a series each would be the same one twice.
    let ends: BTreeMap<_, _> = identities(table).map(|known| (known.file.display().to_string(), known)).collect();
    let ends = ends.into_iter().map(|(file, known)| gauge(&[("file", file.as_str())], known.not_after as f64));
    [
        family(names::TLS_HANDSHAKES, MetricType::COUNTER, handshakes),
        family(names::TLS_FAILURES, MetricType::COUNTER, failures),
        family(names::CERTIFICATE_END, MetricType::GAUGE, ends),
    ]
}

/// Certificates with keys, of listeners and of pools.
fn identities(table: &Table) -> impl Iterator<Item = &Identity> {
    let servers = table.listeners.iter().filter_map(|listener| listener.tls.as_deref());
    let pools = table.services.iter().flat_map(|service| &service.pools);
    let connectors = pools.filter_map(|pool| pool.connector.as_deref());
    let upstream = connectors.filter_map(|connector| connector.settings.identity.as_ref());
    servers.flat_map(|server| &server.settings.certificates).chain(upstream)
}

/// The newest version that every worker has taken up, up to `version`.
fn taken_up(roster: &Roster, version: u64) -> u64 {
    let (mut seen, mut unseen) = (0, version.saturating_add(1));
    while seen + 1 < unseen {
        let middle = seen + (unseen - seen) / 2;
        if roster.has_seen(middle) { seen = middle } else { unseen = middle }
    }
    seen
}

fn pools(table: &Table) -> [MetricFamily; 6] {
    type Tallies = PerWorker<PoolTally>;
    let mut responses = Vec::new();
    let mut failures = Vec::new();
    let mut retries = Vec::new();
    let mut in_flight = Vec::new();
    let mut streams = Vec::new();
    let mut latency = Vec::new();
    for (service, pool) in
        table.services.iter().flat_map(|service| service.pools.iter().map(move |pool| (service, pool)))
    {
        let place = [("service", service.settings.name.as_str()), ("pool", pool.name.as_str())];
        let labels = |more: (&'static str, &'static str)| [place[0], place[1], more];
        let tallies: &Tallies = &pool.tally;
        let sum = |read: &dyn Fn(&PoolTally) -> u64| tallies.iter().map(read).fold(0, u64::wrapping_add);
        for (at, class) in CLASSES.into_iter().enumerate() {
            responses.push(counter(&labels(("class", class)), sum(&|tally| tally.classes[at].read())));
        }
        for (at, kind) in Failure::ALL.into_iter().enumerate() {
            failures.push(counter(&labels(("kind", kind.name())), sum(&|tally| tally.failures[at].read())));
        }
        retries.push(counter(&place, sum(&|tally| tally.retries.read())));
        in_flight.push(gauge(&place, sum(&|tally| tally.in_flight.read()) as f64));
        streams.push(gauge(&place, sum(&|tally| tally.streams.read()) as f64));
        latency.push(latency_histogram(&place, &latency_of(tallies), sum(&|tally| tally.latency_sum.read())));
    }
    [
        family(names::RESPONSES, MetricType::COUNTER, responses),
        family(names::FAILURES, MetricType::COUNTER, failures),
        family(names::RETRIES, MetricType::COUNTER, retries),
        family(names::IN_FLIGHT, MetricType::GAUGE, in_flight),
        family(names::LONG_STREAMS, MetricType::GAUGE, streams),
        family(names::LATENCY, MetricType::HISTOGRAM, latency),
    ]
}

fn services(table: &Table, facts: &Facts) -> [MetricFamily; 5] {
    let mut epochs = Vec::new();
    let mut shares = Vec::new();
    let mut active = Vec::new();
    let mut healthy = Vec::new();
    for service in &table.services {
        let service: &Service = service;
        let name = ("service", service.settings.name.as_str());
        epochs.push(gauge(&[name], service.epoch as f64));
        for (at, pool) in service.pools.iter().enumerate() {
            let place = [name, ("pool", pool.name.as_str())];
            shares.push(gauge(&place, service.share(at).fraction()));
            active.push(gauge(&place, flag(at == service.active)));
            for endpoint in &pool.endpoints {
                let address = endpoint.to_string();
                healthy.push(gauge(&[place[0], place[1], ("endpoint", &address)], flag(endpoint.is_eligible())));
            }
        }
    }
    let evidence = facts.evidence.iter();
    let evidence = evidence.map(|(service, pool, ratio)| gauge(&[("service", service), ("pool", pool)], *ratio));
    [
        family(names::EPOCH, MetricType::GAUGE, epochs),
        family(names::SHARE, MetricType::GAUGE, shares),
        family(names::ACTIVE, MetricType::GAUGE, active),
        family(names::ENDPOINT_HEALTHY, MetricType::GAUGE, healthy),
        family(names::EVIDENCE, MetricType::GAUGE, evidence),
    ]
}

fn discovery(facts: &Facts) -> [MetricFamily; 2] {
    let (mut addresses, mut failures) = (Vec::new(), Vec::new());
    for known in &facts.names {
        let name = known.address.to_string();
        addresses.push(gauge(&[("name", &name)], known.addresses as f64));
        failures.push(counter(&[("name", &name)], known.failures));
    }
    [
        family(names::NAME_ADDRESSES, MetricType::GAUGE, addresses),
        family(names::NAME_FAILURES, MetricType::COUNTER, failures),
    ]
}

fn flag(on: bool) -> f64 {
    f64::from(u8::from(on))
}

fn family(metric: names::Metric, kind: MetricType, series: impl IntoIterator<Item = Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(kind);
    family.set_metric(series.into_iter().collect());
    family
}

fn counter(labels: &[(&str, &str)], value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = series(labels);
    metric.set_counter(counter);
    metric
}

fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = series(labels);
    metric.set_gauge(gauge);
    metric
}

fn latency_histogram(labels: &[(&str, &str)], counts: &[u64], sum_micros: u64) -> Metric {
    let buckets = BOUNDS.into_iter().zip(folded(counts, histogram::index)).map(|(bound, count)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(seconds(bound));
        bucket.set_cumulative_count(count);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(seconds(sum_micros));
    let mut metric = series(labels);
    metric.set_histogram(histogram);
    metric
}

/// How many values certainly lie within each bound: those in fine buckets that end at it or before. A bucket
/// does, if the first value past the bound has a later `index`.
fn folded(counts: &[u64], index: impl Fn(u64) -> usize) -> [u64; BOUNDS.len()] {
    BOUNDS.map(|bound| counts.iter().take(index(bound + 1)).sum())
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn series(labels: &[(&str, &str)]) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

#[cfg(test)]
mod tests;
