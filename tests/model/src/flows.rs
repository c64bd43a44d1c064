//! Steered groups of UDP sockets (P14): the kernel's order of the sockets and its renumbering, generations that
//! start, serve, stand by, fail, drain and die, and the program that they write. Each of them is made of the
//! crate's own code: the takeover, the daemon's machine, the layout of a group, the program, and who may write it.
//!
//! A model of its own: launchers and supervisors add nothing to it, and each would multiply its states.
//!
//! At each moment, a flow of a generation that lives reaches the member that it began with, whatever died before.
//! Whenever all have seen what has happened, a new flow reaches the generation that serves.

use crate::proto::daemon::{
    CommitTried, Daemon, Event, Input, NewFlows, Newer, Output, RollbackCause,
};
use crate::proto::daemon::{Sender, Sight, TakenBack, Timer, Word};
use crate::proto::flows::bpf;
use crate::proto::flows::layout::Layout;
use crate::proto::flows::program::program;
use crate::proto::flows::quic::{Cipher, Mark, RANDOM};
use crate::proto::flows::{Secret, Steer, is_newest};
use crate::proto::generation::check::{Content, Own, Seen};
use crate::proto::generation::lines::{self, Obstacle, Step as Line};
use crate::proto::generation::record::{Identity, LineState};
use crate::proto::generation::takeover::{Act, Done, Next, TakeOver};
use crate::proto::generation::verdict::{Asker, Facts, Unproven};
use crate::proto::{Intent, Kind, State};
use crate::walks::print;
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

const SECRET: Secret = Secret([7; Secret::LENGTH]);
/// IPv4 and UDP, from one port.
const IP: [u8; 28] = {
    let mut ip = [0; 28];
    ip[0] = 0x45;
    ip[21] = 1;
    ip
};

/// Within which bounds.
#[derive(Clone, Copy, Debug)]
struct Groups {
    /// So many generations may start.
    starts: u8,
    /// So many processes may be killed.
    kills: u8,
    /// So often a generation on probation hangs for a while, or does not hear an answer in time.
    silences: u8,
    probation: bool,
    broken: Option<Rule>,
}

/// A rule that is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// A generation that serves closes the sockets of the older ones.
    EverybodyHoldsAll,
    /// The sockets of a generation that has ended are closed.
    NothingLeaves,
    /// Whoever sees the end of an older generation writes.
    OneWriter,
    /// The one that stands by does not get the sockets of the new one.
    StandbyHoldsTheNew,
    /// The one that serves again writes nothing, neither at once nor under the claim.
    RollbackWrites,
    /// One that has told another one to serve in its place may write.
    TheFailedOneIsSilent,
    /// One that is heard again does not get the new flows.
    HeardAgain,
    /// A commit writes nothing.
    CommitWrites,
    /// The check does not care about a generation that has gone.
    CheckWrites,
}

/// The kernel's group: a socket leaves with its last holder, and the last one of the order moves to its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Kernel {
    order: Vec<u8>,
    holders: BTreeMap<u8, BTreeSet<u64>>,
    bound: u8,
}

impl Kernel {
    fn bind(&mut self, who: u64) -> u8 {
        self.bound += 1;
        self.order.push(self.bound);
        self.holders.insert(self.bound, BTreeSet::from([who]));
        self.bound
    }

    fn hold(&mut self, who: u64, sockets: &[u8]) {
        for socket in sockets {
            self.holders.get_mut(socket).expect("it is open").insert(who);
        }
    }

    fn close(&mut self, who: u64, socket: u8) {
        let Some(holders) = self.holders.get_mut(&socket) else { return };
        if holders.remove(&who) && holders.is_empty() {
            self.holders.remove(&socket);
            let at = self.order.iter().position(|one| *one == socket).expect("it is there");
            self.order.swap_remove(at);
        }
    }

    /// `from_the_end`: in which order the process closes its descriptors.
    fn end(&mut self, who: u64, from_the_end: bool) {
        let mut sockets: Vec<u8> = self.holders.keys().copied().collect();
        if from_the_end {
            sockets.reverse();
        }
        sockets.into_iter().for_each(|socket| self.close(who, socket));
    }
}

