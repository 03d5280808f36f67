//! Balancing: an endpoint's rank, and the policy that picks one.
//!
//! A pool's own `balance` changes what it names of the service's and keeps the rest.
//!
//! Invariant: a policy that goes by a key has one; a weight is never zero.

use std::time::Duration;

use super::conditions::pattern;
use super::report::Problem;
use super::section::{Section, Value};
use super::settings::Endpoint;
use crate::domain::balance::{Balance, Factor, HEAVIEST, Hashing, Key, LEVELS, Policy, Rank};

pub(super) const ENDPOINT: &[&str] = &["url", "weight", "priority"];
pub(super) const BALANCE: &[&str] = &["policy", "by", "load_factor", "panic", "slow_start", "overprovision"];
pub(super) const BY: &[&str] = &["header", "cookie", "path"];

/// Longer than this nobody waits for an endpoint to be of use.
const LONGEST_START: Duration = Duration::from_secs(15 * 60);
/// How far above the mean an endpoint may be loaded by its keys, as in the paper's examples: low enough to protect it,
/// high enough that nearly all requests find their own endpoint.
const LOAD_FACTOR: Factor = Factor::from_hundredths(125);

/// An address, or a mapping with its rank.
pub(super) fn endpoint(value: Value<'_>) -> Option<Endpoint> {
    let address = |value: Value<'_>| value.parsed("an address such as `http://10.0.0.1:8080`");
    if !value.is_mapping() {
        return address(value).map(|address| Endpoint { address, rank: Rank::default() });
    }
    let section = value.section(ENDPOINT)?;
    let default = Rank::default();
    let rank = Rank {
        weight: section.or("weight", default.weight, |v| v.count(1..=HEAVIEST)),
        priority: section.or("priority", default.priority, |v| v.count(0..=LEVELS as u8 - 1)),
    };
    let address = section.required("url", "write `url: http://127.0.0.1:3001`", address)?;
    Some(Endpoint { address, rank })
}

/// A policy's name, where that says all, or a mapping; what it leaves out is as in `default`.
pub(super) fn balance(value: Value<'_>, default: &Balance) -> Option<Balance> {
    if !value.is_mapping() {
        let policy = policy(value, Hash { value, by: None, load_factor: None }, &default.policy)?;
        return Some(Balance { policy, ..default.clone() });
    }
    let section = value.section(BALANCE)?;
    let hash =
        Hash { value, by: section.optional("by", key)?, load_factor: section.optional("load_factor", load_factor)? };
    let named = section.optional("policy", |v| policy(v, hash.clone(), &default.policy))?;
    let policy = match named {
        Some(policy) => policy,
        None => again(&default.policy, hash)?,
    };
    if let (None, Some(by)) = (hashing(&policy), stray(&section)) {
        let problem = by.problem("conflict", format!("`{}` has no meaning for a policy without a key", by.name));
        return value.refuse(problem.help("`ring_hash` and `maglev` go by a key"));
    }
    Some(Balance {
        policy,
        panic: section.or("panic", default.panic, Value::share),
        slow_start: section.or("slow_start", default.slow_start, |v| v.duration(Duration::ZERO..=LONGEST_START)),
        overprovision: section.or("overprovision", default.overprovision, |v| factor(v, 1.0..=10.0)),
    })
}

/// What a mapping says about keys.
#[derive(Clone)]
struct Hash<'a> {
    value: Value<'a>,
    by: Option<Key>,
    load_factor: Option<Option<Factor>>,
}

impl Hash<'_> {
    /// All of it, with what is left out as before.
    fn over(self, before: Option<&Hashing>) -> Option<Hashing> {
        let Some(by) = self.by.or_else(|| before.map(|before| before.by.clone())) else {
            let problem = Problem::new("missing_key", self.value.at, "a policy that goes by a key needs `by`");
            return self.value.refuse(problem.help("write `balance: { policy: ring_hash, by: client }`"));
        };
        let before = before.map_or(Some(LOAD_FACTOR), |before| before.load_factor);
        Some(Hashing { by, load_factor: self.load_factor.unwrap_or(before) })
    }
}

#[derive(Clone, Copy)]
enum Word {
    RoundRobin,
    LeastRequest,
    PeakEwma,
    RingHash,
    Maglev,
}

fn policy(value: Value<'_>, hash: Hash<'_>, before: &Policy) -> Option<Policy> {
    let words = [
        ("round_robin", Word::RoundRobin),
        ("least_request", Word::LeastRequest),
        ("p2c_ewma", Word::PeakEwma),
        ("ring_hash", Word::RingHash),
        ("maglev", Word::Maglev),
    ];
    Some(match value.choice(&words)? {
        Word::RoundRobin => Policy::RoundRobin,
        Word::LeastRequest => Policy::LeastRequest,
        Word::PeakEwma => Policy::PeakEwma,
        Word::RingHash => Policy::RingHash(hash.over(hashing(before))?),
        Word::Maglev => Policy::Maglev(hash.over(hashing(before))?),
    })
}

/// The policy as before, with what a mapping changes of its key.
fn again(before: &Policy, hash: Hash<'_>) -> Option<Policy> {
    Some(match before {
        Policy::RingHash(hashing) => Policy::RingHash(hash.over(Some(hashing))?),
        Policy::Maglev(hashing) => Policy::Maglev(hash.over(Some(hashing))?),
        Policy::RoundRobin | Policy::LeastRequest | Policy::PeakEwma => before.clone(),
    })
}

fn hashing(policy: &Policy) -> Option<&Hashing> {
    match policy {
        Policy::RingHash(hashing) | Policy::Maglev(hashing) => Some(hashing),
        Policy::RoundRobin | Policy::LeastRequest | Policy::PeakEwma => None,
    }
}

/// What speaks of keys.
fn stray<'a>(section: &Section<'a>) -> Option<Value<'a>> {
    section.field("by").or_else(|| section.field("load_factor"))
}

fn key(value: Value<'_>) -> Option<Key> {
    if !value.is_mapping() {
        return match value.is("header") || value.is("cookie") {
            true => value.wrong_type("the header or cookie by name: `{ header: x-user }`"),
            false => value.choice(&[("client", Key::Client), ("path", Key::Path)]),
        };
    }
    let key = value.section(BY)?.only()?;
    Some(match key.name {
        "header" => Key::Header(key.token()?.to_ascii_lowercase()),
        "cookie" => Key::Cookie(key.token()?),
        _ => Key::Part(pattern(key)?),
    })
}

fn load_factor(value: Value<'_>) -> Option<Option<Factor>> {
    if value.is("none") { Some(None) } else { factor(value, 1.0..=10.0).map(Some) }
}

/// A number of at least 1; of its decimals two count.
fn factor(value: Value<'_>, range: std::ops::RangeInclusive<f64>) -> Option<Factor> {
    value.number(range).map(|factor| Factor::from_hundredths((factor * 100.0).round() as u32))
}
