//! Routing: which service a request belongs to, and which override (if any) beats the split.
//!
//! Decisions see a request through [`RequestView`], never through a wire library's types, so that every
//! wire path feeds the same rules. Hosts are matched exactly first, then by the longest wildcard, then
//! "any host"; inside a host the longest path prefix on a segment border wins.
//!
//! Invariant: two services can never both be the best match; the ambiguity is refused when the router is built.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

/// What routing may know of a request head.
pub trait RequestView {
    /// The method token, e.g. `GET`.
    fn method(&self) -> &str;
    /// The path without query, beginning with `/` (or `*` for `OPTIONS *`).
    fn path(&self) -> &str;
    /// The host the client asked for, without port, as sent.
    fn host(&self) -> &str;
    /// The first value of a header, by lower-case name; `None` if absent or not visible ASCII.
    fn header(&self, name: &str) -> Option<&str>;
    /// The client's address as the proxy trusts it.
    fn client(&self) -> IpAddr;
}

/// A host to match: `shop.example.com`, `*.example.com`, lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this name.
    Exact(String),
    /// Any name below this suffix; held without the `*`, with the dot: `.example.com`.
    Below(String),
}

/// Why a text is not a host pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a host is a name such as shop.example.com, or *.example.com; no scheme, port or path")]
pub struct InvalidHost;

impl std::str::FromStr for HostPattern {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<HostPattern, InvalidHost> {
        let (wild, name) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let bracketed = name.starts_with('[') && name.ends_with(']') && !wild;
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        let v6 = bracketed && name[1..name.len() - 1].parse::<std::net::Ipv6Addr>().is_ok();
        let labels = !name.split('.').any(str::is_empty);
        if name.len() > 253 || !(v6 || (plain && labels)) {
            return Err(InvalidHost);
        }
        let name = name.to_ascii_lowercase();
        Ok(if wild { HostPattern::Below(format!(".{name}")) } else { HostPattern::Exact(name) })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(name) => f.write_str(name),
            HostPattern::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// How one part of a request is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// Equal to the text.
    Exact(String),
    /// Begins with the text.
    Prefix(String),
    /// There at all, with any value.
    Present,
}

impl Test {
    fn passes(&self, value: Option<&str>) -> bool {
        match (self, value) {
            (_, None) => false,
            (Test::Exact(text), Some(value)) => value == text,
            (Test::Prefix(text), Some(value)) => value.starts_with(text.as_str()),
            (Test::Present, Some(_)) => true,
        }
    }
}

/// A condition of an override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// On the first value of a header (name in lower case).
    Header(String, Test),
    /// On a cookie (name as sent, case-sensitive).
    Cookie(String, Test),
}

/// A rule that sends matching requests to a pool, whatever the split says. The first match wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// For logs and explanations; unique within a service.
    pub name: String,
    /// All of these must pass; never empty.
    pub conditions: Vec<Condition>,
    /// Index of the pool within the service.
    pub pool: usize,
    /// Keep matching after the pool was rolled back (Decisions 8); otherwise a rollback moves QA too.
    pub even_when_rolled_back: bool,
}

impl Override {
    /// True if every condition passes.
    pub fn matches(&self, request: &impl RequestView) -> bool {
        self.conditions.iter().all(|condition| match condition {
            Condition::Header(name, test) => test.passes(request.header(name)),
            Condition::Cookie(name, test) => test.passes(cookie(request, name)),
        })
    }
}

/// The value of the named cookie, from the first `Cookie` header (RFC 6265 section 5.4).
pub fn cookie<'a>(request: &'a impl RequestView, name: &str) -> Option<&'a str> {
    request.header("cookie")?.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// Two services claim the same host and path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("services `{first}` and `{second}` both claim {host} {path}")]
pub struct Ambiguous {
    /// The service listed first.
    pub first: String,
    /// The service listed second.
    pub second: String,
    /// The host both claim, or `any host`.
    pub host: String,
    /// The path prefix both claim.
    pub path: String,
}

/// What one service claims.
pub struct Claim<'a> {
    /// The service's name, for the error.
    pub service: &'a str,
    /// Hosts; none means any host.
    pub hosts: &'a [HostPattern],
    /// Path prefixes beginning with `/`; none means every path.
    pub paths: &'a [String],
}

