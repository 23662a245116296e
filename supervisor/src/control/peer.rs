//! Who may give orders: root, the supervisor's own user and, where the socket's
//! permissions grant it, the socket's group; but no worker, whoever it runs as.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;

use tokio::net::UnixStream;

use super::descent::Descent;
use crate::handle::Peer;
use crate::kernel::fd_reserve::Reserve;
use crate::kernel::sys;

/// The permission bit that lets a group connect to a unix socket (unix(7)).
const GROUP_WRITE: u32 = 0o020;

/// Whose orders are taken. The file's permissions already keep strangers out;
/// this holds where they were made too wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    users: [u32; 2],
    group: Option<u32>,
}

impl Allowed {
    /// What a control socket at `path` allows, by the group and the permission
    /// bits that it has now. Call it after these are set.
    pub fn of_socket(path: &Path) -> io::Result<Self> {
        let socket = std::fs::metadata(path)?;
        let granted = socket.mode() & GROUP_WRITE != 0;
        Ok(Self {
            users: [0, nix::unistd::geteuid().as_raw()],
            group: granted.then_some(socket.gid()),
        })
    }

    /// Allows nobody: no process has this user id (setuid(2)).
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self {
            users: [u32::MAX; 2],
            group: None,
        }
    }

    /// Whether a peer's orders are taken.
    pub(super) fn admits(self, caller: &Caller) -> bool {
        let same_user = self.users.contains(&caller.peer.uid);
        let same_group = self
            .group
            .is_some_and(|group| caller.gid == group || caller.groups.contains(&group));
        same_user || same_group
    }

    /// Whether a peer may have another program run in the supervisor's place: what
    /// the group may do is no more than what the supervisor does anyway.
    pub(super) fn may_upgrade(self, caller: &Caller) -> bool {
        self.users.contains(&caller.peer.uid)
    }
}

/// A peer as the kernel vouches for it.
#[derive(Debug)]
pub(super) struct Caller {
    /// Its user and process.
    pub(super) peer: Peer,
    /// Where it comes from.
    pub(super) descent: Descent,
    gid: u32,
    groups: Vec<u32>,
}

impl Caller {
    /// Looks at the other end of a connection: `SO_PEERCRED`, `SO_PEERGROUPS`.
    pub(super) fn of(stream: &UnixStream, reserve: &Rc<Reserve>) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        // A peer in a pid namespace of its own has no pid here.
        let pid = credentials.pid().unwrap_or(0);
        Ok(Self {
            peer: Peer {
                uid: credentials.uid(),
                pid,
            },
            descent: Descent::of(stream, pid, reserve),
            gid: credentials.gid(),
            // Without this option the primary group alone decides.
            groups: sys::peer_groups(stream.as_fd()).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(uid: u32, gid: u32, groups: &[u32]) -> Caller {
        let (stream, _other) = UnixStream::pair().unwrap();
        Caller {
            peer: Peer { uid, pid: 1 },
            descent: Descent::of(&stream, 0, &Rc::new(Reserve::new(0).unwrap())),
            gid,
            groups: groups.to_vec(),
        }
    }

    #[tokio::test]
    async fn only_root_and_the_own_user_may_upgrade() {
        let allowed = Allowed {
            users: [0, 33],
            group: Some(7),
        };
        assert!(allowed.may_upgrade(&caller(0, 0, &[])));
        assert!(allowed.may_upgrade(&caller(33, 5, &[])));
        assert!(!allowed.may_upgrade(&caller(1000, 7, &[7])));
    }

    #[tokio::test]
    async fn root_and_the_own_user_are_always_admitted() {
        let allowed = Allowed {
            users: [0, 33],
            group: None,
        };
        assert!(allowed.admits(&caller(0, 0, &[])));
        assert!(allowed.admits(&caller(33, 5, &[])));
        assert!(!allowed.admits(&caller(34, 33, &[33])));
    }

    #[tokio::test]
    async fn the_group_is_admitted_only_where_the_socket_grants_it() {
        let granted = Allowed {
            users: [0, 33],
            group: Some(7),
        };
        assert!(granted.admits(&caller(1000, 7, &[])), "primary group");
        assert!(granted.admits(&caller(1000, 5, &[6, 7])), "supplementary");
        assert!(!granted.admits(&caller(1000, 5, &[6])));
        let refused = Allowed {
            users: [0, 33],
            group: None,
        };
        assert!(!refused.admits(&caller(1000, 7, &[7])));
    }

    #[test]
    fn the_socket_says_what_its_group_may() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let set = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        set(0o600);
        assert_eq!(Allowed::of_socket(&path).unwrap().group, None);
        set(0o660);
        let gid = std::fs::metadata(&path).unwrap().gid();
        assert_eq!(Allowed::of_socket(&path).unwrap().group, Some(gid));
    }

    #[tokio::test]
    async fn the_kernel_vouches_for_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let caller = Caller::of(&one, &Rc::new(Reserve::new(2).unwrap())).unwrap();
        assert_eq!(caller.peer.pid, std::process::id() as i32);
        assert_eq!(caller.peer.uid, nix::unistd::geteuid().as_raw());
        let mut expected: Vec<u32> = nix::unistd::getgroups()
            .unwrap()
            .iter()
            .map(|group| group.as_raw())
            .collect();
        let mut groups = caller.groups;
        expected.sort_unstable();
        groups.sort_unstable();
        assert_eq!(groups, expected);
    }
}
