//! `seamless check`: what is seen of a service's surroundings, and what would go wrong there.

mod judge;
#[cfg(test)]
mod tests;

use super::look::{ANSWER, Live, Seen, Unasked, ask_status};
use super::supervisor::Supervising;
use super::words::line;
use super::{Ask, End, complain, say, say_json};
use crate::proto::Kind;
use crate::proto::control::frame::Address;
use crate::proto::control::status::Status;
use crate::proto::paths;
use crate::proto::supervisor::systemd::{Properties, Unit};
use crate::sys::supervisor::Supervisor;
use crate::sys::surroundings::{self, About, Who};
use crate::sys::{lock_file, proc, systemctl};
use serde::Serialize;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What there is to see. The judgement needs nothing else.
#[derive(Clone, Debug)]
struct Facts {
    path: PathBuf,
    who: Who,
    folder: PathBuf,
    about_folder: Option<About>,
    read_only: bool,
    /// `None`: not tried.
    locks: Option<Result<(), String>>,
    pid_file: Option<About>,
    lock_file: Option<About>,
    /// Why it holds no record that can be used.
    bad_record: Option<String>,
    /// `web.pid.sock`.
    socket: Option<About>,
    kernel: Kernel,
    daemon: Option<Daemon>,
    supervisor: Option<Parent>,
    service: Option<ServiceFolder>,
    unit: Option<Properties>,
}

#[derive(Clone, Debug)]
struct Kernel {
    pidfds: Result<(), String>,
    proc: Result<(), String>,
    migrate: Option<u64>,
    backlog: Option<u64>,
    protected_regular: Option<u64>,
}

/// The newest generation, where one runs.
#[derive(Clone, Debug)]
struct Daemon {
    pid: i32,
    /// How many sockets it would hand over; `None` where it does not say.
    held: Option<u64>,
    /// Where it listens by TCP, and a successor would not get that socket.
    not_handed_over: Vec<SocketAddr>,
    file_limit: Option<u64>,
    in_place: bool,
    /// It tells systemd how it goes; `None` where it does not say.
    notifies: Option<bool>,
    drain_timeout: Option<Duration>,
    /// Why it does not answer.
    silent: Option<String>,
}

/// The launcher's parent, as long as the launcher lives.
#[derive(Clone, Debug)]
struct Parent {
    pid: i32,
    name: String,
    kind: Kind,
    /// A shell that waits for its run script.
    is_script: bool,
    /// The service can read what it wants.
    readable: bool,
}

/// A folder with `run` and `supervise/`.
#[derive(Clone, Debug)]
struct ServiceFolder {
    path: PathBuf,
    run: Option<About>,
    script: Option<String>,
    supervise: Option<About>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    /// Something would go wrong.
    Problem,
    /// Worth knowing.
    Note,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    severity: Severity,
    /// What it is about, in a word that does not change: `folder`, `lock-file`, `supervisor`, …
    about: &'static str,
    /// What would go wrong.
    says: String,
    /// What to do.
    advice: String,
}

/// What `seamless check --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    pid_file: PathBuf,
    /// Nothing would go wrong.
    ok: bool,
    /// A generation runs.
    running: bool,
    /// Whom it was checked for.
    uid: u32,
    user: Option<String>,
    findings: Vec<Finding>,
    /// What could not be looked at, and why.
    unknown: Vec<String>,
}

pub(super) fn run(ask: &Ask) -> End {
    let mut unknown = Vec::new();
    let facts = match gather(ask, &mut unknown) {
        Ok(facts) => facts,
        Err(why) => {
            complain(why);
            return End::Error;
        }
    };
    let mut findings = judge::judge(&facts);
    findings.sort_by_key(|finding| finding.severity);
    let report = Report {
        pid_file: facts.path,
        ok: findings.iter().all(|finding| finding.severity == Severity::Note),
        running: facts.daemon.is_some(),
        uid: facts.who.uid,
        user: facts.who.name,
        findings,
        unknown,
    };
    if ask.json {
        say_json(&report);
    } else {
        say(report.text());
    }
    if report.ok { End::Done } else { End::Error }
}

impl Report {
    fn text(&self) -> String {
        let problems = self.findings.iter().filter(|one| one.severity == Severity::Problem).count();
        let user = self.user.clone().unwrap_or_else(|| format!("uid {}", self.uid));
        let running = if self.running { "running" } else { "not running" };
        let path = self.pid_file.display();
        let mut text = match problems {
            0 => format!("{path}: nothing would go wrong ({running}, as {user})"),
            count => {
                let problems = super::words::count(count as u64, "problem");
                format!("{path}: {problems} ({running}, as {user})")
            }
        };
        for Finding { severity, about, says, advice } in &self.findings {
            let name = match severity {
                Severity::Problem => "problem",
                Severity::Note => "note",
            };
            _ = write!(text, "\n{name}: {about}: {}\n  {}", line(says), line(advice));
        }
        for what in &self.unknown {
            _ = write!(text, "\nnot looked at: {}", line(what));
        }
        text
    }
}

