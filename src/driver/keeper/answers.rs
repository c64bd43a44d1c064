//! The keeper's side of the control socket: it gives its sockets to the next start, and answers the
//! command. One thread serves all connections, and none of them is waited for.

use super::Driver;
use crate::driver::control::link::Deadline;
use crate::driver::log::{self, keeper::Event};
use crate::driver::retry;
use crate::proto::State;
use crate::proto::control::frame::{self, Address, Answer, Request, Socket, SocketKind};
use crate::proto::control::status::Status;
use crate::proto::control::transfer::{Give, Giving};
use crate::proto::counters::DESCRIPTOR;
use crate::proto::keeper::Input;
use crate::sys::process;
use crate::sys::seqpacket::{Arrival, Link};
use crate::sys::socket::Peer;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// At most so many at the same time; the others wait in the queue.
const CONNECTIONS: usize = 8;
/// How long one of them may take.
const LIMIT: Duration = Duration::from_secs(5);
/// No request is longer.
const REQUEST_MAX: usize = 1024;
/// How long an answer may wait for room in the queue of the other side, which asks and then reads.
const SEND: Duration = Duration::from_millis(500);

/// A connection to the control socket.
pub(super) struct Conversation {
    link: Link,
    peer: Peer,
    since: Instant,
    giving: Option<Transfer>,
    over: bool,
}

struct Transfer {
    machine: Giving,
    /// The places of those that the successor understands.
    offered: Vec<usize>,
    /// How many of them were sent.
    sent: usize,
    to: u64,
}

impl Conversation {
    pub(super) fn transfers(&self) -> bool {
        self.giving.is_some()
    }
}

impl AsFd for Conversation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

impl Driver {
    pub(super) fn has_room(&self) -> bool {
        self.conversations.len() < CONNECTIONS
    }

    /// All that has arrived at the control socket.
    pub(super) fn converse(&mut self) {
        while let Some(listener) = self.listener.as_ref().filter(|_| self.has_room()) {
            match listener.accept() {
                Ok(Some(link)) => self.begin(link),
                Ok(None) => break,
                Err(error) => {
                    if self.failures.is_due() {
                        log::write(Event::Failed { error: &error });
                    }
                    retry::pause_accepting();
                    break;
                }
            }
        }
        let mut conversations = std::mem::take(&mut self.conversations);
        for one in &mut conversations {
            if let Err(why) = self.go_on(one) {
                log::write(Event::Failed { error: &why });
                one.over = true;
            }
        }
        conversations.retain(|one| !one.over && one.since.elapsed() < LIMIT);
        self.conversations.extend(conversations);
    }

    fn begin(&mut self, link: Link) {
        match link.peer() {
            Ok(Some(peer)) if peer.may_control() => self.conversations.push(Conversation {
                link,
                peer,
                since: Instant::now(),
                giving: None,
                over: false,
            }),
            Ok(_) | Err(_) => {
                let why = "this process may not use the control socket".to_owned();
                _ = link.send(&Answer::Refused(why).format(), &[]);
            }
        }
    }

    fn go_on(&mut self, one: &mut Conversation) -> Result<(), String> {
        loop {
            let message = match one.link.receive(REQUEST_MAX) {
                Arrival::Message(message) => message,
                Arrival::Nothing | Arrival::OutOfMemory => return Ok(()),
                Arrival::Closed => {
                    one.over = true;
                    return Ok(());
                }
            };
            let request =
                Request::parse(&message.bytes).map_err(|refused| format!("it sent {refused}"));
            match (request?, &mut one.giving) {
                (request @ (Request::Got { .. } | Request::Done), Some(transfer)) => {
                    transfer.machine.on(request)?;
                    self.give(one)?;
                }
                (Request::Take { generation, known }, None) => {
                    if let Err(why) = Giving::begin(self.generation, generation) {
                        return refuse(one, why);
                    }
                    let is_known = |at: &usize| known.has(self.sockets[*at].0.kind);
                    let offered: Vec<usize> = (0..self.sockets.len()).filter(is_known).collect();
                    let machine = Giving::new(offered.len(), false, 0);
                    one.giving = Some(Transfer { machine, offered, sent: 0, to: generation });
                    self.give(one)?;
                }
                (Request::Status, None) => {
                    say(one, &Answer::Status(self.status().format()), &[])?;
                    one.over = true;
                }
                (Request::Restart, None) => {
                    return refuse(one, "nobody serves: the daemon has crashed".to_owned());
                }
                (Request::Stop, None) => {
                    _ = say(one, &Answer::Accepted, &[]);
                    self.feed(Input::Stop);
                }
                (Request::Counters, None) => {
                    self.give_counters(one)?;
                    one.over = true;
                }
                (Request::Got { .. } | Request::Done, None) => {
                    return refuse(one, "it began in the middle".to_owned());
                }
                (
                    Request::StandBy { .. }
                    | Request::Flows { .. }
                    | Request::Say(_)
                    | Request::Wait { .. }
                    | Request::Copy { .. }
                    | Request::Commit
                    | Request::RollBack
                    | Request::Pass { .. },
                    _,
                ) => return refuse(one, "nobody serves: the daemon has crashed".to_owned()),
                (
                    Request::Take { .. }
                    | Request::Status
                    | Request::Counters
                    | Request::Restart
                    | Request::Stop,
                    Some(_),
                ) => return refuse(one, "a transfer has begun".to_owned()),
            }
        }
    }

