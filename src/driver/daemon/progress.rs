//! The stages of a daemon's life in the log.

use crate::driver::log::{self, daemon::Event, phase};
use crate::driver::shared::{Daemon, PROCESS};
use crate::error::Error;
use crate::proto::Reading;
use crate::proto::daemon::reminders::{Reminder, waits_for};
use crate::proto::daemon::{Event as Probation, Input, Phase, Question, Sender, Timer};
use crate::shutdown::lock;
use std::time::{Duration, Instant};

/// How often it says that it is still detached, and how often it repeats the same trouble.
const SAY: Duration = Duration::from_secs(60);

pub(super) struct Progress {
    daemon: &'static Daemon,
    /// When `init` was called.
    began: Instant,
    /// When the handoff began, and after it the drain.
    left_serving: Option<Instant>,
    /// When it was last logged that no successor is ready.
    said: Option<Instant>,
    /// What was wrong with the last check, and when that was logged.
    trouble: Option<(String, Instant)>,
}

impl Progress {
    pub(super) fn new(daemon: &'static Daemon) -> Progress {
        let began = Instant::now();
        Progress { daemon, began, left_serving: None, said: None, trouble: None }
    }

    /// Time since the handoff or the drain began.
    pub(super) fn elapsed(&self) -> Option<Duration> {
        log::elapsed(self.left_serving)
    }

    /// One line for each phase of a daemon's life.
    pub(super) fn enter(&mut self, cause: &str, entered: Phase) {
        let now = Instant::now();
        match entered {
            Phase::HandingOff => (self.left_serving, self.said) = (Some(now), Some(now)),
            Phase::Detached => self.said = Some(now),
            Phase::Draining(_) => self.left_serving = Some(now),
            Phase::Starting
            | Phase::StoppingEarly
            | Phase::Serving
            | Phase::Leaving(_)
            | Phase::AwaitingOlder(_)
            | Phase::Finished
            | Phase::Ended => {}
        }
        let generation = self.daemon.generation();
        let launcher = self.daemon.service.as_ref().map(|service| service.launcher);
        let elapsed_ms = self.elapsed();
        log::write(match entered {
            Phase::Starting => return, // no other phase leads there
            Phase::StoppingEarly => {
                phase::Event::StoppingEarly { generation, launcher, cause, elapsed_ms }
            }
            Phase::Serving => phase::Event::Serving { generation, launcher, cause, elapsed_ms },
            Phase::HandingOff => phase::Event::Prepare { generation, launcher, cause, elapsed_ms },
            Phase::Detached => phase::Event::Detached { generation, launcher, cause, elapsed_ms },
            Phase::Leaving(_) => phase::Event::Leave { generation, launcher, cause, elapsed_ms },
            Phase::Draining(_) => phase::Event::Drain { generation, launcher, cause, elapsed_ms },
            Phase::AwaitingOlder(_) => {
                phase::Event::Drained { generation, launcher, cause, elapsed_ms }
            }
            Phase::Finished => {
                phase::Event::WaitReturns { generation, launcher, cause, elapsed_ms }
            }
            Phase::Ended => phase::Event::Ended { generation, launcher, cause, elapsed_ms },
        });
    }

    /// Once a minute, so that an operator learns of a service that nobody takes over.
    pub(super) fn detached(&mut self) {
        let (alone, supervisor) = {
            let machine = lock(&self.daemon.machine);
            (machine.is_alone(), machine.reading())
        };
        if alone && self.said.is_none_or(|said| said.elapsed() >= SAY) {
            self.said = Some(Instant::now());
            log::write(Event::StillDetached {
                generation: self.daemon.generation(),
                supervisor: &supervisor,
                elapsed_ms: self.elapsed(),
            });
        }
    }

    /// Once, if the daemon is still where it was when the reminder was set.
    pub(super) fn remind(&mut self, reminder: Reminder) {
        let phase = self.daemon.phase();
        if Reminder::of(phase, true) != Some(reminder) {
            return;
        }
        match reminder {
            Reminder::NotStarted => {
                let elapsed_ms = log::elapsed(Some(self.began));
                log::write(Event::NotStarted { elapsed_ms });
            }
            Reminder::DrainLasts => log::write(Event::DrainLasts {
                generation: self.daemon.generation(),
                waits_for: waits_for(phase, !PROCESS.drain_hooks.is_over()),
                guards: PROCESS.shutdown.guards(),
                elapsed_ms: self.elapsed(),
                limit_ms: self.daemon.drain_timeout(),
            }),
        }
    }

    /// The same trouble, each second, is worth a line a minute.
    pub(super) fn trouble(&mut self, trouble: Option<Error>) {
        let Some(trouble) = trouble.map(|error| error.to_string()) else {
            self.trouble = None;
            return;
        };
        if let Some((last, when)) = &self.trouble {
            if *last == trouble && when.elapsed() < SAY {
                return;
            }
        }
        log::write(Event::CheckFailed { error: &trouble });
        self.trouble = Some((trouble, Instant::now()));
    }
}

/// What an input is called in the log.
pub(super) fn cause(input: &Input) -> &'static str {
    match input {
        Input::Claimed => "claim",
        Input::Usr2(_) => "USR2",
        Input::Term(Sender::Successor | Sender::Unlisted) => "successor",
        Input::Term(_) => "TERM",
        Input::Reload => "reload-signal",
        Input::Halt(_) => "stop-signal",
        Input::Prepare => "prepare",
        Input::Told(intent) => intent.name(),
        Input::Cancelled => "cancelled",
        Input::LauncherGone => "launcher-gone",
        Input::ReloadFailed => "reload-failed",
        Input::Restart => "restart()",
        Input::RequestHooksDone => "on_shutdown_request",
        Input::DrainHooksDone => "on_shutdown",
        Input::OlderTold { .. } | Input::OlderGone => "older-gone",
        Input::Status(Question::OfLauncher, Reading::Lost) => "supervisor-gone",
        Input::Status(Question::OfLauncher, _) => "USR2",
        Input::Status(Question::OfService, _) | Input::Checked(_) => "check",
        Input::Probation(event) => match event {
            Probation::OnProbation => "probation",
            Probation::Commit | Probation::CommitTried(_) => "commit",
            Probation::RollBack(_) => "rollback",
            Probation::Check { .. } => "probation_check",
            Probation::AskedToStandBy(_) => "stand-by",
            Probation::Heard(word) => word.name(),
            Probation::PartnerEnded | Probation::Dumps | Probation::Newer(_) => "ended",
            Probation::HungUp => "hung-up",
            Probation::TakenBack(_) => "take-back",
            Probation::WasSilent => "silence",
            Probation::Candidates { .. } | Probation::CandidateTold | Probation::TryAgain => {
                "candidate"
            }
        },
        Input::Timer(Timer::Leave) => "leave_time",
        Input::Timer(Timer::Drain) => "drain_timeout",
        Input::Timer(Timer::Successor) => "successor_timeout",
        Input::Timer(Timer::Orphan) => "claim_timeout",
        Input::Timer(Timer::RollBack) => "handoff_timeout",
        Input::Timer(Timer::Check | Timer::TellOlder) => "check",
        Input::Timer(Timer::Probation | Timer::CommitSoon | Timer::CommitLater) => "commit",
        Input::Timer(
            Timer::Well
            | Timer::Silence
            | Timer::Dump
            | Timer::Resumed
            | Timer::TakeBackSoon
            | Timer::TakeBackLater,
        ) => "silence",
    }
}
