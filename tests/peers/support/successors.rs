//! Processes that follow each other by `teal upgrade`: nobody's children once the ones before them have ended.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::teal::Teal;
use super::until;

/// Those of one drill; killed by their numbers when dropped.
#[derive(Default)]
pub struct Successors(Vec<u64>);

impl Successors {
    /// Orders an upgrade and waits until the process before has ended; the time from the order to its answer.
    pub fn upgrade(&mut self, teal: &Teal) -> Duration {
        let began = Instant::now();
        let output = teal.cli(&["upgrade", "-o", "json"]);
        let took = began.elapsed();
        assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stderr), teal.log());
        let upgraded: Value = serde_json::from_slice(&output.stdout).unwrap();
        self.0.push(upgraded["process"].as_u64().unwrap());
        let before = upgraded["predecessor"].as_u64().unwrap();
        until("the process before ends by itself", Duration::from_secs(60), || (!is_alive(before)).then_some(()));
        took
    }
}

impl Drop for Successors {
    fn drop(&mut self) {
        for process in self.0.iter().filter(|process| is_alive(**process)) {
            let _ = Command::new("sh").args(["-c", "kill -KILL \"$0\"", &process.to_string()]).status();
        }
    }
}

fn is_alive(process: u64) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}
