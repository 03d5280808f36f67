//! The command line as a user meets it: exit codes, what is said where, JSON that other programs read.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::share_of;
use crate::support::load::{Load, Shape};
use crate::support::nginx::{Nginx, answer};
use crate::support::process::peer;
use crate::support::teal::{Teal, teal};
use crate::support::{free_address, millis};

/// As fast as sixteen connections get their answers, with a breath between.
const LOAD: Shape = Shape { connections: 16, pace: Duration::from_millis(8), reconnects: true };

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Fails unless the exit code is `code`, and one of the texts contains `words`.
fn expect(output: &Output, code: i32, words: &str) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words), "no `{words}` in: {said}");
}

fn shop(folder: &Path, green: &Nginx, blue: &Nginx, steps: &str) -> Teal {
    Teal::shop(folder, &blue.url(), &green.url(), &format!("rollout: {{ steps: [{steps}] }}"), "")
}

#[test]
fn a_release_is_promoted_with_code_0() {
    let folder = tempfile::tempdir().unwrap();
    let (blue, green) = (Nginx::plain(folder.path(), "blue", ""), Nginx::plain(folder.path(), "green", ""));
    let steps = "{weight: 10%}, {pause: 300ms}, {weight: 50%}, {pause: 300ms}";
    let teal = shop(folder.path(), &green, &blue, steps);
    let load = Load::start(teal.listen, LOAD);
    let output = teal.cli(&["deploy", "shop", "--to", "green", "--wait", "--timeout", "30s"]);
    expect(&output, 0, "promoted");
    expect(&teal.cli(&["wait", "shop", "--for", "promoted", "--timeout", "5s"]), 0, "promoted");
    let shop = teal.api().shop().unwrap();
    assert_eq!((share_of(&shop, "green"), shop["active"].as_str()), (100.0, Some("green")));
    let records = load.stop();
    assert!(records.iter().all(|record| record.is_good()), "a request failed during the release");
    println!("cli: promoted with code 0, {} requests, none failed; its last words:\n{}", records.len(), said(&output));
}

#[test]
fn a_bad_release_is_rolled_back_with_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let blue = Nginx::plain(folder.path(), "blue", "");
    let http = "split_clients $arg_id $fails { 30% 1; * 0; }";
    let server = format!(
        "location / {{ if ($fails) {{ return 500; }} {} }}\nlocation = /health {{ return 200; }}",
        answer("green")
    );
    let green = Nginx::start(folder.path(), "green", http, &server);
    let teal = shop(folder.path(), &green, &blue, "{weight: 20%}, {analyze: {dwell: 1m, deadline: 2m}}");
    let load = Load::start(teal.listen, LOAD);
    // The judge learns what the baseline is like before it may compare.
    crate::support::pace(Duration::from_secs(1));
    let begin = Instant::now();
    let output = teal.cli(&["deploy", "shop", "--to", "green", "--wait", "--timeout", "40s"]);
    let took = millis(begin.elapsed());
    expect(&output, 3, "rolled back");
    expect(&teal.cli(&["wait", "shop", "--for", "rolled-back", "--timeout", "5s"]), 0, "rolled back");
    expect(&teal.cli(&["wait", "shop", "--for", "promoted", "--timeout", "5s"]), 3, "rolled back");
    assert_eq!(share_of(&teal.api().shop().unwrap(), "green"), 0.0);
    let failed = load.stop().iter().filter(|record| !record.is_good()).count();
    println!(
        "cli: 30 % of 500s rolled back with code 3, {took:.0} ms after `deploy`, {failed} failed requests:\n{}",
        said(&output)
    );
}

/// Followers know a rollout's end by its event: without the id they notice at their next look, two seconds late.
#[test]
fn the_end_is_told_with_its_rollout() {
    let folder = tempfile::tempdir().unwrap();
    let (blue, green) = (Nginx::plain(folder.path(), "blue", ""), Nginx::plain(folder.path(), "green", ""));
    let teal = shop(folder.path(), &green, &blue, "{weight: 10%}, {pause: 100ms}");
    expect(&teal.cli(&["deploy", "shop", "--to", "green", "--wait", "--timeout", "30s"]), 0, "promoted");
    let url = format!("http://{}/v1/events?after=0", teal.admin);
    // The stream has no end of its own.
    let curl = Command::new(peer("curl", "curl")).args(["-sN", "--max-time", "1", &url]).output().unwrap();
    let events = said(&curl);
    let ended = events.lines().find(|line| line.starts_with("data:") && line.contains("\"kind\":\"ended\""));
    let ended = ended.unwrap_or_else(|| panic!("no end in {events}"));
    assert!(ended.contains("\"rollout\":\"shop-"), "the end of no rollout: {ended}");
}

