//! Memory that several processes share and that keeps its size from birth, so that nobody
//! who has it mapped is ended by another's making it smaller.

use std::ffi::CStr;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

use crate::error::{Call, SystemError};
use crate::sys::{Cell, SharedCells};
use crate::system_error::refused;

/// Its size stays, and nobody adds another seal.
pub(crate) const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_SEAL);

/// Makes so many bytes, close-on-exec and all 0. They take up no more than was written to.
pub(crate) fn create(name: &CStr, bytes: u64) -> Result<OwnedFd, SystemError> {
    let memory = unsealed(name)?;
    let length = i64::try_from(bytes).expect("shared memory is small");
    ftruncate(&memory, length).map_err(refused(Call::Ftruncate))?;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(SEALS)).map_err(refused(Call::AddSeals))?;
    Ok(memory)
}

/// Makes memory that has neither a size nor seals, close-on-exec.
pub(crate) fn unsealed(name: &CStr) -> Result<OwnedFd, SystemError> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let no_exec = flags | MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    let memory = match memfd_create(name, no_exec) {
        // Linux before 6.3 does not know that memory can be made without a right to run it.
        Err(Errno::EINVAL) => memfd_create(name, flags),
        other => other,
    };
    memory.map_err(refused(Call::MemfdCreate))
}

/// The seals of a memory file; what is none has no seals to ask for.
pub(crate) fn seals(memory: &OwnedFd) -> Result<SealFlag, SystemError> {
    let bits = fcntl(memory, FcntlArg::F_GET_SEALS).map_err(refused(Call::GetSeals))?;
    Ok(SealFlag::from_bits_retain(bits))
}

/// Another descriptor of it, to hand over.
pub(crate) fn duplicate(memory: &OwnedFd) -> Result<OwnedFd, SystemError> {
    memory.try_clone().map_err(|error| {
        let errno = Errno::try_from(error).unwrap_or(Errno::UnknownErrno);
        SystemError::new(Call::Dup, errno)
    })
}

/// Memory of which is known that it keeps its size.
#[derive(Debug)]
pub(crate) struct Sealed<'a> {
    memory: &'a OwnedFd,
    /// Its size.
    pub(crate) bytes: i64,
}

/// Why memory that came from elsewhere is not to be mapped.
#[derive(Debug)]
pub(crate) enum Flaw {
    /// The kernel does not tell, for instance because it is something else.
    System(SystemError),
    /// It has only these seals.
    Seals(i32),
}

impl<'a> Sealed<'a> {
    /// Looks at memory that came from elsewhere.
    pub(crate) fn look(memory: &'a OwnedFd) -> Result<Self, Flaw> {
        let found = seals(memory).map_err(Flaw::System)?;
        if !found.contains(SEALS) {
            return Err(Flaw::Seals(found.bits()));
        }
        let size = fstat(memory).map_err(refused(Call::Fstat));
        let bytes = size.map_err(Flaw::System)?.st_size;
        Ok(Self { memory, bytes })
    }

    /// Maps all of it.
    pub(crate) fn map<C: Cell>(&self) -> Result<SharedCells<C>, SystemError> {
        let length = usize::try_from(self.bytes).ok().and_then(NonZeroUsize::new);
        let length = length.ok_or(SystemError::new(Call::Mmap, Errno::EINVAL))?;
        // SAFETY: its seals keep it from shrinking, and it is of this length.
        #[expect(unsafe_code, reason = "what it takes is what this type knows")]
        let cells = unsafe { SharedCells::map(self.memory.as_fd(), length) };
        cells.map_err(refused(Call::Mmap))
    }
}
