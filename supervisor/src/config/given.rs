//! Paths as they were given. A deploy that switches a symbolic link changes what
//! such a path leads to, so it is kept as it was written and followed anew each
//! time; the kernel's own idea of the working directory has no links in it.

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::search;
use super::{Config, Options};

impl Options {
    /// Where relative paths start.
    pub(crate) fn directory(&self) -> PathBuf {
        match &self.directory {
            Some(directory) => directory.clone(),
            None => working_directory(),
        }
    }

    /// Holds on to what `config` was read from: from now on the same file is read,
    /// by the path by which it was found, wherever this process is by then and
    /// whatever has become of it. Where there was none, one is looked for again.
    pub(crate) fn settle(&mut self, config: &Config) {
        let directory = self.directory();
        if directory.to_str().is_none() {
            // The next program is told in text, and could not be told of this.
            return;
        }
        // It stays where it is.
        self.runtime_dir = self.runtime_dir.take().map(|path| absolute(&path));
        let from_file = self.pool_flags().is_empty() && config.is_from_file();
        let source = from_file.then(|| PathBuf::from(&config.source));
        if let Some(file) = search::chosen(self).or(source) {
            self.config = Some(absolute(&directory.join(file)));
        }
        self.directory = Some(directory);
    }
}

/// The working directory by the name that the shell knows it by (`$PWD`), where
/// that is its name; else as the kernel knows it.
pub(super) fn working_directory() -> PathBuf {
    let named = env::var_os("PWD").map(PathBuf::from);
    match named {
        Some(path) if path.is_absolute() && is_same(&path, Path::new(".")) => absolute(&path),
        _ => absolute(Path::new(".")),
    }
}

/// Where this program was found, as it was called: by a path, or by a name that
/// is looked up in `$PATH`. Where that leads to another file, or nowhere, it is
/// the path that the kernel knows.
pub(crate) fn own_program(directory: &Path) -> std::io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    let called = env::args_os().next().map(PathBuf::from);
    let by_name = called.filter(|name| !name.as_os_str().is_empty());
    let candidates: Vec<PathBuf> = match by_name {
        Some(name) if name.components().count() > 1 || name.is_absolute() => vec![name],
        Some(name) => {
            let path = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&path).map(|it| it.join(&name)).collect()
        }
        None => Vec::new(),
    };
    let candidates = candidates
        .into_iter()
        .map(|it| absolute(&directory.join(it)));
    match candidates.into_iter().find(|it| is_same(it, running)) {
        Some(path) => Ok(path),
        None => env::current_exe(),
    }
}

/// Whether both lead to one file or directory.
fn is_same(one: &Path, other: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

/// Made absolute without following links: a link in it may be what a deploy changes.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(source: &str) -> Config {
        let text = "[pool.web]\nlisten = [\"127.0.0.1:0\"]\n";
        let host = super::super::Host::current(&Options::default()).unwrap();
        super::super::parse(text, source, &host).unwrap()
    }

    #[test]
    fn what_was_found_is_held_on_to_by_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("prefork.toml");
        let start = || Options {
            directory: Some(directory.path().to_owned()),
            ..Options::default()
        };
        fs::write(&file, "").unwrap();
        let mut options = start();
        options.settle(&read_from("prefork.toml"));
        assert_eq!(options.config.as_deref(), Some(&*file));

        // Also where it has gone since it was read.
        fs::remove_file(&file).unwrap();
        let mut options = start();
        options.settle(&read_from("prefork.toml"));
        assert_eq!(options.config.as_deref(), Some(&*file));

        // Where there was none, there is none.
        let mut options = start();
        options.settle(&read_from("embedded default"));
        assert_eq!(options.config, None);

        // A name is one also where nothing is there.
        let mut options = Options {
            config: Some("./other/../shop.toml".into()),
            ..start()
        };
        options.settle(&read_from("shop.toml"));
        let named = directory.path().join("other/../shop.toml");
        assert_eq!(options.config, Some(named));

        // Flags that describe a pool leave no place for a file.
        let mut options = Options {
            workers: Some("2".to_owned()),
            ..start()
        };
        options.settle(&read_from("command line"));
        assert_eq!(options.config, None);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found_and_not_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("prefork.toml");
        std::os::unix::fs::symlink("nowhere.toml", &file).unwrap();
        let options = Options {
            directory: Some(directory.path().to_owned()),
            ..Options::default()
        };
        let error = super::super::load(&options).unwrap_err();
        assert_eq!(error.exit_code(), 78);
        let said = error.to_string();
        assert!(said.contains("a link to nowhere.toml"), "{said}");
    }

    #[test]
    fn the_own_program_is_found_where_it_was_called() {
        let found = own_program(&working_directory()).unwrap();
        assert!(is_same(&found, Path::new("/proc/self/exe")), "{found:?}");
    }
}
