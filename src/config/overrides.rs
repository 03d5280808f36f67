//! The overrides of a service: rules that beat the split.

use super::conditions::{conditions, unique_name};
use super::report::Span;
use super::section::Value;
use super::service::pool_index;
use super::settings::Pool;
use crate::domain::route::{Condition, Override};

pub(super) const OVERRIDE: &[&str] = &["name", "match", "pool", "even_when_rolled_back"];
pub(super) const MATCH: &[&str] = &["header", "cookie", "query", "client"];

/// Rules of one service: every request walks them.
const MAX_OVERRIDES: usize = 64;

/// Reads the list of overrides.
pub(super) fn overrides(value: Value<'_>, pools: &[Pool]) -> Option<Vec<Override>> {
    let mut names: Vec<(String, Span)> = Vec::new();
    let mut rules = Vec::new();
    for item in value.items(MAX_OVERRIDES, "a list of overrides")? {
        let Some(rule) = one(item, pools, &mut names) else { continue };
        rules.push(rule);
    }
    Some(rules)
}

fn one(item: Value<'_>, pools: &[Pool], names: &mut Vec<(String, Span)>) -> Option<Override> {
    let section = item.section(OVERRIDE)?;
    let name = section.required("name", "an override is called something in logs: `name: qa`", |value| {
        unique_name(value, names, "two overrides of a service have one name")
    });
    let help = "an override without conditions would take everything: `match: { header: { x-canary: always } }`";
    let conditions = section.required("match", help, matches);
    let pool = section.required("pool", "write which pool it sends to: `pool: green`", |v| pool_index(v, pools));
    let even_when_rolled_back = section.or("even_when_rolled_back", false, Value::boolean);
    Some(Override { name: name?, conditions: conditions?, pool: pool?, even_when_rolled_back })
}

fn matches(value: Value<'_>) -> Option<Vec<Condition>> {
    let section = value.section(MATCH)?;
    let conditions = conditions(&section)?;
    if conditions.is_empty() {
        let help = "an override needs one: `match: { header: { x-canary: always } }`";
        return section.says_nothing("`match` has no condition", help);
    }
    Some(conditions)
}
