//! The launcher's own end: when it comes, and what it looks like.

use super::{Children, Last, Life, Member};
use crate::proto::launcher::{Child, Output, Timer};
use crate::proto::older::Older;
use crate::proto::{End, Intent, Scope};

/// What keeps a launcher whose children have ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ending {
    /// A TERM is being understood.
    settling: bool,
    /// It is to end like this child.
    mirrored: Option<(Child, End)>,
    older: Older,
}

impl Default for Ending {
    fn default() -> Self {
        Ending { settling: false, mirrored: None, older: Older::None }
    }
}

impl Children {
    /// What a TERM meant is being found out. Until then the launcher does not end: it may have been a stop.
    pub(in crate::proto::launcher) fn settles(&mut self) {
        self.ending.settling = true;
    }

    pub(in crate::proto::launcher) fn settled(&mut self, out: &mut Vec<Output>) {
        self.ending.settling = false;
        if self.stopping() && self.keep.is_awaited() {
            self.ending.mirrored = None; // the keeper was in place, and its end is awaited now
        }
        self.end_if_settled(out);
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
        if let Some(of) = crashed.filter(|_| again) {
            if self.keep.begin(of, (child, end), out) {
                return;
            }
        }
        self.end_as(child, end, out);
    }

    pub(super) fn end_as(&mut self, child: Child, end: End, out: &mut Vec<Output>) {
        self.ending.mirrored = Some((child, end));
        self.end_if_settled(out);
    }

    /// If the service is to be down, the older generations end first. A daemon tells them when its drain begins, and
    /// awaits them. But it may have died before that, or in the middle of it.
    fn end_if_settled(&mut self, out: &mut Vec<Output>) {
        let Some((child, end)) = self.ending.mirrored.filter(|_| !self.ending.settling) else {
            return;
        };
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
            out.extend(self.ending.mirrored.map(|(child, end)| Output::Mirror(child, end)));
        }
    }
}
