//! The launcher's parent: who it is, whether it lives, and what its status says.

use super::process::{self, Held};
use super::shortage::is_shortage;
use super::{proc, systemctl};
use crate::proto::channel::Hello;
use crate::proto::generation::record::Identity;
use crate::proto::supervisor::supervise;
use crate::proto::supervisor::systemd::Unit;
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

#[derive(Debug)]
pub(crate) struct Supervisor {
    pub(crate) kind: Kind,
    pub(crate) name: Option<String>,
    pub(crate) identity: Option<Identity>,
    held: Option<Held>,
    /// Where `supervise/` is, for kinds that have one.
    folder: Option<PathBuf>,
    /// Of systemd: the service.
    pub(crate) unit: Option<Unit>,
    /// What systemd has told a detached daemon, and how often it was asked.
    told: Mutex<(u32, Option<Reading>)>,
    /// The launcher, seen from itself: then a change of parent tells that the supervisor is gone.
    parent: Option<i32>,
}

const SHELLS: [&str; 7] = ["sh", "bash", "dash", "ash", "ksh", "zsh", "busybox"];

/// The service that this process is, where systemd is its supervisor. The system's manager is PID 1; a
/// user's may be so far inside of a container that no control group tells.
fn unit_of(kind: Kind, pid: i32, supervisor: Option<Identity>) -> Option<Unit> {
    let unit = (kind == Kind::Systemd).then(|| systemctl::unit_of(pid)).flatten();
    let Unit { name, user } = unit?;
    let manager = supervisor.and_then(|one| manager_at(one.pid));
    Some(Unit { name, user: user || manager.is_some_and(|pid| pid != 1) })
}

/// systemd, where this is it, or a script that it has started without `exec`.
fn manager_at(parent: i32) -> Option<i32> {
    let is_systemd = |pid: &i32| proc::name(*pid).is_ok_and(|name| name == "systemd");
    let above = || proc::parent_of(parent).filter(is_systemd);
    Some(parent).filter(is_systemd).or_else(above)
}

/// What supervises the folder that this process stands in; `None` where it is no service's. Each of
/// them makes `supervise/` beside `run`, starts `run` there, and writes a status of its own length.
fn kind_of_folder(pid: i32) -> Option<Kind> {
    let folder = PathBuf::from(format!("/proc/{pid}/cwd"));
    let status = folder.join("supervise/status");
    if !folder.join("run").exists() || !folder.join("supervise").is_dir() {
        return None;
    }
    Some(match fs::metadata(status).map(|about| about.len()) {
        Ok(35 | 43) => Kind::S6,
        Ok(20) => Kind::Runit,
        Ok(_) | Err(_) => Kind::Daemontools,
    })
}

fn unless_short<T>(looked: io::Result<T>, short: &mut Option<io::Error>) -> Option<T> {
    match looked {
        Ok(seen) => Some(seen),
        Err(error) => {
            *short = Some(error).filter(is_shortage).or_else(|| short.take());
            None
        }
    }
}

impl Supervisor {
    /// The parent at the start. Guards against a supervisor that has ended already, or ends
    /// meanwhile: it counts as lost, and whoever adopts its orphans is not taken for it. Then no
    /// successor takes this service for somebody else's. An error where it cannot be known for now:
    /// a launcher that took its supervisor for another would misunderstand each stop.
    pub(crate) fn find() -> io::Result<Supervisor> {
        let (own, parent) = (process::own_pid(), process::parent_pid());
        let mut short = None;
        let found = Supervisor::look_at(own, parent, &mut short);
        let abandoned = if found.may_adopt(own, parent) { kind_of_folder(own) } else { None };
        match short {
            Some(error) => Err(error),
            None if abandoned.is_some() || process::parent_pid() != parent => {
                Ok(found.lost(own, abandoned))
            }
            None => Ok(Supervisor { parent: Some(parent), ..found }),
        }
    }

    /// Could this parent have adopted us from another? PID 1 does, and a user's systemd; but not what
    /// it has started itself (`SYSTEMD_EXEC_PID`, `systemd.exec(5)`).
    fn may_adopt(&self, own: i32, parent: i32) -> bool {
        let is_started = std::env::var("SYSTEMD_EXEC_PID").is_ok_and(|pid| pid == own.to_string());
        match self.kind {
            Kind::Nobody | Kind::Systemd | Kind::Other => {
                (parent == 1 || self.name.as_deref() == Some("systemd")) && !is_started
            }
            Kind::Daemontools | Kind::Runit | Kind::S6 | Kind::Supervisord | Kind::OpenRc => false,
        }
    }

