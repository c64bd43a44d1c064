//! The launcher's parent: which kind of supervisor it is, whether it lives, and what its status says.

use super::process::{self, Held};
use super::shortage::note_shortage;
use super::{proc, systemctl, way_up};
use crate::proto::channel::Hello;
use crate::proto::generation::record::Identity;
use crate::proto::shell::quote;
use crate::proto::supervisor::systemd::Unit;
use crate::proto::supervisor::{Adopts, NamedBy, Tells, above, supervise};
use crate::proto::{Kind, Reading};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) kind: Kind,
    /// Why it counts as nobody, if its place alone does not tell.
    pub(crate) nobody_because: Option<&'static str>,
    /// The name of its process.
    pub(crate) name: Option<String>,
    pub(crate) identity: Option<Identity>,
    held: Option<Held>,
    /// Where `supervise/` is, for kinds that have one.
    folder: Option<PathBuf>,
    /// The service, for kinds that have units.
    pub(crate) unit: Option<Unit>,
    /// How often a detached daemon has asked about its unit, and the last answer.
    told: Mutex<(u32, Option<Reading>)>,
    /// The last answer was that the system goes down.
    going_down: AtomicBool,
    /// Set in the launcher only: its parent at the start. If it has another parent later, the supervisor
    /// has ended.
    parent: Option<i32>,
}

/// The unit of this process, if its supervisor has units. The system's manager is PID 1. The control group
/// may not tell a user's manager inside of a container, so its PID counts as well.
fn unit_of(kind: Kind, pid: i32, supervisor: Option<Identity>) -> Option<Unit> {
    let unit = matches!(kind.tells, Tells::Job).then(|| systemctl::unit_of(pid)).flatten();
    let Unit { name, user } = unit?;
    let parent = supervisor.map(|one| one.pid);
    let is_it = |pid: &i32| kind_of(*pid) == Some(kind);
    let manager = parent.filter(is_it).or_else(|| proc::parent_of(parent?).filter(is_it));
    Some(Unit { name, user: user || manager.is_some_and(|pid| pid != 1) })
}

/// By the name of the process.
fn kind_of(pid: i32) -> Option<Kind> {
    Kind::of_process(&proc::name(pid).ok()?)
}

/// The kind of the supervisor that has started this script. `None` if it would signal the script instead
/// of the service.
fn kind_above_script(script: i32) -> Option<Kind> {
    kind_of(proc::parent_of(script)?).filter(|kind| kind.reaches_past_scripts)
}

fn group_of(pid: i32) -> Option<nix::unistd::Pid> {
    nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).ok()
}

/// What supervises the folder that this process stands in; `None` if it is no service folder. Each kind
/// that has one makes `supervise/` beside `run`, starts `run` there, and writes a status of its own
/// length.
fn kind_of_folder(pid: i32) -> Option<Kind> {
    let folder = PathBuf::from(format!("/proc/{pid}/cwd"));
    let status = folder.join("supervise/status");
    if !folder.join("run").exists() || !folder.join("supervise").is_dir() {
        return None;
    }
    Some(Kind::of_status_file(fs::metadata(status).ok().map(|about| about.len())))
}

/// Has systemd itself started this process? Then no other process has adopted it (`systemd.exec(5)`).
fn is_started_by_systemd(own: i32) -> bool {
    std::env::var("SYSTEMD_EXEC_PID").is_ok_and(|pid| pid == own.to_string())
}

/// The kind of a supervisor that `/proc` hides from us (`hidepid`, `ProtectProc=`): another user's process.
fn kind_by_traces(launcher: i32, parent: i32) -> Option<Kind> {
    if launcher == process::own_pid() && is_started_by_systemd(launcher) {
        return Kind::all().find(|kind| matches!(kind.tells, Tells::Job));
    }
    // PID 1 may have adopted what another supervisor left behind in its folder.
    if parent == 1 { None } else { kind_of_folder(launcher) }
}

