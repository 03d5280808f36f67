//! The scanners are shown what is bad and what only looks so.

use crate::rules::{self, Allowed};
use crate::source::{Breach, Source, mark_test_files};

const TABLE: &[Allowed<'_>] = &[
    ("lib", &[]),
    ("proxy", &["bridge", "config::settings"]),
    ("control", &["bridge", "config"]),
    ("bridge", &[]),
    ("config", &[]),
    ("app", &["proxy", "control"]),
];

fn file(path: &str, text: &str) -> Vec<Source> {
    vec![Source::new(path, text)]
}

/// `line: detail` of every breach.
fn told(breaches: &[Breach]) -> Vec<String> {
    breaches.iter().map(|breach| format!("{}: {}", breach.line, breach.detail)).collect()
}

#[test]
fn code_is_told_from_comments_and_text() {
    let text = "// unsafe\n/* a /* unsafe */ b */ let a = \"unsafe \\\" x\"; let b = r#\"unsafe \" y\"#;\n\
                let c = '\"'; let d = '\\''; fn e<'a>(x: &'a str) { unsafe { x } } let f = b\"unsafe\";";
    let source = Source::new("src/x.rs", text);
    assert_eq!(source.code.len(), text.len());
    let places: Vec<_> = source.words("unsafe").map(|at| source.line(at)).collect();
    assert_eq!(places, [3]);
    let strings: Vec<_> = source.strings.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(strings, ["unsafe \\\" x", "unsafe \" y", "unsafe"]);
}

#[test]
fn forbidden_imports_are_found_however_they_are_written() {
    let bad = [
        ("src/proxy/a.rs", "use crate::control::x;", "1: `proxy` may not use `control::x`"),
        ("src/proxy/a.rs", "\nfn f() { crate::app::run() }", "2: `proxy` may not use `app::run`"),
        ("src/proxy/a.rs", "use crate::{bridge::x, control};", "1: `proxy` may not use `control`"),
        ("src/proxy/a.rs", "use crate::config::{self, settings};", "1: `proxy` may not use `config`"),
        ("src/proxy/a.rs", "use super::super::control::x;", "1: `proxy` may not use `control::x`"),
        ("src/proxy/mod.rs", "use super::control::x;", "1: `proxy` may not use `control::x`"),
        ("src/control/a/b.rs", "use crate::proxy::y;", "1: `control` may not use `proxy::y`"),
        ("src/bridge/mod.rs", "use teal::app::Running;", "1: `bridge` may not use `app::Running`"),
        ("src/new.rs", "", "1: `new` is not in the table of tests/tidy.rs"),
    ];
    for (path, text, expected) in bad {
        assert_eq!(told(&rules::imports(&file(path, text), TABLE)), [expected], "{path}: {text}");
    }
    let good = [
        ("src/proxy/a.rs", "use crate::bridge::{x, y}; use crate::proxy::control; use super::control::x;"),
        ("src/proxy/a.rs", "// crate::control\nuse crate::config::settings::{self, Z};"),
        ("src/app.rs", "use crate::{control::a, proxy};"),
        ("tests/it/main.rs", "use teal::app::run;"),
    ];
    for (path, text) in good {
        assert_eq!(told(&rules::imports(&file(path, text), TABLE)), [""; 0], "{path}: {text}");
    }
}

#[test]
fn impure_words_are_found_outside_tests_only() {
    let crates =
        rules::dependencies("[dependencies]\ntokio = \"1\"\nhyper-util = { version = \"0.1\" }\n\n[lints]\na = 1\n");
    assert_eq!(crates, ["tokio", "hyper_util"]);
    let text = "use tokio::time;\nuse thiserror::Error;\nfn f() { std::fs::read(x); }\n\
                #[cfg(test)]\nmod tests { use tokio::test; }\n";
    let breaches = rules::purity(&file("src/domain/a.rs", text), &crates, &["thiserror"], &["std::fs"]);
    assert_eq!(told(&breaches), ["1: tokio::", "3: std::fs"]);
    assert_eq!(rules::purity(&file("src/proxy/a.rs", text), &crates, &[], &["std::fs"]), []);
}

#[test]
fn serde_is_found_outside_its_borders() {
    let borders = [("src/a.rs", "why")];
    let text = "//! x\nuse serde::Serialize;\nfn f() { serde_json::to_vec(x) }";
    assert_eq!(told(&rules::serde(&file("src/b.rs", text), &borders)), ["2: serde", "3: serde_json"]);
    assert_eq!(rules::serde(&file("src/a.rs", text), &borders), []);
    assert_eq!(told(&rules::serde(&file("src/a.rs", "//! serde"), &borders)), ["1: listed, but without serde"]);
}

