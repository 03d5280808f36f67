//! Header edits of routes and pools: `set`, `add`, `remove`.

use super::report::Span;
use super::section::{Value, meant};
use crate::domain::route::{Edits, InvalidTemplate, Template, Variable, editable};

pub(super) const EDITS: &[&str] = &["set", "add", "remove"];

/// Fields that one place may edit: each is written into every head.
const MAX_EDITS: usize = 32;

/// Why a variable means nothing where an edit stands; `None` if it does.
pub(super) type Missing<'a> = &'a dyn Fn(Variable) -> Option<&'static str>;

/// Reads the edits of one head.
pub(super) fn edits(value: Value<'_>, missing: Missing<'_>) -> Option<Edits> {
    let section = value.section(EDITS)?;
    let mut edits = Edits::default();
    let mut known: Vec<(String, Span)> = Vec::new();
    let mut count = 0;
    if let Some(set) = section.field("set") {
        for field in set.members("a mapping of header names to values")? {
            count += 1;
            let name =
                name(field.own_token(), field, field.at).filter(|name| is_new(name, field, field.at, &mut known));
            let (Some(name), Some(template)) = (name, template(field, missing)) else { continue };
            edits.set.push((name, template));
        }
    }
    for item in section.read("remove", |v| v.one_or_more(MAX_EDITS, "header names")).unwrap_or_default() {
        count += 1;
        let at = item.node.span;
        let name = name(item.token(), item, at).filter(|name| is_new(name, item, at, &mut known));
        edits.remove.extend(name);
    }
    if let Some(add) = section.field("add") {
        for field in add.members("a mapping of header names to values")? {
            let name = name(field.own_token(), field, field.at);
            for item in field.one_or_more(MAX_EDITS, "a value, or a list of them").unwrap_or_default() {
                count += 1;
                let (Some(name), Some(template)) = (name.clone(), template(item, missing)) else { continue };
                edits.add.push((name, template));
            }
        }
    }
    value.at_most(count, MAX_EDITS)?;
    Some(edits)
}

/// The name of a field that may be edited, in lower case.
fn name(token: Option<String>, value: Value<'_>, at: Span) -> Option<String> {
    let name = token?.to_ascii_lowercase();
    match editable(&name) {
        Ok(()) => Some(name),
        Err(reason) => {
            let message = format!("`{name}` cannot be edited");
            value.refuse(super::Problem::new("unsupported", at, message).help(reason.to_string()))
        }
    }
}

/// Reports a field that is set or removed twice.
fn is_new(name: &str, value: Value<'_>, at: Span, known: &mut Vec<(String, Span)>) -> bool {
    let first = known.iter().find(|(known, _)| known == name).map(|(_, first)| *first);
    known.push((name.to_owned(), at));
    let Some(first) = first else { return true };
    let message = format!("`{name}` is set or removed twice");
    value.input.report(super::Problem::new("duplicate", at, message).label("again here").related(first, "first here"));
    false
}

fn template(value: Value<'_>, missing: Missing<'_>) -> Option<Template> {
    let text = value.text("a text, in which `{pool}` and the like are replaced")?;
    let template: Template = match text.trim().parse() {
        Ok(template) => template,
        Err(error) => {
            let names: Vec<&str> = Variable::ALL.iter().map(|(name, _)| *name).collect();
            let problem = value.problem("bad_value", format!("`{}`: {error}", value.name));
            return value.refuse(match &error {
                InvalidTemplate::Unknown(name) => {
                    problem.help(format!("{}; braces are written `{{{{` and `}}}}`", meant(name, &names)))
                }
                _ => problem,
            });
        }
    };
    let absent = Variable::ALL.iter().filter(|(_, variable)| template.uses(*variable));
    let absent = absent.map(|(name, variable)| (name, missing(*variable))).find(|(_, missing)| missing.is_some());
    if let Some((name, Some(reason))) = absent {
        let problem = value.problem("bad_value", format!("`{{{name}}}` stands for nothing here"));
        return value.refuse(problem.help(reason));
    }
    Some(template)
}
