//! The daemon's machine. Each `match` names every phase, so what is ignored is written down.

mod candidates;
mod check;
mod drain;
mod leaving;
mod probation;
mod restart;

pub(crate) use probation::CommitCall;
pub(crate) use restart::RestartCall;

use super::{Forced, Input, NoRestart, Output, Phase, Question, RollbackCause, Sender, Timer};
use crate::proto::generation::check::Memory;
use crate::proto::older::Older;
use crate::proto::{DrainReason, Intent, Kind, Reading, Report, Scope, State};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Daemon {
    phase: Phase,
    kind: Kind,
    /// The launcher starts the next generation itself.
    in_place: bool,
    /// The launcher understands [`Report::Unhandled`].
    takes_unhandled: bool,
    /// On a stop it serves on for a while.
    leaves: bool,
    /// The launcher lives and has not been released.
    attached: bool,
    intent: Option<Intent>,
    older: Older,
    /// What the supervisor has been asked and has not answered yet.
    asked: Option<Question>,
    /// A restart by hand waits for that answer.
    wish: bool,
    /// What it answered last, for the check that follows.
    reading: Reading,
    memory: Memory,
    /// How long no successor has come.
    wait: Wait,
    /// A successor that our launcher started has failed. It may have replaced our files by its own.
    mends: bool,
    request_hooks: restart::RequestHooks,
    /// A restart was asked for before we had started.
    early_wish: bool,
    probation: probation::Probation,
    /// Of one on probation: the other one can be told to serve again.
    lifeline: bool,
    check: probation::Check,
    standby: probation::Standby,
    candidates: candidates::Candidates,
    /// Why the generation has failed in whose place we serve again.
    failed: RollbackCause,
}

/// The wait of a daemon without a launcher, if it is unknown whether a successor comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wait {
    No,
    /// The successor timer runs.
    Running,
    /// It has fired: the next check decides.
    Over,
}

impl Daemon {
    pub(crate) fn new(kind: Kind, in_place: bool) -> Self {
        Daemon {
            phase: Phase::Starting,
            kind,
            in_place,
            takes_unhandled: false,
            leaves: false,
            attached: true,
            intent: None,
            older: Older::default(),
            asked: None,
            wish: false,
            reading: Reading::Unreadable,
            memory: Memory::default(),
            wait: Wait::No,
            mends: false,
            request_hooks: restart::RequestHooks::default(),
            early_wish: false,
            probation: probation::Probation::No,
            lifeline: false,
            check: probation::Check::Answered,
            standby: probation::Standby::No,
            candidates: candidates::Candidates::default(),
            failed: RollbackCause::Ended,
        }
    }

    /// Without a launcher and without files: serving from the start.
    pub(crate) fn disabled() -> Self {
        Daemon { phase: Phase::Serving, attached: false, ..Daemon::new(Kind::NOBODY, false) }
    }

    /// The launcher understands [`Report::Unhandled`].
    pub(crate) fn takes_unhandled(self, takes_unhandled: bool) -> Self {
        Daemon { takes_unhandled, ..self }
    }

