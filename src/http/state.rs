//! What is known of one connection, and what the time and a drain ask of it. Reads no clock.

use super::heads::Heads;
use std::time::{Duration, Instant};

/// What a client that speaks HTTP/2 sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// When the runtime has probably noticed what has come.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// So many bytes of the preface have come, and nothing else.
    Unknown(usize),
    Http1,
    Http2,
    /// Another protocol: what both sides have agreed on.
    Upgraded,
}

/// The times that a connection is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) header: Duration,
    pub(super) keep_alive: Duration,
    pub(super) grace: Duration,
}

#[derive(Debug)]
pub(super) struct State {
    version: Version,
    heads: Heads,
    /// Requests whose head is here and that the app has not been given (HTTP/1: pipelined).
    ahead: u32,
    /// What is read is a body: no heads in it.
    opaque: bool,
    /// The last request had a body. An app that did not read it to its end leaves bytes that look
    /// like heads and are none.
    after_body: bool,
    /// Given to the app, and not answered to the end.
    in_flight: u32,
    /// A first request has come.
    asked: bool,
    /// Since when nothing has been in flight, or since when a head has been coming.
    since: Instant,
    /// The end of an answer may still be in the library.
    unflushed: bool,
    /// The last write could not be done at once.
    blocked: bool,
    /// Bytes in both directions.
    moved: u64,
    /// The client has been told that the drain has begun (HTTP/2).
    announced: Option<Instant>,
    /// No further request is to come: the library has been told, and what had moved by then.
    finishing: Option<(Instant, u64)>,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing before this moment.
    Wait(Instant),
    /// Send a first GOAWAY (HTTP/2), and ask again.
    Announce,
    /// Tell the library to end it: at once where it is idle (HTTP/1), by a last GOAWAY (HTTP/2).
    Finish,
    /// Cut it.
    Cut,
}

impl State {
    pub(super) fn new(now: Instant) -> Self {
        State {
            version: Version::Unknown(0),
            heads: Heads::default(),
            ahead: 0,
            opaque: false,
            after_body: false,
            in_flight: 0,
            asked: false,
            since: now,
            unflushed: false,
            blocked: false,
            moved: 0,
            announced: None,
            finishing: None,
        }
    }

    pub(super) fn read(&mut self, mut bytes: &[u8], now: impl FnOnce() -> Instant) {
        self.moved += bytes.len() as u64;
        if let Version::Unknown(seen) = self.version {
            let same = bytes.iter().zip(&PREFACE[seen..]).take_while(|(a, b)| a == b).count();
            let seen = seen + same;
            if seen == PREFACE.len() {
                self.version = Version::Http2;
            } else if same == bytes.len() {
                self.version = Version::Unknown(seen);
            } else {
                self.version = Version::Http1;
                self.heads = if seen > 0 { Heads::begun() } else { Heads::default() };
                bytes = &bytes[same..];
            }
        }
        if self.version == Version::Http1 && !self.opaque {
            let was_open = self.heads.is_open();
            let ended = self.heads.feed(bytes);
            self.ahead = self.ahead.saturating_add(ended);
            if self.in_flight == 0 && self.heads.is_open() && (ended > 0 || !was_open) {
                self.since = now();
            }
        }
    }

    pub(super) fn wrote(&mut self, bytes: Option<usize>) {
        self.blocked = bytes.is_none();
        self.moved += bytes.unwrap_or(0) as u64;
    }

    /// The app gets a request.
    pub(super) fn asked(&mut self, has_body: bool) {
        self.asked = true;
        self.in_flight += 1;
        self.ahead = self.ahead.saturating_sub(1);
        if has_body || self.after_body {
            // Where a body ends, and what came behind it, only the library knows.
            self.ahead = 0;
        }
        if has_body {
            self.opaque = true;
            self.heads = Heads::default();
        }
        self.after_body = has_body;
    }

    /// No request has come behind the one that is being answered (HTTP/1): its answer may say that it
    /// is the last.
    pub(super) fn is_last(&self) -> bool {
        self.version == Version::Http1 && self.ahead == 0 && !self.heads.is_open()
    }

    pub(super) fn is_http2(&self) -> bool {
        self.version == Version::Http2
    }

    pub(super) fn upgraded(&mut self) {
        self.version = Version::Upgraded;
    }

    /// An answer has been taken to its end, or was given up.
    pub(super) fn answered(&mut self, now: Instant) {
        self.in_flight -= 1;
        self.unflushed = true;
        self.opaque = false;
        if self.in_flight == 0 {
            self.since = now;
        }
    }

    /// The kernel has all that the library had.
    pub(super) fn flushed(&mut self) {
        self.unflushed &= self.in_flight > 0;
    }