    /// The same without a supervisor. `kind`: what it must have been.
    fn lost(self, own: i32, kind: Option<Kind>) -> Supervisor {
        let kind = kind.unwrap_or(self.kind);
        let folder = self.folder.or_else(|| proc::folder(own).ok());
        Supervisor {
            kind,
            name: None,
            identity: Some(Identity::GONE),
            held: None,
            folder: folder.filter(|_| kind.restarts()),
            unit: None,
            told: Mutex::default(),
            parent: None,
        }
    }

    /// What this parent is to this launcher, or to a daemon that has lost its own; seen by anybody.
    #[cfg(feature = "command")]
    pub(crate) fn of(launcher: i32, parent: i32) -> Supervisor {
        Supervisor::look_at(launcher, parent, &mut None)
    }

    /// `short`: set where something could not be had for want of descriptors or memory.
    fn look_at(launcher: i32, parent: i32, short: &mut Option<io::Error>) -> Supervisor {
        let held = unless_short(Held::open(parent), short);
        let name = unless_short(proc::name(parent), short);
        let kind = match name.as_deref() {
            Some("supervise") => Kind::Daemontools,
            Some("runsv") => Kind::Runit,
            Some("s6-supervise") => Kind::S6,
            Some("systemd") => Kind::Systemd,
            Some("supervisord") => Kind::Supervisord,
            // The kernel keeps 15 bytes of `supervise-daemon`.
            Some("supervise-daemo") => Kind::OpenRc,
            Some("init") => Kind::Other,
            // Told who we are (MAINPID), systemd signals us and not its script, which may end first.
            Some(name) if SHELLS.contains(&name) && manager_at(parent).is_some() => Kind::Systemd,
            // Any other PID 1 is a container's.
            _ if parent <= 1 || launcher == 1 => Kind::Nobody,
            _ => Kind::Other,
        };
        // Its own folder is the service's; it can be read by the same user and by root only. A run
        // script starts there as well.
        let folder = kind.restarts().then(|| {
            unless_short(proc::folder(parent), short)
                .or_else(|| unless_short(proc::folder(launcher), short))
        });
        let identity = unless_short(proc::try_identity(parent), short).flatten();
        Supervisor {
            kind,
            name,
            identity,
            held,
            folder: folder.flatten(),
            unit: unit_of(kind, launcher, identity),
            told: Mutex::default(),
            parent: None,
        }
    }

    /// The launcher's supervisor, as its daemon knows it.
    pub(crate) fn from_hello(hello: &Hello, pidfd: Option<OwnedFd>) -> Supervisor {
        Supervisor {
            kind: hello.kind,
            name: None,
            identity: hello.supervisor,
            held: pidfd.map(Held::from_pidfd),
            folder: hello.folder.clone().map(|folder| std::ffi::OsString::from_vec(folder).into()),
            unit: unit_of(hello.kind, process::own_pid(), hello.supervisor),
            told: Mutex::default(),
            parent: None,
        }
    }

    /// `in_place`: this launcher restarts in place.
    pub(crate) fn hello(&self, in_place: bool) -> (Hello, Option<BorrowedFd<'_>>) {
        let hello = Hello {
            kind: self.kind,
            launcher: proc::identity(process::own_pid()),
            supervisor: self.identity,
            in_place,
            folder: self.folder.as_ref().map(|folder| folder.as_os_str().as_bytes().to_vec()),
        };
        (hello, self.held.as_ref().map(AsFd::as_fd))
    }

    /// A shell that waits for us: a run script without `exec`. A shell at a terminal gives each
    /// job a process group of its own and is none.
    pub(crate) fn is_script(&self) -> bool {
        self.parent.is_some_and(|parent| self.is_script_above(process::own_pid(), parent))
    }

    /// The same, seen by anybody.
    pub(crate) fn is_script_above(&self, launcher: i32, parent: i32) -> bool {
        use nix::unistd::{Pid, getpgid};
        let is_shell = |name: &str| SHELLS.contains(&name);
        // A script's name is that of its file, `run`; its first word is the shell.
        let is_shell = self.name.as_deref().is_some_and(is_shell)
            || proc::program(parent).as_deref().is_some_and(is_shell);
        let group = |pid| getpgid(Some(Pid::from_raw(pid))).ok();
        is_shell && group(launcher).is_some() && group(launcher) == group(parent)
    }

