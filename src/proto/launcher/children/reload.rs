//! A restart in place: from the wish to the start of the next generation, and what becomes of a wish that
//! comes meanwhile.

use super::{Children, Last, Life, Member};
use crate::proto::launcher::{Child, Failure, Output, Progress, Refusal, Timer};

/// A restart in place that has not started its generation yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Coming {
    /// A signal may have been sent to several processes of the service, which tell us one after the other:
    /// `gathered` is set when all must have done so. `preparing`: the current one runs its hooks.
    Awaits { gathered: bool, preparing: Option<Child> },
    /// The program is being executed.
    Spawning,
}

impl Children {
    pub(in crate::proto::launcher) fn reload(&mut self, out: &mut Vec<Output>) {
        if self.in_place.is_none() {
            return;
        }
        if self.intent.is_some() || self.keep.is_awaited() {
            out.push(Output::Progress(Progress::ReloadRefused(Refusal::Leaving)));
        } else if self.coming.is_some() {
            // The program is about to be executed, as it is at that moment. That fulfils this wish as well.
        } else if self.newest(Life::Starting).is_some() {
            // It may finish, so that wishes that come faster than the program starts do not keep it from
            // ever serving. But one that hangs blocks nobody.
            if !std::mem::replace(&mut self.again, true) {
                out.push(Output::Arm(Timer::Start));
            }
        } else {
            self.start(out);
        }
    }

    fn start(&mut self, out: &mut Vec<Output>) {
        // Those before the current one drain, or are about to. If nobody serves, one more than the limit is
        // the lesser evil.
        let is_old = |one: &&Member| self.last != Last::Lives(one.child);
        let draining = self.members.iter().filter(is_old).count();
        let serves = self.newest(Life::Serving).is_some();
        let most = self.in_place.and_then(|in_place| in_place.max_draining);
        if serves && most.is_some_and(|most| draining >= most) {
            self.prepared = None;
            return out.push(Output::Progress(Progress::ReloadRefused(Refusal::Draining)));
        }
        self.reloaded = true;
        out.push(Output::Progress(Progress::Reloading));
        let serving = self.current().filter(|child| self.is(*child, Life::Serving));
        let preparing = serving.filter(|child| self.prepared != Some(*child));
        self.coming = Some(Coming::Awaits { gathered: false, preparing });
        out.push(Output::Arm(Timer::Gather));
        if let Some(child) = preparing {
            self.prepared = Some(child);
            out.extend([Output::Prepare(child), Output::Arm(Timer::Prepare)]);
        }
    }

    pub(super) fn is(&self, child: Child, life: Life) -> bool {
        self.members.iter().any(|one| one.child == child && one.life == life)
    }

    pub(in crate::proto::launcher) fn gathered(&mut self, out: &mut Vec<Output>) {
        if let Some(Coming::Awaits { gathered, .. }) = &mut self.coming {
            *gathered = true;
            self.spawn_if_due(out);
        }
    }

    /// This child has prepared, or leaves; `None`: it had time enough.
    pub(in crate::proto::launcher) fn prepared(
        &mut self,
        child: Option<Child>,
        out: &mut Vec<Output>,
    ) {
        let Some(Coming::Awaits { preparing, .. }) = &mut self.coming else { return };
        if preparing.is_some() && (child.is_none() || *preparing == child) {
            *preparing = None;
            out.push(Output::Disarm(Timer::Prepare));
            self.spawn_if_due(out);
        }
    }

    fn spawn_if_due(&mut self, out: &mut Vec<Output>) {
        if self.coming == Some(Coming::Awaits { gathered: true, preparing: None }) {
            self.coming = Some(Coming::Spawning);
            out.push(Output::Start);
        }
    }

    /// Also tells the current one that what it has prepared for does not come.
    pub(super) fn failed(&mut self, failure: Failure, out: &mut Vec<Output>) {
        self.prepared = None;
        out.push(Output::Progress(Progress::ReloadFailed(failure)));
    }

    /// The program has been executed, as this child; or it could not be.
    pub(in crate::proto::launcher) fn spawned(
        &mut self,
        child: Option<Child>,
        out: &mut Vec<Output>,
    ) {
        self.coming = None;
        match child {
            Some(child) => {
                self.members.push(Member { child, ..Member::default() });
                if let Last::Ended { child: from, .. } = self.last {
                    out.push(Output::PassSockets { from, to: child });
                }
            }
            None => {
                self.failed(Failure::NotStarted, out);
                self.conclude(out);
            }
        }
    }

    pub(super) fn start_again(&mut self, out: &mut Vec<Output>) {
        if std::mem::take(&mut self.again) {
            out.push(Output::Disarm(Timer::Start));
            // The wish may be new, and further signals of it on their way.
            self.start(out);
        }
    }

    pub(in crate::proto::launcher) fn start_expired(&mut self, out: &mut Vec<Output>) {
        if let Some(candidate) = self.newest(Life::Starting).filter(|_| self.again) {
            self.cancel(candidate, out);
        }
    }

    pub(super) fn cancel(&mut self, candidate: Child, out: &mut Vec<Output>) {
        if let Some(member) = self.member(candidate) {
            if !std::mem::replace(&mut member.cancelled, true) {
                out.extend([Output::Cancel(candidate), Output::Arm(Timer::Cancel)]);
            }
        }
    }
}
