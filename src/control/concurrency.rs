//! Concurrency: moves the limits of services that find their own, by what their pools took lately.
//!
//! A look needs enough answers to have a median; until there are, it goes on gathering. The workers only ever read a
//! number: nothing of this is on the path of a request.
//!
//! Invariant: a limit moves only by what happened since the look before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::bridge::intake::Occupancy;
use crate::bridge::observations::latency_of;
use crate::bridge::table::{Plane, Service};
use crate::domain::concurrency::{Gradient, Policy, Sample};
use crate::domain::stats::histogram;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Answers that a median needs to say something.
const ENOUGH: u64 = 20;

/// Moves limits until dropped.
pub async fn run(plane: Arc<Plane>) {
    let mut cases: HashMap<String, Case> = HashMap::new();
    loop {
        let table = plane.table.load_full();
        let adaptive =
            |service: &Service| service.intake.occupancy().is_some_and(|known| known.policy.adaptive.is_some());
        cases.retain(|name, _| table.services.iter().any(|known| known.settings.name == *name && adaptive(known)));
        for service in table.services.iter().filter(|service| adaptive(service)) {
            let Some(occupancy) = service.intake.occupancy() else { continue };
            let case = cases.entry(service.settings.name.clone());
            case.or_insert_with(|| Case::new(occupancy.policy)).look(occupancy, latencies(service));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// One service's limit on its way.
struct Case {
    policy: Policy,
    gradient: Gradient,
    /// Latencies counted up to the last look that said something; none before the first.
    seen: Option<Vec<u64>>,
}

impl Case {
    fn new(policy: Policy) -> Case {
        Case { policy, gradient: Gradient::new(policy.max), seen: None }
    }

    fn look(&mut self, occupancy: &Occupancy, latencies: Vec<u64>) {
        if self.policy != occupancy.policy {
            *self = Case::new(occupancy.policy);
        }
        let Some(adaptive) = self.policy.adaptive else { return };
        let Some(seen) = &self.seen else {
            // What was before says nothing about now.
            self.seen = Some(latencies);
            return;
        };
        // A pool that is gone took its counts along: then there is less than before, and nothing to learn.
        let fresh: Vec<u64> = latencies.iter().zip(seen).map(|(now, before)| now.saturating_sub(*before)).collect();
        let enough = fresh.iter().sum::<u64>() >= ENOUGH;
        let shrank = latencies.iter().zip(seen).any(|(now, before)| now < before);
        if let Some(latency) = histogram::quantile(&fresh, 0.5).filter(|_| enough && !shrank) {
            let sample = Sample { latency, in_flight: occupancy.in_flight() };
            occupancy.set_limit(self.gradient.step(self.policy.max, adaptive, sample));
        }
        if enough || shrank {
            self.seen = Some(latencies);
        }
    }
}

/// What all pools of a service took so far.
fn latencies(service: &Service) -> Vec<u64> {
    let mut sum = vec![0; histogram::BUCKETS];
    for pool in &service.pools {
        sum.iter_mut().zip(latency_of(&pool.tally)).for_each(|(sum, count)| *sum += count);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::intake::Intake;
    use crate::config::settings;
    use crate::domain::concurrency::Adaptive;

    fn counted(latencies: &[(u64, u64)]) -> Vec<u64> {
        let mut counts = vec![0; histogram::BUCKETS];
        latencies.iter().for_each(|(latency, count)| counts[histogram::index(*latency)] += count);
        counts
    }

    #[test]
    fn a_limit_moves_by_what_happened_since_the_last_look() {
        let policy = Policy { max: 100, adaptive: Some(Adaptive { min: 1, ..Adaptive::default() }) };
        let mut service = settings::Service::new("shop".to_owned(), Vec::new());
        service.concurrency = Some(policy);
        let intake = Intake::new(&service, None, 1);
        let (occupancy, mut case) = (intake.occupancy().unwrap(), Case::new(policy));
        let mut past = vec![(50_000, 9_999)];
        let mut look = |latency, count| {
            past.push((latency, count));
            case.look(occupancy, counted(&past));
            occupancy.limit()
        };
        assert_eq!(look(50_000, 100), 100, "what was before the first look says nothing");
        assert!((0..20).all(|_| look(1_000, 100) == 100));
        assert_eq!(look(9_000, ENOUGH - 1), 100, "too few to say anything");
        assert!(look(9_000, 1) < 100, "until there are enough");
        let low = occupancy.limit();
        case.look(occupancy, counted(&[(1_000, 5)]));
        assert_eq!(occupancy.limit(), low, "counts that shrank are another pool's");
    }
}
