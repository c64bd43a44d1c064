//! The sockets that a launcher holds for its daemons, and the keeper that gets them after a crash.
//!
//! Each daemon gives its launcher duplicates of its listening and UDP sockets when it starts to serve. A
//! duplicate of a listening socket goes on taking connections after the daemon has closed its own, so the
//! launcher closes the duplicates as soon as the daemon is to end or drains.

use super::{Child, Keeper, Output, Timer};
use crate::proto::End;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Keep {
    /// Whose sockets the launcher holds.
    of: Vec<Child>,
    /// A keeper was started after this child's end, and the launcher waits for it.
    awaited: Option<(Child, End)>,
}

impl Keep {
    /// `wanted`: the child serves, or is about to.
    pub(super) fn given(&mut self, child: Child, wanted: bool, out: &mut Vec<Output>) {
        if !wanted {
            out.push(Output::DropSockets(child));
        } else if !self.of.contains(&child) {
            self.of.push(child);
        }
    }

    pub(super) fn drop_of(&mut self, child: Child, out: &mut Vec<Output>) {
        if let Some(at) = self.of.iter().position(|one| *one == child) {
            self.of.remove(at);
            out.push(Output::DropSockets(child));
        }
    }

    /// A newer child serves: what the launcher holds of those that have ended is not needed any more.
    pub(super) fn drop_but(&mut self, living: &[Child], out: &mut Vec<Output>) {
        for child in self.of.clone() {
            if !living.contains(&child) {
                self.drop_of(child, out);
            }
        }
    }

    /// The service is to be down.
    pub(super) fn stop(&mut self, out: &mut Vec<Output>) {
        self.drop_but(&[], out);
        if self.awaited.is_some() {
            out.push(Output::EndKeeper);
        }
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    /// This child has crashed, and none serves. The launcher is to end as `mirrored`. Returns `false` if
    /// the child has given no sockets.
    pub(super) fn begin(
        &mut self,
        child: Child,
        mirrored: (Child, End),
        out: &mut Vec<Output>,
    ) -> bool {
        if !self.of.contains(&child) {
            return false;
        }
        self.of.clear(); // they go to the keeper, and the others have ended or drain
        self.awaited = Some(mirrored);
        out.extend([Output::Arm(Timer::Keeper), Output::Keep(child)]);
        true
    }

    /// `stopping`: the keeper was told to end, and its end is awaited. Returns what the launcher ends as.
    pub(super) fn heard(&mut self, keeper: Keeper, stopping: bool) -> Option<(Child, End)> {
        match keeper {
            Keeper::InPlace if stopping => None,
            Keeper::InPlace => self.awaited,
            Keeper::Gone => self.awaited.take(),
        }
    }

    /// A keeper that is not in the record holds addresses that the next start would bind. So it is
    /// ended before the supervisor learns of the crash. Returns what the launcher ends as.
    pub(super) fn expired(&mut self, out: &mut Vec<Output>) -> Option<(Child, End)> {
        let awaited = self.awaited.take();
        out.extend(awaited.map(|_| Output::KillKeeper));
        awaited
    }
}
