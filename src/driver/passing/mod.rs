//! Open connections that move from a generation that drains to the one that serves. `give` sends them, `take`
//! gets them, and `proto::control::passing` decides.

mod calls;
mod give;
mod outcome;
mod queue;
pub(in crate::driver) mod take;

use crate::proto::control::frame::Passed;
pub use crate::proto::control::passing::Reason;
use crate::shutdown::DrainGuard;
pub(crate) use calls::{accept, pass};
use outcome::Slot;
pub use outcome::{NotPassed, Passing};
use queue::Queue;
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

/// An open connection that moves to another generation.
///
/// The fields are public: the receiver takes them apart.
pub struct Connection {
    /// The connected socket, close-on-exec. It has the same mode (`O_NONBLOCK`) and the same options as in the
    /// process that has passed it.
    pub fd: OwnedFd,
    /// What was read from it and is not used yet: the receiver must use these bytes before it reads.
    pub unread: Vec<u8>,
    /// Whatever else the receiver has to know, in a form of the program's own: who is logged in, what is still to
    /// be written.
    pub state: Vec<u8>,
}

impl Connection {
    /// One without unread bytes and without a state: set these fields as needed.
    pub fn new(fd: impl Into<OwnedFd>) -> Connection {
        Connection { fd: fd.into(), unread: Vec::new(), state: Vec::new() }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("fd", &self.fd)
            .field("unread", &self.unread.len())
            .field("state", &self.state.len())
            .finish()
    }
}

/// What serves one connection.
pub(crate) type Serve = Box<dyn FnOnce(Connection) + Send>;
/// By the state of a connection: what serves it, or `None`.
pub(crate) type Admit = Box<dyn FnMut(&[u8]) -> Option<Serve> + Send>;

/// What moves in both directions.
pub(in crate::driver) struct Connections {
    /// What the program accepts.
    kinds: Mutex<BTreeMap<String, Arc<Mutex<Admit>>>>,
    /// How many links there are at which connections arrive.
    links: AtomicUsize,
    queue: Queue,
}

impl Connections {
    pub(in crate::driver) const fn new() -> Connections {
        let kinds = Mutex::new(BTreeMap::new());
        Connections { kinds, links: AtomicUsize::new(0), queue: Queue::new() }
    }
}

/// One that waits to be sent, or is in doubt.
struct Waiting {
    about: Passed,
    connection: Connection,
    slot: Arc<Slot>,
    _guard: DrainGuard,
}
