//! Listening sockets: the queue of each, who holds it, and the takeover connection between two
//! generations. The pool, what a takeover says and the names in the store are those of the crate.
//!
//! A program accepts while it serves; when its drain begins it accepts until the queue is empty and
//! closes, and answers what it has accepted before its hooks return: what `crate::sockets` asks of
//! it.

use super::keeper::keeper_of;
use super::trace::say;
use super::world::{Budget, Id, Main, Promise, Setting, Stop, World, id_of, pid};
use crate::machines::{self, Pool};
use crate::proto::control::frame::{Address, Answer, FileId, Request, Socket, SocketKind};
use crate::proto::control::transfer::{
    self, Failed, Gave, Give, Givers, Giving, Predecessor, Source, Taking, Took,
};
use crate::proto::daemon::Phase;
use crate::proto::generation::takeover::Act;
use crate::proto::generation::verdict::{Purpose, Verdict};
use crate::proto::sockets::changes::Changes;
use crate::proto::sockets::fdstore;
use crate::proto::sockets::pool::{Entry, Origin, Spread, Wanted, joined};
use crate::proto::{End, Kind};
use crate::variants::{self, Variant};
use std::collections::{BTreeMap, BTreeSet};

/// A socket by the order in which it was bound; the kernel's cookie as well.
pub(crate) type Cookie = u8;

/// Where clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum At {
    Tcp(u16),
    Path(u8),
}

impl At {
    fn kind(self) -> SocketKind {
        match self {
            At::Tcp(_) => SocketKind::Tcp,
            At::Path(_) => SocketKind::Unix,
        }
    }

    fn address(self) -> Address {
        match self {
            At::Tcp(port) => Address::Inet(([127, 0, 0, 1], port).into()),
            At::Path(name) => Address::Unix(vec![b'/', name]),
        }
    }
}

/// What a program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) at: At,
    pub(crate) group: Option<u8>,
}

impl Ask {
    fn wanted(self) -> Wanted<'static> {
        let addresses = vec![self.at.address()];
        let group = self.group.map(usize::from);
        let (kind, changes) = (self.at.kind(), Changes::NONE);
        Wanted { kind, addresses, name: None, group, only_v6: false, changes, steer: None }
    }
}

/// The sockets of a service, one generation after the other; the last line holds for the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sockets {
    pub(crate) name: &'static str,
    pub(crate) asks: &'static [&'static [Ask]],
    /// Passed by the supervisor (`LISTEN_FDS`): those of a socket unit.
    pub(crate) passed: &'static [At],
    /// The supervisor keeps what it is given (`FileDescriptorStoreMax=`).
    pub(crate) store: bool,
}

impl Sockets {
    fn asks(&self, id: Id) -> &'static [Ask] {
        self.asks[usize::from(id).min(self.asks.len() - 1)]
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Net {
    sockets: Vec<Listener>,
    /// Where a connection to each address may go: the members of its group, and between which of
    /// them the kernel spreads.
    groups: BTreeMap<At, (Vec<Cookie>, Spread)>,
    parts: Vec<Part>,
    link: Option<Link>,
    /// What keepers hold.
    keepers: Vec<(Id, Vec<Entry<Cookie>>)>,
    /// Who listens at `web.pid.sock`.
    path: Option<Owner>,
    /// Who listens at `web.pid.sock.standby`.
    second: Option<Owner>,
    passed: Vec<Cookie>,
    store: Vec<(String, Cookie)>,
    /// Where some generation has served.
    served: BTreeSet<At>,
    /// The service was allowed to end.
    excused: bool,
    /// A reload was asked for since the control socket was removed.
    tried: bool,
    /// This generation has crashed with a launcher at hand, and nothing excuses that connections are
    /// refused.
    crashed: Option<Id>,
    /// The store has let sockets go: it may have been the last to hold one, and clients may have
    /// come since its last server closed it.
    cleared: bool,
    /// The service has `keep_sockets`.
    keeps: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Listener {
    at: At,
    /// Connections that the kernel has completed, and nobody has accepted.
    queued: u8,
    lives: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owner {
    Daemon(Id),
    Keeper(Id),
    Stranger,
}

/// Of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Part {
    pool: Pool,
    /// The program's own descriptors.
    open: Vec<Cookie>,
    /// Accepted, and not answered.
    in_flight: u8,
    prepared: bool,
    taking: Option<Taking>,
    got: Vec<Entry<Cookie>>,
    /// What came of one that has died, if another one is asked.
    came: Vec<Entry<Cookie>>,
    /// Duplicates that its launcher holds.
    given: Vec<Entry<Cookie>>,
    /// What its launcher has given of the one before, which has crashed.
    passed: Option<Vec<Entry<Cookie>>>,
    /// The record says that it listens for a successor.
    hands_over: bool,
    older: Vec<Id>,
    /// Its retired sockets are closed when the older ones have ended.
    retires: bool,
    /// The store has still to be told.
    keeps: bool,
}

impl Part {
    const NEW: Part = Part {
        pool: Pool::NEW,
        open: Vec::new(),
        in_flight: 0,
        prepared: false,
        taking: None,
        got: Vec::new(),
        came: Vec::new(),
        given: Vec::new(),
        passed: None,
        hands_over: false,
        older: Vec::new(),
        retires: false,
        keeps: false,
    };
}

/// A takeover connection; the claim allows for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Link {
    taker: Id,
    giver: Id,
    to_giver: Vec<Request>,
    /// With the descriptors beside each message.
    to_taker: Vec<(Answer, Vec<Cookie>)>,
    giving: Option<(Giving, Vec<Entry<Cookie>>)>,
    /// The giver's end is open.
    open: bool,
}

/// What can happen to sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetAction {
    // While the budget lasts.
    Connect(Cookie),
    RemoveTakeoverSocket,
    RemovePath(At),
    StrangerListens,
    RefuseTaker,
    CutLink,
    // By itself.
    Give,
    Accept(Id, Cookie),
    Answer(Id),
    Close(Id, Cookie),
    Retire(Id),
    Keep(Id),
}

