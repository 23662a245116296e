//! Listeners: `"0.0.0.0:8080"`, `"unix:/run/app.sock"`, or a table with options.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::net::if_::if_nametoindex;
use prefork_proto::adapter::SOCKET_PATH_LIMIT;
use toml::de::DeValue;

use super::checked::{Address, Listen, Mode};
use super::error::Fault;
use super::host::Host;
use super::section::{Section, Setting, boolean, expected, permissions, string};
use super::{defaults, program, tls};

const EXAMPLE: &str = "an address such as \"0.0.0.0:8080\"";

/// Reads a pool's `listen`.
pub(super) fn read_list(section: &mut Section<'_>, host: &Host) -> Vec<Setting<Listen>> {
    let problems = section.problems;
    let list = section.list(
        "listen",
        "an array such as [\"0.0.0.0:8080\"]",
        |element| match element.get_ref() {
            DeValue::String(text) => parse(text, host).map(Some),
            DeValue::Table(table) => {
                let section = Section::new("a listener", table, element.span(), problems);
                Ok(read_table(section, host))
            }
            other => Err(expected(EXAMPLE, other)),
        },
    );
    let Some(list) = list else {
        return Vec::new();
    };
    if list.sound && list.value.is_empty() {
        let fault = Fault::new("`listen` is empty");
        section.fault(list.span.clone(), fault.help("[\"0.0.0.0:8080\"]"));
    }
    let readable = |listen: Setting<Option<Listen>>| {
        listen.value.map(|value| Setting {
            value,
            span: listen.span,
            sound: listen.sound,
        })
    };
    list.value.into_iter().filter_map(readable).collect()
}

/// Reads a listener with options. `None` when it has no usable address.
fn read_table(mut section: Section<'_>, host: &Host) -> Option<Listen> {
    let listen = section.take("address", |value| parse(string(value, EXAMPLE)?, host));
    let backlog = section.integer("backlog", defaults::BACKLOG.into(), 1..=65_535);
    let bits = section.take("permissions", permissions);
    let group = section.take("group", program::named_group);
    let mode = section.take_or("mode", Mode::Shared, mode);
    let ipv6_only = section.take_or("ipv6_only", defaults::ipv6_only(), boolean);
    let proxy_protocol = section.take_or("proxy_protocol", false, boolean);
    let tls = section.section("tls", "`tls` of a listener");
    let tls = tls.and_then(|tls| tls::read(tls, host));
    if listen.sound && listen.value.is_none() {
        let fault = Fault::new("a listener has no `address`");
        section.fault(
            section.span.clone(),
            fault.help("address = \"0.0.0.0:8080\""),
        );
    }
    let tcp = matches!(&listen.value, Some(listen) if matches!(listen.address, Address::Tcp(_)));
    if tcp && bits.value.is_some() {
        let fault = Fault::new("`permissions` are for unix sockets; this listener is TCP");
        section.fault(bits.span, fault);
    }
    if tcp && group.value.is_some() {
        let fault = Fault::new("`group` is for unix sockets; this listener is TCP");
        section.fault(group.span, fault);
    }
    let any = |at: &SocketAddr| at.is_ipv6() && at.ip().is_unspecified();
    let of_ipv6 = matches!(&listen.value, Some(listen) if matches!(&listen.address, Address::Tcp(at) if any(at)));
    if !ipv6_only.value && listen.value.is_some() && !of_ipv6 {
        let fault =
            Fault::new("`ipv6_only = false` is for \"[::]:PORT\", which then takes IPv4 as well");
        section.fault(ipv6_only.span, fault.of_key("ipv6_only"));
    }
    let systemd =
        matches!(&listen.value, Some(listen) if matches!(listen.address, Address::Systemd(_)));
    if !tcp && listen.value.is_some() && mode.value == Mode::PerSlot {
        let what = if systemd {
            "one socket from systemd"
        } else {
            "a unix socket"
        };
        let fault = Fault::new(format!("\"per-slot\" needs TCP; this listener is {what}"));
        let help = "leave `mode` out for \"shared\"";
        section.fault(mode.span, fault.of_key("mode").help(help));
    }
    if systemd {
        refuse_options_of_systemd(&section);
    }
    section.finish();
    listen.value.map(|listen| Listen {
        mode: mode.value,
        backlog: u32::try_from(backlog.value).unwrap_or(defaults::BACKLOG),
        permissions: bits.value,
        group: group.value,
        ipv6_only: ipv6_only.value,
        proxy_protocol: proxy_protocol.value,
        tls,
        ..listen
    })
}

