//! The takeover, step by step: what `started` does, in which order, and what ends it early.
//!
//! [`TakeOver`] says what to do next, and is told the result. The driver and the model run the same
//! loop over it. If the process dies between any two steps, a generation that serves is left, and can
//! be found.

use super::verdict::{Asker, Facts, Purpose, Verdict, Why, verdict};

/// A step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Act {
    /// Wait for the claim: it was given up, or never taken. Answer: [`Done::Claimed`].
    Claim,
    /// With the files of the service in hand: look at the launcher, the record, and each generation that
    /// it lists. All that may fail because the system is out of descriptors or memory is done here, before
    /// the first step that others see. Answer: [`Done::Looked`], or [`Done::ToldToEnd`] if we are not to start any
    /// more.
    Look,
    /// Our PID file is put in place.
    Install,
    /// If the control socket of this older process (by its place in [`Done::Looked`]) is in place, it gets a
    /// second name. If we die before that process has been told to end, the next start finds it there.
    KeepName(usize),
    /// Our control socket is put in place.
    Listen,
    /// The record lists us. Of the other generations, these lines stay (by their place in
    /// [`Done::Looked`]), and say that they drain. If we are killed, no start waits for sockets that
    /// they no longer hold.
    Enter(Vec<usize>),
    /// The sockets that we have not asked for are closed. The older generations answer what still arrives
    /// there; they learn of us in the steps that follow.
    Close,
    /// The state is Serving. Answer: [`Done::ToldToEnd`] if we were told to end meanwhile.
    Serve,
    /// What arrives for a group of sockets goes to those of its members that we have asked for.
    Steer,
    /// We are on probation: this older generation (by its place in [`Done::Looked`]) is asked to stand by.
    /// Answer: [`Done::StandsBy`].
    StandBy(usize),
    /// It does not stand by, so nobody would serve in our place: we are proven at once, and the record says so.
    Prove,
    /// New flows of steered groups of UDP sockets go to us. If we die before the next step, the generation that
    /// stands by takes them back at once; without one, an older generation does at its next check.
    SteerFlows,
    /// TERM to this older generation (by its place in [`Done::Looked`]), if the verdict says so.
    Stop(usize, Verdict),
    /// The second name is not needed any more.
    DropName,
    /// The claim is given up.
    GiveUp,
}

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Done {
    /// The claim is ours, and with it this number.
    Claimed(u64),
    /// To [`Act::Look`]: our launcher is gone, so the thread that takes signals ends us as soon as it runs.
    /// The claim ends with the process: given up before, a successor would find our addresses in use.
    LauncherGone,
    /// The generations of the record, in its order.
    Looked(Vec<Facts>),
    StandsBy(bool),
    /// The process is about to end: nothing more is done.
    ToldToEnd,
    /// Any other step.
    Yes,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// This generation serves.
    Started,
    /// It was told to end: `started` does not return.
    NeverStarted,
    /// The PID file belongs to the service of the generation at this place. The claim is given up.
    Refused(usize, Why),
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Next {
    Act(Act),
    End(End),
}

/// So many older generations that have not ended are worth a warning: one that is about to be told to
/// end, and some that have been told.
const MANY: usize = 4;

/// Older generations that have not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pile {
    pub(crate) count: usize,
    /// When the oldest of them started (`proc_pid_stat(5)`, field 22).
    pub(crate) oldest: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TakeOver {
    next: Next,
    /// How it ends once the claim is given up.
    end: End,
    asker: Asker,
    others: Vec<Facts>,
    /// This generation has to prove itself.
    probation: bool,
    /// A socket of the predecessor gets nothing any more as soon as we serve.
    replaces: bool,
    /// The generation that stands by.
    standby: Option<usize>,
}

impl TakeOver {
    /// `asker.number`: of the claim, if it is held.
    pub(crate) fn new(asker: Asker) -> TakeOver {
        let first = if asker.number.is_some() { Act::Look } else { Act::Claim };
        TakeOver {
            next: Next::Act(first),
            end: End::Started,
            asker,
            others: Vec::new(),
            probation: false,
            replaces: false,
            standby: None,
        }
    }

    /// This generation has to prove itself, if another one can stand by meanwhile.
    pub(crate) fn on_probation(self, probation: bool) -> TakeOver {
        TakeOver { probation, ..self }
    }

    /// `replaces`: a socket of ours is at an address that overlaps one of the predecessor, and takes what arrives
    /// there. That cannot be undone, so nobody could serve there again.
    pub(crate) fn replacing(self, replaces: bool) -> TakeOver {
        TakeOver { replaces, ..self }
    }

    /// The generation that would stand by, if it could serve again.
    pub(crate) fn replaced(&self) -> Option<usize> {
        self.proven().filter(|_| self.probation && self.replaces)
    }

    /// The generation that stands by, or is to: it goes on serving as its line in the record says.
    pub(crate) fn standby(&self) -> Option<usize> {
        self.standby
    }

    pub(crate) fn next(&self) -> Next {
        self.next.clone()
    }

    /// The result of the step that [`next`](TakeOver::next) named. A step that failed is not told: then
    /// the claim is kept, and a further call of `started` begins anew.
    pub(crate) fn done(&mut self, done: Done) {
        let Next::Act(act) = self.next.clone() else { return };
        self.next = Next::Act(match (act, done) {
            (Act::GiveUp, _) => return self.next = Next::End(self.end),
            (_, Done::ToldToEnd) => self.give_up(End::NeverStarted),
            (Act::Claim, Done::Claimed(number)) => {
                self.asker.number = Some(number);
                Act::Look
            }
            (Act::Look, Done::LauncherGone) => return self.next = Next::End(End::NeverStarted),
            (Act::Look, Done::Looked(others)) => {
                self.others = others;
                self.standby = self.proven().filter(|_| self.probation && !self.replaces);
                match self.refusal() {
                    Some((place, why)) => self.give_up(End::Refused(place, why)),
                    None => Act::Install,
                }
            }
            (Act::Claim | Act::Look, _) => return, // no answer to what was asked
            (Act::Install, _) => self.named().map_or(Act::Listen, Act::KeepName),
            (Act::KeepName(_), _) => Act::Listen,
            (Act::Listen, _) => Act::Enter(self.kept()),
            (Act::Enter(_), _) => Act::Close,
            (Act::Close, _) => Act::Serve,
            (Act::Serve, _) => Act::Steer,
            (Act::Steer, _) => self.standby.map_or(Act::SteerFlows, Act::StandBy),
            (Act::StandBy(_), Done::StandsBy(true)) => Act::SteerFlows,
            (Act::StandBy(_), _) => {
                self.standby = None;
                Act::Prove
            }
            (Act::Prove, _) => Act::SteerFlows,
            (Act::SteerFlows, _) => self.stop_from(0),
            (Act::Stop(place, _), _) => self.stop_from(place + 1),
            (Act::DropName, _) => Act::GiveUp,
        });
    }

    fn give_up(&mut self, end: End) -> Act {
        self.end = end;
        Act::GiveUp
    }

    /// The generations that this one takes over from, by their places.
    pub(crate) fn older(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.others.len()).filter(|place| self.is_older(*place))
    }

    /// If many of them have not ended: how many, and the start of the oldest.
    pub(crate) fn pile(&self) -> Option<Pile> {
        let count = self.older().count();
        let oldest = self.older().map(|place| self.others[place].start).min()?;
        (count >= MANY).then_some(Pile { count, oldest })
    }

    fn is_older(&self, place: usize) -> bool {
        let Facts { number, start, .. } = self.others[place];
        self.asker.is_newer_than(number, start) && self.others[place].stays_in_record()
    }

    fn verdict(&self, place: usize) -> Verdict {
        verdict(&self.others[place], Purpose::TakeOver, self.asker)
    }

    fn refusal(&self) -> Option<(usize, Why)> {
        (0..self.others.len()).find_map(|place| match self.verdict(place) {
            Verdict::Refuse(why) => Some((place, why)),
            Verdict::Touch { .. } | Verdict::TouchByNumber | Verdict::Leave { .. } => None,
        })
    }

    fn kept(&self) -> Vec<usize> {
        let own = self.asker.number;
        let stays = |place: &usize| {
            let one = &self.others[*place];
            Some(one.number) != own && one.stays_in_record()
        };
        (0..self.others.len()).filter(stays).collect()
    }

    fn stop_from(&self, place: usize) -> Act {
        let ends = |place: &usize| self.is_older(*place) && self.standby != Some(*place);
        match (place..self.others.len()).find(ends) {
            Some(place) => Act::Stop(place, self.verdict(place)),
            // It is found by its second name until the probation is over.
            None if self.standby.is_some() => Act::GiveUp,
            None => Act::DropName,
        }
    }

    /// The process that has to be found if we die.
    fn named(&self) -> Option<usize> {
        self.standby.or_else(|| self.keeper()).or_else(|| self.predecessor())
    }

    /// The newest older generation that serves and is proven.
    fn proven(&self) -> Option<usize> {
        let can = |place: &usize| {
            self.is_older(*place)
                && self.others[*place].is_proven()
                && matches!(self.verdict(*place), Verdict::Touch { .. })
        };
        (0..self.others.len()).filter(can).max_by_key(|place| self.others[*place].number)
    }

    /// The newest older generation that serves, or may: its line says that it drains if a successor has died before
    /// it told it so. It puts a lost control socket back by itself, but only looks after it each second: a start that
    /// does not find it before fails, since the addresses are in use.
    fn predecessor(&self) -> Option<usize> {
        let lives = |place: &usize| self.is_older(*place) && self.others[*place].lives();
        let rank = |place: &usize| (self.others[*place].serves, self.others[*place].number);
        (0..self.others.len()).filter(lives).max_by_key(rank)
    }

    /// The keeper that holds the sockets, which may be the only one. It looks after its control socket as well.
    fn keeper(&self) -> Option<usize> {
        let keeps = |place: &usize| self.others[*place].keeps && self.others[*place].lives();
        (0..self.others.len()).find(|place| self.is_older(*place) && keeps(place))
    }
}

#[cfg(test)]
mod tests;
