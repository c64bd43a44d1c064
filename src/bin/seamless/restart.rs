//! `seamless restart`.

use crate::stages::Seen;
use crate::{ANSWER, Ask, End, GAP, Until, complain, say, say_json, words};
use seamless::State;
use seamless::client::{Generation, Look, NoAnswer, Outcome, Restart, Service, Status, Wish};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// A daemon that had less time than that to answer is not said to hang.
const ENOUGH: Duration = Duration::from_secs(1);
/// How long it may take to see how a probation has ended, which nothing else limits.
const AFTER_PROBATION: Duration = Duration::from_secs(10);

/// What came of it, and what `seamless restart --json` prints. A field is `null` if there is none.
#[derive(Debug, Serialize)]
struct Verdict<'a> {
    pid_file: &'a Path,
    /// `committed`: a new generation has taken over. `started`: it serves, and has still to prove itself.
    /// `rolled-back`: it has failed, and the old one serves. `stays`: the old one does, since it refused or
    /// the restart failed. `nobody-serves`, `not-yet`, `error`.
    verdict: &'static str,
    exit_code: u8,
    /// The new generation, also one that was rolled back.
    generation: Option<u64>,
    daemon: Option<i32>,
    /// The one that was asked.
    old_generation: Option<u64>,
    old_daemon: Option<i32>,
    /// Since the question.
    seconds: f64,
    /// Why it is not committed.
    reason: Option<String>,
    /// What is odd about the files.
    notes: Vec<String>,
    #[serde(skip)]
    end: End,
    #[serde(skip)]
    says: String,
}

impl<'a> Verdict<'a> {
    fn new(service: &'a Service, end: End, says: String) -> Verdict<'a> {
        let reason = (end != End::Done).then(|| says.clone());
        Verdict {
            pid_file: service.pid_file(),
            verdict: match end {
                End::Done => "committed",
                End::Error | End::Usage => "error",
                End::NobodyServes => "nobody-serves",
                End::Stays => "stays",
                End::NotYet => "not-yet",
            },
            exit_code: end as u8,
            generation: None,
            daemon: None,
            old_generation: None,
            old_daemon: None,
            seconds: 0.0,
            reason,
            notes: Vec::new(),
            end,
            says,
        }
    }

    fn old(self, old: Option<&Generation>) -> Verdict<'a> {
        let (old_generation, old_daemon) =
            (old.map(Generation::number), old.map(Generation::daemon));
        Verdict { old_generation, old_daemon, ..self }
    }

    fn new_one(self, generation: u64, daemon: Option<i32>) -> Verdict<'a> {
        Verdict { generation: Some(generation), daemon, ..self }
    }
}

pub(crate) fn run(asked: &Ask) -> End {
    let began = Instant::now();
    let mut verdict = restart(asked, began);
    verdict.seconds = words::seconds(began.elapsed());
    if asked.json {
        say_json(&verdict);
    } else {
        match verdict.end {
            End::Done => say(&verdict.says),
            _ => complain(&verdict.says),
        }
        verdict.notes.iter().for_each(complain);
    }
    verdict.end
}

fn restart(asked: &Ask, began: Instant) -> Verdict<'_> {
    let timeout = asked.limit();
    let service = &asked.service;
    let before = match service.status(timeout.min(ANSWER)) {
        (look, Ok(status)) if status.is_keeping() => {
            let text = format!(
                "{}: nobody serves: the daemon has crashed, and a keeper holds its sockets until the \
                 supervisor has started the next generation",
                look.pid_file().display(),
            );
            return Verdict::new(service, End::NobodyServes, text);
        }
        (_, Ok(status)) => status,
        (look, Err(why)) => return not_asked(service, &look, &why),
    };
    let (look, answer) = service.restart(timeout.min(ANSWER));
    if let Err(why) = answer {
        return not_asked(service, &look, &why);
    }
    // What had failed before is not told.
    let seen = Seen::of(&look, Some(&before));
    let Some(restart) = Restart::since(look) else {
        let text = "the generation that was asked is gone".to_owned(); // somebody has accepted
        return Verdict::new(service, End::NobodyServes, text);
    };
    let failures =
        if before.daemon() == restart.old().daemon() { before.failed_restarts() } else { 0 };
    let waiting = Waiting {
        asked,
        restart,
        failures,
        began,
        timeout,
        last: Ok(before),
        gone: None,
        on_probation: None,
        seen,
    };
    waiting.wait()
}

