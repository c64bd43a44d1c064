//! The command line, told once: what the help, the manual page and the completions of shells are made
//! from.

use super::Verb;

/// A command.
pub(crate) struct Command {
    pub(crate) verb: Verb,
    pub(crate) name: &'static str,
    pub(crate) operand: Operand,
    /// A few words, for a list.
    pub(crate) short: &'static str,
    pub(crate) about: &'static str,
    pub(crate) options: &'static [Flag],
    /// Exit codes.
    pub(crate) ends: &'static [(u8, &'static str)],
}

/// What a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    PidFile,
    /// One or more of them, patterns of them, or folders.
    PidFiles,
    /// Any number of them, or none.
    Folders,
}

impl Operand {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operand::PidFile => "PIDFILE",
            Operand::PidFiles => "PIDFILE...",
            Operand::Folders => "[FOLDER]...",
        }
    }
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    /// Without `--`.
    pub(crate) name: &'static str,
    pub(crate) value: Option<Value>,
    pub(crate) about: &'static str,
    /// It stands in one pair of brackets with the next one: one of both.
    pub(crate) or_next: bool,
}

/// What an option wants after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Time,
    User,
    Folder,
    Unit,
    Until,
}

impl Value {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Value::Time => "TIME",
            Value::User => "NAME",
            Value::Folder => "FOLDER",
            Value::Unit => "UNIT",
            Value::Until => "started|committed",
        }
    }
}

const fn flag(name: &'static str, value: Option<Value>, about: &'static str) -> Flag {
    Flag { name, value, about, or_next: false }
}

const fn or_next(flag: Flag) -> Flag {
    Flag { or_next: true, ..flag }
}

const JSON: Flag = flag("json", None, "Print one JSON object.");
const OPENMETRICS: Flag =
    flag("openmetrics", None, "Print metrics and counters in the format OpenMetrics 1.0.");
const PROMETHEUS: Flag = flag(
    "prometheus",
    None,
    "Print the same in the text format of Prometheus, for the textfile collector of node_exporter.",
);
const TIMEOUT: Flag =
    flag("timeout", Some(Value::Time), "How long to wait, like 60s, 500ms or 2m.");
const FORCE: Flag =
    flag("force", None, "Stop it even if the supervisor would start the service again.");
const WAIT: Flag = flag(
    "wait",
    Some(Value::Until),
    "Wait until a new generation serves, or until it has passed its probation.",
);
const USER: Flag = flag("user", Some(Value::User), "The user that the service will run as.");
const SERVICE: Flag =
    flag("service", Some(Value::Folder), "The folder of the service, with the script run.");
const UNIT: Flag = flag("unit", Some(Value::Unit), "The systemd unit of the service.");

pub(crate) const PROGRAM: &str = "shows, restarts and stops services that use the crate seamless";

pub(crate) const PREFACE: &str = "PIDFILE is the path that the service gives to init, like \
    /run/web/web.pid. Run seamless as the user of the service or as root, in the PID namespace of the \
    service. TIME is like 60s, 500ms or 2m.";

/// The exit codes that all commands have.
pub(crate) const EVERYWHERE: [(u8, &str); 2] =
    [(1, "the output cannot be written"), (2, "a wrong command line")];

/// Options without a command.
pub(crate) const GENERAL: [(char, &str, &str); 2] =
    [('h', "help", "Show the help."), ('V', "version", "Show the version.")];

/// Options that print a text, in place of a command.
pub(crate) const PRINTS: [(&str, &str, &str); 2] = [
    ("man", "", "Print the manual page."),
    ("completions", "bash|zsh|fish", "Print the completions for this shell."),
];

