//! The supervisor of a service, and the commands by which it is told.

use super::status::Status;
use crate::proto::supervisor::systemd::Unit;
use crate::proto::{Kind, Reading};
use crate::sys::supervisor;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Who supervises a generation, as far as it is known. See
/// [`Generation::supervisor`](super::Generation::supervisor).
///
/// Its [`Display`](fmt::Display) is for people: `7 (runsv, runit), wants it up, /service/web`.
#[derive(Clone, Debug)]
pub struct Supervisor {
    pid: i32,
    name: Option<String>,
    /// The word of the daemon, or what is seen from here.
    kind: String,
    wants: String,
    folder: Option<PathBuf>,
    unit: Option<Unit>,
    known: Kind,
    /// The launcher, or its daemon: whose environment tells the names of the service.
    child: i32,
    is_script: bool,
}

/// What an operator wants of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wish {
    /// A new generation.
    Restart,
    /// No generation, until the service is started again.
    Stop,
}

impl Supervisor {
    /// The process `pid`, as the supervisor of this daemon and of the launcher that it has or had.
    /// What the daemon says of it counts more than what can be seen from here.
    pub(super) fn of(
        pid: i32,
        (daemon, listed): (i32, i32),
        launcher: Option<i32>,
        status: Option<&Status>,
    ) -> Supervisor {
        // What the launcher has left behind is the daemon's as well.
        let child = launcher.unwrap_or(daemon);
        let seen = supervisor::Supervisor::of(child, pid);
        let status = status.map(|status| &status.0);
        let wants = match seen.read(launcher) {
            Reading::Up => "up",
            Reading::Down => "down",
            Reading::Unreadable => {
                status.and_then(|status| status.supervisor_wants.as_deref()).unwrap_or("unreadable")
            }
            Reading::Lost => "lost",
        };
        // The launcher may have been told by its program what its parent is.
        let kind = status.and_then(|status| status.supervisor_kind.as_deref());
        let known = kind.and_then(Kind::from_name).unwrap_or(seen.kind);
        let folder = seen.folder().map(PathBuf::from);
        Supervisor {
            pid,
            kind: kind.unwrap_or(seen.kind.name).to_owned(),
            wants: wants.to_owned(),
            folder: folder.or_else(|| {
                let folder = status?.service_folder.clone()?;
                Some(OsString::from_vec(folder).into())
            }),
            is_script: seen.is_script_above(listed, pid),
            name: seen.name,
            unit: seen.unit,
            known,
            child,
        }
    }

    /// Its PID.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The name of its program; `None` without `/proc`.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// `daemontools`, `runit`, `s6`, `systemd`, `supervisord` or `openrc`. `nobody` is a process that
    /// starts nothing again, like the main process of a container. `other` is an unknown one.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What its status says of the service: `up` or `down`. `unreadable` means that it has no
    /// status, or none that we may read; `lost`, that it has ended.
    pub fn wants(&self) -> &str {
        &self.wants
    }

    /// The folder of the service, which holds `run` and `supervise/`; `None` for kinds that have
    /// none.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The systemd unit, like `web.service`.
    pub fn unit(&self) -> Option<&str> {
        self.unit.as_ref().map(|unit| unit.name.as_str())
    }

    /// Whether it would start the service again at once if this daemon ended by itself.
    pub fn starts_again(&self) -> bool {
        self.known.starts_again.is_possible(self.wants == "down")
    }

    /// The command by which an operator tells it so, for a shell: `svc -d /service/web`. `None` if it
    /// has none, or the name of the service is unknown.
    pub fn command(&self, wish: Wish) -> Option<String> {
        let commands = self.known.commands.as_ref()?;
        let command = match wish {
            Wish::Restart => commands.restart,
            Wish::Stop => commands.stop,
        };
        let folder = self.folder.as_deref();
        let service = supervisor::named(&commands.service, folder, self.unit.as_ref(), self.child);
        Some(command.replace("{}", &service?))
    }

    pub(super) fn known(&self) -> Kind {
        self.known
    }

    pub(super) fn systemd_unit(&self) -> Option<&Unit> {
        self.unit.as_ref()
    }

    /// It is a shell that waits for its run script.
    pub(super) fn is_script(&self) -> bool {
        self.is_script
    }
}

impl fmt::Display for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("unknown");
        write!(f, "{} ({name}", self.pid)?;
        if self.kind != name {
            write!(f, ", {}", self.kind)?;
        }
        f.write_str(")")?;
        match self.wants.as_str() {
            "up" | "down" => write!(f, ", wants it {}", self.wants)?,
            _ => {}
        }
        if let Some(unit) = &self.unit {
            write!(f, ", {}", unit.name)?;
        }
        if let Some(folder) = &self.folder {
            write!(f, ", {}", folder.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
