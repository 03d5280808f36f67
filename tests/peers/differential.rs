//! Differential: whatever Teal passes on is read the same by independent parsers, as one message each.
//!
//! Requests (valid, odd, hostile, mutated) go through a running Teal to an upstream that keeps the exact bytes; hyper,
//! h11, Node and nginx then read those. Answers of hostile upstreams go the other way, to h11, Node and curl. A parser
//! may refuse what another takes, each such case is listed with its reason; none may read something else.
//!
//! `TEAL_SEED` repeats a run; `TEAL_DRILL=full` is the long one.

#[path = "differential/generate.rs"]
mod generate;
#[path = "differential/readers.rs"]
mod readers;
#[path = "../fuzz/targets/second.rs"]
mod second;
#[path = "differential/through.rs"]
mod through;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Instant;

use fastrand::Rng;
use generate::Expected;
use readers::{Hyper, Message, NginxReader, Script, Seen, Server};
use second::{Otherwise, Read};
use through::{Recorder, Sayer};

use crate::support::pick;

/// Where a parser refuses what Teal passes on: its name, a part of what it says, which messages may be meant, and why that
/// harms nobody. To refuse is safe: the client gets the server's 400.
type Refusal = (&'static str, &'static str, fn(&str) -> bool, &'static str);

const REFUSALS: &[Refusal] = &[
    (
        "hyper",
        "Parse(Uri)",
        |head| target(head).contains(['<', '>', '^', '`', '"']),
        "takes no characters in targets that RFC 3986 has no place for; others do",
    ),
    (
        "node",
        "HPE_INVALID_METHOD",
        |head| !KNOWN_TO_NODE.contains(&method(head)),
        "knows a list of methods; methods are an open set (RFC 9110 section 9.1)",
    ),
    ("nginx", "400", |head| target(head) == "*", "serves no `OPTIONS *`"),
    (
        "nginx",
        "400",
        |head| head.contains("\r\nhost: \r\n"),
        "takes no empty Host, which is legal where there is no authority",
    ),
    (
        "nginx",
        "400",
        |head| has_bad_escape(target(head)) || path(target(head)).contains(".."),
        "decodes the path itself, and leaves no way out of it",
    ),
    (
        "nginx",
        "400",
        |head| !method(head).bytes().all(|byte| byte.is_ascii_uppercase() || b"_-".contains(&byte)),
        "takes capital letters as methods only",
    ),
];

const KNOWN_TO_NODE: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "M-SEARCH"];

fn method(head: &str) -> &str {
    head.split(' ').next().unwrap_or_default()
}

fn target(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

fn path(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

/// A `%` without two digits behind it, or one that stands for a NUL.
fn has_bad_escape(target: &str) -> bool {
    let mut parts = path(target).split('%').skip(1);
    parts
        .any(|part| part.len() < 2 || !part.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit) || part.starts_with("00"))
}

/// What a run found.
#[derive(Default)]
struct Report {
    agreed: BTreeMap<&'static str, u64>,
    /// Refusals by parser and reason.
    refused: BTreeMap<(&'static str, &'static str), u64>,
    /// Everything else: what differs, how often, and one example.
    wrong: BTreeMap<String, (u64, String)>,
}

impl Report {
    /// Files what `name` made of a message: `fault` says what differs.
    fn file(&mut self, name: &'static str, bytes: &[u8], seen: &Seen, fault: Option<&str>) {
        let Some(fault) = fault else { return *self.agreed.entry(name).or_default() += 1 };
        // To refuse is to read no message to its end; only then may the list speak.
        let read = seen.messages.iter().any(|message| message.whole && !(100..200).contains(&message.status));
        let said = seen.error.as_deref().filter(|_| !read).unwrap_or_default();
        let head = &bytes[..second::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |end| end + 2)];
        let head = String::from_utf8_lossy(head);
        let may =
            |(by, part, means, _): &&Refusal| *by == name && !said.is_empty() && said.contains(part) && means(&head);
        match REFUSALS.iter().find(may) {
            Some((.., reason)) => *self.refused.entry((name, reason)).or_default() += 1,
            None => {
                let error = seen.error.as_deref().unwrap_or("no error");
                self.wrong(format!("{name}: {fault}: {error}"), format!("{}\n  read {seen:?}", bytes.escape_ascii()));
            }
        }
    }

    fn wrong(&mut self, what: String, example: String) {
        self.wrong.entry(what).or_insert((0, example)).0 += 1;
    }

    /// Prints the figures, and fails if anything is not as listed.
    fn close(self, what: &str, begin: Instant) {
        for (name, count) in &self.agreed {
            println!("differential, {what}: {name} agrees on {count}");
        }
        for ((name, reason), count) in &self.refused {
            println!("differential, {what}: {name} refuses {count}: {reason}");
        }
        let count: u64 = self.wrong.values().map(|(count, _)| count).sum();
        println!("differential, {what}: {count} disagreements, {:.1?}", begin.elapsed());
        let shown = self.wrong.iter().map(|(what, (count, example))| format!("{count} x {what}\n  such as {example}"));
        assert_eq!(count, 0, "{}", shown.collect::<Vec<_>>().join("\n"));
    }
}

