//! The library at work on one connection: HTTP/1 or HTTP/2, as the first bytes tell.

use super::io::Io;
use super::library::{BoxError, Library};
use super::state::{PREFACE, Version};
use super::stream::Stream;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::HttpService;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, ReadBuf};

/// One connection.
#[allow(clippy::large_enum_variant)] // nearly all of them are HTTP/1
pub(super) enum Protocol<S: HttpService<Incoming>> {
    /// The library does not have it yet, and this has been read. If another generation has passed it, the version
    /// is known. The library still gets it with the first bytes only, so that thousands of silent ones cost little.
    Unknown(Option<(Io, Vec<u8>, S)>),
    Http1(http1::UpgradeableConnection<TokioIo<Io>, S>),
    Http2(Pin<Box<http2::Connection<TokioIo<Io>, S, TokioExecutor>>>),
}

/// The service is never pinned.
impl<S: HttpService<Incoming>> Unpin for Protocol<S> {}

impl<S, B> Protocol<S>
where
    S: HttpService<Incoming, ResBody = B, Error: Into<BoxError>, Future: Send + 'static>
        + Send
        + 'static,
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    pub(super) fn new(io: Io, service: S) -> Self {
        Protocol::Unknown(Some((io, Vec::new(), service)))
    }

    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        library: &Library,
    ) -> Poll<Result<(), BoxError>> {
        loop {
            let there = match self {
                Protocol::Http1(connection) => {
                    return Pin::new(connection).poll(context).map_err(Into::into);
                }
                Protocol::Http2(connection) => {
                    return connection.as_mut().poll(context).map_err(Into::into);
                }
                Protocol::Unknown(there) => there,
            };
            let Some((io, seen, _)) = there else { return Poll::Ready(Ok(())) };
            let mut bytes = [0; PREFACE.len()];
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut *io).poll_read(context, &mut buffer))?;
            seen.extend_from_slice(buffer.filled());
            let has_ended = buffer.filled().is_empty();
            if !has_ended && matches!(io.version(), Version::Unknown(_)) {
                continue;
            }
            let Some((mut io, seen, service)) = there.take() else { continue };
            if has_ended && seen.is_empty() {
                return Poll::Ready(Ok(()));
            }
            io.read_again(seen);
            *self = match io.version() {
                Version::Http2 => {
                    let connection = library.http2.serve_connection(TokioIo::new(io), service);
                    Protocol::Http2(Box::pin(connection))
                }
                // If the client ends in the middle of the preface, the library answers it.
                Version::Unknown(_) | Version::Http1 | Version::Upgraded => {
                    let connection = library.http1.serve_connection(TokioIo::new(io), service);
                    Protocol::Http1(connection.with_upgrades())
                }
            };
        }
    }

    pub(super) fn graceful_shutdown(&mut self) {
        match self {
            // Another generation has answered its requests and passed it, and it has been silent since.
            Protocol::Unknown(there) => *there = None,
            Protocol::Http1(connection) => Pin::new(connection).graceful_shutdown(),
            Protocol::Http2(connection) => connection.as_mut().graceful_shutdown(),
        }
    }

    /// Takes an HTTP/1 connection out of the library, which has nothing to do with it and nothing to write.
    /// Returns what was read and not used as well. `None`: it has become another protocol.
    pub(super) fn take(self) -> Option<(Io, Vec<u8>)> {
        match self {
            Protocol::Unknown(there) => there.map(|(io, seen, _)| (io, seen)),
            Protocol::Http1(connection) => {
                let parts = connection.into_parts()?;
                Some((parts.io.into_inner(), parts.read_buf.to_vec()))
            }
            Protocol::Http2(_) => None,
        }
    }
}

/// A connection that begins here: accepted, or passed by another generation.
pub(super) struct Given {
    pub(super) stream: Stream,
    /// What was read from it and not used.
    pub(super) unread: Vec<u8>,
    /// A request has been answered.
    pub(super) asked: bool,
    /// Since when it has been idle, or was accepted.
    pub(super) since: Instant,
}

impl Given {
    /// One that was accepted.
    pub(super) fn new(stream: Stream, accepted: Instant) -> Given {
        Given { stream, unread: Vec::new(), asked: false, since: accepted }
    }
}