/// Nobody was asked.
const NOTHING: Gave = Gave::Nothing { crashed: None };
/// Listens at the control socket, and is none of ours.
const STRANGER_PID: i32 = 120;

impl Net {
    pub(crate) fn new(sockets: &Sockets) -> Net {
        let mut net = Net {
            sockets: Vec::new(),
            groups: BTreeMap::new(),
            parts: Vec::new(),
            link: None,
            keepers: Vec::new(),
            path: None,
            second: None,
            passed: Vec::new(),
            store: Vec::new(),
            served: BTreeSet::new(),
            excused: false,
            tried: false,
            crashed: None,
            cleared: false,
            keeps: false,
        };
        for at in sockets.passed {
            let cookie = net.bind(*at);
            net.passed.push(cookie);
        }
        net
    }

    pub(crate) fn with_keeper(self) -> Net {
        Net { keeps: true, ..self }
    }

    fn bind(&mut self, at: At) -> Cookie {
        let cookie = self.sockets.len() as Cookie;
        self.sockets.push(Listener { at, queued: 0, lives: true });
        let (members, _) = self.groups.entry(at).or_insert((Vec::new(), Spread::All));
        if let At::Path(_) = at {
            members.clear(); // renamed over it
        }
        members.push(cookie);
        cookie
    }

    fn entry(&self, cookie: Cookie, name: Option<String>) -> Entry<Cookie> {
        let at = self.sockets[usize::from(cookie)].at;
        let file = FileId { device: 0, inode: u64::from(cookie) };
        let file = matches!(at, At::Path(_)).then_some(file);
        let (kind, asked, local) = (at.kind(), at.address(), at.address());
        let socket =
            Socket { kind, asked, name, member: 0, retired: false, local, file, flow: None };
        let (fd, cookie) = (cookie, Some(u64::from(cookie)));
        Entry { socket, fd, cookie, only_v6: false, outlives_crash: true }
    }

    /// `has_lost_its_path`.
    fn has_lost_its_path(&self, entry: &Entry<Cookie>) -> bool {
        let at = self.sockets[usize::from(entry.fd)].at;
        let named = self.groups.get(&at).is_some_and(|(members, _)| members.contains(&entry.fd));
        matches!(at, At::Path(_)) && !named && !variants::is(Variant::LostPathKept)
    }

    /// Members to which the next connection may go.
    fn reachable(&self, at: At) -> &[Cookie] {
        match self.groups.get(&at) {
            Some((members, Spread::First(most))) => &members[..members.len().min(*most as usize)],
            Some((members, Spread::All)) => members,
            None => &[],
        }
    }

    fn steer(&mut self, (entry, spread): (Entry<Cookie>, Spread)) {
        let at = self.sockets[usize::from(entry.fd)].at;
        say(|| format!("  what arrives at {at:?} goes to {spread:?}"));
        if let Some(group) = self.groups.get_mut(&at) {
            group.1 = spread;
        }
    }

    fn is_held(&self, cookie: Cookie) -> bool {
        let holds = |entry: &Entry<Cookie>| entry.fd == cookie;
        let in_link = self.link.as_ref().is_some_and(|link| {
            let sent = link.to_taker.iter().any(|(_, fds)| fds.contains(&cookie));
            sent || link.giving.iter().any(|(_, entries)| entries.iter().any(holds))
        });
        let mut parts = self.parts.iter();
        in_link
            || self.passed.contains(&cookie)
            || self.store.iter().any(|(_, one)| *one == cookie)
            || parts.any(|part| {
                let given = part.given.iter().chain(part.passed.iter().flatten()).any(holds);
                let got = part.got.iter().chain(&part.came).any(holds);
                part.open.contains(&cookie) || part.pool.holds(cookie) || got || given
            })
            || self.keepers.iter().any(|(_, held)| held.iter().any(holds))
    }

    /// The kernel closes what nobody holds. Tells how many connections that resets.
    fn close_unheld(&mut self) -> u8 {
        let mut reset = 0;
        for cookie in 0..self.sockets.len() as Cookie {
            if self.sockets[usize::from(cookie)].lives && !self.is_held(cookie) {
                let socket = &mut self.sockets[usize::from(cookie)];
                socket.lives = false;
                reset += std::mem::take(&mut socket.queued);
                let (at, group) = (socket.at, self.groups.get_mut(&socket.at));
                say(|| format!("  socket {cookie} at {at:?} is closed for good"));
                if let Some((members, _)) = group {
                    if let Some(place) = members.iter().position(|one| *one == cookie) {
                        members.swap_remove(place); // the last one takes its place
                    }
                    if members.is_empty() {
                        self.groups.remove(&at);
                    }
                }
            }
        }
        reset
    }
}

impl World {
    fn net(&self) -> &Net {
        self.net.as_ref().expect("sockets")
    }

    fn net_mut(&mut self) -> &mut Net {
        self.net.as_mut().expect("sockets")
    }

    fn part(&self, id: Id) -> &Part {
        &self.net().parts[usize::from(id)]
    }

    fn part_mut(&mut self, id: Id) -> &mut Part {
        &mut self.net_mut().parts[usize::from(id)]
    }

    // ---- what can happen ----

