//! What the supervisor's store has to hold.

use super::Pool;
use crate::proto::control::frame::SocketKind;
use crate::proto::sockets::fdstore;
use std::mem;

/// How the supervisor's store has to change.
pub(crate) struct Store<F> {
    /// These names are not needed any more, or mean another socket now.
    pub(crate) remove: Vec<String>,
    pub(crate) add: Vec<(String, F)>,
    /// How many are in it and stay.
    pub(crate) kept: usize,
}

impl<F: Clone> Pool<F> {
    /// The store has to hold every socket that serves, and nothing else. It does not hold those that the
    /// supervisor keeps anyway. After this call, the store counts as changed.
    pub(crate) fn bring_store_into_line(&mut self) -> Store<F> {
        // Sockets first: if the store has too little room, descriptors are left out.
        let (sockets, descriptors): (Vec<_>, Vec<_>) =
            self.held.iter().partition(|entry| entry.socket.kind != SocketKind::Descriptor);
        let wanted: Vec<(String, u64, F)> = sockets
            .into_iter()
            .chain(descriptors)
            .filter(|entry| !entry.socket.retired && entry.outlives_crash)
            .filter_map(|entry| {
                Some((fdstore::name(&entry.socket), entry.cookie?, entry.fd.clone()))
            })
            .filter(|(_, cookie, _)| !self.of_supervisor.contains(cookie))
            .collect();
        let is_in = |set: &[(String, u64)], name: &str, cookie| {
            set.iter().any(|(one, other)| one == name && *other == cookie)
        };
        let now: Vec<(String, u64)> =
            wanted.iter().map(|(name, cookie, _)| (name.clone(), *cookie)).collect();
        let before = mem::replace(&mut self.in_store, now.clone());
        let earlier = mem::take(&mut self.of_predecessor);
        let mut remove: Vec<String> = before
            .iter()
            .chain(&earlier)
            .filter(|(name, cookie)| !is_in(&now, name, *cookie))
            .map(|(name, _)| name.clone())
            .collect();
        remove.sort();
        remove.dedup();
        // What goes by its name takes all of that name with it.
        let in_place =
            |name: &String, cookie| is_in(&before, name, cookie) && !remove.contains(name);
        let add: Vec<(String, F)> = wanted
            .into_iter()
            .filter(|(name, cookie, _)| !in_place(name, *cookie))
            .map(|(name, _, fd)| (name, fd))
            .collect();
        Store { kept: now.len() - add.len(), remove, add }
    }
}
