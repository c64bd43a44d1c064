//! One connection, from its acceptance to its end.

use super::accept::Seat;
use super::counters::Counters;
use super::goodbye::Goodbye;
use super::proxied::Proxied;
use super::state::{Next, State, Times};
use super::stream::{Peer, Stream};
use super::woken::WhenWoken;
use crate::http::log;
use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use pin_project_lite::pin_project;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::os::fd::RawFd;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};
use tower_service::Service;

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

/// A tower service that can be served.
pub(super) trait App<B>:
    Service<
        Request<Incoming>,
        Response = Response<B>,
        Error: Into<BoxError> + Send,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S, B> App<B> for S
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send + 'static,
{
}

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) library: auto::Builder<TokioExecutor>,
    pub(super) times: Times,
    pub(super) request_timeout: Option<Duration>,
    pub(super) proxied: Option<Proxied>,
    pub(super) open: Open,
    /// Over which connections leave in a drain.
    pub(super) spread: Duration,
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

    fn links(&self) -> MutexGuard<'_, HashMap<RawFd, Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the parts of one connection share.
struct Link {
    /// Held by whoever reads and writes, for as long as that takes: neither ever waits.
    socket: Mutex<Socket>,
    /// The first GOAWAY is to be sent.
    goodbye: AtomicBool,
    /// Its moment in the drain has come.
    leaves: AtomicBool,
    shared: Arc<Shared>,
    peer: Option<Peer>,
}

struct Socket {
    /// `None` once it is closed.
    stream: Option<Stream>,
    state: State,
}

impl Link {
    fn socket(&self) -> MutexGuard<'_, Socket> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The app is about to get a request.
    fn asked(&self, has_body: bool) {
        self.shared.counters.asked();
        let mut socket = self.socket();
        socket.state.asked(has_body);
        if self.shared.open.hammered.load(Ordering::SeqCst) {
            socket.reset_on_close(); // what is asked only now is cut as well
        }
    }
}

impl Socket {
    fn parts(&mut self) -> (Pin<&mut Stream>, &mut State) {
        let stream = self.stream.as_mut().expect("closed by the end of `Io` alone");
        (Pin::new(stream), &mut self.state)
    }

    fn reset_on_close(&self) {
        self.stream.iter().for_each(Stream::reset_on_close);
    }
}

// ---- what moves ----

/// The socket, as hyper gets it. If the protocol changes (an upgrade), the program gets it from hyper.
pub(super) struct Io {
    fd: RawFd,
    link: Arc<Link>,
    goodbye: Goodbye,
    _seat: Seat,
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Io { link, goodbye, .. } = &mut *self;
        let mut socket = link.socket();
        let (mut stream, state) = socket.parts();
        // Sent here, since hyper reads whenever the connection is polled, but writes only if it has data.
        if link.goodbye.load(Ordering::Relaxed) {
            if let Poll::Ready(Err(error)) = goodbye.poll_send(stream.as_mut(), context) {
                return Poll::Ready(Err(error));
            }
        }
        let before = buffer.filled().len();
        ready!(stream.poll_read(context, buffer))?;
        state.read(&buffer.filled()[before..], Instant::now);
        Poll::Ready(Ok(()))
    }
}

impl Io {
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
        let mut left = bytes.filter(|_| state.is_http2()).unwrap_or(0);
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
        state.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.link.socket().parts().0.poll_shutdown(context)
    }
}

/// Guards against a number that is used again: the connection leaves the list before it is closed.
impl Drop for Io {
    fn drop(&mut self) {
        self.link.shared.open.links().remove(&self.fd);
        drop(self.link.socket().stream.take());
    }
}

// ---- what is asked ----

/// A request in flight: from the moment at which the app gets it until its answer has been taken.
struct InFlight(Arc<Link>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.socket().state.answered(Instant::now());
    }
}

/// The app, as hyper gets it.
struct Counted<S> {
    app: TowerToHyperService<S>,
    link: Arc<Link>,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Counted<S>
where
    S: App<B>,
    TowerToHyperService<S>: hyper::service::Service<
            Request<Incoming>,
            Response = Response<B>,
            Error = <S as Service<Request<Incoming>>>::Error,
        >,
{
    type Response = Response<Counting<B>>;
    type Error = <S as Service<Request<Incoming>>>::Error;
    type Future =
        Answering<<TowerToHyperService<S> as hyper::service::Service<Request<Incoming>>>::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.link.asked(!request.body().is_end_stream());
        let in_flight = InFlight(self.link.clone());
        if let Some(peer) = self.link.peer {
            request.extensions_mut().insert(peer);
        }
        let limit = self.link.shared.request_timeout;
        Answering {
            connects: request.method() == Method::CONNECT,
            answer: hyper::service::Service::call(&self.app, request),
            in_flight: Some(in_flight),
            limit: limit.map(|limit| Box::pin(tokio::time::sleep(limit))),
        }
    }
}

