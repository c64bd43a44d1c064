//! What the columns are.

use std::{
    error::Error,
    io::{Read, Write},
    net::TcpStream,
    process, thread,
    time::Duration,
};

use seamless_campaigns::{load::Running, port::ReservedPort};
use seamless_testing::process::{descendants, proportional};

use super::{Figure, Measured, Server};
use crate::{
    Bench,
    kept::{Clients, LIMIT, Pace, allowed},
    latency, losses,
    servers::{Site, Way},
    storm::{COUNTED, Rustls},
    table::{Samples, thousands},
};

/// Requests a second where latencies are measured, and times without an answer.
const RATE: u32 = 2000;
const KEPT: usize = 1000;
/// How long a version serves before what is measured.
const SERVES: Duration = Duration::from_millis(400);
/// How long a version that ends at once stays in place.
const BAD: Duration = Duration::from_millis(500);
/// What has been seen by so long after it belongs to it.
const AFTER: Duration = Duration::from_millis(100);
/// So often memory is looked at.
const LOOKS: usize = 3;

fn start<'a>(bench: &Bench<'a>, way: Way) -> Result<Site<'a>, Box<dyn Error>> {
    Ok(way.start(bench)?.ok_or("it is missing")?)
}

/// One client, from which is known who answers.
fn slow_load(site: &mut Site) -> Result<Running, Box<dyn Error>> {
    let load = site.load().clients(1).threads(1).every(Duration::from_millis(20));
    site.start(load)
}

pub(super) fn losses(bench: &Bench, server: Server, clients: usize, restarts: usize) -> Measured {
    let mut site = start(bench, server.way())?;
    let (report, problem) = losses::lose(bench, &mut site, clients, restarts)?;
    site.end()?;
    let failed = report.failures_but(&[]);
    if let Some(problem) = problem {
        return Err(
            format!("{} requests have failed, and then {problem}", thousands(failed)).into()
        );
    }
    let text = format!("{:.1}", failed as f64 / restarts as f64);
    Ok(Figure { text, clean: failed == 0 && report.answers.len() == restarts + 1 })
}

pub(super) fn latency(bench: &Bench, server: Server, restarts: usize) -> Measured {
    let mut site = start(bench, server.way())?;
    let restarts = server.restarts(3 * restarts);
    let seen = latency::sample(&mut site, RATE, restarts)?;
    site.end()?;
    let lasts = seen.lasts.median().as_secs_f64() * 1e3;
    let text = format!("{:.2}, {lasts:.0} ms", seen.ratio(&seen.around));
    let failed = seen.report.failures_but(&[]);
    Ok(Figure { text, clean: failed == 0 && seen.report.answers.len() == restarts + 1 })
}

/// Clients that have asked once on a connection, and ask anew on another one if it is closed.
pub(super) fn kept(bench: &Bench, server: Server, restarts: usize) -> Measured {
    let restarts = server.restarts(restarts.div_ceil(2));
    let mut site = start(bench, server.way_of_http())?;
    let load = slow_load(&mut site)?;
    let pace = Pace::Idle { comes_back: true };
    let clients = Clients::start(bench.port.address(), allowed(KEPT), pace)?;
    for _ in 0..restarts {
        site.deployment.restart(&load)?;
        site.deployment.pass(Duration::from_secs(1), &load)?;
    }
    let (closed, failed) = (clients.closed(), clients.failed());
    clients.stop();
    let report = load.stop();
    site.end()?;
    let text = format!("{:.0}", (closed + failed) as f64 / restarts as f64);
    let failed = failed as u64 + report.failures_but(&[]);
    Ok(Figure { text, clean: failed == 0 && report.answers.len() == restarts + 1 })
}

/// Clients that have a session resume it, or get another one by a handshake in full.
pub(super) fn sessions(bench: &Bench, server: Server, restarts: usize) -> Measured {
    match server {
        Server::Seamless | Server::Nginx | Server::Haproxy => {}
        Server::Ecdysis | Server::Shellflip => return Err("the library has no TLS".into()),
        Server::Pingora => return Err("it is built without TLS".into()),
    }
    let port = ReservedPort::new()?;
    let way = server.way_of_http();
    let mut site = way.start_with(bench, Some(port.address()))?.ok_or("it is missing")?;
    let load = slow_load(&mut site)?;
    let clients = Rustls::start(&site.folder, port.address())?;
    site.deployment.pass(Duration::from_secs(2), &load)?;
    let (mut all, mut resumed, mut failed) = (0, 0, 0);
    let restarts = restarts.div_ceil(4);
    for _ in 0..restarts {
        clients.counts.reset();
        site.deployment.restart(&load)?;
        site.deployment.pass(COUNTED, &load)?;
        let seen = clients.counts.get();
        (all, resumed, failed) = (all + seen.0, resumed + seen.1, failed + seen.2);
    }
    clients.stop();
    let report = load.stop();
    site.end()?;
    if failed > 0 && server != Server::Seamless || all == 0 {
        return Err(format!("{failed} requests of {} have failed", all + failed).into());
    }
    let share = resumed as f64 / all as f64 * 100.0;
    let text = format!("{share:.1} %, {:.0}", (all - resumed) as f64 / restarts as f64);
    let failed = failed + report.failures_but(&[]);
    Ok(Figure { text, clean: failed == 0 })
}

