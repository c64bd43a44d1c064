//! `seamless restart`.

use super::look::{ANSWER, Live, Seen, Unasked, ask, ask_status, unexpected};
use super::supervisor::{Supervising, Wish};
use super::{Ask, End, complain, say, words};
use crate::proto::control::frame::{Answer, Request};
use crate::proto::control::status::{Stage, Status};
use crate::sys::wait;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// A daemon that had less time than that to answer is not said to hang.
const ENOUGH: Duration = Duration::from_secs(1);
/// How long nobody may run: a supervisor takes a moment, up to a second, before it starts the next.
const GAP: Duration = Duration::from_secs(3);

pub(super) fn run(asked: &Ask) -> End {
    let timeout = asked.timeout.unwrap_or(TIMEOUT);
    let began = Instant::now();
    let path = &asked.pid_file;
    let before = match ask_status(path, timeout.min(ANSWER)) {
        (_, Ok(status)) => status,
        (seen, Err(why)) => return not_asked(&seen, why),
    };
    let (seen, answer) = ask(path, &Request::Restart, timeout.min(ANSWER));
    let Some(old) = seen.live.into_iter().next_back() else {
        return nobody(path, &seen.notes);
    };
    let (number, pid) = (old.number(), old.pid());
    match answer {
        Ok(Answer::Accepted) => {}
        Ok(Answer::Refused(why)) => {
            complain(format_args!("generation {number} (daemon {pid}) stays: {why}"));
            return End::Stays;
        }
        Ok(other) => {
            complain(format_args!("daemon {pid}: {}", unexpected(&other)));
            return End::Error;
        }
        Err(Unasked::Nobody) => return nobody(path, &seen.notes),
        Err(Unasked::Mute) => {
            complain(format_args!("daemon {pid} cannot be asked"));
            return End::Error;
        }
        Err(Unasked::Failed(why)) => {
            complain(why);
            return End::Error;
        }
    }
    let failures = if before.daemon == pid { before.failures } else { 0 };
    Waiting { path, old, failures, began, timeout, last: Ok(before), gone: None }.wait()
}

/// Why no restart can be asked for.
fn not_asked(seen: &Seen, why: Unasked) -> End {
    match (why, seen.newest()) {
        (Unasked::Nobody, _) | (_, None) if seen.blind.is_none() => {
            nobody(&seen.pid_file, &seen.notes)
        }
        (Unasked::Failed(why), _) => {
            complain(why);
            End::Error
        }
        (_, newest) => {
            let pid = newest.map_or(0, Live::pid);
            let supervising = newest.and_then(|newest| Supervising::of(newest, None));
            let command = supervising.and_then(|one| one.command(Wish::Restart));
            let instead = command.map(|command| format!(": use `{command}`")).unwrap_or_default();
            complain(format_args!(
                "daemon {pid} was built without the feature `sockets` and cannot be asked{instead}"
            ));
            End::Error
        }
    }
}

fn nobody(path: &Path, notes: &[String]) -> End {
    complain(format_args!("{}: no generation runs", path.display()));
    notes.iter().for_each(complain);
    End::NobodyServes
}

struct Waiting<'a> {
    path: &'a Path,
    /// The generation that was asked.
    old: Live,
    /// How many restarts had failed before.
    failures: u64,
    began: Instant,
    timeout: Duration,
    /// What it said last, or why it does not.
    last: Result<Status, String>,
    /// Since when it is gone.
    gone: Option<Instant>,
}

impl Waiting<'_> {
    fn wait(mut self) -> End {
        let mut next = Instant::now();
        loop {
            let seen = Seen::look(self.path);
            if let Some(new) = seen.newest().filter(|newest| self.is_successor(newest)) {
                say(format_args!(
                    "generation {} (daemon {}) took over from generation {} after {}",
                    new.number(),
                    new.pid(),
                    self.old.number(),
                    words::time(self.began.elapsed()),
                ));
                return End::Done;
            }
            if self.old.has_ended() {
                let gone = *self.gone.get_or_insert_with(Instant::now);
                if seen.starting.is_none() && gone.elapsed() >= GAP.min(self.timeout) {
                    complain(format_args!(
                        "generation {} (daemon {}) has ended, and nobody serves in its place",
                        self.old.number(),
                        self.old.pid(),
                    ));
                    return End::NobodyServes;
                }
            } else if next <= Instant::now() {
                if let Some(end) = self.ask() {
                    return end;
                }
                next = Instant::now() + ASK_AGAIN;
            }
            if self.began.elapsed() >= self.timeout {
                return self.give_up(&seen);
            }
            let pause = PAUSE.min(self.timeout.saturating_sub(self.began.elapsed()));
            // One that has ended would end each pause at once.
            let ends = self.old.held.as_ref().filter(|_| self.gone.is_none());
            let ends: Vec<_> = ends.iter().map(AsFd::as_fd).collect();
            wait::readable(&ends, Some(pause));
        }
    }

    /// Numbers begin anew where the lock file was lost, so they alone do not tell.
    fn is_successor(&self, newest: &Live) -> bool {
        newest.generation.daemon != self.old.generation.daemon
            && (newest.number() > self.old.number() || self.old.has_ended())
    }

    /// Asks how it goes. `Some`: the attempt is over.
    fn ask(&mut self) -> Option<End> {
        let left = self.timeout.saturating_sub(self.began.elapsed());
        let (seen, answer) = ask_status(self.path, left.min(ANSWER));
        if seen.newest().is_none_or(|newest| newest.pid() != self.old.pid()) {
            return None; // the next look tells
        }
        match answer {
            Ok(status) if status.failures > self.failures => {
                let why = status.failure.as_deref().unwrap_or("it did not say why");
                complain(format_args!(
                    "generation {} (daemon {}) stays: the restart failed: {why}",
                    self.old.number(),
                    self.old.pid(),
                ));
                return Some(End::Stays);
            }
            Ok(status) => self.last = Ok(status),
            Err(Unasked::Failed(why)) if left >= ENOUGH => self.last = Err(why),
            Err(Unasked::Failed(_) | Unasked::Nobody | Unasked::Mute) => {}
        }
        None
    }

    /// The time is over.
    fn give_up(self, seen: &Seen) -> End {
        let (number, pid) = (self.old.number(), self.old.pid());
        let timeout = words::time(self.timeout);
        let stage = match self.last {
            Err(why) => {
                complain(format_args!("{why}; after {timeout} nobody has taken over"));
                return End::Error;
            }
            Ok(status) => status.stage,
        };
        if self.gone.is_some() {
            complain(format_args!(
                "generation {number} (daemon {pid}) has ended, and after {timeout} nobody serves in its \
                 place"
            ));
            return End::NobodyServes;
        }
        let how = match stage {
            Stage::Detached => "serves on, detached, and its supervisor goes on trying",
            Stage::HandingOff => "serves on: its on_shutdown_request hooks have not returned",
            Stage::Serving | Stage::Starting => "serves on: the new generation is not ready",
            Stage::Draining => "drains, and nobody serves in its place",
        };
        let starting = match (seen.starting, seen.starts_since(number)) {
            (Some(starting), _) => format!("; process {starting} is starting"),
            (None, 0) => "; no start has got as far as init".to_owned(),
            (None, starts) => format!("; {} failed after init", words::count(starts, "start")),
        };
        complain(format_args!(
            "not yet: generation {number} (daemon {pid}) {how}, after {timeout}{starting}"
        ));
        if stage == Stage::Draining { End::NobodyServes } else { End::NotYet }
    }
}
