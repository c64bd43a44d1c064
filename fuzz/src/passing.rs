//! Whatever peers send, in whatever order: neither side of a link at which connections move panics, and nothing that
//! is in doubt is forgotten or closed. And the keys of session tickets, which the predecessor hands over.
#![no_main]
#![allow(unexpected_cfgs)] // those of the crate that this comes from

// Only some of it is used here.
#[allow(dead_code, unexpected_cfgs, unreachable_pub)]
#[path = "../../src/proto/mod.rs"]
mod proto;

use proto::control::frame::{self, Answer, Batch, Fate};
use proto::control::passing::{Input, Next, Receiver, Sender, Unwilling};
use proto::tickets;
use std::time::Duration;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    keys(bytes);
    let mut parts = Parts(bytes);
    let mut receiver = Receiver::new();
    let mut old = Old { sender: Sender::new(), waiting: 3, doubt: 0, decided: false };
    while let Some((kind, part)) = parts.next() {
        if kind & 1 == 0 {
            new_side(&mut receiver, kind, part);
        } else {
            old.hears(kind, part);
        }
    }
});

/// A byte that says what it is, one for the length, and so many bytes; the last part may be longer.
struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [kind, length, rest @ ..] = self.0 else { return None };
        let length = match *length {
            255 => rest.len(),
            short => rest.len().min(short.into()),
        };
        let (part, rest) = rest.split_at(length);
        self.0 = rest;
        Some((*kind, part))
    }
}

fn new_side(receiver: &mut Receiver, kind: u8, part: &[u8]) {
    let Ok((batch, load)) = Batch::parse(part) else { return };
    let text = batch.format(load);
    if text.len() <= frame::MESSAGE_MAX {
        assert_eq!(Batch::parse(&text), Ok((batch.clone(), load)));
    }
    let inline = if batch.in_memory { 0 } else { batch.load() };
    assert_eq!(load.len() as u64, inline);
    let fds = batch.fds() + usize::from(kind & 2 != 0);
    let willing = if kind & 4 == 0 { Ok(()) } else { Err(Unwilling::NotYet) };
    let came = receiver.on_message(&batch, (fds, kind & 8 != 0), willing);
    if came.is_err() {
        assert_eq!(receiver.answered(), []);
        return;
    }
    assert_eq!(kind & 0b1110, 0, "taken, though it is not whole or not wanted");
    if kind & 16 != 0 {
        return receiver.give_up();
    }
    let fates: Vec<Fate> = batch
        .connections
        .iter()
        .map(|one| if one.unread % 2 == 0 { Fate::Kept } else { Fate::Refused })
        .collect();
    let answer = receiver.decided(fates.clone());
    assert_eq!(Answer::parse(&answer.format()), Ok(answer));
    assert_eq!(receiver.answered(), fates);
}

/// The old side, with connections that are only counted.
struct Old {
    sender: Sender,
    waiting: usize,
    doubt: usize,
    /// Something has come that decides about those in doubt.
    decided: bool,
}

impl Old {
    fn hears(&mut self, kind: u8, part: &[u8]) {
        let input = match (kind >> 1) % 8 {
            0 => Input::Silent,
            1 => Input::Closed,
            2 => Input::Ended,
            3 => Input::Garbage,
            4 => Input::NotSent,
            _ => match Answer::parse(part) {
                Ok(answer) => Input::Heard(answer),
                Err(_) => Input::Garbage,
            },
        };
        let refuses = matches!(&input, Input::Heard(Answer::Refused(_)));
        let kept = matches!(&input, Input::Heard(Answer::Kept { .. }));
        self.decided |= refuses || kept;
        self.sender.on(input);
        // Some steps of its thread: as many as it can do without an answer.
        for _ in 0..20 {
            let waiting = self.waiting;
            let input = match self.sender.next(waiting, || 2) {
                Next::Rest if self.doubt == 0 => {
                    self.waiting += 1;
                    continue;
                }
                Next::Rest => panic!("{} in doubt are forgotten", self.doubt),
                Next::Await { .. } => return,
                Next::Link => Input::Linked(2 + u64::from(kind % 3)),
                Next::Ask => Input::Sent(0),
                Next::Send { count, .. } => {
                    assert!(count > 0 && count <= waiting && self.doubt == 0);
                    (self.waiting, self.doubt, self.decided) = (waiting - count, count, false);
                    Input::Sent(count)
                }
                Next::ReadOut => {
                    self.decided = true;
                    Input::ReadOut
                }
                Next::Settle(fates) => {
                    assert_eq!(fates.len(), self.doubt);
                    self.doubt = 0;
                    Input::Done
                }
                Next::Requeue => {
                    assert!(self.decided, "taken back, and nothing has decided that");
                    (self.waiting, self.doubt) = (waiting + self.doubt, 0);
                    Input::Done
                }
                Next::GiveBack(_) => {
                    self.waiting = 0;
                    Input::Done
                }
                Next::HangUp => {
                    assert_eq!(self.doubt, 0, "closed, and {} in doubt", self.doubt);
                    Input::Done
                }
            };
            self.sender.on(input);
        }
    }
}

fn keys(bytes: &[u8]) {
    let Some(all) = tickets::parse(bytes) else { return };
    let text = tickets::format(all.iter().map(|(label, keys)| (label, keys)));
    assert_eq!(tickets::parse(&text).as_ref(), Some(&all));
    for (_, keys) in &all {
        for now in [Duration::ZERO, keys.encrypts().made, Duration::from_secs(1 << 40)] {
            _ = keys.is_due(now);
            if let Some(key) = keys.decrypts(&keys.encrypts().name, now) {
                assert!(now >= key.made && now - key.made < 2 * tickets::ROTATION);
            }
        }
    }
}
