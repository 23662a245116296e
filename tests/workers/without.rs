//! Becomes another program, from which a filter keeps system calls (seccomp(2)), as a
//! sandbox does: `without ACTION NUMBER[,NUMBER…] PROGRAM ARGS…`. The action is an errno that
//! the calls give, or `kill` where they end whoever makes them.

#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Where `struct seccomp_data` has the call's number.
const NUMBER_AT: u32 = 0;

fn main() {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().expect("ACTION NUMBERS PROGRAM");
    let (action, numbers, program) = (next(), next(), next());
    let action = match action.as_str() {
        "kill" => libc::SECCOMP_RET_KILL_PROCESS,
        errno => libc::SECCOMP_RET_ERRNO | errno.parse::<u32>().expect("an errno"),
    };
    let numbers = numbers.split(',');
    let numbers: Vec<u32> = numbers.map(|it| it.parse().expect("a number")).collect();
    refuse(&numbers, action);
    let error = Command::new(program).args(args).exec();
    panic!("cannot execute it: {error}");
}

/// Keeps these calls from this process, and from what it becomes, for good.
fn refuse(numbers: &[u32], action: u32) {
    let statement = |code: u32, k| libc::sock_filter {
        code: u16::try_from(code).expect("codes are small"),
        jt: 0,
        jf: 0,
        k,
    };
    let answer = |k| statement(libc::BPF_RET | libc::BPF_K, k);
    let mut filter = vec![statement(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        NUMBER_AT,
    )];
    for number in numbers {
        let is_it = statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *number);
        filter.push(libc::sock_filter { jf: 1, ..is_it });
        filter.push(answer(action));
    }
    filter.push(answer(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).expect("it is short"),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: takes numbers only.
    let alone = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(alone, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the program points to instructions that live through the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const program,
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}
