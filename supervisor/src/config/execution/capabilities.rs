//! What workers keep of capabilities(7).

use std::fs;

use serde::{Deserialize, Serialize};

use super::super::error::Fault;
use super::super::host::Host;
use super::super::section::{Section, nearest, string};

/// By number, from 0 (linux/capability.h).
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// To set a priority before one's own.
pub(in crate::config) const SYS_NICE: u64 = 1 << 23;
/// To raise a hard limit.
pub(in crate::config) const SYS_RESOURCE: u64 = 1 << 24;

/// A set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(u64);

impl Capabilities {
    /// A bit for each, by its number in linux/capability.h.
    pub fn mask(self) -> u64 {
        self.0
    }

    /// The names, as they are written in the configuration.
    pub(super) fn show(&self) -> String {
        let kept =
            |(number, name): (usize, &&'static str)| (self.0 & (1 << number) != 0).then_some(*name);
        let names: Vec<&str> = NAMES.iter().enumerate().filter_map(kept).collect();
        match names.as_slice() {
            [] => "none".to_owned(),
            names => names.join(" "),
        }
    }
}

/// What this process may use and pass on: `CapPrm` of proc_pid_status(5).
/// Nothing where there is no `/proc`.
pub(in crate::config) fn permitted() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

pub(super) fn read(section: &mut Section<'_>, host: &Host) -> Option<Capabilities> {
    const WHAT: &str = "an array such as [\"net_bind_service\"]";
    let list = section.list("capabilities", WHAT, |element| {
        one(
            string(element.get_ref(), "a capability's name")?,
            host.capabilities,
        )
    })?;
    let mask = list.value.iter().fold(0, |mask, one| mask | one.value);
    Some(Capabilities(mask))
}

fn one(text: &str, ours: u64) -> Result<u64, Fault> {
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_prefix("cap_").unwrap_or(&lower);
    let Some(number) = NAMES.iter().position(|known| *known == name) else {
        let fault = Fault::new(format!("no capability \"{}\"", text.escape_debug()));
        return Err(fault.help(nearest(name, &NAMES)));
    };
    let mask = 1 << number;
    if ours & mask == 0 {
        return Err(Fault::new(format!(
            "workers cannot keep {name}: this process has not got it"
        ))
        .help("start prefork as root, or with AmbientCapabilities= of its unit"));
    }
    Ok(mask)
}
