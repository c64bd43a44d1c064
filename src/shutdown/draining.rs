//! [`Draining`]: the beginning of the drain, as the program waits for it.

use super::{LONGEST_GRACE, Shutdown, lock};
use crate::proto::DrainReason;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};

/// How long after its beginning the drain is told to a program that asks for no other time.
const GRACE: Duration = Duration::from_secs(1);

/// Resolves a grace after the drain has begun: see [`draining`](crate::draining). Needs no runtime:
/// await it anywhere, hand it to `with_graceful_shutdown`, or block a thread on it with
/// [`wait`](Draining::wait). Clones resolve together; one that is made after that resolves at once.
///
/// The drain begins when a successor has taken over, when the service is stopped, or when this
/// process is sent TERM or INT. [`has_begun`](Draining::has_begun) is true from then on. Whatever waits
/// for this future is woken when the grace is over: 1 s later, or as [`after`](Draining::after) and
/// [`at_once`](Draining::at_once) say.
///
/// # Why a grace
///
/// The graceful shutdown of a framework closes idle connections at once. A connection looks idle while
/// its first or next request is on its way, and its client then gets no answer. So a shutdown that
/// begins together with the drain loses a few requests at each restart. In the grace, these requests
/// arrive and are answered. Two more things must happen in it, or the framework's shutdown will find as
/// many connections as before:
///
/// - No more connections are accepted. The listeners of `sockets::tokio` see to that: they empty their
///   queue when the drain begins, and stop.
/// - Answers say `Connection: close` while [`has_begun`](Draining::has_begun) is true, so that clients
///   leave. The tower layer `seamless::tower::ConnectionClose` adds it. HTTP/2 needs no such header.
///
/// The grace is the same whatever the [reason](Draining::reason) for the drain: a client does not know
/// whether a successor serves or the service is stopped, and its request is on its way in either case.
/// So a stop takes a second, too, also if nobody is connected.
///
/// If the drain has a limit ([`drain_timeout`](crate::Config::drain_timeout)), the grace is at most half
/// of it. The other half is left for the framework's shutdown.
#[must_use = "a future does nothing unless it is awaited or waited for"]
pub struct Draining {
    pub(super) shutdown: &'static Shutdown,
    grace: Duration,
    number: Option<u64>,
}

impl Draining {
    pub(crate) fn of(shutdown: &'static Shutdown) -> Draining {
        Draining { shutdown, grace: GRACE, number: None }
    }

    /// The same without a grace: it resolves when the drain begins.
    ///
    /// This is for code that accepts connections itself, or that tells its clients to leave: a
    /// WebSocket that sends its Close frame, an accept loop that empties its queue and stops. Do not
    /// hand it to the graceful shutdown of a framework: [see above](Draining#why-a-grace).
    pub fn at_once(self) -> Draining {
        self.after(Duration::ZERO)
    }

    /// The same with another grace. Default: 1 s. At most half of the drain's limit, and at most a year.
    ///
    /// It should be longer than a request travels from a client to this process. If clients pause
    /// between two requests for longer than this, their connections are closed when the grace is over.
    /// HTTP allows them to send a request again that meets a closed idle connection.
    pub fn after(self, grace: Duration) -> Draining {
        let grace = grace.min(LONGEST_GRACE);
        Draining { shutdown: self.shutdown, grace, number: None }
    }

    /// Has the drain begun? The grace does not matter here: this is true from the very beginning.
    pub fn has_begun(&self) -> bool {
        self.shutdown.has_begun()
    }

    /// Why the drain begins: the reason that [`wait`](crate::wait) returns at its end. `None` before
    /// that is decided.
    ///
    /// It is known from the hooks [before](crate::hooks::before) the drain on, so also when this
    /// future has resolved. Use it for what only one of the reasons asks for, for example to leave a
    /// load balancer when the service is stopped, but not when a successor has taken over.
    pub fn reason(&self) -> Option<DrainReason> {
        lock(&self.shutdown.state).reason
    }

    /// Blocks this thread until the future would resolve: the grace counts.
    pub fn wait(&self) {
        self.shutdown.wait_begun(self.grace, None);
    }

    /// As [`wait`](Draining::wait), but no longer than `timeout`. Tells whether the grace is over.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.shutdown.wait_begun(self.grace, Some(timeout))
    }

    /// A descriptor that can be read from, up to its end, as soon as the future would resolve: for a
    /// program that waits with `poll(2)`, `select(2)` or `epoll(7)` and must be woken by the drain. A
    /// loop that accepts connections uses `draining().at_once().fd()`.
    ///
    /// Only wait for it; there is nothing to read. Each call makes a pair of sockets, so make one
    /// descriptor and share it. It is close-on-exec.
    ///
    /// # Errors
    ///
    /// No descriptors or no memory, as `socketpair(2)` reports it.
    pub fn fd(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair()?;
        if let Some(waiting) = self.shutdown.enter(&mut lock(&self.shutdown.state), self.grace) {
            waiting.ends.push(ours);
        }
        Ok(theirs.into())
    }
}

impl Future for Draining {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Draining { shutdown, grace, ref mut number } = *self;
        match shutdown.poll_begun(grace, number, context.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Clone for Draining {
    fn clone(&self) -> Self {
        Draining { shutdown: self.shutdown, grace: self.grace, number: None }
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let mut state = lock(&self.shutdown.state);
        let waiting = state.waiting.get_mut(&self.grace);
        let forgotten = waiting.and_then(|waiting| waiting.wakers.forget(number));
        drop(state);
        drop(forgotten);
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draining")
            .field("has_begun", &self.has_begun())
            .field("grace", &self.grace)
            .finish()
    }
}
