//! The daemon: hands over to a successor, finds out whether one will come, and drains.

use super::{DrainReason, Intent, Reading, Report, Scope};

/// What happened to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// `started`: the PID file names us and the record lists us.
    Started,
    /// USR2. A second one forces the end of a drain, but not one that came from the launcher.
    Usr2 { from_launcher: bool },
    /// TERM or INT, and whether it came from the process that the PID file now names.
    Term { from_successor: bool },
    /// The launcher tells what a TERM meant.
    Told(Intent),
    /// The launcher ended, or closed its end of the channel.
    LauncherGone,
    /// The launcher tells that a restart in place was not to be.
    ReloadFailed,
    /// A successor has waited `claim_timeout` for us, and our supervisor has ended.
    Evicted,
    /// `restart()` was called.
    Restart,
    /// The `on_shutdown_request` hooks have returned.
    RequestHooksDone,
    /// The `on_shutdown` hooks have returned.
    DrainHooksDone,
    /// Every older generation that we sent TERM has ended.
    OlderGone,
    /// The answer to [`Output::Check`], given while the claim is held.
    Checked(Finding),
    /// A timer fired.
    Timer(Timer),
}

/// What a detached daemon sees when it looks round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Finding {
    /// Somebody holds the claim: a generation is starting.
    ClaimHeld,
    /// The look failed for want of descriptors or memory: whatever there is to see, it is not known.
    Unseen,
    /// We hold the claim for the length of this look.
    Seen {
        /// A newer generation is in the record and alive.
        newer: bool,
        /// The PID file is missing or names no live generation.
        lost_file: bool,
        /// Claims were taken since the last look: somebody tries to start.
        claims_moved: bool,
        supervisor: Reading,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Timer {
    /// One second: look again.
    Check,
    /// `successor_timeout`.
    Successor,
    /// `drain_timeout`.
    Drain,
}

/// What the daemon has to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Output {
    /// Run the `on_shutdown_request` hooks and feed in [`Input::RequestHooksDone`].
    RunRequestHooks,
    /// Tell the launcher, over the channel.
    Report(Report),
    /// Wake the launcher with the release signal.
    Release,
    /// Let `draining` resolve, run the `on_shutdown` hooks, feed in [`Input::DrainHooksDone`].
    RunDrainHooks(DrainReason),
    /// TERM every older generation, wait for their end, feed in [`Input::OlderGone`].
    StopOlder,
    /// Let `wait` return.
    Finish(DrainReason),
    /// Run the `on_hammer` hooks for a moment and end the process.
    Hammer(Forced),
    /// End the process at once: nothing was served yet.
    End,
    /// Look round and feed in [`Input::Checked`].
    Check,
    /// Put our PID file back. Only ever answers a [`Finding`], so the claim is held.
    PutBack,
    Arm(Timer),
    Disarm(Timer),
}

/// What forced the end of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Forced {
    DrainTimeout,
    Usr2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Until `started`.
    Starting,
    /// Told to stop while starting: the older generations end first.
    StoppingEarly,
    Serving,
    /// The `on_shutdown_request` hooks run.
    HandingOff,
    /// The launcher has been let go, or died, and the hooks are through.
    Detached,
    /// The `on_shutdown` hooks run.
    Draining(DrainReason),
    /// The hooks are through; an older generation is not.
    AwaitingOlder(DrainReason),
    /// `wait` has returned.
    Finished,
    /// The process is about to end.
    Ended,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Daemon {
    phase: Phase,
    /// The launcher lives and has not been let go.
    attached: bool,
    /// The supervisor starts again by itself what has ended.
    supervised: bool,
    /// The launcher starts the next generation itself.
    in_place: bool,
    intent: Option<Intent>,
    /// The older generations have been sent TERM and not all have ended.
    older: bool,
    /// The successor timer runs.
    waiting: bool,
    /// The successor timer has fired: the next look decides.
    overdue: bool,
    /// A successor has failed beside our launcher: it may have put its files in the place of ours.
    mends: bool,
}

impl Daemon {
    pub(crate) fn new(supervised: bool, in_place: bool) -> Self {
        Daemon {
            phase: Phase::Starting,
            attached: true,
            supervised,
            in_place,
            intent: None,
            older: false,
            waiting: false,
            overdue: false,
            mends: false,
        }
    }

