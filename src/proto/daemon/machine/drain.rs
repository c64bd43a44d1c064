//! The drain, and the end of the older generations on a stop.

use super::Daemon;
use crate::proto::daemon::{Output, Phase, Timer};
use crate::proto::older::Older;
use crate::proto::{DrainReason, Intent, Report, Scope};

impl Daemon {
    pub(super) fn drain(&mut self, reason: DrainReason, out: &mut Vec<Output>) {
        self.leave_probation(reason, out);
        self.let_candidates_go(out);
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
        if self.service_stops() && reason != DrainReason::TakenOver {
            self.stop_older(out);
        }
        if left == Phase::HandingOff {
            self.let_go(out);
        } else if matches!(left, Phase::Leaving(_)) {
            out.push(Output::Disarm(Timer::Leave));
        }
    }

    pub(super) fn service_stops(&self) -> bool {
        self.intent == Some(Intent::Stop(Scope::Service))
    }

    /// A daemon that drains will not serve again: a launcher that was told to restart must not wait for the
    /// last answer, since the supervisor starts a successor only after the launcher's end.
    pub(super) fn let_go(&mut self, out: &mut Vec<Output>) {
        if self.attached && self.intent == Some(Intent::Restart) {
            out.extend([Output::Report(Report::Released), Output::Release]);
        }
    }

    pub(super) fn stop_older(&mut self, out: &mut Vec<Output>) {
        if self.older.tell() {
            out.push(Output::StopOlder);
        }
    }

    pub(super) fn older_told(&mut self, awaited: bool, again: bool, out: &mut Vec<Output>) {
        self.older.told(awaited, again);
        if again {
            out.push(Output::Arm(Timer::TellOlder));
        }
        self.older_may_be_gone(out);
    }

    pub(super) fn older_gone(&mut self, out: &mut Vec<Output>) {
        self.older.gone();
        self.older_may_be_gone(out);
    }

    pub(super) fn older_may_be_gone(&mut self, out: &mut Vec<Output>) {
        if !self.older.all_gone() {
            return;
        }
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
            | Phase::Leaving(_)
            | Phase::Draining(_)
            | Phase::Finished
            | Phase::Ended => {}
        }
    }

    pub(super) fn drain_hooks_done(&mut self, out: &mut Vec<Output>) {
        if let Phase::Draining(reason) = self.phase {
            // A commit tells the predecessor to end as well. That end is awaited only if the service stops.
            if self.older == Older::None || !self.service_stops() {
                self.phase = Phase::Finished;
                out.push(Output::Finish(reason));
            } else {
                self.phase = Phase::AwaitingOlder(reason);
                // The older ones have limits of their own.
                out.extend([Output::Disarm(Timer::Drain), Output::Report(Report::Waiting)]);
            }
        }
    }
}
