//! Connections that move to the successor, and that come from another generation.

use super::accept::Seat;
use super::protocol::Given;
use super::stream::{Address, Peer, Stream};
use crate::connections::{self, Connection, NotPassed, Reason};
use crate::{DrainReason, Result};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The kind of a connection is this and the name of its place. A change of [`About`] gets another one.
const KIND: &str = "http/1 ";
/// The longest name of a kind.
const KIND_MAX: usize = 255;
/// When a connection is tried again that could not be passed.
const AGAIN: Duration = Duration::from_secs(1);
/// For how long that goes on, from the beginning of the drain.
pub(super) const TRIES: Duration = Duration::from_secs(5);

/// May a connection be passed in the drain?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moves {
    Never,
    /// As soon as it can.
    Yes,
    /// The successor could not be reached. It is tried again at a moment, and not any more after another one.
    Later {
        next: Instant,
        end: Instant,
    },
}

impl Moves {
    /// May it be passed now?
    pub(super) fn may(self, now: Instant) -> bool {
        match self {
            Moves::Never => false,
            Moves::Yes => true,
            Moves::Later { next, end } => now >= next && now < end,
        }
    }

    /// May it be passed now or later? Until then its own moment to leave does not count.
    pub(super) fn may_yet(self, now: Instant) -> bool {
        match self {
            Moves::Never => false,
            Moves::Yes => true,
            Moves::Later { end, .. } => now < end,
        }
    }

    /// The drain has begun, so its reason is known: on a stop no connection moves.
    pub(super) fn knows_reason(&mut self) {
        if *self != Moves::Never {
            match crate::draining().reason() {
                Some(DrainReason::TakenOver | DrainReason::RolledBack) => {}
                Some(_) | None => *self = Moves::Never,
            }
        }
    }

    /// It was not passed, for this reason. `end`: until when it may be tried again.
    pub(super) fn stays(&mut self, why: Reason, now: Instant, end: Instant) {
        let next = now + AGAIN;
        *self = match why {
            Reason::NoSuccessor | Reason::Silent if next < end => Moves::Later { next, end },
            _ => Moves::Never,
        };
    }

    /// When the connection is looked at again: at this moment at the latest.
    pub(super) fn again(self, now: Instant, latest: Instant) -> Instant {
        match self {
            Moves::Never | Moves::Yes => latest,
            Moves::Later { next, .. } if now < next => latest.min(next),
            Moves::Later { end, .. } if now < end => latest.min(end),
            Moves::Later { .. } => latest,
        }
    }
}

/// So many connections are told of the drain, or are on their way, at a time. All others are served meanwhile: a
/// request that comes is answered at once, and not after thousands of connections have moved.
const AT_A_TIME: usize = 32;
/// After that the successor does not answer, or is slow: all others have their turn together.
const PATIENCE: Duration = Duration::from_secs(1);

/// For a server: whose turn it is to learn of the drain, and to be passed. To be called in its runtime.
pub(super) fn turns() -> Arc<Semaphore> {
    let turns = Arc::new(Semaphore::new(0));
    let opened = turns.clone();
    tokio::spawn(async move {
        crate::draining().at_once().await;
        opened.add_permits(AT_A_TIME);
        tokio::time::sleep(PATIENCE).await;
        opened.close();
    });
    turns
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It does not wait for its turn.
    No,
    Waits,
    Now,
}

type Permit = Option<OwnedSemaphorePermit>;
type Coming = Pin<Box<dyn Future<Output = Permit> + Send>>;

/// Whether it is a connection's turn. It waits for its first one from its beginning on.
pub(super) struct Turn {
    of: Arc<Semaphore>,
    waits: Option<Coming>,
    now: Option<Permit>,
}

impl Turn {
    pub(super) fn new(of: &Arc<Semaphore>) -> Turn {
        let mut turn = Turn { of: of.clone(), waits: None, now: None };
        turn.wait();
        turn
    }

    fn wait(&mut self) {
        let turn = self.of.clone().acquire_owned();
        self.waits = Some(Box::pin(async { turn.await.ok() }));
    }

    pub(super) fn stage(&self) -> Stage {
        match (&self.now, &self.waits) {
            (Some(_), _) => Stage::Now,
            (None, Some(_)) => Stage::Waits,
            (None, None) => Stage::No,
        }
    }

    /// It wants another turn. It has it at once if nobody else waits.
    pub(super) fn begin(&mut self) {
        match self.of.clone().try_acquire_owned() {
            Ok(permit) => self.now = Some(Some(permit)),
            Err(_) => self.wait(),
        }
    }

    /// Resolves when its turn has come; at once if it waits for none.
    pub(super) async fn comes(&mut self) {
        if let Some(turn) = &mut self.waits {
            let permit = turn.await;
            (self.waits, self.now) = (None, Some(permit));
        }
    }

    /// It is the next one's turn.
    pub(super) fn is_over(&mut self) {
        (self.waits, self.now) = (None, None);
    }
}

/// Where a server listens, as the successor has to know it: a connection never gets to another app.
pub(super) struct Place {
    kind: String,
    is_tcp: bool,
}

impl Place {
    /// `None`: it has no name by which it could be found.
    pub(super) fn of(address: &Address) -> Option<Arc<Place>> {
        let (kind, is_tcp) = match address {
            Address::Tcp(address) => (format!("{KIND}tcp {address}"), true),
            Address::Unix(path) => (format!("{KIND}unix {}", path.as_ref()?.to_str()?), false),
        };
        (kind.len() <= KIND_MAX).then(|| Arc::new(Place { kind, is_tcp }))
    }

