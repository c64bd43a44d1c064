//! `seamless status`.

use super::look::{ANSWER, Live, Seen, Unasked, ask_status};
use super::supervisor::Supervising;
use super::{Ask, End, say, say_json, words};
use crate::proto::control::frame::{Address, Socket};
use crate::proto::control::status::{Stage, Status};
use crate::sys::{proc, unix_path};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// What `seamless status --json` prints. A field is `null`, or a list empty, where there is none;
/// `unknown` says what could not be known.
#[derive(Debug, Serialize)]
struct Report {
    pid_file: PathBuf,
    /// A generation serves.
    serving: bool,
    /// Of the newest generation: `starting`, `serving`, `handing-off`, `detached`, `draining`;
    /// `none` where none lives, `unknown` where that cannot be told.
    state: &'static str,
    generation: Option<u64>,
    daemon: Option<i32>,
    launcher: Option<i32>,
    /// The launcher starts the next generation itself; `null` where that is not known.
    in_place: Option<bool>,
    supervisor: Option<Supervising>,
    /// Seconds since the daemon's start.
    age: Option<f64>,
    /// Seconds since it came to this state.
    state_age: Option<f64>,
    /// Of the crate, in the daemon.
    version: Option<String>,
    /// Those that a successor would get; `null` where that is not known.
    sockets: Option<Vec<Held>>,
    /// How many there are; the list holds no more than fit into a message.
    socket_count: Option<u64>,
    /// Older generations that have not ended.
    draining: Vec<Draining>,
    /// A process that holds the claim: a generation that has not started yet.
    starting: Option<i32>,
    restart: LastRestart,
    /// What is odd about the files.
    notes: Vec<String>,
    unknown: Vec<String>,
    /// Why the newest generation did not answer.
    error: Option<String>,
}

/// A socket that the daemon holds.
#[derive(Debug, Serialize)]
struct Held {
    /// `tcp`, `udp`, `unix`, `unix-datagram`.
    kind: &'static str,
    /// Where it is bound. In a name that is not printable, bytes stand as `%XX`.
    address: String,
    name: Option<String>,
    /// Which one of its group, from 0.
    member: u32,
    /// Nothing new goes to it any more.
    retired: bool,
}

#[derive(Debug, Serialize)]
struct Draining {
    generation: u64,
    daemon: i32,
    age: Option<f64>,
    /// How many connections it has open: what it still waits for.
    connections: Option<usize>,
}

/// How the last restart went, as far as the newest generation knows.
#[derive(Debug, Default, Serialize)]
struct LastRestart {
    /// The generation that this one took over from.
    took_over: Option<u64>,
    /// How many restarts have failed since this generation serves.
    failed: u64,
    /// What went wrong with the last of these.
    failure: Option<String>,
    /// How many starts took the claim after it and do not serve.
    starts_since: u64,
}

pub(super) fn run(ask: &Ask) -> End {
    let (seen, status) = ask_status(&ask.pid_file, ask.timeout.unwrap_or(ANSWER));
    let report = Report::of(&seen, status);
    if ask.json {
        say_json(&report);
    } else {
        say(report.text().trim_end());
    }
    match (&report.error, report.serving) {
        (Some(_), _) => End::Error,
        (None, true) => End::Done,
        (None, false) => End::NobodyServes,
    }
}

