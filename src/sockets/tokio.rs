//! The same for tokio: sockets that never block, whatever was found, and listeners that end by
//! themselves in the drain.
//!
//! ```no_run
//! # #[cfg(feature = "axum")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use axum::{Router, routing::get};
//!
//! seamless::init("/run/web/web.pid")?; // before the runtime exists: the launcher stays small
//! tokio::runtime::Runtime::new()?.block_on(async {
//!     let listener = seamless::sockets::tokio::tcp("0.0.0.0:8080")?;
//!     let app = Router::new().route("/", get(|| async { "Hello\n" }));
//!     let app = app.layer(seamless::tower::ConnectionClose);
//!     seamless::started()?;
//!     axum::serve(listener, app).with_graceful_shutdown(seamless::draining()).await?;
//!     seamless::finished().await;
//!     Ok(())
//! })
//! # }
//! # #[cfg(not(feature = "axum"))]
//! # fn main() {}
//! ```
//!
//! # The drain
//!
//! When the drain begins, a listener of this module gives out what is in its queue and then closes its
//! socket in this process. A successor keeps the same socket open. If the service is stopped, further
//! connections are refused. The framework learns of it as it needs to:
//!
//! | the caller uses | after the queue is empty |
//! | --- | --- |
//! | [`accept`](TcpListener::accept): axum, poem, salvo, warp | never returns again |
//! | [`into_stream`](TcpListener::into_stream): tonic | the stream ends together with [`draining`](crate::draining), 1 s after the drain has begun |
//! | [`next`](TcpListener::next): a loop of your own | `None` at once |
//!
//! So each framework closes its connections only when [`draining`](crate::draining) resolves, and the
//! requests that are on their way by then are answered. [`Draining`] tells why that
//! matters, and what else is needed.
//!
//! The listener must be polled for that, as every accept loop does. If it is dropped earlier, the
//! connections in its queue are left to the successor, or reset if there is none.
//!
//! # The mode
//!
//! tokio needs nonblocking sockets, and the mode of a socket is shared with the predecessor. If the predecessor, or
//! the supervisor, has made the socket in blocking mode, it is changed when [`started`](crate::started) is called,
//! and the listener accepts from then on: [`Options::change_nonblocking`](super::Options::change_nonblocking) tells
//! what that means for the predecessor, also if that one serves again after a [probation](crate::guide::probation).
//! [`udp`] and [`unix_datagram`] change it at once.
//!
//! # Runtime
//!
//! A listener can be made with or without a runtime. It is registered with the runtime in which it is
//! first polled, which must have I/O and time enabled. [`udp`] and [`unix_datagram`] must be called in a
//! runtime. All of these calls may have to wait for the predecessor, up to
//! [`takeover_timeout`](crate::Config::takeover_timeout), and block their thread meanwhile. That does no
//! harm where nothing else runs yet. Elsewhere use `spawn_blocking`.

mod accepting;

use super::Options;
use crate::Draining;
use crate::error::{Error, ErrorKind, Result};
use ::tokio::net;
use accepting::Accepting;
use futures_core::Stream;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::BorrowedFd;
use std::os::unix::net as unix;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A TCP listener, found or bound as by [`sockets::tcp`](super::tcp). For options:
/// [`TcpListener::from_std`].
///
/// # Errors
///
/// As [`Options::tcp`].
pub fn tcp(addr: impl ToSocketAddrs) -> Result<TcpListener> {
    TcpListener::from_std(options().tcp(addr)?).map_err(unusable)
}

/// A Unix stream listener, found or bound as by [`sockets::unix`](super::unix). For options:
/// [`UnixListener::from_std`].
///
/// # Errors
///
/// As [`Options::unix`].
pub fn unix(path: impl AsRef<Path>) -> Result<UnixListener> {
    UnixListener::from_std(options().unix(path)?).map_err(unusable)
}

/// A UDP socket, found or bound as by [`sockets::udp`](super::udp): tokio's own, nonblocking whatever
/// was found. Call it in a runtime.
///
/// Old and new generation read from one queue, so datagrams of one client may reach either. Do not use
/// it for QUIC, DTLS or anything with state for each peer. In the drain, read until the queue is empty
/// (`try_recv_from`), answer, and drop the socket; begin when
/// [`draining().at_once()`](crate::Draining::at_once) resolves.
///
/// # Errors
///
/// As [`Options::udp`]; and [`ErrorKind::System`] outside of a runtime with I/O enabled.
pub fn udp(addr: impl ToSocketAddrs) -> Result<net::UdpSocket> {
    in_runtime()?;
    let socket = options().udp(addr)?;
    socket.set_nonblocking(true).map_err(unusable)?;
    net::UdpSocket::from_std(socket).map_err(unusable)
}

/// A Unix datagram socket, found or bound as by [`sockets::unix_datagram`](super::unix_datagram): as
/// [`udp`].
///
/// # Errors
///
/// As [`Options::unix_datagram`]; and [`ErrorKind::System`] outside of a runtime with I/O enabled.
pub fn unix_datagram(path: impl AsRef<Path>) -> Result<net::UnixDatagram> {
    in_runtime()?;
    let socket = options().unix_datagram(path)?;
    socket.set_nonblocking(true).map_err(unusable)?;
    net::UnixDatagram::from_std(socket).map_err(unusable)
}

