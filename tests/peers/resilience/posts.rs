//! POSTs through upstreams that break connections at random points: done once, or at most once and not answered.

use std::time::Duration;

use crate::support::account::{Account, failures};
use crate::support::faulty::{Behaviour, posts};
use crate::support::load::{Load, Mix, Shape};
use crate::support::scene::Scene;
use crate::support::{full, pick};

/// What breaks: every tenth request's connection.
const SHARE: u32 = 10;

#[test]
fn no_post_is_done_twice_and_none_is_lost() {
    let mut scene = Scene::start(2, 2, "guard: observe\nhealth: off");
    assert_eq!(scene.teal.api().weigh(50).unwrap().status, 200);
    for upstream in scene.blue.iter_mut().chain(&mut scene.green) {
        upstream.behave(Behaviour::Break(SHARE));
    }
    let shape = Shape { connections: 20, pace: Duration::ZERO, reconnects: true };
    let mix = Mix { posts: 10, turns: pick(50, 500) };
    let records = Load::of(scene.teal.listen, shape, mix).finish();
    scene.teal.kill();
    let logs = scene.logs();
    let account = Account::of(&records, logs.iter().map(Vec::as_slice));
    let arrivals = posts(logs.iter().map(Vec::as_slice));
    // Answered by 200 and whole: exactly once. Not answered: at most once.
    let done = records.iter().filter(|record| record.is_good());
    let wrong = done.filter(|record| arrivals.get(&record.id) != Some(&1)).count();
    let unanswered = records.iter().filter(|record| !record.is_good());
    let unanswered_done = unanswered.filter(|record| arrivals.contains_key(&record.id)).count();
    println!(
        "{} POSTs, every tenth connection breaks: {} answered and done once, {} not answered, of which {unanswered_done} \
         were done once and nobody can know; {} done twice, {} lost",
        account.posts,
        account.posts - account.posts_failed,
        account.posts_failed,
        account.posts_twice,
        account.posts_lost,
    );
    assert_eq!(account.posts, if full() { 10_000 } else { 1_000 });
    assert_eq!((wrong, account.posts_twice, account.posts_lost), (0, 0, 0), "{account}");
    // It did break, and it did not take everything with it.
    let failed = account.posts_failed * 100 / account.posts;
    assert!((1..20).contains(&failed), "{failed} % failed:{}", failures(&records));
}
