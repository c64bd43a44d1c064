//! `seamless status`.

use crate::openmetrics::{self, Format, Seen};
use crate::services::{self, Named, worst};
use crate::words::{self, seconds};
use crate::{ANSWER, End, complain, say, say_json};
use seamless::client::{Counter, Generation, History, NoAnswer, Socket, Status, Supervisor, Wish};
use serde::{Serialize, Serializer};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    /// PID files, patterns of them, and folders.
    pub(crate) services: Vec<PathBuf>,
    pub(crate) json: bool,
    pub(crate) metrics: Option<Format>,
    pub(crate) timeout: Option<Duration>,
}

/// What `seamless status --json` prints. A field is `null`, or a list empty, if there is none;
/// `unknown` says what could not be known.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    pid_file: &'a Path,
    /// A generation serves.
    serving: bool,
    /// Of the newest generation: `starting`, `serving`, `handing-off`, `detached`, `standby`, `leaving`, `draining`;
    /// `keeping`: its daemon has crashed, and a keeper holds its sockets for the next start;
    /// `none` if none lives, `unknown` if it does not answer.
    state: &'static str,
    generation: Option<u64>,
    daemon: Option<i32>,
    launcher: Option<i32>,
    /// The program file that the daemon runs; with ` (deleted)` if it was replaced or removed since.
    program: Option<PathBuf>,
    /// The launcher starts the next generation itself; `null` if that is unknown.
    in_place: Option<bool>,
    supervisor: Option<Supervising>,
    /// Seconds since the daemon's start.
    age: Option<f64>,
    /// Seconds since it came to this state.
    state_age: Option<f64>,
    /// Of the crate, in the daemon.
    version: Option<String>,
    /// Those that a successor would get; `null` if that is unknown.
    sockets: Option<Vec<Held>>,
    /// How many there are; the list holds no more than fit into a message.
    socket_count: Option<u64>,
    /// The program's counters, by their names; `null` if that is unknown.
    #[serde(serialize_with = "by_name")]
    counters: Option<Vec<Counter>>,
    /// While the newest generation has to prove itself.
    probation: Option<Probation>,
    /// The program file that has failed in its probation, until another generation has passed one.
    rejected: Option<Failed>,
    /// Older generations that have not ended, but for one that stands by.
    draining: Vec<Draining>,
    /// A process that holds the claim: a generation that has not started yet.
    starting: Option<i32>,
    restart: LastRestart,
    /// What has happened so far; `null` if the record cannot be read.
    history: Option<Counts>,
    /// What is odd about the files.
    notes: &'a [String],
    unknown: Vec<&'a str>,
    /// Why the newest generation did not answer.
    error: Option<String>,
}

/// Who supervises it.
#[derive(Debug, Serialize)]
struct Supervising {
    pid: i32,
    /// Of its program.
    name: Option<String>,
    /// `daemontools`, `runit`, …; `nobody`: it starts nothing again; `other`: unknown.
    kind: String,
    /// `up`, `down`, `unreadable` or `lost`: what its status says of the service.
    wants: String,
    /// The folder of the service, if it has one.
    folder: Option<PathBuf>,
    /// The systemd unit.
    unit: Option<String>,
    /// The command by which an operator restarts the service, for a shell.
    restart_command: Option<String>,
    /// All that in a line.
    #[serde(skip)]
    line: String,
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
struct Probation {
    /// Seconds until it is passed; `null` if that is unknown.
    left: Option<f64>,
    /// The older generation that stands by.
    standby: Option<Draining>,
    /// If the newest generation does not answer: what the older one says of itself. `serving` or `detached`: it
    /// serves beside the one that hangs.
    standby_state: Option<&'static str>,
}

/// A program file that has failed in its probation.
#[derive(Debug, Serialize)]
struct Failed {
    /// The generation that has failed last.
    generation: Option<u64>,
    /// How often in a row.
    tries: u32,
    /// Why, the last time.
    why: &'static str,
    /// Seconds until a process that runs this file tries again; `null` if none waits.
    next_try: Option<f64>,
    /// That process, if it could tell the generation that serves.
    candidate: Option<i32>,
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
    /// How long the transfer from that one took, in seconds.
    transfer: Option<f64>,
    /// How many restarts have failed since this generation serves.
    failed: u64,
    /// What went wrong with the last of these.
    failure: Option<String>,
    /// How many starts took the claim after it and do not serve.
    starts_since: u64,
}

/// What the record counts.
#[derive(Debug, Serialize)]
struct Counts {
    starts: u64,
    restarts: u64,
    failed_starts: u64,
    crashes: u64,
    rollbacks: u64,
}

impl Counts {
    fn of(history: History) -> Counts {
        let History { starts, restarts, failed_starts, crashes, rollbacks, .. } = history;
        Counts { starts, restarts, failed_starts, crashes, rollbacks }
    }

