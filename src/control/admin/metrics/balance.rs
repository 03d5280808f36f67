//! How pools stand: which priorities get their requests, and whether they panic.

use prometheus::proto::{MetricFamily, MetricType};

use super::{family, flag, gauge};
use crate::bridge::table::Table;
use crate::clock;
use crate::telemetry::names;

pub(super) fn families(table: &Table) -> [MetricFamily; 2] {
    let (mut shares, mut panics) = (Vec::new(), Vec::new());
    for service in &table.services {
        for pool in &service.pools {
            let place = [("service", service.settings.name.as_str()), ("pool", pool.name.as_str())];
            let standing = pool.standing(clock::now().0);
            panics.push(gauge(&place, flag(standing.panics)));
            for (level, priority) in pool.balancer.plan().priorities().enumerate() {
                let labels = [place[0], place[1], ("priority", &*priority.to_string())];
                shares.push(gauge(&labels, standing.share(level)));
            }
        }
    }
    [family(names::PRIORITY_SHARE, MetricType::GAUGE, shares), family(names::POOL_PANIC, MetricType::GAUGE, panics)]
}