/// Why no restart has begun.
fn not_asked<'a>(service: &'a Service, look: &Look, why: &NoAnswer) -> Verdict<'a> {
    let verdict = |end, text| Verdict::new(service, end, text).old(look.newest());
    match (why, look.newest()) {
        (NoAnswer::NobodyRuns, _) => {
            let text = format!("{}: no generation runs", look.pid_file().display());
            let notes = look.notes().to_vec();
            Verdict { notes, ..verdict(End::NobodyServes, text) }
        }
        (NoAnswer::Refused(why), Some(newest)) => {
            verdict(End::Stays, format!("{} stays: {why}", words::generation(newest)))
        }
        (NoAnswer::NotListening(why), Some(newest)) => {
            let command = newest.supervisor(None).and_then(|one| one.command(Wish::Restart));
            let instead = command.map(|command| format!(": use `{command}`")).unwrap_or_default();
            verdict(End::Error, format!("{why}{instead}"))
        }
        (why, _) => verdict(End::Error, why.to_string()),
    }
}

struct Waiting<'a> {
    asked: &'a Ask,
    restart: Restart,
    /// How many restarts had failed before.
    failures: u64,
    began: Instant,
    timeout: Duration,
    /// What the old generation said last, or why it does not answer.
    last: Result<Status, NoAnswer>,
    /// Since when the old generation has been seen to be gone.
    gone: Option<Instant>,
    /// The new generation, while it is on probation.
    on_probation: Option<(u64, i32)>,
    /// What the last look has seen.
    seen: Seen,
}

