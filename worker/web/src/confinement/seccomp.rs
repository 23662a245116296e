//! The system calls that a web server never makes, denied for good by a seccomp(2)
//! filter. Landlock knows files and ports; this knows the rest: programs, other
//! processes, sockets of other kinds, namespaces, keys, owners and permissions.
//!
//! Calls are denied by name and not allowed by name: a library that makes another call
//! after its next version must not end the server. What is denied says EPERM.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
    SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO, c_int, c_long, sock_filter,
};

use super::Reach;
use crate::sys;

/// `AUDIT_ARCH_…` of linux/audit.h: whose numbers these are.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: Option<u32> = None;

/// On x86-64, numbers from here on are those of another calling convention (x32).
const X32: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`; of an argument, its lower half.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// The bits of a socket's type that say what it is; the others are flags.
const TYPE_MASK: u32 = 0xf;

/// Every namespace that clone(2) can begin.
const NEW_NAMESPACES: c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Linux 6.6; the same on every architecture, and not named on each.
const FCHMODAT2: c_long = 452;

/// What is denied whatever its arguments are.
const DENIED: &[c_long] = &[
    // Another program.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Another process, its memory, its descriptors.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    // What the kernel's own flaws are reached by.
    libc::SYS_userfaultfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // A socket of its own for others to find.
    libc::SYS_bind,
    // Another view of the file system.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    // Owners, permissions and attributes, which Landlock leaves alone.
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_utimensat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
    // Other rights.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_personality,
    // Memory and queues shared with others by name.
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_msgctl,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_semget,
    libc::SYS_semctl,
    libc::SYS_semop,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // The machine.
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_quotactl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Puts the filter in force for this thread and those that it starts later.
///
/// # Errors
/// Why there is none: the architecture is not known here, or what the kernel says.
pub(super) fn install(reach: Reach) -> Result<(), String> {
    let Some(architecture) = ARCHITECTURE else {
        return Err("the numbers of this architecture's system calls are not known".to_owned());
    };
    let program = program(architecture, std::process::id(), reach);
    sys::filter_system_calls(&program).map_err(|error| error.to_string())
}

/// The filter of the process `pid`.
fn program(architecture: u32, pid: u32, reach: Reach) -> Vec<sock_filter> {
    let mut code = vec![
        load(ARCH),
        if_equal(architecture, 1, 0),
        refuse(libc::EPERM),
        load(NUMBER),
        // No number of x86-64 or aarch64 itself is that large.
        if_at_least(X32, 0, 1),
        refuse(libc::EPERM),
    ];
    let mut only = |call: c_long, checks: &[sock_filter]| {
        let beyond = u8::try_from(checks.len() + 1).expect("a handful of checks");
        code.push(if_equal(number(call), 0, beyond));
        code.extend_from_slice(checks);
        // The number is no longer loaded, so that each ends here.
        code.push(allow());
    };
    // What clone3 wants is in memory, where a filter doesn't see it; without it the C
    // library uses clone.
    only(libc::SYS_clone3, &[refuse(libc::ENOSYS)]);
    only(
        libc::SYS_clone,
        &[
            load(argument(0)),
            if_any(NEW_NAMESPACES.cast_unsigned(), 0, 1),
            refuse(libc::EPERM),
        ],
    );
    // Signals to itself, as abort(3) sends one.
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        only(
            call,
            &[load(argument(0)), if_equal(pid, 1, 0), refuse(libc::EPERM)],
        );
    }
    only(
        libc::SYS_prlimit64,
        &[
            load(argument(0)),
            if_equal(0, 2, 0),
            if_equal(pid, 1, 0),
            refuse(libc::EPERM),
        ],
    );
    // The way to the next supervisor is a unix stream, and to the pools that are
    // forwarded to one of that kind or of TCP; there is no other socket to make.
    let other = match reach {
        Reach::Supervisor => libc::AF_UNIX,
        Reach::Pools => libc::AF_INET,
    };
    only(
        libc::SYS_socket,
        &[
            load(argument(0)),
            if_equal(libc::AF_UNIX.cast_unsigned(), 1, 0),
            if_equal(other.cast_unsigned(), 0, 3),
            load(argument(1)),
            and(TYPE_MASK),
            if_equal(libc::SOCK_STREAM.cast_unsigned(), 1, 0),
            refuse(libc::EPERM),
        ],
    );
    // No memory that is written to becomes code, nor does a file.
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        only(
            call,
            &[
                load(argument(2)),
                if_any(libc::PROT_EXEC.cast_unsigned(), 0, 1),
                refuse(libc::EPERM),
            ],
        );
    }
    for call in DENIED {
        code.extend([if_equal(number(*call), 0, 1), refuse(libc::EPERM)]);
    }
    code.push(allow());
    code
}

fn number(call: c_long) -> u32 {
    u32::try_from(call).expect("system calls have small numbers")
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, offset)
}

fn and(mask: u32) -> sock_filter {
    instruction(BPF_ALU | BPF_AND | BPF_K, 0, 0, mask)
}

/// Skips `then` instructions where what is loaded is this, and `otherwise` where not.
fn if_equal(value: u32, then: u8, otherwise: u8) -> sock_filter {
    instruction(BPF_JMP | BPF_JEQ | BPF_K, then, otherwise, value)
}

fn if_at_least(value: u32, then: u8, otherwise: u8) -> sock_filter {
    instruction(BPF_JMP | BPF_JGE | BPF_K, then, otherwise, value)
}

fn if_any(bits: u32, then: u8, otherwise: u8) -> sock_filter {
    instruction(BPF_JMP | BPF_JSET | BPF_K, then, otherwise, bits)
}

fn allow() -> sock_filter {
    instruction(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW)
}

fn refuse(errno: c_int) -> sock_filter {
    let errno = SECCOMP_RET_ERRNO | errno.cast_unsigned();
    instruction(BPF_RET | BPF_K, 0, 0, errno)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    let code = u16::try_from(code).expect("codes have 16 bits");
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind};
    use std::net::UdpSocket;
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::process::Command;
    use std::thread;

    use super::*;

    /// What a thread does under the filter.
    fn filtered<T: Send + 'static>(
        reach: Reach,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let worked = thread::spawn(move || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            install(reach).map(|()| work())
        });
        worked
            .join()
            .unwrap()
            .inspect_err(|why| eprintln!("SKIPPED: {why}"))
            .ok()
    }

    #[test]
    fn a_server_can_do_what_it_does() {
        let directory = tempfile::tempdir().unwrap();
        let door = directory.path().join("door");
        let listener = std::os::unix::net::UnixListener::bind(&door).unwrap();
        let Some(read) = filtered(Reach::Supervisor, move || {
            UnixStream::connect(&door).unwrap();
            let here = std::process::id().cast_signed();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(here), None).unwrap();
            thread::spawn(|| std::fs::read("/proc/self/status").unwrap().len())
                .join()
                .unwrap()
        }) else {
            return;
        };
        assert!(read > 0);
        listener.accept().unwrap();
    }

    #[test]
    fn it_starts_no_program_makes_no_other_socket_and_leaves_others_alone() {
        let parent = nix::unistd::Pid::parent();
        let denied = |result: io::Result<()>| result.unwrap_err().kind();
        let Some(answers) = filtered(Reach::Supervisor, move || {
            [
                denied(Command::new("/bin/true").status().map(drop)),
                denied(UdpSocket::bind("127.0.0.1:0").map(drop)),
                denied(UnixDatagram::unbound().map(drop)),
                denied(nix::sys::signal::kill(parent, None).map_err(Into::into)),
                denied(std::fs::set_permissions(
                    "/proc/self/comm",
                    std::fs::metadata("/proc/self/comm").unwrap().permissions(),
                )),
            ]
        }) else {
            return;
        };
        assert_eq!(answers, [ErrorKind::PermissionDenied; 5]);
    }
}
