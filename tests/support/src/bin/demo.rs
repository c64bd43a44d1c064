//! Restarts an example server again and again under full load, and tells what became of every
//! request. See `scripts/demo`.
//!
//! Exit status: 0 all went well, 1 something failed, 2 it could not run, 130 interrupted.

use std::{
    error::Error,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, IsTerminal, Write},
    net::TcpStream,
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use lexopt::prelude::*;
use seamless_testing::{
    bin,
    family::Family,
    load::{Failure, Latency, Load, Report, Running, Target},
    port::ReservedPort,
    process::Watched,
    supervisor::{Service, Supervisor},
};
use signal_hook::consts::SIGTERM;

const USAGE: &str = "\
Restarts an example server under full load and counts what becomes of every request.

scripts/demo [--restarts 10] [--clients 128] [--keep-alive]
             [--example threads|reuseport|unixsocket]
             [--supervisor builtin|daemontools|runit]";

/// From one restart to the next. The supervisors start a service at most once a second, and
/// daemontools listens to nobody in the first second after a start.
const PERIOD: Duration = Duration::from_millis(2400);
/// Load before the first restart, for latencies of a server that is left alone.
const CALM: Duration = Duration::from_secs(3);
/// How long a step of a restart may take.
const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(5);
/// Between two looks at what goes on besides.
const SLICE: Duration = Duration::from_millis(50);
const REDRAW: Duration = Duration::from_millis(200);
/// Between two starts by the supervisor that is built in.
const RESPAWN: Duration = Duration::from_secs(1);

/// What Linux does to connections that wait in the queue of a closing listener.
const QUEUED: [Failure; 2] = [Failure::ResetConnecting, Failure::ResetBeforeAnswer];

fn main() -> ExitCode {
    let options = match Options::from_args() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("demo: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(end) => end,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::from(2)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Example {
    Threads,
    Reuseport,
    Unixsocket,
}

impl Example {
    fn name(self) -> &'static str {
        match self {
            Example::Threads => "threads",
            Example::Reuseport => "reuseport",
            Example::Unixsocket => "unixsocket",
        }
    }
}

struct Options {
    example: Example,
    supervisor: Option<Supervisor>,
    restarts: usize,
    clients: usize,
    keep_alive: bool,
}

impl Options {
    /// `None` where help was asked for.
    fn from_args() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Options {
            example: Example::Threads,
            supervisor: None,
            restarts: 10,
            clients: 128,
            keep_alive: false,
        };
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Long("example") => {
                    options.example = args.value()?.parse_with(|name| match name {
                        "threads" => Ok(Example::Threads),
                        "reuseport" => Ok(Example::Reuseport),
                        "unixsocket" => Ok(Example::Unixsocket),
                        _ => Err("threads, reuseport or unixsocket"),
                    })?;
                }
                Long("supervisor") => {
                    options.supervisor = args.value()?.parse_with(|name| match name {
                        "builtin" => Ok(None),
                        "daemontools" => Ok(Some(Supervisor::Daemontools)),
                        "runit" => Ok(Some(Supervisor::Runit)),
                        _ => Err("builtin, daemontools or runit"),
                    })?;
                }
                Long("restarts") => options.restarts = args.value()?.parse()?,
                Long("clients") => options.clients = args.value()?.parse()?,
                Long("keep-alive") => options.keep_alive = true,
                Short('h') | Long("help") => return Ok(None),
                _ => return Err(arg.unexpected()),
            }
        }
        if options.clients == 0 {
            return Err("--clients: at least 1".into());
        }
        Ok(Some(options))
    }
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    if let Some(supervisor) = options.supervisor {
        check_installed(supervisor)?;
    }
    // Dropped in the reverse order: the service ends, then whatever it left, then the folder goes.
    let folder = tempfile::Builder::new().prefix("seamless-demo.").tempdir()?;
    let family = Family::adopt()?;
    let server = Server::new(options.example, folder.path())?;
    let supervised = Supervised::start(options.supervisor, &server, folder.path())?;
    let mut demo = Demo { family: &family, supervised, screen: Screen::new() };

    let end = demo.run(options, &server);
    demo.screen.clear();
    let problems = match end {
        Ok(outcome) => {
            print(&outcome.table(options));
            outcome.problems(options.example)
        }
        Err(End::Interrupted) => {
            eprintln!("demo: interrupted");
            return Ok(ExitCode::from(130));
        }
        Err(End::Failed(what)) => vec![what],
    };
    if problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("\nFAILED: {}", problems.join("; "));
    eprintln!("The server's log ends with:\n{}", server.last_lines(20));
    Ok(ExitCode::FAILURE)
}