#[test]
fn readings_of_time_are_found() {
    let text = "let a = Instant::now();\nlet b = std::time::SystemTime::now;\na.elapsed();\n// Instant::now()";
    let breaches = rules::clock(&file("src/a.rs", text));
    assert_eq!(told(&breaches), ["1: Instant::now", "2: SystemTime::now", "3: .elapsed()"]);
    assert_eq!(rules::clock(&file("src/clock.rs", text)), []);
    let own = "impl A { fn elapsed(&self) -> u64 { 1 } fn b(&self) { self.elapsed(); } }";
    assert_eq!(rules::clock(&file("src/a.rs", own)), []);
    assert_eq!(rules::clock(&file("src/a.rs", "fn b(&self) { self.elapsed(); }")).len(), 1);
}

#[test]
fn silent_files_are_found() {
    assert_eq!(rules::headers(&file("src/a.rs", "// a\n")).len(), 1);
    assert_eq!(rules::headers(&file("tests/a.rs", "use x;\n//! late\n")).len(), 1);
    assert_eq!(rules::headers(&file("src/a.rs", "//! a\n")), []);
}

#[test]
fn long_files_and_functions_are_found() {
    let long = |lines: usize| {
        format!("//! a\nfn a<'x>(b: [u8; 2]) -> X {{\n{}}}\nfn c() {{}}\n", "    x(\"{\");\n".repeat(lines))
    };
    assert_eq!(rules::sizes(&file("src/a.rs", &long(98))), []);
    let breaches = rules::sizes(&file("src/a.rs", &long(99)));
    assert_eq!(told(&breaches), ["2: `a` has 101 lines, 100 are allowed"]);
    assert_eq!(rules::sizes(&file("tests/a.rs", &"// x\n".repeat(600))), []);
    assert_eq!(rules::sizes(&file("tests/a.rs", &"// x\n".repeat(601))).len(), 1);
}

#[test]
fn unsafe_and_leftovers_are_found_in_tests_too() {
    let text = "#![allow(unsafe_code)]\nfn f() { unsafe { x } }\n";
    assert_eq!(told(&rules::unsafety(&file("tests/a.rs", text), &[])), ["2: unsafe", "1: unsafe_code"]);
    assert_eq!(rules::unsafety(&file("tests/a.rs", text), &[("tests/a.rs", "why")]), []);
    let text = "fn f() { todo!() }\nfn g() { unimplemented!(); dbg!(1); }\n#[ignore = \"slow\"]\nfn h() {}\n";
    let lines: Vec<_> = rules::leftovers(&file("src/a.rs", text)).iter().map(|breach| breach.line).collect();
    assert_eq!(lines, [1, 2, 2, 3]);
}

#[test]
fn sleeping_tests_are_found() {
    let text = "fn f() { std::thread::sleep(x); }\n#[cfg(test)]\nmod tests {\n    fn g() { thread::sleep(x); }\n}\n";
    assert_eq!(told(&rules::leftovers(&file("src/a.rs", text))), ["4: thread::sleep"]);
    assert_eq!(told(&rules::leftovers(&file("tests/a.rs", text))), ["1: thread::sleep", "4: thread::sleep"]);
    let mut files = file("src/a/mod.rs", "#[cfg(test)]\nmod tests;\nmod other;\n");
    files.extend(["src/a/tests.rs", "src/a/tests/b.rs", "src/a/other.rs"].map(|path| Source::new(path, text)));
    mark_test_files(&mut files);
    let tests: Vec<_> = files.iter().map(|file| file.is_test).collect();
    assert_eq!(tests, [false, true, true, false]);
}

#[test]
fn stray_and_idle_metrics_are_found() {
    let stray = "fn f() { g(\"teal_x_total\", \"teal\"); }\n#[cfg(test)]\nmod tests { const A: &str = \"teal_y\"; }\n";
    let breaches = rules::metric_names(&file("src/a.rs", stray), "src/names.rs", &[]);
    assert_eq!(told(&breaches), ["1: \"teal_x_total\" belongs into src/names.rs"]);
    assert_eq!(rules::metric_names(&file("src/a.rs", stray), "src/names.rs", &[("src/a.rs", "teal_x_total", "")]), []);
    let mut files = file("src/names.rs", "m! {\n    A = \"teal_a\", \"Is a.\";\n    B = \"teal_b\", \"Is b.\";\n}\n");
    files.push(Source::new("src/b.rs", "fn f() { names::A; }"));
    assert_eq!(told(&rules::unused_metrics(&files, "src/names.rs")), ["3: B (teal_b) is exported nowhere"]);
}

#[test]
fn banned_crates_and_strangers_at_the_top_are_found() {
    let graph = "string v1.0.0\nring v0.17.14\nring feature \"std\"\n";
    assert_eq!(told(&rules::banned_crates(graph, &["ring"])), ["2: ring", "3: ring"]);
    assert_eq!(rules::layout(&["src".to_owned(), "notes.txt".to_owned()], &["src"]).len(), 1);
}

#[test]
fn a_breach_names_file_line_and_rule() {
    let breaches = rules::unsafety(&file("src/a.rs", "//! a\nunsafe fn f() {}\n"), &[]);
    assert_eq!(breaches[0].to_string(), "src/a.rs:2: unsafe is not listed here: unsafe");
}
