//! The files that the web servers serve.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use anyhow::Result;

use crate::load::Page;
use crate::server::Site;

static SMALL_BODY: [u8; 1024] = small_body();
static LARGE_BODY: LazyLock<Vec<u8>> = LazyLock::new(large_body);

/// A page of 1 KiB.
pub(crate) const SMALL: Page = Page {
    path: "/small.html",
    body: &SMALL_BODY,
};

/// A download of 10 MiB.
pub(crate) fn large() -> Page {
    Page {
        path: "/large.bin",
        body: &LARGE_BODY,
    }
}

/// Text, so that nothing is gained or lost by its kind.
const fn small_body() -> [u8; 1024] {
    let mut body = [b'\n'; 1024];
    let mut index = 0;
    while index < body.len() {
        if index % 64 != 63 {
            body[index] = b'a' + (index % 23) as u8;
        }
        index += 1;
    }
    body
}

/// No two pages of it are the same, so that one sent for another shows.
fn large_body() -> Vec<u8> {
    (0..10_u32 << 18)
        .flat_map(|word| word.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

/// Writes them into a directory of the site's, and says which.
pub(crate) fn write(site: &Site) -> Result<PathBuf> {
    let root = site.dir.join("root");
    fs::create_dir_all(&root)?;
    for page in [SMALL, large()] {
        fs::write(root.join(page.path.trim_start_matches('/')), page.body)?;
    }
    Ok(root)
}
