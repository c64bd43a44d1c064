//! What is known of one connection, and what the time and a drain ask of it. Reads no clock.

use super::heads::Heads;
use std::time::{Duration, Instant};

/// What a client that speaks HTTP/2 sends first: so many bytes tell which version it is.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// When the runtime has probably noticed what has come.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
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

/// How long the body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Nothing,
    Bytes(u64),
    /// It says itself where it ends.
    Unknown,
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
    /// So many bytes have been read since the head of the request that is asked next. `None`: it has not ended, or
    /// it is not known where.
    since_next_head: Option<u64>,
    /// The same of the request that was asked last.
    since_head: Option<u64>,
    /// Of the request that was asked last.
    body: Length,
    /// Given to the app, and not answered to the end.
    in_flight: u32,
    /// A first request has come.
    asked: bool,
    /// The library has given a request to the app, and not another generation's.
    begun: bool,
    /// Since when nothing has been in flight and all is written, or since when a head has been coming.
    since: Instant,
    /// The end of an answer may still be in the library.
    unflushed: bool,
    /// The last write could not be done at once.
    blocked: bool,
    /// Bytes in both directions.
    moved: u64,
    /// The client has been told that the drain has begun (HTTP/2).
    announced: Option<Instant>,
    /// The library reads no more, and shuts the connection down.
    closing: bool,
    /// No further request is to come: the library has been told.
    finishing: Option<Finishing>,
}

