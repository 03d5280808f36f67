//! Certificates for tests: authorities, servers, clients, all of today's making.
//!
//! Shared by path with the tests outside of the library, so it names nothing of Teal.
#![allow(dead_code, unreachable_pub)]

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SignatureAlgorithm,
};

/// An authority of one's own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate in PEM.
    pub pem: String,
}

/// A certificate and its key in PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for some hosts (or IP addresses), good for years.
    pub fn issue(&self, hosts: &[&str]) -> Pair {
        self.sign(parameters(hosts))
    }

    /// The same with a change.
    pub fn issue_with(&self, hosts: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = parameters(hosts);
        change(&mut params);
        self.sign(params)
    }

    /// One that expired long ago.
    pub fn issue_expired(&self, hosts: &[&str]) -> Pair {
        self.issue_with(hosts, |params| {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        })
    }

    /// One whose key is of this kind.
    pub fn issue_for(&self, hosts: &[&str], algorithm: &'static SignatureAlgorithm) -> Pair {
        self.sign_for(parameters(hosts), algorithm)
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        self.sign_for(params, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    fn sign_for(&self, params: CertificateParams, algorithm: &'static SignatureAlgorithm) -> Pair {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { cert, key: key.serialize_pem() }
    }
}

fn parameters(hosts: &[&str]) -> CertificateParams {
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut params = CertificateParams::new(hosts.clone()).unwrap();
    let name = hosts.first().map_or("nobody", |host| host);
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_after = rcgen::date_time_ymd(4000, 1, 1);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

impl Pair {
    /// Writes `NAME.crt` and `NAME.key`.
    pub fn write(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(format!("{name}.crt")), &self.cert).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), &self.key).unwrap();
    }
}

/// Writes every file that an example names.
pub fn examples(folder: &Path) {
    let authority = Authority::new("Example Authority");
    for name in ["shop", "teal"] {
        authority.issue(&["shop.example.com"]).write(folder, name);
    }
    for name in ["clients.crt", "internal-ca.crt"] {
        std::fs::write(folder.join(name), &authority.pem).unwrap();
    }
    // The beginning of a response that says "successful"; the rest is for the client to read.
    std::fs::write(folder.join("shop.ocsp"), [0x30, 3, 0x0a, 1, 0]).unwrap();
}
