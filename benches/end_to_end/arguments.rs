//! The command line of the bench.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::proxies::Proxy;
use crate::workloads::Workload;

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Compare proxies on small GET, browser-like GET, 64 KiB body and 4 KiB POST: three minutes for a first look
    Quick,
    /// Compare proxies on every workload, TLS and HTTP/2 included: half an hour for figures to quote
    Full,
    /// Spread of 2, 4 and 8 busy connections over two workers
    Workers,
    /// Memory of idle keep-alive connections
    Memory,
    /// Memory while large bodies stream past a slow reader
    Streaming,
    /// Reload of 1,000 services under load, and lookup cost
    Services,
}

/// Measures Teal beside other proxies.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench end_to_end --")]
pub(crate) struct Arguments {
    /// What to measure
    pub(crate) mode: Option<Mode>,
    /// Proxies to run [default: what the mode is about]
    #[arg(long, value_delimiter = ',')]
    pub(crate) proxies: Vec<Proxy>,
    /// Workloads to compare on [default: a,b,c,d for `quick`, all for `full`]
    #[arg(long, value_delimiter = ',')]
    pub(crate) workloads: Vec<Workload>,
    /// Rounds (trials for `workers`) [default: 3 for `quick`, 5 for `full`, 10 for `workers`]
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<u32>,
    /// Seconds of each measurement at full load [default: 2 for `quick`, 5 for `full`]
    #[arg(long, value_name = "S")]
    pub(crate) seconds: Option<f64>,
    /// Seconds of each measurement at a fixed rate; 0 leaves them out [default: 1 for `quick`, 3 for `full`]
    #[arg(long, value_name = "S")]
    pub(crate) latency_seconds: Option<f64>,
    /// Client connections; idle ones for `memory` [default: 64; 10000 for `memory`]
    #[arg(long, value_name = "N")]
    pub(crate) connections: Option<u32>,
    /// Size of a streamed body in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub(crate) size: u64,
    /// Another binary than the one that cargo has built for this bench
    #[arg(long, value_name = "FILE")]
    pub(crate) teal: Option<PathBuf>,
    /// A second binary, to compare a change: takes part as `other`
    #[arg(long, value_name = "FILE")]
    pub(crate) other: Option<PathBuf>,
    /// What `cargo bench` adds by itself
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

impl Arguments {
    /// The proxies asked for, or `usual` and the second binary if there is one.
    pub(crate) fn proxies_or(&self, usual: &[Proxy]) -> Vec<Proxy> {
        if !self.proxies.is_empty() {
            return self.proxies.clone();
        }
        let second = self.other.is_some().then_some(Proxy::Other);
        usual.iter().copied().chain(second).collect()
    }
}
