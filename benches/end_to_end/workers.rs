//! Few connections on two workers: who does the work?
//!
//! A sidecar has two busy connections, not two hundred; where the kernel alone picks a worker for each, both may land
//! on one while the other idles. Each trial opens new connections, so that the luck is drawn again.

use crate::Outcome;
use crate::arguments::Arguments;
use crate::load::{self, Pace};
use crate::observe::{self, Thread};
use crate::process::Process;
use crate::proxies::{Proxy, Shape};
use crate::stage::Stage;
use crate::statistics::{Spread, median};
use crate::workloads::Workload;

const CONNECTIONS: [u32; 3] = [2, 4, 8];
/// A worker that does less of the work than this was not given a connection.
const IDLE: f64 = 0.05;

/// Prints the table.
pub(crate) fn run(stage: &Stage, arguments: &Arguments) -> Outcome<()> {
    let (trials, seconds) = (arguments.rounds.unwrap_or(10).max(1), arguments.seconds.unwrap_or(1.0));
    println!("{}\n", observe::machine());
    println!(
        "Two workers on two cores, {trials} trials of {seconds} s, small GETs as fast as they are answered. Share: CPU \
         time of the busier worker over that of both; 50 % is even.\n"
    );
    println!("| proxy | busy connections | busier worker: median (quartiles) | worst | one worker idle | requests/s |");
    println!("|---|---|---|---|---|---|");
    let mut failed = 0;
    for proxy in arguments.proxies_or(&[Proxy::Teal, Proxy::Nginx, Proxy::Haproxy]) {
        let process = proxy.start(stage, Shape::DOUBLE)?;
        for connections in CONNECTIONS {
            let trial = |_| trial(stage, proxy, &process, Pace { seconds, connections, rate: None });
            let results = (0..trials).map(trial).collect::<Outcome<Vec<_>>>()?;
            let shares = results.iter().map(|(share, ..)| share * 100.0);
            let worst = shares.clone().fold(0.0, f64::max);
            let idle = results.iter().filter(|(share, ..)| *share > 1.0 - IDLE).count();
            let spread = Spread::of(shares).expect("there is a trial");
            failed += results.iter().map(|(.., errors)| errors).sum::<u64>();
            println!(
                "| {} | {connections} | {:.0} % ({:.0}-{:.0}) | {worst:.0} % | {idle} of {trials} | {:.0} |",
                proxy.name(),
                spread.median,
                spread.lower,
                spread.upper,
                median(results.iter().map(|(_, rate, _)| *rate))
            );
        }
    }
    if failed > 0 {
        println!("\nnot to be trusted: {failed} errors");
    }
    Ok(())
}

/// The busier worker's share, requests per second, errors.
fn trial(stage: &Stage, proxy: Proxy, process: &Process, pace: Pace) -> Outcome<(f64, f64, u64)> {
    let before = observe::threads(process.id());
    let load = load::plain(stage, proxy.plain_port(), &stage.request(Workload::A), pace, 1)?;
    let mut spent: Vec<f64> =
        observe::threads(process.id()).iter().map(|thread| thread.run - run_of(&before, thread.id)).collect();
    // The two busiest threads are the workers: the others of each proxy have next to nothing to do.
    spent.sort_by(|one, other| other.total_cmp(one));
    let (busier, other) = (spent.first().copied().unwrap_or(0.0), spent.get(1).copied().unwrap_or(0.0));
    Ok((busier / (busier + other).max(f64::MIN_POSITIVE), load.rate, load.errors))
}

fn run_of(threads: &[Thread], id: u32) -> f64 {
    threads.iter().find(|thread| thread.id == id).map_or(0.0, |thread| thread.run)
}
