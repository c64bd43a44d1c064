//! What there is to see of a service and its surroundings.

use crate::client::ask::NoAnswer;
use crate::client::look::{Generation, Look, Unread};
use crate::client::service::Service;
use crate::client::status::Status;
use crate::client::supervisor::Supervisor;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::Kind;
use crate::proto::control::frame::{self, Address, SocketKind};
use crate::proto::control::status;
use crate::proto::paths;
use crate::proto::sockets::fresh::{self, Refusal};
use crate::proto::supervisor::systemd::{self, Properties, Unit};
use crate::proto::supervisor::{StartsAgain, Tells};
use crate::sys::proc;
use crate::sys::surroundings::{self, About, Memory, Who};
use crate::sys::systemctl;
use crate::sys::unix_path;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a daemon may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

pub(super) const ROOT: u32 = 0;
pub(super) const WRITE: u32 = 2;
pub(super) const SEARCH: u32 = 1;

/// What there is to see. The judgement needs nothing else.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) path: PathBuf,
    pub(super) who: Who,
    pub(super) folder: PathBuf,
    pub(super) about_folder: Option<About>,
    pub(super) read_only: bool,
    /// `None`: not tried.
    pub(super) locks: Option<Result<(), String>>,
    pub(super) pid_file: Option<About>,
    pub(super) lock_file: Option<About>,
    /// Why it holds no record that can be used.
    pub(super) bad_record: Option<String>,
    /// `web.pid.sock`.
    pub(super) socket: Option<About>,
    pub(super) kernel: Kernel,
    pub(super) daemon: Option<Daemon>,
    pub(super) supervisor: Option<Parent>,
    pub(super) service: Option<ServiceFolder>,
    pub(super) unit: Option<Properties>,
}

#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) pidfds: Result<(), String>,
    pub(super) proc: Result<(), String>,
    pub(super) migrate: Option<u64>,
    pub(super) backlog: Option<u64>,
    pub(super) protected_regular: Option<u64>,
    pub(super) first_unprivileged_port: u16,
}

/// The newest generation, if one runs.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    pub(super) pid: i32,
    /// How many sockets it would transfer; `None` if it does not say.
    pub(super) held: Option<u64>,
    /// Where it listens by TCP, and a successor would not get that socket.
    pub(super) not_transferred: Vec<SocketAddr>,
    pub(super) file_limit: Option<u64>,
    /// It could not read the boot ID.
    pub(super) no_boot: bool,
    /// Its memory is limited, and if one process of its control group is killed for it, all are.
    pub(super) oom_group: bool,
    pub(super) in_place: bool,
    /// By which path its folder was entered is unknown.
    pub(super) unknown_folder: bool,
    /// It tells systemd how it goes; `None` if it does not say.
    pub(super) notifies: Option<bool>,
    pub(super) drain_timeout: Option<Duration>,
    pub(super) leave_time: Option<Duration>,
    pub(super) probation: Option<Duration>,
    /// What it uses, and what its control group may use; `None`: without a limit, or unknown.
    pub(super) memory: Option<Memory>,
    /// Why it does not answer.
    pub(super) silent: Option<String>,
    /// The sockets that it would transfer.
    pub(super) sockets: Vec<Held>,
}

/// A socket that the daemon would transfer, as a fresh start would have to bind it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) kind: SocketKind,
    pub(super) address: Address,
    /// Why whoever starts the service could not bind it.
    pub(super) refused: Option<Refusal>,
    /// The user that has made it, and the one that starts the service, if they differ.
    pub(super) others: Option<(u32, u32)>,
}

/// The launcher's parent, as long as the launcher lives.
#[derive(Clone, Debug)]
pub(super) struct Parent {
    pub(super) pid: i32,
    pub(super) name: String,
    pub(super) kind: Kind,
    /// A shell that waits for its run script.
    pub(super) is_script: bool,
    /// The service can read what it wants.
    pub(super) readable: bool,
}

/// A folder with `run` and `supervise/`.
#[derive(Clone, Debug)]
pub(super) struct ServiceFolder {
    pub(super) path: PathBuf,
    pub(super) run: Option<About>,
    pub(super) script: Option<String>,
    pub(super) supervise: Option<About>,
}

/// What the caller of the check has named.
#[derive(Clone, Debug, Default)]
pub(super) struct Named {
    pub(super) user: Option<String>,
    pub(super) folder: Option<PathBuf>,
    pub(super) unit: Option<String>,
}

