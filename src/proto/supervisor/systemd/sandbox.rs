//! The settings of a unit's sandbox that would cost connections. Pure.

use super::{Finding, Properties};

/// Settings of the sandbox, and of the limits of memory.
pub(super) fn findings(unit: &Properties, find: &mut impl FnMut(&str, &'static str, &'static str)) {
    let survives = matches!(unit.get("KillMode"), "process" | "none");
    if unit.is_yes("DynamicUser") && survives {
        find(
            "DynamicUser",
            "User= to a user of its own",
            "it implies PrivateTmp=yes: each start gets a new /tmp, and the old one is removed under the \
             generation that still drains",
        );
    } else if unit.is_yes("PrivateTmp") && survives {
        find(
            "PrivateTmp",
            "PrivateTmp=disconnected (systemd 257), or PrivateTmp=no and TMPDIR= in a folder of its own",
            "each start gets a new /tmp, and the old one is removed under the generation that still drains",
        );
    }
    if unit.get("ProcSubset") == "pid" {
        find(
            "ProcSubset",
            "ProcSubset=all; ProtectProc=invisible may stay",
            "it hides the boot ID: an older generation that still drains cannot be proven, and a stop does \
             not wait for it",
        );
    }
    if unit.is_yes("PrivatePIDs") {
        find(
            "PrivatePIDs",
            "PrivatePIDs=no, or restart in place (Config::reload_signals)",
            "the launcher is PID 1 of a namespace: when it ends, the kernel KILLs the daemon",
        );
    }
    // Shown as a list of what is allowed, or after a `~` as a list of what is refused.
    let families = unit.get("RestrictAddressFamilies");
    let lists_unix =
        families.split_ascii_whitespace().any(|one| one.trim_start_matches('~') == "AF_UNIX");
    let refuses = families.starts_with('~');
    if !families.is_empty() && lists_unix == refuses {
        find(
            "RestrictAddressFamilies",
            "AF_UNIX as one of RestrictAddressFamilies=",
            "launcher and daemon speak by Unix sockets, so the service does not start",
        );
    }
    if !matches!(unit.get("MemoryMax"), "infinity" | "")
        && matches!(unit.get("OOMPolicy"), "stop" | "kill")
    {
        find(
            "OOMPolicy",
            "OOMPolicy=continue, and MemoryMax= above what two generations need",
            "if one generation is killed for lack of memory, systemd ends the one that serves as well",
        );
    }
}

/// System calls without which a generation does not start, or knows less of the older ones. All of systemd's
/// `@system-service` has them.
pub(super) const CALLS: &[&str] = &[
    "pidfd_open",
    "pidfd_send_signal",
    "execve",
    "socketpair",
    "sendmsg",
    "recvmsg",
    "accept4",
    "bind",
    "listen",
    "getsockopt",
    "fcntl",
    "flock",
    "pwrite64",
    "ftruncate",
    "rename",
];

/// A filter of system calls that refuses one of [`CALLS`]. It is shown as a list of what is allowed, or after a
/// `~` as a list of what is refused. Each call may stand with its error (`mount:EPERM`).
pub(super) fn refused_call(unit: &Properties) -> Option<Finding> {
    let filter = unit.get("SystemCallFilter");
    let (list, refuses) = match filter.strip_prefix('~') {
        Some(list) => (list, true),
        None => (filter, false),
    };
    let is_listed =
        |call: &str| list.split_ascii_whitespace().any(|one| one.split(':').next() == Some(call));
    let call = CALLS.iter().find(|call| !filter.is_empty() && is_listed(call) == refuses)?;
    let why = match *call {
        "pidfd_open" | "pidfd_send_signal" => {
            "without pidfds the predecessor is known by its lock on the PID file alone, and a stop may not wait \
             for older generations"
        }
        _ => "the service cannot start without that system call",
    };
    let setting = format!("SystemCallFilter= without {call}");
    Some(Finding { setting, instead: "SystemCallFilter=@system-service", why })
}
