//! What a supervisor after this one needs and nobody else may see: a directory
//! for the owner alone, in the runtime directory, with a file for each
//! certificate in force and one for the ticket keys. `state.json` says which
//! certificates those are, and holds nothing of them.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::config::Pool;
use crate::tls::certificate::{self, Pem};
use crate::tls::{Certificate, SavedTickets, Tickets};

/// Its name in the runtime directory.
const NAME: &str = "secrets";

/// The file with the ticket keys.
const TICKETS: &str = "tickets.json";

/// What a certificate's file is called after its id.
const SUFFIX: &str = ".certificate.json";

/// No file is longer: two times what a certificate and a key may have, as JSON.
const MOST_BYTES: u64 = 8 << 20;

/// A certificate with its key, as it is kept.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Secret {
    chain: String,
    key: String,
}

/// Leaves the key out, so that no log has it by accident.
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

/// The directory, and what is in it.
#[derive(Debug)]
pub(crate) struct Vault {
    directory: PathBuf,
    /// The certificates that are in it; unknown before the first look.
    kept: Option<BTreeSet<String>>,
    /// Whether the last write failed, which is said once.
    failing: bool,
}

impl Vault {
    /// The one in this runtime directory; nothing is written yet.
    pub(crate) fn new(runtime_dir: &Path) -> Self {
        Self {
            directory: runtime_dir.join(NAME),
            kept: None,
            failing: false,
        }
    }

    /// Keeps these certificates and no others, and the ticket keys where they
    /// have changed. To be called before a state is written that names them.
    pub(crate) fn keep<'a>(
        &mut self,
        certificates: impl Iterator<Item = &'a Certificate>,
        tickets: &mut Tickets,
    ) {
        let wanted: Vec<&Certificate> = certificates.collect();
        if wanted.is_empty() && self.kept.as_ref().is_some_and(BTreeSet::is_empty) {
            return;
        }
        match self.try_to_keep(&wanted, tickets) {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    let path = self.directory.display();
                    warn!(
                        "cannot keep certificates in {path} for a supervisor after this one: {error}"
                    );
                }
            }
        }
    }

    fn try_to_keep(&mut self, wanted: &[&Certificate], tickets: &mut Tickets) -> io::Result<()> {
        let ids: BTreeSet<String> = wanted.iter().map(|it| it.id.clone()).collect();
        if wanted.is_empty() {
            self.remove();
            self.kept = Some(ids);
            return Ok(());
        }
        if self.kept.is_none() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&self.directory)?;
            check_owner(&self.directory)?;
            self.kept = Some(self.found()?);
            tickets.changed = true;
        }
        let kept = self.kept.clone().unwrap_or_default();
        for certificate in wanted {
            if let (false, Some(pem)) = (kept.contains(&certificate.id), &certificate.pem) {
                let secret = Secret::of(pem);
                self.write(&file_name(&certificate.id), &secret)?;
            }
        }
        for id in kept.difference(&ids) {
            let _ = fs::remove_file(self.directory.join(file_name(id)));
        }
        self.kept = Some(ids);
        if tickets.changed {
            self.write(TICKETS, &tickets.save())?;
            tickets.changed = false;
        }
        Ok(())
    }

    /// Removes all of it: nothing is left to go on from.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_dir_all(&self.directory);
    }

    /// The ticket keys of the supervisor before this one.
    pub(crate) fn tickets(&self) -> Option<SavedTickets> {
        self.read(TICKETS).ok()
    }

    /// The certificates that are in it.
    fn found(&self) -> io::Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            found.extend(id.map(str::to_owned));
        }
        Ok(found)
    }

    fn secret(&self, id: &str) -> Option<Secret> {
        let secret: Secret = self.read(&file_name(id)).ok()?;
        (certificate::id(&secret.clone().into_pem()) == id).then_some(secret)
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, name: &str) -> io::Result<T> {
        check_owner(&self.directory)?;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.directory.join(name))?;
        let mut text = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Written beside and renamed, so that it is whole whenever we are killed.
    fn write(&self, name: &str, content: &impl Serialize) -> io::Result<()> {
        let path = self.directory.join(name);
        let new = self.directory.join(format!("{name}.new"));
        // What a supervisor left that was killed here; nothing else is written to.
        let _ = fs::remove_file(&new);
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec(content)?)?;
        fs::rename(&new, &path)
    }

    /// Gives the certificates of a pool their keys back, which a state has not:
    /// from here, else from `handed`, else from the files as they are now.
    pub(crate) fn fill(&self, pool: &mut Pool, handed: &[Secret]) {
        let name = pool.policy.name.clone();
        for certificate in pool.certificates_mut() {
            if certificate.pem.is_some() {
                continue;
            }
            let handed = || {
                let named = |secret: &&Secret| {
                    certificate::id(&(*secret).clone().into_pem()) == certificate.id
                };
                handed.iter().find(named).cloned()
            };
            match handed().or_else(|| self.secret(&certificate.id)) {
                Some(secret) => certificate.pem = Some(Arc::new(secret.into_pem())),
                None => from_files(&name, certificate),
            }
        }
    }
}

/// The certificate as its files are now, where nobody has kept it.
fn from_files(pool: &str, certificate: &mut Certificate) {
    match certificate::read(&certificate.cert, &certificate.key) {
        Ok(read) => {
            if read.id != certificate.id {
                let title = certificate.title();
                warn!(
                    pool,
                    "the certificate for {title} that was in force is not kept anywhere: \
                     new workers get the one that is in {} now",
                    certificate.cert.display()
                );
            }
            *certificate = read;
        }
        Err(error) => warn!(
            pool,
            "the certificate for {} is not kept anywhere: {}; new workers cannot start before \
             a reload with one that can be used",
            certificate.title(),
            error.problem
        ),
    }
}

impl Secret {
    pub(crate) fn of(pem: &Pem) -> Self {
        Self {
            chain: pem.chain.clone(),
            key: pem.key.clone(),
        }
    }

    pub(crate) fn into_pem(self) -> Pem {
        Pem {
            chain: self.chain,
            key: self.key,
        }
    }
}

fn file_name(id: &str) -> String {
    format!("{id}{SUFFIX}")
}

/// Whether the directory is ours and nobody else's.
fn check_owner(directory: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(directory)?;
    let ours = found.is_dir()
        && found.uid() == nix::unistd::geteuid().as_raw()
        && found.mode() & 0o077 == 0;
    if ours {
        return Ok(());
    }
    Err(io::Error::other(
        "it is not a directory that only the supervisor's user may enter",
    ))
}
