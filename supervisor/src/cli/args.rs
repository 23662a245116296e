//! The arguments as clap reads them: every value is checked here, once.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use serde_json::Value;

use super::address::{PoolName, Target, Whom, WorkerAddress};
use super::fleet::AdminUrl;
use super::scaffold::CrateName;
use super::terminal::Format;
use crate::config::{Options, parse_duration};

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   refused or failed
  2   wrong usage
  3   no supervisor is running
  4   no such pool or slot
  5   timed out
  6   degraded (status --exit-code)
  7   not ready (status --exit-code)
  77  permission denied
  78  invalid configuration";

/// Runs a supervisor of HTTP workers, and controls one that is running.
#[derive(Debug, Parser)]
#[command(name = "prefork", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The supervisor's runtime directory, which holds its control socket.
    #[arg(long, global = true, value_name = "DIR", env = "PREFORK_RUNTIME_DIR")]
    pub(crate) runtime_dir: Option<PathBuf>,
    /// How long to wait for the answer, such as 500ms, 10s or 5m.
    ///
    /// By default 10s for questions and `tell`, 5m for `reload` and `rollback`, 60s for everything else.
    #[arg(long, global = true, value_name = "DURATION", value_parser = timeout)]
    pub(crate) timeout: Option<Duration>,
    /// Tables for people, which is the default, or the API's JSON for programs.
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    /// Print each step of a job. Without it a terminal shows one line of progress.
    #[arg(long, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the supervisor in the foreground.
    Run(Run),
    /// Check a configuration, and show the settings that result from it.
    Check(Check),
    #[command(flatten)]
    Question(Question),
    #[command(flatten)]
    Order(Order),
    /// Begin a program that is supervised.
    #[command(subcommand)]
    New(New),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print what an argument may be now, for completions.
    #[command(name = "__complete", hide = true)]
    Candidates {
        /// Of what.
        kind: Candidates,
    },
    /// Print the manual page, or write all pages to a directory.
    Man {
        /// Write a page per command to this directory.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// What can be begun.
#[derive(Debug, Subcommand)]
pub(crate) enum New {
    /// Write a crate that is a worker, with a test and what it is deployed by.
    ///
    /// It is the folder NAME: a program of axum, a test, prefork.toml, and a unit for systemd
    /// and a Containerfile in `deploy`.
    Worker {
        /// The crate's name, which is that of its pool, too.
        name: CrateName,
        /// The sources of the crate prefork-worker: the folder `worker` of prefork's.
        ///
        /// By default those that this program was built in.
        #[arg(long, value_name = "DIR")]
        sdk: Option<PathBuf>,
    },
}

/// What an operator can ask of a running supervisor.
#[derive(Debug, Subcommand)]
pub(crate) enum Question {
    /// Show the supervisor, its pools and workers.
    Status(Status),
    /// Show everything about one worker.
    Describe {
        /// The worker, as POOL/SLOT.
        worker: WorkerAddress,
    },
    /// Show the requests that are being served, the oldest first.
    Requests {
        /// Only those of this pool, or of this worker as POOL/SLOT.
        target: Option<Target>,
        /// Only those that are older: 500ms, 2s.
        #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
        older_than: Option<Duration>,
    },
    /// Show rates, latencies, requests and events live on a terminal.
    Top(Top),
    /// Show the channels between supervisor and workers.
    Channels,
    /// Show what happened. An event is a line of text on a terminal or with `--output table`,
    /// and a line of JSON otherwise.
    Events(Events),
    /// Show the end of the log, with what the workers wrote.
    ///
    /// The supervisor keeps the last megabyte in memory. After an upgrade or a restart it is empty.
    Logs(Logs),
    /// Check whether the service is healthy. Exit 0 means yes, 1 means no. Made for probes.
    ///
    /// Without a flag it checks --ready.
    Health {
        /// Whether the supervisor answers.
        #[arg(long, conflicts_with = "ready")]
        live: bool,
        /// Whether every pool has as many ready workers as its `ready` setting asks for. The default.
        #[arg(long)]
        ready: bool,
    },
    /// Show the metrics, in Prometheus' text format.
    Metrics,
}

/// What an operator can want of a running supervisor.
#[derive(Debug, Subcommand)]
pub(crate) enum Order {
    /// Load the configuration again and apply it. If that fails, keep the old one.
    ///
    /// New workers take the place of the old ones step by step, each ready before its
    /// predecessor drains. If one fails, the old ones are put back.
    Reload(Reload),
    /// Accept the canary, and let its reload go on. Return when the reload is done.
    Promote,
    /// Reject the canary, and undo its reload. Return when that is done.
    Abort,
    /// Go back to the generation before the one in force. Files on the disk do not matter.
    ///
    /// Program, settings and directories are as they were then. Certificates stay as they are
    /// now. Workers are replaced as a reload replaces them. The last three generations are kept
    /// until the supervisor ends.
    Rollback(Rollback),
    /// Replace the workers of a pool, or one worker. Each successor is ready before the old one drains.
    ///
    /// A pool needs no `--all` here: nothing is lost by a restart.
    Restart {
        #[command(flatten)]
        whom: Whom,
    },
    /// Change the number of workers of a pool.
    Scale {
        /// The pool.
        pool: PoolName,
        /// The new number. With a sign, the difference: +2 for two more, -1 for one fewer.
        #[arg(allow_negative_numbers = true, required_unless_present = "file")]
        workers: Option<Workers>,
        /// Use the number from the configuration file.
        #[arg(long, conflicts_with = "workers")]
        file: bool,
    },
    /// Stop a worker from accepting connections. It keeps the ones that it has.
    Pause {
        #[command(flatten)]
        whom: Whom,
    },
    /// Let a paused worker accept connections again.
    Resume {
        #[command(flatten)]
        whom: Whom,
    },
    /// Let a worker finish its requests and leave. Its successor starts at once.
    Drain {
        #[command(flatten)]
        whom: Whom,
    },
    /// Kill a worker with SIGKILL. Its requests are lost, and its successor starts at once.
    Kill {
        #[command(flatten)]
        whom: Whom,
    },
    /// Send a command of the application to the workers of a pool, or to one worker. Show each reply.
    Tell {
        /// The pool, or the worker as POOL/SLOT.
        target: Target,
        /// The application's command.
        #[arg(value_name = "COMMAND")]
        name: String,
        /// Its arguments, as JSON.
        #[arg(value_name = "JSON", value_parser = json)]
        args: Option<Value>,
    },
    /// Replace the supervisor's program while it runs. The workers stay.
    ///
    /// The process, its workers and their connections stay. The new program first reads the
    /// state of the running one. If it cannot use it, nothing changes.
    Upgrade {
        /// The new program. By default the file where the running one was found.
        #[arg(long, value_name = "PATH")]
        program: Option<PathBuf>,
    },
    /// Stop the supervisor and its workers. Return when they are gone.
    Stop {
        /// Do not wait for requests that are being served. They are lost.
        #[arg(long)]
        now: bool,
    },
    /// Open the log files again. Use it after a rotation.
    ReopenLogs,
    /// Change how much the supervisor logs.
    LogLevel {
        /// The least important level that is logged.
        level: Level,
    },
    /// Wait until a condition is true. Exit 0 means that it is, 5 that the time was over first.
    ///
    /// If no supervisor is running yet, wait for one to start. Exit 3 means that none did in time.
    Wait {
        /// ready (every worker is ready, except those that are paused), drained (no worker is
        /// draining or stopping), or generation=N.
        #[arg(long = "for", value_name = "CONDITION")]
        condition: Condition,
    },
}

/// What a shell may want to complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Candidates {
    /// `web`.
    Pools,
    /// `web/0`.
    Workers,
    /// Both.
    Targets,
    /// What `tell` has told.
    Commands,
    /// The runtime directories of those that run.
    Supervisors,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file.
    ///
    /// By default ./prefork.toml, then /etc/prefork/prefork.toml, then built-in defaults.
    #[arg(long, value_name = "FILE", env = "PREFORK_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) run: Run,
    /// Show every setting in force, and where it comes from: the default, a line of the file,
    /// a flag or the environment.
    #[arg(long)]
    pub(crate) all: bool,
    /// Start one throwaway worker of each pool on a private address, ask it for `/`, stop it.
    ///
    /// No running supervisor is needed or disturbed. Without --timeout each worker has its
    /// pool's boot_timeout.
    #[arg(long)]
    pub(crate) boot: bool,
    /// Start a worker of this pool only.
    #[arg(long, value_name = "POOL", requires = "boot")]
    pub(crate) pool: Option<PoolName>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    config: ConfigFile,
    /// Listen here instead of what the file says: 127.0.0.1:8080, [::1]:8080, unix:/run/app.sock.
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// How many workers: a number, or `auto` for one per CPU.
    #[arg(long, value_name = "N")]
    workers: Option<String>,
    /// The directory that the bundled web server serves.
    #[arg(long, value_name = "DIR", conflicts_with = "program")]
    root: Option<PathBuf>,
    /// The address of /metrics and the status page. "" turns it off.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// The workers' program and its arguments, instead of the bundled web server.
    #[arg(last = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Reload {
    /// Reload only these pools. Everything else stays as it is.
    #[arg(value_name = "POOL")]
    pub(crate) pools: Vec<PoolName>,
    /// Replace all workers, also of pools in which nothing has changed.
    #[arg(long)]
    pub(crate) force: bool,
    /// Judge the first new workers before the others follow, also in a pool without
    /// a `canary` setting.
    #[arg(long)]
    pub(crate) canary: bool,
    /// Return when the configuration is checked and the reload has begun.
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) no_wait: bool,
    /// Show what would change, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The generation to go back to. By default the one before the one in force.
    #[arg(long, value_name = "GENERATION")]
    pub(crate) to: Option<u64>,
    /// Return when the rollback has begun.
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) no_wait: bool,
    /// Show what would change, and change nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Show this pool only.
    #[arg(value_name = "POOL", conflicts_with = "exit_code")]
    pub(crate) pool: Option<PoolName>,
    /// Show it again every second.
    #[arg(long, conflicts_with = "exit_code")]
    pub(crate) watch: bool,
    /// Exit with 6 where it is degraded, workers are missing but enough are ready, and with
    /// 7 where it is not ready.
    #[arg(long)]
    pub(crate) exit_code: bool,
    /// Ask the supervisor at this admin address, as in http://10.0.0.7:9919, and not the one
    /// here. May be repeated: all are shown in one table, as are all addresses of a name. Exits
    /// with 1 where one does not answer, and by --exit-code with 7.
    #[arg(long, value_name = "URL", conflicts_with = "pool")]
    pub(crate) url: Vec<AdminUrl>,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Draw one picture and end. Without it, `--output json` has a line for each interval.
    #[arg(long)]
    pub(crate) once: bool,
    /// What rates and latencies are measured over, and how often it is drawn.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub(crate) interval: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Go on with what happens next.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Begin with this sequence number, or that long ago: 120, 10m.
    #[arg(long, value_name = "N|DURATION", default_value = "0")]
    pub(crate) since: Since,
    /// Only what happened to this pool. May be given several times.
    #[arg(long, value_name = "POOL")]
    pub(crate) pool: Vec<PoolName>,
    /// Only events of this kind: exit, ready, command, … May be given several times.
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Only what is about this pool, or this worker as POOL/SLOT.
    pub(crate) target: Option<Target>,
    /// Go on with what is logged next.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Begin with this sequence number, or that long ago: 120, 10m.
    #[arg(long, value_name = "N|DURATION", default_value = "0")]
    pub(crate) since: Since,
}

