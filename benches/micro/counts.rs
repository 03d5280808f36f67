//! Counting: what a worker writes for each attempt, and what the judge does with it at each tick.

use std::sync::Arc;

use teal::bridge::counters::PerWorker;
use teal::bridge::observations::{Book, PoolTally};
use teal::control::case::Case;
use teal::domain::analysis::{MARKS, Marks, Policy};
use teal::domain::stats::histogram;

use crate::Table;

const BASELINE: usize = 0;
const CANARY: usize = 1;
const POOLS: usize = 2;
const WORKERS: usize = 2;

pub(crate) fn rows(table: &Table) {
    let (book, tally) = (learned_book(), PerWorker::<PoolTally>::new(WORKERS));
    let mut micros = 0;
    table.row("record: one attempt from dispatch to end", || {
        micros = (micros + 37) % 1_000;
        attempt(&book, &tally, CANARY, micros, false);
    });
    for (requests, bad, name) in [
        (0, 0, "a tick without requests"),
        (100, 0, "100 requests a pool recorded, then a tick"),
        (100, 1, "the same, one bad in each pool"),
    ] {
        let mut case = Case::new(Policy::default(), None);
        let book = Arc::new(learned_book());
        case.follow(&book, POOLS, CANARY, WORKERS, 1);
        table.row(&format!("judge: {name}"), || {
            for pool in [BASELINE, CANARY] {
                (0..requests).for_each(|at| attempt(&book, &tally, pool, 200, at < bad));
            }
            case.look(|_| true, &tally)
        });
    }
}

/// What the recorder does for one judged attempt that took so many microseconds.
fn attempt(book: &Book, tally: &PerWorker<PoolTally>, pool: usize, micros: u64, bad: bool) {
    let (cell, tally) = (book.cell(0, pool), tally.of(0));
    cell.opened();
    tally.in_flight.add(1);
    tally.classes[if bad { 4 } else { 1 }].add(1);
    tally.took(micros);
    if let Some(marks) = book.marks_for(pool) {
        for (at, mark) in marks.iter().enumerate().take(MARKS) {
            cell.marked(at, micros > *mark);
        }
    }
    cell.settled(bad);
    cell.closed();
    tally.in_flight.subtract(1);
}

/// A book whose marks were learned from a baseline of up to a millisecond.
fn learned_book() -> Book {
    let mut past = vec![0; histogram::BUCKETS];
    (0..100_000).for_each(|at| past[histogram::index(at % 1_000)] += 1);
    let marks = Marks::learn(&past, &Policy::default());
    Book::new(1, BASELINE, POOLS, WORKERS, marks)
}
