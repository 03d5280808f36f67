//! The chunked decoder against a second, simpler one, however its input is cut; and what is encoded is decoded again.

#![no_main]

mod second;

use libfuzzer_sys::fuzz_target;
use second::Chunked;
use teal::proxy::http1::chunked::{Decoder, LAST, Step, encode};

/// Our limits, which the second decoder does not know: inputs beyond them are only run.
const LIMIT: usize = 4 * 1024;

fuzz_target!(|input: &[u8]| {
    let Some((piece, body)) = input.split_first() else { return };
    let piece = usize::from(*piece).max(1);
    let ours = decode(body, piece);
    if body.len() < LIMIT {
        assert_eq!(ours, second::chunked(body), "pieces of {piece}: {}", body.escape_ascii());
    }
    let mut encoded = Vec::new();
    body.chunks(piece).for_each(|data| encode(data, &mut encoded));
    encoded.extend_from_slice(LAST);
    encoded.extend_from_slice(b"\r\n");
    let whole = Chunked::Whole { data: body.to_vec(), trailers: Vec::new(), length: encoded.len() };
    assert_eq!(decode(&encoded, 1 + body.len() % 7), whole);
    assert_eq!(second::chunked(&encoded), whole);
});

fn decode(body: &[u8], piece: usize) -> Chunked {
    let (mut decoder, mut data, mut at) = (Decoder::default(), Vec::new(), 0);
    while at < body.len() {
        let input = &body[at..body.len().min(at + piece)];
        match decoder.step(input) {
            Ok(Step::Data { skip, length }) => {
                assert!(length > 0 && skip + length <= input.len());
                data.extend_from_slice(&input[skip..skip + length]);
                decoder.took(length);
                at += skip + length;
            }
            Ok(Step::More) => at += input.len(),
            Ok(Step::End { skip }) => {
                assert!(decoder.is_done());
                return Chunked::Whole { data, trailers: decoder.trailers().to_vec(), length: at + skip };
            }
            Err(_) => return Chunked::Wrong,
        }
    }
    Chunked::Part
}