    pub(crate) fn net_budgeted(&self, may: &mut impl FnMut(u8, bool, NetAction)) {
        let Some(net) = &self.net else { return };
        let budget = &self.budget;
        for at in net.groups.keys() {
            for cookie in net.reachable(*at) {
                // Before that there is no restart that could lose a connection.
                may(budget.connections, net.served.contains(at), NetAction::Connect(*cookie));
            }
            may(budget.removals, matches!(at, At::Path(_)), NetAction::RemovePath(*at));
        }
        let ours = matches!(net.path, Some(Owner::Daemon(_)));
        may(budget.removals, ours, NetAction::RemoveTakeoverSocket);
        may(budget.cuts, ours, NetAction::StrangerListens);
        let begun = net.link.as_ref().map(|link| link.giving.is_some());
        may(budget.cuts, begun == Some(false), NetAction::RefuseTaker);
        may(budget.cuts, net.link.is_some(), NetAction::CutLink);
    }

    pub(crate) fn net_fair(&self, may: &mut impl FnMut(bool, NetAction)) {
        let Some(net) = &self.net else { return };
        let gives = |link: &Link| link.open && !link.to_giver.is_empty();
        may(net.link.as_ref().is_some_and(gives), NetAction::Give);
        for id in self.ids() {
            let (part, Some(daemon)) = (self.part(id), self.daemon(id)) else { continue };
            let drains = daemon.drain_hooks;
            for cookie in &part.open {
                let waits = net.sockets[usize::from(*cookie)].queued > 0;
                may(waits && (daemon.serves() || drains), NetAction::Accept(id, *cookie));
                let closes = !waits || variants::is(Variant::ClosedWithQueue);
                may(drains && closes, NetAction::Close(id, *cookie));
            }
            may(part.in_flight > 0, NetAction::Answer(id));
            let gone = |one: &Id| self.daemon(*one).is_none();
            may(part.retires && part.older.iter().all(gone), NetAction::Retire(id));
            may(part.keeps, NetAction::Keep(id));
        }
    }

    /// The program has something to do before it calls `started`; `None`: it has its sockets.
    pub(crate) fn prepares(&self, id: Id) -> Option<bool> {
        self.net.as_ref()?;
        let part = self.part(id);
        if part.prepared {
            return self.flows_to_bind(id).then_some(true);
        }
        let link = self.net().link.as_ref().filter(|_| part.taking.is_some());
        let has_come = link.is_some_and(|link| !link.to_taker.is_empty());
        let over = link.is_none_or(|link| !link.open);
        Some(has_come || over && !self.awaits_launcher(id))
    }

    /// Its hooks wait for what it has accepted.
    pub(crate) fn has_drained(&self, id: Id) -> bool {
        self.net.is_none() || self.part(id).open.is_empty() && self.part(id).in_flight == 0
    }

    // ---- the stages of a generation ----

    /// A process starts, with what the supervisor passes to it.
    pub(crate) fn net_starts(&mut self) {
        let Some(net) = self.net.as_deref_mut() else { return };
        let passed = net.passed.iter().map(|cookie| net.entry(*cookie, None));
        let stored = net.store.iter().map(|(name, cookie)| net.entry(*cookie, Some(name.clone())));
        let entries: Vec<Entry<Cookie>> = passed.chain(stored).collect();
        let mut part = Part::NEW;
        for mut entry in entries {
            entry.socket.file = None;
            part.pool.pass(entry);
        }
        net.parts.push(part);
    }

    pub(crate) fn net_ends(&mut self, id: Id, end: End) {
        let Some(net) = self.net.as_deref_mut() else { return };
        let part = std::mem::replace(&mut net.parts[usize::from(id)], Part::NEW);
        let left = &mut net.parts[usize::from(id)];
        // The launcher keeps what it was given, and the record its line.
        (left.given, left.hands_over) = (part.given.clone(), part.hands_over && net.keeps);
        match &mut net.link {
            Some(link) if link.taker == id => net.link = None,
            Some(link) if link.giver == id => {
                (link.open, link.giving) = (false, None);
            }
            Some(_) | None => {}
        }
        if net.link.is_none() {
            self.flows_message_over();
        }
        let forced = matches!(end, End::Signal(_) | End::Code(124));
        if part.in_flight > 0 && !forced {
            self.fault(Promise::P3, "a request that was accepted is not answered");
        }
    }

    /// What the program does between `init` and `started`; see `handover::take` and
    /// `sockets::obtain`.
    pub(crate) fn prepare(&mut self, id: Id, setting: &Setting) {
        let phase = self.daemon(id).expect("it runs").machine.phase();
        if phase.parks_callers() && !variants::is(Variant::SocketsWhileStopping) {
            say(|| format!("daemon {id} asks for sockets, and is about to end"));
            return self.park(id);
        }
        if self.part(id).prepared {
            return self.flows_bind(id);
        }
        if self.part(id).taking.is_some() {
            return self.take(id, setting);
        }
        if phase != Phase::Starting {
            return self.obtain(id, NOTHING, setting);
        }
        let predecessors = self.predecessors(id, setting);
        let process = |owner: Option<Owner>| match owner {
            Some(Owner::Daemon(one)) => self.daemon(one).map(|_| pid(one)),
            Some(Owner::Keeper(one)) => self.keeper(one).map(|_| pid(keeper_of(one))),
            Some(Owner::Stranger) => Some(STRANGER_PID),
            None => None,
        };
        let second = || process(self.net().second);
        let listens =
            transfer::listener(process(self.net().path), second, |pid| *pid, &predecessors);
        match machines::giver(listens, &predecessors, |one| !self.gives_on(id_of(one.pid))) {
            Ok(None) => {
                say(|| format!("daemon {id} finds nobody to take over from"));
                // Copies are those of one that waits in `init`: it has no sockets here. Nor has one that drains.
                let gave = Gave::Nothing { crashed: self.crashed_sibling(id) };
                self.take_what_has_come(id, gave, setting);
            }
            Ok(Some(one)) if one.pid == STRANGER_PID => {
                self.fault(Promise::P5, "sockets are taken from a process that is none of ours");
            }
            Ok(Some(one)) => {
                say(|| format!("daemon {id} connects to process {}", one.pid));
                self.take_from(id, &one);
            }
            Err(why) => self.has_no_sockets(id, &format!("{why:?}"), setting),
        }
    }

