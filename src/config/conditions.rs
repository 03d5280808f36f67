//! Conditions of routes and overrides: what a rule asks of a request.

use ipnet::IpNet;

use super::report::{Problem, Span};
use super::section::{Section, Value};
use crate::domain::route::{Condition, Pattern, Test};

pub(super) const TEST: &[&str] = &["exact", "prefix", "regex", "present"];

/// Conditions of one rule, and networks of one condition: every request walks them.
const MAX_CONDITIONS: usize = 16;
const MAX_NETWORKS: usize = 64;
/// Regular expressions in one file: each costs up to a few times its compiled size in memory.
const MAX_PATTERNS: usize = 1000;

/// Reads the keys `header`, `cookie`, `query` and `client` of a `match`.
pub(super) fn conditions(section: &Section<'_>) -> Option<Vec<Condition>> {
    let mut conditions = Vec::new();
    let mut members = 0;
    for kind in ["header", "cookie", "query"] {
        let Some(named) = section.field(kind) else { continue };
        for member in named.members("a mapping of names to values")? {
            members += 1;
            let name = if kind == "query" { parameter_name(member) } else { member.own_token() };
            let (Some(name), Some(test)) = (name, test(member)) else { continue };
            conditions.push(match kind {
                "header" => Condition::Header(name.to_ascii_lowercase(), test),
                "cookie" => Condition::Cookie(name, test),
                _ => Condition::Query(name, test),
            });
        }
    }
    if let Some(client) = section.field("client") {
        members += 1;
        conditions.extend(networks(client).map(Condition::Client));
    }
    section.value().at_most(members, MAX_CONDITIONS)?;
    (conditions.len() == members).then_some(conditions)
}

/// The name of a query parameter, as it is once decoded.
fn parameter_name(member: Value<'_>) -> Option<String> {
    if (1..=128).contains(&member.name.len()) {
        return Some(member.name.to_owned());
    }
    let problem = Problem::new("bad_value", member.at, "this cannot be the name of a query parameter");
    member.refuse(problem.help("such a name is 1 to 128 bytes long"))
}

/// The exact value, or a mapping that says how it is compared.
fn test(value: Value<'_>) -> Option<Test> {
    if !value.is_mapping() {
        return value.text("a value, or one of `exact`, `prefix`, `regex`, `present`").map(Test::Exact);
    }
    let how = value.section(TEST)?.only()?;
    match how.name {
        "exact" => how.text("a text").map(Test::Exact),
        "prefix" => how.text("a text").map(Test::Prefix),
        "regex" => pattern(how).map(Test::Regex),
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

/// A regular expression.
pub(super) fn pattern(value: Value<'_>) -> Option<Pattern> {
    let read = value.input.patterns.get() + 1;
    value.input.patterns.set(read);
    if read == MAX_PATTERNS + 1 {
        let message = format!("a file holds at most {MAX_PATTERNS} regular expressions");
        value.input.report(value.problem("out_of_range", message).help("`exact` and `prefix` cost less as well"));
    }
    if read > MAX_PATTERNS {
        return None;
    }
    value.parsed("a regular expression")
}

/// Networks such as `10.0.0.0/8`, or addresses.
fn networks(value: Value<'_>) -> Option<Vec<IpNet>> {
    let expected = "a network such as `10.0.0.0/8`, or a list of them";
    let items = value.one_or_more(MAX_NETWORKS, expected)?;
    let count = items.len();
    let networks: Vec<IpNet> = items.into_iter().filter_map(network).collect();
    (networks.len() == count).then_some(networks)
}

fn network(value: Value<'_>) -> Option<IpNet> {
    let expected = "a network such as `10.0.0.0/8`";
    let text = value.text(expected)?;
    let text = text.trim();
    let network: Option<IpNet> = text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
    let help = match network {
        None => "it is an IP address, with `/` and the bits that count unless all do".to_owned(),
        Some(IpNet::V6(six)) if six.addr().to_ipv4_mapped().is_some() => {
            "addresses of IPv4 are compared as such: write the network without `::ffff:`".to_owned()
        }
        Some(network) if network.trunc() != network => format!("the network is `{}`", network.trunc()),
        Some(network) => return Some(network),
    };
    value.refuse(value.problem("bad_value", format!("`{}` needs {expected}", value.name)).help(help))
}

/// A name that no other rule in the list has.
pub(super) fn unique_name(value: Value<'_>, names: &mut Vec<(String, Span)>, message: &str) -> Option<String> {
    let name = value.name_value()?;
    if let Some((_, first)) = names.iter().find(|(known, _)| *known == name) {
        let problem = value.problem("duplicate", message);
        value.input.report(problem.label("again here").related(*first, "first here"));
    }
    names.push((name.clone(), value.node.span));
    Some(name)
}