/// A generation that lives, and what it knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    machine: Daemon,
    takeover: Option<TakeOver>,
    layout: Layout,
    sockets: Vec<u8>,
    /// The places of its own members. Until it has bound them all, the last ones are still empty.
    places: Vec<usize>,
    /// New flows have reached it.
    has_flows: bool,
    /// Those whose end it waits for.
    watched: BTreeSet<u64>,
    unsettled: bool,
    partner: Option<u64>,
    words: Vec<Word>,
    /// It could not take its files back, and tries again.
    takes_back: bool,
    /// The same, to commit.
    commits: bool,
    /// The last claim at its last check.
    checked: u64,
}

impl Process {
    /// Its own sockets, by member.
    fn own(&self) -> Vec<u8> {
        self.places.iter().map(|at| self.sockets[*at]).collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    kernel: Kernel,
    alive: BTreeMap<u64, Process>,
    lines: BTreeMap<u64, LineState>,
    /// By whose layout the program was written, and to whom new flows go.
    program: Option<(Layout, u64)>,
    last: u64,
    starts: u8,
    kills: u8,
    silences: u8,
    fault: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    /// So many members are asked for.
    Start(usize),
    /// It binds one of its members, or takes the next step of its takeover.
    Step(u64),
    Kill(u64, bool),
    End(u64, bool),
    Settle(u64),
    Check(u64),
    Hear(u64),
    PartnerEnded(u64),
    /// What could not be done while another one held the claim.
    Again(u64),
    Commit(u64),
    RollBack(u64),
    /// The one that stands by hears nothing.
    Silence(u64),
    Well(u64),
    /// The one that has failed hears no answer: the other one hangs, or is not there for it any more.
    NotResumed(u64),
    Unheard(u64),
}

impl World {
    fn starting(&self) -> Option<u64> {
        self.alive.iter().find(|(_, one)| one.takeover.is_some()).map(|(number, _)| *number)
    }

    fn at(&mut self, number: u64) -> &mut Process {
        self.alive.get_mut(&number).expect("it lives")
    }

    fn facts(&self, of: u64) -> Vec<Facts> {
        let others = self.lines.iter().filter(|(number, _)| **number != of);
        others
            .map(|(number, line)| Facts {
                number: *number,
                start: *number,
                proof: if self.alive.contains_key(number) { Ok(()) } else { Err(Unproven::Gone) },
                foreign: false,
                beyond: None,
                holds_pid_file: false,
                serves: line.serves(),
                unproven: line.is_unproven(),
                keeps: false,
            })
            .collect()
    }

    fn living(&self) -> BTreeSet<u64> {
        self.alive.keys().copied().collect()
    }

    fn line(&mut self, step: Line) {
        for (number, line) in &mut self.lines {
            *line = step.state(*number, Some(*line)).expect("a state");
        }
    }

    /// By the layout that this process knows.
    fn write(&mut self, who: u64, newest: u64) {
        let layout = self.at(who).layout.clone();
        if layout.places_of(newest).is_empty() {
            return;
        }
        self.program = Some((layout, newest));
        if let Some(newest) = self.alive.get_mut(&newest) {
            newest.has_flows = true;
        }
    }

    fn take_over(&mut self, who: u64) {
        let lives = self.living();
        self.at(who).layout.free(|one| lives.contains(&one));
        self.write(who, who);
    }

    // ---- what a process does ----

