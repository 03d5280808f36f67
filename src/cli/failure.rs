//! How a verb ends: the exit codes, and what went wrong when it failed.
//!
//! Invariant: every failure is one sentence for people and one code for scripts.

use std::process::ExitCode;

use crate::control::admin::wire::Problem;

/// The process status. Scripts rely on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It is not.
    Failed = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// The rollout was rolled back.
    RolledBack = 3,
    /// It took longer than allowed.
    Timeout = 4,
    /// Not possible in the present state, or somebody was faster.
    Conflict = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a verb failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// The arguments contradict each other or name what is not there.
    #[error("{0}")]
    Usage(String),
    /// Teal refused, and said why.
    #[error("{}", explained(.0))]
    Problem(Box<Problem>),
    /// Nobody listens at the address.
    #[error("cannot reach teal at {0}: is it running?")]
    Refused(String),
    /// The address cannot be reached for another cause.
    #[error("cannot reach teal at {admin}: {cause}")]
    Unreachable {
        /// The address.
        admin: String,
        /// In a few words.
        cause: String,
    },
    /// The connection broke in the middle.
    #[error("the connection to teal at {admin} broke: {cause}")]
    Broken {
        /// The address.
        admin: String,
        /// In a few words.
        cause: String,
    },
    /// What came is not what Teal of this version would say.
    #[error("no usable answer from teal at {admin}: {cause}")]
    Garbled {
        /// The address.
        admin: String,
        /// In a few words.
        cause: String,
    },
    /// It took longer than allowed.
    #[error("{0}")]
    Timeout(String),
    /// Not possible in the present state.
    #[error("{0}")]
    Conflict(String),
    /// Something of this machine.
    #[error("{0}")]
    Local(String),
    /// Standard output was closed: nobody reads any more.
    #[error("standard output is closed")]
    Closed,
}

impl Failure {
    /// The process status it leads to.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Failure::Usage(_) => Exit::Usage,
            Failure::Timeout(_) => Exit::Timeout,
            Failure::Conflict(_) => Exit::Conflict,
            Failure::Problem(problem) => match problem.status {
                409 | 412 => Exit::Conflict,
                408 | 504 => Exit::Timeout,
                _ => Exit::Failed,
            },
            _ => Exit::Failed,
        }
    }

    /// True if asking again a little later may help: Teal may be restarting.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Failure::Refused(_) | Failure::Unreachable { .. } | Failure::Broken { .. } | Failure::Timeout(_) => true,
            Failure::Problem(problem) => matches!(problem.status, 502..=504),
            _ => false,
        }
    }

    /// A stable word, for failures that are not Teal's own problems.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Failure::Usage(_) => "usage",
            Failure::Refused(_) | Failure::Unreachable { .. } => "unreachable",
            Failure::Broken { .. } => "broken",
            Failure::Garbled { .. } => "garbled",
            Failure::Timeout(_) => "timeout",
            Failure::Conflict(_) => "conflict",
            Failure::Problem(_) | Failure::Local(_) | Failure::Closed => "failed",
        }
    }
}

fn explained(problem: &Problem) -> String {
    let said = if problem.detail.is_empty() { &problem.title } else { &problem.detail };
    match problem.status {
        401 => format!("{said} (give the token with TEAL_TOKEN or --token)"),
        _ => said.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16) -> Failure {
        Failure::Problem(Box::new(Problem {
            problem_type: "about:blank".to_owned(),
            title: "Title".to_owned(),
            status,
            detail: "the detail".to_owned(),
            instance: None,
            code: "code".to_owned(),
            suggestion: None,
            current_epoch: None,
        }))
    }

    #[test]
    fn every_failure_has_its_exit_code() {
        let text = String::new;
        let table = [
            (problem(400), 1),
            (problem(401), 1),
            (problem(404), 1),
            (problem(408), 4),
            (problem(409), 5),
            (problem(412), 5),
            (problem(500), 1),
            (problem(503), 1),
            (problem(504), 4),
            (Failure::Usage(text()), 2),
            (Failure::Refused(text()), 1),
            (Failure::Unreachable { admin: text(), cause: text() }, 1),
            (Failure::Broken { admin: text(), cause: text() }, 1),
            (Failure::Garbled { admin: text(), cause: text() }, 1),
            (Failure::Timeout(text()), 4),
            (Failure::Conflict(text()), 5),
            (Failure::Local(text()), 1),
            (Failure::Closed, 1),
        ];
        for (failure, code) in table {
            assert_eq!(failure.exit() as u8, code, "{failure:?}");
        }
        assert_eq!((Exit::Done as u8, Exit::RolledBack as u8), (0, 3));
    }

    #[test]
    fn a_missing_token_is_explained() {
        assert_eq!(problem(401).to_string(), "the detail (give the token with TEAL_TOKEN or --token)");
        assert_eq!(problem(409).to_string(), "the detail");
        assert_eq!(
            Failure::Refused("http://x:1".to_owned()).to_string(),
            "cannot reach teal at http://x:1: is it running?"
        );
    }
}
