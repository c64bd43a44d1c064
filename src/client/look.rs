//! A look at a service: its files, and which of its generations live.

use super::history::History;
use super::rejected::Rejected;
use super::status::Status;
use super::supervisor::Supervisor;
use crate::driver;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::State;
use crate::proto::generation::check::Content;
use crate::proto::generation::proof::World;
use crate::proto::generation::record::{self, LineState};
use crate::proto::generation::rejection;
use crate::proto::generation::verdict::{Asker, Facts, Purpose, Unproven, Verdict, Why, verdict};
use crate::proto::paths;
use crate::sys::proc::Hidden;
use crate::sys::process::Held;
use crate::sys::{lock_file, pid_file, proc, process, wait};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Before a record that was being written is read again.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two looks at a process that cannot be waited for.
const ENDED_PAUSE: Duration = Duration::from_millis(100);

/// What there is to see of a service. See [`Service::look`](super::Service::look).
#[derive(Debug)]
pub struct Look {
    pid_file: PathBuf,
    content: Option<Content>,
    /// The newest last.
    live: Vec<Generation>,
    last_claim: u64,
    rejected: Option<rejection::Rejected>,
    starting: Option<i32>,
    history: History,
    notes: Vec<String>,
    unknown: Option<String>,
    unread: Option<Unread>,
}

/// Why the record cannot be used, for the check.
#[derive(Clone, Debug)]
pub(super) enum Unread {
    /// What stands in the file is no record, or a later version's.
    Bad(String),
    /// We may not read it.
    Denied(String),
}

/// A generation of the record that lives.
///
/// It holds its daemon by a pidfd: the value means this process, also after the process has ended
/// and the number belongs to another one.
#[derive(Debug)]
pub struct Generation {
    listed: record::Generation,
    /// `None` without pidfds.
    held: Option<Held>,
    proof: Proof,
    launcher_lives: bool,
}

/// How a generation is known to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proof {
    /// Start time, boot and PID namespace of the process are those of the record, and a pidfd holds
    /// it.
    Proven,
    /// The PID file names it and somebody holds the lock on that file, no more: there are no pidfds
    /// (Linux before 5.3, or a seccomp filter), or `/proc` is missing or hides it. Such a process is never
    /// signalled.
    LockOnly,
}

impl Generation {
    /// Its number: the first that claimed the PID file has 1.
    pub fn number(&self) -> u64 {
        self.listed.number
    }

    /// The PID of its daemon.
    pub fn daemon(&self) -> i32 {
        self.listed.daemon.pid
    }

    /// The PID of its launcher, if it has one. A launcher that the daemon has released may still be
    /// about to end: with the daemon's `status` it is not counted any more.
    pub fn launcher(&self, status: Option<&Status>) -> Option<i32> {
        let detached = status.is_some_and(|status| status.state() == State::Detached);
        (self.launcher_lives && !detached).then_some(self.listed.launcher.pid)
    }

    /// Who supervises it; `None` if its supervisor has ended. The daemon's `status` counts more than
    /// what can be seen from here, which may need root.
    pub fn supervisor(&self, status: Option<&Status>) -> Option<Supervisor> {
        let identity = self.listed.supervisor?;
        let lives = proc::identity(identity.pid) == Some(identity);
        let processes = (self.daemon(), self.listed.launcher.pid);
        lives.then(|| Supervisor::of(identity.pid, processes, self.launcher(status), status))
    }

    /// How it is known to live.
    pub fn proof(&self) -> Proof {
        self.proof
    }

    /// Whether this is the same process as `other`. Numbers do not tell: they begin anew if the lock
    /// file was removed.
    pub fn is_same(&self, other: &Generation) -> bool {
        self.listed.daemon == other.listed.daemon
    }

    /// How long its daemon has run; `None` without `/proc`.
    pub fn age(&self) -> Option<Duration> {
        proc::age(self.listed.daemon.start)
    }

    /// The program file that its daemon runs. If a deploy has replaced or removed the file since, the path ends
    /// with ` (deleted)`. For a script, it is the interpreter. `None` if we may not look (`proc_pid_exe(5)`), or
    /// it has ended.
    pub fn program(&self) -> Option<PathBuf> {
        let program = std::fs::read_link(format!("/proc/{}/exe", self.daemon())).ok()?;
        (!self.has_ended()).then_some(program)
    }

