//! What an endpoint reports about itself as JSON, as far as one value of it.
//!
//! A serde border file. Only what stands for a text is taken: a text, a number, or a truth.

use serde_json::Value;

/// The text at a JSON pointer (RFC 6901); `None` if there is none, an error if the body is not JSON.
pub(super) fn read(body: &[u8], pointer: &str) -> Option<Result<String, ()>> {
    let Ok(document) = serde_json::from_slice::<Value>(body) else { return Some(Err(())) };
    match document.pointer(pointer)? {
        Value::String(text) => Some(Ok(text.clone())),
        Value::Number(number) => Some(Ok(number.to_string())),
        Value::Bool(truth) => Some(Ok(truth.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_is_found_by_its_pointer() {
        let body = br#"{"build": {"version": "2.1", "number": 17, "a/b": "x", "list": ["p", "q"]}, "ok": true}"#;
        let table = [
            ("/build/version", Some(Ok("2.1"))),
            ("/build/number", Some(Ok("17"))),
            ("/build/a~1b", Some(Ok("x"))),
            ("/build/list/1", Some(Ok("q"))),
            ("/ok", Some(Ok("true"))),
            ("/build", None),
            ("/build/missing", None),
            ("/build/list/9", None),
            ("", None),
        ];
        for (pointer, expected) in table {
            let expected = expected.map(|found: Result<&str, ()>| found.map(str::to_owned));
            assert_eq!(read(body, pointer), expected, "{pointer}");
        }
        for body in [&b""[..], b"v2", b"{", b"\xff", &b"[".repeat(100_000)] {
            assert_eq!(read(body, "/a"), Some(Err(())));
        }
        assert_eq!(read(b"\"v2\"", ""), Some(Ok("v2".to_owned())));
    }
}
