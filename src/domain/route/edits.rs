//! Header edits: fields that a route or a pool removes, sets or adds.
//!
//! Edits are data; whoever writes a head asks [`Layers::drops`] for each field it has and then writes
//! [`Layers::fields`]. Of two layers the second works on what the first made, so that it has the last word: on the way
//! up route then pool, on the way down pool then route.
//!
//! Invariant: no edit names a field that frames a message or concerns one connection only; see [`editable`].

use super::template::Template;

/// Edits of one head. Names are in lower case and [`editable`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Fields that are taken out.
    pub remove: Vec<String>,
    /// Fields that replace all of their name.
    pub set: Vec<(String, Template)>,
    /// Fields beside what is there.
    pub add: Vec<(String, Template)>,
}

impl Edits {
    /// True if nothing is edited.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    /// True if fields of this name go: removed, or replaced by [`Edits::fields`]. Case does not matter.
    pub fn drops(&self, name: &[u8]) -> bool {
        let set = self.set.iter().map(|(set, _)| set);
        self.remove.iter().chain(set).any(|known| known.as_bytes().eq_ignore_ascii_case(name))
    }

    /// The fields to write, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Template)> {
        self.set.iter().chain(&self.add).map(|(name, template)| (name.as_str(), template))
    }
}

/// Two edits, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Layers<'a> {
    first: &'a Edits,
    second: &'a Edits,
}

impl<'a> Layers<'a> {
    /// `second` works on what `first` made.
    pub fn new(first: &'a Edits, second: &'a Edits) -> Layers<'a> {
        Layers { first, second }
    }

    /// One layer, for an answer that no pool gave.
    pub fn only(edits: &'a Edits) -> Layers<'a> {
        static NOTHING: Edits = Edits { remove: Vec::new(), set: Vec::new(), add: Vec::new() };
        Layers::new(edits, &NOTHING)
    }

    /// True if nothing is edited.
    pub fn is_empty(self) -> bool {
        self.first.is_empty() && self.second.is_empty()
    }

    /// True if fields of this name that the head already has go.
    pub fn drops(self, name: &[u8]) -> bool {
        self.first.drops(name) || self.second.drops(name)
    }

    /// The fields to write after those that stay, in order.
    pub fn fields(self) -> impl Iterator<Item = (&'a str, &'a Template)> {
        let survives = move |(name, _): &(&str, &Template)| !self.second.drops(name.as_bytes());
        self.first.fields().filter(survives).chain(self.second.fields())
    }
}

/// Why a field may not be edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unedited {
    /// It says where a request goes.
    #[error("where a request goes is changed by `rewrite: {{ host: ... }}`")]
    Host,
    /// It says where a message ends, or that the client waits.
    #[error("it frames the message: a wrong one lets a request be smuggled past this proxy")]
    Framing,
    /// It concerns one connection only, and is ours to write on each side.
    #[error("it concerns one connection only, and never crosses to another")]
    Connection,
}

/// Whether edits may name a field.
///
/// # Errors
/// When they must not: also for spellings with `_` or `.`, which some upstreams take for the same field.
pub fn editable(name: &str) -> Result<(), Unedited> {
    let folded = name.to_ascii_lowercase().replace(['_', '.'], "-");
    match folded.as_str() {
        "host" => Err(Unedited::Host),
        "content-length" | "transfer-encoding" | "expect" => Err(Unedited::Framing),
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "te"
        | "trailer"
        | "upgrade"
        | "http2-settings" => Err(Unedited::Connection),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, Template)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), value.parse().unwrap())).collect()
    }

    /// What becomes of a head: the plain meaning of remove, set and add.
    fn edited(head: &[(&str, &str)], layers: Layers<'_>) -> Vec<String> {
        let vars = crate::domain::route::Vars {
            pool: "green",
            version: "",
            service: "",
            route: "",
            request_id: "",
            client: [127, 0, 0, 1].into(),
        };
        let kept = head.iter().filter(|(name, _)| !layers.drops(name.as_bytes()));
        let kept = kept.map(|(name, value)| format!("{name}: {value}"));
        let written = layers.fields().map(|(name, template)| {
            let mut value = Vec::new();
            template.write(&vars, &mut value);
            format!("{name}: {}", String::from_utf8(value).unwrap())
        });
        kept.chain(written).collect()
    }

    #[test]
    fn fields_are_removed_replaced_and_added() {
        let edits = Edits {
            remove: vec!["server".into()],
            set: pairs(&[("x-pool", "{pool}")]),
            add: pairs(&[("vary", "x"), ("vary", "y")]),
        };
        let head = [("Server", "s"), ("X-Pool", "forged"), ("x-pool", "twice"), ("Vary", "accept")];
        let expected = ["Vary: accept", "x-pool: green", "vary: x", "vary: y"];
        assert_eq!(edited(&head, Layers::only(&edits)), expected);
        assert_eq!(edited(&head, Layers::new(&Edits::default(), &edits)), expected);
        let nothing = Edits::default();
        assert!(Layers::new(&nothing, &nothing).is_empty() && !Layers::new(&nothing, &edits).is_empty());
    }

    #[test]
    fn the_second_layer_has_the_last_word() {
        let first =
            Edits { remove: vec!["a".into()], set: pairs(&[("b", "1")]), add: pairs(&[("c", "1"), ("d", "1")]) };
        let second =
            Edits { remove: vec!["b".into()], set: pairs(&[("c", "2")]), add: pairs(&[("a", "2"), ("d", "2")]) };
        let head = [("a", "0"), ("b", "0"), ("c", "0"), ("d", "0")];
        assert_eq!(edited(&head, Layers::new(&first, &second)), ["d: 0", "d: 1", "c: 2", "a: 2", "d: 2"]);
    }

    #[test]
    fn what_frames_a_message_or_concerns_a_connection_is_not_edited() {
        let table = [
            ("host", Err(Unedited::Host)),
            ("Content-Length", Err(Unedited::Framing)),
            ("content_length", Err(Unedited::Framing)),
            ("transfer.encoding", Err(Unedited::Framing)),
            ("expect", Err(Unedited::Framing)),
            ("Connection", Err(Unedited::Connection)),
            ("TE", Err(Unedited::Connection)),
            ("trailer", Err(Unedited::Connection)),
            ("upgrade", Err(Unedited::Connection)),
            ("proxy_authorization", Err(Unedited::Connection)),
            ("x-forwarded-proto", Ok(())),
            ("strict-transport-security", Ok(())),
            ("set-cookie", Ok(())),
        ];
        for (name, expected) in table {
            assert_eq!(editable(name), expected, "{name}");
        }
    }
}
