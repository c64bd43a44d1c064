//! Steered groups of UDP sockets: what this process does with them. `proto::flows` tells how they work, and
//! decides.

use super::bind::{ToBind, at_first};
use super::{Entry, Held, Obtained, Own, adjust, conflict, hand_out};
use crate::driver::log::{self, sockets::Event};
use crate::driver::shared::{Daemon, PROCESS};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::{Address, Flow, Secret, Socket, SocketKind, Steer};
use crate::proto::flows::bpf::Instruction;
use crate::proto::flows::layout::{Layout, NoSlot};
use crate::proto::flows::program::program;
use crate::proto::sockets::pool::{Found, Origin, Wanted};
use crate::shutdown::lock;
use crate::sys::socket::{self, Settings};
use crate::sys::{random, reuseport};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The steered groups of this process.
pub(super) struct Flows {
    groups: Vec<Group>,
    /// An older generation has ended, and the programs do not know it yet.
    unsettled: bool,
}

#[derive(Clone)]
struct Group {
    asked: Address,
    name: Option<String>,
    secret: Secret,
    layout: Layout,
    /// In the kernel's order.
    sockets: Vec<Entry>,
    /// The program has asked for it.
    claimed: bool,
    /// A bit for the slot of each generation that lives, or may live.
    living: Arc<AtomicU64>,
}

impl Flows {
    pub(super) const fn new() -> Flows {
        Flows { groups: Vec::new(), unsettled: false }
    }

    /// Adds what a predecessor has transferred. A group that is known already stays as it is; one of which
    /// some sockets are missing is left out.
    pub(super) fn take(&mut self, entries: Vec<Entry>) {
        for group in Group::all_of(entries) {
            if group.is_whole() && self.known(&group).is_none() {
                self.groups.push(group);
            }
        }
    }

    pub(super) fn is_member(&self, entry: &Entry) -> bool {
        let mut members = self.groups.iter().flat_map(|group| &group.sockets);
        entry.cookie.is_some() && members.any(|member| member.cookie == entry.cookie)
    }

    fn known(&mut self, group: &Group) -> Option<&mut Group> {
        self.groups.iter_mut().find(|known| known.is_it(&group.asked, group.name.as_deref()))
    }

    /// What a successor gets.
    pub(super) fn held(&self) -> Vec<Entry> {
        self.groups.iter().filter(|group| group.claimed).flat_map(Group::entries).collect()
    }

    /// The drain begins: of generations that come from now on, this one does not learn. So it takes each for a living
    /// one.
    pub(super) fn learn_no_more(&self) {
        for group in &self.groups {
            group.living.store(u64::MAX, Ordering::SeqCst);
        }
    }

    pub(super) fn is_used(&self) -> bool {
        self.groups.iter().any(|group| group.claimed)
    }

    /// The members of a group that the program asks for without steering: from now on, a plain group.
    pub(super) fn forget(&mut self, wanted: &Wanted<'_>) -> Vec<Entry> {
        let Some(place) = self.place_of(wanted) else { return Vec::new() };
        let group = self.groups.remove(place);
        let mut entries: Vec<Entry> = group.entries().collect();
        entries.iter_mut().for_each(|entry| entry.socket.flow = None);
        entries
    }

    fn place_of(&self, wanted: &Wanted<'_>) -> Option<usize> {
        if wanted.kind != SocketKind::Udp {
            return None;
        }
        let mut addresses = wanted.addresses.iter();
        addresses.find_map(|asked| {
            self.groups.iter().position(|group| {
                !group.claimed
                    && (group.is_it(asked, wanted.name.filter(|_| asked.is_any_port()))
                        || group.sockets[0].socket.local == *asked)
            })
        })
    }
}

impl Group {
    fn new(asked: Address, name: Option<String>, secret: Secret, sockets: Vec<Entry>) -> Group {
        let (layout, living) = (Layout::default(), Arc::default());
        Group { asked, name, secret, layout, sockets, claimed: false, living }
    }

