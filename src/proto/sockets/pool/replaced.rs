//! Sockets that nobody asks for any more, while another one is asked for at an address that overlaps.

use super::{Entry, Found, Origin, Pool, Wanted};
use crate::proto::control::frame::Address;
use crate::proto::sockets::overlap::Reach;
use std::mem;

impl<F> Entry<F> {
    fn reach(&self) -> Option<Reach> {
        match self.socket.local {
            Address::Inet(address) => Some(Reach::of(address, self.only_v6)),
            Address::Unix(_) | Address::Vsock { .. } | Address::Name(_) => None,
        }
    }
}

impl Wanted<'_> {
    /// Is there an address at which both the wanted socket and this one would get packets?
    pub(crate) fn meets<F>(&self, entry: &Entry<F>) -> bool {
        let meets = |address: &Address| match address {
            Address::Inet(address) => {
                let asked = Reach::of(*address, self.only_v6);
                entry.reach().is_some_and(|reach| asked.meets(reach))
            }
            Address::Unix(_) | Address::Vsock { .. } | Address::Name(_) => false,
        };
        entry.socket.kind == self.kind && self.addresses.iter().any(meets)
    }
}

impl<F: Clone> Pool<F> {
    /// Has the supervisor passed a socket that a steered group would need?
    pub(crate) fn is_passed(&self, wanted: &Wanted<'_>) -> bool {
        self.passed.iter().any(|entry| wanted.is_named(entry) || wanted.meets(entry))
    }

    /// A member of a steered group was asked for: nobody may ask for it again.
    pub(crate) fn note_asked(&mut self, wanted: &Wanted<'_>, asked: &Address) {
        self.asked.insert(super::key(wanted.kind, asked, wanted.name));
    }

    /// The sockets that nobody has asked for, and whose addresses overlap that of the wanted one. While they are
    /// open it cannot be bound, unless the ports are shared (SO_REUSEPORT).
    pub(crate) fn overlapping(&self, wanted: &Wanted<'_>) -> Vec<Found<F>> {
        let is_it = |entry: &&Entry<F>| wanted.meets(entry);
        let of = |origin| move |entry: &Entry<F>| (entry.clone(), origin);
        let passed = self.passed.iter().filter(is_it).map(of(Origin::Supervisor));
        let stored = self.stored.iter().filter(is_it).map(of(Origin::Store));
        let received = self.received.values().flatten().filter(is_it);
        passed.chain(stored).chain(received.map(of(Origin::Predecessor))).collect()
    }

    /// Keeps those of which each address is covered by a socket that was asked for, and returns the others.
    pub(super) fn keep_replaced(&mut self, unclaimed: Vec<Found<F>>) -> Vec<Found<F>> {
        let (replaced, unclaimed): (Vec<Found<F>>, Vec<Found<F>>) =
            unclaimed.into_iter().partition(|(entry, _)| self.is_replaced(entry));
        self.replaced.extend(replaced.into_iter().map(|(entry, _)| entry));
        unclaimed
    }

    fn is_replaced(&self, entry: &Entry<F>) -> bool {
        let of_its_kind = self.held.iter().filter(|one| one.socket.kind == entry.socket.kind);
        let others: Vec<Reach> = of_its_kind.filter_map(Entry::reach).collect();
        entry.reach().is_some_and(|reach| reach.is_covered_by(&others))
    }

    /// Will there be such sockets when this generation serves?
    pub(crate) fn replaces(&self) -> bool {
        let mut others = self.stored.iter().chain(self.received.values().flatten());
        others.any(|entry| self.is_replaced(entry))
    }

    /// This generation serves. Returns the sockets whose addresses others cover that were asked for. From
    /// now on those have to get what arrives; the older generations still answer what waits here.
    pub(crate) fn replaced(&mut self) -> Vec<Entry<F>> {
        mem::take(&mut self.replaced)
    }
}
