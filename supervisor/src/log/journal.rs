//! Whether stderr or stdout is the journal's.

use std::io;
use std::os::fd::AsFd;

use nix::sys::stat::fstat;

/// Whether what is written here comes to the journal of systemd by a stream of its own,
/// which then takes a priority before each line (sd-daemon(3)): `$JOURNAL_STREAM` names
/// the device and inode of it.
pub(super) fn is_journal(stream: impl AsFd) -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    fstat(stream).is_ok_and(|stat| names(&named, stat.st_dev, stat.st_ino))
}

fn names(stream: &str, device: u64, inode: u64) -> bool {
    stream
        .split_once(':')
        .is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

/// The priority of a line of this level (syslog(3)).
pub(super) fn priority(level: tracing::Level) -> u8 {
    match level {
        tracing::Level::ERROR => 3,
        tracing::Level::WARN => 4,
        tracing::Level::INFO => 6,
        tracing::Level::DEBUG | tracing::Level::TRACE => 7,
    }
}

/// Whether a stream of this process is the journal's.
pub(super) fn of_target(target: &super::sink::Target) -> bool {
    match target {
        super::sink::Target::Stderr => is_journal(io::stderr()),
        super::sink::Target::Stdout => is_journal(io::stdout()),
        super::sink::Target::File { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stream_that_is_named_is_the_journals() {
        assert!(names("8:1234", 8, 1234));
        for (named, device, inode) in [
            ("8:1234", 8, 1),
            ("8:1234", 9, 1234),
            ("", 0, 0),
            ("8", 8, 0),
        ] {
            assert!(!names(named, device, inode), "{named}");
        }
    }
}
