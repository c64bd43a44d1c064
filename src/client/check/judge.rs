//! What follows from the facts. Pure: each warning has a test that gives it the facts.

use super::facts::{Daemon, Facts, Held, Kernel, Parent, ROOT, SEARCH, ServiceFolder, WRITE, may};
use crate::proto::paths;
use crate::proto::shell::quote;
use crate::proto::sockets::fresh;
use crate::proto::supervisor::StartsAgain;
use crate::proto::supervisor::systemd::{self, Properties};
use crate::sys::surroundings::{About, What, Who};
use std::path::Path;

const STICKY: u32 = 0o1000;
/// A shorter queue overflows if many clients connect while nobody accepts.
const BACKLOG: u64 = 1024;
/// How many files a daemon may have open besides its sockets.
const OTHER_FILES: u64 = 64;

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about, in a word for programs: `folder`, `pid-file`, `lock-file`,
    /// `control-socket`, `pidfd`, `proc`, `somaxconn`, `tcp-migrate-req`, `daemon`, `nofile`,
    /// `memory`, `sockets`, `supervisor`, `working-folder`, `run-script` or `unit`.
    pub about: &'static str,
    /// What would go wrong.
    pub says: String,
    /// What to do.
    pub advice: String,
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Severity {
    /// Something would go wrong.
    Problem,
    /// Worth knowing.
    Note,
}

struct Findings(Vec<Finding>);

impl Findings {
    fn problem(&mut self, about: &'static str, says: String, advice: impl Into<String>) {
        let advice = advice.into();
        self.0.push(Finding { severity: Severity::Problem, about, says, advice });
    }

    fn note(&mut self, about: &'static str, says: String, advice: impl Into<String>) {
        let advice = advice.into();
        self.0.push(Finding { severity: Severity::Note, about, says, advice });
    }
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    folder(facts, &mut found);
    files(facts, &mut found);
    kernel(facts, &mut found);
    if let Some(daemon) = &facts.daemon {
        limits(daemon, facts.kernel.migrate, &mut found);
        sockets(daemon, facts.kernel.first_unprivileged_port, &mut found);
    }
    let in_place = facts.daemon.as_ref().is_some_and(|daemon| daemon.in_place);
    if let Some(parent) = &facts.supervisor {
        supervisor(parent, &name(&facts.who), in_place, &mut found);
    }
    if let Some(service) = &facts.service {
        service_folder(service, &facts.who, facts.supervisor.is_some(), &mut found);
    }
    if let Some(settings) = &facts.unit {
        unit(settings, facts, &mut found);
    }
    found.0
}

fn name(who: &Who) -> String {
    who.name.clone().unwrap_or_else(|| who.uid.to_string())
}

// ---- files ----

fn folder(facts: &Facts, found: &mut Findings) {
    const ABOUT: &str = "folder";
    let Facts { folder, who, kernel, .. } = facts;
    let user = name(who);
    let Some(about) = facts.about_folder else {
        let says = format!("{folder:?} does not exist: init fails");
        let advice = format!("mkdir {} && chown {user} {}", shown(folder), shown(folder));
        return found.problem(ABOUT, says, advice);
    };
    if about.what != What::Folder {
        let says = format!("{folder:?} is not a folder: init fails");
        return found.problem(ABOUT, says, "give init a path in a folder");
    }
    if facts.read_only {
        let says = format!("{folder:?} is on a read-only file system: started fails");
        let advice = "use a folder under /run, or mount it writable";
        return found.problem(ABOUT, says, advice);
    }
    if !may(about, who, WRITE | SEARCH) {
        let says = format!("{user} may not write to {folder:?}: started fails");
        found.problem(ABOUT, says, format!("chown {user} {}", shown(folder)));
    }
    if about.mode & 0o002 != 0 {
        let says = if about.mode & STICKY != 0 {
            let kernel = match kernel.protected_regular {
                Some(level) if level > 0 => {
                    format!(", and not even root may open them (fs.protected_regular is {level})")
                }
                _ => String::new(),
            };
            format!(
                "everybody may write to {folder:?}, which is sticky: if another user creates the \
                 service's files there, the service may not replace them{kernel}"
            )
        } else {
            format!("everybody may write to {folder:?}, and replace the files of the service")
        };
        found.problem(ABOUT, says, format!("use a folder of its own that belongs to {user}"));
    }
    if about.mode & 0o020 != 0 && about.gid != 0 && !who.groups.contains(&about.gid) {
        let says = format!(
            "group {} may write to {folder:?} and replace the files of the service, and {user} is not \
             in that group",
            about.gid
        );
        found.problem(ABOUT, says, format!("chmod g-w {}", shown(folder)));
    }
    if let Some(Err(why)) = &facts.locks {
        let says = format!("{folder:?} is on a file system without locks ({why}): init fails");
        found.problem(ABOUT, says, "use a folder under /run");
    }
}

