//! The parsers of what systemd says about a unit (`systemd.service(5)`, `systemctl(1)`), and the settings of
//! a unit that would cost connections. Pure: text in, values out.

use crate::proto::Reading;
use std::fmt;
use std::time::Duration;

/// The unit that this process belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) name: String,
    /// It belongs to a user's manager (`systemd --user`) and not to the system's.
    pub(crate) user: bool,
}

/// The unit named in `/proc/PID/cgroup` (`cgroups(7)`). `None` outside of a service, for example in a login
/// session. A service may divide its control group (`Delegate=`), so the last part of the path that names
/// a service counts.
pub(crate) fn unit_of(cgroup: &str) -> Option<Unit> {
    let path = |of: &str| cgroup.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(of));
    // If there are two hierarchies, the one with systemd's name is systemd's own. But it may belong to a
    // manager outside of this container, and then it names no unit in here.
    ["name=systemd:", ":"].into_iter().find_map(|of| unit_at(path(of)?))
}

fn unit_at(path: &str) -> Option<Unit> {
    let parts: Vec<&str> = path.split('/').collect();
    let at = parts.iter().rposition(|part| part.ends_with(".service"))?;
    let name = parts[at];
    if name.starts_with("user@") {
        return None; // in a session of this user, but in no service
    }
    // systemd puts `_` before a name that the kernel uses itself.
    let name = name.strip_prefix('_').unwrap_or(name).to_owned();
    Some(Unit { name, user: parts[..at].iter().any(|part| part.starts_with("user@")) })
}

/// The output of `systemctl show`: a line `NAME=VALUE` for each property.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Properties(Vec<(String, String)>);

impl Properties {
    pub(crate) fn parse(text: &str) -> Properties {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Properties(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Empty if the property is missing.
    pub(crate) fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(one, _)| one == name);
        found.map_or("", |(_, value)| value)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name).parse().ok()
    }

    fn is_yes(&self, name: &str) -> bool {
        self.get(name) == "yes"
    }

    /// Is this word one of the property's value?
    fn lists(&self, name: &str, word: &str) -> bool {
        self.get(name).split_ascii_whitespace().any(|one| one == word)
    }

    /// `None`: `infinity`, or the property is missing.
    fn time(&self, name: &str) -> Option<Duration> {
        parse_time(self.get(name))
    }

    /// The number of the unit's job, if it has one.
    pub(crate) fn job(&self) -> Option<u64> {
        self.number("Job").filter(|job| *job > 0)
    }
}

/// The properties that [`reading`] needs.
pub(crate) const STATE: &[&str] = &[
    "Job",
    "MainPID",
    "ActiveState",
    "SubState",
    "Restart",
    "RestartPreventExitStatus",
    "RestartForceExitStatus",
];

/// The kind of a job, from the output of `systemctl list-jobs`: a line `NUMBER UNIT KIND STATE` for each.
pub(crate) fn job_kind(list: &str, job: u64) -> Option<&str> {
    list.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()?.parse() == Ok(job)).then(|| words.nth(1))?
    })
}

/// What systemd wants of the unit.
///
/// - To the main process, at a TERM: the unit's job tells. If there is no job, somebody else has sent the
///   TERM. Then the service is wanted up if `Restart=` starts it again after exit code 0.
/// - To a detached daemon (no `main_pid`): wanted up unless the unit has been stopped. A unit that has
///   failed has not been stopped.
///
/// `None` if the unit has another main process: then it says nothing about this one.
pub(crate) fn reading(
    unit: &Properties,
    job: Option<&str>,
    main_pid: Option<i32>,
) -> Option<Reading> {
    if main_pid.is_some_and(|pid| unit.get("MainPID") != pid.to_string()) {
        return None;
    }
    let wanted = match (job, main_pid) {
        (Some("stop"), _) => false,
        (Some("restart" | "try-restart"), _) | (Some(_), None) => true,
        (Some(_) | None, Some(_)) => starts_again(unit),
        (None, None) => {
            let between = unit.get("SubState").contains("auto-restart");
            unit.get("ActiveState") != "inactive" || between
        }
    };
    Some(if wanted { Reading::Up } else { Reading::Down })
}

/// Is the service started again after the main process has ended by itself with exit code 0?
fn starts_again(unit: &Properties) -> bool {
    let restarts = matches!(unit.get("Restart"), "always" | "on-success");
    unit.lists("RestartForceExitStatus", "0")
        || restarts && !unit.lists("RestartPreventExitStatus", "0")
}

