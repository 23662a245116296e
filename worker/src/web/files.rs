//! Serves a directory.

use std::path::{Path, PathBuf};

use hyper::body::Incoming;
use hyper::{Request, Uri};
use percent_encoding::percent_decode_str;
use tower_http::services::ServeDir;
use tower_service::Service;

use super::settings::SettingsError;
use super::{Answer, page};

/// A response whose file is being opened.
pub(super) type Opening = <ServeDir as Service<Request<Incoming>>>::Future;

/// A directory and the service of its files.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    service: ServeDir,
}

impl Files {
    /// Serves this directory, as it is found now: a relative path is one of
    /// the worker's working directory.
    pub(super) fn new(root: &Path) -> Result<Self, SettingsError> {
        let refuse = |problem: String| SettingsError::Root {
            path: root.to_owned(),
            problem,
        };
        let root = root
            .canonicalize()
            .map_err(|error| refuse(error.to_string()))?;
        // Reading it shows that this user may.
        std::fs::read_dir(&root).map_err(|error| refuse(error.to_string()))?;
        let service = ServeDir::new(&root)
            .precompressed_br()
            .precompressed_zstd()
            .precompressed_gzip();
        Ok(Self { root, service })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn answer(&self, request: Request<Incoming>) -> Answer {
        if let Some(refused) = page::not_allowed(&request) {
            return Answer::now(refused);
        }
        let missing = page::not_found(&request);
        if is_hidden(request.uri()) {
            return Answer::now(missing);
        }
        Answer::File {
            opening: self.service.clone().call(request),
            missing: Some(missing),
        }
    }
}

/// Whether a part of the path begins with a dot, once it is decoded: `.git`,
/// `.env` and the like are never meant for the public.
fn is_hidden(uri: &Uri) -> bool {
    percent_decode_str(uri.path())
        .decode_utf8_lossy()
        .split('/')
        .any(|segment| segment.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_segment_is_found_however_it_is_written() {
        for hidden in [
            "/.env",
            "/a/.git/config",
            "/%2egit",
            "/a%2F.git",
            "/../etc",
            "/a/%2E%2e/b",
        ] {
            assert!(is_hidden(&Uri::from_static(hidden)), "{hidden}");
        }
        for open in ["/", "/a.b", "/a./b", "/style.min.css", "/a%20.b"] {
            assert!(!is_hidden(&Uri::from_static(open)), "{open}");
        }
    }
}
