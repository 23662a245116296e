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

    /// Those that are for a name, exact ones before those with a star, which stands
    /// for one label (RFC 9525, 6.3); all of them where none is.
    fn of(&self, name: Option<&str>) -> [&[Arc<CertifiedKey>]; 2] {
        let none = [&self.all[..], &[]];
        let Some(name) = name else { return none };
        // No client may send a name with its last dot (RFC 6066, 3); some do.
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let domain = name.split_once('.').map_or("", |(_, domain)| domain);
        let exact = self.exact.get(&name).map_or(&[][..], Vec::as_slice);
        let wildcards = self.wildcards.get(domain).map_or(&[][..], Vec::as_slice);
        match (exact, wildcards) {
            ([], []) => none,
            both => both.into(),
        }
    }

    /// The first that the client can check: one with an exact name hides none with a
    /// star from those who can't check it. Where a client can check none, the first:
    /// the handshake then says what is missing.
    fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<&Arc<CertifiedKey>> {
        let keys = || self.of(name).into_iter().flatten();
        let usable = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        keys().find(usable).or_else(|| keys().next())
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

    #[test]
    fn an_exact_name_hides_no_star_from_a_client_that_can_check_only_that_one() {
        let keys = [key(&PKCS_ECDSA_P256_SHA256), key(&PKCS_ED25519)];
        let mut all = Names::default();
        all.add(&names(&["www.example.org"]), &keys[0]);
        all.add(&names(&["*.example.org"]), &keys[1]);
        for (name, schemes, index) in [
            ("www.example.org", &EITHER[..], 0),
            ("www.example.org", &EITHER[..1], 0),
            ("www.example.org", &EITHER[1..], 1),
            ("www.example.org", &[], 0),
            ("shop.example.org", &EITHER[..1], 1),
        ] {
            let chosen = all.choose(Some(name), schemes).unwrap();
            assert!(Arc::ptr_eq(chosen, &keys[index]), "{name} {schemes:?}");
        }
    }

    #[test]
    fn a_name_is_the_same_with_its_last_dot() {
        let keys: Vec<_> = (0..3).map(|_| key(&PKCS_ECDSA_P256_SHA256)).collect();
        let mut all = Names::default();
        all.add(&names(&["default.example"]), &keys[0]);
        all.add(&names(&["*.example.org"]), &keys[1]);
        all.add(&names(&["www.example.org"]), &keys[2]);
        for (name, index) in [
            ("WWW.example.org.", 2),
            ("shop.example.org.", 1),
            ("example.org.", 0),
            (".", 0),
            ("", 0),
        ] {
            let chosen = all.choose(Some(name), &EITHER).unwrap();
            assert!(Arc::ptr_eq(chosen, &keys[index]), "{name}");
        }
    }
}
