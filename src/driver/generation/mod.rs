//! The generation's part in the service: its claim, its line in the record, the PID file, and TERM
//! to older generations. What follows from what is found there is decided in `proto::takeover`.

use crate::driver::daemon::Daemon;
use crate::driver::log::note;

mod unit;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::channel::Hello;
use crate::proto::control::transfer::Predecessor;
use crate::proto::daemon::{Finding, Phase};
use crate::proto::generation::record::{Generation, Identity, Record};
use crate::proto::generation::takeover::{self, Content, Line, Own, Step, Unproven};
use crate::proto::{Kind, Reading};
use crate::shutdown::lock;
use crate::sys::lock_file::{Attempt, LockFile};
use crate::sys::pid_file::{self, PidFile};
use crate::sys::proc::{self, World};
use crate::sys::process::{self, Held};
use crate::sys::signals::SIGTERM;
use crate::sys::supervisor::Supervisor;
use crate::sys::wait;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The pauses between attempts to claim: from, to.
const CLAIM_PAUSE: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(20));

/// How long the end of one that was evicted is awaited beyond `claim_timeout`.
const EVICTED: Duration = Duration::from_secs(5);

pub(in crate::driver) struct Service {
    pub(super) pid_file: PathBuf,
    pub(super) launcher: i32,
    /// This generation, but for its number.
    identity: Identity,
    launcher_identity: Identity,
    pub(super) world: World,
    pub(super) supervisor: Supervisor,
    pub(super) successor_timeout: Option<Duration>,
    claim_timeout: Option<Duration>,
    pub(super) release_signal: i32,
    /// The launcher restarts in place.
    pub(super) in_place: bool,
    reload_failures: Mutex<ReloadFailures>,
    /// The number of our claim; 0 before it.
    number: AtomicU64,
    pub(super) files: Mutex<Files>,
    /// Held by a call of `started`: a second one at the same time waits for the first.
    announcing: Mutex<()>,
}

/// Restarts in place that were not to be, since this generation serves.
#[derive(Clone, Debug, Default)]
pub(in crate::driver) struct ReloadFailures {
    pub(super) count: u64,
    /// Why the last one was not.
    pub(super) last: Option<String>,
}

/// Guarded by one mutex, since within a process the claim excludes nobody.
pub(in crate::driver) struct Files {
    pub(super) lock_file: LockFile,
    /// Ours, once `started` has put it in place.
    pid_file: Option<PidFile>,
    /// The last claim that a check has seen.
    last_claim: u64,
    /// The last check has found that the PID file names no live generation.
    lost_file: bool,
    /// A PID in the PID file that nobody accounts for, seen by the last check.
    stranger: Option<i32>,
}

/// A generation of the record, and what there is to know before it may be signalled.
struct Examined {
    generation: Generation,
    proof: Result<Held, Unproven>,
    foreign: bool,
    /// It is beyond what this user, who owns the record, could signal.
    beyond: Option<u32>,
}

impl Examined {
    fn line(&self) -> Line {
        let Generation { number, daemon, .. } = self.generation;
        Line { number, daemon, proof: self.proof.as_ref().map(drop).map_err(|why| *why) }
    }
}

/// What came of an attempt to stop the older generations.
#[derive(Debug, Default)]
pub(in crate::driver) struct Stopped {
    /// Those whose end can be awaited.
    pub(super) awaited: Vec<Held>,
    /// Short of descriptors or memory, not all of them could be told: they still have to be.
    pub(super) again: bool,
}

fn look_failed(pid: i32, error: io::Error) -> Error {
    Error::io(ErrorKind::System, format!("cannot look at process {pid} (takeover)"), error)
}

/// Was it for want of descriptors or memory? Then it says nothing of what it was about.
pub(in crate::driver) fn is_shortage(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    source.is_some_and(process::is_shortage)
}

