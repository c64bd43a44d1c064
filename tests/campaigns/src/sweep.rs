//! One restart under load in which one process is KILLed at one of its system calls, what comes of
//! it, and whether that is what the crate promises.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{SockAddr, SockRef};

use seamless_testing::{
    LIMIT, bin,
    boxed::Isolation,
    http::{self, Connection, Failure, Target},
    innocent::Innocent,
    process::{self, Watched},
    supervisor::{Service, Supervisor},
    wait_for,
};

use crate::{
    moving,
    strike::{At, Blow, Call, Family, Role, Strike},
};

/// What is restarted, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    Daemontools,
    Runit,
    S6,
    /// Under daemontools, by a reload signal: the launcher stays.
    InPlace,
    /// Under daemontools, and each new generation has to prove itself for a moment.
    Probation,
    ProbationRunit,
    ProbationS6,
    /// The same under daemontools, by a reload signal.
    ProbationInPlace,
    /// Under daemontools, with open connections that move: see `moving`.
    Moving,
}

impl Scenario {
    pub const ALL: [Scenario; 9] = [
        Scenario::Daemontools,
        Scenario::Runit,
        Scenario::S6,
        Scenario::InPlace,
        Scenario::Probation,
        Scenario::ProbationRunit,
        Scenario::ProbationS6,
        Scenario::ProbationInPlace,
        Scenario::Moving,
    ];

    pub fn supervisor(self) -> Supervisor {
        match self {
            Scenario::Daemontools
            | Scenario::InPlace
            | Scenario::Probation
            | Scenario::ProbationInPlace
            | Scenario::Moving => Supervisor::Daemontools,
            Scenario::Runit | Scenario::ProbationRunit => Supervisor::Runit,
            Scenario::S6 | Scenario::ProbationS6 => Supervisor::S6,
        }
    }

    fn is_in_place(self) -> bool {
        matches!(self, Scenario::InPlace | Scenario::ProbationInPlace)
    }

    fn has_probation(self) -> bool {
        match self {
            Scenario::Probation
            | Scenario::ProbationRunit
            | Scenario::ProbationS6
            | Scenario::ProbationInPlace => true,
            Scenario::Daemontools
            | Scenario::Runit
            | Scenario::S6
            | Scenario::InPlace
            | Scenario::Moving => false,
        }
    }

    /// Who takes part in the restart.
    pub fn roles(self) -> &'static [Role] {
        match self {
            Scenario::Daemontools
            | Scenario::Runit
            | Scenario::S6
            | Scenario::Probation
            | Scenario::ProbationRunit
            | Scenario::ProbationS6 => &Role::ALL,
            Scenario::InPlace | Scenario::ProbationInPlace => {
                &[Role::OldLauncher, Role::OldDaemon, Role::NewDaemon]
            }
            Scenario::Moving => &[Role::OldDaemon, Role::NewDaemon],
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Scenario::Daemontools => "daemontools",
            Scenario::Runit => "runit",
            Scenario::S6 => "s6",
            Scenario::InPlace => "in-place",
            Scenario::Probation => "probation",
            Scenario::ProbationRunit => "probation-runit",
            Scenario::ProbationS6 => "probation-s6",
            Scenario::ProbationInPlace => "probation-in-place",
            Scenario::Moving => "moving",
        })
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let one = Scenario::ALL.into_iter().find(|one| one.to_string() == text);
        one.ok_or_else(|| format!("no such scenario: {text:?}"))
    }
}

/// Who is killed, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Case {
    pub scenario: Scenario,
    pub role: Role,
    pub at: At,
}

/// As options of `scripts/sweep`.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case { scenario, role, at } = self;
        write!(f, "--scenario {scenario} --role {role} --call {at}")
    }
}

/// Who served when the blow had fallen, until the generation that was there in the end did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// There was no such call: the restart went through untouched.
    Untouched,
    /// The new one.
    New,
    /// The old one.
    Old,
    /// Nobody: the next one came from the supervisor.
    Nobody,
}

