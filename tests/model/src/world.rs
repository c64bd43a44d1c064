//! What there is: a supervisor, generations of launcher and daemon with what lies in their channels
//! and signals, the claim, the record and the PID file.

use super::flows::{Flows, Steered};
use super::keeper::{KeeperProcess, keeper_of};
use super::moves::Moves;
use super::net::{Net, Sockets};
use super::shared::Shared;
use super::supervisors::{Job, Manner};
use crate::machines::{self, Daemon, Launcher, TakeOver};
use crate::proto::daemon::signal_hooks::SignalHooks;
use crate::proto::daemon::{Output, Phase, Question, Sight, Timer as DaemonTimer, Word};
use crate::proto::generation::check::Content;
use crate::proto::generation::record::LineState;
use crate::proto::generation::verdict::{Facts, Unproven};
use crate::proto::launcher::InPlace;
use crate::proto::launcher::Keeper as KeeperNews;
use crate::proto::launcher::Timer as LauncherTimer;
use crate::proto::{End, Intent, Kind, Reading, Report, State};
use crate::variants::{self, Variant};

/// A generation by the order in which its launcher was started. It stands for the PIDs and the
/// start times as well: those of the daemon are [`pid`] and this number.
pub(crate) type Id = u8;

pub(crate) fn pid(id: Id) -> i32 {
    100 + i32::from(id)
}

pub(crate) fn id_of(pid: i32) -> Id {
    u8::try_from(pid - 100).expect("the PID of a daemon")
}

pub(crate) fn launcher_pid(id: Id) -> i32 {
    50 + i32::from(id)
}

/// Who sends TERM and CONT to a launcher.
pub(crate) const SUPERVISOR_PID: i32 = 10;
/// The user to whom the record belongs, if that is not ours.
const RECORD_OWNER: u32 = 1000;
/// Who sends signals straight to a daemon.
pub(crate) const OPERATOR_PID: i32 = 11;
/// A launcher that is not the daemon's own.
pub(crate) const ANOTHER_LAUNCHER: i32 = 12;

/// What the world is made of; it does not change on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) kind: Kind,
    /// The status can be read.
    pub(crate) readable: bool,
    /// What the supervisor does with the service beyond what its kind says.
    pub(crate) manner: Manner,
    /// Launchers restart in place.
    pub(crate) in_place: bool,
    /// The sockets of the service, where they are looked at.
    pub(crate) sockets: Option<Sockets>,
    /// A steered group of UDP sockets, where it is looked at.
    pub(crate) flows: Option<Steered>,
    /// The service has `keep_sockets`.
    pub(crate) keeps: bool,
    /// Generations have to prove themselves.
    pub(crate) probation: bool,
    /// On a stop everything is served on for a while.
    pub(crate) leaves: bool,
    /// There are no pidfds: only the lock on the PID file tells that its owner lives.
    pub(crate) by_lock: bool,
    /// What the record may name.
    pub(crate) record: RecordOf,
    /// Nobody but the generation that starts can open the lock file: the others have given up root, and
    /// it was made anew. Without the claim and the record they see the PID file alone.
    pub(crate) shut_out: bool,
    /// The program has hooks before TERM and USR2.
    pub(crate) hooks: bool,
    /// The program passes its open connections.
    pub(crate) moves: bool,
    /// How many daemons are started at most.
    pub(crate) starts: u8,
    pub(crate) budget: Budget,
}

impl Setting {
    /// Under a supervisor of this kind, set up as it should be.
    pub(crate) const fn new(kind: Kind, readable: bool, starts: u8, budget: Budget) -> Setting {
        let manner = Manner::of(kind);
        Setting {
            kind,
            readable,
            manner,
            in_place: false,
            sockets: None,
            flows: None,
            keeps: false,
            probation: false,
            leaves: false,
            by_lock: false,
            record: RecordOf::Ours,
            shut_out: false,
            hooks: false,
            moves: false,
            starts,
            budget,
        }
    }
}

/// Whose the record is. What it names is signalled only if its owner could do that himself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordOf {
    /// The user of the generations, or root.
    Ours,
    /// Another user, to whom the daemons belong as well: each of them was started as root, and gives
    /// that up once it serves.
    DaemonsUser,
    /// Another user than that of the daemons.
    Another,
}

