//! Datagram flows stay with their process: groups of UDP sockets that several generations share
//! (SO_REUSEPORT), and the program that chooses among the sockets.
//!
//! The kernel numbers the sockets of a group in the order in which they were bound. A program of classic BPF
//! looks at each datagram and returns such a number. When a socket is closed, the kernel moves the last one
//! to its place. So a generation has to know the order of all sockets, and no socket may leave the middle.
//!
//! 1. **Everybody holds all.** A generation gets duplicates of all sockets of the group from the one before
//!    it, binds its own behind them, and keeps all of them until its process ends. So each generation holds
//!    the first sockets of the order, and a newer one holds more of them than an older one. Whichever
//!    processes die, and in whatever order: of the sockets that are left, none has moved.
//! 2. **Nothing leaves, places are used again.** The sockets of a generation that has ended are free. No
//!    datagram goes to them. The next generation takes free ones for its own before it binds new ones.
//! 3. **One writer.** A generation writes the program when it has just begun to serve, and again when an
//!    older one has ended. A generation that drains writes nothing, and neither does one while a newer one
//!    starts. A generation that stands by writes only if it serves again (a rollback), or while the new one is
//!    silent.
//! 4. **Attach, then bind.** A new socket gets nothing as long as the program does not return its number.
//! 5. **Who stands by holds the new ones, too.** It gets them before it answers, and before new flows go there.
//!    So after a rollback it knows the whole order, and the flows of a new generation that drains.
//!
//! `layout` knows whose socket each place is, `program` makes the program for it, `bpf` is the machine's
//! language, and `quic` makes the connection IDs that the program reads.

pub(crate) mod bpf;
pub(crate) mod layout;
pub(crate) mod program;
pub(crate) mod quic;

use crate::proto::control::frame::{MEMBERS_MAX, OFFSET_MAX, SLOT_MAX};
pub(crate) use crate::proto::control::frame::{Owner, Secret, Steer};
use crate::proto::generation::verdict::Facts;

/// The low bits of a key are the member, the others are the slot.
const MEMBER_BITS: u32 = 10;

/// A number for one member of one generation.
fn key(slot: u16, member: u16) -> u32 {
    (u32::from(slot) << MEMBER_BITS) + u32::from(member)
}

impl Steer {
    /// The largest number that can stand for a generation.
    fn slot_max(self) -> u16 {
        match self {
            Steer::Newest | Steer::Quic => SLOT_MAX,
            Steer::Bytes { mask, .. } => match mask.count_ones() {
                bits @ 0..6 => (1 << bits) - 1,
                _ => SLOT_MAX,
            },
        }
    }

    /// What stands in a datagram for the generation with this slot. `None` if datagrams have no such value.
    pub(crate) fn value(self, slot: u16) -> Option<u32> {
        let Steer::Bytes { mask, .. } = self else { return None };
        let (mut value, mut left) = (0, u32::from(slot));
        for bit in (0..32).map(|at| 1 << at).filter(|bit| mask & bit != 0) {
            if left & 1 != 0 {
                value += bit;
            }
            left >>= 1;
        }
        Some(value)
    }

    /// Why a group cannot be steered in this way.
    pub(crate) fn refusal(self, members: usize) -> Option<String> {
        if members > MEMBERS_MAX {
            return Some(format!("a steered group has {MEMBERS_MAX} members at most"));
        }
        match self {
            Steer::Newest | Steer::Quic => None,
            Steer::Bytes { mask, .. } if mask.count_ones() < 2 => {
                Some("a mask needs at least two bits, for two generations".to_owned())
            }
            Steer::Bytes { offset, .. } if offset > OFFSET_MAX => {
                Some("no datagram is long enough for this offset".to_owned())
            }
            Steer::Bytes { .. } => None,
        }
    }
}

/// Is this generation the newest one that serves? Only that one writes programs. A newer one may be left that has
/// failed and drains.
pub(crate) fn is_newest<'a>(own: u64, mut others: impl Iterator<Item = &'a Facts>) -> bool {
    !others.any(|one| one.number > own && one.may_have_flows() && one.serves)
}

#[cfg(test)]
mod tests;
