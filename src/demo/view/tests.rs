//! Snapshots of what is shown, as text.

use super::*;

fn pool(name: &str, percent: u16, rate: f64, p99_us: Option<u64>, errors: u64, in_flight: u64) -> PoolView {
    let share = Share::from_basis_points(percent * 100).unwrap();
    PoolView { name: name.to_owned(), share, rate, p50_us: p99_us.map(|_| 12_800), p99_us, errors, in_flight }
}

fn view() -> View {
    View {
        elapsed: Duration::from_millis(74_300),
        mode: None,
        proxy: "http://127.0.0.1:40001".to_owned(),
        admin: Some("http://127.0.0.1:9900".to_owned()),
        place: "step 4 of 7: analysis at 25%".to_owned(),
        pools: vec![pool("blue", 75, 901.6, Some(45_056), 0, 12), pool("green", 25, 298.2, Some(44_032), 0, 4)],
        users: (15_123, 0),
        rescued: 0,
        last_error: None,
        judge: Some(JudgeView {
            evidence: 1.4,
            needed: 100.0,
            sentence: "green is shown to be no worse than blue".to_owned(),
        }),
        why: None,
        events: vec![
            (Duration::from_millis(2_500), "step 2 of 7: analysis at 5%".to_owned()),
            (Duration::from_millis(12_310), "step 4 of 7: analysis at 25%".to_owned()),
        ],
    }
}

fn broken() -> View {
    View {
        mode: Some(Fail::Errors),
        pools: vec![pool("blue", 100, 1_201.0, Some(45_056), 0, 12), pool("green", 0, 0.0, None, 8, 0)],
        users: (15_901, 8),
        rescued: 3,
        last_error: Some("500 Internal Server Error".to_owned()),
        judge: None,
        why: Some("step 4 of 7: analysis at 25%: green is worse: errors: green 7 of 756 (0.93 %), blue 0 of 7,392 (0 %); evidence 246 against 100 needed".to_owned()),
        events: vec![(Duration::from_millis(13_400), "rolled back: green is worse: ".to_owned() + &"x".repeat(60))],
        ..view()
    }
}

#[test]
fn a_healthy_rollout_in_the_middle() {
    let expected = " teal demo   blue to green, live   green is healthy   01:14
 proxy     http://127.0.0.1:40001
 admin     http://127.0.0.1:9900

 rollout   step 4 of 7: analysis at 25%
 split     ███████████████████████████████████████████▓▓▓▓▓▓▓▓▓▓▓▓▓▓  75% / 25%

 pool      share    req/s        p50        p99   errors   in flight
 blue        75%      902    12.8 ms    45.1 ms        0          12
 green       25%      298    12.8 ms    44.0 ms        0           4
 users     15,123 answered, 0 errors seen, 0 rescued

 judge     ███░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  evidence 1.4 of 100
           green is shown to be no worse than blue


    2.5 s  step 2 of 7: analysis at 5%
   12.3 s  step 4 of 7: analysis at 25%



";
    assert_eq!(render(&view(), false, 80), expected);
}

#[test]
fn a_rollback_on_a_narrow_terminal() {
    let expected = " teal demo   blue to green, live   green will break: errors   01:14
 proxy     http://127.0.0.1:40001
 admin     http://127.0.0.1:9900

 rollout   step 4 of 7: analysis at 25%
 split     ███████████████████████████████████████████████  100% / 0%

 pool      share    req/s        p50        p99   errors   in flight
 blue       100%    1,201    12.8 ms    45.1 ms        0          12
 green        0%        0          -          -        8           0
 users     15,901 answered, 8 errors seen, 3 rescued (last: 500 Inter…

 why       step 4 of 7: analysis at 25%: green is worse: errors: green
           7 of 756 (0.93 %), blue 0 of 7,392 (0 %); evidence 246
           against 100 needed

   13.4 s  rolled back: green is worse: xxxxxxxxxxxxxxxxxxxxxxxxxxxxx…




";
    assert_eq!(render(&broken(), false, 70), expected);
}

#[test]
fn no_line_is_wider_than_the_terminal_and_the_block_keeps_its_height() {
    let heights = [view(), broken()].map(|view| {
        for width in 60..=120 {
            let block = render(&view, false, width);
            assert!(block.lines().all(|line| line.chars().count() <= width), "{width}:\n{block}");
        }
        render(&view, false, 80).lines().count()
    });
    assert_eq!(heights, [21, 21]);
}

#[test]
fn colour_changes_nothing_but_colour() {
    for view in [view(), broken()] {
        let mut coloured = render(&view, true, 72);
        assert!(coloured.contains("\x1b[34m blue"));
        for code in ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[34m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(coloured, render(&view, false, 72));
    }
}

#[test]
fn a_pool_with_any_share_is_seen_in_the_bar() {
    let bar = |percent| {
        let pools = vec![pool("blue", 100 - percent, 0.0, None, 0, 0), pool("green", percent, 0.0, None, 0, 0)];
        let block = render(&View { pools, ..view() }, false, 80);
        (block.matches('█').count(), block.matches('▓').count())
    };
    let judge = 3;
    assert!(bar(0).1 == 0 && bar(1).1 == 1);
    assert!(bar(99).0 == judge + 1 && bar(100).0 == judge);
}

#[test]
fn plain_lines_say_the_same() {
    let healthy = "blue 75% 902/s p99 45.1 ms, green 25% 298/s p99 44.0 ms; users: 15,123 answered, 0 errors, 0 rescued; evidence 1.4 of 100";
    assert_eq!(status_line(&view()), healthy);
    let broken_line = "blue 100% 1201/s p99 45.1 ms, green 0% 0/s; users: 15,901 answered, 8 errors, 3 rescued (last: 500 Internal Server Error)";
    assert_eq!(status_line(&broken()), broken_line);
    assert_eq!(plain_line(Duration::from_millis(12_340), "step", "a sentence"), "  12.3 s  step         a sentence");
}
