//! What a successor understands: nothing else is offered to it. A version of the crate that does not name
//! what it understands is one of the first, and gets what these knew.

use super::SocketKind;

/// The word for named states, among the names of kinds.
const STATES: &str = "state";

/// A set of kinds of sockets, and whether named states are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Known(u16);

impl Known {
    /// What this version understands.
    pub(crate) const ALL: Known = Known((1 << SocketKind::ALL.len()) - 1 + Known::STATES);
    /// What a version understands that does not say it: the first four kinds.
    pub(crate) const FIRST: Known = Known(0b1111);
    const STATES: u16 = 1 << 15;

    pub(crate) fn has(self, kind: SocketKind) -> bool {
        self.0 & Known::bit(kind) != 0
    }

    pub(crate) fn has_states(self) -> bool {
        self.0 & Known::STATES != 0
    }

    fn bit(kind: SocketKind) -> u16 {
        1 << kind as u16
    }

    /// As a list of words. `None`: it need not be said.
    pub(super) fn format(self) -> Option<String> {
        if self == Known::FIRST {
            return None;
        }
        let kinds = SocketKind::ALL.into_iter().filter(|kind| self.has(*kind));
        let words = kinds.map(SocketKind::name).chain(self.has_states().then_some(STATES));
        Some(words.collect::<Vec<_>>().join(","))
    }

    /// Words of a later version are ignored.
    pub(super) fn parse(words: Option<&str>) -> Known {
        let Some(words) = words else { return Known::FIRST };
        let bits = words.split(',').map(|word| match word {
            STATES => Known::STATES,
            word => SocketKind::from_name(word).map_or(0, Known::bit),
        });
        Known(bits.fold(0, |all, bit| all | bit))
    }
}

#[cfg(test)]
mod tests {
    use super::{Known, SocketKind};

    #[test]
    fn what_each_version_understands() {
        assert_eq!(Known::parse(None), Known::FIRST);
        assert_eq!(Known::FIRST.format(), None);
        let all = Known::ALL.format().expect("words");
        assert_eq!(all, "tcp,udp,unix,unix-datagram,unix-seqpacket,vsock,descriptor,state");
        assert_eq!(Known::parse(Some(&all)), Known::ALL);
        let later = Known::parse(Some("tcp,carrier-pigeon,state"));
        assert_eq!(later.format().as_deref(), Some("tcp,state"));
        assert!(later.has(SocketKind::Tcp) && later.has_states());
        assert!(!later.has(SocketKind::Udp) && !Known::FIRST.has_states());
        assert!(SocketKind::ALL.into_iter().all(|kind| Known::ALL.has(kind)));
        assert_eq!(Known::parse(Some("")).format().as_deref(), Some(""));
        assert!(Known::parse(Some("udp,tcp,udp")).has(SocketKind::Udp), "said twice");
    }
}
