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
use crate::driver::retry;
use crate::driver::shared::{Daemon, PROCESS};
use crate::driver::sockets::{self, Entry};
use crate::proto::control::frame::{self, Answer, Known, Request, Socket, SocketKind};
use crate::proto::control::transfer::{Give, Giving};
use crate::proto::daemon::{Event, Input, RollbackCause};
use crate::shutdown::lock;
use crate::sys::process::Held;
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
/// How soon a program is written that could not be written now.
const AGAIN: Duration = Duration::from_secs(1);

impl Server {
    pub(in crate::driver) fn run(&'static self, daemon: &'static Daemon) {
        let mut unsettled = false;
        let mut failures = log::Seldom::default();
        loop {
            let listener = lock(&self.listener).clone();
            let older = std::mem::take(&mut *lock(&self.older));
            let mut ended: Vec<u64> = Vec::new();
            let mut fds = vec![self.waker.as_fd()];
            // At its limit, connections wait in the queue until one of those that run has finished.
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
                Ok(Some(link)) => self.answer(daemon, link),
                Ok(None) => {}
                Err(error) => {
                    if failures.is_due() {
                        log::write(Line::AcceptFailed { error: &error });
                    }
                    retry::pause_accepting();
                }
            }
        }
    }

    /// Each on a thread of its own, so that one that hangs holds up nobody.
    fn answer(&'static self, daemon: &'static Daemon, link: Link) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let link = Arc::new(link);
        let theirs = Arc::clone(&link);
        let spawned = thread::Builder::new().name("seamless-answer".to_owned()).spawn(move || {
            self.answer_here(daemon, &theirs);
            drop(theirs);
            self.connections.fetch_sub(1, Ordering::SeqCst);
            self.waker.wake();
        });
        if spawned.is_err() {
            self.answer_here(daemon, &link);
            self.connections.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn answer_here(&self, daemon: &'static Daemon, link: &Arc<Link>) {
        let deadline = Deadline::after(self.timeout);
        let (peer, done) = match link.peer() {
            Ok(Some(peer)) => {
                let conversation = Conversation { server: self, daemon, link, peer, deadline };
                (Some(peer.pid), conversation.answer())
            }
            Ok(None) => (None, Err(refuse(link, "it is in another PID namespace".to_owned()))),
            Err(error) => {
                (None, Err(refuse(link, format!("it cannot be known who asks: {error}"))))
            }
        };
        if let Err(error) = done {
            log::write(Line::GiveFailed { peer, error: &error });
        }
    }
}

/// A connection, and who is at its other end.
struct Conversation<'a> {
    server: &'a Server,
    daemon: &'static Daemon,
    link: &'a Arc<Link>,
    peer: Peer,
    deadline: Deadline,
}

type Requested = Result<Request, frame::Refused>;