    /// Sorts sockets into their groups, and by their places. Some sockets may be missing.
    fn all_of(entries: Vec<Entry>) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for entry in entries {
            let Socket { asked, name, .. } = &entry.socket;
            let name = name.clone().filter(|_| asked.is_any_port());
            let Some(secret) = entry.socket.flow.as_ref().map(|flow| flow.secret) else { continue };
            match groups.iter_mut().find(|group| group.is_it(asked, name.as_deref())) {
                Some(group) => group.sockets.push(entry),
                None => groups.push(Group::new(asked.clone(), name, secret, vec![entry])),
            }
        }
        for group in &mut groups {
            group.sockets.sort_by_key(|entry| entry.socket.member);
            let owner = |entry: &Entry| entry.socket.flow.as_ref().and_then(|flow| flow.owner);
            group.layout = Layout::new(group.sockets.iter().map(owner).collect());
        }
        groups
    }

    fn is_whole(&self) -> bool {
        self.sockets.iter().zip(0..).all(|(one, at)| one.socket.member == at)
    }

    fn is_it(&self, asked: &Address, name: Option<&str>) -> bool {
        self.asked == *asked && self.name.as_deref() == name
    }

    /// As a successor has to know them.
    fn entries(&self) -> impl Iterator<Item = Entry> {
        let owners = self.layout.places().iter();
        self.sockets.iter().zip(owners).zip(0..).map(|((entry, owner), member)| {
            let mut entry = entry.clone();
            entry.socket.asked = self.asked.clone();
            entry.socket.member = member;
            entry.socket.flow = Some(Box::new(Flow { owner: *owner, secret: self.secret }));
            entry
        })
    }

    fn local(&self) -> &Address {
        &self.sockets[0].socket.local
    }

    /// From now on, new flows go to the generation `newest`. If it has no socket in this group, nothing changes.
    fn write(&self, newest: u64) {
        if self.layout.places_of(newest).is_empty() {
            return;
        }
        let steered = program(&self.layout, newest, &self.secret)
            .map_err(|long| too_long(long.instructions))
            .and_then(|program| reuseport::attach(self.sockets[0].fd.as_fd(), &program));
        let slots = self.layout.places().iter().flatten().map(|owner| owner.slot);
        let living = slots.fold(0_u64, |living, slot| living | 1 << slot);
        self.living.store(living, Ordering::SeqCst);
        let address = self.local();
        match steered {
            Ok(()) => log::write(Event::Steered {
                address,
                newest,
                generations: self.layout.generations().len(),
                members: self.layout.places_of(newest).len(),
            }),
            Err(error) => log::write(Event::FlowsNotSteered { address, error: &error }),
        }
    }
}

fn too_long(instructions: usize) -> io::Error {
    let text = format!(
        "the program would have {instructions} instructions: the group has too many members in too mixed \
         an order"
    );
    io::Error::other(text)
}

// ---- asked for ----

/// What there is around the call.
pub(super) struct Asking<'a> {
    pub(super) daemon: &'a Daemon,
    pub(super) wanted: &'a Wanted<'a>,
    pub(super) steer: Steer,
    pub(super) settings: Settings,
    /// What the program does itself.
    pub(super) own: &'a Own,
    /// The older generations that have not ended.
    pub(super) older: BTreeSet<u64>,
}

/// What older generations have of the group that is asked for.
struct There {
    group: Group,
    /// The group was steered by them.
    is_known: bool,
    /// Its sockets, if they have not steered it.
    plain: Vec<Found<Arc<OwnedFd>>>,
    /// The program by which these get everything until this generation serves.
    program: Option<Vec<Instruction>>,
}

/// The members of this generation, and duplicates of them for the program. Those of older ones stay in the group.
pub(super) fn obtain(asking: &Asking<'_>) -> Result<Obtained> {
    let Asking { daemon, wanted, steer, .. } = asking;
    if let Some(why) = steer.refusal(wanted.count()) {
        return Err(cannot_steer(wanted, why));
    }
    let mut held = lock(&PROCESS.sockets.held);
    let There { mut group, is_known, plain, program } = look(wanted, &mut held)?;
    let predecessor = held.predecessor;
    drop(held); // while code of the program may run
    let number = daemon.generation().unwrap_or(0);
    let obtained = join(asking, &mut group, number, program).and_then(|places| {
        let members = places.into_iter().zip(0..).map(|((at, origin), member)| {
            let mut entry = group.sockets[at].clone();
            entry.socket.member = member; // for the log
            (entry, origin)
        });
        let members: Vec<Found<_>> = members.collect();
        let bound = members.iter().filter(|(_, origin)| *origin == Origin::Bound);
        adjust::adjust_all(asking.own, bound.map(|(entry, _)| entry))?;
        let handed = hand_out(&members)?;
        Ok((members, handed))
    });
    let mut held = lock(&PROCESS.sockets.held);
    match obtained {
        Ok(obtained) => {
            held.pool.note_asked(wanted, &group.asked);
            group.claimed = true;
            if !daemon.is_starting() {
                group.write(number);
            }
            match held.flows.place_of(wanted) {
                Some(place) => held.flows.groups[place] = group,
                None => held.flows.groups.push(group),
            }
            Ok(obtained)
        }
        Err(error) => {
            held.pool.put_back(plain);
            drop((held, group));
            if is_known || daemon.service.is_none() {
                return Err(error);
            }
            Err(conflict::explain(daemon, wanted, &[], predecessor, error))
        }
    }
}

