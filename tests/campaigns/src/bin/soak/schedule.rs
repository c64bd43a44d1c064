//! What is done, and when: all of it from the seed.

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use fastrand::Rng;

/// What a turn of the run does, after a pause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub pause: Duration,
    pub restart: Restart,
    /// And so long after the restart has been asked for.
    pub fault: Option<(Duration, Fault)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// `svc -t`.
    Term,
    /// HUP: in place.
    Hup,
}

/// Of those that are there when the fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    OldestDaemon,
    NewestDaemon,
    OldestLauncher,
    NewestLauncher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It exits at once.
    Exits,
    /// It hangs, and is no program of the crate.
    Hangs,
    /// It hangs between `init` and `started`.
    HoldsClaim,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    Kill(Victim),
    /// STOP, and CONT after this time.
    Stop(Victim, Duration),
    /// The supervisor is KILLed, and started again after this time.
    Supervisor(Duration),
    /// A bad program is deployed, and a good one after this time.
    Deploy(Bad, Duration),
    /// The disk below the PID file is full for this time.
    Full(Duration),
    /// Nothing can be made, renamed or removed in the PID file's folder for this time.
    ReadOnly(Duration),
    /// The process can have no more descriptors for this time.
    Shortage(Victim, Duration),
    /// The numbers of processes that end go to bystanders at once, for this time.
    Reuse(Duration),
    /// Connections to the control socket: so many that send garbage, as many that say nothing.
    Peers(usize, Duration),
    /// All processors are busy for this time.
    Busy(Duration),
    /// `svc -d`, and `svc -u` when it is down.
    Down,
    /// For this time a start meets an error at the Nth of these system calls of each thread.
    Inject {
        call: &'static str,
        error: &'static str,
        nth: u32,
        time: Duration,
    },
}

/// What can be asked for, by `--faults`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Kill,
    Stop,
    Supervisor,
    Deploy,
    Full,
    ReadOnly,
    Shortage,
    Reuse,
    Peers,
    Busy,
    Down,
    Inject,
}

impl Kind {
    pub const ALL: [Kind; 12] = [
        Kind::Kill,
        Kind::Stop,
        Kind::Supervisor,
        Kind::Deploy,
        Kind::Full,
        Kind::ReadOnly,
        Kind::Shortage,
        Kind::Reuse,
        Kind::Peers,
        Kind::Busy,
        Kind::Down,
        Kind::Inject,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Stop => "stop",
            Kind::Supervisor => "supervisor",
            Kind::Deploy => "deploy",
            Kind::Full => "full",
            Kind::ReadOnly => "readonly",
            Kind::Shortage => "shortage",
            Kind::Reuse => "reuse",
            Kind::Peers => "peers",
            Kind::Busy => "busy",
            Kind::Down => "down",
            Kind::Inject => "inject",
        }
    }

    fn draw(self, rng: &mut Rng) -> Fault {
        match self {
            Kind::Kill => Fault::Kill(victim(rng)),
            // The limits of the service are 1 s, most of them.
            Kind::Stop => Fault::Stop(victim(rng), between(rng, 50, 3000)),
            Kind::Supervisor => Fault::Supervisor(between(rng, 0, 1500)),
            Kind::Deploy => {
                let bad = [Bad::Exits, Bad::Hangs, Bad::HoldsClaim][rng.usize(..3)];
                Fault::Deploy(bad, between(rng, 500, 3000))
            }
            Kind::Full => Fault::Full(between(rng, 200, 2500)),
            Kind::ReadOnly => Fault::ReadOnly(between(rng, 200, 2500)),
            Kind::Shortage => Fault::Shortage(victim(rng), between(rng, 100, 2000)),
            Kind::Reuse => Fault::Reuse(between(rng, 1000, 4000)),
            Kind::Peers => Fault::Peers(rng.usize(1..20), between(rng, 500, 3000)),
            Kind::Busy => Fault::Busy(between(rng, 500, 2500)),
            Kind::Down => Fault::Down,
            Kind::Inject => {
                let (call, errors) = INJECTED[rng.usize(..INJECTED.len())];
                let error = errors[rng.usize(..errors.len())];
                let nth = 1 << rng.u32(..6);
                let nth = rng.u32(1..=nth);
                Fault::Inject { call, error, nth, time: between(rng, 1000, 3000) }
            }
        }
    }
}