    /// Without a launcher and without files: serving from the start.
    pub(crate) fn disabled() -> Self {
        Daemon { phase: Phase::Serving, attached: false, ..Daemon::new(false, false) }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    #[must_use]
    pub(crate) fn on(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Started => {
                if self.phase == Phase::Starting {
                    self.phase = Phase::Serving;
                    out.push(Output::Report(Report::Started));
                }
            }
            Input::Usr2 { from_launcher } => self.usr2(from_launcher, &mut out),
            Input::Term { from_successor } => self.term(from_successor, &mut out),
            Input::Told(intent) => self.told(intent, &mut out),
            Input::LauncherGone => self.launcher_gone(&mut out),
            Input::ReloadFailed => {
                if let Phase::Serving | Phase::HandingOff = self.phase {
                    self.mends = true;
                    // Not at once: its TERM may be there already, and is known by its PID file.
                    out.push(Output::Arm(Timer::Check));
                }
            }
            // On its way we may have got through, and serve: then it is for nobody.
            Input::Evicted => {
                if self.phase == Phase::Starting {
                    self.end(&mut out);
                }
            }
            Input::Restart => {
                if self.phase == Phase::Serving {
                    self.usr2(true, &mut out);
                }
            }
            Input::RequestHooksDone => self.request_hooks_done(&mut out),
            Input::DrainHooksDone => self.drain_hooks_done(&mut out),
            Input::OlderGone => self.older_gone(&mut out),
            Input::Checked(finding) => self.checked(finding, &mut out),
            Input::Timer(Timer::Check) => {
                if self.looks_round() || self.mends {
                    out.push(Output::Check);
                }
            }
            Input::Timer(Timer::Successor) => {
                if self.looks_round() && self.waiting {
                    self.overdue = true;
                    out.push(Output::Check);
                }
            }
            Input::Timer(Timer::Drain) => {
                // Until the process ends: `wait` may return long before what it served is through.
                if let Phase::Draining(_) | Phase::Finished = self.phase {
                    self.hammer(Forced::DrainTimeout, &mut out);
                }
            }
        }
        out
    }

    /// Without a launcher: detached, or on the way there with the launcher already gone.
    pub(crate) fn looks_round(&self) -> bool {
        match self.phase {
            Phase::Detached => true,
            Phase::HandingOff => !self.attached,
            Phase::Starting
            | Phase::StoppingEarly
            | Phase::Serving
            | Phase::Draining(_)
            | Phase::AwaitingOlder(_)
            | Phase::Finished
            | Phase::Ended => false,
        }
    }