fn cannot_steer(wanted: &Wanted<'_>, why: String) -> Error {
    let text = format!("cannot steer {} (socket): {why}", wanted.addresses[0]);
    Error::new(ErrorKind::Socket, text)
}

fn look(wanted: &Wanted<'_>, held: &mut Held) -> Result<There> {
    if held.pool.is_passed(wanted) {
        let why = "the supervisor has passed a socket at this address";
        let hint = "each generation binds members of its own: remove this address from the settings of the \
                    supervisor (systemd: ListenDatagram=)";
        return Err(cannot_steer(wanted, why.to_owned()).hint(hint));
    }
    let place = held.flows.place_of(wanted);
    let (group, plain, program) = match place {
        Some(place) => (held.flows.groups[place].clone(), Vec::new(), None),
        None => {
            let plain = held.pool.find(wanted, |_| false);
            let plain = plain.map_err(|_| cannot_steer(wanted, "it is passed".to_owned()))?;
            match join_plain(wanted, &plain, held.predecessor.unwrap_or(0)) {
                Ok((group, program)) => (group, plain, program),
                Err(error) => {
                    held.pool.put_back(plain);
                    return Err(error);
                }
            }
        }
    };
    let Some(other) = overlap(held, &group, wanted) else {
        return Ok(There { group, is_known: place.is_some(), plain, program });
    };
    held.pool.put_back(plain);
    let why = format!("it overlaps with {other}, which an older generation holds");
    let hint = "flows cannot move from one group to another: keep the address, or stop the service and start it \
                again";
    Err(cannot_steer(wanted, why).hint(hint))
}

/// A group made of what a predecessor has bound without steering, if there is any. Also returns the program that
/// gives everything to these sockets until this generation serves.
fn join_plain(
    wanted: &Wanted<'_>,
    plain: &[Found<Arc<OwnedFd>>],
    giver: u64,
) -> Result<(Group, Option<Vec<Instruction>>)> {
    let mut secret = Secret([0; Secret::LENGTH]);
    random(&mut secret.0)
        .map_err(|error| Error::io(ErrorKind::System, "cannot get random bytes (socket)", error))?;
    let asked = plain.first().map_or(&wanted.addresses[0], |(entry, _)| &entry.socket.asked);
    let name = wanted.name.filter(|_| asked.is_any_port()).map(str::to_owned);
    let sockets: Vec<Entry> = plain.iter().map(|(entry, _)| entry.clone()).collect();
    for entry in &sockets {
        reuseport::share_port(entry.fd.as_fd()).map_err(|error| {
            let text = format!("cannot share udp {} (socket)", entry.socket.local);
            Error::io(ErrorKind::Socket, text, error)
        })?;
    }
    let mut group = Group::new(asked.clone(), name, secret, sockets);
    // What lay in the supervisor's store belongs to nobody.
    group.layout = Layout::new(vec![None; plain.len()]);
    if !matches!(plain.first(), Some((_, Origin::Predecessor))) {
        return Ok((group, None));
    }
    // Cannot fail: the group has no other generation.
    _ = group.layout.admit(giver, plain.len(), Steer::Newest, &[], |_| true);
    let before = program(&group.layout, giver, &group.secret).ok();
    if let Some(program) = &before {
        // Fails for a socket that was alone: so far, it is in no group.
        _ = reuseport::attach(group.sockets[0].fd.as_fd(), program);
    }
    Ok((group, before))
}

/// An address of an older generation at which flows could be lost.
fn overlap(held: &Held, group: &Group, wanted: &Wanted<'_>) -> Option<Address> {
    let flows = held.flows.groups.iter().filter(|one| !one.claimed && one.asked != group.asked);
    let sockets = flows.map(|group| &group.sockets[0]);
    let met = sockets.filter(|entry| wanted.meets(entry)).map(|entry| entry.socket.local.clone());
    let plain = held.pool.overlapping(wanted).into_iter().map(|(entry, _)| entry.socket.local);
    met.chain(plain).next()
}

