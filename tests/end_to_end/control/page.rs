//! The page at the admin address, as browsers have it: what strangers say is text, and its
//! own script is the only one that runs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use flate2::read::ZlibDecoder;
use serde_json::json;

use crate::harness::cli;
use crate::harness::deadline::{PATIENCE, eventually};
use crate::harness::http;
use crate::harness::load::Load;
use crate::harness::{Pool, Prefork};

/// How long a browser may take to draw a page.
const LONGEST: Duration = Duration::from_secs(90);

/// What a worker says that would like to be more than text: markup, a writing direction,
/// and more than anybody reads.
fn hostile() -> String {
    let longest = "x".repeat(60_000);
    format!("<script>document.title='taken'</script><b>\u{202e}{longest}")
}

/// A supervisor with a worker that says it.
fn with_hostile_worker() -> Prefork {
    let odd = Pool::test_worker("odd", 1).text("heartbeat_timeout", "5m");
    let prefork = Prefork::start(&[odd, Pool::bundled("web", 1)]);
    // Its own reports would say something else.
    prefork.order("odd", 0, "silent");
    let report = json!({
        "type": "health", "seq": 1_000_000, "in_flight": 0, "connections": 0,
        "loop_lag_us": 0, "status": hostile(),
    });
    prefork.order("odd", 0, format!("write {report}\n"));
    eventually("it has been said", PATIENCE, || {
        page(&prefork).contains("taken")
    });
    prefork
}

fn page(prefork: &Prefork) -> String {
    http::get(prefork.admin(), "/").expect("it answers").body
}

#[test]
fn what_a_worker_says_is_text_on_a_page_that_runs_one_script() {
    let prefork = with_hostile_worker();
    let answer = http::get(prefork.admin(), "/").expect("it answers");
    let policy = answer
        .header("content-security-policy")
        .expect("it has one");
    assert!(policy.contains("script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.body.matches("<script").count(), 1, "{}", answer.body);
    assert!(answer.body.contains("&lt;script&gt;document.title"));
    assert!(!answer.body.contains('\u{202e}'));
    assert!(answer.body.len() < 30_000, "{}", answer.body.len());
}

/// A browser, where there is one.
fn browser() -> Option<&'static str> {
    let found = ["chromium", "chromium-browser"].into_iter().find(|name| {
        let asked = Command::new(name).arg("--version").output();
        asked.is_ok_and(|asked| asked.status.success())
    });
    if found.is_none() {
        eprintln!("SKIPPED: the page in a browser: no chromium");
    }
    found
}

/// Has the browser look at an address for a few seconds of its own time: what it says.
#[track_caller]
fn look(browser: &str, home: &Path, args: &[&str], address: SocketAddr) -> String {
    let mut command = Command::new(browser);
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
        ])
        .args(["--no-first-run", "--virtual-time-budget=6000"])
        .arg(format!("--user-data-dir={}", home.display()))
        .args(args)
        .arg(format!("http://{address}/"));
    let said = cli::finish(&mut command, LONGEST);
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout
}

/// A picture's size, and the colour of its first pixel (PNG, third edition).
fn picture(file: &Path) -> ((u32, u32), [u8; 3]) {
    let bytes = fs::read(file).expect("there is a picture");
    assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"));
    let number = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four"));
    let size = (number(16), number(20));
    let (mut at, mut data) = (8, Vec::new());
    while at + 12 <= bytes.len() {
        let length = number(at) as usize;
        if &bytes[at + 4..at + 8] == b"IDAT" {
            data.extend_from_slice(&bytes[at + 8..at + 8 + length]);
        }
        at += length + 12;
    }
    // The filter of a row, then its first pixel: no filter changes that of the first row.
    let mut row = [0; 4];
    let mut pixels = ZlibDecoder::new(data.as_slice());
    pixels.read_exact(&mut row).expect("there are pixels");
    (size, [row[1], row[2], row[3]])
}

#[test]
#[ignore = "starts a browser six times: `.ci/run` does"]
fn in_full_a_browser_shows_the_page_light_and_dark_wide_and_narrow() {
    let Some(browser) = browser() else { return };
    let prefork = with_hostile_worker();
    let load = Load::start(prefork.address("web"), 1);
    eventually("there is a line of what was served", PATIENCE, || {
        let page = page(&prefork);
        page.contains("aria-label=\"requests per second, the last ten minutes\"")
    });
    load.stop_flawless();
    let home = prefork.dir().join("home");
    let said = look(browser, &home, &["--dump-dom"], prefork.admin());
    assert!(said.contains("<title>ready · prefork</title>"), "{said}");
    for words in ["web", "1 of 1 workers ready", "Last events", "requests/s"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(
        said.contains("&lt;script&gt;document.title='taken'"),
        "{said}"
    );
    assert_eq!(said.matches("<script").count(), 1, "{said}");
    for (scheme, is_light) in [("1", true), ("0", false)] {
        for size in [(1280, 900), (500, 900)] {
            let file = prefork.dir().join("page.png");
            let shot = format!("--screenshot={}", file.display());
            let window = format!("--window-size={},{}", size.0, size.1);
            let scheme = format!("--blink-settings=preferredColorScheme={scheme}");
            look(browser, &home, &[&shot, &window, &scheme], prefork.admin());
            let (drawn, [red, green, blue]) = picture(&file);
            assert_eq!(drawn, size);
            let light = u32::from(red) + u32::from(green) + u32::from(blue) > 3 * 127;
            assert_eq!(light, is_light, "{scheme}");
            fs::remove_file(file).expect("it was drawn");
        }
    }
}

/// Stands between a browser and the admin address: the first page that it passes on says
/// that the service stopped, so that only a page that takes itself anew says what is.
fn with_a_first_page_of_yesterday(admin: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let address = listener.local_addr().expect("it has an address");
    std::thread::spawn(move || {
        let mut is_first = true;
        for client in listener.incoming().flatten() {
            // A browser opens connections that it does not use.
            let is_page = pass_on(client, admin, is_first).unwrap_or(false);
            is_first &= !is_page;
        }
    });
    address
}

/// Passes one request on: whether it was for the page.
fn pass_on(mut client: TcpStream, admin: SocketAddr, is_first: bool) -> std::io::Result<bool> {
    client.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut request = String::new();
    BufReader::new(&client).read_line(&mut request)?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    if path.is_empty() {
        return Ok(false);
    }
    let mut server = TcpStream::connect(admin)?;
    write!(
        server,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    server.read_to_string(&mut answer)?;
    if is_first {
        answer = answer.replace("<h1 class=\"ready\">ready", "<h1 class=\"ready\">gone.");
    }
    client.write_all(answer.as_bytes())?;
    Ok(path == "/")
}

#[test]
#[ignore = "starts a browser: `.ci/run` does"]
fn in_full_the_page_takes_itself_anew() {
    let Some(browser) = browser() else { return };
    let prefork = Prefork::start(&[Pool::bundled("web", 1)]);
    let address = with_a_first_page_of_yesterday(prefork.admin());
    let home = prefork.dir().join("home");
    let said = look(browser, &home, &["--dump-dom"], address);
    assert!(said.contains("<h1 class=\"ready\">ready</h1>"), "{said}");
    assert!(!said.contains("gone."), "{said}");
}
