//! Which addresses of a configuration somebody else listens on. Nothing is bound to find
//! that out, since a supervisor may be starting at this moment.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::{holder, is_socket};
use crate::config::{Address, Config, overlap};
use crate::recovery::survivors;

/// What to say of each address that could not be bound now. Those of the supervisor whose
/// runtime directory the configuration names are its own, also while its workers wait for
/// the next one. Where it can't be known what is its own, nothing is said.
pub(crate) fn warnings(config: &Config) -> Vec<String> {
    let Some(ours) = survivors::addresses_in_force(&config.supervisor.runtime_dir) else {
        return Vec::new();
    };
    let mut warnings = Vec::new();
    let mut warn = |address: String, inodes: Vec<u64>| {
        if !inodes.is_empty() {
            let holder = holder::of(&inodes);
            warnings.push(format!(
                "{address} is in use: {holder} has it, so that prefork could not listen there"
            ));
        }
    };
    if let Some(admin) = config.supervisor.admin {
        warn(format!("the admin address {admin}"), at_port(admin, &ours));
    }
    for listen in config.pools.iter().flat_map(|pool| &pool.listen) {
        let inodes = match &listen.address {
            Address::Tcp(address) => at_port(*address, &ours),
            Address::Unix(path) if ours.contains(&format!("unix:{}", path.display())) => continue,
            Address::Unix(path) if is_socket(path) => holder::at_path(path),
            Address::Unix(_) | Address::Systemd(_) => continue,
        };
        warn(listen.name.clone(), inodes);
    }
    warnings
}

/// The sockets of others at an address. One of another family is in the way only by an
/// option that it is not seen to have.
fn at_port(address: SocketAddr, ours: &BTreeSet<String>) -> Vec<u64> {
    let listeners = holder::tcp_listeners().into_iter();
    let foreign =
        listeners.filter(|(at, _)| overlap(at, &address) && !ours.contains(&at.to_string()));
    foreign.map(|(_, inode)| inode).collect()
}