/// Looks at all there is. What cannot be looked at is added to `unknown`.
fn gather(ask: &Ask, unknown: &mut Vec<String>) -> Result<Facts, String> {
    let path = ask.pid_file.clone();
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

    let (seen, status) = ask_status(&path, ANSWER);
    let who = match &ask.user {
        Some(name) => Who::named(name).ok_or_else(|| format!("there is no user {name:?}"))?,
        None => {
            let running = seen.newest().and_then(|newest| proc::effective_user_of(newest.pid()));
            Who::of(running.or(about_folder.map(|about| about.uid)).unwrap_or(0))
        }
    };
    let mut bad_record = None;
    match lock_file::look(&path) {
        Ok(looked) => bad_record = looked.record.err().map(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            unknown.push(format!("who runs, and the record in {lock_path:?}: {error}"));
        }
        Err(_) => {} // by what it is
    }
    let newest = seen.newest();
    let supervising = newest.and_then(|newest| Supervising::of(newest, status.as_ref().ok()));
    let supervisor = newest.and_then(|newest| {
        let status = status.as_ref().ok();
        let supervising = supervising.as_ref().filter(|_| newest.is_attached(status))?;
        Some(parent(newest, supervising, status, &who))
    });
    let folder_of_it = || supervising.as_ref()?.folder.clone();
    let service_folder = ask.service.clone().or_else(folder_of_it);
    let named = ask.unit.as_ref().map(|name| match name.contains('.') {
        true => Unit { name: name.clone(), user: false },
        false => Unit { name: format!("{name}.service"), user: false },
    });
    let mut unit = None;
    match named.or_else(|| supervising.as_ref()?.unit.clone()) {
        Some(named) => {
            match systemctl::show(&named, &judge::unit_settings(), systemctl::PATIENCE) {
                Ok(settings) => unit = Some(settings),
                Err(why) => unknown.push(format!("the settings of {}: {why}", named.name)),
            }
        }
        None if supervising.as_ref().is_some_and(|one| one.known == Kind::Systemd) => {
            unknown.push("the settings of its unit: name it by --unit UNIT".to_owned());
        }
        None => {}
    }
    if supervisor.is_none() && service_folder.is_none() && unit.is_none() {
        unknown.push(
            "the supervisor: no launcher runs; name it by --service FOLDER or --unit UNIT"
                .to_owned(),
        );
    }
    let is_folder = about_folder.is_some_and(|about| about.what == surroundings::What::Folder);
    let locks = if is_folder { surroundings::locks_work(&folder) } else { None };
    if is_folder && locks.is_none() {
        unknown.push(format!("whether {folder:?} has locks: no file can be made there from here"));
    }
    Ok(Facts {
        read_only: is_folder && surroundings::is_read_only(&folder),
        locks,
        bad_record,
        daemon: daemon(&seen, status),
        kernel: Kernel {
            pidfds: surroundings::pidfds(),
            proc: surroundings::proc(),
            migrate: surroundings::sysctl("net.ipv4.tcp_migrate_req"),
            backlog: surroundings::sysctl("net.core.somaxconn"),
            protected_regular: surroundings::sysctl("fs.protected_regular"),
        },
        supervisor,
        service: service_folder.map(|path| ServiceFolder {
            run: surroundings::about_target(&path.join("run")).ok().flatten(),
            script: surroundings::text(&path.join("run")),
            supervise: surroundings::about_target(&path.join("supervise")).ok().flatten(),
            path,
        }),
        unit,
        path,
        who,
        folder,
        about_folder,
        pid_file,
        lock_file,
        socket,
    })
}

fn daemon(seen: &Seen, status: Result<Status, Unasked>) -> Option<Daemon> {
    let pid = seen.newest()?.pid();
    let (status, silent) = match status {
        Ok(status) => (Some(status), None),
        Err(Unasked::Failed(why)) => (None, Some(why)),
        Err(Unasked::Nobody | Unasked::Mute) => (None, None),
    };
    let handed_over: Vec<(IpAddr, u16)> = status
        .iter()
        .flat_map(|status| &status.held)
        .filter_map(|socket| match socket.local {
            Address::Inet(address) => Some((address.ip(), address.port())),
            Address::Unix(_) => None,
        })
        .collect();
    let mut not_handed_over = proc::tcp_listeners(pid).unwrap_or_default();
    let is_complete =
        status.as_ref().is_none_or(|status| status.sockets == status.held.len() as u64);
    not_handed_over
        .retain(|address| is_complete && !handed_over.contains(&(address.ip(), address.port())));
    Some(Daemon {
        pid,
        in_place: status.as_ref().is_some_and(|status| status.in_place),
        notifies: status.as_ref().map(|status| status.notifies),
        drain_timeout: status
            .as_ref()
            .and_then(|one| one.drain_timeout_ms)
            .map(Duration::from_millis),
        held: status.map(|status| status.sockets),
        not_handed_over,
        file_limit: proc::file_limit(pid),
        silent,
    })
}

/// The parent of the launcher that runs.
fn parent(newest: &Live, supervising: &Supervising, status: Option<&Status>, who: &Who) -> Parent {
    let launcher = newest.generation.launcher.pid;
    let kind = supervising.known;
    let readable = match status.and_then(|status| status.supervisor_wants.as_deref()) {
        Some(wants) => wants != "unreadable",
        None => {
            let folder = supervising.folder.as_ref().map(|folder| folder.join("supervise"));
            let about =
                folder.and_then(|folder| surroundings::about_target(&folder).ok().flatten());
            about.is_none_or(|about| judge::may(about, who, judge::SEARCH))
        }
    };
    let seen = Supervisor::of(launcher, supervising.pid);
    Parent {
        pid: supervising.pid,
        name: supervising.name.clone().unwrap_or_else(|| "unknown".to_owned()),
        kind,
        is_script: kind == Kind::Other && seen.is_script_above(launcher, supervising.pid),
        readable: !kind.restarts() || readable,
    }
}
