//! A process whose program file has failed in its probation waits in `init`, before the claim and before the program
//! initialises. Meanwhile it is connected with the generation that serves, and has duplicates of its sockets.

use super::probation::ask;
use super::{HeldPredecessor, Service};
use crate::driver::control::link::{Deadline, connect};
use crate::driver::control::transfer;
use crate::driver::log::{self, probation::Event};
use crate::driver::shared::{Daemon, PROCESS};
use crate::proto::channel::Aside;
use crate::proto::control::frame::{self, Request, Word};
use crate::proto::generation::rejection::{self, Next, Sight, may_wait};
use crate::proto::paths;
use crate::shutdown::lock;
use crate::sys::seqpacket::{Arrival, Link};
use crate::sys::{launch, proc, since_boot, wait};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the generation that serves may take to answer. It is asked again.
const ANSWER: Duration = Duration::from_secs(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Between two signs of life, and between two attempts to be connected.
const SIGN: Duration = Duration::from_secs(1);

impl Service {
    /// It goes on at once if nobody serves, or if an operator wants another try.
    pub(in crate::driver) fn wait_if_rejected(&self, daemon: &Daemon) {
        if !may_wait(self.probation.is_some(), self.in_place) {
            return;
        }
        let own = proc::own_program();
        // Links included: a deploy may switch one of them to another release.
        let executed_by = launch::executed_by(proc::entered_folder().as_deref());
        let path = executed_by.or_else(|| launch::program().ok());
        let mut began = None::<Instant>;
        let mut signed = None::<Instant>;
        let mut link = None::<Arc<Link>>;
        let mut goes = false;
        while daemon.is_starting() {
            let waited = began.map(|began| began.elapsed());
            let is_replaced = path.as_ref().is_some_and(|path| proc::program_at(path) != own);
            let (sight, server) = self.sight(own).ok().unzip();
            let sight = sight.map(|sight| Sight { goes, ..sight });
            let left = match rejection::next(sight, waited, is_replaced) {
                Next::Wait(left) => left,
                Next::Start => break,
                Next::End(code) => crate::sys::exit_now(code),
            };
            let server = server.flatten();
            if began.is_none() {
                began = Some(Instant::now());
                let tries = sight.and_then(|sight| sight.rejected);
                let tries = tries.map_or(0, |rejected| rejected.tries);
                log::write(Event::Waits { tries, pause_ms: left });
            }
            if signed.is_none_or(|signed| signed.elapsed() >= SIGN) {
                signed = Some(Instant::now());
                if let Some(channel) = daemon.channel.upgrade() {
                    // If it is lost, the next one comes in a second.
                    _ = channel.send(&Aside::Waits(left).format(), &[]);
                }
                if link.is_none() {
                    link = server.as_ref().and_then(|server| self.wait_at(server, left));
                    *lock(&daemon.waits_at) = link.clone();
                    lock(&daemon.machine).waits_in_init(link.is_some());
                }
                if link.is_none() {
                    self.give_sign(since_boot() + left);
                }
            }
            let held = server.as_ref().and_then(HeldPredecessor::fd);
            let fds: Vec<_> = link.iter().map(|link| link.as_fd()).chain(held).collect();
            wait::readable(&fds, Some(LOOK.min(left)));
            match link.as_ref().map(|link| link.receive(frame::MESSAGE_MAX)) {
                Some(Arrival::Message(message)) => {
                    goes |= Request::parse(&message.bytes) == Ok(Request::Say(Word::Go));
                }
                Some(Arrival::Closed) => {
                    link = None;
                    std::thread::sleep(LOOK.min(left)); // its end may not be known to the kernel yet
                }
                Some(Arrival::Nothing | Arrival::OutOfMemory) | None => {}
            }
        }
        // If this process was told to end at this moment, it still has to say so on that link. The duplicates are kept
        // until it has got the sockets anew, or serves.
        let mut machine = lock(&daemon.machine);
        machine.waits_in_init(false);
        if machine.is_starting() {
            drop(machine);
            *lock(&daemon.waits_at) = None;
        }
    }

    /// The generation that serves learns that we wait, and gives duplicates of its sockets. It listens at its
    /// second name if another generation has died at the first one.
    fn wait_at(&self, server: &HeldPredecessor, left: Duration) -> Option<Arc<Link>> {
        let paths: [PathBuf; 2] =
            [paths::control_socket(&self.pid_file), paths::standby_socket(&self.pid_file)];
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        for path in paths {
            let deadline = Deadline::named(ANSWER, "wait");
            let Ok((link, listener)) = connect(&path, deadline) else { continue };
            if listener.map(|listener| listener.pid) != Some(server.about.pid) {
                continue;
            }
            if let Err(why) = ask(&link, &Request::Wait { left_ms }, &[], deadline) {
                log::write(Event::NotAwaited { server: server.about.pid, reason: &why });
                return None;
            }
            match transfer::copy(&path, &server.about, PROCESS.takeover_timeout()) {
                Ok(copies) => PROCESS.sockets.keep_copies(copies),
                Err(why) => {
                    log::write(Event::NoCopies { server: server.about.pid, reason: &why });
                }
            }
            return Some(Arc::new(link));
        }
        None
    }
}
