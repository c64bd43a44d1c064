//! What has happened to a service.

use crate::proto::generation::proof::World;
use crate::proto::generation::record::{Identity, Record};
use crate::proto::generation::tally::Tally;
use crate::proto::generation::verdict::Facts;

/// What has happened to a service since its lock file (`web.pid.lock`) was made: in `/run`, since the boot. The
/// counts stand in that file, so they survive restarts, crashes and stops, and no process holds them.
///
/// A count is never too high because of a look in between, and it never goes down, unless the file is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct History {
    /// Generations that have begun to serve.
    pub starts: u64,
    /// Those of them that took over from a generation that served. One that is rolled back later counts, too.
    pub restarts: u64,
    /// Starts that took the claim and ended before they served: each is a takeover that has failed, or a start of
    /// a service that was down. A start that was told to end counts, too.
    pub failed_starts: u64,
    /// Generations that served and ended, though nothing had told them to. A generation that drains when it dies
    /// does not count, and neither does one on probation: that is a rollback.
    pub crashes: u64,
    /// Generations that have failed in their [probation](crate::Config::probation).
    pub rollbacks: u64,
}

impl History {
    /// Also what the next start will have to count. `holder`: who holds the claim.
    pub(super) fn of(
        mut record: Record,
        facts: &[Facts],
        holder: Option<i32>,
        world: &World,
    ) -> History {
        record.book_crashed(facts, world);
        let starting = record.starting.as_ref().map(|one| one.daemon.pid);
        // 0: it lives in another PID namespace, so it is not known whether it is the same one.
        if holder.is_none_or(|pid| pid != 0 && starting != Some(pid)) {
            record.book_failed_start(Identity::GONE, world);
        }
        let Tally { starts, restarts, failed_starts, crashes, rollbacks } = record.tally;
        History { starts, restarts, failed_starts, crashes, rollbacks }
    }
}
