//! Which version of a file it is that is served: its tag and its time.
//!
//! A tag has to change with the content, and should be the same wherever the
//! content is the same. Time and length do not do for the first: stores and images
//! give all files one time, and two writes may fall into one tick of the file
//! system's clock. So a tag is made of the content, as long as it is no more than
//! [`HASHED`]; it is kept by what the kernel says of the file, whose `ctime` nobody
//! can set. A larger file's tag is made of that alone, which other machines do not
//! share. Neither is trusted until the file's last change is [`SETTLED`]: until then
//! one more change may look the same.
//!
//! A tag that is not there yet is made once for all who wait for it, and few are
//! made at a time: a thousand requests for a new file must neither read it a
//! thousand times nor hold a descriptor each.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::header::{ETAG, HeaderMap, HeaderValue, LAST_MODIFIED};
use ring::digest::{Context, SHA256};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::spawn_blocking;

use super::content::{self, Source, Stat};

/// The longest content that a tag is made of, in bytes.
const HASHED: u64 = 4 << 20;

/// How long after its last change a file can't change any more without being seen
/// to: far more than any clock's tick.
const SETTLED: Duration = Duration::from_secs(1);

/// Bytes that are read at a time.
const PART: usize = 256 * 1024;

/// Bytes of the digest that a tag is made of.
const LENGTH: usize = 16;

/// Contents that are read for their tags at a time.
const AT_A_TIME: usize = 8;

/// Tags that are kept; beyond that they are made again.
const MOST_KEPT: usize = 8192;

/// Times before this are not those of any change: 0 and 1 are what stores and images
/// give their files, and archives that know no time say 1980-01-01.
const FIRST_TIME: i64 = 315_532_800 + 24 * 60 * 60;

/// What is said of a file's version.
#[derive(Debug, Clone)]
pub(super) struct Version {
    /// None where the next change might leave it as it is.
    pub(super) tag: Option<HeaderValue>,
    /// In whole seconds since the epoch; none where it is no time of a change, or
    /// where its second is not over yet.
    pub(super) modified: Option<SystemTime>,
}

impl Version {
    /// Says it in a response's head.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        if let Some(tag) = &self.tag {
            headers.insert(ETAG, tag.clone());
        }
        let date = self.modified.map(httpdate::fmt_http_date);
        if let Some(date) = date.and_then(|date| HeaderValue::try_from(date).ok()) {
            headers.insert(LAST_MODIFIED, date);
        }
    }
}

/// By the device and the number of each file, and what it looks like.
type ByFile<T> = HashMap<(u64, u64), (Stat, T)>;

/// The tags of a site's files.
#[derive(Debug)]
pub(super) struct Versions {
    kept: RefCell<ByFile<HeaderValue>>,
    /// Those that are waited for and whose content nobody has begun to read.
    awaited: RefCell<ByFile<Weak<Awaited>>>,
    turns: Arc<Semaphore>,
}

/// A tag for all who wait for it; none if the content can't be read.
type Awaited = OnceCell<Option<HeaderValue>>;

impl Default for Versions {
    fn default() -> Self {
        Self {
            kept: RefCell::default(),
            awaited: RefCell::default(),
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
        }
    }
}

impl Versions {
    /// The version that is served.
    pub(super) async fn of(&self, served: &Arc<Source>) -> Version {
        let stat = served.stat();
        Version {
            modified: modified(&stat, SystemTime::now()),
            tag: match self.kept(&stat) {
                Some(tag) => Some(tag),
                None if stat.length > HASHED => self.tag_of_stat(&stat),
                None => self.tag_of_content(served).await,
            },
        }
    }

    fn kept(&self, stat: &Stat) -> Option<HeaderValue> {
        let kept = self.kept.borrow();
        let (known, tag) = kept.get(&stat.inode)?;
        (known == stat).then(|| tag.clone())
    }

    fn keep(&self, stat: Stat, tag: HeaderValue) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(stat.inode, (stat, tag));
    }

    fn tag_of_stat(&self, stat: &Stat) -> Option<HeaderValue> {
        if !is_settled(stat, SystemTime::now()) {
            return None;
        }
        let tag = tag(&digest_of_stat(stat))?;
        self.keep(*stat, tag.clone());
        Some(tag)
    }

    async fn tag_of_content(&self, served: &Arc<Source>) -> Option<HeaderValue> {
        let stat = served.stat();
        let awaited = self.awaited(stat);
        // Who makes it may go meanwhile; then the next one does.
        let made = awaited.get_or_init(async || {
            let turn = Arc::clone(&self.turns).acquire_owned().await.ok()?;
            // Whoever comes from now on may mean what is written from now on.
            self.awaited.borrow_mut().remove(&stat.inode);
            if let Some(tag) = self.kept(&stat) {
                return Some(tag);
            }
            let settled = is_settled(&stat, SystemTime::now());
            let file = Arc::clone(served);
            // It may have to wait for a disk, and takes its time in any case; its turn
            // is over when it is, also if nobody waits for it any more.
            let digest = spawn_blocking(move || {
                let digest = digest_of(&file, stat.length);
                drop(turn);
                digest
            });
            let tag = tag(&digest.await.ok()?.ok()?)?;
            if settled {
                self.keep(stat, tag.clone());
            }
            Some(tag)
        });
        made.await.clone()
    }

    /// The tag of a file that looks like this, which others may wait for already.
    fn awaited(&self, stat: Stat) -> Rc<Awaited> {
        let mut all = self.awaited.borrow_mut();
        if let Some((known, awaited)) = all.get(&stat.inode)
            && *known == stat
            && let Some(awaited) = awaited.upgrade()
        {
            return awaited;
        }
        if all.len() == all.capacity() {
            all.retain(|_, (_, awaited)| awaited.strong_count() > 0);
        }
        let awaited = Rc::default();
        all.insert(stat.inode, (stat, Rc::downgrade(&awaited)));
        awaited
    }
}