    /// As `flows::obtain` does: from the newest one that serves, else from the newest that drains.
    fn start(&mut self, members: usize, bounds: &Groups) {
        self.last += 1;
        self.starts -= 1;
        let own = self.last;
        let serves = |number: &u64| self.lines.get(number).is_some_and(|line| line.serves());
        let giver = self.alive.keys().rfind(|number| serves(number));
        let giver = giver.or(self.alive.keys().next_back()).map(|giver| &self.alive[giver]);
        let (mut layout, mut sockets) =
            giver.map(|one| (one.layout.clone(), one.sockets.clone())).unwrap_or_default();
        self.kernel.hold(own, &sockets);
        layout.free(|one| self.alive.contains_key(&one));
        let admitted = layout.admit(own, members, Steer::Quic, &[], |_| true).expect("a slot");
        if self.kernel.order.is_empty() {
            self.program = Some((layout.clone(), own));
            sockets.push(self.kernel.bind(own));
        }
        for process in self.alive.values_mut() {
            // A supervisor restarts it: it is detached.
            for input in
                [Input::Told(Intent::Restart), Input::RequestHooksDone, Input::LauncherGone]
            {
                _ = process.machine.on(input);
            }
        }
        let takeover = TakeOver::new(Asker { number: Some(own), start: own });
        let process = Process {
            machine: Daemon::new(Kind::DAEMONTOOLS, false),
            takeover: Some(takeover.on_probation(bounds.probation)),
            layout,
            sockets,
            places: admitted.places,
            has_flows: false,
            watched: BTreeSet::new(),
            unsettled: false,
            partner: None,
            words: Vec::new(),
            takes_back: false,
            commits: false,
            checked: own,
        };
        self.alive.insert(own, process);
    }

    fn take_step(&mut self, who: u64, bounds: &Groups) {
        let process = &self.alive[&who];
        if process.sockets.len() < process.layout.places().len() {
            let socket = self.kernel.bind(who);
            self.at(who).sockets.push(socket);
            return;
        }
        loop {
            let takeover = self.at(who).takeover.clone().expect("it starts");
            let act = match takeover.next() {
                Next::Act(act) => act,
                Next::End(_) => {
                    let older: BTreeSet<u64> =
                        self.alive.range(..who).map(|(one, _)| *one).collect();
                    let closes = bounds.broken == Some(Rule::EverybodyHoldsAll);
                    let process = self.at(who);
                    (process.takeover, process.watched) = (None, older);
                    if closes {
                        let own = process.own();
                        let all = process.sockets.clone();
                        all.into_iter().filter(|one| !own.contains(one)).for_each(|one| {
                            self.kernel.close(who, one);
                        });
                    }
                    return;
                }
            };
            let is_seen = matches!(
                act,
                Act::Enter(_) | Act::StandBy(_) | Act::Prove | Act::SteerFlows | Act::Stop(..)
            );
            let others: Vec<u64> = self.lines.keys().copied().filter(|one| *one != who).collect();
            let done = match act {
                Act::Look => Done::Looked(self.facts(who)),
                Act::Enter(_) => {
                    let standby = takeover.standby().map(|place| others[place]);
                    self.lines.insert(who, LineState::Serving);
                    self.line(Line::Enter { own: who, standby });
                    Done::Yes
                }
                Act::Serve => {
                    let last = self.last;
                    _ = self.at(who).machine.started(last);
                    Done::Yes
                }
                Act::StandBy(place) => {
                    Done::StandsBy(self.ask_to_stand_by(who, others[place], bounds))
                }
                Act::Prove => {
                    self.line(Line::Prove { own: who });
                    Done::Yes
                }
                Act::SteerFlows => {
                    self.take_over(who);
                    Done::Yes
                }
                Act::Stop(place, _) => {
                    if self.alive.contains_key(&others[place]) {
                        self.feed(others[place], Input::Term(Sender::Successor), bounds);
                    }
                    Done::Yes
                }
                _ => Done::Yes,
            };
            self.at(who).takeover.as_mut().expect("it starts").done(done);
            if is_seen {
                return;
            }
        }
    }

    fn ask_to_stand_by(&mut self, who: u64, older: u64, bounds: &Groups) -> bool {
        if !self.alive.contains_key(&older) {
            return false;
        }
        if bounds.broken != Some(Rule::StandbyHoldsTheNew) {
            let (layout, sockets) = (self.at(who).layout.clone(), self.at(who).sockets.clone());
            let holder = self.at(older);
            let same = |at: usize| holder.sockets[at] == sockets[at];
            let Some(layout) = holder.layout.grown(&layout, same) else {
                self.fault = Some("the one that stands by knows another order");
                return false;
            };
            (holder.layout, holder.sockets) = (layout, sockets.clone());
            self.kernel.hold(older, &sockets);
        }
        self.meets(older, Some(who));
        self.feed(older, Input::Probation(Event::AskedToStandBy(who)), bounds);
        let stands = self.at(older).machine.state() == State::Standby;
        if stands {
            self.meets(who, Some(older));
            self.feed(who, Input::Probation(Event::OnProbation), bounds);
        }
        stands
    }

