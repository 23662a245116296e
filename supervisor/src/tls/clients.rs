//! The authorities that the clients of a listener have their certificates from, from a
//! PEM file.

use std::io;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::certificate::{ReadError, pem_text};
use crate::kernel::regular_file;

/// What a file may have, in bytes: some forty certificates. It is no secret, and is kept
/// with the rest of the configuration for the supervisor after this one.
const MOST_BYTES: u64 = 64 << 10;

/// Whose certificates clients prove with who they are. It is pinned as the listener's
/// own certificates are: what the file holds later is for a later generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAuthorities {
    /// The file that they were read from.
    pub file: PathBuf,
    /// What it held, in PEM.
    pub pem: String,
    /// How many there are.
    pub count: usize,
    /// Whether a client without a certificate is turned away.
    pub required: bool,
}

impl ClientAuthorities {
    /// Whether clients have to have a certificate, in the configuration's word.
    pub fn asked(&self) -> &'static str {
        match self.required {
            true => "required",
            false => "optional",
        }
    }

    /// The SHA-256 of what the file held, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        HEXLOWER.encode(digest(&SHA256, self.pem.as_bytes()).as_ref())
    }
}

/// Reads the file, and checks that a worker can use what is in it.
///
/// # Errors
/// Whatever would keep a worker from using it, in words for an operator.
pub(crate) fn read(file: &Path, required: bool) -> Result<ClientAuthorities, ReadError> {
    const HELP: &str = "a PEM file with the certificates of those who issue the clients\'";
    let shown = file.display();
    let fail = |problem: String| ReadError {
        of_key: false,
        problem,
        help: HELP.to_owned(),
    };
    let bytes = regular_file::read(file, MOST_BYTES).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => fail(format!("{shown} is longer than 64 KiB")),
        _ => fail(format!("cannot read the authorities in {shown}: {error}")),
    })?;
    let pem = pem_text(&bytes).ok_or_else(|| fail(format!("{shown} is no text, so no PEM")))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate =
            certificate.map_err(|error| fail(format!("{shown} is no PEM: {error}")))?;
        let added = roots.add(certificate);
        added.map_err(|error| fail(format!("{shown} holds one that cannot be used: {error}")))?;
    }
    match roots.len() {
        0 => Err(fail(format!("{shown} holds no certificate"))),
        count => Ok(ClientAuthorities {
            file: file.to_owned(),
            pem,
            count,
            required,
        }),
    }
}