    /// On a stop it serves on for a while.
    pub(crate) fn leaves(self, leaves: bool) -> Self {
        Daemon { leaves, ..self }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Has `started` not been called, and was it not told to end?
    pub(crate) fn is_starting(&self) -> bool {
        self.phase == Phase::Starting
    }

    /// Where this process is in its life, as its program sees it.
    pub(crate) fn state(&self) -> State {
        match self.phase {
            Phase::Starting | Phase::StoppingEarly => State::Starting,
            Phase::Serving | Phase::HandingOff | Phase::Detached if self.is_parked() => {
                State::Standby
            }
            // Its launcher has gone, and a hook still runs, maybe for ever.
            Phase::HandingOff if !self.attached => State::Detached,
            Phase::Serving | Phase::HandingOff => State::Serving,
            Phase::Detached => State::Detached,
            Phase::Leaving(_) => State::Leaving,
            Phase::Draining(_) | Phase::AwaitingOlder(_) | Phase::Finished | Phase::Ended => {
                State::Draining
            }
        }
    }

    /// Do the `on_shutdown_request` hooks run while the launcher waits for them?
    pub(crate) fn is_handing_off(&self) -> bool {
        self.phase == Phase::HandingOff && self.state() == State::Serving
    }

    /// Is it detached or draining? The supervisor may read what we print only as long as our launcher
    /// lives. A daemon that serves and has a launcher keeps its output: if the reader fails there, the
    /// program may want to end and be started anew.
    pub(crate) fn outlives_readers(&self) -> bool {
        match self.phase {
            Phase::Draining(_) | Phase::AwaitingOlder(_) | Phase::Finished => true,
            Phase::HandingOff | Phase::Detached => self.is_alone(),
            Phase::Leaving(_) => !self.attached,
            Phase::Starting | Phase::StoppingEarly | Phase::Serving | Phase::Ended => false,
        }
    }

    /// What is to outlive a crash has changed: is it given to the launcher again? Not if this daemon was told to end.
    pub(crate) fn gives_again(&self) -> bool {
        self.serves() && !self.is_parked()
    }

    /// It serves without a launcher, and checks each second: detached, or on the way there with the
    /// launcher already gone.
    pub(crate) fn is_alone(&self) -> bool {
        self.phase == Phase::Detached || self.phase == Phase::HandingOff && !self.attached
    }

    /// `started`, on the program's own thread: the PID file names us, and the record lists us.
    /// `last_claim`: the number of the last claim. Returns what the launcher is told; `None`: we were told
    /// to end meanwhile.
    #[must_use]
    pub(crate) fn started(&mut self, last_claim: u64) -> Option<Report> {
        if self.phase != Phase::Starting {
            return None;
        }
        self.phase = Phase::Serving;
        self.memory.last_claim = last_claim;
        Some(Report::Started)
    }

    /// A restart that was asked for before we had started: to be fed in once the launcher knows that we
    /// have.
    #[must_use]
    pub(crate) fn wish(&mut self) -> Option<Input> {
        std::mem::take(&mut self.early_wish).then_some(Input::Reload)
    }

    /// What the supervisor can be asked now.
    pub(crate) fn question(&self) -> Question {
        if self.attached { Question::OfLauncher } else { Question::OfService }
    }

    /// What the supervisor answered last, when it was asked about the service.
    pub(crate) fn reading(&self) -> Reading {
        self.reading
    }

    #[must_use]
    pub(crate) fn on(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Claimed => {
                if self.phase == Phase::Starting {
                    out.push(Output::Arm(Timer::Orphan));
                }
            }
            Input::Usr2(sender) => self.usr2(sender, &mut out),
            Input::Term(sender) => match sender {
                Sender::Launcher { announced: true } => {}
                Sender::Successor => self.term(true, &mut out),
                // The one that stands by cannot hear of it otherwise.
                Sender::Unlisted => {
                    self.term(true, &mut out);
                    self.stop_older(&mut out);
                }
                Sender::Launcher { announced: false } | Sender::Other => {
                    self.term(false, &mut out);
                }
            },
            Input::Reload => self.reload(&mut out),
            // The launcher finds out what its supervisor wants.
            Input::Halt(Sender::Launcher { .. }) if self.takes_unhandled && self.attached => {
                out.push(Output::Report(Report::Unhandled));
            }
            Input::Halt(_) => self.term(false, &mut out),
            Input::Prepare => self.prepare(&mut out),
            Input::Told(intent) => self.told(intent, &mut out),
            // If it has started in the meantime, it serves, and nothing is cancelled.
            Input::Cancelled => {
                if self.phase == Phase::Starting {
                    self.end_as_told(&mut out);
                }
            }
            Input::LauncherGone => self.launcher_gone(&mut out),
            Input::ReloadFailed => {
                if let Phase::Serving | Phase::HandingOff = self.phase {
                    self.resume(&mut out);
                    self.mends = true;
                    // Not at once: the TERM of the one that has failed may have come already, and only its PID file
                    // tells that it is a successor's.
                    out.push(Output::Arm(Timer::Check));
                }
            }
            Input::Restart => {
                if self.phase == Phase::Serving {
                    self.restart(&mut out);
                }
            }
            Input::RequestHooksDone => self.request_hooks_done(&mut out),
            Input::DrainHooksDone => self.drain_hooks_done(&mut out),
            Input::OlderTold { awaited, again } => self.older_told(awaited, again, &mut out),
            Input::OlderGone => self.older_gone(&mut out),
            Input::Status(question, reading) => self.status(question, reading, &mut out),
            Input::Checked(sight) => self.checked(sight, &mut out),
            Input::Probation(event) => self.on_event(event, &mut out),
            Input::Timer(timer) => self.timer(timer, &mut out),
        }
        out
    }

    fn timer(&mut self, timer: Timer, out: &mut Vec<Output>) {
        match timer {
            // A starting generation whose supervisor was killed: a new supervisor starts another one,
            // and nobody but this one can make room for it.
            Timer::Orphan | Timer::Check if self.phase == Phase::Starting => {
                if self.kind.starts_again.is_supervisor() {
                    self.ask(Question::OfLauncher, out);
                }
            }
            Timer::Orphan => {}
            Timer::Check => {
                if self.is_alone() {
                    self.ask(Question::OfService, out);
                } else if self.mends {
                    out.push(Output::Check);
                }
            }
            Timer::Successor => {
                if self.is_alone() && self.wait == Wait::Running {
                    self.wait = Wait::Over;
                    self.ask(Question::OfService, out);
                }
            }
            Timer::Leave => self.has_left(false, out),
            Timer::Drain => {
                // Until the process ends: `wait` may return long before all is served.
                if let Phase::Draining(_) | Phase::Finished = self.phase {
                    self.hammer(Forced::DrainTimeout, out);
                }
            }
            Timer::TellOlder => {
                if self.older.tells_again() {
                    out.push(Output::StopOlder);
                }
            }
            Timer::Probation => self.probation_over(out),
            Timer::CommitSoon | Timer::CommitLater => self.commit(out),
            Timer::Well => self.say_well(out),
            Timer::Dump => self.silence_begins(out),
            Timer::Silence => self.silence(out),
            Timer::RollBack => self.hooks_hang(out),
            Timer::Resumed => self.not_resumed(out),
            Timer::TakeBackSoon | Timer::TakeBackLater => self.take_back_again(out),
        }
    }

