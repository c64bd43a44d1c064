//! What a program asks for.

use super::Entry;
use crate::proto::control::frame::{Address, SocketKind, Steer};
use crate::proto::sockets::changes::Changes;

/// As the program asks for it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) kind: SocketKind,
    /// In the order in which they are tried.
    pub(crate) addresses: Vec<Address>,
    pub(crate) name: Option<&'a str>,
    /// The number of sockets, if it is a group.
    pub(crate) group: Option<usize>,
    /// Whether a socket at every IPv6 address leaves IPv4 to others.
    pub(crate) only_v6: bool,
    /// What can be changed of a socket that was taken over.
    pub(crate) changes: Changes,
    /// How a group of UDP sockets is steered.
    pub(crate) steer: Option<Steer>,
}

impl Wanted<'_> {
    pub(crate) fn count(&self) -> usize {
        self.group.unwrap_or(1)
    }

    /// Did the supervisor give this name to the socket that it has passed?
    pub(super) fn is_named<F>(&self, passed: &Entry<F>) -> bool {
        self.name.is_some() && passed.socket.name.as_deref() == self.name
    }

    /// Whether a socket leaves IPv4 to others cannot be changed once it is bound.
    pub(super) fn fits<F>(&self, entry: &Entry<F>) -> bool {
        let is_every_v6 = matches!(entry.socket.local, Address::Inet(address) if address.is_ipv6() && address.ip().is_unspecified());
        !is_every_v6 || self.only_v6 == entry.only_v6
    }
}
