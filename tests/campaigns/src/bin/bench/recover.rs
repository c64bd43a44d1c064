//! What a bad version and a crash cost, under full load: how soon the old version answers after a rollback, how
//! soon the next start answers after a crash, what a keeper takes, and whether anybody is refused. And what a probation
//! costs a restart that goes well.

use std::{
    collections::BTreeMap,
    error::Error,
    ffi::OsString,
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use seamless_campaigns::{
    deploy::Server,
    load::{Failure, Load, Record, Running, Target},
};
use seamless_testing::{
    bin,
    process::{Watched, private_dirty},
    supervisor::{Service, Supervisor},
};
use signal_hook::consts::{SIGABRT, SIGHUP, SIGKILL, SIGTERM, SIGUSR1};

use crate::{
    Bench,
    servers::installed,
    table::{self, Samples, millis, thousands},
};

const LIMIT: Duration = Duration::from_secs(20);
const CLIENTS: usize = 128;
/// How long each generation serves under load before it dies.
const SERVES: Duration = Duration::from_millis(150);
/// From one restart to the next, without a probation and with one. There are as many requests for each of them then,
/// whatever it takes: else their quantiles could not be compared.
const CYCLE: Duration = Duration::from_millis(800);

/// All clients share one thread. After a death it has so much to do, with a new connection for each request that was
/// cut, that it reads the first answer milliseconds after it has come. So one more client has a thread of its own.
struct Clients {
    load: Running,
    witness: Running,
    /// When the witness began, by the clock of the load.
    later: Duration,
}

impl Clients {
    fn start(target: &Target) -> Clients {
        let start =
            |clients| Load::new(target.clone()).clients(clients).threads(1).keep_records().start();
        let load = start(CLIENTS);
        let later = load.elapsed();
        Clients { witness: start(1), later, load }
    }

    fn elapsed(&self) -> Duration {
        self.load.elapsed()
    }

    fn pids(&self) -> Vec<u32> {
        self.load.pids()
    }

    fn stop(self) -> Vec<Record> {
        let mut records = self.load.stop().records;
        let of_witness = self.witness.stop().records.into_iter();
        records.extend(of_witness.map(|one| Record { begin: one.begin + self.later, ..one }));
        records
    }
}

/// One death: when it was sent its signal, when the kernel told of its end (both since the load began), and whose
/// answer was awaited; `None`: that of any newer process.
struct Death {
    signalled: Duration,
    told: Duration,
    dead: u32,
    heir: Option<u32>,
}

/// Who starts the next generation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// The launcher, at a reload signal. Nobody waits for the next try there.
    InPlace,
    Supervisor(Supervisor),
}

impl By {
    const ALL: [By; 4] = [
        By::InPlace,
        By::Supervisor(Supervisor::Daemontools),
        By::Supervisor(Supervisor::Runit),
        By::Supervisor(Supervisor::S6),
    ];

    fn name(self) -> &'static str {
        match self {
            By::InPlace => "in place",
            By::Supervisor(Supervisor::Daemontools) => "daemontools",
            By::Supervisor(Supervisor::Runit) => "runit",
            By::Supervisor(Supervisor::S6) => "s6",
        }
    }

    fn is_here(self) -> bool {
        let By::Supervisor(kind) = self else { return true };
        installed(kind.program()).is_some()
    }
}

/// As many deaths with each of those that are here.
fn with_each(
    bench: &Bench,
    count: usize,
    measure: impl Fn(&Bench, By, usize) -> Result<bool, Box<dyn Error>>,
) -> Result<bool, Box<dyn Error>> {
    let mut clean = true;
    let here: Vec<By> = By::ALL.into_iter().filter(|by| by.is_here()).collect();
    for by in &here {
        clean &= measure(bench, *by, count.div_ceil(here.len()))?;
    }
    for missing in By::ALL.into_iter().filter(|by| !here.contains(by)) {
        table::print(&format!("{}: not installed", missing.name()));
    }
    Ok(clean)
}

/// New versions that die in their probation, by a signal or by an exit. The next try of the same file is asked for by
/// `seamless restart`, or by a reload signal.
pub(crate) fn rollbacks(bench: &Bench, count: usize) -> Result<bool, Box<dyn Error>> {
    with_each(bench, count, rollbacks_by)
}

