//! Breakers: what an attempt pays for asking one and telling it how things went.

use teal::bridge::breaker::Breaker;
use teal::domain::breaker::Policy;
use teal::domain::outcome::Outcome;

use crate::Table;

/// Threads on one pool.
const THREADS: usize = 8;

const GOOD: Outcome = Outcome::Answered { status: 200, latency: 900 };
const BAD: Outcome = Outcome::Answered { status: 500, latency: 900 };

pub(crate) fn rows(table: &Table) {
    let policy = Policy { consecutive: None, ..Policy::default() };
    for (name, bad_in) in [("a good one", u64::MAX), ("one of ten is bad", 10), ("one of three is bad", 3)] {
        let breaker = armed(1);
        let mut turn = 0;
        table.row(&format!("breaker: ask and tell, {name}"), || {
            turn += 1;
            attempt(&breaker, &policy, 0, turn, bad_in);
        });
        let breaker = armed(THREADS);
        table.threads(&format!("breaker: the same, {name}"), THREADS, |worker, turn| {
            attempt(&breaker, &policy, worker, turn, bad_in);
        });
    }
}

fn armed(workers: usize) -> Breaker {
    let breaker = Breaker::default();
    breaker.arm(workers);
    breaker
}

/// What a breaker sees of one attempt: twice asked, once told. A microsecond passes from one to the next.
fn attempt(breaker: &Breaker, policy: &Policy, worker: usize, turn: u64, bad_in: u64) {
    let outcome = if turn.is_multiple_of(bad_in) { BAD } else { GOOD };
    let trial = if breaker.is_closed() { breaker.enter(policy, turn).ok().flatten() } else { None };
    breaker.tell(policy, worker, turn, policy.report(outcome, false, true), trial);
}
