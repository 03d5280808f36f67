//! Where a client that came over plain HTTP is sent: the same resource over https.
//!
//! Invariant: a location is one line of printable ASCII that begins with `https://`, a host, and an origin-form target.

/// The `Location` for a request with this `Host` (its port is replaced) and target, to https at `port`; `None` if
/// host or target cannot be part of one, which is the client's fault.
pub fn to_https(host: &str, target: &str, port: u16) -> Option<String> {
    let name = without_port(host);
    let of_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]:!$&'()*+,;=%".contains(&byte);
    let fits = !name.is_empty() && name.bytes().all(of_host);
    // `*` and an authority have no https twin; what is not printable has no place in a header.
    if !fits || !target.starts_with('/') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    match port {
        443 => Some(format!("https://{name}{target}")),
        port => Some(format!("https://{name}:{port}{target}")),
    }
}

fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        // The colons inside of brackets belong to an IPv6 address.
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_its_host_and_target() {
        let table = [
            ("shop.test", "/", 443, Some("https://shop.test/")),
            ("shop.test:8080", "/a?b=c", 443, Some("https://shop.test/a?b=c")),
            ("shop.test:8080", "/a", 8443, Some("https://shop.test:8443/a")),
            ("[::1]:80", "/", 8443, Some("https://[::1]:8443/")),
            ("[::1]", "/", 443, Some("https://[::1]/")),
            ("shop.test", "//evil.test/x", 443, Some("https://shop.test//evil.test/x")),
            ("shop.test:", "/", 443, Some("https://shop.test/")),
            ("", "/", 443, None),
            (":80", "/", 443, None),
            ("user@evil.test", "/", 443, None),
            ("a/b", "/", 443, None),
            ("shop.test", "*", 443, None),
            ("shop.test", "http://evil.test/", 443, None),
            ("shop.test", "/a b", 443, None),
            ("shop.test", "/a\r\nset-cookie: x", 443, None),
            ("sh\u{f6}p.test", "/", 443, None),
        ];
        for (host, target, port, expected) in table {
            assert_eq!(to_https(host, target, port).as_deref(), expected, "{host} {target}");
        }
    }
}
