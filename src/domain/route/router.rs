//! The index from host and path to a service.
//!
//! Hosts are matched exactly first, then by the longest wildcard, then "any host"; inside a host the longest path
//! prefix on a segment border wins. An exact host costs one hash, a wildcard one for each dot, a path one binary
//! search: the number of services hardly shows.
//!
//! Invariant: looking up allocates nothing, unless the host has capital letters.

use std::collections::HashMap;

use super::host::{HostPattern, LONGEST};

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
    /// Path prefixes as [`super::path::pattern`] gives them; none means every path.
    pub paths: &'a [String],
}

/// What a lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The service, if one claims the request.
    pub service: Option<usize>,
    /// Another path on this host might belong to another service.
    pub by_path: bool,
}

/// The routing index: from host and path to the index of a service.
#[derive(Debug, Default)]
pub struct Router {
    exact: HashMap<String, Paths>,
    /// By suffix, with its dot.
    below: HashMap<String, Paths>,
    /// Bytes of the longest suffix: nothing longer is looked up, however many dots a host has.
    longest_below: usize,
    any: Paths,
}

impl Router {
    /// Builds the index; services are numbered in the order given.
    ///
    /// # Errors
    /// When two services claim the same host and path.
    pub fn build(claims: &[Claim<'_>]) -> Result<Router, Ambiguous> {
        let every = ["/".to_owned()];
        let mut hosts: HashMap<Option<&HostPattern>, HashMap<&str, usize>> = HashMap::new();
        for (index, claim) in claims.iter().enumerate() {
            let paths = if claim.paths.is_empty() { &every[..] } else { claim.paths };
            let any_host = claim.hosts.is_empty().then_some(None);
            for host in claim.hosts.iter().map(Some).chain(any_host) {
                let known = hosts.entry(host).or_default();
                for path in paths {
                    if let Some(first) = known.insert(path, index) {
                        return Err(Ambiguous {
                            first: claims[first].service.to_owned(),
                            second: claim.service.to_owned(),
                            host: host.map_or("any host".to_owned(), HostPattern::to_string),
                            path: path.clone(),
                        });
                    }
                }
            }
        }
        let mut router = Router::default();
        for (host, claimed) in hosts {
            let paths = Paths::new(claimed);
            match host {
                None => router.any = paths,
                Some(HostPattern::Exact(name)) => drop(router.exact.insert(name.clone(), paths)),
                Some(HostPattern::Below(suffix)) => {
                    router.longest_below = router.longest_below.max(suffix.len());
                    router.below.insert(suffix.clone(), paths);
                }
            }
        }
        Ok(router)
    }

    /// The service that a host and path belong to.
    pub fn find(&self, host: &str, path: &str) -> Found {
        // `OPTIONS *` belongs to whoever holds the whole host.
        let path = if path == "*" { "/" } else { path };
        let mut by_path = false;
        let mut longest = |paths: &Paths| {
            by_path |= paths.tells_paths_apart();
            paths.longest(path)
        };
        let service = self.by_host(host, &mut longest).or_else(|| longest(&self.any));
        Found { service, by_path }
    }

    fn by_host(&self, host: &str, mut longest: impl FnMut(&Paths) -> Option<usize>) -> Option<usize> {
        // A name past the limit can match nothing, and is not worth hashing.
        if (self.exact.is_empty() && self.below.is_empty()) || host.len() > LONGEST + 1 {
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
        if let Some(service) = self.exact.get(host).and_then(&mut longest) {
            return Some(service);
        }
        let from = host.len().saturating_sub(self.longest_below).max(1);
        let dots = host.bytes().enumerate().skip(from).filter(|(_, b)| *b == b'.');
        let mut suffixes = dots.map(|(at, _)| &host[at..]);
        suffixes.find_map(|suffix| self.below.get(suffix).and_then(&mut longest))
    }
}

/// The paths claimed on one host, in the order of their text.
#[derive(Debug, Default)]
struct Paths(Vec<Prefix>);

#[derive(Debug)]
struct Prefix {
    text: String,
    service: usize,
    /// The longest other prefix that this one begins with.
    shorter: Option<usize>,
}

impl Paths {
    fn new(claimed: HashMap<&str, usize>) -> Paths {
        let mut sorted: Vec<_> = claimed.into_iter().collect();
        sorted.sort_unstable();
        let mut paths: Vec<Prefix> = Vec::with_capacity(sorted.len());
        for (text, service) in sorted {
            // What this text begins with stands before it, and right before it or shorter than what does.
            let mut shorter = paths.len().checked_sub(1);
            while let Some(at) = shorter.filter(|at| !text.starts_with(paths[*at].text.as_str())) {
                shorter = paths[at].shorter;
            }
            paths.push(Prefix { text: text.to_owned(), service, shorter });
        }
        Paths(paths)
    }

    /// Every prefix of `path` sorts before it, and the last that does begins with each of them: so the candidates are
    /// that one and its ever shorter relatives.
    fn longest(&self, path: &str) -> Option<usize> {
        let mut at = self.0.partition_point(|prefix| prefix.text.as_str() <= path).checked_sub(1);
        while let Some(prefix) = at.map(|at| &self.0[at]) {
            if on_segment(path, &prefix.text) {
                return Some(prefix.service);
            }
            at = prefix.shorter;
        }
        None
    }

    fn tells_paths_apart(&self) -> bool {
        self.0.iter().any(|prefix| prefix.text != "/")
    }
}

/// True if `prefix` ends on a segment border of `path`: `/api` covers `/api` and `/api/x`, not `/apix`.
pub(super) fn on_segment(path: &str, prefix: &str) -> bool {
    let Some(rest) = path.strip_prefix(prefix) else { return false };
    prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
            ("a.b.eu.example.com", "/", Some(3)),
            ("eu.example.com", "/", Some(2)),
            ("example.com", "/", Some(4)),
            (".example.com", "/", Some(4)),
            ("", "/", Some(4)),
        ];
        for (host, path, service) in table {
            assert_eq!(router.find(host, path).service, service, "{host} {path}");
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
        assert_eq!(router.find("x.org", "/"), Found { service: None, by_path: true });
        assert_eq!(router.find("y.org", "/p"), Found { service: None, by_path: false });
    }

    #[test]
    fn a_host_held_as_a_whole_is_not_told_apart_by_path() {
        let router = router(&[("a", &["x.org"], &[]), ("b", &["*.y.org"], &["/b"]), ("c", &[], &[])]).unwrap();
        assert!(!router.find("x.org", "/b").by_path);
        assert!(router.find("z.y.org", "/b").by_path);
        assert!(router.find("z.y.org", "/c").by_path, "the wildcard was asked before");
        assert!(!router.find("z.org", "/b").by_path);
    }

    #[test]
    fn hosts_past_every_limit_find_nothing_and_end() {
        let router = router(&[("a", &["*.org"], &[])]).unwrap();
        assert_eq!(router.find(&format!("{}org", "a.".repeat(125)), "/").service, Some(0));
        assert_eq!(router.find(&format!("{}org", "a.".repeat(100_000)), "/").service, None);
    }

    /// The plain meaning: of all prefixes on a segment border, the longest.
    fn by_scanning(prefixes: &[&str], path: &str) -> Option<usize> {
        let fitting = prefixes.iter().enumerate().filter(|(_, prefix)| on_segment(path, prefix));
        fitting.max_by_key(|(_, prefix)| prefix.len()).map(|(index, _)| index)
    }

    proptest! {
        #[test]
        fn the_search_agrees_with_a_scan(
            prefixes in prop::collection::btree_set("(/[ab.]{0,2}){1,4}", 0..12),
            paths in prop::collection::vec("(/[ab.]{0,3}){1,5}", 1..20),
        ) {
            let listed: Vec<&str> = prefixes.iter().map(String::as_str).collect();
            let index = Paths::new(listed.iter().enumerate().map(|(index, prefix)| (*prefix, index)).collect());
            for path in paths {
                prop_assert_eq!(index.longest(&path), by_scanning(&listed, &path), "{}", path);
            }
        }
    }
}
