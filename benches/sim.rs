//! The judge against its goals: false rollbacks, speed, traps and approval, in one table.
//!
//! `cargo bench --bench sim -- full [RUNS [SEED]]` plays the scenarios of `tests/sim` at full length, RUNS
//! (1,000 unless said) rollouts of one hour for each of the nine pairs of equal pools. A thousand take a few
//! minutes on one core; the goal itself asks for 10,000. The exit status is 1 if any goal is missed.
//!
//! Invariant: a goal is judged by the counts of this run alone; reference figures stand beside it for the eye.

#[path = "../tests/sim/limits.rs"]
mod limits;
#[path = "../tests/sim/random.rs"]
mod random;
#[path = "../tests/sim/scenarios.rs"]
mod scenarios;
#[path = "../tests/sim/traffic.rs"]
mod traffic;
#[path = "../tests/sim/trial.rs"]
mod trial;

use std::process::ExitCode;
use std::time::Instant;

use fastrand::Rng;
use scenarios::{Alarms, Keyed, Regression, Scale};
use traffic::{Behaviour, Latency};

const RUNS: u64 = 1_000;
const SEED: u64 = 1;
const HOUR: u64 = 3_600;
/// Rollouts through each trap, and of each canary at a margin of approval.
const TRAPS: u64 = 1_000;
const MARGINS: u64 = 2_000;

/// From so many runs on, each pair of equal pools has to prove its goal alone.
const CONCLUSIVE: u64 = 10_000;
/// Chance of a false rollback per rollout, the judge's default.
const ALPHA: f64 = 0.01;
/// Chance of a false approval at the margin, the judge's default.
const BETA: f64 = 0.05;

/// Worse canaries against a baseline with 0.1 % errors: share, errors, alpha, and the mean number of canary
/// requests that an independent implementation needed.
const ERRORS: [(f64, f64, f64, u32); 24] = [
    (0.01, 0.005, 0.01, 1912),
    (0.01, 0.01, 0.01, 580),
    (0.01, 0.05, 0.01, 66),
    (0.01, 0.5, 0.01, 7),
    (0.05, 0.005, 0.01, 2077),
    (0.05, 0.01, 0.01, 633),
    (0.05, 0.05, 0.01, 75),
    (0.05, 0.5, 0.01, 9),
    (0.5, 0.005, 0.01, 4784),
    (0.5, 0.01, 0.01, 1588),
    (0.5, 0.05, 0.01, 257),
    (0.5, 0.5, 0.01, 50),
    (0.01, 0.005, 0.001, 2592),
    (0.01, 0.01, 0.001, 737),
    (0.01, 0.05, 0.001, 82),
    (0.01, 0.5, 0.001, 7),
    (0.05, 0.005, 0.001, 2713),
    (0.05, 0.01, 0.001, 833),
    (0.05, 0.05, 0.001, 97),
    (0.05, 0.5, 0.001, 10),
    (0.5, 0.005, 0.001, 6486),
    (0.5, 0.01, 0.001, 2170),
    (0.5, 0.05, 0.001, 333),
    (0.5, 0.5, 0.001, 50),
];

