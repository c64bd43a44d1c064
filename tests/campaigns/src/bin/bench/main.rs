//! The figures that the crate wants to reach, measured and printed as tables; see `scripts/bench`.
//! A figure that is missed is told, and is no error: machines differ. A request that a server with
//! sockets taken over fails is one.
//!
//! Programs that are compared take turns in the same run. The launcher's parent is this program,
//! no supervisor that the crate knows, so that no intent has to settle.

mod closes;
mod fleet;
mod http;
mod kept;
mod kills;
mod latency;
mod long;
mod losses;
mod passing;
mod peers;
mod recover;
mod servers;
mod starts;
mod storm;
mod table;
mod takeover;

use std::{
    env,
    error::Error,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use lexopt::prelude::*;
use peers::Server;
use seamless_campaigns::{family::Family, port::ReservedPort};

const USAGE: &str = "\
Measures the figures of the crate on this machine.

scripts/bench [--starts] [--takeover] [--latency] [--losses] [--http]   (these; without any, all of them)
              [--runs 100] [--idle 60]      (--starts: starts of each program; seconds of idleness)
              [--rate 2000] [--restarts 200]   (--latency: requests a second; restarts, of the
                                               servers to compare with a quarter)
              [--restarts 100]  (--http: by protocol)
              [--clients 128,512] [--restarts 8]   (--losses: how many ask at a time)
scripts/bench --rollback, --crash [--restarts 200]   (what a bad version and a crash cost: a quarter of them
                                                      each in place and under daemontools, runit and s6)
scripts/bench --probation [--rate 2000] [--restarts 200]   (what a probation costs a restart: so many without
                                                            and with one, in turns)
scripts/bench --passing [--connections 10000] [--restarts 10]   (open connections that move)
scripts/bench --kills [--connections 10000] [--restarts 50]   (the same, and either side is KILLed in the move)
scripts/bench --storm [--connections 20000] [--restarts 3]   (connections that are closed spread, TLS sessions
                                                              that are resumed)
scripts/bench --peers [--restarts 10] [--servers seamless,ecdysis,shellflip,pingora,nginx,haproxy]
                                  (the crate beside others; at least 10 restarts for figures to keep)
scripts/bench --long [--restarts 200] [--requests 5000000] [--clients 128]
scripts/bench --fleet [--hosts 10000] [--open 1000] [--rate 2000] [--restarts 20]
                                  (hosts that deploy daily; of each, open TLS connections and requests a
                                   second)
scripts/bench --flows             (QUIC connections over restarts, in about 3 minutes)";

/// Set where the network is our own.
const NET: &str = "SEAMLESS_BENCH_NET";
const MIGRATE: &str = "/proc/sys/net/ipv4/tcp_migrate_req";

struct Options {
    starts: bool,
    takeover: bool,
    latency: bool,
    losses: bool,
    http: bool,
    rollback: bool,
    crash: bool,
    probation: bool,
    long: bool,
    fleet: bool,
    passing: bool,
    storm: bool,
    kills: bool,
    peers: bool,
    servers: Vec<Server>,
    connections: Option<usize>,
    hosts: u64,
    open: u64,
    runs: usize,
    idle: Duration,
    rate: u32,
    restarts: Option<usize>,
    requests: u64,
    clients: Vec<usize>,
}

impl Options {
    /// `None` where help was asked for.
    fn from_args() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Options {
            starts: false,
            takeover: false,
            latency: false,
            losses: false,
            http: false,
            rollback: false,
            crash: false,
            probation: false,
            long: false,
            fleet: false,
            passing: false,
            storm: false,
            kills: false,
            peers: false,
            servers: Server::ALL.to_vec(),
            connections: None,
            hosts: 10_000,
            open: 1_000,
            runs: 100,
            idle: Duration::from_secs(60),
            rate: 2000,
            restarts: None,
            requests: 5_000_000,
            clients: vec![128, 512],
        };
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Long("starts") => options.starts = true,
                Long("takeover") => options.takeover = true,
                Long("latency") => options.latency = true,
                Long("losses") => options.losses = true,
                Long("http") => options.http = true,
                Long("rollback") => options.rollback = true,
                Long("crash") => options.crash = true,
                Long("probation") => options.probation = true,
                Long("long") => options.long = true,
                Long("fleet") => options.fleet = true,
                Long("passing") => options.passing = true,
                Long("storm") => options.storm = true,
                Long("kills") => options.kills = true,
                Long("peers") => options.peers = true,
                Long("servers") => {
                    let text = args.value()?.string()?;
                    let named = |name| Server::ALL.into_iter().find(|one| one.name() == name);
                    let servers: Option<Vec<Server>> = text.split(',').map(named).collect();
                    options.servers = servers.ok_or(format!("--servers {text}: unknown"))?;
                }
                Long("connections") => options.connections = Some(args.value()?.parse()?),
                Long("hosts") => options.hosts = args.value()?.parse()?,
                Long("open") => options.open = args.value()?.parse()?,
                Long("runs") => options.runs = args.value()?.parse()?,
                Long("idle") => options.idle = Duration::from_secs(args.value()?.parse()?),
                Long("rate") => options.rate = args.value()?.parse()?,
                Long("restarts") => options.restarts = Some(args.value()?.parse()?),
                Long("requests") => options.requests = args.value()?.parse()?,
                Long("clients") => {
                    let text = args.value()?.string()?;
                    let counts = text.split(',').map(str::parse);
                    options.clients = counts
                        .collect::<Result<_, _>>()
                        .map_err(|error| format!("--clients {text}: {error}"))?;
                }
                Short('h') | Long("help") => return Ok(None),
                _ => return Err(arg.unexpected()),
            }
        }
        if options.runs == 0 || options.rate == 0 || options.restarts == Some(0) {
            return Err("--runs, --rate and --restarts: at least 1".into());
        }
        if options.connections == Some(0) {
            return Err("--connections: at least 1".into());
        }
        if options.clients.is_empty() || options.clients.contains(&0) {
            return Err("--clients: at least 1".into());
        }
        if !(options.starts
            || options.takeover
            || options.latency
            || options.losses
            || options.http
            || options.rollback
            || options.crash
            || options.probation
            || options.fleet
            || options.passing
            || options.storm
            || options.kills
            || options.peers
            || options.long)
        {
            options.starts = true;
            options.takeover = true;
            options.latency = true;
            options.losses = true;
            options.http = true;
        }
        Ok(Some(options))
    }
}

