//! The page that shows that all works, and which worker served it.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode};

use crate::page::{self, Page};
use prefork_worker::Context;

/// The welcome page, made once for the worker.
#[derive(Debug)]
pub(crate) struct Welcome {
    page: Page,
}

impl Welcome {
    pub(crate) fn new(context: &Context) -> Self {
        let worker = [
            ("pool", context.pool().to_owned()),
            ("slot", context.slot().to_string()),
            ("generation", context.generation().to_string()),
            ("pid", context.pid().to_string()),
        ];
        let rows: String = worker
            .iter()
            .map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>", escape(value)))
            .collect();
        let lines: String = worker
            .iter()
            .map(|(name, value)| format!("{name:<10}  {value}\n"))
            .collect();
        let html = include_str!("welcome.html").replace("<!-- worker -->", &rows);
        Self {
            page: Page {
                status: StatusCode::OK,
                html: html.into(),
                text: format!("prefork works\n\n{lines}").into(),
            },
        }
    }

    pub(crate) fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.uri().path() != "/" {
            page::not_found(request.headers())
        } else if let Some(refused) = page::not_allowed(request.method()) {
            refused
        } else {
            self.page.answer(request.headers())
        }
    }
}

/// Text as HTML shows it.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
