//! TLS on the listeners that the supervisor wants it on: which configuration a
//! new connection gets. Both the certificates and the ticket keys come from the
//! supervisor, and may be replaced at any time; a connection keeps what it began
//! with.

mod clients;
mod handshake;
mod names;
mod tickets;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use prefork_proto::message::TlsOffer;
use prefork_proto::tls::{self, Certificate, TicketKey, TlsListener, TlsSettings, TlsVersion};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;

pub(crate) use clients::Refusals;
pub(crate) use handshake::handshake;
use names::Names;
use tickets::Tickets;

/// What is agreed on with a client that asks (RFC 7301), the better first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a listener can't speak TLS.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error(transparent)]
    Memory(#[from] tls::TlsError),

    #[error("the certificate for {of} cannot be read: {problem}")]
    Pem { of: String, problem: pem::Error },

    #[error("the certificate for {of} cannot be used: {problem}")]
    Certificate { of: String, problem: rustls::Error },

    #[error("listener {listener} has no certificate {index}")]
    Missing { listener: String, index: u32 },

    #[error("listener {listener} cannot speak TLS: {problem}")]
    Listener {
        listener: String,
        problem: rustls::Error,
    },

    #[error("the authorities of the clients of {listener} cannot be used: {problem}")]
    Authorities { listener: String, problem: String },

    #[error("a ticket key is not {0}")]
    TicketKey(&'static str),
}

/// What a process's listeners speak TLS with. A clone is the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tls {
    tickets: Arc<Tickets>,
    endpoints: Rc<RefCell<BTreeMap<String, Rc<Endpoint>>>>,
}

/// What the handshakes of one listener's next connections are done with.
#[derive(Debug)]
pub(crate) struct Endpoint(RefCell<Arc<ServerConfig>>);

/// Configurations by the names of their listeners.
pub(crate) type Prepared = Vec<(String, Arc<ServerConfig>)>;

impl Endpoint {
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.borrow())
    }
}

impl Tls {
    /// What the listener of this name speaks TLS with.
    pub(crate) fn endpoint(&self, listener: &str) -> Option<Rc<Endpoint>> {
        self.endpoints.borrow().get(listener).cloned()
    }

    /// Reads what came with `tls`. Nothing is in force yet; the work takes as
    /// long as there are certificates, and may be done on another thread.
    pub(crate) fn preparation(
        &self,
        offer: &TlsOffer,
        memory: OwnedFd,
    ) -> impl FnOnce() -> Result<Prepared, TlsError> + Send + 'static {
        let (bytes, tickets) = (offer.bytes, Arc::clone(&self.tickets));
        move || prepare(&tls::read(memory, bytes)?, &tickets)
    }

    /// New connections are served with this from here on.
    pub(crate) fn adopt(&self, prepared: Prepared) {
        let mut endpoints = self.endpoints.borrow_mut();
        for (name, config) in prepared {
            match endpoints.get(&name) {
                Some(endpoint) => *endpoint.0.borrow_mut() = config,
                None => {
                    let endpoint = Endpoint(RefCell::new(config));
                    endpoints.insert(name, Rc::new(endpoint));
                }
            }
        }
    }

    /// Tickets are made and read with these keys from here on.
    pub(crate) fn set_tickets(&self, keys: &[TicketKey]) -> Result<(), TlsError> {
        self.tickets.set(keys)
    }
}

fn prepare(settings: &TlsSettings, tickets: &Arc<Tickets>) -> Result<Prepared, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut keys = Vec::new();
    for certificate in &settings.certificates {
        keys.push(Arc::new(certified_key(certificate, &provider)?));
    }
    let mut prepared = Vec::new();
    for listener in &settings.listeners {
        let mut names = Names::default();
        for index in &listener.certificates {
            let place = usize::try_from(*index).unwrap_or(usize::MAX);
            let Some((key, of)) = keys.get(place).zip(settings.certificates.get(place)) else {
                return Err(TlsError::Missing {
                    listener: listener.name.clone(),
                    index: *index,
                });
            };
            names.add(&of.names, key);
        }
        let config = server_config(listener, names, &provider, tickets)?;
        prepared.push((listener.name.clone(), Arc::new(config)));
    }
    Ok(prepared)
}

fn certified_key(
    certificate: &Certificate,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let of = || match certificate.names.as_slice() {
        [] => "no name".to_owned(),
        names => names.join(", "),
    };
    let pem = |problem| TlsError::Pem { of: of(), problem };
    let chain = CertificateDer::pem_slice_iter(certificate.chain.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(pem)?;
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes()).map_err(pem)?;
    CertifiedKey::from_der(chain, key, provider)
        .map_err(|problem| TlsError::Certificate { of: of(), problem })
}

fn server_config(
    listener: &TlsListener,
    names: Names,
    provider: &Arc<CryptoProvider>,
    tickets: &Arc<Tickets>,
) -> Result<ServerConfig, TlsError> {
    let versions = match listener.min_version {
        TlsVersion::V1_2 => rustls::ALL_VERSIONS,
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        .map_err(|problem| TlsError::Listener {
            listener: listener.name.clone(),
            problem,
        })?
        .with_client_cert_verifier(clients::verifier(listener, provider)?)
        .with_cert_resolver(Arc::new(names));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // A session is in its ticket, where every worker finds it, or nowhere.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match listener.clients {
        None => config.ticketer = Arc::clone(tickets) as Arc<_>,
        // One that is taken up again skips what a certificate is looked at for: whether it
        // has expired since, and whether its issuer is still believed.
        Some(_) => config.send_tls13_tickets = 0,
    }
    Ok(config)
}
