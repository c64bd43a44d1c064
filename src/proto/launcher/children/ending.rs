//! The launcher's own end: when it comes, and what it looks like.

use super::{Children, Last, Life, Member};
use crate::proto::launcher::{Child, Output, Timer};
use crate::proto::older::Older;
use crate::proto::{End, Intent, Scope};

/// What keeps a launcher whose children have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Ending {
    /// It is to end like this child.
    mirrored: Option<(Child, End)>,
    older: Older,
}

impl Children {
    /// The service is to be down. If a keeper was in place, its end is awaited now.
    pub(super) fn stop_keeping(&mut self, out: &mut Vec<Output>) {
        self.keep.stop(out);
        if self.keep.is_awaited() {
            self.ending.mirrored = None;
        }
    }

    /// After a stop, and if everything ends with us, the launcher also waits for the children that drain.
    pub(super) fn conclude(&mut self, out: &mut Vec<Output>) {
        if self.ending.mirrored.is_some() || self.keep.is_awaited() {
            return;
        }
        let waits = |one: &Member| one.life != Life::Draining;
        if self.coming.is_some() || self.members.iter().any(waits) {
            return;
        }
        let (child, end, drained) = match self.last {
            Last::Ended { child, end, drained } => (child, end, drained),
            // It drains for a successor that has crashed: none serves, and none will.
            Last::Lives(current) => match (self.crash, self.member(current)) {
                (Some((child, end)), Some(member)) if member.taken_over => (child, end, false),
                _ => return,
            },
            Last::Nobody(Some((child, end))) => (child, end, false),
            Last::Nobody(None) => return,
        };
        let all = self.stopping() || (self.all_ends_with_us && drained);
        if all && !self.members.is_empty() {
            return;
        }
        let crashed = (!drained && end != End::Code(0)).then_some(child);
        // One that was to take over has crashed, and the one before it has ended all the same.
        let crashed = crashed.or(self.crash.map(|(newer, _)| newer));
        let again = !self.stopping() && !self.all_ends_with_us;
        let keeps = |of| again && self.keep.begin(of, (child, end), out);
        if !crashed.is_some_and(keeps) {
            self.end_as(child, end);
        }
    }

    pub(super) fn end_as(&mut self, child: Child, end: End) {
        self.ending.mirrored = Some((child, end));
    }

    /// Not while a TERM is being understood: it may be a stop. If it was one, the older generations end first. A daemon
    /// tells them when its drain begins, and awaits them. But it may have died before that, or in the middle of it.
    pub(in crate::proto::launcher) fn end_if_due(&mut self, out: &mut Vec<Output>) {
        let Some((child, end)) = self.ending.mirrored else { return };
        if self.intent != Some(Intent::Stop(Scope::Service)) {
            out.push(Output::Mirror(child, end));
        } else if self.ending.older.tell() {
            out.push(Output::StopOlder);
        }
    }

    pub(in crate::proto::launcher) fn older_told(
        &mut self,
        awaited: bool,
        again: bool,
        out: &mut Vec<Output>,
    ) {
        self.ending.older.told(awaited, again);
        if again {
            out.push(Output::Arm(Timer::TellOlder));
        }
        self.end_if_alone(out);
    }

    pub(in crate::proto::launcher) fn older_gone(&mut self, out: &mut Vec<Output>) {
        self.ending.older.gone();
        self.end_if_alone(out);
    }

    pub(in crate::proto::launcher) fn tell_older_again(&self, out: &mut Vec<Output>) {
        if self.ending.older.tells_again() {
            out.push(Output::StopOlder);
        }
    }

    fn end_if_alone(&mut self, out: &mut Vec<Output>) {
        if self.ending.older.all_gone() {
            let mirrored = self.ending.mirrored.take();
            out.extend(mirrored.map(|(child, end)| Output::Mirror(child, end)));
        }
    }
}
