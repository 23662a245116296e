//! A name for every request: the client's, or the proxy's, if it makes sense, and
//! else one of our own.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// The header that it comes and goes in.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest that is taken from a client, in bytes.
const LONGEST: usize = 128;

/// Makes ids that no other worker makes.
#[derive(Debug)]
pub(super) struct Ids {
    /// 64 random bits of this process.
    process: LazyLock<u64>,
    next: AtomicU64,
}

impl Default for Ids {
    fn default() -> Self {
        Self {
            process: LazyLock::new(|| fastrand::u64(..)),
            next: AtomicU64::new(1),
        }
    }
}

impl Ids {
    /// The id of a request with these headers.
    pub(super) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        if let Some(id) = headers.get(X_REQUEST_ID)
            && is_sane(id.as_bytes())
        {
            return id.clone();
        }
        let number = self.next.fetch_add(1, Relaxed);
        let id = format!("{:016x}{number:016x}", *self.process);
        HeaderValue::try_from(id).expect("hexadecimal digits are a header's value")
    }
}

/// Whether it is an id in any of the usual notations, and nothing else.
fn is_sane(id: &[u8]) -> bool {
    let usual = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(byte);
    (1..=LONGEST).contains(&id.len()) && id.iter().all(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ids: &Ids, id: &[u8]) -> HeaderValue {
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_bytes(id).unwrap());
        ids.of(&headers)
    }

    #[test]
    fn a_sane_id_is_taken_and_any_other_replaced() {
        let ids = Ids::default();
        for id in [
            "7b3bf470-9456-11e8-9eb6-529269fb1459",
            "Root=1-67891233",
            "a",
        ] {
            assert_eq!(of(&ids, id.as_bytes()), id);
        }
        let long = "x".repeat(129);
        for id in [&b""[..], b"a b", b"\"", b"a\tb", b"\xff", long.as_bytes()] {
            assert_eq!(of(&ids, id).len(), 32);
        }
    }

    #[test]
    fn no_two_ids_are_the_same() {
        let [one, other] = [Ids::default(), Ids::default()];
        let made = [&one, &one, &other, &other].map(|ids| ids.of(&HeaderMap::new()));
        let different: std::collections::HashSet<_> = made.iter().collect();
        assert_eq!(different.len(), made.len());
    }
}