    /// How many connections its daemon has open: established TCP connections, and Unix stream
    /// connections to a path. `None` if we may not look at its descriptors (`proc_pid_fd(5)`), or it
    /// has ended.
    pub fn connections(&self) -> Option<usize> {
        let count = proc::connections(self.daemon())?;
        // If it has ended meanwhile, they may have been those of another process.
        (!self.has_ended()).then_some(count)
    }

    /// Whether its daemon has ended. A zombie has ended, too.
    pub fn has_ended(&self) -> bool {
        match &self.held {
            Some(held) => held.has_ended(),
            // Not by /proc, which may hide it from us.
            None => !process::exists(self.daemon()),
        }
    }

    /// Waits until its daemon has ended, for at most `limit`, and returns whether it has. It may
    /// return earlier if a signal handler ran.
    pub fn wait_end(&self, limit: Duration) -> bool {
        match &self.held {
            Some(held) => {
                wait::readable(&[held.as_fd()], Some(limit));
                held.has_ended()
            }
            None => {
                let began = Instant::now();
                while !self.has_ended() && began.elapsed() < limit {
                    thread::sleep(ENDED_PAUSE.min(limit.saturating_sub(began.elapsed())));
                }
                self.has_ended()
            }
        }
    }

    /// Sends its daemon a signal, by the pidfd (`pidfd_send_signal(2)`): never to another process,
    /// even if this one has ended. [`TERM`](crate::signal::TERM) drains this generation;
    /// KILL ends it, and what it serves is cut off.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::System`]: the process is not [`Proof::Proven`], has ended, or belongs to another
    /// user.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let pid = self.daemon();
        let proven = self.held.as_ref().filter(|_| self.proof == Proof::Proven);
        let Some(held) = proven else {
            let text =
                format!("cannot signal daemon {pid}: it cannot be proven to be of this service");
            return Err(Error::new(ErrorKind::System, text));
        };
        held.signal(signal).map_err(|error| {
            Error::io(ErrorKind::System, format!("cannot signal daemon {pid}"), error)
        })
    }

    /// Was the boot ID hidden from it?
    pub(super) fn has_no_boot(&self) -> bool {
        World::of(&self.listed).boot.is_none()
    }

    /// Whether it is a keeper: see [`Status::is_keeping`].
    pub fn is_keeper(&self) -> bool {
        self.listed.state == Some(LineState::Keeping)
    }

    /// Whether it serves on [probation](crate::Config::probation).
    pub fn is_on_probation(&self) -> bool {
        self.listed.state == Some(LineState::Probation)
    }

    /// Whether the record says that it drains.
    pub fn is_draining(&self) -> bool {
        matches!(self.listed.state, Some(LineState::Draining | LineState::Replaced))
    }

    /// Does the record say that it listens at the control socket? A successor that enters the record
    /// takes the socket, and writes there that the older ones drain.
    pub(super) fn listens(&self) -> bool {
        self.listed.state.is_some_and(LineState::listens)
    }
}

impl Look {
    pub(super) fn at(pid_file: &Path) -> Look {
        let mut look = Look {
            pid_file: pid_file.to_owned(),
            content: None,
            live: Vec::new(),
            last_claim: 0,
            rejected: None,
            starting: None,
            history: History::default(),
            notes: Vec::new(),
            unknown: None,
            unread: None,
        };
        match pid_file::read(pid_file) {
            Ok(content) => look.content = Some(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => look.notes.push(format!("cannot use {pid_file:?}: {error}")),
        }
        match read_record(pid_file) {
            Ok(read) => look.read(read),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = paths::lock_file(pid_file);
                let denied = error.kind() == io::ErrorKind::PermissionDenied;
                let hint = match error.raw_os_error() {
                    Some(_) if denied => "; ask as the service's user, or as root",
                    _ => "",
                };
                look.unknown = Some(format!("cannot read the record {path:?}: {error}{hint}"));
                look.unread = denied.then(|| Unread::Denied(error.to_string()));
            }
        }
        look.judge_pid_file();
        look
    }

    /// The absolute path of the PID file.
    pub fn pid_file(&self) -> &Path {
        &self.pid_file
    }

    /// The PID that the PID file holds, whoever that is.
    pub fn named(&self) -> Option<i32> {
        self.content?.pid
    }

    /// The generations that live, the newest last.
    pub fn generations(&self) -> &[Generation] {
        &self.live
    }