/// Whether any further change of the file would be seen.
fn is_settled(stat: &Stat, now: SystemTime) -> bool {
    let (seconds, nanos) = stat.changed;
    let Some(changed) = time(seconds, nanos) else {
        return false;
    };
    // A clock that was set back says nothing: it may come by this time again.
    now.duration_since(changed).is_ok_and(|ago| ago >= SETTLED)
}

fn modified(stat: &Stat, now: SystemTime) -> Option<SystemTime> {
    let (seconds, _) = stat.modified;
    let now = now.duration_since(UNIX_EPOCH).ok()?.as_secs();
    // A date is good for one second, so that second has to be over; and no later
    // one than the answer's may be said (RFC 9110, 8.8.2.1).
    let is_past = u64::try_from(seconds).is_ok_and(|seconds| seconds < now);
    time(seconds, 0).filter(|_| is_past && seconds >= FIRST_TIME)
}

fn time(seconds: i64, nanos: i64) -> Option<SystemTime> {
    let nanos = u32::try_from(nanos).ok()?;
    UNIX_EPOCH.checked_add(Duration::new(u64::try_from(seconds).ok()?, nanos))
}

fn digest_of(file: &Source, length: u64) -> io::Result<[u8; LENGTH]> {
    let file = file.for_a_moment()?;
    let mut context = Context::new(&SHA256);
    let mut at = 0;
    while at < length {
        let read = content::read(&file, at, PART)?;
        // It has become shorter: what there is is what is served.
        if read.is_empty() {
            break;
        }
        context.update(&read);
        at += read.len() as u64;
    }
    Ok(cut(context))
}

/// Digested as well, so that nobody learns the numbers of a server's files.
fn digest_of_stat(stat: &Stat) -> [u8; LENGTH] {
    let mut context = Context::new(&SHA256);
    let (device, inode) = stat.inode;
    for number in [device, inode, stat.length] {
        context.update(&number.to_le_bytes());
    }
    for (seconds, nanos) in [stat.modified, stat.changed] {
        context.update(&seconds.to_le_bytes());
        context.update(&nanos.to_le_bytes());
    }
    cut(context)
}

fn cut(context: Context) -> [u8; LENGTH] {
    let digest = context.finish();
    let first = digest.as_ref().first_chunk();
    *first.expect("a SHA-256 is longer")
}

/// A strong tag: other content never has it.
fn tag(digest: &[u8; LENGTH]) -> Option<HeaderValue> {
    let mut text = String::with_capacity(2 * LENGTH + 2);
    text.push('"');
    for byte in digest {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('"');
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(modified: i64, changed: SystemTime) -> Stat {
        let changed = changed.duration_since(UNIX_EPOCH).unwrap();
        Stat {
            is_dir: false,
            length: 1,
            inode: (1, 2),
            modified: (modified, 0),
            changed: (changed.as_secs().cast_signed(), 0),
        }
    }

    #[test]
    fn a_change_is_settled_when_no_other_one_can_look_the_same() {
        let now = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        let ago = |seconds| stat(0, now - Duration::from_secs(seconds));
        assert!(!is_settled(&ago(0), now));
        assert!(is_settled(&ago(1), now));
        assert!(!is_settled(&stat(0, now + Duration::from_secs(9)), now));
    }

    #[test]
    fn a_time_is_told_once_its_second_is_over_and_where_it_is_one() {
        let now = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        let told = |seconds| modified(&stat(seconds, now), now).is_some();
        assert!(told(1_999_999_999) && told(FIRST_TIME));
        for none in [2_000_000_000, i64::MAX, 0, 1, -1, i64::MIN, FIRST_TIME - 1] {
            assert!(!told(none), "{none}");
        }
    }

    #[test]
    fn a_tag_is_made_of_all_that_the_kernel_says() {
        let now = UNIX_EPOCH + Duration::from_secs(2_000_000_000);
        let one = stat(7, now);
        let others = [
            Stat { length: 2, ..one },
            Stat {
                inode: (1, 3),
                ..one
            },
            Stat {
                modified: (7, 1),
                ..one
            },
            Stat {
                changed: (one.changed.0, 1),
                ..one
            },
        ];
        for other in others {
            assert_ne!(digest_of_stat(&one), digest_of_stat(&other), "{other:?}");
        }
    }
}
