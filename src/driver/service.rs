//! The generation's part in the service: its claim, its line in the record, the PID file, and TERM
//! to older generations. What follows from what is found there is decided in `proto::takeover`.

use super::daemon::Daemon;
use super::journal::note;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::Reading;
use crate::proto::daemon::{Finding, Input, Phase};
use crate::proto::takeover::{self, Content, Line, Own, Step, Unproven};
use crate::proto::wire::{Generation, Hello, Identity, Record};
use crate::shutdown::lock;
use crate::sys::claim::{Attempt, LockFile};
use crate::sys::pid_file::{self, PidFile};
use crate::sys::process::{self, Held, World};
use crate::sys::signals::SIGTERM;
use crate::sys::supervisor::Supervisor;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The pauses between attempts to claim: from, to.
const CLAIM_PAUSE: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(20));

pub(super) struct Service {
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
    /// The number of our claim; 0 before it.
    number: AtomicU64,
    pub(super) files: Mutex<Files>,
    /// Held by a call of `started`: a second one at the same time waits for the first.
    announcing: Mutex<()>,
}

/// Guarded by one mutex, since within a process the claim excludes nobody.
pub(super) struct Files {
    pub(super) lock_file: LockFile,
    /// Ours, once `started` has put it in place.
    pid_file: Option<PidFile>,
    /// The last claim that a check has seen.
    last_claim: u64,
    /// A PID in the PID file that nobody accounts for, seen by the last check.
    stranger: Option<i32>,
}

impl Service {
    /// Opens the lock file; nothing is claimed yet.
    pub(super) fn open(
        config: Config,
        launcher: i32,
        hello: &Hello,
        supervisor: Option<OwnedFd>,
    ) -> Result<Service> {
        let own = process::own_pid();
        let world = process::world().unwrap_or_else(|error| {
            note!(
                Warn,
                "stage=init daemon={own} error=\"{error}\" reason=\"no /proc: older generations are \
                 known by the lock on the PID file alone\"",
            );
            World { boot: "unknown".to_owned(), pid_namespace: 0 }
        });
        let lock_file = LockFile::open(&config.pid_file, &world)?;
        let unknown = |pid| Identity { pid, start: 0 };
        Ok(Service {
            launcher,
            identity: process::identity(own).unwrap_or(unknown(own)),
            launcher_identity: hello.launcher.unwrap_or(unknown(launcher)),
            world,
            supervisor: Supervisor::from_hello(hello, supervisor),
            successor_timeout: config.successor_timeout,
            claim_timeout: config.claim_timeout,
            release_signal: config.release_signal,
            number: AtomicU64::new(0),
            files: Mutex::new(Files { lock_file, pid_file: None, last_claim: 0, stranger: None }),
            announcing: Mutex::new(()),
            pid_file: config.pid_file,
        })
    }

