//! From the JSON of requests to the control plane's plain types: what is said must make sense.
//!
//! Invariant: what is returned as good satisfies the invariants of `domain::split` and `domain::rollout::plan`.

use std::fmt::Display;
use std::time::Duration;

use crate::control::admin::wire::{
    Action, Analyze, Bounds, Deploy, OnInconclusive, Plan, Rollback, Step, Verb, Weights,
};
use crate::control::command::{self, Act, Refusal};
use crate::domain::rollout::plan::{self, DEFAULT_DWELL, MAX_STEPS, PlanProblem, WAIT};
use crate::domain::split::Share;

/// A reason is a sentence or two: it is kept in the history for ever.
const MAX_REASON: usize = 500;

/// The dwell of an analysis that names only a deadline.
pub(super) fn default_dwell() -> String {
    humantime::format_duration(DEFAULT_DWELL).to_string()
}

impl Weights {
    /// The shares of `pools`, as far as they get anything said about them.
    ///
    /// # Errors
    /// When a pool is unknown, a share is none, or the sum is not 100 %.
    pub fn resolve(&self, pools: &[&str], active: &str) -> Result<Vec<(String, Share)>, Refusal> {
        let mut shares = Vec::with_capacity(pools.len());
        for (pool, share) in &self.weights.0 {
            if !pools.contains(&pool.as_str()) {
                return Err(unknown_pool(pool, pools));
            }
            shares.push((pool.clone(), share_of(share).map_err(|why| invalid(format!("pool `{pool}`: {why}")))?));
        }
        let sum: u32 = shares.iter().map(|(_, share)| u32::from(share.basis_points())).sum();
        let left_out: Vec<&&str> = pools.iter().filter(|pool| self.weights.find(pool).is_none()).collect();
        if left_out == [&active] && sum <= 10_000 {
            let taken = u16::try_from(sum).ok().and_then(Share::from_basis_points).unwrap_or(Share::ALL);
            shares.push((active.to_owned(), taken.rest()));
        } else if sum != 10_000 {
            let sum = format!("{}.{:02}%", sum / 100, sum % 100);
            return Err(invalid(format!(
                "the weights sum to {sum}, not 100%; only `{active}` may be left to take the rest"
            )));
        }
        Ok(shares)
    }

    /// True if the active pool's share is left for us to work out, so that it must not change meanwhile.
    pub fn leaves_out(&self, active: &str) -> bool {
        self.weights.find(active).is_none()
    }
}

impl Rollback {
    /// The reason, or nothing.
    ///
    /// # Errors
    /// When it is too long or not printable.
    pub fn resolve(self) -> Result<String, Refusal> {
        reason(self.reason)
    }
}

impl Deploy {
    /// The rollout to start.
    ///
    /// # Errors
    /// When the plan is none.
    pub fn resolve(self, service: String, key: Option<String>, by: String) -> Result<command::Deploy, Refusal> {
        let plan = self.plan.as_ref().map(Plan::resolve).transpose()?;
        Ok(command::Deploy { service, to: self.to, plan, key, by })
    }
}

impl Action {
    /// What to do.
    ///
    /// # Errors
    /// When the reason is too long or not printable.
    pub fn resolve(self) -> Result<Act, Refusal> {
        let reason = reason(self.reason)?;
        Ok(match self.action {
            Verb::Pause => Act::Pause,
            Verb::Resume | Verb::Approve => Act::Resume,
            Verb::Promote => Act::Promote,
            Verb::Abort => Act::Abort { reason },
        })
    }
}

impl Plan {
    /// The plan; a last weight below 100 % is followed by one of 100 %.
    ///
    /// # Errors
    /// When there are no steps or too many, weights do not rise, or a wait is out of bounds.
    pub fn resolve(&self) -> Result<plan::Plan, Refusal> {
        let at = |index: usize, why: &dyn Display| invalid(format!("step {}: {why}", index + 1));
        let read = |(index, step)| step_of(step).map_err(|why| at(index, &why));
        // What is too long is not read to its end.
        let steps = self.steps.iter().take(MAX_STEPS + 1).enumerate().map(read).collect::<Result<_, _>>()?;
        let on_inconclusive = match self.on_inconclusive {
            OnInconclusive::Hold => plan::OnInconclusive::Hold,
            OnInconclusive::Rollback => plan::OnInconclusive::Rollback,
        };
        plan::Plan::new(steps, on_inconclusive).map_err(|(index, problem)| match problem {
            PlanProblem::NoSteps | PlanProblem::TooLong(_) => invalid(problem.to_string()),
            _ => at(index, &problem),
        })
    }
}

fn step_of(step: &Step) -> Result<plan::Step, String> {
    Ok(match step {
        Step::Weight(share) => plan::Step::Weight(share_of(share)?),
        Step::Analyze(Analyze::Dwell(dwell)) => plan::Step::Analyze { dwell: wait(dwell)?, deadline: None },
        Step::Analyze(Analyze::Bounded(Bounds { dwell, deadline })) => {
            plan::Step::Analyze { dwell: wait(dwell)?, deadline: deadline.as_deref().map(wait).transpose()? }
        }
        Step::Pause(until) if until == "approve" => plan::Step::Pause(plan::Pause::UntilApproved),
        Step::Pause(time) => plan::Step::Pause(plan::Pause::For(wait(time)?)),
    })
}

fn share_of(text: &str) -> Result<Share, String> {
    text.parse().map_err(|why| format!("{text:?} is no share: {why}"))
}

fn wait(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text)
        .map_err(|why| format!("{text:?} is no duration such as 30s, 2m or 1h 30m: {why}"))?;
    if WAIT.contains(&time) { Ok(time) } else { Err(format!("{text:?} is not between 100ms and 30 days")) }
}

fn reason(text: Option<String>) -> Result<String, Refusal> {
    let text = text.unwrap_or_default();
    if text.len() > MAX_REASON || text.contains(char::is_control) {
        return Err(invalid(format!("a reason is one line of at most {MAX_REASON} bytes")));
    }
    Ok(text)
}

fn unknown_pool(name: &str, pools: &[&str]) -> Refusal {
    let near = |pool: &&&str| strsim::osa_distance(name, pool) <= 1 + pool.len() / 4;
    let nearest = pools.iter().filter(near).min_by_key(|pool| strsim::osa_distance(name, pool));
    // What is echoed and compared is short: a name of 64 KiB is neither.
    let name: String = name.chars().take(64).collect();
    Refusal::Unknown { kind: "pool", name, suggestion: nearest.map(|pool| (*pool).to_owned()) }
}

fn invalid(why: String) -> Refusal {
    Refusal::Invalid(why)
}

#[cfg(test)]
mod tests;
