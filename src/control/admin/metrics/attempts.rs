//! Further attempts: hedges and rescues by pool, and retries under way.

use prometheus::proto::{MetricFamily, MetricType};

use super::{counter, family, gauge};
use crate::bridge::observations::PoolTally;
use crate::bridge::table::Table;
use crate::domain::rescue::Refused;
use crate::telemetry::names;

/// The families.
pub(super) fn families(table: &Table) -> [MetricFamily; 5] {
    let (mut rescued, mut unrescued, mut retrying) = (Vec::new(), Vec::new(), Vec::new());
    let (mut hedges, mut wins) = (Vec::new(), Vec::new());
    for service in &table.services {
        let name = ("service", service.settings.name.as_str());
        retrying.push(gauge(&[name], f64::from(service.purse.retrying())));
        for pool in &service.pools {
            let place = [name, ("pool", pool.name.as_str())];
            let sum = |read: &dyn Fn(&PoolTally) -> u64| pool.tally.iter().map(read).fold(0, u64::wrapping_add);
            hedges.push(counter(&place, sum(&|tally| tally.hedges.read())));
            wins.push(counter(&place, sum(&|tally| tally.hedge_wins.read())));
            rescued.push(counter(&place, sum(&|tally| tally.rescued.read())));
            unrescued.extend(Refused::ALL.into_iter().map(|refused| {
                let labels = [place[0], place[1], ("reason", refused.name())];
                counter(&labels, sum(&|tally| tally.unrescued[refused as usize].read()))
            }));
        }
    }
    [
        family(names::HEDGES, MetricType::COUNTER, hedges),
        family(names::HEDGE_WINS, MetricType::COUNTER, wins),
        family(names::RESCUED, MetricType::COUNTER, rescued),
        family(names::UNRESCUED, MetricType::COUNTER, unrescued),
        family(names::RETRIES_IN_FLIGHT, MetricType::GAUGE, retrying),
    ]
}
