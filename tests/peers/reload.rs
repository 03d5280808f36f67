//! Reloading under load from wrk: by signal, by command and by a changed file; nothing fails, nothing is forgotten.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::client::{Client, share_of};
use crate::support::nginx::Nginx;
use crate::support::process::{Process, peer};
use crate::support::teal::Teal;
use crate::support::{pick, until};

const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn nothing_fails_while_the_file_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (blue, green) = (Nginx::plain(folder.path(), "blue", ""), Nginx::plain(folder.path(), "green", ""));
    let mut teal = Teal::shop(folder.path(), &blue.url(), &green.url(), "guard: observe\noverrides: []", "");
    assert_eq!(teal.api().weigh(30).unwrap().status, 200);
    let original = std::fs::read_to_string(&teal.file).unwrap();
    let out = folder.path().join("wrk.txt");
    let mut wrk = wrk(&out, 32, &teal);

    // The file is different each time, so that each way must bring a new table.
    let mut ways = [0; 3];
    for round in 0..pick(6, 24) {
        let before = version(&teal);
        let rule =
            format!("overrides: [{{ name: r{round}, match: {{ header: {{ x-round: '{round}' }} }}, pool: green }}]");
        let text = original.replace("overrides: []", &rule);
        ways[round % 3] += 1;
        match round % 3 {
            0 => {
                replace(&teal.file, &text);
                teal.process().signal("HUP");
            }
            1 => {
                replace(&teal.file, &text);
                let output = teal.cli(&["reload"]);
                assert_eq!(output.status.code(), Some(0), "{output:?}");
            }
            _ => replace(&teal.file, &text),
        }
        until("the new file is in force", LIMIT, || (version(&teal) > before).then_some(()));
        until("the new rule is in force", LIMIT, || is_green(&teal, round).then_some(()));
        assert_eq!(share_of(&teal.api().shop().unwrap(), "green"), 30.0, "a weight set by hand is lost");
    }
    assert!(wrk.ended().is_none(), "the load ended before the reloads");
    wrk.signal("INT");
    assert!(wrk.wait(Duration::from_secs(10)).success());
    let text = std::fs::read_to_string(&out).unwrap();
    let failed = count(&text, "Non-2xx or 3xx responses: ");
    let errors = text.lines().find(|line| line.contains("Socket errors"));
    println!(
        "reload: {} by SIGHUP, {} by command, {} by the file alone, under {} requests ({}/s) of wrk: Non-2xx {failed}, {}",
        ways[0],
        ways[1],
        ways[2],
        text.lines().find_map(|line| line.trim().split_once(" requests in")).map_or("?", |(count, _)| count),
        count(&text, "Requests/sec:"),
        errors.map_or("Socket errors 0", str::trim),
    );
    assert!(text.contains("Requests/sec"), "{text}");
    assert_eq!((failed, errors), (0, None), "{text}");
}

#[test]
fn a_bad_file_is_pointed_at_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let blue = Nginx::plain(folder.path(), "blue", "");
    let mut teal = Teal::shop(folder.path(), &blue.url(), &blue.url(), "overrides: []", "");
    assert_eq!(teal.api().weigh(30).unwrap().status, 200);
    let (good, before) = (std::fs::read_to_string(&teal.file).unwrap(), version(&teal));
    let bad = good.replace("    overrides: []", "    overides: []");
    let line = 1 + good.lines().position(|line| line.contains("overrides: []")).unwrap();
    std::fs::write(&teal.file, bad).unwrap();
    teal.process().signal("HUP");
    let output = teal.cli(&["reload"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let place = format!("teal.yaml:{line}:5");
    assert!(said.contains(&place) && said.contains('^') && said.contains("overrides"), "no {place} in: {said}");
    let shop = teal.api().shop().unwrap();
    assert_eq!((version(&teal), share_of(&shop, "green")), (before, 30.0));
    assert_eq!(Client::connect(teal.listen).unwrap().get("/?id=0").unwrap().status, 200);
    println!("reload: a bad file is refused with {place}, exit code 1; table and weights stay");
}

/// A log beside the file changes all the time; that must not keep a changed file from being seen.
#[test]
fn a_busy_log_beside_the_file_does_not_hide_its_change() {
    let folder = tempfile::tempdir().unwrap();
    let blue = Nginx::plain(folder.path(), "blue", "");
    let teal = Teal::shop(folder.path(), &blue.url(), &blue.url(), "guard: observe", "access_log: access.log");
    let before = version(&teal);
    let mut wrk = wrk(&folder.path().join("wrk.txt"), 2, &teal);
    crate::support::pace(Duration::from_millis(300));
    let good = std::fs::read_to_string(&teal.file).unwrap();
    replace(&teal.file, &good.replace("guard: observe", "guard: hold"));
    until("the changed file is read while the log is written", LIMIT, || (version(&teal) > before).then_some(()));
    assert!(wrk.ended().is_none(), "the load ended early");
}

/// Starts wrk, for a minute or until SIGINT; its report goes to `out`.
fn wrk(out: &Path, connections: u32, teal: &Teal) -> Process {
    let mut command = Command::new(peer("wrk", "wrk"));
    command.args(["-t1", &format!("-c{connections}"), "-d60s"]);
    command.arg(format!("http://{}/?id=0", teal.listen));
    Process::start(command.stdin(Stdio::null()).stdout(File::create(out).unwrap()))
}

/// As editors and deployments do it: a new file takes the old one's name.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, file).unwrap();
}

fn version(teal: &Teal) -> u64 {
    teal.api().ask("GET", "/v1", &Value::Null).unwrap().json()["table_version"].as_u64().unwrap()
}

fn is_green(teal: &Teal, round: usize) -> bool {
    let answer = Client::connect(teal.listen).unwrap().send("GET", "/?id=0", &format!("x-round: {round}\r\n"), b"");
    answer.unwrap().text().starts_with("green ")
}

/// The number after `label`; zero if wrk does not say it, as it does when there is nothing to say.
fn count(text: &str, label: &str) -> u64 {
    let found = text.lines().find_map(|line| line.trim().strip_prefix(label));
    found.map_or(0, |number| number.trim().parse::<f64>().unwrap() as u64)
}
