//! Steered groups of UDP sockets (P14): the kernel's order of the sockets and its renumbering, who holds which, and the
//! program that the generations write. What `driver::sockets::flows` does.
//!
//! There is one group, and each generation asks for some members of it. A flow of a generation that lives reaches the
//! member that it began with, whatever died before. Whenever all have seen what has happened, a new flow reaches a
//! generation that serves.

use super::keeper::keeper_of;
use super::probation::ProbationAction;
use super::steps::Action;
use super::trace::say;
use super::world::{Id, Main, Promise, Setting, World, id_of};
use crate::proto::control::transfer::{Gave, Source, flow_givers, sources};
use crate::proto::daemon::{NewFlows, Phase, Timer};
use crate::proto::flows::bpf::{self, Instruction};
use crate::proto::flows::layout::Layout;
use crate::proto::flows::program::program;
use crate::proto::flows::quic::{Cipher, Mark, RANDOM};
use crate::proto::flows::{Secret, Steer, is_newest};
use crate::proto::generation::verdict::Facts;
use crate::variants::{self, Variant};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

const SECRET: Secret = Secret([7; Secret::LENGTH]);
/// IPv4 and UDP, from one port.
const IP: [u8; 28] = {
    let mut ip = [0; 28];
    ip[0] = 0x45;
    ip[21] = 1;
    ip
};

thread_local! {
    /// By the layout and the newest generation.
    static PROGRAMS: RefCell<HashMap<(Layout, u64), Vec<Instruction>>> = RefCell::default();
}

/// The group of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steered {
    /// How many members the generations ask for; the last number holds for the rest.
    pub(crate) members: &'static [usize],
    /// In which order a process that ends closes its descriptors.
    pub(crate) from_the_end: bool,
}

impl Steered {
    fn members(&self, id: Id) -> usize {
        self.members[usize::from(id).min(self.members.len() - 1)]
    }
}

/// A member by the order in which it was bound.
type Member = u8;

/// Who can have descriptors of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Holder {
    Daemon(Id),
    /// What its daemon has given to the launcher.
    Launcher(Id),
    /// What the launcher has given to this daemon, of the one before.
    Passed(Id),
    Keeper(Id),
    /// A transfer.
    Message,
}

/// Members in the kernel's order, and whose they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Group {
    layout: Layout,
    members: Vec<Member>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Flows {
    /// The kernel's group: a member leaves with its last holder, and the last one of the order moves to its place.
    order: Vec<Member>,
    holders: BTreeMap<Member, BTreeSet<Holder>>,
    bound: Member,
    /// Of daemons that have asked for the group.
    parts: BTreeMap<Id, Part>,
    /// What other processes and messages hold.
    copies: BTreeMap<Holder, Group>,
    /// By whose layout the program was written, and to whom new flows go.
    program: Option<(Layout, u64)>,
    from_the_end: bool,
}

/// Of a daemon.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Part {
    group: Group,
    /// The places of its own members. Until it has bound them all, the last ones are still empty.
    places: Vec<usize>,
    /// New flows have reached it.
    has_flows: bool,
    /// Those whose end it waits for.
    watched: BTreeSet<Id>,
    /// One of them has ended, and the program does not know it yet.
    unsettled: bool,
    /// It tries to write it again.
    again: bool,
}

impl Part {
    /// Its own members.
    fn own(&self) -> impl Iterator<Item = Member> + '_ {
        self.places.iter().filter_map(|at| self.group.members.get(*at)).copied()
    }

    fn lacks(&self) -> bool {
        self.group.members.len() < self.group.layout.places().len()
    }
}

impl Flows {
    pub(crate) fn new(steered: Steered) -> Flows {
        Flows { from_the_end: steered.from_the_end, ..Flows::default() }
    }

    fn bind(&mut self, who: Id) -> Member {
        self.bound += 1;
        self.order.push(self.bound);
        self.holders.insert(self.bound, BTreeSet::from([Holder::Daemon(who)]));
        self.bound
    }

    fn hold(&mut self, who: Holder, members: &[Member]) {
        for member in members {
            self.holders.get_mut(member).expect("it is open").insert(who);
        }
    }

