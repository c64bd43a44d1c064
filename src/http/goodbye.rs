//! The first GOAWAY of a drain. RFC 9113, 6.8: one that names no last stream, then time for requests
//! that are on their way, then one that does. The library sends the second as soon as the client has
//! answered a PING, and a client may answer that before it sends requests that it has accepted from
//! its user already; they would be refused. So the first is sent here, and the library told later.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;

/// GOAWAY, no error, no stream excluded.
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// Length (3 bytes), type, flags, stream.
const HEAD: usize = 9;

/// Where frames end in what the library writes, and the frame that is put between two of them.
#[derive(Debug, Default)]
pub(super) struct Goodbye {
    head: [u8; HEAD],
    /// Of the head.
    have: usize,
    /// Of the payload.
    left: usize,
    /// The library's first frame, its settings, is out: nothing may come before it.
    begun: bool,
    sent: usize,
    done: bool,
}

impl Goodbye {
    /// What the library has written.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(bytes.len());
                self.left -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD {
                self.have = 0;
                self.begun = true;
                let [a, b, c, ..] = self.head;
                self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            }
        }
    }

    /// Sends it, if it may be sent now. `Ready`: the library may write on.
    pub(super) fn poll_send(
        &mut self,
        mut stream: Pin<&mut impl AsyncWrite>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.done || !self.begun || self.have > 0 || self.left > 0 {
            return Poll::Ready(Ok(()));
        }
        while self.sent < GOAWAY.len() {
            match ready!(stream.as_mut().poll_write(context, &GOAWAY[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        ready!(stream.poll_flush(context))?;
        self.done = true;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    const SETTINGS: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 200];
    const PING: [u8; 17] = [0, 0, 8, 6, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const ACK: [u8; 9] = [0, 0, 0, 4, 1, 0, 0, 0, 0];

    fn send(goodbye: &mut Goodbye) -> Vec<u8> {
        let mut sent = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        assert!(goodbye.poll_send(Pin::new(&mut sent), &mut context).is_ready());
        sent
    }

    #[test]
    fn it_is_sent_once_between_two_frames_and_not_before_the_settings() {
        let frames = [&SETTINGS[..], &ACK, &PING, &ACK].concat();
        let ends = [15, 24, 41, 50];
        for end in 0..=frames.len() {
            for size in 1..=frames.len() {
                let mut goodbye = Goodbye::default();
                frames[..end].chunks(size).for_each(|part| goodbye.feed(part));
                let sent = send(&mut goodbye);
                let whole = ends.contains(&end);
                assert_eq!(sent.as_slice(), if whole { &GOAWAY[..] } else { &[] }, "{end}");
                assert_eq!(send(&mut goodbye), if whole { vec![] } else { sent });
            }
        }
    }
}
