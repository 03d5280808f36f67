//! A plane made by hand and the text it must come out as.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::*;
use crate::bridge::balancer::Balancer;
use crate::bridge::endpoint::{Endpoint, Health};
use crate::bridge::injection::Live;
use crate::bridge::intake::Intake;
use crate::bridge::observations::Book;
use crate::bridge::purse::Purse;
use crate::bridge::room::Room;
use crate::bridge::table::{Listener, Pool};
use crate::bridge::tls::Server;
use crate::config::settings::{self, tls::desk::Desk};
use crate::domain::concurrency::Policy;
use crate::domain::injection::{Effect, Injection};
use crate::domain::rate::{By, Limit};
use crate::domain::rescue::Refused;
use crate::domain::route::Match;
use crate::domain::split::{Share, Slot};

fn address(port: u16) -> settings::Address {
    settings::Address::http("127.0.0.1", port)
}

fn settings() -> settings::Service {
    let pool = |name: &str, port| settings::Pool::new(name, vec![address(port)]);
    let policy = || Some(Default::default());
    let breaker = settings::Breaker { pool: policy(), endpoint: policy(), rollback_after: None };
    let green = settings::Pool { breaker, ..pool("green", 3002) };
    let mut service = settings::Service::new("shop".to_owned(), vec![pool("blue", 3001), green]);
    let (name, matches, rate) = ("clients".to_owned(), Match::default(), "10/s".parse().expect("a rate"));
    service.rate_limits = vec![Limit { name, matches, by: By::Client, rate, burst: 5, keys: 64 }];
    service.concurrency = Some(Policy { max: 300, adaptive: None });
    service
}

fn fault() -> Injection {
    Injection {
        name: "drill".to_owned(),
        pool: Some("green".to_owned()),
        matches: Match::default(),
        share: Share::ALL,
        effect: Effect { delay: None, abort: Some(503) },
        until: u64::MAX,
    }
}

/// A listener with a certificate that ends with the year 3999.
fn listener() -> Listener {
    let settings = Desk::new().listener("tls: { certificates: { cert: a.crt, key: a.key } }").unwrap();
    let tls = Server::new(settings.tls.as_ref().unwrap(), None).unwrap();
    Listener { tls: Some(Arc::new(tls)), settings, strict_transport: None }
}

/// Two workers, one service: blue with 90 %, green with 10 % and an unhealthy endpoint.
fn plane() -> Plane {
    let settings = Arc::new(settings());
    let slot = |points| Slot { seed: 1, share: Share::from_basis_points(points).expect("a share") };
    let pools = settings.pools.iter().zip(1_u64..).map(|(pool, id)| {
        let endpoint = Endpoint::new(id, pool.endpoints[0].address.clone(), 2);
        endpoint.set_health(if pool.name == "green" { Health::Unhealthy } else { Health::Healthy });
        let endpoint = Arc::new(endpoint);
        let ranked = [(Arc::clone(&endpoint), pool.endpoints[0].rank)];
        Arc::new(Pool {
            name: pool.name.clone(),
            rolled_back: false,
            endpoints: vec![endpoint],
            balancer: Arc::new(Balancer::new(settings.balance.clone(), &ranked, &Arc::default(), 2)),
            protocol: settings::Protocol::Http1,
            connector: None,
            proxy_protocol: None,
            pace: Arc::default(),
            tally: Arc::new(PerWorker::new(2)),
            breaker: Arc::default(),
            room: Arc::new(Room::new(&settings::Limits { max_in_flight: NonZeroUsize::new(9), ..Default::default() })),
            ejection: pool.ejection,
            bench: Arc::default(),
        })
    });
    let service = Service {
        epoch: 4,
        active: 0,
        split: vec![slot(9_000), slot(1_000)],
        pools: pools.collect(),
        book: Arc::new(Book::new(4, 0, 2, 2, None)),
        purse: Arc::new(Purse::new(2)),
        intake: Arc::new(Intake::new(&settings, None, 2)),
        faults: vec![Arc::new(Live::new(fault(), 2))].into(),
        settings,
    };
    let plane = Plane::new(2);
    let services = vec![Arc::new(service)];
    // One certificate behind two addresses is one series.
    let listener = Arc::new(listener());
    let listeners = vec![Arc::clone(&listener), listener];
    plane.table.store(Arc::new(Table { version: 12, services, listeners, ..Table::empty() }));
    plane
}

