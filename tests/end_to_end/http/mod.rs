//! HTTP: what clients get, and the limits that they are held to.

mod access_log;
mod client_certificates;
mod crowds;
mod fronts;
mod limits;
mod load_client;
mod long_work;
mod proxy_protocol;
pub(crate) mod serving;
mod tls;
mod trusted_proxies;
