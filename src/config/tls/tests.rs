//! TLS in the file: what is read, what is refused, and where the blame is put.

use std::time::Duration;

use super::desk::Desk;
use super::forge::{Authority, Pair};
use super::*;
use crate::config::Report;
use crate::config::settings::Protocol;

/// There is one problem, of this code, and its sentence has these words.
fn refused<T: std::fmt::Debug>(result: Result<T, Report>, code: &str, words: &str) {
    let report = result.unwrap_err();
    let problems: Vec<_> = report.problems().map(|located| located.problem.clone()).collect();
    let [problem] = &problems[..] else { panic!("{report}") };
    assert!(problem.code == code && problem.message.contains(words), "{report}");
}

#[test]
fn a_listener_is_read_with_its_certificates() {
    let desk = Desk::new();
    let listener = desk.listener("tls: { certificates: { cert: a.crt, key: a.key } }").unwrap();
    let tls = listener.tls.unwrap();
    let names: Vec<_> = tls.certificates[0].names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["a.test", "*.b.test"]);
    assert_eq!((tls.min_version, &tls.client_auth, tls.resumption), (TlsVersion::Tls12, &ClientAuth::Off, true));
    assert_eq!((&tls.alpn[..], listener.http2), (&[Alpn::Http2, Alpn::Http1][..], true));
    let given = "tls: { certificates: [{ cert: a.crt, key: a.key, hosts: ['*.c.test'] }, { cert: nobody.crt, key: nobody.key, hosts: d.test }], min_version: '1.3', client_auth: required, client_ca: ca.crt, resumption: off }, http2: off, hsts: { max_age: 365days, include_subdomains: true, preload: true }";
    let listener = desk.listener(given).unwrap();
    assert_eq!(listener.hsts.unwrap().field(), "max-age=31536000; includeSubDomains; preload");
    let tls = listener.tls.unwrap();
    let names: Vec<_> = tls.certificates.iter().map(|identity| identity.names[0].to_string()).collect();
    assert_eq!(names, ["*.c.test", "d.test"]);
    assert_eq!((tls.min_version, &tls.alpn[..], tls.resumption), (TlsVersion::Tls13, &[Alpn::Http1][..], false));
    assert!(matches!(&tls.client_auth, ClientAuth::Required(roots) if roots.certificates.len() == 1));
}

#[test]
fn what_a_listener_cannot_be_is_refused() {
    let desk = Desk::new();
    refused(
        desk.listener("redirect_https: true, tls: { certificates: { cert: a.crt, key: a.key } }"),
        "conflict",
        "TLS already",
    );
    refused(desk.listener("hsts: {}"), "conflict", "only over TLS");
    refused(desk.server("client_ca: ca.crt"), "conflict", "not asked");
    refused(desk.server("client_auth: optional"), "missing_key", "client_ca");
    refused(desk.server("min_version: '1.1'"), "unknown_value", "min_version");
    refused(desk.server("alpn: [h2, h2]"), "duplicate", "alpn");
    refused(
        desk.listener("http2: off, tls: { certificates: { cert: a.crt, key: a.key }, alpn: h2 }"),
        "conflict",
        "http2",
    );
    refused(desk.listener("tls: {}"), "missing_key", "certificates");
    refused(desk.listener("tls: { certificates: { cert: a.crt } }"), "missing_key", "key");
    let second = "tls: { certificates: [{ cert: a.crt, key: a.key }, { cert: nobody.crt, key: nobody.key }] }";
    refused(desk.listener(second), "certificate", "names no host");
    let preload = "tls: { certificates: { cert: a.crt, key: a.key } }, hsts: { preload: true }";
    refused(desk.listener(preload), "conflict", "preload");
    assert_eq!(desk.listener("redirect_https: 8443").unwrap().redirect_https, Some(8443));
    assert_eq!(desk.listener("redirect_https: true").unwrap().redirect_https, Some(443));
}