    /// What was said on the lifeline before is not heard any more.
    fn meets(&mut self, who: u64, partner: Option<u64>) {
        let process = self.at(who);
        process.partner = partner;
        process.words.clear();
    }

    fn feed(&mut self, who: u64, input: Input, bounds: &Groups) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let by_check = matches!(input, Input::Checked(_));
            let by_commit = matches!(input, Input::Probation(Event::CommitTried(_)));
            for output in self.at(who).machine.on(input) {
                match output {
                    Output::SteerFlows(to) => {
                        let broken = match to {
                            NewFlows::Of(_) => Rule::HeardAgain,
                            NewFlows::Ours if by_check => Rule::CheckWrites,
                            NewFlows::Ours if by_commit => Rule::CommitWrites,
                            NewFlows::Ours => Rule::RollbackWrites,
                        };
                        let newest = match to {
                            NewFlows::Ours => who,
                            NewFlows::Of(number) => number,
                        };
                        if bounds.broken != Some(broken) {
                            self.write(who, newest);
                        }
                    }
                    Output::Say(word) => {
                        let partner = self.at(who).partner;
                        let linked = |one: &&mut Process| one.partner == Some(who);
                        if let Some(partner) =
                            partner.and_then(|one| self.alive.get_mut(&one)).filter(linked)
                        {
                            partner.words.push(word);
                        }
                    }
                    Output::HangUp | Output::StandBy(false) => self.meets(who, None),
                    Output::RunRequestHooks => inputs.push_back(Input::RequestHooksDone),
                    Output::TryCommit => {
                        let tried = self.try_commit(who);
                        inputs.push_back(Input::Probation(Event::CommitTried(tried)));
                    }
                    Output::StopOlder => {
                        let older: Vec<u64> =
                            self.alive.range(..who).map(|(one, _)| *one).collect();
                        for one in older {
                            self.feed(one, Input::Term(Sender::Successor), bounds);
                        }
                    }
                    Output::LookForNewer => {
                        let facts = self.facts(who);
                        let newer = lines::newest_newer(who, facts.iter()).map(|one| one.number);
                        self.meets(who, newer);
                        let newer = newer.map_or(Newer::Nobody, |_| Newer::Watched);
                        inputs.push_back(Input::Probation(Event::Newer(newer)));
                    }
                    Output::TakeBack(cause) => {
                        let taken = match self.starting() {
                            Some(_) => TakenBack::ClaimHeld,
                            None => {
                                self.take_back(who, cause, bounds);
                                TakenBack::Done
                            }
                        };
                        inputs.push_back(Input::Probation(Event::TakenBack(taken)));
                    }
                    Output::Arm(Timer::CommitSoon | Timer::CommitLater) => {
                        self.at(who).commits = true
                    }
                    Output::Arm(Timer::TakeBackSoon) => self.at(who).takes_back = true,
                    _ => {}
                }
            }
        }
    }

    fn try_commit(&mut self, who: u64) -> CommitTried {
        if self.starting().is_some() {
            return CommitTried::ClaimHeld;
        }
        match lines::obstacle(who, self.lines.get(&who).copied(), self.facts(who).iter()) {
            Some(Obstacle::Newer) => return CommitTried::Replaced,
            Some(Obstacle::RolledBack) => return CommitTried::RolledBack,
            None => {}
        }
        self.line(Line::Prove { own: who });
        CommitTried::Written
    }

    fn take_back(&mut self, who: u64, cause: RollbackCause, bounds: &Groups) {
        if let Some(newer) = lines::successor(who, self.facts(who).iter()) {
            return self.write(who, newer);
        }
        self.line(Line::TakeBack { own: who, cause });
        if bounds.broken != Some(Rule::RollbackWrites) {
            self.take_over(who);
        }
        let newer: Vec<u64> = self.alive.range(who + 1..).map(|(one, _)| *one).collect();
        self.at(who).watched.extend(newer);
    }

    /// As `flows::settle` does. Is there something that can be done now?
    fn settles(&self, who: u64) -> bool {
        let process = &self.alive[&who];
        let ended = process.watched.iter().any(|one| !self.alive.contains_key(one));
        ended || process.unsettled && self.starting().is_none() && self.may_write(who)
    }

    fn may_write(&self, who: u64) -> bool {
        is_newest(who, self.facts(who).iter()) && self.alive[&who].machine.steers()
    }

    fn settle(&mut self, who: u64, bounds: &Groups) {
        let lives = self.living();
        let process = self.at(who);
        let ended: BTreeSet<u64> = process.watched.difference(&lives).copied().collect();
        process.watched.retain(|one| lives.contains(one));
        let freed = process.layout.free(|one| !ended.contains(&one));
        process.unsettled |= !freed.is_empty();
        if bounds.broken == Some(Rule::NothingLeaves) {
            let free = process.layout.places().iter().zip(&process.sockets);
            let free: Vec<u8> =
                free.filter(|(owner, _)| owner.is_none()).map(|(_, socket)| *socket).collect();
            self.alive.keys().copied().collect::<Vec<u64>>().into_iter().for_each(|one| {
                free.iter().for_each(|socket| self.kernel.close(one, *socket));
            });
        }
        let is_free = self.starting().is_none();
        let may = match bounds.broken {
            Some(Rule::OneWriter) => true,
            Some(Rule::TheFailedOneIsSilent) => is_free && is_newest(who, self.facts(who).iter()),
            _ => is_free && self.at(who).machine.state() != State::Draining && self.may_write(who),
        };
        if self.at(who).unsettled && may {
            self.at(who).unsettled = false;
            self.write(who, who);
        }
    }

    fn check(&mut self, who: u64, bounds: &Groups) {
        let (last, facts) = (self.last, self.facts(who));
        self.at(who).checked = last;
        let identity = |number: u64| Identity { pid: number as i32 + 100, start: number };
        let own = Own { number: who, identity: identity(who) };
        let content = Some(Content { pid: Some(own.identity.pid), locked: true });
        let of = |one: Facts| (identity(one.number), one);
        let mut lines: Vec<_> = facts.into_iter().map(of).collect();
        if let Some(line) = self.lines.get(&who) {
            let (serves, unproven) = (line.serves(), line.is_unproven());
            let facts = Facts { number: who, start: who, proof: Ok(()), serves, unproven, ..OURS };
            lines.push((own.identity, facts));
        }
        let (named_lives, socket_lost) = (true, false);
        let seen = Seen { own, last, lines, content, named_lives, socket_lost };
        self.feed(who, Input::Checked(Sight::Seen(seen)), bounds);
    }

    // ---- the promise ----

    fn gets(&self, datagram: &[u8]) -> Option<u8> {
        let (layout, newest) = self.program.as_ref()?;
        let program = program(layout, *newest, &SECRET).expect("short enough");
        let place = bpf::run(&program, &IP, datagram) as usize;
        self.kernel.order.get(place).copied()
    }

    fn faulty(&self, is_at_rest: bool) -> Option<&'static str> {
        if self.fault.is_some() || self.program.is_none() {
            return self.fault;
        }
        for (number, process) in &self.alive {
            let (_, slot) = process.layout.mark_of(*number).expect("its own");
            let own = if process.has_flows { process.own() } else { Vec::new() };
            for (member, socket) in own.into_iter().enumerate() {
                let mark = Mark { slot, member: member as u16 };
                let id = Cipher::new(&SECRET).make(mark, [9; RANDOM]);
                if self.gets(&[&[0x40], &id[..], b"payload"].concat()) != Some(socket) {
                    return Some("a flow does not reach its process");
                }
            }
            // What each generation knows is what there is, from the first place on.
            if !self.kernel.order.starts_with(&process.sockets) {
                return Some("a generation does not know the order");
            }
        }
        // If a third generation dies while it starts, the first two may serve until the second one commits.
        let serves = |one: &&Process| one.takeover.is_none() && one.machine.state().serves();
        let serving: Vec<&Process> = self.alive.values().filter(serves).collect();
        if !is_at_rest || serving.is_empty() {
            return None;
        }
        let new = [&[0xc0, 0, 0, 0, 1, 8][..], b"client's", b"payload"].concat();
        let socket = self.gets(&new);
        let got =
            serving.iter().any(|one| socket.is_some_and(|socket| one.own().contains(&socket)));
        (!got).then_some("a new flow does not reach a generation that serves")
    }

    /// What happens by itself.
    fn own_actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        let is_free = self.starting().is_none();
        for (number, process) in &self.alive {
            let number = *number;
            if process.takeover.is_some() {
                actions.push(Action::Step(number));
                continue;
            }
            if self.settles(number) {
                actions.push(Action::Settle(number));
            }
            let checks = is_free && process.machine.is_alone() && process.checked != self.last;
            if checks {
                actions.push(Action::Check(number));
            }
            if !process.words.is_empty() {
                actions.push(Action::Hear(number));
            }
            let gone = process.partner.is_some_and(|one| !self.alive.contains_key(&one));
            if gone && process.words.is_empty() {
                actions.push(Action::PartnerEnded(number));
            }
            if is_free && (process.takes_back || process.commits) {
                actions.push(Action::Again(number));
            }
            // The one that stands by does so for another one now: nobody answers, and the limit passes.
            let partner = process.partner.and_then(|one| self.alive.get(&one));
            let unheard = partner.is_some_and(|one| one.partner != Some(number));
            if unheard && process.machine.is_on_probation() && process.words.is_empty() {
                actions.push(Action::Unheard(number));
            }
        }
        actions
    }
}

