//! The new daemon's side of a transfer: what the predecessor holds comes over its control socket.

use super::link::{CLOSED, Deadline, Unconnected, connect, connect_to};
use crate::driver::generation::{HeldPredecessor, Service};
use crate::driver::handed::Sealed;
use crate::driver::log::{self, sockets::Event};
use crate::driver::shared::PROCESS;
use crate::driver::sockets::{self, Entry};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::{Answer, NamedState, Request, Socket, SocketKind};
use crate::proto::control::transfer::{
    Failed, Gave, Givers, Predecessor, Source, Taking, Took, Untakeable, flow_givers, giver,
    listener, sources,
};
use crate::proto::paths;
use crate::proto::sockets::pool;
use crate::sys::memfd;
use crate::sys::seqpacket::Link;
use crate::sys::{descriptor, rlimit, socket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the launcher may take to give the sockets of a daemon that has crashed.
const LAUNCHER: Duration = Duration::from_secs(1);

/// What was taken over, or as much of it as came before the predecessor's end.
#[derive(Default)]
pub(in crate::driver) struct Taken {
    /// Whose it was.
    pub(in crate::driver) generation: Option<u64>,
    pub(in crate::driver) entries: Vec<Entry>,
    /// The one without a name, too.
    pub(in crate::driver) states: Vec<Sealed>,
}

/// Takes over what older generations of this service hold.
pub(in crate::driver) fn take(service: &Service, timeout: Duration) -> Result<Taken> {
    let Some(own) = service.number() else {
        return Ok(Taken::default()); // no claim, no predecessor
    };
    let predecessors = service.predecessors().inspect_err(|error| {
        if error.kind() == ErrorKind::AlreadyRunning {
            service.is_no_generation();
        }
    })?;
    let take = Take {
        service,
        own,
        timeout,
        deadline: Deadline::after(timeout),
        known: predecessors.iter().map(|one| one.about).collect(),
        predecessors,
    };
    let mut taken = Taken::default();
    let gave = match take.giver()? {
        Some((giver, link)) => take.from(giver, link, &mut taken)?,
        None => Gave::Nothing { crashed: service.crashed_sibling()? },
    };
    for source in sources(gave) {
        let found = match source {
            Source::Launcher(generation) => taken.use_those_of_launcher(generation),
            Source::Copies => taken.use_copies(),
            Source::WhatCame => taken.use_what_came(),
            Source::Draining => take.add_flows(&mut taken),
        };
        if found {
            break;
        }
    }
    if taken.generation.is_none() && taken.entries.is_empty() {
        for one in take.known.iter().filter(|one| !one.hands_over) {
            log::write(Event::NothingTransferred {
                predecessor: one.pid,
                predecessor_generation: one.number,
            });
        }
    }
    Ok(taken)
}

struct Take<'a> {
    service: &'a Service,
    own: u64,
    timeout: Duration,
    deadline: Deadline,
    predecessors: Vec<HeldPredecessor>,
    known: Vec<Predecessor>,
}

