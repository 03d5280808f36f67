//! Who a client proved to be, in the header fields that tell the upstream.
//!
//! Invariant: a value is printable ASCII without a way to forge another one: what could end a field, a name or a list
//! is percent-encoded. Fields of these names from clients are dropped by whoever forwards, always.

use std::fmt::Write;

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::settings::tls::fingerprint;

/// The fields that speak of a client's certificate, in lower case: dropped from every request, then set by us.
pub const CLIENT_FIELDS: [&str; 4] =
    ["x-client-verified", "x-client-cert-subject", "x-client-cert-san", "x-client-cert-fingerprint"];

/// Bytes of one value: more would crowd out the request's own fields. It is left out rather than cut short, since a
/// part of an identity is another one.
const MAX_VALUE: usize = 4 * 1024;

/// Who a client is, as far as its certificate goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Name (in lower case) and value of each field, to be added to every request of the connection.
    pub fields: Vec<(&'static str, String)>,
}

impl ClientIdentity {
    /// A client that was asked for a certificate and came without.
    pub fn unverified() -> ClientIdentity {
        ClientIdentity { fields: vec![(CLIENT_FIELDS[0], "false".to_owned())] }
    }

    /// A client whose certificate was verified in the handshake.
    pub fn of(certificate: &CertificateDer<'_>) -> ClientIdentity {
        let hex = fingerprint(certificate).iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let mut fields = vec![(CLIENT_FIELDS[0], "true".to_owned())];
        if let Ok((_, parsed)) = X509Certificate::from_der(certificate) {
            let values = [(CLIENT_FIELDS[1], subject(&parsed)), (CLIENT_FIELDS[2], alternative_names(&parsed))];
            fields.extend(values.into_iter().filter(|(_, value)| !value.is_empty() && value.len() <= MAX_VALUE));
        }
        fields.push((CLIENT_FIELDS[3], hex));
        ClientIdentity { fields }
    }
}

/// The distinguished name as `CN=a,O=b`, in the order of the certificate.
fn subject(certificate: &X509Certificate<'_>) -> String {
    let mut parts = Vec::new();
    for attribute in certificate.subject().iter_attributes() {
        let kind = attribute.attr_type();
        let registry = x509_parser::objects::oid_registry();
        let short = registry.get(kind).map_or_else(|| kind.to_id_string(), |entry| short(entry.sn()).to_owned());
        if let Ok(value) = attribute.as_str() {
            parts.push(format!("{short}={}", encoded(value)));
        }
    }
    parts.join(",")
}

/// The names that RFC 4514 section 3 knows by letters.
fn short(name: &str) -> &str {
    match name {
        "commonName" => "CN",
        "countryName" => "C",
        "localityName" => "L",
        "stateOrProvinceName" => "ST",
        "organizationName" => "O",
        "organizationalUnit" | "organizationalUnitName" => "OU",
        "domainComponent" => "DC",
        "userId" => "UID",
        other => other,
    }
}

/// The other names as `DNS=a,URI=b,IP=c,EMAIL=d`; kinds beyond those are left out.
fn alternative_names(certificate: &X509Certificate<'_>) -> String {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return String::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(format!("DNS={}", encoded(name))),
        GeneralName::URI(name) => Some(format!("URI={}", encoded(name))),
        GeneralName::RFC822Name(name) => Some(format!("EMAIL={}", encoded(name))),
        GeneralName::IPAddress(bytes) => address(bytes).map(|ip| format!("IP={ip}")),
        _ => None,
    });
    names.collect::<Vec<_>>().join(",")
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(Into::into);
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(Into::into))
}

/// Percent-encodes what is not printable ASCII, and what separates or quotes. `=` stays: the first of a part ends its
/// kind, and URIs have many.
fn encoded(value: &str) -> String {
    value.bytes().fold(String::with_capacity(value.len()), |mut text, byte| {
        match byte {
            b'%' | b',' | b';' | b'"' | b'\\' => drop(write!(text, "%{byte:02X}")),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => drop(write!(text, "%{byte:02X}")),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn fields(change: impl FnOnce(&mut CertificateParams)) -> Vec<(&'static str, String)> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        ClientIdentity::of(certificate.der()).fields
    }

    fn value(fields: &[(&'static str, String)], name: &str) -> Option<String> {
        fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    #[test]
    fn nothing_in_a_certificate_can_forge_a_field_or_another_name() {
        let fields = fields(|params| {
            let name = "a,CN=admin\r\nx-client-verified: true\u{1F980}100%";
            params.distinguished_name.push(DnType::CommonName, name);
            params.distinguished_name.push(DnType::OrganizationName, "Big; \"Quoted\" Ltd");
            let uri = "spiffe://a.test/x,DNS=b.test?a=b".try_into().unwrap();
            let mail = "me@a.test".try_into().unwrap();
            let ip = "2001:db8::1".parse().unwrap();
            params.subject_alt_names = vec![SanType::URI(uri), SanType::Rfc822Name(mail), SanType::IpAddress(ip)];
        });
        let subject = value(&fields, "x-client-cert-subject").unwrap();
        let expected = "CN=a%2CCN=admin%0D%0Ax-client-verified: true%F0%9F%A6%80100%25,O=Big%3B %22Quoted%22 Ltd";
        assert_eq!(subject, expected);
        let names = value(&fields, "x-client-cert-san").unwrap();
        assert_eq!(names, "URI=spiffe://a.test/x%2CDNS=b.test?a=b,EMAIL=me@a.test,IP=2001:db8::1");
        assert!(fields.iter().all(|(_, value)| value.bytes().all(|byte| matches!(byte, b' '..=b'~'))));
    }

    #[test]
    fn what_is_too_long_is_left_out_whole() {
        let fields = fields(|params| {
            params.subject_alt_names = (0..200)
                .map(|n| SanType::DnsName(format!("{n}.{}.test", "x".repeat(30)).try_into().unwrap()))
                .collect();
        });
        let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["x-client-verified", "x-client-cert-fingerprint"]);
    }

    #[test]
    fn an_unverified_client_says_no_more_than_that() {
        assert_eq!(ClientIdentity::unverified().fields, [("x-client-verified", "false".to_owned())]);
    }
}