    fn close(&mut self, who: Holder, member: Member) {
        let Some(holders) = self.holders.get_mut(&member) else { return };
        if holders.remove(&who) && holders.is_empty() {
            self.holders.remove(&member);
            let at = self.order.iter().position(|one| *one == member).expect("it is there");
            self.order.swap_remove(at);
        }
    }

    /// This one has ended, or drops what it has.
    fn drop_of(&mut self, who: Holder) {
        self.copies.remove(&who);
        let mut members: Vec<Member> = self.holders.keys().copied().collect();
        if self.from_the_end {
            members.reverse();
        }
        members.into_iter().for_each(|member| self.close(who, member));
        if self.order.is_empty() {
            self.program = None;
        }
    }

    fn copy(&mut self, who: Holder, group: Option<Group>) {
        self.drop_of(who);
        if let Some(group) = group {
            self.hold(who, &group.members);
            self.copies.insert(who, group);
        }
    }

    /// `Group::write`.
    fn write(&mut self, who: Id, newest: u64) {
        let Some(part) = self.parts.get(&who) else { return };
        if !part.group.layout.places_of(newest).is_empty() {
            say(|| format!("  daemon {who} steers new flows to generation {newest}"));
            self.program = Some((part.group.layout.clone(), newest));
        }
    }

    fn gets(&self, datagram: &[u8]) -> Option<Member> {
        let (layout, newest) = self.program.as_ref()?;
        let place = PROGRAMS.with_borrow_mut(|programs| {
            let made = || program(layout, *newest, &SECRET).expect("short enough");
            let program = programs.entry((layout.clone(), *newest)).or_insert_with(made);
            bpf::run(program, &IP, datagram) as usize
        });
        self.order.get(place).copied()
    }
}

impl World {
    fn flows_mut(&mut self) -> &mut Flows {
        self.flows.as_mut().expect("a steered group")
    }

    fn group_part(&self, id: Id) -> Option<&Part> {
        self.flows.as_ref()?.parts.get(&id)
    }

    fn group_part_mut(&mut self, id: Id) -> Option<&mut Part> {
        self.flows.as_mut()?.parts.get_mut(&id)
    }

    fn number(&self, id: Id) -> u64 {
        u64::from(self.at(id).number)
    }

    /// The generations that may have flows, as this one sees them.
    fn with_flows(&self, id: Id, setting: &Setting) -> BTreeSet<u64> {
        let facts = self.record.iter().map(|one| self.facts(*one, id, setting));
        facts.filter(|one| one.may_have_flows()).map(|one| one.number).collect()
    }

    fn write_program(&mut self, id: Id, newest: u64) {
        if self.group_part(id).is_none() {
            return;
        }
        self.flows_mut().write(id, newest);
        let named = self.ids().find(|one| self.number(*one) == newest);
        if let Some(part) = named.and_then(|one| self.group_part_mut(one)) {
            part.has_flows = true;
        }
    }

    /// `flows::take_over`. `lives`: the others.
    fn take_over_flows(&mut self, id: Id, lives: &BTreeSet<u64>) {
        let own = self.number(id);
        if let Some(part) = self.group_part_mut(id) {
            part.group.layout.free(|one| one == own || lives.contains(&one));
        }
        self.write_program(id, own);
    }

    // ---- the stages of a generation ----

    /// What this process has goes into a transfer.
    pub(crate) fn flows_offer(&mut self, giver: Id) {
        let Some(flows) = self.flows.as_deref_mut() else { return };
        let held = match giver.checked_sub(keeper_of(0)) {
            Some(one) => flows.copies.get(&Holder::Keeper(one)).cloned(),
            None => flows.parts.get(&giver).map(|part| part.group.clone()),
        };
        flows.copy(Holder::Message, held);
    }

    pub(crate) fn flows_sent(&self) -> bool {
        self.flows.as_ref().is_some_and(|flows| flows.copies.contains_key(&Holder::Message))
    }

    pub(crate) fn flows_message_over(&mut self) {
        if let Some(flows) = self.flows.as_deref_mut() {
            flows.drop_of(Holder::Message);
        }
    }

