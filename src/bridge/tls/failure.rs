//! How handshakes with clients end, for counting.
//!
//! Invariant: every accepted connection of a TLS listener is counted once, as full, resumed or one kind of failure.

use crate::bridge::counters::Tally;

/// Why there was no handshake: for counting, not for deciding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It took too long.
    TimedOut,
    /// The client went away.
    Closed,
    /// HTTP without TLS came; it was answered 400.
    PlainHttp,
    /// Something else came.
    NotTls,
    /// No version, cipher or protocol in common.
    Incompatible,
    /// The client's certificate is missing or is not trusted.
    ClientCertificate,
    /// The client refused: usually it does not trust our certificate.
    Refused,
    /// The client broke the rules of the protocol, or anything rarer.
    Broken,
}

impl Failure {
    /// All of them, in the order of their numbers.
    pub const ALL: [Failure; 8] = [
        Failure::TimedOut,
        Failure::Closed,
        Failure::PlainHttp,
        Failure::NotTls,
        Failure::Incompatible,
        Failure::ClientCertificate,
        Failure::Refused,
        Failure::Broken,
    ];

    /// A stable word for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Failure::TimedOut => "timed_out",
            Failure::Closed => "closed",
            Failure::PlainHttp => "plain_http",
            Failure::NotTls => "not_tls",
            Failure::Incompatible => "incompatible",
            Failure::ClientCertificate => "client_certificate",
            Failure::Refused => "refused",
            Failure::Broken => "broken",
        }
    }
}

/// One worker's handshakes with clients.
#[derive(Debug, Default)]
pub struct Handshakes {
    /// From nothing.
    pub full: Tally,
    /// From an earlier session.
    pub resumed: Tally,
    /// Without success, by the number of the [`Failure`].
    pub failed: [Tally; Failure::ALL.len()],
}

impl Handshakes {
    /// Counts one: whether it was resumed, or why it failed.
    pub fn note(&self, end: Result<bool, Failure>) {
        match end {
            Ok(false) => self.full.add(1),
            Ok(true) => self.resumed.add(1),
            Err(failure) => self.failed[failure as usize].add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_has_its_own_number_and_name() {
        let handshakes = Handshakes::default();
        for (number, failure) in Failure::ALL.into_iter().enumerate() {
            handshakes.note(Err(failure));
            assert_eq!((failure as usize, handshakes.failed[number].read()), (number, 1));
            assert_eq!(Failure::ALL.iter().filter(|other| other.name() == failure.name()).count(), 1);
        }
    }
}
