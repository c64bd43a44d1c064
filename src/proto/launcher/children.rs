//! The children of a launcher: which one is current, which ones have to end, and which one the launcher
//! ends like. Without reload signals there is one child.
//!
//! The *current* child is the newest one that serves. A *candidate* is a child that is starting while
//! another one serves, or has served. The older ones drain.

use super::{Child, Failure, InPlace, Output, Progress, Refusal, Timer};
use crate::proto::{End, Intent, Report};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Life {
    Starting,
    Serving,
    Draining,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
}

impl Member {
    fn new(child: Child) -> Self {
        Member {
            child,
            life: Life::Starting,
            ready: false,
            released: false,
            sent: false,
            cancelled: false,
            taken_over: false,
        }
    }
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
    /// One more is being started.
    spawning: bool,
    /// One more than the first has been.
    reloaded: bool,
    /// `None`: without a limit.
    max_draining: Option<usize>,
    in_place: bool,
    /// No supervisor starts the service again: when we end, everything ends.
    all_ends_with_us: bool,
    last: Last,
    /// How a child ended that had started after the current one.
    crash: Option<(Child, End)>,
    /// As soon as the candidate has ended, the next one is started.
    again: bool,
    /// What the last TERM meant, once settled.
    intent: Option<Intent>,
    /// `handoff_timeout` has passed.
    expired: bool,
}

