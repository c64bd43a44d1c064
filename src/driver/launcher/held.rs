//! What a launcher holds of sockets, and its keeper.

use crate::proto::channel::Given;
use crate::proto::launcher::Child;
use crate::sys::launch;
use crate::sys::seqpacket::{Link, Message};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

/// The effective user, the effective group, and the other groups.
type Credentials = (u32, u32, Vec<u32>);

/// What a launcher has of sockets.
#[derive(Default)]
pub(super) struct Keeping {
    pub(super) held: Vec<Held>,
    /// What has still to be sent, the oldest first.
    pub(super) unsent: VecDeque<Unsent>,
    pub(super) keeper: Option<Process>,
}

/// What one daemon has given.
pub(super) struct Held {
    pub(super) child: Child,
    pub(super) since: Instant,
    pub(super) user: Option<Credentials>,
    /// In the order in which they came.
    pub(super) messages: Vec<Arc<Message>>,
}

pub(super) struct Unsent {
    /// `None`: to the keeper.
    pub(super) to: Option<Child>,
    /// Whose sockets these are.
    of: Child,
    pub(super) message: Arc<Message>,
}

pub(super) struct Process {
    pub(super) process: launch::Daemon,
    pub(super) channel: Option<Link>,
}

impl Keeping {
    pub(super) fn fds(&self) -> Option<BorrowedFd<'_>> {
        self.keeper.as_ref()?.channel.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn is_keeper(&self, pid: i32) -> bool {
        self.keeper.as_ref().is_some_and(|keeper| keeper.process.pid() == pid)
    }

    pub(super) fn of(&self, child: Child) -> Option<&Held> {
        self.held.iter().find(|one| one.child == child)
    }

    pub(super) fn drop_of(&mut self, child: Child) {
        self.held.retain(|one| one.child != child);
        self.unsent.retain(|one| one.of != child);
    }

    /// What this child has given is to be sent.
    pub(super) fn queue(&mut self, of: Child, to: Option<Child>) {
        let messages = self.of(of).map(|held| held.messages.clone()).unwrap_or_default();
        let bytes = Given::End.format();
        let end = Message { bytes, fds: Vec::new(), is_cut: false, lost_fds: false };
        let all = messages.into_iter().chain([Arc::new(end)]);
        self.unsent.extend(all.map(|message| Unsent { to, of, message }));
    }
}
