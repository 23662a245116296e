//! Networks of the internet protocol: who may say for whom it speaks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What stands for whoever connects by a unix socket.
const UNIX: &str = "unix";

/// An address (`192.0.2.1`), a network (`10.0.0.0/8`, `2001:db8::/32`), or whoever connects
/// by a unix socket (`unix`).
///
/// IPv4 addresses are the same where they are written as IPv6 has them (`::ffff:192.0.2.1`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(Extent);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Unix,
    V4 { first: Ipv4Addr, prefix: u32 },
    V6 { first: Ipv6Addr, prefix: u32 },
}

/// Why a text names no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither an address nor one with a length.
    #[error("is no address or network")]
    Syntax,
    /// The length of the prefix is beyond the address's own.
    #[error("has a prefix of more than {most} bits")]
    Prefix {
        /// The most that it can be.
        most: u32,
    },
    /// The address has bits that are no part of the network.
    #[error("has an address beyond its prefix (the network is \"{network}\")")]
    Beyond {
        /// What may have been meant.
        network: Network,
    },
}

impl Network {
    /// Whether this address is in it; none is that of a unix socket.
    pub fn contains(&self, address: Option<IpAddr>) -> bool {
        match (self.0, address.map(|it| it.to_canonical())) {
            (Extent::Unix, None) => true,
            (Extent::V4 { first, prefix }, Some(IpAddr::V4(it))) => masked_v4(it, prefix) == first,
            (Extent::V6 { first, prefix }, Some(IpAddr::V6(it))) => masked_v6(it, prefix) == first,
            _ => false,
        }
    }

    /// The network around an address whose first `prefix` bits say which one it is.
    fn around(address: IpAddr, prefix: Option<u32>) -> Result<Self, NetworkError> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(most);
        if prefix > most {
            return Err(NetworkError::Prefix { most });
        }
        let network = match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(mapped)) if prefix >= 96 => v4(mapped, prefix - 96),
            (IpAddr::V4(address), _) => v4(address, prefix),
            (IpAddr::V6(address), _) => Self(Extent::V6 {
                first: masked_v6(address, prefix),
                prefix,
            }),
        };
        let is_first = match network.0 {
            Extent::V4 { first, .. } => address.to_canonical() == first,
            Extent::V6 { first, .. } => address == first,
            Extent::Unix => false,
        };
        match is_first {
            true => Ok(network),
            false => Err(NetworkError::Beyond { network }),
        }
    }
}

fn v4(address: Ipv4Addr, prefix: u32) -> Network {
    Network(Extent::V4 {
        first: masked_v4(address, prefix),
        prefix,
    })
}

fn masked_v4(address: Ipv4Addr, prefix: u32) -> Ipv4Addr {
    let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn masked_v6(address: Ipv6Addr, prefix: u32) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        if text == UNIX {
            return Ok(Self(Extent::Unix));
        }
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(number(prefix)?)),
            None => (text, None),
        };
        let address = address.parse().map_err(|_| NetworkError::Syntax)?;
        Self::around(address, prefix)
    }
}

/// The length of a prefix, as it is usually written: digits alone.
fn number(text: &str) -> Result<u32, NetworkError> {
    let is_canonical = text == "0" || !text.starts_with(['0', '+']);
    let number = text.parse().map_err(|_| NetworkError::Syntax)?;
    is_canonical.then_some(number).ok_or(NetworkError::Syntax)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Extent::Unix => f.write_str(UNIX),
            Extent::V4 { first, prefix: 32 } => first.fmt(f),
            Extent::V6 { first, prefix: 128 } => first.fmt(f),
            Extent::V4 { first, prefix } => write!(f, "{first}/{prefix}"),
            Extent::V6 { first, prefix } => write!(f, "{first}/{prefix}"),
        }
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(network: &str, address: &str) -> bool {
        let network: Network = network.parse().unwrap();
        network.contains(address.parse().ok())
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_as_it_does() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.4/30", "192.0.2.7", "192.0.2.8"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::a01:203"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "::ffff:11.0.0.0"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("::/0", "2001:db8::1", "203.0.113.9"),
            ("unix", "", "127.0.0.1"),
        ] {
            assert!(has(network, inside), "{network} {inside}");
            assert!(!has(network, outside), "{network} {outside}");
        }
        assert!(!has("0.0.0.0/0", ""));
    }

    #[test]
    fn what_is_no_network_says_why() {
        let beyond: Network = "10.1.0.0/16".parse().unwrap();
        for (text, why) in [
            ("", NetworkError::Syntax),
            ("localhost", NetworkError::Syntax),
            ("10.0.0", NetworkError::Syntax),
            ("010.0.0.0/8", NetworkError::Syntax),
            ("10.0.0.0/", NetworkError::Syntax),
            ("10.0.0.0/+8", NetworkError::Syntax),
            ("10.0.0.0/08", NetworkError::Syntax),
            ("10.0.0.0/8/8", NetworkError::Syntax),
            ("10.0.0.0/255.0.0.0", NetworkError::Syntax),
            ("10.0.0.0:80", NetworkError::Syntax),
            ("[::1]", NetworkError::Syntax),
            ("fe80::1%eth0", NetworkError::Syntax),
            ("10.0.0.0/33", NetworkError::Prefix { most: 32 }),
            ("::/129", NetworkError::Prefix { most: 128 }),
            ("10.1.2.3/16", NetworkError::Beyond { network: beyond }),
        ] {
            assert_eq!(text.parse::<Network>(), Err(why), "{text}");
        }
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        for text in ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1", "unix"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        let mapped: Network = "::ffff:10.0.0.0/104".parse().unwrap();
        assert_eq!(mapped.to_string(), "10.0.0.0/8");
    }
}
