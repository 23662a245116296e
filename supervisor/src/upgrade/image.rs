//! The program that is to take this one's place, pinned: what passes the
//! preflight is what is executed, whatever happens to the file meanwhile.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::HANDOVER_FD_ENV;
use crate::kernel::sys::{self, Image};
use crate::kernel::trusted_path;
use crate::reactor::pin_if_elf;

/// A program that is to run in this process.
#[derive(Debug)]
pub(crate) struct NewProgram {
    path: PathBuf,
    /// `None` for a script, which the kernel hands to its interpreter by path.
    pinned: Option<OwnedFd>,
}

impl NewProgram {
    /// Pins the program at this path as it is now.
    pub(crate) fn pin(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let pinned = pin_if_elf(&path)?;
        trusted_path::check_program(&path, pinned.as_ref())?;
        Ok(Self { path, pinned })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is the very file that runs in this process already.
    pub(crate) fn runs_already(&self) -> bool {
        use std::os::unix::fs::MetadataExt;

        let identity = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.dev(), found.ino()))
        };
        let pinned = self.pinned.as_ref().map(AsRawFd::as_raw_fd);
        let ours = pinned.and_then(|fd| identity(Path::new(&format!("/proc/self/fd/{fd}"))));
        ours.is_some() && ours == identity(Path::new("/proc/self/exe"))
    }

    /// A child that runs it.
    pub(super) fn command(&self) -> Command {
        use std::os::unix::process::CommandExt;

        match &self.pinned {
            Some(pinned) => {
                // The child looks the number up before it is closed by exec.
                let mut command = Command::new(format!("/proc/self/fd/{}", pinned.as_raw_fd()));
                command.arg0(&self.path);
                command
            }
            None => Command::new(&self.path),
        }
    }

    /// Runs it in this process, with the document in `memory` and no other
    /// descriptors above 2 than those in `kept`. Returns only where that fails;
    /// nothing has changed then.
    pub(crate) fn execute(&self, memory: &OwnedFd, kept: &[RawFd]) -> io::Error {
        match self.try_execute(memory, kept) {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    fn try_execute(
        &self,
        memory: &OwnedFd,
        kept: &[RawFd],
    ) -> io::Result<std::convert::Infallible> {
        let path = CString::new(self.path.as_os_str().as_bytes())?;
        let argv = std::env::args_os().map(|word| CString::new(word.into_vec()));
        let argv: Vec<CString> = argv.collect::<Result<_, _>>()?;
        let inherited = std::env::vars_os().filter(|(name, _)| name != HANDOVER_FD_ENV);
        let mut envp = Vec::new();
        for (name, value) in inherited {
            envp.push(CString::new(
                [name.as_bytes(), b"=", value.as_bytes()].concat(),
            )?);
        }
        envp.push(CString::new(format!(
            "{HANDOVER_FD_ENV}={}",
            memory.as_raw_fd()
        ))?);
        let image = Image {
            pinned: self.pinned.as_ref().map(AsFd::as_fd),
            path: &path,
            argv: &argv,
            envp: &envp,
        };
        let kept: Vec<RawFd> = kept.iter().copied().chain([memory.as_raw_fd()]).collect();
        let failed = sys::keep_on_exec(&kept)
            .and_then(|()| sys::execute(&image))
            .map_err(io::Error::from);
        if failed.is_err() {
            sys::close_on_exec_from(3)?;
        }
        failed
    }
}
