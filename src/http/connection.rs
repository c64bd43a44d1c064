//! One connection, from its acceptance to its end.

use super::accept::Seat;
use super::app::Served;
use super::counters::count;
use super::io::{Io, Link, Shared};
use super::library::BoxError;
use super::passing::{Moves, Place, Stage, TRIES, Turn};
use super::protocol::{Given, Protocol};
use super::state::{Length, Next, State, Version};
use super::stream::{Peer, Stream};
use super::woken::WhenWoken;
use crate::Moment;
use crate::http::log;
use http::header::{CONNECTION, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use pin_project_lite::pin_project;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;
use tokio::time::{Sleep, sleep_until};

// ---- what is asked ----

/// A request in flight: from the moment at which the app gets it until its answer has been taken.
struct InFlight(Arc<Link>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.socket().state.answered(Instant::now());
    }
}

/// What the last request that asked for another protocol waits for. A server need not agree (RFC 9110, 7.8): then hyper
/// remembers the wish all the same, and gives the connection to whoever waits here when it lets go of it.
#[derive(Clone, Default)]
struct Wish(Arc<Mutex<Option<OnUpgrade>>>);

impl Wish {
    fn last(&self) -> MutexGuard<'_, Option<OnUpgrade>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, if hyper has let go of it for a protocol that nobody has agreed on.
    fn connection(&self) -> Option<(Io, Vec<u8>)> {
        let wish = pin!(self.last().take()?);
        let Poll::Ready(Ok(upgraded)) = wish.poll(&mut Context::from_waker(Waker::noop())) else {
            return None;
        };
        let parts = upgraded.downcast::<TokioIo<Io>>().ok()?;
        Some((parts.io.into_inner(), parts.read_buf.to_vec()))
    }
}

/// The app, as hyper gets it.
struct Counted<S> {
    app: TowerToHyperService<S>,
    link: Arc<Link>,
    wish: Wish,
}

