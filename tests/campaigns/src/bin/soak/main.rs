//! Restarts a service again and again at random moments, under mixed load and with random faults, and
//! checks the promises from outside all the time. See `scripts/soak`.
//!
//! The turns and their faults follow from the seed. They come in rounds; after each, what can be
//! undone has been undone, the service is restarted once more, and then it must be at rest: one
//! generation, started since, with as many descriptors and files as the first one, and nothing else.
//!
//! Exit status: 0 all went well, 1 a promise was broken, 2 it could not run, 130 interrupted.

mod faults;
mod judge;
mod kernel;
mod schedule;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    env,
    error::Error,
    fs,
    io::{self, Read, Seek, SeekFrom},
    net::{Ipv4Addr, SocketAddr},
    os::unix::process::CommandExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use lexopt::prelude::*;
use seamless_campaigns::load::{Load, Report, Running, Target};
use seamless_testing::{
    LIMIT, bin,
    boxed::Isolation,
    http, process,
    signal::{HUP, INT, TERM},
    supervisor::{Service, Supervisor},
};

use faults::{Bystander, Member, Stage, lock};
use judge::Judge;
use kernel::{Place, Places};
use schedule::{Kind, Restart, Schedule};

const USAGE: &str = "\
Restarts a service at random under mixed load with random faults, and checks what the crate promises.

scripts/soak [--for 10m] [--seed N] [--supervisor daemontools|runit|s6]
             [--faults all|none|KIND,KIND…]  kill, stop, supervisor, deploy, full, readonly, shortage,
                                             reuse, peers, busy, down, inject
             [--patience 60s]   how long a request, and the way back to rest, may take
             [--log FILE]       where the whole log of the service goes
             [--broken drops|stays|leaks|signals]   a service that breaks a promise";

/// Set in the box.
const BOXED: &str = "SEAMLESS_SOAK_BOXED";
/// In the box it is a file system of our own.
const FOLDER: &str = "/run";
const PROGRESS: Duration = Duration::from_secs(10);
/// Of the log, where something went wrong.
const CONTEXT: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

struct Options {
    time: Duration,
    seed: u64,
    supervisor: Supervisor,
    faults: BTreeSet<Kind>,
    patience: Duration,
    broken: Option<String>,
    log: Option<PathBuf>,
}

impl Options {
    /// `None` where help was asked for.
    fn from_args() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Options {
            time: Duration::from_secs(600),
            seed: fastrand::u64(..1_000_000),
            supervisor: Supervisor::Daemontools,
            faults: Kind::ALL.into(),
            patience: Duration::from_secs(60),
            broken: None,
            log: None,
        };
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Long("for") => {
                    options.time = args.value()?.parse_with(humantime::parse_duration)?
                }
                Long("seed") => options.seed = args.value()?.parse()?,
                Long("patience") => {
                    options.patience = args.value()?.parse_with(humantime::parse_duration)?;
                }
                Long("supervisor") => {
                    options.supervisor = args.value()?.parse_with(|name| match name {
                        "daemontools" => Ok(Supervisor::Daemontools),
                        "runit" => Ok(Supervisor::Runit),
                        "s6" => Ok(Supervisor::S6),
                        _ => Err("daemontools, runit or s6"),
                    })?;
                }
                Long("faults") => {
                    options.faults = args.value()?.parse_with(|names| match names {
                        "all" => Ok(Kind::ALL.into()),
                        "none" => Ok(BTreeSet::new()),
                        names => names.split(',').map(str::parse).collect::<Result<_, String>>(),
                    })?;
                }
                Long("log") => options.log = Some(args.value()?.into()),
                Long("broken") => options.broken = Some(args.value()?.string()?),
                Short('h') | Long("help") => return Ok(None),
                _ => return Err(arg.unexpected()),
            }
        }
        Ok(Some(options))
    }
}

