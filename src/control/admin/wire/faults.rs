//! Injected faults as JSON. A serde border file.
//!
//! Invariant: what is returned as good satisfies the invariants of `domain::injection`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Ordered;
use crate::control::command::Refusal;
use crate::control::faults::{FaultOrder, FaultStatus};
use crate::domain::injection::{ABORT, DELAY, Effect, LASTS, MAX};
use crate::domain::route::{Condition, Match, PathTest, Test, path};

/// Conditions of one fault.
const MAX_CONDITIONS: usize = 8;
/// Bytes of a text in one.
const MAX_TEXT: usize = 256;

/// Body of `PUT /v1/services/{s}/faults`: all faults there are to be, none to end them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Up to 8; the first that hits a request counts.
    pub faults: Vec<Fault>,
}

/// A fault to inject: a delay, an answer in place of the pool's, or the one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Unique; `fault-1` and so on if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The pool; every one if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Which requests; all if it is left out.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matches: Option<Matches>,
    /// How many of them, such as `10%`.
    pub share: String,
    /// Such as `200ms`; up to a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// A status from 400 to 599.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<u16>,
    /// How long, from `1s` to `1h`.
    #[serde(rename = "for")]
    pub lasts: String,
}

/// Which requests: all of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matches {
    /// A prefix of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Any of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// Exact values by name.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub header: Ordered<String>,
}

fn is_nothing(header: &Ordered<String>) -> bool {
    header.0.is_empty()
}

/// `GET /v1/services/{s}/faults`, and the answer to a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveFaults {
    /// What is injected now.
    pub faults: Vec<ActiveFault>,
}

/// A fault that is being injected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveFault {
    /// Its name, which `x-teal-fault` of the answers carries.
    pub name: String,
    /// The pool; every one if there is none.
    pub pool: Option<String>,
    /// It is about some requests only.
    pub partial: bool,
    /// How many of them.
    pub share: String,
    /// What happens to them, such as `answered 503`.
    pub effect: String,
    /// How long still, in milliseconds.
    pub left_ms: u64,
    /// Requests hit so far.
    pub injected: u64,
}

impl From<Vec<FaultStatus>> for ActiveFaults {
    fn from(list: Vec<FaultStatus>) -> ActiveFaults {
        ActiveFaults { faults: list.into_iter().map(ActiveFault::from).collect() }
    }
}

impl From<FaultStatus> for ActiveFault {
    fn from(status: FaultStatus) -> ActiveFault {
        let FaultStatus { name, pool, is_partial, share, effect, left, injected } = status;
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let (share, effect) = (share.to_string(), effect.to_string());
        ActiveFault { name, pool, partial: is_partial, share, effect, left_ms, injected }
    }
}

impl Faults {
    /// What is to be injected.
    ///
    /// # Errors
    /// When it makes no sense, or has no end.
    pub fn resolve(self) -> Result<Vec<FaultOrder>, Refusal> {
        if self.faults.len() > MAX {
            return Err(Refusal::Invalid(format!("at most {MAX} faults at one time")));
        }
        let mut orders: Vec<FaultOrder> = Vec::new();
        for (at, fault) in self.faults.into_iter().enumerate() {
            let name = fault.name.clone().unwrap_or_else(|| format!("fault-{}", at + 1));
            let wrong = |why: String| Refusal::Invalid(format!("fault {}: {why}", at + 1));
            let order = fault.order(name).map_err(wrong)?;
            if orders.iter().any(|known| known.name == order.name) {
                return Err(wrong(format!("another one is called `{}`", order.name)));
            }
            orders.push(order);
        }
        Ok(orders)
    }
}

impl Fault {
    fn order(self, name: String) -> Result<FaultOrder, String> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
        if !(1..=63).contains(&name.len()) || !name.bytes().all(fits) {
            return Err("a name is 1 to 63 lower-case letters, digits, `-` and `_`".to_owned());
        }
        let share: crate::domain::split::Share = self.share.parse().map_err(|why| format!("{why}"))?;
        if share.is_none() {
            return Err("a share of 0% hits nothing".to_owned());
        }
        let delay = self.delay.as_deref().map(duration).transpose()?;
        if delay.is_some_and(|delay| !DELAY.contains(&delay)) {
            return Err("a delay is 1ms to 1m".to_owned());
        }
        if self.abort.is_some_and(|status| !ABORT.contains(&status)) {
            return Err("`abort` is a status from 400 to 599".to_owned());
        }
        if delay.is_none() && self.abort.is_none() {
            return Err("it needs a `delay`, an `abort`, or both".to_owned());
        }
        let lasts = duration(&self.lasts)?;
        if !LASTS.contains(&lasts) {
            return Err("`for` is 1s to 1h: a drill has an end".to_owned());
        }
        let matches = self.matches.unwrap_or_default().resolve()?;
        let effect = Effect { delay, abort: self.abort };
        Ok(FaultOrder { name, pool: self.pool, matches, share, effect, lasts })
    }
}