fn rollbacks_by(bench: &Bench, by: By, count: usize) -> Result<bool, Box<dyn Error>> {
    table::title(&format!(
        "Rollback, {}: {count} new versions die in their probation, {CLIENTS} clients ask all the time",
        by.name(),
    ));
    let mut site = Site::new(bench, by, &["--probation", "10m", "--keep-sockets", "none"])?;
    let load = Clients::start(&site.target);
    let old = site.named().ok_or("no PID file")?;
    let mut deaths = Vec::new();
    for nth in 0..count {
        table::progress(&format!("rollback {} of {count}", nth + 1));
        bench.check_interrupted()?;
        site.restart()?;
        let new = site.wait("the new version", || site.named().filter(|pid| *pid != old))?;
        site.wait("an answer of it", || load.pids().contains(&new).then_some(()))?;
        thread::sleep(SERVES);
        deaths.push(kill(&load, new, Some(old), signal(nth)));
        site.wait("the old version", || (site.named() == Some(old)).then_some(()))?;
        thread::sleep(SERVES);
    }
    let records = load.stop();
    site.end()?;
    tell(&records, &deaths, Some((Duration::from_millis(2), Duration::from_millis(10))))
}

/// Crashes of the only daemon: a keeper holds its socket until the next start.
pub(crate) fn crashes(bench: &Bench, count: usize) -> Result<bool, Box<dyn Error>> {
    with_each(bench, count, crashes_by)
}

fn crashes_by(bench: &Bench, by: By, count: usize) -> Result<bool, Box<dyn Error>> {
    let again = match by {
        By::InPlace => "is started again at once",
        By::Supervisor(_) => "is started again by its supervisor",
    };
    table::title(&format!(
        "Crash, {}: the daemon dies {count} times and {again}, {CLIENTS} clients ask all the time",
        by.name(),
    ));
    // The time counts from the first crash in a row, and no generation here serves for the 10 s that end one.
    let mut site = Site::new(bench, by, &["--keep-sockets", "10m"])?;
    let load = Clients::start(&site.target);
    let (mut deaths, mut in_place, mut memory) = (Vec::new(), Samples::new(), 0);
    for nth in 0..count {
        table::progress(&format!("crash {} of {count}", nth + 1));
        bench.check_interrupted()?;
        let daemon = site.named().ok_or("no PID file")?;
        site.wait("an answer of it", || load.pids().contains(&daemon).then_some(()))?;
        thread::sleep(SERVES);
        // From the signal on: under full load the kernel's word reaches this thread late.
        let signalled = Instant::now();
        deaths.push(kill(&load, daemon, None, signal(nth)));
        // The launcher ends when the keeper is in place.
        let keeper = loop {
            if let Some(keeper) = site.keeper() {
                break keeper;
            }
            if signalled.elapsed() > LIMIT {
                return Err("no keeper".into());
            }
            thread::sleep(Duration::from_micros(200));
        };
        in_place.add(signalled.elapsed());
        memory = memory.max(private_dirty(keeper).unwrap_or(0));
        site.start_again()?;
        site.wait("the next start", || site.named().filter(|pid| *pid != daemon))?;
        bench.family.reap(keeper);
    }
    thread::sleep(SERVES);
    let records = load.stop();
    site.end()?;
    let clean = tell(&records, &deaths, None)?;
    let (median, slowest) = (in_place.median(), in_place.quantile(1.0));
    let start = Duration::from_millis(5);
    table::target(
        "keeper in place after the signal, median",
        &millis(median),
        "< 5 ms",
        median < start,
    );
    table::note("keeper in place after the signal, longest", &millis(slowest));
    let kilobytes = memory / 1024;
    table::target(
        "private memory of a keeper, the most",
        &format!("{} KB", thousands(kilobytes)),
        "< 400 KB",
        kilobytes < 400,
    );
    Ok(clean)
}

/// Restarts in place that go well, without a probation and with one, in turns. The targets are those without one.
pub(crate) fn probation(bench: &Bench, rate: u32, count: usize) -> Result<bool, Box<dyn Error>> {
    /// Turns of each.
    const TURNS: usize = 4;
    const NO: (&str, &[&str]) = ("without a probation", &[]);
    const YES: (&str, &[&str]) = ("with a probation of 300 ms", &["--probation", "300ms"]);
    let count = count.div_ceil(TURNS);
    table::title(&format!(
        "A probation: {} restarts in place each, one each {}, {rate} requests a second (a connection each)",
        count * TURNS,
        millis(CYCLE),
    ));
    let mut figures = [Figures::default(), Figures::default()];
    for _ in 0..TURNS {
        for ((name, options), figures) in [NO, YES].into_iter().zip(&mut figures) {
            table::progress(name);
            figures.measure(bench, options, rate, count)?;
        }
    }
    table::print(&format!(
        "{:<30}{:>13}{:>13}{:>13}{:>13}{:>13}",
        "", "handoff p50", "handoff p99", "p50", "p99", "p99.9"
    ));
    for ((name, _), Figures { handoffs, latencies, .. }) in [NO, YES].into_iter().zip(&figures) {
        let columns = [
            handoffs.median(),
            handoffs.quantile(0.99),
            latencies.quantile(0.5),
            latencies.quantile(0.99),
            latencies.quantile(0.999),
        ];
        let columns: String = columns.map(|time| format!("{:>13}", millis(time))).concat();
        table::print(&format!("{name:<30}{columns}"));
    }
    let [without, with] = &figures;
    let ratio = |of: fn(&Figures) -> Duration| of(with).as_secs_f64() / of(without).as_secs_f64();
    for (figure, ratio) in [
        ("handoff, median: with to without", ratio(|one| one.handoffs.median())),
        ("p99.9: with to without", ratio(|one| one.latencies.quantile(0.999))),
    ] {
        table::target(figure, &format!("{ratio:.2} times"), "<= 1.2", ratio <= 1.2);
    }
    let failed = figures.iter().map(|one| one.failed).sum::<u64>();
    table::target("failed requests", &thousands(failed), "0", failed == 0);
    Ok(failed == 0)
}

