//! `kill -9`, at any moment: what was acknowledged holds afterwards, and nothing has more traffic than that.
//!
//! The moments come from a seeded generator. A caller that has not got its answer knows nothing: for orders under
//! way at the kill both the old and the new state are right, and the drill says how often that was so.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Api, share_of};
use crate::support::load::{Load, Outcome, Shape};
use crate::support::nginx::Nginx;
use crate::support::teal::Teal;
use crate::support::{millis, pick, quantile, until};

/// The plan's shares, and the pause after each.
const SHARES: [f64; 3] = [5.0, 20.0, 50.0];
const PAUSE: Duration = Duration::from_millis(500);
/// A move this close to the kill may have been made durable without anybody having been told.
const TELLING: Duration = Duration::from_millis(100);

struct Scene {
    teal: Teal,
    load: Load,
    _pools: [Nginx; 2],
    _folder: tempfile::TempDir,
}

fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let pools = [Nginx::plain(folder.path(), "blue", ""), Nginx::plain(folder.path(), "green", "")];
    let [blue, green] = pools.each_ref().map(Nginx::url);
    let teal = Teal::shop(folder.path(), &blue, &green, "guard: observe", "");
    let shape = Shape { connections: 16, pace: Duration::from_millis(10), reconnects: true };
    let load = Load::start(teal.listen, shape);
    Scene { teal, load, _pools: pools, _folder: folder }
}

#[test]
fn a_rollout_comes_back_with_no_more_than_was_acknowledged() {
    let mut scene = scene();
    let mut dice = fastrand::Rng::with_seed(9);
    let (mut back, mut inside, mut same) = (Vec::new(), 0, 0);
    let rounds = pick(3, 20);
    for round in 0..rounds {
        let mut api = scene.teal.api();
        start_rollout(&mut api);
        let life = Duration::from_micros(dice.u64(20_000..1_600_000));
        let (acknowledged, since) = watch_and_kill(&mut scene.teal, &mut api, life);
        back.push(millis(scene.teal.restart()));
        let shop = scene.teal.api().shop().unwrap();
        let share = share_of(&shop, "green");
        let next = SHARES.into_iter().find(|share| *share > acknowledged).unwrap_or(100.0);
        let was_moving = since + TELLING > PAUSE || acknowledged == 0.0;
        let untold = share == next && was_moving;
        inside += u32::from(untold);
        same += u32::from(share == acknowledged);
        assert!(
            share <= acknowledged || untold,
            "round {round}: killed after {life:?} at {acknowledged} %, came back at {share} %: {shop}"
        );
    }
    let records = scene.load.stop();
    let wrong: Vec<_> = records.iter().filter(|record| matches!(record.outcome, Outcome::Wrong(_))).collect();
    assert!(wrong.is_empty(), "{} answers of a restarted process were no 200, such as {}", wrong.len(), wrong[0]);
    let good = records.iter().filter(|record| record.is_good()).count();
    println!(
        "kill9, rollouts: {rounds} kills, {good} of {} requests answered meanwhile; serving again p50 {:.0} ms, \
         max {:.0} ms; back above what anybody was told: 0 ({inside} within a move), \
         exactly there: {same}",
        records.len(),
        quantile(&back, 0.5),
        quantile(&back, 1.0),
    );
}

#[test]
fn no_acknowledged_weight_is_lost() {
    let mut scene = scene();
    let mut dice = fastrand::Rng::with_seed(7);
    assert_eq!(scene.teal.api().weigh(7).unwrap().status, 200);
    scene.teal.kill();
    let mut back = vec![millis(scene.teal.restart())];
    assert_eq!(share_of(&scene.teal.api().shop().unwrap(), "green"), 7.0);

    let (mut orders, mut under_way, mut lost) = (0, 0, Vec::new());
    let rounds = pick(3, 20);
    for round in 0..rounds {
        let life = Duration::from_micros(dice.u64(5_000..120_000));
        let (last, asked, count) = weigh_until_killed(&mut scene.teal, life, &mut dice);
        orders += count;
        back.push(millis(scene.teal.restart()));
        let share = share_of(&scene.teal.api().shop().unwrap(), "green");
        if Some(share) == last {
            continue;
        }
        match Some(share) == asked {
            true => under_way += 1,
            false => {
                lost.push(format!("round {round}: acknowledged {last:?}, asked {asked:?}, came back with {share}"))
            }
        }
    }
    drop(scene.load);
    println!(
        "kill9, weights: {} kills, {orders} changes acknowledged, {} lost; {under_way} times the one under way held; \
         serving again p50 {:.0} ms, max {:.0} ms",
        rounds + 1,
        lost.len(),
        quantile(&back, 0.5),
        quantile(&back, 1.0),
    );
    assert!(lost.is_empty(), "{lost:#?}");
}

/// Clears what the round before left, and begins a rollout from nothing.
fn start_rollout(api: &mut Api) {
    let cleared = api.ask("POST", "/v1/services/shop/rollback", &Value::Null).unwrap();
    assert_eq!(cleared.status, 200, "{}", cleared.text());
    until("the rollout before is over", Duration::from_secs(5), || {
        api.shop().unwrap()["rollout"].is_null().then_some(())
    });
    let pause = json!({ "pause": format!("{}ms", PAUSE.as_millis()) });
    let steps: Vec<Value> =
        SHARES.into_iter().flat_map(|share| [json!({ "weight": format!("{share}%") }), pause.clone()]).collect();
    let order = json!({ "to": "green", "plan": { "steps": steps, "on_inconclusive": "hold" } });
    let started = api.ask("POST", "/v1/services/shop/rollouts", &order).unwrap();
    assert_eq!(started.status, 201, "{}", started.text());
}

/// Follows the canary's share until the process is killed after `life`: the last one seen, and for how long.
fn watch_and_kill(teal: &mut Teal, api: &mut Api, life: Duration) -> (f64, Duration) {
    let (mut share, mut since) = (0.0, Instant::now());
    let begin = Instant::now();
    while begin.elapsed() < life {
        let shop = api.shop().unwrap();
        let now = share_of(&shop, "green");
        if now != share {
            (share, since) = (now, Instant::now());
        }
        crate::support::pace(Duration::from_millis(1));
    }
    teal.kill();
    (share, since.elapsed())
}

/// Sets weights one after another until the process is killed after `life`: the last acknowledged, the one that was
/// under way, and how many were acknowledged.
fn weigh_until_killed(teal: &mut Teal, life: Duration, dice: &mut fastrand::Rng) -> (Option<f64>, Option<f64>, u32) {
    let mut api = teal.api();
    let seed = dice.u64(..);
    let killed = AtomicBool::new(false);
    let before = share_of(&api.shop().unwrap(), "green");
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut dice = fastrand::Rng::with_seed(seed);
            let (mut last, mut count) = (Some(before), 0);
            loop {
                let share = dice.u32(1..100);
                match api.weigh(share) {
                    Ok(answer) => assert_eq!(answer.status, 200, "{}", answer.text()),
                    Err(broken) => {
                        assert!(killed.load(Relaxed), "the API broke before the kill: {broken:?}");
                        return (last, Some(f64::from(share)), count);
                    }
                }
                (last, count) = (Some(f64::from(share)), count + 1);
            }
        });
        crate::support::pace(life);
        killed.store(true, Relaxed);
        teal.kill();
        writer.join().unwrap()
    })
}
