//! `http.trusted_proxies` and `http.client_header`: what is taken, and what is said of
//! the rest.

use super::messages::problem_of;
use super::valid;

#[test]
fn what_is_no_network_is_told_and_so_is_what_was_meant() {
    const HELP: &str = "(write an address, a network as in \"10.0.0.0/8\", or \"unix\")";
    for (settings, said) in [
        (
            "http.trusted_proxies = [\"localhost\"]",
            format!("\"localhost\" is no address or network {HELP}"),
        ),
        (
            "http.trusted_proxies = [\"10.0.0.0/33\"]",
            format!("\"10.0.0.0/33\" has a prefix of more than 32 bits {HELP}"),
        ),
        (
            "http.trusted_proxies = [\"10.1.2.3/8\"]",
            format!(
                "\"10.1.2.3/8\" has an address beyond its prefix (the network is \"10.0.0.0/8\") {HELP}"
            ),
        ),
        (
            "http.trusted_proxies = \"10.0.0.0/8\"",
            "`trusted_proxies`: expected an array such as [\"10.0.0.0/8\"], found string \
             \"10.0.0.0/8\" (write [\"10.0.0.0/8\"])"
                .to_owned(),
        ),
        (
            "http.trusted_proxies = []\nhttp.client_header = \"x-real-ip\"",
            "`client_header`: expected \"x-forwarded-for\" or \"forwarded\", found \"x-real-ip\""
                .to_owned(),
        ),
        (
            "http.client_header = \"forwarded\"",
            "`client_header`: `client_header` needs `trusted_proxies` (say whose header is \
             believed: trusted_proxies = [\"10.0.0.0/8\"])"
                .to_owned(),
        ),
    ] {
        assert_eq!(problem_of(settings), said);
    }
}

#[test]
fn an_empty_list_is_not_the_same_as_none() {
    let proxies = |lines: &str| {
        let text = format!("[pool.web]\nlisten = [\"127.0.0.1:1\"]\n{lines}");
        valid(&text).pools.remove(0).http.trusted_proxies
    };
    assert_eq!(proxies(""), None);
    assert_eq!(proxies("http.trusted_proxies = []"), Some(Vec::new()));
}