impl Outcome {
    pub const ALL: [Outcome; 4] = [Outcome::New, Outcome::Old, Outcome::Nobody, Outcome::Untouched];
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Outcome::Untouched => "untouched",
            Outcome::New => "new",
            Outcome::Old => "old",
            Outcome::Nobody => "nobody",
        })
    }
}

impl FromStr for Outcome {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let one = Outcome::ALL.into_iter().find(|one| one.to_string() == text);
        one.ok_or_else(|| format!("no such outcome: {text:?}"))
    }
}

/// What came of a case that went as promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub outcome: Outcome,
    /// How many calls there were, to the blow or to the end of the restart.
    pub calls: u64,
    /// What was not executed any more; `-` where all was.
    pub call: String,
    /// The number of the generation that was left: 2, unless further ones had to be started.
    pub generation: u64,
    /// Requests that were answered, and those that failed, by the reason why they may.
    pub answers: usize,
    pub held: usize,
    pub unserved: usize,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { outcome, calls, call, generation, answers, held, unserved } = self;
        write!(f, "result {outcome} {calls} {call} {generation} {answers} {held} {unserved}")
    }
}

impl FromStr for Verdict {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("not a result: {text:?}");
        let words: Vec<&str> = text.split(' ').collect();
        let ["result", outcome, calls, call, generation, answers, held, unserved] = words[..]
        else {
            return Err(wrong());
        };
        let number = |word: &str| word.parse().map_err(|_| wrong());
        Ok(Verdict {
            outcome: outcome.parse()?,
            calls: calls.parse().map_err(|_| wrong())?,
            call: call.to_owned(),
            generation: generation.parse().map_err(|_| wrong())?,
            answers: number(answers)?,
            held: number(held)?,
            unserved: number(unserved)?,
        })
    }
}

// ---- clients ----

/// A request on a connection of its own.
#[derive(Clone, Debug)]
struct Asked {
    begin: Instant,
    end: Instant,
    /// The client's; none where nobody listened.
    port: Option<u16>,
    answer: Result<u32, Failure>,
}

/// They ask again and again, and never for the same twice.
struct Clients {
    asked: Arc<Mutex<Vec<Asked>>>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    const COUNT: usize = 2;
    /// From an answer to the next request.
    const PAUSE: Duration = Duration::from_millis(10);

    fn start(target: &Target) -> Self {
        let (asked, stopping) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicBool>::default());
        let threads = (0..Self::COUNT).map(|_| {
            let (target, asked, stopping) = (target.clone(), asked.clone(), stopping.clone());
            thread::spawn(move || {
                while !stopping.load(Ordering::Relaxed) {
                    let begin = Instant::now();
                    let (port, answer) = http::get_from(&target);
                    let end = Instant::now();
                    let answer = answer.map(|answer| answer.pid.expect("a server with a PID"));
                    let one = Asked { begin, end, port, answer };
                    asked.lock().expect("no panic").push(one);
                    thread::sleep(Self::PAUSE);
                }
            })
        });
        let threads = threads.collect();
        Clients { asked, stopping, threads }
    }

    fn seen(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    /// Waits for so many more answers from this server.
    #[track_caller]
    fn wait_answers(&self, pid: u32, count: usize) {
        let from = Instant::now();
        wait_for(format!("{count} answers from {pid}"), LIMIT, || {
            let seen = self.seen();
            let new = seen.iter().filter(|one| one.begin >= from);
            (new.filter(|one| one.pid() == Some(pid)).count() >= count).then_some(())
        });
    }

    fn stop(self) -> Vec<Asked> {
        self.stopping.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|one| one.join().expect("no panic in a client"));
        Arc::try_unwrap(self.asked).expect("no client is left").into_inner().expect("no panic")
    }
}

impl Asked {
    fn pid(&self) -> Option<u32> {
        self.answer.as_ref().ok().copied()
    }
}