/// Gives this generation its members: sockets of generations that have ended, and new ones. Returns their
/// places. `before`: the program of a group that may have none yet.
fn join(
    asking: &Asking<'_>,
    group: &mut Group,
    own: u64,
    before: Option<Vec<Instruction>>,
) -> Result<Vec<(usize, Origin)>> {
    let Asking { wanted, steer, settings, older, .. } = asking;
    let fail = |why: String| {
        Error::new(ErrorKind::Socket, format!("cannot steer {} (socket): {why}", group.asked))
    };
    // If the newest generation has crashed, new flows wait at its sockets.
    let newest = group.layout.generations().last().copied();
    let first = newest.map(|newest| group.layout.places_of(newest)).unwrap_or_default();
    group.layout.free(|generation| older.contains(&generation));
    let sockets = group.sockets.clone();
    // A connected socket gets only what its peer sends.
    let usable = |at: usize| !socket::is_connected(sockets[at].fd.as_fd());
    let admitted = group.layout.admit(own, wanted.count(), *steer, &first, usable);
    let admitted = admitted.map_err(|NoSlot { generations }| {
        fail(format!("{generations} generations live, and there is no value for one more"))
            .hint("wait until one of them has ended, or use a mask with more bits")
    })?;
    let program = program(&group.layout, own, &group.secret)
        .map_err(|long| fail(too_long(long.instructions).to_string()))?;
    for at in admitted.places.iter().filter(|at| **at < sockets.len()) {
        // Nobody reads from it any more.
        _ = socket::set_nonblocking(sockets[*at].fd.as_fd(), settings.nonblocking);
    }
    let new = admitted.places.iter().filter(|at| **at >= sockets.len()).count();
    let is_fresh = sockets.is_empty();
    let mut left = new;
    if is_fresh {
        group.sockets = bind_first(asking).map_err(bind_failed)?;
        group.asked = group.sockets[0].socket.asked.clone();
        left -= 1;
        // So far, the group has only this socket, which is ours.
        let attached = match reuseport::attach(group.sockets[0].fd.as_fd(), &program) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()), // not Linux: no restarts
            done => done,
        };
        attached.map_err(|error| {
            let text = format!("cannot steer {} (socket)", group.asked);
            Error::io(ErrorKind::Socket, text, error).hint(
                "classic BPF for SO_REUSEPORT needs Linux 4.5, and seccomp must not forbid it",
            )
        })?;
    }
    let Address::Inet(local) = *group.local() else { unreachable!("a UDP socket") };
    if let Some(before) = before.filter(|_| left > 0) {
        group.sockets.extend(bind_more(asking, &group.asked, local, 1).map_err(join_failed)?);
        left -= 1;
        _ = reuseport::attach(group.sockets[0].fd.as_fd(), &before);
    }
    group.sockets.extend(bind_more(asking, &group.asked, local, left).map_err(join_failed)?);
    let origin = |at| if at < sockets.len() { Origin::Predecessor } else { Origin::Bound };
    Ok(admitted.places.into_iter().map(|at| (at, origin(at))).collect())
}

fn bind_failed(error: Error) -> Error {
    match error.is_denied() {
        true => error.hint(
            "each generation binds members of its own: give the program CAP_NET_BIND_SERVICE (systemd: \
             AmbientCapabilities=), or lower net.ipv4.ip_unprivileged_port_start",
        ),
        false => error,
    }
}

/// The error of a socket that was to be bound beside those of older generations.
fn join_failed(error: Error) -> Error {
    match error.is_address_in_use() {
        true => error.hint(
            "sockets of one user share a port, and of no other (SO_REUSEPORT): start the service as the user \
             that it had, or stop it first",
        ),
        false => bind_failed(error),
    }
}

/// The first socket of a group. Sockets of others, which would get some of the flows, are an error.
fn bind_first(asking: &Asking<'_>) -> Result<Vec<Entry>> {
    let Asking { wanted, settings, .. } = asking;
    at_first(&wanted.addresses, |asked| {
        let Address::Inet(address) = *asked else { unreachable!("only UDP has flows") };
        let alone = Settings { reuse_port: false, ..*settings };
        // Closed at once: it is only tried.
        match socket::bind(SocketKind::Udp, address, alone).map(drop) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let text = format!("cannot bind udp {address} (socket)");
                Err(Error::io(ErrorKind::Socket, text, error))
            }
            // Every other error comes again, unless the program makes the socket in another way.
            Ok(()) | Err(_) => bind_more(asking, asked, address, 1),
        }
    })
}

fn bind_more(
    asking: &Asking<'_>,
    asked: &Address,
    address: SocketAddr,
    count: usize,
) -> Result<Vec<Entry>> {
    let settings = Settings { reuse_port: true, ..asking.settings };
    let (wanted, make) = (asking.wanted, asking.own.make.as_ref());
    let to_bind =
        ToBind { wanted, settings, make, found: &[], overlapping: &[], predecessors: &[] };
    to_bind.members(asked, address, count)
}

mod member;
mod stages;

pub(crate) use member::{Member, member};
pub(in crate::driver) use stages::{finish, hold, named, settle, steer_to, take_over, written};
