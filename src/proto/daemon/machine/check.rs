//! What follows from a check: files are put back, and a daemon without a launcher stays or drains.

use super::{Daemon, Wait};
use crate::proto::daemon::{NewFlows, Output, Sight, Timer};
use crate::proto::generation::check::{self, Findings, Seen};
use crate::proto::generation::record::LineState;
use crate::proto::{DrainReason, Intent, Reading, Scope};

impl Daemon {
    pub(super) fn checked(&mut self, sight: Sight, out: &mut Vec<Output>) {
        let mends = std::mem::take(&mut self.mends);
        if self.is_alone() {
            self.checked_alone(sight, out);
        } else if mends {
            self.checked_beside_launcher(sight, out);
        } else if let Sight::Seen(_) = sight {
            out.push(Output::GiveUpClaim);
        }
    }

    fn checked_alone(&mut self, sight: Sight, out: &mut Vec<Output>) {
        let found = match sight {
            // Another generation is starting, or may be: the wait begins anew.
            Sight::ClaimHeld | Sight::Unknown => {
                self.awaits_no_successor(out);
                out.push(Output::Arm(Timer::Check));
                return;
            }
            // The PID file is put in place before its owner serves. So it is believed at the second check.
            Sight::NoRecord { newer } => {
                let before = std::mem::replace(&mut self.memory.newer_without_record, newer);
                Findings { newer: newer && before, ..Findings::default() }
            }
            Sight::Seen(seen) => self.seen(&seen, out),
        };
        let over = self.wait == Wait::Over;
        if over {
            self.wait = Wait::No;
        }
        if found.newer {
            return self.drain(DrainReason::TakenOver, out); // its TERM got lost
        }
        match self.meant() {
            Intent::Stop(scope) => {
                self.intent = Some(Intent::Stop(scope)); // so that the older generations are told as well
                return self.leave(DrainReason::Stopped, out);
            }
            Intent::Restart => self.awaits_no_successor(out),
            // The newer one has come, or waits in `init`.
            Intent::Unknown if self.stands_by() || self.candidates_wait() => {
                self.awaits_no_successor(out);
            }
            Intent::Unknown if over && !found.claims_moved => {
                return self.leave(DrainReason::Stopped, out); // nobody will come
            }
            Intent::Unknown => {
                if found.claims_moved || self.wait != Wait::Running {
                    self.wait = Wait::Running;
                    out.push(Output::Arm(Timer::Successor));
                }
            }
        }
        out.push(Output::Arm(Timer::Check));
    }

    /// Not for now. If one is awaited again, the whole of `successor_timeout` counts.
    pub(super) fn awaits_no_successor(&mut self, out: &mut Vec<Output>) {
        if std::mem::replace(&mut self.wait, Wait::No) == Wait::Running {
            out.push(Output::Disarm(Timer::Successor));
        }
    }

    /// Whether the launcher's end meant a restart or a stop: by the supervisor's status, and by the
    /// intent that the launcher told.
    fn meant(&self) -> Intent {
        match (self.reading, self.intent) {
            (Reading::Down, _) => Intent::Stop(Scope::Service),
            (_, Some(Intent::Stop(scope))) => Intent::Stop(scope),
            (Reading::Up, _) | (Reading::Unreadable, Some(Intent::Restart)) => Intent::Restart,
            (Reading::Lost, _) | (Reading::Unreadable, Some(Intent::Unknown) | None) => {
                Intent::Unknown
            }
        }
    }

    /// Our launcher lives, and decides when we end. But only we can put our files back.
    fn checked_beside_launcher(&mut self, sight: Sight, out: &mut Vec<Output>) {
        match sight {
            Sight::ClaimHeld | Sight::Unknown => {
                if self.serves() {
                    self.mends = true;
                    out.push(Output::Arm(Timer::Check));
                }
            }
            Sight::NoRecord { .. } => {}
            Sight::Seen(seen) => _ = self.seen(&seen, out),
        }
    }

    /// Under the claim: what is lost of ours is put back.
    fn seen(&mut self, seen: &Seen, out: &mut Vec<Output>) -> Findings {
        let found = check::check(seen, &mut self.memory);
        if found.record_lost {
            out.push(Output::EnterRecord(match self.is_on_probation() {
                true => LineState::Probation,
                false => LineState::Serving,
            }));
        }
        if self.serves() && !found.newer {
            if found.file_lost {
                out.push(Output::PutBackFile);
            }
            if seen.socket_lost {
                out.push(Output::PutBackSocket);
            }
            // A generation that has started meanwhile and is gone may have taken the new flows. If an older one
            // serves in our place, they are its flows.
            if found.claims_moved && !found.replaced && self.steers() {
                out.push(Output::SteerFlows(NewFlows::Ours));
            }
        }
        out.push(Output::GiveUpClaim);
        found
    }
}
