//! The sampler: turns what the control plane and the users counted into a [`View`].
//!
//! Counters run from the start of the process; rates and latencies are shown of late, as differences over
//! [`WINDOW`] looks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::bridge::observations::latency_of;
use crate::bridge::table::Table;
use crate::clock::{self, Micros};
use crate::control::command::{PoolStatus, ServiceStatus};
use crate::control::events::Event;
use crate::demo::fault::Fail;
use crate::demo::load::Counts;
use crate::demo::stage::{SERVICE, Stage};
use crate::demo::view::{EVENTS, JudgeView, PoolView, View};
use crate::domain::stats::histogram;

/// Looks that "of late" spans.
const WINDOW: usize = 8;

/// Looks at the stage now and then.
#[derive(Default)]
pub struct Sampler {
    looks: VecDeque<Look>,
    events: VecDeque<(Duration, String)>,
}

/// What only the director knows.
pub struct Told {
    /// How green is to break.
    pub mode: Option<Fail>,
    /// Where the rollout is.
    pub place: String,
    /// Why it ended, once it did.
    pub why: Option<String>,
}

struct Look {
    at: Micros,
    pools: Vec<Seen>,
}

/// What was counted of one pool by the time of a look.
struct Seen {
    ended: u64,
    latency: Vec<u64>,
}

impl Sampler {
    /// Takes in something that happened.
    pub fn hear(&mut self, at: Duration, event: &Event) {
        // Says what `rollback` and `ended` say in the same moment.
        if event.kind == "rolling_back" {
            return;
        }
        self.events.push_back((at, event.sentence.clone()));
        if self.events.len() > EVENTS {
            self.events.pop_front();
        }
    }

    /// Looks, and says what is to be shown.
    pub fn look(&mut self, stage: &Stage, status: &ServiceStatus, told: Told) -> View {
        let table = stage.running.controller.plane().table.load_full();
        let now = Look { at: clock::now(), pools: seen(&table, status) };
        let before = self.looks.front().unwrap_or(&now);
        let span = now.at.since(before.at);
        let pools = status.pools.iter().zip(now.pools.iter().zip(&before.pools));
        let pools = pools.map(|(pool, (now, before))| pool_view(pool, now, before, span)).collect();
        self.looks.push_back(now);
        if self.looks.len() > WINDOW {
            self.looks.pop_front();
        }
        let Counts { answered, errors, last_error, .. } = stage.load.counts();
        let url = |address: std::net::SocketAddr| format!("http://{address}");
        View {
            elapsed: Duration::from_micros(clock::now().since(stage.begun)),
            mode: told.mode,
            proxy: stage.running.listen.first().copied().map_or(String::new(), url),
            admin: stage.running.admin.map(url),
            place: told.place,
            why: told.why,
            pools,
            users: (answered, errors),
            rescued: status.pools.iter().map(|pool| pool.rescued).sum(),
            last_error,
            judge: status.judge.as_ref().map(|judge| JudgeView {
                evidence: judge.evidence,
                needed: judge.needed,
                sentence: judge.sentence.clone(),
            }),
            events: self.events.iter().cloned().collect(),
        }
    }
}

fn seen(table: &Arc<Table>, status: &ServiceStatus) -> Vec<Seen> {
    let service = table.services.iter().find(|service| service.settings.name == SERVICE);
    let pools = service.into_iter().flat_map(|service| &service.pools);
    let one = |(status, pool): (&PoolStatus, &Arc<crate::bridge::table::Pool>)| Seen {
        ended: status.responses.iter().chain(&status.failures).sum(),
        latency: latency_of(&pool.tally),
    };
    status.pools.iter().zip(pools).map(one).collect()
}

fn pool_view(pool: &PoolStatus, now: &Seen, before: &Seen, span: u64) -> PoolView {
    let late: Vec<u64> = now.latency.iter().zip(&before.latency).map(|(now, before)| now - before).collect();
    let ended = now.ended.saturating_sub(before.ended);
    PoolView {
        name: pool.name.clone(),
        share: pool.share,
        rate: if span == 0 { 0.0 } else { ended as f64 * 1e6 / span as f64 },
        p50_us: histogram::quantile(&late, 0.5),
        p99_us: histogram::quantile(&late, 0.99),
        errors: errors_of(pool),
        in_flight: pool.in_flight,
    }
}

/// Answers of 500 and above, and failed attempts.
pub fn errors_of(pool: &PoolStatus) -> u64 {
    pool.responses[4] + pool.failures.iter().sum::<u64>()
}
