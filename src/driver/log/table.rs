//! The page of the guide that lists all events.

use super::event::Row;
use super::{counters, daemon, keeper, launcher, passing, phase, probation, sockets};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

const HEAD: &str = "\
What the crate logs, through the crate `log` with the target `seamless`. Each line is one event:
`stage=NAME`, then the fields of the event in a fixed order. The same fields are key-value pairs of the
record, so a logger that writes JSON gets them without parsing the text. A field without
a value is `-` in the text and null in the pair.

This page is made from the list in the code.
";

const FIELDS: &[(&str, &str)] = &[
    ("address", "the address of the socket"),
    ("backlog", "how many connections may wait to be accepted"),
    ("bytes", "how many bytes"),
    ("candidate", "PID of a process that waits in `init`"),
    ("cause", "what led to this phase: a signal, a message, a hook that returned, or a limit"),
    ("closed", "why it was closed"),
    ("connections", "how many connections"),
    ("current", "PID of the daemon that serves on"),
    ("cut", "how many of the connections were reset"),
    ("daemon", "PID of the daemon: the process that serves"),
    ("descriptors", "how many descriptors that the program keeps"),
    ("down_signal", "the signal that s6 sends instead of TERM"),
    ("dropped", "the line that was left out"),
    (
        "elapsed_ms",
        "milliseconds since this step began, or since the daemon left the phase of serving",
    ),
    ("error", "what the system said"),
    ("exit_code", "the code with which the process ended, or ends"),
    ("failed_generation", "number of the generation that has failed in its probation"),
    ("fd", "number of the descriptor"),
    ("file", "mode and owner that the path of a socket has got"),
    ("finding", "what the check found"),
    ("from", "PID of the sender; for a socket, where it comes from"),
    ("generation", "number of this generation"),
    ("generations", "how many generations have flows at this address"),
    ("guards", "how many `DrainGuard`s there are: connections, for `http`"),
    ("holder", "PID of the process that holds the claim"),
    ("hook", "the hook, or the list of hooks"),
    ("instead", "the setting to write instead"),
    ("intent", "what the supervisor wants"),
    ("keeper", "PID of the keeper: the process that holds the sockets after a crash"),
    ("kept", "how many sockets systemd kept already"),
    ("kind", "the kind of the socket"),
    ("launcher", "PID of the launcher: the process that the supervisor started"),
    ("leave_ms", "for how many milliseconds everything is served on before the drain"),
    ("left_ms", "for how many more milliseconds"),
    ("limit", "the limit that was exceeded"),
    ("limit_ms", "milliseconds after which the drain is forced to end"),
    ("max_draining", "how many generations may drain at once: `Config::max_draining`"),
    ("member", "number of the socket in its group"),
    ("members", "how many sockets of the group are this generation's"),
    ("name", "name of the socket, the state, the descriptor or the kind of connections"),
    ("newest", "number of the generation that gets new flows"),
    ("nonblocking", "whether the socket is in nonblocking mode"),
    ("number", "number of the descriptor that was passed"),
    ("older", "how many older generations have not ended"),
    ("oldest_ms", "by how many milliseconds the oldest of them is older than this one"),
    ("panic", "the message of the panic, or `true`"),
    ("parent_name", "name of the parent process"),
    ("path", "path of the file"),
    ("pause_ms", "how many milliseconds the next try waits"),
    ("peer", "PID of the process at the other end, or its address"),
    ("pid", "PID of the process that logs"),
    ("predecessor", "PID of the older generation's daemon"),
    ("predecessor_generation", "number of the older generation"),
    ("predecessors", "how many older generations were alive"),
    ("process", "PID of the process that logs"),
    ("ready", "whether the service is ready"),
    ("reason", "why, in words"),
    ("refused", "why something was refused; for a hook, its list"),
    ("remedy", "what to do"),
    ("report", "the step of the protocol"),
    ("request", "what was asked for"),
    ("retired", "why nothing new goes to this socket"),
    ("server", "PID of the daemon that serves while this process waits"),
    ("setting", "the setting as it is"),
    ("shared_with", "the address of the predecessor's socket"),
    ("signal", "name or number of the signal"),
    ("sockets", "how many sockets"),
    ("standby", "PID of the daemon that stands by"),
    ("standby_generation", "number of the generation that stands by"),
    ("state", "how many bytes of the state without a name"),
    ("states", "how many named states"),
    ("step", "what failed"),
    ("stop_ms", "after how many milliseconds the supervisor KILLs what it has told to stop"),
    ("stored", "how many sockets systemd was told to keep"),
    ("successor", "PID of the newer generation's daemon"),
    ("successor_generation", "number of the newer generation"),
    ("supervisor", "PID of the supervisor; in a check, what it says about the service"),
    ("supervisor_kind", "the supervisor's kind"),
    ("threads", "how many threads the launcher has"),
    ("tries", "how often this program file has failed in a row"),
    ("uid", "user of the process at the other end"),
    ("unit", "name of the systemd unit"),
    ("version", "version of a state, as the program gives it"),
    ("waits_for", "what the drain waits for"),
];

