//! The old side: a thread that sends connections to the successor.

use super::queue::Queue;
use super::{Connection, Waiting};
use crate::driver::control::link::{Deadline, Unconnected, connect_to};
use crate::driver::generation::Service;
use crate::driver::generation::passing::Proven;
use crate::driver::log::{self, passing::Event};
use crate::driver::retry;
use crate::driver::shared::PROCESS;
use crate::proto::control::frame::passing::chunk_of_connections;
use crate::proto::control::frame::{self, Answer, Batch, Fate, Request};
use crate::proto::control::passing::{Input, Next, Reason, Sender, stays};
use crate::proto::paths;
use crate::shutdown::{DrainGuard, lock};
use crate::sys::memfd;
use crate::sys::seqpacket::{Arrival, Link};
use crate::sys::shortage::is_shortage;
use crate::sys::wait;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

/// How long an answer may take, before nothing more is sent.
const ANSWER: Duration = Duration::from_secs(1);
/// A record that is being written is read again.
const LOOKS: u32 = 5;
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn add(waiting: Waiting, service: &'static Service) {
    let queue = &PROCESS.connections.queue;
    queue.add(waiting, || {
        let giver = Giver {
            queue,
            service,
            sender: Sender::new(),
            there: None,
            doubt: Vec::new(),
            asked: Instant::now(),
            burst: None,
            passed: 0,
        };
        let thread = thread::Builder::new().name("seamless-pass".to_owned());
        thread.spawn(move || giver.run()).map(drop)
    });
}

/// The successor, and the link to it.
struct There {
    link: Link,
    proven: Proven,
}

struct Giver {
    queue: &'static Queue,
    service: &'static Service,
    sender: Sender,
    there: Option<There>,
    doubt: Vec<Waiting>,
    /// Since when an answer is awaited.
    asked: Instant,
    /// Since when connections are passed without a pause, and how many. The process does not end before the log
    /// says so.
    burst: Option<(Instant, DrainGuard)>,
    passed: usize,
}

impl Giver {
    fn run(mut self) {
        loop {
            let next = {
                let waiting = lock(&self.queue.waiting);
                let about = || waiting.iter().map(|one| &one.about);
                self.sender.next(waiting.len(), || chunk_of_connections(about()))
            };
            if let Some(input) = self.perform(next) {
                self.sender.on(input);
            }
        }
    }

    fn perform(&mut self, next: Next) -> Option<Input> {
        match next {
            Next::Rest => {
                self.note_passed();
                self.queue.wait(&[]);
                return None;
            }
            Next::Link => {
                self.begin_burst();
                return Some(match self.link() {
                    Some(there) => {
                        let number = there.proven.number;
                        self.there = Some(there);
                        Input::Linked(number)
                    }
                    None => Input::NotLinked,
                });
            }
            Next::Ask => {
                let open = lock(&self.queue.waiting).len().max(PROCESS.shutdown.guards()) as u64;
                let generation = self.service.number().unwrap_or_default();
                return Some(self.send(&Request::Pass { generation, open }.format(), &[], 0));
            }
            Next::Send { number, count } => return Some(self.send_batch(number, count)),
            Next::Await { limited, link } => return self.wait(limited, link),
            Next::ReadOut => {
                return Some(match self.receive()? {
                    Heard::Answer(input) => input,
                    Heard::Nothing | Heard::Closed => Input::ReadOut,
                });
            }
            Next::Settle(fates) => self.settle(fates),
            Next::Requeue => self.queue.put_back(std::mem::take(&mut self.doubt)),
            Next::GiveBack(reason) => {
                self.note_passed();
                let connections = self.queue.give_back(reason);
                self.note_stay(connections, reason);
            }
            Next::HangUp => {
                self.note_passed();
                self.there = None;
            }
        }
        Some(Input::Done)
    }

    // ---- the link ----

    fn link(&self) -> Option<There> {
        let mut failed = None;
        for _ in 0..LOOKS {
            // An error, such as out of descriptors, says nothing about the successor.
            if let Some(proven) = self.service.successor().ok().flatten() {
                if !self.sender.may_ask(proven.number) {
                    return None;
                }
                match self.connect(&proven) {
                    Ok(link) => return Some(There { link, proven }),
                    Err(error) => failed = Some((proven, error)),
                }
            }
            thread::sleep(LOOK);
        }
        if let Some((proven, error)) = failed {
            self.note_failed(&proven, &error);
        }
        None
    }

    /// A generation that stands by listens at the second name.
    fn connect(&self, proven: &Proven) -> Result<Link, String> {
        let deadline = Deadline::named(ANSWER, "passing");
        let pid_file = &self.service.pid_file;
        let mut failed = "it does not listen".to_owned();
        for path in [paths::control_socket(pid_file), paths::standby_socket(pid_file)] {
            match connect_to(proven.pid, &path, deadline) {
                Ok(link) => return Ok(link),
                Err(Unconnected::Nobody) => {}
                Err(Unconnected::Failed(why)) => failed = why,
            }
        }
        Err(failed)
    }

