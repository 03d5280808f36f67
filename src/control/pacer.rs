//! The pacer: measures now and then how long the answers of pools take, where hedging goes by it.
//!
//! Workers only read what it wrote: no request ever looks through a histogram.
//!
//! Invariant: a pace is of the last [`WINDOW`] looks at most; where there were too few answers the last one stays.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::bridge::observations::latency_of;
use crate::bridge::table::{Plane, Pool};
use crate::domain::hedge::{self, After};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Looks that a pace spans: ten seconds, in which a slow phase begins to count and an old one is forgotten.
const WINDOW: usize = 20;

/// Measures until dropped.
pub async fn run(plane: Arc<Plane>) {
    let mut pacer = Pacer::default();
    loop {
        pacer.look(&plane);
        tokio::time::sleep(LOOK).await;
    }
}

/// The buckets of each pool as they were, by the identity of its counters.
#[derive(Default)]
struct Pacer {
    seen: HashMap<usize, VecDeque<Vec<u64>>>,
}

impl Pacer {
    fn look(&mut self, plane: &Plane) {
        let table = plane.table.load_full();
        let mut looked = HashMap::new();
        for service in &table.services {
            let Some(After::Percentile(percentile)) = service.settings.hedge.as_ref().map(|hedge| hedge.after) else {
                continue;
            };
            for pool in &service.pools {
                let identity = Arc::as_ptr(&pool.tally) as usize;
                let mut looks = self.seen.remove(&identity).unwrap_or_default();
                measure(pool, percentile, &mut looks);
                looked.insert(identity, looks);
            }
        }
        // Pools that are gone take their looks with them.
        self.seen = looked;
    }
}

fn measure(pool: &Pool, percentile: u8, looks: &mut VecDeque<Vec<u64>>) {
    let now = latency_of(&pool.tally);
    // The first look knows nothing of when its answers came: all of them count.
    let none = vec![0; now.len()];
    if let Some(pace) = hedge::pace(looks.front().unwrap_or(&none), &now, percentile) {
        pool.pace.set(pace);
    }
    looks.push_back(now);
    if looks.len() > WINDOW {
        looks.pop_front();
    }
}
