//! A certificate with its private key, from two PEM files.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use rustls::crypto::ring as provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureAlgorithm};
use serde::{Deserialize, Serialize};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::kernel::regular_file;

/// No certificate or key is longer; what is was not meant for one.
const MOST_BYTES: u64 = 1 << 20;

/// A certificate of a listener. It is compared and written down by what is said
/// here; the key is beside it in memory only.
#[derive(Clone, Serialize, Deserialize)]
pub struct Certificate {
    /// The file with the certificate and those that lead to its issuer.
    pub cert: PathBuf,
    /// The file with the private key.
    pub key: PathBuf,
    /// What names the content of both files: the SHA-256 of them, in hexadecimal.
    pub id: String,
    /// The certificate's own SHA-256, as `openssl x509 -fingerprint -sha256`
    /// has it, without colons.
    pub fingerprint: String,
    /// The names that it is for, in lower case; one may begin with `*.`.
    pub names: Vec<String>,
    /// The kind of its key.
    pub kind: Kind,
    /// From when on it is valid, in seconds since the Unix epoch.
    pub not_before: i64,
    /// Until when, in seconds since the Unix epoch.
    pub not_after: i64,
    /// The files' content; none where it was read from a state.
    #[serde(skip)]
    pub(crate) pem: Option<Arc<Pem>>,
}

/// The kind of a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// RSA.
    Rsa,
    /// ECDSA with any curve.
    Ecdsa,
    /// Ed25519.
    Ed25519,
    /// Any other that the cryptography knows.
    Other,
}

/// A certificate's files, as text.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pem {
    pub(crate) chain: String,
    pub(crate) key: String,
}

/// Leaves the key out, so that no log has it by accident.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").finish_non_exhaustive()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("cert", &self.cert)
            .field("names", &self.names)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        // Everything else is part of what `id` is made of.
        self.id == other.id && self.cert == other.cert && self.key == other.key
    }
}

impl Eq for Certificate {}

impl Certificate {
    /// Whether both were read from the same files.
    pub(crate) fn is_of_files_of(&self, other: &Self) -> bool {
        self.cert == other.cert && self.key == other.key
    }

    /// Its name for people: the first that it is for, or its file.
    pub fn title(&self) -> String {
        self.names
            .first()
            .cloned()
            .unwrap_or_else(|| self.cert.display().to_string())
    }
}

/// What is wrong with a certificate's files, and with which of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadError {
    /// Whether it is the key's file.
    pub(crate) of_key: bool,
    /// What is wrong.
    pub(crate) problem: String,
    /// What would be right.
    pub(crate) help: String,
}

/// Reads a certificate and its key, and checks that they belong together.
///
/// # Errors
/// Whatever would keep a worker from using them, in words for an operator.
pub(crate) fn read(cert: &Path, key: &Path) -> Result<Certificate, ReadError> {
    let chain = text(cert, false)?;
    let secret = text(key, true)?;
    let pem = Pem { chain, key: secret };
    check(cert, key, pem)
}

/// The same for content that was read already.
pub(super) fn check(cert: &Path, key: &Path, pem: Pem) -> Result<Certificate, ReadError> {
    let chain = certificates(cert, &pem.chain)?;
    let private = private_key(key, &pem.key)?;
    let leaf = chain.first().cloned().unwrap_or_else(|| Vec::new().into());
    let certified = CertifiedKey::from_der(chain, private, &provider::default_provider());
    let certified = certified.map_err(|problem| unusable(cert, key, &problem))?;
    let kind = match certified.key.algorithm() {
        SignatureAlgorithm::RSA => Kind::Rsa,
        SignatureAlgorithm::ECDSA => Kind::Ecdsa,
        SignatureAlgorithm::ED25519 => Kind::Ed25519,
        _ => Kind::Other,
    };
    let damaged = |problem: String| ReadError {
        of_key: false,
        problem: format!(
            "the certificate in {} is damaged: {problem}",
            cert.display()
        ),
        help: "look at it with `openssl x509 -text -in FILE`".to_owned(),
    };
    let (_, parsed) = X509Certificate::from_der(&leaf).map_err(|e| damaged(e.to_string()))?;
    let validity = parsed.validity();
    Ok(Certificate {
        cert: cert.to_owned(),
        key: key.to_owned(),
        id: id(&pem),
        fingerprint: HEXLOWER.encode(digest(&SHA256, &leaf).as_ref()),
        names: names(&parsed).map_err(damaged)?,
        kind,
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
        pem: Some(Arc::new(pem)),
    })
}

