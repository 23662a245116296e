//! The time that whoever ends this process waits before it kills.

use super::checked::Config;
use super::units;

/// Where an engine's manifest tells its grace period: from inside a container nothing
/// else does.
pub const GRACE_PERIOD: &str = "PREFORK_GRACE_PERIOD";

/// What to say where an orderly stop may take longer than the `told` grace period;
/// `None` for one that nobody tells.
pub fn outlasts_grace_period(config: &Config, told: Option<&str>) -> Option<String> {
    let told = told?;
    let Ok(grace) = units::parse_duration(told) else {
        return Some(format!(
            "${GRACE_PERIOD} is no duration such as \"45s\", but \"{}\"",
            told.escape_debug()
        ));
    };
    let delay = config.supervisor.stop_delay;
    let drains = config.pools.iter().map(|pool| pool.policy.drain_timeout);
    let drain = drains.max().unwrap_or_default();
    let whole = delay.saturating_add(drain);
    (whole >= grace).then(|| {
        let [delay, drain, grace] = [delay, drain, grace].map(units::show_duration);
        format!(
            "a stop may take {delay} (`stop_delay`) and {drain} (the longest `drain_timeout`), and is \
             cut by SIGKILL after {grace} (${GRACE_PERIOD}): give it longer, or lower them"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Host, Options, parse};
    use super::*;

    fn said(grace: Option<&str>) -> Option<String> {
        let host = Host::current(&Options::default()).unwrap();
        let text = "[supervisor]\nstop_delay = \"5s\"\n\
            [pool.web]\nlisten = [\"127.0.0.1:0\"]\ndrain_timeout = \"20s\"\n\
            [pool.api]\nlisten = [\"127.0.0.2:0\"]\ndrain_timeout = \"30s\"\n";
        let config = parse(text, "prefork.toml", &host).unwrap();
        outlasts_grace_period(&config, grace)
    }

    #[test]
    fn a_grace_period_that_a_stop_outlasts_is_told_of() {
        assert_eq!(said(None), None);
        assert_eq!(said(Some("36s")), None);
        // Nothing is left to kill who has not finished.
        let words = said(Some("35s")).unwrap();
        assert!(words.contains("5s (`stop_delay`)"), "{words}");
        assert!(words.contains("30s (the longest"), "{words}");
        assert!(words.contains("SIGKILL after 35s"), "{words}");
    }

    #[test]
    fn a_grace_period_that_is_none_is_told_of() {
        assert!(said(Some("forty")).unwrap().contains("\"forty\""));
    }
}