impl Children {
    pub(super) fn new(first: Child, in_place: Option<InPlace>, all_ends_with_us: bool) -> Self {
        Children {
            members: vec![Member::new(first)],
            spawning: false,
            reloaded: false,
            max_draining: in_place.and_then(|in_place| in_place.max_draining),
            in_place: in_place.is_some(),
            all_ends_with_us,
            last: Last::Nobody(None),
            crash: None,
            again: false,
            intent: None,
            expired: false,
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
        match report {
            Report::Ready => return self.ready(child, out),
            Report::Waiting => return out.push(Output::Disarm(Timer::Kill(child))),
            // All the others say as well that it has started, should that have got lost.
            Report::Started
            | Report::Released
            | Report::TakenOver
            | Report::Draining
            | Report::Reload => self.started(child, out),
        }
        let Some(member) = self.member(child) else { return };
        match report {
            Report::Ready | Report::Waiting | Report::Started => {}
            Report::Released => member.released = true,
            Report::TakenOver => member.taken_over = true,
            Report::Draining => {
                member.life = Life::Draining;
                let for_successor = member.taken_over;
                out.push(Output::Arm(Timer::Kill(child)));
                if self.last == Last::Lives(child) && !for_successor {
                    out.push(Output::Progress(Progress::Draining(child)));
                }
                self.conclude(out);
            }
            Report::Reload => self.reload(out),
        }
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
        self.last = Last::Lives(child);
        self.crash = None;
        out.extend([Output::Disarm(Timer::Cancel), Output::Progress(Progress::Serving(child))]);
        if self.members.iter().any(|one| one.life == Life::Serving && one.child != child) {
            out.push(Output::Arm(Timer::Overdue));
        }
        self.send_to_addressee(out);
        self.start_again(out);
    }

    pub(super) fn ended(&mut self, child: Child, end: End, out: &mut Vec<Output>) {
        let Some(at) = self.members.iter().position(|one| one.child == child) else { return };
        let member = self.members.remove(at);
        out.push(Output::Disarm(Timer::Kill(child)));
        match member.life {
            Life::Starting => self.never_started(&member, end, out),
            Life::Serving | Life::Draining => {
                if self.last == Last::Lives(child) {
                    self.current_ended(&member, end, out);
                }
            }
        }
        self.conclude(out);
    }

    fn never_started(&mut self, member: &Member, end: End, out: &mut Vec<Output>) {
        let child = member.child;
        if matches!(self.last, Last::Nobody(_)) {
            self.last = Last::Nobody(Some((child, end)));
        }
        if member.cancelled {
            out.push(Output::Disarm(Timer::Cancel));
        } else if self.reloaded {
            out.push(Output::Progress(Progress::ReloadFailed(Failure::Ended(child, end))));
        }
        self.start_again(out);
    }

    fn current_ended(&mut self, member: &Member, end: End, out: &mut Vec<Output>) {
        match self.newest(Life::Serving) {
            // It got as far as `started`, and its predecessor has not left yet.
            Some(older) => {
                self.last = Last::Lives(older);
                self.crash = Some((member.child, end));
                let failed = Failure::Ended(member.child, end);
                out.push(Output::Progress(Progress::ReloadFailed(failed)));
                self.send_to_addressee(out);
            }
            None => {
                let drained = member.life == Life::Draining;
                self.last = Last::Ended { child: member.child, end, drained };
                if self.newest(Life::Starting).is_some() {
                    out.push(Output::Progress(Progress::CurrentEnded(member.child, end)));
                }
            }
        }
    }

    // ---- a reload ----

    pub(super) fn reload(&mut self, out: &mut Vec<Output>) {
        if !self.in_place {
            return;
        }
        if self.intent.is_some() {
            out.push(Output::Progress(Progress::ReloadRefused(Refusal::Leaving)));
        } else if self.spawning {
            // The program is about to be executed as it is now: that is the wish.
        } else if let Some(candidate) = self.newest(Life::Starting) {
            // As a TERM ends a starting generation elsewhere, so that one that hangs blocks nobody.
            self.again = true;
            self.cancel(candidate, out);
        } else {
            self.start(out);
        }
    }

    fn start(&mut self, out: &mut Vec<Output>) {
        // Those before the current one drain, or are about to. Where nobody serves, more of them are
        // the lesser evil.
        let is_old = |one: &&Member| self.last != Last::Lives(one.child);
        let draining = self.members.iter().filter(is_old).count();
        let serves = self.newest(Life::Serving).is_some();
        if serves && self.max_draining.is_some_and(|most| draining >= most) {
            return out.push(Output::Progress(Progress::ReloadRefused(Refusal::Draining)));
        }
        (self.spawning, self.reloaded) = (true, true);
        out.extend([Output::Progress(Progress::Reloading), Output::Start]);
    }

    /// The program has been executed, as this child; or it could not be.
    pub(super) fn spawned(&mut self, child: Option<Child>, out: &mut Vec<Output>) {
        self.spawning = false;
        match child {
            Some(child) => self.members.push(Member::new(child)),
            None => {
                out.push(Output::Progress(Progress::ReloadFailed(Failure::NotStarted)));
                self.conclude(out);
            }
        }
    }

    fn start_again(&mut self, out: &mut Vec<Output>) {
        if std::mem::replace(&mut self.again, false) {
            self.start(out);
        }
    }

    fn cancel(&mut self, candidate: Child, out: &mut Vec<Output>) {
        if let Some(member) = self.member(candidate) {
            if !std::mem::replace(&mut member.cancelled, true) {
                out.extend([Output::Cancel(candidate), Output::Arm(Timer::Cancel)]);
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
        let addressee = self.addressee();
        let starting = self.newest(Life::Starting).filter(|one| Some(*one) != addressee);
        if let Some(candidate) = starting {
            self.cancel(candidate, out);
        }
        let Some(member) = addressee.and_then(|child| self.member(child)) else { return };
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

    /// Each side writes before it signals. A child that becomes current after the TERM is told as well.
    fn send_to_addressee(&mut self, out: &mut Vec<Output>) {
        let (Some(child), Some(intent)) = (self.addressee(), self.intent) else { return };
        let Some(member) = self.member(child).filter(|one| one.ready && !one.sent) else { return };
        member.sent = true;
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

    pub(super) fn forward(&self, signal: i32, out: &mut Vec<Output>) {
        out.extend(self.addressee().map(|child| Output::Forward(child, signal)));
    }

    // ---- limits ----

    pub(super) fn handoff_expired(&mut self, out: &mut Vec<Output>) {
        let addressee = self.addressee();
        match addressee.and_then(|child| self.member(child)) {
            Some(member) if !member.ready => {
                out.push(Output::Kill(member.child, Timer::Handoff));
            }
            Some(_) | None => self.expired = !self.stopping(),
        }
    }

    pub(super) fn cancel_expired(&mut self, out: &mut Vec<Output>) {
        let is_due = |one: &&Member| one.cancelled && one.life == Life::Starting;
        let due = self.members.iter().filter(is_due);
        out.extend(due.map(|one| Output::Kill(one.child, Timer::Cancel)));
    }

    /// Its successor could not send it TERM: they are of different users. Without a launcher it would
    /// find out by itself.
    pub(super) fn overdue(&self, out: &mut Vec<Output>) {
        let Last::Lives(current) = self.last else { return };
        let is_overdue = |one: &&Member| one.life == Life::Serving && one.child != current;
        let overdue = self.members.iter().filter(is_overdue);
        out.extend(overdue.map(|one| Output::TellTakenOver(one.child)));
    }

    pub(super) fn kill_expired(&self, child: Child, out: &mut Vec<Output>) {
        if self.members.iter().any(|one| one.child == child) {
            out.push(Output::Kill(child, Timer::Kill(child)));
        }
    }

    // ---- our own end ----

    /// After a stop, and if everything ends with us, the launcher also waits for the children that drain.
    fn conclude(&mut self, out: &mut Vec<Output>) {
        let waits = |one: &Member| one.life != Life::Draining;
        if self.spawning || self.members.iter().any(waits) {
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
        out.push(Output::Mirror(child, end));
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
