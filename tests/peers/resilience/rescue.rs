//! The whole canary hangs or fails, and the baseline answers instead: users feel none of it where that is safe, the
//! canary pays for it, and a budget keeps it from doubling the baseline's load.

use std::collections::BTreeSet;
use std::time::Duration;

use super::canary::{JUDGED, learn, rolled_back};
use crate::support::account::{Account, failures};
use crate::support::faulty::{Behaviour, Seen};
use crate::support::scene::{Scene, figure};
use crate::support::{millis, pace, pick, quantile};

/// The judge looks ten times a second: what it is told meanwhile is chance. Two looks, for two sides.
const LOOKS: Duration = Duration::from_millis(200);

#[test]
fn all_green_endpoints_hang() {
    let more = format!("rescue: {{ after: 300ms }}\ntimeouts: {{ head: 2s }}\nhealth: {{ path: /healthz }}\n{JUDGED}");
    let mut scene = Scene::start(1, 3, &more);
    let load = scene.load(800);
    learn();
    scene.green.iter_mut().for_each(|green| green.behave(Behaviour::Hang));
    let rollback = rolled_back(&mut scene.teal.api());
    pace(Duration::from_secs(1));
    let records = load.stop();
    let at_green: usize = scene.green.iter().map(|green| green.seen().len()).sum();
    let longest = records.iter().filter(|record| !record.post).map(|record| record.done - record.sent).max();
    let account = scene.close(&records);
    println!(
        "all green endpoints hang at 50 %: {account}; rolled back after {:.0} ms and {at_green} requests at green; no GET \
         waited longer than {:.0} ms",
        millis(rollback.took),
        millis(longest.unwrap()),
    );
    assert_eq!(account.gets_failed, 0, "{}", failures(&records));
    assert_eq!((account.posts_twice, account.posts_lost), (0, 0));
    assert!(account.gets_repeated > 0, "nothing was rescued");
}

/// What a user sees of it, and how many requests the canary got before it was taken back.
struct Detection {
    account: Account,
    requests: usize,
}

fn detect(rescue: &str, seed: u64, rate: u64) -> Detection {
    let more = format!("rescue: {rescue}\nhealth: off\n{JUDGED}");
    let mut scene = Scene::seeded(1, 1, &more, seed);
    scene.green[0].behave(Behaviour::Fail(10));
    let load = scene.load(rate);
    // For what the judge learns from the baseline first.
    pace(Duration::from_millis(900_000 / rate));
    rolled_back(&mut scene.teal.api());
    let records = load.stop();
    // After the rollback it gets none: all that it has is what it took.
    let requests = scene.green[0].seen().len();
    Detection { account: scene.close(&records), requests }
}

#[test]
fn a_rescue_hides_failures_from_users_and_not_from_the_judge() {
    // The slower, the fewer requests between two looks, and the finer the comparison.
    let rate = pick(1_200, 300);
    let (mut with, mut without, mut felt, mut rescued) = (Vec::new(), Vec::new(), 0, 0);
    for seed in 0..pick(3, 15) {
        // The same seed, and so the same course of green's failures.
        let (on, off) = (detect("{ budget: 20% }", seed, rate), detect("off", seed, rate));
        assert_eq!(on.account.gets_failed, 0, "{}", on.account);
        assert_eq!((on.account.posts_twice, on.account.posts_lost), (0, 0));
        with.push(on.requests as f64);
        without.push(off.requests as f64);
        felt += off.account.gets_failed;
        rescued += on.account.gets_repeated;
    }
    let (median_with, median_without) = (quantile(&with, 0.5), quantile(&without, 0.5));
    println!(
        "10 % of green's answers are 500 at a 50 % split, {} runs each: with rescue 0 GETs failed ({rescued} rescued) and \
         the rollback took {median_with} requests (median; {with:?}); without, {felt} GETs failed and it took \
         {median_without} ({without:?})",
        with.len(),
    );
    let chance = rate as f64 / 2.0 * LOOKS.as_secs_f64();
    assert!(median_with <= median_without + chance, "slower with rescue: {median_with}, without {median_without}");
}

#[test]
fn the_rescue_budget_holds_when_all_of_green_fails() {
    let (share, saved) = (0.2, 100.0);
    // Nothing but green's answers may call for a rescue: each is to be found in both logs.
    let more = "guard: observe\nrescue: { budget: 20% }\nhealth: off";
    let mut scene = Scene::start(1, 1, more);
    assert_eq!(scene.teal.api().weigh(99).unwrap().status, 200);
    scene.green[0].behave(Behaviour::Fail(100));
    let load = scene.load(800);
    pace(pick(Duration::from_secs(3), Duration::from_secs(30)));
    let records = load.stop();
    let shop = scene.teal.api().shop().unwrap();
    let refused = figure(&shop, "green", "/rescue_refused/budget");
    let [blue, green] = [&scene.blue, &scene.green].map(|pool| -> Vec<Seen> { pool[0].seen() });
    let failed: BTreeSet<u64> = green.iter().map(|seen| seen.id).collect();
    let rescued = blue.iter().filter(|seen| failed.contains(&seen.id)).count() as f64;
    let account = scene.close(&records);
    let budget = share * records.len() as f64 + saved;
    println!(
        "all of green fails at 99 %: {account}; {rescued} rescued at blue, the budget was {budget:.0}; blue got {:.2} \
         requests for each of its own",
        blue.len() as f64 / (blue.len() as f64 - rescued),
    );
    assert!(rescued <= budget, "{rescued} rescued, the budget was {budget:.0}");
    // Nor is it kept back: no GET fails while there is some left.
    assert!(
        refused as usize == account.gets_failed && rescued >= budget * 0.9,
        "only {rescued} rescued, the budget was {budget:.0}: {refused} refused for it{}: {shop}",
        failures(&records)
    );
    assert_eq!((account.posts_twice, account.posts_lost), (0, 0));
}
