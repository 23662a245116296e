//! Tells when a connection waits on a listener that other processes accept
//! from, too.
//!
//! A runtime watches a socket so that every process is woken by every
//! connection, of which one gets it: as many wake-ups as there are workers,
//! and the same few workers are always the fastest. The kernel can wake a
//! single process (`EPOLLEXCLUSIVE`, epoll_ctl(2)), and wakes the next one
//! where that one is busy or stopped, but only if the socket is in the very
//! epoll that the process sleeps in. An epoll within that epoll does not do:
//! everyone is woken again. Nor does a thread that sleeps in one of its own:
//! it wakes up instead of the other workers, and is not busy when they are.
//!
//! So the runtime registers the listener in its epoll, as any socket, and here
//! that registration is replaced by an exclusive one with the same token. It
//! is replaced again whenever a connection was taken, which puts this process
//! last in the row. Where the runtime's registration can't be found, it stays
//! as it is: all works, with more wake-ups.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::stat::fstat;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use crate::runtime::timer::Timer;
use crate::sys;

/// How long a connection may wait unseen: one of which a worker alone was told
/// that hung or was killed before it took it.
const LOOK: Duration = Duration::from_secs(1);

/// Watches a listener; does so no more when dropped.
#[derive(Debug)]
pub(crate) struct Arrivals<'a> {
    watch: AsyncFd<BorrowedFd<'a>>,
    exclusive: Option<Exclusive<'a>>,
    timer: &'a Timer,
}

impl<'a> Arrivals<'a> {
    /// Begins to watch a listening socket; the runtime's epoll is one of these.
    ///
    /// # Errors
    /// As epoll_ctl(2) says.
    pub(crate) fn at(
        listener: BorrowedFd<'a>,
        epolls: &'a Epolls,
        timer: &'a Timer,
    ) -> io::Result<Self> {
        let watch = sys::watch_readable(listener)?;
        let exclusive = epolls.registration(listener);
        let arrivals = Self {
            watch,
            exclusive,
            timer,
        };
        arrivals.go_last()?;
        Ok(arrivals)
    }

    /// Waits until there may be a connection to take. Safe to cancel.
    ///
    /// # Errors
    /// The runtime has ended.
    pub(crate) async fn next(&self) -> io::Result<Arrival<'_, 'a>> {
        let ready = tokio::select! {
            biased;
            ready = self.watch.readable() => Some(ready?),
            () = self.timer.sleep_until(self.timer.now() + LOOK) => None,
        };
        Ok(Arrival {
            arrivals: self,
            ready,
        })
    }

    /// Lets the other processes go first. Those that only watch are woken in
    /// the order in which they began to.
    fn go_last(&self) -> io::Result<()> {
        match &self.exclusive {
            Some(exclusive) => Ok(exclusive.renew(self.watch.get_ref())?),
            None => Ok(()),
        }
    }
}

/// A connection that may wait. Dropped as it is, it is told of again.
#[derive(Debug)]
pub(crate) struct Arrival<'w, 'a> {
    arrivals: &'w Arrivals<'a>,
    /// None where nothing told of it.
    ready: Option<AsyncFdReadyGuard<'w, BorrowedFd<'a>>>,
}

impl Arrival<'_, '_> {
    /// It was taken, and there may be more.
    ///
    /// # Errors
    /// As epoll_ctl(2) says; nothing is told any more.
    pub(crate) fn taken(self) -> io::Result<()> {
        if let Some(mut ready) = self.ready
            && self.arrivals.exclusive.is_some()
        {
            ready.clear_ready();
        }
        // The new registration says at once where more wait.
        self.arrivals.go_last()?;
        // Connections that came together have woken one worker each. Where
        // processors are few, those only get their share if this one, which
        // was first, does not take all of them before they run.
        std::thread::yield_now();
        Ok(())
    }

    /// Whether the listener was shut down since it is watched. The runtime says so for
    /// good, whatever becomes of the listener: it has to be watched anew.
    pub(crate) fn is_of_a_closed_one(&self) -> bool {
        let ready = self.ready.as_ref();
        ready.is_some_and(|ready| ready.ready().is_read_closed())
    }

    /// None waits any more.
    pub(crate) fn gone(self) {
        if let Some(mut ready) = self.ready {
            ready.clear_ready();
        }
    }
}

/// A descriptor whose number is so much higher than the one before is not looked
/// for: the kernel gives the lowest that is free.
const FURTHEST: usize = 64;

/// The process's epolls, and what the kernel tells of each. Found once, and
/// kept open: a process that confines itself may not read `/proc` later.
#[derive(Debug, Default)]
pub(crate) struct Epolls(Vec<Known>);

#[derive(Debug)]
struct Known {
    epoll: Epoll,
    /// Read anew, it tells what is registered then.
    fdinfo: File,
}

impl Known {
    /// What an epoll's number stands for, and what it has registered now.
    fn of(number: RawFd) -> Option<(String, Self)> {
        // SAFETY: numbers are looked at from 0 on, by the only thread that opens and closes
        // here, which does neither meanwhile.
        #[expect(unsafe_code, reason = "the runtime does not say which its epolls are")]
        let epoll = unsafe { sys::duplicate(number) }.ok()?;
        let path = format!("/proc/self/fdinfo/{}", epoll.as_raw_fd());
        let fdinfo = File::open(path).ok()?;
        let registered = from_the_start(&fdinfo).ok()?;
        let epoll = Epoll(epoll);
        Some((registered, Self { epoll, fdinfo }))
    }
}