fn render_of(plane: &Plane, facts: &Facts) -> String {
    render(plane, facts).expect("the encoder takes every family")
}

#[test]
fn further_attempts_are_counted_by_pool() {
    let plane = plane();
    let table = plane.table.load_full();
    let green = &table.services[0].pools[1].tally;
    green.of(0).hedges.add(4);
    green.of(1).hedge_wins.add(3);
    green.of(0).rescued.add(4);
    green.of(1).rescued.add(1);
    green.of(1).unrescued[Refused::Budget as usize].add(2);
    let text = render_of(&plane, &Facts::default());
    for line in [
        "teal_pool_hedges_total{service=\"shop\",pool=\"green\"} 4",
        "teal_pool_hedge_wins_total{service=\"shop\",pool=\"green\"} 3",
        "teal_pool_rescued_total{service=\"shop\",pool=\"green\"} 5",
        "teal_pool_rescue_refused_total{service=\"shop\",pool=\"green\",reason=\"budget\"} 2",
        "teal_pool_rescue_refused_total{service=\"shop\",pool=\"blue\",reason=\"method\"} 0",
        "teal_service_retries_in_flight{service=\"shop\"} 0",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
}

#[test]
fn known_counters_come_out_as_exact_lines() {
    let plane = plane();
    [(0, 12), (1, 11)].into_iter().for_each(|(worker, version)| plane.roster.report(worker, version));
    let places: Vec<_> = (0..3).filter_map(|_| plane.admission.enter(3)).collect();
    plane.handover.busier(0, 2);
    plane.workers.of(0).pauses[1].add(4);
    plane.workers.of(1).pauses[1].add(1);
    plane.workers.of(1).closed[0].add(6);
    plane.workers.of(0).turned_away[0].add(8);
    plane.workers.of(1).http2.add(9);
    plane.workers.of(0).abuses[2].add(3);
    plane.workers.of(1).requests.add(11);
    plane.workers.of(1).handed_over.add(1);
    plane.workers.of(0).lag.set(2_500);
    plane.workers.of(0).accepted.add(40);
    plane.workers.of(1).accepted.add(2);
    plane.workers.of(1).refused.add(5);
    plane.workers.of(0).handshakes.full.add(3);
    plane.workers.of(1).handshakes.note(Ok(true));
    plane.workers.of(0).handshakes.note(Ok(true));
    plane.workers.of(1).handshakes.note(Err(Failed::PlainHttp));
    let table = plane.table.load_full();
    let green = &table.services[0].pools[1].tally;
    green.of(0).classes[1].add(7);
    green.of(1).classes[1].add(3);
    green.of(1).classes[4].add(2);
    green.of(0).failures[3].add(1);
    green.of(0).retries.add(6);
    green.of(1).in_flight.add(9);
    green.of(0).took(400);
    green.of(1).took(70_000_000);
    let facts = Facts {
        reload_ok: true,
        rollbacks: (1, 2, 3),
        evidence: vec![("shop".to_owned(), "green".to_owned(), 0.25)],
        names: vec![Known { address: "http://app".parse().unwrap(), addresses: 3, failures: 8 }],
    };
    let text = render_of(&plane, &facts);
    drop(places);
    let expected = [
        concat!("teal_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "teal_table_version 11",
        "teal_config_last_reload_successful 1",
        "teal_client_connections 3",
        "teal_client_connections_limit 20000",
        "teal_client_connections_accepted_total 42",
        "teal_client_connections_refused_total{reason=\"source_limit\"} 8",
        "teal_client_connections_closed_total{reason=\"head_timeout\"} 6",
        "teal_http2_connections_total 9",
        "teal_http2_abuses_total{reason=\"resets\"} 3",
        "teal_http2_abuses_total{reason=\"protocol\"} 0",
        "teal_accept_pauses_total{reason=\"descriptors\"} 5",
        "teal_accept_pauses_total{reason=\"limit\"} 0",
        "teal_worker_busy_connections{worker=\"0\"} 2",
        "teal_worker_connections{worker=\"1\"} 0",
        "teal_worker_requests_total{worker=\"0\"} 0",
        "teal_worker_requests_total{worker=\"1\"} 11",
        "teal_worker_handed_over_total{worker=\"1\"} 1",
        "teal_worker_lag_seconds{worker=\"0\"} 0.0025",
        "teal_requests_refused_total 5",
        "teal_access_log_dropped_total 0",
        "teal_name_addresses{name=\"http://app:80\"} 3",
        "teal_name_lookup_failures_total{name=\"http://app:80\"} 8",
        "teal_tls_handshakes_total{kind=\"full\"} 3",
        "teal_tls_handshakes_total{kind=\"resumed\"} 2",
        "teal_tls_handshake_failures_total{kind=\"plain_http\"} 1",
        "teal_tls_handshake_failures_total{kind=\"broken\"} 0",
        "teal_service_rollbacks_total{kind=\"judge\"} 1",
        "teal_service_rollbacks_total{kind=\"manual\"} 2",
        "teal_service_rollbacks_total{kind=\"breaker\"} 3",
        "# TYPE teal_pool_responses_total counter",
        "teal_pool_responses_total{service=\"shop\",pool=\"green\",class=\"2xx\"} 10",
        "teal_pool_responses_total{service=\"shop\",pool=\"green\",class=\"5xx\"} 2",
        "teal_pool_responses_total{service=\"shop\",pool=\"blue\",class=\"2xx\"} 0",
        "teal_pool_failures_total{service=\"shop\",pool=\"green\",kind=\"timeout\"} 1",
        "teal_pool_failures_total{service=\"shop\",pool=\"green\",kind=\"connect\"} 0",
        "teal_pool_retries_total{service=\"shop\",pool=\"green\"} 6",
        "teal_pool_in_flight{service=\"shop\",pool=\"green\"} 9",
        "# TYPE teal_pool_latency_seconds histogram",
        "teal_pool_latency_seconds_bucket{service=\"shop\",pool=\"green\",le=\"0.0005\"} 1",
        "teal_pool_latency_seconds_bucket{service=\"shop\",pool=\"green\",le=\"60\"} 1",
        "teal_pool_latency_seconds_bucket{service=\"shop\",pool=\"green\",le=\"+Inf\"} 2",
        "teal_pool_latency_seconds_sum{service=\"shop\",pool=\"green\"} 70.0004",
        "teal_pool_latency_seconds_count{service=\"shop\",pool=\"green\"} 2",
        "teal_service_weight_epoch{service=\"shop\"} 4",
        "teal_pool_share_ratio{service=\"shop\",pool=\"blue\"} 0.9",
        "teal_pool_share_ratio{service=\"shop\",pool=\"green\"} 0.1",
        "teal_pool_priority_share_ratio{service=\"shop\",pool=\"blue\",priority=\"0\"} 1",
        "teal_pool_priority_share_ratio{service=\"shop\",pool=\"green\",priority=\"0\"} 0",
        "teal_pool_panic{service=\"shop\",pool=\"green\"} 0",
        "teal_pool_active{service=\"shop\",pool=\"blue\"} 1",
        "teal_pool_active{service=\"shop\",pool=\"green\"} 0",
        "teal_endpoint_healthy{service=\"shop\",pool=\"blue\",endpoint=\"http://127.0.0.1:3001\"} 1",
        "teal_endpoint_healthy{service=\"shop\",pool=\"green\",endpoint=\"http://127.0.0.1:3002\"} 0",
        "teal_judge_evidence_ratio{service=\"shop\",pool=\"green\"} 0.25",
    ];
    for line in expected {
        assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line}\n{text}");
    }
}

#[test]
fn what_keeps_endpoints_from_requests_is_counted() {
    let text = render_of(&plane(), &Facts::default());
    let expected = [
        "teal_pool_obstructed_endpoints{service=\"shop\",pool=\"blue\",obstacle=\"unhealthy\"} 0",
        "teal_pool_obstructed_endpoints{service=\"shop\",pool=\"green\",obstacle=\"unhealthy\"} 1",
        "teal_pool_obstructed_endpoints{service=\"shop\",pool=\"green\",obstacle=\"ejected\"} 0",
        "teal_pool_ejections_total{service=\"shop\",pool=\"green\",cause=\"consecutive_gateway\"} 0",
    ];
    for line in expected {
        assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line}\n{text}");
    }
}