    /// `flows::obtain`, of what has come. `false`: the address is in use.
    pub(crate) fn flows_join(&mut self, id: Id, gave: Gave, setting: &Setting) -> bool {
        let Some(steered) = setting.flows else { return true };
        let found = match gave {
            Gave::All { flows: true } => self.flows_mut().copies.get(&Holder::Message).cloned(),
            _ => sources(gave).into_iter().find_map(|source| match source {
                Source::Launcher(_) => {
                    self.flows.as_ref()?.copies.get(&Holder::Passed(id)).cloned()
                }
                Source::Draining => self.flows_of_draining(id, setting),
                // Nobody waits in `init`, and a part of a group is of no use.
                Source::Copies | Source::WhatCame => None,
            }),
        };
        let older = self.with_flows(id, setting);
        let own = self.number(id);
        let flows = self.flows_mut();
        let Group { mut layout, mut members } = found.unwrap_or_default();
        flows.hold(Holder::Daemon(id), &members);
        let newest = layout.generations().last().copied();
        let first = newest.map(|newest| layout.places_of(newest)).unwrap_or_default();
        layout.free(|one| older.contains(&one));
        let count = steered.members(id);
        let admitted = layout.admit(own, count, Steer::Quic, &first, |_| true).expect("a slot");
        if members.is_empty() {
            if !flows.order.is_empty() {
                return false;
            }
            members.push(flows.bind(id));
            flows.program = Some((layout.clone(), own));
        }
        say(|| format!("  daemon {id} has a steered group, and places {:?}", admitted.places));
        let part = Part {
            group: Group { layout, members },
            places: admitted.places,
            has_flows: false,
            watched: BTreeSet::new(),
            unsettled: false,
            again: false,
        };
        flows.parts.insert(id, part);
        true
    }

    /// `Take::add_flows`.
    fn flows_of_draining(&self, id: Id, setting: &Setting) -> Option<Group> {
        let (givers, _) = flow_givers(&self.predecessors(id, setting), Duration::ZERO);
        let of = |pid| self.group_part(id_of(pid)).map(|part| part.group.clone());
        givers.iter().find_map(|one| of(one.pid))
    }

    /// It has members to bind.
    pub(crate) fn flows_to_bind(&self, id: Id) -> bool {
        self.group_part(id).is_some_and(Part::lacks)
    }

    pub(crate) fn flows_bind(&mut self, id: Id) {
        let member = self.flows_mut().bind(id);
        say(|| format!("daemon {id} binds member {member} of the group"));
        self.group_part_mut(id).expect("it has asked").group.members.push(member);
    }

    /// `Act::SteerFlows` of a takeover.
    pub(crate) fn flows_take_over(&mut self, id: Id) {
        let main = self.daemon(id).map(|daemon| &daemon.main);
        let Some(Main::TakingOver { others, .. }) = main else { return };
        // As it was when it looked.
        let lived = others.iter().filter(|(one, lived)| *lived && !self.at(*one).is_keeper);
        let lives = lived.map(|(one, _)| self.number(*one)).collect();
        self.take_over_flows(id, &lives);
    }

    /// `Server::watch`.
    pub(crate) fn flows_started(&mut self, id: Id, older: &[Id]) {
        let older = older.iter().copied().filter(|one| self.daemon(*one).is_some()).collect();
        if let Some(part) = self.group_part_mut(id) {
            part.watched = older;
        }
        if variants::is(Variant::OwnMembersOnly) {
            self.close_members_of_others(id);
        }
    }

    fn close_members_of_others(&mut self, id: Id) {
        let Some(part) = self.group_part(id) else { return };
        let own: Vec<Member> = part.own().collect();
        let mut others = part.group.members.clone();
        others.retain(|member| !own.contains(member));
        others.into_iter().for_each(|one| self.flows_mut().close(Holder::Daemon(id), one));
    }

    /// `flows::hold`, of the one that stands by. `false`: it knows another order.
    pub(crate) fn flows_hold(&mut self, id: Id, newer: Id) -> bool {
        if variants::is(Variant::StandbyLacksMembers) {
            return true;
        }
        let Some(theirs) = self.group_part(newer).map(|part| part.group.clone()) else {
            return true;
        };
        let Some(known) = self.group_part_mut(id).map(|part| &mut part.group) else { return true };
        let same = |at: usize| known.members[at] == theirs.members[at];
        let Some(layout) = known.layout.grown(&theirs.layout, same) else {
            self.fault(Promise::P14, "the one that stands by knows another order");
            return false;
        };
        let members = theirs.members.clone();
        *known = Group { layout, members: theirs.members };
        self.flows_mut().hold(Holder::Daemon(id), &members);
        true
    }