    // ---- what the supervisor wants ----

    fn ask(&mut self, question: Question, out: &mut Vec<Output>) {
        if self.asked != Some(question) {
            self.asked = Some(question);
            out.push(Output::ReadStatus(question));
        }
    }

    fn status(&mut self, question: Question, reading: Reading, out: &mut Vec<Output>) {
        if self.asked != Some(question) {
            return; // asked before something else became more important
        }
        self.asked = None;
        let wish = std::mem::take(&mut self.wish);
        match (question, self.phase) {
            (Question::OfLauncher, Phase::Starting) => match reading {
                Reading::Lost => self.end(out),
                Reading::Up | Reading::Down | Reading::Unreadable => {
                    out.push(Output::Arm(Timer::Check));
                }
            },
            (Question::OfLauncher, Phase::Serving) if wish => {
                match NoRestart::why(self.kind, self.in_place, reading) {
                    Some(why) => out.push(Output::RefuseRestart(why)),
                    None => self.restart(out),
                }
            }
            (Question::OfService, _) if self.is_alone() => {
                self.reading = reading;
                out.push(Output::Check);
            }
            (Question::OfLauncher | Question::OfService, _) => {}
        }
    }

    // ---- a stop, and the launcher's end ----

    fn term(&mut self, from_successor: bool, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Starting => {
                if self.intent == Some(Intent::Stop(Scope::Service)) {
                    self.phase = Phase::StoppingEarly;
                    self.stop_older(out);
                    out.push(Output::Report(Report::Waiting));
                } else {
                    self.end_as_told(out);
                }
            }
            Phase::Serving | Phase::HandingOff | Phase::Detached => match self.intent {
                _ if from_successor => self.drain(DrainReason::TakenOver, out),
                Some(Intent::Stop(_)) => self.leave(DrainReason::Stopped, out),
                // Without a launcher from the start, there are no restarts.
                _ if self.phase == Phase::Serving && !self.attached => {
                    self.leave(DrainReason::Requested, out);
                }
                Some(Intent::Restart | Intent::Unknown) | None => {
                    self.drain(DrainReason::Requested, out);
                }
            },
            Phase::Leaving(_) => self.has_left(from_successor, out),
            Phase::StoppingEarly
            | Phase::Draining(_)
            | Phase::AwaitingOlder(_)
            | Phase::Finished
            | Phase::Ended => {}
        }
    }

    /// The message says all that the signal behind it would say, and is acted on at once: a signal
    /// can be lost, or refused if one side has changed its user.
    fn told(&mut self, intent: Intent, out: &mut Vec<Output>) {
        self.intent = Some(intent);
        match intent {
            Intent::Restart | Intent::Unknown => match self.phase {
                Phase::Starting => self.end_as_told(out),
                Phase::Serving => self.hand_off(out),
                Phase::Leaving(_) => {
                    self.has_left(false, out);
                    self.let_go(out);
                }
                Phase::Draining(_) | Phase::Finished => self.let_go(out),
                Phase::StoppingEarly
                | Phase::HandingOff
                | Phase::Detached
                | Phase::AwaitingOlder(_)
                | Phase::Ended => {}
            },
            Intent::Stop(scope) => match self.phase {
                Phase::Leaving(_) | Phase::Draining(_) if scope == Scope::Service => {
                    self.stop_older(out);
                }
                Phase::Starting | Phase::Serving | Phase::HandingOff | Phase::Detached => {
                    self.term(false, out);
                }
                Phase::StoppingEarly
                | Phase::Leaving(_)
                | Phase::Draining(_)
                | Phase::AwaitingOlder(_)
                | Phase::Finished
                | Phase::Ended => {}
            },
        }
    }

    fn launcher_gone(&mut self, out: &mut Vec<Output>) {
        let attached = std::mem::replace(&mut self.attached, false);
        match self.phase {
            Phase::Starting => self.end(out),
            Phase::Serving if attached => {
                self.phase = Phase::HandingOff;
                self.run_request_hooks(out);
                self.ask(Question::OfService, out);
            }
            // It went without a release: from now on we check, whatever the hooks do.
            Phase::HandingOff => self.ask(Question::OfService, out),
            // The older ones were awaited so that the launcher would not report the service down too early.
            Phase::StoppingEarly => self.end(out),
            Phase::Serving
            | Phase::Detached
            | Phase::Leaving(_)
            | Phase::Draining(_)
            | Phase::AwaitingOlder(_)
            | Phase::Finished
            | Phase::Ended => {}
        }
    }

    fn hammer(&mut self, forced: Forced, out: &mut Vec<Output>) {
        self.phase = Phase::Ended;
        out.push(Output::Hammer(forced));
    }

    fn end(&mut self, out: &mut Vec<Output>) {
        self.phase = Phase::Ended;
        out.push(Output::End);
    }
}

#[cfg(test)]
mod tests;
