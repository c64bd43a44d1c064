//! What a program asks about its members of a steered group.

use super::{Options, Steer};
use crate::driver::sockets::flows::{self, Member};
use crate::error::{Error, ErrorKind, Result};
use crate::proto::control::frame::SocketKind;
use std::os::fd::AsFd;

impl Options {
    pub(super) fn check_steer(&self, kind: SocketKind) -> Result<()> {
        if self.steer.is_none() || kind == SocketKind::Udp {
            return Ok(());
        }
        let text = format!("cannot steer a {} socket (socket): only UDP has flows", kind.name());
        Err(Error::new(ErrorKind::Socket, text))
    }
}

impl Steer {
    /// For [`Steer::Bytes`]: the value by which datagrams find this generation. The bits outside of the mask
    /// are 0. It stays the same for the life of this process, and the next generations have other values.
    ///
    /// `member`: a socket of the group, as [`udp_group`](Options::udp_group) has returned it, or a duplicate.
    /// The server puts the value into the session number that it chooses, or tells its client to send it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Socket`]: the socket is no member of a group of this process that is steered in this
    /// way.
    ///
    /// ```no_run
    /// use seamless::sockets::{Options, Steer};
    ///
    /// # seamless::init("")?;
    /// // The first byte of each datagram is the generation's.
    /// let steer = Steer::Bytes { offset: 0, mask: 0xff00_0000 };
    /// let members = Options::new().steer(steer).udp_group("0.0.0.0:4000", 2)?;
    /// let first_byte = (steer.mine(&members[0])? >> 24) as u8;
    /// # _ = first_byte;
    /// # Ok::<(), seamless::Error>(())
    /// ```
    pub fn mine(self, member: impl AsFd) -> Result<u32> {
        let Member { steer, mark, .. } = find(member)?;
        steer.value(mark.slot).filter(|_| steer == self).ok_or_else(|| {
            let text = "cannot tell the value of this generation (socket): the group is not steered by these \
                        bytes";
            Error::new(ErrorKind::Socket, text)
        })
    }
}

pub(super) fn find(member: impl AsFd) -> Result<Member> {
    flows::member(member.as_fd()).ok_or_else(|| {
        let text =
            "cannot use this socket (socket): it is no member of a steered group of this process";
        Error::new(ErrorKind::Socket, text)
    })
}
