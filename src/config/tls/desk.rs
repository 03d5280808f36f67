//! Settings with certificates for tests, made from short lines of YAML.

use std::path::Path;
use std::sync::Arc;

use super::ServerTls;
use super::forge::Authority;
use crate::config::settings::{Listen, Pool, Settings};
use crate::config::{Report, parse};

/// A folder with an authority, a certificate for two names, and another for none.
pub(crate) struct Desk {
    folder: tempfile::TempDir,
    /// Issues them.
    pub(crate) authority: Authority,
}

impl Desk {
    /// A new one.
    pub(crate) fn new() -> Desk {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("Desk");
        std::fs::write(folder.path().join("ca.crt"), &authority.pem).unwrap();
        authority.issue(&["a.test", "*.B.test", "10.0.0.1"]).write(folder.path(), "a");
        authority.issue(&[]).write(folder.path(), "nobody");
        Desk { folder, authority }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), content).unwrap();
    }

    /// Reads a configuration in it.
    pub(crate) fn read(&self, text: &str) -> Result<Settings, Report> {
        parse("teal.yaml", text, &|_| None, self.path())
    }

    /// A listener of these lines.
    pub(crate) fn listener(&self, lines: &str) -> Result<Listen, Report> {
        let text = format!(
            "version: 1\nstate: none\nlisten: {{ address: ':8443', {lines} }}\nservices: {{ s: {{ pools: {{ b: 'http://b' }} }} }}\n"
        );
        self.read(&text).map(|mut settings| settings.listen.remove(0))
    }

    /// A listener with these lines in its `tls`, besides the certificate for two names.
    pub(crate) fn server(&self, lines: &str) -> Result<Arc<ServerTls>, Report> {
        let listener = self.listener(&format!("tls: {{ certificates: {{ cert: a.crt, key: a.key }}, {lines} }}"));
        listener.map(|listener| listener.tls.unwrap())
    }

    /// A pool of these lines.
    pub(crate) fn pool(&self, lines: &str) -> Result<Pool, Report> {
        let text = format!("version: 1\nstate: none\nservices: {{ s: {{ pools: {{ b: {{ {lines} }} }} }} }}\n");
        self.read(&text).map(|mut settings| settings.services.remove(0).pools.remove(0))
    }
}