fn main() -> ExitCode {
    let options = match seamless_campaigns::options("soak", USAGE, Options::from_args()) {
        Ok(options) => options,
        Err(end) => return end,
    };
    let end = if env::var_os(BOXED).is_some() { run(&options) } else { enter_box() };
    end.unwrap_or_else(|error| {
        eprintln!("soak: {error}");
        ExitCode::from(2)
    })
}

/// Goes on in namespaces of its own, which end with all that is in them when this process ends, in
/// whatever way.
fn enter_box() -> Result<ExitCode, Box<dyn Error>> {
    let isolation = Isolation::available();
    if isolation == Isolation::Sweep {
        return Err("no namespaces can be made here".into());
    }
    let mut again = isolation.command(true);
    again.arg(env::current_exe()?).args(env::args_os().skip(1)).env(BOXED, "1");
    Err(again.exec().into())
}

fn set_up_box(folder: &Path) -> io::Result<()> {
    let run = |words: &[&str]| {
        let end = Command::new(words[0]).args(&words[1..]).status()?;
        end.success().then_some(()).ok_or_else(|| io::Error::other(format!("{words:?}: {end}")))
    };
    run(&["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", FOLDER])?;
    fs::create_dir_all(folder.join("pid"))?;
    let pid = folder.join("pid");
    let pid = pid.to_str().expect("a path of ours");
    run(&["mount", "-t", "tmpfs", "-o", "mode=755,size=64k", "tmpfs", pid])?;
    run(&["ip", "link", "set", "lo", "up"])?;
    // What waits for late packets on loopback makes the kernel's tables long.
    fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "500")
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let folder = Path::new(FOLDER).join("soak");
    set_up_box(&folder)?;
    let names: Vec<&str> = options.faults.iter().map(|kind| kind.name()).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(",") };
    println!(
        "seed {}; the same again: scripts/soak --for {} --seed {} --supervisor {} --faults {names}",
        options.seed,
        humantime::format_duration(options.time),
        options.seed,
        format!("{:?}", options.supervisor).to_lowercase(),
    );

    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [HUP, INT, TERM] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let places =
        Places { tcp: at(8080), group: at(8081), udp: at(8082), unix: folder.join("web.sock") };
    let (deployed, log) = (folder.join("program"), folder.join("log"));
    let broken = options.broken.as_ref().map_or(String::new(), |how| format!(" --broken={how}"));
    let script = format!(
        "exec >>'{}' 2>&1\nchmod 755 supervise\nexport RUST_LOG=seamless=debug\n\
         exec '{}' --pid-file='{}/pid/web.pid' --tcp={} --group={} --udp={} --unix='{}'{broken}",
        log.display(),
        deployed.display(),
        folder.display(),
        places.tcp,
        places.group,
        places.udp,
        places.unix.display(),
    );
    let program = bin::support("mixed").canonicalize()?;
    std::os::unix::fs::symlink(&program, &deployed)?;
    let service = Service::new(options.supervisor, folder.join("service"), &script);
    let stage = Stage {
        folder: folder.join("pid"),
        log,
        deployed,
        program,
        places,
        service: Mutex::new(service),
        judge: Judge::default(),
        bystanders: Mutex::new(vec![Bystander::start()?]),
        interrupted,
        signals: Mutex::new(()),
    };
    Ok(Soak::new(stage, options).run())
}

/// Whether requests ask for an answer at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Quick,
    Slow,
}

/// What is counted.
#[derive(Default)]
struct Counts {
    restarts: u64,
    rounds: u64,
    /// Done, and come to nothing.
    faults: BTreeMap<Kind, (u64, u64)>,
}

struct Gap {
    answered: u64,
    last: Instant,
    longest: Duration,
}

struct Soak<'a> {
    stage: Stage,
    options: &'a Options,
    start: Instant,
    loads: Vec<(Place, Pace, Running)>,
    counts: Mutex<Counts>,
    gap: Mutex<Gap>,
    /// Daemons that were seen, by PID and start.
    daemons: Mutex<HashSet<(u32, u64)>>,
    /// Lengths of the log, of the last seconds.
    log: Mutex<VecDeque<(Instant, u64)>>,
    ended: AtomicBool,
}