impl Facts {
    /// Looks at all there is. What cannot be looked at is added to `unknown`.
    pub(super) fn gather(
        service: &Service,
        named: &Named,
        unknown: &mut Vec<String>,
    ) -> Result<Facts> {
        let path = service.pid_file().to_owned();
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let (lock_path, socket_path) = (paths::lock_file(&path), paths::control_socket(&path));
        let mut see = |path: &Path, about: io::Result<Option<About>>| {
            about.unwrap_or_else(|error| {
                unknown.push(format!("{path:?}: {error}"));
                None
            })
        };
        // What counts is the folder itself, not a link to it.
        let about_folder = see(&folder, surroundings::about_target(&folder));
        let pid_file = see(&path, surroundings::about(&path));
        let lock_file = see(&lock_path, surroundings::about(&lock_path));
        let socket = see(&socket_path, surroundings::about(&socket_path));

        let (look, status) = service.status(ANSWER);
        let who = match &named.user {
            Some(name) => Who::named(name).ok_or_else(|| {
                Error::new(ErrorKind::InvalidConfig, format!("there is no user {name:?}"))
            })?,
            None => {
                let running =
                    look.newest().and_then(|newest| proc::effective_user_of(newest.daemon()));
                Who::of(running.or(about_folder.map(|about| about.uid)).unwrap_or(0))
            }
        };
        let mut bad_record = None;
        match look.unread() {
            Some(Unread::Bad(why)) => bad_record = Some(why.clone()),
            Some(Unread::Denied(why)) => {
                unknown.push(format!("who runs, and the record in {lock_path:?}: {why}"));
            }
            None => {}
        }
        let newest = look.newest();
        let said = status.as_ref().ok();
        let supervising = newest.and_then(|newest| newest.supervisor(said));
        let attached = newest.is_some_and(|newest| newest.launcher(said).is_some());
        let supervisor =
            supervising.as_ref().filter(|_| attached).map(|seen| parent(seen, said, &who));
        let folder_of_it = || supervising.as_ref()?.folder().map(Path::to_owned);
        let service_folder = named.folder.clone().or_else(folder_of_it);
        let unit = named.unit.as_ref().map(|name| {
            let ending = if name.contains('.') { "" } else { ".service" };
            Unit { name: format!("{name}{ending}"), user: false }
        });
        let mut settings = None;
        match unit.or_else(|| supervising.as_ref()?.systemd_unit().cloned()) {
            Some(unit) => match systemctl::show(&unit, &unit_settings(), systemctl::PATIENCE) {
                Ok(found) => settings = Some(found),
                Err(why) => unknown.push(format!("the settings of {}: {why}", unit.name)),
            },
            None if supervising
                .as_ref()
                .is_some_and(|one| matches!(one.known().tells, Tells::Job)) =>
            {
                unknown.push("the settings of its unit: name it by --unit UNIT".to_owned());
            }
            None => {}
        }
        if supervisor.is_none() && service_folder.is_none() && settings.is_none() {
            unknown.push(
                "the supervisor: no launcher runs; name it by --service FOLDER or --unit UNIT"
                    .to_owned(),
            );
        }
        let is_folder = about_folder.is_some_and(|about| about.what == surroundings::What::Folder);
        let locks = if is_folder { surroundings::locks_work(&folder) } else { None };
        if is_folder && locks.is_none() {
            unknown
                .push(format!("whether {folder:?} has locks: no file can be made there from here"));
        }
        Ok(Facts {
            read_only: is_folder && surroundings::is_read_only(&folder),
            locks,
            bad_record,
            daemon: daemon(&look, status),
            kernel: Kernel {
                pidfds: surroundings::pidfds(),
                proc: surroundings::proc(),
                migrate: surroundings::sysctl("net.ipv4.tcp_migrate_req"),
                backlog: surroundings::sysctl("net.core.somaxconn"),
                protected_regular: surroundings::sysctl("fs.protected_regular"),
                first_unprivileged_port: proc::first_unprivileged_port(),
            },
            supervisor,
            service: service_folder.map(|path| ServiceFolder {
                run: surroundings::about_target(&path.join("run")).ok().flatten(),
                script: surroundings::text(&path.join("run")),
                supervise: surroundings::about_target(&path.join("supervise")).ok().flatten(),
                path,
            }),
            unit: settings,
            path,
            who,
            folder,
            about_folder,
            pid_file,
            lock_file,
            socket,
        })
    }
}