/// What may still go wrong, or be asked for. Each use takes one, so every way has an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// `svc -t`, `-d`, `-u`.
    pub(crate) commands: u8,
    /// Reload signals, where launchers restart in place.
    pub(crate) reloads: u8,
    /// SIGKILL to any process, `svc -k` included.
    pub(crate) kills: u8,
    /// Deploys that exit at once, die before `started`, hang, or give up waiting for the claim.
    pub(crate) bad: u8,
    /// TERM or USR2 straight to a daemon.
    pub(crate) direct: u8,
    /// QUIT to a launcher.
    pub(crate) halts: u8,
    /// A signal of a launcher or a successor that is refused: one side has changed its user.
    pub(crate) losses: u8,
    /// The PID file is removed.
    pub(crate) removals: u8,
    /// A dead daemon's PID goes to a process that is none of ours.
    pub(crate) reuses: u8,
    /// Checks that take so long that others notice.
    pub(crate) slow: u8,
    /// Checks and stops that fail: there is no memory, or there are no descriptors.
    pub(crate) short: u8,
    /// Limits of a drain that pass: the hammer, and the launcher's KILL.
    pub(crate) limits: u8,
    /// The program is started by hand, beside the service.
    pub(crate) by_hand: u8,
    /// The same in another PID namespace.
    pub(crate) elsewhere: u8,
    /// The owner of the record writes a process into it that is none of ours.
    pub(crate) planted: u8,
    /// Clients that connect.
    pub(crate) connections: u8,
    /// Takeovers that are refused or cut, and strangers at the control socket.
    pub(crate) cuts: u8,
    /// Starts whose file was rejected: they wait in `init`.
    pub(crate) waits: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Promise {
    P1,
    P2,
    P3,
    P4,
    P5,
    P6,
    P8,
    P11,
    P12,
    P13,
    P14,
}

impl Promise {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Promise::P1 => "P1",
            Promise::P2 => "P2",
            Promise::P3 => "P3",
            Promise::P4 => "P4",
            Promise::P5 => "P5",
            Promise::P6 => "P6",
            Promise::P8 => "P8",
            Promise::P11 => "P11",
            Promise::P12 => "P12",
            Promise::P13 => "P13",
            Promise::P14 => "P14",
        }
    }
}

/// A promise that was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fault {
    pub(crate) promise: Promise,
    pub(crate) what: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) supervisor: Supervisor,
    pub(crate) generations: Vec<Shared<Generation>>,
    /// Who holds the claim.
    pub(crate) claim: Option<Id>,
    /// Whose PID the PID file holds.
    pub(crate) file: Option<Id>,
    /// The number of the last claim, and the record's lines.
    pub(crate) last: u8,
    pub(crate) record: Vec<Id>,
    /// What the program's file holds since the last deploy, and whether a reload is to start it.
    pub(crate) program: Deploy,
    pub(crate) reload_owed: bool,
    /// The dead daemon whose PID now belongs to a process that is none of ours.
    pub(crate) innocent: Option<Id>,
    /// A line of the record that names a process of others.
    pub(crate) planted: Option<Id>,
    pub(crate) net: Option<Shared<Net>>,
    pub(crate) flows: Option<Shared<Flows>>,
    pub(crate) moves: Option<Shared<Moves>>,
    pub(crate) budget: Budget,
    pub(crate) fault: Option<Fault>,
}

/// The first supervisor, and those that replace it.
pub(crate) type Instance = u8;
/// What started a generation that the service's supervisor did not: a shell that lives.
pub(crate) const BY_HAND: Instance = 99;
/// The same, in another PID namespace.
pub(crate) const ELSEWHERE: Instance = 98;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Supervisor {
    pub(crate) instance: Instance,
    pub(crate) lives: bool,
    pub(crate) wants_up: bool,
    /// What its status file says.
    pub(crate) status_up: bool,
    pub(crate) child: Option<Id>,
    /// What it has still to do of a command, in this order.
    pub(crate) send_cont: bool,
    pub(crate) write_status: bool,
    pub(crate) stop: Stop,
    /// What it is about to do with the service, where it has such a thing.
    pub(crate) job: Option<Job>,
    /// The service has ended by itself, and is not started again.
    pub(crate) idle: bool,
}

