//! The record of the live generations, in the lock file. Pure: bytes in, values out, and back.

use super::clock::SinceBoot;
use super::rejection::{ProgramFile, Rejected};
use super::tally::{Tally, number};
use crate::proto::names::names;
use crate::proto::text::{Refused, VERSION, digits, parse_pid, put};
use std::fmt::Write as _;
use std::time::Duration;

/// What identifies a process. A PID alone does not: PIDs are used again, start times are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    /// Clock ticks from boot to its start (`proc_pid_stat(5)`, field 22).
    pub(crate) start: u64,
}

/// One live generation, as the record lists it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Generation {
    pub(crate) number: u64,
    pub(crate) daemon: Identity,
    /// The boot that the start times count from.
    pub(crate) boot: String,
    /// The PID namespace that the PIDs belong to.
    pub(crate) pid_namespace: u64,
    pub(crate) launcher: Identity,
    /// The launcher's supervisor. `None` if there is none, or if it is unknown.
    pub(crate) supervisor: Option<Identity>,
    /// What it does. `None` while it starts.
    pub(crate) state: Option<LineState>,
    /// The crashes in a row that this generation is a part of.
    pub(crate) crashes: Option<Row>,
    /// The program file that it runs, if it is on probation.
    pub(crate) file: Option<ProgramFile>,
    /// Fields of a later version, kept as they are.
    pub(crate) more: Vec<String>,
}

/// What a generation does, as its line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LineState {
    /// It serves, and transfers its sockets and its state to a successor.
    Serving,
    /// The same, and it has still to prove itself. The newest older generation that serves stands by.
    Probation,
    /// It was on probation, and is not any more: it has failed, or a newer generation has come. It drains. An
    /// older one that serves has not been replaced by it.
    Replaced,
    /// A newer generation serves.
    Draining,
    /// Its daemon has crashed. The process is a keeper: it holds the sockets for the next start.
    Keeping,
}

names!(LineState:
    Serving = "serving",
    Probation = "probation",
    Replaced = "replaced",
    Draining = "draining",
    Keeping = "keeping",
);

impl LineState {
    /// Does a process in this state serve, and give its sockets to a successor?
    pub(crate) fn serves(self) -> bool {
        match self {
            LineState::Serving | LineState::Probation => true,
            LineState::Replaced | LineState::Draining | LineState::Keeping => false,
        }
    }

    /// Has a process in this state never been proven to serve well?
    pub(crate) fn is_unproven(self) -> bool {
        matches!(self, LineState::Probation | LineState::Replaced)
    }

    /// Does a process in this state listen at the control socket?
    pub(crate) fn listens(self) -> bool {
        match self {
            LineState::Serving | LineState::Probation | LineState::Keeping => true,
            LineState::Replaced | LineState::Draining => false,
        }
    }

    /// What the line of an older generation says from now on: a newer one is about to serve. A keeper
    /// goes on as it is until it gets TERM, should the newer one die before that.
    pub(crate) fn of_older(self) -> LineState {
        match self {
            LineState::Serving | LineState::Draining => LineState::Draining,
            LineState::Probation | LineState::Replaced => LineState::Replaced,
            LineState::Keeping => LineState::Keeping,
        }
    }
}

/// A row of crashes. `T` or `T:S` in the record, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    /// When the first generation of the row crashed.
    pub(crate) first: SinceBoot,
    /// Since when the generation of this line serves. `None` in a keeper's line.
    pub(crate) served_since: Option<SinceBoot>,
}

impl Row {
    pub(crate) fn parse(text: &str) -> Option<Row> {
        let time = |text: &str| digits(text).map(Duration::from_millis);
        Some(match text.split_once(':') {
            Some((first, since)) => Row { first: time(first)?, served_since: Some(time(since)?) },
            None => Row { first: time(text)?, served_since: None },
        })
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.first.as_millis())?;
        match self.served_since {
            Some(since) => write!(f, ":{}", since.as_millis()),
            None => Ok(()),
        }
    }
}

/// The content of the lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    /// The number of the last claim.
    pub(crate) last: u64,
    /// The generation that took that claim, while it starts. If it has failed or was killed, it is
    /// still listed.
    pub(crate) starting: Option<Generation>,
    /// The generations that have started and are not known to have ended.
    pub(crate) live: Vec<Generation>,
    /// The program file that has failed in its probation.
    pub(crate) rejected: Option<Rejected>,
    /// What has happened so far.
    pub(crate) tally: Tally,
    /// Fields of a later version in the first line, kept as they are.
    pub(crate) more: Vec<String>,
}

const REJECTED: &str = "rejected=";
const RECORD: &str = "seamless-record";
/// Before the line of the one that is starting.
const STARTING: &str = "starting ";
/// Anything after this line is left from an older, longer record.
const RECORD_END: &str = "end";

impl Record {
    /// Does a file that begins so hold a record of this crate, of whatever version?
    pub(crate) fn begins(bytes: &[u8]) -> bool {
        bytes.strip_prefix(RECORD.as_bytes()).is_some_and(|rest| rest.starts_with(b" "))
    }

    pub(crate) fn format(&self) -> String {
        let mut text = format!("{RECORD} {VERSION} last={}", self.last);
        if let Some(rejected) = &self.rejected {
            _ = write!(text, " {REJECTED}{rejected} {}", rejected.details());
        }
        _ = write!(text, "{}", self.tally);
        for field in &self.more {
            _ = write!(text, " {field}");
        }
        text.push('\n');
        for generation in &self.live {
            text.push_str(&generation.format());
        }
        // Last: if the disk is full, the lines before are still complete.
        if let Some(starting) = &self.starting {
            text.push_str(STARTING);
            text.push_str(&starting.format());
        }
        text.push_str(RECORD_END);
        text.push('\n');
        text
    }