    /// Waits for the claim and takes the next number. Guards against two generations that start at
    /// once and would each take itself for the newest.
    pub(super) fn claim(&self) -> Result<()> {
        let began = Instant::now();
        let mut pause = CLAIM_PAUSE.0;
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
            let left = match self.claim_timeout {
                None => Duration::MAX,
                Some(timeout) => timeout.saturating_sub(began.elapsed()),
            };
            if left.is_zero() {
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

    /// Under the claim.
    fn take_number(&self, files: &mut Files, began: Instant) -> Result<()> {
        let taken = self.read_record(&files.lock_file).and_then(|mut record| {
            record.last += 1;
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

    fn prove(&self, generation: &Generation) -> Result<Held, Unproven> {
        process::prove_daemon(generation, &self.world, self.launcher)
    }

    fn line(&self, generation: &Generation) -> Line {
        Line {
            number: generation.number,
            daemon: generation.daemon,
            proof: self.prove(generation).map(drop),
        }
    }

    /// Takes over, in the order of [`takeover::steps`].
    pub(super) fn started(&self, daemon: &Daemon) -> Result<()> {
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
        if daemon.phase() != Phase::Starting {
            drop(files);
            self.never_started(); // with the files comes the claim: `stop_older` may have given it up
        }
        let mut record = self.read_record(&files.lock_file)?;
        let bound = files.lock_file.bound()?;
        // What the path holds before our file replaces it.
        let before = pid_file::read(&self.pid_file).unwrap_or_default();
        if let Err(error) = self.refuse_foreign(&record, before) {
            self.number.store(0, Ordering::SeqCst);
            files.lock_file.give_up();
            return Err(error);
        }
        record.live.retain(|one| self.line(one).is_kept(number));
        let older: Vec<Generation> =
            record.live.iter().filter(|one| one.number < number).cloned().collect();
        for step in takeover::steps() {
            match step {
                Step::Install => files.pid_file = Some(PidFile::install(&self.pid_file)?),
                Step::Enter => {
                    record.live.push(self.entry(number));
                    files.lock_file.write(&record)?;
                    files.last_claim = record.last;
                }
                Step::Serve => {
                    let phase = {
                        let mut machine = lock(&daemon.machine);
                        _ = machine.on(Input::Started);
                        machine.phase()
                    };
                    if phase != Phase::Serving {
                        drop(files);
                        self.never_started();
                    }
                }
                Step::StopOlder => {
                    for generation in &older {
                        self.stop(generation, bound, before);
                    }
                }
                Step::GiveUp => files.lock_file.give_up(),
            }
        }
        note!(
            Info,
            "stage=started generation={number} launcher={} daemon={} predecessors={} \
             elapsed_ms={:.1}",
            self.launcher,
            process::own_pid(),
            older.len(),
            began.elapsed().as_secs_f64() * 1e3,
        );
        Ok(())
    }

    /// Is the PID file somebody else's?
    fn refuse_foreign(&self, record: &Record, before: Content) -> Result<()> {
        for generation in &record.live {
            let line = self.line(generation);
            let foreign =
                line.proof.is_ok() && process::is_foreign(generation, &self.world, self.launcher);
            if let Some(why) = line.refusal(foreign, before) {
                return Err(Error::new(
                    ErrorKind::AlreadyRunning,
                    format!(
                        "cannot take over {:?} (started): generation {} with daemon {} and launcher {} {why}",
                        self.pid_file,
                        generation.number,
                        generation.daemon.pid,
                        generation.launcher.pid,
                    ),
                ));
            }
        }
        Ok(())
    }

    /// TERM to an older generation of this service, and to nobody else. `bound`: see
    /// [`LockFile::bound`]. One that may not be signalled finds out when it looks round, and its
    /// end can be awaited all the same.
    fn stop(&self, generation: &Generation, bound: Option<u32>, before: Content) -> Option<Held> {
        let pid = generation.daemon.pid;
        let own = process::own_pid();
        if process::is_foreign(generation, &self.world, self.launcher) {
            note!(
                Warn,
                "stage=takeover daemon={own} predecessor={pid} refused=\"is supervised by somebody else\""
            );
            return None;
        }
        let (sent, held) = match self.prove(generation) {
            Ok(held) => {
                if let Some(owner) = bound {
                    if !process::is_of(pid, owner).unwrap_or(false) {
                        note!(
                            Warn,
                            "stage=takeover daemon={own} predecessor={pid} refused=\"the record \
                             belongs to uid {owner}, the process does not\"",
                        );
                        return Some(held);
                    }
                }
                (held.signal(SIGTERM), Some(held))
            }
            Err(Unproven::Gone) => return None,
            // Without pidfds or /proc, the lock on the PID file tells that its owner lives.
            Err(Unproven::Unknown) if bound.is_none() && before.is_held_by(pid) => {
                (process::signal_owner(pid, SIGTERM), None)
            }
            Err(unproven) => {
                note!(Warn, "stage=takeover daemon={own} predecessor={pid} refused={unproven:?}");
                return None;
            }
        };
        match sent {
            Ok(()) => note!(
                Info,
                "stage=takeover daemon={own} predecessor={pid} predecessor_generation={} signal=TERM",
                generation.number,
            ),
            // It looks round each second and then finds us.
            Err(error) => note!(
                Warn,
                "stage=takeover daemon={own} predecessor={pid} signal=TERM error=\"{error}\"",
            ),
        }
        held
    }

    /// The process is ending, and its thread for signals sees to it.
    pub(super) fn never_started(&self) -> ! {
        lock(&self.files).lock_file.give_up_if_held();
        loop {
            thread::park();
        }
    }

    /// TERM to every older generation; returns those whose end can be awaited. Who stops while it
    /// starts gives up the claim first: those that it waits for look round under it.
    pub(super) fn stop_older(&self) -> Vec<Held> {
        let mut files = lock(&self.files);
        files.lock_file.give_up_if_held();
        let Ok(record) = self.read_record(&files.lock_file).inspect_err(|error| {
            note!(Warn, "stage=stop daemon={} error=\"{error}\"", process::own_pid())
        }) else {
            return Vec::new();
        };
        let Ok(bound) = files.lock_file.bound() else {
            return Vec::new(); // it is open: this cannot fail
        };
        let before = pid_file::read(&self.pid_file).unwrap_or_default();
        let number = self.number();
        let older = record.live.iter().filter(|one| {
            takeover::is_older(one.number, one.daemon.start, number, self.identity.start)
        });
        older.filter_map(|one| self.stop(one, bound, before)).collect()
    }

    /// A look round, under the claim.
    pub(super) fn look(&self, files: &mut Files, supervisor: Reading) -> Result<Finding> {
        let mut record = self.read_record(&files.lock_file)?;
        let own = Own {
            number: self.number().unwrap_or(0),
            identity: self.identity,
            last_claim: files.last_claim,
            stranger: files.stranger,
        };
        let lines: Vec<Line> = record.live.iter().map(|one| self.line(one)).collect();
        let content = pid_file::read(&self.pid_file).ok();
        let lives = |pid| process::identity(pid).is_some();
        let seen = takeover::look(own, record.last, &lines, content, lives);
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
        Ok(Finding::Seen { newer, lost_file, claims_moved, supervisor })
    }

    /// Under the claim.
    pub(super) fn put_back(&self, files: &mut Files) -> Result<()> {
        files.pid_file = Some(PidFile::install(&self.pid_file)?);
        note!(
            Warn,
            "stage=check daemon={} path={:?} reason=\"the PID file named no live generation: ours is \
             back\"",
            process::own_pid(),
            self.pid_file,
        );
        Ok(())
    }

    pub(super) fn number(&self) -> Option<u64> {
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
            more: Vec::new(),
        }
    }
}
