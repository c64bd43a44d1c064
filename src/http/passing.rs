//! Connections that move to the successor, and that come from another generation.

use super::accept::Seat;
use super::protocol::Given;
use super::stream::{Address, Peer, Stream};
use crate::connections::{self, Connection, NotPassed, Reason};
use crate::{DrainReason, Result};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// A change of [`About`] gets another name.
const KIND: &str = "http/1";
/// When a connection is tried again that could not be passed.
const AGAIN: Duration = Duration::from_secs(1);
/// For how long that goes on, from the beginning of the drain.
pub(super) const TRIES: Duration = Duration::from_secs(5);
const TCP: &[u8] = b"tcp ";
const UNIX: &[u8] = b"unix ";

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
    pub(super) fn at(place: Option<&Arc<Place>>) -> Moves {
        place.map_or(Moves::Never, |_| Moves::Yes)
    }

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
        let moves = || match crate::draining().reason() {
            Some(DrainReason::TakenOver | DrainReason::RolledBack) => true,
            Some(_) | None => false,
        };
        if *self != Moves::Never && !moves() {
            *self = Moves::Never;
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

/// Where a server listens, as the successor has to know it: a connection never gets to another app.
pub(super) struct Place(Vec<u8>);

impl Place {
    /// `None`: it has no name by which it could be found.
    pub(super) fn of(address: &Address) -> Option<Arc<Place>> {
        let name = match address {
            Address::Tcp(address) => [TCP, address.to_string().as_bytes()].concat(),
            Address::Unix(path) => [UNIX, path.as_ref()?.as_os_str().as_bytes()].concat(),
        };
        Some(Arc::new(Place(name)))
    }

    fn is_tcp(&self) -> bool {
        self.0.starts_with(TCP)
    }

    /// An error has the connection, if the runtime has taken it back.
    pub(super) async fn pass(
        &self,
        given: Given,
        peer: Option<Peer>,
    ) -> std::result::Result<(), (Option<Given>, Reason)> {
        let Given { stream, unread, asked, since } = given;
        let about = About { place: self.0.clone(), peer, asked, idle: since.elapsed() };
        let Some(fd) = stream.into_fd() else { return Err((None, Reason::Unusable)) };
        let mut connection = Connection::new(fd);
        (connection.unread, connection.state) = (unread, about.format());
        connections::pass(KIND, connection).await.map_err(|NotPassed { connection, reason }| {
            let stream = Stream::from_fd(connection.fd, self.is_tcp()).ok();
            let unread = connection.unread;
            (stream.map(|stream| Given { stream, unread, asked, since }), reason)
        })
    }
}

/// What the successor has to know of a connection.
#[derive(Debug, PartialEq, Eq)]
struct About {
    place: Vec<u8>,
    /// The client, also as a trusted proxy has told it.
    peer: Option<Peer>,
    /// A request has been answered.
    asked: bool,
    idle: Duration,
}

impl About {
    fn format(&self) -> Vec<u8> {
        let About { place, peer, asked, idle } = self;
        let peer = peer.map(|Peer(address)| address.to_string()).unwrap_or_default();
        let asked = u8::from(*asked);
        [format!("{} {asked} {peer}\n", idle.as_millis()).as_bytes(), place].concat()
    }

    fn parse(state: &[u8]) -> Option<About> {
        let end = state.iter().position(|byte| *byte == b'\n')?;
        let mut words = std::str::from_utf8(&state[..end]).ok()?.split(' ');
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
        Some(About { place: state[end + 1..].to_vec(), peer, asked, idle })
    }
}

/// Where connections of other generations go on.
#[derive(Clone)]
struct There {
    permits: Arc<Semaphore>,
    take: Arc<dyn Fn(Given, Option<Peer>, Seat) + Send + Sync>,
}

/// The places at which connections of other generations go on, by their names.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<Vec<u8>, There>>);

impl Places {
    pub(super) fn add(
        &self,
        place: &Place,
        permits: Arc<Semaphore>,
        take: impl Fn(Given, Option<Peer>, Seat) + Send + Sync + 'static,
    ) {
        self.places().insert(place.0.clone(), There { permits, take: Arc::new(take) });
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Vec<u8>, There>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `accept` finds no place for stays where it is.
    pub(super) fn accept(self: &Arc<Places>) -> Result<()> {
        let (places, runtime) = (Arc::downgrade(self), Handle::current());
        connections::accept_if(KIND, move |state| {
            let about = About::parse(state)?;
            let places = Weak::upgrade(&places)?;
            let There { permits, take } = places.places().get(&about.place)?.clone();
            let seat = Seat::new(permits.try_acquire_owned().ok()?);
            let runtime = runtime.clone();
            Some(move |connection: Connection| {
                let _runtime = runtime.enter();
                let Connection { fd, unread, .. } = connection;
                let Ok(stream) = Stream::from_fd(fd, about.place.starts_with(TCP)) else { return };
                let now = Instant::now();
                let since = now.checked_sub(about.idle).unwrap_or(now);
                take(Given { stream, unread, asked: about.asked, since }, about.peer, seat);
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{AGAIN, About, Address, Moves, Peer, Place, Reason};
    use std::path::PathBuf;
    use std::time::{Duration, Instant};

    #[test]
    fn p13_who_could_not_be_passed_is_tried_again_for_a_while() {
        let now = Instant::now();
        let end = now + 3 * AGAIN;
        for why in [Reason::Refused, Reason::UnknownKind, Reason::Stopped, Reason::Unusable] {
            let mut moves = Moves::Yes;
            moves.stays(why, now, end);
            assert_eq!(moves, Moves::Never, "{why:?}");
        }
        let mut moves = Moves::Yes;
        assert!(moves.may(now) && moves.may_yet(now));
        moves.stays(Reason::Silent, now, end);
        assert!(!moves.may(now) && moves.may_yet(now));
        assert_eq!(moves.again(now, now + 2 * AGAIN), now + AGAIN);
        assert!(moves.may(now + AGAIN));
        assert_eq!(moves.again(now + AGAIN, now + 9 * AGAIN), end);
        assert!(!moves.may(end) && !moves.may_yet(end));
        moves.stays(Reason::NoSuccessor, now + 2 * AGAIN, end);
        assert_eq!(moves, Moves::Never);
    }

    #[test]
    fn p13_what_the_successor_has_to_know() {
        let tcp = Place::of(&Address::Tcp("127.0.0.1:80".parse().expect("an address")));
        let unix = Place::of(&Address::Unix(Some(PathBuf::from("/run/a\nb"))));
        assert!(Place::of(&Address::Unix(None)).is_none());
        let (tcp, unix) = (tcp.expect("a place"), unix.expect("a place"));
        assert!(tcp.is_tcp() && !unix.is_tcp());
        for place in [tcp, unix] {
            for peer in [None, Some(Peer("[::1]:7".parse().expect("an address")))] {
                for asked in [false, true] {
                    let idle = Duration::from_millis(1234);
                    let about = About { place: place.0.clone(), peer, asked, idle };
                    assert_eq!(About::parse(&about.format()), Some(about));
                }
            }
        }
        for wrong in ["", "1 1 ", "x 1 \n", "1 2 \n", "1 1\n", "1 1 nobody\n", "-1 1 \n"] {
            assert_eq!(About::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