fn rng(salt: u64) -> Rng {
    let seed = std::env::var("TEAL_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    println!("differential: TEAL_SEED={seed}");
    Rng::with_seed(seed ^ salt)
}

#[test]
fn what_goes_up_is_one_message_to_every_server() {
    let (folder, begin, mut rng) = (tempfile::tempdir().unwrap(), Instant::now(), rng(0));
    let cases: Vec<_> = (0..pick(600, 120_000)).map(|number| generate::requests(&mut rng, number)).collect();
    let recorder = Recorder::start();
    let recorded = recorder.through_teal(cases.iter().map(|made| made.bytes.clone()).collect());
    let mut report = Report::default();
    let (mut whole, mut cut, mut by_target) = (Vec::new(), Vec::new(), HashMap::<String, Vec<Expected>>::new());
    for bytes in &recorded {
        match second::message(bytes, Otherwise::Empty) {
            Read::Whole(message) if message.length == bytes.len() => {
                let sent = expected(&message);
                by_target.entry(sent.target.clone()).or_default().push(sent);
                whole.push((bytes, message));
            }
            Read::Part => cut.push(bytes),
            other => report.wrong(format!("not one canonical message: {other:?}"), bytes.escape_ascii().to_string()),
        }
    }
    let valid: Vec<_> = cases.iter().flat_map(|made| &made.expected).collect();
    for sent in &valid {
        let arrived = by_target.get(&sent.target).map_or(&[][..], Vec::as_slice);
        if arrived != [(*sent).clone()] {
            report.wrong("arrived otherwise".to_owned(), format!("{sent:?} as {arrived:?}"));
        }
    }
    let smuggled = whole.iter().filter(|(_, message)| message.line.contains("/smuggled")).count();
    println!(
        "differential, requests: {} connections, {} valid requests, {} messages went up, {} cut, {smuggled} second ones served",
        cases.len(),
        valid.len(),
        whole.len(),
        cut.len()
    );
    let unique = unique(whole, |(_, message)| {
        let fields: Vec<_> = message.fields.iter().filter(|(name, _)| name != "x-request-id").cloned().collect();
        (message.line.to_owned(), fields, message.body.clone())
    });
    let mut servers = servers(folder.path());
    for server in &mut servers {
        for (bytes, message) in &unique {
            let seen = server.requests(bytes, true);
            let fault = differs(message, &seen);
            report.file(server.name(), bytes, &seen, fault);
        }
        for bytes in &cut {
            let seen = server.requests(bytes, false);
            let fault = seen.messages.iter().any(|message| message.whole).then_some("a cut message looks whole");
            report.file(server.name(), bytes, &seen, fault);
        }
    }
    report.close("requests", begin);
}

#[test]
fn the_same_bytes_without_teal_are_read_in_several_ways() {
    // Always the same: it says what the cases are worth, not what Teal is.
    let (folder, begin, mut rng) = (tempfile::tempdir().unwrap(), Instant::now(), Rng::with_seed(1));
    let cases: Vec<_> = (0..pick(1_000, 20_000)).map(|number| generate::requests(&mut rng, number)).collect();
    let mut servers = servers(folder.path());
    let (mut differently, mut wrongly) = (0, 0);
    for made in &cases {
        let mut readings = HashSet::new();
        for server in &mut servers {
            let seen = server.requests(&made.bytes, false);
            let whole = seen.messages.into_iter().filter(|message| message.whole);
            readings.insert(whole.map(|message| (message.method, message.target, message.length)).collect::<Vec<_>>());
        }
        // Those that refuse have read less; that alone is no other reading.
        let longest = readings.iter().max_by_key(|reading| reading.len()).cloned().unwrap_or_default();
        differently += u32::from(readings.len() > 1);
        wrongly += u32::from(readings.iter().any(|reading| !longest.starts_with(reading)));
    }
    println!(
        "differential, without Teal: of {} connections {differently} are not read alike by all, {wrongly} in ways that exclude each other, {:.1?}",
        cases.len(),
        begin.elapsed()
    );
    assert!(wrongly > 0, "the cases are too tame to prove anything");
}

fn servers(folder: &Path) -> Vec<Box<dyn Server>> {
    vec![
        Box::new(Hyper::start()),
        Box::new(Script::h11()),
        Box::new(Script::node()),
        Box::new(NginxReader::start(folder)),
    ]
}

/// The second opinion's own reading, as a server's.
fn expected(message: &second::Message<'_>) -> Expected {
    let mut parts = message.line.split(' ').map(str::to_owned);
    let (method, target) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    Expected { method, target, body: message.body.clone() }
}

/// How a server's reading of one whole request differs.
fn differs(message: &second::Message<'_>, seen: &Seen) -> Option<&'static str> {
    let wanted = expected(message);
    let [read] = &seen.messages[..] else { return Some("not one message") };
    let text = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    let fields = |read: &Message| {
        let Some(fields) = &read.fields else { return true };
        let (mut read, mut sent) = (fields.clone(), Vec::new());
        sent.extend(message.fields.iter().map(|(name, value)| (name.clone(), text(value))));
        read.sort();
        sent.sort();
        read == sent
    };
    match () {
        () if seen.error.is_some() => Some("refused"),
        () if !read.whole => Some("no end"),
        () if read.method != wanted.method => Some("another method"),
        () if read.target != wanted.target => Some("another target"),
        () if read.length != wanted.body.len() => Some("another length"),
        () if read.body.as_ref().is_some_and(|body| *body != wanted.body) => Some("another body"),
        () if !fields(read) => Some("other fields"),
        () => None,
    }
}

#[test]
fn what_comes_down_is_one_answer_to_every_client() {
    let (folder, begin, mut rng) = (tempfile::tempdir().unwrap(), Instant::now(), rng(1));
    let method = |rng: &mut Rng| if rng.u32(..6) == 0 { "HEAD" } else { "GET" };
    let cases = (0..pick(600, 60_000)).map(|_| (method(&mut rng).to_owned(), generate::answer(&mut rng)));
    let cases: Vec<_> = cases.collect();
    let came = Sayer::start(cases.iter().map(|(_, bytes)| bytes.clone()).collect()).through_teal(&cases);
    let mut report = Report::default();
    let mut read = Vec::new();
    for ((method, said), bytes) in cases.iter().zip(&came) {
        match answer(method, bytes) {
            Ok(answer) => read.push((method.clone(), bytes.clone(), answer)),
            Err(why) => report.wrong(why, format!("{} became {}", said.escape_ascii(), bytes.escape_ascii())),
        }
    }
    let count = |what: fn(&Message) -> bool| read.iter().filter(|(.., answer)| what(answer)).count();
    println!(
        "differential, answers: {} cases, {} refused by 502, {} cut, {} whole",
        cases.len(),
        count(|answer| answer.status == 502),
        count(|answer| !answer.whole),
        count(|answer| answer.whole && answer.status != 502)
    );
    let unique = unique(read, |(method, bytes, _)| (method.clone(), without_id(bytes)));
    let asked: Vec<_> = unique.iter().map(|(method, bytes, _)| (method.clone(), bytes.clone())).collect();
    let (mut h11, mut node) = (Script::h11(), Script::node());
    let curls = asked.chunks(200).flat_map(|some| readers::curl(folder.path(), some));
    for ((method, bytes, wanted), curl) in unique.iter().zip(curls) {
        for (name, seen) in [("h11", h11.answers(method, bytes)), ("node", node.answers(method, bytes)), ("curl", curl)]
        {
            report.file(name, bytes, &seen, answers_otherwise(wanted, &seen));
        }
    }
    report.close("answers", begin);
}

/// The second opinion's own reading of what came down: interim answers, then one final answer and nothing else.
fn answer(method: &str, mut bytes: &[u8]) -> Result<Message, String> {
    loop {
        let status = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status: u16 =
            status.and_then(|status| std::str::from_utf8(status).ok()?.parse().ok()).ok_or("no status")?;
        let end = second::find(bytes, b"\r\n\r\n").ok_or("half a head")? + 4;
        let bodiless = method == "HEAD" || status < 200 || matches!(status, 204 | 304);
        // The head alone is read where no body may follow, whatever length it speaks of.
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        if bodiless {
            let framed = head.contains("\r\ntransfer-encoding:")
                || (status < 205 && status != 200 && head.contains("\r\ncontent-length:"));
            bytes = &bytes[end..];
            match status {
                _ if framed && method != "HEAD" => return Err("a framing where no body may be".to_owned()),
                ..200 => continue,
                _ if bytes.is_empty() => {
                    return Ok(Message { status, body: Some(Vec::new()), whole: true, ..Message::default() });
                }
                _ => return Err("bytes behind an answer without a body".to_owned()),
            }
        }
        return match second::message(bytes, Otherwise::Empty) {
            Read::Whole(message) if message.length == bytes.len() => {
                let length = message.body.len();
                Ok(Message { status, body: Some(message.body), length, whole: true, ..Message::default() })
            }
            Read::Whole(_) => Err("bytes behind the answer".to_owned()),
            Read::Part => Ok(Message { status, ..Message::default() }),
            Read::Wrong(why) => Err(why),
        };
    }
}

/// How a client's reading of an answer differs.
fn answers_otherwise(wanted: &Message, seen: &Seen) -> Option<&'static str> {
    let finals: Vec<_> = seen.messages.iter().filter(|message| message.status >= 200).collect();
    let [read] = finals[..] else { return Some("not one answer") };
    match () {
        () if read.status != wanted.status => Some("another status"),
        () if read.whole != wanted.whole => Some("whole to one, cut to the other"),
        () if read.rest != 0 => Some("bytes are left"),
        () if wanted.whole && read.body != wanted.body => Some("another body"),
        () => None,
    }
}

/// Without what differs from answer to answer and is not read by anybody: the id in our own answers.
fn without_id(bytes: &[u8]) -> Vec<u8> {
    let at = second::find(bytes, b"(request ").unwrap_or(bytes.len());
    bytes[..at].to_vec()
}

/// The first of each kind.
fn unique<T, K: std::hash::Hash + Eq>(all: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = HashSet::new();
    all.into_iter().filter(|one| seen.insert(key(one))).collect()
}
