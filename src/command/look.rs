//! A look at a service: its files, who of it lives, and what its newest generation says.

use crate::driver::control::link::{Deadline, Unconnected, connect};
use crate::proto::control::frame::{Answer, Request};
use crate::proto::control::status::{Stage, Status};
use crate::proto::generation::check::Content;
use crate::proto::generation::record::LineState;
use crate::proto::generation::record::{Generation, Record};
use crate::proto::generation::verdict::{Asker, Facts, Purpose, Unproven, Verdict, verdict};
use crate::proto::paths;
use crate::sys::proc::World;
use crate::sys::process::Held;
use crate::sys::{lock_file, pid_file, proc, process};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long a daemon may take to answer.
pub(super) const ANSWER: Duration = Duration::from_secs(5);
/// How long the record and the socket may contradict each other: a takeover changes them one after
/// the other.
const TAKEOVER: Duration = Duration::from_secs(2);
/// Between two looks, from and to.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// What there is to see of a service.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) pid_file: PathBuf,
    pub(super) content: Option<Content>,
    /// Those of the record that live, the newest last.
    pub(super) live: Vec<Live>,
    /// The number of the last claim.
    pub(super) last_claim: u64,
    /// Who holds the claim and has not started.
    pub(super) starting: Option<i32>,
    /// What is wrong with the files, or odd.
    pub(super) notes: Vec<String>,
    /// Why it cannot be known who lives.
    pub(super) blind: Option<String>,
}

/// A generation that lives.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) generation: Generation,
    /// `None` where there are no pidfds or no `/proc`.
    pub(super) held: Option<Held>,
    launcher_lives: bool,
}

/// Why the newest generation has not answered.
#[derive(Debug)]
pub(super) enum Unasked {
    /// There is none.
    Nobody,
    /// It was built without the feature `sockets`.
    Mute,
    Failed(String),
}

impl Live {
    pub(super) fn number(&self) -> u64 {
        self.generation.number
    }

    pub(super) fn pid(&self) -> i32 {
        self.generation.daemon.pid
    }

    /// Has it a launcher? One that it has let go may still be on its way out.
    pub(super) fn is_attached(&self, status: Option<&Status>) -> bool {
        self.launcher_lives && status.is_none_or(|status| status.stage != Stage::Detached)
    }

    pub(super) fn has_ended(&self) -> bool {
        match &self.held {
            Some(held) => held.has_ended(),
            None => proc::identity(self.pid()).is_none(),
        }
    }

    fn hands_over(&self) -> bool {
        self.generation.state == Some(LineState::Serving)
    }
}

impl Seen {
    pub(super) fn look(pid_file: &Path) -> Seen {
        let mut seen = Seen {
            pid_file: pid_file.to_owned(),
            content: None,
            live: Vec::new(),
            last_claim: 0,
            starting: None,
            notes: Vec::new(),
            blind: None,
        };
        match pid_file::read(pid_file) {
            Ok(content) => seen.content = Some(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => seen.notes.push(format!("cannot use {pid_file:?}: {error}")),
        }
        match read_record(pid_file) {
            Ok(looked) => seen.read(looked),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let path = paths::lock_file(pid_file);
                let hint = match error.kind() {
                    io::ErrorKind::PermissionDenied => "; ask as the service's user, or as root",
                    _ => "",
                };
                seen.blind = Some(format!("cannot read the record {path:?}: {error}{hint}"));
            }
        }
        seen.judge_pid_file();
        seen
    }

    fn read(&mut self, looked: lock_file::Looked) {
        let Record { last, live, .. } = match looked.record {
            Ok((record, dropped)) => {
                let path = &looked.path;
                let lines = dropped.iter();
                self.notes.extend(lines.map(|line| format!("{path:?} has a bad line: {line:?}")));
                record
            }
            Err(error) => {
                self.blind = Some(error.to_string());
                return;
            }
        };
        self.last_claim = last;
        let world = proc::world().unwrap_or_else(|error| {
            self.notes.push(format!("nobody can be proven: {error}"));
            World { boot: "unknown".to_owned(), pid_namespace: 0 }
        });
        for generation in live {
            self.prove(generation, &world, looked.bound);
        }
        self.live.sort_by_key(Live::number);
        // A look round of a detached daemon takes the claim for a moment.
        let is_live = |pid: &i32| self.live.iter().any(|live| live.pid() == *pid);
        self.starting = looked.holder.filter(|pid| !is_live(pid));
    }

