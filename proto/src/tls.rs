//! What a worker needs to speak TLS: certificates with their private keys, and
//! the keys of session tickets.
//!
//! Certificates come in sealed memory, whose descriptor goes with
//! [`ToWorker::Tls`](crate::message::ToWorker::Tls): there may be more of them
//! than a line holds, and no private key is ever part of a line. The memory is
//! the same for all workers of a pool, and none of them can change it.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::error::{Call, SystemError};

/// The most that the memory holds, in bytes.
pub const MOST_BYTES: u64 = 64 << 20;

/// Why a client's handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// It was not done in time.
    Timeout,
    /// The client left in the middle of it.
    Closed,
    /// What the client sent is not TLS, or breaks its rules.
    Protocol,
    /// There is no version, cipher or key exchange that both sides know.
    Incompatible,
    /// The client refused it, most often the certificate.
    Rejected,
}

impl HandshakeFailure {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Self; 5] = [
        Self::Timeout,
        Self::Closed,
        Self::Protocol,
        Self::Incompatible,
        Self::Rejected,
    ];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::Incompatible => "incompatible",
            Self::Rejected => "rejected",
        }
    }
}

/// What the memory holds, as JSON: every certificate once, and which of them
/// each listener has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TlsSettings {
    /// Certificates with their keys.
    pub certificates: Vec<Certificate>,
    /// Every listener of the worker that speaks TLS.
    pub listeners: Vec<TlsListener>,
}

/// A certificate with its private key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Certificate {
    /// The names that it is for: `www.example.org`, `*.example.org`.
    pub names: Vec<String>,
    /// The certificate and those that lead to its issuer, in PEM.
    pub chain: String,
    /// The private key, in PEM; not to be logged.
    pub key: String,
}

/// Leaves the key out, so that no log has it by accident.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

/// What a listener does its handshakes with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TlsListener {
    /// The listener's name, as in `listener`.
    pub name: String,
    /// Indexes into the certificates. The first one is for clients that name no
    /// server, or one that no certificate is for; where several are for one
    /// name, the first of those that the client can use is taken.
    pub certificates: Vec<u32>,
    /// The oldest version that is spoken.
    #[serde(default)]
    pub min_version: TlsVersion,
    /// Which certificates clients prove with who they are. Absent: they are asked for none.
    /// Only to a worker with the capability `client_certificates`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientTrust>,
}

/// Whose certificates clients prove with who they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClientTrust {
    /// The certificates of those who may have issued theirs, in PEM.
    pub authorities: String,
    /// Whether a client without one is turned away. One whose certificate does not hold
    /// is in any case.
    pub required: bool,
}

/// A version of TLS.
///
/// ```
/// use prefork_proto::tls::TlsVersion;
///
/// assert!(TlsVersion::V1_2 < TlsVersion::V1_3);
/// assert_eq!(TlsVersion::V1_3.as_str(), "1.3");
/// ```
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V1_3,
}

impl TlsVersion {
    /// As it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_2 => "1.2",
            Self::V1_3 => "1.3",
        }
    }
}

/// A key for session tickets. A worker that has it takes up sessions that
/// another worker began.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TicketKey {
    /// What names the key in a ticket: 16 bytes in hexadecimal.
    pub name: String,
    /// The key: 32 bytes in hexadecimal; not to be logged.
    pub secret: String,
}