/// A socket from systemd comes bound and listening.
fn refuse_options_of_systemd(section: &Section<'_>) {
    for (key, theirs) in [
        ("backlog", "Backlog="),
        ("permissions", "SocketMode="),
        ("group", "SocketGroup="),
    ] {
        if section.has(key) {
            let fault = Fault::new(format!("`{key}` is not for a socket from systemd"));
            let help = format!("set {theirs} in its socket unit");
            section.fault(section.span.clone(), fault.help(help));
        }
    }
}

fn mode(value: &DeValue<'_>) -> Result<Mode, Fault> {
    const MODES: &str = "\"shared\" or \"per-slot\"";
    match string(value, MODES)? {
        "shared" => Ok(Mode::Shared),
        "per-slot" => Ok(Mode::PerSlot),
        other => Err(Fault::new(format!(
            "expected {MODES}, found \"{}\"",
            other.escape_debug()
        ))),
    }
}

/// A listener from its address.
pub(super) fn parse(text: &str, host: &Host) -> Result<Listen, Fault> {
    let address = if let Some(path) = text.strip_prefix("unix:") {
        unix_address(path, host)?
    } else if let Some(name) = text.strip_prefix("systemd:") {
        Address::Systemd(descriptor_name(name)?)
    } else {
        Address::Tcp(socket_address(text)?)
    };
    Ok(Listen {
        name: text.to_owned(),
        address,
        mode: Mode::Shared,
        backlog: defaults::BACKLOG,
        permissions: None,
        group: None,
        ipv6_only: defaults::ipv6_only(),
        proxy_protocol: false,
        tls: None,
    })
}

fn unix_address(path: &str, host: &Host) -> Result<Address, Fault> {
    if path.is_empty() || path.starts_with('@') || path.contains('\0') {
        let fault = Fault::new(format!("\"unix:{}\" names no file", path.escape_debug()));
        return Err(fault.help("write a path: \"unix:/run/app.sock\""));
    }
    let path = host.resolve(Path::new(path));
    let bytes = path.as_os_str().as_bytes().len();
    if bytes > SOCKET_PATH_LIMIT {
        return Err(Fault::new(format!(
            "{} has {bytes} bytes; the kernel takes {SOCKET_PATH_LIMIT} for a unix socket",
            path.display()
        )));
    }
    Ok(Address::Unix(path))
}

/// A name as systemd.socket(5) has it for `FileDescriptorName=`.
fn descriptor_name(name: &str) -> Result<String, Fault> {
    let syntax = |byte: u8| byte.is_ascii_graphic() && byte != b':' || byte == b' ';
    if (1..=255).contains(&name.len()) && name.bytes().all(syntax) {
        return Ok(name.to_owned());
    }
    let fault = Fault::new(format!(
        "\"systemd:{}\" names no socket",
        name.escape_debug()
    ));
    Err(fault.help("write the FileDescriptorName= of a socket unit: \"systemd:http\""))
}

/// An IP address with its port, or what is missing.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Fault> {
    let address = match text.parse() {
        Ok(address) => address,
        Err(_) => match with_interface(text)? {
            Some(address) => address.into(),
            None => return Err(no_address(text)),
        },
    };
    match address {
        SocketAddr::V6(it) if it.ip().is_unicast_link_local() && it.scope_id() == 0 => {
            let fault = Fault::new(format!("\"{text}\" is of one link, and does not say which"));
            let help = format!("write its interface: \"[{}%eth0]:{}\"", it.ip(), it.port());
            Err(fault.help(help))
        }
        address => Ok(address),
    }
}

