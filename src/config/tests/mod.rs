//! Tests of the whole reader: the examples, the reference, every problem in one run, exact reports, and garbage.

mod bad;
mod balancing;
mod breaking;
mod edge;
mod endpoints;
mod garbage;
mod good;
mod intakes;
mod reports;
mod routing;
mod the_reference;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;

use super::settings::{AccessLog, Listen, Probe, Service, Settings, SplitBy, State, Sticky};
use super::tls::forge;
use super::yaml::{Kind, Node};
use super::{
    Report, conditions, edits, file, intake, load, overrides, parse as parse_in, rollout, routes, service, targets,
    yaml,
};
use crate::domain::rollout::plan::{OnInconclusive, Pause, Plan, Step};
use crate::domain::route::{Claim, Condition, Router, Test};
use crate::domain::split::Share;

fn environment(name: &str) -> Option<String> {
    match name {
        "HOME" => Some("/home/user".to_owned()),
        "PORT" => Some("81".to_owned()),
        "TOKEN" => Some("s3cret-value".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Settings, Report> {
    parse_in("teal.yaml", text, &environment, Path::new("/etc/teal"))
}

/// A good file whose service holds `lines` besides its pools.
fn with(lines: &str) -> String {
    format!("version: 1\nservices:\n  shop:\n    pools: {{ blue: 'http://a', green: 'http://b' }}\n    {lines}\n")
}

fn shop(lines: &str) -> Service {
    parse(&with(lines)).unwrap_or_else(|report| panic!("{lines}\n{report}")).services.remove(0)
}

/// The codes and lines of everything wrong with a text.
fn codes(text: &str) -> Vec<(&'static str, usize)> {
    let report = parse(text).expect_err(text);
    report.problems().map(|located| (located.problem.code, located.line)).collect()
}

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 5, "{files:?}");
    files
}

fn reference() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.yaml")).unwrap()
}

/// A folder with the files that examples name, for as long as the tests run.
fn certificates() -> &'static Path {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let folder = tempfile::tempdir().unwrap();
        forge::examples(folder.path());
        folder
    });
    FOLDER.path()
}
