//! The bundled web server can reach its root and nothing else.
//!
//! A test can't ask the server to open what it has no reason to open. So it
//! takes the process in hand as a debugger would and has it try.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::harness::deadline::{PATIENCE, eventually, eventually_some};
use crate::harness::{Pool, Prefork, http, processes};

/// A directory with a page, for a pool.
fn site(prefix: &Path, name: &str) -> String {
    let root = prefix.join(name);
    fs::create_dir_all(&root).expect("there is room");
    fs::write(root.join("page"), name).expect("there is room");
    root.to_str().expect("the path is text").to_owned()
}

fn pool(root: &str, more: &str) -> Pool {
    Pool::bundled("web", 1).set("app", format!("{{ root = {root:?}{more} }}"))
}

/// What the worker says of itself in its first report.
fn says(prefork: &Prefork) -> String {
    eventually_some("it reports", PATIENCE, || {
        Some(prefork.worker("web", 0).status).filter(|status| !status.is_empty())
    })
}

/// Whether this kernel confines a worker that wants it, as the worker says.
fn is_confined(prefork: &Prefork) -> bool {
    let status = says(prefork);
    if status.contains("not confined: ") {
        eprintln!("SKIPPED: {status}");
        return false;
    }
    assert!(status.contains("confined by Landlock "), "{status}");
    true
}

/// What open(2) says in that process, to read and then to create a file.
#[cfg(target_arch = "x86_64")]
mod hand {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::time::Instant;

    use nix::errno::Errno;
    use nix::libc::user_regs_struct;
    use nix::sys::ptrace;
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::Pid;

    use crate::harness::deadline::PATIENCE;

    /// x86-64's number of openat(2), and its `AT_FDCWD`.
    const OPENAT: u64 = 257;
    const FROM_CWD: u64 = -100_i64 as u64;
    /// What a function may use below its stack pointer.
    const RED_ZONE: u64 = 128;

    /// Has a process that waits in a system call open a file.
    pub(super) fn open(pid: i32, path: &str, flags: i32) -> Result<(), Errno> {
        let flags = u64::try_from(flags).expect("flags are positive");
        call(pid, OPENAT, path, |at| [FROM_CWD, at, flags, 0o600])
    }

    /// Has a process that waits in a system call make another one in its place, whose
    /// arguments may say where `text` is.
    pub(super) fn call(
        pid: i32,
        number: u64,
        text: &str,
        arguments: impl FnOnce(u64) -> [u64; 4],
    ) -> Result<(), Errno> {
        let pid = Pid::from_raw(pid);
        let memory = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .expect("a root can trace");
        let before = stop_behind_a_call(pid, &memory);
        let at = (before.rsp - RED_ZONE - 4096) & !15;
        let text = [text.as_bytes(), b"\0"].concat();
        memory.write_all_at(&text, at).expect("its stack is there");

        let mut call = before;
        // It stands right behind the `syscall` in which it waited.
        call.rip -= 2;
        call.rax = number;
        // No system call is to be restarted.
        call.orig_rax = u64::MAX;
        [call.rdi, call.rsi, call.rdx, call.r10] = arguments(at);
        ptrace::setregs(pid, call).expect("it is stopped");
        ptrace::step(pid, None).expect("it is stopped");
        stopped_by(pid, Signal::SIGTRAP);
        let answer = ptrace::getregs(pid)
            .expect("it is stopped")
            .rax
            .cast_signed();
        ptrace::setregs(pid, before).expect("it is stopped");
        ptrace::detach(pid, None).expect("it is stopped");
        match answer {
            0.. => Ok(()),
            errno => Err(Errno::from_raw(i32::try_from(-errno).expect("it is small"))),
        }
    }

    /// Stops a process right behind a `syscall`, which is where one stands that
    /// waits. It may be on its way between two calls: then it is let go, and
    /// stopped again.
    fn stop_behind_a_call(pid: Pid, memory: &File) -> user_regs_struct {
        const SYSCALL: [u8; 2] = [0x0f, 0x05];
        let end = Instant::now() + PATIENCE;
        loop {
            ptrace::attach(pid).expect("a root can trace");
            stopped_by(pid, Signal::SIGSTOP);
            let registers = ptrace::getregs(pid).expect("it is stopped");
            let mut behind = [0; 2];
            memory
                .read_exact_at(&mut behind, registers.rip - 2)
                .expect("its code is there");
            if behind == SYSCALL {
                return registers;
            }
            ptrace::detach(pid, None).expect("it is stopped");
            assert!(Instant::now() < end, "{pid} never waits in a call");
        }
    }

