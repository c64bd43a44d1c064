//! A restart: the wish, and the `on_shutdown_request` hooks, which run before a handoff and before a restart
//! in place.

use super::Daemon;
use crate::proto::daemon::{Forced, Output, Phase, Question, Sender};
use crate::proto::{Intent, Report, State};

/// Hooks of one run wait for those of the run before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct RequestHooks {
    /// Runs that have not ended yet.
    running: u8,
    /// The last run was for a restart that may still come.
    ordered: bool,
}

/// What a call of `restart` does, from the program or from an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartCall {
    /// It restarts, unless nobody would start the service again.
    Restarts,
    /// A successor is awaited already. If its file has failed, it need not wait.
    TriesAgain,
    /// And why.
    Refused(&'static str),
}

impl Daemon {
    pub(crate) fn restart_call(&self) -> RestartCall {
        match self.state() {
            State::Serving => RestartCall::Restarts,
            State::Detached => RestartCall::TriesAgain,
            State::Starting => RestartCall::Refused("this generation has not started yet"),
            State::Leaving => {
                RestartCall::Refused("the service is to be down: this generation is leaving")
            }
            State::Draining => RestartCall::Refused("this generation is draining"),
            State::Standby => RestartCall::Refused("it stands by for a newer generation"),
        }
    }

    pub(super) fn usr2(&mut self, sender: Sender, out: &mut Vec<Output>) {
        let by_launcher = match sender {
            Sender::Launcher { announced: true } => return,
            Sender::Launcher { announced: false } => true,
            Sender::Successor | Sender::Unlisted | Sender::Other => false,
        };
        match self.phase {
            Phase::Starting => self.end_as_told(out),
            Phase::Serving if self.attached && !self.in_place => {
                self.wish = true;
                self.ask(Question::OfLauncher, out);
            }
            Phase::Serving => self.restart(out),
            Phase::Leaving(_) => self.has_left(false, out),
            Phase::Draining(_) | Phase::AwaitingOlder(_) | Phase::Finished => {
                if !by_launcher {
                    self.hammer(Forced::Usr2, out);
                }
            }
            Phase::StoppingEarly | Phase::HandingOff | Phase::Detached | Phase::Ended => {}
        }
    }

    /// Like a USR2 by hand, but it forces no drain to end: it may have been sent to every process of the service.
    pub(super) fn reload(&mut self, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Starting => self.early_wish = true,
            Phase::Serving => self.usr2(Sender::Other, out),
            Phase::Leaving(_) | Phase::Draining(_) | Phase::AwaitingOlder(_) | Phase::Finished => {
                if self.in_place && self.attached {
                    out.push(Output::Report(Report::Reload));
                }
            }
            Phase::StoppingEarly | Phase::HandingOff | Phase::Detached | Phase::Ended => {}
        }
    }

    pub(super) fn restart(&mut self, out: &mut Vec<Output>) {
        if self.in_place && self.attached {
            out.push(Output::Report(Report::Reload));
        } else {
            self.hand_off(out);
        }
    }

    pub(super) fn hand_off(&mut self, out: &mut Vec<Output>) {
        if self.attached {
            // Nobody was asked: this is a wish of our own, or an operator's.
            let wish =
                if self.kind.starts_again.is_certain() { Intent::Restart } else { Intent::Unknown };
            self.intent.get_or_insert(wish);
            self.phase = Phase::HandingOff;
            self.run_request_hooks(out);
        }
    }

    /// A restart in place is about to begin.
    pub(super) fn prepare(&mut self, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Serving => self.run_request_hooks(out),
            // It has prepared for its successor, or for its end.
            Phase::HandingOff
            | Phase::Detached
            | Phase::Leaving(_)
            | Phase::Draining(_)
            | Phase::AwaitingOlder(_)
            | Phase::Finished => out.push(Output::Report(Report::Prepared)),
            Phase::Starting | Phase::StoppingEarly | Phase::Ended => {}
        }
    }

    /// Not a second time for the same restart.
    pub(super) fn run_request_hooks(&mut self, out: &mut Vec<Output>) {
        if !self.request_hooks.ordered {
            self.request_hooks.ordered = true;
            self.request_hooks.running += 1;
            out.push(Output::RunRequestHooks);
        } else if self.request_hooks.running == 0 {
            self.ready_for_successor(out);
        }
    }

    pub(super) fn request_hooks_done(&mut self, out: &mut Vec<Output>) {
        let hooks = &mut self.request_hooks;
        hooks.running = hooks.running.saturating_sub(1);
        if hooks.running == 0 && hooks.ordered {
            self.ready_for_successor(out);
        }
    }

    fn ready_for_successor(&mut self, out: &mut Vec<Output>) {
        if self.wants_to_roll_back() {
            return self.say_resume(out);
        }
        match self.phase {
            Phase::Serving => out.push(Output::Report(Report::Prepared)),
            Phase::HandingOff => {
                self.phase = Phase::Detached;
                if self.attached {
                    out.extend([Output::Report(Report::Released), Output::Release]);
                    self.ask(Question::OfService, out);
                }
            }
            Phase::Starting
            | Phase::StoppingEarly
            | Phase::Detached
            | Phase::Leaving(_)
            | Phase::Draining(_)
            | Phase::AwaitingOlder(_)
            | Phase::Finished
            | Phase::Ended => {}
        }
    }

    /// The restart in place has failed. A daemon that hands off awaits another successor, and one that stands by has
    /// one that lives.
    pub(super) fn resume(&mut self, out: &mut Vec<Output>) {
        let serves = self.phase == Phase::Serving && !self.stands_by();
        if serves && std::mem::take(&mut self.request_hooks.ordered) {
            out.push(Output::RunResumeHooks);
        }
    }

    /// Its successor has failed, and the `on_resume` hooks run: those of the request have to run once more, before the
    /// next successor. If the supervisor is to start that one, nobody tells when.
    pub(super) fn order_request_hooks_anew(&mut self, out: &mut Vec<Output>) {
        let ran = std::mem::take(&mut self.request_hooks.ordered);
        if ran && self.phase != Phase::Serving {
            self.run_request_hooks(out);
        }
    }
}