    fn take_from(&mut self, id: Id, one: &Predecessor) {
        let (taking, first) = Taking::begin(u64::from(self.at(id).number), one);
        self.part_mut(id).taking = Some(taking);
        self.net_mut().link = Some(Link {
            taker: id,
            giver: id_of(one.pid),
            to_giver: vec![first],
            to_taker: Vec::new(),
            giving: None,
            open: true,
        });
    }

    /// This one has died half-way.
    fn takes_instead(&self, id: Id, giver: Id, setting: &Setting) -> Failed {
        let known = self.predecessors(id, setting);
        // A keeper's number is that of its daemon.
        let of = if giver < keeper_of(0) { giver } else { giver - keeper_of(0) };
        let number = u64::from(self.at(of).number);
        let first = Predecessor { number, pid: pid(giver), hands_over: true };
        Givers::new(first, &known).failed(true, || true)
    }

    /// Those of the record that it may ask.
    pub(crate) fn predecessors(&self, id: Id, setting: &Setting) -> Vec<Predecessor> {
        let asker = self.asker(id);
        let predecessor = |one: &Id| {
            let facts = self.facts(*one, id, setting);
            let process = if facts.keeps { keeper_of(*one) } else { *one };
            let about =
                Predecessor { number: facts.number, pid: pid(process), hands_over: facts.serves };
            match machines::verdict(&facts, Purpose::Transfer, asker) {
                Verdict::Touch { .. } | Verdict::TouchByNumber => Some(about),
                Verdict::Leave { .. } | Verdict::Refuse(_) => None,
            }
        };
        self.record.iter().filter_map(predecessor).collect()
    }

    /// `handover::receive`: the next message.
    fn take(&mut self, id: Id, setting: &Setting) {
        let message = match &mut self.net_mut().link {
            Some(link) if !link.to_taker.is_empty() => Some(link.to_taker.remove(0)),
            Some(_) | None => None,
        };
        let Some((answer, fds)) = message else {
            // `HeldPredecessor::is_ending`: what has come would be lost with us.
            let giver = self.net().link.as_ref().map(|link| link.giver);
            if let Some(giver) = giver.filter(|giver| !self.gives_on(*giver)) {
                if let Failed::TakeFrom { next, keep } = self.takes_instead(id, giver, setting) {
                    say(|| {
                        format!("daemon {id} goes on with process {}, which stands by", next.pid)
                    });
                    self.flows_message_over();
                    let part = self.part_mut(id);
                    let got = std::mem::take(&mut part.got);
                    part.came = if keep { got } else { Vec::new() };
                    return self.take_from(id, &next);
                }
                say(|| format!("daemon {id} goes on with what has come before its giver's end"));
                let crashed = self.crashed_sibling(id);
                return self.take_what_has_come(id, Gave::Half { crashed }, setting);
            }
            return self.taking_fails(id, "the connection is closed half-way", setting);
        };
        say(|| format!("daemon {id} receives {answer:?}"));
        let part = self.part_mut(id);
        let taking = part.taking.as_mut().expect("it takes");
        let (took, reply) = match taking.on(answer, fds.len()) {
            Ok(took) => took,
            Err(why) => return self.taking_fails(id, &why, setting),
        };
        match took {
            Took::Offer(_) | Took::State(_) | Took::States(_) => {}
            Took::Sockets(claimed) => {
                let entries = claimed.into_iter().zip(fds).map(|(socket, fd)| Entry {
                    socket,
                    fd,
                    cookie: Some(u64::from(fd)),
                    only_v6: false,
                    outlives_crash: true,
                });
                part.got.extend(entries);
            }
            Took::End => {
                let gave = Gave::All { flows: self.flows_sent() };
                return self.take_what_has_come(id, gave, setting);
            }
        }
        if let (Some(reply), Some(link)) = (reply, &mut self.net_mut().link) {
            link.to_giver.push(reply);
        }
    }

    fn taking_fails(&mut self, id: Id, why: &str, setting: &Setting) {
        if !variants::is(Variant::HalfTaken) {
            return self.has_no_sockets(id, why, setting);
        }
        self.take_what_has_come(id, Gave::Half { crashed: None }, setting);
    }

    fn take_what_has_come(&mut self, id: Id, gave: Gave, setting: &Setting) {
        let part = self.part_mut(id);
        part.taking = None;
        let (mut got, came) = (std::mem::take(&mut part.got), std::mem::take(&mut part.came));
        let sources = transfer::sources(gave);
        if matches!(gave, Gave::Half { .. }) && !sources.contains(&Source::WhatCame) {
            got.clear();
        }
        if let [Source::Launcher(_), ..] = sources[..] {
            got = joined(part.passed.take().unwrap_or_default(), got);
        }
        part.pool.take(joined(got, came));
        self.obtain(id, gave, setting);
        self.net_mut().link = None;
        self.flows_message_over();
    }

    /// An error of `sockets::…`: the program exits, and its supervisor tries again.
    fn has_no_sockets(&mut self, id: Id, why: &str, setting: &Setting) {
        say(|| format!("daemon {id} has no sockets: {why}"));
        // The socket of one that was told to end in its start: the next check puts that of the predecessor back.
        let mends = matches!(self.net().path, Some(Owner::Daemon(one))
            if self.daemon(one).is_none() && !self.at(one).was_ready);
        if self.is_undisturbed(setting) && self.budget.bad == setting.budget.bad && !mends {
            self.fault(Promise::P4, "a restart fails, and nothing was in its way");
        }
        if self.daemon(id).is_some_and(|one| one.machine.phase() != Phase::Starting) {
            self.fault(Promise::P6, "who waits for older generations to stop ends before them");
        }
        self.daemon_ends(id, End::Code(1));
    }

