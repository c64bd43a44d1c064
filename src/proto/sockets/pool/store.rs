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

impl<F> Store<F> {
    /// Leaves out what the store has no room for. Returns how many sockets it would have to hold, if these are too
    /// many. `room`: how many it takes. A store that takes none is left alone: systemd would log each one that it
    /// refuses.
    pub(crate) fn fit(&mut self, room: usize) -> Option<usize> {
        if room == 0 {
            self.remove.clear();
            self.add.clear();
            return None;
        }
        let sum = self.kept + self.add.len();
        self.add.truncate(room.saturating_sub(self.kept));
        (sum > room).then_some(sum)
    }
}

impl<F: Clone> Pool<F> {
    /// The store has to hold every socket that serves, and nothing else. It does not hold those that the
    /// supervisor keeps anyway. After this call, the store counts as changed. In the drain it is the successor's.
    pub(crate) fn bring_store_into_line(&mut self) -> Store<F> {
        if self.let_go {
            return Store { remove: Vec::new(), add: Vec::new(), kept: 0 };
        }
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

#[cfg(test)]
mod tests {
    use super::Store;

    #[test]
    fn what_the_store_has_no_room_for_is_left_out() {
        for (room, add, too_many) in
            [(5, 2, None), (4, 1, Some(5)), (2, 0, Some(5)), (1, 0, Some(5))]
        {
            let new = ["a", "b"].map(|name| (name.to_owned(), ()));
            let mut store = Store { remove: vec!["c".to_owned()], add: new.to_vec(), kept: 3 };
            assert_eq!(store.fit(room), too_many, "{room}");
            assert_eq!((store.add.len(), store.remove.len()), (add, 1), "{room}");
            assert_eq!(store.fit(0), None);
            assert!(store.add.is_empty() && store.remove.is_empty());
        }
    }
}
