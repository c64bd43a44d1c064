//! The keeper: a small process that holds the sockets of a daemon that has crashed, until the next start
//! has taken them over.
//!
//! Its launcher starts it and gives it the sockets. It enters the record in the place of the crashed
//! generation and listens at the control socket, so the next start finds it as it finds any predecessor.
//! It never accepts a connection.

use super::Reading;
use super::generation::clock::SinceBoot;
use super::generation::crashes;
use super::generation::record::{LineState, Row};
use std::time::Duration;

/// How long it waits for the claim. Meanwhile its launcher waits for it, and the supervisor waits for the launcher.
const CLAIM: Duration = Duration::from_secs(1);
/// Between two attempts to claim.
const CLAIM_AGAIN: Duration = Duration::from_millis(2);
/// Between two looks at the supervisor and at the path of the control socket.
const CHECK: Duration = Duration::from_millis(100);
/// The same if a program asks the supervisor, which costs a process each time.
const CHECK_BY_PROGRAM: Duration = Duration::from_secs(1);

/// What happened to the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// This many sockets have come from the launcher, and no more will.
    Gathered(usize),
    /// To [`Output::Claim`]: another process has the claim.
    ClaimHeld,
    /// To [`Output::Claim`]: the claim is ours, until [`Output::GiveUpClaim`].
    Claimed(Seen),
    /// A step has failed, and the log says why. The claim is given up.
    Failed,
    /// The answer to [`Output::Check`]. `path_lost`: nobody listens at the path of our control socket.
    Checked { supervisor: Reading, path_lost: bool },
    /// TERM or INT: a successor serves.
    Term,
    /// The service is to be stopped: `seamless stop`.
    Stop,
    /// A timer fired. `transferring`: a successor is just taking the sockets.
    Timer { timer: Timer, transferring: bool },
}

/// What stands in the record, and when it was read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    /// The state of each other generation, and whether it lives.
    pub(crate) others: Vec<(Option<LineState>, bool)>,
    /// What the line of the crashed generation says.
    pub(crate) crashes: Option<Row>,
    pub(crate) now: SinceBoot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Timer {
    /// The claim was not to be had in time.
    Claim,
    ClaimAgain,
    Check,
    /// `keep_sockets`.
    Over,
}

/// What the keeper has to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Output {
    /// Take the claim if it is free, and look at the record.
    Claim,
    /// Put the control socket in place, and then enter the record with this row.
    Place(Row),
    GiveUpClaim,
    /// Tell the launcher that it may end.
    TellInPlace,
    /// Look at the supervisor and at the path of the control socket, and feed in [`Input::Checked`].
    Check,
    Arm(Timer, Duration),
    /// End the process.
    End(Why),
}

/// Why a keeper ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Why {
    /// A successor serves, or somebody else sent TERM.
    Term,
    Stopped,
    /// The time is over.
    Over,
    /// The supervisor wants the service down.
    Down,
    /// The supervisor has ended.
    SupervisorGone,
    /// An older generation serves.
    Needless,
    /// Another generation is starting, and has bound its sockets by now.
    NoClaim,
    /// It could not be put in place.
    Failed,
    NoSockets,
}

impl Why {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Why::Term => "TERM",
            Why::Stopped => "stop",
            Why::Over => "keep_sockets is over: connections are refused from here on",
            Why::Down => "the supervisor wants the service down",
            Why::SupervisorGone => "the supervisor has ended: nobody would start the service again",
            Why::Needless => "an older generation serves",
            Why::NoClaim => {
                "another generation is starting, and holds the claim for longer than 1 s"
            }
            Why::Failed => "it could not be put in place",
            Why::NoSockets => "no socket has come from the launcher",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// The sockets come from the launcher.
    Gathering,
    Claiming,
    Keeping,
    /// Keeping, and the control socket has lost its path. Lasts until a check has found it back.
    Mending,
    Ended,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Keeper {
    phase: Phase,
    keep_sockets: Duration,
    /// How long the generation had served that has crashed.
    served: Duration,
    check: Duration,
    row: Option<Row>,
}

impl Keeper {
    /// `by_program`: a program asks the supervisor.
    pub(crate) fn new(keep_sockets: Duration, served: Duration, by_program: bool) -> Keeper {
        let check = if by_program { CHECK_BY_PROGRAM } else { CHECK };
        Keeper { phase: Phase::Gathering, keep_sockets, served, check, row: None }
    }

