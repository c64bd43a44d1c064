//! The module `http`: its requests per second beside those of the same app on the underlying library
//! alone, in turn in one run, and what clients that never ask twice see of restarts.

use std::{
    error::Error,
    ffi::OsString,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use seamless_campaigns::{load::Target, port::ReservedPort};
use seamless_testing::{
    bin,
    process::Watched,
    strict::{self, Seen, Strict},
};
use signal_hook::consts::SIGTERM;

use crate::{
    Bench,
    servers::{RESPAWN, Site},
    table::{self, Samples, millis, thousands},
};

/// Many and short, and odd: a median over all of them.
const ROUNDS: usize = 41;
const ROUND: Duration = Duration::from_millis(500);
const CLIENTS: usize = 64;
const SHARE: f64 = 0.97;
/// Between two restarts.
const CYCLE: Duration = Duration::from_millis(700);
/// The clients at a steady pace, and how often each asks: 2,000 requests a second in all.
const PACED: usize = 16;
const EVERY: Duration = Duration::from_millis(8);
const AIM: f64 = 1.2;
/// Restarts between which p99.9 is taken, and then the median of all: one bad moment of a machine that
/// is shared with others would decide it alone.
const BLOCK: usize = 10;

/// True where no request failed.
pub(crate) fn run(bench: &Bench, restarts: usize) -> Result<bool, Box<dyn Error>> {
    throughput(bench)?;
    known_loads(bench)?;
    table::title(&format!(
        "The module http: {restarts} restarts by protocol, 2,000 requests a second, never repeated; p99.9: the \
         median over every {BLOCK} restarts"
    ));
    table::print(&format!(
        "{:<34}{:>10}{:>8}{:>12}{:>16}{:>16}{:>8}",
        "", "requests", "failed", "generations", "p99.9 restarts", "p99.9 alone", "ratio"
    ));
    let mut clean = true;
    for (name, tls, http2) in [
        ("HTTP/1.1", false, false),
        ("HTTP/2", false, true),
        ("HTTP/1.1 over TLS", true, false),
        ("HTTP/2 over TLS", true, true),
    ] {
        clean &= across_restarts(bench, name, tls, http2, restarts)?;
    }
    Ok(clean)
}

fn throughput(bench: &Bench) -> Result<(), Box<dyn Error>> {
    table::title(&format!(
        "The module http at full load: {CLIENTS} connections kept open, {ROUNDS} rounds in turn"
    ));
    table::header();
    let (mut ours, mut bare, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Whatever the first of two gains or loses, each has it as often.
        let ours_first = round % 2 == 0;
        for ours_now in [ours_first, !ours_first] {
            if ours_now {
                ours.push(full_load(start_ours(bench)?)?);
            } else {
                bare.push(full_load(start_bare(bench)?)?);
            }
        }
        shares.push(ours[round] / bare[round]);
    }
    let median = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    table::note("requests a second, hyper-util alone (median)", &thousands(median(bare) as u64));
    table::note("requests a second, examples/http (median)", &thousands(median(ours) as u64));
    let share = median(shares);
    table::target("share of a round (median)", &format!("{share:.3}"), ">= 0.97", share >= SHARE);
    Ok(())
}

fn start_ours<'a>(bench: &Bench<'a>) -> Result<Site<'a>, Box<dyn Error>> {
    let folder = bench.folder("http")?;
    let args = vec![folder.join("web.pid").into(), bench.port.address().to_string().into()];
    start(bench, &folder, bin::example("http"), args)
}

fn start_bare<'a>(bench: &Bench<'a>) -> Result<Site<'a>, Box<dyn Error>> {
    let folder = bench.folder("bare")?;
    let address = bench.port.address().to_string();
    // In a session of its own, as a daemon is: Linux shares out the processors by session.
    let args = vec!["--wait".into(), bin::support("bare").into(), address.into()];
    start(bench, &folder, "setsid".into(), args)
}

fn start<'a>(
    bench: &Bench<'a>,
    folder: &Path,
    program: PathBuf,
    args: Vec<OsString>,
) -> Result<Site<'a>, Box<dyn Error>> {
    Site::start_program(bench, "http", program, args, folder)
}