impl<S: Served> Service<Request<Incoming>> for Counted<S> {
    type Response = Response<Counting<S::Body>>;
    type Error = S::Error;
    type Future = Answering<TowerToHyperServiceFuture<S, Request<Incoming>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.link.asked(match request.body() {
            body if body.is_end_stream() => Length::Nothing,
            body => body.size_hint().exact().map_or(Length::Unknown, Length::Bytes),
        });
        if let Some(wish) = request.extensions().get::<OnUpgrade>() {
            *self.wish.last() = Some(wish.clone());
        }
        let in_flight = InFlight(self.link.clone());
        if let Some(peer) = self.link.peer {
            request.extensions_mut().insert(peer);
        }
        let limit = self.link.shared.request_timeout;
        Answering {
            connects: request.method() == Method::CONNECT,
            answer: self.app.call(request),
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
        let answer = match this.answer.poll(context) {
            Poll::Ready(answer) => answer.map(|answer| answer.map(Some)),
            Poll::Pending => {
                let Some(limit) = this.limit else { return Poll::Pending };
                ready!(limit.as_mut().poll(context));
                let mut late = Response::new(None);
                *late.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                Ok(late)
            }
        };
        let in_flight = this.in_flight.take().expect("polled to its end once");
        let link = &in_flight.0;
        if answer.as_ref().map_or(true, |answer| answer.status().is_server_error()) {
            count(link.shared.counters.failures);
        }
        let mut answer = answer?;
        let connected = *this.connects && answer.status().is_success();
        let switches = connected || answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        // A tunnel by HTTP/2 is one stream of many.
        if switches && link.socket().state.version() == Version::Http1 {
            link.socket().state.upgraded();
        } else if link.leaves.load(Ordering::Relaxed) && link.socket().state.is_last() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(answer.map(|body| Counting { body, in_flight })))
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

/// Serves a connection to its end, or until another generation serves it.
pub(super) async fn converse(
    mut given: Given,
    peer: Option<Peer>,
    app: impl Served,
    shared: Arc<Shared>,
    mut seat: Seat,
    place: Option<Arc<Place>>,
) {
    let mut drain = Drain {
        leaving: crate::draining().moment(shared.spread),
        since: None,
        begun: None,
        moves: if place.is_some() { Moves::Yes } else { Moves::Never },
        turn: Turn::new(&shared.turns),
    };
    loop {
        let served = serve(given, peer, app.clone(), &shared, seat, &mut drain);
        let (Some((taken, theirs)), Some(place)) = (served.await, &place) else { return };
        let passed = place.pass(taken, peer).await;
        drain.turn.is_over();
        (given, seat) = match passed {
            Ok(()) => return count(shared.counters.passed),
            Err((None, _)) => return, // the runtime cannot take it back
            Err((Some(stays), why)) => {
                let now = Instant::now();
                let end = drain.begun.unwrap_or(now) + shared.spread.min(TRIES);
                drain.moves.stays(why, now, end);
                (stays, theirs)
            }
        };
    }
}

/// What the drain means for a connection.
struct Drain {
    /// Its own moment.
    leaving: Moment,
    /// Since when that has come.
    since: Option<Instant>,
    /// Since when it knows of the drain.
    begun: Option<Instant>,
    moves: Moves,
    turn: Turn,
}

/// What comes of a poll of the library.
enum Polled {
    Ended(Result<(), BoxError>),
    /// It can be passed.
    Movable,
    /// Its turn has come, and something is in flight.
    Busy,
    /// Whether it waits to move is another thing now than before.
    Changed,
}

/// Serves it until it ends, which is `None`, or can be passed.
async fn serve(
    given: Given,
    peer: Option<Peer>,
    app: impl Served,
    shared: &Arc<Shared>,
    seat: Seat,
    drain: &mut Drain,
) -> Option<(Given, Seat)> {
    let Given { stream, unread, asked, since: begun } = given;
    let state = if asked { State::resumed(begun) } else { State::new(begun) };
    let link = Link::new(stream, state, shared, peer);
    let io = Io::new(link.clone(), unread, seat);
    // Not a part of the link: what is waited for holds that one.
    let wish = Wish::default();
    let app = TowerToHyperService::new(app);
    let service = Counted { app, link: link.clone(), wish: wish.clone() };
    let mut connection = Protocol::new(io, service);
    let mut alarm = pin!(sleep_until(begun.into()));
    let ended = loop {
        let now = Instant::now();
        let may_move = drain.begun.is_some() && drain.moves.may(now);
        if drain.begun.is_some() && !may_move {
            drain.turn.is_over(); // so that nobody waits for this connection
        }
        let turn = drain.turn.stage();
        // A moment is dealt to each connection that asks for one, so one that moves does not ask.
        let waits_to_move = drain.moves.may_yet(now) && link.socket().state.may_move_yet();
        let may_stay = drain.begun.is_some() && !waits_to_move;
        link.leaves.store(drain.since.is_some() && may_stay, Ordering::Relaxed);
        let due = WhenWoken::new(async {
            tokio::select! {
                biased;
                () = drain.turn.comes(), if turn == Stage::Waits => {
                    drain.begun.get_or_insert_with(Instant::now);
                }
                () = &mut drain.leaving, if may_stay && drain.since.is_none() => {
                    drain.since = Some(Instant::now());
                }
                () = alarm.as_mut() => {}
            }
        });
        let polled = poll_fn(|context| match connection.poll(context, &shared.library) {
            Poll::Ready(ended) => Poll::Ready(Polled::Ended(ended)),
            Poll::Pending if !may_move || turn == Stage::Waits => Poll::Pending,
            Poll::Pending if link.socket().state.may_move() => Poll::Ready(Polled::Movable),
            Poll::Pending if turn == Stage::Now => Poll::Ready(Polled::Busy),
            Poll::Pending if link.socket().state.may_move_yet() != waits_to_move => {
                Poll::Ready(Polled::Changed)
            }
            Poll::Pending => Poll::Pending,
        });
        // The library comes first, so that what has arrived is read before a timer or the drain ends a connection.
        tokio::select! {
            biased;
            polled = polled => match polled {
                Polled::Ended(ended) => break ended,
                Polled::Movable if turn == Stage::No => drain.turn.begin(),
                Polled::Movable => {
                    match poll_fn(|context| Poll::Ready(stop(&mut connection, &link, context))).await {
                        Some(Ok(())) => return take(connection, &link, &wish),
                        Some(Err(error)) => break Err(error),
                        None => {
                            drain.moves = Moves::Never;
                            drain.turn.is_over();
                        }
                    }
                }
                // Those that are silent move meanwhile.
                Polled::Busy => drain.turn.is_over(),
                Polled::Changed => {}
            },
            () = due => {}
        }
        if drain.begun.is_some() {
            drain.moves.knows_reason();
        }
        let now = Instant::now();
        let next = {
            let socket = &mut *link.socket();
            let stream = &socket.stream;
            let has_unread = || stream.as_ref().is_some_and(Stream::has_unread);
            // What may move does so, now or in a moment.
            let moves = drain.moves.may_yet(now) && socket.state.may_move();
            let leaves = drain.since.filter(|_| !moves);
            socket.state.next(now, leaves, &shared.times, has_unread)
        };
        match next {
            Next::Wait(until) => {
                let until = drain.moves.again(now, until);
                alarm.as_mut().reset(until.into());
            }
            Next::Announce => {
                link.goodbye.store(true, Ordering::Relaxed);
                alarm.as_mut().reset(now.into());
            }
            Next::Finish => {
                connection.graceful_shutdown();
                alarm.as_mut().reset((now + shared.times.header).into());
            }
            Next::Cut => return None,
        }
    };
    if let Err(error) = ended {
        log::failed("connection", &error);
    }
    None
}

/// Nothing is in flight: the library is to let the connection go. It is asked once. `None`: it still waits for
/// something, and ends the connection after that.
fn stop(
    connection: &mut Protocol<Counted<impl Served>>,
    link: &Link,
    context: &mut Context<'_>,
) -> Option<Result<(), BoxError>> {
    link.frozen.store(true, Ordering::Relaxed);
    if link.socket().state.is_untouched() {
        // It has the first bytes of a head at most. Told to stop, it would wait for the rest.
        return Some(Ok(()));
    }
    connection.graceful_shutdown();
    match connection.poll(context, &link.shared.library) {
        Poll::Ready(ended) => Some(ended),
        Poll::Pending => {
            link.frozen.store(false, Ordering::Relaxed);
            link.socket().state.finishes(Instant::now());
            None
        }
    }
}

fn take(
    connection: Protocol<Counted<impl Served>>,
    link: &Link,
    wish: &Wish,
) -> Option<(Given, Seat)> {
    let (asked, since) = {
        let state = &link.socket().state;
        (state.has_been_asked(), state.since())
    };
    let (io, mut unread) = connection.take().or_else(|| wish.connection())?;
    let (stream, rest, seat) = io.take()?;
    unread.extend_from_slice(&rest);
    Some((Given { stream, unread, asked, since }, seat))
}
