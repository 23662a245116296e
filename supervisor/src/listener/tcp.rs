//! Binding a TCP address, which others may have: another program, another slot of
//! the same listener, or a listener of ours that goes.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use socket2::{Domain, SockRef, Socket, Type};

use super::{Listener, listen_on};
use crate::config::{Listen, Mode};

/// Who may have the address already.
#[derive(Debug, Clone, Copy)]
pub(super) enum Company<'a> {
    /// Other slots of the listener.
    Siblings,
    /// Nobody, or one of these: they are this supervisor's, and are at the same
    /// port of another address, or no longer of use.
    Others(&'a [Rc<Listener>]),
}

/// A socket that listens there.
pub(super) fn bind(
    listen: &Listen,
    address: SocketAddr,
    company: Company<'_>,
) -> io::Result<Socket> {
    let ours = match company {
        Company::Siblings => return listening(listen, address, true),
        Company::Others(ours) => ours,
    };
    // The first of several is bound like one that is alone: with SO_REUSEPORT it
    // would come to lie beside that of another supervisor of the same user, and
    // take half of its clients.
    let socket = match listening(listen, address, false) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !ours.is_empty() => {
            let _shared = Shared::of(ours);
            listening(listen, address, true)
        }
        bound => bound,
    }?;
    // What has no siblings to come lets nobody else in.
    socket.set_reuse_port(listen.mode == Mode::PerSlot)?;
    Ok(socket)
}

fn listening(listen: &Listen, address: SocketAddr, shares_port: bool) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    // A restart must not wait for the last run's connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shares_port)?;
    if address.is_ipv6() {
        // Whatever net.ipv6.bindv6only says.
        socket.set_only_v6(listen.ipv6_only)?;
    }
    socket.bind(&address.into())?;
    listen_on(&socket, listen.backlog)?;
    Ok(socket)
}

/// Listeners that let another socket of this user have their port beside them,
/// for as long as this lives: the kernel asks both (socket(7), `SO_REUSEPORT`).
struct Shared<'a>(Vec<SockRef<'a>>);

impl<'a> Shared<'a> {
    fn of(listeners: &'a [Rc<Listener>]) -> Self {
        let sockets = listeners.iter().map(|it| SockRef::from(&it.socket));
        let alone = sockets.filter(|it| !it.reuse_port().unwrap_or(true));
        let shared: Vec<_> = alone.collect();
        for socket in &shared {
            // Where it can't be, the address is in use.
            let _ = socket.set_reuse_port(true);
        }
        Self(shared)
    }
}

impl Drop for Shared<'_> {
    fn drop(&mut self) {
        for socket in &self.0 {
            let _ = socket.set_reuse_port(false);
        }
    }
}