const OURS: Facts = Facts {
    number: 0,
    start: 0,
    proof: Ok(()),
    foreign: false,
    beyond: None,
    holds_pid_file: true,
    serves: true,
    unproven: false,
    keeps: false,
};

impl Groups {
    fn after(&self, world: &World, action: Action) -> World {
        let mut next = world.clone();
        match action {
            Action::Start(members) => next.start(members, self),
            Action::Step(who) => next.take_step(who, self),
            Action::Kill(who, order) => {
                next.kills -= 1;
                next.alive.remove(&who);
                next.kernel.end(who, order);
            }
            Action::End(who, order) => {
                next.alive.remove(&who);
                next.kernel.end(who, order);
            }
            Action::Settle(who) => next.settle(who, self),
            Action::Check(who) => next.check(who, self),
            Action::Hear(who) => {
                let word = next.at(who).words.remove(0);
                next.feed(who, Input::Probation(Event::Heard(word)), self);
            }
            Action::PartnerEnded(who) => {
                next.at(who).partner = None;
                next.feed(who, Input::Probation(Event::PartnerEnded), self);
            }
            Action::Again(who) => {
                if std::mem::take(&mut next.at(who).commits) {
                    next.feed(who, Input::Timer(Timer::CommitSoon), self);
                }
                if std::mem::take(&mut next.at(who).takes_back) {
                    next.feed(who, Input::Timer(Timer::TakeBackSoon), self);
                }
            }
            Action::Commit(who) => next.feed(who, Input::Probation(Event::Commit), self),
            Action::RollBack(who) => {
                let cause = RollbackCause::Operator;
                next.feed(who, Input::Probation(Event::RollBack(cause)), self);
            }
            Action::Silence(who) => {
                next.silences -= 1;
                next.feed(who, Input::Timer(Timer::Silence), self);
            }
            Action::Well(who) => next.feed(who, Input::Timer(Timer::Well), self),
            Action::Unheard(who) => next.feed(who, Input::Timer(Timer::Resumed), self),
            Action::NotResumed(who) => {
                next.silences -= 1;
                next.feed(who, Input::Timer(Timer::Resumed), self);
            }
        }
        if next.kernel.order.is_empty() {
            next.program = None;
        }
        next
    }
}