impl Service {
    /// Opens the lock file; nothing is claimed yet.
    pub(in crate::driver) fn open(
        config: Config,
        launcher: i32,
        hello: &Hello,
        supervisor: Option<OwnedFd>,
    ) -> Result<Service> {
        let pid = process::own_pid();
        let short = |error| Error::io(ErrorKind::System, "cannot read /proc (init)", error);
        let world = match proc::world() {
            Ok(world) => Some(world),
            Err(error) if process::is_shortage(&error) => return Err(short(error)),
            Err(error) => {
                note!(
                    Warn,
                    "stage=init daemon={pid} error=\"{error}\" reason=\"no /proc of ours: older \
                     generations are known by the lock on the PID file alone\"",
                );
                None
            }
        };
        let identity = |pid| match proc::try_identity(pid) {
            Ok(identity) => Ok(identity.unwrap_or(Identity { pid, start: 0 })),
            Err(error) => Err(short(error)),
        };
        let own = match proc::own_identity() {
            Ok(identity) => identity,
            Err(error) if world.is_none() && !process::is_shortage(&error) => {
                Identity { pid, start: 0 }
            }
            // Entered without it, we could not be told from a process that is gone: no successor
            // would ever end us.
            Err(error) => return Err(short(error)),
        };
        let nowhere = || World { boot: "unknown".to_owned(), pid_namespace: 0 };
        let world = world.unwrap_or_else(nowhere);
        let lock_file = LockFile::open(&config.pid_file, &world)?;
        Ok(Service {
            launcher,
            identity: own,
            // The launcher may have been short when it wrote its hello.
            launcher_identity: match hello.launcher {
                Some(launcher) => launcher,
                None => identity(launcher)?,
            },
            world,
            supervisor: Supervisor::from_hello(hello, supervisor),
            successor_timeout: config.successor_timeout,
            claim_timeout: config.claim_timeout,
            release_signal: config.release_signal,
            in_place: hello.in_place,
            reload_failures: Mutex::default(),
            number: AtomicU64::new(0),
            files: Mutex::new(Files {
                lock_file,
                pid_file: None,
                last_claim: 0,
                lost_file: false,
                stranger: None,
            }),
            announcing: Mutex::new(()),
            pid_file: config.pid_file,
        })
    }