    #[must_use]
    pub(crate) fn on(&mut self, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        if self.phase == Phase::Ended {
            return out;
        }
        match input {
            Input::Gathered(0) => self.end(Why::NoSockets, &mut out),
            Input::Gathered(_) => {
                if self.phase == Phase::Gathering {
                    self.phase = Phase::Claiming;
                    out.extend([
                        Output::Arm(Timer::Claim, CLAIM),
                        Output::Arm(Timer::Check, self.check),
                        Output::Claim,
                    ]);
                }
            }
            Input::ClaimHeld => match self.phase {
                Phase::Claiming => out.push(Output::Arm(Timer::ClaimAgain, CLAIM_AGAIN)),
                Phase::Mending => self.phase = Phase::Keeping, // the next check looks again
                Phase::Gathering | Phase::Keeping | Phase::Ended => {}
            },
            Input::Claimed(seen) => self.claimed(&seen, &mut out),
            Input::Failed => match self.phase {
                Phase::Mending => self.phase = Phase::Keeping,
                Phase::Gathering | Phase::Claiming | Phase::Keeping | Phase::Ended => {
                    self.end(Why::Failed, &mut out);
                }
            },
            Input::Checked { supervisor, path_lost } => {
                self.checked(supervisor, path_lost, &mut out);
            }
            Input::Term => self.end(Why::Term, &mut out),
            Input::Stop => self.end(Why::Stopped, &mut out),
            Input::Timer { timer, transferring } => self.timer(timer, transferring, &mut out),
        }
        out
    }

    fn claimed(&mut self, seen: &Seen, out: &mut Vec<Output>) {
        if !matches!(self.phase, Phase::Claiming | Phase::Mending) {
            return out.push(Output::GiveUpClaim);
        }
        let after = || crashes::after_crash(seen.crashes, self.served, seen.now);
        let row = self.row.unwrap_or_else(after);
        let left = crashes::left(row, self.keep_sockets, seen.now);
        let is_needed = crashes::needs_keeper(seen.others.iter().copied());
        if !is_needed || left.is_zero() {
            out.push(Output::GiveUpClaim);
            return self.end(if is_needed { Why::Over } else { Why::Needless }, out);
        }
        out.extend([Output::Place(row), Output::GiveUpClaim]);
        if self.phase == Phase::Claiming {
            self.row = Some(row);
            self.phase = Phase::Keeping;
            out.extend([Output::TellInPlace, Output::Arm(Timer::Over, left)]);
        }
    }

    fn checked(&mut self, supervisor: Reading, path_lost: bool, out: &mut Vec<Output>) {
        match supervisor {
            Reading::Down => return self.end(Why::Down, out),
            Reading::Lost => return self.end(Why::SupervisorGone, out),
            Reading::Up | Reading::Unreadable => {}
        }
        out.push(Output::Arm(Timer::Check, self.check));
        match self.phase {
            Phase::Keeping | Phase::Mending if path_lost => {
                self.phase = Phase::Mending;
                out.push(Output::Claim);
            }
            Phase::Mending => self.phase = Phase::Keeping,
            Phase::Gathering | Phase::Claiming | Phase::Keeping | Phase::Ended => {}
        }
    }

    fn timer(&mut self, timer: Timer, transferring: bool, out: &mut Vec<Output>) {
        match (timer, self.phase) {
            (Timer::Claim, Phase::Claiming) => self.end(Why::NoClaim, out),
            (Timer::ClaimAgain, Phase::Claiming) => out.push(Output::Claim),
            (Timer::Check, _) => out.push(Output::Check),
            // Half a transfer would be an error in the successor.
            (Timer::Over, Phase::Keeping | Phase::Mending) if transferring => {
                out.push(Output::Arm(Timer::Over, CHECK));
            }
            (Timer::Over, Phase::Keeping | Phase::Mending) => self.end(Why::Over, out),
            (
                Timer::Claim | Timer::ClaimAgain | Timer::Over,
                Phase::Gathering | Phase::Claiming | Phase::Keeping | Phase::Mending | Phase::Ended,
            ) => {}
        }
    }

    fn end(&mut self, why: Why, out: &mut Vec<Output>) {
        self.phase = Phase::Ended;
        out.push(Output::End(why));
    }
}

#[cfg(test)]
mod tests {
    use super::{CHECK, Input, Keeper, Output, Seen, Timer, Why};
    use crate::proto::generation::record::{LineState, Row};
    use crate::proto::{Reading, are_told_apart};
    use std::time::Duration;

    const NOW: Duration = Duration::from_secs(100);
    const KEEP: Duration = Duration::from_secs(10);
    const ROW: Row = Row { first: NOW, served_since: None };