    /// The newest generation: the one that serves, if any does.
    pub fn newest(&self) -> Option<&Generation> {
        self.live.last()
    }

    /// The generations alone, the newest last.
    pub fn into_generations(self) -> Vec<Generation> {
        self.live
    }

    /// If the newest generation is on [probation](crate::Config::probation): the older one that stands by, and
    /// serves again if the newest one fails.
    pub fn standby(&self) -> Option<&Generation> {
        let (newest, older) = self.live.split_last()?;
        let can = |one: &&Generation| one.listed.state == Some(LineState::Serving);
        older.iter().rev().find(can).filter(|_| newest.is_on_probation())
    }

    /// The program file that has failed in its [probation](crate::Config::probation), until another generation
    /// has passed it.
    pub fn rejected(&self) -> Option<Rejected> {
        self.rejected.as_ref().map(Rejected::of)
    }

    /// The generations but the newest: they drain, except for the [`standby`](Look::standby).
    pub fn older(&self) -> &[Generation] {
        self.live.split_last().map_or(&[], |(_, older)| older)
    }

    /// The PID of a process that holds the claim: a generation that has not started yet. It is 0 if
    /// the process lives in another PID namespace.
    pub fn starting(&self) -> Option<i32> {
        self.starting
    }

    /// What has happened to the service so far.
    pub fn history(&self) -> History {
        self.history
    }

    /// How many starts took the claim after the generation of this number, have ended and never
    /// served.
    pub fn starts_since(&self, number: u64) -> u64 {
        let under_way = u64::from(self.starting.is_some());
        self.last_claim.saturating_sub(number).saturating_sub(under_way)
    }

    /// The PID of a living process that holds the PID file and is none of the
    /// [`generations`](Look::generations): a takeover is under way, or the file belongs to another program.
    /// It is 0 if the file names no process. As long as there is one, the service is not known to be down.
    pub fn holder(&self) -> Option<i32> {
        let Content { pid, locked: true } = self.content? else { return None };
        let pid = pid.unwrap_or(0);
        (!self.live.iter().any(|live| live.daemon() == pid)).then_some(pid)
    }

    /// What is wrong with the files, or odd, in words.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Why it is unknown which generations live; `None` if it is known.
    pub fn unknown(&self) -> Option<&str> {
        self.unknown.as_deref()
    }

    pub(super) fn last_claim(&self) -> u64 {
        self.last_claim
    }

    pub(super) fn unread(&self) -> Option<&Unread> {
        self.unread.as_ref()
    }

    fn read(&mut self, looked: lock_file::Looked) {
        let record = match looked.record {
            Ok((record, dropped)) => {
                let path = &looked.path;
                let lines = dropped.iter();
                self.notes.extend(lines.map(|line| format!("{path:?} has a bad line: {line:?}")));
                record
            }
            Err(error) => {
                self.unknown = Some(error.to_string());
                self.unread = Some(Unread::Bad(error.to_string()));
                return;
            }
        };
        (self.last_claim, self.rejected) = (record.last, record.rejected);
        let (world, hidden) = match proc::world() {
            Ok((world, hidden)) => {
                (world, hidden.map(|(Hidden::Processes(why) | Hidden::Boot(why))| why))
            }
            Err(error) => (World::default(), Some(error)),
        };
        if let Some(why) = hidden {
            self.notes.push(format!("only who holds the PID file is known to live: {why}"));
        }
        let mut doubtful = Vec::new();
        let mut facts = Vec::new();
        for generation in record.live.iter().cloned() {
            facts.extend(self.prove(generation, &world, looked.bound, &mut doubtful));
        }
        self.history = History::of(record, &facts, looked.holder, &world);
        match doubtful.first() {
            Some(first) if self.live.is_empty() => self.unknown = Some(first.clone()),
            Some(_) | None => self.notes.append(&mut doubtful),
        }
        // One that was rolled back drains, and the older one before it serves.
        self.live.sort_by_key(|one| (!one.is_draining(), one.number()));
        // A detached daemon takes the claim for a moment when it checks.
        let is_live = |pid: &i32| self.live.iter().any(|live| live.daemon() == *pid);
        self.starting = looked.holder.filter(|pid| !is_live(pid));
    }

