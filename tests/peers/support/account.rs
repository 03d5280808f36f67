//! The books of a drill: what the client has on record beside what reached the upstreams.

use std::collections::HashMap;
use std::fmt;

use super::faulty::Seen;
use super::load::Record;

/// Counts over both sides.
#[derive(Debug, Default, PartialEq)]
pub struct Account {
    pub gets: usize,
    pub gets_failed: usize,
    /// GETs that reached upstreams more than once: retries, rescues.
    pub gets_repeated: usize,
    pub posts: usize,
    pub posts_failed: usize,
    /// POSTs that reached upstreams more than once: there must never be any.
    pub posts_twice: usize,
    /// POSTs that a client was told were done and no upstream saw: neither.
    pub posts_lost: usize,
}

impl Account {
    pub fn of<'a>(records: &[Record], logs: impl IntoIterator<Item = &'a [Seen]>) -> Account {
        let mut arrivals = HashMap::<u64, u32>::new();
        logs.into_iter().flatten().for_each(|seen| *arrivals.entry(seen.id).or_default() += 1);
        let mut account = Account::default();
        for record in records {
            let times = arrivals.get(&record.id).copied().unwrap_or(0);
            let failed = usize::from(!record.is_good());
            if record.post {
                account.posts += 1;
                account.posts_failed += failed;
                account.posts_twice += usize::from(times > 1);
                account.posts_lost += usize::from(record.is_good() && times == 0);
            } else {
                account.gets += 1;
                account.gets_failed += failed;
                account.gets_repeated += usize::from(times > 1);
            }
        }
        account
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} GETs, {} failed, {} sent again; {} POSTs, {} failed, {} twice, {} lost",
            self.gets,
            self.gets_failed,
            self.gets_repeated,
            self.posts,
            self.posts_failed,
            self.posts_twice,
            self.posts_lost
        )
    }
}

/// The first few failures in words, for an assertion's text.
pub fn failures<'a>(records: impl IntoIterator<Item = &'a Record>) -> String {
    let failed = records.into_iter().filter(|record| !record.is_good()).take(5);
    failed.map(|record| format!("\n  {record}")).collect()
}
