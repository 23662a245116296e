//! Which certificate a client gets: by the name that it asks for, and by what it
//! can check.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificates of one listener.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Every one, in the order of the configuration: for clients that name no
    /// server, or one that none is for.
    all: Vec<Arc<CertifiedKey>>,
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows the star and its dot.
    wildcards: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Names {
    /// Adds a certificate; where several are for a name, those that were added
    /// first go first.
    pub(super) fn add(&mut self, names: &[String], key: &Arc<CertifiedKey>) {
        self.all.push(Arc::clone(key));
        for name in names {
            let name = name.to_ascii_lowercase();
            let keys = match name.strip_prefix("*.") {
                Some(domain) => self.wildcards.entry(domain.to_owned()).or_default(),
                None => self.exact.entry(name).or_default(),
            };
            keys.push(Arc::clone(key));
        }
    }

    /// Those that are for a name; a star stands for one label (RFC 6125, 6.4.3).
    fn of(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let Some(name) = name.map(str::to_ascii_lowercase) else {
            return &self.all;
        };
        let wildcard = || {
            let (_, domain) = name.split_once('.')?;
            self.wildcards.get(domain)
        };
        let found = self.exact.get(&name).or_else(wildcard);
        found.unwrap_or(&self.all)
    }

    /// The first that the client can check. Where it can check none, the first:
    /// the handshake then says what is missing.
    fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<&Arc<CertifiedKey>> {
        let keys = self.of(name);
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        keys.iter().find(usable).or_else(|| keys.first())
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(client.server_name(), client.signature_schemes())
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
    use rustls::crypto::ring;
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    fn key(algorithm: &'static rcgen::SignatureAlgorithm) -> Arc<CertifiedKey> {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["x.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&pair).unwrap();
        let der = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
        let provider = ring::default_provider();
        let chain = vec![certificate.der().clone()];
        Arc::new(CertifiedKey::from_der(chain, der, &provider).unwrap())
    }

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().copied().map(str::to_owned).collect()
    }

    const EITHER: [SignatureScheme; 2] = [
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ED25519,
    ];

    #[test]
    fn an_exact_name_goes_before_a_star_and_the_first_is_for_all_others() {
        let keys: Vec<_> = (0..3).map(|_| key(&PKCS_ECDSA_P256_SHA256)).collect();
        let mut all = Names::default();
        all.add(&names(&["default.example"]), &keys[0]);
        all.add(&names(&["*.Example.org"]), &keys[1]);
        all.add(&names(&["www.example.org", "example.org"]), &keys[2]);
        for (name, index) in [
            (None, 0),
            (Some("elsewhere.example"), 0),
            (Some("default.example"), 0),
            (Some("shop.example.org"), 1),
            (Some("SHOP.example.ORG"), 1),
            (Some("www.example.org"), 2),
            (Some("example.org"), 2),
            (Some("a.b.example.org"), 0),
            (Some("org"), 0),
        ] {
            let chosen = all.choose(name, &EITHER).unwrap();
            assert!(Arc::ptr_eq(chosen, &keys[index]), "{name:?}");
        }
    }

    #[test]
    fn of_two_for_one_name_a_client_gets_the_first_that_it_can_check() {
        let keys = [key(&PKCS_ED25519), key(&PKCS_ECDSA_P256_SHA256)];
        let mut all = Names::default();
        for key in &keys {
            all.add(&names(&["www.example.org"]), key);
        }
        for (schemes, index) in [
            (&EITHER[..], 0),
            (&EITHER[..1], 1),
            (&EITHER[1..], 0),
            (&[], 0),
        ] {
            for name in [Some("www.example.org"), None] {
                let chosen = all.choose(name, schemes).unwrap();
                assert!(Arc::ptr_eq(chosen, &keys[index]), "{schemes:?}");
            }
        }
    }
}
