//! The kinds of sockets that are served, and what they have in common.

use super::connection::Peer;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

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

impl Stream {
    pub(super) fn number(&self) -> RawFd {
        match self {
            Stream::Tcp(tcp) => tcp.as_raw_fd(),
            Stream::Unix(unix) => unix.as_raw_fd(),
            #[cfg(feature = "tls")]
            Stream::Tls(tls) => tls.get_ref().0.as_raw_fd(),
        }
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

/// A listener, nonblocking.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The same without a runtime.
pub(super) enum StdListener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<(Stream, Option<Peer>)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok(from_tcp(stream, address))
            }
            Listener::Unix(listener) => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }

    pub(super) fn into_std(self) -> io::Result<StdListener> {
        Ok(match self {
            Listener::Tcp(listener) => StdListener::Tcp(listener.into_std()?),
            Listener::Unix(listener) => StdListener::Unix(listener.into_std()?),
        })
    }
}

impl StdListener {
    /// Asks the kernel, where tokio's listener would rely on what it was told last.
    pub(super) fn accept(&self) -> io::Result<(Stream, Option<Peer>)> {
        match self {
            StdListener::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok(from_tcp(TcpStream::from_std(stream)?, address))
            }
            StdListener::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok((Stream::Unix(UnixStream::from_std(stream)?), None))
            }
        }
    }

    pub(super) fn into_tokio(self) -> io::Result<Listener> {
        Ok(match self {
            StdListener::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            StdListener::Unix(listener) => Listener::Unix(UnixListener::from_std(listener)?),
        })
    }

    pub(super) fn is_nonblocking(&self) -> bool {
        let fd = match self {
            StdListener::Tcp(listener) => listener.as_fd(),
            StdListener::Unix(listener) => listener.as_fd(),
        };
        crate::sys::socket::is_nonblocking(fd)
    }

    /// For the log.
    pub(super) fn address(&self) -> String {
        match self {
            StdListener::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string())
            }
            StdListener::Unix(listener) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or_else(|| "unix".to_owned(), |path| path.display().to_string())
            }
        }
    }
}

/// A short answer must not wait for the acknowledgement of the one before.
fn from_tcp(stream: TcpStream, address: std::net::SocketAddr) -> (Stream, Option<Peer>) {
    _ = stream.set_nodelay(true);
    (Stream::Tcp(stream), Some(Peer(address)))
}
