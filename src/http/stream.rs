//! The kinds of sockets that are served, and what they have in common.

use crate::sockets::tokio::{TcpListener, UnixListener};
use nix::sys::socket::{MsgFlags, getsockopt, recv, setsockopt, sockopt};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, io};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Where the client is: an extension of each request that comes over TCP, or that a trusted peer has passed
/// on for a client ([`Server::proxy_protocol`](super::Server::proxy_protocol)):
/// `request.extensions().get::<Peer>()`, in axum
/// `Extension<Peer>`. Axum's own `ConnectInfo<SocketAddr>` works if the app is
/// `router.into_make_service_with_connect_info::<SocketAddr>()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(pub SocketAddr);

/// Where a server listens: [`Bound::addresses`](super::Bound::addresses).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Address {
    /// With the port that the system chose, if 0 was asked for.
    Tcp(SocketAddr),
    /// The path by which clients reach it; `None` for a socket that has no path. The kernel may show
    /// another one: a path is bound under a temporary name and renamed.
    Unix(Option<PathBuf>),
}

/// The address or the path; `unix` for a socket that has no path.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(Some(path)) => path.display().fmt(f),
            Address::Unix(None) => f.write_str("unix"),
        }
    }
}

/// A connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

macro_rules! with {
    ($stream:expr, $name:ident => $do:expr) => {
        match $stream {
            Stream::Tcp($name) => $do,
            Stream::Unix($name) => $do,
            #[cfg(feature = "tls")]
            Stream::Tls($name) => $do,
        }
    };
}

/// The same with the socket itself, below what is encrypted.
macro_rules! with_socket {
    ($stream:expr, $name:ident => $do:expr) => {
        match $stream {
            Stream::Tcp($name) => $do,
            Stream::Unix($name) => $do,
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => {
                let $name = tls.get_ref().0;
                $do
            }
        }
    };
}

impl Stream {
    pub(super) fn number(&self) -> RawFd {
        with_socket!(self, socket => socket.as_raw_fd())
    }

    /// Takes it out of the runtime, and so out of epoll. `None`: it is encrypted, or the runtime fails.
    pub(super) fn into_fd(self) -> Option<OwnedFd> {
        match self {
            Stream::Tcp(tcp) => tcp.into_std().ok().map(OwnedFd::from),
            Stream::Unix(unix) => unix.into_std().ok().map(OwnedFd::from),
            #[cfg(feature = "tls")]
            Stream::Tls(_) => None,
        }
    }

    /// Puts it into the runtime. Its mode is what it was in the process that has passed it: nonblocking.
    pub(super) fn from_fd(fd: OwnedFd, is_tcp: bool) -> io::Result<Stream> {
        match is_tcp {
            true => {
                let tcp = std::net::TcpStream::from(fd);
                tcp.set_nonblocking(true)?;
                TcpStream::from_std(tcp).map(Stream::Tcp)
            }
            false => {
                let unix = std::os::unix::net::UnixStream::from(fd);
                unix.set_nonblocking(true)?;
                UnixStream::from_std(unix).map(Stream::Unix)
            }
        }
    }

    /// Have bytes come that nobody has read? Asks the kernel, while tokio relies on what it was told last.
    pub(super) fn has_unread(&self) -> bool {
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        recv(self.number(), &mut [0], flags).is_ok_and(|bytes| bytes > 0)
    }

    /// Until there is something to read. Before a TLS handshake.
    pub(super) async fn readable(&self) -> io::Result<()> {
        with_socket!(self, socket => socket.readable().await)
    }

    /// Looks at what has arrived, without taking it. Before a TLS handshake.
    pub(super) fn try_peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let fd = self.number();
        let peek = || Ok(recv(fd, bytes, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?);
        with_socket!(self, socket => socket.try_io(Interest::READABLE, peek))
    }

