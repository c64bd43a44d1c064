//! The children of a launcher: which one is current, which ones have to end, and which one the launcher
//! ends like. Without reload signals there is one child.
//!
//! The *current* child is the newest one that serves. A *candidate* is a child that is starting while
//! another one serves, or has served. The older ones drain.

mod ending;
mod probation;
mod reload;

use super::keep::Keep;
use super::{Child, Failure, InPlace, Keeper, Output, Progress, Timer};
use crate::proto::{End, Intent, Report};
use ending::Ending;
use reload::Coming;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Life {
    #[default]
    Starting,
    Serving,
    /// Also while it leaves, before the drain.
    Draining,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Member {
    child: Child,
    life: Life,
    /// It has installed its handlers, so signals need not be held back.
    ready: bool,
    /// It has released us.
    released: bool,
    /// The intent has been told and its signal sent.
    sent: bool,
    /// It was told to end, unless it serves.
    cancelled: bool,
    /// It drains for a successor.
    taken_over: bool,
    /// It serves on probation.
    on_probation: bool,
    /// It drains because it has failed on probation.
    rolled_back: bool,
    /// What it gives from now on is not held.
    needs_no_keeper: bool,
}

/// Which child served last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Last {
    /// None so far; how the last attempt ended.
    Nobody(Option<(Child, End)>),
    /// The current one, or one that drains and has no successor.
    Lives(Child),
    /// `drained`: it ended as it should.
    Ended { child: Child, end: End, drained: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Children {
    /// Those that live, the oldest first.
    members: Vec<Member>,
    coming: Option<Coming>,
    /// The one that has been told to prepare for a restart, and not yet that the restart has failed.
    prepared: Option<Child>,
    /// A restart in place was begun: not only the first child has been started.
    reloaded: bool,
    in_place: Option<InPlace>,
    /// No supervisor starts the service again: when we end, everything ends.
    all_ends_with_us: bool,
    last: Last,
    /// How a child ended that had started after the current one.
    crash: Option<(Child, End)>,
    /// A wish came while one was starting: as soon as that has started, or has ended, the next one is
    /// started.
    again: bool,
    /// A signal that asks for a restart came while the first one was starting.
    held: Option<i32>,
    /// A restart waits until the one that is starting has started.
    waits: bool,
    /// That one has had its time, and is told now.
    late: bool,
    /// What the last TERM meant, once settled.
    intent: Option<Intent>,
    /// `handoff_timeout` has passed.
    expired: bool,
    keep: Keep,
    ending: Ending,
}

impl Children {
    pub(super) fn new(first: Child, in_place: Option<InPlace>, all_ends_with_us: bool) -> Self {
        Children {
            members: vec![Member { child: first, ..Member::default() }],
            coming: None,
            prepared: None,
            reloaded: false,
            in_place,
            all_ends_with_us,
            last: Last::Nobody(None),
            crash: None,
            again: false,
            held: None,
            waits: false,
            late: false,
            intent: None,
            expired: false,
            keep: Keep::default(),
            ending: Ending::default(),
        }
    }

    pub(super) fn stopping(&self) -> bool {
        matches!(self.intent, Some(Intent::Stop(_)))
    }

    fn member(&mut self, child: Child) -> Option<&mut Member> {
        self.members.iter_mut().find(|one| one.child == child)
    }

    fn newest(&self, life: Life) -> Option<Child> {
        self.members.iter().rev().find(|one| one.life == life).map(|one| one.child)
    }

    pub(super) fn current(&self) -> Option<Child> {
        match self.last {
            Last::Lives(child) => Some(child),
            Last::Nobody(_) | Last::Ended { .. } => None,
        }
    }

    /// The child that gets a signal or an intent: the current one, or else the one that is starting.
    fn addressee(&self) -> Option<Child> {
        self.current().or(self.newest(Life::Starting))
    }

    // ---- what children tell ----

    pub(super) fn report(&mut self, child: Child, report: Report, out: &mut Vec<Output>) {
        use Report::{Probation, Ready, Unhandled, Waiting};
        // Each of the others says as well that it has started, should that have got lost.
        if !matches!(report, Ready | Waiting | Probation | Unhandled) {
            self.started(child, out);
        }
        let Some(member) = self.member(child) else { return };
        match report {
            Report::Ready => self.ready(child, out),
            Report::Waiting => out.push(Output::Disarm(Timer::Kill(child))),
            Report::Started => {}
            Report::Unhandled => {} // for the machine
            Report::Released => {
                member.released = true;
                self.keep.drop_of(child, out);
            }
            Report::TakenOver => member.taken_over = true,
            Report::Probation => member.on_probation = true,
            Report::RolledBack => member.rolled_back = true,
            Report::Committed => self.committed(child, out),
            Report::Resumed => self.resumed(child),
            // What ends from now on has ended after a stop, whoever has asked for it.
            Report::Leaving => {
                member.life = Life::Draining;
                self.is_to_end(child, Some(Progress::Leaving(child)), out);
            }
            Report::Draining => {
                member.life = Life::Draining;
                let progress = (!member.taken_over).then_some(Progress::Draining(child));
                self.is_to_end(child, progress, out);
                self.conclude(out);
            }
            Report::Reload => self.reload(out),
            Report::Prepared => self.prepared(Some(child), out),
        }
    }

    /// It leaves or drains. `progress`: what is said of it if it is the current one.
    fn is_to_end(&mut self, child: Child, progress: Option<Progress>, out: &mut Vec<Output>) {
        self.keep.drop_of(child, out);
        out.push(Output::Arm(Timer::Kill(child)));
        if self.last == Last::Lives(child) {
            out.extend(progress.map(Output::Progress));
        }
        self.prepared(Some(child), out);
    }

    /// What is held back is sent. It is also sent if the channel is closed, since "ready" can no longer
    /// come.
    pub(super) fn ready(&mut self, child: Child, out: &mut Vec<Output>) {
        if let Some(member) = self.member(child) {
            member.ready = true;
            self.send_to_addressee(out);
        }
    }

    fn started(&mut self, child: Child, out: &mut Vec<Output>) {
        let Some(member) = self.member(child) else { return };
        if member.life != Life::Starting {
            return;
        }
        (member.life, member.ready) = (Life::Serving, true);
        let on_probation = member.on_probation;
        self.last = Last::Lives(child);
        self.crash = None;
        let lives: Vec<Child> = self.members.iter().map(|one| one.child).collect();
        self.keep.drop_but(&lives, out);
        out.extend([Output::Disarm(Timer::Cancel), Output::Progress(Progress::Serving(child))]);
        if !on_probation {
            self.await_older(child, out);
        }
        self.prepared = None;
        if let Some(signal) = self.held.take().filter(|_| self.intent.is_none()) {
            out.push(Output::Forward(child, signal));
        }
        self.send_to_addressee(out);
        self.start_again(out);
    }

    pub(super) fn ended(&mut self, child: Child, end: End, out: &mut Vec<Output>) {
        let Some(at) = self.members.iter().position(|one| one.child == child) else { return };
        let member = self.members.remove(at);
        let end = self.shown_end(&member, end);
        out.push(Output::Disarm(Timer::Kill(child)));
        match member.life {
            Life::Starting => self.never_started(&member, end, out),
            Life::Serving | Life::Draining => {
                if self.last == Last::Lives(child) {
                    self.current_ended(&member, end, out);
                }
                self.prepared(Some(child), out);
            }
        }
        self.conclude(out);
    }

    fn never_started(&mut self, member: &Member, end: End, out: &mut Vec<Output>) {
        let child = member.child;
        self.keep.drop_of(child, out);
        if matches!(self.last, Last::Nobody(_)) {
            self.last = Last::Nobody(Some((child, end)));
        }
        if member.cancelled {
            out.push(Output::Disarm(Timer::Cancel));
        } else if self.reloaded {
            self.failed(Failure::Ended(child, end), out);
        }
        self.start_again(out);
    }

    fn current_ended(&mut self, member: &Member, end: End, out: &mut Vec<Output>) {
        match self.newest(Life::Serving) {
            // It got as far as `started`, and its predecessor has not left yet.
            Some(older) => {
                self.last = Last::Lives(older);
                self.crash = (!member.on_probation).then_some((member.child, end));
                if member.on_probation {
                    // The older one goes on. What only the dead one had bound is served by nobody.
                    self.keep.drop_of(member.child, out);
                }
                self.failed(Failure::Ended(member.child, end), out);
                self.send_to_addressee(out);
            }
            None => {
                let drained = member.life == Life::Draining;
                self.last = Last::Ended { child: member.child, end, drained };
                let candidate = self.newest(Life::Starting);
                if candidate.is_some() || self.coming.is_some() {
                    out.push(Output::Progress(Progress::CurrentEnded(member.child, end)));
                }
                if let Some(candidate) = candidate {
                    out.push(Output::PassSockets { from: member.child, to: candidate });
                }
            }
        }
    }

    // ---- a TERM ----

    /// The TERM has been understood.
    pub(super) fn decided(&mut self, intent: Intent, out: &mut Vec<Output>) {
        let before = self.intent.replace(intent);
        if before.is_none() {
            out.push(Output::Arm(Timer::Handoff));
        }
        self.again = false;
        self.coming = self.coming.filter(|coming| *coming == Coming::Spawning);
        if self.stopping() {
            self.stop_keeping(out);
        }
        let addressee = self.addressee();
        let starting = self.newest(Life::Starting).filter(|one| Some(*one) != addressee);
        if let Some(candidate) = starting {
            self.cancel(candidate, out);
        }
        let Some(member) = addressee.and_then(|child| self.member(child)) else {
            return self.conclude(out); // it may have waited for a start that does not come now
        };
        match (before, intent) {
            (None, _) | (_, Intent::Stop(_)) => {
                member.sent = false;
                self.send_to_addressee(out);
            }
            (Some(before), _) if before != intent && member.sent => {
                out.push(Output::Tell(member.child, intent));
            }
            (Some(_), _) => {}
        }
    }

    /// If the supervisor restarts a service that is starting, the start may finish first, as in
    /// [`reload`](Self::reload).
    ///
    /// Each side writes before it signals. A child that becomes current after the TERM is told as well.
    fn send_to_addressee(&mut self, out: &mut Vec<Output>) {
        let (Some(child), Some(intent)) = (self.addressee(), self.intent) else { return };
        let may_finish = intent == Intent::Restart && !self.late && self.is(child, Life::Starting);
        let Some(member) = self.member(child).filter(|one| one.ready && !one.sent) else { return };
        if may_finish {
            self.waits = true;
            return;
        }
        member.sent = true;
        if std::mem::replace(&mut self.waits, false) {
            out.push(Output::Arm(Timer::Handoff));
        }
        out.push(Output::Tell(child, intent));
        match intent {
            Intent::Restart | Intent::Unknown => out.push(Output::Handoff(child)),
            Intent::Stop(_) => out.extend([
                Output::Stop(child),
                Output::Disarm(Timer::Handoff),
                Output::Arm(Timer::Kill(child)),
                Output::Progress(Progress::Stopping(child)),
            ]),
        }
    }

    pub(super) fn forward(&self, signal: i32, to_all: bool, out: &mut Vec<Output>) {
        let addressee = self.addressee();
        if to_all {
            let others = self.members.iter().filter(|one| Some(one.child) != addressee);
            out.extend(others.map(|one| Output::ForwardIfHandled(one.child, signal)));
        }
        out.extend(addressee.map(|child| Output::Forward(child, signal)));
    }

    /// The signal would end a generation that is starting.
    pub(super) fn pass_restart_on(&mut self, signal: i32, out: &mut Vec<Output>) {
        match self.addressee() {
            Some(child) if self.is(child, Life::Starting) => self.held = Some(signal),
            Some(child) => out.push(Output::Forward(child, signal)),
            None => {}
        }
    }

    /// `false`: no child is ready to take it.
    pub(super) fn pass_halt_on(&mut self, signal: i32, out: &mut Vec<Output>) -> bool {
        let addressee = self.addressee().and_then(|child| self.member(child));
        let ready = addressee.filter(|one| one.ready).map(|one| one.child);
        out.extend(ready.map(|child| Output::Forward(child, signal)));
        ready.is_some()
    }

    // ---- limits ----

    pub(super) fn handoff_expired(&mut self, out: &mut Vec<Output>) {
        let (addressee, waits) = (self.addressee(), self.waits);
        match addressee.and_then(|child| self.member(child)) {
            Some(member) if !member.ready => {
                out.push(Output::Kill(member.child, Timer::Handoff));
            }
            Some(_) if waits => {
                self.late = true;
                self.send_to_addressee(out);
            }
            Some(_) | None => self.expired = !self.stopping(),
        }
    }

    pub(super) fn cancel_expired(&mut self, out: &mut Vec<Output>) {
        let due = self.members.iter().filter(|one| one.cancelled && one.life == Life::Starting);
        out.extend(due.map(|one| Output::Kill(one.child, Timer::Cancel)));
    }

    /// Its successor could not send it TERM: they are of different users. Without a launcher it would
    /// find out by itself.
    pub(super) fn overdue(&self, out: &mut Vec<Output>) {
        let Last::Lives(current) = self.last else { return };
        let serving = self.members.iter().filter(|one| one.life == Life::Serving);
        let (current, others): (Vec<&Member>, Vec<&Member>) =
            serving.partition(|one| one.child == current);
        // While the current one has to prove itself, the newest proven one stands by.
        let proven = others.iter().rfind(|one| !one.on_probation).map(|one| one.child);
        let standby = proven.filter(|_| current.iter().any(|one| one.on_probation));
        let overdue = others.iter().filter(|one| Some(one.child) != standby);
        out.extend(overdue.map(|one| Output::TellTakenOver(one.child)));
    }

    pub(super) fn kill_expired(&self, child: Child, out: &mut Vec<Output>) {
        if self.members.iter().any(|one| one.child == child) {
            out.push(Output::Kill(child, Timer::Kill(child)));
        }
    }

    // ---- sockets, and the keeper ----

    /// A child has given its sockets: all that its successor needs.
    pub(super) fn given(&mut self, child: Child, out: &mut Vec<Output>) {
        let wants =
            |one: &Member| one.life != Life::Draining && !one.released && !one.needs_no_keeper;
        let wanted = self.member(child).is_some_and(|one| wants(one)) && !self.stopping();
        self.keep.given(child, wanted, out);
    }

    /// A child has given anew, and nothing is to outlive its crash any more.
    pub(super) fn none_given(&mut self, child: Child, out: &mut Vec<Output>) {
        self.keep.drop_of(child, out);
    }

    /// The supervisor keeps the sockets of this child, or would end a keeper at once.
    pub(super) fn needs_no_keeper(&mut self, child: Child, out: &mut Vec<Output>) {
        if let Some(member) = self.member(child) {
            member.needs_no_keeper = true;
        }
        self.keep.drop_of(child, out);
    }

    pub(super) fn keeper(&mut self, keeper: Keeper) {
        if let Some((child, end)) = self.keep.heard(keeper, self.stopping()) {
            self.end_as(child, end);
        }
    }

    pub(super) fn keeper_expired(&mut self, out: &mut Vec<Output>) {
        if let Some((child, end)) = self.keep.expired(out) {
            self.end_as(child, end);
        }
    }

    /// No exit while settling, and none after a stop: then the end of all is awaited. A candidate
    /// that is to end may serve by now, and then its release is the one that counts.
    pub(super) fn quiet(&mut self, settled: bool, out: &mut Vec<Output>) {
        let Some(child) = self.addressee() else { return };
        let released = self.member(child).is_some_and(|one| one.released);
        let candidate = self.newest(Life::Starting).is_some_and(|one| one != child);
        if settled && !self.stopping() && (released && !candidate || self.expired) {
            out.push(Output::Leave { child, expired: !released });
        }
    }
}