    fn prove(&mut self, generation: Generation, world: &World, bound: Option<u32>) {
        let Generation { number, daemon, launcher, .. } = generation;
        let pid = daemon.pid;
        let (held, proof) = match process::prove_daemon(&generation, world, 0) {
            Err(error) => {
                self.blind = Some(format!("cannot look at process {pid}: {error}"));
                return;
            }
            Ok(Ok(held)) => (Some(held), Ok(())),
            Ok(Err(why)) => (None, Err(why)),
        };
        // A planted record must not make root ask, or stop, somebody else's service. It is asked of a
        // process that is held.
        let beyond = bound.filter(|owner| !process::is_of(pid, *owner).unwrap_or(false));
        let facts = Facts {
            number,
            start: daemon.start,
            proof,
            foreign: false, // a command is nobody's launcher
            beyond,
            holds_pid_file: self.content.unwrap_or_default().is_held_by(pid),
            serves: generation.state == Some(LineState::Serving),
        };
        match verdict(&facts, Purpose::Ask, Asker::OUTSIDE) {
            Verdict::Touch { .. } | Verdict::TouchByNumber => {}
            Verdict::Leave { .. } if proof == Err(Unproven::Elsewhere) => {
                if facts.holds_pid_file {
                    self.blind = Some(format!(
                        "generation {number} lives in another PID namespace: ask there",
                    ));
                }
                return;
            }
            Verdict::Leave { .. } | Verdict::Refuse(_) => {
                if let (Some(owner), true) = (beyond, facts.lives()) {
                    self.notes.push(format!(
                        "the record belongs to uid {owner}, but process {pid} in it does not: \
                         passed over",
                    ));
                }
                return;
            }
        }
        let has_ended = proc::state(launcher.pid) == Some('Z');
        let launcher_lives = !has_ended && proc::identity(launcher.pid) == Some(launcher);
        self.live.push(Live { generation, held, launcher_lives });
    }

