//! The first bytes of a plain connection: HTTP/2 by prior knowledge, or HTTP/1.1 (RFC 9113 section 3.4).
//!
//! Invariant: no HTTP/1.1 request that could be accepted begins with the preface.

/// What every HTTP/2 client sends first.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// More bytes will tell.
    Undecided,
    /// HTTP/1.0 or HTTP/1.1, or nothing known.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Decides by everything that came so far.
pub fn spoken(bytes: &[u8]) -> Spoken {
    let compared = bytes.len().min(PREFACE.len());
    match bytes[..compared] == PREFACE[..compared] {
        false => Spoken::Http1,
        true if compared < PREFACE.len() => Spoken::Undecided,
        true => Spoken::Http2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_decide() {
        let table: &[(&[u8], Spoken)] = &[
            (b"", Spoken::Undecided),
            (b"P", Spoken::Undecided),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Spoken::Undecided),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Spoken::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04", Spoken::Http2),
            (b"GET / HTTP/1.1\r\n", Spoken::Http1),
            (b"POST", Spoken::Http1),
            (b"PRI * HTTP/1.1\r\n", Spoken::Http1),
            (b"PRI * HTTP/2.0\n\nSM\n\n", Spoken::Http1),
            (b"pri", Spoken::Http1),
            (b"\r\nPRI", Spoken::Http1),
        ];
        for (bytes, expected) in table {
            assert_eq!(spoken(bytes), *expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_decision_never_changes_with_more_bytes() {
        for cut in 0..PREFACE.len() {
            assert_eq!(spoken(&PREFACE[..cut]), Spoken::Undecided);
            let mut broken = PREFACE[..=cut].to_vec();
            broken[cut] ^= 0x20;
            assert_eq!(spoken(&broken), Spoken::Http1);
        }
    }
}