pub(crate) const COMMANDS: [Command; 8] = [
    Command {
        verb: Verb::Status,
        name: "status",
        operand: Operand::PidFiles,
        short: "Shows what runs",
        about: "Shows what runs: generation, state, processes and their supervisor, age, sockets, older \
            generations that still drain and how many connections each has open, and the result of the \
            last restart. Instead of a PID file, a quoted pattern like '/run/*/*.pid' means all services \
            whose PID file matches, and a folder means all services below it. --json: one object, with the \
            counters of the program; a list of objects if it is not one PID file. --openmetrics: metrics and \
            these counters in the format OpenMetrics 1.0. --prometheus: the same in the text format of \
            Prometheus, for node_exporter's textfile collector. Waits 5s for an answer, or --timeout.",
        options: &[or_next(JSON), or_next(OPENMETRICS), PROMETHEUS, TIMEOUT],
        ends: &[
            (0, "a generation serves; for several services: in each of them"),
            (
                1,
                "unknown: no answer, or permission denied, also for a folder or a lock file that a pattern or a \
                 folder stands for",
            ),
            (3, "no generation serves; stale files are named"),
        ],
    },
    Command {
        verb: Verb::Restart,
        name: "restart",
        operand: Operand::PidFile,
        short: "Asks for a restart and waits for its result",
        about: "Asks the newest generation for a restart and waits for the result, 60s or --timeout. With \
            --wait committed it also waits until the new generation has passed its probation, without \
            limit unless there is a --timeout. On a terminal, it prints each stage. --json: one object.",
        options: &[WAIT, JSON, TIMEOUT],
        ends: &[
            (0, "a new generation took over"),
            (1, "the service cannot be asked, or has stopped answering"),
            (3, "no generation serves"),
            (
                4,
                "the old generation stays: it refused (nobody would start the service again, the \
                 supervisor wants it down, it has not started or drains), the restart failed, or the new \
                 generation was rolled back",
            ),
            (
                5,
                "not yet: the old generation serves on and the next one has not taken over, or the next one is \
                 still on probation",
            ),
        ],
    },
    Command {
        verb: Verb::Stop,
        name: "stop",
        operand: Operand::PidFile,
        short: "Drains what serves and waits until it has ended",
        about: "Drains the generation that serves, with or without a launcher, and waits until it and all \
            older ones have ended, 60s or --timeout. Requests in flight are answered. If a supervisor \
            would start the service again at once, seamless does nothing and names the command that keeps \
            the service down; --force stops it all the same.",
        options: &[FORCE, TIMEOUT],
        ends: &[
            (0, "all have ended, or none ran"),
            (1, "the service cannot be asked"),
            (4, "it stays: its supervisor would start it again, or has done so"),
            (5, "not yet: it still drains"),
        ],
    },
    Command {
        verb: Verb::Commit,
        name: "commit",
        operand: Operand::PidFile,
        short: "Ends a probation as passed",
        about: "Ends the probation of the newest generation as passed: its predecessor drains. Waits until \
            the record says so, 60s or --timeout.",
        options: &[TIMEOUT],
        ends: &[
            (0, "it has taken over"),
            (1, "the service cannot be asked"),
            (3, "no generation serves"),
            (4, "it is not on probation, or has failed meanwhile"),
            (5, "not yet: another generation starts, or the record cannot be written"),
        ],
    },
    Command {
        verb: Verb::Rollback,
        name: "rollback",
        operand: Operand::PidFile,
        short: "Ends a probation as failed",
        about: "Ends the probation of the newest generation as failed: its predecessor serves again, and \
            then the newest one drains. Waits until the predecessor serves, 60s or --timeout.",
        options: &[TIMEOUT],
        ends: &[
            (0, "the predecessor serves again"),
            (1, "the service cannot be asked"),
            (3, "no generation serves"),
            (4, "it is not on probation, or has passed meanwhile"),
            (5, "not yet: its on_shutdown_request hooks have not returned"),
        ],
    },
    Command {
        verb: Verb::Check,
        name: "check",
        operand: Operand::PidFile,
        short: "Says what would go wrong and what to do",
        about: "Checks files, users, kernel, supervisor and limits, and says what would go wrong and \
            what to do. Before the first start it sees less: then --user names the user that the service \
            will run as, and --service (the folder with `run`) or --unit (the systemd unit) names its \
            settings under the supervisor.",
        options: &[JSON, USER, or_next(SERVICE), UNIT],
        ends: &[(0, "nothing would go wrong"), (1, "something would go wrong")],
    },
    Command {
        verb: Verb::List,
        name: "list",
        operand: Operand::Folders,
        short: "Shows all services of the machine, a line each",
        about: "Shows the services whose files are in or below these folders, a line each. Without a folder: \
            all that run on this machine, and those that have left files below /run. --json: a list of what \
            status prints. Root sees the services of all users.",
        options: &[JSON, TIMEOUT],
        ends: &[
            (
                0,
                "each that was found serves, or none was; what may not be read is named, and does not count",
            ),
            (1, "unknown for at least one that was found: no answer, or it refuses this user"),
            (3, "at least one does not serve"),
        ],
    },
    Command {
        verb: Verb::Watch,
        name: "watch",
        operand: Operand::PidFile,
        short: "Shows a restart stage by stage",
        about: "Waits for the next restart of the service, whoever asks for it, and prints each stage as it \
            happens, until a new generation serves and the older ones have ended, or until --timeout.",
        options: &[TIMEOUT],
        ends: &[
            (0, "a new generation took over, and no older one is left"),
            (3, "the generation has ended, and no other one serves"),
            (
                4,
                "the old generation stays: the restart failed, or the new generation was rolled back",
            ),
            (5, "not yet: no restart has finished"),
        ],
    },
];
