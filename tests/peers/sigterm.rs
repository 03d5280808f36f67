//! SIGTERM under load: readiness fails first, what is in flight is answered whole, the exit code is 0.
//!
//! The upstream is slow on purpose and writes each answer in two parts, so that most requests are in the middle of
//! their answer when the signal comes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::support::client::{Broken, Client};
use crate::support::load::{Load, Outcome, Record, Shape};
use crate::support::slow::Slow;
use crate::support::teal::Teal;
use crate::support::{millis, pick, until};

/// From the signal to the end of accepting.
const DELAY: Duration = Duration::from_millis(300);
const CONNECTIONS: u64 = 32;

/// What one ending looked like.
#[derive(Default)]
struct Ending {
    in_flight: usize,
    answered: usize,
    wrong: usize,
    cut: usize,
    unanswered: usize,
    swallowed: usize,
    /// One that failed, in words.
    example: Option<String>,
    unready_ms: f64,
    ended_ms: f64,
}

#[test]
fn what_is_in_flight_is_answered() {
    let sum = end_often("answers in two parts");
    assert_eq!((sum.cut, sum.wrong, sum.swallowed), (0, 0, 0), "cut, wrong, swallowed: {:?}", sum.example);
}

/// A client that was not told `Connection: close` may ask again on its connection, and must be answered.
#[test]
fn nobody_is_hung_up_on_without_notice() {
    let sum = end_often("requests on open connections");
    assert_eq!(sum.unanswered, 0, "requests closed without an answer, such as {:?}", sum.example);
}

fn end_often(what: &str) -> Ending {
    let mut sum = Ending::default();
    let rounds = pick(2, 10);
    for round in 0..rounds {
        let ending = end_once(round);
        sum.in_flight += ending.in_flight;
        sum.answered += ending.answered;
        sum.wrong += ending.wrong;
        sum.cut += ending.cut;
        sum.unanswered += ending.unanswered;
        sum.swallowed += ending.swallowed;
        sum.example = sum.example.or(ending.example);
        sum.unready_ms = sum.unready_ms.max(ending.unready_ms);
        sum.ended_ms = sum.ended_ms.max(ending.ended_ms);
    }
    println!(
        "sigterm, {what}: {rounds} endings, each exit code 0; {} answers, {} requests in flight at the signal; {} cut, \
         {} wrong, {} reached the upstream without an answer, {} closed before they were read; /readyz 503 within \
         {:.0} ms, ended within {:.0} ms",
        sum.answered, sum.in_flight, sum.cut, sum.wrong, sum.swallowed, sum.unanswered, sum.unready_ms, sum.ended_ms,
    );
    sum
}

fn end_once(round: u64) -> Ending {
    let folder = tempfile::tempdir().unwrap();
    let slow = Slow::start("slow", |id| Duration::from_millis(100 + id.wrapping_mul(7919) % 300));
    let top = format!("shutdown: {{ delay: {}ms, grace: 10s }}", DELAY.as_millis());
    let mut teal = Teal::shop(folder.path(), &slow.url(), &slow.url(), "", &top);
    let shape = Shape { connections: CONNECTIONS, pace: Duration::ZERO, reconnects: false };
    let load = Load::start(teal.listen, shape);
    let mut probe = Client::connect(teal.admin).unwrap();
    crate::support::pace(Duration::from_millis(450 + round * 13));

    let (signalled, began) = (load.origin.elapsed(), Instant::now());
    teal.process().signal("TERM");
    until("/readyz turns 503", DELAY, || (probe.get("/readyz").ok()?.status == 503).then_some(()));
    let unready_ms = millis(began.elapsed());
    let status = teal.process().wait(Duration::from_secs(15));
    let ended_ms = millis(began.elapsed());
    assert_eq!(status.code(), Some(0), "{}", teal.log());
    let ending = tally(&load.stop(), &slow, signalled);
    Ending { unready_ms, ended_ms, ..ending }
}

fn tally(records: &[Record], slow: &Slow, signalled: Duration) -> Ending {
    let mut ending = Ending::default();
    let arrived = slow.arrived();
    let by_id: HashMap<u64, &Record> = records.iter().map(|record| (record.id, record)).collect();
    for record in records {
        let is_refused = matches!(record.outcome, Outcome::Broken(Broken::Refused(_)));
        if ending.example.is_none() && !record.is_good() && !is_refused {
            ending.example = Some(format!("{record}, signalled at {signalled:?}"));
        }
        ending.in_flight += usize::from(record.sent < signalled && record.done > signalled);
        match &record.outcome {
            Outcome::Good(_) => ending.answered += 1,
            Outcome::Wrong(_) => ending.wrong += 1,
            Outcome::Broken(Broken::Cut(_)) => ending.cut += 1,
            Outcome::Broken(Broken::Unanswered(_)) => ending.unanswered += 1,
            // After the end nobody listens: that is what readiness has told the balancer.
            Outcome::Broken(Broken::Refused(_)) => {}
        }
    }
    ending.swallowed = arrived.iter().filter(|id| by_id.get(id).is_some_and(|record| !record.is_good())).count();
    ending
}
