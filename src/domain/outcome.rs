//! Outcomes: what an attempt turned out to be, for everybody who keeps count of endpoints and pools by it.
//!
//! An attempt has one outcome when its response head comes, and a second one if it fails after that. What the client
//! breaks off has none: it says nothing about the endpoint.
//!
//! Invariant: an outcome speaks of the upstream only.

/// Why an attempt failed before its answer was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Failure {
    /// No endpoint could be given the request.
    NoEndpoint,
    /// The connection could not be opened.
    Connect,
    /// The connection broke before the response head.
    Reset,
    /// No response head in time.
    Timeout,
    /// The response was cut off.
    Truncated,
    /// What came is not a response, or says where it ends in two ways.
    Malformed,
}

/// What an attempt turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A response head came.
    Answered {
        /// Its status.
        status: u16,
        /// Dispatch to response head, in microseconds.
        latency: u64,
    },
    /// It failed, before the head or after it.
    Failed(Failure),
}

impl Failure {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Failure; 6] = [
        Failure::NoEndpoint,
        Failure::Connect,
        Failure::Reset,
        Failure::Timeout,
        Failure::Truncated,
        Failure::Malformed,
    ];

    /// The kind's name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Failure::NoEndpoint => "no_endpoint",
            Failure::Connect => "connect",
            Failure::Reset => "reset",
            Failure::Timeout => "timeout",
            Failure::Truncated => "truncated",
            Failure::Malformed => "malformed",
        }
    }
}

impl Outcome {
    /// The upstream failed, or says itself that it did.
    pub fn is_bad(self) -> bool {
        match self {
            Outcome::Answered { status, .. } => status >= 500,
            Outcome::Failed(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_numbered_in_their_order_and_named_apart() {
        for (at, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, at);
            assert_eq!(Failure::ALL.iter().filter(|other| other.name() == failure.name()).count(), 1);
        }
    }

    #[test]
    fn only_what_the_upstream_did_wrong_is_bad() {
        let answered = |status| Outcome::Answered { status, latency: 1 }.is_bad();
        assert_eq!([101, 200, 404, 429, 500, 503].map(answered), [false, false, false, false, true, true]);
        assert!(Failure::ALL.into_iter().all(|failure| Outcome::Failed(failure).is_bad()));
    }
}
