//! This generation among the others of its service: who it is, what the record says of the others, and
//! what is known of each. What follows from that is decided in `proto::generation`.

mod already_running;
mod candidate;
pub(in crate::driver) mod check;
pub(in crate::driver) mod claim;
pub(in crate::driver) mod keep;
pub(in crate::driver) mod passing;
pub(in crate::driver) mod probation;
pub(in crate::driver) mod started;
pub(in crate::driver) mod stop;
pub(in crate::driver) mod unit;

use crate::driver::log::{self, daemon::Event};
use crate::driver::settings::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::Reading;
use crate::proto::channel::Hello;
use crate::proto::control::transfer::Predecessor;
use crate::proto::daemon::NoRestart;
use crate::proto::generation::check::Content;
use crate::proto::generation::crowd::Crowd;
use crate::proto::generation::lines;
use crate::proto::generation::proof::{NO_BOOT, NO_NAMESPACE, NO_START, World};
use crate::proto::generation::record::{Generation, Identity, LineState, Record};
use crate::proto::generation::verdict::{Asker, Facts, Purpose, Verdict, verdict};
use crate::shutdown::lock;
use crate::sys::lock_file::LockFile;
use crate::sys::pid_file::{self, PidFile};
use crate::sys::proc::{self, Hidden};
use crate::sys::process::{self, Held};
use crate::sys::shortage;
use crate::sys::supervisor::Supervisor;
use crate::sys::wait;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub(in crate::driver) struct Service {
    pub(in crate::driver) pid_file: PathBuf,
    pub(in crate::driver) launcher: i32,
    /// This generation, but for its number.
    identity: Identity,
    launcher_identity: Identity,
    world: World,
    pub(in crate::driver) supervisor: Arc<Supervisor>,
    pub(in crate::driver) successor_timeout: Option<Duration>,
    pub(in crate::driver) claim_timeout: Option<Duration>,
    pub(in crate::driver) keep_sockets: Option<Duration>,
    pub(in crate::driver) probation: Option<Duration>,
    pub(in crate::driver) release_signal: i32,
    /// The launcher restarts in place.
    pub(in crate::driver) in_place: bool,
    crowd: Option<Crowd>,
    reload_failures: Mutex<ReloadFailures>,
    /// The number of our claim; 0 before it.
    number: AtomicU64,
    files: Mutex<Files>,
    /// Held by a call of `started`: a second one at the same time waits for the first.
    announcing: Mutex<()>,
}

/// Restarts in place that have failed since this generation serves.
#[derive(Clone, Debug, Default)]
pub(in crate::driver) struct ReloadFailures {
    pub(in crate::driver) count: u64,
    /// Why the last one has failed.
    pub(in crate::driver) last: Option<String>,
}

/// Guarded by one mutex, since within a process the claim excludes nobody.
struct Files {
    lock_file: LockFile,
    /// Ours, once `started` has put it in place.
    pid_file: Option<PidFile>,
}

/// A generation of the record, and what there is to know before it may be touched.
struct Examined {
    generation: Generation,
    held: Option<Held>,
    facts: Facts,
}

fn look_failed(pid: i32, error: io::Error) -> Error {
    Error::io(ErrorKind::System, format!("cannot look at process {pid} (takeover)"), error)
}

/// Was the system out of descriptors or memory? Then the error says nothing of what it was about.
pub(in crate::driver) fn is_shortage(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref());
    source.is_some_and(shortage::is_shortage)
}

fn facts(all: &[Examined]) -> impl Iterator<Item = &Facts> + Clone {
    all.iter().map(|one| &one.facts)
}

/// The numbers of those that may have flows.
fn with_flows(all: &[Examined]) -> BTreeSet<u64> {
    facts(all).filter(|one| one.may_have_flows()).map(|one| one.number).collect()
}

fn park_for_ever() -> ! {
    loop {
        thread::park();
    }
}

