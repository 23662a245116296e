//! `state.json` on the disk. It is replaced by rename, so that whoever reads it
//! finds a whole one whenever the writer was killed; it is never synced, since
//! after a crash of the machine nothing in it is of use. The room for the next one
//! is kept beside it, see [`replacement`].

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prefork_fleet::Snapshot;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::recovery::state::document::{Document, VERSION};
use crate::recovery::state::{identity, replacement};

/// Its name in the runtime directory.
const NAME: &str = "state.json";

/// Where one goes that can't be used.
const BAD: &str = "state.json.bad";

/// The least time between two writes.
const LEAST_GAP: Duration = Duration::from_millis(20);

/// Writing may take this share of the loop's time at most: a gap is so many
/// times what the last write took.
const GAP_FACTOR: u32 = 20;

/// Counters change all the time; they are written this often where nothing else
/// has changed, and less often where that would take more than a small share of
/// the time that an idle supervisor costs. A scrape has them written anyway.
const COUNTERS: Duration = Duration::from_secs(1);
const COUNTERS_GAP_FACTOR: u32 = 1000;
const COUNTERS_LONGEST_GAP: Duration = Duration::from_secs(10);

/// No state is larger; what is was not written by a supervisor.
const MOST_BYTES: u64 = 1 << 30;

/// Why a state can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// The system refused.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// Somebody else wrote it, who could have us signal any process.
    #[error("it belongs to user id {0}")]
    Foreign(u32),
    /// It is no regular file, or too large.
    #[error("it is not a file that a supervisor writes")]
    NotOurs,
    /// It is not what it was when it was written.
    #[error("it is damaged: {0}")]
    Damaged(serde_json::Error),
    /// A later program wrote it.
    #[error("it is of version {0}, and this program knows version {VERSION}")]
    Future(u32),
}

/// What there is of an earlier supervisor.
#[derive(Debug)]
pub(crate) enum Found {
    /// Nothing.
    Nothing,
    /// Something of another boot, which concerns nothing that lives.
    OtherBoot,
    /// Something that can't be used.
    Unusable(StateError),
    /// Its state.
    State(Box<Document<Snapshot>>),
}

/// Looks for the state that an earlier supervisor left in its runtime directory.
pub(crate) fn read(runtime_dir: &Path) -> Found {
    match document(&runtime_dir.join(NAME)) {
        Err(StateError::Io(error)) if error.kind() == io::ErrorKind::NotFound => Found::Nothing,
        Err(error) => Found::Unusable(error),
        Ok(document) => match identity::is_of_this_boot(&document.boot_id) {
            Ok(true) => Found::State(Box::new(document)),
            Ok(false) => Found::OtherBoot,
            Err(error) => Found::Unusable(error.into()),
        },
    }
}

/// The supervisor that wrote the state in a runtime directory, as long as it
/// lives: known by its process id and start time, whatever has become of its
/// lock. Not this process itself.
pub(crate) fn living_supervisor(runtime_dir: &Path) -> Option<i32> {
    /// All that tells one.
    #[derive(Deserialize)]
    struct Author {
        boot_id: String,
        pid: i32,
        start_ticks: u64,
    }
    let text = text(&runtime_dir.join(NAME)).ok()?;
    let author: Author = serde_json::from_slice(&text).ok()?;
    let is_of_this_boot = identity::is_of_this_boot(&author.boot_id).is_ok_and(|is| is);
    let is_us = u32::try_from(author.pid) == Ok(std::process::id());
    let lives = identity::lives(author.pid, author.start_ticks);
    (is_of_this_boot && !is_us && lives).then_some(author.pid)
}

fn document(path: &Path) -> Result<Document<Snapshot>, StateError> {
    parse(&text(path)?)
}

fn text(path: &Path) -> Result<Vec<u8>, StateError> {
    let mut file = replacement::settled(|| {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
    })?;
    let found = file.metadata()?;
    if !found.is_file() || found.len() > MOST_BYTES {
        return Err(StateError::NotOurs);
    }
    if found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(StateError::Foreign(found.uid()));
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}

fn parse(text: &[u8]) -> Result<Document<Snapshot>, StateError> {
    /// All that every version has.
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_slice(text).map_err(StateError::Damaged)?;
    if version > VERSION {
        return Err(StateError::Future(version));
    }
    serde_json::from_slice(text).map_err(StateError::Damaged)
}

