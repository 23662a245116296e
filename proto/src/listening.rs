//! What may be done to a listening socket that several processes hold. Each
//! closes its own descriptor; `shutdown` would end it for everyone.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::sys;

/// The file of a unix socket, told from any that others put in its place: the
/// path leads to us only as long as it leads to this inode (unix(7)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The socket that is at the path now; to be asked when it has just been bound.
    ///
    /// # Errors
    /// Where nothing is there, or what is no socket.
    pub fn at(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        if !found.file_type().is_socket() {
            return Err(io::Error::other("what is there is no socket"));
        }
        Ok(Self {
            path: path.to_owned(),
            device: found.dev(),
            inode: found.ino(),
        })
    }

    /// Where it was bound.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its number, as long as the path leads to it.
    #[must_use]
    pub fn inode(&self) -> Option<u64> {
        self.is_there().then_some(self.inode)
    }

    /// Whether the path still leads to it.
    #[must_use]
    pub fn is_there(&self) -> bool {
        Self::at(&self.path).is_ok_and(|found| found == *self)
    }

    /// Removes the file, unless another has taken its place.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn remove(&self) -> io::Result<()> {
        match self.is_there() {
            true => fs::remove_file(&self.path),
            false => Ok(()),
        }
    }

    /// Its permission bits, as long as the path leads to it.
    #[must_use]
    pub fn permissions(&self) -> Option<u32> {
        let found = fs::symlink_metadata(&self.path).ok()?;
        self.is_there().then(|| found.permissions().mode() & 0o7777)
    }

    /// Changes its permission bits.
    ///
    /// # Errors
    /// Where another has taken its place, and as chmod(2).
    pub fn set_permissions(&self, bits: u32) -> io::Result<()> {
        self.is_ours()?;
        fs::set_permissions(&self.path, Permissions::from_mode(bits))
    }

    /// Its group, as long as the path leads to it.
    #[must_use]
    pub fn group(&self) -> Option<u32> {
        let found = fs::symlink_metadata(&self.path).ok()?;
        self.is_there().then(|| found.gid())
    }

    /// Changes its group.
    ///
    /// # Errors
    /// Where another has taken its place, and as chown(2).
    pub fn set_group(&self, group: u32) -> io::Result<()> {
        self.is_ours()?;
        lchown(&self.path, None, Some(group))
    }

    fn is_ours(&self) -> io::Result<()> {
        match self.is_there() {
            true => Ok(()),
            false => Err(io::Error::other(
                "the socket was removed, or another has taken its place",
            )),
        }
    }
}

/// Lets no new handshake begin on a TCP listener, while those that have begun
/// can end and what waits in the queue can be accepted. A client that comes now
/// tries again a second later, and by then is refused, or finds another
/// listener of the port; it is never reset.
///
/// The socket filter sees TCP headers (socket(7), `SO_ATTACH_FILTER`).
///
/// # Errors
/// ENOMEM, or EPERM where the filter is locked.
pub fn refuse_handshakes(listener: impl AsFd) -> io::Result<()> {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const JUMP_IF_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // The flags are in byte 13 of the header; SYN is 2.
    let filter = [
        instruction(LOAD_BYTE, 0, 0, 13),
        instruction(JUMP_IF_SET, 0, 1, 2),
        instruction(RETURN, 0, 0, 0),
        instruction(RETURN, 0, 0, u32::MAX),
    ];
    sys::attach_filter(listener.as_fd(), &filter)
}

/// Whether a socket filter stands between a TCP listener and its clients, whoever
/// attached it (socket(7), `SO_GET_FILTER`).
///
/// # Errors
/// As getsockopt(2).
pub fn is_filtered(listener: impl AsFd) -> io::Result<bool> {
    match sys::filter_length(listener.as_fd()) {
        Ok(length) => Ok(length > 0),
        // It is there, and not of the kind that can be read.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(true),
        Err(error) => Err(error),
    }
}

/// Has a TCP listener take no connection any more, so that those who come find
/// another listener of the port with a wider address. Handshakes that have begun
/// end, and what waits in the queue can be accepted.
///
/// The kernel looks for a listener among those of the interface that a client
/// comes by, and the socket is bound to one that does not exist.
///
/// # Errors
/// ENOPROTOOPT before Linux 5.0, and EPERM where it is bound to an interface already.
pub fn give_way(listener: impl AsFd) -> io::Result<()> {
    sys::bind_to_interface(listener.as_fd(), i32::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_has_taken_a_sockets_place_is_left_alone() {
        let dir = std::env::temp_dir().join(format!("prefork-file-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let path = dir.join("sock");
        let _first = UnixListener::bind(&path).unwrap();
        let file = SocketFile::at(&path).unwrap();
        assert!(file.is_there());
        file.set_permissions(0o600).unwrap();
        assert_eq!(file.permissions(), Some(0o600));
        let group = file.group().unwrap();
        file.set_group(group).unwrap();
        // While the first file is there, its number is taken.
        fs::rename(&path, dir.join("aside")).unwrap();
        assert!(!file.is_there());
        let _second = UnixListener::bind(&path).unwrap();
        assert!(!file.is_there());
        file.remove().unwrap();
        file.set_permissions(0o777).unwrap_err();
        file.set_group(group).unwrap_err();
        assert_eq!(file.group(), None);
        assert!(path.exists());
        let second = SocketFile::at(&path).unwrap();
        second.remove().unwrap();
        assert!(!path.exists());
        fs::write(&path, "no socket").unwrap();
        SocketFile::at(&path).unwrap_err();
        fs::remove_dir_all(&dir).unwrap();
    }
}
