//! The sockets of a generation: those that were passed to it, those that it has taken over, and those that
//! it holds for its successor. Decides which of them the program gets, which are closed, and which of them
//! a successor gets. `F` is a descriptor.

use super::changes::Changes;
use super::fdstore;
use crate::proto::control::frame::{Address, Socket, SocketKind};
use std::collections::{BTreeMap, BTreeSet};
use std::mem;

/// A socket, and what a successor has to know of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry<F> {
    pub(crate) socket: Socket,
    pub(crate) fd: F,
    /// The kernel's number for this socket; `None` if the kernel does not tell it.
    pub(crate) cookie: Option<u64>,
    /// It is at an IPv6 address, and leaves IPv4 to others.
    pub(crate) only_v6: bool,
    /// A copy of it may be kept by launcher, keeper or store, which give it to the next start after a crash.
    pub(crate) outlives_crash: bool,
}

/// Where a socket came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    Supervisor,
    Predecessor,
    Store,
    Bound,
}

impl Origin {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Origin::Supervisor => "supervisor",
            Origin::Predecessor => "predecessor",
            Origin::Store => "store",
            Origin::Bound => "bound",
        }
    }
}

/// The members of a group between which the kernel spreads what arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Spread {
    All,
    First(u32),
}

/// A socket, and where it came from.
pub(crate) type Found<F> = (Entry<F>, Origin);
/// A member of a group, and what has to be done with the group.
pub(crate) type Steered<F> = (Entry<F>, Spread);

/// What identifies a request for a socket. An address with a port is one socket, whatever its name.
type Key = (SocketKind, Address, Option<String>);

