//! What a generation's workers are handed: the certificates of all their
//! listeners, in memory that is the same for all of them.

use std::io;
use std::os::fd::OwnedFd;

use prefork_proto::tls::{self, ClientTrust, SealedSettings, TlsListener, TlsSettings};

use crate::config::{Listen, Tls};
use crate::tls::Certificate;

/// The certificates of a generation.
#[derive(Debug)]
pub(crate) struct Material {
    sealed: SealedSettings,
    /// The first of the listeners that speak TLS, for people.
    listener: String,
    /// The first that asks clients for their certificates, for people.
    asking: Option<String>,
    /// A certificate of which nobody has the key any more, for people.
    missing: Option<String>,
}

/// What goes with a line to a worker.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) memory: OwnedFd,
    pub(crate) bytes: u64,
    /// A listener that it is for, for people.
    pub(crate) listener: String,
    /// One that asks clients for their certificates, for people.
    pub(crate) asking: Option<String>,
}

impl Material {
    /// The certificates of these listeners; none where none of them speaks TLS.
    ///
    /// # Errors
    /// The kernel lacks something.
    pub(crate) fn of(listen: &[Listen]) -> Result<Option<Self>, tls::TlsError> {
        let Some(first) = listen.iter().find(|listen| listen.tls.is_some()) else {
            return Ok(None);
        };
        let all = listen.iter().filter_map(|listen| listen.tls.as_ref());
        let mut all = all.flat_map(|tls| &tls.certificates);
        Ok(Some(Self {
            sealed: SealedSettings::new(&settings(listen))?,
            listener: first.name.clone(),
            asking: listen.iter().find(|it| asks(it)).map(|it| it.name.clone()),
            missing: all.find(|it| it.pem.is_none()).map(Certificate::title),
        }))
    }

    /// A descriptor for one worker.
    ///
    /// # Errors
    /// EMFILE, as fcntl(2) says, or that a certificate is missing.
    pub(crate) fn copy(&self) -> io::Result<Copy> {
        if let Some(missing) = &self.missing {
            let problem = format!("that for {missing} is not kept anywhere; a reload reads it");
            return Err(io::Error::other(problem));
        }
        Ok(Copy {
            listener: self.listener.clone(),
            asking: self.asking.clone(),
            memory: self.sealed.duplicate()?,
            bytes: self.sealed.bytes(),
        })
    }
}

fn asks(listen: &Listen) -> bool {
    listen.tls.as_ref().is_some_and(Tls::asks_clients)
}

/// What the memory says, each certificate once.
fn settings(listen: &[Listen]) -> TlsSettings {
    let mut settings = TlsSettings::default();
    let mut ids: Vec<&str> = Vec::new();
    for listen in listen {
        let Some(tls) = &listen.tls else { continue };
        let mut certificates = Vec::new();
        for certificate in &tls.certificates {
            let Some(pem) = &certificate.pem else {
                continue;
            };
            let known = ids.iter().position(|id| *id == certificate.id);
            let index = known.unwrap_or_else(|| {
                ids.push(&certificate.id);
                settings.certificates.push(tls::Certificate {
                    names: certificate.names.clone(),
                    chain: pem.chain.clone(),
                    key: pem.key.clone(),
                });
                ids.len() - 1
            });
            certificates.push(u32::try_from(index).unwrap_or(u32::MAX));
        }
        settings.listeners.push(TlsListener {
            name: listen.name.clone(),
            certificates,
            min_version: tls.min_version,
            clients: tls.clients.as_ref().map(|clients| ClientTrust {
                authorities: clients.pem.clone(),
                required: clients.required,
            }),
        });
    }
    settings
}
