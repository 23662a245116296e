//! Serves a directory: tower-http's file service, and around it what is ours to
//! decide.

mod body;
mod condition;
mod content;
mod path;
mod root;
mod validators;

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{Either, Empty, Full};
use hyper::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, HeaderMap, HeaderValue, RANGE,
    VARY,
};
use hyper::http::request::Parts;
use hyper::{Request, Response, StatusCode, Uri};
use tower_http::services::ServeDir;
use tower_service::Service;

use crate::settings::{Settings, SettingsError};
use body::OpenFiles;
use condition::Conditions;
use content::Source;
use root::Root;
use validators::Versions;

use crate::{Body, page};
pub(crate) use body::Sending;
pub(crate) use root::Links;

/// A directory and the service of its files.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
    directory: Root,
    open: Rc<OpenFiles>,
    versions: Versions,
    not_found: Option<Uri>,
    fallback: Option<Uri>,
    cache_control: Vec<(String, HeaderValue)>,
}

impl Files {
    /// Serves the directory `root`, as it is found now: a relative path is one
    /// of the worker's working directory.
    pub(crate) fn new(root: &Path, settings: Settings) -> Result<Self, SettingsError> {
        let refuse = |error: std::io::Error| SettingsError::Root {
            path: root.to_owned(),
            problem: error.to_string(),
        };
        let path = root.canonicalize().map_err(refuse)?;
        let opened = Root::open(&path, settings.symlinks).map_err(refuse)?;
        let page = |key, page: Option<String>| {
            let Some(page) = page else { return Ok(None) };
            match opened.has_file(Path::new(&page)) {
                Ok(()) => Ok(path::page(&page)),
                Err(error) => Err(SettingsError::Page {
                    key,
                    page,
                    problem: error.to_string(),
                }),
            }
        };
        Ok(Self {
            root: path,
            not_found: page("not_found", settings.not_found)?,
            fallback: page("fallback", settings.fallback)?,
            cache_control: settings.cache_control,
            directory: opened,
            open: OpenFiles::new(),
            versions: Versions::default(),
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Answers a GET or HEAD; of the latter, the content is for others to cut.
    pub(crate) async fn answer(&self, mut request: Parts) -> Response<Body> {
        if !path::is_public(request.uri.path()) {
            return self.missing(&request).await;
        }
        let (mut response, conditions) = self.look(&mut request).await;
        if response.status() == StatusCode::NOT_FOUND {
            match &self.fallback {
                Some(page) if path::is_route(request.uri.path()) => {
                    request.headers.remove(RANGE);
                    (response, _) = self.open(&request, page, &conditions, None).await;
                }
                _ => return self.missing(&request).await,
            }
        }
        self.finish(request.uri.path(), &mut response);
        response
    }

    /// Answers a GET or HEAD of a file that is there.
    pub(crate) async fn find(&self, mut request: Parts) -> Option<Response<Body>> {
        if !path::is_public(request.uri.path()) {
            return None;
        }
        let (mut response, _) = self.look(&mut request).await;
        if response.status() == StatusCode::NOT_FOUND {
            return None;
        }
        self.finish(request.uri.path(), &mut response);
        Some(response)
    }

    /// What there is for a request, and the conditions that it has made.
    async fn look(&self, request: &mut Parts) -> (Response<Body>, Conditions) {
        let part = condition::prepare(&request.method, &mut request.headers);
        let conditions = Conditions::take(&mut request.headers);
        let (mut response, opened) = self.open(request, &request.uri, &conditions, None).await;
        if let Some(range) = part.and_then(|part| part.second_try(&response)) {
            match range {
                Some(range) => request.headers.insert(RANGE, range),
                None => request.headers.remove(RANGE),
            };
            let again = self.open(request, &request.uri, &conditions, opened);
            (response, _) = again.await;
        }
        (response, conditions)
    }

    /// What there is at a path of the directory, for a request like this one; only
    /// its head where the conditions say so.
    async fn open(
        &self,
        like: &Parts,
        uri: &Uri,
        conditions: &Conditions,
        again: Option<Arc<Source>>,
    ) -> (Response<Body>, Option<Arc<Source>>) {
        let headers = like.headers.clone();
        let (mut response, served) = self.call(uri.clone(), headers, again).await;
        if let Some(served) = &served {
            let version = self.versions.of(served).await;
            if let Some(status) = conditions.judge(&version) {
                response = Response::new(Either::Left(Full::default()));
                *response.status_mut() = status;
            }
            if response.status() != StatusCode::PRECONDITION_FAILED {
                version.tell(response.headers_mut());
            }
        }
        (response, served)
    }

    /// Asks the file service, as for a GET: a HEAD is answered as that is.
    async fn call(
        &self,
        uri: Uri,
        headers: HeaderMap,
        again: Option<Arc<Source>>,
    ) -> (Response<Body>, Option<Arc<Source>>) {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = path::origin_form(uri);
        *request.headers_mut() = headers;
        let root = self.directory.for_request(again);
        let Ok(response) = ServeDir::with_backend("", root.clone())
            .precompressed_br()
            .precompressed_zstd()
            .precompressed_gzip()
            .ignore_multi_range_requests(true)
            .call(request)
            .await;
        // What the file service says of a file is kept, and how it reads it is not.
        let (head, _) = response.into_parts();
        let is_sent = matches!(head.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT);
        let length = head.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let chosen = root.take_chosen();
        let body = match (chosen.clone().filter(|_| is_sent), length) {
            (Some(source), Some(length)) => {
                Either::Right(Sending::new(source, length, Rc::clone(&self.open)))
            }
            _ => Either::Left(Full::default()),
        };
        (Response::from_parts(head, body), chosen)
    }

    /// There is nothing here: the site's own page, or the built-in one.
    async fn missing(&self, request: &Parts) -> Response<Body> {
        if let Some(page) = &self.not_found {
            let encodings = request.headers.get_all(ACCEPT_ENCODING).iter();
            let headers = encodings.map(|value| (ACCEPT_ENCODING, value.clone()));
            let (mut response, _) = self.call(page.clone(), headers.collect(), None).await;
            // It is gone where something else comes.
            if response.status() == StatusCode::OK {
                *response.status_mut() = StatusCode::NOT_FOUND;
                // No part of it can be what was asked for.
                response.headers_mut().remove(ACCEPT_RANGES);
                return response;
            }
        }
        page::not_found(&request.headers).map(Either::Left)
    }

    /// What the file service doesn't say of a file.
    fn finish<B>(&self, path: &str, response: &mut Response<B>) {
        let of_a_file = matches!(
            response.status(),
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::NOT_MODIFIED
        );
        if !of_a_file {
            return;
        }
        let headers = response.headers_mut();
        // A cache that is told nothing has changed must know for whom
        // (RFC 9110, 15.4.5).
        headers
            .entry(VARY)
            .or_insert(HeaderValue::from_static("accept-encoding"));
        let rules = self.cache_control.iter();
        if let Some((_, value)) = rules
            .into_iter()
            .find(|(prefix, _)| path.starts_with(prefix.as_str()))
        {
            headers.insert(CACHE_CONTROL, value.clone());
        }
    }
}
