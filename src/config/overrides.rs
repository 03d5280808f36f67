//! The overrides of a service: rules that beat the split.

use super::report::{Problem, Span};
use super::section::Value;
use super::service::pool_index;
use super::settings::Pool;
use crate::domain::route::{Condition, Override, Test};

pub(super) const OVERRIDE: &[&str] = &["name", "match", "pool", "even_when_rolled_back"];
pub(super) const MATCH: &[&str] = &["header", "cookie"];
pub(super) const TEST: &[&str] = &["exact", "prefix", "present"];

/// Rules of one service, and conditions of one rule: every request walks them.
const MAX_OVERRIDES: usize = 64;
const MAX_CONDITIONS: usize = 16;

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
        let name = value.name_value()?;
        if let Some((_, first)) = names.iter().find(|(known, _)| *known == name) {
            let problem = value.problem("duplicate", "two overrides of a service have one name");
            value.input.report(problem.label("again here").related(*first, "first here"));
        }
        names.push((name.clone(), value.node.span));
        Some(name)
    });
    let help = "an override without conditions would take everything: `match: { header: { x-canary: always } }`";
    let conditions = section.required("match", help, conditions);
    let pool = section.required("pool", "write which pool it sends to: `pool: green`", |v| pool_index(v, pools));
    let even_when_rolled_back = section.or("even_when_rolled_back", false, Value::boolean);
    Some(Override { name: name?, conditions: conditions?, pool: pool?, even_when_rolled_back })
}

fn conditions(value: Value<'_>) -> Option<Vec<Condition>> {
    let section = value.section(MATCH)?;
    let mut conditions = Vec::new();
    let mut members = 0;
    for kind in MATCH {
        let Some(named) = section.field(kind) else { continue };
        for member in named.members("a mapping of names to values")? {
            members += 1;
            let (name, test) = (member.own_token(), test(member));
            let (Some(name), Some(test)) = (name, test) else { continue };
            conditions.push(match *kind {
                "header" => Condition::Header(name.to_ascii_lowercase(), test),
                _ => Condition::Cookie(name, test),
            });
        }
    }
    value.at_most(members, MAX_CONDITIONS)?;
    if members == 0 {
        let problem = Problem::new("missing_key", value.at, "`match` has no condition");
        return value.refuse(problem.help("an override needs one: `match: { header: { x-canary: always } }`"));
    }
    (conditions.len() == members).then_some(conditions)
}

/// The exact value, or a mapping that says how it is compared.
fn test(value: Value<'_>) -> Option<Test> {
    if !value.is_mapping() {
        return value.text("a value, or one of `exact`, `prefix`, `present`").map(Test::Exact);
    }
    let how = value.section(TEST)?.only()?;
    match how.name {
        "exact" => how.text("a text").map(Test::Exact),
        "prefix" => how.text("a text").map(Test::Prefix),
        _ => match how.boolean()? {
            true => Some(Test::Present),
            false => {
                let problem =
                    how.problem("unsupported", "`present: false` is not supported: a rule needs something to see");
                how.refuse(problem.help("put a rule for the other case first"))
            }
        },
    }
}