/// Calls that the crate makes and that requests do not need, with errors that each can give.
const INJECTED: [(&str, &[&str]); 11] = [
    ("openat", &["EMFILE", "ENFILE", "EACCES", "EINTR"]),
    ("rename", &["ENOSPC", "EACCES", "EROFS"]),
    ("pidfd_open", &["EMFILE", "ENOMEM", "ENOSYS"]),
    ("pidfd_send_signal", &["EPERM", "ENOSYS"]),
    ("fcntl", &["EINTR", "ENOLCK", "EAGAIN"]),
    ("flock", &["EINTR", "ENOLCK"]),
    ("sendmsg", &["ENOBUFS", "ETOOMANYREFS", "EPIPE"]),
    ("recvmsg", &["EINTR", "ENOMEM", "ECONNRESET"]),
    ("socket", &["EMFILE", "ENOBUFS"]),
    ("connect", &["EINTR", "ECONNREFUSED", "EAGAIN"]),
    ("pwrite64", &["ENOSPC", "EIO", "EINTR"]),
];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Kind::ALL.into_iter().find(|kind| kind.name() == text);
        known.ok_or_else(|| format!("no such fault: {text}"))
    }
}

impl Fault {
    pub fn kind(&self) -> Kind {
        match self {
            Fault::Kill(_) => Kind::Kill,
            Fault::Stop(..) => Kind::Stop,
            Fault::Supervisor(_) => Kind::Supervisor,
            Fault::Deploy(..) => Kind::Deploy,
            Fault::Full(_) => Kind::Full,
            Fault::ReadOnly(_) => Kind::ReadOnly,
            Fault::Shortage(..) => Kind::Shortage,
            Fault::Reuse(_) => Kind::Reuse,
            Fault::Peers(..) => Kind::Peers,
            Fault::Busy(_) => Kind::Busy,
            Fault::Down => Kind::Down,
            Fault::Inject { .. } => Kind::Inject,
        }
    }
}

fn between(rng: &mut Rng, least: u64, most: u64) -> Duration {
    Duration::from_millis(rng.u64(least..=most))
}

fn victim(rng: &mut Rng) -> Victim {
    use Victim::*;
    [OldestDaemon, NewestDaemon, OldestLauncher, NewestLauncher][rng.usize(..4)]
}

/// Turns in rounds, after each of which there is rest.
pub struct Schedule {
    rng: Rng,
    kinds: Vec<Kind>,
    /// Each kind once in this order, then in another one: a short run has all of them too.
    left: Vec<Kind>,
}

impl Schedule {
    pub fn new(seed: u64, kinds: &BTreeSet<Kind>) -> Self {
        let kinds = kinds.iter().copied().collect();
        Schedule { rng: Rng::with_seed(seed), kinds, left: Vec::new() }
    }

    pub fn round(&mut self) -> Vec<Turn> {
        (0..self.rng.usize(3..=7)).map(|_| self.turn()).collect()
    }

    fn turn(&mut self) -> Turn {
        let pause = between(&mut self.rng, 200, 3000);
        let restart = if self.rng.u8(..3) == 0 { Restart::Hup } else { Restart::Term };
        // A restart takes 2 to 50 ms, or a second where the supervisor waits.
        let most = if self.rng.bool() { 60 } else { 1500 };
        let after = between(&mut self.rng, 0, most);
        let fault = (self.rng.u8(..4) > 0).then(|| self.kind()).flatten();
        let fault = fault.map(|kind| (after, kind.draw(&mut self.rng)));
        Turn { pause, restart, fault }
    }

    fn kind(&mut self) -> Option<Kind> {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
            self.rng.shuffle(&mut self.left);
        }
        self.left.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(seed: u64, kinds: &[Kind]) -> Vec<Vec<Turn>> {
        let mut schedule = Schedule::new(seed, &kinds.iter().copied().collect());
        (0..20).map(|_| schedule.round()).collect()
    }

    #[test]
    fn a_seed_is_a_schedule() {
        assert_eq!(rounds(7, &Kind::ALL), rounds(7, &Kind::ALL));
        assert_ne!(rounds(7, &Kind::ALL), rounds(8, &Kind::ALL));
    }

    #[test]
    fn each_fault_that_is_asked_for_comes() {
        let faults = |kinds: &[Kind]| -> BTreeSet<Kind> {
            let turns = rounds(1, kinds).into_iter().flatten();
            turns.filter_map(|turn| Some(turn.fault?.1.kind())).collect()
        };
        assert_eq!(faults(&Kind::ALL), Kind::ALL.into_iter().collect());
        assert_eq!(faults(&[Kind::Stop, Kind::Down]), [Kind::Stop, Kind::Down].into());
        assert_eq!(faults(&[]), BTreeSet::new());
    }

    #[test]
    fn restarts_are_200_ms_to_3_s_apart() {
        for turn in rounds(3, &Kind::ALL).into_iter().flatten() {
            let pauses = Duration::from_millis(200)..=Duration::from_secs(3);
            assert!(pauses.contains(&turn.pause), "{turn:?}");
        }
    }
}
