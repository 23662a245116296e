//! What operators name: `web` for a pool, `web/0` for one of its workers.

use std::fmt;
use std::str::FromStr;

/// A slot of a pool: `web/0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WorkerAddress {
    /// The pool's name.
    pub(crate) pool: PoolName,
    /// The slot's index.
    pub(crate) slot: u32,
}

/// A pool's name; safe in the path of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolName(String);

/// A whole pool or one of its workers: `web`, `web/0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Pool(PoolName),
    Worker(WorkerAddress),
}

/// Why a text names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    /// No slot was named where one is needed.
    #[error("name one worker as POOL/SLOT, for instance `{0}/0`")]
    NoSlot(String),
    /// A worker was named where every one of a pool is meant.
    #[error("`--all` is for every worker of a pool: name the pool, `{pool}`, not `{pool}/{slot}`")]
    NotAPool { pool: String, slot: u32 },
    /// The slot is not a number.
    #[error(
        "a slot is a number from 0; name a worker as POOL/SLOT, for instance `{pool}/0`, \
         not `{pool}/{slot}`"
    )]
    BadSlot { pool: String, slot: String },
    /// No pool can have this name.
    #[error("a pool's name is of letters, digits, `-` and `_`, for instance `web`; not `{0}`")]
    BadPool(String),
}

impl FromStr for PoolName {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if text.is_empty() || !text.chars().all(fits) {
            return Err(AddressError::BadPool(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for Target {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let Some((pool, slot)) = text.split_once('/') else {
            return text.parse().map(Self::Pool);
        };
        let pool: PoolName = pool.parse()?;
        match slot.parse() {
            Ok(slot) if !slot_has_sign(text) => Ok(Self::Worker(WorkerAddress { pool, slot })),
            _ => Err(AddressError::BadSlot {
                pool: pool.0,
                slot: slot.to_owned(),
            }),
        }
    }
}

/// Rust reads `+0` as a number; no slot is called that.
fn slot_has_sign(address: &str) -> bool {
    address.contains("/+")
}

impl FromStr for WorkerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.parse()? {
            Target::Worker(worker) => Ok(worker),
            Target::Pool(pool) => Err(AddressError::NoSlot(pool.0)),
        }
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One worker, or every one of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whom {
    /// This one.
    One(WorkerAddress),
    /// Every slot of the pool, by `--all`.
    All(PoolName),
    /// A pool was named and nothing else: every slot of it may be meant.
    Unsure(PoolName),
}

impl Whom {
    /// What was named, and whether `--all` was said.
    pub(crate) fn of(target: Target, all: bool) -> Result<Self, AddressError> {
        match (target, all) {
            (Target::Worker(worker), false) => Ok(Self::One(worker)),
            (Target::Pool(pool), true) => Ok(Self::All(pool)),
            (Target::Pool(pool), false) => Ok(Self::Unsure(pool)),
            (Target::Worker(worker), true) => Err(AddressError::NotAPool {
                pool: worker.pool.0,
                slot: worker.slot,
            }),
        }
    }
}

impl From<Whom> for Target {
    fn from(whom: Whom) -> Self {
        match whom {
            Whom::One(worker) => Self::Worker(worker),
            Whom::All(pool) | Whom::Unsure(pool) => Self::Pool(pool),
        }
    }
}

impl WorkerAddress {
    /// The API's path of this worker.
    pub(crate) fn path(&self) -> String {
        format!("/v1/workers/{}/{}", self.pool, self.slot)
    }
}

impl PoolName {
    /// The API's path of this pool.
    pub(crate) fn path(&self) -> String {
        format!("/v1/pools/{self}")
    }
}

impl Target {
    /// The API's path of this pool or worker.
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Pool(pool) => pool.path(),
            Self::Worker(worker) => worker.path(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_alone_may_be_meant_as_a_whole() {
        let of = |text: &str, all| Whom::of(text.parse().unwrap(), all);
        let web: PoolName = "web".parse().unwrap();
        assert_eq!(of("web", false), Ok(Whom::Unsure(web.clone())));
        assert_eq!(of("web", true), Ok(Whom::All(web)));
        assert!(matches!(of("web/0", false), Ok(Whom::One(_))));
        assert!(of("web/0", true).is_err());
    }

    #[test]
    fn pools_and_workers_become_paths() {
        assert_eq!("web".parse::<Target>().unwrap().path(), "/v1/pools/web");
        assert_eq!(
            "web/0".parse::<Target>().unwrap().path(),
            "/v1/workers/web/0"
        );
        assert_eq!(
            "a-b_c1/12".parse::<WorkerAddress>().unwrap().path(),
            "/v1/workers/a-b_c1/12"
        );
    }

    #[test]
    fn a_wrong_address_says_what_would_be_right() {
        for wrong in ["web/x", "web/", "web/-1", "web/+0", "web/0/1", "web"] {
            let error = wrong.parse::<WorkerAddress>().unwrap_err();
            assert!(error.to_string().contains("`web/0`"), "{wrong}: {error}");
        }
        for wrong in ["", "a b", "ü", "../x", "web?x"] {
            let error = wrong.parse::<Target>().unwrap_err();
            assert!(error.to_string().contains("`web`"), "{wrong}: {error}");
        }
    }
}