    /// `Output::SteerFlows`.
    pub(crate) fn flows_steer(&mut self, id: Id, to: NewFlows) {
        let newest = match to {
            NewFlows::Ours => self.number(id),
            NewFlows::Of(number) => number,
        };
        self.write_program(id, newest);
    }

    /// `take_back`, under the claim. `newer`: one that has come meanwhile.
    pub(crate) fn flows_taken_back(&mut self, id: Id, newer: Option<u64>, setting: &Setting) {
        if let Some(newer) = newer {
            return self.write_program(id, newer);
        }
        if !variants::is(Variant::RollbackSteersNothing) {
            let lives = self.with_flows(id, setting);
            self.take_over_flows(id, &lives);
        }
        let own = self.number(id);
        let newer = |one: &Id| self.number(*one) > own && self.daemon(*one).is_some();
        let newer: Vec<Id> = self.record.iter().copied().filter(newer).collect();
        if let Some(part) = self.group_part_mut(id) {
            part.watched.extend(newer);
        }
    }

    /// Is there something to settle, which can be done now?
    pub(crate) fn flows_settles(&self, id: Id) -> bool {
        self.group_part(id).is_some_and(|part| {
            let ended = part.watched.iter().any(|one| self.daemon(*one).is_none());
            ended || part.again && self.claim.is_none()
        })
    }

    /// `flows::settle`.
    pub(crate) fn flows_settle(&mut self, id: Id, setting: &Setting) {
        say(|| format!("daemon {id} sees to its steered group"));
        let is_gone = |world: &World, one: Id| world.daemon(one).is_none();
        let part = self.group_part(id).expect("it has a group");
        let ended: BTreeSet<Id> =
            part.watched.iter().copied().filter(|one| is_gone(self, *one)).collect();
        let numbers: BTreeSet<u64> = ended.iter().map(|one| self.number(*one)).collect();
        let part = self.group_part_mut(id).expect("it has a group");
        part.watched.retain(|one| !ended.contains(one));
        part.again = false;
        let freed = part.group.layout.free(|one| !numbers.contains(&one));
        part.unsettled |= !freed.is_empty();
        let unsettled = part.unsettled;
        if variants::is(Variant::FreeMembersClosed) {
            self.close_free_members(id);
        }
        let daemon = self.daemon(id).expect("it lives");
        let own = self.number(id);
        let is_newest = || {
            let listed = self.record.iter().map(|one| self.facts(*one, id, setting));
            is_newest(own, listed.collect::<Vec<Facts>>().iter())
        };
        let writes = match variants::broken() {
            _ if !unsettled => return,
            Some(Variant::AnybodySteers) => true,
            _ if !daemon.machine.may_steer() => return,
            _ if self.claim.is_some() => {
                self.group_part_mut(id).expect("it has a group").again = true;
                return;
            }
            Some(Variant::FailedOneSteers) => is_newest(),
            _ => is_newest() && daemon.machine.steers(),
        };
        if writes {
            self.group_part_mut(id).expect("it has a group").unsettled = false;
            self.write_program(id, own);
        }
    }

    fn close_free_members(&mut self, id: Id) {
        let Some(Part { group, .. }) = self.group_part(id) else { return };
        let places = group.layout.places().iter().zip(&group.members);
        let free: Vec<Member> =
            places.filter(|(owner, _)| owner.is_none()).map(|(_, member)| *member).collect();
        let flows = self.flows_mut();
        let holders: BTreeSet<Holder> = flows.holders.values().flatten().copied().collect();
        for holder in holders {
            free.iter().for_each(|member| flows.close(holder, *member));
        }
    }

    pub(crate) fn flows_end(&mut self, id: Id) {
        if let Some(flows) = self.flows.as_deref_mut() {
            flows.parts.remove(&id);
            flows.drop_of(Holder::Daemon(id));
            flows.drop_of(Holder::Passed(id));
        }
    }

    // ---- the launcher, and the keeper ----

    pub(crate) fn flows_give(&mut self, id: Id) {
        let group = self.group_part(id).map(|part| part.group.clone());
        if let Some(flows) = self.flows.as_deref_mut() {
            flows.copy(Holder::Launcher(id), group);
        }
    }

