//! Asks a program over its socket, or looks at it from outside.

use std::fs;
use std::io;
use std::time::Duration;

use nix::unistd::Pid;
use prefork_proto::adapter::UpstreamAddress;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

/// The start of an answer has room for its status.
const STATUS_BYTES: usize = 12;

/// Both kinds of connection.
pub(super) trait Connection: AsyncRead + AsyncWrite {}

impl<T: AsyncRead + AsyncWrite> Connection for T {}

/// A connection to the program.
pub(super) type Stream = std::pin::Pin<Box<dyn Connection>>;

/// Connects; that it succeeds says that the program listens.
pub(super) async fn connect(address: &UpstreamAddress) -> io::Result<Stream> {
    Ok(match address {
        UpstreamAddress::Unix(path) => {
            let stream = UnixStream::connect(path).await?;
            super::program::admit_front(path)?;
            Box::pin(stream)
        }
        UpstreamAddress::Tcp(address) => Box::pin(TcpStream::connect(address).await?),
    })
}

/// Connects, says that nothing comes, and waits until the program has seen it.
pub(super) async fn accepts(address: &UpstreamAddress) -> io::Result<()> {
    is_closed(connect(address).await?).await
}

/// Says that nothing comes, and waits until the program has seen that.
pub(super) async fn is_closed(mut stream: Stream) -> io::Result<()> {
    stream.shutdown().await?;
    // An error tells as much as an end or an answer: somebody has taken it.
    let _ = stream.read(&mut [0; STATUS_BYTES]).await;
    Ok(())
}

/// Asks for a path; the error says what was wrong with the answer.
pub(super) async fn get(
    address: &UpstreamAddress,
    path: &str,
    patience: Duration,
) -> Result<(), String> {
    let status = tokio::time::timeout(patience, status_of(address, path)).await;
    match status {
        Ok(Ok(200..=399)) => Ok(()),
        Ok(Ok(status)) => Err(format!("GET {path} was answered {status}")),
        Ok(Err(error)) => Err(format!("GET {path}: {error}")),
        Err(_) => Err(format!("GET {path} was not answered within {patience:?}")),
    }
}

async fn status_of(address: &UpstreamAddress, path: &str) -> io::Result<u16> {
    let mut stream = connect(address).await?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: prefork\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut start = [0; STATUS_BYTES];
    stream.read_exact(&mut start).await?;
    let no_http = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1");
    let text = std::str::from_utf8(&start).map_err(|_| no_http())?;
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..));
    status
        .and_then(|status| status.parse().ok())
        .ok_or_else(no_http)
}

/// Whether the program, or what it has started, waits on one of these sockets with
/// epoll(7): proc_pid_fdinfo(5).
pub(super) fn waits_on(pid: Pid, inodes: &[u64]) -> bool {
    let mut processes = vec![pid.as_raw()];
    while let Some(pid) = processes.pop() {
        let infos = fs::read_dir(format!("/proc/{pid}/fdinfo"))
            .into_iter()
            .flatten();
        for info in infos.flatten() {
            let text = fs::read_to_string(info.path()).unwrap_or_default();
            if text
                .lines()
                .filter_map(watched_inode)
                .any(|it| inodes.contains(&it))
            {
                return true;
            }
        }
        processes.extend(children(pid));
    }
    false
}

/// The inode in a line of an epoll descriptor's information.
fn watched_inode(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("tfd:")?;
    let (_, inode) = rest.split_once("ino:")?;
    u64::from_str_radix(inode.split_ascii_whitespace().next()?, 16).ok()
}

fn children(pid: i32) -> Vec<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_ascii_whitespace().flat_map(str::parse).collect()
}

/// A process's parent, by proc_pid_stat(5).
pub(super) fn parent(pid: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may contain anything.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inode_of_a_watched_socket_is_found() {
        let line = "tfd:        5 events:       19 data:                5  pos:0 ino:61af sdev:8";
        assert_eq!(watched_inode(line), Some(0x61af));
        assert_eq!(watched_inode("pos:\t0"), None);
    }
}
