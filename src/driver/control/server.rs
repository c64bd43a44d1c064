//! The old daemon's side of the control socket: a thread that waits there, and one for each connection.

use super::Server;
use super::link::{CLOSED, Deadline};
use crate::driver::control::{status, transfer};
use crate::driver::counters;
use crate::driver::daemon::calls;
use crate::driver::generation::probation::Partner;
use crate::driver::handed::Sealed;
use crate::driver::log::{self, sockets::Event as Line};
use crate::driver::passing;
use crate::driver::shared::PROCESS;
use crate::driver::sockets::{self, Entry};
use crate::proto::control::frame::{self, Answer, Known, NamedState, Request, Socket, SocketKind};
use crate::proto::control::transfer::{Give, Giving};
use crate::proto::daemon::{Event, Input, RollbackCause};
use crate::shutdown::lock;
use crate::sys::seqpacket::Link;
use crate::sys::socket::Peer;
use crate::sys::wait;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// At most so many are answered at the same time; the others wait.
const CONNECTIONS: usize = 8;
const NOT_NEWER: &str = "the record does not say that it is a newer generation";
/// How soon a program is written that could not be written now.
const AGAIN: Duration = Duration::from_secs(1);

impl Server {
    pub(in crate::driver) fn run(&'static self) {
        let mut unsettled = false;
        loop {
            let listener = lock(&self.listener).clone();
            let older = std::mem::take(&mut *lock(&self.older));
            let mut ended: Vec<u64> = Vec::new();
            let mut fds = vec![self.waker.as_fd()];
            // At its limit, connections wait in the queue until one of those that run is through.
            let has_room = self.connections.load(Ordering::SeqCst) < CONNECTIONS;
            fds.extend(listener.as_ref().filter(|_| has_room).map(|listener| listener.as_fd()));
            fds.extend(older.iter().map(|(_, older)| older.as_fd()));
            wait::readable(&fds, unsettled.then_some(AGAIN));
            self.waker.clear();
            if !older.is_empty() {
                let (gone, left): (Vec<_>, Vec<_>) =
                    older.into_iter().partition(|(_, older)| older.has_ended());
                ended.extend(gone.into_iter().map(|(number, _)| number));
                if left.is_empty() {
                    sockets::stages::close_retired();
                } else {
                    lock(&self.older).extend(left);
                }
            }
            if unsettled || !ended.is_empty() {
                unsettled = sockets::flows::settle(&ended);
            }
            let Some(listener) = listener.filter(|_| has_room) else { continue };
            match listener.accept() {
                Ok(Some(link)) => self.answer(link),
                Ok(None) => {}
                Err(error) => {
                    log::write(Line::AcceptFailed { error: &error });
                    thread::sleep(Duration::from_millis(100)); // it stays readable
                }
            }
        }
    }

