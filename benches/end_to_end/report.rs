//! The report: one table for people, one JSON line per measurement for programs.
//!
//! Invariant: whatever makes a row doubtful is said beside the table; nothing doubtful is left out in silence.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::Outcome;
use crate::compare::{Measurement, Paced, Plan};
use crate::observe;
use crate::proxies::Proxy;
use crate::stage::{Stage, told};
use crate::statistics::{Spread, median};
use crate::workloads::{Wire, Workload};

/// A proxy that used less of its core waited for the load: its cost per request is still right, its throughput is
/// not, and caches were colder.
const BUSY: f64 = 0.9;
/// More stolen time than this, and the hypervisor was measured.
const STEAL: f64 = 0.05;
/// Less of the fixed rate than this, and latency is that of a queue.
const HELD: f64 = 0.98;

/// What was measured so far.
pub(crate) struct Report {
    file: File,
    path: PathBuf,
    plan: Plan,
    proxies: Vec<Proxy>,
    measured: Vec<Measurement>,
    lacking: Vec<(Proxy, Workload)>,
}

impl Report {
    /// A report that says first what is measured and where.
    pub(crate) fn begin(stage: &Stage, proxies: &[Proxy], plan: Plan) -> Outcome<Report> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let path = stage.path(&format!("results/{seconds}.jsonl"));
        let mut file = told("results", File::create(&path))?;
        let versions = proxies.iter().map(|proxy| proxy.version(stage)).collect::<Outcome<Vec<_>>>()?;
        let machine = observe::machine();
        println!("{machine}\n{}\n", versions.join("\n"));
        if stage.teal.components().any(|part| part.as_os_str() == "debug") {
            println!("This is a debug build of Teal: its figures mean nothing.\n");
        }
        let first = json!({
            "machine": machine, "versions": versions, "rounds": plan.rounds, "seconds": plan.seconds,
            "latency_seconds": plan.latency_seconds, "connections": plan.connections, "time": seconds,
        });
        told("results", writeln!(file, "{first}"))?;
        Ok(Report { file, path, plan, proxies: proxies.to_vec(), measured: Vec::new(), lacking: Vec::new() })
    }

    /// Takes a measurement, and writes it down at once: an interrupted run keeps what it has.
    pub(crate) fn add(&mut self, one: Measurement) -> Outcome<()> {
        let paced = one.paced.map(|paced| {
            json!({
                "rate": paced.rate, "cpu_us": paced.cpu, "p50_us": paced.latency.p50, "p99_us": paced.latency.p99,
                "p999_us": paced.latency.p999, "max_us": paced.latency.max,
            })
        });
        let line = json!({
            "round": one.round, "workload": one.workload.letter(), "proxy": one.proxy.name(), "rate": one.rate,
            "user_us": one.user, "system_us": one.system, "busy": one.busy, "steal": one.steal, "errors": one.errors,
            "paced": paced,
        });
        told("results", writeln!(self.file, "{line}"))?;
        eprintln!(
            "round {} {:2} {:8} {:6.2} us/request, {:6.0}/s, busy {:.2}, errors {}",
            one.round,
            one.workload.letter(),
            one.proxy.name(),
            one.user + one.system,
            one.rate,
            one.busy,
            one.errors
        );
        self.measured.push(one);
        Ok(())
    }

    /// Notes that a proxy has no answer to a workload.
    pub(crate) fn not_served(&mut self, proxy: Proxy, workload: Workload) {
        self.lacking.push((proxy, workload));
    }

    /// See [`Report::not_served`].
    pub(crate) fn lacks(&self, proxy: Proxy, workload: Workload) -> bool {
        self.lacking.contains(&(proxy, workload))
    }

    /// Prints the table and what is to be said against it.
    pub(crate) fn finish(self, workloads: &[Workload]) -> Outcome<()> {
        println!(
            "Medians of {} rounds, one worker on one core, {} keep-alive connections (HTTP/2: 8 with 8 streams). \
             CPU ratios: median (quartiles) of rounds, below 1 the row's proxy is cheaper. Latency at a fixed rate in \
             microseconds.\n",
            self.plan.rounds, self.plan.connections
        );
        let bases = self.bases();
        let to: String = bases.iter().map(|(name, _)| format!(" to {name} |")).collect();
        println!(
            "| workload | proxy | CPU us/request (user + system) |{to} requests/s | at rate/s | p50 | p99 | p99.9 |"
        );
        println!("|{}", "---|".repeat(8 + bases.len()));
        for workload in workloads {
            for proxy in &self.proxies {
                if let Some(row) = self.row(*proxy, *workload, &bases) {
                    println!("{row}");
                }
            }
        }
        println!();
        self.doubts(workloads).iter().for_each(|doubt| println!("{doubt}"));
        println!("\nEvery measurement: {}", self.path.display());
        Ok(())
    }

    fn of(&self, proxy: Proxy, workload: Workload) -> impl Iterator<Item = &Measurement> {
        self.measured.iter().filter(move |one| one.proxy == proxy && one.workload == workload)
    }

    /// What rows are compared with, of what takes part.
    fn bases(&self) -> Vec<(&'static str, Vec<Proxy>)> {
        let all = [
            ("nginx", vec![Proxy::Nginx]),
            ("the better of nginx and HAProxy", vec![Proxy::Nginx, Proxy::Haproxy]),
            ("Envoy", vec![Proxy::Envoy]),
            ("the floor", vec![Proxy::Floor]),
            ("other", vec![Proxy::Other]),
        ];
        let takes_part = |base: &Proxy| self.proxies.contains(base);
        all.into_iter().filter(|(_, bases)| bases.iter().all(takes_part)).collect()
    }

    fn row(&self, proxy: Proxy, workload: Workload, bases: &[(&str, Vec<Proxy>)]) -> Option<String> {
        self.of(proxy, workload).next()?;
        let middle = |value: fn(&Measurement) -> f64| median(self.of(proxy, workload).map(value));
        let paced = |value: fn(&Paced) -> f64| {
            let values = self.of(proxy, workload).filter_map(|one| one.paced.as_ref()).map(value);
            Spread::of(values).map_or("-".to_owned(), |spread| format!("{:.0}", spread.median))
        };
        let ratio = |bases: &[Proxy]| match self.ratio(proxy, workload, bases) {
            _ if bases == [proxy] => "1".to_owned(),
            ratio => ratio.map_or("-".to_owned(), Spread::text),
        };
        let ratios: String = bases.iter().map(|(_, bases)| format!(" {} |", ratio(bases))).collect();
        Some(format!(
            "| {} {} | {} | {:.1} ({:.1} + {:.1}) |{ratios} {:.0} | {} | {} | {} | {} |",
            workload.letter(),
            workload.text(),
            proxy.name(),
            middle(|one| one.user + one.system),
            middle(|one| one.user),
            middle(|one| one.system),
            middle(|one| one.rate),
            workload.rate(),
            paced(|paced| paced.latency.p50),
            paced(|paced| paced.latency.p99),
            paced(|paced| paced.latency.p999),
        ))
    }

    /// CPU over that of the cheapest of `bases` in the same round.
    fn ratio(&self, proxy: Proxy, workload: Workload, bases: &[Proxy]) -> Option<Spread> {
        let cost = |one: &Measurement| one.user + one.system;
        let of_round = |one: &Measurement| {
            let round = one.round;
            let others = bases.iter().flat_map(|base| self.of(*base, workload));
            let least = others.filter(|other| other.round == round).map(cost).min_by(f64::total_cmp)?;
            Some(cost(one) / least)
        };
        Spread::of(self.of(proxy, workload).filter_map(of_round))
    }

    fn doubts(&self, workloads: &[Workload]) -> Vec<String> {
        let mut doubts = Vec::new();
        for workload in workloads {
            let doubtful = self.proxies.iter().filter_map(|proxy| Some((proxy, self.doubt(*proxy, *workload)?)));
            let told = |(proxy, doubt): (&Proxy, String)| {
                format!("not to be trusted: {} {}: {doubt}", workload.letter(), proxy.name())
            };
            doubts.extend(doubtful.map(told));
        }
        if !self.lacking.is_empty() {
            let pairs = self.lacking.iter().map(|(proxy, workload)| format!("{} {}", workload.letter(), proxy.name()));
            doubts.push(format!("not served: {}", pairs.collect::<Vec<_>>().join(", ")));
        }
        if self.plan.rounds < 5 {
            doubts.push("fewer than five rounds: good for a look, not to be quoted".to_owned());
        }
        if workloads.iter().any(|workload| workload.wire() != Wire::Plain) {
            let text = "latency of TLS and HTTP/2 rows is h2load's: from sending, in bursts of one request for each \
                        connection; that of the others counts from when a request was due, evenly spaced";
            doubts.push(text.to_owned());
        }
        doubts
    }

    /// What speaks against a row, with the rounds it is about.
    fn doubt(&self, proxy: Proxy, workload: Workload) -> Option<String> {
        let rounds: Vec<_> = self.of(proxy, workload).collect();
        let least_busy = rounds.iter().map(|one| one.busy).fold(f64::INFINITY, f64::min);
        let most_stolen = rounds.iter().flat_map(|one| one.steal).fold(0.0, f64::max);
        let least_held = rounds.iter().filter_map(|one| one.paced).map(|paced| paced.rate / f64::from(workload.rate()));
        let least_held = least_held.fold(f64::INFINITY, f64::min);
        let errors: u64 = rounds.iter().map(|one| one.errors).sum();
        let in_rounds = |is: &dyn Fn(&&&Measurement) -> bool| {
            format!("in {} of {} rounds", rounds.iter().filter(is).count(), rounds.len())
        };
        let told = [
            (least_busy < BUSY).then(|| {
                let rounds = in_rounds(&|one| one.busy < BUSY);
                format!("busy only {least_busy:.2} (below {BUSY} {rounds}: the load, or somebody else on the core, was the limit)")
            }),
            (most_stolen > STEAL).then(|| {
                let rounds = in_rounds(&|one| one.steal.iter().any(|share| *share > STEAL));
                format!("steal {most_stolen:.2} (above {STEAL} {rounds})")
            }),
            (errors > 0).then(|| format!("{errors} errors")),
            (least_held < HELD).then(|| format!("only {:.0} % of the fixed rate", least_held * 100.0)),
        ];
        let told: Vec<_> = told.into_iter().flatten().collect();
        (!told.is_empty()).then(|| told.join("; "))
    }
}
