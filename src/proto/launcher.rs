//! The launcher: turns TERM into a handoff or a stop, and ends as its daemon ends.

use super::{End, Intent, Kind, Reading, Report, Scope};

/// What happened to the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// A message of the daemon.
    Report(Report),
    /// The daemon's end of the channel is closed.
    ChannelClosed,
    /// `waitpid` returned the daemon.
    Ended(End),
    /// TERM, and who sent it.
    Term { from: i32 },
    /// CONT, and who sent it. It is forwarded as well: fed in a second time as a `Signal`.
    Cont { from: i32 },
    /// Any signal that is passed on.
    Signal(i32),
    /// The answer to [`Output::ReadStatus`].
    Status(Reading),
    /// A timer fired.
    Timer(Timer),
    /// The channel and the signals of this wake-up have all been fed in. A launcher leaves only
    /// here, so that a TERM which came together with the release is never left unread.
    Quiet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Timer {
    /// A CONT is too old to belong to a TERM (20 ms).
    Cont,
    /// The supervisor has had the time to write its status (20 ms).
    Settle,
    /// `handoff_timeout`.
    Handoff,
    /// `drain_timeout` and 5 s.
    Kill,
}

/// What the launcher has to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Output {
    /// Look at the supervisor and feed in [`Input::Status`].
    ReadStatus,
    /// Tell the daemon the intent, over the channel.
    Tell(Intent),
    /// USR2 to the daemon.
    Handoff,
    /// TERM to the daemon.
    Stop,
    /// KILL to the daemon: it did not keep to a limit.
    Kill(Timer),
    /// The same signal to the daemon.
    Forward(i32),
    Arm(Timer),
    Disarm(Timer),
    /// Exit 0; the daemon is detached. `expired`: without its release.
    Leave {
        expired: bool,
    },
    /// End as the daemon ended.
    Mirror(End),
}