struct Figures {
    /// From the signal to the first answer of the new generation.
    handoffs: Samples,
    latencies: Samples,
    failed: u64,
}

impl Default for Figures {
    fn default() -> Figures {
        Figures { handoffs: Samples::new(), latencies: Samples::new(), failed: 0 }
    }
}

impl Figures {
    fn measure(
        &mut self,
        bench: &Bench,
        options: &[&str],
        rate: u32,
        count: usize,
    ) -> Result<(), Box<dyn Error>> {
        let mut site = Site::new(bench, By::InPlace, options)?;
        let load = Load::new(site.target.clone()).threads(1).rate(rate).keep_records().start();
        let mut restarts = Vec::new();
        thread::sleep(SERVES);
        for _ in 0..count {
            bench.check_interrupted()?;
            let old = site.named().ok_or("no PID file")?;
            let signalled = load.elapsed();
            site.restart()?;
            let new = site.wait("the new version", || site.named().filter(|pid| *pid != old))?;
            restarts.push((signalled, new));
            Watched::new(old).wait_end(LIMIT);
            thread::sleep((signalled + CYCLE).saturating_sub(load.elapsed()));
        }
        let report = load.stop();
        site.end()?;
        let answered: Vec<_> = report.records.iter().filter(|one| one.outcome.is_ok()).collect();
        for (signalled, new) in restarts {
            let its = answered.iter().filter(|one| one.outcome == Ok(new));
            let first = its.map(|one| one.begin + one.latency).min();
            self.handoffs.add(first.ok_or("a generation has not answered")? - signalled);
        }
        let mut all: Vec<_> = answered.iter().map(|one| one.latency).collect();
        all.extend(self.latencies.iter());
        self.latencies = all.into_iter().collect();
        self.failed += report.failures_but(&[]);
        Ok(())
    }
}

/// The example exits with code 1 at USR1.
fn signal(nth: usize) -> i32 {
    [SIGKILL, SIGABRT, SIGUSR1][nth % 3]
}

fn kill(load: &Clients, dead: u32, heir: Option<u32>, signal: i32) -> Death {
    let process = Watched::new(dead);
    let signalled = load.elapsed();
    process.signal(signal);
    process.wait_end(LIMIT);
    Death { signalled, told: load.elapsed(), dead, heir }
}

/// `targets`: for the median and the 99th percentile of the first answers.
fn tell(
    records: &[Record],
    deaths: &[Death],
    targets: Option<(Duration, Duration)>,
) -> Result<bool, Box<dyn Error>> {
    let (mut from_word, mut from_signal) = (Samples::new(), Samples::new());
    for death in deaths {
        let is_heirs = |pid: u32| match death.heir {
            Some(heir) => pid == heir,
            None => pid != death.dead,
        };
        let answers = records.iter().filter(|one| one.outcome.is_ok_and(is_heirs));
        let ends = answers.map(|one| one.begin + one.latency);
        let first =
            ends.filter(|end| *end >= death.signalled).min().ok_or("nobody has answered")?;
        from_word.add(first.saturating_sub(death.told));
        from_signal.add(first - death.signalled);
    }
    table::header();
    let (median, most) = (from_word.median(), from_word.quantile(0.99));
    match targets {
        Some((aim, limit)) => {
            table::target(
                "first answer after the kernel's word, median",
                &millis(median),
                "< 2 ms",
                median < aim,
            );
            table::target(
                "first answer after the kernel's word, p99",
                &millis(most),
                "< 10 ms",
                most < limit,
            );
        }
        None => {
            table::note("first answer after the kernel's word, median", &millis(median));
            table::note("first answer after the kernel's word, p99", &millis(most));
        }
    }
    table::note("first answer after the signal, median", &millis(from_signal.median()));
    table::note("first answer after the signal, p99", &millis(from_signal.quantile(0.99)));
    let failed = |failure| records.iter().filter(|one| one.outcome == Err(failure)).count();
    let refused = failed(Failure::Refused) as u64;
    table::target("refused connections", &thousands(refused), "0", refused == 0);
    // At any moment a client has one request under way.
    let mut cut = BTreeMap::<String, u64>::new();
    for failure in records.iter().filter_map(|one| one.outcome.err()) {
        if failure != Failure::Refused {
            *cut.entry(failure.to_string()).or_default() += 1;
        }
    }
    let all: u64 = cut.values().sum();
    let each = all as f64 / deaths.len() as f64;
    table::note("requests cut for each death", &format!("{each:.1} of {}", CLIENTS + 1));
    for (failure, count) in cut {
        table::note(&format!("  {failure}"), &thousands(count));
    }
    let answered = records.iter().filter(|one| one.outcome.is_ok()).count();
    table::note("requests answered", &thousands(answered as u64));
    Ok(refused == 0 && all <= ((CLIENTS + 1) * deaths.len()) as u64)
}