    /// Something is still to be answered.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight > 0 || self.ahead > 0 || self.unflushed || self.blocked
    }

    /// `draining`: since when, where the drain has begun. `has_unread`: bytes have come that nobody has
    /// read so far. After [`Next::Finish`] the library has been told.
    pub(super) fn next(
        &mut self,
        now: Instant,
        draining: Option<Instant>,
        times: &Times,
        has_unread: impl FnOnce() -> bool,
    ) -> Next {
        if let Some((since, moved)) = self.finishing {
            return self.after_finish(now, since, moved, times);
        }
        let next = match self.version {
            Version::Http2 if draining.is_some() => match self.announced {
                Some(announced) => at(now, announced + times.grace, Next::Finish),
                None => {
                    self.announced = Some(now);
                    Next::Announce
                }
            },
            _ if self.in_flight > 0 => {
                // Should it be idle from now on.
                let idle = draining.map_or(times.keep_alive, |_| times.grace);
                Next::Wait(now + idle.min(times.header))
            }
            // The library has it, and gives it to the app once the answer before it is written.
            _ if self.ahead > 0 => at(now, self.since + times.header, Next::Finish),
            // Its first request is a promise, in a drain as well; so is one that is on its way.
            Version::Unknown(_) => at(now, self.since + times.header, Next::Cut),
            Version::Http1 if !self.asked || self.heads.is_open() => {
                at(now, self.since + times.header, Next::Cut)
            }
            Version::Http1 | Version::Http2 | Version::Upgraded => {
                let end = draining.map_or(self.since + times.keep_alive, |began| {
                    (self.since + times.keep_alive).min(self.since.max(began) + times.grace)
                });
                match at(now, end, Next::Finish) {
                    Next::Finish if has_unread() => Next::Wait(now + LOOK_AGAIN),
                    next => next,
                }
            }
        };
        if next == Next::Finish {
            self.finishing = Some((now, self.moved));
        }
        next
    }

    /// HTTP/1: the library ends it when all is written. HTTP/2: when the client has answered too; one
    /// that is silent for so long has gone.
    fn after_finish(&mut self, now: Instant, since: Instant, moved: u64, times: &Times) -> Next {
        let end = since + times.header;
        if now < end {
            return Next::Wait(end);
        }
        let silent = self.moved == moved && !self.is_busy();
        if silent && self.version == Version::Http2 {
            return Next::Cut;
        }
        self.finishing = Some((now, self.moved));
        Next::Wait(now + times.header)
    }
}

