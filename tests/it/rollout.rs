//! Whole rollouts over real traffic: good canaries are promoted at no cost, bad ones are rolled back and say why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use teal::control::command::{Act, Refusal};
use teal::domain::rollout::machine::{Cause, End, Phase};

use super::support::load::Load;
use super::support::teal::{Teal, shop_text};
use super::support::upstream::{Act as Does, Upstream, broken, ok};

/// Decides within a few hundred requests, and lets no noise of a busy machine pass for slowness.
const QUICK: &str = "\
analysis: { alpha: 1%, beta: 40%, min_requests: 50, tolerate: { latency: 300% }, approve: { latency: 1000%, error_rate: 5% } }
health: { interval: 100ms, timeout: 5s }
rollout: { steps: [ { weight: 20% }, { analyze: 300ms }, { weight: 50% }, { analyze: 300ms } ] }
";

/// A pair of pools: blue is well, green does what `green` says once it is told to be bad.
struct Pools {
    blue: Upstream,
    green: Upstream,
    bad: Arc<AtomicBool>,
}

fn pools(does: impl Fn() -> Does + Send + Sync + 'static) -> Pools {
    let bad = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&bad);
    let green = Upstream::start(move |_| if told.load(SeqCst) { does() } else { Does::Answer(ok("green")) });
    Pools { blue: Upstream::plain("blue"), green, bad }
}

fn well() -> Pools {
    pools(|| Does::Close)
}

impl Pools {
    fn text(&self, state: &str, more: &str) -> String {
        shop_text(state, &[("blue", &self.blue.url()), ("green", &self.green.url())], &format!("{QUICK}{more}"))
    }

    fn teal(&self, more: &str) -> Teal {
        Teal::start(&self.text("none", more))
    }

    /// The same with a load that the judge has learned latencies from.
    fn under_load(&self, more: &str) -> (Teal, Load) {
        let teal = self.teal(more);
        let load = load(&teal);
        (teal, load)
    }

    fn turn_bad(&self) {
        self.bad.store(true, SeqCst);
    }
}

fn load(teal: &Teal) -> Load {
    let load = Load::start(teal.address, 3);
    teal.until("a baseline is learned", || load.served() >= 700);
    load
}

#[test]
fn a_good_canary_is_promoted_and_no_request_fails() {
    let pools = well();
    let (teal, load) = pools.under_load("");
    let id = teal.deploy("green").unwrap();
    assert_eq!(teal.ended(&id), (End::Promoted, "every step passed".to_owned()));
    assert_eq!(teal.split(), (100.0, "green".to_owned()));
    let served = load.served();
    teal.until("traffic after the promotion", || load.served() > served + 50);
    // And back again: the next rollout is judged like the first.
    let id = teal.deploy("blue").unwrap();
    assert_eq!(teal.ended(&id).0, End::Promoted);
    assert_eq!(teal.split(), (0.0, "blue".to_owned()));
    assert_eq!(load.finish(), Default::default());
    let history = teal.wait(teal.running().controller.history("shop", 10)).unwrap();
    assert_eq!(history.iter().map(|over| over.rollout.order.canary.as_str()).collect::<Vec<_>>(), ["blue", "green"]);
}

/// Deploys a canary that turns bad under way; the sentence of its rollback.
fn rolled_back(pools: &Pools, more: &str) -> String {
    let (teal, load) = pools.under_load(more);
    pools.turn_bad();
    let id = teal.deploy("green").unwrap();
    let (end, sentence) = teal.ended(&id);
    assert_eq!((end, teal.split()), (End::RolledBack, (0.0, "blue".to_owned())));
    let told = teal.told("rollback");
    assert!(told.len() == 1 && told[0].contains("green is worse") && told[0].contains("swapped in"), "{told:?}");
    let history = teal.wait(teal.running().controller.history("shop", 10)).unwrap();
    assert_eq!((history.len(), &history[0].rollout.reason), (1, &sentence));
    // Nothing fails any more, and what is said stays said.
    let before = (load.failed(), load.served());
    teal.until("traffic after the rollback", || load.served() > before.1 + 50);
    let late: u64 = load.failed().values().sum::<u64>() - before.0.values().sum::<u64>();
    assert!(late <= 3, "{late} of the requests that were on their way, of three clients");
    sentence
}

#[test]
fn errors_are_rolled_back_with_their_numbers() {
    let sentence = rolled_back(&pools(|| Does::Answer(broken())), "");
    assert!(sentence.contains("green is worse: errors: green ") && sentence.contains(" of "), "{sentence}");
    assert!(sentence.contains("blue 0 of ") && sentence.contains("needed"), "{sentence}");
}