/// `[fe80::1%eth0]:8080`: an address of the link at an interface (RFC 4007, 11).
fn with_interface(text: &str) -> Result<Option<SocketAddrV6>, Fault> {
    let split = |text: &str| {
        let (address, rest) = text.strip_prefix('[')?.split_once('%')?;
        let (interface, port) = rest.split_once("]:")?;
        Some((
            address.parse::<Ipv6Addr>().ok()?,
            interface.to_owned(),
            port.parse::<u16>().ok()?,
        ))
    };
    let Some((ip, interface, port)) = split(text) else {
        return Ok(None);
    };
    let index = if_nametoindex(interface.as_str()).map_err(|_| {
        Fault::new(format!(
            "there is no interface \"{}\"",
            interface.escape_debug()
        ))
    })?;
    Ok(Some(SocketAddrV6::new(ip, port, 0, index)))
}

/// Why a text is no socket address, and what would be one.
fn no_address(text: &str) -> Fault {
    let (why, help) = what_is_wrong(text);
    Fault::new(format!("\"{}\" {why}", text.escape_debug())).help(help)
}

fn what_is_wrong(text: &str) -> (String, String) {
    let not_an_ip = || "is not an IP address with a port".to_owned();
    if let Some((_, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/').escape_debug();
        return (
            "is a URL".to_owned(),
            format!("write the address alone: \"{rest}\""),
        );
    }
    if text.starts_with(['/', '.']) {
        let path = text.escape_debug();
        return (
            "is a path".to_owned(),
            format!("for a unix socket write \"unix:{path}\""),
        );
    }
    if let Ok(port) = text.parse::<u16>() {
        let help = format!(
            "write \"127.0.0.1:{port}\" for this machine alone, or \"0.0.0.0:{port}\" for everybody"
        );
        return ("is a port without an address".to_owned(), help);
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        let example = SocketAddr::new(ip, 8080);
        return ("has no port".to_owned(), format!("write \"{example}\""));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        let help = "write IP:PORT, for instance \"0.0.0.0:8080\"";
        return (not_an_ip(), help.to_owned());
    };
    if port.parse::<u16>().is_err() {
        let why = format!("has the port \"{}\"", port.escape_debug());
        return (why, "a port is a number from 0 to 65535".to_owned());
    }
    let help = match host {
        "" | "*" => format!("for every address write \"0.0.0.0:{port}\" or \"[::]:{port}\""),
        "localhost" => format!("names are not looked up; write \"127.0.0.1:{port}\""),
        _ if host.parse::<Ipv6Addr>().is_ok() => format!("write \"[{host}]:{port}\""),
        _ => format!("names are not looked up; write an IP address, as in \"0.0.0.0:{port}\""),
    };
    (not_an_ip(), help)
}

/// Whether two listeners cannot both be bound, or could not be told apart.
pub(super) fn clash(one: &Listen, other: &Listen) -> bool {
    one.name == other.name
        || match (&one.address, &other.address) {
            (Address::Tcp(at), Address::Tcp(there)) => {
                overlap(at, there) || one.takes_from(there) || other.takes_from(at)
            }
            (Address::Unix(one), Address::Unix(other)) => one == other,
            _ => false,
        }
}

impl Listen {
    /// Whether it is for both families, and that address for the same port of the
    /// other one.
    fn takes_from(&self, other: &SocketAddr) -> bool {
        self.is_of_both_families()
            && other.is_ipv4()
            && matches!(&self.address, Address::Tcp(at) if at.port() == other.port() && at.port() != 0)
    }
}

/// Whether two TCP addresses of one family contend for a port.
pub(crate) fn overlap(one: &SocketAddr, other: &SocketAddr) -> bool {
    let (a, b) = (one.ip(), other.ip());
    let link = |address: &SocketAddr| match address {
        SocketAddr::V6(address) => address.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    one.port() == other.port()
        && one.port() != 0
        && a.is_ipv4() == b.is_ipv4()
        && (a == b && link(one) == link(other) || a.is_unspecified() || b.is_unspecified())
}
