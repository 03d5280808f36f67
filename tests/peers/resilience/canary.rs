//! The whole canary goes wrong under load: users feel as little of it as can be, and it is taken back.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use h2::Reason;

use crate::support::client::Api;
use crate::support::faulty::{Behaviour, Seen};
use crate::support::http2::{Act, Http2, Said};
use crate::support::load::{Load, Outcome, PADDING, Record, Shape};
use crate::support::scene::{Scene, figure, green_share};
use crate::support::streams::Streams;
use crate::support::teal::Teal;
use crate::support::{millis, pace, until};

/// For a verdict on a busy machine.
const VERDICT: Duration = Duration::from_secs(30);
/// The judge learns from the baseline first; nothing that a busy machine does to latencies passes for slowness.
pub(super) const JUDGED: &str = "analysis: { tolerate: { latency: 900% }, approve: { latency: 1000% } }";

/// From the canary's first share to the rollback.
pub(super) struct Rollback {
    pub(super) took: Duration,
    /// Wall-clock seconds, at which it was seen.
    at: f64,
}

/// Gives green half of the traffic and waits until it has none.
pub(super) fn rolled_back(api: &mut Api) -> Rollback {
    let begin = std::time::Instant::now();
    assert_eq!(api.weigh(50).unwrap().status, 200);
    until("green is rolled back", VERDICT, || (green_share(api) == 0.0).then_some(()));
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    Rollback { took: begin.elapsed(), at }
}

/// Lets the judge learn what the baseline is like.
pub(super) fn learn() {
    pace(Duration::from_millis(1500));
}

/// Every answer that green broke off reaches the client broken off, by HTTP/1.1 with a length and in chunks, and by
/// HTTP/2; it never looks complete.
#[test]
fn green_resets_in_the_middle_of_answers() {
    let mut scene = Scene::start(1, 1, &format!("{JUDGED}\nhealth: {{ path: /healthz }}"));
    scene.green[0].behave(Behaviour::Cut(30));
    let load = scene.load(500);
    let streams = Streams::start(scene.teal.listen, 2, 10, Duration::from_millis(50));
    learn();
    let mut api = scene.teal.api();
    let rollback = rolled_back(&mut api);
    let (mut records, (of_streams, _)) = (load.stop(), streams.stop());
    let charged = figure(&api.shop().unwrap(), "green", "/failures/truncated");
    let green = scene.green[0].seen();
    let cut: BTreeSet<u64> = green.iter().filter(|seen| seen.answered.is_none()).map(|seen| seen.id).collect();
    let over_http2 = of_streams.iter().filter(|record| record.is_cut()).count();
    records.extend(of_streams);
    let in_chunks = records.iter().filter(|record| record.is_cut() && record.id & 1 == 1).count();
    let seen_cut: BTreeSet<u64> = records.iter().filter(|record| record.is_cut()).map(|record| record.id).collect();
    let account = scene.close(&records);
    println!(
        "green resets 30 % of its answers in the middle: {account}; {} cut at green, {} cut at the client ({over_http2} by \
         HTTP/2, {in_chunks} began in chunks); {charged} charged to green; rolled back after {:.0} ms and {} requests at it",
        cut.len(),
        seen_cut.len(),
        millis(rollback.took),
        until_rollback(&green, &rollback),
    );
    none_looks_complete(&records);
    assert_eq!(seen_cut, cut, "cut at the client, cut at green");
    assert_eq!(charged, cut.len() as u64);
    assert!(over_http2 > 0 && in_chunks > 0, "{account}");
    assert_eq!((account.posts_twice, account.posts_lost), (0, 0));
}

/// The same where green speaks HTTP/2 and resets streams.
#[test]
fn green_resets_streams_in_the_middle_of_answers() {
    let folder = tempfile::tempdir().unwrap();
    let pool = |name: &'static str, cuts: bool| {
        Http2::start(move |arrived| {
            let id: u64 = arrived.line.split_once("?id=").unwrap().1.parse().unwrap();
            let body = [format!("{name} {id} "), "x".repeat(PADDING / 2), "x".repeat(PADDING / 2)];
            let body: Vec<Bytes> = body.into_iter().map(Bytes::from).collect();
            let fields = match id & 1 {
                0 => vec![("content-length", body.iter().map(Bytes::len).sum::<usize>().to_string())],
                _ => Vec::new(),
            };
            let said = Said { interim: Vec::new(), status: 200, fields, body, trailers: Vec::new() };
            match cuts && id.is_multiple_of(3) {
                true => Act::Cut(Said { body: said.body[..2].to_vec(), ..said }, Reason::INTERNAL_ERROR),
                false => Act::Answer(said),
            }
        })
    };
    let (blue, green) = (pool("blue", false), pool("green", true));
    let pools = [&blue, &green].map(|pool| pool.pool("protocol: h2"));
    let teal = Teal::shop(folder.path(), &pools[0], &pools[1], &format!("{JUDGED}\nhealth: off"), "");
    let pace = Duration::from_millis(64);
    let load = Load::start(teal.listen, Shape { connections: 32, pace, reconnects: true });
    let streams = Streams::start(teal.listen, 2, 10, Duration::from_millis(50));
    learn();
    let mut api = teal.api();
    let rollback = rolled_back(&mut api);
    let (mut records, (of_streams, _)) = (load.stop(), streams.stop());
    let charged = figure(&api.shop().unwrap(), "green", "/failures/truncated");
    records.extend(of_streams);
    let cut = records.iter().filter(|record| record.is_cut()).count() as u64;
    println!(
        "green resets streams in the middle: {} requests, {cut} cut at the client, {charged} charged to green; rolled back \
         after {:.0} ms and {} requests at it",
        records.len(),
        millis(rollback.took),
        green.count(),
    );
    none_looks_complete(&records);
    assert_eq!(cut, charged);
    assert!(cut > 0);
}

/// No answer of 200 has another body than its request should get.
fn none_looks_complete(records: &[Record]) {
    let whole = |record: &&Record| matches!(&record.outcome, Outcome::Wrong(said) if said.starts_with("200"));
    let whole: Vec<_> = records.iter().filter(whole).collect();
    assert!(whole.is_empty(), "{} look complete and are not, such as {}", whole.len(), whole[0]);
}

/// How many requests the canary took until it was rolled back.
fn until_rollback(green: &[Seen], rollback: &Rollback) -> usize {
    green.iter().filter(|seen| seen.arrived <= rollback.at).count()
}