#[test]
fn slowness_is_rolled_back_with_its_latency() {
    let sentence = rolled_back(&pools(|| Does::Slowly(Duration::from_millis(60), ok("late"))), "");
    assert!(sentence.contains("green is worse: latency p") && sentence.contains(" ms"), "{sentence}");
}

#[test]
fn a_hang_is_noticed_long_before_its_timeout() {
    // Requests never time out by themselves within this test: only the time that passes speaks.
    let (teal, load) = {
        let pools = pools(|| Does::Hang);
        let (teal, load) = pools.under_load("timeouts: { head: 10m }");
        pools.turn_bad();
        let id = teal.deploy("green").unwrap();
        // Three clients that hang are no load any more: there are always new ones.
        let more: Vec<Load> = (0..20).map(|_| Load::start(teal.address, 1)).collect();
        let (end, sentence) = teal.ended(&id);
        assert_eq!(end, End::RolledBack);
        assert!(sentence.contains("latency") || sentence.contains("errors"), "{sentence}");
        pools.green.crash();
        drop(more);
        (teal, load)
    };
    drop((load, teal));
}

#[test]
fn a_crash_is_rolled_back() {
    let pools = well();
    let (teal, load) = pools.under_load("");
    let id = teal.deploy("green").unwrap();
    pools.green.crash();
    let (end, sentence) = teal.ended(&id);
    assert_eq!(end, End::RolledBack, "{sentence}");
    assert!(sentence.contains("errors"), "{sentence}");
    drop(load);
}

#[test]
fn no_traffic_is_inconclusive_and_never_a_promotion() {
    let pools = well();
    let plan = "rollout: { steps: [ { weight: 50% }, { analyze: { dwell: 100ms, deadline: 300ms } } ] }";
    let teal = Teal::start(&pools.text("none", "").replace(QUICK.lines().last().unwrap().trim(), plan));
    let id = teal.deploy("green").unwrap();
    teal.until("it is held", || teal.phase() == Some(Phase::Held(Cause::Inconclusive)));
    assert_eq!(teal.split(), (50.0, "blue".to_owned()));
    let reason = teal.shop_now().rollout.unwrap().reason;
    assert!(reason.contains("inconclusive") && reason.contains("nothing is known"), "{reason}");
    // Evidence that comes later still counts.
    let load = Load::start(teal.address, 3);
    assert_eq!(teal.ended(&id).0, End::Promoted);
    assert_eq!(load.finish(), Default::default());
}

#[test]
fn people_pause_resume_promote_and_abort() {
    let pools = well();
    let teal = pools.teal("");
    let id = teal.deploy("green").unwrap();
    teal.until("it analyses", || teal.phase() == Some(Phase::Analyzing));
    let refused = |result: Result<_, Refusal>| matches!(result, Err(Refusal::Conflict(_)));
    assert!(refused(teal.deploy("green").map(drop)), "one at a time");
    assert!(refused(teal.weigh(30).map(drop)), "the rollout has the weights");
    assert!(refused(teal.act(&id, Act::Resume).map(drop)), "nothing is held");
    teal.act(&id, Act::Pause).unwrap();
    assert_eq!(teal.phase(), Some(Phase::Held(Cause::Paused)));
    assert!(refused(teal.act(&id, Act::Pause).map(drop)), "it is paused already");
    teal.act(&id, Act::Resume).unwrap();
    assert_eq!(teal.phase(), Some(Phase::Analyzing));
    teal.act(&id, Act::Abort { reason: "lunch".to_owned() }).unwrap();
    assert_eq!(teal.ended(&id), (End::Aborted, "aborted by test: lunch".to_owned()));
    assert_eq!(teal.split(), (0.0, "blue".to_owned()));
    assert!(refused(teal.act(&id, Act::Resume).map(drop)), "it is over");
    let id = teal.deploy("green").unwrap();
    teal.act(&id, Act::Promote).unwrap();
    assert_eq!((teal.ended(&id).0, teal.split()), (End::Promoted, (100.0, "green".to_owned())));
    assert!(refused(teal.deploy("green").map(drop)), "it is active already");
    let unknown = teal.act("nobody", Act::Pause).unwrap_err();
    assert!(matches!(unknown, Refusal::Unknown { kind: "rollout", .. }), "{unknown}");
}