    /// `sockets::obtain`, for all that this program asks for.
    fn obtain(&mut self, id: Id, gave: Gave, setting: &Setting) {
        for ask in setting.sockets.expect("sockets").asks(id) {
            let wanted = ask.wanted();
            let net = &mut **self.net.as_mut().expect("sockets");
            let mut part = net.parts[usize::from(id)].clone();
            part.pool.use_it();
            let mut found = part.pool.find(&wanted, |entry| net.has_lost_its_path(entry));
            let missing = wanted.count().saturating_sub(found.len());
            if missing > 0 {
                let there = !net.reachable(ask.at).is_empty();
                let in_use = found.is_empty() && ask.group.is_none();
                if there && in_use && matches!(ask.at, At::Tcp(_)) {
                    return self.has_no_sockets(id, "the address is in use", setting);
                }
                if found.is_empty() && there && self.is_served(ask.at, id) {
                    self.fault(Promise::P2, "bound anew beside a predecessor that serves it");
                }
                let net = &mut **self.net.as_mut().expect("sockets");
                if !found.is_empty() && !variants::is(Variant::JoinedEarly) {
                    // `join`: nothing goes to the new members until this generation serves.
                    let active = found.iter().filter(|(entry, _)| !entry.socket.retired).count();
                    net.steer((found[0].0.clone(), Spread::First(active as u32)));
                }
                for _ in 0..missing {
                    let cookie = net.bind(ask.at);
                    say(|| format!("  daemon {id} binds {:?}: socket {cookie}", ask.at));
                    found.push((net.entry(cookie, None), Origin::Bound));
                }
            }
            let net = &mut **self.net.as_mut().expect("sockets");
            let (held, steered) = part.pool.hold(&wanted, found);
            for (entry, origin) in &held {
                say(|| format!("  daemon {id} has socket {}, {origin:?}", entry.fd));
            }
            part.open.extend(held.iter().take(wanted.count()).map(|(entry, _)| entry.fd));
            net.parts[usize::from(id)] = part;
            if let Some(steered) = steered {
                net.steer(steered);
            }
            if self.net().reachable(ask.at).is_empty() {
                self.fault(Promise::P2, "a generation starts with a socket that nobody can reach");
            }
        }
        if !self.flows_join(id, gave, setting) {
            return self.has_no_sockets(id, "the address of the group is in use", setting);
        }
        self.part_mut(id).prepared = true;
    }

    /// Does an older generation serve it, and hold it for its successor?
    fn is_served(&self, at: At, id: Id) -> bool {
        let number = self.at(id).number;
        let reachable = self.net().reachable(at);
        self.ids().filter(|one| self.at(*one).number < number).any(|one| {
            let serves = self.daemon(one).is_some_and(|daemon| daemon.serves());
            let held = self.part(one).pool.held().unwrap_or_default();
            serves && held.iter().any(|entry| reachable.contains(&entry.fd))
        })
    }

    /// The record says that it serves, and hands over.
    pub(crate) fn hands_over(&self, id: Id) -> bool {
        self.net.is_some() && self.part(id).hands_over
    }

    /// An act of `started`.
    pub(crate) fn net_act(&mut self, id: Id, act: &Act) {
        if self.net.is_none() {
            return;
        }
        match act {
            Act::KeepName(place) => {
                let main = self.daemon(id).map(|daemon| &daemon.main);
                let Some(Main::TakingOver { others, .. }) = main else { return };
                let older = others[*place].0;
                let named = match self.at(older).is_keeper {
                    true => Owner::Keeper(older),
                    false => Owner::Daemon(older),
                };
                if self.net().path == Some(named) {
                    self.net_mut().second = self.net().path;
                }
            }
            Act::DropName => self.net_drop_name(),
            Act::Listen => {
                say(|| format!("  daemon {id} listens for its successor"));
                self.net_mut().path = Some(Owner::Daemon(id));
            }
            Act::Enter(_) => {
                for part in &mut self.net_mut().parts {
                    part.hands_over = false;
                }
                self.part_mut(id).hands_over = true;
            }
            Act::Close => self.close_unclaimed(id),
            Act::Steer => {
                for steered in self.part_mut(id).pool.steer() {
                    self.net_mut().steer(steered);
                }
            }
            Act::Claim
            | Act::Look
            | Act::Install
            | Act::Serve
            | Act::SteerFlows
            | Act::StandBy(_)
            | Act::Prove
            | Act::Stop(..)
            | Act::GiveUp => {}
        }
    }

    /// `control::drop_name`.
    pub(crate) fn net_drop_name(&mut self) {
        if let Some(net) = self.net.as_deref_mut() {
            net.second = None;
        }
    }

    /// `control::place_again`.
    pub(crate) fn net_taken_back(&mut self, id: Id) {
        if let Some(net) = self.net.as_deref_mut() {
            say(|| format!("  daemon {id} puts its control socket in place again"));
            net.path = Some(Owner::Daemon(id));
            for steered in net.parts[usize::from(id)].pool.steer_back() {
                net.steer(steered);
            }
        }
    }

    fn close_unclaimed(&mut self, id: Id) {
        for (entry, _) in self.part_mut(id).pool.unclaimed() {
            say(|| format!("  daemon {id} closes socket {}: not asked for", entry.fd));
        }
    }