fn daemon(look: &Look, status: Result<Status, NoAnswer>) -> Option<Daemon> {
    // A keeper answers, but it is no daemon.
    let pid = look.newest().filter(|newest| !newest.is_keeper()).map(Generation::daemon)?;
    let sockets = held(look, status.as_ref().ok());
    let (status, silent) = match status {
        Ok(status) => (Some(status.0), None),
        Err(NoAnswer::NobodyRuns | NoAnswer::NotListening(_)) => (None, None),
        Err(why @ (NoAnswer::Failed(_) | NoAnswer::Refused(_))) => (None, Some(why.to_string())),
    };
    let transferred: Vec<(IpAddr, u16)> = status
        .iter()
        .flat_map(|status| &status.held)
        .filter_map(|socket| match socket.local {
            Address::Inet(address) => Some((address.ip(), address.port())),
            Address::Unix(_) | Address::Vsock { .. } | Address::Name(_) => None,
        })
        .collect();
    let mut not_transferred = proc::tcp_listeners(pid).unwrap_or_default();
    let is_complete =
        status.as_ref().is_none_or(|status| status.sockets == status.held.len() as u64);
    not_transferred
        .retain(|address| is_complete && !transferred.contains(&(address.ip(), address.port())));
    let millis = |of: fn(&status::Status) -> Option<u64>| {
        status.as_ref().and_then(of).map(Duration::from_millis)
    };
    Some(Daemon {
        pid,
        in_place: status.as_ref().is_some_and(|status| status.in_place),
        unknown_folder: proc::has_unknown_folder(pid),
        notifies: status.as_ref().map(|status| status.notifies),
        drain_timeout: millis(|one| one.drain_timeout_ms),
        leave_time: millis(|one| one.leave_time_ms),
        probation: millis(|one| one.probation_limit_ms),
        memory: surroundings::memory(pid),
        held: status.map(|status| status.sockets),
        not_transferred,
        file_limit: proc::file_limit(pid),
        no_boot: look.newest().is_some_and(Generation::has_no_boot),
        oom_group: surroundings::dies_as_a_group(pid),
        silent,
        sockets,
    })
}

/// A fresh start has what the launcher has: the user and the capabilities that the supervisor gives.
fn held(look: &Look, status: Option<&Status>) -> Vec<Held> {
    const CAP_NET_BIND_SERVICE: u32 = 10;
    let newest = look.newest();
    let launcher = newest.and_then(|newest| newest.launcher(status));
    let (Some(status), Some(newest), Some(launcher)) = (status, newest, launcher) else {
        return Vec::new();
    };
    // The supervisor binds what it passes.
    if proc::variable(launcher, "LISTEN_FDS").is_some() {
        return Vec::new();
    }
    let starter = proc::effective_user_of(launcher);
    let user = proc::effective_user_of(newest.daemon());
    let may_bind = proc::has_capability(launcher, CAP_NET_BIND_SERVICE);
    let first_unprivileged = proc::first_unprivileged_port();
    let owner = |udp: bool, local: &Address| {
        let Address::Inet(local) = local else { return None };
        let mut all = proc::holders(udp).into_iter();
        let same = |one: &proc::Holder| {
            (one.local.ip(), one.local.port()) == (local.ip(), local.port())
                && one.is_held_by(newest.daemon())
        };
        all.find(same).map(|one| one.uid)
    };
    let sockets = status.0.held.iter().filter(|one| one.member == 0 && !one.retired);
    sockets
        .map(|one| {
            let frame::Socket { kind, asked, local, .. } = one;
            let refused = match unix_path::path_of(asked) {
                _ if fresh::is_privileged(local, first_unprivileged) => {
                    (may_bind == Some(false)).then_some(Refusal::Denied)
                }
                Some(path) => {
                    let folder = path.parent().unwrap_or(Path::new("/"));
                    let about = surroundings::about_target(folder).ok();
                    match (about, starter.map(Who::of)) {
                        (Some(None), _) => Some(Refusal::NoSuchFolder),
                        (Some(Some(about)), Some(who)) => {
                            (!may(about, &who, WRITE | SEARCH)).then_some(Refusal::Denied)
                        }
                        (None, _) | (_, None) => None,
                    }
                }
                None => None,
            };
            let made_by = owner(*kind == SocketKind::Udp, local);
            let others = made_by.zip(starter);
            let others = others.filter(|(owner, starter)| owner != starter && Some(*owner) != user);
            Held {
                kind: *kind,
                address: if asked.is_any_port() { local } else { asked }.clone(),
                refused,
                others,
            }
        })
        .collect()
}

/// The parent of the launcher that runs.
fn parent(supervisor: &Supervisor, status: Option<&Status>, who: &Who) -> Parent {
    let kind = supervisor.known();
    let readable = match status.and_then(|status| status.0.supervisor_wants.as_deref()) {
        Some(wants) => wants != "unreadable",
        None => {
            let folder = supervisor.folder().map(|folder| folder.join("supervise"));
            let about =
                folder.and_then(|folder| surroundings::about_target(&folder).ok().flatten());
            about.is_none_or(|about| may(about, who, SEARCH))
        }
    };
    Parent {
        pid: supervisor.pid(),
        name: supervisor.name().unwrap_or("unknown").to_owned(),
        kind,
        is_script: matches!(kind.starts_again, StartsAgain::Never | StartsAgain::Unknown)
            && supervisor.is_script(),
        readable: kind.status_file().is_none() || readable,
    }
}

/// What is to be known of a unit.
fn unit_settings() -> Vec<&'static str> {
    [&["LoadState"], systemd::SETTINGS].concat()
}

/// May this user do that (4 read, 2 write, 1 search) there?
pub(super) fn may(about: About, who: &Who, what: u32) -> bool {
    let shift = match (about.uid == who.uid, who.groups.contains(&about.gid)) {
        (true, _) => 6,
        (false, true) => 3,
        (false, false) => 0,
    };
    who.uid == ROOT || (about.mode >> shift) & what == what
}