/// A time span as systemd prints it: `1min 30s`. `None` for `infinity`, and for text that is no time span.
fn parse_time(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for word in text.split_ascii_whitespace() {
        let digits = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
        let number: f64 = word[..digits].parse().ok()?;
        let unit = match &word[digits..] {
            "" | "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            "month" => 2_629_800.0,
            "y" => 31_557_600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number * unit).ok()?;
        total = total.checked_add(part)?;
    }
    (!text.is_empty()).then_some(total)
}

// ---- settings that would cost connections ----

/// The properties that [`findings`] needs.
pub(crate) const SETTINGS: &[&str] = &[
    "Type",
    "NotifyAccess",
    "KillMode",
    "KillSignal",
    "RestartKillSignal",
    "SendSIGHUP",
    "SendSIGKILL",
    "TimeoutStopUSec",
    "WatchdogUSec",
    "Restart",
    "RestartPreventExitStatus",
    "RestartForceExitStatus",
    "SuccessExitStatus",
    "RemainAfterExit",
    "StartLimitIntervalUSec",
    "StartLimitBurst",
    "PIDFile",
    "RuntimeDirectory",
    "RuntimeDirectoryPreserve",
    "ExecReload",
    "FileDescriptorStoreMax",
    "PrivateTmp",
    "DynamicUser",
    "ProcSubset",
    "PrivatePIDs",
    "RestrictAddressFamilies",
    "SystemCallFilter",
    "MemoryMax",
    "OOMPolicy",
];

/// After that time a stop is ended by KILL. `None`: never.
pub(crate) fn stop_limit(unit: &Properties) -> Option<Duration> {
    unit.time("TimeoutStopUSec").filter(|_| unit.get("SendSIGKILL") != "no")
}

/// Is a keeper of use after a crash? Not if systemd ends it together with the launcher, or keeps the
/// sockets itself. `stored`: they are in its descriptor store.
pub(crate) fn lets_a_keeper_live(unit: &Properties, stored: bool) -> bool {
    !stored && !matches!(unit.get("KillMode"), "control-group" | "mixed")
}

/// What the service itself does, as far as it matters for the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// The launcher notifies systemd: the feature `systemd` is on.
    pub(crate) notifies: bool,
    pub(crate) drain_timeout: Option<Duration>,
    pub(crate) leave_time: Option<Duration>,
    pub(crate) probation: Option<Duration>,
    /// A signal restarts the service in place.
    pub(crate) reloads: bool,
    /// The folder of the PID file.
    pub(crate) folder: String,
}

/// A setting of the unit with which restarts would not be seamless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The setting as it is: `KillMode=mixed`.
    pub(crate) setting: String,
    /// The setting as it should be: `KillMode=process`.
    pub(crate) instead: &'static str,
    /// What would happen.
    pub(crate) why: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; set {}", self.setting, self.why, self.instead)
    }
}

