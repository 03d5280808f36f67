//! `teal check FILE`: says what a configuration means, or everything that is wrong with it.
//!
//! Invariant: pure but for reading the file; the caller prints the text and chooses the exit code.

use std::fmt::Write;
use std::path::Path;

use serde_json::json;

use crate::clock;
use crate::config::settings::{Listen, Pool, Service, Settings, State};
use crate::config::{self, Report};

/// How the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people, without colour.
    Plain,
    /// For people at a terminal.
    Colour,
    /// `{ok, file, problems: [{code, message, line, column, label, help}], omitted, warnings}`; the last two only where
    /// the file is bad or good.
    Json,
}

/// Checks the file at `path`: the text to print, which ends in a line break, and whether the file is good.
pub fn check(path: &Path, environment: &dyn Fn(&str) -> Option<String>, format: Format) -> (String, bool) {
    let result = config::load(path, environment);
    let ok = result.is_ok();
    let text = match (result, format) {
        (Ok(settings), Format::Plain | Format::Colour) => {
            let warnings: String = warnings(&settings).map(|warning| format!("warning: {warning}\n")).collect();
            format!("{}: ok\n{}{warnings}", path.display(), summary(&settings))
        }
        (Ok(settings), Format::Json) => {
            let warnings: Vec<_> = warnings(&settings).collect();
            let file = path.display().to_string();
            format!("{:#}\n", json!({ "ok": true, "file": file, "problems": [], "warnings": warnings }))
        }
        (Err(report), Format::Json) => format!("{:#}\n", problems(&report)),
        (Err(report), _) => report.render(format == Format::Colour),
    };
    (text, ok)
}

fn problems(report: &Report) -> serde_json::Value {
    let problem = |located: config::Located<'_>| {
        json!({
            "code": located.problem.code,
            "message": located.problem.message,
            "line": located.line,
            "column": located.column,
            "label": located.problem.label,
            "help": located.problem.help,
        })
    };
    let problems: Vec<_> = report.problems().map(problem).collect();
    json!({ "ok": false, "file": report.name(), "problems": problems, "omitted": report.omitted() })
}

/// What is legal and still worth a look, as of now.
fn warnings(settings: &Settings) -> impl Iterator<Item = String> {
    let now = i64::try_from(clock::wall_millis() / 1_000).unwrap_or(i64::MAX);
    settings.identities().filter_map(move |identity| identity.worry(now))
}

/// What the settings mean, in a few lines.
pub fn summary(settings: &Settings) -> String {
    let listen: Vec<_> = settings.listen.iter().map(listener).collect();
    let admin = match &settings.admin {
        None => "off".to_owned(),
        Some(admin) if admin.token.is_some() => format!("{} (token)", admin.listen),
        Some(admin) => admin.listen.to_string(),
    };
    let state = match &settings.state {
        State::Folder(folder) => folder.display().to_string(),
        State::Ephemeral => "in memory".to_owned(),
    };
    let mut text = format!("listen   {}\nadmin    {admin}\nstate    {state}\n", listen.join(", "));
    for service in &settings.services {
        let _ = writeln!(text, "service  {} at {}", service.name, claims(service));
        for (index, pool) in service.pools.iter().enumerate() {
            let active = if index == service.active { "  (active)" } else { "" };
            let _ = writeln!(text, "  {:<8} {}{active}", pool.name, endpoints(pool));
        }
    }
    text
}

fn listener(listener: &Listen) -> String {
    match (&listener.tls, listener.redirect_https) {
        (Some(_), _) => format!("{} (TLS)", listener.address),
        (None, Some(port)) => format!("{} (redirects to https at port {port})", listener.address),
        (None, None) => listener.address.to_string(),
    }
}

fn claims(service: &Service) -> String {
    let or = |list: Vec<String>, every: &str| if list.is_empty() { every.to_owned() } else { list.join(", ") };
    let hosts = or(service.hosts.iter().map(ToString::to_string).collect(), "any host");
    format!("{hosts}, {}", or(service.paths.clone(), "every path"))
}

fn endpoints(pool: &Pool) -> String {
    let addresses: Vec<_> = pool.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    addresses.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::tls::forge;

    fn checked(content: &str, format: Format) -> (String, bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("teal.yaml");
        std::fs::write(&path, content).unwrap();
        let (text, ok) = check(&path, &|_| None, format);
        (text.replace(&path.display().to_string(), "teal.yaml"), ok)
    }

    const GOOD: &str = "version: 1\nstate: none\nservices:\n  shop:\n    hosts: [x.org, '*.x.org']\n    pools: { blue: 'http://a:1', green: ['http://b', 'http://[::1]:2'] }\n    active: green\n";

    #[test]
    fn a_good_file_is_summed_up() {
        let (text, ok) = checked(GOOD, Format::Plain);
        assert!(ok);
        let expected = "\
teal.yaml: ok
listen   0.0.0.0:8080
admin    127.0.0.1:9900
state    in memory
service  shop at x.org, *.x.org, every path
  blue     http://a:1
  green    http://b:80, http://[::1]:2  (active)
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_certificate_about_to_expire_is_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let authority = forge::Authority::new("A");
        authority.issue_expired(&["x.org"]).write(folder.path(), "old");
        let path = folder.path().join("teal.yaml");
        let listen = "listen: [{ address: ':80', redirect_https: true }, { address: ':443', tls: { certificates: { cert: old.crt, key: old.key } } }]\n";
        std::fs::write(&path, format!("{GOOD}{listen}")).unwrap();
        let (text, ok) = check(&path, &|_| None, Format::Plain);
        assert!(ok);
        assert!(text.contains("0.0.0.0:80 (redirects to https at port 443), 0.0.0.0:443 (TLS)\n"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("warning: ") && line.contains("has expired")), "{text}");
        let (text, _) = check(&path, &|_| None, Format::Json);
        assert!(text.contains("has expired"), "{text}");
    }

    #[test]
    fn machines_get_places_and_codes() {
        let (text, ok) =
            checked("version: 2\nstate: none\nservices: { a: { pols: 1, pools: { b: 'http://b' } } }\n", Format::Json);
        assert!(!ok);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["ok"], &value["file"], &value["omitted"]), (&json!(false), &json!("teal.yaml"), &json!(0)));
        let problem = |index: usize| {
            let problem = &value["problems"][index];
            (problem["code"].clone(), problem["line"].clone(), problem["column"].clone())
        };
        assert_eq!(problem(0), (json!("unsupported"), json!(1), json!(10)));
        assert_eq!(problem(1), (json!("unknown_key"), json!(3), json!(18)));
        assert_eq!(
            checked(GOOD, Format::Json).0,
            "{\n  \"file\": \"teal.yaml\",\n  \"ok\": true,\n  \"problems\": [],\n  \"warnings\": []\n}\n"
        );
    }

    #[test]
    fn colour_is_only_on_request() {
        let plain = checked("version: [1]", Format::Plain).0;
        let colour = checked("version: [1]", Format::Colour).0;
        assert!(plain.starts_with("error[") && !plain.contains('\u{1b}'));
        assert!(colour.contains('\u{1b}'));
    }
}