// ---- what the kernel knows ----

/// What the victim had, and nobody else, when it stood still for the last time.
#[derive(Clone, Debug)]
struct Seen {
    /// The clients' ports of the connections that it had accepted.
    held: BTreeSet<u16>,
    /// Who else had the socket that connections come in by.
    listeners: BTreeSet<u32>,
}

/// Of one process, as `pidfd_getfd(2)` shows them to its tracer: `/proc/net/tcp` takes seconds where
/// the machine has many connections.
#[derive(Default)]
pub(crate) struct Sockets {
    /// The clients' ports of connections that it has accepted.
    pub(crate) accepted: BTreeSet<u16>,
    listens: bool,
}

impl Sockets {
    /// Where the service listens.
    pub(crate) const PORT: u16 = 8080;

    pub(crate) fn of(pid: u32) -> Self {
        let mut sockets = Sockets::default();
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a PID");
        let Ok(process) = pidfd_open(number, PidfdFlags::empty()) else { return sockets };
        for (fd, what) in process::descriptors(pid) {
            if !what.to_string_lossy().starts_with("socket:") {
                continue;
            }
            // It may have closed it since.
            let Ok(fd) = pidfd_getfd(&process, fd, PidfdGetfdFlags::empty()) else { continue };
            let socket = SockRef::from(&fd);
            let port = |address: io::Result<SockAddr>| Some(address.ok()?.as_socket()?.port());
            if port(socket.local_addr()) != Some(Self::PORT) {
                continue;
            }
            sockets.listens |= socket.is_listener().unwrap_or_default();
            sockets.accepted.extend(port(socket.peer_addr()));
        }
        sockets
    }
}

fn look(victim: u32) -> Seen {
    let others = process::all().into_iter().map(|one| one.pid).filter(|pid| *pid != victim);
    let listeners = others.filter(|pid| Sockets::of(*pid).listens).collect();
    Seen { held: Sockets::of(victim).accepted, listeners }
}

/// Did it tell older generations to drain? Then the sockets that those still have are not theirs to
/// serve any more.
fn told_older(blow: &Blow<Seen>) -> bool {
    const TERM: u64 = seamless_testing::signal::TERM as u64;
    let mut calls = blow.before.iter();
    calls.any(|call| call.name() == "pidfd_send_signal" && call.arguments[1] == TERM)
}

/// Was there nobody left to serve, by the blow alone?
fn left_nobody(blow: &Blow<Seen>) -> bool {
    blow.seen.listeners.is_empty() || told_older(blow)
}

/// Why a request may fail all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excuse {
    /// The process that was killed had accepted it (P3 is a promise of the living).
    Held,
    /// Nobody was left who served, or was about to (P9: P1 holds for those left, after the next
    /// restart): whoever came, or waited in the queue of the last socket, from then on until the
    /// supervisor's next generation answered.
    Unserved,
}

/// `None`: there is no excuse. That a launcher is killed is none, whatever its daemon is doing (P8);
/// nor is it one that a successor is, before it has told the old one to drain (P1), or the old one,
/// as soon as its successor has the socket (P2).
fn excuse(failed: &Asked, blow: Option<&Blow<Seen>>, final_from: Instant) -> Option<Excuse> {
    let blow = blow.filter(|blow| failed.end >= blow.at)?;
    if failed.port.is_some_and(|port| blow.seen.held.contains(&port)) {
        Some(Excuse::Held)
    } else if left_nobody(blow) && failed.begin < final_from {
        Some(Excuse::Unserved)
    } else {
        None
    }
}

// ---- the service ----

/// A launcher and its daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    launcher: u32,
    daemon: u32,
}

struct Site {
    scenario: Scenario,
    folder: PathBuf,
    target: Target,
    service: Service,
}

