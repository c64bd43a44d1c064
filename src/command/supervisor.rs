//! The supervisor of a service, and what to tell it.

use super::look::Live;
use super::words::quote;
use crate::proto::control::status::Status;
use crate::proto::supervisor::systemd::Unit;
use crate::proto::{Kind, Reading};
use crate::sys::proc;
use crate::sys::supervisor::Supervisor;
use serde::{Serialize, Serializer};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Who supervises, as far as it can be known.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Supervising {
    pub(super) pid: i32,
    /// Of its program.
    pub(super) name: Option<String>,
    /// `daemontools`, `runit`, …; `nobody`: one that starts nothing again; `other`: unknown.
    pub(super) kind: String,
    /// `up`, `down`, `unreadable` or `lost`: what its status says of the service.
    pub(super) wants: String,
    /// The folder of the service, where it has one.
    pub(super) folder: Option<PathBuf>,
    /// The systemd unit.
    #[serde(serialize_with = "unit_name")]
    pub(super) unit: Option<Unit>,
    #[serde(skip)]
    pub(super) known: Kind,
    /// The launcher, or its daemon: whose environment tells the names of the service.
    #[serde(skip)]
    child: i32,
}

/// What somebody wants of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Restart,
    Stop,
}

fn unit_name<S: Serializer>(unit: &Option<Unit>, serializer: S) -> Result<S::Ok, S::Error> {
    unit.as_ref().map(|unit| &unit.name).serialize(serializer)
}

impl Supervising {
    /// Of this generation; `None` where it has none any more. What the daemon says of it counts
    /// more than what can be seen from here.
    pub(super) fn of(live: &Live, status: Option<&Status>) -> Option<Supervising> {
        let identity = live.generation.supervisor?;
        if proc::identity(identity.pid) != Some(identity) {
            return None;
        }
        let launcher = live.is_attached(status).then_some(live.generation.launcher.pid);
        // What the launcher has left behind is the daemon's as well.
        let child = launcher.unwrap_or(live.pid());
        let seen = Supervisor::of(child, identity.pid);
        let wants = match seen.read(launcher) {
            Reading::Up => "up",
            Reading::Down => "down",
            Reading::Unreadable => "unreadable",
            Reading::Lost => "lost",
        };
        let said = |field: fn(&Status) -> Option<&String>| status.and_then(field).cloned();
        let folder = seen.folder().map(PathBuf::from);
        Some(Supervising {
            pid: identity.pid,
            name: seen.name.clone(),
            kind: said(|status| status.supervisor_kind.as_ref())
                .unwrap_or_else(|| seen.kind.name().to_owned()),
            wants: match wants {
                "unreadable" => said(|status| status.supervisor_wants.as_ref()),
                _ => None,
            }
            .unwrap_or_else(|| wants.to_owned()),
            folder: folder.or_else(|| {
                let folder = status?.service_folder.clone()?;
                Some(OsString::from_vec(folder).into())
            }),
            unit: seen.unit.clone(),
            known: seen.kind,
            child,
        })
    }

    /// Would it start the service again if this daemon ended by itself?
    pub(super) fn restarts(&self) -> bool {
        match self.known {
            Kind::Daemontools | Kind::Runit | Kind::S6 => self.wants != "down",
            Kind::Systemd | Kind::Supervisord | Kind::OpenRc => true,
            Kind::Nobody | Kind::Other => false,
        }
    }

    /// The command by which its operator does that.
    pub(super) fn command(&self, wish: Wish) -> Option<String> {
        let folder = self.folder.as_ref().map(|folder| quote(&folder.to_string_lossy()));
        let stops = wish == Wish::Stop;
        let either = |stop: &str, restart: &str| if stops { stop } else { restart }.to_owned();
        let variable = |name| proc::variable(self.child, name).map(|value| quote(&value));
        match self.known {
            Kind::Daemontools => Some(format!("svc {} {}", either("-d", "-t"), folder?)),
            Kind::Runit => Some(format!("sv {} {}", either("down", "term"), folder?)),
            Kind::S6 => Some(format!("s6-svc {} {}", either("-d", "-t"), folder?)),
            Kind::Systemd => {
                let unit = self.unit.as_ref()?;
                let user = if unit.user { "--user " } else { "" };
                Some(format!("systemctl {user}{} {}", either("stop", "restart"), quote(&unit.name)))
            }
            Kind::Supervisord => {
                let name = variable("SUPERVISOR_PROCESS_NAME")?;
                let name = match variable("SUPERVISOR_GROUP_NAME") {
                    Some(group) if group != name => format!("{group}:{name}"),
                    _ => name,
                };
                // Its `restart` is a stop and then a start.
                Some(format!("supervisorctl {} {name}", either("stop", "signal TERM")))
            }
            Kind::OpenRc => {
                let name = variable("RC_SVCNAME")?;
                Some(format!("rc-service {name} {}", either("stop", "restart")))
            }
            Kind::Nobody | Kind::Other => None,
        }
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        let name = self.name.as_deref().unwrap_or("unknown");
        let mut text = format!("{} ({name}", self.pid);
        if self.kind != name {
            text += &format!(", {}", self.kind);
        }
        text.push(')');
        match self.wants.as_str() {
            "up" | "down" => text += &format!(", wants it {}", self.wants),
            _ => {}
        }
        if let Some(unit) = &self.unit {
            text += &format!(", {}", unit.name);
        }
        if let Some(folder) = &self.folder {
            text += &format!(", {}", folder.display());
        }
        text
    }
}