    /// The error has the connection, unless the runtime could not take it back.
    pub(super) async fn pass(
        &self,
        given: Given,
        peer: Option<Peer>,
    ) -> std::result::Result<(), (Option<Given>, Reason)> {
        let Given { stream, unread, asked, since } = given;
        let about = About { peer, asked, idle: since.elapsed() };
        let Some(fd) = stream.into_fd() else { return Err((None, Reason::Unusable)) };
        let mut connection = Connection::new(fd);
        (connection.unread, connection.state) = (unread, about.format());
        let passed = connections::pass(&self.kind, connection).await;
        passed.map_err(|NotPassed { connection, reason }| {
            let stream = Stream::from_fd(connection.fd, self.is_tcp).ok();
            let unread = connection.unread;
            (stream.map(|stream| Given { stream, unread, asked, since }), reason)
        })
    }
}

/// What the successor has to know of a connection.
#[derive(Debug, PartialEq, Eq)]
struct About {
    /// The client, also as a trusted proxy has told it.
    peer: Option<Peer>,
    /// A request has been answered.
    asked: bool,
    idle: Duration,
}

impl About {
    fn format(&self) -> Vec<u8> {
        let About { peer, asked, idle } = self;
        let peer = peer.map(|Peer(address)| address.to_string()).unwrap_or_default();
        format!("{} {} {peer}", idle.as_millis(), u8::from(*asked)).into_bytes()
    }

    fn parse(state: &[u8]) -> Option<About> {
        let mut words = std::str::from_utf8(state).ok()?.split(' ');
        let idle = Duration::from_millis(words.next()?.parse().ok()?);
        let asked = match words.next()? {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        let peer = match words.next()? {
            "" => None,
            address => Some(Peer(address.parse::<SocketAddr>().ok()?)),
        };
        Some(About { peer, asked, idle })
    }
}

/// Serves a connection of another generation.
pub(super) type Take = Arc<dyn Fn(Given, Option<Peer>, Seat) + Send + Sync>;

impl Place {
    /// Serves the connections to this place that other generations pass, for as long as the caller holds `take`. If
    /// no permit is free, a connection stays with the other generation.
    pub(super) fn accept(&self, permits: Arc<Semaphore>, take: &Take) -> Result<()> {
        let (is_tcp, take, runtime) = (self.is_tcp, Arc::downgrade(take), Handle::current());
        connections::accept_if(&self.kind, move |state| {
            let About { peer, asked, idle } = About::parse(state)?;
            let take = take.upgrade()?;
            let seat = Seat::new(permits.clone().try_acquire_owned().ok()?);
            let runtime = runtime.clone();
            Some(move |connection: Connection| {
                let _runtime = runtime.enter();
                let Connection { fd, unread, .. } = connection;
                let Ok(stream) = Stream::from_fd(fd, is_tcp) else { return };
                let now = Instant::now();
                let since = now.checked_sub(idle).unwrap_or(now);
                take(Given { stream, unread, asked, since }, peer, seat);
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{About, Address, Arc, Peer, Place, Semaphore, Stage, Turn};
    use std::path::PathBuf;
    use std::pin::pin;
    use std::task::{Context, Waker};
    use std::time::Duration;

    #[test]
    fn p13_a_few_connections_move_at_a_time_and_nobody_waits_for_ever() {
        let turns = Arc::new(Semaphore::new(0));
        let mut all: Vec<Turn> = (0..5).map(|_| Turn::new(&turns)).collect();
        let comes = |one: &mut Turn| {
            let mut context = Context::from_waker(Waker::noop());
            pin!(one.comes()).as_mut().poll(&mut context).is_ready()
        };
        let come = |all: &mut [Turn]| all.iter_mut().map(comes).collect::<Vec<_>>();
        // Nobody has a turn before the drain, and then the oldest.
        assert_eq!(come(&mut all), [false; 5]);
        turns.add_permits(2);
        assert_eq!(come(&mut all), [true, true, false, false, false]);
        // One that was busy wants another turn: it is the last.
        all[0].is_over();
        all[0].begin();
        assert_eq!(come(&mut all), [false, true, true, false, false]);
        assert_eq!(all[0].stage(), Stage::Waits);
        all[2].is_over();
        assert_eq!(all[2].stage(), Stage::No);
        assert_eq!(come(&mut all[3..]), [true, false]);
        // The successor does not answer: then all move together.
        turns.close();
        assert_eq!(come(&mut all), [true; 5]);
        assert_eq!(all[0].stage(), Stage::Now);
        assert!(come(&mut [Turn::new(&turns)])[0]);
    }

    #[test]
    fn p13_each_place_is_a_kind_of_its_own() {
        let kind = |address| Place::of(&address).map(|place| (place.kind.clone(), place.is_tcp));
        let unix = |path: &str| Address::Unix(Some(PathBuf::from(path)));
        let tcp = Address::Tcp("127.0.0.1:80".parse().expect("an address"));
        assert_eq!(kind(tcp), Some(("http/1 tcp 127.0.0.1:80".to_owned(), true)));
        assert_eq!(kind(unix("/run/a b")), Some(("http/1 unix /run/a b".to_owned(), false)));
        assert_eq!(kind(Address::Unix(None)), None);
        // 255 bytes are the longest kind.
        assert!(kind(unix(&"a".repeat(243))).is_some());
        assert_eq!(kind(unix(&"a".repeat(244))), None);
    }

    #[test]
    fn p13_what_the_successor_has_to_know() {
        for peer in [None, Some(Peer("[::1]:7".parse().expect("an address")))] {
            for asked in [false, true] {
                let about = About { peer, asked, idle: Duration::from_millis(1234) };
                assert_eq!(About::parse(&about.format()), Some(about));
            }
        }
        for wrong in ["", "1 1", "x 1 ", "1 2 ", "1 1 nobody", "-1 1 "] {
            assert_eq!(About::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