    /// `None` where it had ended before it was seen, or is in no PID namespace of ours.
    pub(crate) fn pid(&self) -> Option<i32> {
        self.identity.filter(|one| *one != Identity::GONE).map(|one| one.pid)
    }

    /// It had ended before its launcher saw it.
    pub(crate) fn is_gone(&self) -> bool {
        self.identity == Some(Identity::GONE)
    }

    /// The folder that holds `supervise/`, for kinds that have one.
    pub(crate) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    fn is_lost(&self) -> bool {
        if self.parent.is_some_and(|parent| process::parent_pid() != parent) {
            return true;
        }
        match (&self.held, self.identity) {
            (Some(held), _) => held.has_ended(),
            (None, Some(identity)) => {
                fs::exists("/proc/self").unwrap_or(false)
                    && proc::try_identity(identity.pid).is_ok_and(|now| now != Some(identity))
            }
            (None, None) => false,
        }
    }

    /// Does an answer take a program, and so perhaps a second? Otherwise it is a small file.
    pub(crate) fn is_asked_by_program(&self) -> bool {
        self.unit.is_some()
    }

    /// What the supervisor wants. `main_pid`: the process that its status must be about; a
    /// detached daemon knows none.
    pub(crate) fn read(&self, main_pid: Option<i32>) -> Reading {
        let told = match (&self.unit, main_pid) {
            (Some(unit), None) => self.ask_sparingly(unit),
            (Some(_) | None, _) => None,
        };
        if let Some(reading) = told {
            return reading;
        }
        if !self.is_lost() {
            let read = match (&self.unit, main_pid) {
                (Some(unit), Some(_)) => systemctl::read(unit, main_pid),
                (Some(_), None) => None,
                (None, _) => self.read_status(main_pid),
            };
            return read.unwrap_or(Reading::Unreadable);
        }
        // It may have taken the service down as its last act: `svc -dx`, `sv exit`. Or whoever has
        // succeeded it wants the service down.
        match self.parse_status(Some(0)) {
            Some(Reading::Down) if main_pid.is_none() => Reading::Down,
            Some(_) | None => Reading::Lost,
        }
    }

    /// For a detached daemon, which looks each second: a process each time, for a minute; then each
    /// tenth time. What systemd wants changes where people or deploys are at work.
    fn ask_sparingly(&self, unit: &Unit) -> Option<Reading> {
        let mut told = self.told.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if told.0 < 60 || told.0 % 10 == 0 {
            told.1 = systemctl::read(unit, None);
        }
        told.0 = told.0.wrapping_add(1);
        told.1
    }

    fn read_status(&self, main_pid: Option<i32>) -> Option<Reading> {
        let folder = self.folder.as_ref()?.join("supervise");
        // A status without a supervisor is what the last one left behind. Whether `ok` has a reader
        // may not be ours to ask; then the supervisor's own life must do. s6 has no `ok`, and reads
        // its commands from `control` as long as it lives (`s6-svok(1)`).
        let pipe = if self.kind == Kind::S6 { "control" } else { "ok" };
        let ok = OpenOptions::new()
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(folder.join(pipe));
        match ok.map_err(|error| error.raw_os_error().map(Errno::from_raw)) {
            Ok(_) => {}
            Err(Some(Errno::EACCES)) if self.held.is_some() => {}
            Err(_) => return None,
        }
        self.parse_status(main_pid)
    }

    fn parse_status(&self, main_pid: Option<i32>) -> Option<Reading> {
        let folder = self.folder.as_ref()?.join("supervise");
        let mut status = Vec::new();
        File::open(folder.join("status")).ok()?.take(64).read_to_end(&mut status).ok()?;
        match self.kind {
            Kind::S6 => supervise::parse_s6_status(&status, main_pid),
            _ => supervise::parse_status(&status, main_pid),
        }
    }

    /// The signal that s6 sends instead of TERM, where the service folder names another one
    /// (`servicedir(7)`, `down-signal`).
    pub(crate) fn other_down_signal(&self) -> Option<String> {
        let folder = self.folder.as_ref().filter(|_| self.kind == Kind::S6)?;
        let signal = fs::read_to_string(folder.join("down-signal")).ok()?;
        (!supervise::is_term(&signal)).then(|| signal.trim().to_owned())
    }
}