#[test]
fn limits_and_injected_faults_come_out_as_exact_lines() {
    let text = render_of(&plane(), &Facts::default());
    let expected = [
        "teal_rate_limit_refused_total{service=\"shop\",route=\"\",limit=\"clients\"} 0",
        "teal_service_concurrency_limit{service=\"shop\"} 300",
        "teal_service_injected_faults{service=\"shop\"} 1",
    ];
    for line in expected {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
}

#[test]
fn every_metric_is_exported_once_and_no_other() {
    let names = vec![Known { address: "http://app".parse().unwrap(), addresses: 1, failures: 0 }];
    let evidence = vec![("shop".to_owned(), "green".to_owned(), 1.0)];
    let facts = Facts { evidence, names, ..Facts::default() };
    let text = render_of(&plane(), &facts);
    let mut exported: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let mut named: Vec<&str> = names::ALL.iter().map(|metric| metric.name).collect();
    exported.sort_unstable();
    named.sort_unstable();
    assert_eq!(exported, named);
    let mut series: Vec<&str> =
        text.lines().filter_map(|line| line.rsplit_once(' ').map(|(series, _)| series)).collect();
    let all = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!(series.len(), all, "two series are the same");
}

#[test]
fn a_process_without_services_still_has_its_own_metrics() {
    let text = render_of(&Plane::new(1), &Facts::default());
    assert!(text.contains("\nteal_table_version 0\n") && !text.contains("teal_pool_"), "{text}");
}

#[test]
fn a_bound_never_claims_what_may_lie_beyond_it() {
    // Fine buckets of 300 us: 0..300, 300..600, ...; 500 us falls inside the second, 900 is the end of the third.
    let index = |micros: u64| usize::try_from(micros / 300).expect("small").min(9);
    let mut counts = [0_u64; 10];
    for micros in [0, 299, 300, 499, 599, 899, 900, 5_000] {
        counts[index(micros)] += 1;
    }
    let cumulative = folded(&counts, index);
    assert_eq!(cumulative[..3], [2, 6, 7], "within 0.5, 1 and 2.5 ms");
    assert!(cumulative.is_sorted() && cumulative.iter().all(|count| *count <= counts.iter().sum()));
}

#[test]
fn the_version_taken_up_is_found_wherever_it_is() {
    for (seen, version, expected) in [(0, 0, 0), (0, 9, 0), (5, 9, 5), (9, 9, 9), (12, 9, 9), (1, u64::MAX, 1)] {
        let roster = Roster::new(1);
        roster.report(0, seen);
        assert_eq!(taken_up(&roster, version), expected, "{seen} of {version}");
    }
}

/// Asks the real `promtool`, which must be installed.
#[cfg(feature = "peers")]
#[test]
fn promtool_has_nothing_to_say() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let plane = plane();
    let table = plane.table.load_full();
    table.services[0].pools[1].tally.of(0).took(12_345);
    let facts = Facts { evidence: vec![("shop".to_owned(), "green".to_owned(), 0.25)], ..Facts::default() };
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed");
    let mut stdin = promtool.stdin.take().expect("a pipe");
    stdin.write_all(render_of(&plane, &facts).as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
