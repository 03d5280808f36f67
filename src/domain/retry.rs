//! Retries: whether a failed attempt may be repeated without doing something twice.
//!
//! A request may go out again if nothing of it can have been processed (it was never written), or if it is
//! idempotent (RFC 9110 section 9.2.2), carries no body that was already used up, and no byte of an answer
//! came. A budget keeps retries a small share of requests, so that they cannot multiply an outage.
//!
//! Invariant: a request whose method is not idempotent is never repeated once a byte of it may have left.

/// What is known of an attempt that failed before its response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Not a byte of the request left us.
    pub unsent: bool,
    /// It went out on a connection that had served an earlier request, which may have been closing.
    pub reused: bool,
    /// The method may be repeated by its definition.
    pub idempotent: bool,
    /// There is a body that cannot be read again.
    pub body_spent: bool,
}

/// True if the attempt may be repeated. Budgets and counts are the caller's.
pub fn may_repeat(attempt: Attempt) -> bool {
    !attempt.body_spent && (attempt.unsent || (attempt.reused && attempt.idempotent))
}

/// True for methods whose repetition has the effect of one (RFC 9110 section 9.2.2).
pub fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
}

/// A retry budget: each request deposits a share of a retry, each retry withdraws one.
#[derive(Clone, Debug)]
pub struct Budget {
    balance: u32,
}

/// One retry, in the basis points that deposits are made in.
const RETRY: u32 = 10_000;
/// Retries that can be saved up: enough for a burst of stale connections, too few to hurt.
const RESERVE: u32 = 10 * RETRY;

impl Default for Budget {
    /// Starts full: the first requests after a start may need it most.
    fn default() -> Budget {
        Budget { balance: RESERVE }
    }
}

impl Budget {
    /// A request was made; `share` of it is saved, in basis points.
    pub fn deposit(&mut self, share: u16) {
        self.balance = (self.balance + u32::from(share)).min(RESERVE);
    }

    /// Takes one retry out, or says no.
    pub fn withdraw(&mut self) -> bool {
        let enough = self.balance >= RETRY;
        if enough {
            self.balance -= RETRY;
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_happen_twice_is_repeated() {
        let table = [
            // unsent, reused, idempotent, body_spent -> repeat
            ((true, false, false, false), true),
            ((true, true, false, true), false),
            ((false, true, true, false), true),
            ((false, true, true, true), false),
            ((false, true, false, false), false),
            ((false, false, true, false), false),
        ];
        for ((unsent, reused, idempotent, body_spent), expected) in table {
            let attempt = Attempt { unsent, reused, idempotent, body_spent };
            assert_eq!(may_repeat(attempt), expected, "{attempt:?}");
        }
    }

    #[test]
    fn the_budget_runs_dry_and_refills_by_its_share() {
        let mut budget = Budget::default();
        assert_eq!((0..20).filter(|_| budget.withdraw()).count(), 10);
        (0..9).for_each(|_| budget.deposit(1_000));
        assert!(!budget.withdraw());
        budget.deposit(1_000);
        assert!(budget.withdraw());
        assert!(!budget.withdraw());
    }
}
