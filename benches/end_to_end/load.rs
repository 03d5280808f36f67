//! Load: the bench's own generator for plain HTTP/1.1, wrk and h2load where TLS or HTTP/2 is wanted.
//!
//! Invariant: the upstream is there while a load runs, and load and upstream stay on core 1.

use std::path::Path;
use std::process::Stdio;

use crate::Outcome;
use crate::process::{Process, pinned};
use crate::proxies::{Proxy, UPSTREAM};
use crate::stage::{Stage, peer, told};
use crate::statistics::quantile;
use crate::workloads::{Wire, Workload};

/// The core of load and upstream.
const CORE: &str = "1";
/// HTTP/2 connections, and streams at a time on each.
const HTTP2: (u32, u32) = (8, 8);

/// What a load came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Requests answered.
    pub(crate) requests: u64,
    /// Per second.
    pub(crate) rate: f64,
    /// Answers other than 200, broken connections, requests without an answer.
    pub(crate) errors: u64,
    /// Only at a fixed rate does it say something of the proxy.
    pub(crate) latency: Latency,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// How long, how wide, how fast.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) seconds: f64,
    pub(crate) connections: u32,
    /// Requests per second; `None` for as many as the proxy can do.
    pub(crate) rate: Option<u32>,
}

/// Runs a workload against a proxy; `None` if it has no listener for it.
pub(crate) fn run(stage: &Stage, proxy: Proxy, workload: Workload, pace: Pace) -> Outcome<Option<Load>> {
    let Some(port) = proxy.port(workload.wire()) else { return Ok(None) };
    if workload.wire() == Wire::Plain {
        return plain(stage, port, &stage.request(workload), pace, 1).map(Some);
    }
    let mut upstream = upstream(stage)?;
    upstream.accepts(stage, UPSTREAM)?;
    match (workload.wire(), pace.rate) {
        (Wire::Tls, None) => wrk(stage, port, workload, pace),
        _ => h2load(stage, port, workload, pace),
    }
    .map(Some)
}

/// Runs our own generator with the request in `file`; it is the upstream as well, at so many addresses.
pub(crate) fn plain(stage: &Stage, port: u16, file: &Path, pace: Pace, addresses: u32) -> Outcome<Load> {
    let mut command = pinned(stage, CORE, &stage.path("bin/load"));
    let rate = pace.rate.unwrap_or(0);
    command.args([port.to_string(), pace.connections.to_string(), rate.to_string(), pace.seconds.to_string()]);
    command.arg(file).args([UPSTREAM.to_string(), addresses.to_string()]);
    let output = told("load", command.stdout(Stdio::piped()).output())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value = |name: &str| {
        let (_, rest) = text.split_once(&format!("{name}="))?;
        rest.split_whitespace().next()?.parse::<f64>().ok()
    };
    let value = |name| value(name).ok_or_else(|| format!("load: {}", String::from_utf8_lossy(&output.stderr).trim()));
    Ok(Load {
        requests: value("requests")? as u64,
        rate: value("rate")?,
        errors: value("errors")? as u64,
        latency: Latency { p50: value("p50")?, p99: value("p99")?, p999: value("p999")?, max: value("max")? },
    })
}

/// The generator as an upstream only.
fn upstream(stage: &Stage) -> Outcome<Process> {
    let mut command = pinned(stage, CORE, &stage.path("bin/load"));
    command.args(["0", "0", "0", "0"]).arg(stage.request(Workload::A)).arg(UPSTREAM.to_string());
    Process::start(stage, "upstream", &mut command)
}

/// Opens connections to `port`, asks once on each, and holds them until the process is dropped.
pub(crate) fn hold(stage: &Stage, port: u16, connections: u32) -> Outcome<Process> {
    let mut command = pinned(stage, CORE, &stage.path("bin/load"));
    command.args([port.to_string(), connections.to_string(), "-1".into(), "0".into()]);
    command.arg(stage.request(Workload::A)).arg(UPSTREAM.to_string());
    let mut process = Process::start(stage, "hold", command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let mut line = String::new();
    let stdout = process.child().stdout.take().ok_or("hold: no output")?;
    told("hold", std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line))?;
    if line.trim() != "ready" {
        let log = std::fs::read_to_string(stage.path("logs/hold.log")).unwrap_or_default();
        return Err(format!("the connections do not open: {}", log.trim()));
    }
    Ok(process)
}

