//! Open connections that move to the successor: their clients do not notice the restart.
//!
//! In its drain, the old generation [passes](pass) each connection at a moment when it can: between two requests
//! or two messages. The successor [accepts](accept) the connections of the kinds that it knows.
//!
//! ```no_run
//! use seamless::connections::{self, Connection};
//! use std::net::TcpStream;
//!
//! # fn serve(_: TcpStream, _unread: Vec<u8>, _state: Vec<u8>) {}
//! seamless::init("/run/chat/chat.pid")?;
//! connections::accept("chat", |Connection { fd, unread, state, .. }| {
//!     std::thread::spawn(move || serve(TcpStream::from(fd), unread, state));
//! })?;
//! let listener = seamless::sockets::tcp("127.0.0.1:7000")?;
//! seamless::started()?; // from now on the predecessor may pass its connections
//! # drop(listener);
//! # Ok::<(), seamless::Error>(())
//! ```
//!
//! and, for each connection of the old generation, when its drain has begun:
//!
//! ```no_run
//! use seamless::connections::{self, Connection};
//! use std::net::TcpStream;
//!
//! # fn serve_on(_: Connection) {}
//! # fn leave(stream: TcpStream, unread: Vec<u8>, name: String) {
//! let mut connection = Connection::new(stream);
//! connection.unread = unread; // read from the socket, and not used
//! connection.state = name.into_bytes();
//! if let Err(stays) = connections::pass("chat", connection).wait() {
//!     serve_on(stays.connection); // as if nothing had happened
//! }
//! # }
//! ```
//!
//! # Before it is passed
//!
//! - Read nothing more from the connection. What was read and not used goes along as
//!   [`unread`](Connection::unread).
//! - Write everything that is to be written, or put it into the [`state`](Connection::state). Wait for what the
//!   kernel does with it on your behalf, such as io_uring and `MSG_ZEROCOPY`.
//! - Remove it from epoll. A registration belongs to the open socket, not to the descriptor: it would go on to
//!   wake this process. With tokio, `connections::tokio` does that.
//! - Do not call `shutdown`, and set no `SO_LINGER` for a forced exit: both act on the successor's copy.
//! - Pass the last copy. What else holds the connection in this process must not read or write any more.
//!
//! A TLS connection cannot be passed: its keys are in the memory of the library.
//!
//! # What is promised
//!
//! A connection is served by exactly one of the two generations, and none of its bytes is lost or doubled, also
//! if one of them is killed. It is closed only if the process that holds it is killed. The successor reads
//! nothing before it has said that it keeps the connection. If it dies before that, the connection is taken back
//! and passed to the next successor. If there is none, or it refuses, the call returns the connection, and the old
//! generation serves it on.
//!
//! If the successor does not answer for a second, nothing more is sent to it, and connections that wait are
//! returned. Those that were sent stay in doubt until the successor answers or ends: it may have taken them, and a
//! clock cannot tell. If the limit of the drain passes before that, this process ends, and the successor has them.
//!
//! Both sides are proven before anything moves, by the kernel and by the record: only generations of this service,
//! with the same user, pass connections to each other.
//!
//! # When
//!
//! Only in a drain behind which another generation serves: after a successor has taken over, after the
//! [probation](crate::Config::probation) of a successor was passed, or after this generation was rolled back. On a
//! stop, and before the drain, [`pass`] returns the connection at once. A generation that has no handler for a
//! kind, or an earlier version of this crate, refuses.
//!
//! Kinds that begin with `http` belong to the module `http`.

#[cfg(feature = "tokio")]
pub mod tokio;

use crate::driver::passing as driver;
pub use crate::driver::passing::{Connection, NotPassed, Passing, Reason};
use crate::error::Result;
use std::sync::Arc;

/// Passes an open connection to the generation that serves. The result comes when it is decided whose the
/// connection is: await it, or block a thread on it with [`wait`](Passing::wait). Connections that are passed at
/// the same time travel together.
///
/// `kind` is what the successor [accepts](accept): 1 to 255 bytes. A change of the form of the state should change
/// the kind as well, so that a successor of another version refuses it instead of reading it wrongly. State and
/// unread bytes together have at most 16 MiB. The connection is a stream or a SEQPACKET socket of any family.
///
/// The drain is held up until it is decided.
///
/// # Errors
///
/// [`NotPassed`], with the connection, as it was: see [`Reason`].
pub fn pass(kind: &str, connection: Connection) -> Passing {
    driver::pass(kind, connection)
}

/// Accepts connections of this kind from older generations, and from a newer one that was rolled back. A second call
/// with the same kind replaces the first.
///
/// `serve` runs on a thread of the crate, which gets the next connection only when it has returned: it should
/// hand the connection to a thread or a task. The connection is this process's from then on. If `serve` panics,
/// that connection is closed, and the log says so. Hold a [`drain_guard`](crate::drain_guard) as for a connection
/// that was accepted at a listener.
///
/// Call it between [`init`](crate::init) and [`started`](crate::started): as soon as this generation has started,
/// its predecessor may pass connections.
///
/// # Errors
///
/// - [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig): the name is empty, has more than 255 bytes or
///   begins with `seamless/`; or [`started`](crate::started) has been called.
/// - [`ErrorKind::NotInitialized`](crate::ErrorKind::NotInitialized): `init` has not succeeded.
pub fn accept(kind: &str, serve: impl Fn(Connection) + Send + Sync + 'static) -> Result<()> {
    let serve = Arc::new(serve);
    accept_if(kind, move |_| {
        let serve = Arc::clone(&serve);
        Some(move |connection| serve(connection))
    })
}

/// As [`accept`], for a program that may refuse: at a limit, or because of what the state says.
///
/// `admit` gets the [state](Connection::state), and returns what serves the connection, or `None`. Then the
/// connection stays in the generation that it comes from. It runs on a thread of the crate, and all connections of
/// a message are admitted before the first one is served. If it panics, the connection is refused. What it returns
/// holds what the connection needs, such as a permit. It is dropped uncalled only if this process ends.
///
/// # Errors
///
/// As [`accept`].
pub fn accept_if<S>(
    kind: &str,
    mut admit: impl FnMut(&[u8]) -> Option<S> + Send + 'static,
) -> Result<()>
where
    S: FnOnce(Connection) + Send + 'static,
{
    let admit = move |state: &[u8]| {
        let serve = admit(state)?;
        Some(Box::new(serve) as Box<dyn FnOnce(Connection) + Send>)
    };
    driver::accept(kind, Box::new(admit))
}
