//! What workers run and as whom: programs and users that exist.

use std::env;
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Gid, Group, Uid, User, access, getgrouplist};
use toml::de::DeValue;

use super::checked::{RunAs, SocketGroup};
use super::error::Fault;
use super::host::Host;
use super::section::{integer, string};

/// The highest id of a user or group.
const MOST_ID: u64 = u32::MAX as u64 - 1;

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

/// Whom workers may run as: a user of this machine, or just a number.
#[derive(Debug)]
pub(super) enum Who {
    /// One that the machine knows.
    Known(User),
    /// An id without a name, as containers have them.
    Number(Uid),
}

/// A user by its name, or by its number.
pub(super) fn user(value: &DeValue<'_>, host: &Host) -> Result<Who, Fault> {
    let name = name_or_number(value, "a user's name such as \"www-data\", or its number")?;
    if !host.root {
        return Err(
            Fault::new("only root can run workers as another user, and this is not root")
                .help("leave `user` out, or start prefork as root"),
        );
    }
    let failed = |errno| Fault::new(format!("cannot look up the user \"{name}\": {errno}"));
    if let Some(user) = User::from_name(&name).map_err(failed)? {
        return Ok(Who::Known(user));
    }
    let Some(number) = number(&name) else {
        let name = name.escape_debug();
        return Err(Fault::new(format!("there is no user \"{name}\"")));
    };
    let uid = Uid::from_raw(number);
    let known = User::from_uid(uid).map_err(failed)?;
    Ok(known.map_or(Who::Number(uid), Who::Known))
}

/// A group by its name, or by its number.
pub(super) fn group(value: &DeValue<'_>) -> Result<Gid, Fault> {
    let group = named_group(value)?;
    Ok(Gid::from_raw(group.gid))
}

/// The same with what it is called.
pub(super) fn named_group(value: &DeValue<'_>) -> Result<SocketGroup, Fault> {
    let name = name_or_number(value, "a group's name such as \"www-data\", or its number")?;
    let gid = look_up_group(&name)?.as_raw();
    Ok(SocketGroup { name, gid })
}

fn look_up_group(name: &str) -> Result<Gid, Fault> {
    let failed = |errno| Fault::new(format!("cannot look up the group \"{name}\": {errno}"));
    if let Some(group) = Group::from_name(name).map_err(failed)? {
        return Ok(group.gid);
    }
    let number = number(name).map(Gid::from_raw);
    number.ok_or_else(|| Fault::new(format!("there is no group \"{}\"", name.escape_debug())))
}

/// `"www-data"`, `"33"` or `33`.
fn name_or_number(value: &DeValue<'_>, what: &str) -> Result<String, Fault> {
    match value {
        DeValue::Integer(_) => Ok(integer(value, &(0..=MOST_ID))?.to_string()),
        _ => Ok(string(value, what)?.to_owned()),
    }
}

/// An id as it is written: the kernel's last one, -1, means "none".
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| digits);
    number.filter(|number| u64::from(*number) <= MOST_ID)
}

/// The user with all of its groups; `group` goes before its primary one.
pub(super) fn run_as(who: Who, group: Option<Gid>) -> Result<RunAs, Fault> {
    let user = match who {
        Who::Known(user) => user,
        Who::Number(uid) => return nameless(uid, group),
    };
    let gid = group.unwrap_or(user.gid);
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
        groups: groups.into_iter().map(Gid::as_raw).collect(),
        user: user.name,
        home: Some(user.dir),
        shell: Some(user.shell).filter(|shell| !shell.as_os_str().is_empty()),
    })
}

/// A user that is a number and no more; nobody but the file can say its group.
fn nameless(uid: Uid, group: Option<Gid>) -> Result<RunAs, Fault> {
    let Some(gid) = group else {
        let fault = format!("no user has the number {uid} here, so its group is not known");
        return Err(Fault::new(fault).help(format!("add group = {uid}")));
    };
    Ok(RunAs {
        user: uid.to_string(),
        uid: uid.as_raw(),
        gid: gid.as_raw(),
        groups: vec![gid.as_raw()],
        home: None,
        shell: None,
    })
}