    pub(crate) fn flows_drop_given(&mut self, id: Id) {
        if let Some(flows) = self.flows.as_deref_mut() {
            flows.drop_of(Holder::Launcher(id));
        }
    }

    pub(crate) fn flows_to_keeper(&mut self, id: Id) {
        if let Some(flows) = self.flows.as_deref_mut() {
            let given = flows.copies.get(&Holder::Launcher(id)).cloned();
            flows.copy(Holder::Keeper(id), given);
            flows.drop_of(Holder::Launcher(id));
        }
    }

    pub(crate) fn flows_pass(&mut self, from: Id, to: Id) {
        if let Some(flows) = self.flows.as_deref_mut() {
            let given = flows.copies.get(&Holder::Launcher(from)).cloned();
            flows.copy(Holder::Passed(to), given);
        }
    }

    pub(crate) fn flows_drop_passed(&mut self, id: Id) {
        if let Some(flows) = self.flows.as_deref_mut() {
            flows.drop_of(Holder::Passed(id));
        }
    }

    pub(crate) fn flows_keeper_ends(&mut self, id: Id) {
        if let Some(flows) = self.flows.as_deref_mut() {
            flows.drop_of(Holder::Keeper(id));
        }
    }

    // ---- the promise ----

    /// After each step.
    pub(crate) fn check_flows(&mut self) {
        let Some(flows) = self.flows.as_deref() else { return };
        if flows.program.is_none() {
            return;
        }
        let mut fault = None;
        for (id, part) in &flows.parts {
            let number = self.number(*id);
            let (_, slot) = part.group.layout.mark_of(number).expect("its own");
            for (member, own) in part.own().enumerate().filter(|_| part.has_flows) {
                let mark = Mark { slot, member: member as u16 };
                let connection = Cipher::new(&SECRET).make(mark, [9; RANDOM]);
                if flows.gets(&[&[0x40], &connection[..], b"payload"].concat()) != Some(own) {
                    fault = Some("a flow does not reach its process");
                }
            }
            // What each generation knows is what there is, from the first place on.
            if !flows.order.starts_with(&part.group.members) {
                fault = Some("a generation does not know the order of the group");
            }
        }
        if let Some(what) = fault {
            self.fault(Promise::P14, what);
        }
    }

    /// A new flow does not reach a generation that serves, though there is one.
    pub(crate) fn new_flows_go_astray(&self) -> bool {
        let Some(flows) = self.flows.as_deref() else { return false };
        let serves = |id: &Id| {
            let daemon = self.daemon(*id);
            daemon.is_some_and(|one| one.serves() && !matches!(one.main, Main::TakingOver { .. }))
        };
        let mut serving = flows.parts.iter().filter(|(id, _)| serves(id)).peekable();
        if flows.program.is_none() || serving.peek().is_none() {
            return false;
        }
        let new = [&[0xc0, 0, 0, 0, 1, 8][..], b"client's", b"payload"].concat();
        let member = flows.gets(&new);
        !serving.any(|(_, part)| part.own().any(|own| Some(own) == member))
    }

    /// Nobody has still to see what has happened: nothing of this kind would change anything. A drain may go on.
    pub(crate) fn flows_are_settled(&self, fair: &[Action], setting: &Setting) -> bool {
        let looks_round = |id| self.daemon(id).is_some_and(|one| one.machine.is_alone());
        let goes_on = |action: &&Action| {
            let drains = |id: &Id| {
                let phase = self.daemon(*id).map(|one| one.machine.phase());
                matches!(phase, Some(Phase::Draining(_) | Phase::Finished))
            };
            match action {
                Action::DrainHooks(_) | Action::Net(_) | Action::Moves(..) => false,
                Action::Probation(_, ProbationAction::Timer(Timer::Probation)) => false,
                // One below a launcher does not look round: the next start sees to it.
                Action::Start => !self.ids().any(looks_round),
                Action::Main(id) => !drains(id),
                Action::DaemonTimer(_, Timer::Successor | Timer::Leave) => false,
                _ => true,
            }
        };
        let settled = |one: &Action| self.after(*one, setting).is_none();
        self.claim.is_none() && fair.iter().filter(goes_on).all(settled)
    }
}