    pub(crate) fn net_serves(&mut self, id: Id, setting: &Setting) {
        let Some(sockets) = setting.sockets else { return };
        self.net_mut().crashed = None;
        self.part_mut(id).passed = None;
        self.flows_drop_passed(id);
        self.net_mut().served.extend(sockets.asks(id).iter().map(|ask| ask.at));
    }

    /// `sockets::stages::started`. `older`: whom it has taken over from.
    pub(crate) fn net_started(&mut self, id: Id, older: Vec<Id>, setting: &Setting) {
        let Some(sockets) = setting.sockets else { return };
        let part = self.part_mut(id);
        part.older.clone_from(&older);
        part.keeps = sockets.store;
        part.retires = part.pool.has_retired();
        self.flows_started(id, &older);
    }

    /// The drain begins.
    pub(crate) fn net_let_go(&mut self, id: Id) {
        if self.net.is_some() {
            self.part_mut(id).pool.let_go();
        }
    }

    /// `handover::is_lost`.
    pub(crate) fn net_has_lost_path(&self, id: Id) -> bool {
        self.net.as_ref().is_some_and(|net| match net.path {
            Some(Owner::Daemon(one)) => one != id && self.daemon(one).is_none(),
            Some(Owner::Keeper(one)) => self.keeper(one).is_none(),
            Some(Owner::Stranger) => false,
            None => true,
        })
    }

    pub(crate) fn net_put_back(&mut self, id: Id) {
        if self.net_has_lost_path(id) {
            say(|| format!("  daemon {id} puts its control socket back"));
            self.net_mut().path = Some(Owner::Daemon(id));
        }
    }

    pub(crate) fn net_reloads(&mut self) {
        if let Some(net) = self.net.as_deref_mut() {
            net.tried = true;
        }
    }

    /// Nobody came for as long as was to be waited: this generation ends.
    pub(crate) fn net_excuse(&mut self) {
        if let Some(net) = self.net.as_deref_mut() {
            net.excused = true;
        }
    }

    // ---- the keeper, and what a launcher holds for it ----

    /// `sockets::give::give`.
    pub(crate) fn net_gives(&mut self, id: Id, setting: &Setting) {
        if self.net.is_none() || !setting.keeps || self.launcher(id).is_none() {
            return;
        }
        let mut held = self.part(id).pool.held().unwrap_or_default();
        held.retain(|entry| !entry.socket.retired);
        self.part_mut(id).given = held;
        self.flows_give(id);
        self.at_mut(id).gives = true;
    }

    pub(crate) fn net_drop_given(&mut self, id: Id) {
        if self.net.is_some() {
            self.part_mut(id).given.clear();
            self.flows_drop_given(id);
        }
    }

    pub(crate) fn net_take_given(&mut self, id: Id) -> Vec<Entry<Cookie>> {
        let given = std::mem::take(&mut self.part_mut(id).given);
        self.net_mut().keepers.retain(|(one, _)| *one != id);
        self.net_mut().keepers.push((id, given.clone()));
        self.flows_to_keeper(id);
        given
    }

    pub(crate) fn net_pass(&mut self, from: Id, to: Id) {
        if self.net.is_some() {
            let given = self.part(from).given.clone();
            if self.daemon(to).is_some() {
                self.part_mut(to).passed = Some(given);
                self.flows_pass(from, to);
            }
        }
    }

    /// Its launcher has given what it held of the one before. The number of that one plays no part.
    fn crashed_sibling(&self, id: Id) -> Option<u64> {
        self.part(id).passed.as_ref().map(|_| u64::from(self.at(id).number))
    }

    /// `take_from_launcher`: the one before has crashed, and the launcher has not learned of that.
    fn awaits_launcher(&self, id: Id) -> bool {
        let first = self.at(id).first;
        let crashed = |one: &Id| {
            *one != id
                && self.at(*one).first == first
                && self.part(*one).hands_over
                && self.daemon(*one).is_none()
                && !self.at(*one).end_heard
        };
        let heard = self.record.iter().any(crashed) && self.launcher(id).is_some();
        heard && self.net().keeps
    }

    /// A daemon is KILLed: from here on its launcher and the keeper see to it that nobody is refused.
    pub(crate) fn net_crashes(&mut self, id: Id, setting: &Setting) {
        let Some(daemon) = self.daemon(id) else { return };
        let attached = matches!(daemon.machine.phase(), Phase::Serving | Phase::HandingOff)
            && self.launcher(id).is_some()
            && !daemon.heard_closed;
        let told = self.launcher(id).is_some_and(|one| one.stop_heard || one.stop_pending);
        let again = setting.kind != Kind::NOBODY;
        let owed = attached && !told && again && self.supervisor.wants_up && self.is_supervised(id);
        let Some(net) = self.net.as_deref_mut() else { return };
        if owed && setting.keeps && net.crashed.is_none() {
            net.crashed = Some(id);
        }
    }

    /// From here on connections may be refused.
    pub(crate) fn net_excuse_keeper(&mut self) {
        if let Some(net) = self.net.as_deref_mut() {
            net.crashed = None;
        }
    }

    pub(crate) fn net_keeper_ends(&mut self, id: Id) {
        self.flows_keeper_ends(id);
        let giver = keeper_of(id);
        let Some(net) = self.net.as_deref_mut() else { return };
        net.keepers.retain(|(one, _)| *one != id);
        if let Some(link) = net.link.as_mut().filter(|link| link.giver == giver) {
            (link.open, link.giving) = (false, None);
        }
    }

    pub(crate) fn net_keeper_transfers(&self, id: Id) -> bool {
        let link = self.net.as_ref().and_then(|net| net.link.as_ref());
        link.is_some_and(|link| link.open && link.giver == keeper_of(id))
    }

    pub(crate) fn net_keeper_listens(&mut self, id: Id) {
        say(|| format!("keeper of generation {id} puts its control socket in place"));
        self.net_mut().path = Some(Owner::Keeper(id));
    }