impl Supervisor {
    /// The parent at the start of the launcher.
    ///
    /// Guards against a supervisor that has ended before this call, or ends during it. Such a supervisor
    /// counts as lost, and the process that has adopted us is not mistaken for it. Otherwise a successor
    /// would believe that somebody else supervises this service.
    ///
    /// `restarts`: what the program says of a parent that is no known supervisor.
    ///
    /// Fails if descriptors or memory are short: a launcher with a wrong idea of its supervisor would
    /// misunderstand every stop.
    pub(crate) fn find(restarts: Option<bool>) -> io::Result<Supervisor> {
        let (own, parent) = (process::own_pid(), process::parent_pid());
        let mut short = None;
        let found = Supervisor::look_at(own, parent, restarts, &mut short);
        let abandoned = if found.may_adopt(own, parent) { kind_of_folder(own) } else { None };
        match short {
            Some(error) => Err(error),
            None if abandoned.is_some() || process::parent_pid() != parent => {
                Ok(found.lost(own, abandoned))
            }
            None => Ok(Supervisor { parent: Some(parent), ..found }),
        }
    }

    /// Could this parent have adopted us from another? Not if systemd says that it has started us
    /// (`SYSTEMD_EXEC_PID`, `systemd.exec(5)`).
    fn may_adopt(&self, own: i32, parent: i32) -> bool {
        // The parent may be a script that the supervisor has started; a script adopts nobody.
        let is_itself = self.name.as_deref().and_then(Kind::of_process) == Some(self.kind);
        let adopts = match self.kind.adopts_orphans {
            Adopts::No => false,
            Adopts::AsPid1 => parent == 1,
            Adopts::Always => parent == 1 || is_itself,
        };
        adopts && !is_started_by_systemd(own)
    }

    /// The supervisor has ended. `kind`: what it was, if the folder tells; otherwise what was seen of it.
    fn lost(self, own: i32, kind: Option<Kind>) -> Supervisor {
        let kind = kind.unwrap_or(self.kind);
        let folder = self.folder.or_else(|| proc::folder(own).ok());
        Supervisor {
            folder: folder.filter(|_| kind.status_file().is_some()),
            ..Supervisor::new(kind, Some(Identity::GONE))
        }
    }

    /// One of which nothing else is known.
    fn new(kind: Kind, identity: Option<Identity>) -> Supervisor {
        Supervisor {
            kind,
            nobody_because: None,
            name: None,
            identity,
            held: None,
            folder: None,
            unit: None,
            told: Mutex::default(),
            going_down: AtomicBool::new(false),
            parent: None,
        }
    }

    /// The supervisor `parent` of another process: of a launcher, or of a daemon without launcher.
    pub(crate) fn of(launcher: i32, parent: i32) -> Supervisor {
        Supervisor::look_at(launcher, parent, None, &mut None)
    }

    /// `short`: set if something could not be read because descriptors or memory were short.
    fn look_at(
        launcher: i32,
        parent: i32,
        restarts: Option<bool>,
        short: &mut Option<io::Error>,
    ) -> Supervisor {
        let held = note_shortage(Held::open(parent), short);
        let name = note_shortage(proc::name(parent), short);
        let above = || {
            let is_shell = name.as_deref().is_some_and(way_up::is_shell);
            is_shell.then(|| kind_above_script(parent)).flatten()
        };
        let seen = match &name {
            Some(name) => Kind::of_process(name).or_else(above),
            None => kind_by_traces(launcher, parent),
        };
        let (kind, nobody_because) = match seen {
            Some(kind) if kind.starts_again.is_supervisor() => (kind, None),
            Some(_) | None => above::decide(seen, &way_up::look(launcher, parent, short), restarts),
        };
        // The supervisor stands in the service folder. Only its own user and root may see that; but the run
        // script starts there as well.
        let folder = kind.status_file().and_then(|_| {
            note_shortage(proc::folder(parent), short)
                .or_else(|| note_shortage(proc::folder(launcher), short))
        });
        let identity = note_shortage(proc::try_identity(parent), short).flatten();
        let unit = unit_of(kind, launcher, identity);
        Supervisor { nobody_because, name, held, folder, unit, ..Supervisor::new(kind, identity) }
    }

    /// The launcher's supervisor, as its daemon knows it.
    pub(crate) fn from_hello(hello: &Hello, pidfd: Option<OwnedFd>) -> Supervisor {
        Supervisor {
            held: pidfd.map(Held::from_pidfd),
            folder: hello.folder.clone().map(|folder| std::ffi::OsString::from_vec(folder).into()),
            unit: unit_of(hello.kind, process::own_pid(), hello.supervisor),
            ..Supervisor::new(hello.kind, hello.supervisor)
        }
    }