impl Service {
    /// Opens the lock file; nothing is claimed yet.
    pub(in crate::driver) fn open(
        settings: &Settings,
        launcher: i32,
        hello: &Hello,
        supervisor: Option<OwnedFd>,
    ) -> Result<Service> {
        let pid = process::own_pid();
        let short = |error| Error::io(ErrorKind::System, "cannot read /proc (init)", error);
        let (world, hidden) = proc::world().map_err(short)?;
        match &hidden {
            Some(Hidden::Processes(error)) => log::write(Event::NoProc { error }),
            Some(Hidden::Boot(error)) => log::write(Event::NoBoot { error }),
            None => {}
        }
        let has_proc = !matches!(hidden, Some(Hidden::Processes(_)));
        let own = match proc::own_identity() {
            Ok(identity) => identity,
            Err(error) if !has_proc && !shortage::is_shortage(&error) => {
                Identity { pid, start: NO_START }
            }
            // If the record listed us without our start time, nobody could prove that we live: no successor would
            // ever end us.
            Err(error) => return Err(short(error)),
        };
        let lock_file = LockFile::open(&settings.pid_file, &world)?;
        Ok(Service {
            launcher,
            identity: own,
            // The launcher may have been out of descriptors or memory when it wrote its hello.
            launcher_identity: match hello.launcher {
                Some(launcher) => launcher,
                None => proc::try_identity(launcher)
                    .map_err(short)?
                    .unwrap_or(Identity { pid: launcher, start: NO_START }),
            },
            world,
            supervisor: Arc::new(Supervisor::from_hello(hello, supervisor)),
            successor_timeout: settings.successor_timeout,
            claim_timeout: settings.claim_timeout,
            keep_sockets: settings.keep_sockets,
            probation: settings.probation,
            release_signal: settings.release_signal,
            in_place: hello.in_place,
            crowd: settings.crowd(),
            reload_failures: Mutex::default(),
            number: AtomicU64::new(0),
            files: Mutex::new(Files { lock_file, pid_file: None }),
            announcing: Mutex::new(()),
            pid_file: settings.pid_file.clone(),
        })
    }

    fn read_record(&self, lock_file: &LockFile) -> Result<Record> {
        let (record, dropped) = lock_file.read()?;
        for line in dropped {
            log::write(Event::RecordLineDropped { path: lock_file.path(), dropped: &line });
        }
        Ok(record)
    }

    /// The record, and what there is to know of each generation that it lists. An error if that cannot be
    /// known because the system is out of descriptors or memory.
    fn look_at_all(&self, files: &Files) -> Result<(Record, Vec<Examined>)> {
        let record = self.read_record(&files.lock_file)?;
        let all = self.examine_all(files, &record)?;
        Ok((record, all))
    }

    /// The same of a record that is known.
    fn examine_all(&self, files: &Files, record: &Record) -> Result<Vec<Examined>> {
        self.examine_with(files, record, self.content()?.unwrap_or_default())
    }

    /// `content`: of the PID file.
    fn examine_with(
        &self,
        files: &Files,
        record: &Record,
        content: Content,
    ) -> Result<Vec<Examined>> {
        let bound = files.lock_file.bound()?;
        record.live.iter().map(|one| self.examine(one, bound, content)).collect()
    }

    /// `bound`: see [`LockFile::bound`].
    fn examine(
        &self,
        generation: &Generation,
        bound: Option<u32>,
        content: Content,
    ) -> Result<Examined> {
        let Generation { number, daemon, .. } = *generation;
        let examine = || {
            let proof = process::prove_daemon(generation, &self.world, self.launcher, content)?;
            // Without /proc nobody's user is known.
            let beyond = match bound {
                Some(owner) if proof.is_err() || !process::is_of(daemon.pid, owner)? => Some(owner),
                Some(_) | None => None,
            };
            let foreign =
                process::is_foreign(generation, &self.world, self.launcher, proof.is_ok())?;
            let facts = Facts {
                number,
                start: daemon.start,
                proof: proof.as_ref().map(drop).map_err(|why| *why),
                foreign,
                beyond,
                holds_pid_file: content.is_held_by(daemon.pid),
                serves: generation.state.is_some_and(LineState::serves),
                unproven: generation.state.is_some_and(LineState::is_unproven),
                keeps: generation.state == Some(LineState::Keeping),
            };
            Ok(Examined { generation: generation.clone(), held: proof.ok(), facts })
        };
        examine().map_err(|error| look_failed(daemon.pid, error))
    }

    /// The generations of the record, but for this one, that may have flows.
    pub(in crate::driver) fn living(&self) -> Result<BTreeSet<u64>> {
        let (_, all) = self.look_at_all(&lock(&self.files))?;
        Ok(with_flows(&all))
    }

    /// What stands at the path of the PID file; `None` if it cannot be read.
    fn content(&self) -> Result<Option<Content>> {
        match pid_file::read(&self.pid_file) {
            Ok(content) => Ok(Some(content)),
            Err(error) if shortage::is_shortage(&error) => {
                let text = format!("cannot look at {:?} (PID file)", self.pid_file);
                Err(Error::io(ErrorKind::PidFile, text, error))
            }
            Err(_) => Ok(None),
        }
    }

    /// The process that the PID file names.
    pub(in crate::driver) fn named(&self) -> Option<i32> {
        pid_file::read(&self.pid_file).ok()?.pid
    }

    /// Does the record list this process, or may it? It is not proven to be the one that was entered.
    pub(in crate::driver) fn lists(&self, pid: i32) -> bool {
        let record = self.read_record(&lock(&self.files).lock_file);
        record.map_or(true, |record| {
            let mut all = record.live.iter().chain(&record.starting);
            all.any(|one| one.daemon.pid == pid)
        })
    }

