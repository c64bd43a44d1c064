//! The sockets that a launcher holds for its daemons, and the keeper. When to keep what is decided in
//! `proto::launcher`.

use super::Driver;
use super::held::{Process, Unsent};
use super::member::greet;
use crate::driver::log::{self, launcher::Event};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::channel::{Aside, Given, MESSAGE_MAX, ToKeeper};
use crate::proto::launcher::{Child, Input, Keeper};
use crate::sys::process::Held as Pidfd;
use crate::sys::seqpacket::{Arrival, Link, Message};
use crate::sys::shortage::is_shortage;
use crate::sys::{launch, proc, process, rlimit};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

impl Driver {
    /// Takes a message in which a daemon gives sockets. Returns every other message.
    pub(super) fn take_given(&mut self, pid: Child, message: Message) -> Option<Message> {
        let Some(given) = Given::parse(&message.bytes) else { return Some(message) };
        match given {
            Given::Begin { sockets, .. } => {
                rlimit::make_room(sockets as u64);
                let own = proc::credentials(process::own_pid());
                let user = proc::credentials(pid).filter(|its| own.as_ref() != Some(its));
                self.keeping.begin(pid, user, Arc::new(message));
            }
            Given::Sockets(sockets) => {
                if message.lost_fds || message.fds.len() != sockets.len() {
                    log::write(Event::NotKept { daemon: pid, sockets: sockets.len() });
                } else if self.keeping.add(pid, Arc::new(message)) {
                    self.feed(Input::Given(pid));
                }
            }
            Given::End => match self.keeping.end(pid) {
                Some(true) => self.feed(Input::Given(pid)),
                Some(false) => self.feed(Input::NoneGiven(pid)),
                None => {}
            },
        }
        None
    }

    pub(super) fn drop_sockets(&mut self, child: Child) {
        self.keeping.drop_of(child);
        log::write(Event::SocketsDropped { daemon: child });
    }

    pub(super) fn pass_sockets(&mut self, from: Child, to: Child) {
        self.keeping.queue(from, Some(to));
        self.send_unsent();
    }

    pub(super) fn start_keeper(&mut self, child: Child) {
        match self.try_start_keeper(child) {
            Ok(keeper) => {
                log::write(Event::KeeperStarted { daemon: child, keeper: keeper.process.pid() });
                self.keeping.keeper = Some(keeper);
                self.send_unsent();
            }
            Err(error) => {
                log::write(Event::NoKeeper { daemon: child, error: &error });
                self.inputs.push_back(Input::Keeper(Keeper::Gone));
            }
        }
    }

    fn try_start_keeper(&mut self, child: Child) -> Result<Process> {
        let fail = |step: &str, error| {
            Error::io(ErrorKind::Launch, format!("cannot {step} (keeper)"), error)
        };
        // Without both, the next start could not prove the keeper, and it takes no sockets from a stranger.
        Pidfd::open(process::own_pid()).map_err(|error| fail("use pidfds", error))?;
        proc::own_identity().map_err(|error| fail("use /proc", error))?;
        let (ours, theirs) = Link::pair().map_err(|error| fail("make a channel", error))?;
        let (hello, pidfd) = self.supervisor.hello(false);
        let held = self.keeping.of(child);
        let told = ToKeeper {
            hello,
            served: held.map(|held| held.since.elapsed()).unwrap_or_default(),
            user: held.and_then(|held| held.user.clone()),
            pid_file: self.settings.pid_file.as_os_str().as_bytes().to_vec(),
        };
        greet(&ours, &told.format(), pidfd.as_slice())
            .map_err(|error| fail("use its channel", error))?;
        let process =
            launch::spawn_keeper(&theirs).map_err(|error| fail("execute the program", error))?;
        self.keeping.queue(child, None);
        self.keeping.held.clear(); // what is queued stays open
        Ok(Process { process, channel: Some(ours) })
    }

    pub(super) fn signal_keeper(&self, signal: i32) {
        if let Some(keeper) = &self.keeping.keeper {
            _ = keeper.process.signal(signal); // it may have ended by itself
        }
    }

    /// Sends what there is to send, as far as there is room.
    pub(super) fn send_unsent(&mut self) {
        while let Some(Unsent { to, message, .. }) = self.keeping.unsent.front() {
            let link = match *to {
                Some(child) => {
                    let mut members = self.members.iter();
                    let member = members.find(|one| one.daemon.pid() == child);
                    member.and_then(|member| member.channel.as_ref())
                }
                None => self.keeping.keeper.as_ref().and_then(|keeper| keeper.channel.as_ref()),
            };
            let fds: Vec<BorrowedFd<'_>> = message.fds.iter().map(AsFd::as_fd).collect();
            match link.map(|link| link.send(&message.bytes, &fds)) {
                Some(Err(error)) if is_shortage(&error) => return,
                Some(_) | None => {} // it was sent, or the receiver has ended
            }
            self.keeping.unsent.pop_front();
        }
    }

    /// What the keeper says, and whether it has ended.
    pub(super) fn look_at_keeper(&mut self) {
        while let Some(Process { process, channel: Some(channel) }) = &self.keeping.keeper {
            let pid = process.pid();
            match channel.receive(MESSAGE_MAX) {
                Arrival::Message(message) => {
                    if let Some(Aside::InPlace) = Aside::parse(&message.bytes) {
                        log::write(Event::KeeperInPlace { keeper: pid });
                        self.feed(Input::Keeper(Keeper::InPlace));
                    }
                }
                Arrival::Nothing | Arrival::OutOfMemory => break,
                Arrival::Closed => {
                    if let Some(keeper) = &mut self.keeping.keeper {
                        keeper.channel = None;
                    }
                }
            }
        }
        let ended = self.keeping.keeper.take_if(|keeper| keeper.process.ended().is_some());
        if let Some(keeper) = ended {
            log::write(Event::KeeperEnded { keeper: keeper.process.pid() });
            self.feed(Input::Keeper(Keeper::Gone));
        }
    }
}
