//! The new daemon's side of a transfer: what the predecessor holds comes over its control socket.

use super::link::{CLOSED, Deadline, Unconnected, connect};
use crate::driver::generation::{HeldPredecessor, Service};
use crate::driver::handed::Sealed;
use crate::driver::log::{self, sockets::Event};
use crate::driver::shared::PROCESS;
use crate::driver::sockets::{self, Entry};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::{Answer, NamedState, Request, Socket, SocketKind};
use crate::proto::control::transfer::{
    Failed, Givers, Predecessor, Taking, Took, Untakeable, flow_givers, giver,
};
use crate::proto::paths;
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

/// Takes over from the predecessor, if there is one that hands over.
pub(in crate::driver) fn take(service: &Service, timeout: Duration) -> Result<Taken> {
    let Some(own) = service.number() else {
        return Ok(Taken::default()); // no claim, no predecessor
    };
    let deadline = Deadline::after(timeout);
    let mut predecessors = service.predecessors().inspect_err(|error| {
        if error.kind() == ErrorKind::AlreadyRunning {
            service.is_no_generation();
        }
    })?;
    let path = paths::control_socket(&service.pid_file);
    let refuse = |why: String| {
        Err(Error::new(
            ErrorKind::Takeover,
            format!("cannot take over at {path:?} (takeover): {why}"),
        ))
    };
    let at = |path: &Path| match connect(path, deadline) {
        Ok((link, listener)) => Ok(listener.map(|listener| (link, listener.pid))),
        Err(Unconnected::Nobody) => Ok(None),
        Err(Unconnected::Failed(why)) => Err(why),
    };
    let mut link = match at(&path) {
        Ok(link) => link,
        Err(why) => return refuse(why),
    };
    if link.is_none() && !predecessors.is_empty() {
        // A generation that has died before it told them to end may have taken the path.
        let second = at(&paths::standby_socket(&service.pid_file)).ok().flatten();
        link = second.filter(|(_, pid)| predecessors.iter().any(|one| one.about.pid == *pid));
    }
    if link.is_none() {
        predecessors.retain(|one| !(one.about.hands_over && one.is_ending()));
    }
    let known: Vec<_> = predecessors.iter().map(|one| one.about).collect();
    let predecessor = match giver(link.as_ref().map(|(_, pid)| *pid), &known) {
        Ok(predecessor) => predecessor,
        Err(Untakeable::Stranger(pid)) => {
            return refuse(format!(
                "process {pid} listens there, which is not proven to be a predecessor"
            ));
        }
        Err(Untakeable::NobodyListens(one)) => {
            return refuse(format!(
                "nobody listens there, while generation {} with daemon {} should; it looks after it \
                 each second",
                one.number, one.pid,
            ));
        }
    };
    let (Some(predecessor), Some((link, _))) = (predecessor, link) else {
        if let Some(generation) = service.crashed_sibling()? {
            return Ok(take_from_launcher(generation));
        }
        if let Some(taken) = take_copies() {
            return Ok(taken);
        }
        let mut taken = Taken::default();
        take_flows(service, own, timeout, &known, &mut taken);
        for one in known.iter().filter(|_| taken.entries.is_empty()) {
            log::write(Event::NothingTransferred {
                predecessor: one.pid,
                predecessor_generation: one.number,
            });
        }
        return Ok(taken);
    };
    let mut taken = Taken::default();
    let givers = Givers::new(predecessor, &known);
    let first = deadline.at_most(givers.first_limit(timeout));
    let received = match receive(&link, own, &predecessor, first, &mut taken) {
        Ok(()) => Ok(taken),
        Err(why) => {
            let is_it = |one: &&HeldPredecessor| one.about == predecessor;
            let ends = || predecessors.iter().find(is_it).is_some_and(HeldPredecessor::is_ending);
            match givers.failed(why == CLOSED, ends) {
                Failed::TakeFrom(standby) => {
                    log::write(Event::TransferFromStandby {
                        predecessor: predecessor.pid,
                        standby: standby.pid,
                        standby_generation: standby.number,
                        error: &why,
                    });
                    taken = Taken::default();
                    match at(&paths::standby_socket(&service.pid_file)) {
                        Ok(Some((link, pid))) if pid == standby.pid => {
                            let received = receive(&link, own, &standby, deadline, &mut taken);
                            received.map(|()| taken).or_else(|why| {
                                refuse(format!("process {}, which stands by: {why}", standby.pid))
                            })
                        }
                        Ok(_) | Err(_) => refuse(format!("process {}: {why}", predecessor.pid)),
                    }
                }
                Failed::UseWhatCame => {
                    log::write(Event::TransferHalfWay {
                        predecessor: predecessor.pid,
                        predecessor_generation: predecessor.number,
                        sockets: taken.entries.len(),
                    });
                    if let Some(copies) = take_copies() {
                        return Ok(Taken { states: taken.states, ..copies });
                    }
                    taken.entries.retain(|entry| entry.socket.flow.is_none());
                    Ok(taken)
                }
                Failed::Refuse => refuse(format!("process {}: {why}", predecessor.pid)),
            }
        }
    };
    received.map(|mut taken| {
        if taken.entries.iter().all(|entry| entry.socket.flow.is_none()) {
            take_flows(service, own, timeout, &known, &mut taken);
        }
        taken
    })
}

