//! Certificates by which clients prove who they are.

use std::sync::{Arc, OnceLock};

use prefork_proto::tls::TlsListener;
use prometheus::{IntCounterVec, Opts};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{CertificateError, Error, RootCertStore};

use super::TlsError;

/// What looks at the certificates of a listener's clients.
pub(super) fn verifier(
    listener: &TlsListener,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let Some(clients) = &listener.clients else {
        return Ok(Arc::new(NoClientAuth));
    };
    let fail = |problem: String| TlsError::Authorities {
        listener: listener.name.clone(),
        problem,
    };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(clients.authorities.as_bytes()) {
        let root = root.map_err(|error| fail(error.to_string()))?;
        roots.add(root).map_err(|error| fail(error.to_string()))?;
    }
    let provider = Arc::clone(provider);
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = match clients.required {
        true => verifier,
        false => verifier.allow_unauthenticated(),
    };
    verifier.build().map_err(|error| fail(error.to_string()))
}

/// Handshakes that failed by the client's certificate, counted by the reason among the
/// application's metrics.
#[derive(Debug, Default)]
pub(crate) struct Refusals(OnceLock<IntCounterVec>);

impl Refusals {
    /// Counts a handshake that has failed by this, where it was the certificate.
    pub(super) fn count(&self, error: &Error) {
        if let Some(reason) = reason(error) {
            self.counter().with_label_values(&[reason]).inc();
        }
    }

    fn counter(&self) -> &IntCounterVec {
        self.0.get_or_init(|| {
            let help = "TLS handshakes that failed by the client's certificate, by the reason.";
            let options = Opts::new("tls_client_certificate_failures_total", help);
            let counter = IntCounterVec::new(options, &["reason"]).expect("the names are valid");
            // Where the application has a metric of that name, its own is shown.
            let _ = prometheus::register(Box::new(counter.clone()));
            counter
        })
    }
}

/// Why a certificate was refused, where that is why the handshake failed.
fn reason(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::NoCertificatesPresented => "missing",
        Error::InvalidCertificate(why) => match why {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "not_valid_yet"
            }
            CertificateError::UnknownIssuer => "unknown_issuer",
            _ => "invalid",
        },
        _ => return None,
    })
}
