//! The same for the streams of tokio: [`TcpStream`] and [`UnixStream`].
//!
//! ```no_run
//! use seamless::connections::tokio::{Arrived, accept, pass};
//! use tokio::net::TcpStream;
//!
//! # async fn serve(_: TcpStream, _unread: Vec<u8>, _state: Vec<u8>) {}
//! # async fn run() -> seamless::Result<()> {
//! let mut arriving = accept::<TcpStream>("chat")?; // before `started`
//! seamless::started()?;
//! tokio::spawn(async move {
//!     loop {
//!         let Arrived { stream, unread, state, .. } = arriving.next().await;
//!         tokio::spawn(serve(stream, unread, state));
//!     }
//! });
//! # Ok(())
//! # }
//! # async fn leave(stream: TcpStream, unread: Vec<u8>, state: Vec<u8>) {
//! // In the drain, for each connection, when nothing is half-way:
//! if let Err(stays) = pass("chat", stream, unread, state).await {
//!     if let Ok(stream) = stays.stream {
//!         serve(stream, stays.unread, stays.state).await; // as if nothing had happened
//!     }
//! }
//! # }
//! ```

use super::{Connection, NotPassed, Reason};
use crate::DrainGuard;
use crate::error::Result;
use crate::shutdown::lock;
use ::tokio::net::{TcpStream, UnixStream};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net;
use std::os::fd::OwnedFd;
use std::os::unix::net as unix;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// A stream of tokio that can be passed: [`TcpStream`], [`UnixStream`]. This trait is sealed.
pub trait Stream: sealed::Stream {}

impl Stream for TcpStream {}
impl Stream for UnixStream {}

mod sealed {
    use super::{OwnedFd, io};

    pub trait Stream: Sized + Send + 'static {
        /// Takes it out of the runtime, and out of epoll.
        fn into_fd(self) -> io::Result<OwnedFd>;
        /// Puts it into the runtime.
        fn from_fd(fd: OwnedFd) -> io::Result<Self>;
    }
}

impl sealed::Stream for TcpStream {
    fn into_fd(self) -> io::Result<OwnedFd> {
        self.into_std().map(OwnedFd::from)
    }

    fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let stream = net::TcpStream::from(fd);
        stream.set_nonblocking(true)?; // it is, unless it was passed by a program without tokio
        TcpStream::from_std(stream)
    }
}

impl sealed::Stream for UnixStream {
    fn into_fd(self) -> io::Result<OwnedFd> {
        self.into_std().map(OwnedFd::from)
    }

    fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let stream = unix::UnixStream::from(fd);
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    }
}

/// A stream that was not passed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Stays<T> {
    /// The stream, in this runtime again: serve it on. An error if the runtime cannot take it, as without
    /// memory.
    pub stream: io::Result<T>,
    /// As it was given.
    pub unread: Vec<u8>,
    /// As it was given.
    pub state: Vec<u8>,
    /// Why it was not passed.
    pub reason: Reason,
}

/// As [`connections::pass`](super::pass): the stream is taken out of the runtime first, and so out of epoll.
/// Nothing may be half-way, and no other task may use the stream: a half of
/// [`into_split`](TcpStream::into_split) has to be reunited.
///
/// Do not drop the future before it resolves, for example in `tokio::select!`: if the stream is not passed then,
/// nobody is left to serve it.
///
/// # Errors
///
/// [`Stays`], with the stream: see [`Reason`].
pub async fn pass<T: Stream>(
    kind: &str,
    stream: T,
    unread: Vec<u8>,
    state: Vec<u8>,
) -> std::result::Result<(), Stays<T>> {
    let fd = match stream.into_fd() {
        Ok(fd) => fd,
        Err(error) => {
            let reason = Reason::Unusable;
            return Err(Stays { stream: Err(error), unread, state, reason });
        }
    };
    let passing = super::pass(kind, Connection { fd, unread, state });
    passing.await.map_err(|NotPassed { connection, reason }| {
        let Connection { fd, unread, state } = connection;
        Stays { stream: T::from_fd(fd), unread, state, reason }
    })
}

/// A stream that another generation has passed to this one.
#[derive(Debug)]
#[non_exhaustive]
pub struct Arrived<T> {
    /// The stream.
    pub stream: T,
    /// What was read from it and not used: use it before anything is read.
    pub unread: Vec<u8>,
    /// What else the other generation has to say.
    pub state: Vec<u8>,
    /// Holds up the drain as long as the connection is served.
    pub guard: DrainGuard,
}

/// Accepts streams of this kind from other generations, as [`connections::accept`](super::accept) does.
///
/// Call it between [`init`](crate::init) and [`started`](crate::started), with or without a runtime.
///
/// # Errors
///
/// As [`connections::accept`](super::accept).
pub fn accept<T: Stream>(kind: &str) -> Result<Arriving<T>> {
    let arrived = Arc::new(Mutex::new(Waiting { arrived: VecDeque::new(), waker: None }));
    let put = Arc::clone(&arrived);
    super::accept(kind, move |connection| {
        let guard = crate::drain_guard();
        let waker = {
            let mut waiting = lock(&put);
            waiting.arrived.push_back((connection, guard));
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    })?;
    Ok(Arriving { waiting: arrived, stream: std::marker::PhantomData })
}

struct Waiting {
    arrived: VecDeque<(Connection, DrainGuard)>,
    waker: Option<Waker>,
}

/// Streams that arrive from other generations: [`accept`].
///
/// It has to be polled for as long as the process serves: what has arrived and is not taken is served by nobody,
/// and holds up the drain.
pub struct Arriving<T> {
    waiting: Arc<Mutex<Waiting>>,
    stream: std::marker::PhantomData<fn() -> T>,
}

impl<T: Stream> Arriving<T> {
    /// The next one. It may be dropped before it resolves, for example by `tokio::select!`: nothing is lost.
    ///
    /// It never says that no more will come: in a drain, older generations find another successor.
    ///
    /// # Panics
    ///
    /// Outside of a runtime with I/O enabled.
    pub async fn next(&mut self) -> Arrived<T> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`next`](Self::next), for code that polls by hand.
    ///
    /// # Panics
    ///
    /// Outside of a runtime with I/O enabled.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Arrived<T>> {
        loop {
            let next = {
                let mut waiting = lock(&self.waiting);
                let next = waiting.arrived.pop_front();
                if next.is_none() {
                    waiting.waker = Some(context.waker().clone());
                }
                next
            };
            let Some((connection, guard)) = next else { return Poll::Pending };
            let Connection { fd, unread, state } = connection;
            // If the runtime cannot take it, there is nobody who could.
            if let Ok(stream) = T::from_fd(fd) {
                return Poll::Ready(Arrived { stream, unread, state, guard });
            }
        }
    }
}

impl<T> fmt::Debug for Arriving<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arriving").finish_non_exhaustive()
    }
}
