//! What a probation means to the launcher: whom it replaces, and what the supervisor sees of its end.

use super::{Children, Last, Life, Member};
use crate::proto::End;
use crate::proto::launcher::{Child, Output, Timer};

/// EX_TEMPFAIL of `sysexits.h`.
const FAILED_ON_PROBATION: i32 = 75;

impl Children {
    /// It has taken over, also if the one that stood by has served again meanwhile.
    pub(super) fn committed(&mut self, child: Child, out: &mut Vec<Output>) {
        if let Some(member) = self.member(child) {
            member.on_probation = false;
        }
        let place = |child| self.members.iter().position(|one| one.child == child);
        if self.current().is_some_and(|current| place(current) < place(child)) {
            self.last = Last::Lives(child);
        }
        self.await_older(child, out);
    }

    /// It serves again, unless a newer one has committed since: what two children report may come in any order.
    pub(super) fn resumed(&mut self, child: Child) {
        let newer = self.members.iter().rev().take_while(|one| one.child != child);
        let mut newer = newer.filter(|one| one.life == Life::Serving);
        if newer.all(|one| one.on_probation) {
            self.last = Last::Lives(child);
        }
    }

    /// From now on the older ones have to drain.
    pub(super) fn await_older(&self, child: Child, out: &mut Vec<Output>) {
        if self.members.iter().any(|one| one.life == Life::Serving && one.child != child) {
            out.push(Output::Arm(Timer::Overdue));
        }
    }

    /// What the supervisor is to see. A program that ends by itself on probation has failed: from code 0,
    /// systemd and supervisord would conclude that all is done.
    pub(super) fn shown_end(&self, member: &Member, end: End) -> End {
        let unasked = member.on_probation && member.life == Life::Serving;
        let failed = (unasked || member.rolled_back) && !self.stopping();
        match end {
            End::Code(0) if failed => End::Code(FAILED_ON_PROBATION),
            End::Code(_) | End::Signal(_) => end,
        }
    }
}
