//! The names under which the admin address may be asked.
//!
//! A page of somebody else's site can have a browser ask whatever address its own name
//! leads to, and read the answer (DNS rebinding). The browser then says the site's name
//! in `Host`. So only names are answered that nobody else can have: addresses, localhost,
//! this machine's name, and those that the configuration gives.

use std::net::IpAddr;

use hyper::header::HOST;
use hyper::http::uri::Authority;
use hyper::{Request, StatusCode};
use prefork_api::ErrorCode;

use crate::control::answer::Rejection;

/// The names.
#[derive(Debug, Clone, Default)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// This machine's name and those of the configuration.
    pub fn new(configured: &[String]) -> Self {
        let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let names = configured.iter().map(String::as_str).chain([own.trim()]);
        let names = names.filter(|name| !name.is_empty());
        Self(names.map(normal).collect())
    }

    /// Refuses a request that names another host. Without a name it is no browser's:
    /// HTTP/1.0 has none.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Rejection> {
        let named = request.headers().get_all(HOST).iter();
        let named = named.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let target = request.uri().authority().map(Authority::to_string);
        for name in named.chain(target) {
            if !self.knows(&name) {
                return Err(Rejection::with_status(
                    StatusCode::MISDIRECTED_REQUEST,
                    ErrorCode::Usage,
                    format!(
                        "{name:?} is no name of this address: ask by its IP address or by localhost, \
                         or add the name to `admin_hosts` in [supervisor]"
                    ),
                ));
            }
        }
        Ok(())
    }

    fn knows(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        // No browser sends a user's name there.
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority.host();
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if literal.parse::<IpAddr>().is_ok() {
            return true;
        }
        let host = normal(host);
        host == "localhost" || host.ends_with(".localhost") || self.0.contains(&host)
    }
}

fn normal(name: &str) -> String {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_else_can_be_called_is_answered() {
        let hosts = Hosts(vec![normal("Metrics.Example.com"), normal("box7")]);
        for known in [
            "127.0.0.1",
            "127.0.0.1:9919",
            "10.1.2.3:80",
            "[::1]:9919",
            "localhost",
            "LOCALHOST:9919",
            "localhost.",
            "a.localhost",
            "metrics.example.com:9919",
            "METRICS.example.com.",
            "box7",
        ] {
            assert!(hosts.knows(known), "{known}");
        }
        for other in [
            "",
            "evil.example",
            "evil.example:9919",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "evil.example@127.0.0.1",
            "127.0.0.1@evil.example",
            "example.com",
            "1.2.3",
            "a b",
        ] {
            assert!(!hosts.knows(other), "{other}");
        }
    }
}