    fn prove(
        &mut self,
        listed: record::Generation,
        world: &World,
        bound: Option<u32>,
        doubtful: &mut Vec<String>,
    ) -> Option<Facts> {
        let record::Generation { number, daemon, launcher, .. } = listed;
        let pid = daemon.pid;
        let content = self.content.unwrap_or_default();
        let proof = match process::prove_daemon(&listed, world, 0, content) {
            Ok(proof) => proof,
            Err(error) => {
                self.unknown = Some(format!("cannot look at process {pid}: {error}"));
                return None;
            }
        };
        let facts = Facts {
            number,
            start: daemon.start,
            proof: proof.as_ref().map(drop).map_err(|why| *why),
            foreign: false, // no launcher is ours
            // Read after the pidfd was opened, so it is about the process that is held.
            beyond: bound.filter(|owner| !process::is_of(pid, *owner).unwrap_or(false)),
            holds_pid_file: content.is_held_by(pid),
            serves: listed.state.is_some_and(LineState::serves),
            unproven: listed.state.is_some_and(LineState::is_unproven),
            keeps: listed.state == Some(LineState::Keeping),
        };
        match verdict(&facts, Purpose::Ask, Asker::OUTSIDE) {
            Verdict::Touch { .. } | Verdict::TouchByNumber => {
                let has_ended = proc::state(launcher.pid) == Some('Z');
                let launcher_lives = !has_ended && proc::identity(launcher.pid) == Some(launcher);
                let (held, proof) = match proof {
                    Ok(held) => (Some(held), Proof::Proven),
                    // What cannot be proven can still be waited for.
                    Err(_) => (Held::open(pid).ok(), Proof::LockOnly),
                };
                self.live.push(Generation { listed, held, proof, launcher_lives });
            }
            Verdict::Leave { why: Why::Unproven(Unproven::Unknown), .. }
                if process::exists(pid) =>
            {
                doubtful.push(format!(
                    "it cannot be known from here whether process {pid} is generation {number}: start time, \
                     boot or PID namespace cannot be compared"
                ));
            }
            Verdict::Leave { why, .. } | Verdict::Refuse(why) => self.pass_over(&facts, pid, why),
        }
        Some(facts)
    }

    /// What there is to say of a listed process that we may not touch.
    fn pass_over(&mut self, facts: &Facts, pid: i32, why: Why) {
        match (why, facts.beyond) {
            (Why::Unproven(Unproven::Elsewhere) | Why::HoldsFileElsewhere, _)
                if facts.holds_pid_file =>
            {
                self.unknown = Some(format!(
                    "generation {} lives in another PID namespace: ask there",
                    facts.number,
                ));
            }
            (_, Some(owner)) if facts.lives() => self.notes.push(format!(
                "the record belongs to uid {owner}, but process {pid} in it does not: passed over",
            )),
            _ => {}
        }
    }

    fn judge_pid_file(&mut self) {
        let path = &self.pid_file;
        if self.newest().is_some_and(Generation::is_keeper) {
            return; // the file still names the daemon that has crashed
        }
        let newest = self.newest().map(Generation::daemon);
        let note = match (self.content, newest) {
            _ if self.unknown.is_some() => None,
            (None, None) if self.notes.is_empty() => Some(format!("{path:?} does not exist")),
            (None, None) => None, // what is there is no PID file
            (None, Some(_)) => Some(format!("{path:?} is missing: it is put back within seconds")),
            (Some(Content { pid: None, .. }), _) => Some(format!("{path:?} holds no PID")),
            (Some(Content { pid: Some(pid), locked }), None) => Some(match locked {
                true => format!(
                    "process {pid} holds {path:?}, and no record lists it: it does not use this \
                     crate, or another version of it"
                ),
                false => format!("{path:?} is stale: process {pid} that it names does not hold it"),
            }),
            (Some(Content { pid: Some(pid), .. }), Some(newest)) if pid != newest => {
                Some(format!("{path:?} names process {pid}, the newest generation is {newest}"))
            }
            (Some(_), Some(_)) => None,
        };
        self.notes.extend(note);
    }
}

/// If the record is being written meanwhile, some of it does not parse. Then it is read again.
fn read_record(pid_file: &Path) -> io::Result<lock_file::Looked> {
    if driver::is_own(pid_file) {
        let why = "this process is a generation of the service; ask from another process";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    for _ in 0..3 {
        let looked = lock_file::look(pid_file)?;
        if looked.record.as_ref().is_ok_and(|(_, dropped)| dropped.is_empty()) {
            return Ok(looked);
        }
        thread::sleep(PAUSE);
    }
    lock_file::look(pid_file)
}
