//! Ends what a drain had to leave.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};
use tokio::time::{Instant, sleep};

use crate::process::Serving;
use crate::sys;

/// How long the clients may take to close their side.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often to look whether they have.
const LOOK: Duration = Duration::from_millis(10);

/// Closes the sending side of every open connection and waits a moment for
/// the clients to close theirs, reading what they still send. Closed over
/// unread input, a socket would be reset, and a reset takes from the client
/// what was sent to it and not read yet.
pub(crate) async fn cut(serving: &Serving) {
    let mut open = Vec::new();
    serving.for_each_open(|fd| {
        // One that the client has reset meanwhile needs no closing.
        let _ = shutdown(fd, Shutdown::Write);
        // Held twice, so that it stays open when its task is done with it.
        // Where no descriptor is left, it is closed as it is.
        // SAFETY: a connection in the list is open, and this thread, which alone closes any,
        // is here.
        #[expect(unsafe_code, reason = "the list has numbers and no owners")]
        let held = unsafe { sys::duplicate(fd) };
        if let Ok(held) = held {
            open.push(held);
        }
    });
    let end = Instant::now() + PATIENCE;
    let mut discard = vec![0; 64 * 1024];
    loop {
        open.retain(|socket| !has_ended(socket, &mut discard));
        if open.is_empty() || Instant::now() >= end {
            return;
        }
        sleep(LOOK).await;
    }
}

/// Reads what is there, up to a bound, as a client may send without end;
/// whether it has closed its side.
fn has_ended(socket: &OwnedFd, discard: &mut [u8]) -> bool {
    for _ in 0..16 {
        match recv(socket.as_raw_fd(), discard, MsgFlags::MSG_DONTWAIT) {
            Ok(1..) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return false,
            Ok(0) | Err(_) => return true,
        }
    }
    false
}