fn seconds(time: Duration) -> f64 {
    // No more digits than mean something.
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

impl Report {
    fn of(seen: &Seen, status: Result<Status, Unasked>) -> Report {
        let newest = seen.newest();
        let mut unknown = Vec::new();
        let (status, error) = match status {
            Ok(status) => (Some(status), None),
            Err(Unasked::Nobody) => (None, None),
            Err(Unasked::Mute) => {
                unknown.push(
                    "whether it drains, what sockets it holds and how its last restart went: it was \
                     built without the feature `sockets`, so it cannot be asked"
                        .to_owned(),
                );
                (None, None)
            }
            Err(Unasked::Failed(why)) => (None, Some(why)),
        };
        let attached = newest.is_some_and(|newest| newest.is_attached(status.as_ref()));
        let known = |_: &Live| if attached { Stage::Serving } else { Stage::Detached };
        let stage = status.as_ref().map(|status| status.stage).or(newest.map(known));
        let held_by = newest.and_then(|newest| proc::age(newest.generation.daemon.start));
        let ms = |ms: u64| seconds(Duration::from_millis(ms));
        let serving = error.is_none() && stage.is_some_and(Stage::serves);
        Report {
            pid_file: seen.pid_file.clone(),
            serving,
            state: match (&error, stage) {
                (Some(_), _) => "unknown",
                (None, Some(stage)) => stage.name(),
                (None, None) => "none",
            },
            generation: newest.map(Live::number),
            daemon: newest.map(Live::pid),
            launcher: newest.filter(|_| attached).map(|one| one.generation.launcher.pid),
            in_place: status.as_ref().map(|status| status.in_place),
            supervisor: newest.and_then(|newest| Supervising::of(newest, status.as_ref())),
            age: held_by.map(seconds),
            state_age: status.as_ref().and_then(|status| status.stage_ms).map(ms),
            version: status.as_ref().and_then(|status| status.version.clone()),
            sockets: status.as_ref().map(|status| status.held.iter().map(held).collect()),
            socket_count: status.as_ref().map(|status| status.sockets),
            draining: seen.older().iter().map(Draining::of).collect(),
            starting: seen.starting,
            restart: LastRestart {
                took_over: status.as_ref().and_then(|status| status.took_over),
                failed: status.as_ref().map_or(0, |status| status.failures),
                failure: status.and_then(|status| status.failure),
                starts_since: newest.map_or(0, |newest| seen.starts_since(newest.number())),
            },
            notes: seen.notes.clone(),
            unknown,
            error,
        }
    }

    fn text(&self) -> String {
        let path = self.pid_file.display();
        let mut text = match (self.generation, self.state) {
            (_, "unknown") => format!("{path}: cannot tell whether a generation serves"),
            (None, _) => format!("{path}: no generation runs"),
            (Some(number), "serving") => format!("{path}: generation {number} serves"),
            (Some(number), "handing-off") => {
                format!("{path}: generation {number} serves; its handoff has begun")
            }
            (Some(number), "detached") => {
                format!("{path}: generation {number} serves, detached: a successor is awaited")
            }
            (Some(number), state) => format!("{path}: generation {number} is {state}"),
        };
        let mut put = |name: &str, value: String| {
            _ = write!(text, "\n  {name:<11} {}", words::line(&value));
        };
        let time = |seconds: f64| words::time(Duration::from_secs_f64(seconds));
        if let Some(error) = &self.error {
            put("error", error.clone());
        }
        if let Some(daemon) = self.daemon {
            let mut value = daemon.to_string();
            if let Some(age) = self.age {
                value += &format!(", for {}", time(age));
            }
            if let Some(version) = &self.version {
                value += &format!(" (seamless {version})");
            }
            put("daemon", value);
        }
        if let Some(age) = self.state_age.filter(|_| self.state != "serving") {
            put("state", format!("{}, for {}", self.state, time(age)));
        }
        if let Some(launcher) = self.launcher {
            let in_place = if self.in_place == Some(true) { ", restarts in place" } else { "" };
            put("launcher", format!("{launcher}{in_place}"));
        }
        if let Some(supervisor) = &self.supervisor {
            put("supervisor", supervisor.describe());
        }
        for (at, socket) in self.sockets.iter().flatten().enumerate() {
            let name = socket.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
            let retired = if socket.retired { ", retired" } else { "" };
            let first = if at == 0 { "sockets" } else { "" };
            put(first, format!("{} {}{name}{retired}", socket.kind, socket.address));
        }
        let listed = self.sockets.as_ref().map_or(0, Vec::len) as u64;
        if let Some(more) =
            self.socket_count.and_then(|all| all.checked_sub(listed)).filter(|n| *n > 0)
        {
            put("", format!("and {more} more"));
        }
        for one in &self.draining {
            let mut value = format!("generation {}: daemon {}", one.generation, one.daemon);
            if let Some(age) = one.age {
                value += &format!(", for {}", time(age));
            }
            if let Some(connections) = one.connections {
                value += &format!(", {} open", words::count(connections as u64, "connection"));
            }
            put("draining", value);
        }
        if let Some(starting) = self.starting {
            put("starting", format!("process {starting} holds the claim and has not started yet"));
        }
        if let Some(number) = self.restart.took_over {
            put("restart", format!("took over from generation {number}"));
        }
        if let Some(failure) = &self.restart.failure {
            let count = words::count(self.restart.failed, "restart");
            put("restart", format!("{count} failed, the last one: {failure}"));
        }
        if self.restart.starts_since > 0 {
            let count = words::count(self.restart.starts_since, "later start");
            put("restart", format!("{count} got as far as init and did not serve"));
        }
        for note in &self.notes {
            put("note", note.clone());
        }
        for what in &self.unknown {
            put("not known", what.clone());
        }
        text
    }
}

impl Draining {
    fn of(live: &Live) -> Draining {
        Draining {
            generation: live.number(),
            daemon: live.pid(),
            age: proc::age(live.generation.daemon.start).map(seconds),
            connections: proc::connections(live.pid()),
        }
    }
}

fn held(held: &Socket) -> Held {
    let Socket { kind, asked, name, member, retired, local, .. } = held;
    // A path may have been bound under another name.
    let address = if unix_path::path_of(asked).is_some() { asked } else { local };
    Held {
        kind: kind.name(),
        address: match address {
            Address::Unix(bytes) if bytes.is_empty() => "unnamed".to_owned(),
            address => address.to_string(),
        },
        name: name.clone(),
        member: *member,
        retired: *retired,
    }
}