    /// Waits for the claim and takes the next number. Guards against two generations that start at
    /// once and would each take itself for the newest.
    pub(in crate::driver) fn claim(&self) -> Result<()> {
        let began = Instant::now();
        let mut pause = CLAIM_PAUSE.0;
        let mut limit = self.claim_timeout;
        let mut said = None;
        loop {
            let mut files = lock(&self.files);
            let holder = match files.lock_file.try_claim(&self.world)? {
                Attempt::Claimed => return self.take_number(&mut files, began),
                Attempt::HeldBy(holder) => holder,
            };
            let path = files.lock_file.path().to_owned();
            drop(files); // not while sleeping: a stop has to read the record
            if said != Some(holder) {
                said = Some(holder);
                note!(
                    Info,
                    "stage=claim daemon={} holder={holder} path={path:?} reason=\"another generation \
                     is starting\"",
                    process::own_pid(),
                );
            }
            let left = match limit {
                None => Duration::MAX,
                Some(limit) => limit.saturating_sub(began.elapsed()),
            };
            if left.is_zero() {
                if limit == self.claim_timeout && self.evict(holder)? {
                    limit = limit.map(|limit| limit + EVICTED);
                    continue;
                }
                return Err(Error::new(
                    ErrorKind::ClaimTimeout,
                    format!(
                        "cannot lock {path:?} (claim): process {holder} is starting, and holds it for \
                         longer than claim_timeout ({:?})",
                        self.claim_timeout.unwrap_or_default(),
                    ),
                ));
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(CLAIM_PAUSE.1);
        }
    }

    /// Ends a generation that keeps the claim and that nobody supervises any more: no one else would.
    /// Tells whether it was signalled.
    fn evict(&self, holder: i32) -> Result<bool> {
        let files = lock(&self.files);
        let (record, _) = files.lock_file.read()?;
        let Some(starting) = record.starting.filter(|one| one.daemon.pid == holder) else {
            return Ok(false);
        };
        let one = self.examine(&starting, files.lock_file.bound()?)?;
        let (Ok(held), None, false) = (&one.proof, one.beyond, one.foreign) else {
            return Ok(false);
        };
        if starting.launcher.pid == self.launcher {
            return Ok(false); // its launcher ends it
        }
        let sent = held.evict().is_ok();
        note!(
            Warn,
            "stage=claim daemon={} holder={holder} signal=USR2 sent={sent} reason=\"its supervisor has \
             ended, and it has not started within claim_timeout\"",
            process::own_pid(),
        );
        Ok(sent)
    }

    /// Under the claim.
    fn take_number(&self, files: &mut Files, began: Instant) -> Result<()> {
        let taken = self.read_record(&files.lock_file).and_then(|mut record| {
            record.last += 1;
            let more = Vec::new();
            record.starting = Some(Generation { more, ..self.entry(record.last) });
            files.lock_file.write(&record).map(|()| record.last)
        });
        let number = taken.inspect_err(|_| files.lock_file.give_up())?;
        self.number.store(number, Ordering::SeqCst);
        note!(
            Info,
            "stage=claim generation={number} launcher={} daemon={} elapsed_ms={:.1}",
            self.launcher,
            process::own_pid(),
            began.elapsed().as_secs_f64() * 1e3,
        );
        Ok(())
    }

    fn read_record(&self, lock_file: &LockFile) -> Result<Record> {
        let (record, dropped) = lock_file.read()?;
        for line in dropped {
            note!(Warn, "stage=record path={:?} dropped={line:?}", lock_file.path());
        }
        Ok(record)
    }

    /// What there is to know before a generation may be signalled. `bound`: see
    /// [`LockFile::bound`]. An error where that cannot be known for now.
    fn examine(&self, generation: &Generation, bound: Option<u32>) -> Result<Examined> {
        let pid = generation.daemon.pid;
        let examine = || {
            let proof = self.prove(generation)?;
            // Without /proc nobody's user is known.
            let beyond = match bound {
                Some(owner) if proof.is_err() || !process::is_of(pid, owner)? => Some(owner),
                Some(_) | None => None,
            };
            let foreign = process::is_foreign(generation, &self.world, self.launcher)?;
            Ok(Examined { generation: generation.clone(), proof, foreign, beyond })
        };
        examine().map_err(|error| look_failed(pid, error))
    }

    fn prove(&self, generation: &Generation) -> io::Result<Result<Held, Unproven>> {
        process::prove_daemon(generation, &self.world, self.launcher)
    }

    fn line(&self, generation: &Generation) -> Result<Line> {
        let Generation { number, daemon, .. } = *generation;
        let proof = self.prove(generation).map_err(|error| look_failed(daemon.pid, error))?;
        Ok(Line { number, daemon, proof: proof.map(drop) })
    }

    /// What stands at the path of the PID file; `None` where it cannot be read.
    fn content(&self) -> Result<Option<Content>> {
        match pid_file::read(&self.pid_file) {
            Ok(content) => Ok(Some(content)),
            Err(error) if process::is_shortage(&error) => {
                let text = format!("cannot look at {:?} (PID file)", self.pid_file);
                Err(Error::io(ErrorKind::PidFile, text, error))
            }
            Err(_) => Ok(None),
        }
    }

    /// Takes over, in the order of [`takeover::steps`].
    pub(in crate::driver) fn started(&self, daemon: &'static Daemon) -> Result<()> {
        let _only_one = lock(&self.announcing);
        match daemon.phase() {
            Phase::Starting => {}
            Phase::StoppingEarly | Phase::Ended => self.never_started(),
            Phase::Serving
            | Phase::HandingOff
            | Phase::Detached
            | Phase::Draining(_)
            | Phase::AwaitingOlder(_)
            | Phase::Finished => return Ok(()),
        }
        let began = Instant::now();
        let mut number = self.number();
        if number.is_none() {
            self.claim()?; // it was given up, or never got
            number = self.number();
        }
        let number = number.expect("a claim has a number");
        let mut files = lock(&self.files);
        // With the files comes the claim: `stop_older` may have given it up. Without a launcher,
        // which may have gone while we were stopped, the thread that takes signals ends us as soon
        // as it runs.
        if daemon.phase() != Phase::Starting || process::parent_pid() != self.launcher {
            drop(files);
            self.never_started();
        }
        let mut record = self.read_record(&files.lock_file)?;
        let bound = files.lock_file.bound()?;
        // What the path holds before our file replaces it.
        let before = self.content()?.unwrap_or_default();
        // All that could fail for want of descriptors or memory comes before the first step.
        let live: Result<Vec<Examined>> =
            record.live.iter().map(|one| self.examine(one, bound)).collect();
        let mut live = live?;
        if let Err(error) = self.refuse_foreign(&live, before) {
            self.number.store(0, Ordering::SeqCst);
            files.lock_file.give_up();
            return Err(error);
        }
        live.retain(|one| one.line().is_kept(number));
        record.live = live.iter().map(|one| one.generation.clone()).collect();
        for older in &mut record.live {
            // It will drain. Should we be killed, nobody is to wait for what it no longer holds.
            older.more.retain(|field| field != HANDS_OVER);
        }
        live.retain(|one| one.generation.number < number);
        let older = live;
        let mut listener = Some(crate::driver::control::prepare(&self.pid_file)?);
        for step in takeover::steps() {
            match step {
                Step::Install => files.pid_file = Some(PidFile::install(&self.pid_file)?),
                Step::Listen => {
                    listener.take().map_or(Ok(()), crate::driver::control::Prepared::place)?
                }
                Step::Enter => {
                    record.starting = None;
                    record.live.push(self.entry(number));
                    files.lock_file.write(&record)?;
                    files.last_claim = record.last;
                }
                Step::Serve => {
                    crate::driver::control::status::took_over(
                        older.iter().map(|one| one.generation.number).max(),
                    );
                    if !daemon.serve() {
                        drop(files);
                        self.never_started();
                    }
                }
                Step::Close => crate::driver::sockets::close_unclaimed(),
                Step::Steer => crate::driver::sockets::steer_groups(),
                Step::StopOlder => {
                    for one in &older {
                        self.stop(one, before);
                    }
                }
                Step::GiveUp => files.lock_file.give_up(),
            }
        }
        drop(files);
        let predecessors = older.len();
        crate::driver::sockets::started(
            older.into_iter().filter_map(|one| one.proof.ok()).collect(),
        );
        note!(
            Info,
            "stage=started generation={number} launcher={} daemon={} predecessors={} \
             elapsed_ms={:.1}",
            self.launcher,
            process::own_pid(),
            predecessors,
            began.elapsed().as_secs_f64() * 1e3,
        );
        unit::started(daemon);
        Ok(())
    }

    /// Is the PID file somebody else's?
    fn refuse_foreign(&self, live: &[Examined], before: Content) -> Result<()> {
        for one in live {
            if let Some(why) = one.line().refusal(one.foreign, before) {
                return Err(Error::new(
                    ErrorKind::AlreadyRunning,
                    format!(
                        "cannot take over {:?} (started): generation {} with daemon {} and launcher {} {why}",
                        self.pid_file,
                        one.generation.number,
                        one.generation.daemon.pid,
                        one.generation.launcher.pid,
                    ),
                ));
            }
        }
        Ok(())
    }

    /// TERM to an older generation of this service, and to nobody else. Tells whether its end is to
    /// be awaited: also where it may not be signalled, since it finds out when it looks round.
    fn stop(&self, older: &Examined, before: Content) -> bool {
        let pid = older.generation.daemon.pid;
        let own = process::own_pid();
        let refuse = |why: &dyn std::fmt::Display| {
            note!(Warn, "stage=takeover daemon={own} predecessor={pid} refused=\"{why}\"");
        };
        if older.foreign {
            refuse(&"is supervised by somebody else");
            return false;
        }
        let (sent, awaited) = match (&older.proof, older.beyond) {
            (Ok(_), Some(owner)) => {
                let why = "the record belongs to uid";
                refuse(&format_args!("{why} {owner}, the process does not"));
                return true;
            }
            (Ok(held), None) => (held.signal(SIGTERM), true),
            (Err(Unproven::Gone), _) => return false,
            // Without pidfds or /proc, the lock on the PID file tells that its owner lives.
            (Err(Unproven::Unknown), None) if before.is_held_by(pid) => {
                (process::signal_owner(pid, SIGTERM), false)
            }
            (Err(unproven), _) => {
                refuse(&format_args!("{unproven:?}"));
                return false;
            }
        };
        match sent {
            Ok(()) => note!(
                Info,
                "stage=takeover daemon={own} predecessor={pid} predecessor_generation={} signal=TERM",
                older.generation.number,
            ),
            // It looks round each second and then finds us.
            Err(error) => note!(
                Warn,
                "stage=takeover daemon={own} predecessor={pid} signal=TERM error=\"{error}\"",
            ),
        }
        awaited
    }

    /// The process is ending, and its thread for signals sees to it.
    pub(in crate::driver) fn never_started(&self) -> ! {
        lock(&self.files).lock_file.give_up_if_held();
        loop {
            thread::park();
        }
    }

    /// TERM to every older generation; returns those whose end can be awaited. Who stops while it
    /// starts gives up the claim first: those that it waits for look round under it.
    pub(in crate::driver) fn stop_older(&self) -> Stopped {
        let mut files = lock(&self.files);
        files.lock_file.give_up_if_held();
        let mut stopped = Stopped::default();
        let trouble = |error: Error| {
            note!(Warn, "stage=stop daemon={} error=\"{error}\"", process::own_pid());
            is_shortage(&error)
        };
        let read = || {
            let record = self.read_record(&files.lock_file)?;
            Ok((record, files.lock_file.bound()?, self.content()?.unwrap_or_default()))
        };
        let (record, bound, before) = match read() {
            Ok(read) => read,
            Err(error) => {
                stopped.again = trouble(error);
                return stopped;
            }
        };
        let number = self.number();
        let older = record.live.iter().filter(|one| {
            takeover::is_older(one.number, one.daemon.start, number, self.identity.start)
        });
        for one in older {
            match self.examine(one, bound) {
                Ok(one) => {
                    if self.stop(&one, before) {
                        stopped.awaited.extend(one.proof.ok());
                    }
                }
                Err(error) => stopped.again |= trouble(error),
            }
        }
        stopped
    }

    /// A look round, under the claim. Where it fails, nothing has changed.
    pub(in crate::driver) fn look(
        &self,
        files: &mut Files,
        supervisor: Reading,
    ) -> Result<Finding> {
        let mut record = self.read_record(&files.lock_file)?;
        let own = Own {
            number: self.number().unwrap_or(0),
            identity: self.identity,
            last_claim: files.last_claim,
            stranger: files.stranger,
        };
        let lines: Result<Vec<Line>> = record.live.iter().map(|one| self.line(one)).collect();
        let lines = lines?;
        let content = self.content()?;
        let mut unknown = None;
        let lives = |pid| match proc::try_identity(pid) {
            Ok(identity) => identity.is_some(),
            Err(error) => {
                unknown = Some(look_failed(pid, error));
                true
            }
        };
        let seen = takeover::look(own, record.last, &lines, content, lives);
        if let Some(error) = unknown {
            return Err(error);
        }
        if seen.enter {
            note!(
                Warn,
                "stage=check generation={} daemon={} path={:?} reason=\"the record was lost: \
                 entered again\"",
                own.number,
                process::own_pid(),
                files.lock_file.path(),
            );
            record.live.push(self.entry(own.number));
            record.last = record.last.max(own.number);
            files.lock_file.write(&record)?;
        }
        files.last_claim = record.last;
        files.stranger = seen.stranger;
        let takeover::Seen { newer, lost_file, claims_moved, .. } = seen;
        files.lost_file = lost_file;
        let lost_file = lost_file || crate::driver::control::is_lost(&self.pid_file);
        Ok(Finding::Seen { newer, lost_file, claims_moved, supervisor })
    }

    /// A look where neither claim nor record can be had: a service that gave up root may not open
    /// the lock file that its successor has made anew. Guards against two generations that serve
    /// for ever, side by side.
    pub(in crate::driver) fn is_taken_over(&self) -> bool {
        let content = pid_file::read(&self.pid_file).unwrap_or_default();
        takeover::names_newer(self.identity, content, content.pid.and_then(proc::identity))
    }

    /// Under the claim.
    pub(in crate::driver) fn put_back(&self, files: &mut Files) -> Result<()> {
        let own = process::own_pid();
        if files.lost_file {
            files.pid_file = Some(PidFile::install(&self.pid_file)?);
            note!(
                Warn,
                "stage=check daemon={own} path={:?} reason=\"the PID file named no live generation: \
                 ours is back\"",
                self.pid_file,
            );
        }
        if crate::driver::control::is_lost(&self.pid_file) {
            crate::driver::control::prepare(&self.pid_file)?.place()?;
            note!(
                Warn,
                "stage=check daemon={own} path={:?} reason=\"nobody listened at the takeover socket: it \
                 is put back\"",
                crate::proto::paths::control_socket(&self.pid_file),
            );
        }
        Ok(())
    }

    /// The launcher says that a restart in place was not to be.
    pub(in crate::driver) fn note_reload_failed(&self, why: String) {
        let mut failures = lock(&self.reload_failures);
        failures.count += 1;
        failures.last = Some(why);
    }

    pub(in crate::driver) fn reload_failures(&self) -> ReloadFailures {
        lock(&self.reload_failures).clone()
    }

    /// Why the supervisor would not start the service again if its launcher left now. A launcher
    /// that restarts in place need not leave.
    pub(in crate::driver) fn not_restarted(&self) -> Option<&'static str> {
        if self.in_place {
            return None;
        }
        match (self.supervisor.kind, self.supervisor.read(Some(self.launcher))) {
            (Kind::Nobody, _) | (_, Reading::Lost) => Some("nobody would start the service again"),
            (Kind::Systemd, Reading::Down) => {
                Some("systemd would not start the service again: see Restart= of its unit")
            }
            (_, Reading::Down) => Some("the supervisor wants the service down"),
            (_, Reading::Up | Reading::Unreadable) => None,
        }
    }

