//! What the kernel knows of a process and its children: CPU time, memory, threads.
//!
//! Invariant: a process that ended meanwhile counts as nothing, never as an error.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

/// CPU time of a process and its children, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// By the scheduler, to the nanosecond.
    pub(crate) run: f64,
    /// By ticks: for the proportion of the two only.
    pub(crate) user: f64,
    pub(crate) system: f64,
}

/// CPU time of one thread, in seconds.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    pub(crate) id: u32,
    pub(crate) run: f64,
}

/// CPU time so far.
pub(crate) fn cpu(root: u32) -> Cpu {
    let mut sum = Cpu::default();
    for process in tree(root) {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let fields: Vec<f64> = after_name(&stat).map(|field| field.parse().unwrap_or(0.0)).collect();
        if let [user, system] = fields.get(11..13).unwrap_or_default() {
            sum.user += user / ticks_per_second();
            sum.system += system / ticks_per_second();
        }
    }
    sum.run = threads(root).iter().map(|thread| thread.run).sum();
    sum
}

/// Every thread of a process and its children.
pub(crate) fn threads(root: u32) -> Vec<Thread> {
    let ids = tree(root).into_iter().flat_map(|process| tasks(process).into_iter().map(move |task| (process, task)));
    let thread = |(process, id): (u32, u32)| {
        let times = fs::read_to_string(format!("/proc/{process}/task/{id}/schedstat")).ok()?;
        let run: f64 = times.split(' ').next()?.parse().ok()?;
        Some(Thread { id, run: run / 1e9 })
    };
    ids.filter_map(thread).collect()
}

/// Resident memory in KiB.
pub(crate) fn resident(root: u32) -> u64 {
    let of = |process: u32| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok()
    };
    tree(root).into_iter().filter_map(of).sum()
}

/// Seconds that the hypervisor gave to others, for cores 0 and 1.
pub(crate) fn steal() -> [f64; 2] {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let of = |core: usize| {
        let line = stat.lines().find(|line| line.starts_with(&format!("cpu{core} ")))?;
        line.split_whitespace().nth(8)?.parse::<f64>().ok()
    };
    [0, 1].map(|core| of(core).unwrap_or(0.0) / ticks_per_second())
}

/// The machine in a line.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let models: Vec<_> = cpus.lines().filter(|line| line.starts_with("model name")).collect();
    let model = models.first().and_then(|line| line.split_once(": ")).map_or("unknown", |(_, model)| model);
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    format!("{} x {model}, Linux {}, load {load}", models.len(), read("/proc/sys/kernel/osrelease").trim())
}

/// A process and all below it.
fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(process) = found.get(at).copied() {
        at += 1;
        for task in tasks(process) {
            let children = fs::read_to_string(format!("/proc/{process}/task/{task}/children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
    }
    found
}

fn tasks(process: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect()
}

/// The fields of a stat line from the third on; the name before them may hold anything.
fn after_name(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace()
}

fn ticks_per_second() -> f64 {
    static TICKS: OnceLock<f64> = OnceLock::new();
    *TICKS.get_or_init(|| {
        let answer = Command::new("getconf").arg("CLK_TCK").output().ok();
        answer.and_then(|answer| String::from_utf8_lossy(&answer.stdout).trim().parse().ok()).unwrap_or(100.0)
    })
}
