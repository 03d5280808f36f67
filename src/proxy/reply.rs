//! Answers of our own: faults and redirects, as data that each wire writes in its own way.
//!
//! Invariant: every field's value is visible ASCII, and the body is short.

use crate::domain::route::{Edits, Layers, Redirect, Vars};
use crate::proxy::error::Fault;

/// An answer that no upstream gave.
#[derive(Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Its fields but for the framing; names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body, in plain text.
    pub text: String,
    /// An HTTP/1.1 connection cannot be trusted with another request.
    pub closes: bool,
}

impl Reply {
    /// The answer to a request with this id that met a fault.
    pub fn to_fault(fault: Fault, id: &str) -> Reply {
        let mut fields = vec![field("content-type", "text/plain; charset=utf-8")];
        fields.extend(fault.fields().iter().map(|(name, value)| field(name, value)));
        fields.extend(fault.retry_after().map(|seconds| field("retry-after", &seconds.to_string())));
        Reply { status: fault.status(), fields, text: fault.text(id), closes: fault.closes() }
    }

    /// The same for a gRPC client, which looks for `grpc-status`: a head that is the whole answer.
    pub fn to_grpc_fault(fault: Fault, id: &str) -> Reply {
        let status = fault.grpc_status().to_string();
        let fields = vec![
            field("content-type", "application/grpc"),
            field("grpc-status", &status),
            field("grpc-message", &fault.grpc_message(id)),
        ];
        Reply { status: 200, fields, text: String::new(), closes: fault.closes() }
    }

    /// The answer that sends a client elsewhere.
    pub fn redirect(redirect: &Redirect, location: String) -> Reply {
        let fields = vec![field("location", &location)];
        Reply { status: redirect.status, fields, text: String::new(), closes: false }
    }

    /// Edits its head.
    pub fn edit(&mut self, edits: &Edits, vars: &Vars<'_>) {
        let edits = Layers::only(edits);
        self.fields.retain(|(name, _)| !edits.drops(name.as_bytes()));
        for (name, template) in edits.fields() {
            let mut value = Vec::new();
            template.write(vars, &mut value);
            self.fields.push((name.to_owned(), value));
        }
    }

    /// True if a field of this name, in lower case, is there.
    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(known, _)| known == name)
    }
}

fn field(name: &str, value: &str) -> (String, Vec<u8>) {
    (name.to_owned(), value.as_bytes().to_vec())
}
