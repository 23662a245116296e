//! `prefork status --url`: the supervisors of other machines, by their admin addresses.
//!
//! All are asked at once, each within the same time, and one that does not answer is a
//! row of the table like the others.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use prefork_api::{SCHEMA, Status};
use serde_json::{Value, json};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;

use super::client::Deadline;
use super::error;
use super::units::seconds;

/// The most of a status document that is read: some ten thousand workers have it.
const LARGEST_DOCUMENT: usize = 64 << 20;

/// The port of `http` where a URL names none (RFC 9110, section 4.2.1).
const HTTP_PORT: u16 = 80;

/// The admin address of one machine, or of all those that its name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AdminUrl {
    host: String,
    port: u16,
}

impl FromStr for AdminUrl {
    type Err = String;

    /// Reads `http://host:port`.
    fn from_str(text: &str) -> Result<Self, String> {
        let example = "expected an admin address such as http://10.0.0.7:9919";
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(example.to_owned());
        };
        match scheme {
            "http" => {}
            "https" => {
                return Err("TLS is not spoken here: an admin address is plain HTTP; \
                            where a proxy has TLS in front of it, ask it from behind the proxy"
                    .to_owned());
            }
            _ => return Err(example.to_owned()),
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('/') {
            return Err("expected no path: /status.json is what is asked for".to_owned());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().map_err(|_| example.to_owned())?;
                (host, port)
            }
            _ => (authority, HTTP_PORT),
        };
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() || host.contains('@') {
            return Err(example.to_owned());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "http://[{}]:{}", self.host, self.port),
            false => write!(f, "http://{}:{}", self.host, self.port),
        }
    }
}

impl AdminUrl {
    /// Everybody of that name: all of its IPv4 addresses, or else its IPv6 ones. An engine
    /// gives one name to all instances of a service, and machines have one of each family.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, Trouble> {
        let found = lookup_host((self.host.as_str(), self.port)).await;
        let all: Vec<SocketAddr> = found.map_err(failed)?.collect();
        let is_v4 = all.iter().any(SocketAddr::is_ipv4);
        let mut wanted: Vec<_> = all.into_iter().filter(|it| it.is_ipv4() == is_v4).collect();
        wanted.sort_unstable();
        wanted.dedup();
        Ok(wanted)
    }
}

/// Why an instance gave no status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It did not answer in time.
    Silent(Duration),
    /// It could not be asked, or did not give what was asked for.
    Failed(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(after) => {
                write!(f, "no answer within {}", seconds(after.as_secs_f64()))
            }
            Self::Failed(why) => f.write_str(why),
        }
    }
}

fn failed(error: impl ToString) -> Trouble {
    Trouble::Failed(error.to_string())
}

/// One supervisor, and what it said.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    /// `10.0.0.7:9919`; the URL as it was given where its name stands for nobody.
    pub(crate) name: String,
    /// Its status, and the document as it came.
    pub(crate) said: Result<(Status, Value), Trouble>,
}

/// Asks everybody behind these addresses for the status, in order of the addresses.
pub(crate) async fn ask(urls: &[AdminUrl], timeout: Duration) -> Vec<Instance> {
    let mut lookups = JoinSet::new();
    // The names, too, are looked up within that time.
    let deadline = Deadline::after(timeout);
    for (place, url) in urls.iter().cloned().enumerate() {
        lookups.spawn(async move {
            let silent = Err(Trouble::Silent(timeout));
            let found = deadline.bound(url.addresses()).await.unwrap_or(silent);
            (place, url, found)
        });
    }
    let mut asked = JoinSet::new();
    let mut instances = Vec::new();
    while let Some(found) = lookups.join_next().await {
        let Ok((place, url, found)) = found else {
            continue;
        };
        match found {
            Ok(addresses) => {
                for address in addresses {
                    asked.spawn(async move {
                        let silent = Err(Trouble::Silent(timeout));
                        let said = deadline.bound(status_of(address)).await;
                        let name = address.to_string();
                        let said = said.unwrap_or(silent);
                        ((place, Some(address)), Instance { name, said })
                    });
                }
            }
            Err(trouble) => {
                let name = url.to_string();
                let said = Err(trouble);
                instances.push(((place, None), Instance { name, said }));
            }
        }
    }
    while let Some(said) = asked.join_next().await {
        instances.extend(said);
    }
    instances.sort_by_key(|(place, _)| *place);
    let instances = instances.into_iter().map(|(_, instance)| instance);
    instances.collect()
}

