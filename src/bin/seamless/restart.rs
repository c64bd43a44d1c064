//! `seamless restart`.

use crate::stages::Seen;
use crate::{ANSWER, Ask, End, complain, say, words};
use seamless::State;
use seamless::client::{Generation, Look, NoAnswer, Service, Status, Wish};
use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// A daemon that had less time than that to answer is not said to hang.
const ENOUGH: Duration = Duration::from_secs(1);
/// How long no generation may run: a supervisor waits up to a second before it starts the next.
const GAP: Duration = Duration::from_secs(3);

pub(crate) fn run(asked: &Ask) -> End {
    let timeout = asked.timeout.unwrap_or(TIMEOUT);
    let began = Instant::now();
    let service = &asked.service;
    let before = match service.status(timeout.min(ANSWER)) {
        (look, Ok(status)) if status.is_keeping() => {
            complain(format_args!(
                "{}: nobody serves: the daemon has crashed, and a keeper holds its sockets until the \
                 supervisor has started the next generation",
                look.pid_file().display(),
            ));
            return End::NobodyServes;
        }
        (_, Ok(status)) => status,
        (look, Err(why)) => return not_asked(&look, &why),
    };
    let (look, answer) = service.restart(timeout.min(ANSWER));
    if let Err(why) = answer {
        return not_asked(&look, &why);
    }
    let stages = Stages::new(&look);
    let Some(old) = look.into_newest() else {
        return End::NobodyServes; // somebody has accepted
    };
    let failures = if before.daemon() == old.daemon() { before.failed_restarts() } else { 0 };
    let last = Ok(before);
    Waiting { service, old, failures, began, timeout, last, gone: None, stages }.wait()
}

/// Why no restart has begun.
fn not_asked(look: &Look, why: &NoAnswer) -> End {
    match (why, look.newest()) {
        (NoAnswer::NobodyRuns, _) => {
            complain(format_args!("{}: no generation runs", look.pid_file().display()));
            look.notes().iter().for_each(complain);
            End::NobodyServes
        }
        (NoAnswer::Refused(why), Some(newest)) => {
            let (number, pid) = (newest.number(), newest.daemon());
            complain(format_args!("generation {number} (daemon {pid}) stays: {why}"));
            End::Stays
        }
        (NoAnswer::NotListening(why), Some(newest)) => {
            let command = newest.supervisor(None).and_then(|one| one.command(Wish::Restart));
            let instead = command.map(|command| format!(": use `{command}`")).unwrap_or_default();
            complain(format_args!("{why}{instead}"));
            End::Error
        }
        (why, _) => {
            complain(why);
            End::Error
        }
    }
}

struct Waiting<'a> {
    service: &'a Service,
    /// The generation that was asked.
    old: Generation,
    /// How many restarts had failed before.
    failures: u64,
    began: Instant,
    timeout: Duration,
    /// What it said last, or why it does not.
    last: Result<Status, NoAnswer>,
    /// Since when it is gone.
    gone: Option<Instant>,
    stages: Stages,
}

/// What has been seen of the restart so far. It is told only where somebody sits at a terminal.
struct Stages {
    is_terminal: bool,
    last: Seen,
}

impl Stages {
    fn new(look: &Look) -> Stages {
        Stages { is_terminal: io::stderr().is_terminal(), last: Seen::of(look, None) }
    }

    fn tell(&mut self, look: &Look, status: Option<&Status>, since: Instant) {
        let now = Seen::of(look, status);
        for line in self.last.until(&now).iter().filter(|_| self.is_terminal) {
            _ = writeln!(io::stderr(), "{:>7.2} s  {line}", since.elapsed().as_secs_f64());
        }
        self.last = now;
    }
}

impl Waiting<'_> {
    fn wait(mut self) -> End {
        let mut next = Instant::now();
        loop {
            let seen = self.service.look();
            self.stages.tell(&seen, self.last.as_ref().ok(), self.began);
            if let Some(new) = seen.newest().filter(|newest| self.is_successor(newest)) {
                say(format_args!(
                    "generation {} (daemon {}) took over from generation {} after {}",
                    new.number(),
                    new.daemon(),
                    self.old.number(),
                    words::time(self.began.elapsed()),
                ));
                return End::Done;
            }
            if self.old.has_ended() {
                let gone = *self.gone.get_or_insert_with(Instant::now);
                if seen.starting().is_none() && gone.elapsed() >= GAP.min(self.timeout) {
                    complain(format_args!(
                        "generation {} (daemon {}) has ended, and nobody serves in its place",
                        self.old.number(),
                        self.old.daemon(),
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
            // A process that has ended would end each pause at once.
            match self.gone {
                Some(_) => thread::sleep(pause),
                None => _ = self.old.wait_end(pause),
            }
        }
    }

    /// Numbers begin anew if the lock file was removed, so the number alone is not enough.
    fn is_successor(&self, newest: &Generation) -> bool {
        !newest.is_same(&self.old) && (newest.number() > self.old.number() || self.old.has_ended())
    }

    /// Asks how it goes. `Some`: the attempt is over.
    fn ask(&mut self) -> Option<End> {
        let left = self.timeout.saturating_sub(self.began.elapsed());
        let (seen, answer) = self.service.status(left.min(ANSWER));
        if seen.newest().is_none_or(|newest| newest.daemon() != self.old.daemon()) {
            return None; // the next look tells
        }
        match answer {
            Ok(status) if status.failed_restarts() > self.failures => {
                let why = status.last_failure().unwrap_or("it did not say why");
                complain(format_args!(
                    "generation {} (daemon {}) stays: the restart failed: {why}",
                    self.old.number(),
                    self.old.daemon(),
                ));
                return Some(End::Stays);
            }
            Ok(status) => self.last = Ok(status),
            Err(NoAnswer::NobodyRuns) => {}
            Err(why) if left >= ENOUGH => self.last = Err(why),
            Err(_) => {}
        }
        None
    }

    /// The time is over.
    fn give_up(self, seen: &Look) -> End {
        let (number, pid) = (self.old.number(), self.old.daemon());
        let timeout = words::time(self.timeout);
        let status = match self.last {
            Err(why) => {
                complain(format_args!("{why}; after {timeout} nobody has taken over"));
                return End::Error;
            }
            Ok(status) => status,
        };
        if self.gone.is_some() {
            complain(format_args!(
                "generation {number} (daemon {pid}) has ended, and after {timeout} nobody serves in its \
                 place"
            ));
            return End::NobodyServes;
        }
        let how = match status.state() {
            State::Detached => "serves on, detached, and its supervisor goes on trying",
            _ if status.is_handing_off() => {
                "serves on: its on_shutdown_request hooks have not returned"
            }
            State::Draining => "drains, and nobody serves in its place",
            _ => "serves on: the new generation is not ready",
        };
        let starting = match (seen.starting(), seen.starts_since(number)) {
            (Some(starting), _) => format!("; process {starting} is starting"),
            (None, 0) => "; no start has got as far as init".to_owned(),
            (None, starts) => format!("; {} failed after init", words::count(starts, "start")),
        };
        complain(format_args!(
            "not yet: generation {number} (daemon {pid}) {how}, after {timeout}{starting}"
        ));
        if status.state() == State::Draining { End::NobodyServes } else { End::NotYet }
    }
}
