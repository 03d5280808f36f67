//! Templates: values of header fields with places for what is known of a request, `{pool}` and the like.
//!
//! Braces rather than `${...}`, which the configuration replaces from the environment before anything else sees it;
//! `{{` and `}}` are braces. A template is taken apart once, when the configuration is read.
//!
//! Invariant: what a template writes is a legal field value, if the variables are: visible ASCII, spaces and tabs.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

/// What may stand in braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The pool's name.
    Pool,
    /// The pool's version.
    Version,
    /// The service's name.
    Service,
    /// The route's name.
    Route,
    /// The request's id.
    RequestId,
    /// The client's address.
    Client,
}

impl Variable {
    /// All of them, by name.
    pub const ALL: [(&'static str, Variable); 6] = [
        ("pool", Variable::Pool),
        ("version", Variable::Version),
        ("service", Variable::Service),
        ("route", Variable::Route),
        ("request_id", Variable::RequestId),
        ("client", Variable::Client),
    ];
}

/// What the variables stand for in one request. Every text is visible ASCII.
#[derive(Clone, Copy, Debug)]
pub struct Vars<'a> {
    /// The pool's name; empty where none was chosen.
    pub pool: &'a str,
    /// The pool's version; empty where none was chosen.
    pub version: &'a str,
    /// The service's name.
    pub service: &'a str,
    /// The route's name.
    pub route: &'a str,
    /// The request's id.
    pub request_id: &'a str,
    /// The client's address as the proxy trusts it.
    pub client: IpAddr,
}

/// A value with variables in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(Variable),
}

/// Why a text is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// A brace without its other half.
    #[error("a brace stands alone: write `{{{{` or `}}}}` for a brace")]
    Brace,
    /// Braces around something that means nothing.
    #[error("`{{{0}}}` means nothing here")]
    Unknown(String),
    /// A control character or a letter that is not ASCII.
    #[error("a header's value holds visible ASCII and spaces only")]
    Character,
}

impl std::str::FromStr for Template {
    type Err = InvalidTemplate;

    fn from_str(text: &str) -> Result<Template, InvalidTemplate> {
        if !text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) {
            return Err(InvalidTemplate::Character);
        }
        let known = |name: &str| Variable::ALL.iter().find(|(known, _)| *known == name).map(|(_, variable)| *variable);
        let piece = |part: Part| match part {
            Part::Text(text) => Ok(Piece::Text(text)),
            Part::Braced(name) => known(&name).map(Piece::Variable).ok_or(InvalidTemplate::Unknown(name)),
        };
        Ok(Template(parts(text)?.into_iter().map(piece).collect::<Result<_, _>>()?))
    }
}

impl Template {
    /// Appends the value for one request.
    pub fn write(&self, vars: &Vars<'_>, out: &mut Vec<u8>) {
        for piece in &self.0 {
            let text = match piece {
                Piece::Text(text) => text,
                Piece::Variable(Variable::Pool) => vars.pool,
                Piece::Variable(Variable::Version) => vars.version,
                Piece::Variable(Variable::Service) => vars.service,
                Piece::Variable(Variable::Route) => vars.route,
                Piece::Variable(Variable::RequestId) => vars.request_id,
                Piece::Variable(Variable::Client) => {
                    // Writing to memory cannot fail.
                    let _ = write!(Bytes(out), "{}", vars.client);
                    continue;
                }
            };
            out.extend_from_slice(text.as_bytes());
        }
    }

    /// True if the variable stands in it.
    pub fn uses(&self, variable: Variable) -> bool {
        self.0.contains(&Piece::Variable(variable))
    }
}

/// Bytes that take formatted text.
struct Bytes<'a>(&'a mut Vec<u8>);

impl fmt::Write for Bytes<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// A stretch of a text with braces.
pub(super) enum Part {
    /// Outside of braces; never empty.
    Text(String),
    /// What stood in braces.
    Braced(String),
}

/// Takes a text with braces apart.
pub(super) fn parts(text: &str) -> Result<Vec<Part>, InvalidTemplate> {
    let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        if let Some(after) = after.strip_prefix(brace) {
            plain.push_str(brace);
            rest = after;
            continue;
        }
        let (name, after) = after.split_once('}').filter(|_| brace == "{").ok_or(InvalidTemplate::Brace)?;
        if name.contains('{') {
            return Err(InvalidTemplate::Brace);
        }
        if !plain.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut plain)));
        }
        parts.push(Part::Braced(name.to_owned()));
        rest = after;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VARS: Vars<'_> = Vars {
        pool: "green",
        version: "2.1",
        service: "shop",
        route: "api",
        request_id: "r-1",
        client: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    };

    fn written(text: &str) -> Result<String, InvalidTemplate> {
        let mut out = Vec::new();
        text.parse::<Template>()?.write(&VARS, &mut out);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn variables_are_written_and_double_braces_kept() {
        let table = [
            ("", ""),
            ("plain text", "plain text"),
            ("{pool}", "green"),
            ("{service}/{route}@{pool}-{version}", "shop/api@green-2.1"),
            ("id={request_id} for={client}", "id=r-1 for=127.0.0.1"),
            ("{{pool}}", "{pool}"),
            ("{{{pool}}}", "{green}"),
            ("$1 a$b", "$1 a$b"),
        ];
        for (text, expected) in table {
            assert_eq!(written(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let unknown = |name: &str| Err(InvalidTemplate::Unknown(name.to_owned()));
        let table = [
            ("{pol}", unknown("pol")),
            ("{}", unknown("")),
            ("{ pool }", unknown(" pool ")),
            ("{pool", Err(InvalidTemplate::Brace)),
            ("pool}", Err(InvalidTemplate::Brace)),
            ("{a{pool}", Err(InvalidTemplate::Brace)),
            ("a\r\nb: c", Err(InvalidTemplate::Character)),
            ("a\0", Err(InvalidTemplate::Character)),
            ("größe", Err(InvalidTemplate::Character)),
        ];
        for (text, expected) in table {
            assert_eq!(written(text), expected, "{text}");
        }
        assert_eq!(InvalidTemplate::Unknown("x".into()).to_string(), "`{x}` means nothing here");
        assert_eq!(InvalidTemplate::Brace.to_string(), "a brace stands alone: write `{{` or `}}` for a brace");
    }

    #[test]
    fn a_template_knows_its_variables() {
        let template: Template = "{pool} {{version}}".parse().unwrap();
        assert!(template.uses(Variable::Pool) && !template.uses(Variable::Version));
    }

    proptest! {
        #[test]
        fn what_is_written_is_a_legal_value(text in "([a-z{} \t]|\\{pool\\}|\\{client\\}|\\PC|\n){0,30}") {
            if let Ok(value) = written(&text) {
                prop_assert!(value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')));
            }
        }
    }
}