/// What P6 asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stop {
    /// No stop was asked for.
    No,
    /// The service is to be down, its launcher ran, and nothing has happened since that excuses it.
    Owed,
    Excused,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Generation {
    pub(crate) instance: Instance,
    /// The generation with which the launcher of this one was started: itself, unless that launcher
    /// has restarted in place.
    pub(crate) first: Id,
    pub(crate) launcher: Option<LauncherProcess>,
    pub(crate) daemon: Option<DaemonProcess>,
    /// The keeper that stands for this generation.
    pub(crate) keeper: Option<KeeperProcess>,
    /// The record's line of this generation is the keeper's.
    pub(crate) is_keeper: bool,
    /// What its line in the record says, where there are probations.
    pub(crate) line: Option<LineState>,
    /// What the other side of the lifeline has said, and it has not heard yet.
    pub(crate) words: Vec<Word>,
    /// What its launcher has not heard of the keeper.
    pub(crate) of_keeper: Vec<KeeperNews>,
    /// The daemon has given its sockets, and its launcher has not read that.
    pub(crate) gives: bool,
    /// How the daemon ended, and whether its launcher knows.
    pub(crate) end: Option<End>,
    pub(crate) end_heard: bool,
    pub(crate) closed_heard: bool,
    pub(crate) to_launcher: Vec<Report>,
    pub(crate) to_daemon: Vec<ToDaemon>,
    /// The number of its claim; 0 before.
    pub(crate) number: u8,
    // What the properties need to know.
    pub(crate) was_ready: bool,
    /// A stop was sent to its launcher.
    pub(crate) stop_sent: bool,
    /// Its launcher took a TERM for the end of its container.
    pub(crate) lost: bool,
    /// Somebody sent TERM straight to the daemon.
    pub(crate) termed: bool,
    /// The daemon has been told of the stop.
    pub(crate) told_stop: bool,
    pub(crate) told_restart: bool,
    /// Its launcher knows that it leaves, and has moved its limit.
    pub(crate) leaving_heard: bool,
    /// Its successor's TERM was refused.
    pub(crate) refused: bool,
    /// Somebody sent USR2 straight to the daemon while it served.
    pub(crate) usr2_sent: bool,
}

/// What a launcher tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ToDaemon {
    Intent(Intent),
    Cancelled,
    TakenOver,
    Prepare,
    ReloadFailed,
    /// A signal that asks for a stop, passed on.
    Halt,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LauncherProcess {
    pub(crate) machine: Launcher,
    /// Pending signals: they merge, but two of a kind may also both be heard.
    pub(crate) terms: u8,
    pub(crate) cont: bool,
    /// One of those TERMs is of a stop, or one that was heard.
    pub(crate) stop_pending: bool,
    /// It has heard a TERM.
    pub(crate) asked: bool,
    pub(crate) stop_heard: bool,
    pub(crate) timers: Timers,
    /// The settle timer was armed before the supervisor began what it is doing.
    pub(crate) settles_early: bool,
    /// A CONT of its own was sent, and is not yet too old to belong to a TERM.
    pub(crate) continued: bool,
    /// Older generations whose end is awaited.
    pub(crate) awaits: Vec<Id>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DaemonProcess {
    pub(crate) machine: Daemon,
    pub(crate) main: Main,
    pub(crate) pending: Pending,
    pub(crate) timers: Timers,
    pub(crate) heard_closed: bool,
    pub(crate) hooks_hang: bool,
    /// So many runs of its `on_shutdown_request` hooks.
    pub(crate) request_hooks: u8,
    pub(crate) drain_hooks: bool,
    /// A restart was asked for while it was starting.
    pub(crate) wishes: bool,
    /// Older generations whose end is awaited.
    pub(crate) awaits: Vec<Id>,
    /// `wait` has returned.
    pub(crate) finished: bool,
    /// What its thread for signals has not acted on yet.
    pub(crate) signal_hooks: SignalHooks,
    /// What its thread for signals has still to do, and waits to do.
    pub(crate) stalled: Vec<Output>,
    /// What the supervisor is being asked, if that takes its time: `systemctl` is a process.
    pub(crate) asks: Option<Question>,
    /// The supervisor's last answer about the service, and whether it was true.
    pub(crate) told: Option<(Reading, bool)>,
    /// The next check takes its time.
    pub(crate) slow: bool,
    /// It is out of memory: the next check, or stop of the older generations, fails.
    pub(crate) short: bool,
    /// A check that takes its time: what it has seen, if the claim does not keep that true.
    pub(crate) checking: Option<Option<Sight>>,
    /// A claim was taken since the successor timer was armed.
    pub(crate) claims_since: bool,
    /// The other side of the lifeline, or a newer generation that it watches.
    pub(crate) partner: Option<Id>,
    /// The partner has closed the lifeline, and lives.
    pub(crate) hung_up: bool,
    /// The other one stands by, and its thread for signals does not know yet.
    pub(crate) begins_probation: bool,
    /// It waits in `init` for this generation.
    pub(crate) waits_for: Option<Id>,
    /// One has come to wait for it, or has gone, and its thread for signals does not know yet.
    pub(crate) candidates_changed: bool,
    /// At least one waits, as far as it knows.
    pub(crate) knows_candidate: bool,
    /// One of them was told to end.
    pub(crate) candidate_told: bool,
    /// The other one could hear nothing of it since its probation has begun.
    pub(crate) was_silent: bool,
}

/// What a new program is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Deploy {
    Good,
    ExitsAtOnce,
    DiesBeforeStarted,
    Hangs,
    /// Its `on_shutdown_request` hooks never return.
    HooksHang,
}