/// What names this content.
pub(super) fn id(pem: &Pem) -> String {
    let both = [pem.chain.as_bytes(), &[0], pem.key.as_bytes()].concat();
    HEXLOWER.encode(digest(&SHA256, &both).as_ref())
}

fn text(path: &Path, of_key: bool) -> Result<String, ReadError> {
    let shown = path.display();
    let what = if of_key { "private key" } else { "certificate" };
    let fail = |problem: String, help: &str| ReadError {
        of_key,
        problem,
        help: help.to_owned(),
    };
    match regular_file::read(path, MOST_BYTES) {
        Ok(bytes) => pem_text(&bytes).ok_or_else(|| {
            let problem = format!("{shown} is no text, so no {what} in PEM");
            let help =
                "DER is made PEM by `openssl x509 -inform der` or `openssl pkey -inform der`";
            fail(problem, help)
        }),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            let problem = format!("{shown} is longer than a {what} can be");
            Err(fail(problem, "a PEM file of at most 1 MiB"))
        }
        Err(error) => {
            let problem = format!("cannot read the {what} {shown}: {error}");
            Err(fail(
                problem,
                "relative paths start at the file's directory",
            ))
        }
    }
}

/// What stands before and between the parts of a PEM file is for people (RFC 7468, 2),
/// in whatever encoding they wrote it: only the parts themselves are ASCII. None for
/// what is no text and has no part.
pub(super) fn pem_text(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    if matches!(text, Cow::Owned(_)) && !text.contains("-----BEGIN ") {
        return None;
    }
    // Some editors put a mark of the byte order before the first line.
    Some(text.trim_start_matches('\u{feff}').to_owned())
}

fn certificates(path: &Path, text: &str) -> Result<Vec<CertificateDer<'static>>, ReadError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let fail = |problem: String| ReadError {
        of_key: false,
        problem,
        help: "a PEM file with -----BEGIN CERTIFICATE-----, the server's own first".to_owned(),
    };
    match chain {
        Ok(chain) if chain.is_empty() => {
            Err(fail(format!("{} holds no certificate", path.display())))
        }
        Ok(chain) => Ok(chain),
        Err(error) => Err(fail(format!("{} is no PEM: {error}", path.display()))),
    }
}

fn private_key(path: &Path, text: &str) -> Result<PrivateKeyDer<'static>, ReadError> {
    let shown = path.display();
    let fail = |problem: String, help: &str| ReadError {
        of_key: true,
        problem,
        help: help.to_owned(),
    };
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        let help = "decrypt it with `openssl pkey -in FILE -out FILE`, for prefork's user alone";
        return Err(fail(format!("the key in {shown} is encrypted"), help));
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
        pem::Error::NoItemsFound => fail(
            format!("{shown} holds no private key"),
            "a PEM file with -----BEGIN PRIVATE KEY-----",
        ),
        error => fail(
            format!("{shown} is no PEM: {error}"),
            "a PEM file with -----BEGIN PRIVATE KEY-----",
        ),
    })
}

fn unusable(cert: &Path, key: &Path, problem: &rustls::Error) -> ReadError {
    let (cert, key) = (cert.display(), key.display());
    match problem {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => ReadError {
            of_key: true,
            problem: format!("the key in {key} is not the one of the certificate in {cert}"),
            help: "the file with the key that the certificate was asked for with; where there \
                   are several certificates in the other file, the server's own comes first"
                .to_owned(),
        },
        rustls::Error::InvalidCertificate(error) => ReadError {
            of_key: false,
            problem: format!("the certificate in {cert} cannot be used: {error}"),
            help: "an X.509 certificate of version 3".to_owned(),
        },
        error => ReadError {
            of_key: true,
            problem: format!("the key in {key} cannot be used: {error}"),
            help: "RSA of 2048 to 8192 bits, ECDSA P-256 or P-384, or Ed25519".to_owned(),
        },
    }
}

/// The DNS names that it is for. What once stood in its subject is no client's
/// concern any more (RFC 9525, 2).
fn names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, String> {
    let alternatives = certificate.subject_alternative_name();
    let Some(alternatives) = alternatives.map_err(|error| error.to_string())? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for name in &alternatives.value.general_names {
        if let GeneralName::DNSName(name) = name {
            let name = name.to_ascii_lowercase();
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}
