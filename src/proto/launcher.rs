//! The launcher: what a TERM means. What becomes of its children, and when it ends itself, is decided
//! in [`Family`].

use super::family::{Child, Family, InPlace, Stage};
use super::{End, Intent, Kind, Reading, Report, Scope};

/// What happened to the launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// A message of a child.
    Report(Child, Report),
    /// A child's end of its channel is closed.
    ChannelClosed(Child),
    /// `waitpid` returned a child.
    Ended(Child, End),
    /// The answer to [`Output::Start`]; `None`: the program could not be executed.
    Spawned(Option<Child>),
    /// A reload signal.
    Reload,
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
    /// The channels and the signals of this wake-up have all been fed in. A launcher leaves only
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
    /// `handoff_timeout`, since a start was cancelled.
    Cancel,
    /// A generation that was taken over has had the time to begin its drain (1 s).
    Overdue,
    /// `drain_timeout` and 5 s.
    Kill(Child),
}

/// What the launcher has to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Output {
    /// Look at the supervisor and feed in [`Input::Status`].
    ReadStatus,
    /// Tell a child the intent, over its channel.
    Tell(Child, Intent),
    /// USR2, after the intent.
    Handoff(Child),
    /// TERM, after the intent.
    Stop(Child),
    /// USR2 to a child that is starting. Where it has no handlers yet, that ends it as well; where
    /// it serves by now, it ends nothing.
    Cancel(Child),
    /// Tell a child, over its channel, that it has been taken over.
    TellTakenOver(Child),
    /// KILL: it did not keep to a limit.
    Kill(Child, Timer),
    /// The same signal to the child.
    Forward(Child, i32),
    /// Start the program once more, and feed in [`Input::Spawned`].
    Start,
    /// For all who want to know.
    Stage(Stage),
    Arm(Timer),
    Disarm(Timer),
    /// Exit 0; this child is detached. `expired`: without its release.
    Leave {
        child: Child,
        expired: bool,
    },
    /// End as this child ended.
    Mirror(Child, End),
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
    supervisor: Option<i32>,
    /// The sender of a CONT of the last 20 ms.
    cont: Option<i32>,
    settling: Option<Settling>,
    family: Family,
    gone: bool,
}

impl Launcher {
    /// `supervisor`: its PID, where it has one. `first`: the daemon. `in_place`: the launcher restarts
    /// the program itself.
    pub(crate) fn new(
        kind: Kind,
        supervisor: Option<i32>,
        first: Child,
        in_place: Option<InPlace>,
    ) -> Self {
        let family = Family::new(first, in_place, kind == Kind::Nobody);
        Launcher { kind, supervisor, cont: None, settling: None, family, gone: false }
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
        let family = &mut self.family;
        match input {
            Input::Report(child, report) => {
                family.report(child, report, &mut out);
                if report == Report::Released && broken!(ReleasedBeforeSignals) {
                    self.quiet(&mut out);
                }
            }
            Input::ChannelClosed(child) => family.ready(child, &mut out),
            Input::Ended(child, end) => family.ended(child, end, &mut out),
            Input::Spawned(child) => family.spawned(child, &mut out),
            Input::Reload => family.reload(&mut out),
            Input::Term { from } => self.term(from, &mut out),
            Input::Cont { from } => self.cont(from, &mut out),
            Input::Signal(signal) => family.forward(signal, &mut out),
            Input::Status(reading) => self.status(reading, &mut out),
            Input::Timer(Timer::Cont) => self.cont = None,
            Input::Timer(Timer::Settle) => {
                if self.settling.is_some() {
                    out.push(Output::ReadStatus);
                }
            }
            Input::Timer(Timer::Handoff) => family.handoff_expired(&mut out),
            Input::Timer(Timer::Cancel) => family.cancel_expired(&mut out),
            Input::Timer(Timer::Overdue) => family.overdue(&mut out),
            Input::Timer(Timer::Kill(child)) => family.kill_expired(child, &mut out),
            Input::Quiet => self.quiet(&mut out),
        }
        let is_last = |output: &Output| matches!(output, Output::Leave { .. } | Output::Mirror(..));
        self.gone = out.iter().any(is_last);
        out
    }

    /// The child that serves, or was the last to serve and drains.
    pub(crate) fn current(&self) -> Option<Child> {
        self.family.current()
    }

    fn quiet(&mut self, out: &mut Vec<Output>) {
        let settled = self.settling.is_none() || broken!(ExitWhileSettling);
        self.family.quiet(settled, out);
    }

    fn term(&mut self, from: i32, out: &mut Vec<Output>) {
        if self.family.stopping() {
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
            (Kind::Nobody, _) => Intent::Stop(Scope::Generation),
            // It died before it could be asked. Another may come and start the next.
            (_, Reading::Lost)
                if Some(settling.from) == self.supervisor && !broken!(LastTermIsAStop) =>
            {
                Intent::Unknown
            }
            (_, Reading::Lost) => Intent::Stop(Scope::Generation),
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
        self.family.decided(intent, out);
        if let Some(from) = again.filter(|_| !self.family.stopping()) {
            self.settle(from, out);
        }
    }
}
