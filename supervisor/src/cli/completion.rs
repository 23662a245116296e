//! `prefork completions`, and what a shell asks while an operator types: the pools and
//! workers that there are now.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap_complete::Shell;
use prefork_api::{Event, Status};

use super::args::Candidates;
use super::client::{Client, Deadline, read};
use super::error::Error;
use super::local::command;
use super::terminal::Terminal;
use crate::listener;

/// What a runtime directory has, whoever else calls a socket as we do.
const STATE_FILE: &str = "state.json";

/// Who types waits no longer for a supervisor that does not answer. One that does, on a
/// machine with much to do, takes longer than a moment.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is named after each command, for bash and zsh.
const KINDS: &str = r#"            describe | pause | resume | drain | kill) kind="${kind:-workers}" ;;
            logs | requests | restart | tell) kind="${kind:-targets}" ;;
            reload | scale | status) kind="${kind:-pools}" ;;
            --all) [[ -n "$kind" ]] && kind=pools ;;"#;

/// Where they go.
const KINDS_HERE: &str = "@KINDS@";

/// Fits the names of pools, workers and the like into what clap makes for bash.
const BASH: &str = r#"
# The pools and workers that there are, asked of the supervisor.
_prefork_with_names() {
    COMPREPLY=()
    _prefork "$@"
    local kind="" word directory=() index
    for ((index = 1; index < COMP_CWORD; index++)); do
        word="${COMP_WORDS[index]}"
        case "$word" in
            --runtime-dir) directory=(--runtime-dir "${COMP_WORDS[index + 1]}") ;;
@KINDS@
        esac
    done
    word="${COMP_WORDS[COMP_CWORD]}"
    case "${COMP_WORDS[COMP_CWORD - 1]}" in
        --pool) kind=pools ;;
        --runtime-dir) kind=supervisors directory=() ;;
        --*) [[ "${COMP_WORDS[COMP_CWORD - 1]}" != --all ]] && return ;;
        describe | pause | resume | drain | kill | logs | reload | requests | restart | tell | scale | status) ;;
        *)
            ((COMP_CWORD >= 2)) && [[ "${COMP_WORDS[COMP_CWORD - 2]}" == tell ]] || return
            kind=commands
            ;;
    esac
    [[ -z "$kind" || "$word" == -* ]] && return
    local names
    names="$("${COMP_WORDS[0]}" "${directory[@]}" __complete "$kind" 2> /dev/null)"
    COMPREPLY=($(compgen -W "$names" -- "$word"))
    [[ "$kind" == supervisors ]] && COMPREPLY+=($(compgen -d -- "$word"))
}
complete -F _prefork_with_names -o nosort -o bashdefault -o default prefork 2> /dev/null ||
    complete -F _prefork_with_names -o bashdefault -o default prefork
"#;

/// The same for zsh, around the function that clap makes.
const ZSH: &str = r#"
# The pools and workers that there are, asked of the supervisor.
_prefork() {
    local kind="" index
    local -a directory names
    for ((index = 2; index < CURRENT; index++)); do
        case "${words[index]}" in
            --runtime-dir) directory=(--runtime-dir "${words[index + 1]}") ;;
@KINDS@
        esac
    done
    case "${words[CURRENT - 1]}" in
        --pool) kind=pools ;;
        --runtime-dir) kind=supervisors directory=() ;;
        --all | describe | pause | resume | drain | kill | logs | reload | requests | restart | tell | scale | status) ;;
        -*) kind="" ;;
        *)
            kind=""
            ((CURRENT > 2)) && [[ "${words[CURRENT - 2]}" == tell ]] && kind=commands
            ;;
    esac
    if [[ -z "$kind" || "${words[CURRENT]}" == -* ]]; then
        _prefork_words "$@"
        return
    fi
    names=(${(f)"$("${words[1]}" "${directory[@]}" __complete "$kind" 2> /dev/null)"})
    compadd -a names
    if [[ "$kind" == supervisors ]]; then
        _prefork_words "$@"
    fi
}
"#;

/// How clap's function for zsh begins, and what comes after its last one.
const ZSH_FUNCTION: &str = "\n_prefork() {\n";
const ZSH_END: &str = "\nif [ \"$funcstack[1]\"";