impl Model for Groups {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let Groups { starts, kills, silences, .. } = *self;
        vec![World {
            kernel: Kernel::default(),
            alive: BTreeMap::new(),
            lines: BTreeMap::new(),
            program: None,
            last: 0,
            starts,
            kills,
            silences,
            fault: None,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.fault.is_some() {
            return;
        }
        actions.extend(world.own_actions());
        if world.starting().is_none() && world.starts > 0 {
            actions.extend([1, 2].map(Action::Start));
        }
        for (number, process) in &world.alive {
            let number = *number;
            if world.kills > 0 {
                actions.extend([true, false].map(|order| Action::Kill(number, order)));
            }
            let state = process.machine.state();
            if state == State::Draining && process.takeover.is_none() {
                actions.extend([true, false].map(|order| Action::End(number, order)));
            }
            if process.machine.is_on_probation() && process.takeover.is_none() {
                actions.extend([Action::Commit(number), Action::RollBack(number)]);
                let partner = process.partner.and_then(|one| world.alive.get(&one));
                let helped = partner.is_some_and(|one| one.machine.state() != State::Standby);
                if helped && partner.is_some_and(|one| one.words.is_empty()) {
                    actions.push(Action::Well(number));
                }
                if world.silences > 0 {
                    actions.push(Action::NotResumed(number));
                }
            }
            if state == State::Standby && world.silences > 0 {
                actions.push(Action::Silence(number));
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = self.after(world, action);
        if next == *world {
            return None;
        }
        let rests = |one: &Action| self.after(&next, *one) == next;
        let is_at_rest = next.own_actions().iter().all(rests);
        next.fault = next.faulty(is_at_rest);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Groups>> {
        vec![Property::always("P14", |_, world: &World| world.fault.is_none())]
    }
}

// ---- the walks ----

const PROBATION: Groups =
    Groups { starts: 3, kills: 1, silences: 0, probation: true, broken: None };
const PLAIN: Groups = Groups { probation: false, ..PROBATION };

/// The way to a fault, and the number of states.
fn walk(bounds: Groups) -> (usize, Option<(Vec<Action>, &'static str)>) {
    let began = Instant::now();
    let checker =
        bounds.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let states = checker.unique_state_count();
    let way = checker.discovery("P14").map(|way| {
        let fault = way.last_state().fault.expect("the way leads to a fault");
        (way.into_actions(), fault)
    });
    let Groups { starts, kills, silences, probation, broken } = bounds;
    let what = if probation { ", probation" } else { "" };
    let found = way.as_ref().map_or(String::new(), |(way, _)| format!(": {} steps", way.len()));
    match broken {
        Some(rule) => print(&format!(
            "{rule:?} breaks P14{found}, {states} states, {:.1} s",
            began.elapsed().as_secs_f64()
        )),
        None => print(&format!(
            "steered groups{what}: generations {starts}, kills {kills}, silences {silences}: {states} states, \
             {} steps, at most {} in a row, {:.1} s",
            checker.state_count(),
            checker.max_depth(),
            began.elapsed().as_secs_f64(),
        )),
    }
    (states, way)
}

#[test]
fn p14_no_death_and_no_rollback_leads_a_flow_astray() {
    let deep = std::env::var("SEAMLESS_MODEL").is_ok_and(|value| value == "deep");
    let mut all = vec![
        PLAIN,
        Groups { kills: 2, ..PLAIN },
        PROBATION,
        Groups { starts: 2, kills: 2, silences: 1, ..PROBATION },
    ];
    if deep {
        all.push(Groups { starts: 4, kills: 2, ..PLAIN });
        all.push(Groups { kills: 2, silences: 2, ..PROBATION });
    }
    for bounds in all {
        let (states, way) = walk(bounds);
        assert_eq!(way, None);
        assert!(states > 100, "{states}");
    }
}

#[test]
fn p14_every_rule_of_steered_groups_is_needed() {
    let silent = Groups { silences: 1, ..PROBATION };
    for (rule, bounds) in [
        (Rule::EverybodyHoldsAll, PLAIN),
        (Rule::NothingLeaves, PLAIN),
        (Rule::OneWriter, PLAIN),
        (Rule::CheckWrites, PLAIN),
        (Rule::StandbyHoldsTheNew, PROBATION),
        (Rule::RollbackWrites, PROBATION),
        (Rule::TheFailedOneIsSilent, PROBATION),
        (Rule::HeardAgain, silent),
        (Rule::CommitWrites, silent),
    ] {
        let (states, way) = walk(Groups { broken: Some(rule), ..bounds });
        let (way, fault) =
            way.unwrap_or_else(|| panic!("{rule:?} is not found in {states} states"));
        println!("\n{rule:?}: {fault}\n{way:#?}");
    }
}
