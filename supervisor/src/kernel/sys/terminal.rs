//! What a terminal says of itself.

use std::os::fd::{AsFd, AsRawFd};

/// How many columns a terminal has (ioctl_tty(2)); none where it does not know, or is none.
pub(crate) fn columns(terminal: impl AsFd) -> Option<u16> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = terminal.as_fd().as_raw_fd();
    // SAFETY: the kernel writes a `winsize` to a live one.
    let result = unsafe { libc::ioctl(terminal, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some(size.ws_col)
}
