//! Upgrades under load: process after process takes over, and nobody is refused, cut or hung up on.
//!
//! The upstream is slow on purpose and writes each answer in two parts, so that at any moment most requests are in the
//! middle of their answer; every connection asks again as soon as it is answered.

use std::time::Duration;

use crate::support::client::Broken;
use crate::support::load::{Load, Outcome, Shape};
use crate::support::slow::Slow;
use crate::support::successors::Successors;
use crate::support::teal::Teal;
use crate::support::{millis, pick, quantile};

const CONNECTIONS: u64 = 32;

#[test]
fn nobody_notices_that_processes_follow_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Slow::start("slow", |id| Duration::from_millis(5 + id.wrapping_mul(7919) % 30));
    let teal = Teal::shop(folder.path(), &slow.url(), &slow.url(), "guard: off", "");
    let load = Load::start(teal.listen, Shape { connections: CONNECTIONS, pace: Duration::ZERO, reconnects: true });
    let (mut successors, mut took) = (Successors::default(), Vec::new());
    let rounds = pick(3, 100);
    for round in 0..rounds {
        crate::support::pace(Duration::from_millis(200 + round % 7 * 13));
        took.push(millis(successors.upgrade(&teal)));
    }
    let records = load.stop();
    let count = |which: fn(&Outcome) -> bool| records.iter().filter(|record| which(&record.outcome)).count();
    let refused = count(|outcome| matches!(outcome, Outcome::Broken(Broken::Refused(_))));
    let unanswered = count(|outcome| matches!(outcome, Outcome::Broken(Broken::Unanswered(_))));
    let cut = count(|outcome| matches!(outcome, Outcome::Broken(Broken::Cut(_))));
    let wrong = count(|outcome| matches!(outcome, Outcome::Wrong(_)));
    println!(
        "upgrade: {rounds} upgrades, {} requests; {refused} refused, {unanswered} hung up on, {cut} cut, {wrong} wrong; from \
         order to answer p50 {:.0} ms, max {:.0} ms",
        records.len(),
        quantile(&took, 0.5),
        quantile(&took, 1.0),
    );
    let example = records.iter().find(|record| !record.is_good());
    if let Some(example) = example {
        panic!("such as {example}\n{}", teal.log());
    }
}
