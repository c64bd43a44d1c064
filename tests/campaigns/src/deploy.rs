//! A server that the benchmark restarts under load, without a box: what it starts ends
//! with its [`Family`].

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    net::TcpStream,
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use signal_hook::consts::{SIGQUIT, SIGTERM, SIGUSR2};

use seamless_testing::{
    process::Watched,
    supervisor::{Service, Supervisor},
};

use crate::{
    family::Family,
    load::{Running, Target},
};

/// How long a step of a restart may take.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at a fact that is measured.
const LOOK: Duration = Duration::from_micros(300);
/// Between two looks at what goes on besides.
const SLICE: Duration = Duration::from_millis(50);
/// Between two starts by a supervisor.
pub const RESPAWN: Duration = Duration::from_secs(1);

/// A program, and where it listens.
#[derive(Debug)]
pub struct Server {
    program: PathBuf,
    args: Vec<OsString>,
    folder: PathBuf,
    target: Target,
}

impl Server {
    /// `args` lead to `target`; the program runs in this folder, and its log is there.
    pub fn new(
        program: PathBuf,
        args: impl IntoIterator<Item = impl Into<OsString>>,
        target: Target,
        folder: &Path,
    ) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Server { program, args, folder: folder.to_owned(), target }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Where it answers.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// A program that is ready to be started.
    pub fn command(&self) -> io::Result<Command> {
        let log = File::options().append(true).create(true).open(self.log())?;
        let mut command = Command::new(&self.program);
        // A group of its own: ^C is for who started it, and then ends what it has started.
        command
            .args(&self.args)
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        Ok(command)
    }

    fn run_script(&self) -> String {
        let quoted = |text: &OsStr| format!("'{}'", text.to_string_lossy().replace('\'', r"'\''"));
        let words =
            [self.program.as_os_str()].into_iter().chain(self.args.iter().map(OsString::as_os_str));
        let words: Vec<String> = words.map(quoted).collect();
        format!(
            "chmod 755 supervise\nexec {} >>{} 2>&1",
            words.join(" "),
            quoted(self.log().as_os_str())
        )
    }

    /// Somebody takes connections there.
    pub fn listens(&self) -> bool {
        match &self.target {
            Target::Tcp(address) => TcpStream::connect(address).is_ok(),
            Target::Unix(path) => UnixStream::connect(path).is_ok(),
        }
    }

