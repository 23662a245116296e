//! Who may connect to a unix socket: the permission bits and the group of its file.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::getegid;

use super::{ListenError, Listener};
use crate::config::{Address, Listen, SOCKET_PERMISSIONS};

/// What a file is given, or had before; what is absent is left alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Access {
    permissions: Option<u32>,
    group: Option<u32>,
}

impl Access {
    /// What a file that has just been bound is still to be given.
    pub(super) fn asked_for(listen: &Listen) -> Self {
        Self {
            permissions: listen.permissions,
            group: listen.group.as_ref().map(|group| group.gid),
        }
    }

    /// What a file that an earlier run bound is to be given.
    pub(super) fn anew(listen: &Listen) -> Self {
        Self::asked_for(listen).or_usual(listen)
    }

    /// What a reload gives a file that stays. What neither generation asks for was
    /// changed by somebody else, if by anybody.
    pub(crate) fn changed(from: &Listen, to: &Listen) -> Self {
        let wanted = Self::asked_for(to);
        let usual = wanted.or_usual(to);
        let in_force = Self::asked_for(from);
        Self {
            permissions: wanted
                .permissions
                .or(in_force.permissions.and(usual.permissions)),
            group: wanted.group.or(in_force.group.and(usual.group)),
        }
    }

    fn or_usual(self, listen: &Listen) -> Self {
        Self {
            permissions: self.permissions.or(Some(SOCKET_PERMISSIONS)),
            group: self.group.or_else(|| usual_group(&listen.address)),
        }
    }

    fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// The group of a socket that is bound and given no other: as for any file
/// (inode(7), on set-group-ID directories).
fn usual_group(address: &Address) -> Option<u32> {
    let Address::Unix(path) = address else {
        return None;
    };
    let directory = fs::metadata(path.parent().unwrap_or(Path::new("/"))).ok()?;
    let inherited = directory.permissions().mode() & Mode::S_ISGID.bits() != 0;
    Some(match inherited {
        true => directory.gid(),
        false => getegid().as_raw(),
    })
}

impl Listener {
    /// Gives the file of a unix socket this access. What it had before, where that
    /// was another. Where a part of it fails, nothing has changed.
    pub(crate) fn grant(&self, access: Access) -> Result<Access, ListenError> {
        let Some(file) = self.file() else {
            return Ok(Access::default());
        };
        let failed = |step, source| ListenError::granting(self.name(), step, source);
        let mut before = Access::default();
        let group = access.group.zip(file.group());
        if let Some((wanted, had)) = group.filter(|(wanted, had)| wanted != had) {
            let given = file.set_group(wanted);
            given.map_err(|source| failed("change the group of", source))?;
            before.group = Some(had);
        }
        if let Some(wanted) = access.permissions
            && file.permissions() != Some(wanted)
        {
            let had = file.permissions();
            if let Err(source) = file.set_permissions(wanted) {
                if let Some(group) = before.group {
                    let _ = file.set_group(group);
                }
                return Err(failed("change the permissions of", source));
            }
            before.permissions = had;
        }
        Ok(before)
    }

    /// The same for one that stays, with what takes it back.
    pub(crate) fn grant_for(&self, access: Access) -> Result<Option<Access>, ListenError> {
        let before = self.grant(access)?;
        Ok(Some(before).filter(|before| !before.is_empty()))
    }
}

/// What is right instead, where a group is refused.
pub(super) fn advice(step: &str, error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied if step.contains("group") => {
            "; a socket is given to a group by root, or by a member of it"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Mode, SocketGroup};

    fn listen(permissions: Option<u32>, group: Option<u32>) -> Listen {
        Listen {
            name: "unix:/run/a".to_owned(),
            address: Address::Unix("/run/a".into()),
            mode: Mode::Shared,
            backlog: 16,
            permissions,
            group: group.map(|gid| SocketGroup {
                name: gid.to_string(),
                gid,
            }),
            ipv6_only: true,
            proxy_protocol: false,
            tls: None,
        }
    }

    #[test]
    fn what_nobody_asks_for_is_left_alone_and_what_is_no_longer_asked_for_is_as_usual() {
        let (plain, all) = (listen(None, None), listen(Some(0o600), Some(33)));
        assert!(Access::changed(&plain, &plain).is_empty());
        let wanted = Access {
            permissions: Some(0o600),
            group: Some(33),
        };
        assert_eq!(Access::changed(&plain, &all), wanted);
        let usual = Access::changed(&all, &plain);
        assert_eq!(usual.permissions, Some(SOCKET_PERMISSIONS));
        assert_eq!(usual.group, usual_group(&plain.address));
        assert!(usual.group.is_some());
        assert_eq!(Access::anew(&plain), usual);
    }
}