    /// The process is ending, and the thread that takes signals sees to it.
    pub(in crate::driver) fn park(&self) -> ! {
        lock(&self.files).lock_file.give_up_if_held();
        park_for_ever()
    }

    /// The launcher says that a restart in place has failed.
    pub(in crate::driver) fn note_reload_failed(&self, why: String) {
        let mut failures = lock(&self.reload_failures);
        failures.count += 1;
        failures.last = Some(why);
    }

    pub(in crate::driver) fn reload_failures(&self) -> ReloadFailures {
        lock(&self.reload_failures).clone()
    }

    /// Why a restart would be refused now. Asks the supervisor, which may take a second: not for the
    /// thread that takes signals.
    pub(in crate::driver) fn no_restart(&self) -> Option<NoRestart> {
        self.no_restart_by(self.supervisor.read(Some(self.launcher)))
    }

    /// The same, if the supervisor was asked already.
    pub(in crate::driver) fn no_restart_by(&self, reading: Reading) -> Option<NoRestart> {
        let at_terminal = || !self.in_place && self.supervisor.is_at_terminal(self.launcher);
        NoRestart::why(self.supervisor.kind, self.in_place, reading)
            .or_else(|| at_terminal().then_some(NoRestart::AtTerminal))
    }

    pub(in crate::driver) fn number(&self) -> Option<u64> {
        Some(self.number.load(Ordering::SeqCst)).filter(|number| *number > 0)
    }

    /// This process is a launcher, and stands for its newest daemon, which has ended. `false`: the record does not
    /// name that one.
    pub(in crate::driver) fn stands_for_newest(&self) -> Result<bool> {
        let record = self.read_record(&lock(&self.files).lock_file)?;
        let newest = lines::newest_of(self.identity, &record);
        self.number.store(newest.unwrap_or(0), Ordering::SeqCst);
        Ok(newest.is_some())
    }

    /// The PID file belongs to another service. Gives up the claim and the number, so that a copy that hangs
    /// or tries again does not hold up a restart of that service.
    pub(in crate::driver) fn is_no_generation(&self) {
        self.give_up_claim();
        self.number.store(0, Ordering::SeqCst);
    }

    fn asker(&self) -> Asker {
        Asker { number: self.number(), start: self.identity.start }
    }

    /// Our line in the record.
    fn entry(&self, number: u64, state: Option<LineState>) -> Generation {
        Generation {
            number,
            daemon: self.identity,
            boot: self.world.boot.clone().unwrap_or_else(|| NO_BOOT.to_owned()),
            pid_namespace: self.world.pid_namespace.unwrap_or(NO_NAMESPACE),
            launcher: self.launcher_identity,
            supervisor: self.supervisor.identity,
            state,
            crashes: None,
            file: None,
            more: Vec::new(),
        }
    }

    /// The live generations from which this one may take sockets and state.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::AlreadyRunning`] if the PID file belongs to another service, as `started` finds it.
    pub(in crate::driver) fn predecessors(&self) -> Result<Vec<HeldPredecessor>> {
        if self.number().is_none() {
            return Ok(Vec::new()); // no claim, no predecessor
        }
        let (_, all) = self.look_at_all(&lock(&self.files))?;
        for one in &all {
            if let Verdict::Refuse(why) = verdict(&one.facts, Purpose::TakeOver, self.asker()) {
                return Err(already_running::already_running(self, one, why));
            }
        }
        let ours = all.into_iter().filter(|one| {
            let verdict = verdict(&one.facts, Purpose::Transfer, self.asker());
            matches!(verdict, Verdict::Touch { .. } | Verdict::TouchByNumber)
        });
        Ok(ours.map(Examined::into_predecessor).collect())
    }
}

/// A predecessor that cannot be mistaken for another process.
pub(in crate::driver) struct HeldPredecessor {
    pub(in crate::driver) about: Predecessor,
    held: Option<Held>,
}

impl HeldPredecessor {
    /// Readable once it has ended. `None` without pidfds.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.held.as_ref().map(AsFd::as_fd)
    }

    /// Is it about to end, or gone? For one whose socket has just closed: the sockets of a process that is
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

impl Examined {
    /// What is known of it, and whether it was told to drain.
    fn draining(&self) -> (Facts, bool) {
        (self.facts, self.generation.state == Some(LineState::Draining))
    }

    fn pid(&self) -> i32 {
        self.generation.daemon.pid
    }

    fn into_predecessor(self) -> HeldPredecessor {
        let about = Predecessor {
            number: self.facts.number,
            pid: self.generation.daemon.pid,
            hands_over: self.facts.serves,
        };
        HeldPredecessor { about, held: self.held }
    }
}