/// The table as it grows.
struct Report {
    /// Gives every scenario a seed of its own: counts that are added up must be independent.
    seeds: Rng,
    missed: u32,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    if arguments.next().as_deref() != Some("full") {
        println!("cargo bench --bench sim -- full [RUNS [SEED]]");
        return ExitCode::SUCCESS;
    }
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse());
    let (Ok(runs), Ok(seed)) = (number(RUNS), number(SEED)) else {
        eprintln!("RUNS and SEED are whole numbers");
        return ExitCode::from(2);
    };
    let began = Instant::now();
    println!("seed {seed}\n\n| goal | scenario | runs | result | goal or reference | met |\n|---|---|---|---|---|---|");
    let mut report = Report { seeds: Rng::with_seed(seed), missed: 0 };
    report.equal_errors(runs.max(1));
    report.equal_latency();
    report.errors();
    report.latency();
    report.traps();
    report.approval();
    println!("\n{} goals missed; {:.0} s", report.missed, began.elapsed().as_secs_f64());
    if report.missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Report {
    fn row(&mut self, goal: &str, scenario: String, runs: u64, result: String, aim: String, met: Option<bool>) {
        let verdict = met.map_or("", |met| if met { "yes" } else { "NO" });
        self.missed += u32::from(met == Some(false));
        println!("| {goal} | {scenario} | {runs} | {result} | {aim} | {verdict} |");
    }

    fn scale(&mut self, runs: u64, seconds: u64) -> Scale {
        Scale { runs, seconds, seed: self.seeds.u64(..) }
    }

    fn equal_errors(&mut self, runs: u64) {
        let mut all = Alarms::default();
        for split in [0.01, 0.05, 0.5] {
            for rate in [0.0001, 0.001, 0.01] {
                let alarms = scenarios::alike(split, Behaviour::failing(rate), self.scale(runs, HOUR));
                let scenario = format!("equal errors {}, canary {}, 1 h", percent(rate), percent(split));
                let proven = limits::upper_bound(alarms.fired, runs) <= ALPHA;
                let few = alarms.fired as f64 <= ALPHA * runs as f64;
                self.alarms("G1", scenario, &alarms, if runs < CONCLUSIVE { few } else { proven });
                all.runs += alarms.runs;
                all.fired += alarms.fired;
                all.requests += alarms.requests;
                all.errors += alarms.errors;
                all.strongest = all.strongest.max(alarms.strongest);
            }
        }
        let proven = limits::upper_bound(all.fired, all.runs) <= ALPHA;
        self.alarms("G1", "the nine together: upper bound".to_owned(), &all, proven);
    }

    fn equal_latency(&mut self) {
        for split in [0.05, 0.5] {
            let alarms = scenarios::alike(split, Behaviour::timed(0.001, 1.0), self.scale(1_000, 600));
            let scenario = format!("equal latency, canary {}, 10 min", percent(split));
            self.alarms("G1", scenario, &alarms, alarms.fired as f64 <= ALPHA * alarms.runs as f64);
        }
    }

    fn alarms(&mut self, goal: &str, scenario: String, alarms: &Alarms, met: bool) {
        let bound = limits::upper_bound(alarms.fired, alarms.runs);
        let result = format!(
            "{} false ({}, 99 % bound {}); {:.2e} requests, {:.2e} errors; else E <= {:.1}",
            alarms.fired,
            percent(alarms.fired as f64 / alarms.runs as f64),
            percent(bound),
            alarms.requests as f64,
            alarms.errors as f64,
            alarms.strongest,
        );
        self.row(goal, scenario, alarms.runs, result, format!("<= {}", percent(ALPHA)), Some(met));
    }

    fn errors(&mut self) {
        for (split, rate, alpha, reference) in ERRORS {
            let delay = Regression::errors(split, rate, alpha).find(300, self.seeds.u64(..));
            let (canary, seconds) = (delay.limit, delay.limit / split / 1_000.0);
            let most = if alpha < ALPHA { 1.7 } else { 2.0 };
            let scenario =
                format!("errors 0.1 % -> {}, canary {}, alpha {}", percent(rate), percent(split), percent(alpha));
            let aim = format!("<= {most} x {canary:.1} ({seconds:.3} s); reference {reference}");
            // Where half of all requests fail, the tick is the limit.
            let met = (rate < 0.5).then(|| delay.found == delay.runs && delay.ratio() <= most);
            self.delay("G2", scenario, &delay, aim, met);
        }
    }

    fn latency(&mut self) {
        let cases = [
            (Latency::Scaled(1.2), "all latencies +20 %", "439; 8.5 s"),
            (Latency::LongTail(3.0), "p99 x 3", "246; 4.6 s (another tail)"),
        ];
        for (latency, name, reference) in cases {
            let delay = Regression::latency(latency).find(300, self.seeds.u64(..));
            let seconds = delay.limit / 50.0;
            let aim = format!("limit without tolerance {:.1} ({seconds:.3} s); reference {reference}", delay.limit);
            self.delay("", format!("{name}, canary 5 %"), &delay, aim, Some(delay.found == delay.runs));
        }
    }

    fn delay(&mut self, goal: &str, scenario: String, delay: &scenarios::Delay, aim: String, met: Option<bool>) {
        let result = format!(
            "{} found; mean {:.1} canary requests, {:.2} x limit; median {:.1} s (p95 {:.1} s)",
            delay.found,
            delay.requests,
            delay.ratio(),
            delay.median,
            delay.p95
        );
        self.row(goal, scenario, delay.runs, result, aim, met);
    }

    fn traps(&mut self) {
        for split in [0.05, 0.5] {
            let alarms = scenarios::degrading_together(split, self.scale(TRAPS, 120));
            let scenario = format!("both pools break down together, canary {}", percent(split));
            self.alarms("G5", scenario, &alarms, alarms.fired as f64 <= ALPHA * TRAPS as f64);
        }
        let alarms = scenarios::slow_successes(Keyed::ByDispatch, self.scale(TRAPS, 0));
        let met = alarms.fired as f64 <= ALPHA * TRAPS as f64 && alarms.unread == 0;
        self.alarms("G5", "slow successes, fast errors, 8 splits".to_owned(), &alarms, met);
        let naive = scenarios::slow_successes(Keyed::ByEnd, self.scale(300, 0));
        let result = format!("{} false", naive.fired);
        let scenario = "the same, counted at the end (control)".to_owned();
        self.row("G5", scenario, naive.runs, result, "harmful".to_owned(), Some(naive.fired * 2 > naive.runs));
    }

    fn approval(&mut self) {
        let sound = Behaviour::timed(0.001, 1.0);
        let approvals = scenarios::approvals(sound, sound, self.scale(300, 600));
        let result =
            format!("{} approved, median {:.1} s, p95 {:.1} s", approvals.approved, approvals.median, approvals.p95);
        let met = approvals.approved == approvals.runs && approvals.median <= 60.0;
        let aim = "all, median <= 60 s; reference 38 s".to_owned();
        self.row("G6", "equal pools, canary 50 %, errors 0.1 %".to_owned(), approvals.runs, result, aim, Some(met));
        let [rarely, erring] = [0.0005, 0.01].map(|errors| Behaviour::timed(errors, 1.0));
        let margins = [
            ("errors at twice the odds of 0.05 %", rarely, scenarios::at_errors_margin(rarely)),
            ("errors at twice the odds of 0.1 %", sound, scenarios::at_errors_margin(sound)),
            ("errors at twice the odds of 1 %", erring, scenarios::at_errors_margin(erring)),
            ("all latencies at the margin", sound, scenarios::at_latency_margin(sound)),
            ("p99 at the margin", sound, scenarios::at_p99_margin(sound)),
        ];
        for (name, baseline, canary) in margins {
            let margin = scenarios::approvals(baseline, canary, self.scale(MARGINS, 300));
            let share = margin.approved as f64 / margin.runs as f64;
            let result = format!("{} approved ({})", margin.approved, percent(share));
            let (scenario, aim) = (format!("{name}, 5 min"), format!("<= {}", percent(BETA)));
            self.row("G6", scenario, margin.runs, result, aim, Some(share <= BETA));
        }
    }
}

fn percent(fraction: f64) -> String {
    let percent = format!("{:.4}", fraction * 100.0);
    format!("{} %", percent.trim_end_matches('0').trim_end_matches('.'))
}