/// Moves a state that can't be used out of the way, for whoever wants to look
/// at it.
pub(crate) fn set_aside(runtime_dir: &Path, why: &dyn std::fmt::Display) {
    let (from, to) = (runtime_dir.join(NAME), runtime_dir.join(BAD));
    match fs::rename(&from, &to) {
        Ok(()) => warn!(
            "the state that an earlier supervisor left in {} is not used: {why}; it is now {}",
            from.display(),
            to.display()
        ),
        Err(error) => warn!(
            "the state in {} is not used: {why}; it could not be moved aside: {error}",
            from.display()
        ),
    }
}

/// The state file of this supervisor: when to write it, and how.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    /// Since when it lacks a change.
    dirty: bool,
    written: Option<Written>,
    /// From when on it may be written again.
    not_before: Option<Instant>,
    /// Whether the last write failed, which is said once.
    failing: bool,
}

/// The last write.
#[derive(Debug, Clone, Copy)]
struct Written {
    at: Instant,
    took: Duration,
}

impl Written {
    /// How long nothing is written where only counters have changed.
    fn counters_gap(self) -> Duration {
        (self.took * COUNTERS_GAP_FACTOR).clamp(COUNTERS, COUNTERS_LONGEST_GAP)
    }
}

impl StateFile {
    /// The one in this runtime directory; nothing is written yet.
    pub(crate) fn new(runtime_dir: &Path) -> Self {
        Self {
            path: runtime_dir.join(NAME),
            dirty: true,
            written: None,
            not_before: None,
            failing: false,
        }
    }

    /// Something has changed that the next supervisor has to know.
    pub(crate) fn touch(&mut self) {
        self.dirty = true;
    }

    /// When it is to be written.
    pub(crate) fn due(&self) -> Instant {
        let now = Instant::now();
        let wanted = match self.written {
            Some(written) if !self.dirty => written.at + written.counters_gap(),
            _ => now,
        };
        self.not_before
            .map_or(wanted, |earliest| earliest.max(wanted))
    }