    /// Each on a thread of its own, so that one that hangs holds up nobody.
    fn answer(&'static self, link: Link) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let link = Arc::new(link);
        let theirs = Arc::clone(&link);
        let spawned = thread::Builder::new().name("seamless-answer".to_owned()).spawn(move || {
            self.answer_here(&theirs);
            drop(theirs);
            self.connections.fetch_sub(1, Ordering::SeqCst);
            self.waker.wake();
        });
        if spawned.is_err() {
            self.answer_here(&link);
            self.connections.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn answer_here(&self, link: &Arc<Link>) {
        let deadline = Deadline::after(self.timeout);
        let (peer, done) = match link.peer() {
            Ok(Some(peer)) => (Some(peer.pid), self.converse(link, peer, deadline)),
            Ok(None) => (None, refuse(link, "it is in another PID namespace".to_owned())),
            Err(error) => (None, refuse(link, format!("it cannot be known who asks: {error}"))),
        };
        if let Err(error) = done {
            log::write(Line::GiveFailed { peer, error: &error });
        }
    }

    fn converse(&self, link: &Arc<Link>, peer: Peer, deadline: Deadline) -> Result<(), String> {
        if !peer.may_control() {
            return refuse(link, format!("uid {} may not take over", peer.uid));
        }
        let (message, fds) = match link_message_with_fds(link, deadline) {
            Err(error) if error == CLOSED => return Ok(()), // it has only looked whether we are here
            message => message?,
        };
        if let Ok(Request::Flows { generation, sockets }) = message {
            return self.hold_flows(link, peer, generation, (sockets, fds), deadline);
        }
        refuse_fds(&fds)?;
        match message {
            Ok(Request::Status) => {
                let Some(daemon) = PROCESS.daemon() else { return Ok(()) };
                let status = status::of(daemon, self.since.elapsed()).format();
                deadline.send(link, &Answer::Status(status).format(), &[])
            }
            Ok(Request::Counters) => match counters::memory() {
                Some(memory) => deadline.send(link, &Answer::Counters.format(), &[memory.as_fd()]),
                None => {
                    let why = Answer::Refused("the program has no counters".to_owned());
                    deadline.send(link, &why.format(), &[])
                }
            },
            Ok(Request::Restart) => {
                let refused = calls::restart().err().map(|error| error.to_string());
                note_command("restart", peer, refused.as_deref());
                let answer = refused.map_or(Answer::Accepted, Answer::Refused);
                deadline.send(link, &answer.format(), &[])
            }
            Ok(Request::Stop) => {
                note_command("stop", peer, None);
                // First the answer: the process may end as soon as it is told.
                let sent = deadline.send(link, &Answer::Accepted.format(), &[]);
                calls::stop();
                sent
            }
            Ok(Request::StandBy { generation: theirs }) => self.stand_by(link, peer, theirs),
            Ok(Request::Wait { left_ms }) => {
                let Some(daemon) = PROCESS.daemon() else { return Ok(()) };
                let left = Duration::from_millis(left_ms);
                daemon.add_candidate(link, peer.pid, left).or_else(|why| refuse(link, why))
            }
            Ok(Request::Copy { known }) => self.copy(link, peer, known, deadline),
            Ok(Request::Pass { generation: theirs, open }) => {
                match passing::take::begin(link, peer, theirs, open) {
                    Ok(()) => Ok(()),
                    Err(why) => refuse(link, why),
                }
            }
            Ok(request @ (Request::Commit | Request::RollBack))
                if !may_end_probation(request == Request::RollBack) =>
            {
                refuse(link, "this generation is not on probation".to_owned())
            }
            Ok(request @ (Request::Commit | Request::RollBack)) => {
                let (name, event) = match request {
                    Request::Commit => ("commit", Event::Commit),
                    _ => ("rollback", Event::RollBack(RollbackCause::Operator)),
                };
                note_command(name, peer, None);
                if let Some(daemon) = PROCESS.daemon() {
                    daemon.post(Input::Probation(event));
                }
                deadline.send(link, &Answer::Accepted.format(), &[])
            }
            Ok(Request::Take { generation: theirs, known }) => {
                if let Err(why) = Giving::begin(calls::generation().unwrap_or(0), theirs) {
                    return refuse(link, why);
                }
                self.hand_over(link, peer, (theirs, known), deadline)
            }
            Ok(Request::Got { .. } | Request::Done | Request::Say(_) | Request::Flows { .. }) => {
                refuse(link, "it began in the middle".to_owned())
            }
            Err(refused) => refuse(link, format!("it sent {refused}")),
        }
    }

    /// A generation on probation sends the sockets of its flows, and then asks us to stand by.
    fn hold_flows(
        &self,
        link: &Arc<Link>,
        peer: Peer,
        theirs: u64,
        first: (Vec<Socket>, Vec<OwnedFd>),
        deadline: Deadline,
    ) -> Result<(), String> {
        let Some(service) = PROCESS.daemon().and_then(|daemon| daemon.service.as_ref()) else {
            return Ok(());
        };
        if service.newer_on_probation(theirs, peer.pid).is_none() {
            return refuse(link, NOT_NEWER.to_owned());
        }
        let mut entries: Vec<Entry> = Vec::new();
        let mut next = Some(first);
        while let Some((claimed, fds)) = next.take() {
            if claimed.len() != fds.len() {
                let (fds, sockets) = (fds.len(), claimed.len());
                return refuse(link, format!("it sent {fds} descriptors with {sockets} sockets"));
            }
            for (claimed, fd) in claimed.into_iter().zip(fds) {
                match transfer::check(claimed, fd) {
                    Ok(entry) => entries.push(entry),
                    Err(why) => return refuse(link, why),
                }
            }
            deadline.send(link, &Answer::Accepted.format(), &[])?;
            let (message, fds) = link_message_with_fds(link, deadline)?;
            match message {
                Ok(Request::Flows { generation, sockets }) if generation == theirs => {
                    next = Some((sockets, fds));
                }
                Ok(Request::StandBy { generation }) if generation == theirs => refuse_fds(&fds)?,
                _ => return refuse(link, "it sent no sockets and no stand-by".to_owned()),
            }
        }
        match sockets::flows::hold(entries) {
            Ok(()) => self.stand_by(link, peer, theirs),
            Err(why) => refuse(link, why),
        }
    }

    /// The thread that takes signals answers, and goes on with the connection.
    fn stand_by(&self, link: &Arc<Link>, peer: Peer, theirs: u64) -> Result<(), String> {
        let Some(daemon) = PROCESS.daemon() else { return Ok(()) };
        let newer = daemon.service.as_ref();
        let newer = newer.and_then(|service| service.newer_on_probation(theirs, peer.pid));
        let Some(held) = newer else {
            return refuse(link, NOT_NEWER.to_owned());
        };
        let link = Some(Arc::clone(link));
        *lock(&daemon.partner) = Some(Partner { number: theirs, pid: peer.pid, link, held });
        daemon.post(Input::Probation(Event::AskedToStandBy(theirs)));
        Ok(())
    }

    fn hand_over(
        &self,
        link: &Link,
        peer: Peer,
        (theirs, known): (u64, Known),
        deadline: Deadline,
    ) -> Result<(), String> {
        let began = Instant::now();
        // `None`: draining, so there is nothing left to hand over.
        let entries = PROCESS.sockets.held();
        let states = match &entries {
            None => Ok(Vec::new()),
            Some(_) => PROCESS.handed.give(known.has_states(), deadline, self.timeout),
        };
        let states = match states {
            Ok(states) => states,
            Err(why) => return refuse(link, why),
        };
        let (mut unnamed, mut named) = (None, Vec::new());
        for one in states {
            if one.0.name.is_empty() { unnamed = Some(one) } else { named.push(one) }
        }
        let mut entries = entries.unwrap_or_else(|| PROCESS.sockets.flows());
        entries.retain(|entry| known.has(entry.socket.kind));
        let bytes = unnamed.as_ref().map(|(state, _)| state.bytes);
        self.give(link, deadline, &entries, unnamed.as_ref(), &named)?;
        let is_descriptor = |entry: &&Entry| entry.socket.kind == SocketKind::Descriptor;
        let descriptors = entries.iter().filter(is_descriptor).count();
        log::write(Line::Given {
            generation: calls::generation(),
            successor: peer.pid,
            successor_generation: theirs,
            sockets: entries.len() - descriptors,
            state: bytes,
            states: named.len(),
            descriptors,
            elapsed_ms: began.elapsed(),
        });
        Ok(())
    }

    /// The sockets and states, message by message.
    fn give(
        &self,
        link: &Link,
        deadline: Deadline,
        entries: &[Entry],
        unnamed: Option<&Sealed>,
        named: &[Sealed],
    ) -> Result<(), String> {
        let bytes = unnamed.map(|(state, _)| state.bytes);
        let (mut rest, mut states) = (entries, named);
        let mut giving = Giving::new(rest.len(), bytes.is_some(), states.len());
        while !giving.is_through() {
            let fits = |_| match rest {
                [] => frame::chunk_of_states(states.iter().map(|(state, _)| state)),
                rest => frame::chunk(rest.iter().map(|entry| &entry.socket)),
            };
            match giving.next(fits) {
                Some(Give::Offer) => {
                    let generation = calls::generation().unwrap_or(0);
                    let (sockets, states) = (rest.len(), states.len());
                    let offer = Answer::Offer { generation, sockets, state: bytes, states };
                    deadline.send(link, &offer.format(), &[])?;
                }
                Some(Give::Sockets(0)) => {
                    return Err(format!("{} does not fit into a message", rest[0].socket.asked));
                }
                Some(Give::Sockets(count)) => {
                    let (chunk, more) = rest.split_at(count);
                    let sockets = chunk.iter().map(|entry| entry.socket.clone()).collect();
                    let fds: Vec<BorrowedFd<'_>> =
                        chunk.iter().map(|entry| entry.fd.as_fd()).collect();
                    deadline.send(link, &Answer::Sockets(sockets).format(), &fds)?;
                    rest = more;
                }
                Some(Give::State) => {
                    let (NamedState { bytes, .. }, memory) = unnamed.expect("there is one");
                    let message = Answer::State { bytes: *bytes };
                    deadline.send(link, &message.format(), &[memory.as_fd()])?;
                }
                Some(Give::States(count)) => {
                    let (chunk, more) = states.split_at(count);
                    let fds: Vec<BorrowedFd<'_>> =
                        chunk.iter().map(|(_, memory)| memory.as_fd()).collect();
                    let message = chunk.iter().map(|(state, _)| state.clone()).collect();
                    deadline.send(link, &Answer::States(message).format(), &fds)?;
                    states = more;
                }
                Some(Give::End) => deadline.send(link, &Answer::End.format(), &[])?,
                None => match link_message(link, deadline)? {
                    Ok(request) => giving.on(request)?,
                    Err(refused) => return Err(format!("it sent {refused}")),
                },
            }
        }
        Ok(())
    }

    /// Duplicates for a process that waits in `init`: what a keeper would get.
    fn copy(
        &self,
        link: &Link,
        peer: Peer,
        known: Known,
        deadline: Deadline,
    ) -> Result<(), String> {
        let mut entries = sockets::give::outliving();
        entries.retain(|entry| known.has(entry.socket.kind));
        self.give(link, deadline, &entries, None, &[])?;
        log::write(Line::Copied {
            generation: calls::generation(),
            candidate: peer.pid,
            sockets: entries.len(),
        });
        Ok(())
    }
}

fn may_end_probation(rolls_back: bool) -> bool {
    let daemon = PROCESS.daemon();
    daemon.is_some_and(|daemon| lock(&daemon.machine).may_end_probation(rolls_back))
}

fn refuse(link: &Link, why: String) -> Result<(), String> {
    _ = link.send(&Answer::Refused(why.clone()).format(), &[]);
    Err(why)
}

/// Who has asked for what, and what came of it.
fn note_command(request: &str, peer: Peer, refused: Option<&str>) {
    let (peer, uid) = (peer.pid, peer.uid);
    match refused {
        None => log::write(Line::Command { request, peer, uid }),
        Some(refused) => log::write(Line::CommandRefused { request, peer, uid, refused }),
    }
}

/// A request of the peer's. The outer error is the connection's, the inner one the message's.
fn link_message(link: &Link, deadline: Deadline) -> Result<Requested, String> {
    let (message, fds) = link_message_with_fds(link, deadline)?;
    refuse_fds(&fds)?;
    Ok(message)
}

type Requested = Result<Request, frame::Refused>;

fn link_message_with_fds(
    link: &Link,
    deadline: Deadline,
) -> Result<(Requested, Vec<OwnedFd>), String> {
    let message = deadline.receive(link)?;
    Ok((Request::parse(&message.bytes), message.fds))
}

fn refuse_fds(fds: &[OwnedFd]) -> Result<(), String> {
    match fds.len() {
        0 => Ok(()),
        count => Err(format!("it sent {count} descriptors that nobody asked for")),
    }
}