/// The example `http`, and who starts it.
struct Site {
    folder: PathBuf,
    server: Server,
    target: Target,
    starter: Starter,
}

enum Starter {
    /// This program.
    Launcher(Child),
    Service(Service),
}

impl Site {
    fn new(bench: &Bench, by: By, options: &[&str]) -> Result<Site, Box<dyn Error>> {
        let folder = bench.folder("recover")?;
        let address = bench.port.address();
        let mut args: Vec<OsString> = vec![
            "--pid-file".into(),
            folder.join("web.pid").into(),
            "--listen".into(),
            address.to_string().into(),
            "--exit-on".into(),
            "USR1".into(),
        ];
        if by == By::InPlace {
            args.extend(["--reload-signal".into(), "HUP".into()]);
        }
        args.extend(options.iter().map(OsString::from));
        let target = Target::Tcp(address);
        let words: Vec<_> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let server = Server::new(bin::example("http"), args, target.clone(), &folder);
        let starter = match by {
            By::InPlace => Starter::Launcher(server.command()?.spawn()?),
            By::Supervisor(kind) => {
                let script = format!(
                    "exec '{}' {} >>'{}' 2>&1",
                    bin::example("http").display(),
                    words.join(" "),
                    folder.join("log").display(),
                );
                Starter::Service(Service::new(kind, folder.join("service"), &script))
            }
        };
        let site = Site { folder, server, target, starter };
        site.wait("it listens", || site.server.listens().then_some(()))?;
        site.wait("its PID file", || site.named())?;
        if let Starter::Service(service) = &site.starter {
            service.settle();
        }
        Ok(site)
    }

    /// The next generation begins to start.
    fn restart(&mut self) -> Result<(), Box<dyn Error>> {
        match &self.starter {
            Starter::Launcher(launcher) => _ = Watched::new(launcher.id()).signal(SIGHUP),
            // Also for a file that has failed, which waits for its next try.
            Starter::Service(_) => {
                let mut command = Command::new(bin::support("seamless"));
                command.arg("restart").arg(self.folder.join("web.pid")).arg("--timeout=20s");
                let said = command.stdin(Stdio::null()).output()?;
                if !said.status.success() {
                    let text = String::from_utf8_lossy(&said.stderr).into_owned();
                    return Err(format!("no restart: {text}").into());
                }
            }
        }
        Ok(())
    }

    /// After a crash: a supervisor does it by itself.
    fn start_again(&mut self) -> Result<(), Box<dyn Error>> {
        if let Starter::Launcher(launcher) = &mut self.starter {
            launcher.wait()?;
            *launcher = self.server.command()?.spawn()?;
        }
        Ok(())
    }

    fn named(&self) -> Option<u32> {
        fs::read_to_string(self.folder.join("web.pid")).ok()?.trim().parse().ok()
    }

    /// The PID of the process whose line in the record says so.
    fn keeper(&self) -> Option<u32> {
        let record = fs::read_to_string(self.folder.join("web.pid.lock")).ok()?;
        let line = record.lines().find(|line| line.contains(" state=keeping"))?;
        line.split_once(" daemon=")?.1.split(':').next()?.parse().ok()
    }

    fn wait<T>(&self, what: &str, fact: impl Fn() -> Option<T>) -> Result<T, Box<dyn Error>> {
        Ok(self.server.wait(what, fact)?)
    }

    /// TERM is a restart for all that it knows; the daemon that is detached then gets one as well.
    fn end(self) -> Result<(), Box<dyn Error>> {
        let daemon = self.named().map(Watched::new);
        match self.starter {
            Starter::Launcher(mut launcher) => {
                Watched::new(launcher.id()).signal(SIGTERM);
                launcher.wait()?;
                if let Some(daemon) = &daemon {
                    daemon.signal(SIGTERM);
                }
            }
            Starter::Service(mut service) => {
                service.down();
                service.wait_down();
                service.exit();
                service.wait_exit();
            }
        }
        if let Some(daemon) = daemon {
            daemon.wait_end(LIMIT);
        }
        Ok(())
    }
}
