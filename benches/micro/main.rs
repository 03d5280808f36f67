//! What single steps of a request cost: nanoseconds and allocations.
//!
//! `cargo bench --bench micro [-- PART]` prints one row for each step whose name contains PART. Figures of one run are
//! comparable with each other; on another day the machine is another one.

mod allocations;
mod counts;
mod decisions;
mod routes;
mod timing;
mod wire;

use std::time::Duration;

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
    wire::rows(&table);
}