impl Take<'_> {
    /// From whom, and the connection to it.
    fn giver(&self) -> Result<Option<(Predecessor, Link)>> {
        let pid_file = &self.service.pid_file;
        let first = self.connect(&paths::control_socket(pid_file));
        let first = first.map_err(|why| self.refused(&why))?;
        let second = || self.connect(&paths::standby_socket(pid_file)).ok().flatten();
        let found = listener(first, second, |(_, pid)| *pid, &self.known);
        let (link, listens) = found.unzip();
        match giver(listens, &self.known, |one| self.ends(one)) {
            Ok(giver) => Ok(giver.zip(link)),
            Err(Untakeable::Stranger(pid)) => Err(self.refused(&format!(
                "process {pid} listens there, which is not proven to be a predecessor"
            ))),
            Err(Untakeable::NobodyListens(one)) => Err(self.refused(&format!(
                "nobody listens there, while generation {} with daemon {} should; it looks after it \
                 each second",
                one.number, one.pid,
            ))),
        }
    }

    /// Takes from the first one. If that fails, takes from the generation that stands by.
    fn from(&self, first: Predecessor, link: Link, taken: &mut Taken) -> Result<Gave> {
        let givers = Givers::new(first, &self.known);
        let limit = self.deadline.at_most(givers.first_limit(self.timeout));
        let Err(why) = receive(&link, self.own, &first, limit, taken) else {
            return Ok(taken.all());
        };
        let refused = || Err(self.refused(&format!("process {}: {why}", first.pid)));
        match givers.failed(why == CLOSED, || self.ends(&first)) {
            Failed::TakeFrom { next: standby, keep } => {
                log::write(Event::TransferFromStandby {
                    predecessor: first.pid,
                    standby: standby.pid,
                    standby_generation: standby.number,
                    error: &why,
                });
                let came = std::mem::take(taken);
                let path = paths::standby_socket(&self.service.pid_file);
                let Ok(link) = connect_to(standby.pid, &path, self.deadline) else {
                    return refused();
                };
                receive(&link, self.own, &standby, self.deadline, taken).map_err(|why| {
                    self.refused(&format!("process {}, which stands by: {why}", standby.pid))
                })?;
                if keep {
                    taken.add(came);
                }
                Ok(taken.all())
            }
            Failed::UseWhatCame => {
                log::write(Event::TransferHalfWay {
                    predecessor: first.pid,
                    predecessor_generation: first.number,
                    sockets: taken.entries.len(),
                });
                Ok(Gave::Half { crashed: self.service.crashed_sibling()? })
            }
            Failed::Refuse => refused(),
        }
    }

    /// Each generation that drains answers at a control socket with a name of its own.
    fn add_flows(&self, taken: &mut Taken) -> bool {
        let (givers, limit) = flow_givers(&self.known, self.timeout);
        for one in &givers {
            let path = paths::control_socket_of(&self.service.pid_file, one.number);
            let deadline = Deadline::after(limit);
            let Ok(link) = connect_to(one.pid, &path, deadline) else { continue };
            let mut part = Taken::default();
            if let Err(why) = receive(&link, self.own, one, deadline, &mut part) {
                log::write(Event::FlowsNotReceived {
                    predecessor: one.pid,
                    predecessor_generation: one.number,
                    error: &why,
                });
                continue;
            }
            part.entries.retain(|entry| entry.socket.flow.is_some());
            if !part.entries.is_empty() {
                taken.entries.extend(part.entries);
                return true;
            }
        }
        false
    }

    /// The connection to the process that listens there, and its PID.
    fn connect(&self, path: &Path) -> Result<Option<(Link, i32)>, String> {
        match connect(path, self.deadline) {
            Ok((link, listener)) => Ok(listener.map(|listener| (link, listener.pid))),
            Err(Unconnected::Nobody) => Ok(None),
            Err(Unconnected::Failed(why)) => Err(why),
        }
    }

    fn ends(&self, one: &Predecessor) -> bool {
        let held = self.predecessors.iter().find(|held| held.about == *one);
        held.is_some_and(HeldPredecessor::is_ending)
    }

    fn refused(&self, why: &str) -> Error {
        let path = paths::control_socket(&self.service.pid_file);
        Error::new(ErrorKind::Takeover, format!("cannot take over at {path:?} (takeover): {why}"))
    }
}

impl Taken {
    fn all(&self) -> Gave {
        Gave::All { flows: self.entries.iter().any(|entry| entry.socket.flow.is_some()) }
    }

    /// The launcher has learned of the crash as we have, or is about to.
    fn use_those_of_launcher(&mut self, generation: u64) -> bool {
        let entries = PROCESS.from_launcher.take(LAUNCHER);
        let sockets = entries.len();
        if sockets > 0 {
            self.generation = Some(generation);
            let came = std::mem::replace(&mut self.entries, entries);
            self.add(Taken { entries: came, ..Taken::default() });
            log::write(Event::ReceivedFromLauncher { predecessor_generation: generation, sockets });
        }
        sockets > 0
    }

    /// The generation that served while we waited in `init` has died since.
    fn use_copies(&mut self) -> bool {
        let copies = PROCESS.sockets.take_copies().filter(|(_, entries)| !entries.is_empty());
        let Some((generation, entries)) = copies else { return false };
        let sockets = entries.len();
        log::write(Event::CopiesUsed { predecessor_generation: generation, sockets });
        (self.generation, self.entries) = (Some(generation), entries);
        true
    }

    /// What came of one that has died.
    fn add(&mut self, mut came: Taken) {
        came.use_what_came();
        self.entries = pool::joined(std::mem::take(&mut self.entries), came.entries);
    }

    fn use_what_came(&mut self) -> bool {
        self.entries.retain(|entry| entry.socket.flow.is_none());
        !self.entries.is_empty()
    }
}

