//! `prefork completions`, and what a shell asks while an operator types: the pools and
//! workers that there are now.

use std::path::PathBuf;
use std::time::Duration;

use clap_complete::Shell;
use prefork_api::Status;

use super::args::Candidates;
use super::client::{Client, Deadline, read};
use super::error::Error;
use super::local::command;
use super::terminal::Terminal;

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

/// Fits the names of pools and workers into what clap makes for bash.
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
        --*) [[ "${COMP_WORDS[COMP_CWORD - 1]}" != --all ]] && return ;;
        describe | pause | resume | drain | kill | logs | reload | requests | restart | tell | scale | status) ;;
        *) return ;;
    esac
    [[ -z "$kind" || "$word" == -* ]] && return
    local names
    names="$("${COMP_WORDS[0]}" "${directory[@]}" __complete "$kind" 2> /dev/null)"
    COMPREPLY=($(compgen -W "$names" -- "$word"))
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
        --all | describe | pause | resume | drain | kill | logs | reload | requests | restart | tell | scale | status) ;;
        *) kind="" ;;
    esac
    if [[ -z "$kind" || "${words[CURRENT]}" == -* ]]; then
        _prefork_words "$@"
        return
    fi
    names=(${(f)"$("${words[1]}" "${directory[@]}" __complete "$kind" 2> /dev/null)"})
    compadd -a names
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
complete -c prefork -n "__fish_seen_subcommand_from logs requests restart tell" -f -a "(prefork __complete targets 2> /dev/null)"
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
    let runtime_dir = crate::config::runtime_dir(runtime_dir.as_deref());
    let client = Client::new(&runtime_dir);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return;
    };
    let asked = runtime.block_on(async {
        let patience = Deadline::after(PATIENCE);
        patience.bound(client.document("/v1/status")).await
    });
    if let Some(Ok(document)) = asked
        && let Ok(status) = read::<Status>(&document)
    {
        // A shell that has gone wants nothing.
        let _ = terminal.data(names(kind, &status));
    }
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