    /// The record, and the lines that were dropped because they do not parse. An empty file is an
    /// empty record. A line without its newline was cut, and may say anything: it is dropped too. After a
    /// loss of power, a file can have its length and zero bytes in it: nobody has written those, so they are
    /// dropped like a line.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Record, Vec<String>), Refused> {
        if !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0) {
            return Ok((Record::default(), vec![format!("{} zero bytes", bytes.len())]));
        }
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split_inclusive('\n');
        let Some(head) = lines.next() else {
            return Ok((Record::default(), Vec::new()));
        };
        let mut words = head.split_ascii_whitespace();
        if words.next() != Some(RECORD) {
            return Err(Refused::Foreign);
        }
        match words.next().and_then(digits::<u32>) {
            Some(VERSION) => {}
            Some(later) if later > VERSION => return Err(Refused::Version(later)),
            Some(_) | None => return Err(Refused::Foreign),
        }
        let mut record = Record::default();
        let mut dropped = Vec::new();
        let mut last = None;
        for word in words.filter(|_| head.ends_with('\n')) {
            let Record { rejected, tally, more, .. } = &mut record;
            if let Some(text) = word.strip_prefix("last=") {
                last = number(text);
            } else if let Some(found) = word.strip_prefix(REJECTED).and_then(Rejected::parse) {
                *rejected = Some(found);
            } else if !rejected.as_mut().is_some_and(|rejected| rejected.read_detail(word))
                && !tally.read(word)
            {
                more.push(word.to_owned());
            }
        }
        if last.is_none() {
            dropped.push(head.trim_end().to_owned());
        }
        for line in lines {
            let complete = line.strip_suffix('\n').unwrap_or_default();
            if complete == RECORD_END {
                break;
            }
            let starts = complete.strip_prefix(STARTING);
            let Record { starting, live, .. } = &mut record;
            match (Generation::parse(starts.unwrap_or(complete)), starts) {
                (Some(one), Some(_)) if starting.is_none() => *starting = Some(one),
                (Some(one), None) if live.iter().all(|other| other.number != one.number) => {
                    live.push(one);
                }
                (Some(_) | None, _) => dropped.push(line.trim_end().to_owned()),
            }
        }
        let newest = record.live.iter().map(|one| one.number).max();
        record.last = last.max(newest).unwrap_or(0);
        Ok((record, dropped))
    }
}

/// Tests change what they are about.
#[cfg(test)]
impl Generation {
    pub(crate) fn of_test(number: u64, state: Option<LineState>) -> Generation {
        let identity = Identity { pid: 100 + number as i32, start: number };
        Generation {
            number,
            daemon: identity,
            boot: "this".to_owned(),
            pid_namespace: 1,
            launcher: identity,
            supervisor: None,
            state,
            crashes: None,
            file: None,
            more: Vec::new(),
        }
    }
}

impl Generation {
    pub(crate) fn format(&self) -> String {
        let mut line = format!("generation={} daemon={}", self.number, self.daemon);
        put(&mut line, "boot", Some(&self.boot));
        put(&mut line, "pid_namespace", Some(self.pid_namespace));
        put(&mut line, "launcher", Some(self.launcher));
        put(&mut line, "supervisor", self.supervisor);
        put(&mut line, "state", self.state.map(LineState::name));
        put(&mut line, "crashes", self.crashes);
        put(&mut line, "file", self.file);
        for field in &self.more {
            _ = write!(line, " {field}");
        }
        line.push('\n');
        line
    }

    fn parse(line: &str) -> Option<Generation> {
        let (mut own, mut daemon, mut boot, mut pid_namespace) = (None, None, None, None);
        let (mut launcher, mut supervisor, mut state, mut more) = (None, None, None, Vec::new());
        let (mut crashes, mut file) = (None, None);
        for field in line.split_ascii_whitespace() {
            let (key, value) = field.split_once('=')?;
            match key {
                "generation" => own = Some(number(value)?),
                "daemon" => daemon = Some(Identity::parse(value)?),
                "boot" => boot = Some(value.to_owned()),
                "pid_namespace" => pid_namespace = Some(digits(value)?),
                "launcher" => launcher = Some(Identity::parse(value)?),
                "supervisor" => supervisor = Some(Identity::parse(value)?),
                // A state of a later version stays what it is.
                "state" if state.is_none() && LineState::from_name(value).is_some() => {
                    state = LineState::from_name(value);
                }
                "crashes" if crashes.is_none() && Row::parse(value).is_some() => {
                    crashes = Row::parse(value);
                }
                "file" if file.is_none() && ProgramFile::parse(value).is_some() => {
                    file = ProgramFile::parse(value);
                }
                _ => more.push(field.to_owned()),
            }
        }
        Some(Generation {
            number: own?,
            daemon: daemon?,
            boot: boot?,
            pid_namespace: pid_namespace?,
            launcher: launcher?,
            supervisor,
            state,
            crashes,
            file,
            more,
        })
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.pid, self.start)
    }
}

impl Identity {
    /// A process that ended before more could be known about it. No living process equals it.
    pub(crate) const GONE: Identity = Identity { pid: 1, start: u64::MAX };

    pub(crate) fn parse(text: &str) -> Option<Identity> {
        let (pid, start) = text.split_once(':')?;
        let pid = parse_pid(pid.as_bytes()).or((pid == "1").then_some(1))?;
        Some(Identity { pid, start: digits(start)? })
    }
}

#[cfg(test)]
mod tests;