    #[track_caller]
    fn stopped_by(pid: Pid, signal: Signal) {
        let status = waitpid(pid, None).expect("it is traced");
        assert_eq!(status, WaitStatus::Stopped(pid, signal));
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn it_can_run_no_program_and_reach_no_other_process() {
    use nix::errno::Errno;
    use nix::libc;

    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can take another process in hand");
        return;
    }
    let directory = tempfile::tempdir().expect("there is room");
    let root = site(directory.path(), "root");
    let prefork = Prefork::start(&[pool(&root, "")]);
    if !is_confined(&prefork) || !says(&prefork).contains("seccomp") {
        return;
    }
    let worker = prefork.ready_pid("web", 0);
    let number = |call: libc::c_long| u64::try_from(call).expect("it is positive");
    let call = |name, text: &str, arguments: [u64; 4]| {
        hand::call(worker, number(name), text, |at| {
            arguments.map(|argument| if argument == u64::MAX { at } else { argument })
        })
    };
    let (text, supervisor) = (
        u64::MAX,
        u64::try_from(prefork.pid()).expect("it is positive"),
    );
    let denied = Err(Errno::EPERM);
    assert_eq!(call(libc::SYS_execve, "/bin/sh", [text, 0, 0, 0]), denied);
    assert_eq!(call(libc::SYS_kill, "", [supervisor, 0, 0, 0]), denied);
    assert_eq!(call(libc::SYS_ptrace, "", [16, supervisor, 0, 0]), denied);
    assert_eq!(
        call(libc::SYS_pidfd_open, "", [supervisor, 0, 0, 0]),
        denied
    );
    assert_eq!(call(libc::SYS_userfaultfd, "", [0; 4]), denied);
    assert_eq!(call(libc::SYS_io_uring_setup, "", [8, text, 0, 0]), denied);
    assert_eq!(call(libc::SYS_socket, "", [2, 1, 0, 0]), denied);
    assert_eq!(
        call(
            libc::SYS_chmod,
            &format!("{root}/page"),
            [text, 0o777, 0, 0]
        ),
        denied
    );
    let new_user = 0x1000_0000;
    assert_eq!(call(libc::SYS_clone, "", [new_user, 0, 0, 0]), denied);
    assert_eq!(call(libc::SYS_mmap, "", [0, 4096, 5, 0x22]), denied);
    assert_eq!(prefork.ready_pid("web", 0), worker, "it serves on");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn it_can_open_what_lies_in_its_root_and_nothing_else() {
    use nix::errno::Errno;
    use nix::libc::{O_CREAT, O_RDONLY, O_WRONLY};

    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can take another process in hand");
        return;
    }
    let directory = tempfile::tempdir().expect("there is room");
    let root = site(directory.path(), "root");
    let outside = site(directory.path(), "outside");
    let prefork = Prefork::start(&[pool(&root, "")]);
    if !is_confined(&prefork) {
        return;
    }
    let open = |path: &str, flags| hand::open(prefork.ready_pid("web", 0), path, flags);
    let page = format!("{root}/page");
    assert_eq!(open(&page, O_RDONLY), Ok(()));
    for denied in [
        format!("{outside}/page").as_str(),
        "/etc/passwd",
        "/proc/self/environ",
    ] {
        assert_eq!(open(denied, O_RDONLY), Err(Errno::EACCES), "{denied}");
    }
    assert_eq!(open("/dev/null", O_WRONLY), Err(Errno::EACCES));
    assert_eq!(open(&page, O_WRONLY), Err(Errno::EACCES));
    assert_eq!(
        open(&format!("{root}/new"), O_WRONLY | O_CREAT),
        Err(Errno::EACCES)
    );
    assert_eq!(
        open(&format!("{outside}/new"), O_WRONLY | O_CREAT),
        Err(Errno::EACCES)
    );

    // It is the confinement that does it.
    prefork.configure(&[pool(&root, ", confine = false")]);
    prefork.done(&["reload"]);
    let status = says(&prefork);
    assert!(
        status.ends_with("not confined: its settings say so"),
        "{status}"
    );
    let open = |path: &str, flags| hand::open(prefork.ready_pid("web", 0), path, flags);
    assert_eq!(open("/etc/passwd", O_RDONLY), Ok(()));
    // And it goes on after that.
    let answer = http::get(prefork.address("web"), "/page").expect("it serves");
    assert_eq!(answer.body, "root");
}

#[test]
fn another_root_takes_another_process_where_it_is_confined() {
    let directory = tempfile::tempdir().expect("there is room");
    let [one, two] = ["one", "two"].map(|name| site(directory.path(), name));
    let prefork = Prefork::start(&[pool(&one, "")]);
    if !is_confined(&prefork) {
        return;
    }
    let serves = |what: &str| {
        let answer = http::get(prefork.address("web"), "/page").expect("it serves");
        assert_eq!(answer.body, what);
    };
    serves("one");
    let first = prefork.ready_pid("web", 0);
    prefork.configure(&[pool(&two, "")]);
    prefork.done(&["reload"]);
    let second = prefork.ready_pid("web", 0);
    assert_ne!(second, first);
    serves("two");
    // It goes, and comes back: as seen from here each is another process.
    prefork.configure(&[pool(&two, ", confine = false")]);
    prefork.done(&["reload"]);
    let third = prefork.ready_pid("web", 0);
    assert_ne!(third, second);
    // One that is not confined takes another root as it is.
    prefork.configure(&[pool(&one, ", confine = false")]);
    prefork.done(&["reload"]);
    assert_eq!(prefork.ready_pid("web", 0), third);
    serves("one");
}

#[test]
fn it_outlives_its_supervisor_and_takes_part_in_all_that_follows() {
    let directory = tempfile::tempdir().expect("there is room");
    let root = site(directory.path(), "root");
    let mut prefork = Prefork::start(&[pool(&root, "")]);
    if !is_confined(&prefork) {
        return;
    }
    let address = prefork.address("web");
    let serves = || {
        let answer = http::get(address, "/page").expect("it serves");
        assert_eq!(answer.body, "root");
    };
    let pid = prefork.ready_pid("web", 0);
    serves();
    // Its listener is in the epoll exclusively, after a pause, too.
    assert!(is_exclusive(pid));
    prefork.done(&["pause", "web/0"]);
    prefork.done(&["resume", "web/0"]);
    eventually("the listener is watched", PATIENCE, || is_exclusive(pid));

    prefork.done(&["upgrade"]);
    assert_eq!(prefork.ready_pid("web", 0), pid);
    serves();

    prefork.scrape();
    prefork.signal(Signal::SIGKILL);
    prefork.ended();
    serves();
    prefork.start_again();
    prefork.wait_until_ready();
    assert_eq!(prefork.ready_pid("web", 0), pid);
    serves();
    prefork.done(&["stop"]);
    eventually("it has left", PATIENCE, || !processes::alive(pid));
}

/// Whether one of its epolls wakes it exclusively (`EPOLLEXCLUSIVE`).
fn is_exclusive(pid: i32) -> bool {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it lives");
    entries.flatten().any(|entry| {
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        info.contains("events: 90000019")
    })
}

/// A thread on which, and in whose children, the kernel confines nobody any further.
fn where_nobody_can_be_confined<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    use landlock::{AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus};