/// The lines of the module `http`, which uses only what is public in this crate.
const HTTP: &[Row] = &[
    Row {
        level: log::Level::Info,
        stage: "serve",
        fields: &["daemon", "address"],
        meaning: " The server accepts connections at this address.",
        action: "Nothing.",
    },
    Row {
        level: log::Level::Error,
        stage: "hammer",
        fields: &["daemon", "connections", "cut"],
        meaning: " A drain was forced to end while connections were open.",
        action: "Find out which requests take so long, or raise the limit of the drain.",
    },
    Row {
        level: log::Level::Warn,
        stage: "http",
        fields: &["daemon", "step", "error"],
        meaning: " The server has as many connections as `max_connections` allows.",
        action: "Nothing, if this is rare: the next clients wait in the queue.",
    },
    Row {
        level: log::Level::Warn,
        stage: "http",
        fields: &["daemon", "step", "peer", "refused"],
        meaning: " A PROXY header came from a peer that is not trusted: its connection was closed.",
        action: "If it is a load balancer of yours, add its address to `http::Server::proxy_protocol`.",
    },
    Row {
        level: log::Level::Debug,
        stage: "http",
        fields: &["daemon", "step", "error"],
        meaning: " A connection, its PROXY header or its TLS handshake has failed.",
        action: "Nothing.",
    },
];

#[test]
fn the_page_of_the_guide_is_what_the_code_logs() {
    let page = page();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/log.md");
    if std::env::var_os("SEAMLESS_BLESS").is_some() {
        std::fs::write(&path, &page).expect("the page can be written");
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page, "src/guide/log.md is stale: run this test with SEAMLESS_BLESS=1");
}

fn page() -> String {
    let parts = [
        ("The launcher", launcher::ROWS),
        ("The daemon", daemon::ROWS),
        ("The phases of a daemon", phase::ROWS),
        ("Probation", probation::ROWS),
        ("The keeper", keeper::ROWS),
        ("Sockets and their transfer", sockets::ROWS),
        ("Connections that move", passing::ROWS),
        ("Counters", counters::ROWS),
        ("HTTP", HTTP),
    ];
    let mut page = HEAD.to_owned();
    let mut used = BTreeSet::new();
    for (title, rows) in parts {
        _ = write!(page, "\n## {title}\n\n| level | stage | fields | meaning | what to do |\n");
        page.push_str("| --- | --- | --- | --- | --- |\n");
        for Row { level, stage, fields, meaning, action } in rows {
            used.extend(fields.iter().copied());
            let level = level.as_str().to_lowercase();
            let fields: Vec<String> = fields.iter().map(|field| format!("`{field}`")).collect();
            let fields = fields.join(" ");
            let meaning = meaning.trim();
            _ = writeln!(page, "| {level} | `{stage}` | {fields} | {meaning} | {action} |");
        }
    }
    page.push_str("\n## Fields\n\n| field | meaning |\n| --- | --- |\n");
    for (name, meaning) in FIELDS {
        _ = writeln!(page, "| `{name}` | {meaning} |");
    }
    let known: Vec<&str> = FIELDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(known, used.into_iter().collect::<Vec<_>>(), "each field is explained, in order");
    page
}

#[test]
fn a_line_and_its_pairs_have_the_same_fields() {
    use log::kv::{Key, Source};
    let event = daemon::Event::TakeoverFailed { predecessor: 7, error: &"no \"way\"" };
    let shown = super::Shown(&event);
    let own = crate::sys::process::own_pid();
    let text =
        format!("stage=takeover daemon={own} predecessor=7 signal=TERM error=\"no \"way\"\"",);
    assert_eq!(shown.to_string(), text);
    let pair = |name: &str| shown.get(Key::from_str(name)).map(|value| value.to_string());
    assert_eq!(pair("stage").as_deref(), Some("takeover"));
    assert_eq!(pair("predecessor").as_deref(), Some("7"));
    assert_eq!(pair("signal").as_deref(), Some("TERM"));
    assert_eq!(pair("error").as_deref(), Some("no \"way\""));
    assert_eq!(pair("retired"), None);
}