/// Where a list of events begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// With this sequence number.
    Number(u64),
    /// This long ago.
    Ago(Duration),
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self::Number(number));
        }
        let ago = parse_duration(text).map(Self::Ago);
        ago.map_err(|error| format!("neither a sequence number nor a time such as 10m: {error}"))
    }
}

/// Whom an order of one worker concerns, as it is written.
#[derive(Debug, Args)]
struct WhomAsWritten {
    /// The worker, as POOL/SLOT, or a pool for every worker of it.
    #[arg(value_name = "WORKER|POOL")]
    target: Target,
    /// Every worker of the pool, without a question. Needed where there is no terminal.
    #[arg(long)]
    all: bool,
}

impl FromArgMatches for Whom {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let WhomAsWritten { target, all } = WhomAsWritten::from_arg_matches(matches)?;
        let wrong = |error| clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n"));
        Self::of(target, all).map_err(wrong)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Whom {
    fn augment_args(command: clap::Command) -> clap::Command {
        WhomAsWritten::augment_args(command)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        WhomAsWritten::augment_args_for_update(command)
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    /// The API's word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// What `wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// No worker is missing but those that an operator has paused.
    Ready,
    /// No process drains or stops.
    Drained,
    /// This generation or a later one is in force.
    Generation(u64),
}

/// How many workers a pool is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workers {
    /// So many.
    Exactly(u32),
    /// So many more than it has, or fewer.
    By(i32),
}

impl FromStr for Workers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = if text.starts_with(['+', '-']) {
            text.parse().map(Self::By).ok()
        } else {
            text.parse().map(Self::Exactly).ok()
        };
        read.ok_or_else(|| {
            "a number of workers, such as 4, or how many more or fewer: +2, -1".to_owned()
        })
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ready" => return Ok(Self::Ready),
            "drained" => return Ok(Self::Drained),
            _ => {}
        }
        text.strip_prefix("generation=")
            .filter(|number| !number.starts_with('+'))
            .and_then(|number| number.parse().ok())
            .map(Self::Generation)
            .ok_or_else(|| "wait for `ready`, `drained` or `generation=N`".to_owned())
    }
}