fn key(kind: SocketKind, address: &Address, name: Option<&str>) -> Key {
    let name = name.filter(|_| address.is_any_port()).map(str::to_owned);
    (kind, address.clone(), name)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pool<F> {
    /// The program has asked for a socket. From then on, sockets that it does not ask for are closed.
    used: bool,
    /// Passed by the supervisor, and not asked for so far.
    passed: Vec<Entry<F>>,
    /// The cookies of all that were passed. The supervisor keeps these sockets itself.
    of_supervisor: Vec<u64>,
    /// From the supervisor's store, and not asked for so far.
    stored: Vec<Entry<F>>,
    /// The names and cookies of all sockets that were in the store at the start.
    in_store: Vec<(String, u64)>,
    /// What the predecessor held, and may have put there since: known as above.
    of_predecessor: Vec<(String, u64)>,
    /// The predecessor was asked, or there was none to ask.
    taken: bool,
    /// Held by the predecessor, and not asked for so far.
    received: BTreeMap<Key, Vec<Entry<F>>>,
    /// Held by the predecessor, and not asked for; each address is covered by one that was asked for.
    replaced: Vec<Entry<F>>,
    /// Asked for, and held for the successor; and the retired members of groups.
    held: Vec<Entry<F>>,
    /// What was asked for, so that nothing is asked for twice.
    asked: BTreeSet<Key>,
    /// What has to be done with groups as soon as this generation serves.
    groups: Vec<Steered<F>>,
    /// The first member of each group, and how many are ours. They come first in the kernel's order.
    own_groups: Vec<Steered<F>>,
    /// What has to be changed of sockets that others have bound, as soon as this generation takes over.
    changes: Vec<(Entry<F>, Changes)>,
    /// The drain has begun: nothing is held any more.
    let_go: bool,
}

impl<F> Pool<F> {
    pub(crate) const fn new() -> Self {
        Pool {
            used: false,
            passed: Vec::new(),
            of_supervisor: Vec::new(),
            stored: Vec::new(),
            in_store: Vec::new(),
            of_predecessor: Vec::new(),
            taken: false,
            received: BTreeMap::new(),
            replaced: Vec::new(),
            held: Vec::new(),
            asked: BTreeSet::new(),
            groups: Vec::new(),
            own_groups: Vec::new(),
            changes: Vec::new(),
            let_go: false,
        }
    }
}

impl<F: Clone> Pool<F> {
    // ---- found ----

    /// Adds a socket that was passed.
    pub(crate) fn pass(&mut self, entry: Entry<F>) {
        if let Some(name) = entry.socket.name.clone().filter(|name| fdstore::is_ours(name)) {
            self.in_store.extend(entry.cookie.map(|cookie| (name, cookie)));
            self.stored.push(entry);
            return;
        }
        self.of_supervisor.extend(entry.cookie);
        self.passed.push(entry);
    }

    /// The program has begun to ask for sockets.
    pub(crate) fn use_it(&mut self) {
        self.used = true;
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.taken
    }

    /// Adds what the predecessor has transferred. If the supervisor has passed the same socket, the
    /// supervisor's descriptor is used. If the same socket lies in the supervisor's store, the
    /// predecessor's is used, because the predecessor tells more about it.
    pub(crate) fn take(&mut self, entries: Vec<Entry<F>>) {
        self.taken = true;
        let passed: BTreeSet<u64> = self.passed.iter().filter_map(|entry| entry.cookie).collect();
        let mut known = passed.clone();
        for entry in entries {
            let cookie = entry.cookie;
            known.extend(cookie);
            self.of_predecessor.extend(cookie.map(|cookie| (fdstore::name(&entry.socket), cookie)));
            if cookie.is_none_or(|cookie| !passed.contains(&cookie)) {
                self.receive(entry);
            }
        }
        self.stored.retain(|entry| entry.cookie.is_none_or(|cookie| !known.contains(&cookie)));
        self.forget_stored_descriptors();
    }

    /// Adds members of a steered group, which are to be found as those of a plain one.
    pub(crate) fn receive_all(&mut self, entries: Vec<Entry<F>>) {
        entries.into_iter().for_each(|entry| self.receive(entry));
    }

    fn receive(&mut self, entry: Entry<F>) {
        let Socket { kind, asked, name, .. } = &entry.socket;
        let key = key(*kind, asked, name.as_deref());
        self.received.entry(key).or_default().push(entry);
    }

    /// Returns the address that was asked for before. Guards against two servers in one process that would
    /// take each other's connections.
    pub(crate) fn asked_before<'a>(&self, wanted: &'a Wanted<'_>) -> Option<&'a Address> {
        let is_known =
            |address: &&Address| self.asked.contains(&key(wanted.kind, address, wanted.name));
        wanted.addresses.iter().find(is_known)
    }

    /// The sockets that were found for a request; the rest has to be bound. All members of a
    /// predecessor's group are returned, even if the program asks for fewer. `is_lost`: the path no
    /// longer names the socket. An error means that a socket of this name was passed and is of another
    /// kind.
    pub(crate) fn find(
        &mut self,
        wanted: &Wanted<'_>,
        is_lost: impl Fn(&Entry<F>) -> bool,
    ) -> Result<Vec<Found<F>>, Box<Socket>> {
        let count = wanted.count();
        let from = |origin: Origin| move |entry: Entry<F>| (entry, origin);
        let passed = self.take_passed(wanted, count)?.into_iter();
        let mut found: Vec<Found<F>> = passed.map(from(Origin::Supervisor)).collect();
        if found.len() < count {
            let mut received = self.take_received(wanted, &is_lost);
            received.sort_by_key(|entry| entry.socket.member); // the order of the group
            found.extend(received.into_iter().map(from(Origin::Predecessor)));
        }
        if found.is_empty() {
            let stored = self.take_stored(wanted, count, &is_lost).into_iter();
            found.extend(stored.map(from(Origin::Store)));
        }
        Ok(found)
    }

    /// By name, else by kind and address; no more than are wanted.
    fn take_passed(
        &mut self,
        wanted: &Wanted<'_>,
        count: usize,
    ) -> Result<Vec<Entry<F>>, Box<Socket>> {
        let address = match self.passed.iter().find(|entry| wanted.is_named(entry)) {
            Some(entry) if entry.socket.kind != wanted.kind => {
                return Err(Box::new(entry.socket.clone()));
            }
            Some(entry) => Some(entry.socket.local.clone()),
            None => {
                let is_passed = |address: &&Address| {
                    let mut passed = self.passed.iter().map(|entry| &entry.socket);
                    passed.any(|one| one.kind == wanted.kind && one.local == **address)
                };
                wanted.addresses.iter().find(is_passed).cloned()
            }
        };
        let Some(address) = address else {
            return Ok(Vec::new());
        };
        // It is handed on under the address that was asked for.
        let asked = wanted.addresses.iter().find(|asked| **asked == address);
        let asked = asked.unwrap_or(&wanted.addresses[0]).clone();
        let mut found = Vec::new();
        for entry in mem::take(&mut self.passed) {
            let Socket { kind, local, .. } = &entry.socket;
            if found.len() < count && *kind == wanted.kind && *local == address {
                let socket = Socket { asked: asked.clone(), ..entry.socket };
                found.push(Entry { socket, ..entry });
            } else {
                self.passed.push(entry);
            }
        }
        Ok(found)
    }

    /// By kind and the address as it was asked for, port 0 also by name.
    fn take_received(
        &mut self,
        wanted: &Wanted<'_>,
        is_lost: impl Fn(&Entry<F>) -> bool,
    ) -> Vec<Entry<F>> {
        for address in &wanted.addresses {
            let key = key(wanted.kind, address, wanted.name);
            let Some(entries) = self.received.remove(&key) else { continue };
            let (unfit, found): (Vec<Entry<F>>, Vec<Entry<F>>) =
                entries.into_iter().partition(|entry| is_lost(entry) || !wanted.fits(entry));
            if !unfit.is_empty() {
                self.received.insert(key, unfit);
            }
            if !found.is_empty() {
                return found;
            }
        }
        self.take_received_at(wanted, is_lost)
    }

    /// By kind and the address that the kernel gives: the predecessor asked for port 0, and this generation
    /// asks for the port that the system chose.
    fn take_received_at(
        &mut self,
        wanted: &Wanted<'_>,
        is_lost: impl Fn(&Entry<F>) -> bool,
    ) -> Vec<Entry<F>> {
        for address in &wanted.addresses {
            let is_it = |entry: &Entry<F>| {
                entry.socket.kind == wanted.kind
                    && entry.socket.local == *address
                    && wanted.fits(entry)
                    && !is_lost(entry)
            };
            let inet = |(kind, ..): &&Key| kind.is_inet() || *kind == SocketKind::Vsock;
            let mut keys = self.received.keys().filter(inet);
            let Some(key) = keys.find(|key| self.received[*key].iter().all(is_it)).cloned() else {
                continue;
            };
            let as_asked = |entry: Entry<F>| {
                let (asked, name) = (address.clone(), wanted.name.map(str::to_owned));
                Entry { socket: Socket { asked, name, ..entry.socket }, ..entry }
            };
            let found = self.received.remove(&key).unwrap_or_default();
            return found.into_iter().map(as_asked).collect();
        }
        Vec::new()
    }

    /// What the store has under this request's names: all members of a group, in order. If there was a
    /// predecessor, it has transferred the same sockets itself.
    fn take_stored(
        &mut self,
        wanted: &Wanted<'_>,
        count: usize,
        is_lost: impl Fn(&Entry<F>) -> bool,
    ) -> Vec<Entry<F>> {
        for asked in &wanted.addresses {
            let one = |member| self.take_stored_member(wanted, asked, member);
            let members = (0..count as u32).map_while(one);
            let found: Vec<Entry<F>> = members.take_while(|entry| !is_lost(entry)).collect();
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }

    fn take_stored_member(
        &mut self,
        wanted: &Wanted<'_>,
        asked: &Address,
        member: u32,
    ) -> Option<Entry<F>> {
        let stem = fdstore::stem(wanted.kind, asked, wanted.name, member);
        let is_it = |entry: &Entry<F>| {
            let name = entry.socket.name.as_deref();
            entry.socket.kind == wanted.kind
                && wanted.fits(entry)
                && name.is_some_and(|name| fdstore::has_stem(name, &stem))
        };
        let at = self.stored.iter().position(is_it)?;
        let entry = self.stored.swap_remove(at);
        let file = entry.socket.name.as_deref().and_then(fdstore::file);
        let (asked, name) = (asked.clone(), wanted.name.map(str::to_owned));
        Some(Entry { socket: Socket { asked, name, member, file, ..entry.socket }, ..entry })
    }

    /// The request has failed. What was found for it may be asked for again.
    pub(crate) fn put_back(&mut self, found: Vec<Found<F>>) {
        for (entry, origin) in found {
            match origin {
                Origin::Supervisor => self.passed.push(entry),
                // As it is known now: under the address that was asked for.
                Origin::Predecessor | Origin::Store => self.receive(entry),
                Origin::Bound => {}
            }
        }
    }

    /// The program has got the first [`Wanted::count`] of them. The others retire. Returns them as they are
    /// known from now on, and what has to be done with their group now. `serves`: this generation serves.
    /// Before that, groups stay as the predecessor has set them.
    pub(crate) fn hold(
        &mut self,
        wanted: &Wanted<'_>,
        mut found: Vec<Found<F>>,
        serves: bool,
    ) -> (Vec<Found<F>>, Option<Steered<F>>) {
        let count = wanted.count();
        let mut steer = None;
        if wanted.group.is_some() || found.len() > count {
            let first = found[0].0.clone();
            if !self.let_go {
                self.own_groups.push((first.clone(), Spread::First(count as u32)));
            }
            let spread =
                if found.len() > count { Spread::First(count as u32) } else { Spread::All };
            if serves {
                steer = Some((first, spread));
            } else {
                self.groups.push((first, spread));
            }
        }
        let changes = wanted.changes.of(wanted.kind);
        for (at, (entry, origin)) in found.iter_mut().enumerate() {
            entry.socket.member = at as u32;
            entry.socket.retired = at >= count;
            // The supervisor's are as the supervisor has been told to make them.
            let is_older = matches!(origin, Origin::Predecessor | Origin::Store);
            if is_older && changes != Changes::NONE && !entry.socket.retired && !self.let_go {
                self.changes.push((entry.clone(), changes));
            }
            self.asked.insert(key(wanted.kind, &entry.socket.asked, wanted.name));
            if !self.let_go {
                self.held.push(entry.clone());
            }
        }
        (found, steer)
    }

    // ---- the stages ----

    /// This generation serves. Returns what has to be done with groups.
    pub(crate) fn steer(&mut self) -> Vec<Steered<F>> {
        self.changes.clear(); // they have been made
        mem::take(&mut self.groups)
    }

    /// This generation serves again, after a newer one has failed. That one may have left members of ours out, and
    /// closes its own.
    pub(crate) fn steer_back(&self) -> Vec<Steered<F>> {
        self.own_groups.clone()
    }

    /// This generation is about to take over. Returns what has to be changed of sockets that others have
    /// bound. Not before: if this generation failed, the older ones would serve with settings of a program
    /// that does not run.
    pub(crate) fn changes(&self) -> Vec<(Entry<F>, Changes)> {
        self.changes.clone()
    }

    /// This generation is about to serve. Returns what the program has not asked for, to be closed. What is
    /// replaced stays open until [`replaced`](Pool::replaced).
    pub(crate) fn unclaimed(&mut self) -> Vec<Found<F>> {
        if !self.used && !self.taken {
            return Vec::new();
        }
        // Otherwise the program finds by itself what was passed to it.
        let passed = if self.used { mem::take(&mut self.passed) } else { Vec::new() };
        let stored = mem::take(&mut self.stored).into_iter().map(|entry| (entry, Origin::Store));
        let received = mem::take(&mut self.received).into_values().flatten();
        let received = received.map(|entry| (entry, Origin::Predecessor));
        let unclaimed = self.keep_replaced(stored.chain(received).collect());
        // What the supervisor has passed is its own: others may get it from there.
        let passed = passed.into_iter().map(|entry| (entry, Origin::Supervisor));
        passed.chain(unclaimed).collect()
    }

    /// Are there members of groups that the program has not asked for?
    pub(crate) fn has_retired(&self) -> bool {
        self.held.iter().any(|entry| entry.socket.retired)
    }

    /// The retired members of groups, to be closed from the last one to the first. They stay open as
    /// long as an older generation that accepts from them may live. When a member is closed, the kernel
    /// moves another one to its place, and those that stay must keep their places.
    pub(crate) fn take_retired(&mut self) -> Vec<Entry<F>> {
        let held = mem::take(&mut self.held).into_iter();
        let (mut retired, held): (Vec<Entry<F>>, Vec<Entry<F>>) =
            held.partition(|entry| entry.socket.retired);
        self.held = held;
        retired.sort_by_key(|entry| entry.socket.member);
        retired
    }

    /// What a successor gets. `None` after the drain has begun.
    pub(crate) fn held(&self) -> Option<Vec<Entry<F>>> {
        (!self.let_go).then(|| self.held.clone())
    }

    /// The drain begins. From here on the program's own close is the last one in this process. The
    /// drain may begin before all is done that has to be done when serving begins.
    #[must_use = "to be closed"]
    pub(crate) fn let_go(&mut self) -> Vec<Entry<F>> {
        self.let_go = true;
        let mut gone = mem::take(&mut self.held);
        let groups = mem::take(&mut self.groups).into_iter();
        let groups = groups.chain(mem::take(&mut self.own_groups));
        gone.extend(groups.map(|(entry, _)| entry));
        gone.extend(mem::take(&mut self.changes).into_iter().map(|(entry, _)| entry));
        gone.extend(self.unclaimed().into_iter().map(|(entry, _)| entry));
        gone.extend(self.replaced());
        gone
    }
}

mod descriptors;
mod joined;
mod replaced;
mod store;
#[cfg(test)]
mod tests;
mod wanted;

pub(crate) use joined::joined;
pub(crate) use store::Store;
pub(crate) use wanted::Wanted;
