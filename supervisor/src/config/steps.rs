//! `[reload]`: commands that are run around a reload.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::checked::RunAs;
use super::error::Fault;
use super::host::Host;
use super::section::{Section, expected, string};
use super::{pool, program, units};

const COMMANDS: &str = "a list of commands such as [[\"./migrate\", \"up\"]]";
const COMMAND: &str = "a program and its arguments, as in [\"./migrate\", \"up\"]";

/// How long a command may take where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The longest that it may take.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Commands that are run around a reload, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    /// Before anything is touched: the absolute path of a program, and its arguments.
    pub before: Vec<Vec<String>>,
    /// Once the new generation is in force.
    pub after: Vec<Vec<String>>,
    /// How long each may take.
    pub timeout: Duration,
    /// Whom they run as.
    pub run_as: Option<RunAs>,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            before: Vec::new(),
            after: Vec::new(),
            timeout: TIMEOUT,
            run_as: None,
        }
    }
}

impl Steps {
    /// Whether it is as where nothing is said.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The keys and values, for people.
    pub(super) fn settings(&self) -> [(&'static str, String); 4] {
        let shown = |commands: &[Vec<String>]| {
            let commands: Vec<String> = commands.iter().map(|words| words.join(" ")).collect();
            match commands.is_empty() {
                true => "none".to_owned(),
                false => commands.join("; "),
            }
        };
        let user = self.run_as.as_ref().map(|run_as| run_as.user.clone());
        [
            ("before", shown(&self.before)),
            ("after", shown(&self.after)),
            ("timeout", units::show_duration(self.timeout)),
            (
                "user",
                user.unwrap_or_else(|| "the supervisor's".to_owned()),
            ),
        ]
    }
}

/// As it stands in a configuration, on one line.
impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self
            .settings()
            .map(|(key, value)| format!("{key} = {value}"));
        f.write_str(&settings.join(", "))
    }
}

/// Reads the section; without one nothing is run.
pub(super) fn read(section: Option<Section<'_>>, host: &Host) -> Steps {
    let Some(mut section) = section else {
        return Steps::default();
    };
    let [before, after] = ["before", "after"].map(|key| {
        let commands = section.list(key, COMMANDS, |element| command(element.get_ref(), host));
        let commands = commands.map_or_else(Vec::new, |list| list.value);
        commands.into_iter().map(|it| it.value).collect()
    });
    let shortest = Duration::from_millis(1);
    let timeout = section.duration("timeout", TIMEOUT, shortest..=LONGEST);
    let run_as = pool::read_run_as(&mut section, host);
    section.finish();
    Steps {
        before,
        after,
        timeout: timeout.value,
        run_as,
    }
}

fn command(value: &DeValue<'_>, host: &Host) -> Result<Vec<String>, Fault> {
    let DeValue::Array(words) = value else {
        return Err(expected(COMMAND, value));
    };
    let words = words.iter().map(|word| string(word.get_ref(), COMMAND));
    let mut words: Vec<String> = words
        .map(|word| word.map(str::to_owned))
        .collect::<Result<_, _>>()?;
    let Some(first) = words.first_mut() else {
        return Err(Fault::new("a command without a program").help(COMMAND));
    };
    let program = program::find(first, host)?;
    *first = program
        .to_str()
        .map(str::to_owned)
        .ok_or_else(|| Fault::new(format!("{}: not valid UTF-8", program.display())))?;
    if let Some(nul) = words.iter().find(|word| word.contains('\0')) {
        let nul = nul.escape_debug();
        return Err(Fault::new(format!("a NUL byte in \"{nul}\"")));
    }
    Ok(words)
}
