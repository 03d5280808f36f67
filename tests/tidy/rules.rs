//! The rules as scanners: each takes sources and gives what breaks it. What is allowed comes in as tables.
//!
//! Invariant: a scanner never looks into comments or strings for code, so that prose may name what is forbidden.

use crate::source::{Breach, Source};

/// Lines a file may have.
pub(crate) const FILE_LINES: usize = 600;
/// Lines a function may have.
pub(crate) const FUNCTION_LINES: usize = 100;

/// A module of the top level, and what it may name of the others.
pub(crate) type Allowed<'a> = (&'a str, &'a [&'a str]);

/// Who may import what.
pub(crate) fn imports(files: &[Source], table: &[Allowed<'_>]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for file in files {
        let Some(module) = file.top_module() else { continue };
        let Some((_, allowed)) = table.iter().find(|(known, _)| *known == module) else {
            breaches.push(file.breach(0, "imports", format!("`{module}` is not in the table of tests/tidy.rs")));
            continue;
        };
        for (at, path) in crate_paths(file, table) {
            let within = |parent: &str| path == parent || path.starts_with(&format!("{parent}::"));
            let head = path.split("::").next().unwrap_or(&path);
            let is_module = table.iter().any(|(known, _)| *known == head);
            if is_module && head != module && !allowed.iter().any(|parent| within(parent)) {
                breaches.push(file.breach(at, "imports", format!("`{module}` may not use `{path}`")));
            }
        }
    }
    breaches
}

/// Every path from the crate's root, however it is written: `crate::a`, `crate::{a, b::c}`, `super::super::a`.
fn crate_paths(file: &Source, table: &[Allowed<'_>]) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for root in ["crate::", "teal::"] {
        for at in file.words(root) {
            paths.extend(targets(&file.code[at + root.len()..]).into_iter().map(|path| (at, path)));
        }
    }
    let mut past = 0;
    for at in file.words("super::").collect::<Vec<_>>() {
        if at < past {
            continue;
        }
        let chain = file.code[at..].split("super::").take_while(|between| between.trim().is_empty()).count();
        past = at + chain.max(1) * "super::".len();
        if chain < file.depth() {
            continue;
        }
        let reached = targets(&file.code[past..]).into_iter();
        let named = |path: &String| table.iter().any(|(known, _)| path.split("::").next() == Some(known));
        paths.extend(reached.filter(named).map(|path| (at, path)));
    }
    paths
}

/// The paths that begin at the start of `text`: `a::b`, `{a, b::{c, d}}`.
fn targets(text: &str) -> Vec<String> {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        return items(group).into_iter().flat_map(targets).collect();
    }
    let length = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(length);
    match rest.strip_prefix("::").map(targets) {
        _ if name.is_empty() => Vec::new(),
        Some(inner) if !inner.is_empty() => inner
            .into_iter()
            .map(|path| if path == "self" { name.to_owned() } else { format!("{name}::{path}") })
            .collect(),
        _ => vec![name.to_owned()],
    }
}

/// The items of a group up to its closing brace.
fn items(group: &str) -> Vec<&str> {
    let (mut depth, mut from, mut items) = (0_u32, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' if depth == 0 => {
                items.push(&group[from..at]);
                from = at + 1;
            }
            '}' if depth == 0 => {
                items.push(&group[from..at]);
                break;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    items
}

/// `domain` decides and does nothing else: none of the `impure` words, no crate but the `pure` ones.
pub(crate) fn purity(files: &[Source], crates: &[String], pure: &[&str], impure: &[&str]) -> Vec<Breach> {
    let foreign: Vec<_> = crates.iter().filter(|name| !pure.contains(&name.as_str())).collect();
    let words = foreign.iter().map(|name| format!("{name}::")).chain(impure.iter().map(|word| (*word).to_owned()));
    let words: Vec<_> = words.collect();
    let domain = files.iter().filter(|file| file.top_module() == Some("domain"));
    let found = |file| found(file, &words, false, "domain is pure");
    domain.flat_map(found).collect()
}

/// serde only in the listed border files, and each of them uses it.
pub(crate) fn serde(files: &[Source], borders: &[(&str, &str)]) -> Vec<Breach> {
    let words = ["serde", "serde_json"].map(str::to_owned);
    let mut breaches = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("src/")) {
        let listed = borders.iter().any(|(path, _)| *path == file.path);
        let uses = found(file, &words, false, "serde outside the border files");
        match listed {
            true if uses.is_empty() => breaches.push(file.breach(0, "border files", "listed, but without serde")),
            true => {}
            false => breaches.extend(uses),
        }
    }
    breaches
}

/// Time is read in `clock.rs` only.
pub(crate) fn clock(files: &[Source]) -> Vec<Breach> {
    let words = ["Instant::now", "SystemTime::now", "UNIX_EPOCH.elapsed", ".elapsed()"].map(str::to_owned);
    let outside = files.iter().filter(|file| file.path.starts_with("src/") && file.path != "src/clock.rs");
    let mut breaches = Vec::new();
    for file in outside {
        // A type of ours may have an `elapsed` of its own, made from `clock::now`.
        let own = |at: usize| file.code[..at].ends_with("self") && file.words("fn elapsed").next().is_some();
        for word in &words {
            let uses = file.words(word).filter(|at| !(word.starts_with('.') && own(*at)));
            breaches.extend(uses.map(|at| file.breach(at, "time outside clock.rs", word.as_str())));
        }
    }
    breaches
}

