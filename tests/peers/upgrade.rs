//! Upgrades under load: process after process takes over, and nobody is refused, cut or hung up on.
//!
//! The upstream is slow on purpose and writes each answer in two parts, so that at any moment most requests are in the
//! middle of their answer; every connection asks again as soon as it is answered.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client::Broken;
use crate::support::load::{Load, Outcome, Shape};
use crate::support::slow::Slow;
use crate::support::teal::Teal;
use crate::support::{millis, pick, quantile, until};

const CONNECTIONS: u64 = 32;

/// Processes that are nobody's children once the ones before them have ended: killed when dropped.
#[derive(Default)]
struct Successors(Vec<u64>);

impl Drop for Successors {
    fn drop(&mut self) {
        for process in self.0.iter().filter(|process| is_alive(**process)) {
            let _ = Command::new("sh").args(["-c", "kill -KILL \"$0\"", &process.to_string()]).status();
        }
    }
}

fn is_alive(process: u64) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

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
        let began = Instant::now();
        let output = teal.cli(&["upgrade", "-o", "json"]);
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), teal.log());
        took.push(millis(began.elapsed()));
        let upgraded: Value = serde_json::from_slice(&output.stdout).unwrap();
        let before = upgraded["predecessor"].as_u64().unwrap();
        successors.0.push(upgraded["process"].as_u64().unwrap());
        until("the process before ends by itself", Duration::from_secs(60), || (!is_alive(before)).then_some(()));
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
