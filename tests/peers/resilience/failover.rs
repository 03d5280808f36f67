//! A region is lost under load and comes back: the next one takes over, and gives back.

use std::time::Duration;

use super::Deed;
use crate::support::account::failures;
use crate::support::faulty::{Faulty, Seen};
use crate::support::scene::Scene;
use crate::support::{millis, pace, pick, until};

/// The first two endpoints are at hand, the next two are in the next region.
fn two_regions(endpoints: &[Faulty]) -> String {
    let entry = |(at, endpoint): (usize, &Faulty)| format!("{{ url: \"{}\", priority: {} }}", endpoint.url(), at / 2);
    let entries: Vec<_> = endpoints.iter().enumerate().map(entry).collect();
    format!("[{}]", entries.join(", "))
}

#[test]
fn the_next_region_takes_over_and_gives_back() {
    // The full form has the defaults.
    let quick = "health: { path: /healthz, interval: 200ms, timeout: 200ms }\nejection: { base_time: 1s }";
    let more = pick(quick, "health: { path: /healthz }");
    let mut scene = Scene::arranged(4, 1, [more, ""], 1, two_regions);
    let mut api = scene.teal.api();
    until("every endpoint is known to be well", Duration::from_secs(20), || {
        let shop = api.shop().unwrap();
        let endpoints = shop["pools"][0]["endpoints"].as_array().unwrap();
        endpoints.iter().all(|endpoint| endpoint["health"] == "healthy").then_some(())
    });
    let load = scene.load(600);
    pace(pick(Duration::from_secs(1), Duration::from_secs(5)));
    let lost = Deed::done(&load, || scene.blue[..2].iter_mut().for_each(Faulty::kill));
    pace(pick(Duration::from_secs(2), Duration::from_secs(20)));
    let back = Deed::done(&load, || scene.blue[..2].iter_mut().for_each(Faulty::restart));
    pace(pick(Duration::from_secs(4), Duration::from_secs(30)));
    let (origin, records) = (load.origin, load.stop());
    let far: Vec<Seen> = scene.blue[2..].iter().flat_map(Faulty::seen).collect();
    let near: Vec<Seen> = scene.blue[..2].iter().flat_map(Faulty::seen).collect();
    let account = scene.close(&records);

    let after = |deed: Deed, wall: f64| (wall - origin.wall(deed.end)) * 1e3;
    let failed: Vec<_> = records.iter().filter(|record| !record.is_good()).collect();
    let last_failed = failed.iter().map(|record| record.done.saturating_sub(lost.end)).max().unwrap_or_default();
    let arrivals = |seen: &[Seen]| -> Vec<f64> { seen.iter().map(|seen| seen.arrived).collect() };
    let first_far = arrivals(&far).into_iter().fold(f64::INFINITY, f64::min);
    let returned = arrivals(&near).into_iter().filter(|at| *at > origin.wall(back.begin));
    let first_near = returned.fold(f64::INFINITY, f64::min);
    let last_far = arrivals(&far).into_iter().fold(0.0, f64::max);
    println!(
        "the primary region is lost: {account}; the next one took over {:.0} ms after, the last request that failed ended \
         {:.0} ms after; it returned: first request {:.0} ms after, the last elsewhere {:.0} ms after",
        after(lost, first_far),
        millis(last_failed),
        after(back, first_near),
        after(back, last_far),
    );
    // Nothing was elsewhere without need, and in the end nothing is.
    assert!(first_far >= origin.wall(lost.begin), "the next region was used before the loss");
    assert!(first_near.is_finite(), "the region never came back into use");
    let end = origin.wall(records.iter().map(|record| record.sent).max().unwrap());
    assert!(last_far < end - 0.2, "the next region is in use to the end");
    // Failures end, and none comes from going back.
    let late = failed.iter().filter(|record| record.sent > back.begin).count();
    assert_eq!(late, 0, "{}", failures(failed.iter().copied()));
    assert!(failed.len() <= 60, "{} failed:{}", failed.len(), failures(failed.iter().copied()));
    assert_eq!((account.posts_twice, account.posts_lost), (0, 0));
}
