//! The socket of a connection, as the library reads and writes it, and what is known of it.

use super::accept::Seat;
use super::counters::{Counters, count};
use super::goodbye::Goodbye;
use super::library::Library;
use super::proxied::Proxied;
use super::state::{Length, State, Times, Version};
use super::stream::{Peer, Stream};
use std::collections::HashMap;
use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) library: Library,
    pub(super) times: Times,
    pub(super) request_timeout: Option<Duration>,
    pub(super) proxied: Option<Proxied>,
    pub(super) open: Open,
    /// Over which connections leave in a drain.
    pub(super) spread: Duration,
    /// Whose turn it is to be passed to the successor.
    pub(super) turns: Arc<Semaphore>,
    pub(super) counters: Counters,
}

impl Shared {
    /// For whom a connection is: by the PROXY protocol, or `peer` itself. `None`: it is to be closed.
    pub(super) async fn client(
        &self,
        stream: &Stream,
        peer: Option<Peer>,
        accepted: Instant,
    ) -> Option<Option<Peer>> {
        match &self.proxied {
            Some(proxied) => proxied.client(stream, peer, accepted, self.times.header).await,
            None => Some(peer),
        }
    }
}

/// The connections that are open, by their descriptors. One leaves before its descriptor is closed.
#[derive(Default)]
pub(super) struct Open {
    links: Mutex<HashMap<RawFd, Arc<Link>>>,
    /// The process is about to end by force.
    hammered: AtomicBool,
}

impl Open {
    /// Makes the end of the process reset every connection with something in flight: otherwise a body
    /// that ends with its connection would look complete. It does not use the runtime, whose threads may
    /// all be blocked.
    ///
    /// Returns how many are open, and how many of them will be cut.
    pub(super) fn hammer(&self) -> (usize, usize) {
        self.hammered.store(true, Ordering::SeqCst);
        let links = self.links();
        let cut = links.values().filter(|link| {
            let socket = link.socket();
            let busy = socket.state.is_busy();
            if busy {
                socket.reset_on_close();
            }
            busy
        });
        (links.len(), cut.count())
    }

    pub(super) fn links(&self) -> MutexGuard<'_, HashMap<RawFd, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the parts of one connection share.
pub(super) struct Link {
    /// The number of the socket.
    fd: RawFd,
    /// Held by whoever reads and writes, for as long as that takes: neither ever waits.
    socket: Mutex<Socket>,
    /// The first GOAWAY is to be sent.
    pub(super) goodbye: AtomicBool,
    /// Its moment in the drain has come, and it cannot be passed.
    pub(super) leaves: AtomicBool,
    /// The connection is taken out of the library: nothing is read, and the socket stays open if the library shuts
    /// it down.
    pub(super) frozen: AtomicBool,
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Option<Peer>,
}

pub(super) struct Socket {
    /// `None` once it is closed, or taken out.
    pub(super) stream: Option<Stream>,
    pub(super) state: State,
}

impl Link {
    pub(super) fn new(
        stream: Stream,
        state: State,
        shared: &Arc<Shared>,
        peer: Option<Peer>,
    ) -> Arc<Link> {
        let fd = stream.number();
        let link = Arc::new(Link {
            fd,
            socket: Mutex::new(Socket { stream: Some(stream), state }),
            goodbye: AtomicBool::new(false),
            leaves: AtomicBool::new(false),
            frozen: AtomicBool::new(false),
            shared: shared.clone(),
            peer,
        });
        shared.open.links().insert(fd, link.clone());
        link
    }

    pub(super) fn socket(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The app is about to get a request.
    pub(super) fn asked(&self, body: Length) {
        count(self.shared.counters.requests);
        let mut socket = self.socket();
        socket.state.asked(body);
        if self.shared.open.hammered.load(Ordering::SeqCst) {
            socket.reset_on_close(); // what is asked only now is cut as well
        }
    }
}

impl Socket {
    pub(super) fn parts(&mut self) -> (Pin<&mut Stream>, &mut State) {
        let stream = self.stream.as_mut().expect("closed by the end of `Io` alone");
        (Pin::new(stream), &mut self.state)
    }

