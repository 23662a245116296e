//! A worker in a process of its own that finds its channel in its environment
//! and speaks on it in a blocking loop.
#![allow(clippy::unwrap_used)]

use std::env;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use prefork_proto::channel::{self, Flush, Receive, SupervisorEnd, WorkerEnd};
use prefork_proto::message::{CHANNEL_FD_ENV, Message, Reply, ToSupervisor, ToWorker};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(20);

/// Starts this program again as the worker, with `fd` as its descriptor 5.
fn worker(value: &str, fd: impl Into<Stdio>) -> Command {
    let script = "exec 5<&0 </dev/null; exec \"$0\" --ignored --exact the_worker --nocapture";
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .arg(env::current_exe().unwrap())
        .env(CHANNEL_FD_ENV, value)
        .stdin(fd)
        .stdout(Stdio::piped());
    command
}

#[test]
#[ignore = "the other tests start it in a process of its own"]
fn the_worker() {
    let mut worker = match WorkerEnd::from_env() {
        Ok(Some(worker)) => worker,
        Ok(None) => return println!("alone"),
        Err(error) => return println!("refused: {error}"),
    };
    let flags = fcntl(&worker, FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags & FdFlag::FD_CLOEXEC.bits(), FdFlag::FD_CLOEXEC.bits());
    let again = WorkerEnd::from_env().unwrap_err();
    assert_eq!(again.reason(), "already_taken");

    worker.queue(&ToSupervisor::Ready).unwrap();
    loop {
        let blocked = worker.flush().unwrap() == Flush::Blocked;
        match worker.receive().unwrap() {
            Receive::Message(received) => match received.message {
                ToWorker::Ping { id } => {
                    let reply = Reply::done(id, Value::Null);
                    worker.queue(&ToSupervisor::Reply(reply)).unwrap();
                }
                other => panic!("{other:?}"),
            },
            Receive::Unknown { kind, .. } => panic!("`{kind}` is unknown"),
            Receive::Blocked => assert!(worker.wait(blocked, DEADLINE).unwrap()),
            Receive::Closed => return println!("closed"),
        }
    }
}

/// Kills the process, should a test end early.
struct Guard(Option<Child>);

impl Guard {
    fn output(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn next(supervisor: &mut SupervisorEnd) -> ToSupervisor {
    loop {
        match supervisor.receive().unwrap() {
            Receive::Message(received) => return received.message,
            Receive::Blocked => {
                assert!(supervisor.wait(false, DEADLINE).unwrap(), "it is silent");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_blocking_worker_in_another_process_answers_until_the_channel_closes() {
    const ROUNDS: u64 = 500;
    let (mut supervisor, fd) = channel::pair().unwrap();
    let child = Guard(Some(worker("5", fd).spawn().unwrap()));
    assert_eq!(next(&mut supervisor), ToSupervisor::Ready);
    for id in 0..ROUNDS {
        supervisor.queue(&ToWorker::Ping { id }).unwrap();
        supervisor.flush().unwrap();
        let reply = ToSupervisor::Reply(Reply::done(id, Value::Null));
        assert_eq!(next(&mut supervisor), reply);
    }
    let replies = ToSupervisor::KINDS.iter().position(|k| *k == "reply");
    assert_eq!(supervisor.counters().received[replies.unwrap()], ROUNDS);
    drop(supervisor);
    let output = child.output();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("closed"));
}

/// What a worker says that was started with this value and descriptor.
fn says(value: &str, fd: impl Into<Stdio>) -> String {
    let output = Guard(Some(worker(value, fd).spawn().unwrap())).output();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_variable_that_names_no_channel_is_refused_with_the_reason() {
    for value in ["", "five", "-1", "2", "5 ", "99999999999"] {
        let said = says(value, Stdio::null());
        assert!(said.contains("refused: "), "{value:?}: {said}");
        assert!(said.contains("3 or higher"), "{value:?}: {said}");
    }
    let said = says("900", Stdio::null());
    assert!(said.contains("is not open"), "{said}");
    let said = says("5", Stdio::null());
    assert!(said.contains("not a unix stream socket"), "{said}");
    let (datagram, _other) = UnixDatagram::pair().unwrap();
    let said = says("5", OwnedFd::from(datagram));
    assert!(said.contains("not a unix stream socket"), "{said}");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let said = says("5", OwnedFd::from(tcp));
    assert!(said.contains("not a unix stream socket"), "{said}");
}

#[test]
fn without_the_variable_a_program_runs_alone() {
    let mut command = worker("", Stdio::null());
    let child = Guard(Some(command.env_remove(CHANNEL_FD_ENV).spawn().unwrap()));
    let output = child.output();
    assert!(String::from_utf8_lossy(&output.stdout).contains("alone"));
}
