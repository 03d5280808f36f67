//! The house rules as tests: what reviews would otherwise have to remember.
//!
//! The tables say what is allowed and why; the scanners in `tidy/rules.rs` find what is not; `tidy/proof.rs` shows
//! every scanner something bad, so that no rule passes because it looks at nothing.
//!
//! Invariant: a rule has no exception but those in the tables, each with its reason.

#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/proof.rs"]
mod proof;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/source.rs"]
mod source;

use std::fs;
use std::process::Command;

use rules::Allowed;
use source::{Breach, sources, top};

/// Who may import what. The planes meet on the bridge; only what composes them knows both.
const IMPORTS: &[Allowed<'_>] = &[
    ("lib", &[]),
    ("clock", &[]),
    ("domain", &[]),
    ("config", &["domain"]),
    ("telemetry", &["domain", "clock", "config::settings"]),
    ("bridge", &["domain", "telemetry", "config::settings"]),
    ("proxy", &["bridge", "domain", "telemetry", "clock", "config::settings"]),
    ("control", &["bridge", "domain", "telemetry", "clock", "config"]),
    ("app", &["bridge", "domain", "telemetry", "clock", "config", "control", "proxy"]),
    // The demo reads the plane it shows; it decides nothing about it.
    ("demo", &["app", "bridge", "domain", "telemetry", "clock", "config", "control"]),
    // The command line speaks the admin API's own types, and nothing else of the control plane.
    ("cli", &["app", "demo", "domain", "telemetry", "clock", "config", "control::admin"]),
    ("main", &["cli"]),
];

/// Crates that decide nothing and do nothing.
const PURE_CRATES: &[&str] = &["thiserror", "humantime", "ipnet", "regex"];

/// What a decision has no use for.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "std::process",
    "std::thread",
    "Instant",
    "SystemTime",
    "Mutex",
    "RwLock",
    "TcpStream",
    "UdpSocket",
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
];

/// Where values meet a format.
const BORDERS: &[(&str, &str)] = &[
    ("src/cli/check.rs", "the report of `teal check` as JSON"),
    ("src/cli/client.rs", "the bodies of the admin API, seen from the command line"),
    ("src/cli/output.rs", "what `-o json` prints"),
    ("src/control/admin/stream.rs", "events as the data of server-sent events"),
    ("src/control/admin/wire.rs", "the bodies of the admin API"),
    ("src/control/admin/wire/breaker.rs", "breakers and limits in them"),
    ("src/control/admin/wire/body.rs", "bodies of requests, from bytes"),
    ("src/control/admin/wire/endpoints.rs", "endpoints and their orders in the admin API"),
    ("src/control/admin/wire/streams.rs", "long streams in the admin API"),
    ("src/control/admin/wire/upgrade.rs", "the answer to an upgrade"),
    ("src/control/admin/wire/faults.rs", "faults to inject, and those that are"),
    ("src/control/admin/wire/intake.rs", "limits and what they refused"),
    ("src/control/ledger/record.rs", "the judge's evidence on disk"),
    ("src/control/store/record.rs", "the state of services on disk"),
    ("src/control/probe/report.rs", "what an endpoint reports of itself, as JSON"),
    ("src/demo/summary.rs", "the demo's figures as JSON"),
    ("src/telemetry/access_log.rs", "the access log's lines"),
];

/// Files with `unsafe`.
const UNSAFE: &[(&str, &str)] =
    &[("benches/micro/allocations.rs", "a global allocator is an unsafe trait; this one counts and passes on")];

/// The one file with names of metrics.
const NAMES: &str = "src/telemetry/names.rs";

/// Texts that look like metrics.
const NO_METRICS: &[(&str, &str, &str)] = &[("src/control/store/file.rs", "teal_meta", "a table of the store")];

/// TLS will have one provider, and that is neither of these.
const BANNED_CRATES: &[&str] = &["ring", "openssl", "openssl-sys", "native-tls"];

/// The top level.
const LAYOUT: &[&str] = &[
    ".ci",
    ".clippy.toml",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "benches",
    "config",
    "deploy",
    "src",
    "tests",
];

fn hold(breaches: Vec<Breach>) {
    let list: Vec<_> = breaches.iter().map(ToString::to_string).collect();
    assert!(list.is_empty(), "{} broken:\n{}", list.len(), list.join("\n"));
}

fn read(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn modules_import_only_what_they_may() {
    hold(rules::imports(&sources(), IMPORTS));
}

#[test]
fn the_domain_is_pure() {
    let crates = rules::dependencies(&read("Cargo.toml"));
    assert!(crates.iter().any(|name| name == "tokio"), "the manifest was not understood: {crates:?}");
    hold(rules::purity(&sources(), &crates, PURE_CRATES, IMPURE));
}

#[test]
fn serde_stays_at_the_borders() {
    hold(rules::serde(&sources(), BORDERS));
}

#[test]
fn only_the_clock_reads_time() {
    hold(rules::clock(&sources()));
}

#[test]
fn every_file_says_what_it_is() {
    hold(rules::headers(&sources()));
}

#[test]
fn files_and_functions_are_short() {
    hold(rules::sizes(&sources()));
}

#[test]
fn unsafe_is_denied() {
    hold(rules::unsafety(&sources(), UNSAFE));
    assert!(read("Cargo.toml").lines().any(|line| line == "unsafe_code = \"deny\""), "Cargo.toml: unsafe_code");
}

#[test]
fn nothing_is_left_over() {
    hold(rules::leftovers(&sources()));
}

#[test]
fn metrics_are_named_in_one_place_and_exported() {
    let files = sources();
    hold(rules::metric_names(&files, NAMES, NO_METRICS));
    hold(rules::unused_metrics(&files, NAMES));
}

#[test]
fn banned_crates_stay_out() {
    hold(rules::banned_crates(&graph(), BANNED_CRATES));
}

/// What is really built here, one crate a line: the lock file also lists what no feature or other systems ask for, and
/// of those a fresh machine has nothing to look at.
fn graph() -> String {
    let arguments = ["tree", "--locked", "--offline", "--edges", "all", "--prefix", "none"];
    let listed = Command::new(env!("CARGO")).current_dir(top()).args(arguments).output().expect("cargo runs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8(listed.stdout).expect("crate names are text")
}

#[test]
fn the_top_level_is_the_layout() {
    hold(rules::layout(&entries(), LAYOUT));
}

/// What is at the top: what is under version control, or, outside of it, what is not hidden.
fn entries() -> Vec<String> {
    let listed = Command::new("git").current_dir(top()).args(["ls-tree", "--name-only", "HEAD"]).output();
    match listed {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
        }
        _ => {
            let found = fs::read_dir(top()).expect("the top is readable");
            let names = found.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned());
            names.filter(|name| !name.starts_with('.') && name != "target").collect()
        }
    }
}