/// Leaves the secret out, so that no log has it by accident.
impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why the memory could not be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The kernel refused a step.
    #[error("no memory for certificates: {0}")]
    System(#[from] SystemError),
    /// It could not be written or read.
    #[error("the memory with the certificates cannot be used: {0}")]
    Io(#[from] io::Error),
    /// It holds something else.
    #[error("the memory with the certificates holds something else: {0}")]
    Content(#[from] serde_json::Error),
    /// There is more of it than any worker takes.
    #[error("the certificates come to {bytes} bytes, over the limit of {MOST_BYTES}")]
    TooLarge {
        /// How much there is.
        bytes: u64,
    },
}

/// Settings in memory that nobody can change any more, close-on-exec.
#[derive(Debug)]
pub struct SealedSettings {
    memory: OwnedFd,
    bytes: u64,
}

impl SealedSettings {
    /// Writes the settings down and seals them.
    ///
    /// # Errors
    /// [`TlsError`] with what the kernel lacks, or how much there is too much.
    pub fn new(settings: &TlsSettings) -> Result<Self, TlsError> {
        let text = serde_json::to_vec(settings)?;
        let bytes = text.len() as u64;
        if bytes > MOST_BYTES {
            return Err(TlsError::TooLarge { bytes });
        }
        let mut file = File::from(memory()?);
        file.write_all(&text)?;
        let seals = SealFlag::F_SEAL_WRITE
            | SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))
            .map_err(|errno| SystemError::new(Call::AddSeals, errno))?;
        Ok(Self {
            memory: file.into(),
            bytes,
        })
    }

    /// How much it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A descriptor for a worker.
    ///
    /// # Errors
    /// EMFILE, as fcntl(2) says.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.memory.try_clone()
    }
}

impl AsFd for SealedSettings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// Reads settings from the memory that came with
/// [`ToWorker::Tls`](crate::message::ToWorker::Tls), which says how much it holds.
///
/// # Errors
/// [`TlsError`] where that is not so.
pub fn read(memory: OwnedFd, bytes: u64) -> Result<TlsSettings, TlsError> {
    if bytes > MOST_BYTES {
        return Err(TlsError::TooLarge { bytes });
    }
    let mut text = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    // From a place that is named: all workers share one offset.
    File::from(memory).read_exact_at(&mut text, 0)?;
    Ok(serde_json::from_slice(&text)?)
}

fn memory() -> Result<OwnedFd, SystemError> {
    let name = c"prefork-tls";
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let no_exec = flags | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let memory = match memfd_create(name, no_exec) {
        // Linux before 6.3 does not know that memory can be made without a right to run it.
        Err(Errno::EINVAL) => memfd_create(name, flags),
        other => other,
    };
    memory.map_err(|errno| SystemError::new(Call::MemfdCreate, errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> TlsSettings {
        TlsSettings {
            certificates: vec![Certificate {
                names: vec!["a.example".to_owned()],
                chain: "chain".to_owned(),
                key: "hush".to_owned(),
            }],
            listeners: vec![TlsListener {
                name: "0.0.0.0:8443".to_owned(),
                certificates: vec![0],
                min_version: TlsVersion::V1_3,
                clients: None,
            }],
        }
    }

    #[test]
    fn what_is_sealed_is_read_by_everyone_and_changed_by_nobody() {
        let sealed = SealedSettings::new(&settings()).unwrap();
        for _ in 0..2 {
            let theirs = sealed.duplicate().unwrap();
            assert_eq!(read(theirs, sealed.bytes()).unwrap(), settings());
        }
        let theirs = File::from(sealed.duplicate().unwrap());
        let refused = theirs.write_at(b"x", 0).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        assert!(theirs.set_len(0).is_err());
        let cut = read(sealed.duplicate().unwrap(), sealed.bytes() - 1);
        assert!(matches!(cut, Err(TlsError::Content(_))), "{cut:?}");
        let more = read(sealed.duplicate().unwrap(), sealed.bytes() + 1);
        assert!(matches!(more, Err(TlsError::Io(_))), "{more:?}");
    }

    #[test]
    fn no_secret_is_in_what_a_log_would_show() {
        let ticket = TicketKey {
            name: "n".to_owned(),
            secret: "hush".to_owned(),
        };
        let shown = format!("{:?} {ticket:?}", settings());
        assert!(
            shown.contains("a.example") && !shown.contains("hush"),
            "{shown}"
        );
    }
}
