//! The new side: a thread for each generation that passes its connections to this one.

use super::{Admit, Connection, Serve};
use crate::driver::generation::passing::Proven;
use crate::driver::log::{self, passing::Event};
use crate::driver::retry;
use crate::driver::shared::PROCESS;
use crate::proto::control::frame::{Answer, Batch, Fate, MESSAGE_MAX};
use crate::proto::control::passing::{Receiver, Unwilling, may_receive, room_for};
use crate::shutdown::{DrainGuard, lock, panic_text};
use crate::sys::seqpacket::{Arrival, Link, Message};
use crate::sys::socket::Peer;
use crate::sys::{memfd, rlimit, socket, wait};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// At most so many generations pass their connections at the same time.
const LINKS: usize = 16;
/// How often it is checked whether the other side has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Another generation wants to pass its connections. An error refuses it, and then it never asks this one again. If it
/// is to ask again later, the link is closed without an answer.
pub(in crate::driver) fn begin(
    link: &Arc<Link>,
    peer: Peer,
    theirs: u64,
    open: u64,
) -> Result<(), String> {
    let service = PROCESS.daemon().and_then(|daemon| daemon.service.as_ref());
    // Out of descriptors or memory: that says nothing of who asks.
    let Ok(proven) = service.map(|service| service.other(theirs, peer.pid)).transpose() else {
        return Ok(());
    };
    let proven = proven.flatten();
    let proven = proven.ok_or("the record does not say that it is a generation of this service")?;
    match willing() {
        Ok(()) => {}
        Err(Unwilling::NotYet) => return Ok(()),
        Err(why @ Unwilling::Refuses(_)) => return Err(why.to_string()),
    }
    if lock(&PROCESS.connections.kinds).is_empty() {
        return Err("the program accepts no connections".to_owned());
    }
    let Some(counted) = Counted::new() else { return Ok(()) };
    let link = Arc::clone(link);
    let taking = move || {
        let _counted = counted;
        rlimit::make_room(room_for(open));
        let mut taker = Taker { link: &link, proven: &proven, receiver: Receiver::new(), taken: 0 };
        taker.run();
        let (predecessor, predecessor_generation) = (proven.pid, proven.number);
        log::write(Event::Arrived {
            generation: generation(),
            predecessor,
            predecessor_generation,
            connections: taker.taken,
        });
    };
    // Without a thread, the link is closed.
    _ = thread::Builder::new().name("seamless-passed".to_owned()).spawn(taking);
    Ok(())
}

/// One of the links at which connections arrive.
struct Counted;

impl Counted {
    /// `None`: there are as many as there may be.
    fn new() -> Option<Counted> {
        let others = PROCESS.connections.links.fetch_add(1, Ordering::SeqCst);
        let counted = Counted;
        (others < LINKS).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        PROCESS.connections.links.fetch_sub(1, Ordering::SeqCst);
    }
}

fn generation() -> Option<u64> {
    PROCESS.daemon().and_then(|daemon| daemon.generation())
}

fn willing() -> Result<(), Unwilling> {
    let daemon = PROCESS.daemon().ok_or(Unwilling::NotYet)?;
    let machine = lock(&daemon.machine);
    may_receive(machine.state(), machine.is_on_probation())
}

struct Taker<'a> {
    link: &'a Link,
    proven: &'a Proven,
    receiver: Receiver,
    /// How many connections were kept.
    taken: usize,
}

/// A connection that has come, and what is to serve it.
struct Come {
    kind: String,
    connection: Connection,
    serve: Option<Serve>,
}

