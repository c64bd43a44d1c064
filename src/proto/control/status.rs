//! A daemon's answer to a request for its status: a line of fields, then a line for each socket that it
//! holds.
//!
//! ```text
//! generation=3 state=detached daemon=812 launcher=811 age_ms=5000 sockets=2 version=0.1.0 …
//! socket tcp asked=127.0.0.1:80 local=127.0.0.1:80 member=0
//! ```
//!
//! A reader ignores fields and lines that it does not know. It accepts that fields are missing.

use super::frame::{Escaped, MESSAGE_MAX, REASON_MAX, Socket, clean, field, unescape};
use crate::proto::State;
use crate::proto::text::{digits, put};
use std::fmt::{self, Display, Write as _};

/// The answer to `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) generation: Option<u64>,
    pub(crate) state: State,
    /// It is a keeper: its daemon has crashed. `state` says that it does not serve.
    pub(crate) keeping: bool,
    /// It serves, and its `on_shutdown_request` hooks run.
    pub(crate) handing_off: bool,
    pub(crate) daemon: i32,
    /// The launcher that started it, which may have ended.
    pub(crate) launcher: Option<i32>,
    /// Since the daemon's `init`.
    pub(crate) age_ms: u64,
    /// How many sockets it holds.
    pub(crate) sockets: u64,
    /// The version of the crate.
    pub(crate) version: Option<String>,
    /// How long it has been in this state.
    pub(crate) state_ms: Option<u64>,
    /// The name of its kind.
    pub(crate) supervisor_kind: Option<String>,
    pub(crate) supervisor: Option<i32>,
    /// What the supervisor's status says: `up`, `down`, `unreadable` or `lost`.
    pub(crate) supervisor_wants: Option<String>,
    /// The folder that holds `supervise/`.
    pub(crate) service_folder: Option<Vec<u8>>,
    /// Why no restart is possible from here.
    pub(crate) no_restart: Option<String>,
    /// The generation that it took over from.
    pub(crate) took_over: Option<u64>,
    /// How long the transfer from that one took.
    pub(crate) transfer_us: Option<u64>,
    /// It was built with the feature `systemd`.
    pub(crate) notifies: bool,
    pub(crate) drain_timeout_ms: Option<u64>,
    pub(crate) leave_time_ms: Option<u64>,
    /// How long each new generation has to prove itself.
    pub(crate) probation_limit_ms: Option<u64>,
    /// How long its probation still lasts; `None`: it is not on probation.
    pub(crate) probation_ms: Option<u64>,
    /// The process that waits in `init` and goes on next, and how long it still waits.
    pub(crate) candidate: Option<i32>,
    pub(crate) next_try_ms: Option<u64>,
    /// Its launcher restarts in place.
    pub(crate) in_place: bool,
    /// How many restarts in place have failed.
    pub(crate) failures: u64,
    /// Why the last of them failed.
    pub(crate) failure: Option<String>,
    /// The sockets, as far as they fit into the message.
    pub(crate) held: Vec<Socket>,
}

const SOCKET: &str = "socket ";

impl Status {
    pub(crate) fn format(&self) -> String {
        let mut text = format!(
            "generation={} state={} daemon={} launcher={} age_ms={} sockets={} failures={}",
            Or(self.generation),
            self.state.name(self.handing_off),
            self.daemon,
            Or(self.launcher),
            self.age_ms,
            self.sockets,
            self.failures,
        );
        put(&mut text, "state_ms", self.state_ms);
        put(&mut text, "supervisor", self.supervisor);
        put(&mut text, "took_over", self.took_over);
        put(&mut text, "transfer_us", self.transfer_us);
        put(&mut text, "keeping", self.keeping.then_some(1));
        put(&mut text, "in_place", self.in_place.then_some(1));
        put(&mut text, "notifies", self.notifies.then_some(1));
        put(&mut text, "drain_timeout_ms", self.drain_timeout_ms);
        put(&mut text, "leave_time_ms", self.leave_time_ms);
        put(&mut text, "probation_limit_ms", self.probation_limit_ms);
        put(&mut text, "probation_ms", self.probation_ms);
        put(&mut text, "candidate", self.candidate);
        put(&mut text, "next_try_ms", self.next_try_ms);
        put_word(&mut text, "version", self.version.as_deref());
        put_word(&mut text, "supervisor_kind", self.supervisor_kind.as_deref());
        put_word(&mut text, "supervisor_wants", self.supervisor_wants.as_deref());
        put_word(&mut text, "no_restart", self.no_restart.as_deref());
        put_word(&mut text, "failure", self.failure.as_deref());
        put(&mut text, "service_folder", self.service_folder.as_deref().map(Escaped));
        for socket in &self.held {
            // The secret of a steered group is for successors alone.
            let socket = Socket { flow: None, ..socket.clone() };
            let line = socket.format();
            // What stands before it in the message needs room as well.
            if text.len() + line.len() + 256 > MESSAGE_MAX {
                break;
            }
            _ = write!(text, "\n{SOCKET}{line}");
        }
        text
    }

    /// `None` if the PID or the state is missing.
    pub(crate) fn parse(text: &str) -> Option<Status> {
        let (head, lines) = text.split_once('\n').unwrap_or((text, ""));
        let number = |key| field(head, key).and_then(digits::<u64>);
        let pid = |key| field(head, key).and_then(digits::<i32>).filter(|pid| *pid > 0);
        let word = |key| field(head, key).and_then(unescape);
        let text = |key| Some(clean(&String::from_utf8_lossy(&word(key)?), REASON_MAX));
        let (state, handing_off) = State::parse(field(head, "state")?)?;
        Some(Status {
            generation: number("generation"),
            state,
            keeping: number("keeping") == Some(1),
            handing_off,
            daemon: pid("daemon")?,
            launcher: pid("launcher"),
            age_ms: number("age_ms").unwrap_or(0),
            sockets: number("sockets").unwrap_or(0),
            version: text("version"),
            state_ms: number("state_ms"),
            supervisor_kind: text("supervisor_kind"),
            supervisor: pid("supervisor"),
            supervisor_wants: text("supervisor_wants"),
            service_folder: word("service_folder"),
            no_restart: text("no_restart"),
            took_over: number("took_over"),
            transfer_us: number("transfer_us"),
            notifies: number("notifies") == Some(1),
            drain_timeout_ms: number("drain_timeout_ms"),
            leave_time_ms: number("leave_time_ms"),
            probation_limit_ms: number("probation_limit_ms"),
            probation_ms: number("probation_ms"),
            candidate: pid("candidate"),
            next_try_ms: number("next_try_ms"),
            in_place: number("in_place") == Some(1),
            failures: number("failures").unwrap_or(0),
            failure: text("failure"),
            held: lines
                .lines()
                .filter_map(|line| Socket::parse(line.strip_prefix(SOCKET)?).ok())
                .collect(),
        })
    }
}

fn put_word(text: &mut String, key: &str, word: Option<&str>) {
    let word = word.map(|word| clean(word, REASON_MAX));
    put(text, key, word.as_ref().map(|word| Escaped(word.as_bytes())));
}

/// `-` if there is none.
struct Or<T>(Option<T>);

impl<T: Display> Display for Or<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests;