async fn status_of(address: SocketAddr) -> Result<(Status, Value), Trouble> {
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // Ends with the response; what goes wrong is told by the response.
    tokio::spawn(connection);
    let request = Request::get("/status.json")
        // An address is answered whatever names `admin_hosts` allows.
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(failed)?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    if status != StatusCode::OK {
        return Err(Trouble::Failed(format!("it answered {status}")));
    }
    let body = Limited::new(response.into_body(), LARGEST_DOCUMENT);
    let document = body.collect().await.map_err(failed)?.to_bytes();
    let understand = |error| Trouble::Failed(format!("no status document: {error}"));
    let value: Value = serde_json::from_slice(&document).map_err(understand)?;
    let status = serde_json::from_value(value.clone()).map_err(understand)?;
    Ok((status, value))
}

/// What was said, for programs.
pub(crate) fn as_json(instances: &[Instance]) -> Value {
    let each = instances.iter().map(|instance| match &instance.said {
        Ok((_, document)) => json!({"instance": instance.name, "status": document}),
        Err(trouble) => json!({"instance": instance.name, "error": trouble.to_string()}),
    });
    json!({"schema": SCHEMA, "instances": each.collect::<Vec<_>>()})
}

/// The exit code: of readiness where that is asked for, else whether everybody answered.
pub(crate) fn exit_code(instances: &[Instance], by_readiness: bool) -> u8 {
    let code = |instance: &Instance| match (&instance.said, by_readiness) {
        (Ok((status, _)), true) => error::readiness(status),
        (Ok(_), false) => 0,
        // Nobody is to be sent there.
        (Err(_), true) => 7,
        (Err(_), false) => 1,
    };
    instances.iter().map(code).max().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fake::status;

    fn url(text: &str) -> Result<String, String> {
        text.parse::<AdminUrl>().map(|url| url.to_string())
    }

    #[test]
    fn an_admin_address_is_a_url_without_a_path() {
        for (text, read) in [
            ("http://10.0.0.7:9919", "http://10.0.0.7:9919"),
            ("http://web/", "http://web:80"),
            ("http://[::1]:9919", "http://[::1]:9919"),
            ("http://[::1]", "http://[::1]:80"),
        ] {
            assert_eq!(url(text).as_deref(), Ok(read));
        }
        for text in [
            "10.0.0.7:9919",
            "ftp://web",
            "http://",
            "http://web:port",
            "http://a@web",
        ] {
            assert!(url(text).unwrap_err().starts_with("expected an admin"));
        }
        assert!(url("http://web/metrics").unwrap_err().contains("no path"));
        assert!(url("https://web").unwrap_err().contains("TLS"));
    }

    #[test]
    fn the_worst_instance_makes_the_exit_code() {
        let of = |ready| Instance {
            name: "a".to_owned(),
            said: Ok((status(2, ready), Value::Null)),
        };
        let silent = Instance {
            name: "b".to_owned(),
            said: Err(Trouble::Silent(Duration::from_secs(10))),
        };
        let mut whole = of(2);
        if let Ok((status, _)) = &mut whole.said {
            status.ready = true;
        }
        assert_eq!(exit_code(std::slice::from_ref(&whole), true), 0);
        assert_eq!(exit_code(&[whole.clone(), of(1)], true), 7);
        assert_eq!(exit_code(&[whole.clone(), of(1)], false), 0);
        assert_eq!(exit_code(&[whole.clone(), silent.clone()], true), 7);
        assert_eq!(exit_code(&[whole, silent], false), 1);
    }
}
