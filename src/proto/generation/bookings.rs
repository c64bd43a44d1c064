//! What is counted in the record, when, and by whom. Each count is written by a generation that holds the
//! claim. A failed start and a crash are counted by the next generation, since the process itself has ended.

use super::crashes::may_be_of_this_boot;
use super::proof::World;
use super::record::{Generation, Identity, LineState, Record};
use super::verdict::{Facts, Unproven};
use crate::proto::DrainReason;

/// In the line of a generation: it was told to end. It is one of the fields that a version of this crate keeps
/// even if it does not know it.
const ENDS: &str = "ends=1";

/// Does a daemon whose drain begins for this reason write into its line that it was told to end? A successor
/// has written already that the older ones drain.
pub(crate) fn marks_its_end(reason: DrainReason) -> bool {
    match reason {
        DrainReason::TakenOver => false,
        DrainReason::Stopped | DrainReason::Requested | DrainReason::RolledBack => true,
    }
}

impl Generation {
    /// It was told to end.
    pub(crate) fn ends(&self) -> bool {
        self.more.iter().any(|field| field == ENDS)
    }
}

impl Record {
    /// The generation with this number was told to end: its end is no crash. Returns `false` if nothing is to be
    /// written.
    pub(crate) fn mark_end(&mut self, number: u64) -> bool {
        let line = self.live.iter_mut().find(|line| line.number == number && !line.ends());
        line.map(|line| line.more.push(ENDS.to_owned())).is_some()
    }

    /// Under the claim, before another start is entered: the one before it has failed. `own`: who claims. It may
    /// have given the claim up and come again.
    pub(crate) fn book_failed_start(&mut self, own: Identity, here: &World) {
        let failed = |one: &Generation| one.daemon != own && may_be_of_this_boot(one, here);
        if self.starting.take().is_some_and(|one| failed(&one)) {
            self.tally.failed_starts += 1;
        }
    }

    /// Counts the generations that have crashed, each once.
    pub(crate) fn book_crashed<'a>(
        &mut self,
        others: impl IntoIterator<Item = &'a Facts>,
        here: &World,
    ) {
        for facts in others {
            // Without a proof that it has gone, it may serve where we cannot see it.
            if facts.proof != Err(Unproven::Gone) {
                continue;
            }
            let mut lines = self.live.iter_mut();
            let crashed = lines.find(|line| {
                let served = line.state == Some(LineState::Serving) && !line.ends();
                line.number == facts.number && served && may_be_of_this_boot(line, here)
            });
            if let Some(line) = crashed {
                line.more.push(ENDS.to_owned());
                self.tally.crashes += 1;
            }
        }
    }

    /// A keeper takes the place of the generation that has crashed. It enters anew each time that it puts its control
    /// socket back, and the crash counts once.
    pub(crate) fn enter_keeper(&mut self, keeper: Generation) {
        let (number, keeps) = (keeper.number, Some(LineState::Keeping));
        if !self.live.iter().any(|line| line.number == number && line.state == keeps) {
            self.tally.crashes += 1;
        }
        self.live.retain(|line| line.number != number);
        self.live.push(keeper);
        self.last = self.last.max(number);
    }

    /// A generation is about to serve.
    pub(crate) fn book_start<'a>(&mut self, others: impl IntoIterator<Item = &'a Facts>) {
        self.tally.starts += 1;
        let took_over = others.into_iter().any(|one| one.serves && one.lives());
        self.tally.restarts += u64::from(took_over);
    }
}

#[cfg(test)]
mod tests;
