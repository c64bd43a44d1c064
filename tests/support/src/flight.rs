//! Descriptors that are in messages which nobody has received.

use std::{
    fs::File,
    io::IoSlice,
    os::{
        fd::{AsRawFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

/// So many of this user's, on the way as long as the value lives.
#[derive(Debug)]
pub struct InFlight(#[expect(dead_code)] (UnixStream, UnixStream));

impl InFlight {
    pub fn new(count: usize) -> Self {
        let (from, to) = UnixStream::pair().expect("a socket pair");
        let file = File::open("/dev/null").expect("a file");
        let files: Vec<RawFd> = vec![file.as_raw_fd(); count];
        for some in files.chunks(100) {
            let rights = [ControlMessage::ScmRights(some)];
            let parts = [IoSlice::new(b".")];
            sendmsg::<UnixAddr>(from.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None)
                .expect("room");
        }
        InFlight((from, to))
    }
}
