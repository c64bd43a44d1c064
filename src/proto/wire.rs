//! What the processes read and write: the PID file, the record, the supervisor's status, the
//! channel's messages. Pure: bytes in, values out, and back.
//!
//! # Versions
//!
//! Generations of different versions of this crate meet in the record, and a launcher may start a
//! daemon of another version. Both the record and the messages begin with a version. Fields that
//! a reader does not know are kept (record) or ignored (messages), and messages of an unknown name
//! are ignored, so fields and messages can be added within a version. A version above
//! [`VERSION`] is refused.

use super::{Intent, Kind, Reading, Report, Scope};
use std::fmt::Write as _;
use std::time::Duration;

/// The version of the record and of the channel.
pub(crate) const VERSION: u32 = 1;

/// Why a text of ours cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A later version of this crate wrote it.
    Version(u32),
    /// It is none of ours.
    Foreign,
}

// ---- the PID file ----

/// The PID in a PID file: decimal, with or without a newline (the Go original writes none).
/// 0, 1, negative numbers and whatever is no PID at all are `None`.
pub(crate) fn parse_pid(text: &[u8]) -> Option<i32> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.is_empty() || text.len() > 10 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let pid = std::str::from_utf8(text).ok()?.parse().ok()?;
    (pid > 1).then_some(pid)
}

pub(crate) fn format_pid(pid: i32) -> String {
    format!("{pid}\n")
}

// ---- the record ----

/// A process that a number alone does not name: PIDs are used again, start times are not.
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
    /// The launcher's supervisor; `None` where it has none or cannot be known.
    pub(crate) supervisor: Option<Identity>,
    /// Fields of a later version, kept as they are.
    pub(crate) more: Vec<String>,
}

/// The content of the lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    /// The number of the last claim.
    pub(crate) last: u64,
    /// Who took that claim, while it starts. What has failed there or been killed still stands here.
    pub(crate) starting: Option<Generation>,
    /// The generations that have started and not ended, as far as known.
    pub(crate) live: Vec<Generation>,
    /// Fields of a later version in the first line, kept as they are.
    pub(crate) more: Vec<String>,
}

const RECORD: &str = "seamless-record";
/// Before the line of the one that is starting.
const STARTING: &str = "starting ";
/// What stands behind it is what a longer, older record left there.
const RECORD_END: &str = "end";

impl Record {
    pub(crate) fn format(&self) -> String {
        let mut text = format!("{RECORD} {VERSION} last={}", self.last);
        for field in &self.more {
            _ = write!(text, " {field}");
        }
        text.push('\n');
        for generation in &self.live {
            text.push_str(&generation.format());
        }
        // Last: where the disk is full, what stood there before is still whole.
        if let Some(starting) = &self.starting {
            text.push_str(STARTING);
            text.push_str(&starting.format());
        }
        text.push_str(RECORD_END);
        text.push('\n');
        text
    }

    /// The record, and the lines that were dropped because they do not parse. An empty file is an
    /// empty record. A line without its newline was cut, and may say anything: it is dropped too.
    pub(crate) fn parse(bytes: &[u8]) -> Result<(Record, Vec<String>), Refused> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split_inclusive('\n');
        let Some(head) = lines.next() else {
            return Ok((Record::default(), Vec::new()));
        };
        let mut words = head.split_ascii_whitespace();
        if words.next() != Some(RECORD) {
            return Err(Refused::Foreign);
        }
        match words.next().and_then(|word| word.parse().ok()) {
            Some(VERSION) => {}
            Some(version) if version > VERSION => return Err(Refused::Version(version)),
            Some(_) | None => return Err(Refused::Foreign),
        }
        let mut dropped = Vec::new();
        let (mut last, mut more) = (None, Vec::new());
        for word in words.filter(|_| head.ends_with('\n')) {
            match word.strip_prefix("last=") {
                Some(number) => last = number.parse().ok(),
                None => more.push(word.to_owned()),
            }
        }
        if last.is_none() {
            dropped.push(head.trim_end().to_owned());
        }
        let mut starting = None;
        let mut live: Vec<Generation> = Vec::new();
        for line in lines {
            let complete = line.strip_suffix('\n');
            if complete == Some(RECORD_END) {
                break;
            }
            if let Some(complete) = complete.and_then(|line| line.strip_prefix(STARTING)) {
                match Generation::parse(complete) {
                    Some(generation) if starting.is_none() => starting = Some(generation),
                    Some(_) | None => dropped.push(line.trim_end().to_owned()),
                }
                continue;
            }
            match complete.and_then(Generation::parse) {
                Some(generation) if live.iter().all(|one| one.number != generation.number) => {
                    live.push(generation);
                }
                Some(_) | None => dropped.push(line.trim_end().to_owned()),
            }
        }
        let newest = live.iter().map(|one| one.number).max();
        let record = Record { last: last.max(newest).unwrap_or(0), starting, live, more };
        Ok((record, dropped))
    }
}