impl<'a> Soak<'a> {
    fn new(stage: Stage, options: &'a Options) -> Self {
        let now = Instant::now();
        Soak {
            stage,
            options,
            start: now,
            loads: Vec::new(),
            counts: Mutex::default(),
            gap: Mutex::new(Gap { answered: 0, last: now, longest: Duration::ZERO }),
            daemons: Mutex::default(),
            log: Mutex::default(),
            ended: AtomicBool::new(false),
        }
    }

    fn run(mut self) -> ExitCode {
        self.until("the service answers at each place", LIMIT, || {
            self.answers()?;
            let open = self.stage.places.open();
            let all = open.values().all(|inodes| !inodes.is_empty());
            all.then_some(()).ok_or_else(|| format!("the kernel knows {open:?}"))
        });
        self.loads = self.start_loads();
        lock(&self.gap).last = Instant::now();
        let soak = &self;
        thread::scope(|scope| {
            let watch = scope.spawn(|| soak.or_violation(|| soak.watch()));
            soak.or_violation(|| soak.rounds());
            soak.ended.store(true, Ordering::Relaxed);
            let _ = watch.join();
        });
        self.finish()
    }

    /// Whatever panics has found something wrong.
    fn or_violation(&self, work: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            self.stage.judge.violation(text.unwrap_or_else(|| "a panic".to_owned()));
        }
    }

    /// 2 cores keep up with it, with the faults beside.
    fn start_loads(&self) -> Vec<(Place, Pace, Running)> {
        let places = &self.stage.places;
        let tcp = || Load::new(Target::Tcp(places.tcp)).threads(1);
        let group = || Load::new(Target::Tcp(places.group)).threads(1);
        let unix = || Load::new(Target::Unix(places.unix.clone())).threads(1);
        let millis = Duration::from_millis;
        use Pace::{Quick, Slow};
        let loads = [
            (Place::Tcp, Quick, tcp().rate(80)),
            (Place::Tcp, Quick, tcp().clients(8).every(millis(80))),
            (Place::Tcp, Quick, tcp().clients(8).every(millis(80)).keep_alive()),
            (Place::Tcp, Slow, tcp().clients(2).path("/?delay=100ms")),
            (Place::Tcp, Slow, tcp().clients(4).path("/?delay=700ms").keep_alive()),
            (Place::Tcp, Slow, tcp().clients(8).path("/?delay=2s")),
            (Place::Tcp, Slow, tcp().clients(2).path("/upload").upload(300_000).every(millis(50))),
            (Place::Group, Quick, group().clients(8).every(millis(80))),
            (Place::Group, Slow, group().clients(4).path("/?delay=300ms")),
            (Place::Unix, Quick, unix().clients(6).every(millis(80))),
            (Place::Unix, Quick, unix().clients(4).every(millis(80)).keep_alive()),
            (Place::Unix, Slow, unix().clients(4).path("/?delay=500ms")),
            (Place::Udp, Quick, Load::datagrams(places.udp).threads(1).rate(50)),
        ];
        let started = loads.into_iter().map(|(place, pace, load)| {
            // A limit that passes is never excused, but for datagrams: those are soon known to be lost.
            let limit = self.options.patience;
            let limit =
                if place == Place::Udp { limit.min(Duration::from_secs(30)) } else { limit };
            (place, pace, load.timeout(limit).start())
        });
        started.collect()
    }

    /// All rounds, until the time is up or something is wrong.
    fn rounds(&self) {
        let mut schedule = Schedule::new(self.options.seed, &self.options.faults);
        let mut baseline = None;
        self.rest(&mut baseline);
        let begin = Instant::now();
        while begin.elapsed() < self.options.time && !self.stage.is_over() {
            thread::scope(|scope| {
                for turn in schedule.round() {
                    self.stage.sleep(turn.pause);
                    if self.stage.is_over() || begin.elapsed() > self.options.time {
                        break;
                    }
                    self.restart(turn.restart);
                    if let Some((after, fault)) = turn.fault {
                        scope.spawn(move || {
                            self.or_violation(|| {
                                self.stage.sleep(after);
                                let done = self.stage.act(&fault);
                                let mut counts = lock(&self.counts);
                                let count = counts.faults.entry(fault.kind()).or_default();
                                *(if done { &mut count.0 } else { &mut count.1 }) += 1;
                            });
                        });
                    }
                }
            });
            if self.stage.is_over() {
                return;
            }
            self.rest(&mut baseline);
            lock(&self.counts).rounds += 1;
        }
    }

    fn restart(&self, how: Restart) {
        self.stage.note(&format!("restart: {how:?}"));
        lock(&self.counts).restarts += 1;
        self.stage.restart(how);
    }

    /// One more restart, of which nothing may keep anything behind.
    fn rest(&self, baseline: &mut Option<Baseline>) {
        // In the units and by the clock of a process's start.
        let uptime = fs::read_to_string("/proc/uptime").expect("the uptime");
        let uptime: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).expect("it");
        let now = (uptime * 100.0) as u64;
        let (earliest, limit) = if baseline.is_some() {
            self.restart(Restart::Term);
            (now, self.options.patience)
        } else {
            (0, LIMIT)
        };
        self.until("rest", limit, || {
            let seen = self.at_rest(earliest)?;
            match baseline {
                None => *baseline = Some(seen),
                Some(first) if *first == seen => {}
                Some(first) => return Err(format!("not as at first: {seen:?}, but {first:?}")),
            }
            Ok(())
        });
        self.stage.judge.rests();
        self.stage.note("rest");
    }

    /// Waits for it, and says what is missing where it does not come.
    fn until(&self, what: &str, limit: Duration, mut fact: impl FnMut() -> Result<(), String>) {
        let end = Instant::now() + limit;
        while !self.stage.is_over() {
            let late = Instant::now() > end;
            match fact() {
                Ok(()) => return,
                Err(missing) if late => {
                    self.stage.judge.violation(format!("not within {limit:?}: {what}: {missing}"));
                }
                Err(_) => thread::sleep(LOOK),
            }
        }
    }

    /// The one process that answers everywhere.
    fn answers(&self) -> Result<u32, String> {
        let places = &self.stage.places;
        let targets =
            [Target::Tcp(places.tcp), Target::Tcp(places.group), Target::Unix(places.unix.clone())];
        let mut pids = BTreeSet::new();
        for target in targets {
            let answer = http::get(&target, "/").map_err(|failure| format!("{failure:?}"))?;
            pids.extend(answer.pid);
        }
        let one = pids.first().copied().filter(|_| pids.len() == 1);
        one.ok_or_else(|| format!("answers by {pids:?}"))
    }

    fn at_rest(&self, earliest: u64) -> Result<Baseline, String> {
        let stage = &self.stage;
        let members = stage.members();
        let [launcher, daemon] = members[..] else { return Err(format!("{members:?}")) };
        if !launcher.launcher || daemon.launcher {
            return Err(format!("{members:?}"));
        }
        if daemon.start_ticks < earliest {
            return Err(format!("{daemon:?} is older than the last restart, of {earliest}"));
        }
        let (main, supervisor) = {
            let service = stage.service();
            (service.status().pid, service.supervisor_pid())
        };
        if main != Some(launcher.pid) {
            return Err(format!("the supervisor's main process is {main:?}, not {launcher:?}"));
        }
        let file = fs::read_to_string(stage.folder.join("web.pid")).unwrap_or_default();
        if file.trim() != daemon.pid.to_string() {
            return Err(format!("the PID file says {file:?}, not {}", daemon.pid));
        }
        let answers = self.answers()?;
        if answers != daemon.pid {
            return Err(format!("{answers} answers, not {}", daemon.pid));
        }
        let known: HashSet<u32> = stage
            .bystanders()
            .iter()
            .map(Bystander::pid)
            .chain([1, supervisor, std::process::id(), launcher.pid, daemon.pid])
            .collect();
        let others = process::all().into_iter().filter(|stat| !known.contains(&stat.pid));
        let others: Vec<String> =
            others.map(|stat| format!("{} {} {}", stat.pid, stat.comm, stat.state)).collect();
        if !others.is_empty() {
            return Err(format!("other processes: {others:?}"));
        }
        let files = fs::read_dir(&stage.folder).map_err(|error| error.to_string())?;
        let files = files.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let files: BTreeSet<String> = files.collect();
        let expected = ["web.pid", "web.pid.lock", "web.pid.sock"].map(str::to_owned);
        if files != expected.into() {
            return Err(format!("files {files:?}"));
        }
        Ok(Baseline {
            launcher: stage.places.descriptors(launcher.pid),
            daemon: stage.places.descriptors(daemon.pid),
        })
    }

    /// What goes on all the time beside.
    fn watch(&self) {
        let stage = &self.stage;
        let mut progress = PROGRESS;
        for turn in 0_u64.. {
            let over = stage.is_over() || self.ended.load(Ordering::Relaxed);
            let now = Instant::now();
            stage.judge.look(now, stage.open(turn % 50 == 0));
            self.look_at_answers(now);
            if turn % 5 == 0 || over {
                let daemons = stage.members().into_iter().filter(|member| !member.launcher);
                lock(&self.daemons)
                    .extend(daemons.map(|Member { pid, start_ticks, .. }| (pid, start_ticks)));
                for (place, _, load) in &self.loads {
                    let start = Instant::now() - load.elapsed();
                    stage.judge.failures(*place, start, load.take_failed());
                }
                stage.judge.decide(false);
                stage.bystanders().iter().for_each(|one| one.check(&stage.judge));
                let length = fs::metadata(&stage.log).map_or(0, |log| log.len());
                let mut log = lock(&self.log);
                log.push_back((now, length));
                while log.front().is_some_and(|(at, _)| *at + CONTEXT * 2 < now) {
                    log.pop_front();
                }
            }
            if over {
                return;
            }
            if self.start.elapsed() > progress {
                println!("{}", self.progress());
                progress += PROGRESS;
            }
            thread::sleep(LOOK);
        }
    }

    fn look_at_answers(&self, now: Instant) {
        let answered = self.loads.iter().map(|(.., load)| load.answered()).sum();
        let mut gap = lock(&self.gap);
        let silent = now.duration_since(gap.last);
        if answered > gap.answered {
            gap.longest = gap.longest.max(silent);
            (gap.answered, gap.last) = (answered, now);
        } else if silent > self.options.patience {
            gap.last = now;
            self.stage.judge.violation(format!("no answer for {silent:?}"));
        }
    }

    fn progress(&self) -> String {
        let counts = lock(&self.counts);
        let faults: u64 = counts.faults.values().map(|(done, _)| done).sum();
        let requests: u64 = self.loads.iter().map(|(.., load)| load.requests()).sum();
        let excused: u64 = self.stage.judge.excused().values().sum();
        format!(
            "{:>5} s  {} restarts, {faults} faults, {requests} requests, {excused} excused, \
             {} generations, longest gap {:.3} s",
            self.start.elapsed().as_secs(),
            counts.restarts,
            lock(&self.daemons).len(),
            lock(&self.gap).longest.as_secs_f64(),
        )
    }

    fn finish(mut self) -> ExitCode {
        let judge = &self.stage.judge;
        if !judge.is_violated() && !self.stage.interrupted.load(Ordering::Relaxed) {
            // The service is at rest: each request that is on its way has its answer now.
            let loads = std::mem::take(&mut self.loads);
            let stopped = loads.into_iter().map(|(place, pace, load)| {
                let start = Instant::now() - load.elapsed();
                (place, pace, start, load.stop())
            });
            let reports: Vec<_> = stopped.collect();
            for (place, _, start, report) in &reports {
                judge.failures(*place, *start, report.failed.clone());
            }
            judge.decide(true);
            let reports: Vec<_> =
                reports.into_iter().map(|(_, pace, _, report)| (pace, report)).collect();
            let failed: u64 = reports.iter().map(|(_, report)| report.failures_but(&[])).sum();
            let excused: u64 = judge.excused().values().sum();
            if !judge.is_violated() && failed != excused {
                judge.violation(format!("{failed} requests failed, {excused} were judged"));
            }
            self.table(&reports);
        } else {
            let reports = self.loads.iter().map(|(_, pace, load)| (*pace, load.report()));
            self.table(&reports.collect::<Vec<_>>());
        }
        if let Some(path) = &self.options.log {
            fs::copy(&self.stage.log, path).expect("a copy of the log");
        }
        let violations = judge.violations();
        if let Some((first, _)) = violations.first() {
            println!(
                "\nThe log of the service, from {CONTEXT:?} before:\n{}",
                self.log_from(*first)
            );
            for (at, what) in violations.iter().take(20) {
                let at = at.saturating_duration_since(self.start).as_secs_f64();
                println!("VIOLATION at {at:.3} s: {what}");
            }
            println!("{} violations; seed {}", violations.len(), self.options.seed);
            return ExitCode::FAILURE;
        }
        if self.stage.interrupted.load(Ordering::Relaxed) {
            eprintln!("soak: interrupted");
            return ExitCode::from(130);
        }
        ExitCode::SUCCESS
    }

    fn log_from(&self, violation: Instant) -> String {
        let log = lock(&self.log);
        let from = log.iter().rev().find(|(at, _)| *at + CONTEXT < violation);
        let from = from.or(log.front()).map_or(0, |(_, length)| *length);
        let mut text = Vec::new();
        let read = fs::File::open(&self.stage.log).and_then(|mut file| {
            file.seek(SeekFrom::Start(from))?;
            file.read_to_end(&mut text)
        });
        read.expect("the log");
        String::from_utf8_lossy(&text).into_owned()
    }

    fn table(&self, reports: &[(Pace, Report)]) {
        let row = |name: &str, value: String| println!("{name:<24}{value:>12}");
        let counts = lock(&self.counts);
        let supervisor = self.options.supervisor.program();
        println!("\n{:.1} s under {supervisor}", self.start.elapsed().as_secs_f64());
        row("restarts", counts.restarts.to_string());
        row("rounds", counts.rounds.to_string());
        for kind in &self.options.faults {
            let (done, missed) = counts.faults.get(kind).copied().unwrap_or_default();
            let missed =
                if missed == 0 { String::new() } else { format!("   {missed} met nobody") };
            println!("{:<24}{done:>12}{missed}", format!("fault: {kind}"));
        }
        let requests: u64 = reports.iter().map(|(_, report)| report.requests.total()).sum();
        let failed: u64 = reports.iter().map(|(_, report)| report.failures_but(&[])).sum();
        let excused = self.stage.judge.excused();
        row("requests", requests.to_string());
        row("failed", failed.to_string());
        row("of these excused", excused.values().sum::<u64>().to_string());
        for (failure, count) in excused {
            println!("{:>36}   {failure}", count);
        }
        row(
            "sent again",
            reports.iter().map(|(_, report)| report.retried).sum::<u64>().to_string(),
        );
        row("generations seen", lock(&self.daemons).len().to_string());
        let millis = |time: Duration| format!("{:.2} ms", time.as_secs_f64() * 1e3);
        row("longest gap", millis(lock(&self.gap).longest));
        let quick = reports.iter().filter(|(pace, _)| *pace == Pace::Quick);
        let latencies = quick.map(|(_, report)| report.during.and(&report.outside));
        if let Some(all) = latencies.reduce(|one, other| one.and(&other)) {
            for (name, part) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
                row(&format!("quick requests, {name}"), millis(all.quantile(part)));
            }
        }
    }
}

/// What a generation at rest has open.
#[derive(Debug, PartialEq, Eq)]
struct Baseline {
    launcher: BTreeMap<String, usize>,
    daemon: BTreeMap<String, usize>,
}