    /// What the log ends with.
    pub fn last_lines(&self, count: usize) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// Looks until `fact` yields something. An error tells what the log ends with.
    pub fn wait<T>(&self, what: &str, fact: impl Fn() -> Option<T>) -> Result<T, String> {
        let began = Instant::now();
        loop {
            if let Some(value) = fact() {
                return Ok(value);
            }
            if began.elapsed() > LIMIT {
                return Err(format!("not within {LIMIT:?}: {what}\n{}", self.last_lines(20)));
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Who starts the successor.
pub enum Supervised {
    /// We, when it has ended, but not more often than `pause` allows; and we know nothing else. A launcher that fails
    /// is an error, except while a bad version is tried.
    Builtin {
        command: Box<Command>,
        main: Child,
        started: Instant,
        pause: Duration,
        may_fail: bool,
    },
    /// daemontools or runit.
    Real(Service),
    /// The daemon itself, or its master, which takes this signal as a restart.
    Itself { command: Box<Command>, master: Option<Watched>, signal: i32 },
    /// Both versions run beside each other until the old one is sent QUIT.
    Beside { command: Box<Command>, main: Watched, next: Next },
}

/// How a version is started beside the old one, and what it does when it is ready.
pub enum Next {
    /// The old one does it at a USR2; the new one writes this PID file.
    Told { pid_file: PathBuf },
    /// We do it, by this command; it makes this socket.
    Started { command: Box<Command>, socket: PathBuf },
}

impl Next {
    /// The main process of the first version.
    fn first(&self, command: &mut Command) -> io::Result<Watched> {
        let mut child = command.spawn()?;
        let Next::Told { pid_file } = self else { return Ok(Watched::new(child.id())) };
        child.wait()?; // the daemon is detached
        let pid =
            within(LIMIT, || named(pid_file)).ok_or_else(|| io::Error::other("no PID file"))?;
        Ok(Watched::new(pid))
    }

    /// The main process of the next one, once it is ready; `None`: it is not within this time.
    fn start(&mut self, old: &Watched, limit: Duration) -> io::Result<Option<Watched>> {
        let pid = match self {
            Next::Told { pid_file } => {
                old.signal(SIGUSR2);
                within(limit, || named(pid_file).filter(|pid| *pid != old.pid()))
            }
            Next::Started { command, socket } => {
                let new = command.spawn()?.id();
                within(limit, || socket.exists().then_some(new))
            }
        };
        Ok(pid.map(Watched::new))
    }
}

fn named(pid_file: &Path) -> Option<u32> {
    fs::read_to_string(pid_file).ok()?.trim().parse().ok()
}

fn within<T>(limit: Duration, fact: impl Fn() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        let value = fact();
        if value.is_some() || Instant::now() > deadline {
            return value;
        }
        std::thread::sleep(LOOK);
    }
}

impl Supervised {
    /// Under a supervisor, or, where there is `None`, under the one that is built in.
    pub fn start(
        supervisor: Option<Supervisor>,
        server: &Server,
        folder: &Path,
        pause: Duration,
    ) -> io::Result<Self> {
        match supervisor {
            Some(kind) => {
                Ok(Supervised::Real(Service::new(kind, folder.join("web"), &server.run_script())))
            }
            None => {
                let mut command = Box::new(server.command()?);
                let (main, started) = (command.spawn()?, Instant::now());
                Ok(Supervised::Builtin { command, main, started, pause, may_fail: false })
            }
        }
    }

    /// A daemon that starts its successor by itself, or a master that does.
    pub fn start_itself(server: &Server, signal: i32, has_master: bool) -> io::Result<Self> {
        let mut command = Box::new(server.command()?);
        // Its family is ours: who starts it need not wait for it.
        let main = Watched::new(command.spawn()?.id());
        Ok(Supervised::Itself { command, master: has_master.then_some(main), signal })
    }

    /// A server whose versions run beside each other.
    pub fn start_beside(server: &Server, next: Next) -> io::Result<Self> {
        let mut command = Box::new(server.command()?);
        let main = next.first(&mut command)?;
        Ok(Supervised::Beside { command, main, next })
    }

    /// The launcher; `None` where there is none.
    pub fn main_pid(&self) -> Option<u32> {
        match self {
            Supervised::Builtin { main, .. } => Some(main.id()),
            Supervised::Real(service) => Some(service.main_pid()),
            Supervised::Itself { .. } | Supervised::Beside { .. } => None,
        }
    }

    /// Gives another process that ends with the daemon. A version beside the old one has this time to be ready.
    fn restart(&mut self, daemon: &Watched, limit: Duration) -> io::Result<Option<Watched>> {
        match self {
            // Not reaped yet, so the number is still its own.
            Supervised::Builtin { main, .. } => {
                Watched::new(main.id()).signal(SIGTERM);
            }
            Supervised::Real(service) => service.restart(),
            Supervised::Itself { master, signal, .. } => {
                master.as_ref().unwrap_or(daemon).signal(*signal);
            }
            Supervised::Beside { main, next, .. } => {
                let Some(new) = next.start(main, limit)? else { return Ok(None) };
                let old = std::mem::replace(main, new);
                old.signal(SIGQUIT);
                return Ok(Some(old));
            }
        }
        Ok(None)
    }

    /// What a supervisor does all the time. An error where the launcher did not hand off.
    fn tend(&mut self) -> Result<(), End> {
        if let Supervised::Builtin { command, main, started, pause, may_fail } = self {
            if started.elapsed() < *pause {
                return Ok(());
            }
            if let Some(status) = main.try_wait()? {
                if !status.success() && !*may_fail {
                    return Err(End::Failed(format!("the launcher ended with {status}")));
                }
                *main = command.spawn()?;
                *started = Instant::now();
            }
        }
        Ok(())
    }

    /// What a supervisor does at once when the daemon has ended by itself, unless its master does that.
    fn start_again(&mut self, daemon: &Watched) -> Result<(), End> {
        let wait = |process: &Watched| match process.ends_within(LIMIT) {
            true => Ok(()),
            false => Err(End::Failed(format!("process {} stays", process.pid()))),
        };
        match self {
            Supervised::Builtin { command, main, started, .. } => {
                wait(&Watched::new(main.id()))?;
                main.wait()?;
                (*main, *started) = (command.spawn()?, Instant::now());
            }
            Supervised::Itself { command, master: Some(main), .. }
            | Supervised::Beside { command, main, next: Next::Started { .. } } => {
                wait(main)?;
                *main = Watched::new(command.spawn()?.id());
            }
            Supervised::Itself { command, master: None, .. } => {
                wait(daemon)?;
                command.spawn()?;
            }
            Supervised::Real(_) | Supervised::Beside { next: Next::Told { .. }, .. } => {}
        }
        Ok(())
    }
}

/// Why a run ends early.
#[derive(Debug)]
pub enum End {
    Interrupted,
    Failed(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        End::Failed(error.to_string())
    }
}

impl From<End> for Box<dyn std::error::Error> {
    fn from(end: End) -> Self {
        match end {
            End::Interrupted => "interrupted".into(),
            End::Failed(what) => what.into(),
        }
    }
}

/// Sees what is being waited for.
pub trait Watcher {
    fn live(&mut self, what: &str, load: Option<&Running>);
}

/// A server under its supervisor, and who watches.
pub struct Deployment<'a, W> {
    pub family: &'a Family,
    pub supervised: Supervised,
    pub watcher: W,
}

/// How long the steps of a restart took, each counted from the TERM.
#[derive(Clone, Copy, Debug)]
pub struct Restart {
    /// Until the launcher had ended; nothing where there is none.
    pub handoff: Duration,
    /// Until the successor had answered.
    pub answered: Duration,
    /// Until the predecessor had ended.
    pub ended: Duration,
}

/// A restart whose successor has answered.
pub struct Begun {
    predecessor: Watched,
    /// Ends with it.
    besides: Option<Watched>,
    begin: Instant,
    handoff: Duration,
    answered: Duration,
}

impl Begun {
    /// Two generations live.
    pub fn has_predecessor(&self) -> bool {
        !self.predecessor.has_ended()
    }
}

impl<W: Watcher> Deployment<'_, W> {
    /// Restarts it, and marks that in the load.
    pub fn restart(&mut self, load: &Running) -> Result<Restart, End> {
        let begun = self.begin_restart(load)?;
        self.end_restart(begun, load)
    }

    /// The same until the successor has answered.
    pub fn begin_restart(&mut self, load: &Running) -> Result<Begun, End> {
        let generations = load.pids();
        let predecessor = newest(&generations);
        let launcher = self.supervised.main_pid().map(Watched::new);

        load.mark_begin();
        let begin = Instant::now();
        let besides = self.supervised.restart(&predecessor, LIMIT)?;
        let mut handoff = Duration::ZERO;
        if let Some(launcher) = launcher {
            self.until("the launcher exits", Some(load), |slice| launcher.ends_within(slice))?;
            handoff = begin.elapsed();
        }
        self.until_answered("the successor answers", load, generations.len() + 1)?;
        Ok(Begun { predecessor, besides, begin, handoff, answered: begin.elapsed() })
    }

    /// The rest of it.
    pub fn end_restart(&mut self, begun: Begun, load: &Running) -> Result<Restart, End> {
        let Begun { predecessor, besides, begin, handoff, answered } = begun;
        self.until("the predecessor ends", Some(load), |slice| predecessor.ends_within(slice))?;
        let ended = begin.elapsed();
        if let Some(besides) = besides {
            self.until("its master ends", Some(load), |slice| besides.ends_within(slice))?;
            self.family.reap(besides.pid());
        }
        self.family.reap(predecessor.pid());
        load.mark_end();
        Ok(Restart { handoff, answered, ended })
    }

    /// KILLs the process that answers; returns when another one has answered.
    pub fn crash(&mut self, load: &Running) -> Result<(), End> {
        let generations = load.pids();
        let daemon = newest(&generations);
        daemon.kill();
        self.supervised.start_again(&daemon)?;
        self.until_answered("another one answers", load, generations.len() + 1)?;
        self.family.reap(daemon.pid());
        Ok(())
    }

    /// Asks for a restart with a version that ends at once, and has it repaired after this time. Where the launcher
    /// of the old version has ended for it, the repaired one then takes over; the old one serves on elsewhere.
    pub fn fail(
        &mut self,
        load: &Running,
        time: Duration,
        repair: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), End> {
        let generations = load.pids();
        let daemon = newest(&generations);
        if let Supervised::Builtin { may_fail, .. } = &mut self.supervised {
            *may_fail = true;
        }
        let begin = Instant::now();
        self.supervised.restart(&daemon, time)?;
        self.pass(time.saturating_sub(begin.elapsed()), load)?;
        repair()?;
        let is_builtin = matches!(self.supervised, Supervised::Builtin { .. });
        if is_builtin || daemon.has_ended() {
            if !is_builtin {
                self.supervised.start_again(&daemon)?;
            }
            self.until_answered("the repaired version answers", load, generations.len() + 1)?;
            self.until("the old version ends", Some(load), |slice| daemon.ends_within(slice))?;
            self.family.reap(daemon.pid());
        }
        if let Supervised::Builtin { may_fail, .. } = &mut self.supervised {
            *may_fail = false;
        }
        Ok(())
    }

    fn until_answered(&mut self, what: &str, load: &Running, count: usize) -> Result<(), End> {
        self.until(what, Some(load), |slice| load.wait_for_pids(count, slice))
    }

    /// Lets this time pass.
    pub fn pass(&mut self, time: Duration, load: &Running) -> Result<(), End> {
        let end = Instant::now() + time;
        self.until("time passes", Some(load), |slice| {
            let left = end.saturating_duration_since(Instant::now());
            std::thread::sleep(slice.min(left));
            left.is_zero()
        })
    }

    /// Waits for a fact, slice by slice; what has to go on meanwhile does so in between.
    pub fn until(
        &mut self,
        what: &str,
        load: Option<&Running>,
        mut fact: impl FnMut(Duration) -> bool,
    ) -> Result<(), End> {
        let deadline = Instant::now() + LIMIT;
        loop {
            self.supervised.tend()?;
            if fact(SLICE) {
                return Ok(());
            }
            if self.family.interrupted() {
                return Err(End::Interrupted);
            }
            if Instant::now() > deadline {
                return Err(End::Failed(format!("not within {LIMIT:?}: {what}")));
            }
            self.watcher.live(what, load);
        }
    }
}

/// The process that was the last to answer for the first time.
fn newest(generations: &[u32]) -> Watched {
    Watched::new(*generations.last().expect("one has answered"))
}

#[cfg(test)]
mod tests;