impl Generation {
    pub(crate) fn format(&self) -> String {
        let Generation { number, daemon, boot, pid_namespace, launcher, supervisor, more } = self;
        let mut line = format!(
            "generation={number} daemon={daemon} boot={boot} pid_namespace={pid_namespace} \
             launcher={launcher}",
        );
        if let Some(supervisor) = supervisor {
            _ = write!(line, " supervisor={supervisor}");
        }
        for field in more {
            _ = write!(line, " {field}");
        }
        line.push('\n');
        line
    }

    fn parse(line: &str) -> Option<Generation> {
        let (mut number, mut daemon, mut boot, mut pid_namespace) = (None, None, None, None);
        let (mut launcher, mut supervisor, mut more) = (None, None, Vec::new());
        for field in line.split_ascii_whitespace() {
            let (key, value) = field.split_once('=')?;
            match key {
                "generation" => number = Some(value.parse().ok()?),
                "daemon" => daemon = Some(Identity::parse(value)?),
                "boot" => boot = Some(value.to_owned()),
                "pid_namespace" => pid_namespace = Some(value.parse().ok()?),
                "launcher" => launcher = Some(Identity::parse(value)?),
                "supervisor" => supervisor = Some(Identity::parse(value)?),
                _ => more.push(field.to_owned()),
            }
        }
        Some(Generation {
            number: number?,
            daemon: daemon?,
            boot: boot?,
            pid_namespace: pid_namespace?,
            launcher: launcher?,
            supervisor,
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
    /// Somebody who has ended before more than that could be seen: no process is this one.
    pub(crate) const GONE: Identity = Identity { pid: 1, start: u64::MAX };

    pub(crate) fn parse(text: &str) -> Option<Identity> {
        let (pid, start) = text.split_once(':')?;
        let pid = parse_pid(pid.as_bytes()).or((pid == "1").then_some(1))?;
        Some(Identity { pid, start: start.parse().ok()? })
    }
}

// ---- the supervisor's status ----

/// What `supervise/status` says. daemontools writes 18 bytes, runit 20; the first 18 mean the same:
/// 12 of TAI64N, the PID little-endian, paused, and `u`, `d` or 0 (up only once). `None` where it
/// is no such status, or not about this process: then it is another service's.
///
/// What is wanted once is wanted as long as it runs. To the main process itself that says: when it
/// ends, no other comes. To a detached daemon (no `main_pid`) it says: a successor is starting.
pub(crate) fn parse_status(status: &[u8], main_pid: Option<i32>) -> Option<Reading> {
    let about = i32::from_le_bytes(status.get(12..16)?.try_into().ok()?);
    if main_pid.is_some_and(|pid| pid != about) {
        return None;
    }
    // runit writes `d` for once as well, but has sent no TERM (18) to what runs (19).
    let once = matches!(&status[16..], [_, 0] | [_, b'd', 0, 1]);
    match status.get(17)? {
        b'u' => Some(Reading::Up),
        b'd' | 0 if once && about != 0 && main_pid.is_none() => Some(Reading::Up),
        b'd' | 0 => Some(Reading::Down),
        _ => None,
    }
}

/// The same of s6: 35 bytes, 43 since 2.13. A big-endian PID at 24, which is that of `./finish` while
/// it runs, and flags in the last byte. Up only once looks like down while something runs.
pub(crate) fn parse_s6_status(status: &[u8], main_pid: Option<i32>) -> Option<Reading> {
    const FINISHING: u8 = 2;
    const WANTED_UP: u8 = 4;
    let (35 | 43) = status.len() else { return None };
    let about = u64::from_be_bytes(status[24..32].try_into().ok()?);
    let flags = *status.last()?;
    if main_pid.is_some_and(|pid| u64::try_from(pid) != Ok(about)) {
        return None;
    }
    // Somebody starts, or its launcher hears the stop itself.
    let runs = about != 0 && flags & FINISHING == 0;
    match flags & WANTED_UP != 0 || runs && main_pid.is_none() {
        true => Some(Reading::Up),
        false => Some(Reading::Down),
    }
}

/// Does a file `down-signal` of s6 name TERM? It holds a signal's name or number.
pub(crate) fn is_term(down_signal: &str) -> bool {
    let name = down_signal.trim().to_ascii_uppercase();
    ["15", "TERM", "SIGTERM"].contains(&name.as_str())
}

// ---- the channel ----

/// What the launcher knows of its supervisor. A pidfd of it may come with the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) kind: Kind,
    /// The launcher itself: with its start time, so that it can be proven later.
    pub(crate) launcher: Option<Identity>,
    pub(crate) supervisor: Option<Identity>,
    /// The launcher restarts in place: a wish for a restart is its to fulfil.
    pub(crate) in_place: bool,
    /// The folder that holds `supervise/`.
    pub(crate) folder: Option<Vec<u8>>,
}

/// A message from launcher to daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToDaemon {
    Hello(Hello),
    Intent(Intent),
    /// A generation that the same launcher has started later serves.
    TakenOver,
    /// A restart in place was not to be, and why.
    ReloadFailed(String),
    /// A sign of life is wanted: [`Aside::Alive`].
    Ask,
}

/// What a daemon tells its launcher beside the protocol: its machine takes no notice.
#[cfg(feature = "systemd")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Aside {
    Alive,
    /// Have the supervisor keep the descriptor beside this, under this name without blanks.
    Store(String),
    /// It need not keep that one any more.
    Remove(String),
}