impl Taker<'_> {
    fn run(&mut self) {
        self.say(&Answer::Accepted);
        loop {
            wait::readable(&[self.link.as_fd(), self.proven.held.as_fd()], None);
            // Asked first: if it has ended, everything that it sent can be read now.
            let has_ended = self.proven.held.has_ended();
            match self.link.receive(MESSAGE_MAX) {
                Arrival::Message(message) => self.take(message),
                Arrival::Nothing if has_ended => return, // others may hold the link open
                Arrival::Nothing => {}
                Arrival::OutOfMemory => retry::pause(),
                Arrival::Closed => return,
            }
        }
    }

    fn take(&mut self, message: Message) {
        // Held before it is asked whether the drain has begun: a connection that is kept is served, or passed
        // on, before this process ends.
        let guard = DrainGuard::of(&PROCESS.shutdown);
        match self.examine(message) {
            Ok(come) => {
                let fates: Vec<Fate> = come.iter().map(|(fate, _)| *fate).collect();
                let answer = self.receiver.decided(fates);
                self.say(&answer);
                let fates = self.receiver.answered();
                for ((_, come), fate) in come.into_iter().zip(fates) {
                    if fate == Fate::Kept {
                        self.taken += 1;
                        come.serve();
                    }
                }
            }
            Err(why) => {
                log::write(Event::ArrivalRefused {
                    generation: generation(),
                    predecessor: self.proven.pid,
                    predecessor_generation: self.proven.number,
                    error: &why,
                });
                self.say(&Answer::Refused(why));
            }
        }
        drop(guard);
    }

    fn examine(&mut self, message: Message) -> Result<Vec<(Fate, Come)>, String> {
        let Message { bytes, fds, is_cut, lost_fds } = message;
        if is_cut {
            return Err("it sent a message that is too long".to_owned());
        }
        let (batch, load) = Batch::parse(&bytes).map_err(|refused| format!("it sent {refused}"))?;
        self.receiver.on_message(&batch, (fds.len(), lost_fds), willing())?;
        unpack(batch, load, fds).inspect_err(|_| self.receiver.give_up())
    }

    /// Tries until the message is sent, or nobody is left who could read it. An error of the call does not prove that:
    /// the other side would wait for the answer, take its connections back when this process ends, and serve what the
    /// next generation serves as well.
    fn say(&self, answer: &Answer) {
        let bytes = answer.format();
        while self.link.send(&bytes, &[]).is_err() {
            if self.link.is_closed() || self.proven.held.has_ended() {
                return;
            }
            wait::writable(self.link.as_fd(), LOOK);
            retry::pause();
        }
    }
}

/// Reads nothing from the connections.
fn unpack(batch: Batch, load: &[u8], mut fds: Vec<OwnedFd>) -> Result<Vec<(Fate, Come)>, String> {
    let memory = if batch.in_memory { fds.pop() } else { None };
    let memory = memory.map(|memory| {
        let memory = memfd::check_sealed(memory, batch.load())?;
        memfd::read_sealed(memory, batch.load())
    });
    let memory = memory.transpose()?;
    if !fds.iter().all(|fd| socket::is_connection(fd.as_fd())) {
        return Err("it sent a descriptor that is no connection".to_owned());
    }
    Ok(decide(batch, memory.as_deref().unwrap_or(load), fds))
}

/// Asks the program about each.
fn decide(batch: Batch, mut load: &[u8], fds: Vec<OwnedFd>) -> Vec<(Fate, Come)> {
    let kinds: BTreeMap<String, Arc<Mutex<Admit>>> = lock(&PROCESS.connections.kinds).clone();
    let mut come = Vec::with_capacity(fds.len());
    for (about, fd) in batch.connections.into_iter().zip(fds) {
        let (state, rest) = load.split_at(about.state as usize);
        let (unread, rest) = rest.split_at(about.unread as usize);
        load = rest;
        let connection = Connection { fd, unread: unread.to_vec(), state: state.to_vec() };
        let (fate, serve) = match kinds.get(&about.kind) {
            None => (Fate::Unknown, None),
            Some(admit) => {
                let admit = || (lock(admit))(&connection.state);
                match catch_unwind(AssertUnwindSafe(admit)) {
                    Ok(Some(serve)) => (Fate::Kept, Some(serve)),
                    Ok(None) => (Fate::Refused, None),
                    Err(panic) => {
                        note_panic(&about.kind, &*panic);
                        (Fate::Refused, None)
                    }
                }
            }
        };
        come.push((fate, Come { kind: about.kind, connection, serve }));
    }
    come
}

impl Come {
    fn serve(self) {
        let Come { kind, connection, serve } = self;
        let Some(serve) = serve else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| serve(connection))) {
            note_panic(&kind, &*panic);
        }
    }
}

fn note_panic(kind: &str, panic: &(dyn std::any::Any + Send)) {
    log::write(Event::AcceptPanicked { name: kind, panic: panic_text(panic) });
}