    pub(super) fn reset_on_close(&self) {
        self.stream.iter().for_each(Stream::reset_on_close);
    }
}

// ---- what moves ----

/// The socket, as hyper gets it. If the protocol changes (an upgrade), the program gets it from hyper.
pub(super) struct Io {
    link: Arc<Link>,
    goodbye: Goodbye,
    /// Has been read, and is read again.
    again: Vec<u8>,
    /// Has come from another generation, and is read first.
    unread: Vec<u8>,
    seat: Option<Seat>,
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Io { link, goodbye, again, unread, .. } = &mut *self;
        if link.frozen.load(Ordering::Relaxed) {
            return Poll::Pending; // it is polled again if it goes on
        }
        if put(again, buffer) > 0 {
            return Poll::Ready(Ok(()));
        }
        let mut socket = link.socket();
        let (mut stream, state) = socket.parts();
        // Sent here, since hyper reads whenever the connection is polled, but writes only if it has data.
        if link.goodbye.load(Ordering::Relaxed) {
            if let Poll::Ready(Err(error)) = goodbye.poll_send(stream.as_mut(), context) {
                return Poll::Ready(Err(error));
            }
        }
        let before = buffer.filled().len();
        if put(unread, buffer) == 0 {
            ready!(stream.poll_read(context, buffer))?;
        }
        state.read(&buffer.filled()[before..], Instant::now);
        Poll::Ready(Ok(()))
    }
}

/// Moves the first of these bytes. Returns how many.
fn put(bytes: &mut Vec<u8>, buffer: &mut ReadBuf<'_>) -> usize {
    let count = bytes.len().min(buffer.remaining());
    if count > 0 {
        buffer.put_slice(&bytes[..count]);
        bytes.drain(..count);
    }
    count
}

impl Io {
    pub(super) fn new(link: Arc<Link>, unread: Vec<u8>, seat: Seat) -> Io {
        let (goodbye, again) = (Goodbye::default(), Vec::new());
        Io { link, goodbye, again, unread, seat: Some(seat) }
    }

    pub(super) fn version(&self) -> Version {
        self.link.socket().state.version()
    }

    /// These bytes, which have been read, are read once more.
    pub(super) fn read_again(&mut self, bytes: Vec<u8>) {
        self.again = bytes;
    }

    /// Takes out the socket, which stays open, and what nobody has read. From then on it is not in the list of
    /// open connections, so the end of the process does not reset it. `None` after a forced end has begun: then it
    /// may be set up for a reset, which would go with the socket.
    pub(super) fn take(mut self) -> Option<(Stream, Vec<u8>, Seat)> {
        {
            let mut links = self.link.shared.open.links();
            if self.link.shared.open.hammered.load(Ordering::SeqCst) {
                return None;
            }
            links.remove(&self.link.fd);
        }
        let stream = self.link.socket().stream.take()?;
        let mut unread = std::mem::take(&mut self.again);
        unread.append(&mut self.unread);
        Some((stream, unread, self.seat.take()?))
    }

    fn write(
        &mut self,
        parts: &[io::IoSlice<'_>],
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let mut socket = self.link.socket();
        let (mut stream, state) = socket.parts();
        if self.link.goodbye.load(Ordering::Relaxed) {
            ready!(self.goodbye.poll_send(stream.as_mut(), context))?;
        }
        let written = write(stream, context);
        let bytes = match &written {
            Poll::Ready(Ok(bytes)) => Some(*bytes),
            Poll::Ready(Err(_)) => Some(0),
            Poll::Pending => None,
        };
        state.wrote(bytes);
        let mut left = bytes.filter(|_| state.version() == Version::Http2).unwrap_or(0);
        for part in parts {
            let taken = part.len().min(left);
            self.goodbye.feed(&part[..taken]);
            left -= taken;
        }
        written
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(&[io::IoSlice::new(bytes)], context, |stream, context| {
            stream.poll_write(context, bytes)
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(parts, context, |stream, context| stream.poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.link.socket().parts().0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.link.socket();
        let (stream, state) = socket.parts();
        ready!(stream.poll_flush(context))?;
        state.flushed(Instant::now);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.link.frozen.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let mut socket = self.link.socket();
        let (stream, state) = socket.parts();
        state.closes();
        stream.poll_shutdown(context)
    }
}

/// Guards against a number that is used again: the connection leaves the list before it is closed.
impl Drop for Io {
    fn drop(&mut self) {
        // If it was taken out, its number may belong to another connection.
        if self.seat.is_some() {
            self.link.shared.open.links().remove(&self.link.fd);
            drop(self.link.socket().stream.take());
        }
    }
}