    /// What went wrong, if anything has.
    fn text(&self) -> Option<String> {
        let all = [
            (self.crashes, "crash", "crashes"),
            (self.failed_starts, "failed start", "failed starts"),
            (self.rollbacks, "rollback", "rollbacks"),
        ];
        let some = all.into_iter().filter(|(count, ..)| *count > 0);
        let words = some
            .map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }));
        let words = words.collect::<Vec<_>>().join(", ");
        (!words.is_empty()).then(|| format!("{}: {words}", words::count(self.starts, "start")))
    }
}

pub(crate) fn run(ask: &Ask) -> End {
    let limit = ask.timeout.unwrap_or(ANSWER);
    let Named { services, is_one, is_all } = match services::named(&ask.services) {
        Ok(named) => named,
        Err((end, why)) => {
            complain(why);
            return end;
        }
    };
    let mut seen = services::see(&services, limit, ask.json || ask.metrics.is_some());
    // Of what could not be read, nobody knows whether it serves.
    let unread = (!is_all).then_some(End::Error);
    if let Some(format) = ask.metrics {
        let ends = seen.iter().map(|one| Report::of(one).end());
        let end = worst(ends.chain(unread));
        say(openmetrics::text(&seen, format));
        return end;
    }
    let counters: Vec<_> = seen.iter_mut().map(|one| one.counters.take()).collect();
    let reports: Vec<Report<'_>> = seen
        .iter()
        .zip(counters)
        .map(|(one, counters)| Report { counters, ..Report::of(one) })
        .collect();
    match (&reports[..], ask.json) {
        ([report], true) if is_one => say_json(report),
        (reports, true) => say_json(&reports),
        (reports, false) => reports.iter().for_each(|report| say(report.text().trim_end())),
    }
    worst(reports.iter().map(Report::end).chain(unread))
}

fn by_name<S: Serializer>(counters: &Option<Vec<Counter>>, to: S) -> Result<S::Ok, S::Error> {
    match counters {
        Some(all) => to.collect_map(all.iter().map(|one| (&one.name, one.value))),
        None => to.serialize_none(),
    }
}

