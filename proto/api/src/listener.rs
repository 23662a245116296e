//! Listening sockets and their certificates, a part of the status document.

use serde::{Deserialize, Serialize};

/// One listening socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name as configured.
    pub name: String,
    /// What it is bound to; the real port where the configuration says 0.
    pub address: String,
    /// `shared` or `per-slot`.
    pub mode: String,
    /// Connections that wait to be accepted; absent where the kernel does not say.
    pub backlog: Option<u64>,
    /// How many may wait.
    pub backlog_limit: Option<u64>,
    /// Whether its connections begin with a header of the PROXY protocol.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub proxy_protocol: bool,
    /// What its connections speak TLS with; absent where they don't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsStatus>,
    /// The permission bits of a unix socket's file as they are now, `0660`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<String>,
    /// The group of a unix socket's file as it is now: by name where the configuration
    /// names it, otherwise its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Why no client can come to it, and what mends that; absent where all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What a listener speaks TLS with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TlsStatus {
    /// The oldest version that is spoken: `1.2` or `1.3`.
    pub min_version: String,
    /// Its certificates, the first for clients that name no server.
    pub certificates: Vec<CertificateStatus>,
    /// Whether clients have to prove who they are: `required` or `optional`; absent where
    /// they are not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<String>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The names that it is for.
    pub names: Vec<String>,
    /// Its SHA-256, in hexadecimal.
    pub fingerprint: String,
    /// Until when it is valid, in seconds since the Unix epoch.
    pub not_after: i64,
}