fn files(facts: &Facts, found: &mut Findings) {
    let Facts { path, who, about_folder, .. } = facts;
    let user = name(who);
    let is_sticky = about_folder.is_some_and(|about| about.mode & STICKY != 0);
    let folder_owner = about_folder.map(|about| about.uid);
    let remove = |path: &Path| format!("rm {}", shown(path));
    // `started` replaces the file by a rename, so the rights of the folder count.
    let replaced = |about: Option<About>, path: &Path, name, found: &mut Findings| {
        let Some(about) = about else { return };
        if about.what == What::Folder {
            let says = format!("{path:?} is a folder: started fails");
            found.problem(name, says, "give init another path");
        } else if is_sticky
            && ![ROOT, about.uid].contains(&who.uid)
            && folder_owner != Some(who.uid)
        {
            let says = format!(
                "{path:?} belongs to uid {}, and its folder is sticky: {user} may not replace it",
                about.uid
            );
            found.problem(name, says, remove(path));
        }
    };
    replaced(facts.pid_file, path, "pid-file", found);
    replaced(facts.socket, &paths::control_socket(path), "control-socket", found);

    const LOCK: &str = "lock-file";
    let lock_path = paths::lock_file(path);
    let Some(lock) = facts.lock_file else { return };
    let mut problem = |why: String, advice: String| {
        found.problem(LOCK, format!("{lock_path:?} {why}: init fails"), advice);
    };
    if lock.what != What::Regular {
        problem("is not a regular file".to_owned(), remove(&lock_path));
    } else if lock.links > 1 {
        problem(
            "has a second name (a hard link), so another user may own it".to_owned(),
            remove(&lock_path),
        );
    } else if lock.mode & 0o022 != 0 {
        let advice = format!("chmod 600 {}", shown(&lock_path));
        problem(format!("can be written by other users (mode {:04o})", lock.mode), advice);
    } else if who.uid != ROOT && lock.uid != who.uid {
        let advice = format!("chown {user} {}", shown(&lock_path));
        problem(format!("belongs to uid {}, and {user} may not open it", lock.uid), advice);
    } else if who.uid == ROOT && lock.uid != ROOT && folder_owner != Some(lock.uid) {
        // As long as a generation of that user lives, the file is used.
        let advice = format!("remove it when the service is down: {}", remove(&lock_path));
        if facts.daemon.is_none() {
            problem(format!("belongs to uid {}, and its folder does not", lock.uid), advice);
        }
    }
    if let Some(why) = &facts.bad_record {
        let advice = format!("{} when the service is down", remove(&lock_path));
        found.problem(LOCK, why.clone(), advice);
    }
}

