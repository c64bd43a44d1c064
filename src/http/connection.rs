//! One connection, from its acceptance to its end.

use super::goodbye::Goodbye;
use super::state::{Next, State, Times};
use super::stream::Stream;
use super::woken::WhenWoken;
use crate::shutdown::lock;
use crate::sys;
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
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Sleep, sleep_until};
use tower_service::Service;

pub(super) type BoxError = Box<dyn StdError + Send + Sync>;

/// Where the client is: an extension of each request that comes over TCP
/// (`request.extensions().get::<Peer>()`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer(pub std::net::SocketAddr);

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

/// Where all connections of a program stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Serving,
    Draining(Instant),
}

/// What the connections of a program share.
pub(super) struct Shared {
    pub(super) library: auto::Builder<TokioExecutor>,
    pub(super) times: Times,
    pub(super) request_timeout: Option<Duration>,
    pub(super) stage: watch::Receiver<Stage>,
    pub(super) open: Open,
}

/// The connections that are open, by their descriptors. One leaves before its descriptor is closed.
#[derive(Default)]
pub(super) struct Open {
    links: Mutex<HashMap<RawFd, Arc<Link>>>,
    /// The process is about to end by force.
    hammered: AtomicBool,
}

impl Open {
    /// Sees to it that every connection with something in flight is reset by the end of the process:
    /// a body whose end is that of the connection would look complete. Needs nothing of the runtime,
    /// whose threads may all be held up. A Unix socket knows no reset.
    ///
    /// Returns how many are open, and how many of them will be cut.
    pub(super) fn hammer(&self) -> (usize, usize) {
        self.hammered.store(true, Ordering::SeqCst);
        let links = lock(&self.links);
        let busy = links.iter().filter(|(_, link)| lock(&link.state).is_busy());
        (links.len(), busy.map(|(fd, _)| sys::reset_on_close(*fd)).count())
    }

    /// What is asked only now is cut as well.
    fn asked(&self, fd: RawFd) {
        if self.hammered.load(Ordering::SeqCst) && lock(&self.links).contains_key(&fd) {
            sys::reset_on_close(fd);
        }
    }
}

/// What the parts of one connection share.
struct Link {
    fd: RawFd,
    state: Mutex<State>,
    /// A first GOAWAY is to be sent.
    goodbye: AtomicBool,
    shared: Arc<Shared>,
    peer: Option<Peer>,
}

// ---- what moves ----

/// The socket, as the library gets it. It goes on to be the program's where the protocol changes.
pub(super) struct Io {
    stream: Stream,
    link: Arc<Link>,
    goodbye: Goodbye,
    _permit: OwnedSemaphorePermit,
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The library reads whenever the connection is polled; it writes only what it has.
        if let Poll::Ready(Err(error)) = self.poll_goodbye(context) {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        lock(&self.link.state).read(&buffer.filled()[before..], Instant::now);
        Poll::Ready(Ok(()))
    }
}

impl Io {
    fn poll_goodbye(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.link.goodbye.load(Ordering::Relaxed) {
            true => self.goodbye.poll_send(Pin::new(&mut self.stream), context),
            false => Poll::Ready(Ok(())),
        }
    }

    fn note(&mut self, parts: &[io::IoSlice<'_>], written: &Poll<io::Result<usize>>) {
        let bytes = match written {
            Poll::Ready(Ok(bytes)) => Some(*bytes),
            Poll::Ready(Err(_)) => Some(0),
            Poll::Pending => None,
        };
        let http2 = {
            let mut state = lock(&self.link.state);
            state.wrote(bytes);
            state.is_http2()
        };
        let mut left = bytes.filter(|_| http2).unwrap_or(0);
        for part in parts {
            let taken = part.len().min(left);
            self.goodbye.feed(&part[..taken]);
            left -= taken;
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_goodbye(context))?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(&[io::IoSlice::new(bytes)], &written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_goodbye(context))?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.note(parts, &written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        lock(&self.link.state).flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        lock(&self.link.shared.open.links).remove(&self.link.fd);
    }
}

// ---- what is asked ----

/// A request in flight: from the moment at which the app gets it until its answer has been taken.
struct InFlight(Arc<Link>);

impl Drop for InFlight {
    fn drop(&mut self) {
        lock(&self.0.state).answered(Instant::now());
    }
}

/// The app, as the library gets it.
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
        lock(&self.link.state).asked(!request.body().is_end_stream());
        self.link.shared.open.asked(self.link.fd);
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
        let mut counting = |body| {
            let in_flight = in_flight.take().expect("polled to its end once");
            Counting { body, in_flight }
        };
        let mut answer = match this.answer.poll(context) {
            Poll::Ready(answer) => answer?.map(|body| counting(Some(body))),
            Poll::Pending => {
                let Some(limit) = this.limit else { return Poll::Pending };
                ready!(limit.as_mut().poll(context));
                let mut late = Response::new(counting(None));
                *late.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                late
            }
        };
        let connected = *this.connects && answer.status().is_success();
        let state = &answer.body().in_flight.0.state;
        if connected || answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            lock(state).upgraded();
        } else if crate::draining().has_begun() && lock(state).is_last() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(answer))
    }
}

pin_project! {
    /// The body of an answer; `None` where there is none.
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
    permit: OwnedSemaphorePermit,
) where
    S: App<B>,
    B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let fd = stream.number();
    let state = Mutex::new(State::new(accepted));
    let goodbye = AtomicBool::new(false);
    let link = Arc::new(Link { fd, state, goodbye, shared: shared.clone(), peer });
    lock(&shared.open.links).insert(fd, link.clone());
    let io = TokioIo::new(Io {
        stream,
        link: link.clone(),
        goodbye: Goodbye::default(),
        _permit: permit,
    });
    let service = Counted { app: TowerToHyperService::new(app), link: link.clone() };
    let mut connection = pin!(shared.library.serve_connection_with_upgrades(io, service));
    let mut stages = shared.stage.clone();
    let mut draining = None;
    let mut alarm = pin!(sleep_until(accepted.into()));
    let ended = loop {
        let due = WhenWoken::new(async {
            tokio::select! {
                biased;
                // Its sender goes only with the servers themselves, when no drain will come.
                Ok(()) = stages.changed() => {}
                () = alarm.as_mut() => {}
            }
        });
        // What has arrived is taken before time or a drain ends anything.
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            () = due => {}
        }
        match *stages.borrow_and_update() {
            Stage::Serving => {}
            Stage::Draining(since) => draining = Some(since),
        }
        let next = lock(&link.state).next(Instant::now(), draining, &shared.times);
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
        log::debug!(target: "seamless", "stage=http connection error=\"{error}\"");
    }
}
