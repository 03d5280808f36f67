//! The messages of gRPC's health protocol (`grpc.health.v1.Health/Check`), by hand: one text goes up, one number comes
//! back. A schema compiler and its runtime would be many times this file.
//!
//! A message travels behind five bytes: whether it is compressed, and its length. Inside, each field is a key (number
//! and kind) and a value; fields that are not known are passed over, as the format demands.
//!
//! Invariant: whatever comes back, reading it ends, and stays within what was given.

/// The path that is asked.
pub const PATH: &str = "/grpc.health.v1.Health/Check";
/// Bytes of an answer that are looked at: a status takes two, and five before them.
pub const LONGEST: usize = 1_024;

/// What a server says of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// Not known to it.
    Unknown,
    /// It serves.
    Serving,
    /// It does not.
    NotServing,
    /// It has no such service.
    ServiceUnknown,
    /// A number that the protocol does not know.
    Other(u64),
}

/// Why an answer cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It ends too early, or holds more than it says.
    #[error("its answer is cut off or overlong")]
    Length,
    /// It is compressed, which was not asked for.
    #[error("its answer is compressed")]
    Compressed,
    /// It is not made of fields.
    #[error("its answer is not a health status")]
    Field,
}

/// The question for a service; an empty name asks for the server as a whole.
pub fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 4);
    if !service.is_empty() {
        // Field 1, a text.
        message.push(0x0a);
        varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend_from_slice(&message);
    framed
}

/// What an answer says.
///
/// # Errors
/// When it is not one whole message of the protocol.
pub fn answer(framed: &[u8]) -> Result<Serving, Unreadable> {
    let (head, message) = framed.split_at_checked(5).ok_or(Unreadable::Length)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    if head[0] != 0 {
        return Err(Unreadable::Compressed);
    }
    if usize::try_from(length) != Ok(message.len()) {
        return Err(Unreadable::Length);
    }
    let mut rest = message;
    // A status of zero is left out on the wire.
    let mut status = 0;
    while !rest.is_empty() {
        let key = number(&mut rest)?;
        match (key >> 3, key & 7) {
            // Of a field that comes twice, the last counts.
            (1, 0) => status = number(&mut rest)?,
            (1, _) | (0, _) => return Err(Unreadable::Field),
            (_, 0) => drop(number(&mut rest)?),
            (_, 1) => skip(&mut rest, 8)?,
            (_, 2) => {
                let length = number(&mut rest)?;
                skip(&mut rest, length)?;
            }
            (_, 5) => skip(&mut rest, 4)?,
            _ => return Err(Unreadable::Field),
        }
    }
    Ok(match status {
        0 => Serving::Unknown,
        1 => Serving::Serving,
        2 => Serving::NotServing,
        3 => Serving::ServiceUnknown,
        other => Serving::Other(other),
    })
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Seven bits a byte, least first, at most ten bytes; bits past the 64th are dropped.
fn number(rest: &mut &[u8]) -> Result<u64, Unreadable> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (first, after) = rest.split_first().ok_or(Unreadable::Length)?;
        *rest = after;
        value |= u64::from(first & 0x7f).checked_shl(shift).unwrap_or(0);
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Unreadable::Field)
}

fn skip(rest: &mut &[u8], length: u64) -> Result<(), Unreadable> {
    let length = usize::try_from(length).map_err(|_| Unreadable::Length)?;
    *rest = rest.split_at_checked(length).ok_or(Unreadable::Length)?.1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], message].concat()
    }

    #[test]
    fn questions_are_framed_messages() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("t.T"), *b"\0\0\0\0\x05\x0a\x03t.T");
        let long = question(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn every_status_is_read_with_whatever_is_around_it() {
        let table: [(&[u8], Serving); 9] = [
            (b"", Serving::Unknown),
            (b"\x08\x00", Serving::Unknown),
            (b"\x08\x01", Serving::Serving),
            (b"\x08\x02", Serving::NotServing),
            (b"\x08\x03", Serving::ServiceUnknown),
            (b"\x08\x96\x01", Serving::Other(150)),
            (b"\x08\x02\x08\x01", Serving::Serving),
            (b"\x12\x03abc\x08\x01\x1d\0\0\0\0\x21\0\0\0\0\0\0\0\0\x28\x07", Serving::Serving),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Serving::Other(u64::MAX)),
        ];
        for (message, serving) in table {
            assert_eq!(answer(&framed(message)), Ok(serving), "{message:?}");
        }
    }

    #[test]
    fn what_is_no_answer_says_why() {
        let table: [(&[u8], Unreadable); 11] = [
            (b"", Unreadable::Length),
            (b"\0\0\0\0", Unreadable::Length),
            (b"\0\0\0\0\x03\x08\x01", Unreadable::Length),
            (b"\0\0\0\0\x01\x08\x01", Unreadable::Length),
            (b"\0\xff\xff\xff\xff\x08\x01", Unreadable::Length),
            (b"\x01\0\0\0\x02\x08\x01", Unreadable::Compressed),
            (b"\0\0\0\0\x01\x08", Unreadable::Length),
            (b"\0\0\0\0\x03\x0a\x05a", Unreadable::Field),
            (b"\0\0\0\0\x02\x12\x05", Unreadable::Length),
            (b"\0\0\0\0\x01\x0b", Unreadable::Field),
            (b"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Unreadable::Field),
        ];
        for (bytes, error) in table {
            assert_eq!(answer(bytes), Err(error), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(message in prop::collection::vec(any::<u8>(), 0..250), raw in any::<[u8; 9]>()) {
            let _ = answer(&framed(&message));
            let _ = answer(&raw);
        }

        #[test]
        fn a_question_holds_its_text(service in "[a-z.]{0,200}") {
            let framed = question(&service);
            prop_assert!(framed.ends_with(service.as_bytes()));
            prop_assert_eq!(framed[1..5].to_vec(), ((framed.len() - 5) as u32).to_be_bytes().to_vec());
        }
    }
}
