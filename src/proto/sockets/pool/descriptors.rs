//! Descriptors that the program keeps under names.

use super::{Entry, Pool, Wanted};
use crate::proto::control::frame::Socket;
use crate::proto::control::frame::{Address, SocketKind};
use crate::proto::sockets::changes::Changes;
use crate::proto::sockets::fdstore;
use std::mem;

impl<F: Clone> Pool<F> {
    /// From now on a successor gets this one under its name, instead of one that had the name before, which
    /// is returned.
    #[must_use = "to be closed"]
    pub(crate) fn keep(&mut self, entry: Entry<F>) -> Vec<Entry<F>> {
        let Address::Name(name) = &entry.socket.asked else { return vec![entry] };
        let mut before = self.forget(&name.clone());
        if self.let_go {
            before.push(entry);
        } else {
            self.held.push(entry);
        }
        before
    }

    /// A successor does not get it any more.
    #[must_use = "to be closed"]
    pub(crate) fn forget(&mut self, name: &str) -> Vec<Entry<F>> {
        let (gone, held) = mem::take(&mut self.held).into_iter().partition(|entry| entry.is(name));
        self.held = held;
        gone
    }

    /// What the predecessor, or the store, has under this name. It is given once.
    pub(crate) fn take_descriptor(&mut self, name: &str) -> Option<Entry<F>> {
        let wanted = Wanted {
            kind: SocketKind::Descriptor,
            addresses: vec![Address::Name(name.to_owned())],
            name: None,
            group: None,
            only_v6: false,
            steer: None,
            changes: Changes::NONE,
        };
        let found = self.find(&wanted, |_| false).ok()?;
        found.into_iter().next().map(|(entry, _)| entry)
    }

    /// The store has copies of what the predecessor has transferred: nothing tells that they are the same,
    /// but their names.
    pub(super) fn forget_stored_descriptors(&mut self) {
        let received: Vec<String> = self
            .received
            .values()
            .flatten()
            .filter(|entry| entry.socket.kind == SocketKind::Descriptor)
            .map(|entry| fdstore::name(&entry.socket))
            .collect();
        let is_copy = |Socket { kind, name, .. }: &Socket| {
            *kind == SocketKind::Descriptor
                && name.as_ref().is_some_and(|name| received.contains(name))
        };
        self.stored.retain(|entry| !is_copy(&entry.socket));
    }
}

impl<F> Entry<F> {
    fn is(&self, descriptor: &str) -> bool {
        self.socket.kind == SocketKind::Descriptor
            && matches!(&self.socket.asked, Address::Name(name) if name == descriptor)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pool;
    use super::{Address, Entry, SocketKind};
    use crate::proto::control::frame::Socket;

    fn descriptor(name: &str, fd: u32, outlives_crash: bool) -> Entry<u32> {
        let asked = Address::Name(name.to_owned());
        let kind = SocketKind::Descriptor;
        let socket = Socket {
            kind,
            local: asked.clone(),
            asked,
            name: None,
            member: 0,
            retired: false,
            file: None,
            flow: None,
        };
        Entry { socket, fd, cookie: Some(u64::from(fd)), only_v6: false, outlives_crash }
    }

    fn held(pool: &Pool<u32>) -> Vec<u32> {
        pool.held().unwrap_or_default().into_iter().map(|entry| entry.fd).collect()
    }

    #[test]
    fn the_last_one_of_a_name_is_kept() {
        let mut pool = Pool::new();
        assert!(pool.keep(descriptor("a", 1, false)).is_empty());
        assert!(pool.keep(descriptor("b", 2, true)).is_empty());
        assert_eq!(pool.keep(descriptor("a", 3, false)), [descriptor("a", 1, false)]);
        assert_eq!(held(&pool), [2, 3]);
        assert_eq!(pool.forget("b"), [descriptor("b", 2, true)]);
        assert!(pool.forget("c").is_empty());
        assert_eq!(pool.let_go().len(), 1);
        assert_eq!(pool.keep(descriptor("a", 4, false)).len(), 1);
        assert_eq!(pool.held(), None);
    }

    #[test]
    fn what_the_predecessor_kept_is_given_once_and_what_nobody_takes_is_closed() {
        let mut pool = Pool::new();
        pool.take(vec![descriptor("a", 1, false), descriptor("b", 2, false)]);
        assert_eq!(pool.take_descriptor("a"), Some(descriptor("a", 1, false)));
        assert_eq!(pool.take_descriptor("a"), None);
        assert_eq!(pool.take_descriptor("c"), None);
        assert!(held(&pool).is_empty());
        let unclaimed: Vec<u32> = pool.unclaimed().into_iter().map(|(entry, _)| entry.fd).collect();
        assert_eq!(unclaimed, [2]);
    }

    /// A copy in the store is not told from another file: it goes by its name.
    #[test]
    fn the_store_keeps_only_what_is_to_outlive_a_crash() {
        use crate::proto::sockets::fdstore;
        let mut pool = Pool::new();
        let name = fdstore::name(&descriptor("a", 0, true).socket);
        let mut stored = descriptor("", 7, true);
        stored.socket.name = Some(name.clone());
        pool.pass(stored.clone());
        pool.take(vec![descriptor("a", 1, true)]);
        assert_eq!(pool.take_descriptor("a").map(|entry| entry.fd), Some(1));
        assert_eq!(pool.take_descriptor("a"), None, "the copy in the store");
        assert!(pool.keep(descriptor("a", 2, true)).is_empty());
        assert!(pool.keep(descriptor("b", 3, false)).is_empty());
        let store = pool.bring_store_into_line();
        assert_eq!(store.remove.join(" "), name);
        assert_eq!(store.add, [(name.clone(), 2)]);
        let again = pool.bring_store_into_line();
        assert!(again.remove.is_empty() && again.add.is_empty());
        // After a crash the store is all that there is.
        let mut pool = Pool::new();
        pool.pass(stored);
        pool.take(Vec::new());
        assert_eq!(pool.take_descriptor("a").map(|entry| entry.fd), Some(7));
        let store = pool.bring_store_into_line();
        assert_eq!((store.remove, store.add.len()), (vec![name], 0));
    }
}
