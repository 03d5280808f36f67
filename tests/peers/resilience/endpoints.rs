//! One endpoint of several dies, flaps, or goes deaf: its pool goes on without it.

use std::time::Duration;

use super::Deed;
use crate::support::account::failures;
use crate::support::faulty::Behaviour;
use crate::support::load::Record;
use crate::support::scene::{Scene, figure, green_share};
use crate::support::{millis, pace, pick};

/// All else is by default: health alone would take six seconds to notice a death, and does not notice who is deaf.
const CHECKED: &str = "health: { path: /healthz }";

/// POSTs in flight at a dying endpoint may fail, since nobody knows whether they were done; nothing else may.
fn only_posts_in_flight_failed(records: &[Record], deeds: &[Deed]) {
    let failed = records.iter().filter(|record| !record.is_good());
    let unforced = failed.filter(|record| !record.post || !deeds.iter().any(|deed| deed.hit(record)));
    let unforced: Vec<_> = unforced.collect();
    assert!(unforced.is_empty(), "{} failed without need:{}", unforced.len(), failures(unforced.iter().copied()));
}

#[test]
fn one_of_three_green_endpoints_dies() {
    let mut scene = Scene::start(1, 3, CHECKED);
    let mut api = scene.teal.api();
    assert_eq!(api.weigh(50).unwrap().status, 200);
    let load = scene.load(800);
    pace(pick(Duration::from_millis(500), Duration::from_secs(5)));
    let before = sent_in_vain(&api.shop().unwrap());
    let death = Deed::done(&load, || scene.green[0].kill());
    let (mut vain, mut last) = (before, death.end);
    let watch = pick(Duration::from_secs(2), Duration::from_secs(15));
    while load.origin.elapsed() < death.end + watch {
        let now = sent_in_vain(&api.shop().unwrap());
        if now > vain {
            (vain, last) = (now, load.origin.elapsed());
        }
        pace(Duration::from_millis(2));
    }
    let records = load.stop();
    let share = green_share(&mut api);
    let in_flight = scene.green[0].seen().iter().filter(|seen| seen.answered.is_none()).count();
    let account = scene.close(&records);
    println!(
        "one of three green endpoints dies: {account}; {in_flight} read and unanswered at its death; {} more attempts at \
         it, the last {:.0} ms after; green's share is {share} % in the end",
        vain - before,
        millis(last - death.end),
    );
    only_posts_in_flight_failed(&records, &[death]);
    assert_eq!((account.gets_failed, account.posts_twice, account.posts_lost), (0, 0, 0));
}

/// Attempts at green that found nobody, or whose connection broke.
fn sent_in_vain(shop: &serde_json::Value) -> u64 {
    figure(shop, "green", "/failures/connect") + figure(shop, "green", "/failures/reset")
}

#[test]
fn a_blue_endpoint_flaps() {
    // It comes back into use soon, and so dies in use each time.
    let mut scene = Scene::start(2, 1, &format!("ejection: {{ base_time: 200ms }}\n{CHECKED}"));
    let load = scene.load(800);
    let half = Duration::from_millis(500);
    pace(half);
    let mut deaths = Vec::new();
    for _ in 0..pick(3, 30) {
        deaths.push(Deed::done(&load, || scene.blue[0].kill()));
        pace(half);
        scene.blue[0].restart();
        pace(half);
    }
    let records = load.stop();
    let served = scene.blue[0].seen().len();
    let account = scene.close(&records);
    println!("a blue endpoint flaps, {} deaths: {account}; it served {served} in between", deaths.len());
    only_posts_in_flight_failed(&records, &deaths);
    assert_eq!((account.gets_failed, account.posts_twice, account.posts_lost), (0, 0, 0));
}

/// Who may be asked again is, and waits a little longer; a POST waits for a time that is set, not for ever.
#[test]
fn an_endpoint_accepts_and_never_answers() {
    let retry = "retry: { on: [connect_error, reset, timeout], per_try: 300ms }";
    let mut scene = Scene::start(2, 1, &format!("timeouts: {{ head: 1s }}\n{retry}\n{CHECKED}"));
    let load = scene.load(800);
    pace(pick(Duration::from_millis(500), Duration::from_secs(5)));
    let deed = Deed::done(&load, || scene.blue[0].behave(Behaviour::Deaf));
    pace(pick(Duration::from_millis(2500), Duration::from_secs(20)));
    let records = load.stop();
    let account = scene.close(&records);
    let failed: Vec<_> = records.iter().filter(|record| !record.is_good()).collect();
    let last = failed.iter().map(|record| record.sent).max().unwrap_or(deed.end).saturating_sub(deed.end);
    let longest = records.iter().map(|record| record.done - record.sent).max().unwrap();
    println!(
        "an endpoint goes deaf: {account}; the last that failed was sent {:.0} ms after, the longest wait {:.0} ms",
        millis(last),
        millis(longest),
    );
    assert_eq!((account.posts_twice, account.posts_lost), (0, 0));
    assert_eq!(account.gets_failed, 0, "{}", failures(failed.iter().copied()));
    let early = failed.iter().filter(|record| record.done < deed.begin).count();
    assert_eq!(early, 0, "failed before anything was wrong:{}", failures(failed.iter().copied()));
    // One that waits keeps its client from asking more: at most the load's connections are caught.
    assert!(failed.len() <= 32, "{} failed:{}", failed.len(), failures(failed.iter().copied()));
    assert!(longest < Duration::from_secs(5), "{longest:?}");
}