impl<'a> Waiting<'a> {
    fn wait(mut self) -> Verdict<'a> {
        let mut next = Instant::now();
        loop {
            let seen = self.asked.service.look();
            self.tell_stages(&seen);
            let outcome = self.restart.outcome(&seen);
            if let Some(verdict) = self.judge(&outcome, &seen) {
                return verdict;
            }
            if self.on_probation.is_some() {
                // The old one stands by, and is not asked.
            } else if self.restart.old().has_ended() {
                let gone = *self.gone.get_or_insert_with(Instant::now);
                if seen.starting().is_none() && gone.elapsed() >= GAP.min(self.timeout) {
                    let text = format!("{} has ended, and nobody serves in its place", self.old());
                    return self.verdict(End::NobodyServes, text);
                }
            } else if next <= Instant::now() {
                if let Some(verdict) = self.ask() {
                    return verdict;
                }
                next = Instant::now() + ASK_AGAIN;
            }
            if self.began.elapsed() >= self.timeout {
                return self.give_up(&seen);
            }
            let pause = PAUSE.min(self.timeout.saturating_sub(self.began.elapsed()));
            // A process that has ended would end each pause at once.
            match self.restart.old().has_ended() {
                true => thread::sleep(pause),
                false => _ = self.restart.old().wait_end(pause),
            }
        }
    }

    /// Tells what has changed, if somebody sits at a terminal.
    fn tell_stages(&mut self, look: &Look) {
        let now = Seen::of(look, self.last.as_ref().ok());
        let lines = self.seen.advance(now);
        if io::stderr().is_terminal() {
            let seconds = self.began.elapsed().as_secs_f64();
            for line in lines {
                _ = writeln!(io::stderr(), "{seconds:>7.2} s  {line}");
            }
        }
    }

    /// `Some`: it is over.
    fn judge(&mut self, outcome: &Outcome, seen: &Look) -> Option<Verdict<'a>> {
        let (after, old) = (words::time(self.began.elapsed()), self.restart.old().number());
        match *outcome {
            Outcome::Committed { generation, daemon } => {
                let text = format!(
                    "generation {generation} (daemon {daemon}) took over from generation {old} after \
                     {after}"
                );
                let verdict = self.verdict(End::Done, text);
                Some(verdict.new_one(generation, Some(daemon)))
            }
            Outcome::OnProbation { generation, daemon } if self.asked.until == Until::Started => {
                let text = format!(
                    "generation {generation} (daemon {daemon}) took over from generation {old} after \
                     {after}, on probation"
                );
                let verdict = self.verdict(End::Done, text).new_one(generation, Some(daemon));
                Some(Verdict { verdict: "started", ..verdict })
            }
            Outcome::OnProbation { generation, daemon } => {
                self.on_probation = Some((generation, daemon));
                // Without --timeout it waits for as long as the probation lasts.
                if self.asked.timeout.is_none() {
                    self.timeout = self.timeout.max(self.began.elapsed() + AFTER_PROBATION);
                }
                None
            }
            Outcome::RolledBack { generation, why } => {
                let serves = seen.newest().filter(|one| !one.is_on_probation());
                let serves = serves.map(|one| format!("; generation {} serves", one.number()));
                let text = format!(
                    "generation {generation} is rolled back after {after}: {why}{}",
                    serves.unwrap_or_default(),
                );
                let verdict = self.verdict(End::Stays, text);
                let daemon = self.on_probation.filter(|(number, _)| *number == generation);
                Some(Verdict {
                    verdict: "rolled-back",
                    reason: Some(why.to_owned()),
                    ..verdict.new_one(generation, daemon.map(|(_, pid)| pid))
                })
            }
            _ => {
                self.on_probation = None;
                None
            }
        }
    }

    fn verdict(&self, end: End, says: String) -> Verdict<'a> {
        Verdict::new(&self.asked.service, end, says).old(Some(self.restart.old()))
    }

    fn old(&self) -> String {
        words::generation(self.restart.old())
    }

    /// Asks how it goes. `Some`: the attempt is over.
    fn ask(&mut self) -> Option<Verdict<'a>> {
        let left = self.timeout.saturating_sub(self.began.elapsed());
        let (seen, answer) = self.asked.service.status(left.min(ANSWER));
        if seen.newest().is_none_or(|newest| newest.daemon() != self.restart.old().daemon()) {
            return None; // the next look tells
        }
        match answer {
            Ok(status) if status.failed_restarts() > self.failures => {
                let why = status.last_failure().unwrap_or("it did not say why");
                let text = format!("{} stays: the restart failed: {why}", self.old());
                return Some(self.verdict(End::Stays, text));
            }
            Ok(status) => self.last = Ok(status),
            Err(NoAnswer::NobodyRuns) => {}
            Err(why) if left >= ENOUGH => self.last = Err(why),
            Err(_) => {}
        }
        None
    }

    /// The time is over.
    fn give_up(self, seen: &Look) -> Verdict<'a> {
        let number = self.restart.old().number();
        let (old, timeout) = (self.old(), words::time(self.timeout));
        if let Some((generation, daemon)) = self.on_probation {
            let text = format!(
                "not yet: generation {generation} (daemon {daemon}) is still on probation after {timeout}"
            );
            let verdict = self.verdict(End::NotYet, text);
            return verdict.new_one(generation, Some(daemon));
        }
        let status = match &self.last {
            Err(why) => {
                let text = format!("{why}; after {timeout} nobody has taken over");
                return self.verdict(End::Error, text);
            }
            Ok(status) => status,
        };
        if self.gone.is_some() {
            let text = format!("{old} has ended, and after {timeout} nobody serves in its place");
            return self.verdict(End::NobodyServes, text);
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
        let text = format!("not yet: {old} {how}, after {timeout}{starting}");
        let is_over = status.state() == State::Draining;
        self.verdict(if is_over { End::NobodyServes } else { End::NotYet }, text)
    }
}