#[derive(Clone, Copy, Debug)]
struct Finishing {
    /// Since when the connection is looked at.
    since: Instant,
    /// What had moved by then.
    moved: u64,
    /// Something has come from the client since the library was told. To a last GOAWAY belongs a PING.
    heard: bool,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing before this moment.
    Wait(Instant),
    /// Send a first GOAWAY (HTTP/2), and ask again.
    Announce,
    /// Tell the library to end it: at once if it is idle (HTTP/1), by a last GOAWAY (HTTP/2).
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
            since_next_head: None,
            since_head: None,
            body: Length::Nothing,
            in_flight: 0,
            asked: false,
            begun: false,
            since: now,
            unflushed: false,
            blocked: false,
            moved: 0,
            announced: None,
            closing: false,
            finishing: None,
        }
    }

    /// For an HTTP/1 connection that another generation has passed: requests have been answered there, and it has
    /// been idle since then.
    pub(super) fn resumed(since: Instant) -> Self {
        State { version: Version::Http1, asked: true, ..State::new(since) }
    }

    pub(super) fn read(&mut self, mut bytes: &[u8], now: impl FnOnce() -> Instant) {
        self.moved += bytes.len() as u64;
        if let Some(finishing) = &mut self.finishing {
            finishing.heard |= !bytes.is_empty();
        }
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
        let left = self.body_left().filter(|_| self.opaque);
        for since in [&mut self.since_head, &mut self.since_next_head].into_iter().flatten() {
            *since += bytes.len() as u64;
        }
        if let Some(left) = left {
            if (bytes.len() as u64) < left {
                return;
            }
            bytes = &bytes[left as usize..];
            self.body_ends();
        }
        if self.version == Version::Http1 && !self.opaque {
            let was_open = self.heads.is_open();
            let (ended, behind) = self.heads.feed(bytes);
            if ended > 0 && self.ahead == 0 {
                self.since_next_head = Some(behind as u64);
            }
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
    pub(super) fn asked(&mut self, body: Length) {
        let has_body = body != Length::Nothing;
        (self.asked, self.begun) = (true, true);
        self.in_flight += 1;
        // Its own head is the first that has ended, unless that was in what is left of the body before it. What has
        // ended behind it may be in its own body.
        let is_own = self.ahead == 1 || !self.after_body;
        self.since_head = self.since_next_head.take().filter(|_| is_own);
        self.body = body;
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
        if self.body_left() == Some(0) {
            self.body_ends();
        }
    }

    /// So many bytes of the body of the last request are still to come. `None`: it is not known, or the library has
    /// more than that.
    fn body_left(&self) -> Option<u64> {
        match (self.body, self.since_head) {
            (Length::Bytes(length), Some(read)) => length.checked_sub(read),
            (Length::Nothing | Length::Unknown, _) | (_, None) => None,
        }
    }

    /// What comes next is a head.
    fn body_ends(&mut self) {
        (self.opaque, self.after_body) = (false, false);
    }

    /// No request has come behind the one that is being answered (HTTP/1): its answer may say that it
    /// is the last.
    pub(super) fn is_last(&self) -> bool {
        self.version == Version::Http1 && self.ahead == 0 && !self.heads.is_open()
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn has_been_asked(&self) -> bool {
        self.asked
    }

    /// Has the library of this process done nothing but read?
    pub(super) fn is_untouched(&self) -> bool {
        !self.begun
    }

    /// Since when nothing has been in flight.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// May another generation go on with it? Nothing is in flight, all is written, and what the library has read
    /// begins with a head: the body of the last request has come to its end.
    pub(super) fn may_move(&self) -> bool {
        !self.is_busy() && self.may_move_yet()
    }

    /// May it move now or later, without another request? Until then its moment to leave does not count. Whether it
    /// may is known before its last request is answered: that answer may say that it is the last.
    pub(super) fn may_move_yet(&self) -> bool {
        let may_come_between = match (self.version, self.body) {
            (Version::Http2 | Version::Upgraded, _) | (_, Length::Unknown) => false,
            (Version::Unknown(_), _) | (Version::Http1, Length::Nothing) => true,
            (Version::Http1, Length::Bytes(length)) => {
                self.since_head.is_some_and(|read| self.in_flight > 0 || read >= length)
            }
        };
        may_come_between && self.finishing.is_none()
    }

    /// The library has been told to end it.
    pub(super) fn finishes(&mut self, now: Instant) {
        self.finishing = Some(Finishing { since: now, moved: self.moved, heard: false });
    }

    /// The library shuts it down, which needs room in the socket (TLS).
    pub(super) fn closes(&mut self) {
        self.closing = true;
    }

    pub(super) fn upgraded(&mut self) {
        self.version = Version::Upgraded;
    }

    /// An answer has been taken to its end, or was given up.
    pub(super) fn answered(&mut self, now: Instant) {
        self.in_flight -= 1;
        self.unflushed = true;
        // The rest of its body may still come, and is read by the app or not at all.
        self.opaque &= self.body_left().is_some();
        if self.in_flight == 0 {
            self.since = now;
        }
    }

    /// The kernel has all that the library had.
    pub(super) fn flushed(&mut self, now: impl FnOnce() -> Instant) {
        if self.unflushed && self.in_flight == 0 {
            self.unflushed = false;
            self.since = now();
        }
    }

    /// Something is being answered. The library may have the end of an answer long before the client has read it.
    fn is_answering(&self) -> bool {
        self.in_flight > 0 || self.unflushed || self.blocked
    }

    /// Something is still to be answered.
    pub(super) fn is_busy(&self) -> bool {
        self.is_answering() || self.ahead > 0
    }

    /// `draining`: since when, if the drain has begun. `has_unread`: bytes have come that nobody has
    /// read so far. After [`Next::Finish`] the library has been told.
    pub(super) fn next(
        &mut self,
        now: Instant,
        draining: Option<Instant>,
        times: &Times,
        has_unread: impl FnOnce() -> bool,
    ) -> Next {
        if let Some(finishing) = self.finishing {
            return self.after_finish(now, finishing, times);
        }
        let next = match self.version {
            Version::Http2 if draining.is_some() => match self.announced {
                Some(announced) => at(now, announced + times.grace, Next::Finish),
                None => {
                    self.announced = Some(now);
                    Next::Announce
                }
            },
            _ if self.is_answering() => {
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
                    // Of a body or of what is shut down, it would be no request.
                    Next::Finish if !self.closing && !self.opaque && has_unread() => {
                        Next::Wait(now + LOOK_AGAIN)
                    }
                    next => next,
                }
            }
        };
        if next == Next::Finish {
            self.finishes(now);
        }
        next
    }

    /// HTTP/1: the library ends it when all is written, unless it waits for something that does not come: the rest of a
    /// body or of a head, or room for the end of TLS. HTTP/2: when the client has answered too, and the streams have
    /// ended. One that has not answered has gone. One that has may read nothing for as long as it wants: what is left
    /// of an answer waits in the library until the client makes room for it.
    fn after_finish(&mut self, now: Instant, finishing: Finishing, times: &Times) -> Next {
        let end = finishing.since + times.header;
        if now < end {
            return Next::Wait(end);
        }
        let silent = self.moved == finishing.moved && !self.is_answering();
        let may_pause = self.version == Version::Http2 && finishing.heard;
        if silent && !may_pause {
            return Next::Cut;
        }
        self.finishing = Some(Finishing { since: now, moved: self.moved, ..finishing });
        Next::Wait(now + times.header)
    }
}

fn at(now: Instant, end: Instant, then: Next) -> Next {
    if now < end { Next::Wait(end) } else { then }
}

#[cfg(test)]
mod tests;
