//! The supervisor's stderr, collected while it runs.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What has been written so far.
#[derive(Clone, Default)]
pub(super) struct Log {
    written: Arc<Mutex<Vec<u8>>>,
    is_complete: Arc<AtomicBool>,
}

impl Log {
    /// Collects until the last holder of the pipe's other end is gone.
    pub(super) fn collect(mut stderr: impl Read + Send + 'static) -> Self {
        let log = Self::default();
        let kept = log.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(read @ 1..) = stderr.read(&mut chunk) {
                kept.bytes().extend_from_slice(&chunk[..read]);
            }
            kept.is_complete.store(true, Ordering::Release);
        });
        log
    }

    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.written
            .lock()
            .expect("nothing panics while it holds the log")
    }

    /// Whether nobody is left who could write more, and all of it is here.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// All of it.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// The first complete line that holds all of `words`.
    pub(super) fn line_with(&self, words: &[&str]) -> Option<String> {
        let text = self.text();
        let complete = &text[..text.rfind('\n')?];
        complete
            .lines()
            .find(|line| words.iter().all(|word| line.contains(word)))
            .map(str::to_owned)
    }

    /// The address that follows `prefix` in a line of the log.
    pub(super) fn address_after(&self, prefix: &str) -> Option<SocketAddr> {
        let line = self.line_with(&[prefix])?;
        let rest = &line[line.find(prefix)? + prefix.len()..];
        let rest = rest.trim_start_matches("http://");
        let end = rest
            .find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)))
            .unwrap_or(rest.len());
        rest[..end].parse().ok()
    }
}