    fn seen(others: &[(Option<LineState>, bool)]) -> Input {
        Input::Claimed(Seen { others: others.to_vec(), crashes: None, now: NOW })
    }

    fn gathered() -> Keeper {
        let mut keeper = Keeper::new(KEEP, Duration::ZERO, false);
        assert!(keeper.on(Input::Gathered(2)).contains(&Output::Claim));
        keeper
    }

    fn keeping() -> Keeper {
        let mut keeper = gathered();
        let place = [
            Output::Place(ROW),
            Output::GiveUpClaim,
            Output::TellInPlace,
            Output::Arm(Timer::Over, KEEP),
        ];
        assert_eq!(keeper.on(seen(&[(Some(LineState::Draining), true)])), place);
        keeper
    }

    fn fired(timer: Timer) -> Input {
        Input::Timer { timer, transferring: false }
    }

    #[test]
    fn p12_it_waits_for_the_claim_and_gives_up_in_time() {
        let mut keeper = gathered();
        assert!(matches!(keeper.on(Input::ClaimHeld)[..], [Output::Arm(Timer::ClaimAgain, _)]));
        assert_eq!(keeper.on(fired(Timer::ClaimAgain)), [Output::Claim]);
        assert_eq!(keeper.on(fired(Timer::Claim)), [Output::End(Why::NoClaim)]);
        assert_eq!(keeper.on(Input::Term), []);
        assert_eq!(keeping().on(fired(Timer::Claim)), []);
    }

    #[test]
    fn it_is_needless_beside_a_generation_that_serves() {
        let ends = [Output::GiveUpClaim, Output::End(Why::Needless)];
        assert_eq!(gathered().on(seen(&[(Some(LineState::Serving), true)])), ends);
    }

    #[test]
    fn what_ends_it() {
        let down = Input::Checked { supervisor: Reading::Down, path_lost: false };
        let lost = Input::Checked { supervisor: Reading::Lost, path_lost: false };
        for (input, why) in [
            (Input::Term, Why::Term),
            (Input::Stop, Why::Stopped),
            (down, Why::Down),
            (lost, Why::SupervisorGone),
            (fired(Timer::Over), Why::Over),
        ] {
            assert_eq!(keeping().on(input), [Output::End(why)]);
        }
        let during = Input::Timer { timer: Timer::Over, transferring: true };
        assert_eq!(keeping().on(during), [Output::Arm(Timer::Over, CHECK)]);
        assert_eq!(
            Keeper::new(KEEP, KEEP, false).on(Input::Gathered(0)),
            [Output::End(Why::NoSockets)]
        );
        assert_eq!(gathered().on(Input::Failed), [Output::End(Why::Failed)]);
    }

    #[test]
    fn each_end_is_told_with_its_reason() {
        let all = [
            Why::Term,
            Why::Stopped,
            Why::Over,
            Why::Down,
            Why::SupervisorGone,
            Why::Needless,
            Why::NoClaim,
            Why::Failed,
            Why::NoSockets,
        ];
        assert!(are_told_apart(all.map(Why::text)));
    }

    #[test]
    fn a_socket_that_has_lost_its_path_is_put_back_under_the_claim() {
        let lost = Input::Checked { supervisor: Reading::Up, path_lost: true };
        let mut keeper = keeping();
        let mends = [Output::Arm(Timer::Check, CHECK), Output::Claim];
        assert_eq!(keeper.on(lost.clone()), mends);
        assert_eq!(keeper.on(Input::ClaimHeld), []);
        let well = Input::Checked { supervisor: Reading::Up, path_lost: false };
        assert_eq!(keeper.on(well.clone()), [Output::Arm(Timer::Check, CHECK)]);
        assert_eq!(keeper.on(lost.clone()), mends);
        assert_eq!(keeper.on(seen(&[])), [Output::Place(ROW), Output::GiveUpClaim]);
        assert_eq!(keeper.on(well), [Output::Arm(Timer::Check, CHECK)]);
    }

    #[test]
    fn p12_a_keeper_that_cannot_put_its_socket_back_keeps_what_it_has() {
        let lost = Input::Checked { supervisor: Reading::Up, path_lost: true };
        let mut keeper = keeping();
        for _ in 0..2 {
            assert_eq!(keeper.on(lost.clone()), [Output::Arm(Timer::Check, CHECK), Output::Claim]);
            assert_eq!(keeper.on(seen(&[])), [Output::Place(ROW), Output::GiveUpClaim]);
            assert_eq!(keeper.on(Input::Failed), []);
        }
        assert_eq!(keeper.on(Input::Stop), [Output::End(Why::Stopped)]);
    }
}