    /// Sends what comes next in a transfer.
    fn give(&self, one: &mut Conversation) -> Result<(), String> {
        let Some(mut transfer) = one.giving.take() else { return Ok(()) };
        loop {
            let rest = &transfer.offered[transfer.sent..];
            let sockets = rest.iter().map(|at| &self.sockets[*at].0);
            match transfer.machine.next(|_| frame::chunk(sockets.clone())) {
                Some(Give::Offer) => {
                    let (generation, sockets) = (self.generation, rest.len());
                    let offer = Answer::Offer { generation, sockets, state: None, states: 0 };
                    say(one, &offer, &[])?;
                }
                Some(Give::Sockets(0)) => {
                    let asked = &self.sockets[rest[0]].0.asked;
                    return Err(format!("{asked} does not fit into a message"));
                }
                Some(Give::Sockets(count)) => {
                    let fds: Vec<BorrowedFd<'_>> =
                        rest[..count].iter().map(|at| self.sockets[*at].1.as_fd()).collect();
                    let sockets = sockets.take(count).cloned().collect();
                    say(one, &Answer::Sockets(sockets), &fds)?;
                    transfer.sent += count;
                }
                Some(Give::State | Give::States(_)) => {
                    return Err("a keeper has no state".to_owned());
                }
                Some(Give::End) => {
                    // Before the other one has it: it may end us at once.
                    log::write(Event::Given {
                        generation: self.generation,
                        successor: one.peer.pid,
                        successor_generation: transfer.to,
                        sockets: transfer.sent,
                    });
                    say(one, &Answer::End, &[])?;
                }
                None if transfer.machine.is_through() => {
                    one.over = true;
                    return Ok(());
                }
                None => {
                    one.giving = Some(transfer);
                    return Ok(());
                }
            }
        }
    }

    /// The memory of the daemon's counters, which go on with the next start.
    fn give_counters(&self, one: &mut Conversation) -> Result<(), String> {
        let asked = Address::Name(DESCRIPTOR.to_owned());
        match self.sockets.iter().find(|(socket, _)| socket.asked == asked) {
            Some((_, memory)) => say(one, &Answer::Counters, &[memory.as_fd()]),
            None => say(one, &Answer::Refused("there are no counters".to_owned()), &[]),
        }
    }

    fn status(&self) -> Status {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let supervisor = &self.service.supervisor;
        let all = self.sockets.iter().map(|(socket, _)| socket);
        let held = all.filter(|socket| socket.kind != SocketKind::Descriptor);
        let held: Vec<Socket> = held.cloned().collect();
        Status {
            generation: Some(self.generation),
            state: State::Starting,
            keeping: true,
            handing_off: false,
            daemon: process::own_pid(),
            launcher: None,
            age_ms: ms(self.since.elapsed()),
            sockets: held.len() as u64,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            state_ms: Some(ms(self.since.elapsed())),
            supervisor_kind: Some(supervisor.kind.name.to_owned()),
            supervisor: supervisor.pid(),
            supervisor_wants: None,
            service_folder: supervisor
                .folder()
                .map(|folder| folder.as_os_str().as_bytes().to_vec()),
            no_restart: Some("nobody serves: the daemon has crashed".to_owned()),
            took_over: None,
            transfer_us: None,
            notifies: cfg!(feature = "systemd"),
            drain_timeout_ms: None,
            leave_time_ms: None,
            probation_limit_ms: None,
            probation_ms: None,
            candidate: None,
            next_try_ms: None,
            in_place: false,
            failures: 0,
            failure: None,
            held,
        }
    }
}

fn say(one: &Conversation, answer: &Answer, fds: &[BorrowedFd<'_>]) -> Result<(), String> {
    Deadline::named(SEND, "keeper").send(&one.link, &answer.format(), fds)
}

fn refuse(one: &mut Conversation, why: String) -> Result<(), String> {
    _ = say(one, &Answer::Refused(why.clone()), &[]);
    Err(why)
}