impl Matches {
    fn resolve(self) -> Result<Match, String> {
        let Matches { path, methods, header } = self;
        let header = header.0;
        if methods.len() + header.len() > MAX_CONDITIONS {
            return Err(format!("`match` holds at most {MAX_CONDITIONS} methods and headers"));
        }
        let fits = |text: &String| {
            (1..=MAX_TEXT).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        };
        let headers = || header.iter().all(|(name, value)| fits(name) && fits(value));
        if !methods.iter().chain(&path).all(fits) || !headers() {
            return Err(format!("`match` holds texts of 1 to {MAX_TEXT} visible ASCII characters"));
        }
        let prefix = |text: String| path::pattern(&text).map(PathTest::Prefix).map_err(|why| format!("`path`: {why}"));
        let path = path.map(prefix).transpose()?;
        let condition =
            |(name, value): (String, String)| Condition::Header(name.to_ascii_lowercase(), Test::Exact(value));
        Ok(Match { path, methods, conditions: header.into_iter().map(condition).collect() })
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write durations with a unit, such as 200ms, 30s or 5m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(json: &str) -> Result<Vec<FaultOrder>, String> {
        let faults: Faults = serde_json::from_str(json).map_err(|error| error.to_string())?;
        faults.resolve().map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn faults_are_read_with_their_defaults() {
        let orders = resolved(
            r#"{"faults": [
                {"share": "10%", "abort": 503, "for": "5m"},
                {"name": "slow", "pool": "green", "share": "100%", "delay": "200ms", "for": "1h",
                 "match": {"path": "/api", "methods": ["GET"], "header": {"X-Team": "payments"}}}
            ]}"#,
        )
        .unwrap();
        assert_eq!((orders[0].name.as_str(), &orders[0].pool, orders[0].effect.abort), ("fault-1", &None, Some(503)));
        assert!(orders[0].matches.is_everything() && orders[0].lasts == Duration::from_secs(300));
        let header = Condition::Header("x-team".to_owned(), Test::Exact("payments".to_owned()));
        let path = Some(PathTest::Prefix("/api".to_owned()));
        assert_eq!(orders[1].matches, Match { path, methods: vec!["GET".to_owned()], conditions: vec![header] });
        assert_eq!(orders[1].effect, Effect { delay: Some(Duration::from_millis(200)), abort: None });
        assert_eq!(resolved(r#"{"faults": []}"#), Ok(Vec::new()));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let one = |fault: &str| resolved(&format!(r#"{{"faults": [{{{fault}}}]}}"#)).expect_err(fault);
        let table = [
            (r#""abort": 503, "for": "5m""#, "missing field `share`"),
            (r#""share": "10%", "abort": 503"#, "missing field `for`"),
            (r#""share": "10%", "abort": 503, "for": "2h""#, "`for` is 1s to 1h: a drill has an end"),
            (r#""share": "10%", "abort": 503, "for": "0s""#, "`for` is 1s to 1h"),
            (r#""share": "10%", "abort": 503, "for": "5""#, "write durations with a unit"),
            (r#""share": "10%", "for": "5m""#, "it needs a `delay`, an `abort`, or both"),
            (r#""share": "10%", "delay": "2m", "for": "5m""#, "a delay is 1ms to 1m"),
            (r#""share": "10%", "abort": 200, "for": "5m""#, "`abort` is a status from 400 to 599"),
            (r#""share": "0%", "abort": 503, "for": "5m""#, "a share of 0% hits nothing"),
            (r#""share": "10", "abort": 503, "for": "5m""#, "a share is a percentage"),
            (r#""name": "A b", "share": "10%", "abort": 503, "for": "5m""#, "a name is 1 to 63"),
            (r#""share": "10%", "abort": 503, "for": "5m", "match": {"path": "api"}"#, "`path`"),
            (r#""share": "10%", "abort": 503, "for": "5m", "match": {"header": {"a": "\n"}}"#, "visible ASCII"),
            (r#""share": "10%", "abort": 503, "for": "5m", "force": true"#, "unknown field `force`"),
        ];
        for (fault, why) in table {
            assert!(one(fault).contains(why), "{fault}: {}", one(fault));
        }
        let fault = r#"{"share": "1%", "abort": 503, "for": "5m"}"#;
        let nine = format!(r#"{{"faults": [{}]}}"#, [fault; 9].join(","));
        assert!(resolved(&nine).unwrap_err().contains("at most 8"));
        let named = fault.replacen('{', r#"{"name": "a","#, 1);
        let twice = format!(r#"{{"faults": [{named}, {named}]}}"#);
        assert!(resolved(&twice).unwrap_err().contains("fault 2: another one is called `a`"));
    }
}
