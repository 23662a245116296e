//! Who has an address that could not be bound, as far as that can be known:
//! proc_pid_net(5) names the socket, and proc_pid_fd(5) the process that has it.

use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::config::Address;

/// The state of a socket that listens, as `/proc/net/tcp` writes it.
const LISTENS: &str = "0A";

/// The flag of a unix socket that listens, as `/proc/net/unix` writes it (the kernel's
/// `__SO_ACCEPTCON`).
const ACCEPTS: u32 = 1 << 16;

/// What is to be said to whoever asked for it.
pub(super) fn advice(address: &Address) -> String {
    let inodes = match address {
        Address::Tcp(address) => at_port(*address),
        Address::Unix(path) => at_path(path),
        Address::Systemd(_) => Vec::new(),
    };
    match process_with(&inodes) {
        Some(pid) if pid == std::process::id() => {
            "; this supervisor holds it itself, for its admin address or another listener: \
             choose another"
                .to_owned()
        }
        Some(pid) => format!("; {} holds it: stop that, or choose another", title(pid)),
        None => "; another program holds it: stop that, or choose another".to_owned(),
    }
}

/// A process by its name and number.
fn title(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name: String = name.trim().escape_debug().collect();
    format!("{name} (pid {pid})")
}

/// Who has one of these sockets, as far as this user may know.
pub(super) fn of(inodes: &[u64]) -> String {
    process_with(inodes).map_or_else(|| "another program".to_owned(), title)
}

/// The sockets that are in the way of this address.
fn at_port(address: SocketAddr) -> Vec<u64> {
    let in_the_way = tcp_listeners().into_iter().filter(|(at, _)| {
        let any = at.ip().is_unspecified() || address.ip().is_unspecified();
        at.port() == address.port() && (at.ip() == address.ip() || any)
    });
    in_the_way.map(|(_, inode)| inode).collect()
}

/// Every TCP socket that listens: its address and inode.
pub(super) fn tcp_listeners() -> Vec<(SocketAddr, u64)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let texts = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    let rows = texts.iter().flat_map(|text| text.lines().skip(1));
    rows.filter_map(listener).collect()
}

/// A row of `/proc/net/tcp`, if it is a listener's: its address and inode.
fn listener(row: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = row.split_ascii_whitespace().collect();
    if *fields.get(3)? != LISTENS {
        return None;
    }
    let (ip, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((
        SocketAddr::new(ip_address(ip)?, port),
        fields.get(9)?.parse().ok()?,
    ))
}

/// Words of 32 bits, each in the order of this machine.
fn ip_address(digits: &str) -> Option<IpAddr> {
    let words = (0..digits.len() / 8).map(|word| {
        let word = digits.get(word * 8..word * 8 + 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    });
    let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.concat();
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// The sockets that were bound to this path.
pub(super) fn at_path(path: &Path) -> Vec<u64> {
    let named = unix_sockets().into_iter().filter(|it| it.path == path);
    named.map(|it| it.inode).collect()
}

/// The paths at which some process of this machine listens.
pub(crate) fn unix_listeners() -> Vec<PathBuf> {
    let listening = unix_sockets().into_iter().filter(|it| it.listens);
    listening.map(|it| it.path).collect()
}

/// A socket that was bound to a path.
struct UnixSocket {
    path: PathBuf,
    inode: u64,
    listens: bool,
}

fn unix_sockets() -> Vec<UnixSocket> {
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    text.lines().skip(1).filter_map(unix_socket).collect()
}

/// A row of `/proc/net/unix`: Num, RefCount, Protocol, Flags, Type, St, Inode, and what is
/// left is the path.
fn unix_socket(row: &str) -> Option<UnixSocket> {
    let (mut fields, mut rest) = ([""; 7], row);
    for field in &mut fields {
        (*field, rest) = rest.trim_start().split_once(' ')?;
    }
    let flags = u32::from_str_radix(fields[3], 16).ok()?;
    Some(UnixSocket {
        path: PathBuf::from(rest),
        inode: fields[6].parse().ok()?,
        listens: flags & ACCEPTS != 0,
    })
}

/// A process that has one of these sockets open, if this user may know. Where this one
/// has some of them, whoever has another is in its way: its own may have been bound
/// before somebody took the path, and its workers have those as well.
fn process_with(inodes: &[u64]) -> Option<u32> {
    let us = std::process::id();
    let names = inodes.iter().map(|it| format!("socket:[{it}]").into());
    let (ours, foreign): (Vec<OsString>, Vec<OsString>) =
        names.partition(|name| has_one_of(us, std::slice::from_ref(name)));
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
    let other = match foreign.is_empty() {
        true => None,
        false => pids.find(|pid| has_one_of(*pid, &foreign)),
    };
    other.or((!ours.is_empty()).then_some(us))
}

fn has_one_of(pid: u32, names: &[OsString]) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd"));
    let open = open.into_iter().flatten().flatten();
    let mut targets = open.filter_map(|it| fs::read_link(it.path()).ok());
    targets.any(|target| names.iter().any(|name| target.as_os_str() == name))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn who_took_a_path_of_ours_is_in_the_way_and_not_we() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("taken");
        let _ours = UnixListener::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let script = "use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0); \
            bind(S, sockaddr_un($ARGV[0])) or die; listen(S, 1); $| = 1; print 1; sleep 60";
        let taken = Command::new("perl")
            .args(["-e", script])
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut other) = taken else {
            eprintln!("SKIPPED: no perl to take a path with");
            return;
        };
        other.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let found = process_with(&at_path(&path));
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(found, Some(other.id()));
    }

    #[test]
    fn whoever_listens_is_found_by_its_socket() {
        let us = std::process::id();
        for host in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let Ok(held) = TcpListener::bind(host) else {
                continue;
            };
            let address = held.local_addr().unwrap();
            assert_eq!(process_with(&at_port(address)), Some(us), "{host}");
            let every = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            assert_eq!(process_with(&at_port(every)), Some(us), "{host}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a socket");
        let _held = UnixListener::bind(&path).unwrap();
        assert_eq!(process_with(&at_path(&path)), Some(us));
        assert!(unix_listeners().contains(&path));
        assert!(at_path(&dir.path().join("another")).is_empty());
        let free = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(process_with(&at_port(free)), None);
    }
}
