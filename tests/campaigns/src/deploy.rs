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

use signal_hook::consts::SIGTERM;

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
    log: PathBuf,
    target: Target,
}

impl Server {
    /// `args` lead to `target`; the log comes into this folder.
    pub fn new(
        program: PathBuf,
        args: impl IntoIterator<Item = impl Into<OsString>>,
        target: Target,
        folder: &Path,
    ) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Server { program, args, log: folder.join("log"), target }
    }

    /// Where it answers.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// A program that is ready to be started.
    pub fn command(&self) -> io::Result<Command> {
        let log = File::options().append(true).create(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        // A group of its own: ^C is for who started it, and then ends what it has started.
        command
            .args(&self.args)
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
            quoted(self.log.as_os_str())
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
        let log = fs::read(&self.log).unwrap_or_default();
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
    /// We, when it has ended, but not more often than `pause` allows; and we know nothing else.
    Builtin { command: Box<Command>, main: Child, started: Instant, pause: Duration },
    /// daemontools or runit.
    Real(Service),
    /// The daemon itself, which takes this signal as a restart.
    Itself { signal: i32 },
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
                let main = command.spawn()?;
                Ok(Supervised::Builtin { command, main, started: Instant::now(), pause })
            }
        }
    }

    /// A daemon that starts its successor by itself.
    pub fn start_itself(server: &Server, signal: i32) -> io::Result<Self> {
        // Its family is ours: who starts it need not wait for it.
        server.command()?.spawn()?;
        Ok(Supervised::Itself { signal })
    }

    /// The launcher; `None` where there is none.
    pub fn main_pid(&self) -> Option<u32> {
        match self {
            Supervised::Builtin { main, .. } => Some(main.id()),
            Supervised::Real(service) => Some(service.main_pid()),
            Supervised::Itself { .. } => None,
        }
    }

    fn restart(&self, daemon: &Watched) {
        match self {
            // Not reaped yet, so the number is still its own.
            Supervised::Builtin { main, .. } => {
                Watched::new(main.id()).signal(SIGTERM);
            }
            Supervised::Real(service) => service.restart(),
            Supervised::Itself { signal } => {
                daemon.signal(*signal);
            }
        }
    }

    /// What a supervisor does all the time. An error where the launcher did not hand off.
    fn tend(&mut self) -> Result<(), End> {
        if let Supervised::Builtin { command, main, started, pause } = self {
            if started.elapsed() < *pause {
                return Ok(());
            }
            if let Some(status) = main.try_wait()? {
                if !status.success() {
                    return Err(End::Failed(format!("the launcher ended with {status}")));
                }
                *main = command.spawn()?;
                *started = Instant::now();
            }
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

impl<W: Watcher> Deployment<'_, W> {
    /// Restarts it, and marks that in the load.
    pub fn restart(&mut self, load: &Running) -> Result<Restart, End> {
        let generations = load.pids();
        let newest = *generations.last().expect("one has answered");
        let predecessor = Watched::new(newest);
        let launcher = self.supervised.main_pid().map(Watched::new);

        load.mark_begin();
        let begin = Instant::now();
        self.supervised.restart(&predecessor);
        let mut handoff = Duration::ZERO;
        if let Some(launcher) = launcher {
            self.until("the launcher exits", Some(load), |slice| launcher.ends_within(slice))?;
            handoff = begin.elapsed();
        }
        self.until("the successor answers", Some(load), |slice| {
            load.wait_for_pids(generations.len() + 1, slice)
        })?;
        let answered = begin.elapsed();
        self.until("the predecessor ends", Some(load), |slice| predecessor.ends_within(slice))?;
        let ended = begin.elapsed();
        self.family.reap(newest);
        load.mark_end();
        Ok(Restart { handoff, answered, ended })
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
