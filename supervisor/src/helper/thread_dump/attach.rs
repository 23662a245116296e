//! Stopping a thread for a moment (ptrace(2), `PTRACE_SEIZE`) to copy its registers and its
//! stack. It goes on as soon as that is done, and is unwound from the copy.

use std::io::IoSliceMut;
use std::time::{Duration, Instant};

use framehop::{CacheNative, FrameAddress, UnwindRegsNative, Unwinder, UnwinderNative};
use nix::errno::Errno;
use nix::libc::user_regs_struct;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use prefork_api::ThreadStack;

use super::mappings::{self, Code};

/// As much of a stack is copied.
const MOST_STACK: u64 = 256 << 10;

/// As many frames are unwound.
const MOST_FRAMES: usize = 64;

/// How long a thread may take to stop. It does so at once, unless it waits for a device.
const STOPPING: Duration = Duration::from_millis(100);

/// A thread's stack, copied.
pub(super) struct Stack {
    /// Whose it is, by its place among the threads.
    pub(super) thread: usize,
    /// What it executes.
    pub(super) code: Code,
    registers: Registers,
    stack: Vec<u8>,
}

/// What unwinding begins with.
struct Registers {
    ip: u64,
    sp: u64,
    unwind: UnwindRegsNative,
}

/// Copies the stack of a process's first thread; if not, says why.
pub(super) fn stack(thread: usize, of: &ThreadStack) -> Result<Stack, String> {
    if of.state == "D" {
        return Err("it waits in the kernel and cannot be stopped".to_owned());
    }
    let pid = Pid::from_raw(of.tid);
    let stopped = Stopped::stop(pid)?;
    let registers = ptrace::getregs(pid).map_err(|errno| format!("its registers: {errno}"))?;
    let registers = Registers::of(&registers);
    let mappings = mappings::of(of.pid).map_err(|error| format!("what it has mapped: {error}"))?;
    let end = mappings::end_of(&mappings, registers.sp);
    let length = end.saturating_sub(registers.sp).min(MOST_STACK);
    let stack = copy(pid, registers.sp, length).map_err(|errno| format!("its stack: {errno}"));
    drop(stopped);
    Ok(Stack {
        thread,
        code: Code::open(of.pid, mappings),
        registers,
        stack: stack?,
    })
}

fn copy(pid: Pid, from: u64, length: u64) -> nix::Result<Vec<u8>> {
    let length = usize::try_from(length).unwrap_or_default();
    let mut bytes = vec![0; length];
    let base = usize::try_from(from).unwrap_or_default();
    let remote = [RemoteIoVec { base, len: length }];
    let read = process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &remote)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// A thread that stands still until this is dropped.
struct Stopped {
    pid: Pid,
    /// What came to it while it was being stopped, and is still to come.
    signal: Option<Signal>,
}

impl Stopped {
    fn stop(pid: Pid) -> Result<Self, String> {
        ptrace::seize(pid, ptrace::Options::empty()).map_err(why_not)?;
        // Where this ends early, so does this process before long, and lets go of it.
        let mut stopped = Self { pid, signal: None };
        ptrace::interrupt(pid).map_err(why_not)?;
        let until = Instant::now() + STOPPING;
        loop {
            match waitpid(pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::PtraceEvent(..)) => return Ok(stopped),
                Ok(WaitStatus::Stopped(_, signal)) => {
                    stopped.signal = Some(signal);
                    return Ok(stopped);
                }
                Ok(WaitStatus::StillAlive) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(WaitStatus::StillAlive) => return Err("it does not stop".to_owned()),
                Ok(_) => return Err("it has ended".to_owned()),
                Err(errno) => return Err(format!("waiting for it to stop: {errno}")),
            }
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Gone, or it never stopped: it is let go of with this process.
        let _ = ptrace::detach(self.pid, self.signal);
    }
}

/// Why a process may not be traced.
fn why_not(errno: Errno) -> String {
    match errno {
        Errno::EPERM => "tracing it is not permitted (ptrace: EPERM): it runs as another user, \
                         another process traces it, or kernel.yama.ptrace_scope or a seccomp \
                         filter forbids it; CAP_SYS_PTRACE in the supervisor lets it be traced"
            .to_owned(),
        Errno::ESRCH => "it has ended".to_owned(),
        Errno::ENOSYS => "this kernel or its seccomp filter has no ptrace".to_owned(),
        errno => format!("it cannot be traced: {errno}"),
    }
}

impl Registers {
    #[cfg(target_arch = "x86_64")]
    fn of(registers: &user_regs_struct) -> Self {
        let (ip, sp) = (registers.rip, registers.rsp);
        Self {
            ip,
            sp,
            unwind: UnwindRegsNative::new(ip, sp, registers.rbp),
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn of(registers: &user_regs_struct) -> Self {
        let (ip, sp) = (registers.pc, registers.sp);
        let [.., frame, link] = registers.regs;
        // User addresses have 48 bits; above them are those that authenticate a pointer.
        let mask = framehop::aarch64::PtrAuthMask::from_max_known_address((1 << 48) - 1);
        Self {
            ip,
            sp,
            unwind: UnwindRegsNative::new_with_ptr_auth_mask(mask, link, sp, frame),
        }
    }
}

impl Stack {
    /// The addresses of the functions' code, the innermost first. Each is one within the
    /// instruction that was executed, or that called the one before.
    pub(super) fn unwind(&self) -> Vec<u64> {
        let mut unwinder = UnwinderNative::new();
        for module in self.code.unwind_modules() {
            unwinder.add_module(module);
        }
        let mut cache: CacheNative<_> = CacheNative::new();
        let mut read = |address: u64| self.word(address).ok_or(());
        let Registers { ip, unwind, .. } = &self.registers;
        let mut frames = unwinder.iter_frames(*ip, *unwind, &mut cache, &mut read);
        let mut addresses = Vec::new();
        while let (Ok(Some(frame)), true) = (frames.next(), addresses.len() < MOST_FRAMES) {
            addresses.push(match frame {
                FrameAddress::InstructionPointer(address) => address,
                FrameAddress::ReturnAddress(_) => frame.address_for_lookup(),
            });
        }
        addresses
    }

    fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.registers.sp)?).ok()?;
        let bytes = self.stack.get(at..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*bytes))
    }
}