#[test]
fn a_guard_that_holds_leaves_the_split_and_one_that_observes_the_rollout() {
    for guard in ["hold", "observe"] {
        let pools = pools(|| Does::Answer(broken()));
        let (teal, _load) = pools.under_load(&format!("guard: {guard}"));
        pools.turn_bad();
        let id = teal.deploy("green").unwrap();
        teal.until("the judge speaks", || teal.told("judge").iter().any(|told| told.contains("green is worse")));
        if guard == "hold" {
            teal.until("it is held", || teal.phase() == Some(Phase::Held(Cause::Advised)));
        }
        assert_eq!(teal.split(), (20.0, "blue".to_owned()), "{guard}");
        teal.act(&id, Act::Abort { reason: String::new() }).unwrap();
        assert_eq!(teal.split(), (0.0, "blue".to_owned()));
    }
}

#[test]
fn manual_weights_are_judged_every_time() {
    let pools = pools(|| Does::Answer(broken()));
    let (teal, load) = pools.under_load("");
    pools.turn_bad();
    for round in 1..=2 {
        teal.weigh(30).unwrap();
        teal.until("the judge rolls back", || teal.split().0 == 0.0);
        teal.until("it says so", || teal.told("rollback").len() == round);
    }
    assert_eq!(teal.running().controller.rollbacks(), (2, 0, 0));
    assert_eq!(teal.split().1, "blue");
    drop(load);
}

#[test]
fn a_plan_that_nobody_could_judge_is_refused() {
    let pools = well();
    let teal = pools.teal("guard: off\n");
    let refusal = teal.deploy("green").unwrap_err();
    assert!(matches!(&refusal, Refusal::Invalid(text) if text.contains("guard: off")), "{refusal:?}");
}

#[test]
fn a_deploy_needs_an_endpoint_that_answers() {
    let pools = well();
    pools.green.crash();
    let teal = pools.teal("");
    let refusal = teal.deploy("green").unwrap_err();
    assert!(matches!(&refusal, Refusal::Unhealthy { pool, .. } if pool == "green"), "{refusal}");
    assert_eq!((teal.phase(), teal.split()), (None, (0.0, "blue".to_owned())));
    let typo = teal.deploy("gren").unwrap_err().to_string();
    assert_eq!(typo, "there is no pool `gren`; did you mean `green`?");
}

#[test]
fn a_restart_keeps_pool_weights_rollout_and_history() {
    let pools = well();
    let plan = "rollout: { steps: [ { weight: 5% }, { pause: approve }, { weight: 40% }, { pause: approve } ] }";
    let text = pools.text("./state", "").replace(QUICK.lines().last().unwrap().trim(), plan);
    let teal = Teal::in_folder(&text);
    teal.weigh(100).unwrap();
    let teal = teal.restart();
    assert_eq!(teal.split(), (100.0, "green".to_owned()));
    teal.weigh(70).unwrap();
    let teal = teal.restart();
    assert_eq!(teal.split(), (70.0, "green".to_owned()));
    teal.weigh(0).unwrap();
    let id = teal.deploy("green").unwrap();
    teal.until("it waits", || teal.phase() == Some(Phase::Waiting));
    let teal = teal.restart();
    teal.until("it waits again", || teal.phase() == Some(Phase::Waiting));
    assert_eq!((teal.split().0, teal.shop_now().rollout.unwrap().order.id), (5.0, id.clone()));
    teal.act(&id, Act::Resume).unwrap();
    assert_eq!(teal.split().0, 40.0);
    teal.wait(teal.running().controller.rollback("shop", "test", "")).unwrap();
    let teal = teal.restart();
    assert_eq!((teal.split(), teal.phase()), ((0.0, "blue".to_owned()), None));
    assert_eq!(teal.ended(&id).0, End::RolledBack);
}

#[test]
fn a_restart_keeps_the_evidence_of_a_canary_and_forgets_that_of_an_ended_one() {
    let pools = pools(|| Does::Answer(broken()));
    let teal = Teal::in_folder(&pools.text("./state", "guard: observe"));
    let running = load(&teal);
    pools.turn_bad();
    teal.weigh(30).unwrap();
    teal.until("the judge speaks", || teal.told("judge").iter().any(|told| told.contains("green is worse")));
    drop(running);
    let teal = teal.restart();
    // Without any traffic: what was known is known.
    teal.until("the evidence is back", || {
        teal.shop_now().judge.is_some_and(|judge| judge.p <= 0.01 && judge.canary_units.1 >= 3)
    });
    teal.weigh(0).unwrap();
    teal.until("the case is over", || teal.shop_now().judge.is_none());
    let teal = teal.restart();
    teal.weigh(30).unwrap();
    teal.until("a new case", || teal.shop_now().judge.is_some());
    assert_eq!(teal.shop_now().judge.unwrap().canary_units, (0, 0));
}
