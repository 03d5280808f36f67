//! Switching under load: weight changes and full swaps through the API, counted at two nginx servers.
//!
//! Checked without any tolerance: no request fails, no POST arrives twice, and no request that a client sent after
//! a swap was acknowledged reaches the old pool. Reported with the logs' own grain (one millisecond, and whatever
//! nginx waited for its turn on the processor): when the last old request arrived.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use crate::support::client::Api;
use crate::support::load::{Load, Origin, Outcome, Record, Shape};
use crate::support::nginx::{Line, Nginx, arrivals};
use crate::support::teal::Teal;
use crate::support::{millis, pick, quantile};

/// Grain of `$msec` and of `$request_time` together.
const LOG_GRAIN: f64 = 0.002;
/// Requests of a window this close to its end may be decided after it.
const MARGIN: Duration = Duration::from_millis(4);

/// How a run is made.
struct Setting {
    name: &'static str,
    pace: Duration,
    changes: usize,
    change_gap: Duration,
    swaps: usize,
    swap_gap: Duration,
}

/// One order and its acknowledgement, on the drill's clock.
struct Change {
    green: u32,
    begin: Duration,
    acknowledged: Duration,
    /// As Teal measured it, from publishing to the last worker.
    workers_us: f64,
}

#[test]
fn nothing_fails_and_nothing_goes_to_the_wrong_pool() {
    let gap = Duration::from_millis;
    let paced = Setting {
        name: "1,000 requests/s",
        pace: gap(64),
        changes: pick(60, 1_000),
        change_gap: gap(20),
        swaps: pick(20, 200),
        swap_gap: gap(50),
    };
    let unbounded = Setting {
        name: "as fast as answers come",
        pace: Duration::ZERO,
        changes: pick(60, 1_000),
        change_gap: gap(10),
        swaps: pick(20, 200),
        swap_gap: gap(50),
    };
    for setting in [paced, unbounded] {
        run(&setting);
    }
}

fn run(setting: &Setting) {
    let folder = tempfile::tempdir().unwrap();
    let (blue, green) = peers(folder.path());
    // Green closes its connections often and so is the slower one: the judge may see that, but not act.
    let teal = Teal::shop(folder.path(), &blue.url(), &green.url(), "guard: observe", "");
    let load = Load::start(teal.listen, Shape { connections: 64, pace: setting.pace, reconnects: true });
    crate::support::pace(Duration::from_millis(300));
    let (changes, swaps) = order(&mut teal.api(), setting, load.origin);
    let origin = load.origin;
    let records = load.stop();
    drop(teal);
    let logs = [("blue", blue.finish()), ("green", green.finish())];

    let by_id: HashMap<u64, &Record> = records.iter().map(|record| (record.id, record)).collect();
    let posts_twice = arrivals(logs.iter().map(|(_, log)| &log[..]), "POST").values().filter(|n| **n > 1).count();
    let gets_twice = arrivals(logs.iter().map(|(_, log)| &log[..]), "GET").values().filter(|n| **n > 1).count();
    let old = old_requests(&swaps, &logs, &by_id, origin);
    report(setting, &records, &changes, &swaps, &old, gets_twice);

    let failed: Vec<_> = records.iter().filter(|record| !record.is_good()).collect();
    let told: Vec<_> = failed.iter().take(5).map(|record| record.to_string()).collect();
    assert!(failed.is_empty(), "{} failed, the first: {told:#?}", failed.len());
    assert_eq!(posts_twice, 0, "POSTs arrived twice");
    assert_eq!(old.sent_after, 0, "sent after a swap's acknowledgement, seen by the old pool");
    unseen(&records, &logs);
}

fn peers(folder: &Path) -> (Nginx, Nginx) {
    (Nginx::plain(folder, "blue", ""), Nginx::plain(folder, "green", "keepalive_requests 50;"))
}

/// Gives the orders: first weights, then full swaps.
fn order(api: &mut Api, setting: &Setting, origin: Origin) -> (Vec<Change>, Vec<Change>) {
    let mut dice = fastrand::Rng::with_seed(1);
    let mut give = |green: u32, gap: Duration| {
        let begin = origin.elapsed();
        let answer = api.weigh(green).unwrap();
        let acknowledged = origin.elapsed();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let workers_us = answer.json()["acknowledged_us"].as_f64().unwrap();
        crate::support::pace(gap);
        Change { green, begin, acknowledged, workers_us }
    };
    let changes = (0..setting.changes).map(|_| give(dice.u32(1..100), setting.change_gap)).collect();
    let swaps = (0..setting.swaps).map(|turn| give(if turn % 2 == 0 { 100 } else { 0 }, setting.swap_gap)).collect();
    (changes, swaps)
}

