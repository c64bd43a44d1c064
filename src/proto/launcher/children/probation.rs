//! What a probation means to the launcher: whom it replaces, and what the supervisor sees of its end.

use super::{Children, Life, Member};
use crate::proto::End;
use crate::proto::launcher::{Child, Output, Timer};

/// EX_TEMPFAIL of `sysexits.h`.
const FAILED_ON_PROBATION: i32 = 75;

impl Children {
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