    pub(crate) fn net_keeper_entered(&mut self, id: Id) {
        self.part_mut(id).hands_over = false;
    }

    pub(crate) fn net_keeper_lost_path(&self, id: Id) -> bool {
        match self.net().path {
            Some(Owner::Daemon(one)) => self.daemon(one).is_none(),
            Some(Owner::Keeper(one)) => one != id && self.keeper(one).is_none(),
            Some(Owner::Stranger) => false,
            None => true,
        }
    }

    fn held_by_keeper(&self, id: Id) -> Vec<Entry<Cookie>> {
        let held = self.net().keepers.iter().find(|(one, _)| *one == id);
        held.map(|(_, held)| held.clone()).unwrap_or_default()
    }

    /// The process that gives lives.
    fn gives_on(&self, giver: Id) -> bool {
        match giver.checked_sub(keeper_of(0)) {
            Some(one) => self.keeper(one).is_some(),
            None => self.daemon(giver).is_some(),
        }
    }

    // ---- the steps ----

    pub(crate) fn net_perform(&mut self, action: NetAction) {
        match action {
            NetAction::Connect(cookie) => {
                say(|| format!("a client connects, and waits at socket {cookie}"));
                self.budget.connections -= 1;
                self.net_mut().sockets[usize::from(cookie)].queued += 1;
            }
            NetAction::RemoveTakeoverSocket => {
                say(|| "somebody removes the control socket".to_owned());
                self.budget.removals -= 1;
                (self.net_mut().path, self.net_mut().tried) = (None, false);
            }
            NetAction::RemovePath(at) => {
                say(|| format!("somebody removes {at:?}"));
                self.budget.removals -= 1;
                self.net_mut().groups.remove(&at);
            }
            NetAction::StrangerListens => {
                say(|| "a process that is none of ours listens at the control socket".to_owned());
                self.budget.cuts -= 1;
                self.net_mut().path = Some(Owner::Stranger);
            }
            NetAction::RefuseTaker => {
                self.budget.cuts -= 1;
                let link = self.net_mut().link.as_mut().expect("a connection");
                say(|| format!("daemon {} refuses: of another user", link.giver));
                link.to_taker.push((Answer::Refused("of another user".to_owned()), Vec::new()));
                link.open = false;
            }
            NetAction::CutLink => {
                self.budget.cuts -= 1;
                let link = self.net_mut().link.as_mut().expect("a connection");
                say(|| format!("daemon {} closes the connection half-way", link.giver));
                (link.open, link.giving) = (false, None);
            }
            NetAction::Give => self.give(),
            NetAction::Accept(id, cookie) => {
                say(|| format!("daemon {id} accepts a connection from socket {cookie}"));
                self.net_mut().sockets[usize::from(cookie)].queued -= 1;
                self.part_mut(id).in_flight += 1;
            }
            NetAction::Answer(id) => {
                say(|| format!("daemon {id} answers"));
                self.part_mut(id).in_flight -= 1;
            }
            NetAction::Close(id, cookie) => {
                say(|| format!("daemon {id} closes socket {cookie}"));
                self.part_mut(id).open.retain(|one| *one != cookie);
            }
            NetAction::Retire(id) => {
                let part = self.part_mut(id);
                part.retires = false;
                for entry in part.pool.take_retired() {
                    say(|| format!("daemon {id} closes socket {}: retired", entry.fd));
                }
            }
            NetAction::Keep(id) => self.keep(id),
        }
    }

    /// `Server::converse`, up to where it waits for an answer.
    fn give(&mut self) {
        let Some(link) = &self.net().link else { return };
        let (giver, taker) = (link.giver, link.taker);
        let own = u64::from(self.at(giver % keeper_of(0)).number);
        let held = match giver.checked_sub(keeper_of(0)) {
            Some(one) => self.held_by_keeper(one),
            None => self.part(giver).pool.held().unwrap_or_default(),
        };
        let Some(link) = &mut self.net_mut().link else { return };
        let request = link.to_giver.remove(0);
        say(|| format!("daemon {giver} reads of daemon {taker}: {request:?}"));
        let refused = match (&mut link.giving, request) {
            (None, Request::Take { generation, .. }) => match Giving::begin(own, generation) {
                Ok(()) => {
                    link.giving = Some((Giving::new(held.len(), false, 0), held));
                    None
                }
                Err(why) => Some(why),
            },
            (Some((giving, _)), request) => giving.on(request).err(),
            (None, _) => Some("it began in the middle".to_owned()),
        };
        if let Some(why) = refused {
            link.to_taker.push((Answer::Refused(why), Vec::new()));
            (link.open, link.giving) = (false, None);
            return;
        }
        let Some((giving, rest)) = &mut link.giving else { return };
        // One socket a message, so that there are many of them.
        let mut offers = false;
        while let Some(give) = giving.next(|left| left.min(1)) {
            let message = match give {
                Give::Offer => {
                    offers = true;
                    let sockets = rest.len();
                    (Answer::Offer { generation: own, sockets, state: None, states: 0 }, Vec::new())
                }
                Give::Sockets(count) => {
                    let sent: Vec<Entry<Cookie>> = rest.drain(..count).collect();
                    let fds = sent.iter().map(|entry| entry.fd).collect();
                    let sockets = sent.into_iter().map(|entry| entry.socket).collect();
                    (Answer::Sockets(sockets), fds)
                }
                Give::State => (Answer::State { bytes: 0 }, Vec::new()),
                Give::States(_) => unreachable!("none has a name"),
                Give::End => (Answer::End, Vec::new()),
            };
            link.to_taker.push(message);
        }
        if offers {
            self.flows_offer(giver);
        }
    }

