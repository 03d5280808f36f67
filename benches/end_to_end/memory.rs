//! What idle keep-alive connections cost in resident memory.
//!
//! Each connection has had one request answered: that is when buffers are there. The kernel's own memory for sockets
//! is the same for every proxy and not counted.

use std::time::Duration;

use crate::Outcome;
use crate::arguments::Arguments;
use crate::load::{self, Pace};
use crate::observe;
use crate::proxies::{Proxy, Shape};
use crate::stage::Stage;
use crate::workloads::Workload;

/// For what is freed a little later.
const SETTLE: Duration = Duration::from_millis(1_500);

/// Prints the table.
pub(crate) fn run(stage: &Stage, arguments: &Arguments) -> Outcome<()> {
    let connections = arguments.connections.unwrap_or(10_000);
    println!("{}\n", observe::machine());
    println!("One worker, {connections} idle connections after one request on each; resident memory.\n");
    println!("| proxy | MiB before | MiB with them | KiB for each | MiB after they closed |");
    println!("|---|---|---|---|---|");
    for proxy in arguments.proxies_or(&[Proxy::Teal, Proxy::Nginx, Proxy::Haproxy]) {
        let process = proxy.start(stage, Shape::SINGLE)?;
        // What any traffic makes it allocate once belongs to what was there before.
        let pace = Pace { seconds: 0.5, connections: 64, rate: None };
        load::plain(stage, proxy.plain_port(), &stage.request(Workload::A), pace, 1)?;
        let resident = || {
            std::thread::sleep(SETTLE);
            observe::resident(process.id()) as f64
        };
        let before = resident();
        let held = load::hold(stage, proxy.plain_port(), connections)?;
        let with = resident();
        drop(held);
        let after = resident();
        let mebibytes = |kibibytes: f64| kibibytes / 1024.0;
        println!(
            "| {} | {:.1} | {:.1} | {:.2} | {:.1} |",
            proxy.name(),
            mebibytes(before),
            mebibytes(with),
            (with - before) / f64::from(connections),
            mebibytes(after)
        );
    }
    Ok(())
}