impl Report<'_> {
    pub(crate) fn of(seen: &Seen) -> Report<'_> {
        let look = &seen.look;
        let newest = look.newest();
        let status = seen.status();
        let error = match &seen.status {
            Ok(_) | Err(NoAnswer::NobodyRuns) => None,
            Err(why) => Some(why.to_string()),
        };
        let of_standby = seen.standby.as_ref();
        let standby = look.standby().map(Generation::daemon);
        let drains = |one: &&Generation| standby != Some(one.daemon());
        Report {
            pid_file: look.pid_file(),
            serving: status.or(of_standby).is_some_and(|status| status.state().serves()),
            state: seen.state(),
            generation: newest.map(Generation::number),
            daemon: newest.map(Generation::daemon),
            launcher: newest.and_then(|newest| newest.launcher(status)),
            program: newest.and_then(Generation::program),
            in_place: status.map(Status::restarts_in_place),
            supervisor: newest
                .and_then(|newest| Some(Supervising::of(&newest.supervisor(status)?))),
            age: newest.and_then(Generation::age).map(seconds),
            state_age: status.and_then(Status::state_age).map(seconds),
            version: status.and_then(Status::version).map(str::to_owned),
            sockets: status.map(|status| status.sockets().into_iter().map(Held::of).collect()),
            socket_count: status.map(Status::socket_count),
            counters: None,
            probation: newest.filter(|newest| newest.is_on_probation()).map(|_| Probation {
                left: status.and_then(Status::probation_left).map(seconds),
                standby: look.standby().map(Draining::of),
                standby_state: of_standby.map(Status::state_name),
            }),
            rejected: look.rejected().map(|one| Failed {
                generation: one.generation,
                tries: one.tries,
                why: one.why,
                next_try: status.and_then(Status::next_try).or(one.next_try).map(seconds),
                candidate: status.and_then(Status::candidate),
            }),
            draining: look.older().iter().filter(drains).map(Draining::of).collect(),
            starting: look.starting(),
            restart: LastRestart {
                took_over: status.and_then(Status::took_over_from),
                transfer: status.and_then(Status::transfer_time).map(|time| time.as_secs_f64()),
                failed: status.map_or(0, Status::failed_restarts),
                failure: status.and_then(Status::last_failure).map(str::to_owned),
                starts_since: newest.map_or(0, |newest| look.starts_since(newest.number())),
            },
            history: look.unknown().is_none().then(|| Counts::of(look.history())),
            notes: look.notes(),
            unknown: look
                .unknown()
                .filter(|why| error.as_deref() != Some(*why))
                .into_iter()
                .collect(),
            error,
        }
    }

    pub(crate) fn end(&self) -> End {
        match (&self.error, self.serving) {
            (_, true) => End::Done, // the newest one, or the one beside it if it hangs
            (Some(_), false) => End::Error,
            (None, false) => End::NobodyServes,
        }
    }

    /// Its line in a list of services.
    pub(crate) fn row(&self) -> [String; 7] {
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        [
            self.pid_file.display().to_string(),
            self.state.to_owned(),
            or_none(self.generation.map(|number| number.to_string())),
            or_none(self.daemon.map(|pid| pid.to_string())),
            or_none(self.age.map(|age| words::time(Duration::from_secs_f64(age)))),
            or_none(self.supervisor.as_ref().map(|supervisor| supervisor.kind.clone())),
            self.draining.len().to_string(),
        ]
    }

    fn text(&self) -> String {
        let path = self.pid_file.display();
        let standby = self.probation.as_ref().and_then(|one| one.standby.as_ref());
        let says = match (self.generation, self.state) {
            (Some(number), "unknown") if self.serving && standby.is_some() => format!(
                "generation {} serves beside generation {number}, which is on probation and does not answer",
                standby.map_or(0, |standby| standby.generation),
            ),
            (_, "unknown") => "cannot tell whether a generation serves".to_owned(),
            (None, _) => "no generation runs".to_owned(),
            (Some(number), "keeping") => format!(
                "nobody serves: generation {number} has crashed, and a keeper holds its sockets for the \
                 next start"
            ),
            (Some(number), state) => match state {
                "serving" if self.probation.is_some() => {
                    format!("generation {number} serves, on probation")
                }
                "serving" => format!("generation {number} serves"),
                "handing-off" => format!("generation {number} serves; its handoff has begun"),
                "detached" => {
                    format!("generation {number} serves, detached: a successor is awaited")
                }
                "leaving" => {
                    format!("generation {number} serves on until its drain begins: it is to stop")
                }
                _ => format!("generation {number} is {state}"),
            },
        };
        let mut text = words::line(&format!("{path}: {says}"));
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
            put(if self.state == "keeping" { "keeper" } else { "daemon" }, value);
        }
        if let Some(program) = &self.program {
            put("program", program.display().to_string());
        }
        if let Some(age) = self.state_age.filter(|_| self.state != "serving") {
            put("state", format!("{}, for {}", self.state, time(age)));
        }
        if let Some(launcher) = self.launcher {
            let in_place = if self.in_place == Some(true) { ", restarts in place" } else { "" };
            put("launcher", format!("{launcher}{in_place}"));
        }
        if let Some(supervisor) = &self.supervisor {
            put("supervisor", supervisor.line.clone());
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
        let of_older = |one: &Draining| {
            let mut value = format!("generation {}: daemon {}", one.generation, one.daemon);
            if let Some(age) = one.age {
                value += &format!(", for {}", time(age));
            }
            if let Some(connections) = one.connections {
                value += &format!(", {} open", words::count(connections as u64, "connection"));
            }
            value
        };
        if let Some(probation) = &self.probation {
            put(
                "probation",
                match probation.left {
                    Some(left) => format!("passed in {}", time(left)),
                    None => "it is unknown when it is passed".to_owned(),
                },
            );
        }
        if let Some(standby) = standby {
            let state = self.probation.as_ref().and_then(|one| one.standby_state);
            let state = state.map(|state| format!(", which says that it is {state}"));
            put("standby", of_older(standby) + &state.unwrap_or_default());
        }
        if let Some(failed) = &self.rejected {
            let mut value = match failed.generation {
                Some(number) => format!("generation {number}: {}", failed.why),
                None => failed.why.to_owned(),
            };
            if failed.tries > 1 {
                value +=
                    &format!(", {} of the same file", words::count(failed.tries.into(), "failure"));
            }
            value += &match failed.next_try {
                Some(left) => {
                    let who = failed.candidate.map(|pid| format!(" by process {pid}"));
                    format!("; tried again in {}{}", time(left), who.unwrap_or_default())
                }
                None => "; tried again when the supervisor starts it".to_owned(),
            };
            put("rejected", value);
        }
        for one in &self.draining {
            put("draining", of_older(one));
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
        if let Some(history) = self.history.as_ref().and_then(Counts::text) {
            put("history", history);
        }
        for note in self.notes {
            put("note", note.clone());
        }
        for what in &self.unknown {
            put("not known", (*what).to_owned());
        }
        text
    }
}

impl Draining {
    fn of(older: &Generation) -> Draining {
        Draining {
            generation: older.number(),
            daemon: older.daemon(),
            age: older.age().map(seconds),
            connections: older.connections(),
        }
    }
}

impl Supervising {
    fn of(supervisor: &Supervisor) -> Supervising {
        Supervising {
            pid: supervisor.pid(),
            name: supervisor.name().map(str::to_owned),
            kind: supervisor.kind().to_owned(),
            wants: supervisor.wants().to_owned(),
            folder: supervisor.folder().map(Path::to_owned),
            unit: supervisor.unit().map(str::to_owned),
            restart_command: supervisor.command(Wish::Restart),
            line: supervisor.to_string(),
        }
    }
}

impl Held {
    fn of(socket: Socket) -> Held {
        let Socket { kind, address, name, member, retired, .. } = socket;
        Held { kind, address, name, member, retired }
    }
}
