//! What the demo says at its end, for people and for scripts.
//!
//! Every figure was counted: requests and errors by the users, green's requests and its bad answers by the embedded
//! versions, the decision and the swap by the control plane. Under `crash` nobody is left to count at green: there
//! the bad ones are the first attempts that failed at the proxy.
//!
//! Invariant: the field names are an interface; scripts read them.

use serde::Serialize;

use crate::demo::view::grouped;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Green has all traffic.
    Promoted,
    /// Blue has all traffic again.
    RolledBack,
    /// The time was over first.
    Undecided,
}

impl Verdict {
    /// The process's exit code.
    pub const fn exit_code(self) -> i32 {
        match self {
            Verdict::Promoted => 0,
            Verdict::RolledBack => 3,
            Verdict::Undecided => 4,
        }
    }
}

/// All figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How it ended.
    pub verdict: Verdict,
    /// How green was broken: `errors`, `latency`, `hang`, `crash`, or `healthy`.
    pub mode: &'static str,
    /// Requests the users sent.
    pub requests: u64,
    /// Those that got no whole 2xx answer.
    pub user_visible_errors: u64,
    /// Failures of green that blue answered instead.
    pub rescued: u64,
    /// Requests that reached green.
    pub green_requests: u64,
    /// Requests that green served badly up to the decision to roll back (or to the end, without one).
    pub bad_on_green_until_detection: u64,
    /// From the arrival of the first bad request at green to the judge's decision.
    pub detection_ms: Option<f64>,
    /// From the decision to the last worker's acknowledgement.
    pub swap_ms: Option<f64>,
    /// From the deploy to the rollout's end (or to the end of the demo).
    pub rollout_seconds: f64,
    /// Why it ended so, in one sentence.
    pub reason: String,
    /// Median over all good answers, as the users saw it: from when a request was due to the end of its answer.
    pub p50_ms: Option<f64>,
    /// 99th percentile of the same.
    pub p99_ms: Option<f64>,
    /// Answers a second.
    pub rps: f64,
}

impl Summary {
    /// One JSON object on one line.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("plain fields with string keys always serialise")
    }

    /// A few lines for people.
    pub fn text(&self) -> String {
        let verdict = match self.verdict {
            Verdict::Promoted => format!("green was promoted after {:.1} s", self.rollout_seconds),
            Verdict::RolledBack => format!("green was rolled back after {:.1} s", self.rollout_seconds),
            Verdict::Undecided => format!("undecided after {:.1} s", self.rollout_seconds),
        };
        let mut lines = vec![verdict, pair("why", &self.reason)];
        if let Some(detection) = self.detection_ms {
            let bad = grouped(self.bad_on_green_until_detection);
            lines.push(pair("noticed", &format!("{detection:.0} ms after the first bad request, by {bad} of them")));
        }
        lines.extend(self.swap_ms.map(|swap| pair("swapped", &format!("in {swap:.2} ms, every worker"))));
        let quantile = |at: Option<f64>| at.map_or("-".to_owned(), |at| format!("{at:.1} ms"));
        let (p50, p99) = (quantile(self.p50_ms), quantile(self.p99_ms));
        let rate = format!("{:.0} a second, p50 {p50}, p99 {p99}", self.rps);
        lines.push(pair("requests", &format!("{}, {rate}", grouped(self.requests))));
        lines.push(pair("on green", &grouped(self.green_requests)));
        let (errors, rescued) = (grouped(self.user_visible_errors), grouped(self.rescued));
        lines.push(pair("users felt", &format!("{errors} errors, {rescued} rescued by blue")));
        lines.join("\n") + "\n"
    }
}

/// Microseconds as milliseconds with two places.
pub fn in_millis(micros: u64) -> f64 {
    (micros as f64 / 10.0).round() / 100.0
}

fn pair(name: &str, value: &str) -> String {
    format!("  {name:<10} {value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rolled_back() -> Summary {
        Summary {
            verdict: Verdict::RolledBack,
            mode: "errors",
            requests: 12_345,
            user_visible_errors: 2,
            rescued: 7,
            green_requests: 678,
            bad_on_green_until_detection: 8,
            detection_ms: Some(301.5),
            swap_ms: Some(0.31),
            rollout_seconds: 10.25,
            reason: "green is worse".to_owned(),
            p50_ms: Some(12.9),
            p99_ms: None,
            rps: 1199.5,
        }
    }

    #[test]
    fn scripts_find_every_field() {
        let expected =
            r#"{"verdict":"rolled_back","mode":"errors","requests":12345,"user_visible_errors":2,"rescued":7,"#
                .to_owned()
                + r#""green_requests":678,"bad_on_green_until_detection":8,"detection_ms":301.5,"swap_ms":0.31,"#
                + r#""rollout_seconds":10.25,"reason":"green is worse","p50_ms":12.9,"p99_ms":null,"rps":1199.5}"#;
        assert_eq!(rolled_back().json(), expected);
    }

    #[test]
    fn people_read_what_was_noticed_and_how_fast() {
        let expected = "green was rolled back after 10.2 s
  why        green is worse
  noticed    302 ms after the first bad request, by 8 of them
  swapped    in 0.31 ms, every worker
  requests   12,345, 1200 a second, p50 12.9 ms, p99 -
  on green   678
  users felt 2 errors, 7 rescued by blue
";
        assert_eq!(rolled_back().text(), expected);
        let promoted = Summary { verdict: Verdict::Promoted, detection_ms: None, swap_ms: None, ..rolled_back() };
        assert!(promoted.text().starts_with("green was promoted") && !promoted.text().contains("noticed"));
    }

    #[test]
    fn exit_codes_tell_the_verdicts_apart() {
        let codes = [Verdict::Promoted, Verdict::RolledBack, Verdict::Undecided].map(Verdict::exit_code);
        assert_eq!(codes, [0, 3, 4]);
        assert_eq!(in_millis(1_234), 1.23);
    }
}
