//! What a TERM means. Some supervisors write down what they want before they signal, some after it, and
//! some never. The launcher asks, waits if waiting helps, and asks again.

use super::{Output, Timer};
use crate::proto::supervisor::StartsAgain;
use crate::proto::{Intent, Kind, Reading, Scope};

/// How often the status is read again while a CONT and a status of `u` contradict each other:
/// at 20 ms, 40 ms ... 200 ms after the TERM.
const READS: u8 = 10;

/// A TERM whose meaning is not known yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Settling {
    from: i32,
    /// The sender of the TERM sent a CONT as well.
    cont: bool,
    /// It was not TERM but another signal, which asks for a stop.
    halt: bool,
    reads: u8,
    /// A further TERM came meanwhile: settle again after this decision.
    again: Option<(i32, bool)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Understanding {
    kind: Kind,
    supervisor: Option<i32>,
    /// The sender of a CONT of the last 20 ms.
    cont: Option<i32>,
    settling: Option<Settling>,
}

impl Understanding {
    pub(super) fn new(kind: Kind, supervisor: Option<i32>) -> Self {
        Understanding { kind, supervisor, cont: None, settling: None }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settling.is_none()
    }

    /// Returns the intent if it is known at once. `halt`: the signal was not TERM, and asks for a stop
    /// unless the supervisor says that it restarts the service.
    pub(super) fn term(&mut self, from: i32, halt: bool, out: &mut Vec<Output>) -> Option<Intent> {
        if let Some(settling) = &mut self.settling {
            settling.again = Some((from, halt));
            return None;
        }
        let cont = self.cont == Some(from);
        self.settling = Some(Settling { from, cont, halt, reads: 0, again: None });
        if self.kind.starts_again == StartsAgain::Never {
            return Some(Intent::Stop(Scope::Generation));
        }
        out.push(match self.kind.tells_late() {
            true => Output::Arm(Timer::Settle),
            false => Output::ReadStatus,
        });
        None
    }

    pub(super) fn cont(&mut self, from: i32, out: &mut Vec<Output>) {
        if !self.kind.tells_late() {
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

    pub(super) fn cont_is_too_old(&mut self) {
        self.cont = None;
    }

    pub(super) fn read_status(&self, out: &mut Vec<Output>) {
        if self.settling.is_some() {
            out.push(Output::ReadStatus);
        }
    }

    /// Returns the intent, unless the status has to be read once more.
    pub(super) fn status(&mut self, reading: Reading, out: &mut Vec<Output>) -> Option<Intent> {
        let settling = self.settling.as_mut()?;
        settling.reads += 1;
        let intent = match reading {
            // The supervisor died before it could be asked. Another may come and start the next.
            Reading::Lost if Some(settling.from) == self.supervisor => Intent::Unknown,
            Reading::Lost => Intent::Stop(Scope::Generation),
            Reading::Down => Intent::Stop(Scope::Service),
            Reading::Up if self.kind.tells_late() && settling.cont && settling.reads < READS => {
                out.push(Output::Arm(Timer::Settle));
                return None;
            }
            Reading::Up => Intent::Restart,
            Reading::Unreadable if settling.halt => Intent::Stop(Scope::Generation),
            Reading::Unreadable => self.kind.unread_intent(settling.cont),
        };
        Some(intent)
    }

    /// The TERM has been understood. Returns what [`term`](Self::term) is to be told of a further one that
    /// came meanwhile.
    pub(super) fn decided(&mut self) -> Option<(i32, bool)> {
        self.settling.take().and_then(|settling| settling.again)
    }
}
