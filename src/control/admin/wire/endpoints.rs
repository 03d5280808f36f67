//! Endpoints one by one, and orders that take them out of use: the JSON of `.../endpoints` and `.../pools/{p}`.
//!
//! A serde border file like its parent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::control::command::{self, Refusal};

/// The longest deadline that a drain may name.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// Body of `PUT /v1/services/{s}/pools/{p}` and `PUT /v1/services/{s}/pools/{p}/endpoints/{e}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// `drained` or `in_use`.
    pub state: State,
    /// Only with `drained`: what is in flight then is cut. Missing: it is waited for, however long that takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// Even if a pool that has traffic is left without an endpoint.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// Whether something is to be in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is to get no requests.
    Drained,
    /// It is to get requests.
    InUse,
}

/// The answer: every worker has taken the order up, and the journal holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// The service.
    pub service: String,
    /// The pool.
    pub pool: String,
    /// The address; `null` for all of the pool.
    pub endpoint: Option<String>,
    /// `in_use`, `draining` (requests are in flight there), `drained`.
    pub state: String,
    /// Requests in flight there now.
    pub in_flight: u64,
    /// The table's version from which on nothing is sent there.
    pub version: u64,
    /// Until every worker had taken it up, in microseconds.
    pub acknowledged_us: u64,
}

/// `GET /v1/services/{s}/endpoints` and `GET /v1/services/{s}/pools/{p}/endpoints`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The service.
    pub service: String,
    /// Pool by pool, in the order of the file.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its pool.
    pub pool: String,
    /// As it is configured: by this it is named in orders.
    pub address: String,
    /// Where that was found; `null` if it has not been.
    pub target: Option<String>,
    /// Its weight beside the others of its priority.
    pub weight: u16,
    /// Its priority; a lower one is used first.
    pub priority: u8,
    /// `in_use`, `draining` (out of use, and requests are in flight), `drained`.
    pub state: String,
    /// What stands against giving it requests: `unresolved`, `unhealthy`, `draining`...
    pub obstacles: Vec<String>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Requests in flight.
    pub in_flight: u64,
    /// Connections open to it.
    pub connections: u64,
}

impl Use {
    /// The order.
    ///
    /// # Errors
    /// When the deadline is none, or makes no sense.
    pub fn resolve(
        self,
        service: String,
        pool: String,
        endpoint: Option<String>,
        by: String,
    ) -> Result<command::Drain, Refusal> {
        let to = match self.state {
            State::Drained => command::Use::Drained,
            State::InUse => command::Use::InUse,
        };
        let deadline = self.deadline.as_deref().map(deadline).transpose().map_err(Refusal::Invalid)?;
        if deadline.is_some() && to == command::Use::InUse {
            return Err(Refusal::Invalid("a deadline is for `drained`: what is in use is not waited for".to_owned()));
        }
        Ok(command::Drain { service, pool, endpoint, to, deadline, force: self.force, by })
    }
}

fn deadline(text: &str) -> Result<Duration, String> {
    let time =
        humantime::parse_duration(text).map_err(|why| format!("{text:?} is no duration such as 30s or 5m: {why}"))?;
    if time <= LONGEST { Ok(time) } else { Err(format!("{text:?} is more than a day")) }
}

fn state(is_draining: bool, in_flight: u64) -> String {
    match (is_draining, in_flight) {
        (false, _) => "in_use",
        (true, 0) => "drained",
        (true, _) => "draining",
    }
    .to_owned()
}

impl From<command::Drained> for Used {
    fn from(drained: command::Drained) -> Used {
        let command::Drained { service, part, to, in_flight, version, acknowledged_us } = drained;
        let state = state(to == command::Use::Drained, in_flight);
        Used { service, pool: part.pool, endpoint: part.endpoint, state, in_flight, version, acknowledged_us }
    }
}

impl From<command::EndpointNow> for Endpoint {
    fn from(now: command::EndpointNow) -> Endpoint {
        Endpoint {
            state: state(now.is_draining, now.in_flight),
            pool: now.pool,
            address: now.address,
            target: now.target,
            weight: now.rank.weight,
            priority: now.rank.priority,
            obstacles: now.obstacles.into_iter().map(str::to_owned).collect(),
            reason: now.reason,
            in_flight: now.in_flight,
            connections: now.connections,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str) -> Result<command::Drain, String> {
        let order: Use = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let order = order.resolve("shop".to_owned(), "green".to_owned(), None, "ann".to_owned());
        order.map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn orders_say_what_they_mean_or_are_refused() {
        let drain = resolved(r#"{"state": "drained", "deadline": "30s", "force": true}"#).unwrap();
        assert_eq!(
            (drain.to, drain.deadline, drain.force),
            (command::Use::Drained, Some(Duration::from_secs(30)), true)
        );
        let back = resolved(r#"{"state": "in_use"}"#).unwrap();
        assert_eq!((back.to, back.deadline, back.force), (command::Use::InUse, None, false));
        for (text, why) in [
            (r#"{"state": "gone"}"#, "expected `drained` or `in_use`"),
            (r#"{}"#, "missing field `state`"),
            (r#"{"state": "drained", "now": true}"#, "unknown field `now`"),
            (r#"{"state": "drained", "deadline": "soon"}"#, "is no duration"),
            (r#"{"state": "drained", "deadline": "2days"}"#, "more than a day"),
            (r#"{"state": "in_use", "deadline": "1s"}"#, "a deadline is for `drained`"),
        ] {
            let refused = resolved(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