#[cfg(feature = "systemd")]
impl Aside {
    pub(crate) fn format(&self) -> Vec<u8> {
        let text = match self {
            Aside::Alive => format!("{CHANNEL}{VERSION} alive"),
            Aside::Store(name) => format!("{CHANNEL}{VERSION} store {name}"),
            Aside::Remove(name) => format!("{CHANNEL}{VERSION} remove {name}"),
        };
        text.into_bytes()
    }

    /// `None`: something else.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Aside> {
        let (kind, fields) = split_message(bytes).ok()?;
        let name = || fields.split(' ').next().filter(|name| !name.is_empty()).map(str::to_owned);
        match kind {
            "alive" => Some(Aside::Alive),
            "store" => name().map(Aside::Store),
            "remove" => name().map(Aside::Remove),
            _ => None,
        }
    }
}

/// A field of [`Report::Started`].
const DRAIN_TIMEOUT: &str = "drain_timeout_ms=";
/// As much as is told of why a restart in place was not to be, in characters.
const WHY_MAX: usize = 1000;

const CHANNEL: &str = "seamless/";
/// Longer than any message: a path has at most 4096 bytes.
pub(crate) const MESSAGE_MAX: usize = 8192;

impl ToDaemon {
    /// As one line, and no longer than fits.
    pub(crate) fn reload_failed(why: &str) -> ToDaemon {
        let line = why.chars().map(|one| if one.is_control() { ' ' } else { one });
        ToDaemon::ReloadFailed(line.take(WHY_MAX).collect())
    }

    pub(crate) fn format(&self) -> Vec<u8> {
        match self {
            ToDaemon::Hello(hello) => {
                let mut text = format!("{CHANNEL}{VERSION} hello kind={}", hello.kind.name());
                if let Some(launcher) = hello.launcher {
                    _ = write!(text, " launcher={launcher}");
                }
                if let Some(supervisor) = hello.supervisor {
                    _ = write!(text, " supervisor={supervisor}");
                }
                if hello.in_place {
                    text.push_str(" reload=1");
                }
                let mut bytes = text.into_bytes();
                if let Some(folder) = &hello.folder {
                    bytes.extend_from_slice(b" folder="); // last: a path may hold anything
                    bytes.extend_from_slice(folder);
                }
                bytes
            }
            ToDaemon::Intent(intent) => {
                format!("{CHANNEL}{VERSION} intent {}", intent.name()).into_bytes()
            }
            ToDaemon::TakenOver => format!("{CHANNEL}{VERSION} taken-over").into_bytes(),
            ToDaemon::ReloadFailed(why) => {
                format!("{CHANNEL}{VERSION} reload-failed {why}").into_bytes()
            }
            ToDaemon::Ask => format!("{CHANNEL}{VERSION} ask").into_bytes(),
        }
    }

