//! The server under its supervisor. All that is started here ends with it.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt::Write as _,
    fs::{self, File},
    io,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        prctl::set_child_subreaper,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// The built-in supervisor starts a service at most once a second, as others do.
const RESPAWN: Duration = Duration::from_secs(1);
/// How long processes have to end by themselves.
const GRACE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(5);

/// Why a run ends early.
#[derive(Debug)]
pub(crate) enum End {
    Interrupted,
    Failed(String),
    CannotRun(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        End::CannotRun(error)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supervisor {
    Builtin,
    Daemontools,
    Runit,
    S6,
}

impl FromStr for Supervisor {
    type Err = &'static str;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(match name {
            "builtin" => Supervisor::Builtin,
            "daemontools" => Supervisor::Daemontools,
            "runit" => Supervisor::Runit,
            "s6" => Supervisor::S6,
            _ => return Err("builtin, daemontools, runit or s6"),
        })
    }
}

impl Supervisor {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Supervisor::Builtin => "a supervisor that is built in",
            Supervisor::Daemontools => "daemontools",
            Supervisor::Runit => "runit",
            Supervisor::S6 => "s6",
        }
    }

    /// From one restart to the next. Real supervisors start a service at most once a second, and
    /// daemontools reads no command in the first second after a start.
    pub(crate) fn period(self) -> Duration {
        Duration::from_millis(if self == Supervisor::Builtin { 1200 } else { 2400 })
    }

    /// The program that runs a service; that which it takes commands by, with restart and exit.
    fn programs(self) -> Option<[&'static str; 4]> {
        match self {
            Supervisor::Builtin => None,
            Supervisor::Daemontools => Some(["supervise", "svc", "-t", "-dx"]),
            Supervisor::Runit => Some(["runsv", "sv", "term", "exit"]),
            Supervisor::S6 => Some(["s6-supervise", "s6-svc", "-t", "-dx"]),
        }
    }

    pub(crate) fn check_installed(self) -> Result<(), String> {
        let path = env::var_os("PATH").unwrap_or_default();
        let is_there =
            |name: &str| env::split_paths(&path).any(|folder| folder.join(name).is_file());
        match self.programs() {
            Some([program, control, ..]) if !is_there(program) || !is_there(control) => {
                Err(format!("{program} is not installed: run scripts/setup"))
            }
            _ => Ok(()),
        }
    }
}

pub(crate) struct Service {
    runner: Runner,
    log: PathBuf,
    interrupted: Arc<AtomicBool>,
    ended: bool,
}

enum Runner {
    /// We start the program again when it has ended.
    Builtin {
        command: Box<Command>,
        main: Child,
        started: Instant,
    },
    Real {
        supervisor: Supervisor,
        folder: PathBuf,
    },
}

impl Service {
    /// Starts the program under this supervisor. From here on, INT, TERM, HUP and QUIT end nothing by
    /// themselves: [`tend`](Self::tend) reports them.
    pub(crate) fn start(
        supervisor: Supervisor,
        command: &[OsString],
        folder: &Path,
    ) -> io::Result<Self> {
        // A daemon whose launcher has ended becomes our child, so that it cannot outlive us.
        set_child_subreaper(true)?;
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
            signal_hook::flag::register(signal as i32, Arc::clone(&interrupted))?;
        }
        let log = folder.join("log");
        let runner = match supervisor.programs() {
            None => {
                let file = File::options().append(true).create(true).open(&log)?;
                let mut program = Box::new(Command::new(&command[0]));
                program.args(&command[1..]).stdin(Stdio::null());
                program.stdout(file.try_clone()?).stderr(file);
                let main = program.spawn()?;
                Runner::Builtin { command: program, main, started: Instant::now() }
            }
            Some([program, ..]) => {
                let folder = folder.join("web");
                fs::create_dir_all(&folder)?;
                let mut run = "#!/bin/sh\nchmod 755 supervise\nexec".to_owned();
                for word in command {
                    let _ = write!(run, " {}", quoted(word));
                }
                let _ = writeln!(run, " >>{} 2>&1", quoted(log.as_os_str()));
                fs::write(folder.join("run"), run)?;
                fs::set_permissions(folder.join("run"), PermissionsExt::from_mode(0o755))?;
                // Its end is waited for with that of everything else: `end`.
                Command::new(program).arg(&folder).stdin(Stdio::null()).process_group(0).spawn()?;
                Runner::Real { supervisor, folder }
            }
        };
        Ok(Service { runner, log, interrupted, ended: false })
    }

    /// Asks for a restart as an operator would.
    pub(crate) fn restart(&self) -> Result<(), End> {
        match &self.runner {
            // Not reaped yet, so the number is still its own.
            Runner::Builtin { main, .. } => {
                kill(pid(main.id()), Signal::SIGTERM).map_err(io::Error::from)?;
            }
            Runner::Real { supervisor, folder } => {
                let [_, control, term, _] = supervisor.programs().expect("a real one");
                let status =
                    Command::new(control).arg(term).arg(folder).stdout(Stdio::null()).status()?;
                if !status.success() {
                    return Err(End::Failed(format!("{control} {term}: {status}")));
                }
            }
        }
        Ok(())
    }

    /// What a supervisor does all the time. An error if the launcher has failed, or somebody wants us to
    /// end.
    pub(crate) fn tend(&mut self) -> Result<(), End> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(End::Interrupted);
        }
        if let Runner::Builtin { command, main, started } = &mut self.runner {
            if started.elapsed() >= RESPAWN {
                if let Some(status) = main.try_wait()? {
                    if !status.success() {
                        return Err(End::Failed(format!(
                            "the server's main process ended with {status}"
                        )));
                    }
                    *main = command.spawn()?;
                    *started = Instant::now();
                }
            }
        }
        Ok(())
    }

    /// What the log of the server ends with.
    pub(crate) fn last_lines(&self, count: usize) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Ends the service and waits until nothing is left of it.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.end_all()
    }

    fn end_all(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        if let Runner::Real { supervisor, folder } = &self.runner {
            let [_, control, _, exit] = supervisor.programs().expect("a real one");
            // If this fails, what follows ends it.
            let _ = Command::new(control).arg(exit).arg(folder).stdout(Stdio::null()).status();
        }
        let begin = Instant::now();
        let mut told = Vec::new();
        // What a child leaves behind becomes our child, so this comes to all of them.
        loop {
            while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
            {
            }
            let left = children();
            if left.is_empty() {
                return Ok(());
            }
            if begin.elapsed() > GRACE * 3 {
                return Err(io::Error::other(format!("still there: processes {left:?}")));
            }
            for child in left {
                if begin.elapsed() > GRACE {
                    let _ = kill(pid(child), Signal::SIGKILL);
                } else if !told.contains(&child) {
                    told.push(child);
                    let _ = kill(pid(child), Signal::SIGTERM);
                }
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Err(error) = self.end_all() {
            eprintln!("demo: {error}");
        }
    }
}

/// The parent of a process, or `None` if it is gone.
pub(crate) fn parent(process: u32) -> Option<u32> {
    stat(process).map(|(_, parent)| parent)
}

/// If a process has ended, reaped or not.
pub(crate) fn has_ended(process: u32) -> bool {
    stat(process).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
}

/// State and parent.
fn stat(process: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn children() -> Vec<u32> {
    let own = process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|process| parent(*process) == Some(own)).collect()
}

fn pid(process: u32) -> Pid {
    Pid::from_raw(process as i32)
}

fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))
}
