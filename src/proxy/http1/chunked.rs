//! The chunked coding (RFC 9112 section 7.1): a strict decoder over slices, and the canonical encoder.
//!
//! Sizes are hexadecimal digits and nothing else; extensions are dropped and bounded; every line ends in CRLF. What
//! goes on is encoded anew, so that no odd byte of a chunk line reaches the next hop.
//!
//! Invariant: the decoder consumes exactly the bytes of one body, and never says "data" for a byte of framing.

/// Bytes of extensions in one body: they are allowed and useless, and without a limit a way to waste our time.
const MAX_EXTENSIONS: usize = 4 * 1024;
/// Digits of a size: 15 hexadecimal digits are past any body and cannot overflow.
const MAX_DIGITS: u8 = 15;
/// Bytes of a trailer section.
const MAX_TRAILERS: usize = 8 * 1024;

/// Where in a chunked body the decoder is.
#[derive(Debug, Clone)]
pub struct Decoder {
    state: State,
    extensions: usize,
    /// The trailer section with its empty line, once there is one with fields in it.
    trailers: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Inside a size, with this many digits so far.
    Size { value: u64, digits: u8 },
    /// Behind the `;` of a size.
    Extension { value: u64 },
    /// Behind the CR of a size line.
    SizeEnd { value: u64 },
    /// Inside data.
    Data { left: u64 },
    /// Behind data.
    DataCr,
    /// Behind the CR that ends data.
    DataLf,
    /// At the beginning of a trailer line.
    Trailer,
    /// Inside a trailer line.
    TrailerLine,
    /// Behind the CR of a trailer line.
    TrailerLf,
    /// Behind the CR of the empty line.
    EndLf,
    /// Behind the body.
    Done,
}

/// What the decoder found at the front of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `skip` bytes of framing, then `length` bytes of data.
    Data {
        /// Framing before the data.
        skip: usize,
        /// Data, as far as it is there.
        length: usize,
    },
    /// All of the input was framing; more is needed.
    More,
    /// `skip` bytes of framing, then the end of the body.
    End {
        /// Framing before the end.
        skip: usize,
    },
}

/// The coding was violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunked coding is violated")]
pub struct Malformed;

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder { state: State::Size { value: 0, digits: 0 }, extensions: 0, trailers: Vec::new() }
    }
}

impl Decoder {
    /// Looks at `input`; the caller then drops `skip` bytes and uses the data, telling by [`Decoder::took`] how much.
    ///
    /// # Errors
    /// When the coding is violated; the body is then lost.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Malformed> {
        for (at, byte) in input.iter().enumerate() {
            if let State::Data { left } = self.state {
                return Ok(Step::Data { skip: at, length: left.min((input.len() - at) as u64) as usize });
            }
            self.state = self.next(*byte)?;
            if self.state == State::Done {
                return Ok(Step::End { skip: at + 1 });
            }
        }
        Ok(if self.state == State::Done { Step::End { skip: 0 } } else { Step::More })
    }

    /// `n` bytes of the data last shown were used.
    pub fn took(&mut self, n: usize) {
        if let State::Data { left } = &mut self.state {
            *left -= n as u64;
            if *left == 0 {
                self.state = State::DataCr;
            }
        }
    }

    /// True behind the whole body.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer section with its empty line; empty if there are no trailers.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    fn next(&mut self, byte: u8) -> Result<State, Malformed> {
        Ok(match (self.state, byte) {
            (State::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < MAX_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { value, digits: 1.. }, b'\r') => State::SizeEnd { value },
            (State::Size { value, digits: 1.. }, b';') => self.extension(value)?,
            (State::Extension { value }, b'\r') => State::SizeEnd { value },
            (State::Extension { value }, b'\t' | b' '..=b'~' | 0x80..) => self.extension(value)?,
            (State::SizeEnd { value: 0 }, b'\n') => State::Trailer,
            (State::SizeEnd { value }, b'\n') => State::Data { left: value },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::Trailer, b'\r') => State::EndLf,
            (State::EndLf, b'\n') => {
                if !self.trailers.is_empty() {
                    self.trailers.extend_from_slice(b"\r\n");
                }
                State::Done
            }
            (State::TrailerLine, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => {
                self.trailers.extend_from_slice(b"\r\n");
                State::Trailer
            }
            (State::Trailer | State::TrailerLine, b'\t' | b' '..=b'~' | 0x80..)
                if self.trailers.len() < MAX_TRAILERS =>
            {
                self.trailers.push(byte);
                State::TrailerLine
            }
            _ => return Err(Malformed),
        })
    }

    fn extension(&mut self, value: u64) -> Result<State, Malformed> {
        self.extensions += 1;
        if self.extensions > MAX_EXTENSIONS { Err(Malformed) } else { Ok(State::Extension { value }) }
    }
}

