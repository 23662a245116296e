//! Where a peer comes from: the processes above it and their sessions, as far as the
//! kernel tells. A worker and whatever it has started give no orders, whoever they
//! run as.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, getsid};
use tokio::net::UnixStream;

use crate::handle::Member;
use crate::kernel::fd_reserve::{Reserve, is_exhausted};
use crate::kernel::{procfs, sys};

/// A longer row of ancestors is cut off: nobody has it by accident.
const LONGEST: usize = 256;

/// How often the row is read that changes under the eyes of the reader.
const MOST_LOOKS: usize = 8;

/// A process in the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    pid: i32,
    start_ticks: u64,
    session: i32,
}

/// A peer and its ancestors, nearest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Row(Vec<Link>);

/// A peer's process, of which can be said at any time where it comes from.
#[derive(Debug)]
pub(super) struct Descent {
    pid: i32,
    /// As it was when it came: a process may lose its parent afterwards.
    first: Result<Row, Unknown>,
}

/// Its row could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unknown;

impl Descent {
    /// Looks at whoever has just connected. `pid` is 0 for one that is in no
    /// process id namespace below this one: that is no descendant.
    pub(super) fn of(stream: &UnixStream, pid: i32, reserve: &Rc<Reserve>) -> Self {
        let first = match pid {
            0 => Ok(Row::default()),
            _ => with(reserve, || connected(stream, pid)),
        };
        Self {
            pid,
            first: first.map_err(|_| Unknown),
        }
    }

    /// Whether it is one of these or comes from one of them, or did when it
    /// connected. Who was gone before anybody could look is taken for one.
    pub(super) fn is_of(&self, workers: &[Member], reserve: &Rc<Reserve>) -> bool {
        let us = Pid::this().as_raw();
        let Ok(first) = &self.first else {
            return true;
        };
        if first.is_of(us, workers) {
            return true;
        }
        if self.pid == 0 {
            return false;
        }
        // By now it may have gone: then what it was counts.
        match with(reserve, || steady(self.pid)) {
            Ok(now) => now.is_the_same(first) && now.is_of(us, workers),
            Err(error) => is_exhausted(&error),
        }
    }
}

/// Whoever connected, as long as it is there.
fn connected(stream: &UnixStream, pid: i32) -> io::Result<Row> {
    let row = steady(pid)?;
    let pidfd = match sys::peer_pidfd(stream.as_fd()) {
        Err(Errno::ENOPROTOOPT) => sys::pidfd_open(Pid::from_raw(pid))?,
        pidfd => pidfd?,
    };
    // One that lives still was there when its row was read.
    if has_ended(&pidfd) {
        return Err(Errno::ESRCH.into());
    }
    Ok(row)
}

/// The row as it is now, read until nothing changed meanwhile.
fn steady(pid: i32) -> io::Result<Row> {
    let mut before = None;
    for _ in 0..MOST_LOOKS {
        let row = row(pid)?;
        if before.as_ref() == Some(&row) {
            return Ok(row);
        }
        before = Some(row);
    }
    Err(Errno::EAGAIN.into())
}

/// Looks by the reserve's descriptors where there are no others.
fn with<T>(reserve: &Rc<Reserve>, look: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match look() {
        Err(error) if is_exhausted(&error) => {
            let _loan = reserve.lend();
            look()
        }
        looked => looked,
    }
}

impl Row {
    /// Whether both are of one process, which its number alone does not say.
    fn is_the_same(&self, other: &Self) -> bool {
        let which = |row: &Self| row.0.first().map(|link| (link.pid, link.start_ticks));
        which(self) == which(other)
    }

    /// `us` as an ancestor makes a descendant: the supervisor starts nothing but
    /// workers and what belongs to them, and is given what they leave behind.
    fn is_of(&self, us: i32, workers: &[Member]) -> bool {
        let above = self.0.iter().skip(1);
        let is_ours = above.clone().any(|link| link.pid == us);
        let is_worker = |link: &Link| {
            workers.iter().any(|worker| {
                (worker.pid, worker.start_ticks) == (link.pid, link.start_ticks)
                    || worker.pid == link.session
            })
        };
        is_ours || self.0.iter().any(is_worker)
    }
}

fn row(pid: i32) -> io::Result<Row> {
    let mut links = Vec::new();
    let mut next = pid;
    while next > 0 && links.len() < LONGEST {
        match procfs::stat(Pid::from_raw(next)) {
            Ok(stat) => {
                links.push(Link {
                    pid: next,
                    start_ticks: stat.start_ticks,
                    session: stat.session,
                });
                next = stat.parent;
            }
            // Where /proc hides the processes of others, one that is there is another
            // user's: none that was started here. Its session is told all the same.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let session = getsid(Some(Pid::from_raw(next)))?;
                links.push(Link {
                    pid: next,
                    start_ticks: 0,
                    session: session.as_raw(),
                });
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Row(links))
}

/// Whether the pidfd's process has ended: it is readable then (pidfd_open(2)).
fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut ready = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    !matches!(poll(&mut ready, PollTimeout::ZERO), Ok(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: i32 = 10;

    fn link(pid: i32, session: i32) -> Link {
        Link {
            pid,
            start_ticks: 100 + pid.unsigned_abs() as u64,
            session,
        }
    }

    fn is_of(row: &[Link]) -> bool {
        let worker = Member {
            pid: 20,
            start_ticks: 120,
        };
        Row(row.to_vec()).is_of(US, &[worker])
    }

    #[test]
    fn a_worker_is_known_by_itself_its_ancestors_and_its_session() {
        assert!(is_of(&[link(20, 20), link(1, 1)]), "itself, adopted");
        assert!(is_of(&[link(30, 30), link(20, 20), link(1, 1)]), "a child");
        assert!(is_of(&[link(31, 20), link(1, 1)]), "left, in its session");
        assert!(
            is_of(&[link(32, 32), link(US, 5), link(1, 1)]),
            "given to us"
        );
        assert!(!is_of(&[link(40, 40), link(1, 1)]), "an operator");
        assert!(!is_of(&[link(US, 5), link(1, 1)]), "the supervisor");
        assert!(!is_of(&[]), "another container");
    }

    #[test]
    fn a_number_that_is_used_again_is_not_the_worker() {
        let another = Link {
            start_ticks: 7000,
            ..link(20, 5)
        };
        assert!(!is_of(&[another, link(1, 1)]));
    }

    #[test]
    fn the_row_of_this_process_ends_at_the_first_one() {
        let row = row(Pid::this().as_raw()).unwrap();
        assert_eq!(row.0[0].pid, Pid::this().as_raw());
        assert_eq!(row.0[1].pid, Pid::parent().as_raw());
    }

    #[tokio::test]
    async fn who_has_gone_before_it_was_seen_is_taken_for_a_worker() {
        let reserve = Rc::new(Reserve::new(2).unwrap());
        let (one, _other) = UnixStream::pair().unwrap();
        let here = Descent::of(&one, Pid::this().as_raw(), &reserve);
        assert!(!here.is_of(&[], &reserve));
        let gone = Descent {
            first: Err(Unknown),
            ..here
        };
        assert!(gone.is_of(&[], &reserve));
    }
}
