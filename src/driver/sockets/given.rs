//! Sockets on their way over the channel: from a daemon to its launcher, and from a launcher to a daemon
//! that starts in place of one that has crashed.

use super::{Entry, entry};
use crate::driver::log::{self, sockets::Event};
use crate::proto::channel::Given;
use crate::shutdown::lock;
use crate::sys::rlimit;
use crate::sys::seqpacket::Message;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A message and its descriptors.
pub(in crate::driver) type Unsent = (Vec<u8>, Vec<Arc<OwnedFd>>);

/// What the launcher has given: the sockets of its other daemon, which has crashed while we were starting.
pub(in crate::driver) struct FromLauncher {
    sockets: Mutex<Orphans>,
    complete: Condvar,
}

struct Orphans {
    entries: Vec<Entry>,
    complete: bool,
}

impl FromLauncher {
    pub(in crate::driver) const fn new() -> FromLauncher {
        let sockets = Mutex::new(Orphans { entries: Vec::new(), complete: false });
        FromLauncher { sockets, complete: Condvar::new() }
    }

    /// A message of the launcher. `wanted`: this daemon has not started.
    pub(in crate::driver) fn receive(&self, message: Message, wanted: bool) {
        let Some(given) = Given::parse(&message.bytes) else { return };
        let mut orphans = lock(&self.sockets);
        match given {
            Given::Begin { sockets, .. } => {
                rlimit::make_room(sockets as u64);
                orphans.entries.clear();
            }
            Given::Sockets(sockets) => {
                if sockets.len() == message.fds.len() && !message.lost_fds {
                    let entries = sockets.into_iter().zip(message.fds);
                    orphans.entries.extend(entries.map(|(socket, fd)| entry(socket, fd)));
                } else {
                    log::write(Event::LostFromLauncher { sockets: sockets.len() });
                }
            }
            Given::End => {
                orphans.complete = true;
                self.complete.notify_all();
            }
        }
        if !wanted {
            orphans.entries.clear(); // it has got all that it needs elsewhere
        }
    }

    /// Waits until the launcher has given what it has.
    pub(in crate::driver) fn take(&self, limit: Duration) -> Vec<Entry> {
        let orphans = lock(&self.sockets);
        let waited = self.complete.wait_timeout_while(orphans, limit, |orphans| !orphans.complete);
        let (mut orphans, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        std::mem::take(&mut orphans.entries)
    }

    /// What nobody has taken is closed.
    pub(in crate::driver) fn close(&self) {
        lock(&self.sockets).entries.clear();
    }
}
