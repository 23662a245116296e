//! Ends what a drain had to leave.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};
use tokio::time::{Instant, sleep};

use crate::serving::Serving;

/// How long the clients may take to read what they were sent.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often to look whether they have.
const LOOK: Duration = Duration::from_millis(10);

/// Closes the sending side of every open connection and waits a moment for
/// the clients to close theirs, reading what they still send: the end of the
/// process would otherwise reset them, and take from them what they had not
/// read yet.
pub(crate) async fn cut(serving: &Serving) {
    serving.for_each_open(|fd| {
        // One that the client has reset meanwhile needs no closing.
        let _ = shutdown(fd, Shutdown::Write);
    });
    let end = Instant::now() + PATIENCE;
    let mut discard = [0; 16 * 1024];
    loop {
        let mut waiting = false;
        serving.for_each_open(|fd| {
            let read = recv(fd, &mut discard, MsgFlags::MSG_DONTWAIT);
            waiting |= matches!(read, Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR));
        });
        if !waiting || Instant::now() >= end {
            return;
        }
        sleep(LOOK).await;
    }
}
