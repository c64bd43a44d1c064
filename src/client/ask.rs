//! Asks the newest generation over the control socket.

use super::look::{Generation, Look};
use super::status::Status;
use crate::driver::control::link::{Deadline, Unconnected, connect};
use crate::proto::control::frame::{Answer, Request};
use crate::proto::control::status;
use crate::proto::paths;
use crate::sys::proc;
use crate::sys::seqpacket::Link;
use crate::sys::socket::Peer;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long the record and the control socket may contradict each other: a takeover changes one
/// after the other.
const TAKEOVER: Duration = Duration::from_secs(2);
/// Between two looks: the first pause, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));

/// Why the newest generation has not done what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoAnswer {
    /// No generation runs.
    NobodyRuns,
    /// The generation runs and cannot be asked: a successor took its control socket and died before
    /// it served. If the generation serves on, detached, it listens again within a second. The text
    /// names the process and the path.
    NotListening(String),
    /// The generation has answered that it will not, and why.
    Refused(String),
    /// There was no answer, or none that can be believed. The text names the process and the path.
    Failed(String),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoAnswer::NobodyRuns => f.write_str("no generation runs"),
            NoAnswer::Refused(why) => write!(f, "it refuses: {why}"),
            NoAnswer::NotListening(why) | NoAnswer::Failed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for NoAnswer {}

/// Asks, as soon as the record and the control socket agree which generation is the newest. Returns the answer,
/// and the descriptors that came with it.
pub(super) fn ask(
    pid_file: &Path,
    request: &Request,
    limit: Duration,
) -> (Look, Result<(Answer, Vec<OwnedFd>), NoAnswer>) {
    let began = Instant::now();
    let deadline = Deadline::named(limit, "timeout");
    let mut trouble = None;
    let mut pause = PAUSE.0;
    loop {
        let look = Look::at(pid_file);
        let now = match (look.newest(), look.unknown()) {
            (None, None) => return (look, Err(NoAnswer::NobodyRuns)),
            (None, Some(why)) => {
                let failed = NoAnswer::Failed(why.to_owned());
                return (look, Err(failed));
            }
            (Some(newest), _) => match ask_one(pid_file, newest, request, deadline) {
                Ok(answer) => return (look, Ok(answer)),
                Err(Trouble::Lasting(why)) => {
                    // What stood in the way before says more than that the time is over.
                    return (look, Err(NoAnswer::Failed(trouble.unwrap_or(why))));
                }
                Err(Trouble::Passing(why)) => why,
            },
        };
        if began.elapsed() > TAKEOVER || deadline.left().is_err() {
            let lost = look.newest().is_some_and(|newest| !newest.listens());
            let why = if lost { NoAnswer::NotListening(now) } else { NoAnswer::Failed(now) };
            return (look, Err(why));
        }
        trouble = Some(now);
        thread::sleep(pause.min(deadline.left().unwrap_or_default()));
        pause = (pause * 2).min(PAUSE.1);
    }
}

/// What the generation that was asked says of itself.
pub(super) fn status_of(asked: Option<&Generation>, answer: Answer) -> Result<Status, NoAnswer> {
    let Answer::Status(text) = answer else { return Err(unexpected(answer)) };
    let asked = asked.map(|asked| (asked.daemon(), Some(asked.number())));
    let status = status::Status::parse(&text);
    let status = status.filter(|one| Some((one.daemon, one.generation)) == asked);
    status.map(Status).ok_or_else(|| {
        let start: String = text.chars().take(200).collect();
        NoAnswer::Failed(format!("it sent what is no status of its own: {start:?}"))
    })
}

/// For an answer that does not belong to the request.
pub(super) fn unexpected(answer: Answer) -> NoAnswer {
    match answer {
        Answer::Refused(why) => NoAnswer::Refused(why),
        _ => NoAnswer::Failed("it answers something else than it was asked".to_owned()),
    }
}

enum Trouble {
    /// It may be over at the next look.
    Passing(String),
    Lasting(String),
}

/// Asks the generation that stands by for the newest one, at its second name.
pub(super) fn ask_standby(
    pid_file: &Path,
    look: &Look,
    request: &Request,
    limit: Duration,
) -> Option<Result<Answer, NoAnswer>> {
    let standby = look.standby()?;
    let asked = ask_one(pid_file, standby, request, Deadline::named(limit, "timeout"));
    Some(asked.map(|(answer, _)| answer).map_err(|trouble| match trouble {
        Trouble::Passing(why) | Trouble::Lasting(why) => NoAnswer::Failed(why),
    }))
}

/// Connects to where this generation listens: at the control socket, or at its second name if a newer one has taken
/// the first, which may have died since.
fn connect_to(
    pid_file: &Path,
    generation: &Generation,
    deadline: Deadline,
) -> (PathBuf, Result<(Link, Option<Peer>), Unconnected>) {
    let first = paths::control_socket(pid_file);
    let is_it = |connected: &Result<(Link, Option<Peer>), Unconnected>| {
        let listener = connected.as_ref().ok().and_then(|(_, listener)| listener.as_ref());
        listener.is_some_and(|peer| peer.pid == generation.daemon())
    };
    let connected = connect(&first, deadline);
    if !is_it(&connected) {
        let second = paths::standby_socket(pid_file);
        let there = connect(&second, deadline);
        if is_it(&there) {
            return (second, there);
        }
    }
    (first, connected)
}

/// Only an answer from the process that the record proves is believed.
fn ask_one(
    pid_file: &Path,
    newest: &Generation,
    request: &Request,
    deadline: Deadline,
) -> Result<(Answer, Vec<OwnedFd>), Trouble> {
    let (pid, number) = (newest.daemon(), newest.number());
    let (path, connected) = connect_to(pid_file, newest, deadline);
    let (link, listener) = match connected {
        Ok(connected) => connected,
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
    match listener {
        Some(peer) if peer.pid == pid => {}
        peer => {
            let who =
                peer.map_or("an unknown process".to_owned(), |one| format!("process {}", one.pid));
            return Err(Trouble::Passing(format!(
                "{who} listens at {path:?}, which is not proven to be generation {number} (daemon \
                 {pid}): not believed",
            )));
        }
    }
    let sent = deadline.send(&link, &request.format(), &[]);
    // The daemon may have refused our user already and closed its end. Its answer can still be read.
    let received = deadline.receive(&link).map_err(|why| sent.err().unwrap_or(why));
    let answer = received.and_then(|message| match Answer::parse(&message.bytes) {
        Ok(Answer::Refused(why)) if proc::has_other_users(pid) => {
            let why = format!(
                "{why}; daemon {pid} lives in another user namespace: ask there (nsenter --target {pid} --user)"
            );
            Ok((Answer::Refused(why), message.fds))
        }
        Ok(answer) => Ok((answer, message.fds)),
        Err(refused) => Err(format!("it sent {refused}")),
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
