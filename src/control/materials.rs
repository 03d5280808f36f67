//! The TLS of a configuration, made ready for a table: one server side per listener, one client side per pool.
//!
//! Whatever did not change is carried over as it is, so that sessions can still be resumed and idle connections are
//! kept. Making is done outside of the publisher's lock: it may read the system's authorities.
//!
//! Invariant: the listeners of a table are in the order of the sockets that were bound at the start, whatever the
//! file says later; addresses only change with a restart.

use std::collections::HashMap;
use std::sync::Arc;

use crate::bridge::table::Listener;
use crate::bridge::tls::{Connector, Server, SystemRoots};
use crate::config::settings::{Listen, Pool, Settings};

/// Everything of TLS that a table carries.
#[derive(Clone, Debug, Default)]
pub struct Materials {
    /// One per bound address.
    pub listeners: Vec<Arc<Listener>>,
    connectors: HashMap<(String, String), Arc<Connector>>,
}

impl Materials {
    /// Makes what `settings` need; `before` is what runs now.
    ///
    /// # Errors
    /// In words, naming who needs it, when something cannot be made.
    pub fn build(settings: &Settings, before: &Materials) -> Result<Materials, String> {
        let system = SystemRoots::default();
        let mut connectors = HashMap::new();
        for service in &settings.services {
            for pool in &service.pools {
                let key = (service.name.clone(), pool.name.clone());
                let known = before.connectors.get(&key);
                let made = connector(pool, known, &system);
                let made = made.map_err(|why| format!("pool `{}` of service `{}`: {why}", pool.name, service.name))?;
                connectors.extend(made.map(|connector| (key, connector)));
            }
        }
        Ok(Materials { listeners: listeners(&settings.listen, &before.listeners)?, connectors })
    }

    /// The client side of a pool; `None` without TLS.
    pub fn connector(&self, service: &str, pool: &str) -> Option<Arc<Connector>> {
        self.connectors.get(&(service.to_owned(), pool.to_owned())).map(Arc::clone)
    }
}

fn connector(
    pool: &Pool,
    known: Option<&Arc<Connector>>,
    system: &SystemRoots,
) -> Result<Option<Arc<Connector>>, String> {
    let Some(tls) = &pool.tls else { return Ok(None) };
    match known.filter(|known| known.settings == *tls && known.protocol == pool.protocol) {
        Some(known) => Ok(Some(Arc::clone(known))),
        None => Connector::new(tls, pool.protocol, system).map(|made| Some(Arc::new(made))),
    }
}

fn listeners(new: &[Listen], bound: &[Arc<Listener>]) -> Result<Vec<Arc<Listener>>, String> {
    if bound.is_empty() {
        return new.iter().map(|settings| listener(settings, None)).collect();
    }
    let nth = |index: usize| {
        let address = &bound[index].settings.address;
        let earlier = bound[..index].iter().filter(|other| other.settings.address == *address).count();
        new.iter().filter(|settings| settings.address == *address).nth(earlier)
    };
    let made = bound.iter().enumerate().map(|(index, known)| match nth(index) {
        Some(settings) if *settings != known.settings => listener(settings, Some(known)),
        // Unchanged, or its socket has no place in the file any more and waits for a restart.
        _ => Ok(Arc::clone(known)),
    });
    made.collect()
}

fn listener(settings: &Listen, before: Option<&Listener>) -> Result<Arc<Listener>, String> {
    let before = before.and_then(|before| before.tls.as_deref());
    let tls = settings.tls.as_ref().map(|tls| Server::new(tls, before).map(Arc::new)).transpose();
    let tls = tls.map_err(|why| format!("listener {}: {why}", settings.address))?;
    let strict_transport = settings.hsts.map(|hsts| hsts.field());
    Ok(Arc::new(Listener { settings: settings.clone(), tls, strict_transport }))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;
    use crate::config::settings::tls::forge::Authority;

    fn read(folder: &Path, listen: &str, tls: &str) -> Settings {
        let text = format!(
            "version: 1\nstate: none\nlisten: {listen}\nservices: {{ s: {{ pools: {{ b: {{ endpoints: 'https://b', tls: {{ ca: ca.crt{tls} }} }}, c: 'http://c' }} }} }}\n"
        );
        parse("t", &text, &|_| None, folder).unwrap_or_else(|report| panic!("{report}"))
    }

    fn desk() -> (tempfile::TempDir, Authority) {
        let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("A"));
        std::fs::write(folder.path().join("ca.crt"), &authority.pem).unwrap();
        authority.issue(&["a.test"]).write(folder.path(), "a");
        (folder, authority)
    }

    const TWO: &str = "[':1', { address: ':2', tls: { certificates: { cert: a.crt, key: a.key } } }]";

    #[test]
    fn what_did_not_change_is_the_same_thing() {
        let (folder, authority) = desk();
        let first = Materials::build(&read(folder.path(), TWO, ""), &Materials::default()).unwrap();
        let again = Materials::build(&read(folder.path(), TWO, ""), &first).unwrap();
        let same = |a: &Materials, b: &Materials| {
            let connector = |of: &Materials| of.connector("s", "b").unwrap();
            let listeners = a.listeners.iter().zip(&b.listeners).map(|(a, b)| Arc::ptr_eq(a, b));
            (listeners.collect::<Vec<_>>(), Arc::ptr_eq(&connector(a), &connector(b)))
        };
        assert_eq!(same(&first, &again), (vec![true, true], true));
        assert!(first.connector("s", "c").is_none());
        authority.issue(&["a.test"]).write(folder.path(), "a");
        let renewed = Materials::build(&read(folder.path(), TWO, ", server_name: x.test"), &again).unwrap();
        assert_eq!(same(&again, &renewed), (vec![true, false], false));
    }

    #[test]
    fn listeners_keep_to_the_sockets_that_are_bound() {
        let (folder, _) = desk();
        let first = Materials::build(&read(folder.path(), TWO, ""), &Materials::default()).unwrap();
        // Turned round, one with a change, one that is not bound at all.
        let turned = "[{ address: ':2', redirect_https: true }, ':3', { address: ':1', http2: off }]";
        let next = Materials::build(&read(folder.path(), turned, ""), &first).unwrap();
        let seen = |of: &Materials| {
            let listener = |known: &Arc<Listener>| {
                let settings = &known.settings;
                let at = settings.address.to_string();
                (at, settings.http2, settings.redirect_https, known.tls.is_some())
            };
            of.listeners.iter().map(listener).collect::<Vec<_>>()
        };
        let [one, two] = ["0.0.0.0:1", "0.0.0.0:2"].map(str::to_owned);
        assert_eq!(seen(&first), [(one.clone(), true, None, false), (two.clone(), true, None, true)]);
        assert_eq!(seen(&next), [(one, false, None, false), (two, true, Some(443), false)]);
        let gone = Materials::build(&read(folder.path(), "':3'", ""), &next).unwrap();
        assert_eq!(seen(&gone), seen(&next));
    }

    #[test]
    fn two_listeners_on_any_port_are_told_apart_by_their_order() {
        let (folder, _) = desk();
        let any = "[{ address: ':0', http2: off }, ':0']";
        let first = Materials::build(&read(folder.path(), any, ""), &Materials::default()).unwrap();
        let turned = "[':0', { address: ':0', http2: off }]";
        let next = Materials::build(&read(folder.path(), turned, ""), &first).unwrap();
        let http2 = |of: &Materials| of.listeners.iter().map(|known| known.settings.http2).collect::<Vec<_>>();
        assert_eq!((http2(&first), http2(&next)), (vec![false, true], vec![true, false]));
    }
}