/// Appends one chunk with `data`, which is not empty: an empty chunk would be the last one.
pub fn encode(data: &[u8], out: &mut Vec<u8>) {
    debug_assert!(!data.is_empty());
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut left = data.len();
    while left > 0 {
        at -= 1;
        digits[at] = b"0123456789abcdef"[left & 0xf];
        left >>= 4;
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// What ends a body, before its trailers and the empty line.
pub const LAST: &[u8] = b"0\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes `body`, given in pieces of at most `piece` bytes; what is left over comes back too.
    fn decode(body: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<u8>, usize), Malformed> {
        let (mut decoder, mut data, mut at) = (Decoder::default(), Vec::new(), 0);
        while at < body.len() {
            let input = &body[at..body.len().min(at + piece)];
            match decoder.step(input)? {
                Step::Data { skip, length } => {
                    data.extend_from_slice(&input[skip..skip + length]);
                    decoder.took(length);
                    at += skip + length;
                }
                Step::More => at += input.len(),
                Step::End { skip } => return Ok((data, decoder.trailers().to_vec(), body.len() - at - skip)),
            }
        }
        Err(Malformed)
    }

    #[test]
    fn bodies_are_read_to_their_exact_end() {
        type Case = (&'static [u8], &'static [u8], &'static [u8], usize);
        let table: &[Case] = &[
            (b"0\r\n\r\n", b"", b"", 0),
            (b"3\r\nabc\r\n0\r\n\r\nGET", b"abc", b"", 3),
            (b"00A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b"", 0),
            (b"1;a=\"b c\"\r\nx\r\n0;z\r\n\r\n", b"x", b"", 0),
            (b"1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n!", b"x", b"A: b\r\nC: d\r\n\r\n", 1),
        ];
        for (body, data, trailers, left) in table {
            for piece in 1..=body.len() {
                let decoded = decode(body, piece).unwrap();
                assert_eq!(decoded, (data.to_vec(), trailers.to_vec(), *left), "{}", body.escape_ascii());
            }
        }
    }

    #[test]
    fn whatever_another_parser_could_read_differently_is_refused() {
        let long_extension = [b"1;", &[b'x'; MAX_EXTENSIONS + 1][..], b"\r\nx\r\n0\r\n\r\n"].concat();
        let long_trailer = [b"0\r\nA: ", &[b'x'; MAX_TRAILERS + 1][..], b"\r\n\r\n"].concat();
        let table: &[&[u8]] = &[
            b"\r\n0\r\n\r\n",
            b"+1\r\nx\r\n0\r\n\r\n",
            b"0x1\r\nx\r\n0\r\n\r\n",
            b"1 \r\nx\r\n0\r\n\r\n",
            b" 1\r\nx\r\n0\r\n\r\n",
            b"1\nx\r\n0\r\n\r\n",
            b"1\r\nx\n0\r\n\r\n",
            b"1\r\nxy\r\n0\r\n\r\n",
            b"1\r\nx0\r\n\r\n",
            b"1\r\nx\r\n0\r\n\n",
            b"1\r\nx\r\n0\n\r\n",
            b"1;a\nb\r\nx\r\n0\r\n\r\n",
            b"1;a\0\r\nx\r\n0\r\n\r\n",
            b";\r\n\r\n",
            b"1000000000000000\r\nx",
            b"fffffffffffffffff\r\nx",
            b"g\r\n\r\n",
            b"0\r\nA: b\n\r\n",
            &long_extension,
            &long_trailer,
        ];
        for body in table {
            for piece in [1, 3, body.len()] {
                assert_eq!(decode(body, piece), Err(Malformed), "{}", body.escape_ascii());
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8), piece in 1usize..64) {
            let mut body = Vec::new();
            parts.iter().for_each(|part| encode(part, &mut body));
            body.extend_from_slice(LAST);
            body.extend_from_slice(b"\r\n");
            prop_assert_eq!(decode(&body, piece).unwrap(), (parts.concat(), Vec::new(), 0));
        }

        #[test]
        fn garbage_never_panics_and_never_yields_more_than_it_holds(body in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..64) {
            if let Ok((data, _, left)) = decode(&body, piece) {
                prop_assert!(data.len() + left < body.len());
            }
        }
    }
}