fn wrk(stage: &Stage, port: u16, workload: Workload, pace: Pace) -> Outcome<Load> {
    let mut command = pinned(stage, CORE, &peer("wrk", "wrk")?);
    command.args(["-t1", &format!("-c{}", pace.connections), &format!("-d{}s", whole(pace.seconds))]);
    command.args(fields(workload, "Host: www.example.com")).arg(format!("https://127.0.0.1:{port}{}", workload.path()));
    let output = told("wrk", command.stdout(Stdio::piped()).stderr(Stdio::null()).output())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = |line: &str| line.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok()).sum::<u64>();
    let bad = text.lines().filter(|line| line.contains("Non-2xx") || line.contains("Socket errors"));
    let errors = bad.map(numbers).sum();
    let rate = text.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in"));
    let requests = requests.and_then(|(number, _)| number.parse().ok()).unwrap_or(0);
    let rate = rate.and_then(|rate| rate.trim().parse().ok()).unwrap_or(0.0);
    Ok(Load { requests, rate, errors, latency: Latency::default() })
}

fn h2load(stage: &Stage, port: u16, workload: Workload, pace: Pace) -> Outcome<Load> {
    let log = stage.path("logs/h2load.times");
    let _ = std::fs::remove_file(&log);
    let mut command = pinned(stage, CORE, &peer("h2load", "nghttp2-client")?);
    let secure = workload.wire() == Wire::Tls;
    let (connections, streams) = if secure { (pace.connections, 1) } else { HTTP2 };
    command.args(["-t1", &format!("-c{connections}"), &format!("-m{streams}"), &format!("-D{}", whole(pace.seconds))]);
    if secure {
        command.arg("--h1");
    }
    if let Some(rate) = pace.rate {
        command.arg(format!("--rps={}", f64::from(rate) / f64::from(connections))).arg("--log-file").arg(&log);
    }
    let scheme = if secure { "https" } else { "http" };
    command.args(fields(workload, ":authority: www.example.com"));
    command.arg(format!("{scheme}://127.0.0.1:{port}{}", workload.path()));
    let output = told("h2load", command.stdout(Stdio::piped()).stderr(Stdio::null()).output())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = |begin: &str| text.lines().find(|line| line.starts_with(begin)).unwrap_or_default();
    let before = |line: &str, word: &str| {
        let words: Vec<_> = line.split([' ', ',']).filter(|part| !part.is_empty()).collect();
        let at = words.iter().position(|part| *part == word)?;
        words.get(at.checked_sub(1)?)?.parse::<f64>().ok()
    };
    let of = |begin, word| before(line(begin), word).unwrap_or(0.0) as u64;
    let unanswered = of("requests:", "failed") + of("requests:", "errored") + of("requests:", "timeout");
    Ok(Load {
        requests: of("requests:", "succeeded"),
        rate: before(line("finished in"), "req/s").unwrap_or(0.0),
        errors: unanswered + of("status codes:", "4xx") + of("status codes:", "5xx"),
        latency: pace.rate.map(|_| times(&log)).unwrap_or_default(),
    })
}

/// The `-H` arguments of a workload.
fn fields(workload: Workload, host: &str) -> Vec<String> {
    let named = workload.headers().iter().map(|(name, value)| format!("{name}: {value}"));
    let host = (!workload.headers().is_empty()).then(|| host.to_owned());
    host.into_iter().chain(named).flat_map(|field| ["-H".to_owned(), field]).collect()
}

/// Quantiles of h2load's log: one line per request, the third column its microseconds. Unlike those of our own
/// generator they count from the moment a request was sent, not from when it was due.
fn times(log: &Path) -> Latency {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let mut micros: Vec<f64> = text.lines().filter_map(|line| line.split('\t').nth(2)?.parse().ok()).collect();
    // The first tenth is warm-up, as in our own.
    micros.drain(..micros.len() / 10);
    micros.sort_by(f64::total_cmp);
    let Some(max) = micros.last().copied() else { return Latency::default() };
    let at = |share| quantile(&micros, share);
    Latency { p50: at(0.5), p99: at(0.99), p999: at(0.999), max }
}

/// The tools take whole seconds.
fn whole(seconds: f64) -> u64 {
    (seconds.round() as u64).max(1)
}