/// Paths of one host, longest prefix first.
type Paths = Vec<(String, usize)>;

/// The routing index: from host and path to the index of a service.
#[derive(Debug, Default)]
pub struct Router {
    exact: HashMap<String, Paths>,
    below: Vec<(String, Paths)>,
    any: Paths,
}

impl Router {
    /// Builds the index; services are numbered in the order given.
    ///
    /// # Errors
    /// When two services claim the same host and path.
    pub fn build(claims: &[Claim<'_>]) -> Result<Router, Ambiguous> {
        let mut router = Router::default();
        let every = ["/".to_owned()];
        for (index, claim) in claims.iter().enumerate() {
            let paths = if claim.paths.is_empty() { &every[..] } else { claim.paths };
            let mut add = |host: Option<&HostPattern>| {
                let known = router.paths_of(host);
                for path in paths {
                    if let Some((_, first)) = known.iter().find(|(known, _)| known == path) {
                        return Err(Ambiguous {
                            first: claims[*first].service.to_owned(),
                            second: claim.service.to_owned(),
                            host: host.map_or("any host".to_owned(), HostPattern::to_string),
                            path: path.clone(),
                        });
                    }
                    known.push((path.clone(), index));
                }
                Ok(())
            };
            if claim.hosts.is_empty() {
                add(None)?;
            }
            claim.hosts.iter().try_for_each(|host| add(Some(host)))?;
        }
        router.below.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        let lists = router.exact.values_mut().chain(router.below.iter_mut().map(|(_, paths)| paths));
        for paths in lists.chain([&mut router.any]) {
            paths.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        }
        Ok(router)
    }

    fn paths_of(&mut self, host: Option<&HostPattern>) -> &mut Paths {
        match host {
            None => &mut self.any,
            Some(HostPattern::Exact(name)) => self.exact.entry(name.clone()).or_default(),
            Some(HostPattern::Below(suffix)) => {
                let at = self.below.iter().position(|(known, _)| known == suffix);
                let at = at.unwrap_or_else(|| {
                    self.below.push((suffix.clone(), Paths::new()));
                    self.below.len() - 1
                });
                &mut self.below[at].1
            }
        }
    }

    /// The service that a host and path belong to.
    pub fn find(&self, host: &str, path: &str) -> Option<usize> {
        let longest =
            |paths: &Paths| paths.iter().find(|(prefix, _)| on_segment(path, prefix)).map(|(_, index)| *index);
        self.by_host(host, longest).or_else(|| longest(&self.any))
    }

    fn by_host(&self, host: &str, longest: impl Fn(&Paths) -> Option<usize>) -> Option<usize> {
        if self.exact.is_empty() && self.below.is_empty() {
            return None;
        }
        // Names are compared in lower case; most arrive so, and then nothing is copied.
        let folded;
        let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            folded = host.to_ascii_lowercase();
            folded.as_str()
        } else {
            host
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        let below =
            || self.below.iter().filter(|(suffix, _)| host.ends_with(suffix.as_str()) && host.len() > suffix.len());
        self.exact.get(host).and_then(&longest).or_else(|| below().find_map(|(_, paths)| longest(paths)))
    }
}

/// True if `prefix` ends on a segment border of `path`: `/api` covers `/api` and `/api/x`, not `/apix`.
fn on_segment(path: &str, prefix: &str) -> bool {
    let Some(rest) = path.strip_prefix(prefix) else {
        // `OPTIONS *` belongs to whoever holds the whole host.
        return path == "*" && prefix == "/";
    };
    prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(claims: &[(&str, &[&str], &[&str])]) -> Result<Router, Ambiguous> {
        let owned: Vec<(&str, Vec<HostPattern>, Vec<String>)> = claims
            .iter()
            .map(|(name, hosts, paths)| {
                let hosts = hosts.iter().map(|h| h.parse().unwrap()).collect();
                (*name, hosts, paths.iter().map(|p| (*p).to_owned()).collect())
            })
            .collect();
        let claims: Vec<_> = owned.iter().map(|(service, hosts, paths)| Claim { service, hosts, paths }).collect();
        Router::build(&claims)
    }

    #[test]
    fn the_most_specific_host_then_the_longest_prefix_wins() {
        let router = router(&[
            ("shop", &["shop.example.com"], &[]),
            ("api", &["shop.example.com"], &["/api", "/v2/"]),
            ("wild", &["*.example.com"], &[]),
            ("deep", &["*.eu.example.com"], &[]),
            ("rest", &[], &[]),
        ])
        .unwrap();
        let table = [
            ("shop.example.com", "/", Some(0)),
            ("SHOP.example.COM", "/x", Some(0)),
            ("shop.example.com.", "/x", Some(0)),
            ("shop.example.com", "/api", Some(1)),
            ("shop.example.com", "/api/x", Some(1)),
            ("shop.example.com", "/apix", Some(0)),
            ("shop.example.com", "/v2/x", Some(1)),
            ("shop.example.com", "/v2", Some(0)),
            ("shop.example.com", "*", Some(0)),
            ("other.example.com", "/api", Some(2)),
            ("a.eu.example.com", "/", Some(3)),
            ("example.com", "/", Some(4)),
            ("", "/", Some(4)),
        ];
        for (host, path, service) in table {
            assert_eq!(router.find(host, path), service, "{host} {path}");
        }
    }

    #[test]
    fn two_services_with_one_claim_are_refused_by_name() {
        let error = router(&[("a", &["x.org"], &["/p"]), ("b", &["X.org"], &["/p"])]).unwrap_err();
        assert_eq!(error.to_string(), "services `a` and `b` both claim x.org /p");
        assert!(router(&[("a", &[], &[]), ("b", &[], &[])]).is_err());
    }

    #[test]
    fn nothing_matches_where_nobody_claims() {
        let router = router(&[("a", &["x.org"], &["/p"])]).unwrap();
        assert_eq!(router.find("x.org", "/"), None);
        assert_eq!(router.find("y.org", "/p"), None);
    }

    #[test]
    fn hosts_with_schemes_ports_or_empty_labels_are_refused() {
        for text in ["http://x", "x:80", "", "*.", "a..b", "*", "a/b", "*.*.b", "[::zz]"] {
            assert_eq!(text.parse::<HostPattern>(), Err(InvalidHost), "{text}");
        }
        assert_eq!("[::1]".parse(), Ok(HostPattern::Exact("[::1]".into())));
        assert_eq!("*.X.org".parse(), Ok(HostPattern::Below(".x.org".into())));
    }

    struct Request<'a>(&'a [(&'a str, &'a str)]);

