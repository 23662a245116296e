//! A program that says nothing: it may be slow, or it may never have heard of the
//! protocol. The sooner that is said, the sooner somebody sees which.

use prefork_fleet::SPEAK;

use crate::reactor::worker_process::task::*;
use crate::recovery::survivors;

/// A program that has not said `hello` after this long is talked of.
pub(super) const UNHEARD: Duration = Duration::from_secs(3);

impl Process {
    /// It has said nothing for [`UNHEARD`].
    pub(super) async fn doubt(&mut self) {
        if self.channel.is_none() {
            // It has closed that, which is being seen to.
            return;
        }
        // Its pool's listeners are handed over after `hello`: what it listens on
        // is its own, and nobody will ever be let in by it.
        if let Some(address) = self.listens_on() {
            let rule = format!("it listens on {address} by itself and never said hello; {SPEAK}");
            self.misbehaved(rule).await;
            return;
        }
        let (slot, pid) = (&self.slot, self.pid);
        warn!(%slot, pid, "it has not said hello on its channel for {UNHEARD:?}: where it is not just slow, {SPEAK}");
    }

    /// A socket that it, or a child of it, listens on.
    fn listens_on(&self) -> Option<String> {
        let children = procfs::kin::children(self.pid).unwrap_or_default();
        let of_children = children.into_iter().flat_map(|child| {
            let pidfd = sys::pidfd_open(Pid::from_raw(child)).ok();
            pidfd.map_or_else(Vec::new, |pidfd| survivors::listening(child, &pidfd))
        });
        let own = survivors::listening(self.pid, self.pidfd.get_ref());
        let socket = own.into_iter().chain(of_children).next()?;
        let address = socket2::SockRef::from(&socket).local_addr().ok()?;
        Some(match address.as_socket() {
            Some(address) => address.to_string(),
            None => match address.as_pathname() {
                Some(path) => format!("unix:{}", path.display()),
                None => "a socket".to_owned(),
            },
        })
    }
}
