//! Where a worker listens that no supervisor started.

use crate::error::WorkerError;

/// The addresses to listen on: every `--listen ADDRESS` of the command line,
/// else `PREFORK_LISTEN` (separated by commas), else the program's own default.
pub(crate) fn addresses(default: Vec<String>) -> Result<Vec<String>, WorkerError> {
    let mut named = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--listen" {
            named.push(arguments.next().ok_or_else(|| WorkerError::Listen {
                address: argument,
                problem: "an address has to follow".to_owned(),
            })?);
        } else if let Some(address) = argument.strip_prefix("--listen=") {
            named.push(address.to_owned());
        }
    }
    if named.is_empty()
        && let Ok(listed) = std::env::var("PREFORK_LISTEN")
    {
        named.extend(listed.split(',').map(|address| address.trim().to_owned()));
    }
    Ok(if named.is_empty() { default } else { named })
}