pub(super) fn crashes(bench: &Bench, server: Server, restarts: usize) -> Measured {
    let (text, _) = gaps(bench, server, restarts, |site, load| Ok(site.deployment.crash(load)?))?;
    Ok(Figure { text, clean: true })
}

pub(super) fn bad_versions(bench: &Bench, server: Server, restarts: usize) -> Measured {
    let (text, failed) = gaps(bench, server, restarts, |site, load| site.fail(load, BAD))?;
    Ok(Figure { text, clean: failed == 0 })
}

/// The longest time without an answer in each of so many acts, and requests that have failed.
fn gaps(
    bench: &Bench,
    server: Server,
    count: usize,
    act: impl Fn(&mut Site, &Running) -> Result<(), Box<dyn Error>>,
) -> Result<(String, u64), Box<dyn Error>> {
    let mut site = start(bench, server.way())?;
    let load = site.load().threads(1).rate(RATE).keep_records();
    let load = site.start(load)?;
    let mut acts = Vec::new();
    for _ in 0..count {
        site.deployment.pass(SERVES, &load)?;
        let begin = load.elapsed();
        act(&mut site, &load)?;
        site.deployment.pass(AFTER, &load)?;
        acts.push((begin, load.elapsed()));
    }
    let report = load.stop();
    site.end()?;
    let answered = report.records.iter().filter(|one| one.outcome.is_ok());
    let answers: Samples = answered.map(|one| one.begin + one.latency).collect();
    let answers: Vec<Duration> = answers.iter().collect();
    let longest = |(from, to): &(Duration, Duration)| {
        let pairs = answers.windows(2).filter(|pair| pair[1] >= *from && pair[0] <= *to);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or(*to - *from)
    };
    let longest: Samples = acts.iter().map(longest).collect();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let text = format!("{:.1}, {:.1} ms", millis(longest.median()), millis(longest.quantile(1.0)));
    Ok((text, report.failures_but(&[])))
}

/// A request without its end keeps the old version alive.
pub(super) fn memory(bench: &Bench, server: Server, _: usize) -> Measured {
    let mut site = start(bench, server.way())?;
    let load = site.load().threads(1).rate(RATE / 2);
    let load = site.start(load)?;
    site.deployment.pass(Duration::from_secs(1), &load)?;
    load.stop();
    let load = slow_load(&mut site)?;
    let (mut of_one, mut of_two) = (Vec::new(), Vec::new());
    for _ in 0..LOOKS {
        site.deployment.pass(Duration::from_secs(1), &load)?;
        of_one.push(of_all()?);
        let mut held = TcpStream::connect(bench.port.address())?;
        held.set_read_timeout(Some(LIMIT))?;
        held.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n")?;
        thread::sleep(Duration::from_millis(200)); // it is accepted
        let begun = site.deployment.begin_restart(&load)?;
        site.deployment.pass(SERVES, &load)?;
        of_two.push(of_all()?);
        if !begun.has_predecessor() {
            return Err("the old version does not wait for an open request".into());
        }
        held.write_all(b"\r\n")?;
        let mut answer = String::new();
        held.read_to_string(&mut answer)?;
        if !answer.starts_with("HTTP/1.1 200 ") {
            return Err("the request that was open has no answer".into());
        }
        site.deployment.end_restart(begun, &load)?;
    }
    let report = load.stop();
    site.end()?;
    let median = |bytes: &mut Vec<u64>| {
        bytes.sort_unstable();
        bytes[bytes.len() / 2] as f64 / 1e6
    };
    let text = format!("{:.1}, {:.1} MB", median(&mut of_one), median(&mut of_two));
    Ok(Figure { text, clean: report.failures_but(&[]) == 0 })
}

/// All processes below this one are the service's.
fn of_all() -> Result<u64, Box<dyn Error>> {
    let all = descendants(process::id()).into_iter().map(|pid| proportional(pid).unwrap_or(0));
    match all.sum() {
        0 => Err("/proc/PID/smaps_rollup cannot be read".into()),
        bytes => Ok(bytes),
    }
}
