//! QUIC connection IDs that lead each packet to the process that has made them.

use super::{Steer, steer};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::flows::quic::{self, Cipher, Mark};
use crate::sys::random;
use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes the connection IDs of one member of a group that is steered by [`Steer::Quic`].
///
/// An endpoint that reads from this member must use these IDs, and no others, as its own (source) connection
/// IDs: in its first answer, and for each new one that it tells the client later. The kernel then gives every
/// packet that is sent to such an ID to this member, from whichever address it comes: connection migration,
/// 0-RTT after a Retry and repeated Initial packets included.
///
/// An ID holds the generation and the member, enciphered by a key that all generations of the group share.
/// Others cannot read it, link two IDs, or make one that leads to a process of their choice. The key travels
/// from generation to generation, and is never written to disk. If all generations have ended, the next one
/// has a new key.
///
/// The example `quic` of the crate implements quinn's `ConnectionIdGenerator` with it.
#[derive(Clone)]
pub struct ConnectionIds {
    cipher: Arc<Cipher>,
    mark: Mark,
    living: Arc<AtomicU64>,
    reset_key: [u8; 32],
}

/// Which process has made a connection ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MadeBy {
    /// This generation.
    ThisGeneration,
    /// Another generation, which lives. Its packets come here only by accident: when one of them was on its
    /// way during a restart, or when the network card has joined packets (GRO). Drop them; a reset would end a
    /// connection that is well. A generation that drains no longer learns who has ended, and takes every other one for
    /// one that lives.
    Living,
    /// A generation that has ended. A stateless reset tells the client at once, so that it connects again.
    Ended,
    /// No generation: a client has chosen it, or it was damaged.
    Unknown,
}

impl ConnectionIds {
    /// The length of a connection ID, in bytes.
    pub const LENGTH: usize = quic::LENGTH;

    /// For an endpoint that reads from this socket: one that [`udp_group`](super::Options::udp_group) has
    /// returned, or a duplicate of it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Socket`]: the socket is no member of a group of this process that is steered by
    /// [`Steer::Quic`].
    pub fn new(member: impl AsFd) -> Result<ConnectionIds> {
        let member = steer::find(member)?;
        if member.steer != Steer::Quic {
            let text =
                "cannot make connection IDs (socket): the group is not steered by Steer::Quic";
            return Err(Error::new(ErrorKind::Socket, text));
        }
        Ok(ConnectionIds {
            cipher: Arc::new(Cipher::new(&member.secret)),
            mark: member.mark,
            reset_key: quic::reset_key(&member.secret),
            living: member.living,
        })
    }

    /// A new ID. Two IDs are the same with a chance of 1 in 2^56, so compare with those in use, as quinn does.
    ///
    /// # Panics
    ///
    /// If the kernel gives no random bytes (`getrandom(2)`), which it does not do once the crate has got its
    /// key.
    pub fn generate(&self) -> [u8; ConnectionIds::LENGTH] {
        let mut bytes = [0; quic::RANDOM];
        random(&mut bytes).expect("getrandom gave bytes before");
        self.cipher.make(self.mark, bytes)
    }

    /// Which process has made this ID: asked for a packet that belongs to no connection of this endpoint.
    pub fn made_by(&self, id: &[u8]) -> MadeBy {
        match self.cipher.read(id) {
            None => MadeBy::Unknown,
            Some(mark) if mark.slot == self.mark.slot => MadeBy::ThisGeneration,
            Some(mark) if self.living.load(Ordering::SeqCst) & 1 << mark.slot != 0 => {
                MadeBy::Living
            }
            Some(_) => MadeBy::Ended,
        }
    }

    /// The key for the tokens of stateless resets, the same in all generations of the group: so a new
    /// generation can reset the connections of one that has crashed. Keep it secret.
    pub fn reset_key(&self) -> [u8; 32] {
        self.reset_key
    }
}

/// Without the keys.
impl fmt::Debug for ConnectionIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionIds").field("mark", &self.mark).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::control::frame::Secret;

    #[test]
    fn connection_ids_get_other_bytes_each_time() {
        let cipher = Arc::new(Cipher::new(&Secret([7; Secret::LENGTH])));
        let mark = Mark { slot: 1, member: 0 };
        let ids = ConnectionIds { cipher, mark, living: Arc::default(), reset_key: [0; 32] };
        let (first, second) = (ids.generate(), ids.generate());
        assert_ne!(first, second);
        for id in [first, second] {
            assert_eq!(ids.made_by(&id), MadeBy::ThisGeneration);
        }
    }
}