/// The same for fish.
const FISH: &str = r#"
# The pools and workers that there are, asked of the supervisor.
complete -c prefork -n "__fish_seen_subcommand_from describe pause resume drain kill; and not __fish_contains_opt all" -f -a "(prefork __complete workers 2> /dev/null)"
complete -c prefork -n "__fish_seen_subcommand_from pause resume drain kill; and __fish_contains_opt all" -f -a "(prefork __complete pools 2> /dev/null)"
complete -c prefork -n "__fish_seen_subcommand_from logs requests restart" -f -a "(prefork __complete targets 2> /dev/null)"
complete -c prefork -n "__fish_seen_subcommand_from tell; and string match -q tell -- (commandline -opc)[-1]" -f -a "(prefork __complete targets 2> /dev/null)"
complete -c prefork -n "__fish_seen_subcommand_from tell; and string match -q tell -- (commandline -opc)[-2]" -f -a "(prefork __complete commands 2> /dev/null)"
complete -c prefork -l runtime-dir -x -a "(prefork __complete supervisors 2> /dev/null; __fish_complete_directories)"
complete -c prefork -n "__fish_seen_subcommand_from reload scale status" -f -a "(prefork __complete pools 2> /dev/null)"
complete -c prefork -n "__fish_seen_subcommand_from events" -l pool -x -a "(prefork __complete pools 2> /dev/null)"
"#;

/// `prefork completions`.
pub(super) fn script(shell: Shell, terminal: Terminal) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "prefork", &mut script);
    match shell {
        Shell::Bash => script.extend(BASH.replace(KINDS_HERE, KINDS).bytes()),
        Shell::Fish => script.extend_from_slice(FISH.as_bytes()),
        Shell::Zsh => script = around(&String::from_utf8_lossy(&script)).into_bytes(),
        _ => {}
    }
    terminal.data(script)
}

/// Clap's script for zsh with our function in the place of its own, which is called for
/// all but names. A file of functions is run by its end, so ours comes before that.
fn around(script: &str) -> String {
    let renamed = script.replacen(ZSH_FUNCTION, "\n_prefork_words() {\n", 1);
    let ours = ZSH.replace(KINDS_HERE, KINDS);
    renamed.replacen(ZSH_END, &format!("{ours}{ZSH_END}"), 1)
}

/// Prints the names that there are, a line for each; none where no supervisor answers.
pub(super) fn candidates(kind: Candidates, runtime_dir: Option<PathBuf>, terminal: Terminal) {
    let names = match kind {
        Candidates::Supervisors => lines(supervisors()),
        _ => asked(kind, runtime_dir).unwrap_or_default(),
    };
    // A shell that has gone wants nothing.
    let _ = terminal.data(names);
}

/// What the supervisor knows, where it answers in time.
fn asked(kind: Candidates, runtime_dir: Option<PathBuf>) -> Option<String> {
    let client = Client::new(&crate::config::runtime_dir(runtime_dir.as_deref()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let asked = runtime.block_on(async {
        let asking = async {
            match kind {
                Candidates::Commands => Ok(lines(commands(&client).await?)),
                _ => read(&client.document("/v1/status").await?).map(|it| names(kind, &it)),
            }
        };
        Deadline::after(PATIENCE).bound(asking).await
    });
    asked?.ok()
}

/// The runtime directories of supervisors that run on this machine: whose control sockets
/// are listened on.
fn supervisors() -> BTreeSet<String> {
    let sockets = listener::unix_listeners().into_iter();
    let controls = sockets.filter(|path| path.ends_with("control.sock"));
    let directories = controls.filter_map(|path| Some(path.parent()?.to_owned()));
    let ours = directories.filter(|path| path.join(STATE_FILE).exists());
    ours.filter_map(|path| path.to_str().map(str::to_owned))
        .collect()
}

/// The application's commands that workers were told, as far as it is remembered.
async fn commands(client: &Client) -> Result<BTreeSet<String>, Error> {
    let mut events = client.follow("/v1/events?since=0&follow=0").await?;
    let mut commands = BTreeSet::new();
    while let Some(line) = events.next().await? {
        let event: Event = read(&line)?;
        if event.kind == "command" {
            commands.extend(told(&event.message).map(str::to_owned));
        }
    }
    Ok(commands)
}

/// The command of a line of the audit such as `tell web flush, asked for by …`. What a
/// shell would read as more than a word is none.
fn told(audit: &str) -> Option<&str> {
    let (what, _) = audit.strip_prefix("tell ")?.split_once(", asked for by")?;
    let (_, command) = what.split_once(' ')?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    (!command.is_empty() && command.chars().all(fits)).then_some(command)
}

fn lines(names: BTreeSet<String>) -> String {
    names.into_iter().map(|name| name + "\n").collect()
}

fn names(kind: Candidates, status: &Status) -> String {
    let mut names = String::new();
    for pool in &status.pools {
        if kind != Candidates::Workers {
            names.push_str(&format!("{}\n", pool.name));
        }
        if kind != Candidates::Pools {
            for worker in &pool.workers {
                names.push_str(&format!("{}/{}\n", pool.name, worker.slot));
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_known_by_the_audit_of_it() {
        let by = ", asked for by uid 0 pid 1: allowed";
        assert_eq!(
            told(&format!("tell web/0 cache.flush{by}")),
            Some("cache.flush")
        );
        for other in [
            "restart web",
            "tell web",
            "tell web two words",
            "tell web $(id)",
        ] {
            assert_eq!(told(&format!("{other}{by}")), None, "{other}");
        }
    }
}
