//! HTTP/1.1 on both sides: the own wire path (RFC 9112).
//!
//! [`parse`], [`framing`] and [`chunked`] are pure and see byte slices only; [`body`] tracks where a message ends;
//! [`client`] (with `relay`) and [`upstream`] hold the connections. A head is parsed once into offsets, decided upon, and written
//! anew: no byte of a message's framing is ever passed through.
//!
//! Invariant: what two parsers could read differently is refused, in requests and in responses.

pub mod body;
pub mod chunked;
pub mod client;
pub mod framing;
pub mod parse;
mod relay;
pub mod upstream;

/// Appends a field line.
fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number without formatting machinery.
fn decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