fn main() -> ExitCode {
    let options = match seamless_campaigns::options("bench", USAGE, Options::from_args()) {
        Ok(options) => options,
        Err(end) => return end,
    };
    enter_private_net();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("bench: requests failed that must not");
            ExitCode::FAILURE
        }
        Err(error) => {
            table::progress("");
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// True where no request failed that must not.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    // PID files live in /run, which is in memory.
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("seamless-bench.").tempdir_in(place)?;
    let family = Family::adopt()?;
    let port = ReservedPort::new()?;
    let bench = Bench { family: &family, folder: folder.path(), port: &port };
    table::print(&table::machine());
    let mut clean = true;
    if options.starts {
        starts::run(&bench, options.runs, options.idle)?;
    }
    if options.takeover {
        takeover::run(&bench)?;
    }
    if options.latency {
        clean &= latency::run(&bench, options.rate, options.restarts.unwrap_or(200))?;
    }
    if options.losses {
        clean &= losses::run(&bench, &options.clients, options.restarts.unwrap_or(8))?;
        closes::run(&bench)?;
    }
    if options.http {
        clean &= http::run(&bench, options.restarts.unwrap_or(100))?;
    }
    if options.rollback {
        clean &= recover::rollbacks(&bench, options.restarts.unwrap_or(200))?;
    }
    if options.crash {
        clean &= recover::crashes(&bench, options.restarts.unwrap_or(200))?;
    }
    if options.probation {
        clean &= recover::probation(&bench, options.rate, options.restarts.unwrap_or(200))?;
    }
    if options.passing {
        let idle = options.connections.unwrap_or(passing::IDLE);
        clean &= passing::run(&bench, idle, options.restarts.unwrap_or(10))?;
    }
    if options.storm {
        let open = options.connections.unwrap_or(storm::OPEN);
        clean &= storm::run(&bench, open, options.restarts.unwrap_or(3))?;
    }
    if options.kills {
        let idle = options.connections.unwrap_or(kills::IDLE);
        clean &= kills::run(&bench, idle, options.restarts.unwrap_or(50))?;
    }
    if options.peers {
        clean &= peers::run(&bench, &options.servers, options.restarts.unwrap_or(10))?;
    }
    if options.fleet {
        let Options { hosts, open, rate, .. } = *options;
        let fleet = fleet::Fleet { hosts, open, rate };
        clean &= fleet::run(&bench, fleet, options.restarts.unwrap_or(20))?;
    }
    if options.long {
        let restarts = options.restarts.unwrap_or(200);
        clean &= long::run(&bench, restarts, options.requests, options.clients[0])?;
    }
    table::progress("");
    Ok(clean)
}

/// What all measurements share.
struct Bench<'a> {
    family: &'a Family,
    folder: &'a Path,
    port: &'a ReservedPort,
}

impl Bench<'_> {
    /// An empty folder.
    fn folder(&self, name: &str) -> std::io::Result<PathBuf> {
        let folder = self.folder.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    fn pass(&self, time: Duration, what: &str) -> std::io::Result<()> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            table::progress(&format!("{what}: {} s", left.as_secs()));
            self.check_interrupted()?;
            thread::sleep(left.min(Duration::from_millis(200)));
        }
    }

    fn check_interrupted(&self) -> std::io::Result<()> {
        if self.family.interrupted() { Err(std::io::Error::other("interrupted")) } else { Ok(()) }
    }
}

/// Goes on in a network of its own, where that is possible: there nobody else loads the loopback,
/// and `tcp_migrate_req` may be set.
fn enter_private_net() {
    if env::var_os(NET).is_some() {
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
        assert!(up.is_ok_and(|up| up.success()), "no loopback");
        return;
    }
    let ways: [&[&str]; 2] = [&["--net"], &["--user", "--map-root-user", "--net"]];
    for way in ways {
        let mut attempt = Command::new("unshare");
        attempt.args(way).args(["sh", "-c", "ip link set lo up"]);
        let attempt = attempt.stdout(Stdio::null()).stderr(Stdio::null()).status();
        if attempt.is_ok_and(|status| status.success()) {
            let own = env::current_exe().expect("our path");
            let mut again = Command::new("unshare");
            again.args(way).arg(own).args(env::args_os().skip(1)).env(NET, "1");
            let error = again.exec();
            eprintln!("bench: no network of its own: {error}");
        }
    }
}

/// Whether Linux moves the queue of a closing SO_REUSEPORT listener; false where that cannot be set.
fn set_migration(on: bool) -> bool {
    let value = if on { "1" } else { "0" };
    if fs::read_to_string(MIGRATE).is_ok_and(|now| now.trim() == value) {
        return true;
    }
    env::var_os(NET).is_some() && fs::write(MIGRATE, value).is_ok()
}