/// Each of those that drain answers at its own name.
fn take_flows(
    service: &Service,
    own: u64,
    timeout: Duration,
    known: &[Predecessor],
    taken: &mut Taken,
) {
    let (givers, limit) = flow_givers(known, timeout);
    for one in &givers {
        let path = paths::control_socket_of(&service.pid_file, one.number);
        let deadline = Deadline::after(limit);
        let link = match connect(&path, deadline) {
            Ok((link, listener)) if listener.is_some_and(|peer| peer.pid == one.pid) => link,
            Ok(_) | Err(Unconnected::Nobody | Unconnected::Failed(_)) => continue,
        };
        let mut part = Taken::default();
        match receive(&link, own, one, deadline, &mut part) {
            Ok(()) => {
                part.entries.retain(|entry| entry.socket.flow.is_some());
                if !part.entries.is_empty() {
                    taken.entries.extend(part.entries);
                    return;
                }
            }
            Err(why) => log::write(Event::FlowsNotReceived {
                predecessor: one.pid,
                predecessor_generation: one.number,
                error: &why,
            }),
        }
    }
}

/// The generation that served while we waited in `init` has died since.
fn take_copies() -> Option<Taken> {
    let (generation, entries) = PROCESS.sockets.take_copies()?;
    if entries.is_empty() {
        return None;
    }
    log::write(Event::CopiesUsed { predecessor_generation: generation, sockets: entries.len() });
    Some(Taken { generation: Some(generation), entries, states: Vec::new() })
}

/// While we wait in `init`: duplicates of the sockets of the generation that listens there.
pub(in crate::driver) fn copy(
    path: &Path,
    server: &Predecessor,
    timeout: Duration,
) -> Result<(u64, Vec<Entry>), String> {
    let deadline = Deadline::after(timeout);
    let link = match connect(path, deadline) {
        Ok((link, listener)) if listener.is_some_and(|peer| peer.pid == server.pid) => link,
        Ok(_) | Err(Unconnected::Nobody) => return Err("it does not listen any more".to_owned()),
        Err(Unconnected::Failed(why)) => return Err(why),
    };
    let mut taken = Taken::default();
    converse(&link, Taking::copy(server), server, deadline, &mut taken)?;
    Ok((server.number, taken.entries))
}

/// The launcher has learned of the crash as we have, or is about to.
fn take_from_launcher(generation: u64) -> Taken {
    let entries = PROCESS.from_launcher.take(LAUNCHER);
    if entries.is_empty() {
        return Taken::default();
    }
    log::write(Event::ReceivedFromLauncher {
        predecessor_generation: generation,
        sockets: entries.len(),
    });
    Taken { generation: Some(generation), entries, states: Vec::new() }
}

/// What comes is in `taken` at once.
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
        // It may have said why.
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

/// Is it what it claims to be?
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
