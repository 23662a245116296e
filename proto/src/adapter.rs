//! What a supervisor and the adapter tell each other: the adapter is a worker whose
//! child is a program that does not speak the channel.
//!
//! [`Brief`] is the `app` of the adapter's `welcome`. [`UpstreamAddress`] is where
//! one process of such a program takes the requests that a front forwards.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The descriptor of the pinned program in the adapter, where there is one: the
/// number after the channel's.
pub const PROGRAM_FD: i32 = 4;

/// The most bytes of a unix socket's path: `sun_path` of unix(7) without its NUL.
pub const SOCKET_PATH_LIMIT: usize = 107;

/// Where one incarnation of a program behind a front takes requests. As text it is
/// `unix:/PATH` or `ADDRESS:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum UpstreamAddress {
    /// A unix stream socket.
    Unix(PathBuf),
    /// A port of a loopback address.
    Tcp(SocketAddr),
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl FromStr for UpstreamAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(format!("{text} is not an absolute path")),
            None => match text.parse() {
                Ok(address) => Ok(Self::Tcp(address)),
                Err(error) => Err(format!("{text}: {error}")),
            },
        }
    }
}

impl TryFrom<String> for UpstreamAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<UpstreamAddress> for String {
    fn from(address: UpstreamAddress) -> Self {
        address.to_string()
    }
}

/// When a program is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ready {
    /// It said `READY=1` (sd_notify(3)), or it listens, whichever comes first.
    First,
    /// It said `READY=1`.
    Notify,
    /// It listens.
    Listening,
    /// It answers a GET for this path with 2xx or 3xx.
    Http(String),
    /// It has run for so many milliseconds.
    After(u64),
}

/// How a program is known to be well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It listens, and was not stopped by a signal.
    Listening,
    /// It says `WATCHDOG=1` (sd_notify(3)).
    Notify,
    /// It answers a GET for this path with 2xx or 3xx.
    Http(String),
    /// It is there, and was not stopped by a signal.
    Process,
}

/// How a program comes to its socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Socket {
    /// It binds this address.
    Bound(UpstreamAddress),
    /// It inherits a socket that the adapter has bound to this address.
    Passed(UpstreamAddress),
    /// It inherits the pool's own listeners.
    Listeners,
}

impl Socket {
    /// Its address, where that is the process's own.
    pub fn address(&self) -> Option<&UpstreamAddress> {
        match self {
            Self::Bound(address) | Self::Passed(address) => Some(address),
            Self::Listeners => None,
        }
    }
}

/// What the adapter is to start, and how it is to look after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brief {
    /// The program's path; where [`Self::pinned`] says so, only for messages.
    pub program: PathBuf,
    /// Whether [`PROGRAM_FD`] is what is to be executed.
    pub pinned: bool,
    /// The argument vector, with its placeholders.
    pub argv: Vec<String>,
    /// The variables of the pool's `env` that have placeholders.
    pub env: BTreeMap<String, String>,
    /// Where it takes requests.
    pub socket: Socket,
    /// Where it says how it is: the path of a datagram socket for sd_notify(3).
    pub notify: PathBuf,
    /// When it is ready.
    pub ready: Ready,
    /// How it is known to be well.
    pub health: Health,
    /// The signal that asks it to leave.
    pub stop_signal: i32,
    /// Milliseconds that it may take to become ready.
    pub boot_timeout_ms: u64,
    /// Milliseconds without a sign of health after which it counts as hung.
    pub heartbeat_timeout_ms: u64,
}

/// A part of a word in which placeholders are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'a> {
    /// As it is.
    Text(&'a str),
    /// `{name}`, the name.
    Placeholder(&'a str),
}

/// Takes a word apart. `{name}` is a placeholder where the name is of lower-case
/// ASCII letters only; `{{name}}` stands for `{name}` as it is.
pub fn pieces(word: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = word;
    while let Some((before, name, escaped, after)) = next_placeholder(rest) {
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        pieces.push(match escaped {
            true => Piece::Text(name),
            false => Piece::Placeholder(name),
        });
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

/// The text before the first placeholder, it, whether it is escaped (then it still
/// has its braces), and the text after it.
fn next_placeholder(text: &str) -> Option<(&str, &str, bool, &str)> {
    for (open, _) in text.match_indices('{') {
        let inside = &text[open + 1..];
        let length = inside.bytes().take_while(u8::is_ascii_lowercase).count();
        let Some(after) = inside[length..].strip_prefix('}') else {
            continue;
        };
        if length == 0 {
            continue;
        }
        let escaped = text[..open].ends_with('{') && after.starts_with('}');
        return Some(match escaped {
            true => (
                &text[..open - 1],
                &text[open..open + length + 2],
                true,
                &after[1..],
            ),
            false => (&text[..open], &inside[..length], false, after),
        });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_a_name_in_braces_and_nothing_else() {
        let name = Piece::Placeholder;
        let text = Piece::Text;
        assert_eq!(pieces("{socket}"), [name("socket")]);
        assert_eq!(
            pieces("http://{host}:{port}/"),
            [
                text("http://"),
                name("host"),
                text(":"),
                name("port"),
                text("/")
            ]
        );
        assert_eq!(pieces("{{port}}"), [text("{port}")]);
        assert_eq!(
            pieces("a{{port}}{fd}"),
            [text("a"), text("{port}"), name("fd")]
        );
        for word in ["", "{}", "{\"a\":1}", "{A}", "{a b}", "{port", "port}"] {
            let whole: Vec<_> = Some(text(word))
                .into_iter()
                .filter(|_| !word.is_empty())
                .collect();
            assert_eq!(pieces(word), whole, "{word}");
        }
    }

    #[test]
    fn an_address_reads_as_it_is_written() {
        for said in ["unix:/run/a b.sock", "127.1.2.3:5000"] {
            assert_eq!(said.parse::<UpstreamAddress>().unwrap().to_string(), said);
        }
        let unix = "unix:/run/shop.sock".parse();
        assert_eq!(unix, Ok(UpstreamAddress::Unix("/run/shop.sock".into())));
        let tcp = "127.0.0.2:8080".parse();
        assert_eq!(tcp, Ok(UpstreamAddress::Tcp(([127, 0, 0, 2], 8080).into())));
        for wrong in ["", "unix:a.sock", "localhost:80", "127.0.0.1"] {
            assert!(wrong.parse::<UpstreamAddress>().is_err(), "{wrong}");
        }
    }
}