    /// `Ok(None)`: a message that this version does not know.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<ToDaemon>, Refused> {
        const FOLDER: &[u8] = b" folder=";
        let at = bytes.windows(FOLDER.len()).position(|window| window == FOLDER);
        let (head, folder) = match at {
            Some(at) => (&bytes[..at], Some(bytes[at + FOLDER.len()..].to_vec())),
            None => (bytes, None),
        };
        let (name, fields) = split_message(head)?;
        let message = match name {
            "hello" => {
                let field = |key: &str| {
                    fields.split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
                };
                ToDaemon::Hello(Hello {
                    kind: field("kind").and_then(Kind::from_name).unwrap_or(Kind::Other),
                    launcher: field("launcher").and_then(Identity::parse),
                    supervisor: field("supervisor").and_then(Identity::parse),
                    in_place: field("reload") == Some("1"),
                    folder,
                })
            }
            "intent" => {
                let word = fields.split(' ').next().unwrap_or_default();
                ToDaemon::Intent(Intent::from_name(word).unwrap_or(Intent::Unknown))
            }
            "taken-over" => ToDaemon::TakenOver,
            "reload-failed" => ToDaemon::ReloadFailed(fields.to_owned()),
            "ask" => ToDaemon::Ask,
            _ => return Ok(None),
        };
        Ok(Some(message))
    }
}

impl Report {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Report::Ready => "ready",
            Report::Started => "started",
            Report::Released => "released",
            Report::TakenOver => "taken-over",
            Report::Draining => "draining",
            Report::Waiting => "waiting",
            Report::Reload => "reload",
        }
    }

    pub(crate) fn format(self) -> Vec<u8> {
        format!("{CHANNEL}{VERSION} {}", self.name()).into_bytes()
    }

    /// [`Report::Started`], and how long a drain of this daemon may take: only now it is certain.
    pub(crate) fn format_started(drain_timeout: Option<Duration>) -> Vec<u8> {
        let mut message = Report::Started.format();
        if let Some(timeout) = drain_timeout {
            message.extend(format!(" {DRAIN_TIMEOUT}{}", timeout.as_millis()).bytes());
        }
        message
    }

    /// What [`format_started`](Report::format_started) has said of it.
    pub(crate) fn drain_timeout(started: &[u8]) -> Option<Duration> {
        let (_, fields) = split_message(started).ok()?;
        let millis = fields.split(' ').find_map(|field| field.strip_prefix(DRAIN_TIMEOUT))?;
        millis.parse().ok().map(Duration::from_millis)
    }

    /// `Ok(None)`: a message that this version does not know.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Report>, Refused> {
        let (name, _) = split_message(bytes)?;
        let all = [
            Report::Ready,
            Report::Started,
            Report::Released,
            Report::TakenOver,
            Report::Draining,
            Report::Waiting,
            Report::Reload,
        ];
        Ok(all.into_iter().find(|report| report.name() == name))
    }
}

impl Intent {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Intent::Restart => "restart",
            Intent::Stop(Scope::Service) => "stop",
            Intent::Stop(Scope::Generation) => "stop-generation",
            Intent::Unknown => "unknown",
        }
    }

    fn from_name(name: &str) -> Option<Intent> {
        let stops = [Scope::Service, Scope::Generation].map(Intent::Stop);
        let all = [Intent::Restart, Intent::Unknown].into_iter().chain(stops);
        all.into_iter().find(|intent| intent.name() == name)
    }
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Daemontools => "daemontools",
            Kind::Runit => "runit",
            Kind::S6 => "s6",
            Kind::Systemd => "systemd",
            Kind::Supervisord => "supervisord",
            Kind::OpenRc => "openrc",
            Kind::Nobody => "nobody",
            Kind::Other => "other",
        }
    }

    fn from_name(name: &str) -> Option<Kind> {
        let all = [
            Kind::Daemontools,
            Kind::Runit,
            Kind::S6,
            Kind::Systemd,
            Kind::Supervisord,
            Kind::OpenRc,
            Kind::Nobody,
            Kind::Other,
        ];
        all.into_iter().find(|kind| kind.name() == name)
    }
}

fn split_message(bytes: &[u8]) -> Result<(&str, &str), Refused> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refused::Foreign)?;
    let text = text.strip_prefix(CHANNEL).ok_or(Refused::Foreign)?;
    let (version, message) = text.split_once(' ').ok_or(Refused::Foreign)?;
    match version.parse() {
        Ok(VERSION) => {}
        Ok(version) if version > VERSION => return Err(Refused::Version(version)),
        Ok(_) | Err(_) => return Err(Refused::Foreign),
    }
    Ok(message.split_once(' ').unwrap_or((message, "")))
}

#[cfg(all(test, not(model)))]
mod tests;