/// Every file says what it is before anything else.
pub(crate) fn headers(files: &[Source]) -> Vec<Breach> {
    let silent = files.iter().filter(|file| !file.text.starts_with("//! "));
    silent.map(|file| file.breach(0, "header", "the file does not open with `//!`")).collect()
}

/// No file and no function is too long to read.
pub(crate) fn sizes(files: &[Source]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for file in files {
        let lines = file.text.lines().count();
        if lines > FILE_LINES {
            breaches.push(file.breach(file.text.len(), "size", format!("{lines} lines, {FILE_LINES} are allowed")));
        }
        for (name, at, lines) in file.functions().into_iter().filter(|(_, _, lines)| *lines > FUNCTION_LINES) {
            let detail = format!("`{name}` has {lines} lines, {FUNCTION_LINES} are allowed");
            breaches.push(file.breach(at, "size", detail));
        }
    }
    breaches
}

/// `unsafe` only where it is listed with a reason.
pub(crate) fn unsafety(files: &[Source], allowed: &[(&str, &str)]) -> Vec<Breach> {
    let words = ["unsafe", "unsafe_code"].map(str::to_owned);
    let others = files.iter().filter(|file| !allowed.iter().any(|(path, _)| *path == file.path));
    others.flat_map(|file| found(file, &words, true, "unsafe is not listed here")).collect()
}

/// Nothing half done, nothing left out, no test that waits for luck.
pub(crate) fn leftovers(files: &[Source]) -> Vec<Breach> {
    let words = ["todo!", "unimplemented!", "dbg!", "#[ignore"].map(str::to_owned);
    let mut breaches: Vec<_> = files.iter().flat_map(|file| found(file, &words, true, "left over")).collect();
    for file in files {
        // `pace` is the one place of each: a wait that is played, never one for luck.
        let paced = file.path.ends_with("support/mod.rs");
        let sleeps = file.words("thread::sleep").filter(|at| !paced && file.is_test_at(*at));
        breaches.extend(sleeps.map(|at| file.breach(at, "a test sleeps", "thread::sleep")));
    }
    breaches
}

/// Metrics are named in one file only; `others` are texts that look alike, each with what it is.
pub(crate) fn metric_names(files: &[Source], names: &str, others: &[(&str, &str, &str)]) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("src/") && file.path != names) {
        for (at, text) in file.strings.iter().filter(|(at, _)| !file.is_test_at(*at)) {
            let known = others.iter().any(|(path, known, _)| *path == file.path && known == text);
            if text.starts_with("teal_") && !known {
                breaches.push(file.breach(*at, "metric names", format!("\"{text}\" belongs into {names}")));
            }
        }
    }
    breaches
}

/// Names in the metrics file that nobody exports.
pub(crate) fn unused_metrics(files: &[Source], names: &str) -> Vec<Breach> {
    let Some(file) = files.iter().find(|file| file.path == names) else {
        return vec![Breach { path: names.to_owned(), line: 1, rule: "metric names", detail: "is gone".to_owned() }];
    };
    let metrics = file.strings.iter().filter(|(at, text)| text.starts_with("teal_") && !file.is_test_at(*at));
    let idle = metrics.filter_map(|(at, text)| {
        let constant = file.code[..*at].trim_end().strip_suffix('=')?.split_whitespace().next_back()?;
        let users = files.iter().filter(|user| user.path != names);
        let used = users.into_iter().any(|user| user.words(constant).any(|at| !user.is_test_at(at)));
        (!used).then(|| file.breach(*at, "metric names", format!("{constant} ({text}) is exported nowhere")))
    });
    idle.collect()
}

/// Crates that must not enter the graph.
pub(crate) fn banned_crates(graph: &str, banned: &[&str]) -> Vec<Breach> {
    let found = graph.lines().enumerate().filter_map(|(at, line)| {
        let name = line.split(' ').next().filter(|name| banned.contains(name))?;
        Some(Breach { path: "cargo tree".to_owned(), line: at + 1, rule: "banned crate", detail: name.to_owned() })
    });
    found.collect()
}

/// Entries beside the layout.
pub(crate) fn layout(entries: &[String], allowed: &[&str]) -> Vec<Breach> {
    let strangers = entries.iter().filter(|entry| !allowed.contains(&entry.as_str()));
    let breach = |entry: &String| Breach { path: entry.clone(), line: 1, rule: "layout", detail: "no place".into() };
    strangers.map(breach).collect()
}

/// The dependencies of a manifest, as they are written in code.
pub(crate) fn dependencies(manifest: &str) -> Vec<String> {
    let section = manifest.split("[dependencies]\n").nth(1).and_then(|rest| rest.split("\n[").next());
    let lines = section.unwrap_or_default().lines();
    lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.trim().replace('-', "_")).collect()
}

fn found(file: &Source, words: &[String], in_tests: bool, rule: &'static str) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for word in words {
        let places = file.words(word).filter(|at| in_tests || !file.is_test_at(*at));
        breaches.extend(places.map(|at| file.breach(at, rule, word.as_str())));
    }
    breaches
}