pin_project! {
    /// The app at work on a request.
    struct Answering<F> {
        #[pin]
        answer: F,
        in_flight: Option<InFlight>,
        limit: Option<Pin<Box<Sleep>>>,
        connects: bool,
    }
}

impl<F, B, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Counting<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let in_flight = this.in_flight;
        let counters = in_flight.as_ref().map(|one| one.0.shared.clone());
        let counters = &counters.as_ref().expect("polled to its end once").counters;
        let mut counting = |body| {
            let in_flight = in_flight.take().expect("polled to its end once");
            Counting { body, in_flight }
        };
        let mut answer = match this.answer.poll(context) {
            Poll::Ready(answer) => {
                answer.inspect_err(|_| counters.failed())?.map(|body| counting(Some(body)))
            }
            Poll::Pending => {
                let Some(limit) = this.limit else { return Poll::Pending };
                ready!(limit.as_mut().poll(context));
                let mut late = Response::new(counting(None));
                *late.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                late
            }
        };
        if answer.status().is_server_error() {
            counters.failed();
        }
        let connected = *this.connects && answer.status().is_success();
        let link = &answer.body().in_flight.0;
        if connected || answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            link.socket().state.upgraded();
        } else if link.leaves.load(Ordering::Relaxed) && link.socket().state.is_last() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(answer))
    }
}

pin_project! {
    /// The body of an answer; `None` if the answer has none.
    struct Counting<B> {
        #[pin]
        body: Option<B>,
        in_flight: InFlight,
    }
}

impl<B: Body> Body for Counting<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().body.as_pin_mut() {
            Some(body) => body.poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

// ---- its life ----

/// Serves a connection to its end.
pub(super) async fn converse<S, B>(
    stream: Stream,
    peer: Option<Peer>,
    accepted: Instant,
    app: S,
    shared: Arc<Shared>,
    seat: Seat,
) where
    S: App<B>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let fd = stream.number();
    let socket = Mutex::new(Socket { stream: Some(stream), state: State::new(accepted) });
    let (goodbye, leaves) = (AtomicBool::new(false), AtomicBool::new(false));
    let link = Arc::new(Link { socket, goodbye, leaves, shared: shared.clone(), peer });
    shared.open.links().insert(fd, link.clone());
    let io = TokioIo::new(Io { fd, link: link.clone(), goodbye: Goodbye::default(), _seat: seat });
    let service = Counted { app: TowerToHyperService::new(app), link: link.clone() };
    let mut connection = pin!(shared.library.serve_connection_with_upgrades(io, service));
    let mut leaving = crate::draining().moment(shared.spread);
    let mut since = None;
    let mut alarm = pin!(sleep_until(accepted.into()));
    let ended = loop {
        let due = WhenWoken::new(async {
            tokio::select! {
                biased;
                () = &mut leaving, if since.is_none() => {
                    since = Some(Instant::now());
                    link.leaves.store(true, Ordering::Relaxed);
                }
                () = alarm.as_mut() => {}
            }
        });
        // First what has arrived: neither a timer nor the drain ends a connection before that is read.
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            () = due => {}
        }
        let next = {
            let socket = &mut *link.socket();
            let stream = &socket.stream;
            let has_unread = || stream.as_ref().is_some_and(Stream::has_unread);
            socket.state.next(Instant::now(), since, &shared.times, has_unread)
        };
        match next {
            Next::Wait(until) => alarm.as_mut().reset(until.into()),
            Next::Announce => {
                link.goodbye.store(true, Ordering::Relaxed);
                alarm.as_mut().reset(Instant::now().into());
            }
            Next::Finish => {
                connection.as_mut().graceful_shutdown();
                alarm.as_mut().reset((Instant::now() + shared.times.header).into());
            }
            Next::Cut => return,
        }
    };
    if let Err(error) = ended {
        log::failed("connection", &error);
    }
}
