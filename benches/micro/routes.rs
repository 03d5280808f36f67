//! Finding a request's service among many.

use std::hint::black_box;

use teal::domain::route::{Claim, HostPattern, Router};

/// Numbers of services that are worth a row.
pub(crate) const SIZES: [usize; 3] = [10, 100, 1_000];

/// Lookups among services that have a host and two path prefixes each.
pub(crate) struct Lookup {
    router: Router,
    asked: Vec<String>,
    turn: usize,
}

impl Lookup {
    /// Among `services` services.
    pub(crate) fn among(services: usize) -> Lookup {
        let asked: Vec<_> = (0..services).map(|at| format!("s{at}.example.com")).collect();
        let hosts: Vec<_> = asked.iter().map(|host| [HostPattern::Exact(host.clone())]).collect();
        let paths = ["/".to_owned(), "/api/v1".to_owned()];
        let claims = hosts.iter().map(|hosts| Claim { service: "any", hosts, paths: &paths });
        let router = Router::build(&claims.collect::<Vec<_>>()).expect("no two hosts are the same");
        Lookup { router, asked, turn: 0 }
    }

    /// The next one, by host and path.
    pub(crate) fn next(&mut self) -> Option<usize> {
        // A stride, so that neighbours in memory are not neighbours in time.
        self.turn = (self.turn + 7) % self.asked.len();
        black_box(&self.router).find(black_box(&self.asked[self.turn]), black_box("/products/list")).service
    }
}