    /// If the system is short of memory or room, the message is sent again.
    fn send(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>], count: usize) -> Input {
        let there = self.there.as_ref().expect("a link");
        let began = Instant::now();
        loop {
            match there.link.send(bytes, fds) {
                Ok(()) => {
                    self.asked = Instant::now();
                    return Input::Sent(count);
                }
                // Also ETOOMANYREFS: too many descriptors of this user are in messages.
                Err(error) if is_shortage(&error) => {
                    if began.elapsed() >= ANSWER {
                        self.note_failed(&there.proven, &error.to_string());
                        return Input::Silent;
                    }
                    retry::pause();
                }
                Err(error) => {
                    self.note_failed(&there.proven, &error.to_string());
                    return Input::NotSent;
                }
            }
        }
    }

    fn send_batch(&mut self, number: u64, count: usize) -> Input {
        self.begin_burst();
        let sent: Vec<Waiting> = {
            let mut waiting = lock(&self.queue.waiting);
            // Others may have come before these meanwhile.
            let fits = chunk_of_connections(waiting.iter().map(|one| &one.about));
            waiting.drain(..fits.min(count)).collect()
        };
        let count = sent.len();
        let batch = Batch::new(number, sent.iter().map(|one| one.about.clone()).collect());
        let mut load = Vec::with_capacity(batch.load() as usize);
        for Waiting { connection: Connection { state, unread, .. }, .. } in &sent {
            load.extend_from_slice(state);
            load.extend_from_slice(unread);
        }
        let memory: Result<Option<OwnedFd>, _> =
            batch.in_memory.then(|| memfd::seal(&load)).transpose();
        let input = match &memory {
            Ok(memory) => {
                let fds = sent.iter().map(|one| one.connection.fd.as_fd());
                let fds: Vec<BorrowedFd<'_>> = fds.chain(memory.iter().map(AsFd::as_fd)).collect();
                let inline = if batch.in_memory { &[][..] } else { &load };
                self.send(&batch.format(inline), &fds, count)
            }
            Err(error) => {
                let there = self.there.as_ref().expect("a link");
                self.note_failed(&there.proven, &format!("cannot make memory: {error}"));
                Input::Silent
            }
        };
        match input {
            Input::Sent(_) => self.doubt = sent,
            _ => self.queue.put_back(sent),
        }
        input
    }

    // ---- the answer ----

    fn wait(&mut self, limited: bool, link: bool) -> Option<Input> {
        let There { link: there, proven } = self.there.as_ref().expect("a link");
        let left = ANSWER.saturating_sub(self.asked.elapsed());
        let fds = [proven.held.as_fd(), there.as_fd()];
        let fds = if link { &fds[..] } else { &fds[..1] };
        match limited {
            // What waits is sent when the answer has come.
            true => wait::readable(fds, Some(left)),
            false => self.queue.wait(fds),
        }
        if link {
            match self.receive()? {
                Heard::Answer(input) => return Some(input),
                Heard::Closed => return Some(Input::Closed),
                Heard::Nothing => {}
            }
        }
        let there = self.there.as_ref().expect("a link");
        if there.proven.held.has_ended() {
            return Some(Input::Ended);
        }
        (limited && self.asked.elapsed() >= ANSWER).then_some(Input::Silent)
    }

    /// `None`: out of memory, try again.
    fn receive(&self) -> Option<Heard> {
        let There { link, proven } = self.there.as_ref().expect("a link");
        Some(match link.receive(frame::MESSAGE_MAX) {
            Arrival::Message(message) => Heard::Answer(match Answer::parse(&message.bytes) {
                Ok(answer) => {
                    if let Answer::Refused(why) = &answer {
                        self.note_failed(proven, &format!("it refuses: {why}"));
                    }
                    Input::Heard(answer)
                }
                Err(refused) => {
                    self.note_failed(proven, &format!("it sent {refused}"));
                    Input::Garbage
                }
            }),
            Arrival::Nothing => Heard::Nothing,
            Arrival::Closed => Heard::Closed,
            Arrival::OutOfMemory => {
                retry::pause();
                return None;
            }
        })
    }

    fn settle(&mut self, fates: Vec<Fate>) {
        let mut stay = Vec::new();
        for (one, fate) in std::mem::take(&mut self.doubt).into_iter().zip(fates) {
            match stays(fate) {
                None => {
                    self.passed += 1;
                    one.moved();
                }
                Some(reason) => {
                    stay.push(reason);
                    one.stays(reason);
                }
            }
        }
        if let Some(reason) = stay.first() {
            self.note_stay(stay.len(), *reason);
        }
    }

    // ---- the log ----

    fn begin_burst(&mut self) {
        self.burst.get_or_insert_with(|| (Instant::now(), DrainGuard::of(&PROCESS.shutdown)));
    }

    fn note_passed(&mut self) {
        let connections = std::mem::take(&mut self.passed);
        let burst = self.burst.take();
        if let (Some(there), Some((began, _)), 1..) = (&self.there, &burst, connections) {
            log::write(Event::Passed {
                generation: self.service.number(),
                successor: there.proven.pid,
                successor_generation: there.proven.number,
                connections,
                elapsed_ms: began.elapsed(),
            });
        }
    }

    fn note_stay(&self, connections: usize, reason: Reason) {
        let generation = self.service.number();
        log::write(Event::Stay { generation, connections, reason: &reason });
    }

    fn note_failed(&self, proven: &Proven, error: &str) {
        log::write(Event::PassFailed {
            generation: self.service.number(),
            successor: proven.pid,
            successor_generation: proven.number,
            error: &error,
        });
    }
}

enum Heard {
    Answer(Input),
    Nothing,
    Closed,
}
