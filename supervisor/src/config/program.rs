//! What workers run and as whom: programs and users that exist.

use std::env;
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Group, User, access, getgrouplist};

use super::checked::RunAs;
use super::error::Fault;
use super::host::Host;

/// The absolute path of a program: one with a slash starts at the host's
/// directory, a bare name is looked for in the search path.
pub(super) fn find(name: &str, host: &Host) -> Result<PathBuf, Fault> {
    if name.is_empty() || name.contains('\0') {
        return Err(Fault::new("the program's name is empty or contains a NUL"));
    }
    if name.contains('/') {
        let path = host.resolve(Path::new(name));
        return match executable(&path) {
            Ok(()) => Ok(path),
            Err(why) => Err(Fault::new(format!("{}: {why}", path.display()))),
        };
    }
    env::split_paths(&host.search_path)
        .map(|directory| host.resolve(&directory.join(name)))
        .find(|path| executable(path).is_ok())
        .ok_or_else(|| {
            Fault::new(format!("no program `{name}` in PATH")).help(format!(
                "a program beside the configuration is written \"./{name}\""
            ))
        })
}

fn executable(path: &Path) -> Result<(), String> {
    let metadata = path.metadata().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        _ => error.to_string(),
    })?;
    if !metadata.is_file() {
        return Err("not a file".to_owned());
    }
    access(path, AccessFlags::X_OK).map_err(|_| "not executable".to_owned())
}

/// A user of this machine with its primary group.
pub(super) fn user(name: &str, host: &Host) -> Result<User, Fault> {
    if !host.root {
        return Err(
            Fault::new("only root can run workers as another user, and this is not root")
                .help("leave `user` out, or start prefork as root"),
        );
    }
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(Fault::new(format!(
            "there is no user \"{}\"",
            name.escape_debug()
        ))),
        Err(errno) => Err(Fault::new(format!(
            "cannot look up the user \"{name}\": {errno}"
        ))),
    }
}

/// A group of this machine.
pub(super) fn group(name: &str) -> Result<Group, Fault> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group),
        Ok(None) => Err(Fault::new(format!(
            "there is no group \"{}\"",
            name.escape_debug()
        ))),
        Err(errno) => Err(Fault::new(format!(
            "cannot look up the group \"{name}\": {errno}"
        ))),
    }
}

/// The user with all of its groups; `group` goes before its primary one.
pub(super) fn run_as(user: User, group: Option<Group>) -> Result<RunAs, Fault> {
    let gid = group.map_or(user.gid, |group| group.gid);
    let fault = |why: &dyn std::fmt::Display| {
        Fault::new(format!(
            "cannot look up the groups of \"{}\": {why}",
            user.name
        ))
    };
    let name = CString::new(user.name.as_str()).map_err(|error| fault(&error))?;
    let groups = getgrouplist(&name, gid).map_err(|error| fault(&error))?;
    Ok(RunAs {
        uid: user.uid.as_raw(),
        gid: gid.as_raw(),
        groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        user: user.name,
    })
}