#[test]
fn waiting_too_long_is_code_4_and_the_wrong_moment_code_5() {
    let folder = tempfile::tempdir().unwrap();
    let (blue, green) = (Nginx::plain(folder.path(), "blue", ""), Nginx::plain(folder.path(), "green", ""));
    let teal = shop(folder.path(), &green, &blue, "{weight: 10%}, {pause: approve}");
    expect(&teal.cli(&["pause", "shop"]), 5, "no rollout");
    let output = teal.cli(&["deploy", "shop", "--to", "green", "--wait", "--timeout", "1s"]);
    expect(&output, 4, "");
    assert_eq!(share_of(&teal.api().shop().unwrap(), "green"), 10.0, "the rollout goes on without its watcher");
    expect(&teal.cli(&["deploy", "shop", "--to", "green"]), 5, "is running");
    expect(&teal.cli(&["weight", "shop", "green=20%"]), 5, "abort or promote");
    expect(&teal.cli(&["wait", "shop", "--for", "promoted", "--timeout", "300ms"]), 4, "");
    expect(&teal.cli(&["abort", "shop", "--reason", "drill"]), 0, "");
    expect(&teal.cli(&["weight", "shop", "green=20%", "--if-epoch", "1"]), 5, "epoch");
    expect(&teal.cli(&["deploy", "shop", "--to", "blue"]), 5, "active already");
    expect(&teal.cli(&["rollback", "shop"]), 0, "blue 100%");
    println!("cli: timeout 4, conflict 5 (running, active, stale epoch, nothing to act on)");
}

#[test]
fn mistakes_are_code_2_and_nobody_there_code_1() {
    let run = |arguments: &[&str]| teal().args(arguments).output().unwrap();
    for arguments in [&["deploy"][..], &["deploy", "shop"], &["weight", "shop", "green=ten"], &["frobnicate"], &[]] {
        expect(&run(arguments), 2, "--help");
    }
    expect(&run(&["deploy", "shop", "--to", "green", "--timeout", "1s"]), 2, "--wait");
    expect(&run(&["weight", "shop", "green=1%", "green=2%"]), 2, "twice");
    let nobody = format!("http://{}", free_address());
    for verb in [&["status"][..], &["reload"], &["rollback", "shop"], &["deploy", "shop", "--to", "green", "--wait"]] {
        expect(&run(&[&["--admin", &nobody], verb].concat()), 1, "is it running?");
    }
    expect(&run(&["run", "-c", "/nowhere/teal.yaml"]), 1, "teal.yaml");
    for arguments in [&["--help"][..], &["--version"], &["deploy", "--help"]] {
        expect(&run(arguments), 0, "teal");
    }
    println!("cli: usage 2, unreachable 1, help 0");
}

#[test]
fn a_bad_file_is_code_1_with_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("teal.yaml");
    std::fs::write(&file, "version: 1\nservices:\n  shop:\n    polls: { blue: http://127.0.0.1:1 }\n").unwrap();
    let path = file.to_str().unwrap();
    for arguments in [&["check", path][..], &["run", "-c", path]] {
        let output = teal().args(arguments).output().unwrap();
        expect(&output, 1, "teal.yaml:4:5");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains('^') && told.contains("polls: { blue") && told.contains("`pools`"), "{told}");
        assert!(output.stdout.is_empty() && !told.contains('\u{1b}'), "{told}");
    }
    let json = teal().args(["check", path, "-o", "json"]).output().unwrap();
    assert_eq!(json.status.code(), Some(1));
    assert!(read_by_python(&json.stdout).contains("\"line\": 4"), "{}", said(&json));
    println!("cli: a bad file is code 1 with place and caret, in text and JSON");
}

#[test]
fn json_is_read_by_others() {
    let folder = tempfile::tempdir().unwrap();
    let (blue, green) = (Nginx::plain(folder.path(), "blue", ""), Nginx::plain(folder.path(), "green", ""));
    let teal = shop(folder.path(), &green, &blue, "{weight: 10%}, {pause: approve}");
    let deploy = ["deploy", "shop", "--to", "green", "-o", "json"];
    let orders: [&[&str]; 6] = [
        &["status", "-o", "json"],
        &["weight", "shop", "green=7%", "-o", "json"],
        &["status", "shop", "-o", "json"],
        &["reload", "-o", "json"],
        &["rollback", "shop", "-o", "json"],
        &deploy,
    ];
    for order in orders {
        let output = teal.cli(order);
        assert_eq!(output.status.code(), Some(0), "{order:?}: {}", said(&output));
        read_by_python(&output.stdout);
    }
    let refused = teal.cli(&deploy);
    assert_eq!(refused.status.code(), Some(5));
    let problem = if refused.stdout.is_empty() { &refused.stderr } else { &refused.stdout };
    assert!(read_by_python(problem).contains("conflict"), "{}", said(&refused));
    println!("cli: python3 -m json.tool reads {} answers and a refusal", orders.len());
}

/// The same JSON as Python prints it; fails if Python cannot read it.
fn read_by_python(json: &[u8]) -> String {
    let mut python = Command::new(peer("python3", "python3"))
        .args(["-m", "json.tool"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(json).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{}: {}", said(&output), String::from_utf8_lossy(json));
    String::from_utf8(output.stdout).unwrap()
}