impl Epolls {
    /// Those that there are now, the runtime's among them; none without `/proc`.
    pub(crate) fn find() -> Self {
        let mut found = Vec::new();
        let mut seen = Vec::new();
        let mut missing = 0;
        // Not by listing the directory: what that leaves of the heap, a gap of
        // the wrong size, would cost malloc a search with each request.
        for number in 0.. {
            let path = format!("/proc/self/fd/{number}");
            let Ok(target) = fs::read_link(path) else {
                missing += 1;
                if missing > FURTHEST {
                    break;
                }
                continue;
            };
            missing = 0;
            if target.as_os_str() != "anon_inode:[eventpoll]" {
                continue;
            }
            let Some((registered, known)) = Known::of(number) else {
                continue;
            };
            // The runtime holds its epoll several times; once will do.
            if !seen.contains(&registered) {
                seen.push(registered);
                found.push(known);
            }
        }
        Self(found)
    }

    /// How the runtime watches this descriptor.
    fn registration(&self, watched: BorrowedFd<'_>) -> Option<Exclusive<'_>> {
        self.0.iter().find_map(|known| {
            let token = token(&from_the_start(&known.fdinfo).ok()?, watched)?;
            let epoll = &known.epoll;
            Some(Exclusive { epoll, token })
        })
    }
}

fn from_the_start(file: &File) -> io::Result<String> {
    let mut text = Vec::new();
    let mut part = [0; 4096];
    loop {
        match file.read_at(&mut part, text.len() as u64)? {
            0 => return Ok(String::from_utf8_lossy(&text).into_owned()),
            length => text.extend_from_slice(&part[..length]),
        }
    }
}

/// A registration in the runtime's epoll.
#[derive(Debug)]
struct Exclusive<'a> {
    epoll: &'a Epoll,
    /// What the runtime knows it by; good for as long as the runtime watches.
    token: u64,
}

impl Exclusive<'_> {
    fn renew(&self, watched: &BorrowedFd<'_>) -> nix::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET | EpollFlags::EPOLLEXCLUSIVE;
        self.epoll.delete(watched)?;
        self.epoll.add(watched, EpollEvent::new(flags, self.token))
    }
}

/// The token by which an epoll knows a descriptor, as its fdinfo says
/// (proc_pid_fdinfo(5)).
fn token(fdinfo: &str, watched: BorrowedFd<'_>) -> Option<u64> {
    let inode = fstat(watched).ok()?.st_ino;
    fdinfo.lines().find_map(|line| {
        let field = |name: &str| line.split_once(name)?.1.split_whitespace().next();
        let number: RawFd = field("tfd:")?.parse().ok()?;
        let same =
            number == watched.as_raw_fd() && u64::from_str_radix(field("ino:")?, 16).ok()? == inode;
        same.then(|| u64::from_str_radix(field("data:")?, 16).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use tokio::runtime::LocalOptions;
    use tokio::time::timeout;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn runtime() -> tokio::runtime::LocalRuntime {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap()
    }

    fn listener() -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    }

    #[test]
    fn the_runtimes_registration_is_found_and_made_exclusive() {
        runtime().block_on(async {
            let listener = listener();
            let epolls = Epolls::find();
            let arrivals =
                Arrivals::at(listener.as_fd(), &epolls, Timer::start().unwrap()).unwrap();
            let found = arrivals.exclusive.as_ref().unwrap();
            let epoll = found.epoll.0.as_raw_fd();
            let info = || fs::read_to_string(format!("/proc/self/fdinfo/{epoll}")).unwrap();
            assert_eq!(token(&info(), listener.as_fd()), Some(found.token));
            // EPOLLEXCLUSIVE, EPOLLET; HUP and ERR are always there.
            assert!(info().contains("events: 90000019"), "{}", info());
            // SAFETY: it is open, and nobody closes it.
            #[expect(unsafe_code, reason = "as above")]
            let kept = unsafe { sys::duplicate(epoll) }.unwrap();
            drop(arrivals);
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", kept.as_raw_fd()));
            assert_eq!(token(&info.unwrap(), listener.as_fd()), None);
        });
    }

    #[test]
    fn a_listener_that_was_shut_down_is_watched_anew() {
        runtime().block_on(async {
            let listener = listener();
            let epolls = Epolls::find();
            let timer = Timer::start().unwrap();
            let arrivals = Arrivals::at(listener.as_fd(), &epolls, timer).unwrap();
            let socket = socket2::SockRef::from(&listener);
            socket.shutdown(std::net::Shutdown::Both).unwrap();
            let arrival = timeout(DEADLINE, arrivals.next()).await.unwrap().unwrap();
            socket.listen(16).unwrap();
            assert!(arrival.is_of_a_closed_one());
            drop(arrivals);
            let arrivals = Arrivals::at(listener.as_fd(), &epolls, timer).unwrap();
            let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let arrival = timeout(DEADLINE, arrivals.next()).await.unwrap().unwrap();
            assert!(arrival.ready.is_some() && !arrival.is_of_a_closed_one());
        });
    }

    #[test]
    fn every_connection_is_told_of_however_many_came_at_once() {
        runtime().block_on(async {
            let listener = listener();
            let epolls = Epolls::find();
            let arrivals =
                Arrivals::at(listener.as_fd(), &epolls, Timer::start().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            for at_once in [1, 5, 2] {
                let _clients: Vec<_> = (0..at_once)
                    .map(|_| TcpStream::connect(address).unwrap())
                    .collect();
                let mut taken = 0;
                while taken < at_once {
                    let arrival = timeout(DEADLINE, arrivals.next()).await.unwrap().unwrap();
                    assert!(arrival.ready.is_some(), "found by looking");
                    match listener.accept() {
                        Ok(_) => {
                            taken += 1;
                            arrival.taken().unwrap();
                        }
                        Err(_) => arrival.gone(),
                    }
                }
            }
        });
    }
}
