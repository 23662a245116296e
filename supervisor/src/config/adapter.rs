//! `[pool.NAME.adapter]`: the pool's program does not speak the channel.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::Signal;
use prefork_proto::adapter::{Health, Piece, Ready, pieces};
use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::checked::{Listen, Program};
use super::error::Fault;
use super::section::{Section, Setting, expected, nearest, string};
use super::units;

/// What may stand in braces in a program, its arguments and its `env`.
const PLACEHOLDERS: [&str; 4] = ["socket", "port", "host", "fd"];

const READY: &str =
    "\"notify\", \"listening\", \"http:/PATH\" or a time such as \"2s\" for `ready`";
const HEALTH: &str = "\"listening\", \"notify\", \"process\" or \"http:/PATH\" for `health`";

/// The most requests that a worker may be said to get at a time.
const MOST_REQUESTS: u64 = 1_000_000;

/// How a program that does not speak the channel is looked after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adapter {
    /// When it is ready.
    pub ready: Ready,
    /// How it is known to be well.
    pub health: Health,
    /// The signal that asks it to leave, without its SIG.
    pub stop_signal: String,
    /// Requests that one worker gets at a time from a front; 0 for any number.
    pub concurrency: u32,
    /// How the program comes to its socket.
    pub socket: SocketKind,
}

/// How a program comes to the socket that it takes requests from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketKind {
    /// It binds the path `{socket}`.
    Path,
    /// It binds `{port}` of 127.0.0.1.
    Port,
    /// It binds `{port}` of `{host}`.
    HostPort,
    /// It inherits the descriptor `{fd}` of a private socket.
    Passed,
    /// It inherits the pool's listeners, the first as `{fd}`.
    Listeners,
}

impl Adapter {
    /// The number of its [`Self::stop_signal`].
    pub(crate) fn signal(&self) -> i32 {
        // It was checked when it was read.
        signal(&self.stop_signal).map_or(libc::SIGTERM, |signal| signal as i32)
    }

    /// The keys and values, as they would be written.
    pub(super) fn settings(adapter: Option<&Self>) -> [(&'static str, String); 4] {
        let show = |text: fn(&Self) -> String| adapter.map_or_else(|| "none".to_owned(), text);
        [
            ("adapter.ready", show(|it| show_ready(&it.ready))),
            ("adapter.health", show(|it| show_health(&it.health))),
            ("adapter.stop_signal", show(|it| it.stop_signal.clone())),
            ("adapter.concurrency", show(|it| it.concurrency.to_string())),
        ]
    }
}

/// The adapter of a command line with placeholders; `None` where it has none, since
/// its program speaks the channel then.
pub(super) fn of_command_line(words: &[String]) -> Result<Option<Adapter>, Fault> {
    let has = |wanted: &dyn Fn(&str) -> bool| {
        let mut pieces = words.iter().flat_map(|word| pieces(word));
        pieces.any(|piece| matches!(piece, Piece::Placeholder(name) if wanted(name)))
    };
    if !has(&|name| PLACEHOLDERS.contains(&name)) {
        return Ok(None);
    }
    // Who takes the descriptor accepts from `--listen` itself.
    let direct = has(&|name| name == "fd");
    Ok(Some(Adapter {
        ready: Ready::First,
        health: Health::Listening,
        stop_signal: "TERM".to_owned(),
        concurrency: 0,
        socket: socket_kind(words.iter().map(String::as_str), direct)?,
    }))
}

fn show_ready(ready: &Ready) -> String {
    match ready {
        Ready::First => "notify or listening".to_owned(),
        Ready::Notify => "notify".to_owned(),
        Ready::Listening => "listening".to_owned(),
        Ready::Http(path) => format!("http:{path}"),
        Ready::After(millis) => units::show_duration(Duration::from_millis(*millis)),
    }
}

fn show_health(health: &Health) -> String {
    match health {
        Health::Listening => "listening".to_owned(),
        Health::Notify => "notify".to_owned(),
        Health::Process => "process".to_owned(),
        Health::Http(path) => format!("http:{path}"),
    }
}

/// Reads the table of a pool, if it has one. What else of the pool does not go with
/// it is reported, too.
pub(super) fn read(
    section: &mut Section<'_>,
    program: &Program,
    env: &BTreeMap<String, String>,
    listen: &[Setting<Listen>],
) -> Option<Adapter> {
    let name = format!("`adapter` of {}", section.name);
    let mut table = section.section("adapter", name)?;
    let Program::Command { path, args } = program else {
        let fault = Fault::new(format!("{} needs a program", table.name));
        let help = "program = [\"uvicorn\", \"--uds\", \"{socket}\", \"shop:app\"]";
        table.fault(table.span.clone(), fault.help(help));
        return None;
    };
    let path = path.to_string_lossy();
    let words = std::iter::once(&*path)
        .chain(args.iter().map(String::as_str))
        .chain(env.values().map(String::as_str));
    let direct = !listen.is_empty();
    let socket = match socket_kind(words, direct) {
        Ok(kind) => kind,
        Err(fault) => {
            table.fault(table.span.clone(), fault);
            SocketKind::Passed
        }
    };
    refuse_what_it_cannot_have(section, listen);
    let ready = table.take_or("ready", Ready::First, |value| ready(value, direct));
    let health = table.take_or("health", Health::Listening, |value| health(value, direct));
    let stop_signal = table.take_or("stop_signal", "TERM".to_owned(), |value| {
        let text = string(value, "a signal such as \"TERM\"")?;
        Ok(signal(text)?.as_str()[3..].to_owned())
    });
    let concurrency = table.integer("concurrency", 0, 0..=MOST_REQUESTS);
    table.finish();
    Some(Adapter {
        ready: ready.value,
        health: health.value,
        stop_signal: stop_signal.value,
        concurrency: u32::try_from(concurrency.value).unwrap_or(u32::MAX),
        socket,
    })
}

/// Reports what a program that does not speak the channel can't be given.
fn refuse_what_it_cannot_have(section: &Section<'_>, listen: &[Setting<Listen>]) {
    for listen in listen.iter().filter(|listen| listen.value.tls.is_some()) {
        let fault = Fault::new("a program with an adapter gets its listeners without TLS");
        let help = "leave `listen` out and put the pool behind a front, which speaks TLS for it";
        section.fault(listen.span.clone(), fault.help(help));
    }
    for (key, why, help) in [
        (
            "app",
            "would never see these settings",
            "give them as arguments, or in `env`",
        ),
        (
            "access_log",
            "writes no access log for prefork",
            "the front in front of it writes one",
        ),
        (
            "max_requests",
            "does not say how many it has answered",
            "recycle it by `max_rss` or `max_age`",
        ),
    ] {
        if section.has(key) {
            let fault = Fault::new(format!(
                "`{key}` does not go with `adapter`: the program {why}"
            ));
            section.fault(section.span.clone(), fault.help(help));
        }
    }
}

/// How a program with these words comes to its socket.
pub(super) fn socket_kind<'a>(
    words: impl Iterator<Item = &'a str>,
    direct: bool,
) -> Result<SocketKind, Fault> {
    let mut found = [false; PLACEHOLDERS.len()];
    for word in words {
        for piece in pieces(word) {
            let Piece::Placeholder(name) = piece else {
                continue;
            };
            let Some(index) = PLACEHOLDERS.iter().position(|known| *known == name) else {
                let fault = Fault::new(format!("there is no placeholder {{{name}}}"));
                let help = nearest(name, &PLACEHOLDERS).replace("keys", "placeholders");
                return Err(fault.help(format!("{help}; {{{{{name}}}}} stands for {{{name}}}")));
            };
            found[index] = true;
        }
    }
    match (found, direct) {
        ([false, false, false, true], true) => Ok(SocketKind::Listeners),
        ([false, false, false, false], true) => {
            let fault = Fault::new("the pool has `listen`, and its program has no {fd}");
            Err(fault.help(
                "give it the descriptor: program = [\"uvicorn\", \"--fd\", \"{fd}\", …]; \
                 or leave `listen` out, put {socket} there, and a front before it",
            ))
        }
        (_, true) => {
            let fault = Fault::new("with `listen` a program gets its socket as {fd} alone");
            Err(fault.help("leave `listen` out for a program that binds {socket} or {port}"))
        }
        ([true, false, false, false], _) => Ok(SocketKind::Path),
        ([false, true, false, false], _) => Ok(SocketKind::Port),
        ([false, true, true, false], _) => Ok(SocketKind::HostPort),
        ([false, false, false, _], _) => Ok(SocketKind::Passed),
        ([false, false, true, _], _) => Err(Fault::new("{host} needs {port} beside it")),
        _ => {
            let fault = Fault::new("a program has one socket");
            Err(fault.help("one of {socket}, {port} and {fd}"))
        }
    }
}