fn options() -> Options {
    let mut options = Options::new();
    options.nonblocking(true).change_nonblocking(true);
    options
}

fn unusable(error: io::Error) -> Error {
    Error::io(ErrorKind::System, "cannot use a socket (socket)", error)
}

fn in_runtime() -> Result<()> {
    let found = ::tokio::runtime::Handle::try_current();
    found.map(drop).map_err(|error| unusable(io::Error::other(error)))
}

macro_rules! listener {
    ($name:ident, $of:ty, $std:ty, $connection:ty, $address:ty, $docs:literal) => {
        #[doc = $docs]
        ///
        /// The [module](self) tells how it ends. Errors of `accept(2)` are handled inside: the next
        /// connection is awaited, after a pause if the process is out of descriptors (with a line in the
        /// log once a minute).
        pub struct $name {
            accepting: Accepting<$of>,
            address: $address,
        }

        impl $name {
            /// Any listener, for example one with [`Options`] of its own. With
            /// [`Options::nonblocking`]`(true)` it accepts at once. A listener that blocks is changed
            /// when [`started`](crate::started) has been called, and accepts from then on.
            ///
            /// # Errors
            ///
            /// The address cannot be read.
            pub fn from_std(listener: $std) -> io::Result<$name> {
                let address = listener.local_addr()?;
                let accepting = Accepting::new(listener);
                Ok($name { accepting, address: address.into() })
            }

            /// The next connection. It never returns again once the drain has begun and the queue
            /// is empty: for a framework whose shutdown [`draining`](crate::draining) begins.
            ///
            /// If it is dropped before it resolves, for example by `tokio::select!`, no connection is
            /// lost.
            pub async fn accept(&mut self) -> ($connection, $address) {
                match self.next().await {
                    Some(accepted) => accepted,
                    None => std::future::pending().await,
                }
            }

            /// The next connection; `None` once the drain has begun and the queue is empty: for a loop of
            /// your own.
            ///
            /// If it is dropped before it resolves, for example by `tokio::select!`, no connection is
            /// lost.
            pub async fn next(&mut self) -> Option<($connection, $address)> {
                poll_fn(|context| self.poll_next(context)).await
            }

            /// As [`next`](Self::next), for code that polls by hand.
            pub fn poll_next(
                &mut self,
                context: &mut Context<'_>,
            ) -> Poll<Option<($connection, $address)>> {
                self.accepting.poll_next(context)
            }

            /// A stream of the connections, none of which is an error. It ends together with
            /// [`draining`](crate::draining), 1 s after the drain has begun: for a framework that takes
            /// the end of the stream as its signal to shut down. For another time use
            /// [`into_stream_until`](Self::into_stream_until).
            pub fn into_stream(
                self,
            ) -> impl Stream<Item = io::Result<$connection>> + Send + Unpin + 'static {
                self.into_stream_until(crate::draining())
            }

            /// As [`into_stream`](Self::into_stream), with its end when `draining` resolves, or when the
            /// queue is empty if that is later.
            pub fn into_stream_until(
                self,
                draining: Draining,
            ) -> impl Stream<Item = io::Result<$connection>> + Send + Unpin + 'static {
                let mut listener = self;
                Incoming {
                    draining,
                    next: move |context: &mut Context<'_>| listener.poll_next(context),
                }
            }

            /// Where it listens: also after its end.
            ///
            /// # Errors
            ///
            /// None.
            pub fn local_addr(&self) -> io::Result<$address> {
                Ok(self.address.clone())
            }

            /// The socket, for its options.
            ///
            /// # Errors
            ///
            /// It has ended.
            pub fn fd(&self) -> io::Result<BorrowedFd<'_>> {
                self.accepting.fd()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let ended = self.accepting.has_ended();
                let mut shown = f.debug_struct(stringify!($name));
                shown.field("address", &self.address).field("ended", &ended).finish()
            }
        }

        /// So that `axum::serve` takes it as it is.
        #[cfg(feature = "axum")]
        impl axum::serve::Listener for $name {
            type Io = $connection;
            type Addr = $address;

            async fn accept(&mut self) -> ($connection, $address) {
                self.accept().await
            }

            fn local_addr(&self) -> io::Result<$address> {
                self.local_addr()
            }
        }
    };
}

listener!(
    TcpListener,
    net::TcpListener,
    std::net::TcpListener,
    net::TcpStream,
    SocketAddr,
    "A TCP listener that ends by itself in the drain: [`tcp`]."
);

listener!(
    UnixListener,
    net::UnixListener,
    unix::UnixListener,
    net::UnixStream,
    net::unix::SocketAddr,
    "A Unix stream listener that ends by itself in the drain: [`unix`](fn@unix). Its address may show a \
     temporary name: see [`sockets`](super)."
);

struct Incoming<F> {
    draining: Draining,
    next: F,
}

impl<F, C, A> Stream for Incoming<F>
where
    F: FnMut(&mut Context<'_>) -> Poll<Option<(C, A)>> + Unpin,
{
    type Item = io::Result<C>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match ready!((self.next)(context)) {
            Some((connection, _)) => Poll::Ready(Some(Ok(connection))),
            None => {
                ready!(Pin::new(&mut self.draining).poll(context));
                Poll::Ready(None)
            }
        }
    }
}

#[cfg(test)]
mod tests;
