//! Which certificate a client is shown, by the name it asks for.
//!
//! Invariant: a wildcard stands for exactly one label (RFC 9525 section 6.3), unlike in routes.

use std::collections::HashMap;

use crate::domain::route::HostPattern;

/// Things by the hosts they are for; several for one host keep their order.
#[derive(Debug)]
pub struct Names<T> {
    exact: HashMap<String, Vec<T>>,
    /// By what follows the first label, without the dot.
    wildcard: HashMap<String, Vec<T>>,
    all: Vec<T>,
}

impl<T: Clone> Names<T> {
    /// Sorts things by their hosts.
    pub fn new<'a>(items: impl IntoIterator<Item = (T, &'a [HostPattern])>) -> Names<T> {
        let mut names = Names { exact: HashMap::new(), wildcard: HashMap::new(), all: Vec::new() };
        for (item, hosts) in items {
            names.all.push(item.clone());
            for host in hosts {
                let list = match host {
                    HostPattern::Exact(name) => names.exact.entry(name.clone()),
                    HostPattern::Below(suffix) => names.wildcard.entry(suffix.trim_start_matches('.').to_owned()),
                };
                list.or_default().push(item.clone());
            }
        }
        names
    }

    /// What is for `host` (in any case): by its exact name, else by wildcard, else everything, the default first.
    pub fn find(&self, host: Option<&str>) -> &[T] {
        let named = host.and_then(|host| {
            let host = host.to_ascii_lowercase();
            let below = || self.wildcard.get(host.split_once('.')?.1);
            self.exact.get(&host).or_else(below)
        });
        named.unwrap_or(&self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_names_beat_wildcards_and_wildcards_are_one_label_deep() {
        let hosts = |list: &[&str]| list.iter().map(|host| host.parse().unwrap()).collect::<Vec<HostPattern>>();
        let lists =
            [hosts(&["default.test"]), hosts(&["*.a.test", "b.test"]), hosts(&["x.a.test"]), hosts(&["b.test"])];
        let names = Names::new(lists.iter().enumerate().map(|(index, list)| (index, &list[..])));
        let table: [(Option<&str>, &[usize]); 9] = [
            (None, &[0, 1, 2, 3]),
            (Some("elsewhere.test"), &[0, 1, 2, 3]),
            (Some("default.test"), &[0]),
            (Some("X.A.test"), &[2]),
            (Some("y.a.test"), &[1]),
            (Some("z.y.a.test"), &[0, 1, 2, 3]),
            (Some("a.test"), &[0, 1, 2, 3]),
            (Some("b.test"), &[1, 3]),
            (Some("test"), &[0, 1, 2, 3]),
        ];
        for (host, expected) in table {
            assert_eq!(names.find(host), expected, "{host:?}");
        }
    }
}