impl Site {
    /// Of the service's own files, beside which nothing is to be left.
    const FILES: [&'static str; 3] = ["web.pid", "web.pid.lock", "web.pid.sock"];

    fn new(scenario: Scenario, folder: &Path) -> Self {
        let target = Target::from(SocketAddr::from((Ipv4Addr::LOCALHOST, Sockets::PORT)));
        let run = folder.join("run");
        fs::create_dir_all(&run).expect("a folder");
        let reload = if scenario.is_in_place() { "--reload-signal=1" } else { "" };
        let probation = if scenario.has_probation() { "--standby --probation=300ms" } else { "" };
        let kind = scenario.supervisor();
        let notification = if kind == Supervisor::S6 { "--notification-fd=3" } else { "" };
        let (probe, folder) = (bin::probe(), folder.to_owned());
        let script = format!(
            "exec >>'{log}' 2>&1\nexec '{probe}' --pid-file='{pid_file}' --tcp={target} \
             --accept=started --successor-timeout=none {reload} {probation} {notification}",
            log = folder.join("log").display(),
            probe = probe.display(),
            pid_file = run.join("web.pid").display(),
        );
        let service = folder.join("service");
        if kind == Supervisor::S6 {
            // Otherwise it waits for a second from one launcher to the next.
            fs::create_dir_all(&service).expect("a folder");
            fs::write(service.join("notification-fd"), "3\n").expect("a file");
        }
        let service = Service::new(kind, service, &script);
        Site { scenario, folder, target, service }
    }

    fn run(&self) -> PathBuf {
        self.folder.join("run")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn restart(&self) {
        match (self.scenario.is_in_place(), self.service.kind()) {
            (true, Supervisor::Runit) => self.service.control("hup"),
            (true, _) => self.service.control("-h"),
            (false, _) => self.service.restart(),
        }
    }

    /// What runs the program for this service.
    fn members(&self) -> Vec<process::Stat> {
        let option = format!("--pid-file={}", self.run().join("web.pid").display());
        let mut all = process::all();
        all.retain(|one| process::command_line(one.pid).contains(&option));
        all
    }

    /// Has this launcher closed its copies of the sockets? A daemon that it has released has no keeper.
    fn has_let_go(&self, Pair { launcher, daemon }: Pair) -> bool {
        let keep = format!("stage=keep launcher={launcher} daemon={daemon} ");
        let log = self.log();
        let mut lines = log.lines().filter(|line| line.contains(&keep));
        lines.any(|line| line.contains("no keeper is needed any more"))
    }

    /// The number that this daemon has claimed.
    #[track_caller]
    fn generation(&self, daemon: u32) -> u64 {
        let daemon = format!("daemon={daemon} ");
        let log = self.log();
        let claim =
            log.lines().find(|line| line.contains("stage=claim g") && line.contains(&daemon));
        let number = claim.and_then(|line| line.split_once("generation=")?.1.split(' ').next());
        number.and_then(|number| number.parse().ok()).expect("a claim in the log")
    }

    /// The one generation that there is, as the supervisor, the files and the process table have it.
    /// Else what is amiss.
    fn only(&self) -> Result<Pair, String> {
        let members = self.members();
        let supervisor = self.service.supervisor_pid();
        let [first, second] = &members[..] else {
            return Err(format!("not two processes: {members:?}"));
        };
        let (launcher, daemon) =
            if first.ppid == supervisor { (first, second) } else { (second, first) };
        if launcher.ppid != supervisor || daemon.ppid != launcher.pid {
            return Err(format!("not a launcher and its daemon: {members:?}"));
        }
        let named = fs::read_to_string(self.run().join("web.pid")).unwrap_or_default();
        if named.trim() != daemon.pid.to_string() {
            return Err(format!("the PID file names {named:?}, not {}", daemon.pid));
        }
        let record = fs::read_to_string(self.run().join("web.pid.lock")).unwrap_or_default();
        let mut live = record.lines().filter(|line| line.starts_with("generation="));
        if !live.any(|line| line.contains(&format!(" daemon={}:", daemon.pid))) {
            return Err(format!("{} is not in the record:\n{record}", daemon.pid));
        }
        Ok(Pair { launcher: launcher.pid, daemon: daemon.pid })
    }
}

impl Case {
    /// About how many calls there are to the end of a restart that is not touched.
    pub fn usual_calls(self) -> u64 {
        use Role::{NewDaemon, NewLauncher, OldDaemon, OldLauncher};
        let in_place = self.scenario.is_in_place();
        match (self.scenario, self.role) {
            (_, OldLauncher) if in_place => 60,
            (_, OldLauncher) => 45,
            (_, OldDaemon) if in_place => 200,
            (_, OldDaemon) => 340,
            (_, NewLauncher) => 400,
            (_, NewDaemon) => 570,
        }
    }

    /// Runs it in namespaces of its own, by the program `sweep`. Where a promise is broken: what was.
    pub fn run_boxed(self) -> Result<Verdict, String> {
        /// On a machine that is busy.
        const LIMIT: Duration = Duration::from_secs(200);
        let isolation = Isolation::available();
        if isolation == Isolation::Sweep {
            return Err("there are no namespaces here".to_owned());
        }
        let folder = tempfile::tempdir().map_err(|error| format!("no folder: {error}"))?;
        let output = tempfile::NamedTempFile::new().map_err(|error| format!("no file: {error}"))?;
        let end = || File::options().append(true).open(output.path()).expect("the output");
        // Each call of the one that is traced takes turns with its tracer: on a busy machine they
        // would wait for each turn. Where it may not, `nice` goes on all the same.
        let mut top = isolation
            .command(true)
            .args(["nice", "-n", "-10"])
            .arg(bin::support("sweep"))
            .arg("--inside")
            .arg(folder.path())
            .args(self.to_string().split(' '))
            .env(bin::BUILT, "1")
            .env("RUST_LOG", "debug")
            .stdin(Stdio::piped())
            .stdout(end())
            .stderr(end())
            .spawn()
            .map_err(|error| format!("no box: {error}; run scripts/setup"))?;
        let in_time = Watched::new(top.id()).ends_within(LIMIT);
        if !in_time {
            // The init of the namespaces dies with it, and by that all that is in them.
            let init = process::children(top.id()).into_iter().map(Watched::new);
            let init: Vec<Watched> = init.collect();
            _ = top.kill();
            init.iter().for_each(|init| init.wait_end(Duration::from_secs(10)));
        }
        let status = top.wait().map_err(|error| error.to_string())?;
        let text = fs::read(output.path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        match text.lines().find_map(|line| line.parse().ok()) {
            Some(verdict) if status.success() => Ok(verdict),
            _ if !in_time => Err(format!("{text}not within {LIMIT:?}")),
            _ => Err(format!("{text}{status}")),
        }
    }

    /// In namespaces of its own, that end with this process. Panics where a promise is broken.
    pub fn run(self, folder: &Path) -> Verdict {
        let mut up = Command::new("ip");
        let up = up.args(["link", "set", "lo", "up"]).status();
        assert!(up.expect("ip; run scripts/setup").success(), "no loopback");
        if self.scenario == Scenario::Moving {
            return moving::run(self, folder);
        }
        // In the supervisor's process group, and in one of its own.
        let blocked = || {
            let mut command = Command::new("env");
            command.args(["--block-signal", "sleep", "1000"]);
            command
        };
        let mut beside = blocked().spawn().expect("env");
        let apart = Innocent::run(&mut blocked());
        let innocents = [beside.id(), apart.pid()];

        let site = Site::new(self.scenario, folder);
        let shown = Shown(&site);
        let old = wait_only(&site, |_| true);
        let supervisor = Watched::new(site.service.supervisor_pid());
        let clients = Clients::start(&site.target);
        clients.wait_answers(old.daemon, 4);
        let held = Connection::unfinished(&site.target);
        let held_port = held.port();
        wait_for("a request that the old one has accepted", LIMIT, || {
            Sockets::of(old.daemon).accepted.contains(&held_port).then_some(())
        });
        site.service.settle();

        let family = Family {
            supervisor: supervisor.pid(),
            launcher: old.launcher,
            daemon: old.daemon,
            program: fs::canonicalize(bin::probe()).expect("the program"),
            in_place: self.scenario.is_in_place(),
        };
        let strike = Strike::prepare(family, self.role, self.at, look);
        strike.begin();
        site.restart();
        let mut slow = Slow { held: Some(held), asked: None };
        let (last, calls) = self.wait_end(&site, &clients, &strike, old, &mut slow);
        let mut blow = strike.blow();
        if let Some(blow) = &mut blow
            && site.has_let_go(old)
        {
            blow.seen.listeners.remove(&old.launcher);
        }
        if let Some(Blow { pid, call, before, seen, .. }) = &blow {
            let before: Vec<String> = before.iter().map(Call::name).collect();
            println!(
                "killed {pid} of {old:?} at {}: {seen:?}\nafter {}",
                call.name(),
                before.join(" ")
            );
        }
        clients.wait_answers(last.daemon, 4);
        let generation = site.generation(last.daemon);

        // Nothing that is left is in the way of a plain restart: not a request fails.
        let plain_from = Instant::now();
        site.restart();
        let plain = wait_only(&site, |now| now.daemon != last.daemon);
        clients.wait_answers(plain.daemon, 4);
        assert_eq!(last.launcher == plain.launcher, self.scenario.is_in_place());
        let asked = clients.stop();
        let mut files: Vec<String> = fs::read_dir(site.run())
            .expect("its folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        files.sort();
        assert_eq!(files, Site::FILES);

        // It stops, and nothing is left.
        site.service.down();
        site.service.wait_down();
        let left = site.members();
        assert!(left.is_empty(), "it was down: {left:?}");

        assert!(!supervisor.has_ended(), "the supervisor was killed");
        for pid in innocents {
            let signals = process::signals(pid).expect("an innocent that lives");
            assert!(signals.blocked.contains(seamless_testing::signal::TERM), "{signals:?}");
            assert!(signals.pending.is_empty(), "{pid} was signalled: {signals:?}");
            let state = process::stat(pid).expect("an innocent that lives").state;
            assert_eq!(state, 'S', "{pid} was signalled");
        }
        _ = beside.kill();
        _ = beside.wait();

        let numbers = (calls, generation);
        let verdict = self.judge(&asked, slow, blow.as_ref(), [old, last], plain_from, numbers);
        shown.done();
        verdict
    }

    /// Waits until the restart is complete, or what came instead of it. The number of calls.
    fn wait_end(
        self,
        site: &Site,
        clients: &Clients,
        strike: &Strike<Seen>,
        old: Pair,
        slow: &mut Slow,
    ) -> (Pair, u64) {
        let mut amiss;
        let deadline = Instant::now() + LIMIT;
        loop {
            let late = Instant::now() >= deadline;
            let blow = strike.blow();
            // Its answer is asked for when the restart cannot be over before.
            let another =
                || clients.seen().iter().any(|one| one.pid().is_some_and(|pid| pid != old.daemon));
            if blow.is_some() || another() {
                slow.finish();
            }
            // In place, the old one stays where its successor has failed.
            let may_stay = self.scenario.is_in_place() && self.role == Role::NewDaemon;
            let is_dying = blow.as_ref().is_some_and(|blow| !Watched::new(blow.pid).has_ended());
            match (site.only(), blow) {
                _ if is_dying => amiss = "the one that was killed is still there".to_owned(),
                (Err(why), _) => amiss = why,
                (Ok(only), Some(blow)) if only.daemon != old.daemon || may_stay => {
                    return (only, blow.before.len() as u64 + 1);
                }
                (Ok(only), None) if only.daemon != old.daemon => match strike.end() {
                    Some(calls) => {
                        slow.finish();
                        return (only, calls);
                    }
                    None => amiss = "the blow is falling".to_owned(),
                },
                (Ok(only), _) => amiss = format!("still {only:?}"),
            }
            assert!(!late, "one generation, the next: {amiss}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn judge(
        self,
        asked: &[Asked],
        slow: Slow,
        blow: Option<&Blow<Seen>>,
        [old, last]: [Pair; 2],
        plain_from: Instant,
        (calls, generation): (u64, u64),
    ) -> Verdict {
        let mut served: BTreeMap<u32, usize> = BTreeMap::new();
        asked.iter().filter_map(Asked::pid).for_each(|pid| *served.entry(pid).or_default() += 1);
        let since = |one: &&Asked| blow.is_none_or(|blow| one.begin >= blow.at);
        let by_last = |one: &&Asked| one.pid() == Some(last.daemon);
        let final_from = asked.iter().filter(since).filter(by_last).map(|one| one.end).min();
        let final_from = final_from.expect("it has answered");

        let slow = slow.asked.expect("it has been finished");
        assert!(slow.answer.as_ref().is_ok_and(|pid| *pid == old.daemon) || slow.answer.is_err());
        let (mut held, mut unserved) = (0, 0);
        for failed in asked.iter().chain([&slow]).filter(|one| one.answer.is_err()) {
            match excuse(failed, blow, final_from) {
                Some(Excuse::Held) => held += 1,
                Some(Excuse::Unserved) => unserved += 1,
                None => panic!(
                    "{failed:?}\nbefore the blow: {:?}; in the plain restart: {}; answers: {served:?}; \
                     before: {old:?}; after: {last:?}",
                    blow.map(|blow| failed.end < blow.at),
                    failed.end >= plain_from,
                ),
            }
        }

        let between = asked.iter().filter(since).filter(|one| one.end <= final_from);
        let between: BTreeSet<u32> = between.filter_map(Asked::pid).collect();
        let outcome = match blow {
            None => Outcome::Untouched,
            Some(blow) if left_nobody(blow) => Outcome::Nobody,
            Some(_) if between.iter().any(|pid| ![old.daemon, last.daemon].contains(pid)) => {
                Outcome::New
            }
            Some(_) => match self.role {
                // The one that was to come in any case.
                Role::OldDaemon => Outcome::New,
                Role::OldLauncher if !self.scenario.is_in_place() => Outcome::New,
                Role::OldLauncher | Role::NewLauncher | Role::NewDaemon => Outcome::Old,
            },
        };
        let call = blow.map_or_else(|| "-".to_owned(), |blow| blow.call.name());
        let answers = served.values().sum();
        Verdict { outcome, calls, call, generation, answers, held, unserved }
    }
}

/// Waits until there is one generation and it is as wanted.
#[track_caller]
fn wait_only(site: &Site, wanted: impl Fn(Pair) -> bool) -> Pair {
    let mut amiss;
    let deadline = Instant::now() + LIMIT;
    loop {
        let late = Instant::now() >= deadline;
        match site.only() {
            Ok(only) if wanted(only) => return only,
            Ok(only) => amiss = format!("still {only:?}"),
            Err(why) => amiss = why,
        }
        assert!(!late, "one generation: {amiss}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The request that the old daemon has accepted before the restart, and cannot answer until its rest
/// is sent.
struct Slow {
    held: Option<Connection>,
    asked: Option<Asked>,
}

impl Slow {
    fn finish(&mut self) {
        let Some(held) = self.held.take() else { return };
        let (begin, port) = (Instant::now(), Some(held.port()));
        let answer = held.try_finish().map(|answer| answer.pid.expect("a server with a PID"));
        self.asked = Some(Asked { begin, end: Instant::now(), port, answer });
    }
}

/// What the service logged is shown where a case fails.
struct Shown<'a>(&'a Site);

impl Shown<'_> {
    fn done(self) {
        std::mem::forget(self);
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        println!("The log:\n{}", self.0.log());
        for one in process::all() {
            println!("{one:?}");
        }
    }
}