    fn usr2(&mut self, from_launcher: bool, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Starting => self.end(out),
            Phase::Serving if self.in_place && self.attached => {
                out.push(Output::Report(Report::Reload));
            }
            Phase::Serving => self.hand_off(out),
            Phase::Draining(_) | Phase::AwaitingOlder(_) | Phase::Finished => {
                if !from_launcher {
                    self.hammer(Forced::Usr2, out);
                }
            }
            Phase::StoppingEarly | Phase::HandingOff | Phase::Detached | Phase::Ended => {}
        }
    }

    fn hand_off(&mut self, out: &mut Vec<Output>) {
        if self.attached {
            // Nobody was asked: this is a wish of our own, or an operator's.
            let wish = if self.supervised { Intent::Restart } else { Intent::Unknown };
            self.intent.get_or_insert(wish);
            self.phase = Phase::HandingOff;
            out.push(Output::RunRequestHooks);
        }
    }

    fn term(&mut self, from_successor: bool, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Starting => {
                if self.intent == Some(Intent::Stop(Scope::Service)) {
                    self.phase = Phase::StoppingEarly;
                    self.stop_older(out);
                    out.push(Output::Report(Report::Waiting));
                } else {
                    self.end(out);
                }
            }
            Phase::Serving | Phase::HandingOff | Phase::Detached => {
                let reason = match self.intent {
                    _ if from_successor => DrainReason::TakenOver,
                    Some(Intent::Stop(_)) => DrainReason::Stopped,
                    Some(Intent::Restart | Intent::Unknown) | None => DrainReason::Requested,
                };
                self.drain(reason, out);
            }
            Phase::StoppingEarly
            | Phase::Draining(_)
            | Phase::AwaitingOlder(_)
            | Phase::Finished
            | Phase::Ended => {}
        }
    }

    /// The message says all that the signal behind it says, so it is acted on at once: a signal
    /// can be lost, or refused where one side has changed its user.
    fn told(&mut self, intent: Intent, out: &mut Vec<Output>) {
        self.intent = Some(intent);
        match intent {
            Intent::Restart | Intent::Unknown => match self.phase {
                Phase::Starting => self.end(out),
                Phase::Serving => self.hand_off(out),
                Phase::Draining(_) | Phase::Finished => self.let_go(out),
                Phase::StoppingEarly
                | Phase::HandingOff
                | Phase::Detached
                | Phase::AwaitingOlder(_)
                | Phase::Ended => {}
            },
            Intent::Stop(scope) => match self.phase {
                Phase::Draining(_) if scope == Scope::Service => self.stop_older(out),
                Phase::Starting | Phase::Serving | Phase::HandingOff | Phase::Detached => {
                    self.term(false, out);
                }
                Phase::StoppingEarly
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
                out.extend([Output::RunRequestHooks, Output::Check]);
            }
            // It went without a release: from now on we look round, whatever the hooks do.
            Phase::HandingOff => out.push(Output::Check),
            // The older ones were awaited so that it would not report the service down too early.
            Phase::StoppingEarly => self.end(out),
            Phase::Serving
            | Phase::Detached
            | Phase::Draining(_)
            | Phase::AwaitingOlder(_)
            | Phase::Finished
            | Phase::Ended => {}
        }
    }

    fn request_hooks_done(&mut self, out: &mut Vec<Output>) {
        if self.phase == Phase::HandingOff {
            self.phase = Phase::Detached;
            if self.attached {
                out.extend([Output::Report(Report::Released), Output::Release, Output::Check]);
            }
        }
    }

    fn checked(&mut self, finding: Finding, out: &mut Vec<Output>) {
        let mends = std::mem::replace(&mut self.mends, false);
        if !self.looks_round() {
            if mends {
                self.mend(finding, out);
            }
            return;
        }
        let overdue = std::mem::replace(&mut self.overdue, false);
        let Finding::Seen { newer, lost_file, claims_moved, supervisor } = finding else {
            self.waiting = false; // somebody is starting, or may be: wait anew
            out.extend([Output::Disarm(Timer::Successor), Output::Arm(Timer::Check)]);
            return;
        };
        if newer {
            return self.drain(DrainReason::TakenOver, out); // its TERM got lost
        }
        if lost_file {
            out.push(Output::PutBack);
        }
        let told = match self.intent {
            _ if supervisor == Reading::Down => Intent::Stop(Scope::Service),
            Some(Intent::Stop(scope)) => Intent::Stop(scope),
            _ if supervisor == Reading::Up => Intent::Restart,
            Some(Intent::Restart) if supervisor == Reading::Unreadable => Intent::Restart,
            Some(Intent::Restart | Intent::Unknown) | None => Intent::Unknown,
        };
        match told {
            Intent::Stop(_) => {
                self.intent = Some(told); // so that the older generations are told as well
                return self.drain(DrainReason::Stopped, out);
            }
            Intent::Restart => {
                self.waiting = false;
                out.push(Output::Disarm(Timer::Successor));
            }
            Intent::Unknown if overdue && !claims_moved => {
                return self.drain(DrainReason::Stopped, out); // nobody will come
            }
            Intent::Unknown => {
                if claims_moved || !self.waiting {
                    self.waiting = true;
                    out.push(Output::Arm(Timer::Successor));
                }
            }
        }
        out.push(Output::Arm(Timer::Check));
    }

    /// Our launcher lives, and knows what is to become of us. Nobody but us looks after our files.
    fn mend(&mut self, finding: Finding, out: &mut Vec<Output>) {
        match (self.phase, finding) {
            (Phase::Serving | Phase::HandingOff, Finding::ClaimHeld | Finding::Unseen) => {
                self.mends = true;
                out.push(Output::Arm(Timer::Check));
            }
            (
                Phase::Serving | Phase::HandingOff,
                Finding::Seen { newer: false, lost_file: true, .. },
            ) => out.push(Output::PutBack),
            (_, Finding::ClaimHeld | Finding::Unseen | Finding::Seen { .. }) => {}
        }
    }

    fn drain(&mut self, reason: DrainReason, out: &mut Vec<Output>) {
        let left = std::mem::replace(&mut self.phase, Phase::Draining(reason));
        out.extend([Output::Disarm(Timer::Check), Output::Disarm(Timer::Successor)]);
        if reason == DrainReason::TakenOver {
            out.push(Output::Report(Report::TakenOver));
        }
        out.extend([
            Output::Report(Report::Draining),
            Output::Arm(Timer::Drain),
            Output::RunDrainHooks(reason),
        ]);
        let service = self.intent == Some(Intent::Stop(Scope::Service));
        if service && reason != DrainReason::TakenOver {
            self.stop_older(out);
        }
        if left == Phase::HandingOff {
            self.let_go(out);
        }
    }

    /// Who drains will not serve again: a launcher that was sent for a restart must not wait for the
    /// last answer, since only after its end the supervisor starts a successor.
    fn let_go(&mut self, out: &mut Vec<Output>) {
        if self.attached && self.intent == Some(Intent::Restart) {
            out.extend([Output::Report(Report::Released), Output::Release]);
        }
    }

    fn stop_older(&mut self, out: &mut Vec<Output>) {
        if !self.older {
            self.older = true;
            out.push(Output::StopOlder);
        }
    }

    fn drain_hooks_done(&mut self, out: &mut Vec<Output>) {
        if let Phase::Draining(reason) = self.phase {
            if self.older {
                self.phase = Phase::AwaitingOlder(reason);
                // The older ones have limits of their own.
                out.extend([Output::Disarm(Timer::Drain), Output::Report(Report::Waiting)]);
            } else {
                self.phase = Phase::Finished;
                out.push(Output::Finish(reason));
            }
        }
    }

    fn older_gone(&mut self, out: &mut Vec<Output>) {
        self.older = false;
        match self.phase {
            Phase::AwaitingOlder(reason) => {
                self.phase = Phase::Finished;
                out.extend([
                    Output::Report(Report::Draining),
                    Output::Arm(Timer::Drain),
                    Output::Finish(reason),
                ]);
            }
            Phase::StoppingEarly => self.end(out),
            Phase::Starting
            | Phase::Serving
            | Phase::HandingOff
            | Phase::Detached
            | Phase::Draining(_)
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
