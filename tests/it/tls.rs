//! Certificates are part of the configuration: a renewed one is a reload, a broken one changes nothing, and the
//! endpoints behind TLS are checked by it.

use std::fs;
use std::path::Path;

use teal::bridge::endpoint::Health;

use super::forge::{Authority, Pair};
use super::support::teal::Teal;
use super::support::upstream::Upstream;

struct Site {
    authority: Authority,
    teal: Teal,
    _blue: Upstream,
}

impl Site {
    fn new() -> Site {
        let (authority, blue) = (Authority::new("Site"), Upstream::plain("blue"));
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tls")).unwrap();
        authority.issue(&["shop.test"]).write(&folder.path().join("tls"), "shop");
        fs::write(folder.path().join("teal.yaml"), text(&blue, "tls/shop")).unwrap();
        Site { authority, teal: Teal::from_folder(folder), _blue: blue }
    }

    fn folder(&self) -> &Path {
        self.teal.folder.as_ref().unwrap().path()
    }

    /// The certificate that new connections are shown, as PEM would have it.
    fn shown(&self) -> Vec<u8> {
        let table = self.teal.running().controller.plane().table.load_full();
        let tls = table.listeners[0].tls.as_ref().unwrap();
        tls.settings.certificates[0].certified.cert[0].to_vec()
    }

    fn shows(&self, pair: &Pair) -> bool {
        use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
        self.shown() == CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap().to_vec()
    }

    fn told(&self) -> (usize, usize) {
        (self.teal.told("reload").len(), self.teal.told("reload_refused").len())
    }
}

fn text(blue: &Upstream, pair: &str) -> String {
    format!(
        "version: 1\nlisten: {{ address: '127.0.0.1:0', tls: {{ certificates: {{ cert: {pair}.crt, key: {pair}.key }} }} }}\nadmin: 127.0.0.1:0\nstate: none\nworkers: 2\nservices: {{ shop: {{ pools: {{ blue: '{}' }} }} }}\n",
        blue.url()
    )
}

#[test]
fn a_renewed_certificate_is_taken_up_although_the_text_is_the_same() {
    let site = Site::new();
    for round in 1..=3 {
        let pair = site.authority.issue(&["shop.test"]);
        pair.write(&site.folder().join("tls"), "shop");
        site.teal.until("it is taken up", || site.shows(&pair));
        // The table comes first, the news after every worker has it.
        site.teal.until("it is told", || site.told().0 >= round);
        assert_eq!(site.teal.told("reload").pop().unwrap(), "configuration reloaded by file watch");
    }
}

#[test]
fn a_broken_certificate_changes_nothing_until_it_is_whole() {
    let site = Site::new();
    let before = site.shown();
    let next = site.authority.issue(&["shop.test"]);
    // The certificate alone, as if its key were still on its way.
    fs::write(site.folder().join("tls/shop.crt"), &next.cert).unwrap();
    site.teal.until("it is refused", || site.told().1 > 0);
    let refusal = site.teal.told("reload_refused").pop().unwrap();
    assert!(refusal.contains("nothing changed") && refusal.contains("does not belong"), "{refusal}");
    assert_eq!(site.shown(), before);
    fs::write(site.folder().join("tls/shop.key"), &next.key).unwrap();
    site.teal.until("both are taken up", || site.shows(&next));
    fs::remove_file(site.folder().join("tls/shop.crt")).unwrap();
    let refused = site.told().1;
    site.teal.until("its absence is refused", || site.told().1 > refused);
    assert!(site.shows(&next), "the last good pair stays");
}

#[test]
fn a_certificate_in_a_new_folder_is_watched_even_before_it_is_there() {
    let site = Site::new();
    let later = site.folder().join("later");
    fs::create_dir(&later).unwrap();
    let text = fs::read_to_string(site.folder().join("teal.yaml")).unwrap();
    fs::write(site.folder().join("teal.yaml"), text.replace("tls/shop", "later/shop")).unwrap();
    site.teal.until("the missing file is refused", || site.told().1 > 0);
    let pair = site.authority.issue(&["shop.test"]);
    pair.write(&later, "shop");
    site.teal.until("it is taken up", || site.shows(&pair));
    // The folder that nobody names any more is left alone.
    let taken = site.told().0;
    site.authority.issue(&["shop.test"]).write(&site.folder().join("tls"), "shop");
    let last = site.authority.issue(&["shop.test"]);
    last.write(&later, "shop");
    site.teal.until("the next is taken up", || site.shows(&last));
    site.teal.until("it is told", || site.told().0 > taken);
}

#[test]
fn an_expired_certificate_is_told_at_the_start() {
    let (authority, blue) = (Authority::new("Site"), Upstream::plain("blue"));
    let folder = tempfile::tempdir().unwrap();
    authority.issue_expired(&["shop.test"]).write(folder.path(), "shop");
    fs::write(folder.path().join("teal.yaml"), text(&blue, "shop")).unwrap();
    let teal = Teal::from_folder(folder);
    let told = teal.told("certificate");
    assert!(told.len() == 1 && told[0].contains("has expired"), "{told:?}");
}

#[test]
fn other_terms_make_other_endpoints_that_keep_their_health() {
    let (blue, folder) = (Upstream::plain("blue"), tempfile::tempdir().unwrap());
    let text = |protocol: &str| {
        format!(
            "version: 1\nlisten: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: none\nworkers: 2\nservices: {{ shop: {{ pools: {{ blue: {{ endpoints: '{}', protocol: {protocol} }} }}, health: {{ interval: 1h }} }} }}\n",
            blue.url()
        )
    };
    fs::write(folder.path().join("teal.yaml"), text("h1")).unwrap();
    let teal = Teal::from_folder(folder);
    let endpoint = || teal.running().controller.plane().table.load().services[0].pools[0].endpoints[0].clone();
    teal.until("a first check", || endpoint().health() == Health::Healthy);
    let first = endpoint();
    fs::write(teal.folder.as_ref().unwrap().path().join("teal.yaml"), text("h2")).unwrap();
    teal.until("the reload", || teal.told("reload").len() == 1);
    let second = endpoint();
    assert!(first.is_retired() && !second.is_retired() && first.id != second.id);
    assert_eq!((second.resolved(), second.health()), (first.resolved(), Health::Healthy));
}