/// Where the daemon's own thread is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Main {
    /// Before the handlers are installed.
    Booting(Deploy),
    Claiming(Deploy),
    /// `init` has returned.
    Preparing(Deploy),
    /// In `started`, with the files in hand.
    TakingOver {
        machine: TakeOver,
        /// Whom the record listed, and whether the process of that number was the daemon.
        others: Vec<(Id, bool)>,
    },
    /// In `wait`.
    Waiting,
    /// In `started`, which does not return.
    Parked,
}

impl Main {
    pub(crate) fn has_files(&self) -> bool {
        matches!(self, Main::TakingOver { .. })
    }
}

/// Signals on their way to a daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Pending(u16);

/// A signal to a daemon, and who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Signal {
    Usr2OfLauncher,
    Usr2OfOperator,
    TermOfLauncher,
    TermOfOperator,
    TermOf(Id),
    /// Of the launcher of a newer generation, after the end of that.
    TermOfAnotherLauncher,
}

impl Signal {
    fn bit(self) -> u16 {
        1 << match self {
            Signal::Usr2OfLauncher => 0,
            Signal::Usr2OfOperator => 1,
            Signal::TermOfLauncher => 2,
            Signal::TermOfOperator => 3,
            Signal::TermOfAnotherLauncher => 4,
            Signal::TermOf(id) => 5 + id,
        }
    }

    fn is_usr2(self) -> bool {
        matches!(self, Signal::Usr2OfLauncher | Signal::Usr2OfOperator)
    }
}

impl Pending {
    pub(crate) fn add(&mut self, signal: Signal) {
        self.0 |= signal.bit();
    }

    pub(crate) fn remove(&mut self, signal: Signal) {
        self.0 &= !signal.bit();
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Signal> {
        let fixed = [
            Signal::Usr2OfLauncher,
            Signal::Usr2OfOperator,
            Signal::TermOfLauncher,
            Signal::TermOfOperator,
            Signal::TermOfAnotherLauncher,
        ];
        let all = fixed.into_iter().chain((0..8).map(Signal::TermOf));
        all.filter(move |signal| self.0 & signal.bit() != 0)
    }

    /// Signals of the same kind, which may merge with this one.
    pub(crate) fn others(self, signal: Signal) -> impl Iterator<Item = Signal> {
        self.iter().filter(move |one| *one != signal && one.is_usr2() == signal.is_usr2())
    }
}

/// Timers that run. When they fire is up to the walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Timers(u32);

pub(crate) trait Bit: Copy {
    fn bit(self) -> u32;
}

impl Bit for LauncherTimer {
    fn bit(self) -> u32 {
        match self {
            LauncherTimer::Cont => 1,
            LauncherTimer::Settle => 2,
            LauncherTimer::Handoff => 4,
            LauncherTimer::Cancel => 8,
            LauncherTimer::Overdue => 16,
            LauncherTimer::Gather => 32,
            LauncherTimer::Prepare => 64,
            LauncherTimer::Start => 128,
            LauncherTimer::Keeper => 256,
            LauncherTimer::TellOlder => 512,
            LauncherTimer::Kill(child) => 1024 << id_of(child),
        }
    }
}

impl Bit for DaemonTimer {
    fn bit(self) -> u32 {
        match self {
            DaemonTimer::Check => 1,
            DaemonTimer::Successor => 2,
            DaemonTimer::Drain => 4,
            DaemonTimer::Orphan => 8,
            DaemonTimer::TellOlder => 16,
            DaemonTimer::Probation => 32,
            DaemonTimer::CommitSoon => 64,
            DaemonTimer::CommitLater => 128,
            DaemonTimer::Well => 256,
            DaemonTimer::Silence => 512,
            DaemonTimer::Resumed => 1024,
            DaemonTimer::TakeBackSoon => 2048,
            DaemonTimer::Leave => 4096,
            DaemonTimer::Dump => 8192,
            DaemonTimer::TakeBackLater => 16384,
            DaemonTimer::RollBack => 32768,
        }
    }
}

impl Timers {
    pub(crate) fn arm(&mut self, timer: impl Bit) {
        self.0 |= timer.bit();
    }

