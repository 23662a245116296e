//! The exposition in OpenMetrics' format, read by a parser that is not ours.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::{Pool, Prefork};

/// Reads an exposition as strictly as the Python client of Prometheus does, and says of
/// how many families it is.
const PARSE: &str = "\
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(sys.stdin.read()))
kinds = {family.name: (family.type, family.unit) for family in families}
assert kinds['prefork_http_requests'][0] == 'counter', kinds
assert kinds['prefork_http_request_duration_seconds'] == ('histogram', 'seconds'), kinds
assert kinds['prefork_http_sent_bytes'] == ('counter', 'bytes'), kinds
assert kinds['hits'][0] == 'unknown', kinds
print(len(families))
";

/// What is answered to a scrape: its head and its body.
fn scraped(admin: SocketAddr, accept: &str) -> (String, String) {
    let mut stream = TcpStream::connect(admin).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("there is a head");
    (head.to_ascii_lowercase(), body.to_owned())
}

/// A Python that has the client of Prometheus.
fn python() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("python3"))
        .find(|python| {
            let import = ["-c", "import prometheus_client.openmetrics.parser"];
            let mut command = Command::new(python);
            let tried = command.args(import).stderr(Stdio::null());
            tried.status().is_ok_and(|status| status.success())
        })
}

#[test]
fn openmetrics_is_had_where_it_is_asked_for_and_read_by_its_own_parser() {
    let prefork = Prefork::start(&[Pool::bundled("web", 2), Pool::test_worker("app", 1)]);
    let report = r#"write {"type":"metrics","seq":1,"families":[{"name":"hits","help":"With \"quotes\".","type":"counter","series":[{"labels":{"till":"a,le=\"1\""},"value":3.0}]},{"name":"job_seconds","help":"Times.","type":"histogram","series":[{"buckets":[[1.0,1],[10.0,1]],"sum":0.5,"count":1}]}]}"#;
    prefork.order("app", 0, format!("{report}\n"));
    eventually("it is exported", PATIENCE, || {
        prefork.metric("job_seconds_count", &[("pool", "app")]) == 1.0
    });
    let (head, _) = scraped(prefork.admin(), "*/*");
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    let (head, body) = scraped(
        prefork.admin(),
        "application/openmetrics-text;version=1.0.0",
    );
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(body.ends_with("\n# EOF\n"), "{body}");

    let Some(python) = python() else {
        eprintln!("SKIPPED: no python3 here has prometheus_client, which reads OpenMetrics");
        return;
    };
    let mut parser = Command::new(python)
        .args(["-c", PARSE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it was run before");
    let mut stdin = parser.stdin.take().expect("stdin is piped");
    stdin.write_all(body.as_bytes()).expect("it is read");
    drop(stdin);
    let output = parser.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{body}");
    let families: usize = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .expect("a number");
    assert!(families > 50, "{families}");
}