fn ready(value: &DeValue<'_>, direct: bool) -> Result<Ready, Fault> {
    let text = string(value, READY)?;
    Ok(match text {
        "notify" => Ready::Notify,
        "listening" => Ready::Listening,
        _ if text.starts_with("http:") => Ready::Http(path(text, direct)?),
        _ if text.starts_with(|first: char| first.is_ascii_digit()) => {
            let time = units::duration(text)?;
            Ready::After(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        }
        _ => return Err(expected(READY, value)),
    })
}

fn health(value: &DeValue<'_>, direct: bool) -> Result<Health, Fault> {
    let text = string(value, HEALTH)?;
    Ok(match text {
        "listening" => Health::Listening,
        "notify" => Health::Notify,
        "process" => Health::Process,
        _ if text.starts_with("http:") => Health::Http(path(text, direct)?),
        _ => return Err(expected(HEALTH, value)),
    })
}

/// The path of `http:/PATH`.
fn path(text: &str, direct: bool) -> Result<String, Fault> {
    let path = text.strip_prefix("http:").unwrap_or(text);
    let printable = path.bytes().all(|byte| byte.is_ascii_graphic());
    if !path.starts_with('/') || path.starts_with("//") || !printable {
        let fault = Fault::new(format!("\"{}\" is no path", path.escape_debug()));
        return Err(fault.help("as in \"http:/healthz\": it is asked on the program's own socket"));
    }
    if direct {
        let fault = Fault::new("a pool with `listen` cannot be asked over HTTP");
        return Err(fault.help(
            "its workers share a socket, and any of them would answer; \
             use \"notify\" or \"listening\"",
        ));
    }
    Ok(path.to_owned())
}

fn signal(name: &str) -> Result<Signal, Fault> {
    let long = match name.starts_with("SIG") {
        true => name.to_owned(),
        false => format!("SIG{name}"),
    };
    let refused = ["SIGKILL", "SIGSTOP", "SIGCHLD", "SIGCONT"];
    Signal::from_str(&long)
        .ok()
        .filter(|_| !refused.contains(&&*long))
        .ok_or_else(|| {
            let fault = Fault::new(format!(
                "\"{}\" is no signal that asks a program to leave",
                name.escape_debug()
            ));
            fault.help("such as \"TERM\", \"INT\", \"QUIT\" or \"WINCH\"")
        })
}
