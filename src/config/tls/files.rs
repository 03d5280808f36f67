//! Certificates, keys, authorities and OCSP responses from their files, in PEM.
//!
//! Invariant: nothing of a key's content is ever part of a message.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::{PemObject, SectionKind, SliceIter};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Identity, Roots, provider, sha256};
use crate::domain::route::HostPattern;

/// Bytes of a chain, a key, an OCSP response: rustls refuses longer chains.
const MAX_FILE: u64 = 64 * 1024;
/// Bytes of a file of authorities: a system's whole list has a quarter of a megabyte.
const MAX_ROOTS_FILE: u64 = 1024 * 1024;
/// Certificates of a chain: clients give up before that.
const MAX_CHAIN: usize = 10;
/// Names taken from one certificate; public authorities issue for a hundred.
const MAX_NAMES: usize = 1_000;

/// Which file is to blame, and what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Blame {
    Certificate(String),
    Key(String),
    /// The key is fine, but it is another certificate's.
    Mismatch,
    Ocsp(String),
}

/// Reads a certificate with its chain, its key and, if given, an OCSP response. `hosts` take the place of the
/// certificate's own names.
pub(super) fn identity(
    cert: &Path,
    key: &Path,
    ocsp: Option<&Path>,
    hosts: Option<Vec<HostPattern>>,
) -> Result<Identity, Blame> {
    let chain = chain(cert).map_err(Blame::Certificate)?;
    let (names, not_after) = leaf(&chain[0]).map_err(|why| Blame::Certificate(in_file(cert, &why)))?;
    let key_der = private_key(key).map_err(Blame::Key)?;
    let ocsp_bytes = ocsp.map(|path| read(path, MAX_FILE)).transpose().map_err(Blame::Ocsp)?;
    if let Some(path) = ocsp.filter(|_| ocsp_bytes.as_deref().is_some_and(|bytes| !looks_like_ocsp(bytes))) {
        return Err(Blame::Ocsp(in_file(path, "this is not an OCSP response in DER")));
    }
    let digest = sha256(
        chain.iter().map(AsRef::as_ref).chain([key_der.secret_der(), ocsp_bytes.as_deref().unwrap_or_default()]),
    );
    let mut certified = CertifiedKey::from_der(chain, key_der, &provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Blame::Mismatch,
        Error::InvalidCertificate(_) => Blame::Certificate(in_file(cert, "the certificate is not well-formed")),
        _ => Blame::Key(in_file(key, "the key is of a kind that is not supported")),
    })?;
    certified.ocsp = ocsp_bytes;
    let files = [cert, key].into_iter().chain(ocsp).map(Path::to_owned).collect();
    let names = hosts.unwrap_or(names);
    Ok(Identity { file: cert.to_owned(), certified: Arc::new(certified), names, not_after, files, digest })
}

/// Reads the certificates of authorities.
pub(super) fn roots(path: &Path) -> Result<Roots, String> {
    let certificates = certificates(path, MAX_ROOTS_FILE)?;
    let mut store = RootCertStore::empty();
    for (index, certificate) in certificates.iter().enumerate() {
        let refused = |_| in_file(path, &format!("certificate {} cannot be an authority's", index + 1));
        store.add(certificate.clone()).map_err(refused)?;
    }
    Ok(Roots { file: path.to_owned(), certificates: Arc::new(certificates) })
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain = certificates(path, MAX_FILE)?;
    if chain.len() > MAX_CHAIN {
        return Err(in_file(path, &format!("a chain has at most {MAX_CHAIN} certificates, this one {}", chain.len())));
    }
    let unreadable = chain.iter().position(|certificate| parsed(certificate).is_none());
    match unreadable {
        Some(index) => Err(in_file(path, &format!("certificate {} is not well-formed", index + 1))),
        None => Ok(chain),
    }
}

fn certificates(path: &Path, most: u64) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path, most)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(in_file(path, "no `-----BEGIN CERTIFICATE-----` is in it: certificates are read in PEM"))
        }
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(in_file(path, "this is not well-formed PEM")),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let bytes = read(path, MAX_FILE)?;
    if bytes.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED)
        || bytes.windows(ENCRYPTED_OLD.len()).any(|window| window == ENCRYPTED_OLD)
    {
        return Err(in_file(path, "the key is encrypted: nobody is there to type the passphrase, store it without"));
    }
    let mut keys = SliceIter::<(SectionKind, Vec<u8>)>::new(&bytes)
        .filter_map(Result::ok)
        .filter_map(|(kind, der)| PrivateKeyDer::from_pem(kind, der));
    keys.next().ok_or_else(|| in_file(path, "no `-----BEGIN PRIVATE KEY-----` is in it: keys are read in PEM"))
}

const ENCRYPTED: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
/// How older tools mark it inside the section (RFC 1421 section 4.6.1.1).
const ENCRYPTED_OLD: &[u8] = b"Proc-Type: 4,ENCRYPTED";

/// Names and end of a certificate.
fn leaf(der: &CertificateDer<'_>) -> Result<(Vec<HostPattern>, i64), String> {
    let certificate = parsed(der).ok_or("the certificate is not well-formed")?;
    let names = match certificate.subject_alternative_name() {
        Ok(Some(extension)) => &extension.value.general_names[..],
        Ok(None) => &[],
        Err(_) => return Err("the certificate's names are not well-formed".to_owned()),
    };
    if names.len() > MAX_NAMES {
        return Err(format!("the certificate has {} names, at most {MAX_NAMES} are read", names.len()));
    }
    let hosts = names.iter().filter_map(|name| match name {
        // A pattern that is none of ours, such as `w*.example.com`, matches nobody.
        GeneralName::DNSName(name) => name.parse().ok(),
        _ => None,
    });
    Ok((hosts.collect(), certificate.validity().not_after.timestamp()))
}

fn parsed<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    X509Certificate::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, certificate)| certificate)
}

/// `OCSPResponse ::= SEQUENCE { responseStatus ENUMERATED { successful(0) }, ...` (RFC 6960 section 4.2.1).
fn looks_like_ocsp(bytes: &[u8]) -> bool {
    let status = match bytes {
        [0x30, length, rest @ ..] if *length < 0x80 => rest,
        [0x30, 0x81, _, rest @ ..] | [0x30, 0x82, _, _, rest @ ..] => rest,
        _ => return false,
    };
    status.starts_with(&[0x0a, 0x01, 0x00])
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    match bytes.len() as u64 > most {
        true => Err(in_file(path, &format!("the file is larger than {} KiB", most / 1024))),
        false => Ok(bytes),
    }
}

fn in_file(path: &Path, what: &str) -> String {
    format!("`{}`: {what}", path.display())
}