/// The settings of the unit that would cost connections, the worst first.
pub(crate) fn findings(unit: &Properties, own: &Own) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut find = |setting: &str, instead, why| {
        let setting = setting.strip_suffix("USec").map_or_else(
            || format!("{setting}={}", unit.get(setting)),
            |name| format!("{name}Sec={}", unit.get(setting)),
        );
        found.push(Finding { setting, instead, why });
    };
    let kind = unit.get("Type");
    if !matches!(kind, "simple" | "exec" | "notify" | "notify-reload" | "") {
        find(
            "Type",
            "Type=notify with the feature `systemd`, else Type=exec",
            "the launcher must stay the main process for as long as its daemon runs",
        );
    }
    let notify = kind.starts_with("notify");
    if notify && !own.notifies {
        find(
            "Type",
            "Type=exec, or build with the feature `systemd`",
            "nobody says READY=1 in this build, so each start times out",
        );
    }
    if notify && own.notifies && unit.get("NotifyAccess") == "none" {
        find(
            "NotifyAccess",
            "NotifyAccess=main",
            "systemd drops what the launcher says, so each start times out",
        );
    }
    if kind == "notify-reload" && !own.reloads {
        find(
            "Type",
            "Type=notify, or Config::reload_signals([SIGHUP])",
            "`systemctl reload` sends a signal that restarts nothing here, and waits in vain",
        );
    }
    if unit.time("WatchdogUSec").is_some_and(|time| !time.is_zero()) && !own.notifies {
        find(
            "WatchdogUSec",
            "WatchdogSec=0, or build with the feature `systemd`",
            "nobody says WATCHDOG=1 in this build, so systemd ends the service again and again",
        );
    }
    match unit.get("KillMode") {
        "control-group" => find(
            "KillMode",
            "KillMode=process",
            "a restart ends the daemon with its launcher: nobody serves until the next has started",
        ),
        "mixed" if unit.is_yes("SendSIGKILL") => find(
            "KillMode",
            "KillMode=process",
            "a restart KILLs the daemon that serves on detached, and all that is in flight",
        ),
        "none" => find(
            "KillMode",
            "KillMode=process",
            "nobody sends TERM, so neither a restart nor a stop ends what runs",
        ),
        _ => {}
    }
    let is_passed_on = |signal| !matches!(unit.get(signal), TERM | QUIT | PWR | "");
    const PASSED_ON: &str = "TERM, QUIT and PWR are understood as a restart or a stop; this signal is passed on \
                             to the daemon, which may end of it";
    if is_passed_on("KillSignal") {
        find("KillSignal", "KillSignal=SIGTERM", PASSED_ON);
    }
    // If it is not set, it has the value of KillSignal=.
    let restart_has_its_own = unit.get("RestartKillSignal") != unit.get("KillSignal");
    if restart_has_its_own && is_passed_on("RestartKillSignal") {
        find("RestartKillSignal", "RestartKillSignal=SIGTERM", PASSED_ON);
    }
    if !unit.get("PIDFile").is_empty() {
        find(
            "PIDFile",
            "PIDFile= to nothing",
            "when the launcher has gone, systemd takes the daemon in that file for the main process: a restart \
             waits for its end, and KILLs it after TimeoutStopSec=",
        );
    }
    if unit.is_yes("SendSIGHUP") {
        find(
            "SendSIGHUP",
            "SendSIGHUP=no",
            "the HUP behind the TERM is passed on to the daemon, which it may end",
        );
    }
    if !unit.get("RuntimeDirectory").is_empty()
        && unit.get("RuntimeDirectoryPreserve") == "no"
        && unit.get("RuntimeDirectory").split_ascii_whitespace().any(|folder| {
            own.folder.split('/').any(|part| part == folder.split('/').next().unwrap_or(folder))
        })
    {
        find(
            "RuntimeDirectoryPreserve",
            "RuntimeDirectoryPreserve=restart",
            "a restart removes the folder of the PID file, by which generations find each other",
        );
    }
    lasting::findings(unit, own, &mut find);
    let limits = unit.time("TimeoutStopUSec").zip(own.drain_timeout);
    let cuts = limits.is_some_and(|(stop, drain)| stop < drain);
    if cuts && own.leave_time.is_none() && !own.notifies {
        find(
            "TimeoutStopUSec",
            "TimeoutStopSec= longer than drain_timeout, or build with the feature `systemd`",
            "a stop is cut off before drain_timeout has passed",
        );
    }
    if unit.get("TimeoutStopUSec") == "infinity" && own.drain_timeout.is_none() && own.notifies {
        find(
            "TimeoutStopUSec",
            "TimeoutStopSec= to a time, or Config::drain_timeout",
            "nothing limits a stop: a client that never finishes holds up `systemctl stop` and a shutdown",
        );
    }
    sandbox::findings(unit, &mut find);
    if unit.get("Restart") == "no" {
        find(
            "Restart",
            "Restart=always",
            "nobody starts the service again after a crash, or after a TERM sent by hand",
        );
    } else if unit.is_yes("RemainAfterExit") {
        find(
            "RemainAfterExit",
            "RemainAfterExit=no",
            "the unit stays active when its launcher has gone, and is not started again",
        );
    }
    let burst = unit.number("StartLimitBurst").unwrap_or(5);
    if let Some(interval) = unit.time("StartLimitIntervalUSec").filter(|time| !time.is_zero()) {
        let paced = interval.as_secs_f64() / burst as f64 <= SLOWEST_PACE.as_secs_f64();
        if burst > 0 && (burst < FEWEST_STARTS || !paced) {
            find(
                "StartLimitBurst",
                "StartLimitIntervalSec=0",
                "a few restarts in a row are refused, and the old generation is left detached",
            );
        }
    }
    if own.reloads && unit.get("ExecReload").is_empty() && kind != "notify-reload" {
        find(
            "ExecReload",
            "ExecReload=seamless restart PIDFILE, which waits for the result",
            "`systemctl reload` is refused, though a signal restarts the service in place",
        );
    }
    found.extend(sandbox::refused_call(unit));
    found
}

/// As systemd shows them.
const TERM: &str = "15";
const QUIT: &str = "3";
const PWR: &str = "30";

/// Enough for a start, a restart, and another restart after a mistake.
const FEWEST_STARTS: u64 = 3;
/// systemd's own default is five starts in 10 s.
const SLOWEST_PACE: Duration = Duration::from_secs(10);

mod lasting;
mod sandbox;
#[cfg(test)]
mod tests;
