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
    messages: Vec<Arc<Message>>,
    /// What it gives anew while it serves. Until all of that is here, it may crash, and what it gave before counts.
    anew: Option<Vec<Arc<Message>>>,
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

    /// A child begins to give sockets.
    pub(super) fn begin(&mut self, child: Child, user: Option<Credentials>, begin: Arc<Message>) {
        let messages = vec![begin];
        match self.of_mut(child) {
            // It may have changed its user since, and a keeper is to have no more rights than it.
            Some(held) => (held.user, held.anew) = (user, Some(messages)),
            None => {
                self.held.push(Held { child, since: Instant::now(), user, messages, anew: None });
            }
        }
    }

    /// Returns `true` if what the launcher holds of this child has changed.
    pub(super) fn add(&mut self, child: Child, sockets: Arc<Message>) -> bool {
        let Some(held) = self.of_mut(child) else { return false };
        held.anew.as_mut().unwrap_or(&mut held.messages).push(sockets);
        held.anew.is_none()
    }

    /// It has given all. Returns whether there is anything; `None`: what it gave was dropped meanwhile.
    pub(super) fn end(&mut self, child: Child) -> Option<bool> {
        let held = self.of_mut(child)?;
        if let Some(anew) = held.anew.take() {
            held.messages = anew;
        }
        Some(held.messages.len() > 1)
    }

    fn of_mut(&mut self, child: Child) -> Option<&mut Held> {
        self.held.iter_mut().find(|one| one.child == child)
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

#[cfg(test)]
mod tests {
    use super::{Keeping, Message};
    use crate::proto::channel::Given;
    use std::sync::Arc;
    use std::time::Duration;

    const CHILD: i32 = 7;

    fn message(bytes: &[u8]) -> Arc<Message> {
        let bytes = bytes.to_vec();
        Arc::new(Message { bytes, fds: Vec::new(), is_cut: false, lost_fds: false })
    }

    fn begin(keeping: &mut Keeping) {
        let keep_sockets = Duration::from_secs(1);
        let begin = Given::Begin { generation: 1, sockets: 1, keep_sockets };
        keeping.begin(CHILD, None, message(&begin.format()));
    }

    /// What a keeper would get between the first message and the last one.
    fn held(keeping: &mut Keeping) -> Vec<Vec<u8>> {
        keeping.queue(CHILD, None);
        let all = keeping.unsent.drain(..).map(|unsent| unsent.message.bytes.clone());
        let all: Vec<Vec<u8>> = all.collect();
        all[1..all.len() - 1].to_vec()
    }

    #[test]
    fn p12_what_was_given_before_counts_until_all_of_the_new_is_here() {
        let mut keeping = Keeping::default();
        begin(&mut keeping);
        assert!(keeping.add(CHILD, message(b"one")));
        assert_eq!(held(&mut keeping), [b"one"], "it may crash before it has given all");
        assert_eq!(keeping.end(CHILD), Some(true));
        keeping.begin(CHILD, Some((1, 2, Vec::new())), message(b"begin"));
        assert_eq!(keeping.of(CHILD).expect("it").user, Some((1, 2, Vec::new())));
        assert_eq!(held(&mut keeping), [b"one"]);
        assert!(!keeping.add(CHILD, message(b"two")));
        assert_eq!(held(&mut keeping), [b"one"]);
        assert_eq!(keeping.end(CHILD), Some(true));
        assert_eq!(held(&mut keeping), [b"two"]);
        begin(&mut keeping);
        assert_eq!(keeping.end(CHILD), Some(false), "nothing is left");
        assert!(held(&mut keeping).is_empty());
        keeping.drop_of(CHILD);
        assert!(!keeping.add(CHILD, message(b"three")));
        assert_eq!(keeping.end(CHILD), None);
    }
}