    /// `store::keep`; the launcher passes it on, where there is one.
    fn keep(&mut self, id: Id) {
        let launcher = self.launcher(id).is_some();
        let part = self.part_mut(id);
        part.keeps = false;
        if !launcher {
            return;
        }
        let store = part.pool.bring_store_into_line();
        let net = self.net_mut();
        for name in store.remove {
            say(|| format!("daemon {id} has {name} removed from the store"));
            net.store.retain(|(one, _)| *one != name);
            net.cleared = true;
        }
        for (name, cookie) in store.add {
            say(|| format!("daemon {id} has socket {cookie} stored: {name}"));
            if !net.store.iter().any(|(_, one)| *one == cookie) {
                net.store.push((name, cookie));
            }
        }
        net.store.sort();
    }

    /// The unit is inactive: its store is emptied.
    pub(crate) fn net_unit_ends(&mut self) {
        if let Some(net) = self.net.as_deref_mut() {
            net.store.clear();
            net.cleared = true;
        }
    }

    // ---- what must hold ----

    /// Nothing has happened that may cost connections.
    fn is_undisturbed(&self, setting: &Setting) -> bool {
        let calm = Budget {
            commands: self.budget.commands,
            reloads: self.budget.reloads,
            bad: self.budget.bad,
            connections: self.budget.connections,
            slow: self.budget.slow,
            ..setting.budget
        };
        let wanted = self.supervisor.wants_up && self.supervisor.stop == Stop::No;
        calm == self.budget && wanted && !self.net().excused
    }

    /// Nobody was killed, and nothing was forced.
    fn is_unforced(&self, setting: &Setting) -> bool {
        let Budget { kills, limits, direct, .. } = setting.budget;
        self.budget.kills == kills && self.budget.limits == limits && self.budget.direct == direct
    }

    /// After each step.
    pub(crate) fn check_net(&mut self, setting: &Setting) {
        let Some(net) = self.net.as_deref_mut() else { return };
        let reset = net.close_unheld();
        let reset = if std::mem::take(&mut net.cleared) { 0 } else { reset };
        if reset > 0 && self.is_unforced(setting) && setting.kills_nobody() {
            self.fault(Promise::P2, "a connection that waits to be accepted is reset");
        }
        let crashed = self.net().crashed.into_iter();
        let asks = crashed.flat_map(|id| setting.sockets.expect("sockets").asks(id));
        if asks.clone().any(|ask| self.net().reachable(ask.at).is_empty()) {
            self.fault(Promise::P12, "a connection is refused after a crash");
        }
        let ready = self.ids().filter(|id| self.at(*id).was_ready);
        let Some(newest) = ready.max_by_key(|id| self.at(*id).number) else { return };
        let sockets = setting.sockets.expect("sockets");
        let undisturbed = self.is_undisturbed(setting) && setting.kills_nobody();
        for ask in sockets.asks(newest) {
            let kept = sockets.passed.contains(&ask.at);
            if (undisturbed || kept) && self.net().reachable(ask.at).is_empty() {
                self.fault(Promise::P2, "a connection is refused");
            }
        }
    }

    /// Where nothing happens any more.
    pub(crate) fn check_net_at_rest(&mut self, alive: &[Id], serving: &[Id], setting: &Setting) {
        let (Some(net), [id]) = (&self.net, serving) else { return };
        let part = self.part(*id);
        let not_ours =
            |cookie: Cookie| net.passed.contains(&cookie) && !part.open.contains(&cookie);
        let cookies = 0..net.sockets.len() as Cookie;
        let mut live = cookies.filter(|one| net.sockets[usize::from(*one)].lives);
        if live.clone().any(|one| net.sockets[usize::from(one)].queued > 0 && !not_ours(one)) {
            return self.fault(Promise::P2, "a connection waits, and nobody will accept it");
        }
        let attached = self.launcher(*id).is_some();
        let stored = |cookie: Cookie| net.store.iter().any(|(_, one)| *one == cookie);
        let leaks = |cookie: Cookie| {
            let later = stored(cookie) && !attached; // the next generation sees to it
            !part.open.contains(&cookie) && !net.passed.contains(&cookie) && !later
        };
        if alive == [*id] && live.any(leaks) {
            return self.fault(Promise::P2, "a socket is held, and nobody accepts from it");
        }
        let store = setting.sockets.is_some_and(|sockets| sockets.store);
        let lacks = |cookie: &Cookie| !stored(*cookie) && !net.passed.contains(cookie);
        if store && attached && part.open.iter().any(lacks) {
            return self.fault(Promise::P2, "a socket is not in the store");
        }
        // Below its launcher it looks round when a reload has failed.
        let looked_after = !attached || setting.in_place && net.tried;
        // A keeper of a newer generation that has died gives as well.
        let named = match net.path {
            Some(Owner::Daemon(one)) => one == *id,
            Some(Owner::Keeper(one)) => self.keeper(one).is_some(),
            Some(Owner::Stranger) => true,
            None => false,
        };
        if looked_after && self.claim.is_none() && !named {
            self.fault(Promise::P4, "a successor finds nobody to take over from");
        }
    }

    /// A program that has called nothing but `init` so far.
    pub(crate) fn is_preparing(&self, id: Id) -> bool {
        let main = self.daemon(id).map(|daemon| &daemon.main);
        matches!(main, Some(Main::Preparing(_))) && self.prepares(id).is_some()
    }
}

/// The name in the store tells what it is.
pub(crate) fn a_socket_of_the_model_has_a_name_in_the_store() {
    let mut net = Net::new(&Sockets { name: "", asks: &[], passed: &[], store: true });
    let cookie = net.bind(At::Tcp(80));
    assert!(fdstore::is_ours(&fdstore::name(&net.entry(cookie, None).socket)));
}