fn at(now: Instant, end: Instant, then: Next) -> Next {
    if now < end { Next::Wait(end) } else { then }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const TIMES: Times = Times {
        header: Duration::from_secs(10),
        keep_alive: Duration::from_secs(75),
        grace: Duration::from_secs(1),
    };

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// A connection, and the moment of its start.
    fn new() -> (State, Instant) {
        let now = Instant::now();
        (State::new(now), now)
    }

    fn exchange(state: &mut State, now: Instant) {
        state.read(GET, || now);
        state.asked(false);
        state.answered(now);
    }

    #[test]
    fn a_first_request_may_come_within_the_header_time_also_in_a_drain() {
        for draining in [false, true] {
            for first in [&b""[..], b"P", b"GET / HT", &PREFACE[..23]] {
                let (mut state, start) = new();
                state.read(first, || start);
                let draining = draining.then_some(start);
                let mut next =
                    |after| state.next(start + seconds(after), draining, &TIMES, || false);
                assert_eq!(next(0), Next::Wait(start + seconds(10)));
                assert_eq!(next(9), Next::Wait(start + seconds(10)));
                assert_eq!(next(10), Next::Cut);
            }
        }
    }

    #[test]
    fn an_idle_connection_ends_after_keep_alive_and_in_a_drain_after_the_grace() {
        let (mut state, start) = new();
        exchange(&mut state, start);
        assert_eq!(state.next(start, None, &TIMES, || false), Next::Wait(start + seconds(75)));
        let began = start + seconds(20);
        assert_eq!(
            state.next(began, Some(began), &TIMES, || false),
            Next::Wait(began + seconds(1))
        );
        // A request in time: the grace begins anew when it is answered.
        exchange(&mut state, began + seconds(1));
        let after = began + seconds(1);
        assert_eq!(
            state.next(after, Some(began), &TIMES, || false),
            Next::Wait(began + seconds(2))
        );
        assert_eq!(state.next(began + seconds(2), Some(began), &TIMES, || false), Next::Finish);

        let (mut state, start) = new();
        exchange(&mut state, start);
        assert_eq!(state.next(start + seconds(75), None, &TIMES, || false), Next::Finish);
    }

    /// The runtime may notice it later than its timer.
    #[test]
    fn an_idle_connection_does_not_end_while_something_is_unread() {
        for draining in [false, true] {
            let (mut state, start) = new();
            exchange(&mut state, start);
            let now = start + seconds(75);
            let draining = draining.then_some(start);
            let next = state.next(now, draining, &TIMES, || true);
            assert_eq!(next, Next::Wait(now + LOOK_AGAIN));
            assert_eq!(state.next(now + LOOK_AGAIN, draining, &TIMES, || false), Next::Finish);
        }
    }

    #[test]
    fn a_request_on_its_way_is_waited_for_as_long_as_a_head_may_take() {
        let (mut state, start) = new();
        exchange(&mut state, start);
        let late = start + seconds(30);
        state.read(b"GET /", || late);
        state.read(b" HTTP/1.1\r\n", || late + seconds(5)); // the same head
        let next = state.next(late + seconds(5), Some(start), &TIMES, || false);
        assert_eq!(next, Next::Wait(late + seconds(10)));
        assert_eq!(state.next(late + seconds(10), Some(start), &TIMES, || false), Next::Cut);
    }

    #[test]
    fn what_is_in_flight_is_never_ended() {
        for first in [GET, PREFACE] {
            let (mut state, start) = new();
            state.read(first, || start);
            state.asked(true);
            for draining in [None, Some(start)] {
                let mut seen = Vec::new();
                for after in [0, 100, 100_000] {
                    seen.push(state.next(start + seconds(after), draining, &TIMES, || false));
                }
                if first == PREFACE && draining.is_some() {
                    assert_eq!(seen[..2], [Next::Announce, Next::Finish]);
                    seen.drain(..2);
                }
                assert!(seen.iter().all(|next| matches!(next, Next::Wait(_))), "{seen:?}");
            }
        }
    }

    #[test]
    fn only_the_last_of_several_requests_is_the_last_answer() {
        let (mut state, start) = new();
        state.read(&[GET, GET, GET].concat(), || start);
        for last in [false, false, true] {
            state.asked(false);
            assert_eq!(state.is_last(), last);
            assert!(matches!(state.next(start, Some(start), &TIMES, || false), Next::Wait(_)));
            state.answered(start);
        }
        // Nor is one the last while the next is on its way.
        state.read(&[GET, b"GET /"].concat(), || start);
        state.asked(false);
        assert!(!state.is_last());
        state.read(&GET[5..], || start);
        state.answered(start);
        state.asked(false);
        assert!(state.is_last());
    }

    #[test]
    fn an_answer_is_through_when_the_kernel_has_all_of_it() {
        let (mut state, start) = new();
        let mut busy = Vec::new();
        state.flushed();
        busy.push(state.is_busy());
        state.read(GET, || start);
        busy.push(state.is_busy());
        state.asked(false);
        state.flushed(); // the head
        busy.push(state.is_busy());
        state.answered(start);
        busy.push(state.is_busy());
        state.flushed();
        busy.push(state.is_busy());
        assert_eq!(busy, [false, true, true, true, false]);
    }

    #[test]
    fn empty_lines_in_a_body_are_no_requests() {
        let (mut state, start) = new();
        state.read(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\na\r\n\r\n", || start);
        state.asked(true);
        state.read(b"b\n\n", || start);
        assert!(state.is_last());
        state.answered(start);
        assert_eq!(
            state.next(start, Some(start), &TIMES, || false),
            Next::Wait(start + seconds(1))
        );
    }

    #[test]
    fn what_is_left_of_a_body_ends_no_request_and_holds_up_no_drain() {
        let (mut state, start) = new();
        state.read(b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n", || start);
        state.asked(true);
        state.answered(start); // not read
        state.read(b"a\n\nb\n\n", || start);
        assert_eq!(
            state.next(start, Some(start), &TIMES, || false),
            Next::Wait(start + seconds(10))
        );
        state.read(GET, || start);
        state.asked(false);
        assert!(state.is_last());
        state.answered(start);
        assert_eq!(state.next(start + seconds(1), Some(start), &TIMES, || false), Next::Finish);
    }

    #[test]
    fn http_2_is_told_at_once_and_cut_only_where_nothing_moves() {
        let (mut state, start) = new();
        state.read(PREFACE, || start);
        assert_eq!(state.next(start, Some(start), &TIMES, || false), Next::Announce);
        assert_eq!(
            state.next(start, Some(start), &TIMES, || false),
            Next::Wait(start + seconds(1))
        );
        let start = start + seconds(1);
        assert_eq!(state.next(start, Some(start), &TIMES, || false), Next::Finish);
        let mut now = start + seconds(10);
        state.wrote(Some(20));
        assert_eq!(state.next(now, Some(start), &TIMES, || false), Next::Wait(now + seconds(10)));
        now += seconds(10);
        state.wrote(None); // somebody does not read
        assert_eq!(state.next(now, Some(start), &TIMES, || false), Next::Wait(now + seconds(10)));
        state.wrote(Some(0));
        now += seconds(10);
        assert_eq!(state.next(now, Some(start), &TIMES, || false), Next::Cut);
    }
}