/// How often the status is read again where a CONT and a status of `u` contradict each other:
/// at 20 ms, 40 ms ... 200 ms after the TERM.
const READS: u8 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Settling {
    from: i32,
    /// The sender of the TERM sent a CONT as well.
    cont: bool,
    reads: u8,
    /// A further TERM came meanwhile: settle again after this decision.
    again: Option<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Launcher {
    kind: Kind,
    /// The daemon has its handlers: signals need not be held back.
    ready: bool,
    /// The daemon let us go.
    released: bool,
    /// `handoff_timeout` has passed.
    expired: bool,
    /// The sender of a CONT of the last 20 ms.
    cont: Option<i32>,
    settling: Option<Settling>,
    /// What the last TERM meant, once settled.
    intent: Option<Intent>,
    /// The intent has been told and its signal sent.
    sent: bool,
    gone: bool,
}

impl Launcher {
    pub(crate) fn new(kind: Kind) -> Self {
        Launcher {
            kind,
            ready: false,
            released: false,
            expired: false,
            cont: None,
            settling: None,
            intent: None,
            sent: false,
            gone: false,
        }
    }

    #[must_use]
    pub(crate) fn on(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        if self.gone {
            return out;
        }
        #[cfg(model)]
        if super::model::variants::deaf_launcher(input) {
            return out;
        }
        match input {
            Input::Report(Report::Ready) => self.ready(&mut out),
            // Nobody will ever say "ready" on a closed channel: what is held back goes out.
            Input::ChannelClosed => self.ready(&mut out),
            Input::Report(Report::Released) => {
                self.released = true;
                if broken!(ReleasedBeforeSignals) {
                    self.quiet(&mut out);
                }
            }
            Input::Report(Report::Started) => {}
            Input::Report(Report::Draining) => out.push(Output::Arm(Timer::Kill)),
            Input::Report(Report::Waiting) => out.push(Output::Disarm(Timer::Kill)),
            Input::Ended(end) => {
                self.gone = true;
                out.push(Output::Mirror(if broken!(NoMirror) { End::Code(0) } else { end }));
            }
            Input::Term { from } => self.term(from, &mut out),
            Input::Cont { from } => self.cont(from, &mut out),
            Input::Signal(signal) => out.push(Output::Forward(signal)),
            Input::Status(reading) => self.status(reading, &mut out),
            Input::Timer(Timer::Cont) => self.cont = None,
            Input::Timer(Timer::Settle) => {
                if self.settling.is_some() {
                    out.push(Output::ReadStatus);
                }
            }
            Input::Timer(Timer::Handoff) => self.handoff_expired(&mut out),
            Input::Timer(Timer::Kill) => out.push(Output::Kill(Timer::Kill)),
            Input::Quiet => self.quiet(&mut out),
        }
        out
    }

    fn stopping(&self) -> bool {
        matches!(self.intent, Some(Intent::Stop(_)))
    }

    fn term(&mut self, from: i32, out: &mut Vec<Output>) {
        if self.stopping() {
            return; // a stop cannot be taken back
        }
        match &mut self.settling {
            Some(_) if broken!(AgainIgnored) => {}
            Some(settling) => settling.again = Some(from),
            None => self.settle(from, out),
        }
    }

    fn cont(&mut self, from: i32, out: &mut Vec<Output>) {
        if !self.kind.writes_late() || broken!(ContIgnored) {
            return;
        }
        match &mut self.settling {
            Some(settling) if settling.from == from => settling.cont = true,
            Some(_) | None => {
                self.cont = Some(from);
                out.push(Output::Arm(Timer::Cont));
            }
        }
    }

    fn settle(&mut self, from: i32, out: &mut Vec<Output>) {
        let cont = self.cont == Some(from);
        self.settling = Some(Settling { from, cont, reads: 0, again: None });
        match self.kind {
            Kind::Nobody => self.decide(Intent::Stop(Scope::Generation), out),
            kind if kind.writes_late() && !broken!(Usr2BeforeSettled) => {
                out.push(Output::Arm(Timer::Settle));
            }
            _ => out.push(Output::ReadStatus),
        }
    }

    fn status(&mut self, reading: Reading, out: &mut Vec<Output>) {
        let Some(settling) = &mut self.settling else {
            return;
        };
        settling.reads += 1;
        let intent = match (self.kind, reading) {
            (_, Reading::Lost) | (Kind::Nobody, _) => Intent::Stop(Scope::Generation),
            (_, Reading::Down) => Intent::Stop(Scope::Service),
            (kind, Reading::Up)
                if kind.writes_late() && settling.cont && settling.reads < READS =>
            {
                out.push(Output::Arm(Timer::Settle));
                return;
            }
            (_, Reading::Up) => Intent::Restart,
            (kind, Reading::Unreadable) if kind.writes_late() => match settling.cont {
                true => Intent::Stop(Scope::Service),
                false => Intent::Restart,
            },
            (_, Reading::Unreadable) => Intent::Unknown,
        };
        self.decide(intent, out);
    }

    /// The TERM has been understood.
    fn decide(&mut self, intent: Intent, out: &mut Vec<Output>) {
        let again = self.settling.take().and_then(|settling| settling.again);
        let before = self.intent.replace(intent);
        if before.is_none() {
            out.push(Output::Arm(Timer::Handoff));
        }
        match (before, intent) {
            (None, _) | (_, Intent::Stop(_)) => {
                self.sent = false;
                if self.ready {
                    self.send(intent, out);
                }
            }
            (Some(before), _) if before != intent && self.sent => out.push(Output::Tell(intent)),
            (Some(_), _) => {}
        }
        if let Some(from) = again.filter(|_| !self.stopping()) {
            self.settle(from, out);
        }
    }

    fn ready(&mut self, out: &mut Vec<Output>) {
        self.ready = true;
        if let Some(intent) = self.intent.filter(|_| !self.sent) {
            self.send(intent, out);
        }
    }

    /// Each side writes before it signals.
    fn send(&mut self, intent: Intent, out: &mut Vec<Output>) {
        self.sent = true;
        out.push(Output::Tell(intent));
        match intent {
            Intent::Restart | Intent::Unknown => out.push(Output::Handoff),
            Intent::Stop(_) => {
                out.extend([
                    Output::Stop,
                    Output::Disarm(Timer::Handoff),
                    Output::Arm(Timer::Kill),
                ]);
            }
        }
    }

    fn handoff_expired(&mut self, out: &mut Vec<Output>) {
        if !self.ready {
            out.push(Output::Kill(Timer::Handoff));
        } else if !self.stopping() {
            self.expired = true;
        }
    }

    /// No exit while settling, and none after a stop: then the daemon's end is awaited.
    fn quiet(&mut self, out: &mut Vec<Output>) {
        let settled = self.settling.is_none() || broken!(ExitWhileSettling);
        if settled && !self.stopping() && (self.released || self.expired) {
            self.gone = true;
            out.push(Output::Leave { expired: !self.released });
        }
    }
}
