//! What single steps of a request cost: nanoseconds and allocations.
//!
//! `cargo bench --bench micro [-- PART]` prints one row for each step whose name contains PART. Figures of one run are
//! comparable with each other; on another day the machine is another one.

mod allocations;
mod breaking;
mod counts;
mod decisions;
mod ejection;
mod intake;
mod routes;
mod timing;
mod wire;

use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// The table as it grows.
struct Table {
    /// Only steps whose name contains this.
    part: String,
    /// For each step.
    length: Duration,
}

impl Table {
    /// Measures a step.
    fn row<T>(&self, name: &str, mut step: impl FnMut() -> T) {
        if !name.contains(&self.part) {
            return;
        }
        let allocations = allocations::per_call(&mut step);
        let cost = timing::time(self.length, step);
        println!("| {name} | {} | {allocations:.2} |", cost.nanos());
    }

    /// Measures a step that so many threads do at once, each told its number and its turn: processor time of one step.
    fn threads(&self, name: &str, threads: usize, step: impl Fn(usize, u64) + Sync) {
        if !name.contains(&self.part) {
            return;
        }
        let (rounds, steps) = if self.length < timing::LONG { (1, 100) } else { (9, 200_000) };
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(threads);
        let mut nanos: Vec<_> = (0..rounds)
            .map(|_| {
                let begin = Instant::now();
                std::thread::scope(|scope| {
                    let step = &step;
                    (0..threads)
                        .for_each(|number| drop(scope.spawn(move || (0..steps).for_each(|turn| step(number, turn)))));
                });
                begin.elapsed().as_nanos() as f64 * cores as f64 / (threads as u64 * steps) as f64
            })
            .collect();
        nanos.sort_by(f64::total_cmp);
        println!(
            "| {name}, {threads} threads | {:.1} ({:.1}-{:.1}) | |",
            nanos[rounds / 2],
            nanos[0],
            nanos[rounds - 1]
        );
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    // Without what `cargo bench` adds, this is a test run: each step has to work, and nobody reads the figures.
    let measured = arguments.iter().any(|argument| argument == "--bench");
    let part = arguments.into_iter().find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let table = Table { part, length: if measured { timing::LONG } else { Duration::from_millis(1) } };
    println!("| step | ns: median (quartiles) | allocations |\n|---|---|---|");
    for services in routes::SIZES {
        let mut lookup = routes::Lookup::among(services);
        table.row(&format!("route: one of {services} services"), || lookup.next());
    }
    decisions::rows(&table);
    counts::rows(&table);
    breaking::rows(&table);
    ejection::rows(&table);
    intake::rows(&table);
    wire::rows(&table);
}