    /// `in_place`: this launcher restarts in place.
    pub(crate) fn hello(&self, in_place: bool) -> (Hello, Option<BorrowedFd<'_>>) {
        let hello = Hello {
            kind: self.kind,
            launcher: proc::identity(process::own_pid()),
            supervisor: self.identity,
            in_place,
            takes_unhandled: true,
            folder: self.folder.as_ref().map(|folder| folder.as_os_str().as_bytes().to_vec()),
        };
        (hello, self.held.as_ref().map(AsFd::as_fd))
    }

    /// Is the parent a shell that waits for us, that is a run script without `exec`? A shell at a terminal is
    /// none: it gives each job a process group of its own. Nor is one that catches TERM: it passes it on.
    pub(crate) fn is_script(&self) -> bool {
        self.parent.is_some_and(|parent| self.is_script_above(process::own_pid(), parent))
    }

    /// The same for another process, `launcher`.
    pub(crate) fn is_script_above(&self, launcher: i32, parent: i32) -> bool {
        self.is_shell(parent)
            && group_of(launcher).is_some()
            && group_of(launcher) == group_of(parent)
            && !proc::catches(parent, nix::libc::SIGTERM).unwrap_or(false)
    }

    fn is_shell(&self, parent: i32) -> bool {
        // The process of a script has the name of its file, `run`. The first word of its command line is
        // the shell.
        self.name.as_deref().is_some_and(way_up::is_shell)
            || proc::program(parent).as_deref().is_some_and(way_up::is_shell)
    }

    /// Is this launcher a job of a shell at a terminal? Such a shell starts nothing again.
    pub(crate) fn is_at_terminal(&self, launcher: i32) -> bool {
        let Some(parent) = self.pid().filter(|_| self.kind == Kind::OTHER) else { return false };
        let is_job = group_of(launcher).is_some() && group_of(launcher) != group_of(parent);
        is_job && self.is_shell(parent) && proc::has_terminal(launcher)
    }