/// What the old pool saw after acknowledgements.
struct Old {
    /// Requests that their client sent after the acknowledgement: none may.
    sent_after: usize,
    /// Sent between an acknowledgement and the next order, answered after that.
    undecidable: usize,
    /// Arrivals that the log dates after it, by more than its grain.
    arrived_after: usize,
    /// The latest of all, in seconds after the acknowledgement; negative if it came before.
    latest: f64,
}

fn old_requests(swaps: &[Change], logs: &[(&str, Vec<Line>); 2], by_id: &HashMap<u64, &Record>, origin: Origin) -> Old {
    let mut old = Old { sent_after: 0, undecidable: 0, arrived_after: 0, latest: f64::NEG_INFINITY };
    for (index, swap) in swaps.iter().enumerate() {
        let end = swaps.get(index + 1).map_or(Duration::MAX, |next| next.begin);
        let end_wall = if end == Duration::MAX { f64::INFINITY } else { origin.wall(end) };
        let (_, log) = &logs[if swap.green == 100 { 0 } else { 1 }];
        for line in log {
            let Record { sent, done, .. } = *by_id[&line.id];
            // One that is answered after the next order may have been decided after it, for what is then the
            // right pool.
            old.sent_after += usize::from(sent > swap.acknowledged && done < end);
            old.undecidable += usize::from(sent > swap.acknowledged && sent < end && done >= end);
            let late = line.arrived - origin.wall(swap.acknowledged);
            if sent <= swap.acknowledged && line.arrived < end_wall {
                old.latest = old.latest.max(late);
                old.arrived_after += usize::from(late > LOG_GRAIN);
            }
        }
    }
    old
}

/// How far the shares are from those that were set, in standard deviations, over `n` requests.
fn deviation(changes: &[Change], records: &[Record]) -> (f64, usize) {
    let (mut surplus, mut variance, mut counted) = (0.0, 0.0, 0);
    for pair in changes.windows(2) {
        let p = f64::from(pair[0].green) / 100.0;
        let end = pair[1].begin.saturating_sub(MARGIN);
        for record in records.iter().filter(|record| record.sent > pair[0].acknowledged && record.sent < end) {
            let is_green = matches!(&record.outcome, Outcome::Good(pool) if pool == "green");
            surplus += f64::from(u8::from(is_green)) - p;
            variance += p * (1.0 - p);
            counted += 1;
        }
    }
    (surplus / f64::sqrt(variance), counted)
}

/// Every answer must be in the log of the pool that it names.
fn unseen(records: &[Record], logs: &[(&str, Vec<Line>); 2]) {
    let seen: BTreeMap<&str, std::collections::HashSet<u64>> =
        logs.iter().map(|(pool, log)| (*pool, log.iter().map(|line| line.id).collect())).collect();
    let missing = records.iter().filter(|record| match &record.outcome {
        Outcome::Good(pool) => !seen[pool.as_str()].contains(&record.id),
        _ => false,
    });
    assert_eq!(missing.count(), 0, "answers that no upstream gave");
}

fn report(setting: &Setting, records: &[Record], changes: &[Change], swaps: &[Change], old: &Old, gets_twice: usize) {
    let failed = records.iter().filter(|record| !record.is_good()).count();
    let posts = records.iter().filter(|record| record.post).count();
    println!("swaps, {}: {} requests ({posts} POST), {failed} failed", setting.name, records.len());
    for (what, list) in [("weight changes", changes), ("full swaps", swaps)] {
        let trips: Vec<_> = list.iter().map(|change| millis(change.acknowledged - change.begin)).collect();
        let workers: Vec<_> = list.iter().map(|change| change.workers_us / 1e3).collect();
        println!(
            "  {} {what}: acknowledged to the caller p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms; \
             published to last worker p50 {:.3} ms, p99 {:.3} ms",
            list.len(),
            quantile(&trips, 0.5),
            quantile(&trips, 0.99),
            quantile(&trips, 1.0),
            quantile(&workers, 0.5),
            quantile(&workers, 0.99),
        );
    }
    println!(
        "  old pool after a swap's acknowledgement: {} sent after it ({} more overlap the next order), {} arrived over {:.0} ms after it by the log, \
         the latest {:.0} ms after; GETs sent twice: {gets_twice}",
        old.sent_after,
        old.undecidable,
        old.arrived_after,
        LOG_GRAIN * 1e3,
        old.latest * 1e3,
    );
    if !setting.pace.is_zero() {
        let (z, counted) = deviation(changes, records);
        println!("  shares as set: z = {z:.2} over {counted} requests");
        assert!(z.abs() < 6.0, "the shares are not those that were set: z = {z}");
    }
}
