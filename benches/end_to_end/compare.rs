//! The comparison: rounds in which every proxy does every workload in turn.
//!
//! Within a round all proxies run at once and take turns on core 0, workload by workload, so that two of them are
//! compared within seconds of each other; their order rotates. Each round starts them anew, so that the luck of an
//! address space is drawn again.
//!
//! Invariant: a ratio is only ever taken between measurements of one round.

use std::time::Instant;

use crate::Outcome;
use crate::arguments::{Arguments, Mode};
use crate::load::{self, Latency, Load, Pace};
use crate::observe;
use crate::process::Process;
use crate::proxies::{Proxy, Shape};
use crate::report::Report;
use crate::stage::Stage;
use crate::workloads::Workload;

/// One proxy on one workload in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measurement {
    pub(crate) round: u32,
    pub(crate) proxy: Proxy,
    pub(crate) workload: Workload,
    /// Requests per second at full load.
    pub(crate) rate: f64,
    /// CPU microseconds per request.
    pub(crate) user: f64,
    pub(crate) system: f64,
    /// Share of core 0 that the proxy used: below 0.9 the load was the limit.
    pub(crate) busy: f64,
    /// Share of the time that the hypervisor took from core 0 and core 1.
    pub(crate) steal: [f64; 2],
    pub(crate) errors: u64,
    /// At the workload's fixed rate.
    pub(crate) paced: Option<Paced>,
}

/// A measurement at a fixed rate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paced {
    pub(crate) latency: Latency,
    /// Requests per second that were answered.
    pub(crate) rate: f64,
    /// CPU microseconds per request.
    pub(crate) cpu: f64,
}

/// What a comparison does.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) latency_seconds: f64,
    pub(crate) connections: u32,
}

/// Compares and prints the table.
pub(crate) fn run(stage: &Stage, arguments: &Arguments, mode: Mode) -> Outcome<()> {
    let full = mode == Mode::Full;
    let plan = Plan {
        rounds: arguments.rounds.unwrap_or(if full { 5 } else { 3 }).max(1),
        seconds: arguments.seconds.unwrap_or(if full { 5.0 } else { 2.0 }),
        latency_seconds: arguments.latency_seconds.unwrap_or(if full { 3.0 } else { 1.0 }),
        connections: arguments.connections.unwrap_or(64),
    };
    let usual: &[Workload] = if full { &Workload::ALL } else { &Workload::PLAIN };
    let workloads = if arguments.workloads.is_empty() { usual } else { &arguments.workloads };
    let proxies = arguments.proxies_or(&[Proxy::Teal, Proxy::Nginx, Proxy::Haproxy, Proxy::Floor]);
    let mut report = Report::begin(stage, &proxies, plan)?;
    for round in 1..=plan.rounds {
        let running = start(stage, &proxies)?;
        for workload in workloads {
            for (proxy, process) in rotated(&running, round) {
                if report.lacks(*proxy, *workload) {
                    continue;
                }
                match measure(stage, (*proxy, process), *workload, plan, round)? {
                    Some(measurement) => report.add(measurement)?,
                    None => report.not_served(*proxy, *workload),
                }
            }
        }
    }
    report.finish(workloads)
}

fn start(stage: &Stage, proxies: &[Proxy]) -> Outcome<Vec<(Proxy, Process)>> {
    proxies.iter().map(|proxy| Ok((*proxy, proxy.start(stage, Shape::SINGLE)?))).collect()
}

fn rotated(running: &[(Proxy, Process)], round: u32) -> impl Iterator<Item = &(Proxy, Process)> {
    running.iter().cycle().skip(round as usize % running.len()).take(running.len())
}

/// `None` if the proxy does not serve the workload at all.
fn measure(
    stage: &Stage,
    (proxy, process): (Proxy, &Process),
    workload: Workload,
    plan: Plan,
    round: u32,
) -> Outcome<Option<Measurement>> {
    let pace = |seconds, rate| Pace { seconds, connections: plan.connections, rate };
    let Some(warm) = load::run(stage, proxy, workload, pace(0.5, None))? else { return Ok(None) };
    if warm.requests == 0 || warm.errors >= warm.requests {
        return Ok(None);
    }
    let (load, cpu, share) = observed(process, || load::run(stage, proxy, workload, pace(plan.seconds, None)))?;
    let per_request = cpu.run / load.requests.max(1) as f64 * 1e6;
    let user = cpu.user / (cpu.user + cpu.system).max(f64::MIN_POSITIVE);
    let mut measurement = Measurement {
        round,
        proxy,
        workload,
        rate: load.rate,
        user: per_request * user,
        system: per_request * (1.0 - user),
        busy: share.busy,
        steal: share.steal,
        errors: load.errors,
        paced: None,
    };
    if plan.latency_seconds > 0.0 {
        let pace = pace(plan.latency_seconds, Some(workload.rate()));
        let (load, cpu, _) = observed(process, || load::run(stage, proxy, workload, pace))?;
        measurement.errors += load.errors;
        let cpu = cpu.run / load.requests.max(1) as f64 * 1e6;
        measurement.paced = Some(Paced { latency: load.latency, rate: load.rate, cpu });
    }
    Ok(Some(measurement))
}

/// Shares of the time that was observed.
struct Share {
    busy: f64,
    steal: [f64; 2],
}

fn observed(process: &Process, work: impl FnOnce() -> Outcome<Option<Load>>) -> Outcome<(Load, observe::Cpu, Share)> {
    let (before, stolen, begin) = (observe::cpu(process.id()), observe::steal(), Instant::now());
    let load = work()?.unwrap_or_default();
    let (after, seconds, steal) = (observe::cpu(process.id()), begin.elapsed().as_secs_f64(), observe::steal());
    let cpu = observe::Cpu {
        run: after.run - before.run,
        user: after.user - before.user,
        system: after.system - before.system,
    };
    let steal = [0, 1].map(|core| (steal[core] - stolen[core]) / seconds);
    // The load's own time: its start is nobody's work.
    let busy = cpu.run * load.rate / load.requests.max(1) as f64;
    Ok((load, cpu, Share { busy, steal }))
}
