//! Where a worker listens that no supervisor started.

use crate::error::WorkerError;

/// What a command line without a supervisor asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To serve; these are the addresses that it names.
    Serve(Vec<String>),
    /// To be told how the program is called.
    Help,
}

/// Reads a command line, without the program's name. What is neither `--listen ADDRESS`
/// nor `--help` is refused, unless `has_others` says that the program reads more itself.
///
/// A flag with a slip of the pen would otherwise be passed over, and the program listen
/// somewhere else than it was told to.
pub(crate) fn read(
    mut arguments: impl Iterator<Item = String>,
    has_others: bool,
) -> Result<Wish, WorkerError> {
    let mut named = Vec::new();
    while let Some(argument) = arguments.next() {
        if argument == "--listen" {
            named.push(arguments.next().ok_or_else(|| WorkerError::Listen {
                address: argument,
                problem: "an address has to follow".to_owned(),
            })?);
        } else if let Some(address) = argument.strip_prefix("--listen=") {
            named.push(address.to_owned());
        } else if has_others {
            // The program's own to judge.
        } else if argument == "--help" || argument == "-h" {
            return Ok(Wish::Help);
        } else {
            return Err(WorkerError::Argument(argument));
        }
    }
    Ok(Wish::Serve(named))
}

/// The addresses to listen on: those of the command line, else `PREFORK_LISTEN`
/// (separated by commas), else the program's own default.
pub(crate) fn addresses(named: Vec<String>, default: Vec<String>) -> Vec<String> {
    if !named.is_empty() {
        return named;
    }
    match std::env::var("PREFORK_LISTEN") {
        Ok(listed) => listed
            .split(',')
            .map(|address| address.trim().to_owned())
            .collect(),
        Err(_) => default,
    }
}

/// How a program is called that no supervisor starts.
pub(crate) fn usage(program: &str, default: &[String]) -> String {
    format!(
        "usage: {program} [--listen ADDRESS]...\n\n\
         ADDRESS is 127.0.0.1:8080, [::1]:8080 or unix:/PATH. Without --listen the program \
         listens where PREFORK_LISTEN says, else on {}.",
        default.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str, has_others: bool) -> Result<Wish, String> {
        let arguments = line.split_whitespace().map(str::to_owned);
        read(arguments, has_others).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_known_is_refused_unless_the_program_reads_it() {
        let serve = |named: &[&str]| {
            let named = named.iter().map(|it| (*it).to_owned());
            Ok(Wish::Serve(named.collect()))
        };
        assert_eq!(of("", false), serve(&[]));
        assert_eq!(of("--listen a --listen=b", false), serve(&["a", "b"]));
        assert_eq!(of("--help", false), Ok(Wish::Help));
        for line in ["--listn a", "--listen a b", "-v"] {
            assert!(of(line, false).is_err(), "{line}");
        }
        assert_eq!(of("--listen a --help -v", true), serve(&["a"]));
        assert!(of("--listen", true).is_err());
    }
}