/// The same by programs that everybody knows, ours also while it is restarted.
fn known_loads(bench: &Bench) -> Result<(), Box<dyn Error>> {
    for (program, args) in [
        ("wrk", ["-t1", "-c64", "-d2s"].as_slice()),
        ("h2load", ["-t1", "-c8", "-m8", "-D2"].as_slice()),
    ] {
        for (server, ours, restarted) in [
            ("hyper-util alone", false, false),
            ("examples/http", true, false),
            ("examples/http, restarted", true, true),
        ] {
            // After a GOAWAY it asks for nothing more, on this connection or on another.
            if restarted && program == "h2load" {
                continue;
            }
            let site = if ours { start_ours(bench)? } else { start_bare(bench)? };
            let mut command = Command::new(program);
            command.args(args).arg(format!("http://{}/", bench.port.address()));
            let text = known_load(site, command, restarted)?;
            let rate = known_rate(&text).ok_or_else(|| format!("{program} says: {text}"))?;
            let figure = format!("requests a second, {server}, by {program}");
            table::note(&figure, &thousands(rate as u64));
        }
    }
    Ok(())
}

/// What it prints.
fn known_load(
    mut site: Site,
    mut command: Command,
    restarted: bool,
) -> Result<String, Box<dyn Error>> {
    let load = command.stdout(Stdio::piped()).spawn();
    let mut load = load.map_err(|error| format!("{command:?}: {error}; run scripts/setup"))?;
    let mut ended = false;
    while !ended {
        let next = Instant::now() + CYCLE;
        site.deployment.until("the load ends", None, |slice| {
            thread::sleep(slice.min(Duration::from_millis(10)));
            ended = !matches!(load.try_wait(), Ok(None));
            ended || restarted && Instant::now() >= next
        })?;
        // None, while the next one is about to be started.
        if let Some(launcher) = site.deployment.supervised.main_pid().filter(|_| !ended) {
            Watched::new(launcher).signal(SIGTERM);
        }
    }
    let output = load.wait_with_output()?;
    site.end()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// From what wrk or h2load has printed; `None` where a request failed.
fn known_rate(text: &str) -> Option<f64> {
    if text.contains("Socket errors") || text.contains("Non-2xx") {
        return None;
    }
    if let Some((_, rate)) = text.split_once("Requests/sec:") {
        return rate.split_whitespace().next()?.parse().ok();
    }
    let (before, _) = text.split_once(" req/s")?;
    let clean = text.contains(" 0 failed, 0 errored, 0 timeout");
    before.rsplit(' ').next()?.parse().ok().filter(|_| clean)
}

fn full_load(mut site: Site) -> Result<f64, Box<dyn Error>> {
    let load = site.load().clients(CLIENTS).threads(1).keep_alive();
    let load = site.start(load)?;
    site.deployment.pass(Duration::from_millis(300), &load)?;
    let (before, begin) = (load.requests(), load.elapsed());
    site.deployment.pass(ROUND, &load)?;
    let rate = (load.requests() - before) as f64 / (load.elapsed() - begin).as_secs_f64();
    let report = load.stop();
    site.end()?;
    match report.failures_but(&[]) {
        0 => Ok(rate),
        failed => Err(format!("{failed} requests failed at full load").into()),
    }
}

fn across_restarts(
    bench: &Bench,
    name: &str,
    tls: bool,
    http2: bool,
    restarts: usize,
) -> Result<bool, Box<dyn Error>> {
    let folder = bench.folder("http")?;
    let address = bench.port.address();
    let mut args: Vec<OsString> = Vec::new();
    let program = if tls {
        // Its other place is of no account here.
        args.extend([folder.clone().into(), "127.0.0.1:0".into(), address.to_string().into()]);
        bin::example("tls")
    } else {
        args.extend([folder.join("web.pid").into(), address.to_string().into()]);
        bin::example("http")
    };
    let mut site = start(bench, &folder, program, args)?;
    let trusting = match tls {
        true => Some(strict::trusting_file(&folder.join("cert.pem"), http2)?),
        false => None,
    };
    let clients = |address| {
        let mut clients = Strict::new(&Target::Tcp(address)).clients(PACED).every(EVERY);
        if http2 {
            clients = clients.clients(PACED / 8).http2(8);
        }
        match &trusting {
            Some(trusting) => clients.tls(trusting.clone()),
            None => clients,
        }
    };
    let load = clients(address).start();
    site.deployment.until("it answers", None, |slice| {
        thread::sleep(slice.min(Duration::from_millis(2)));
        load.newest().is_some()
    })?;
    let mut windows = Vec::new();
    let mut calm = Vec::new();
    for _ in 0..restarts {
        let rested = load.elapsed() + CYCLE / 3;
        while load.elapsed() < rested + CYCLE {
            site.deployment.until("time passes", None, |slice| {
                thread::sleep(slice);
                true
            })?;
        }
        let begin = load.elapsed();
        calm.push((rested, begin));
        let old = load.newest().expect("it has answered");
        let launcher = site.deployment.supervised.main_pid().expect("a launcher");
        Watched::new(launcher).signal(SIGTERM);
        site.deployment.until("the successor answers", None, |slice| {
            thread::sleep(slice.min(Duration::from_millis(2)));
            load.newest() != Some(old)
        })?;
        let predecessor = Watched::new(old);
        site.deployment
            .until("the predecessor ends", None, |slice| predecessor.ends_within(slice))?;
        bench.family.reap(old);
        windows.push((begin, load.elapsed()));
    }
    let seen = load.stop();
    site.end()?;

    let (during, alone) = (slowest(&seen, &windows, false), slowest(&seen, &calm, true));
    let ratio = during.as_secs_f64() / alone.as_secs_f64();
    let (failed, generations) = (seen.failures.len(), seen.answers.len());
    table::print(&format!(
        "{name:<34}{:>10}{failed:>8}{:>12}{:>16}{:>16}{ratio:>8.2}  {}",
        thousands(seen.total()),
        format!("{generations}/{}", restarts + 1),
        millis(during),
        millis(alone),
        if ratio <= AIM { "ok" } else { "MISS (<= 1.2)" },
    ));
    for (when, failure) in seen.failures.iter().take(5) {
        table::print(&format!("  {when:?}: {failure}"));
    }
    if tls {
        let moved = moved(bench, &folder, clients, restarts)?;
        table::print(&format!(
            "{:<34}{:>46}{:>16}{:>8.2}",
            "  moved between servers without it",
            millis(moved),
            "",
            moved.as_secs_f64() / alone.as_secs_f64(),
        ));
    }
    Ok(failed == 0 && generations == restarts + 1)
}

/// p99.9, the median of the blocks.
fn slowest(seen: &Seen, windows: &[(Duration, Duration)], whole: bool) -> Duration {
    let blocks = windows.chunks(BLOCK);
    let mut blocks: Vec<Duration> =
        blocks.map(|windows| within(seen, windows, whole).quantile(0.999)).collect();
    blocks.sort();
    blocks[blocks.len() / 2]
}

/// What the requests took that were in flight in these windows; `whole`: all their time.
fn within(seen: &Seen, windows: &[(Duration, Duration)], whole: bool) -> Samples {
    let times = seen.times.iter().filter(|(begin, took)| {
        let end = *begin + *took;
        windows.iter().any(|(from, to)| match whole {
            true => begin >= from && end < *to,
            false => begin <= to && end >= *from,
        })
    });
    times.map(|(_, took)| *took).collect()
}

/// The same clients, moved as often from one server on the libraries alone to another that has just
/// been started: what a process that starts and so many handshakes at once cost, whoever restarts.
fn moved(
    bench: &Bench,
    folder: &Path,
    clients: impl Fn(SocketAddr) -> Strict,
    moves: usize,
) -> Result<Duration, Box<dyn Error>> {
    let ports = [ReservedPort::new()?, ReservedPort::new()?];
    let mut server = Bare::start(bench, ports[0].address(), folder)?;
    let load = clients(ports[0].address()).start();
    while load.newest().is_none() {
        bench.pass(Duration::from_millis(5), "it answers")?;
    }
    let mut windows = Vec::new();
    for turn in 1..=moves {
        bench.pass(CYCLE / 3, "time passes")?;
        let (old, begin) = (load.newest(), load.elapsed());
        bench.pass(RESPAWN, "time passes")?;
        let address = ports[turn % 2].address();
        let next = Bare::start(bench, address, folder)?;
        load.move_to(Target::Tcp(address));
        while load.newest() == old {
            bench.pass(Duration::from_millis(2), "another answers")?;
        }
        bench.pass(EVERY * 5, "all have moved")?;
        windows.push((begin, load.elapsed()));
        server = next;
    }
    let seen = load.stop();
    drop(server);
    Ok(slowest(&seen, &windows, false))
}

/// A server on the libraries alone, with TLS. It ends with this.
struct Bare(Child);

impl Bare {
    fn start(bench: &Bench, address: SocketAddr, folder: &Path) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(bin::support("bare"));
        command
            .arg(address.to_string())
            .args(["cert.pem", "key.pem"].map(|name| folder.join(name)));
        let mut bare = Bare(command.spawn()?);
        while TcpStream::connect(address).is_err() {
            bench.pass(Duration::from_millis(2), "it listens")?;
            if let Some(status) = bare.0.try_wait()? {
                return Err(format!("bare has ended: {status}").into());
            }
        }
        Ok(bare)
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