    let layers = || {
        // The kernel has room for so many, each of which forbids nothing that is done here.
        for _ in 0..16 {
            let rules = Ruleset::default()
                .handle_access(AccessFs::MakeBlock)
                .and_then(Ruleset::create)
                .and_then(|rules| rules.no_new_privs(true).restrict_self());
            if rules.is_ok_and(|it| it.ruleset == RulesetStatus::NotEnforced) {
                break;
            }
        }
        test()
    };
    std::thread::scope(|scope| scope.spawn(layers).join().expect("no panic"))
}

#[test]
fn what_cannot_be_confined_serves_and_says_so_or_does_not_come_up() {
    let dir = crate::harness::directory();
    let root = site(dir.path(), "root");
    where_nobody_can_be_confined(|| {
        let prefork = Prefork::start(&[pool(&root, "")]);
        let status = says(&prefork);
        assert!(status.contains("not confined: "), "{status}");
        prefork.configure(&[pool(&root, ", confine = \"required\"")]);
        let refused = prefork.cli(&["reload"]);
        assert_eq!(refused.code, 1, "{refused:?}");
        let why = "`confine = \"required\"`, and ";
        assert!(refused.stderr.contains(why), "{refused:?}");
        assert_eq!(
            http::get(prefork.address("web"), "/page")
                .expect("as before")
                .body,
            "root"
        );
    });
}

#[test]
fn what_is_to_be_confined_in_any_case_comes_up_where_it_can_be() {
    let dir = crate::harness::directory();
    let root = site(dir.path(), "root");
    let prefork = Prefork::start(&[pool(&root, "")]);
    if !is_confined(&prefork) {
        return;
    }
    prefork.configure(&[pool(&root, ", confine = \"required\"")]);
    prefork.done(&["reload"]);
    assert!(is_confined(&prefork));
}