    impl RequestView for Request<'_> {
        fn method(&self) -> &str {
            "GET"
        }
        fn path(&self) -> &str {
            "/"
        }
        fn host(&self) -> &str {
            ""
        }
        fn header(&self, name: &str) -> Option<&str> {
            self.0.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
        }
        fn client(&self) -> IpAddr {
            IpAddr::from([127, 0, 0, 1])
        }
    }

    #[test]
    fn overrides_look_at_headers_and_cookies() {
        let header = |test| Condition::Header("x-canary".into(), test);
        let cookie = |test| Condition::Cookie("qa".into(), test);
        let table = [
            (header(Test::Exact("always".into())), &[("x-canary", "always")][..], true),
            (header(Test::Exact("always".into())), &[("x-canary", "Always")], false),
            (header(Test::Prefix("al".into())), &[("x-canary", "always")], true),
            (header(Test::Present), &[("x-canary", "")], true),
            (header(Test::Present), &[], false),
            (cookie(Test::Exact("1".into())), &[("cookie", "a=b; qa=1")], true),
            (cookie(Test::Exact("1".into())), &[("cookie", "xqa=1")], false),
            (cookie(Test::Present), &[("cookie", "qa")], false),
        ];
        for (condition, headers, expected) in table {
            let rule = Override {
                name: "qa".into(),
                conditions: vec![condition.clone()],
                pool: 1,
                even_when_rolled_back: false,
            };
            assert_eq!(rule.matches(&Request(headers)), expected, "{condition:?} {headers:?}");
        }
    }
}