/// While we wait in `init`: duplicates of the sockets of the generation that listens there.
pub(in crate::driver) fn copy(
    path: &Path,
    server: &Predecessor,
    timeout: Duration,
) -> Result<(u64, Vec<Entry>), String> {
    let deadline = Deadline::after(timeout);
    let link = connect_to(server.pid, path, deadline).map_err(|error| match error {
        Unconnected::Nobody => "it does not listen any more".to_owned(),
        Unconnected::Failed(why) => why,
    })?;
    let mut taken = Taken::default();
    converse(&link, Taking::copy(server), server, deadline, &mut taken)?;
    Ok((server.number, taken.entries))
}

/// Each socket and state is in `taken` as soon as it has come.
fn receive(
    link: &Link,
    own: u64,
    predecessor: &Predecessor,
    deadline: Deadline,
    taken: &mut Taken,
) -> Result<(), String> {
    let began = Instant::now();
    converse(link, Taking::begin(own, predecessor), predecessor, deadline, taken)?;
    let is_descriptor = |entry: &&Entry| entry.socket.kind == SocketKind::Descriptor;
    let descriptors = taken.entries.iter().filter(is_descriptor).count();
    let states = taken.states.iter().map(|(state, _)| state);
    let mut unnamed = states.clone().filter(|state| state.name.is_empty());
    let named = states.filter(|state| !state.name.is_empty());
    log::write(Event::Received {
        predecessor: predecessor.pid,
        predecessor_generation: predecessor.number,
        sockets: taken.entries.len() - descriptors,
        state: unnamed.next().map(|state| state.bytes),
        states: named.count(),
        descriptors,
        elapsed_ms: began.elapsed(),
    });
    Ok(())
}

/// Message by message.
fn converse(
    link: &Link,
    (mut taking, first): (Taking, Request),
    predecessor: &Predecessor,
    deadline: Deadline,
    taken: &mut Taken,
) -> Result<(), String> {
    if let Err(closed) = deadline.send(link, &first.format(), &[]) {
        // The other side may have said why before it closed the connection.
        let (answer, fds) = answer(link, deadline)?;
        return Err(taking.on(answer, fds.len()).err().unwrap_or(closed));
    }
    loop {
        let (answer, fds) = answer(link, deadline)?;
        let (took, reply) = taking.on(answer, fds.len())?;
        let is_end = took == Took::End;
        match took {
            Took::Offer(sockets) => {
                taken.generation = Some(predecessor.number);
                if sockets > 0 {
                    rlimit::make_room(2 * sockets as u64);
                    taken.entries.reserve(sockets);
                }
            }
            Took::Sockets(claimed) => {
                for (claimed, fd) in claimed.into_iter().zip(fds) {
                    taken.entries.push(check(claimed, fd)?);
                }
            }
            Took::State(bytes) => {
                let memory = fds.into_iter().next().expect("one");
                let memory = memfd::check_sealed(memory, bytes)?;
                let unnamed = NamedState { name: String::new(), version: 0, bytes };
                taken.states.push((unnamed, memory));
            }
            Took::States(states) => {
                for (state, memory) in states.into_iter().zip(fds) {
                    let memory = memfd::check_sealed(memory, state.bytes)?;
                    taken.states.push((state, memory));
                }
            }
            Took::End => {}
        }
        if let Some(reply) = reply {
            deadline.send(link, &reply.format(), &[])?;
        }
        if is_end {
            return Ok(());
        }
    }
}

fn answer(link: &Link, deadline: Deadline) -> Result<(Answer, Vec<OwnedFd>), String> {
    let message = deadline.receive(link)?;
    match Answer::parse(&message.bytes) {
        Ok(answer) => Ok((answer, message.fds)),
        Err(refused) => Err(format!("it sent {refused}")),
    }
}

/// Is the descriptor what the message says that it is?
pub(super) fn check(claimed: Socket, fd: OwnedFd) -> Result<Entry, String> {
    let wrong = |why: String| {
        format!(
            "the {} socket that it sent for {} is not one: {why}",
            claimed.kind.name(),
            claimed.local
        )
    };
    if claimed.kind == SocketKind::Descriptor {
        let Socket { asked, local, .. } = &claimed;
        let differs = (asked != local).then(|| format!("its names differ: {local}"));
        return match differs.or_else(|| descriptor::bound_to_a_process(fd.as_fd())) {
            None => Ok(sockets::entry(claimed, fd)),
            Some(why) => Err(format!("the descriptor {asked} cannot be used: {why}")),
        };
    }
    let (kind, local) = socket::describe(fd.as_fd()).map_err(wrong)?;
    if kind != claimed.kind {
        return Err(wrong(format!("it is a {} socket", kind.name())));
    }
    if local != claimed.local {
        return Err(wrong(format!("it is bound to {local}")));
    }
    Ok(sockets::entry(claimed, fd))
}