    fn judge_pid_file(&mut self) {
        let path = &self.pid_file;
        let newest = self.newest().map(Live::pid);
        let note = match (self.content, newest) {
            _ if self.blind.is_some() => None,
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

    pub(super) fn newest(&self) -> Option<&Live> {
        self.live.last()
    }

    /// The generations but the newest: they drain.
    pub(super) fn older(&self) -> &[Live] {
        self.live.split_last().map_or(&[], |(_, older)| older)
    }

    /// Starts that took the claim after this generation and do not serve.
    pub(super) fn starts_since(&self, number: u64) -> u64 {
        let under_way = u64::from(self.starting.is_some());
        self.last_claim.saturating_sub(number).saturating_sub(under_way)
    }
}

/// It may be read while it is being written; then some of it does not parse, and it is read again.
fn read_record(pid_file: &Path) -> io::Result<lock_file::Looked> {
    for _ in 0..3 {
        let looked = lock_file::look(pid_file)?;
        if looked.record.as_ref().is_ok_and(|(_, dropped)| dropped.is_empty()) {
            return Ok(looked);
        }
        thread::sleep(PAUSE.0);
    }
    lock_file::look(pid_file)
}

/// Asks the newest generation, as soon as record and socket agree which that is. Only an answer from
/// the process that the record proves is believed.
pub(super) fn ask(
    pid_file: &Path,
    request: &Request,
    timeout: Duration,
) -> (Seen, Result<Answer, Unasked>) {
    let began = Instant::now();
    let deadline = Deadline::named(timeout, "--timeout");
    let mut trouble = None;
    let mut pause = PAUSE.0;
    loop {
        let seen = Seen::look(pid_file);
        let now = match (seen.newest(), &seen.blind) {
            (None, None) => return (seen, Err(Unasked::Nobody)),
            (None, Some(blind)) => {
                let blind = blind.clone();
                return (seen, Err(Unasked::Failed(blind)));
            }
            (Some(newest), _) if !newest.hands_over() => return (seen, Err(Unasked::Mute)),
            (Some(newest), _) => match ask_one(pid_file, newest, request, deadline) {
                Ok(answer) => return (seen, Ok(answer)),
                Err(Trouble::Lasting(why)) => {
                    // What stood in the way before says more than that the time is over.
                    return (seen, Err(Unasked::Failed(trouble.unwrap_or(why))));
                }
                Err(Trouble::Passing(why)) => why,
            },
        };
        if began.elapsed() > TAKEOVER || deadline.left().is_err() {
            return (seen, Err(Unasked::Failed(now)));
        }
        trouble = Some(now);
        thread::sleep(pause.min(deadline.left().unwrap_or_default()));
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// What the newest generation says of itself.
pub(super) fn ask_status(pid_file: &Path, timeout: Duration) -> (Seen, Result<Status, Unasked>) {
    let (seen, answer) = ask(pid_file, &Request::Status, timeout);
    let status = answer.and_then(|answer| match answer {
        Answer::Status(text) => {
            let newest = seen.newest().map(|newest| (newest.pid(), Some(newest.number())));
            let status = Status::parse(&text);
            let status = status.filter(|one| Some((one.daemon, one.generation)) == newest);
            status.ok_or_else(|| {
                let start: String = text.chars().take(200).collect();
                Unasked::Failed(format!("it sent what is no status of its own: {start:?}"))
            })
        }
        other => Err(Unasked::Failed(unexpected(&other))),
    });
    (seen, status)
}

pub(super) fn unexpected(answer: &Answer) -> String {
    match answer {
        Answer::Refused(why) => format!("it refuses: {why}"),
        Answer::Offer { .. }
        | Answer::Sockets(_)
        | Answer::State { .. }
        | Answer::End
        | Answer::Status(_)
        | Answer::Accepted => "it answers something else than it was asked".to_owned(),
    }
}

enum Trouble {
    /// It may be over at the next look.
    Passing(String),
    Lasting(String),
}

fn ask_one(
    pid_file: &Path,
    newest: &Live,
    request: &Request,
    deadline: Deadline,
) -> Result<Answer, Trouble> {
    let path = paths::control_socket(pid_file);
    let (pid, number) = (newest.pid(), newest.number());
    let link = match connect(&path, deadline) {
        Ok(link) => link,
        Err(Unconnected::Nobody) => {
            return Err(Trouble::Passing(format!(
                "nobody listens at {path:?}, where generation {number} (daemon {pid}) should"
            )));
        }
        Err(Unconnected::Failed(why)) => {
            return Err(Trouble::Lasting(format!(
                "cannot ask generation {number} (daemon {pid}) at {path:?}: {why}{}",
                state(pid),
            )));
        }
    };
    match link.listener() {
        Some(peer) if peer.pid == pid => {}
        peer => {
            let who =
                peer.map_or("somebody unknown".to_owned(), |one| format!("process {}", one.pid));
            return Err(Trouble::Passing(format!(
                "{who} listens at {path:?}, which is not proven to be generation {number} (daemon \
                 {pid}): not believed",
            )));
        }
    }
    let answer = deadline.send(&link, &request.format(), &[]).and_then(|()| {
        let message = deadline.receive(&link)?;
        Answer::parse(&message.bytes).map_err(|refused| format!("it sent {refused}"))
    });
    answer.map_err(|why| {
        let state = state(pid);
        let why = format!("daemon {pid} (generation {number}) does not answer: {why}{state}");
        match deadline.left() {
            Ok(_) if newest.has_ended() => Trouble::Passing(why),
            Ok(_) | Err(_) => Trouble::Lasting(why),
        }
    })
}

/// What the kernel says of a process that does not answer.
fn state(pid: i32) -> &'static str {
    match proc::state(pid) {
        Some('T' | 't') => "; it is stopped (SIGSTOP)",
        Some('D') => "; it waits for the disk (state D)",
        _ => "",
    }
}