    /// Takes what has arrived. Before a TLS handshake.
    pub(super) fn try_read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        with_socket!(self, socket => socket.try_read(bytes))
    }

    /// When it is closed, also by the end of the process, its client gets a reset: `SO_LINGER` of zero,
    /// see `socket(7)`. A Unix socket knows no reset.
    pub(super) fn reset_on_close(&self) {
        let done = match self {
            Stream::Tcp(tcp) => tcp.set_zero_linger(),
            Stream::Unix(_) => Ok(()),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.get_ref().0.set_zero_linger(),
        };
        _ = done; // the client has closed it
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        with!(&mut *self, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        with!(&mut *self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with!(&mut *self, stream => Pin::new(stream).poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        with!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(&mut *self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(&mut *self, stream => Pin::new(stream).poll_shutdown(context))
    }
}

/// After so many seconds without a word, the kernel asks the client whether it is still there; again after so many
/// seconds; and so many times in all. Then it gives the connection up.
#[cfg(target_os = "linux")]
const LOOKS: (u32, u32, u32) = (60, 15, 4);

/// A client that has lost its power or its network says no word of it: in the middle of an upload it would hold its
/// connection, and each drain, for ever. If the listener has settings of its own, they stay. See `tcp(7)`.
fn look_for_client(stream: &TcpStream) {
    if getsockopt(stream, sockopt::KeepAlive).is_ok_and(|own| own) {
        return;
    }
    #[cfg(target_os = "linux")]
    {
        let (silent, again, times) = LOOKS;
        _ = setsockopt(stream, sockopt::TcpKeepIdle, &silent);
        _ = setsockopt(stream, sockopt::TcpKeepInterval, &again);
        _ = setsockopt(stream, sockopt::TcpKeepCount, &times);
    }
    _ = setsockopt(stream, sockopt::KeepAlive, &true); // if it fails, the client has closed it
}

/// A listener that ends by itself when the drain begins.
pub(super) enum Listener {
    Tcp(TcpListener),
    /// With the path that was asked for, if the server has found it itself.
    Unix(UnixListener, Option<PathBuf>),
}

impl Listener {
    pub(super) async fn next(&mut self) -> Option<(Stream, Option<Peer>)> {
        Some(match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.next().await?;
                // Without it, a short answer would wait until the client has acknowledged the one before.
                _ = stream.set_nodelay(true);
                look_for_client(&stream);
                (Stream::Tcp(stream), Some(Peer(address)))
            }
            Listener::Unix(listener, _) => (Stream::Unix(listener.next().await?.0), None),
        })
    }

    /// Takes it out of the runtime, and so out of epoll, until it is asked for a connection again. After an error
    /// it is as it was.
    pub(super) fn unregister(&mut self) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => {
                let copy = listener.fd()?.try_clone_to_owned()?;
                *listener = TcpListener::from_std(copy.into())?;
            }
            Listener::Unix(listener, _) => {
                let copy = listener.fd()?.try_clone_to_owned()?;
                *listener = UnixListener::from_std(copy.into())?;
            }
        }
        Ok(())
    }

    pub(super) fn address(&self) -> io::Result<Address> {
        Ok(match self {
            Listener::Tcp(listener) => Address::Tcp(listener.local_addr()?),
            Listener::Unix(listener, asked) => {
                let bound = || Some(listener.local_addr().ok()?.as_pathname()?.to_owned());
                Address::Unix(asked.clone().or_else(bound))
            }
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn p3_the_kernel_looks_for_clients_that_are_silent() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            for own in [None, Some(7)] {
                let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
                listener.set_nonblocking(true).expect("a mode");
                if let Some(own) = own {
                    setsockopt(&listener, sockopt::KeepAlive, &true).expect("an option");
                    setsockopt(&listener, sockopt::TcpKeepIdle, &own).expect("an option");
                }
                let address = listener.local_addr().expect("an address");
                let mut listener = Listener::Tcp(TcpListener::from_std(listener).expect("tokio"));
                let _client = std::net::TcpStream::connect(address).expect("a connection");
                let Some((Stream::Tcp(stream), _)) = listener.next().await else { panic!("none") };
                assert_eq!(getsockopt(&stream, sockopt::KeepAlive), Ok(true));
                let idle = getsockopt(&stream, sockopt::TcpKeepIdle);
                assert_eq!(idle, Ok(own.unwrap_or(60)));
            }
        });
    }
}