/// A path in a command.
fn shown(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

// ---- the kernel and its limits ----

fn kernel(facts: &Facts, found: &mut Findings) {
    let Kernel { pidfds, proc, migrate, backlog, .. } = &facts.kernel;
    let lost = "older generations are known by the lock on the PID file alone, and only the newest \
                predecessor is signalled";
    if let Err(why) = pidfds {
        let says = format!("there are no pidfds ({why}): {lost}");
        found.problem("pidfd", says, "use Linux 5.3 or later, and let seccomp pass them");
    }
    if let Err(why) = proc {
        let says = format!("/proc cannot be used ({why}): {lost}");
        found.problem("proc", says, "mount a /proc of this PID namespace");
    }
    if let Some(backlog) = backlog.filter(|backlog| *backlog < BACKLOG) {
        let says = format!(
            "net.core.somaxconn is {backlog}: no listener has a longer queue, and if more clients \
             connect while nobody accepts, they wait or fail"
        );
        found.problem("somaxconn", says, "sysctl -w net.core.somaxconn=4096");
    }
    if facts.daemon.is_none() && *migrate == Some(0) {
        let says = "net.ipv4.tcp_migrate_req is 0: connections that wait at a listener are reset when \
                    the service closes it, unless its sockets are transferred (seamless::sockets)";
        let advice = "use seamless::sockets, or sysctl -w net.ipv4.tcp_migrate_req=1";
        found.note("tcp-migrate-req", says.to_owned(), advice);
    }
}

fn limits(daemon: &Daemon, migrate: Option<u64>, found: &mut Findings) {
    let Daemon { pid, held, not_transferred, file_limit, no_boot, oom_group, silent, .. } = daemon;
    let Daemon { memory, probation, .. } = daemon;
    if let Some(why) = silent {
        let advice =
            format!("look at process {pid}; as it is now, no successor can take its sockets over");
        found.problem("daemon", why.clone(), advice);
    }
    if *no_boot {
        let says = format!(
            "/proc/sys is hidden from daemon {pid}, and with it the boot ID: an older generation that still \
             drains cannot be proven, and a stop does not wait for it"
        );
        let advice = "show /proc/sys to the service: under systemd, remove ProcSubset=pid";
        found.problem("proc", says, advice);
    }
    if *oom_group {
        let says = format!(
            "memory.oom.group is 1 in the control group of daemon {pid}, whose memory is limited: if one \
             generation is killed for lack of memory, the one that serves is killed as well"
        );
        let advice = "set memory.oom.group to 0 (systemd: OOMPolicy=continue, Kubernetes: the kubelet's \
                      singleProcessOOMKill), or give the service more than two generations need";
        found.problem("memory", says, advice);
    }
    if let (Some(memory), Some(_)) = (memory, probation) {
        let needed = memory.used.saturating_mul(2);
        if needed > memory.limit {
            let says = format!(
                "daemon {pid} uses {} of memory, and its control group may use {}: in a probation two \
                 generations run side by side",
                mebibytes(memory.used),
                mebibytes(memory.limit),
            );
            let advice = format!("allow more than {} (systemd: MemoryMax=)", mebibytes(needed));
            found.note("memory", says, advice);
        }
    }
    if let (Some(held), Some(limit)) = (held, file_limit) {
        // The new daemon holds what it takes over, and hands a duplicate of each to the program.
        let needed = held.saturating_mul(2).saturating_add(OTHER_FILES); // a peer's number
        if needed > *limit {
            let says = format!(
                "daemon {pid} holds {held} sockets, and may have no more than {limit} files open: a \
                 successor needs about {needed} to take them over, so it fails"
            );
            found.problem("nofile", says, format!("raise the hard limit (ulimit -Hn {needed})"));
        }
    }
    if daemon.in_place && daemon.unknown_folder {
        let says = format!(
            "nobody knows by which path the folder of daemon {pid} was entered: if a deploy switches a \
             link to another release, restarts in place stay in the folder of the first one"
        );
        let advice = "set Config::working_dir, or start it by a shell, which sets PWD";
        found.note("working-folder", says, advice);
    }
    if migrate == Some(0) && silent.is_none() {
        for address in not_transferred {
            let says = format!(
                "daemon {pid} listens at {address} with a socket that it does not transfer, and \
                 net.ipv4.tcp_migrate_req is 0: connections in its queue at a restart are reset"
            );
            let advice = "get it from seamless::sockets, or sysctl -w net.ipv4.tcp_migrate_req=1";
            found.problem("tcp-migrate-req", says, advice);
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// What a fresh start, and a change of addresses, would find.
fn sockets(daemon: &Daemon, first_unprivileged_port: u16, found: &mut Findings) {
    const ABOUT: &str = "sockets";
    let pid = daemon.pid;
    for Held { kind, address, refused, others } in &daemon.sockets {
        let name = kind.name();
        if let Some(refusal) = refused {
            let says = format!(
                "daemon {pid} serves {name} {address}, which whoever starts the service could not bind: \
                 restarts take it over, but a fresh start would fail"
            );
            let advice = fresh::remedy(*kind, address, *refusal, first_unprivileged_port);
            found.problem(ABOUT, says, advice);
        }
        if let Some((owner, starter)) = others {
            let says = format!(
                "uid {owner} has made the socket of {name} {address}, and uid {starter} starts the service: \
                 a program that asks for an address that overlaps (0.0.0.0, [::]) could not bind it as \
                 long as daemon {pid} serves"
            );
            let advice = format!("stop and start the service once, so that uid {starter} makes it");
            found.note(ABOUT, says, advice);
        }
    }
}

// ---- the supervisor ----

fn supervisor(parent: &Parent, user: &str, in_place: bool, found: &mut Findings) {
    const ABOUT: &str = "supervisor";
    let Parent { pid, name, kind, is_script, readable } = parent;
    if !readable {
        let says = format!(
            "{user} cannot read what {name} (process {pid}) wants: a stop that comes while no \
             launcher runs goes unnoticed, and the detached daemon serves on"
        );
        let advice = "chmod 755 supervise in the run script, before it changes the user";
        found.problem(ABOUT, says, advice);
    }
    if let Some(exit_0) = &kind.exit_0_is_final {
        found.note(ABOUT, exit_0.note.to_owned(), exit_0.advice);
    }
    match kind.starts_again {
        StartsAgain::Always | StartsAgain::IfConfigured => {}
        // The launcher stays, and starts the next generation itself.
        StartsAgain::Never | StartsAgain::Unknown if in_place && !is_script => {}
        StartsAgain::Never | StartsAgain::Unknown if *is_script => {
            let says = format!(
                "a shell, {name} (process {pid}), waits for the service: the supervisor's TERM ends \
                 the shell and never arrives"
            );
            found.problem(ABOUT, says, "start the program by exec in the run script");
        }
        StartsAgain::Never => {
            let says = format!(
                "the launcher's parent, {name} (process {pid}), does not restart services: a TERM \
                 stops the service, and a restart is refused"
            );
            let advice = "run it under a supervisor, or restart in place (Config::reload_signals); if that \
                          parent does restart it, say so (Config::parent_restarts)";
            found.problem(ABOUT, says, advice);
        }
        StartsAgain::Unknown => {
            let says = format!(
                "the launcher's parent, {name} (process {pid}), is an unknown supervisor: a TERM is \
                 handled as a restart, and if no next generation is started, the service ends after \
                 its successor_timeout"
            );
            let advice = "run it under a known supervisor; if this one restarts it, all is well";
            found.problem(ABOUT, says, advice);
        }
    }
}

fn service_folder(service: &ServiceFolder, who: &Who, is_running: bool, found: &mut Findings) {
    let ServiceFolder { path, run, script, supervise } = service;
    let run_path = path.join("run");
    match run {
        None => {
            let says = format!("{run_path:?} does not exist: nothing can be started");
            found.problem("run-script", says, "write a run script");
        }
        Some(about) if about.mode & 0o111 == 0 => {
            let says = format!("{run_path:?} is not executable: nothing can be started");
            found.problem("run-script", says, format!("chmod 755 {}", shown(&run_path)));
        }
        Some(_) => {}
    }
    let script = script.as_deref().filter(|text| text.starts_with("#!"));
    if script.is_some_and(|text| is_shell(text) && !executes(text)) {
        let says = format!(
            "{run_path:?} starts nothing by exec: the shell takes the supervisor's TERM, which never \
             arrives at the service"
        );
        found.problem("run-script", says, "start the program by exec in its last line");
    }
    // Of one that runs, the daemon itself has said whether it can read it.
    let lifted = script.is_some_and(|text| {
        text.lines()
            .any(|line| line.trim_start().starts_with("chmod") && line.contains("supervise"))
    });
    if !is_running && !lifted && supervise.is_some_and(|about| !may(about, who, SEARCH)) {
        let says = format!(
            "{} may not look into {:?}: a stop that comes while no launcher runs goes unnoticed",
            name(who),
            path.join("supervise"),
        );
        let advice = "chmod 755 supervise in the run script, before it changes the user";
        found.problem("supervisor", says, advice);
    }
}

fn is_shell(script: &str) -> bool {
    let first = script.lines().next().unwrap_or_default();
    first.trim_end().ends_with("sh") || first.contains("sh ")
}

/// Does a line start a program by exec? `exec 2>&1` alone starts none.
fn executes(script: &str) -> bool {
    script.lines().any(|line| {
        let words = line.trim_start().strip_prefix("exec ").unwrap_or_default();
        words.split_ascii_whitespace().any(|word| {
            let is_redirection = word.contains(['<', '>']);
            let is_comment = word.starts_with('#');
            !is_redirection && !is_comment && word.chars().any(char::is_alphabetic)
        })
    })
}

fn unit(settings: &Properties, facts: &Facts, found: &mut Findings) {
    const ABOUT: &str = "unit";
    let state = settings.get("LoadState");
    if !["loaded", ""].contains(&state) {
        let says = format!("systemd says that the unit is {state}");
        return found.problem(ABOUT, says, "systemctl daemon-reload, or name another one");
    }
    let daemon = facts.daemon.as_ref();
    let notifies = daemon.and_then(|daemon| daemon.notifies);
    let own = systemd::Own {
        // If it does not run, this is unknown. The service logs it itself when it starts.
        notifies: notifies.unwrap_or(true),
        drain_timeout: daemon.and_then(|daemon| daemon.drain_timeout),
        leave_time: daemon.and_then(|daemon| daemon.leave_time),
        probation: daemon.and_then(|daemon| daemon.probation),
        reloads: daemon.is_some_and(|daemon| daemon.in_place),
        folder: facts.folder.display().to_string(),
    };
    for systemd::Finding { setting, instead, why } in systemd::findings(settings, &own) {
        found.problem(ABOUT, format!("{setting}: {why}"), format!("set {instead}"));
    }
    if notifies == Some(true) && settings.get("FileDescriptorStoreMax") == "0" {
        let says = "FileDescriptorStoreMax=0: after a crash, the sockets are bound anew, and connections \
                    in their queues are lost";
        let advice = "set FileDescriptorStoreMax= to as many as there are sockets";
        found.note(ABOUT, says.to_owned(), advice);
    }
}
