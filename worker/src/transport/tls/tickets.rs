//! Session tickets that every worker of the pool can read: the session itself,
//! under keys that the supervisor hands out and replaces.

use std::sync::{PoisonError, RwLock};

use prefork_proto::tls::TicketKey;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;

use super::TlsError;

/// How long a ticket is good for, in seconds: as long as its key is kept after
/// it made its last one.
const LIFETIME: u32 = 12 * 60 * 60;

/// Bytes of a key's name.
const NAME: usize = 16;

/// The keys in force, the one that encrypts first.
#[derive(Debug, Default)]
pub(super) struct Tickets(RwLock<Vec<Key>>);

#[derive(Debug)]
struct Key {
    name: [u8; NAME],
    cipher: LessSafeKey,
}

impl Tickets {
    pub(super) fn set(&self, keys: &[TicketKey]) -> Result<(), TlsError> {
        let keys = keys.iter().map(Key::new).collect::<Result<Vec<_>, _>>()?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// Does something with the keys, which are replaced as a whole.
    fn with<T>(&self, look: impl FnOnce(&[Key]) -> Option<T>) -> Option<T> {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.with(|keys| keys.first().map(|_| ())).is_some()
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.with(|keys| keys.first()?.seal(plain))
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, sealed) = ticket.split_at_checked(NAME)?;
        self.with(|keys| keys.iter().find(|key| key.name == name)?.open(sealed))
    }
}

impl Key {
    fn new(key: &TicketKey) -> Result<Self, TlsError> {
        let name = hex(&key.name).ok_or(TlsError::TicketKey("named by 16 bytes"))?;
        let secret: [u8; 32] = hex(&key.secret).ok_or(TlsError::TicketKey("32 bytes"))?;
        let cipher = UnboundKey::new(&AES_256_GCM, &secret);
        let cipher = cipher.map_err(|_| TlsError::TicketKey("one for AES-256-GCM"))?;
        Ok(Self {
            name,
            cipher: LessSafeKey::new(cipher),
        })
    }

    /// The name, a random nonce, and what is encrypted, with its tag.
    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + plain.len() + MAX_TAG_LEN);
        ticket.extend(self.name);
        ticket.extend(nonce);
        ticket.extend(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = ticket.get_mut(NAME + NONCE_LEN..)?;
        let sealed = self
            .cipher
            .seal_in_place_separate_tag(nonce, Aad::from(self.name), plain);
        let tag = sealed.ok()?;
        ticket.extend(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let aad = Aad::from(self.name);
        let opened = self.cipher.open_in_place(nonce, aad, &mut sealed).ok()?;
        let length = opened.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

/// So many bytes in hexadecimal.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(of: u8) -> TicketKey {
        TicketKey {
            name: format!("{of:02x}").repeat(16),
            secret: format!("{of:02x}").repeat(32),
        }
    }

    fn tickets(of: &[u8]) -> Tickets {
        let tickets = Tickets::default();
        let keys: Vec<_> = of.iter().copied().map(key).collect();
        tickets.set(&keys).unwrap();
        tickets
    }

    #[test]
    fn a_ticket_is_read_wherever_its_key_is_known() {
        let ticket = tickets(&[1, 2]).encrypt(b"session").unwrap();
        for keys in [&[1][..], &[3, 2, 1]] {
            assert_eq!(tickets(keys).decrypt(&ticket).unwrap(), b"session");
        }
        assert_eq!(tickets(&[2, 3]).decrypt(&ticket), None);
        assert_ne!(tickets(&[1]).encrypt(b"session").unwrap(), ticket);
    }

    #[test]
    fn no_ticket_that_was_tampered_with_is_read() {
        let tickets = tickets(&[1]);
        let ticket = tickets.encrypt(b"session").unwrap();
        for place in 0..ticket.len() {
            let mut other = ticket.clone();
            other[place] ^= 1;
            assert_eq!(tickets.decrypt(&other), None, "{place}");
            assert_eq!(tickets.decrypt(&ticket[..place]), None, "{place}");
        }
    }

    #[test]
    fn without_keys_there_are_no_tickets() {
        let tickets = Tickets::default();
        assert!(!tickets.enabled());
        assert_eq!(tickets.encrypt(b"session"), None);
        let short = TicketKey {
            secret: "00".to_owned(),
            ..key(1)
        };
        let sign = TicketKey {
            name: "+f".repeat(16),
            ..key(1)
        };
        for bad in [short, sign] {
            assert!(tickets.set(&[key(2), bad]).is_err());
            assert!(!tickets.enabled());
        }
    }
}