    pub(crate) fn disarm(&mut self, timer: impl Bit) {
        self.0 &= !timer.bit();
    }

    pub(crate) fn has(self, timer: impl Bit) -> bool {
        self.0 & timer.bit() != 0
    }
}

impl LauncherProcess {
    /// `first`: its daemon.
    pub(crate) fn new(kind: Kind, first: Id, in_place: bool) -> Self {
        let in_place = in_place.then_some(InPlace { max_draining: None });
        LauncherProcess {
            machine: Launcher::new(kind, Some(SUPERVISOR_PID), pid(first), in_place),
            terms: 0,
            cont: false,
            asked: false,
            stop_pending: false,
            stop_heard: false,
            timers: Timers::default(),
            settles_early: false,
            continued: false,
            awaits: Vec::new(),
        }
    }
}

impl DaemonProcess {
    pub(crate) fn new(kind: Kind, deploy: Deploy, setting: &Setting) -> Self {
        DaemonProcess {
            machine: Daemon::new(kind, setting.in_place, setting.leaves),
            main: Main::Booting(deploy),
            pending: Pending::default(),
            timers: Timers::default(),
            heard_closed: false,
            hooks_hang: false,
            request_hooks: 0,
            drain_hooks: false,
            wishes: false,
            awaits: Vec::new(),
            finished: false,
            signal_hooks: SignalHooks::default(),
            stalled: Vec::new(),
            asks: None,
            told: None,
            slow: false,
            short: false,
            checking: None,
            claims_since: false,
            partner: None,
            hung_up: false,
            begins_probation: false,
            waits_for: None,
            candidates_changed: false,
            knows_candidate: false,
            candidate_told: false,
            was_silent: false,
        }
    }

    pub(crate) fn serves(&self) -> bool {
        self.machine.state().serves()
    }

    pub(crate) fn serves_or_stands_by(&self) -> bool {
        self.serves() || self.machine.state() == State::Standby
    }

    /// Its thread for signals waits for the files that another thread holds, or looks round.
    pub(crate) fn is_stalled(&self) -> bool {
        !self.stalled.is_empty() || self.checking.is_some()
    }

    /// It starts, and never gets through.
    pub(crate) fn hangs(&self) -> bool {
        self.main == Main::Preparing(Deploy::Hangs)
    }

    /// This timer means nothing any more.
    pub(crate) fn forget_timers(&mut self) {
        let broken = variants::is(Variant::OrphanEndsServing);
        if self.machine.phase() != Phase::Starting && !broken {
            self.timers.disarm(DaemonTimer::Orphan);
        }
    }