    /// Writes it, and says whether it is on the disk. A disk that takes nothing is a
    /// warning: the workers serve, and only a supervisor that is killed now has an old
    /// state to go on from.
    pub(crate) fn write(&mut self, document: &impl Serialize) -> bool {
        let begun = Instant::now();
        let written = replacement::replace(&self.path, document);
        match &written {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    info!("{} is written again", self.path.display());
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    let path = self.path.display();
                    warn!("cannot write {path}, which a supervisor after this one needs: {error}");
                }
            }
        }
        self.dirty = false;
        let now = Instant::now();
        let took = now - begun;
        self.written = Some(Written { at: now, took });
        self.not_before = Some(now + (took * GAP_FACTOR).max(LEAST_GAP));
        written.is_ok()
    }

    /// Removes it: nothing is left to go on from.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(replacement::spare(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::SystemTime;

    use prefork_fleet::{Fleet, SnapshotRef};
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;
    use crate::config::{Config, Detail, Requests, Steps, Supervisor};
    use crate::metrics::Metrics;

    const GOLDEN: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/recovery/state/golden/state-1.json"
    );

    fn document<'a>(fleet: &'a Fleet, boot_id: &str) -> Document<SnapshotRef<'a>> {
        Document {
            version: VERSION,
            boot_id: boot_id.to_owned(),
            pid: 4711,
            start_ticks: 77,
            secret: "s".to_owned(),
            config: Config {
                supervisor: Supervisor {
                    runtime_dir: "/run/prefork".into(),
                    control_mode: Some(0o660),
                    admin: None,
                    log: None,
                    admin_hosts: Vec::new(),
                    admin_ipv6_only: true,
                    log_format: None,
                    log_level: None,
                    orphan_timeout: Duration::from_secs(30),
                    stop_delay: Duration::ZERO,
                    strict_boot: false,
                },
                metrics: Detail::Slot,
                pools: Vec::new(),
                max_series: 1000,
                requests: Requests::default(),
                steps: Steps::default(),
                source: "command line".to_owned(),
            },
            editions: Vec::new(),
            tried: 1,
            next_job: 1,
            next_seq: 1,
            last_reload: None,
            listeners: Vec::new(),
            processes: Vec::new(),
            fleet: fleet.snapshot(),
            metrics: Metrics::new("0.1.0", SystemTime::UNIX_EPOCH, &[], &[]).save(),
        }
    }

    /// A runtime directory with a state of this boot in it.
    fn written() -> (TempDir, StateFile) {
        let dir = tempfile::tempdir().unwrap();
        let fleet = Fleet::new(1, Vec::new());
        let mut file = StateFile::new(dir.path());
        file.write(&document(&fleet, &identity::boot_id().unwrap()));
        (dir, file)
    }

    /// Changes the state as a JSON value.
    fn tamper(dir: &TempDir, change: impl FnOnce(&mut Value)) {
        let path = dir.path().join(NAME);
        let mut value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(&path, value.to_string()).unwrap();
    }

    #[test]
    fn a_state_that_is_nearly_right_is_read_and_restored_or_refused() {
        let (dir, _file) = written();
        let empty = fs::read(dir.path().join(NAME)).unwrap();
        let corpus = [empty, fs::read(GOLDEN).unwrap()];
        parse(&corpus[0]).unwrap();
        prefork_testkit::mutate::mutate(8, 1_500, &corpus, |text| {
            if let Ok(document) = parse(text) {
                let now = prefork_fleet::Time::default();
                let policies = std::collections::BTreeMap::new();
                Fleet::restore(now, 1, document.fleet, &policies);
            }
        });
    }

    #[test]
    fn what_is_written_is_read_and_nobody_else_may() {
        let (dir, _file) = written();
        assert!(matches!(read(dir.path()), Found::State(state) if state.pid == 4711));
        let mode = fs::metadata(dir.path().join(NAME)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let names = fs::read_dir(dir.path()).unwrap();
        assert_eq!(names.count(), 2, "the state, and room for the next");
    }

    #[test]
    fn no_cut_of_it_is_believed() {
        let (dir, _file) = written();
        let path = dir.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let found = read(dir.path());
            assert!(
                matches!(found, Found::Unusable(StateError::Damaged(_))),
                "{length} bytes: {found:?}"
            );
        }
    }

    #[test]
    fn a_later_version_is_told_from_a_damaged_one_whatever_is_in_it() {
        let (dir, _file) = written();
        tamper(&dir, |state| *state = json!({"version": 2, "fleet": 7}));
        assert!(matches!(
            read(dir.path()),
            Found::Unusable(StateError::Future(2))
        ));
        set_aside(dir.path(), &"a test");
        assert!(matches!(read(dir.path()), Found::Nothing));
        assert!(dir.path().join(BAD).exists());
    }

    #[test]
    fn another_boots_state_concerns_nobody() {
        let (dir, _file) = written();
        tamper(&dir, |state| state["boot_id"] = json!("another"));
        assert!(matches!(read(dir.path()), Found::OtherBoot));
    }

    #[test]
    fn only_our_own_file_is_read() {
        let (dir, _file) = written();
        let path = dir.path().join(NAME);
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert!(matches!(read(dir.path()), Found::Unusable(_)));
        fs::remove_file(&path).unwrap();
        fs::rename(&elsewhere, &path).unwrap();
        let nobody = nix::unistd::Uid::from_raw(65_534);
        // Only root can give a file away.
        if nix::unistd::chown(&path, Some(nobody), None).is_ok() {
            let found = read(dir.path());
            assert!(matches!(
                found,
                Found::Unusable(StateError::Foreign(65_534))
            ));
        }
    }

    #[test]
    fn a_directory_that_is_gone_is_a_warning_and_no_end() {
        let (dir, mut file) = written();
        fs::remove_dir_all(dir.path()).unwrap();
        let fleet = Fleet::new(1, Vec::new());
        file.write(&document(&fleet, "b"));
        assert!(file.failing);
        fs::create_dir(dir.path()).unwrap();
        file.write(&document(&fleet, "b"));
        assert!(!file.failing && dir.path().join(NAME).exists());
    }

    #[test]
    fn what_was_written_before_there_were_these_keys_is_read() {
        let (dir, _file) = written();
        tamper(&dir, |state| {
            let without = |part: &mut Value, name: &str| {
                part.as_object_mut().unwrap().remove(name).unwrap();
            };
            without(&mut state["metrics"], "application");
            without(&mut state["config"], "max_series");
            without(&mut state["config"]["supervisor"], "orphan_timeout");
        });
        let Found::State(state) = read(dir.path()) else {
            panic!("it is not read");
        };
        assert_eq!(state.config.max_series, 1000);
        assert_eq!(
            state.config.supervisor.orphan_timeout,
            Duration::from_secs(30)
        );
    }

    #[test]
    fn the_document_is_of_version_1() {
        let fleet = Fleet::new(1, Vec::new());
        let written = serde_json::to_value(document(&fleet, "b")).unwrap();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            let text = serde_json::to_string_pretty(&written).unwrap();
            fs::write(GOLDEN, text + "\n").unwrap();
        }
        let golden = fs::read(GOLDEN).unwrap();
        assert_eq!(written, serde_json::from_slice::<Value>(&golden).unwrap());
        assert!(parse(&golden).is_ok());
    }
}
