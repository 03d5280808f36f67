//! Many services: what a reload takes, what it does to those who are served meanwhile, what a lookup costs.
//!
//! A thousand services with two pools of five endpoints each. Everything of Teal is on core 0, the worker and the
//! thread that reloads alike: the hard case, where a reload has no core of its own.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::arguments::Arguments;
use crate::http;
use crate::load::{self, Load, Pace};
use crate::observe;
use crate::proxies::{Proxy, Shape, UPSTREAM};
use crate::routes;
use crate::stage::Stage;
use crate::statistics::Spread;
use crate::timing;

const SERVICES: usize = 1_000;
/// In each of two pools.
const ENDPOINTS: usize = 5;
const RATE: u32 = 1_000;
/// From the beginning of one reload to that of the next.
const EVERY: Duration = Duration::from_millis(500);

/// Prints the tables.
pub(crate) fn run(stage: &Stage, arguments: &Arguments) -> Outcome<()> {
    let seconds = arguments.seconds.unwrap_or(10.0);
    println!("{}\n", observe::machine());
    for proxy in arguments.proxies_or(&[Proxy::Teal]) {
        let file = configure(stage, proxy, 0)?;
        let kibibytes = std::fs::metadata(&file).map(|file| file.len() / 1024).unwrap_or(0);
        let process = proxy.start_teal(stage, &file, Shape::SINGLE.cores)?;
        let quiet = ask(stage, proxy, seconds)?;
        let (busy, mut reloads) = reloading(stage, proxy, seconds)?;
        println!(
            "{}: {SERVICES} services with {} endpoints each ({kibibytes} KiB of YAML), {RATE} requests/s to one of \
             them; latency in microseconds.\n",
            proxy.name(),
            2 * ENDPOINTS
        );
        println!("| | requests | errors | p50 | p99 | p99.9 | max |\n|---|---|---|---|---|---|---|");
        for (name, load) in [("quiet", quiet), ("a reload every 500 ms", busy)] {
            let latency = load.latency;
            println!(
                "| {name} | {} | {} | {:.0} | {:.0} | {:.0} | {:.0} |",
                load.requests, load.errors, latency.p50, latency.p99, latency.p999, latency.max
            );
        }
        reloads.sort_by(f64::total_cmp);
        if let (Some(spread), Some(max)) = (Spread::of(reloads.iter().copied()), reloads.last()) {
            let count = reloads.len();
            println!(
                "\n{count} reloads, to the last worker's report: {} ms (median, quartiles), {max:.1} at most; {:.1} MiB resident\n",
                spread.text(),
                observe::resident(process.id()) as f64 / 1024.0
            );
        }
    }
    println!("| services | route lookup, ns: median (quartiles) |\n|---|---|");
    for services in routes::SIZES {
        let mut lookup = routes::Lookup::among(services);
        println!("| {services} | {} |", timing::time(timing::LONG, || lookup.next()).nanos());
    }
    Ok(())
}

/// A configuration of which `turn` changes one service.
fn configure(stage: &Stage, proxy: Proxy, turn: usize) -> Outcome<PathBuf> {
    let mut text = format!(
        "version: 1\nlisten: 127.0.0.1:{}\nadmin: 127.0.0.1:{}\nstate: none\nworkers: 1\nservices:\n",
        proxy.plain_port(),
        proxy.admin_port()
    );
    for service in 0..SERVICES {
        let pool = |first: usize| {
            let endpoints = (first..first + ENDPOINTS).map(|at| format!("http://127.0.0.{at}:{UPSTREAM}"));
            endpoints.collect::<Vec<_>>().join(", ")
        };
        let idle = if service == 0 { 100 + turn % 2 } else { 256 };
        let _ = write!(
            text,
            "  s{service}:\n    hosts: s{service}.example.com\n    pools:\n      blue: [{}]\n      green: [{}]\n    \
             health: off\n    connections: {{ max_idle: {idle} }}\n",
            pool(1),
            pool(1 + ENDPOINTS)
        );
    }
    // Renamed into place: a file that is half written is never read.
    let written = stage.write("services/next", &text)?;
    let file = stage.path("services/teal.yaml");
    std::fs::rename(written, &file).map_err(|error| format!("configuration: {error}"))?;
    Ok(file)
}

fn ask(stage: &Stage, proxy: Proxy, seconds: f64) -> Outcome<Load> {
    let request = format!("GET /s HTTP/1.1\r\nHost: s{}.example.com\r\n\r\n", SERVICES / 2);
    let request = stage.write("requests/services", &request)?;
    let pace = Pace { seconds, connections: 16, rate: Some(RATE) };
    load::plain(stage, proxy.plain_port(), &request, pace, 2 * ENDPOINTS as u32)
}

/// The load while the file changes again and again, and the milliseconds of each reload.
fn reloading(stage: &Stage, proxy: Proxy, seconds: f64) -> Outcome<(Load, Vec<f64>)> {
    let over = AtomicBool::new(false);
    let (load, reloads) = std::thread::scope(|scope| {
        let reloads = scope.spawn(|| {
            let mut took = Vec::new();
            for turn in 1.. {
                if over.load(SeqCst) {
                    break;
                }
                let began = Instant::now();
                took.push(reload(stage, proxy, turn)?);
                std::thread::sleep(EVERY.saturating_sub(began.elapsed()));
            }
            Outcome::Ok(took)
        });
        let load = ask(stage, proxy, seconds);
        over.store(true, SeqCst);
        (load, reloads.join().unwrap_or_else(|_| Err("the reloads broke".to_owned())))
    });
    Ok((load?, reloads?))
}

/// Changes the file and asks for a reload before the file watch has noticed; milliseconds from asking to the answer.
fn reload(stage: &Stage, proxy: Proxy, turn: usize) -> Outcome<f64> {
    configure(stage, proxy, turn)?;
    let began = Instant::now();
    let (status, body) = http::ask(proxy.admin_port(), "POST", "/v1/config/reload", "")?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    if status != 200 || !body.contains("\"changed\":true") {
        return Err(format!("the reload was answered {status}: {body}"));
    }
    Ok(took)
}
