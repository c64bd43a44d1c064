//! Leaving: on a stop everything is served on for a while, so that load balancers notice and send nothing more.
//! Then the drain begins.

use super::Daemon;
use crate::proto::daemon::{Output, Phase, Timer};
use crate::proto::{DrainReason, Report};

impl Daemon {
    /// The service is to be down. Older generations end at once: no balancer sends anything to them.
    pub(super) fn leave(&mut self, reason: DrainReason, out: &mut Vec<Output>) {
        // One that stands by accepts nothing: its successor is the one that leaves.
        if !self.leaves || self.stands_by() {
            return self.drain(reason, out);
        }
        self.leave_probation(reason, out);
        self.phase = Phase::Leaving(reason);
        out.extend([
            Output::Disarm(Timer::Check),
            Output::Disarm(Timer::Successor),
            Output::Report(Report::Leaving),
            Output::Arm(Timer::Leave),
        ]);
        if self.service_stops() {
            self.stop_older(out);
        }
    }

    /// The time is over; or a successor serves, or somebody does not want to wait.
    pub(super) fn has_left(&mut self, from_successor: bool, out: &mut Vec<Output>) {
        if let Phase::Leaving(reason) = self.phase {
            self.drain(if from_successor { DrainReason::TakenOver } else { reason }, out);
        }
    }
}

#[cfg(test)]
mod tests;