#[test]
fn a_bad_file_is_named_where_it_is_named() {
    let desk = Desk::new();
    let with =
        |cert: &str, key: &str| desk.listener(&format!("tls: {{ certificates: {{ cert: {cert}, key: {key} }} }}"));
    refused(with("absent.crt", "a.key"), "certificate", "absent.crt");
    refused(with("a.crt", "absent.key"), "certificate", "absent.key");
    refused(with("a.crt", "nobody.key"), "certificate", "does not belong");
    let report = with("a.crt", "nobody.key").unwrap_err().to_string();
    let under = report.lines().find(|line| line.contains('^')).unwrap();
    let line = report.lines().find(|line| line.contains("nobody.key")).unwrap();
    assert_eq!(under.find('^'), line.find("nobody.key"), "{report}");
    refused(with("a.key", "a.key"), "certificate", "BEGIN CERTIFICATE");
    refused(with("a.crt", "a.crt"), "certificate", "BEGIN PRIVATE KEY");
    desk.write("torn.crt", "-----BEGIN CERTIFICATE-----\nMIIB");
    refused(with("torn.crt", "a.key"), "certificate", "PEM");
    desk.write("nonsense.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    refused(with("nonsense.crt", "a.key"), "certificate", "not well-formed");
    desk.write("locked.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
    refused(with("a.crt", "locked.key"), "certificate", "encrypted");
    desk.write("nonsense.key", "-----BEGIN PRIVATE KEY-----\nc2VjcmV0LWJ5dGVz\n-----END PRIVATE KEY-----\n");
    refused(with("a.crt", "nonsense.key"), "certificate", "not supported");
    desk.write("large.crt", vec![b'a'; 64 * 1024 + 1]);
    refused(with("large.crt", "a.key"), "certificate", "larger than 64 KiB");
    let chain = std::fs::read_to_string(desk.path().join("a.crt")).unwrap().repeat(11);
    desk.write("long.crt", chain);
    refused(with("long.crt", "a.key"), "certificate", "at most 10");
    refused(desk.server("client_auth: required, client_ca: a.key"), "certificate", "BEGIN CERTIFICATE");
    desk.write("bad.ocsp", "hello");
    let stapled =
        |ocsp: &str| desk.listener(&format!("tls: {{ certificates: {{ cert: a.crt, key: a.key, ocsp: {ocsp} }} }}"));
    refused(stapled("bad.ocsp"), "certificate", "OCSP");
    refused(stapled("absent.ocsp"), "certificate", "absent.ocsp");
}

#[test]
fn no_report_and_no_setting_shows_a_key() {
    let desk = Desk::new();
    let Pair { key, .. } = desk.authority.issue(&["x.test"]);
    let secret = key.lines().nth(1).unwrap().to_owned();
    desk.write("other.key", key);
    let report = desk.listener("tls: { certificates: { cert: a.crt, key: other.key } }").unwrap_err();
    let settings = desk.server("").unwrap();
    assert!(!format!("{report} {report:?} {settings:?}").contains(&secret[..20]));
    assert!(!format!("{settings:?}").contains("Ecdsa"), "{settings:?}");
}

#[test]
fn a_renewed_certificate_makes_other_settings() {
    let desk = Desk::new();
    let before = desk.server("client_auth: optional, client_ca: ca.crt").unwrap();
    assert_eq!(desk.server("client_auth: optional, client_ca: ca.crt").unwrap(), before);
    desk.authority.issue(&["a.test", "*.b.test"]).write(desk.path(), "a");
    let after = desk.server("client_auth: optional, client_ca: ca.crt").unwrap();
    assert_ne!(after, before);
    desk.write("ca.crt", Authority::new("Another").pem);
    assert_ne!(desk.server("client_auth: optional, client_ca: ca.crt").unwrap(), after);
}

#[test]
fn pools_are_read_with_their_tls() {
    let desk = Desk::new();
    let plain = desk.pool("endpoints: 'http://a'").unwrap();
    assert_eq!((plain.tls, plain.protocol), (None, Protocol::Http1));
    let short = desk.pool("endpoints: 'https://a'").unwrap();
    assert_eq!(
        (short.tls.as_deref(), &*short.endpoints[0].address.authority()),
        (Some(&UpstreamTls::default()), "a:443")
    );
    let full = "endpoints: ['https://a', 'https://[::1]:1'], protocol: auto, tls: { ca: ca.crt, server_name: A.test, client_cert: a.crt, client_key: a.key, min_version: '1.3' }";
    let pool = desk.pool(full).unwrap();
    let tls = pool.tls.unwrap();
    assert!(matches!(&tls.trust, Trust::Roots(roots) if roots.certificates.len() == 1));
    assert_eq!((tls.server_name.as_deref(), tls.min_version), (Some("a.test"), TlsVersion::Tls13));
    assert_eq!((tls.identity.as_ref().map(|identity| identity.names.len()), pool.protocol), (Some(2), Protocol::Auto));
    let skip = desk.pool("endpoints: 'https://a', tls: { insecure_skip_verify: true }").unwrap();
    assert_eq!(skip.tls.unwrap().trust, Trust::Unverified);
    assert_eq!(desk.pool("endpoints: 'http://a', protocol: h2").unwrap().protocol, Protocol::Http2);
    let address = desk.pool("endpoints: 'https://10.0.0.1', tls: { server_name: '::1' }").unwrap();
    assert_eq!(address.tls.unwrap().server_name.as_deref(), Some("::1"));
}

#[test]
fn what_a_pool_cannot_be_is_refused() {
    let desk = Desk::new();
    refused(desk.pool("endpoints: ['https://a', 'http://b']"), "conflict", "all of its endpoints");
    refused(desk.pool("endpoints: 'http://a', tls: {}"), "conflict", "no meaning");
    refused(desk.pool("endpoints: 'http://a', protocol: auto"), "conflict", "without TLS");
    refused(desk.pool("endpoints: 'http://a', protocol: h3"), "unknown_value", "protocol");
    let tls = |lines: &str| desk.pool(&format!("endpoints: 'https://a', tls: {{ {lines} }}"));
    refused(tls("ca: absent.crt"), "certificate", "absent.crt");
    refused(tls("ca: ca.crt, insecure_skip_verify: true"), "conflict", "nobody is verified");
    refused(tls("client_cert: a.crt"), "missing_key", "client_key");
    refused(tls("client_key: a.key"), "missing_key", "client_cert");
    refused(tls("client_cert: a.crt, client_key: nobody.key"), "certificate", "does not belong");
    refused(tls("server_name: 'a b'"), "bad_value", "server_name");
    refused(tls("server_name: 'https://a'"), "bad_value", "server_name");
    refused(tls("verify: false"), "unknown_key", "verify");
}

#[test]
fn the_settings_know_their_files_and_what_expires() {
    let desk = Desk::new();
    desk.authority.issue_expired(&["a.test"]).write(desk.path(), "old");
    let text = "version: 1\nstate: none\nlisten: { address: ':1', tls: { certificates: [{ cert: a.crt, key: a.key }, { cert: old.crt, key: old.key }], client_auth: optional, client_ca: ca.crt } }\nservices: { s: { pools: { b: { endpoints: 'https://b', tls: { ca: ca.crt, client_cert: a.crt, client_key: a.key } } } } }\n";
    let settings = desk.read(text).unwrap();
    let files: Vec<_> = settings.files().into_iter().map(|file| file.file_name().unwrap().to_owned()).collect();
    assert_eq!(files, ["a.crt", "a.key", "ca.crt", "old.crt", "old.key"]);
    let worries = |now: i64| settings.identities().filter_map(|identity| identity.worry(now)).collect::<Vec<_>>();
    let ended = 1_009_843_200; // 2002-01-01
    assert_eq!(worries(ended - 15 * DAY), Vec::<String>::new());
    assert!(worries(ended - 3 * DAY)[0].ends_with("expires in 3 days"), "{:?}", worries(ended - 3 * DAY));
    assert!(worries(ended - 1)[0].ends_with("expires in less than a day"));
    assert!(worries(ended + 2 * DAY)[0].ends_with("has expired 2 days ago"));
}

#[test]
fn a_strict_transport_field_is_written_as_browsers_read_it() {
    let hsts = Hsts { max_age: Duration::from_secs(60), include_subdomains: false, preload: false };
    assert_eq!(hsts.field(), "max-age=60");
    assert_eq!(Hsts { include_subdomains: true, ..hsts }.field(), "max-age=60; includeSubDomains");
}

#[test]
fn the_provider_prefers_what_survives_a_quantum_computer() {
    use tokio_rustls::rustls::NamedGroup;
    assert_eq!(provider().kx_groups[0].name(), NamedGroup::X25519MLKEM768);
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let hex: String = fingerprint(&CertificateDer::from(Vec::new())).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, empty);
    assert_ne!(sha256([&b"ab"[..], b"c"]), sha256([&b"a"[..], b"bc"]));
}
