//! Reads a page as somebody does who pastes each of its blocks, and compares what comes with what the page shows.
//!
//! A block of `sh` is run, and the block of `text` that follows it is what it prints. Comments above a block say
//! what cannot be seen in it:
//!
//! - `shell 1`: a server runs in it, so nobody waits for its end. Other blocks are shell 2's.
//! - `both shells`: run in each.
//! - `until it is so`: what it shows comes a moment later. It only asks, so it is run again.
//! - `needs: PROGRAM`: left out where that is missing.
//! - `in full`: takes minutes, so only a run in full has it.
//! - `not run: WHY`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use super::expected::{is_shown, same};
use super::markdown::{Block, blocks};
use crate::harness::deadline::PATIENCE;
use crate::harness::shell::{Desk, Ended, Shell};

/// How long a build may take.
const BUILD: Duration = Duration::from_secs(3600);

/// Somebody with two shells and a page.
pub(super) struct Reader {
    // Before the desk, so that no shell waits for what the desk has killed.
    server: Shell,
    own: Shell,
    _desk: Desk,
    /// Texts of the page, and what stands for them here.
    instead: Vec<(String, String)>,
    in_full: bool,
}

impl Reader {
    /// One whose shells are in `start`, with these variables, and whose outputs go to `dir`.
    pub(super) fn new(start: &Path, dir: &Path, variables: &[(&str, &Path)]) -> Self {
        let desk = Desk::new();
        Self {
            server: desk.shell(start, &dir.join("shell-1"), variables),
            own: desk.shell(start, &dir.join("shell-2"), variables),
            _desk: desk,
            instead: Vec::new(),
            in_full: false,
        }
    }

    /// The same, who also reads what takes minutes.
    pub(super) fn in_full(mut self) -> Self {
        self.in_full = true;
        self
    }

    /// Has one text stand for another of the page.
    pub(super) fn with(mut self, text: &str, instead: impl Into<String>) -> Self {
        self.instead.push((text.to_owned(), instead.into()));
        self
    }

    /// The same with each of these ports, of which others may have one here.
    pub(super) fn with_ports(self, ports: &[u16]) -> Self {
        ports.iter().fold(self, |reader, port| {
            let free = free_port();
            ["127.0.0.1", "localhost"]
                .iter()
                .fold(reader, |reader, host| {
                    reader.with(&format!("{host}:{port}"), format!("{host}:{free}"))
                })
        })
    }

    /// Runs a command that ends with this exit code.
    #[track_caller]
    pub(super) fn ends_with(&mut self, command: &str, code: i32) {
        let ended = self.own.run(command, PATIENCE);
        assert_eq!(ended.code, code, "{command}: {}", ended.output);
    }

    /// Runs a command that goes on until somebody ends it, and ends it when it has printed something.
    #[track_caller]
    pub(super) fn prints(&mut self, command: &str) {
        let script = format!("exec 4< <({command}); read -r -u 4; kill $!; exec 4<&-");
        let ended = self.own.run(&script, PATIENCE);
        assert_eq!(ended.code, 0, "{command}: {}", ended.output);
    }

    /// Reads the page to its end; gives how many blocks were run.
    #[track_caller]
    pub(super) fn reads(&mut self, name: &str, page: &str) -> usize {
        let blocks = blocks(page);
        let mut run = 0;
        for (index, block) in blocks.iter().enumerate() {
            if block.language == "sh" && self.is_to_run(block) {
                let shown = blocks
                    .get(index + 1)
                    .filter(|next| next.language == "text" && next.follows);
                let place = format!("{name}:{}", block.line);
                self.pastes(&place, block, shown.map(|block| block.text.as_str()));
                run += 1;
            }
        }
        if self.server.is_busy() {
            let ended = self.server.end(PATIENCE);
            assert_eq!(
                ended.code, 0,
                "{name}: the server of shell 1: {}",
                ended.output
            );
        }
        run
    }

    fn is_to_run(&self, block: &Block<'_>) -> bool {
        block.notes.iter().all(|note| match note.split_once(':') {
            Some(("not run", why)) => {
                assert!(!why.trim().is_empty(), "line {}: why?", block.line);
                false
            }
            Some(("needs", program)) => is_there(program.trim()),
            _ => *note != "in full" || self.in_full,
        })
    }

    #[track_caller]
    fn pastes(&mut self, place: &str, block: &Block<'_>, shown: Option<&str>) {
        let commands = self.here(&block.text);
        let shown = shown.map(|shown| self.here(shown));
        let is_noted = |note| block.notes.contains(&note);
        if is_noted("shell 1") {
            // What served before was killed: how, the page says.
            if self.server.is_busy() {
                self.server.end(PATIENCE);
            }
            self.server.begin(&commands);
            return;
        }
        let within = if is_noted("in full") { BUILD } else { PATIENCE };
        if is_noted("both shells") {
            let ended = self.server.run(&commands, within);
            assert_eq!(ended.code, 0, "{place}:\n{commands}\n{}", ended.output);
        }
        let deadline = Instant::now() + within;
        let mut ended = self.own.run(&commands, within);
        while is_noted("until it is so")
            && Instant::now() < deadline
            && !is_so(&ended, shown.as_deref())
        {
            ended = self.own.run(&commands, within);
        }
        assert_eq!(ended.code, 0, "{place}:\n{commands}\n{}", ended.output);
        if let Some(shown) = shown {
            same(place, &shown, &ended.output);
        }
    }

    /// A text of the page with what stands for it here.
    pub(super) fn here(&self, text: &str) -> String {
        let instead = self.instead.iter();
        instead.fold(text.to_owned(), |text, (there, here)| {
            text.replace(there, here)
        })
    }
}

fn is_so(ended: &Ended, shown: Option<&str>) -> bool {
    ended.code == 0 && shown.is_none_or(|shown| is_shown(shown, &ended.output))
}

/// Whether a program is on PATH; says so where it is not.
pub(super) fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !found {
        eprintln!("SKIPPED: blocks of pages, since there is no {program} here");
    }
    found
}

/// A port that nobody listens on, and that the kernel gives to nobody who asks for any.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 20_000) as u16;
    let mut ports =
        std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed)).take(1000);
    let free = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.expect("one of a thousand ports is free")
}

/// The directory of the sources.
pub(super) fn repository() -> PathBuf {
    let supervisor = Path::new(env!("CARGO_MANIFEST_DIR"));
    let repository = supervisor
        .parent()
        .expect("it is a directory of the repository");
    repository.to_owned()
}