fn check_installed(supervisor: Supervisor) -> Result<(), String> {
    let programs: &[&str] = match supervisor {
        Supervisor::Daemontools => &["supervise", "svc", "svok"],
        Supervisor::Runit => &["runsv", "sv"],
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let missing = |program: &&&str| {
        !std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    };
    match programs.iter().find(missing) {
        Some(program) => Err(format!("{program} is not installed: run scripts/setup")),
        None => Ok(()),
    }
}

/// The example and where it listens.
struct Server {
    program: PathBuf,
    args: Vec<OsString>,
    log: PathBuf,
    target: Target,
    _port: Option<ReservedPort>,
}

impl Server {
    fn new(example: Example, folder: &Path) -> io::Result<Self> {
        let (flag, place, target, port) = match example {
            Example::Threads | Example::Reuseport => {
                let port = ReservedPort::new()?;
                let address = port.address();
                ("--listen", address.to_string().into(), Target::Tcp(address), Some(port))
            }
            Example::Unixsocket => {
                let path = folder.join("web.sock");
                ("--unix-socket", path.clone().into_os_string(), Target::Unix(path), None)
            }
        };
        let pid_file = folder.join("web.pid").into_os_string();
        Ok(Server {
            program: bin::example(example.name()),
            args: vec![flag.into(), place, "--pid-file".into(), pid_file],
            log: folder.join("log"),
            target,
            _port: port,
        })
    }

    fn command(&self) -> io::Result<Command> {
        let log = File::options().append(true).create(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        // A group of its own: ^C is for the demo, which then ends what it has started.
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

    fn listens(&self) -> bool {
        match &self.target {
            Target::Tcp(address) => TcpStream::connect(address).is_ok(),
            Target::Unix(path) => UnixStream::connect(path).is_ok(),
        }
    }

    fn last_lines(&self, count: usize) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

/// The server under its supervisor.
enum Supervised {
    /// Starts it again when it has ended, at most once a second, and knows nothing else.
    Builtin {
        command: Command,
        main: Child,
        started: Instant,
    },
    Real(Service),
}

impl Supervised {
    fn start(supervisor: Option<Supervisor>, server: &Server, folder: &Path) -> io::Result<Self> {
        match supervisor {
            Some(kind) => {
                Ok(Supervised::Real(Service::new(kind, folder.join("web"), &server.run_script())))
            }
            None => {
                let mut command = server.command()?;
                Ok(Supervised::Builtin { main: command.spawn()?, command, started: Instant::now() })
            }
        }
    }

    /// The launcher.
    fn main_pid(&self) -> u32 {
        match self {
            Supervised::Builtin { main, .. } => main.id(),
            Supervised::Real(service) => service.main_pid(),
        }
    }

    /// TERM to the launcher.
    fn restart(&self) {
        match self {
            // Not reaped yet, so the number is still its own.
            Supervised::Builtin { main, .. } => {
                Watched::new(main.id()).signal(SIGTERM);
            }
            Supervised::Real(service) => service.restart(),
        }
    }

    /// What a supervisor does all the time. An error where the launcher did not hand off.
    fn tend(&mut self) -> Result<(), End> {
        if let Supervised::Builtin { command, main, started } = self {
            if started.elapsed() < RESPAWN {
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
enum End {
    Interrupted,
    Failed(String),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        End::Failed(error.to_string())
    }
}

struct Demo<'a> {
    family: &'a Family,
    supervised: Supervised,
    screen: Screen,
}

impl Demo<'_> {
    fn run(&mut self, options: &Options, server: &Server) -> Result<Outcome, End> {
        self.screen.line(&format!(
            "{} starts, with {} clients",
            options.example.name(),
            options.clients
        ));
        self.until("the server listens", LIMIT, None, |slice| {
            thread::sleep(slice.min(PAUSE));
            server.listens()
        })?;
        let mut load = Load::new(server.target.clone()).clients(options.clients);
        if options.keep_alive {
            load = load.keep_alive();
        }
        let load = load.start();
        self.until("the server answers", LIMIT, Some(&load), |slice| load.wait_for_pids(1, slice))?;
        let mut handoffs = Vec::new();
        let problem = match self.restarts(options.restarts, &load, &mut handoffs) {
            Ok(()) => None,
            Err(End::Failed(what)) => Some(what),
            Err(End::Interrupted) => return Err(End::Interrupted),
        };
        Ok(Outcome { report: load.stop(), handoffs, problem })
    }

    fn restarts(
        &mut self,
        count: usize,
        load: &Running,
        handoffs: &mut Vec<Duration>,
    ) -> Result<(), End> {
        self.pass(CALM, load)?;
        for turn in 1..=count {
            let begin = Instant::now();
            let restart = self.restart(load)?;
            handoffs.push(restart.handoff);
            self.screen.line(&format!(
                "restart {turn:>2} of {count}: handoff {}, successor answers after {}, \
                 predecessor ended after {}; {} requests, {} without answer",
                millis(restart.handoff),
                millis(restart.answered),
                millis(restart.ended),
                thousands(load.requests()),
                thousands(load.report().failures_but(&[])),
            ));
            self.pass(PERIOD.saturating_sub(begin.elapsed()), load)?;
        }
        Ok(())
    }

    fn restart(&mut self, load: &Running) -> Result<Restart, End> {
        let generations = load.pids();
        let newest = *generations.last().expect("one has answered");
        let predecessor = Watched::new(newest);
        let launcher = Watched::new(self.supervised.main_pid());

        load.mark_begin();
        let begin = Instant::now();
        self.supervised.restart();
        self.until("the launcher exits", LIMIT, Some(load), |slice| launcher.ends_within(slice))?;
        let handoff = begin.elapsed();
        self.until("the successor answers", LIMIT, Some(load), |slice| {
            load.wait_for_pids(generations.len() + 1, slice)
        })?;
        let answered = begin.elapsed();
        self.until("the predecessor ends", LIMIT, Some(load), |slice| {
            predecessor.ends_within(slice)
        })?;
        let ended = begin.elapsed();
        self.family.reap(newest);
        load.mark_end();
        Ok(Restart { handoff, answered, ended })
    }

    fn pass(&mut self, time: Duration, load: &Running) -> Result<(), End> {
        let end = Instant::now() + time;
        self.until("time passes", LIMIT, Some(load), |slice| {
            let left = end.saturating_duration_since(Instant::now());
            thread::sleep(slice.min(left));
            left.is_zero()
        })
    }

    /// Waits for a fact, slice by slice; what has to go on meanwhile does so in between.
    fn until(
        &mut self,
        what: &str,
        limit: Duration,
        load: Option<&Running>,
        mut fact: impl FnMut(Duration) -> bool,
    ) -> Result<(), End> {
        let deadline = Instant::now() + limit;
        loop {
            self.supervised.tend()?;
            if fact(SLICE) {
                return Ok(());
            }
            if self.family.interrupted() {
                return Err(End::Interrupted);
            }
            if Instant::now() > deadline {
                return Err(End::Failed(format!("not within {limit:?}: {what}")));
            }
            if let Some(load) = load {
                self.screen.live(what, load);
            }
        }
    }
}

/// How long the steps of a restart took, each counted from the TERM.
struct Restart {
    handoff: Duration,
    answered: Duration,
    ended: Duration,
}

struct Outcome {
    report: Report,
    handoffs: Vec<Duration>,
    problem: Option<String>,
}

impl Outcome {
    /// Resets that Linux owes us, not the server: those around a drain, where two listeners share
    /// a port and the one that closes takes its queue with it.
    fn queued(&self, example: Example) -> u64 {
        if example == Example::Unixsocket || migrates() {
            return 0;
        }
        let counted = self.report.failures.iter().filter(|(failure, _)| QUEUED.contains(failure));
        counted.map(|(_, split)| split.during).sum()
    }

    fn failures(&self, example: Example) -> u64 {
        self.report.failures_but(&[]) - self.queued(example)
    }

    fn problems(&self, example: Example) -> Vec<String> {
        let mut problems = Vec::from_iter(self.problem.clone());
        let failures = self.failures(example);
        if failures > 0 {
            problems.push(format!("{} requests failed", thousands(failures)));
        }
        let (seen, expected) = (self.report.answers.len(), self.handoffs.len() + 1);
        if seen != expected {
            problems.push(format!("{seen} generations answered, not {expected}"));
        }
        problems
    }

    fn table(&self, options: &Options) -> String {
        let report = &self.report;
        let restarts = self.handoffs.len();
        let supervisor = options.supervisor.map_or("the built-in supervisor", Supervisor::program);
        let connections =
            if options.keep_alive { "kept connections" } else { "a connection a request" };
        let mut rows = vec![
            format!(
                "\n{}, {} clients, {connections}, {restarts} restarts under {supervisor}, {:.1} s\n",
                options.example.name(),
                options.clients,
                report.elapsed.as_secs_f64(),
            ),
            row(
                "requests",
                &thousands(report.requests.total()),
                &format!("{:.0} answers a second", report.rate()),
            ),
            row("failed", &thousands(self.failures(options.example)), ""),
        ];
        let queued = self.queued(options.example);
        for (failure, split) in &report.failures {
            let mut split = *split;
            if queued > 0 && QUEUED.contains(failure) {
                split.during = 0;
            }
            if split.total() > 0 {
                let place = format!("{} during restarts, {} outside", split.during, split.outside);
                rows.push(row(&format!("  {failure}"), &thousands(split.total()), &place));
            }
        }
        if queued > 0 {
            let cause =
                "reset while queued on the closing listener: Linux, net.ipv4.tcp_migrate_req=0";
            rows.push(row("counted apart", &thousands(queued), cause));
        }
        if report.retried > 0 {
            rows.push(row(
                "sent again",
                &thousands(report.retried),
                "their kept connection had ended, as HTTP allows",
            ));
        }
        rows.push(row(
            "generations",
            &report.answers.len().to_string(),
            &format!("of {} expected", restarts + 1),
        ));
        if let Some((median, longest)) = median_and_longest(&self.handoffs) {
            let text = format!("the longest {}; TERM to the launcher's exit", millis(longest));
            rows.push(row("handoff", &millis(median), &text));
        }
        rows.push(format!(
            "\n{:<18}{:>11}{:>11}{:>11}{:>11}",
            "latency", "p50", "p99", "p99.9", "max"
        ));
        rows.push(latency("during restarts", &report.during));
        rows.push(latency("outside restarts", &report.outside));
        rows.push(format!("\n{:<18}{:>11}{:>11}{:>11}", "answers by PID", "", "first", "last"));
        for answers in &report.answers {
            let at = |time: Duration| format!("{:.3} s", time.as_secs_f64());
            let (pid, count) = (answers.pid, thousands(answers.count));
            rows.push(format!(
                "  {pid:<16}{count:>11}{:>11}{:>11}",
                at(answers.first),
                at(answers.last)
            ));
        }
        rows.join("\n")
    }
}

/// The kernel moves the queue of a closing SO_REUSEPORT listener to another one.
fn migrates() -> bool {
    fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req").is_ok_and(|value| value.trim() == "1")
}

fn median_and_longest(times: &[Duration]) -> Option<(Duration, Duration)> {
    let mut times = times.to_vec();
    times.sort();
    Some((*times.get(times.len() / 2)?, *times.last()?))
}

fn row(name: &str, value: &str, text: &str) -> String {
    format!("{name:<18}{value:>11}   {text}").trim_end().to_owned()
}

fn latency(name: &str, latency: &Latency) -> String {
    if latency.count() == 0 {
        return row(name, "none", "");
    }
    let quantile = |part| millis(latency.quantile(part));
    let (p50, p99, p999) = (quantile(0.5), quantile(0.99), quantile(0.999));
    format!("{name:<18}{p50:>11}{p99:>11}{p999:>11}{:>11}", millis(latency.max()))
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits"));
    groups.collect::<Vec<_>>().join(",")
}

/// Where nobody reads any more there is nobody to tell.
fn print(text: &str) {
    let mut output = io::stdout().lock();
    let _ = writeln!(output, "{text}").and_then(|()| output.flush());
}

/// The progress: a line for each step, and on a terminal one below them that is always new.
struct Screen {
    terminal: bool,
    drawn: Option<Instant>,
}

impl Screen {
    fn new() -> Self {
        Screen { terminal: io::stdout().is_terminal(), drawn: None }
    }

    fn live(&mut self, what: &str, load: &Running) {
        if !self.terminal || self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return;
        }
        let report = load.report();
        let requests = thousands(report.requests.total());
        let failed = thousands(report.failures_but(&[]));
        let mut output = io::stdout().lock();
        let _ = write!(
            output,
            "\r{requests} requests, {:.0} answers a second, {failed} without answer ({what})\x1b[K",
            report.rate()
        );
        let _ = output.flush();
        self.drawn = Some(Instant::now());
    }

    fn clear(&mut self) {
        if self.drawn.take().is_some() {
            let mut output = io::stdout().lock();
            let _ = write!(output, "\r\x1b[K").and_then(|()| output.flush());
        }
    }

    fn line(&mut self, text: &str) {
        self.clear();
        print(text);
    }
}