    pub(crate) fn has_handlers(&self) -> bool {
        !matches!(self.main, Main::Booting(_))
    }
}

impl World {
    pub(crate) fn new(setting: &Setting) -> World {
        World {
            supervisor: Supervisor {
                instance: 0,
                lives: true,
                wants_up: true,
                status_up: true,
                child: None,
                send_cont: false,
                write_status: false,
                stop: Stop::No,
                job: None,
                idle: false,
            },
            generations: Vec::new(),
            claim: None,
            file: None,
            last: 0,
            record: Vec::new(),
            program: Deploy::Good,
            reload_owed: false,
            innocent: None,
            planted: None,
            net: setting.sockets.as_ref().map(|sockets| {
                let net = Net::new(sockets);
                Shared::new(if setting.keeps { net.with_keeper() } else { net })
            }),
            flows: setting.flows.map(|steered| Shared::new(Flows::new(steered))),
            moves: setting.moves.then(Shared::default),
            budget: setting.budget,
            fault: None,
        }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = Id> + use<> {
        0..self.generations.len() as Id
    }

    pub(crate) fn at(&self, id: Id) -> &Generation {
        &self.generations[usize::from(id)]
    }

    pub(crate) fn at_mut(&mut self, id: Id) -> &mut Generation {
        &mut self.generations[usize::from(id)]
    }

    pub(crate) fn daemon(&self, id: Id) -> Option<&DaemonProcess> {
        self.at(id).daemon.as_ref()
    }

    /// The launcher that has started this daemon.
    pub(crate) fn launcher(&self, id: Id) -> Option<&LauncherProcess> {
        self.at(self.at(id).first).launcher.as_ref()
    }

    /// The daemons that the launcher of this generation has started.
    pub(crate) fn children(&self, id: Id) -> impl Iterator<Item = Id> + use<> {
        let ours = self.ids().filter(|child| self.at(*child).first == id);
        ours.collect::<Vec<Id>>().into_iter()
    }

    pub(crate) fn fault(&mut self, promise: Promise, what: &'static str) {
        self.fault.get_or_insert(Fault { promise, what });
    }

    /// `Supervisor::read`: what a generation sees when it looks at its supervisor. `main_pid`: of the
    /// launcher, where that is who looks.
    pub(crate) fn reading(&self, id: Id, main_pid: Option<i32>, setting: &Setting) -> Reading {
        let instance = self.at(id).instance;
        if matches!(instance, BY_HAND | ELSEWHERE) {
            return Reading::Unreadable;
        }
        let same = self.supervisor.lives && instance == self.supervisor.instance;
        if !same && main_pid.is_some() {
            return Reading::Lost;
        }
        if !same {
            let other = self.supervisor.lives && setting.readable;
            let other = other && setting.kind.status_file().is_some();
            return Reading::after_loss(self.status(None, setting).filter(|_| other), None);
        }
        let status = self.status(main_pid, setting).filter(|_| setting.readable);
        status.unwrap_or(Reading::Unreadable)
    }

    /// `process::prove`: is the process with this daemon's PID this daemon? Start times differ.
    fn prove(&self, id: Id, by: Id, setting: &Setting) -> Result<(), Unproven> {
        if id == by {
            return Err(Unproven::Ours);
        }
        if self.is_elsewhere(id) != self.is_elsewhere(by % keeper_of(0)) {
            return Err(Unproven::Elsewhere);
        }
        if setting.by_lock {
            return Err(Unproven::Unknown);
        }
        if self.at(id).is_keeper {
            return self.keeper(id).map(|_| ()).ok_or(Unproven::Gone);
        }
        let reused = self.innocent == Some(id) && variants::is(Variant::NoStartTickCheck);
        match self.daemon(id).is_some() || self.planted == Some(id) || reused {
            true => Ok(()),
            false => Err(Unproven::Gone),
        }
    }

    /// What this generation knows of one that the record lists.
    pub(crate) fn facts(&self, id: Id, by: Id, setting: &Setting) -> Facts {
        let proof = self.prove(id, by, setting);
        let here = self.is_elsewhere(id) == self.is_elsewhere(by % keeper_of(0));
        let of_owner = setting.record == RecordOf::DaemonsUser && self.planted != Some(id);
        let bounded = setting.record != RecordOf::Ours;
        let sibling = self.at(id).first == self.at(by % keeper_of(0)).first;
        let launcher = !setting.by_lock && self.launcher(id).is_some();
        machines::known(Facts {
            number: u64::from(self.at(id).number),
            start: u64::from(id),
            proof,
            foreign: here && !sibling && launcher && self.is_supervised(id),
            beyond: (bounded && !(of_owner && proof.is_ok())).then_some(RECORD_OWNER),
            holds_pid_file: self.content().unwrap_or_default().is_held_by(pid(id)),
            serves: match setting.probation {
                true => self.at(id).line.is_some_and(LineState::serves),
                false => self.hands_over(id) && !self.at(id).is_keeper,
            },
            unproven: self.at(id).line.is_some_and(LineState::is_unproven),
            keeps: self.at(id).is_keeper,
        })
    }

    pub(crate) fn is_elsewhere(&self, id: Id) -> bool {
        self.at(id).instance == ELSEWHERE
    }

    /// What stands in the PID file.
    pub(crate) fn content(&self) -> Option<Content> {
        let owner = self.file?;
        Some(Content { pid: Some(pid(owner)), locked: self.daemon(owner).is_some() })
    }

    /// The supervisor that started it lives.
    pub(crate) fn is_supervised(&self, id: Id) -> bool {
        let instance = self.at(id).instance;
        let same = instance == self.supervisor.instance;
        matches!(instance, BY_HAND | ELSEWHERE) || (self.supervisor.lives && same)
    }
}