impl CommandLine {
    /// What clap has to know of it. A variable that is empty is none.
    pub(crate) fn definition(is_empty: impl Fn(&str) -> bool) -> clap::Command {
        let mut definition = Self::command();
        if is_empty("PREFORK_RUNTIME_DIR") {
            definition = definition.mut_arg("runtime_dir", |it| it.env(Resettable::Reset));
        }
        if is_empty("PREFORK_CONFIG") {
            for command in ["run", "check"] {
                definition = definition.mut_subcommand(command, |it| {
                    it.mut_arg("config", |it| it.env(Resettable::Reset))
                });
            }
        }
        definition
    }
}

impl Run {
    /// What the configuration needs to know of the command line.
    pub(crate) fn into_options(self, runtime_dir: Option<PathBuf>) -> Options {
        Options {
            config: self.config.config,
            listen: self.listen,
            workers: self.workers,
            root: self.root,
            program: self.program,
            runtime_dir,
            admin: self.admin,
            directory: None,
        }
    }
}

/// Not so short that asking is all that happens.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    let least = Duration::from_millis(100);
    match interval >= least {
        true => Ok(interval),
        false => Err("an interval is 100ms or more".to_owned()),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text)?;
    if timeout.is_zero() {
        return Err("it must be longer than nothing".to_owned());
    }
    Ok(timeout)
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("not JSON: {error}; a text needs its quotes: '\"text\"'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn run_takes_a_program_after_two_dashes() {
        let line = "prefork run --listen 127.0.0.1:0 --listen unix:/tmp/x --workers auto -- /bin/app --root x";
        let Command::Run(run) = parse(line).unwrap().command else {
            panic!("not run");
        };
        let options = run.into_options(None);
        assert_eq!(options.listen, ["127.0.0.1:0", "unix:/tmp/x"]);
        assert_eq!(options.workers.as_deref(), Some("auto"));
        assert_eq!(options.program, ["/bin/app", "--root", "x"]);
        assert_eq!(options.root, None);
    }

    #[test]
    fn global_flags_go_before_and_after_the_command() {
        for line in [
            "prefork --timeout 500ms --output json status",
            "prefork status --timeout 500ms --output json",
        ] {
            let global = parse(line).unwrap().global;
            assert_eq!(global.timeout, Some(Duration::from_millis(500)));
            assert_eq!(global.output, Some(Format::Json));
        }
    }

    #[test]
    fn wrong_usage_exits_with_2_and_says_what_would_be_right() {
        let cases = [
            ("prefork describe web/x", "`web/0`"),
            ("prefork scale web many", "+2"),
            ("prefork scale web --2", "--2"),
            ("prefork scale web +", "+2"),
            ("prefork scale web", "<WORKERS>"),
            ("prefork scale web 4 --file", "cannot be used with"),
            ("prefork wait --for generation=+1", "generation=N"),
            ("prefork status --timeout 10", "unit"),
            ("prefork status --timeout 0s", "longer"),
            ("prefork wait --for later", "generation=N"),
            ("prefork wait --for generation=x", "generation=N"),
            ("prefork tell web flush {x", "not JSON"),
            ("prefork reload --no-wait --dry-run", "cannot be used with"),
            ("prefork log-level loud", "debug"),
            ("prefork status web --exit-code", "cannot be used with"),
            ("prefork kill --all web/0", "name the pool, `web`"),
            ("prefork events --since soon", "sequence number"),
            ("prefork requests web/x", "`web/0`"),
            ("prefork requests --older-than 2", "unit"),
            ("prefork health --live --ready", "--ready"),
            ("prefork", "Usage"),
        ];
        for (line, advice) in cases {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(advice), "{line}: {error}");
        }
    }

    #[test]
    fn a_sign_makes_a_number_of_workers_relative() {
        for (text, wanted) in [
            ("4", Workers::Exactly(4)),
            ("+2", Workers::By(2)),
            ("-1", Workers::By(-1)),
            ("-10 --timeout 5s", Workers::By(-10)),
        ] {
            let line = parse(&format!("prefork scale web {text}")).unwrap();
            let Command::Order(Order::Scale { workers, .. }) = line.command else {
                panic!("not scale");
            };
            assert_eq!(workers, Some(wanted), "{text}");
        }
    }

    #[test]
    fn conditions_are_read() {
        assert_eq!("ready".parse(), Ok(Condition::Ready));
        assert_eq!("drained".parse(), Ok(Condition::Drained));
        assert_eq!("generation=3".parse(), Ok(Condition::Generation(3)));
    }
}