    /// `None` if it had ended before we saw it, or has no number in our PID namespace.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.identity.filter(|one| *one != Identity::GONE).map(|one| one.pid)
    }

    /// Had it ended before its launcher saw it?
    pub(crate) fn is_gone(&self) -> bool {
        self.identity == Some(Identity::GONE)
    }

    /// The folder that holds `supervise/`, for kinds that have one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// After so long a stop is followed by KILL. `None`: never, or it cannot be read.
    pub(crate) fn kill_limit(&self) -> Option<Duration> {
        let file = self.folder()?.join(self.kind.kill_limit_file?);
        supervise::kill_limit(&fs::read_to_string(file).ok()?)
    }

    fn is_lost(&self) -> bool {
        if self.parent.is_some_and(|parent| process::parent_pid() != parent) {
            return true;
        }
        match (&self.held, self.identity) {
            (Some(held), _) => held.has_ended(),
            (None, Some(identity)) => {
                fs::exists("/proc/self").unwrap_or(false)
                    && proc::try_identity(identity.pid).is_ok_and(|now| match now {
                        Some(now) => now != identity,
                        None => !process::exists(identity.pid), // it may be hidden (hidepid of `proc(5)`)
                    })
            }
            (None, None) => false,
        }
    }

    /// Is the supervisor asked by a program, which may take a second? Otherwise it is a small file.
    pub(crate) fn is_asked_by_program(&self) -> bool {
        self.unit.is_some()
    }

    /// What the supervisor wants. `main_pid`: the process that its status must be about, or `None` for a
    /// detached daemon.
    pub(crate) fn read(&self, main_pid: Option<i32>) -> Reading {
        let told = match (&self.unit, main_pid) {
            (Some(unit), None) => self.ask_sparingly(unit),
            (Some(_) | None, _) => None,
        };
        if let Some(reading) = told {
            return reading;
        }
        let read = match (&self.unit, main_pid, self.is_lost()) {
            (_, Some(_), true) => return Reading::Lost,
            (_, None, true) => {
                return Reading::after_loss(
                    self.read_status(None, false),
                    self.parse_status(Some(0)),
                );
            }
            (Some(unit), Some(_), false) => self.ask_for_launcher(unit, main_pid),
            (Some(_), None, false) => None,
            (None, _, false) => self.read_status(main_pid, self.held.is_some()),
        };
        read.unwrap_or(Reading::Unreadable)
    }

    /// For a detached daemon, which checks once a second. Each question costs a process. So systemd is asked
    /// at each of the first 60 checks, when an operator or a deploy is most likely at work, and at every
    /// tenth check after that. Without an answer, the last one holds: a question may fail although systemd wants the
    /// service up.
    fn ask_sparingly(&self, unit: &Unit) -> Option<Reading> {
        let mut told = self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if told.0 < 60 || told.0 % 10 == 0 {
            told.1 = systemctl::read(unit, None).or(told.1);
        }
        told.0 = told.0.wrapping_add(1);
        told.1
    }

    /// A stop may be part of a shutdown, which must not be held up.
    fn ask_for_launcher(&self, unit: &Unit, main_pid: Option<i32>) -> Option<Reading> {
        let reading = systemctl::read(unit, main_pid);
        if reading == Some(Reading::Down) && systemctl::is_going_down(unit) {
            self.going_down.store(true, Ordering::SeqCst);
        }
        reading
    }

    /// Has the supervisor said, when it was asked last, that the system goes down?
    pub(crate) fn is_going_down(&self) -> bool {
        self.going_down.load(Ordering::SeqCst)
    }

    /// `lives`: the supervisor's process is known to live.
    fn read_status(&self, main_pid: Option<i32>, lives: bool) -> Option<Reading> {
        let folder = self.folder.as_ref()?.join("supervise");
        // If no supervisor lives, the status is what the last one has left behind. Then its pipe has no
        // reader. If we may not open the pipe, only one that is known to live counts.
        let ok = OpenOptions::new()
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(folder.join(self.kind.status_file()?.pipe));
        match ok.map_err(|error| error.raw_os_error().map(Errno::from_raw)) {
            Ok(_) => {}
            Err(Some(Errno::EACCES)) if lives => {}
            Err(_) => return None,
        }
        self.parse_status(main_pid)
    }

    fn parse_status(&self, main_pid: Option<i32>) -> Option<Reading> {
        let parse = self.kind.status_file()?.parse;
        let folder = self.folder.as_ref()?.join("supervise");
        let mut status = Vec::new();
        File::open(folder.join("status")).ok()?.take(64).read_to_end(&mut status).ok()?;
        parse(&status, main_pid)
    }

    /// The signal that the supervisor sends instead of TERM, if the service folder names another one, and
    /// what that means.
    pub(crate) fn other_signal(&self) -> Option<(String, &'static str)> {
        let file = self.kind.signal_file.as_ref()?;
        let signal = fs::read_to_string(self.folder.as_ref()?.join(file.name)).ok()?;
        (!supervise::is_understood(&signal)).then(|| (signal.trim().to_owned(), file.warning))
    }
}

/// What the service of this process is called in a command, for a shell. `child`: the launcher or its daemon,
/// whose environment tells it under some kinds. `None` if it is unknown.
pub(crate) fn named(
    named_by: &NamedBy,
    folder: Option<&Path>,
    unit: Option<&Unit>,
    child: i32,
) -> Option<String> {
    let variable = |name| proc::variable(child, name).map(|value| quote(&value));
    match named_by {
        NamedBy::Folder => Some(quote(&folder?.to_string_lossy())),
        NamedBy::Unit => {
            let Unit { name, user } = unit?;
            let user = if *user { "--user " } else { "" };
            Some(format!("{user}{}", quote(name)))
        }
        NamedBy::Variable { name, group } => {
            let name = variable(name)?;
            Some(match group.and_then(variable) {
                Some(group) if group != name => format!("{group}:{name}"),
                _ => name,
            })
        }
    }
}

/// `runit (process 7)`, and the command by which an operator restarts the service under it. `pid`: the
/// supervisor; `child`: the launcher or its daemon.
pub(crate) fn in_words(child: i32, pid: i32) -> (String, Option<String>) {
    let supervisor = Supervisor::of(child, pid);
    let what = match &supervisor.name {
        _ if supervisor.kind != Kind::OTHER => supervisor.kind.name,
        Some(name) => name,
        None => "an unknown program",
    };
    let command = supervisor.kind.commands.as_ref().and_then(|commands| {
        let (folder, unit) = (supervisor.folder(), supervisor.unit.as_ref());
        let service = named(&commands.service, folder, unit, child)?;
        Some(commands.restart.replace("{}", &service))
    });
    (format!("{what} (process {pid})"), command)
}

#[cfg(test)]
mod tests;