impl Conversation<'_> {
    fn answer(&self) -> Result<(), String> {
        if !self.peer.may_control() {
            return Err(self.refuse(format!("uid {} may not take over", self.peer.uid)));
        }
        let (message, fds) = match self.receive() {
            Err(error) if error == CLOSED => return Ok(()), // it has only looked whether we are here
            message => message?,
        };
        let request = match message {
            Ok(Request::Flows { generation, sockets }) => {
                return self.hold_flows(generation, sockets, fds);
            }
            message => {
                refuse_fds(&fds)?;
                message.map_err(|refused| self.refuse(format!("it sent {refused}")))?
            }
        };
        match request {
            Request::Status => {
                let status = status::of(self.daemon, self.server.since.elapsed());
                self.send(&Answer::Status(status.format()))
            }
            Request::Counters => match counters::memory() {
                Some(memory) => self.send_with(&Answer::Counters, &[memory.as_fd()]),
                None => self.send(&Answer::Refused("the program has no counters".to_owned())),
            },
            Request::Restart => {
                let refused = calls::restart().err().map(|error| error.to_string());
                self.note_command("restart", refused.as_deref());
                self.send(&refused.map_or(Answer::Accepted, Answer::Refused))
            }
            Request::Stop => {
                self.note_command("stop", None);
                // First the answer: the process may end as soon as it is told.
                let sent = self.send(&Answer::Accepted);
                calls::stop();
                sent
            }
            Request::Commit => self.end_probation("commit", Event::Commit),
            Request::RollBack => {
                self.end_probation("rollback", Event::RollBack(RollbackCause::Operator))
            }
            Request::StandBy { generation } => self.stand_by(generation),
            Request::Wait { left_ms } => {
                let left = Duration::from_millis(left_ms);
                let added = self.daemon.add_candidate(self.link, self.peer.pid, left);
                added.map_err(|why| self.refuse(why))
            }
            Request::Copy { known } => self.copy(known),
            Request::Pass { generation, open } => {
                let begun = passing::take::begin(self.link, self.peer, generation, open);
                begun.map_err(|why| self.refuse(why))
            }
            Request::Take { generation, known } => {
                let own = self.daemon.generation().unwrap_or(0);
                Giving::begin(own, generation).map_err(|why| self.refuse(why))?;
                self.hand_over(generation, known)
            }
            Request::Got { .. } | Request::Done | Request::Say(_) | Request::Flows { .. } => {
                Err(self.refuse("it began in the middle".to_owned()))
            }
        }
    }

    fn end_probation(&self, name: &str, event: Event) -> Result<(), String> {
        let rolls_back = matches!(event, Event::RollBack(_));
        if !lock(&self.daemon.machine).may_end_probation(rolls_back) {
            return Err(self.refuse("this generation is not on probation".to_owned()));
        }
        self.note_command(name, None);
        self.daemon.post(Input::Probation(event));
        self.send(&Answer::Accepted)
    }

    // ---- standby ----

    /// A generation on probation sends the sockets of its flows, and then asks us to stand by.
    fn hold_flows(
        &self,
        theirs: u64,
        mut claimed: Vec<Socket>,
        mut fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        self.newer_on_probation(theirs)?;
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            if claimed.len() != fds.len() {
                let (fds, sockets) = (fds.len(), claimed.len());
                let why = format!("it sent {fds} descriptors with {sockets} sockets");
                return Err(self.refuse(why));
            }
            for (claimed, fd) in claimed.into_iter().zip(fds) {
                entries.push(transfer::check(claimed, fd).map_err(|why| self.refuse(why))?);
            }
            self.send(&Answer::Accepted)?;
            (claimed, fds) = match self.receive()? {
                (Ok(Request::Flows { generation, sockets }), fds) if generation == theirs => {
                    (sockets, fds)
                }
                (Ok(Request::StandBy { generation }), fds) if generation == theirs => {
                    refuse_fds(&fds)?;
                    break;
                }
                _ => return Err(self.refuse("it sent no sockets and no stand-by".to_owned())),
            };
        }
        sockets::flows::hold(entries).map_err(|why| self.refuse(why))?;
        self.stand_by(theirs)
    }

    /// The thread that takes signals answers, and goes on with the connection.
    fn stand_by(&self, theirs: u64) -> Result<(), String> {
        let held = self.newer_on_probation(theirs)?;
        let (pid, link) = (self.peer.pid, Some(Arc::clone(self.link)));
        *lock(&self.daemon.partner) = Some(Partner { number: theirs, pid, link, held });
        self.daemon.post(Input::Probation(Event::AskedToStandBy(theirs)));
        Ok(())
    }

    fn newer_on_probation(&self, theirs: u64) -> Result<Held, String> {
        let service = self.daemon.service.as_ref();
        let newer = service.and_then(|service| service.newer_on_probation(theirs, self.peer.pid));
        newer.ok_or_else(|| {
            self.refuse("the record does not say that it is a newer generation".to_owned())
        })
    }

    // ---- sockets and states ----

    fn hand_over(&self, theirs: u64, known: Known) -> Result<(), String> {
        let began = Instant::now();
        // `None`: draining, so there is nothing left to hand over.
        let entries = PROCESS.sockets.held();
        let states = match &entries {
            None => Vec::new(),
            Some(_) => PROCESS
                .handed
                .give(known.has_states(), self.deadline, self.server.timeout)
                .map_err(|why| self.refuse(why))?,
        };
        let (unnamed, named): (Vec<Sealed>, Vec<Sealed>) =
            states.into_iter().partition(|(state, _)| state.name.is_empty());
        let unnamed = unnamed.last();
        let mut entries = entries.unwrap_or_else(|| PROCESS.sockets.flows());
        entries.retain(|entry| known.has(entry.socket.kind));
        let giving = self.give(&entries, unnamed, &named)?;
        let is_descriptor = |entry: &&Entry| entry.socket.kind == SocketKind::Descriptor;
        let descriptors = entries.iter().filter(is_descriptor).count();
        log::write(Line::Given {
            generation: self.daemon.generation(),
            successor: self.peer.pid,
            successor_generation: theirs,
            sockets: entries.len() - descriptors,
            state: unnamed.map(|(state, _)| state.bytes),
            states: named.len(),
            descriptors,
            elapsed_ms: began.elapsed(),
        });
        self.end(giving)
    }

    /// Duplicates for a process that waits in `init`: what a keeper would get.
    fn copy(&self, known: Known) -> Result<(), String> {
        let mut entries = sockets::give::outliving();
        entries.retain(|entry| known.has(entry.socket.kind));
        let giving = self.give(&entries, None, &[])?;
        log::write(Line::Copied {
            generation: self.daemon.generation(),
            candidate: self.peer.pid,
            sockets: entries.len(),
        });
        self.end(giving)
    }

    /// The sockets and states, message by message: all but the end. That is sent when the log has its
    /// line, since this process may end as soon as the other one has got it.
    fn give(
        &self,
        entries: &[Entry],
        unnamed: Option<&Sealed>,
        named: &[Sealed],
    ) -> Result<Giving, String> {
        let bytes = unnamed.map(|(state, _)| state.bytes);
        let (mut rest, mut states) = (entries, named);
        let mut giving = Giving::new(rest.len(), bytes.is_some(), states.len());
        loop {
            let fits = |_| match rest {
                [] => frame::chunk_of_states(states.iter().map(|(state, _)| state)),
                rest => frame::chunk(rest.iter().map(|entry| &entry.socket)),
            };
            match giving.next(fits) {
                Some(Give::Offer) => {
                    let generation = self.daemon.generation().unwrap_or(0);
                    let (sockets, states) = (rest.len(), states.len());
                    self.send(&Answer::Offer { generation, sockets, state: bytes, states })?;
                }
                Some(Give::Sockets(0)) => {
                    return Err(format!("{} does not fit into a message", rest[0].socket.asked));
                }
                Some(Give::Sockets(count)) => {
                    let (chunk, more) = rest.split_at(count);
                    let sockets = chunk.iter().map(|entry| entry.socket.clone()).collect();
                    let fds: Vec<_> = chunk.iter().map(|entry| entry.fd.as_fd()).collect();
                    self.send_with(&Answer::Sockets(sockets), &fds)?;
                    rest = more;
                }
                Some(Give::State) => {
                    let (state, memory) = unnamed.expect("there is one");
                    self.send_with(&Answer::State { bytes: state.bytes }, &[memory.as_fd()])?;
                }
                Some(Give::States(count)) => {
                    let (chunk, more) = states.split_at(count);
                    let message = chunk.iter().map(|(state, _)| state.clone()).collect();
                    let fds: Vec<_> = chunk.iter().map(|(_, memory)| memory.as_fd()).collect();
                    self.send_with(&Answer::States(message), &fds)?;
                    states = more;
                }
                Some(Give::End) => return Ok(giving),
                None => self.hear(&mut giving)?,
            }
        }
    }

    fn end(&self, mut giving: Giving) -> Result<(), String> {
        self.send(&Answer::End)?;
        while !giving.is_through() {
            self.hear(&mut giving)?;
        }
        Ok(())
    }

    fn hear(&self, giving: &mut Giving) -> Result<(), String> {
        let (request, fds) = self.receive()?;
        refuse_fds(&fds)?;
        giving.on(request.map_err(|refused| format!("it sent {refused}"))?)
    }

    // ---- messages ----

    fn send(&self, answer: &Answer) -> Result<(), String> {
        self.send_with(answer, &[])
    }

    fn send_with(&self, answer: &Answer, fds: &[BorrowedFd<'_>]) -> Result<(), String> {
        self.deadline.send(self.link, &answer.format(), fds)
    }

    /// The outer error is the connection's, the inner one the message's.
    fn receive(&self) -> Result<(Requested, Vec<OwnedFd>), String> {
        let message = self.deadline.receive(self.link)?;
        Ok((Request::parse(&message.bytes), message.fds))
    }

    fn refuse(&self, why: String) -> String {
        refuse(self.link, why)
    }

    /// Who has asked for what, and what came of it.
    fn note_command(&self, request: &str, refused: Option<&str>) {
        let (peer, uid) = (self.peer.pid, self.peer.uid);
        match refused {
            None => log::write(Line::Command { request, peer, uid }),
            Some(refused) => log::write(Line::CommandRefused { request, peer, uid, refused }),
        }
    }
}

/// Tells the other side, and returns the error for the log.
fn refuse(link: &Link, why: String) -> String {
    _ = link.send(&Answer::Refused(why.clone()).format(), &[]);
    why
}

fn refuse_fds(fds: &[OwnedFd]) -> Result<(), String> {
    match fds.len() {
        0 => Ok(()),
        count => Err(format!("it sent {count} descriptors that nobody asked for")),
    }
}