    pub(in crate::driver) fn number(&self) -> Option<u64> {
        Some(self.number.load(Ordering::SeqCst)).filter(|number| *number > 0)
    }

    fn entry(&self, number: u64) -> Generation {
        Generation {
            number,
            daemon: self.identity,
            boot: self.world.boot.clone(),
            pid_namespace: self.world.pid_namespace,
            launcher: self.launcher_identity,
            supervisor: self.supervisor.identity,
            more: vec![HANDS_OVER.to_owned()],
        }
    }

    /// The live generations that are proven to be older ones of ours: whom we may take over from.
    pub(in crate::driver) fn predecessors(&self) -> Result<Vec<HeldPredecessor>> {
        let number = self.number().unwrap_or(0);
        let (record, bound) = {
            let files = lock(&self.files);
            (self.read_record(&files.lock_file)?, files.lock_file.bound()?)
        };
        let content = self.content()?.unwrap_or_default();
        let mut ours = Vec::new();
        for one in record.live.iter().filter(|one| one.number < number) {
            let Examined { generation, proof, foreign, .. } = self.examine(one, bound)?;
            let Generation { number, daemon, more, .. } = generation;
            let is_ours = match &proof {
                Ok(_) => !foreign,
                Err(Unproven::Unknown) => content.is_held_by(daemon.pid),
                Err(Unproven::Gone | Unproven::Ours | Unproven::Elsewhere) => false,
            };
            if is_ours {
                let hands_over = more.iter().any(|field| field == HANDS_OVER);
                let about = Predecessor { number, pid: daemon.pid, hands_over };
                ours.push(HeldPredecessor { about, held: proof.ok() });
            }
        }
        Ok(ours)
    }
}

/// The record's word for a generation that listens for its successor at `web.pid.sock`.
pub(crate) const HANDS_OVER: &str = "takeover=1";

/// A predecessor that cannot be mistaken for another process.
pub(in crate::driver) struct HeldPredecessor {
    pub(super) about: Predecessor,
    held: Option<Held>,
}

impl HeldPredecessor {
    /// Is it about to end, or gone? For one that has just lost a socket: those of a process that is
    /// killed close before it can be seen to have ended.
    pub(in crate::driver) fn is_ending(&self) -> bool {
        const ENDING: Duration = Duration::from_secs(1);
        let Some(held) = &self.held else { return false };
        let began = Instant::now();
        loop {
            if held.has_ended() {
                return true;
            }
            let left = ENDING.saturating_sub(began.elapsed());
            if left.is_zero() {
                return false;
            }
            wait::readable(&[held.as_fd()], Some(left));
        }
    }
}
