//! On what terms workers run: what is read, shown and refused.

use super::messages::problem_of;
use super::*;

const POOL: &str = "[pool.web]\nlisten = [\"127.0.0.1:80\"]\n";

fn execution(settings: &str) -> Execution {
    valid(&format!("{POOL}{settings}")).pools[0]
        .execution
        .clone()
}

fn shown(settings: &str) -> Vec<String> {
    let execution = execution(settings);
    let default = Execution::default();
    let pairs = execution.settings().into_iter().zip(default.settings());
    let unusual = pairs.filter(|(ours, default)| ours != default);
    unusual
        .map(|((key, value), _)| format!("{key}: {value}"))
        .collect()
}

#[test]
fn nothing_said_means_no_new_privileges_and_the_rest_inherited() {
    let execution = execution("");
    assert_eq!(execution, Execution::default());
    assert!(execution.no_new_privs);
    assert_eq!(execution.capabilities, None);
}

#[test]
fn what_is_set_is_shown_as_it_is_meant() {
    let settings = r#"
        no_new_privs = false
        capabilities = ["CAP_NET_RAW", "net_bind_service"]
        rlimits = { stack = "8MiB", nofile = { soft = 1024, hard = 65_536 }, core = 0, nproc = "unlimited" }
        nice = -5
        cpu_affinity = [0, "1,3"]
        umask = "0027"
        working_directory = "/usr"
        kill_tree = false
    "#;
    let expected = [
        "no_new_privs: false",
        "capabilities: net_bind_service net_raw",
        "rlimits: core 0, nofile 1024 to 65536, nproc unlimited, stack 8MiB",
        "nice: -5",
        "cpu_affinity: 0 1,3",
        "umask: 0027",
        "working_directory: /usr",
        "kill_tree: false",
    ];
    assert_eq!(shown(settings), expected);
    assert_eq!(shown("capabilities = []"), ["capabilities: none"]);
    assert_eq!(shown("cpu_affinity = \"slot\""), ["cpu_affinity: slot"]);
    // So does the state that the next supervisor reads.
    let restored: Execution =
        serde_json::from_value(serde_json::to_value(execution(settings)).unwrap()).unwrap();
    assert_eq!(restored, execution(settings));
}

#[test]
fn a_state_that_was_written_before_is_read_with_the_defaults() {
    let restored: Execution = serde_json::from_str("{}").unwrap();
    assert_eq!(restored, Execution::default());
}

#[test]
fn each_mistake_has_its_own_words() {
    let cases = [
        (
            "rlimits = { nofiles = 1 }",
            "no limit `nofiles` (did you mean `nofile`?)",
        ),
        (
            "rlimits = { nofile = \"1MiB\" }",
            "`nofile`: expected a number or \"unlimited\", found string \"1MiB\"",
        ),
        (
            "rlimits = { core = \"1mb\" }",
            "`core`: expected a size such as \"512MiB\": \"mb\" is not a unit (write \"1MiB\" or \"1MB\")",
        ),
        (
            "rlimits = { nofile = { soft = 2, hard = 1 } }",
            "`nofile`: the soft limit, 2, is over the hard one, 1",
        ),
        (
            "rlimits = { nofile = { soft = 2 } }",
            "`nofile`: a limit in two parts has both `soft` and `hard` (nofile = { soft = 1024, hard = 65536 })",
        ),
        (
            "rlimits = { nofile = 9999999 }",
            "`nofile`: 9999999 is more than the kernel allows, 1048576 (raise it by sysctl fs.nr_open)",
        ),
        (
            "rlimits = { core = -1 }",
            "`core`: -1 is out of range (from 0 to 9223372036854775807)",
        ),
        (
            "nice = 20",
            "`nice`: 20 is out of range (from -20, which goes first, to 19, which gives way)",
        ),
        (
            "nice = \"high\"",
            "`nice`: expected an integer, found string \"high\"",
        ),
        (
            "capabilities = [\"net_bind\"]",
            "no capability \"net_bind\" (valid keys: net_admin, net_bind_service",
        ),
        (
            "capabilities = [\"net_bind_servce\"]",
            "no capability \"net_bind_servce\" (did you mean `net_bind_service`?)",
        ),
        (
            "cpu_affinity = \"slots\"",
            "`cpu_affinity`: expected \"slot\" or an array such as [0, 1] or [\"0-3\", \"4-7\"], found string \"slots\"",
        ),
        ("cpu_affinity = []", "`cpu_affinity` is empty (\"slot\")"),
        (
            "cpu_affinity = [9]",
            "processor 9 is not among this process's (they are 0-3)",
        ),
        (
            "cpu_affinity = [\"3-0\"]",
            "\"3-0\" is no list of processors (\"0-3,8\")",
        ),
        (
            "umask = \"888\"",
            "`umask`: expected permission bits from \"0000\" to \"0777\", found \"888\"",
        ),
        (
            "working_directory = \"/nowhere\"",
            "`working_directory`: /nowhere: No such file or directory (os error 2)",
        ),
    ];
    for (settings, expected) in cases {
        let found = problem_of(settings);
        assert!(found.starts_with(expected), "{settings}: {found}");
    }
}

#[test]
fn what_takes_rights_is_refused_to_who_has_none() {
    let host = Host {
        root: false,
        capabilities: 0,
        least_nice: 3,
        most_descriptors: u64::MAX,
        ..host()
    };
    let cases = [
        ("nice = 2", "2 goes before what this process may give, 3"),
        (
            "capabilities = [\"net_raw\"]",
            "workers cannot keep net_raw: this process has not got it",
        ),
        (
            "rlimits = { nofile = 9223372036854775807 }",
            "is over the hard limit of this process",
        ),
    ];
    for (settings, expected) in cases {
        let text = format!("{POOL}{settings}");
        let error = parse(&text, "prefork.toml", &host).unwrap_err().to_string();
        assert!(error.contains(expected), "{settings}: {error}");
        assert!(error.starts_with("prefork.toml:3:"), "{error}");
    }
    let text = format!("{POOL}nice = 3\ncapabilities = []\nrlimits = {{ core = 0 }}");
    parse(&text, "prefork.toml", &host).unwrap();
}
