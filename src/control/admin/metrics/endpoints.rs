//! How the endpoints of each pool are doing: what keeps them from requests, and how often their results did.

use prometheus::proto::{MetricFamily, MetricType};

use super::{counter, family, gauge};
use crate::bridge::endpoint::Obstacle;
use crate::bridge::table::Table;
use crate::domain::outlier::Cause;
use crate::telemetry::names;

pub(super) fn families(table: &Table) -> [MetricFamily; 2] {
    let (mut obstructed, mut ejections) = (Vec::new(), Vec::new());
    let pools = table.services.iter().flat_map(|service| service.pools.iter().map(move |pool| (service, pool)));
    for (service, pool) in pools {
        let labels = |more| [("service", service.settings.name.as_str()), ("pool", pool.name.as_str()), more];
        for obstacle in Obstacle::ALL {
            let count = pool.endpoints.iter().filter(|endpoint| endpoint.has(obstacle)).count();
            obstructed.push(gauge(&labels(("obstacle", obstacle.name())), count as f64));
        }
        for cause in Cause::ALL {
            ejections.push(counter(&labels(("cause", cause.name())), pool.bench.ejections(cause)));
        }
    }
    [family(names::OBSTRUCTED, MetricType::GAUGE, obstructed), family(names::EJECTIONS, MetricType::COUNTER, ejections)]
}
