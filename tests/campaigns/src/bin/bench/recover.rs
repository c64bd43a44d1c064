//! What a bad version and a crash cost, under full load: how soon the old version answers after a rollback, how
//! soon the next start answers after a crash, what a keeper takes, and whether anybody is refused.

use std::{
    collections::BTreeMap,
    error::Error,
    ffi::OsString,
    fs,
    path::PathBuf,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use seamless_campaigns::{
    deploy::Server,
    load::{Failure, Load, Report, Running, Target},
};
use seamless_testing::{
    bin,
    process::{Watched, private_dirty},
};
use signal_hook::consts::{SIGABRT, SIGHUP, SIGKILL, SIGTERM};

use crate::{
    Bench,
    table::{self, Samples, millis, thousands},
};

const LIMIT: Duration = Duration::from_secs(20);
const CLIENTS: usize = 128;
/// How long each generation serves under load before it dies.
const SERVES: Duration = Duration::from_millis(150);

/// One death: when it was sent its signal, when the kernel told of its end (both since the load began), and whose
/// answer was awaited; `None`: that of any newer process.
struct Death {
    signalled: Duration,
    told: Duration,
    dead: u32,
    heir: Option<u32>,
}

/// New versions that die in their probation, in place, where nobody waits for the next try.
pub(crate) fn rollbacks(bench: &Bench, count: usize) -> Result<bool, Box<dyn Error>> {
    table::title(&format!(
        "Rollback: {count} new versions die in their probation, {CLIENTS} clients ask all the time"
    ));
    let site = Site::new(
        bench,
        &["--probation", "10m", "--reload-signal", "HUP", "--keep-sockets", "none"],
    )?;
    let load = site.load();
    let old = site.named().ok_or("no PID file")?;
    let mut deaths = Vec::new();
    for nth in 0..count {
        table::progress(&format!("rollback {} of {count}", nth + 1));
        bench.check_interrupted()?;
        Watched::new(site.launcher.id()).signal(SIGHUP);
        let new = site.wait("the new version", || site.named().filter(|pid| *pid != old))?;
        site.wait("an answer of it", || load.pids().contains(&new).then_some(()))?;
        thread::sleep(SERVES);
        deaths.push(kill(&load, new, Some(old), signal(nth)));
        site.wait("the old version", || (site.named() == Some(old)).then_some(()))?;
        thread::sleep(SERVES);
    }
    let report = load.stop();
    site.end()?;
    tell(&report, &deaths, Some((Duration::from_millis(2), Duration::from_millis(10))))
}

/// Crashes of the only daemon: a keeper holds its socket until the next start.
pub(crate) fn crashes(bench: &Bench, count: usize) -> Result<bool, Box<dyn Error>> {
    table::title(&format!(
        "Crash: the daemon dies {count} times and is started again at once, {CLIENTS} clients ask all the time"
    ));
    // The time counts from the first crash in a row, and no generation here serves for the 10 s that end one.
    let mut site = Site::new(bench, &["--keep-sockets", "10m"])?;
    let load = site.load();
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
        site.launcher.wait()?;
        site.launcher = site.server.command()?.spawn()?;
        site.wait("the next start", || site.named().filter(|pid| *pid != daemon))?;
        bench.family.reap(keeper);
    }
    thread::sleep(SERVES);
    let report = load.stop();
    site.end()?;
    let clean = tell(&report, &deaths, None)?;
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

fn signal(nth: usize) -> i32 {
    if nth % 2 == 0 { SIGKILL } else { SIGABRT }
}

fn kill(load: &Running, dead: u32, heir: Option<u32>, signal: i32) -> Death {
    let process = Watched::new(dead);
    let signalled = load.elapsed();
    process.signal(signal);
    process.wait_end(LIMIT);
    Death { signalled, told: load.elapsed(), dead, heir }
}

/// `targets`: for the median and the 99th percentile of the first answers.
fn tell(
    report: &Report,
    deaths: &[Death],
    targets: Option<(Duration, Duration)>,
) -> Result<bool, Box<dyn Error>> {
    let (mut from_word, mut from_signal) = (Samples::new(), Samples::new());
    for death in deaths {
        let is_heirs = |pid: u32| match death.heir {
            Some(heir) => pid == heir,
            None => pid != death.dead,
        };
        let answers = report.records.iter().filter(|one| one.outcome.is_ok_and(is_heirs));
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
    let refused = report.failures.get(&Failure::Refused).map_or(0, |split| split.total());
    table::target("refused connections", &thousands(refused), "0", refused == 0);
    // At any moment a client has one request under way.
    let cut: BTreeMap<String, u64> = report
        .failures
        .iter()
        .filter(|(failure, _)| **failure != Failure::Refused)
        .map(|(failure, split)| (failure.to_string(), split.total()))
        .collect();
    let all: u64 = cut.values().sum();
    let each = all as f64 / deaths.len() as f64;
    table::note("requests cut for each death", &format!("{each:.1} of {CLIENTS}"));
    for (failure, count) in cut {
        table::note(&format!("  {failure}"), &thousands(count));
    }
    table::note("requests answered", &thousands(report.answered()));
    Ok(refused == 0 && all <= (CLIENTS * deaths.len()) as u64)
}

/// The example `http`, started by this program.
struct Site {
    folder: PathBuf,
    server: Server,
    target: Target,
    launcher: Child,
}

impl Site {
    fn new(bench: &Bench, options: &[&str]) -> Result<Site, Box<dyn Error>> {
        let folder = bench.folder("recover")?;
        let address = bench.port.address();
        let mut args: Vec<OsString> = vec![
            "--pid-file".into(),
            folder.join("web.pid").into(),
            "--listen".into(),
            address.to_string().into(),
        ];
        args.extend(options.iter().map(OsString::from));
        let target = Target::Tcp(address);
        let server = Server::new(bin::example("http"), args, target.clone(), &folder);
        let launcher = server.command()?.spawn()?;
        let site = Site { folder, server, target, launcher };
        site.wait("it listens", || site.server.listens().then_some(()))?;
        Ok(site)
    }

    fn load(&self) -> Running {
        let load = Load::new(self.target.clone()).clients(CLIENTS).threads(1).keep_records();
        load.start()
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
        let began = Instant::now();
        loop {
            if let Some(value) = fact() {
                return Ok(value);
            }
            if began.elapsed() > LIMIT {
                let log = self.server.last_lines(20);
                return Err(format!("not within {LIMIT:?}: {what}\n{log}").into());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// TERM is a restart for all that it knows; the daemon that is detached then gets one as well.
    fn end(mut self) -> Result<(), Box<dyn Error>> {
        let daemon = self.named().map(Watched::new);
        Watched::new(self.launcher.id()).signal(SIGTERM);
        self.launcher.wait()?;
        if let Some(daemon) = daemon {
            daemon.signal(SIGTERM);
            daemon.wait_end(LIMIT);
        }
        Ok(())
    }
}
