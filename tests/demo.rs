//! The demo end to end: the real thing with a short plan, once healthy and once with a green that crashes.
//!
//! Nothing here depends on how fast the machine is: a slow one only takes longer, up to a limit that fails.

use std::io;
use std::time::Duration;

use teal::demo::director::{Output, Script};
use teal::demo::summary::{Summary, Verdict};
use teal::demo::{Fail, play};
use teal::domain::rollout::plan::{OnInconclusive, Plan, Step};
use teal::domain::split::Share;

/// Half, then everything: the half is proven healthy by some 330 of its 250 requests a second.
fn short(fail: Option<Fail>) -> Summary {
    let weight = |percent: u16| Step::Weight(Share::from_basis_points(percent * 100).unwrap());
    let analyze = Step::Analyze { dwell: Duration::from_secs(2), deadline: None };
    let plan = Plan { steps: vec![weight(50), analyze, weight(100)], on_inconclusive: OnInconclusive::Hold };
    let script = Script { plan, rate: 500.0, ..Script::new(fail, Duration::from_secs(120)) };
    play(script, Output::Lines(Box::new(io::sink()))).unwrap()
}

#[test]
fn a_healthy_green_is_promoted_and_no_user_sees_an_error() {
    let summary = short(None);
    assert_eq!((summary.verdict, summary.mode), (Verdict::Promoted, "healthy"), "{summary:?}");
    assert_eq!((summary.user_visible_errors, summary.bad_on_green_until_detection), (0, 0), "{summary:?}");
    assert_eq!((summary.detection_ms, summary.swap_ms), (None, None), "{summary:?}");
    assert!(summary.green_requests > 200 && summary.requests > summary.green_requests, "{summary:?}");
    assert_eq!(summary.reason, "every step passed");
}

#[test]
fn a_green_that_crashes_is_rolled_back_with_the_reason() {
    let summary = short(Some(Fail::Crash));
    assert_eq!((summary.verdict, summary.mode), (Verdict::RolledBack, "crash"), "{summary:?}");
    assert!(summary.reason.starts_with("step 2 of 3: analysis at 50%: green is worse: errors: green "), "{summary:?}");
    assert!(summary.detection_ms.is_some() && summary.swap_ms.is_some(), "{summary:?}");
    assert!(summary.bad_on_green_until_detection >= 3, "{summary:?}");
    // What was not on its way when green died is rescued; after the swap nobody meets green any more.
    assert!(summary.rescued >= 3 && summary.user_visible_errors < summary.requests / 5, "{summary:?}");
}
