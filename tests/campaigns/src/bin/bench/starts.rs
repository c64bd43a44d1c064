//! What the start of the crate and its launcher cost, beside the same server without the crate.

use std::{
    error::Error,
    fs::File,
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use seamless_testing::{
    bin,
    process::{Watched, private_dirty, stat, voluntary_switches},
};
use signal_hook::consts::SIGTERM;

use crate::{
    Bench,
    table::{self, Samples, millis, progress},
};

/// What takes longer than this does not work.
const LIMIT: Duration = Duration::from_secs(10);

pub(crate) fn run(bench: &Bench, runs: usize, idle: Duration) -> Result<(), Box<dyn Error>> {
    let bench = Starts {
        bench,
        address: bench.port.address(),
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
    table::title(&format!("Starts, {runs} of each"));
    table::header();
    let reached = handoff < Duration::from_micros(600);
    table::target("TERM to the launcher's exit, median", &millis(handoff), "< 0.6 ms", reached);
    table::note("  99 of 100 within", &millis(handoffs.quantile(0.99)));
    let reached = start < Duration::from_millis(3);
    table::target(
        "start of threads to its first answer, median",
        &millis(start),
        "< 3 ms",
        reached,
    );
    table::note("  99 of 100 within", &millis(starts.quantile(0.99)));
    table::note("the same without the crate, median", &millis(plain));
    table::note("  99 of 100 within", &millis(plain_starts.quantile(0.99)));
    let measured = format!("{:.3} ms ({ratio:.1} times)", more * 1e3);
    table::target("  so the crate costs", &measured, "<= 2 ms", more <= 0.002);
    let threads = launcher.threads;
    table::target("launcher: threads", &threads.to_string(), "1", threads == 1);
    let wakeups = launcher.wakeups;
    let figure = format!("launcher: wake-ups in {} s idle", idle.as_secs());
    table::target(&figure, &wakeups.to_string(), "0", wakeups == 0);
    table::target(
        "launcher: private dirty memory",
        &format!("{dirty} KB"),
        "< 250 KB",
        dirty < 250,
    );
    Ok(())
}

struct Starts<'a> {
    bench: &'a Bench<'a>,
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

impl Starts<'_> {
    fn start_threads(&self) -> io::Result<(Service, Duration)> {
        let mut command = Command::new(&self.threads);
        command.arg("--pid-file").arg(self.bench.folder.join("web.pid"));
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
            self.bench.check_interrupted()?;
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
        self.bench.family.reap(pid);
        Ok(())
    }

    fn idle_launcher(&self, idle: Duration) -> io::Result<Launcher> {
        let (service, _) = self.start_threads()?;
        let pid = service.main.id();
        let gone = || io::Error::other("the launcher has ended");
        // What its start made it do is over by then; idleness begins after it.
        self.bench.pass(Duration::from_secs(1), "the launcher comes to rest")?;
        let before = voluntary_switches(pid).ok_or_else(gone)?;
        self.bench.pass(idle, "the launcher is idle")?;
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
