//! The figures that the crate wants to reach, measured and printed as one table; see
//! `scripts/bench`. A figure that is missed is told, and is no error: machines differ.
//!
//! Programs that are compared take turns in the same run. The launcher's parent is this program,
//! no supervisor that the crate knows, so that no intent has to settle.

use std::{
    env,
    error::Error,
    fs::{self, File},
    io::{self, ErrorKind, IsTerminal, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use lexopt::prelude::*;
use seamless_testing::{
    bin,
    family::Family,
    port::ReservedPort,
    process::{Watched, private_dirty, stat, voluntary_switches},
};
use signal_hook::consts::SIGTERM;

const USAGE: &str = "\
Measures the figures of the crate on this machine.

scripts/bench [--runs 100] [--idle 60]      (starts of each program; seconds of idleness)";

/// What takes longer than this does not work.
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let (mut runs, mut idle) = (100, 60);
    let mut args = lexopt::Parser::from_env();
    let parsed = (|| {
        while let Some(arg) = args.next()? {
            match arg {
                Long("runs") => runs = args.value()?.parse()?,
                Long("idle") => idle = args.value()?.parse()?,
                Short('h') | Long("help") => return Ok(false),
                _ => return Err(arg.unexpected()),
            }
        }
        if runs == 0 { Err("--runs: at least 1".into()) } else { Ok(true) }
    })();
    match parsed {
        Ok(true) => {}
        Ok(false) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("bench: {error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    }
    match run(runs, Duration::from_secs(idle)) {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(runs: usize, idle: Duration) -> Result<String, Box<dyn Error>> {
    // PID files live in /run, which is in memory.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("seamless-bench.").tempdir_in(place)?;
    let family = Family::adopt()?;
    let port = ReservedPort::new()?;
    let bench = Bench {
        family: &family,
        folder: folder.path(),
        address: port.address(),
        threads: bin::example("threads"),
        plain: bin::support("plain"),
    };

    // Pages of a program that has just been built and is not on the disk yet count as dirty.
    for program in [&bench.threads, &bench.plain] {
        File::open(program)?.sync_all()?;
    }
    let (mut starts, mut plain_starts, mut handoffs) =
        (Samples::new(), Samples::new(), Samples::new());
    for run in 1..=runs {
        progress(&format!("run {run} of {runs}"));
        let (threads, start) = bench.start_threads()?;
        starts.add(start);
        handoffs.add(bench.hand_off(threads)?);
        let (mut plain, start) = bench.start_plain()?;
        plain_starts.add(start);
        plain.main.kill()?;
        plain.main.wait()?;
    }
    let launcher = bench.idle_launcher(idle)?;
    progress("");

    let (start, plain, handoff) = (starts.median(), plain_starts.median(), handoffs.median());
    let more = start.as_secs_f64() - plain.as_secs_f64();
    let ratio = start.as_secs_f64() / plain.as_secs_f64();
    let dirty = launcher.private_dirty.div_ceil(1024);
    let mut table = Table::new(runs);
    let reached = handoff < Duration::from_micros(600);
    table.target("TERM to the launcher's exit, median", &millis(handoff), "< 0.6 ms", reached);
    table.note("  99 of 100 within", &millis(handoffs.quantile(0.99)));
    let reached = start < Duration::from_millis(3);
    table.target("start of threads to its first answer, median", &millis(start), "< 3 ms", reached);
    table.note("  99 of 100 within", &millis(starts.quantile(0.99)));
    table.note("the same without the crate, median", &millis(plain));
    table.note("  99 of 100 within", &millis(plain_starts.quantile(0.99)));
    let measured = format!("{:.3} ms ({ratio:.1} times)", more * 1e3);
    table.target("  so the crate costs", &measured, "<= 2 ms", more <= 0.002);
    let threads = launcher.threads;
    table.target("launcher: threads", &threads.to_string(), "1", threads == 1);
    let wakeups = launcher.wakeups;
    let figure = format!("launcher: wake-ups in {} s idle", idle.as_secs());
    table.target(&figure, &wakeups.to_string(), "0", wakeups == 0);
    table.target("launcher: private dirty memory", &format!("{dirty} KB"), "< 250 KB", dirty < 250);
    Ok(table.0)
}

struct Bench<'a> {
    family: &'a Family,
    folder: &'a Path,
    address: SocketAddr,
    threads: PathBuf,
    plain: PathBuf,
}

/// A server that answers.
struct Service {
    /// What was started.
    main: Child,
    /// What answers: the daemon, or the same where there is no launcher.
    daemon: u32,
}

struct Launcher {
    threads: u32,
    wakeups: u64,
    private_dirty: u64,
}

impl Bench<'_> {
    fn start_threads(&self) -> io::Result<(Service, Duration)> {
        let mut command = Command::new(&self.threads);
        command.arg("--pid-file").arg(self.folder.join("web.pid"));
        self.start(command)
    }

    fn start_plain(&self) -> io::Result<(Service, Duration)> {
        self.start(Command::new(&self.plain))
    }

    fn start(&self, mut command: Command) -> io::Result<(Service, Duration)> {
        command.arg("--listen").arg(self.address.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let begin = Instant::now();
        let mut main = command.spawn()?;
        loop {
            match ask(self.address) {
                Ok(daemon) => return Ok((Service { main, daemon }, begin.elapsed())),
                Err(error) if error.kind() != ErrorKind::ConnectionRefused => return Err(error),
                Err(_) => {}
            }
            self.check_interrupted()?;
            if let Some(status) = main.try_wait()? {
                return Err(io::Error::other(format!("{command:?} does not serve: {status}")));
            }
            if begin.elapsed() > LIMIT {
                return Err(io::Error::other(format!("{command:?} does not serve")));
            }
            // No pause: a core that fell idle would add its own waking up to the figure.
            thread::yield_now();
        }
    }

    /// From TERM to the launcher's exit.
    fn hand_off(&self, mut service: Service) -> io::Result<Duration> {
        let launcher = Watched::new(service.main.id());
        let begin = Instant::now();
        launcher.signal(SIGTERM);
        let status = service.main.wait()?;
        let elapsed = begin.elapsed();
        if !status.success() {
            return Err(io::Error::other(format!("the launcher ended with {status}")));
        }
        self.end(service.daemon)?;
        Ok(elapsed)
    }

    /// Ends a process that is our child, by birth or as an orphan.
    fn end(&self, pid: u32) -> io::Result<()> {
        let process = Watched::new(pid);
        process.signal(SIGTERM);
        if !process.ends_within(LIMIT) {
            return Err(io::Error::other(format!("process {pid} ignores TERM")));
        }
        self.family.reap(pid);
        Ok(())
    }

    fn idle_launcher(&self, idle: Duration) -> io::Result<Launcher> {
        let (service, _) = self.start_threads()?;
        let pid = service.main.id();
        let gone = || io::Error::other("the launcher has ended");
        // What its start made it do is over by then; idleness begins after it.
        self.pass(Duration::from_secs(1), "the launcher comes to rest")?;
        let before = voluntary_switches(pid).ok_or_else(gone)?;
        self.pass(idle, "the launcher is idle")?;
        // Each wake-up ends with a thread that goes to sleep again.
        let after = voluntary_switches(pid).ok_or_else(gone)?;
        let launcher = Launcher {
            threads: stat(pid).ok_or_else(gone)?.threads,
            wakeups: after - before,
            private_dirty: private_dirty(pid).ok_or_else(gone)?,
        };
        self.hand_off(service)?;
        Ok(launcher)
    }

    fn pass(&self, time: Duration, what: &str) -> io::Result<()> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            progress(&format!("{what}: {} s", left.as_secs()));
            self.check_interrupted()?;
            thread::sleep(left.min(Duration::from_millis(200)));
        }
    }

    fn check_interrupted(&self) -> io::Result<()> {
        if self.family.interrupted() { Err(io::Error::other("interrupted")) } else { Ok(()) }
    }
}

/// One request; gives the PID of who answers.
fn ask(address: SocketAddr) -> io::Result<u32> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let pid = answer.split_once("Server pid: ").and_then(|(_, pid)| pid.trim().parse().ok());
    pid.ok_or_else(|| io::Error::other(format!("not an answer of ours: {answer:?}")))
}

struct Samples(Vec<Duration>);

impl Samples {
    fn new() -> Self {
        Samples(Vec::new())
    }

    fn add(&mut self, sample: Duration) {
        let place = self.0.partition_point(|other| *other <= sample);
        self.0.insert(place, sample);
    }

    /// The shortest that the given part does not exceed.
    fn quantile(&self, part: f64) -> Duration {
        let rank = (self.0.len() as f64 * part).ceil() as usize;
        self.0[rank.max(1) - 1]
    }

    fn median(&self) -> Duration {
        self.quantile(0.5)
    }
}

/// What is measured, and what it should be.
struct Table(String);

impl Table {
    fn new(runs: usize) -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cores = thread::available_parallelism().map_or(0, usize::from);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load = load.split(' ').next().unwrap_or_default();
        let kernel = kernel.trim();
        let mut table =
            Table(format!("{runs} runs, {cores} cores, load average {load}, Linux {kernel}\n\n"));
        table.line("figure", "measured", "target", "");
        table
    }

    fn target(&mut self, figure: &str, measured: &str, target: &str, reached: bool) {
        self.line(figure, measured, target, if reached { "ok" } else { "MISS" });
    }

    fn note(&mut self, figure: &str, measured: &str) {
        self.line(figure, measured, "", "");
    }

    fn line(&mut self, figure: &str, measured: &str, target: &str, verdict: &str) {
        let line = format!("{figure:<52}{measured:>22}{target:>11}  {verdict}");
        self.0.push_str(line.trim_end());
        self.0.push('\n');
    }
}

fn millis(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

/// A line that is always new, on a terminal; empty to remove it.
fn progress(text: &str) {
    let mut output = io::stderr().lock();
    if output.is_terminal() {
        let _ = write!(output, "\r{text}\x1b[K").and_then(|()| output.flush());
    }
}
