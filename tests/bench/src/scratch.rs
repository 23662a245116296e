//! Where everything that a run writes lies, so that an interrupted one can
//! remove it.

use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

use tempfile::TempDir;

static BASE: OnceLock<PathBuf> = OnceLock::new();

/// Makes the place; it is removed when the guard is dropped.
pub(crate) fn begin() -> io::Result<TempDir> {
    let base = tempfile::Builder::new()
        .prefix("prefork-bench-")
        .tempdir()?;
    BASE.get_or_init(|| base.path().to_owned());
    Ok(base)
}

/// A directory in it.
pub(crate) fn dir() -> io::Result<TempDir> {
    match BASE.get() {
        Some(base) => tempfile::tempdir_in(base),
        None => tempfile::tempdir(),
    }
}

/// Removes it now; whether nothing of it is left.
pub(crate) fn remove() -> bool {
    BASE.get().is_none_or(|base| {
        // It fails where somebody who is about to be killed writes to it.
        let _ = std::fs::remove_dir_all(base);
        !base.exists()
    })
}
