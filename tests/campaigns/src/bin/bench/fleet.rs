//! What the deploys of a fleet cost, by the way in which a host restarts: measured on one host, and multiplied.
//! And how many hosts and requests a bad version reaches.

mod handshakes;

use std::{error::Error, ffi::OsString, net::SocketAddr, path::Path, time::Duration};

use nix::sys::resource::{UsageWho, getrusage};
use seamless_testing::bin;

use crate::{
    Bench,
    servers::{Site, Way},
    table::{self, Samples, millis, progress, thousands},
};
use handshakes::Clients;

/// What is assumed of each host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fleet {
    pub(crate) hosts: u64,
    /// TLS connections that stay open.
    pub(crate) open: u64,
    /// Requests a second.
    pub(crate) rate: u32,
}

/// From one restart to the next.
const PERIOD: Duration = Duration::from_millis(400);
/// For the processor time of a restart alone.
const SLOW: Duration = Duration::from_millis(100);
/// Open TLS connections of which is measured what becomes.
const OPEN: usize = 64;
/// Restarts under these, each of which spreads its closes over some seconds.
const SPREADS: usize = 3;

/// What a restart by one way costs.
struct Cost {
    way: &'static str,
    /// Requests without an answer.
    lost: f64,
    /// Of the connections that were open, those that had to be made anew.
    reconnect: f64,
    /// Of these, those that resumed their TLS session.
    resumed: f64,
    /// In which time that happened; zero: at once.
    span: Duration,
    /// Processor time of the service alone.
    processor: Duration,
}

/// True where nothing failed that must not.
pub(crate) fn run(bench: &Bench, fleet: Fleet, restarts: usize) -> Result<bool, Box<dyn Error>> {
    crate::set_migration(false);
    table::title(&format!(
        "One host, measured: {restarts} restarts at {} requests a second, a connection each",
        thousands(fleet.rate.into())
    ));
    let folder = bench.folder("tls")?;
    let mut costs = Vec::new();
    let stopped = measure(bench, &mut || start_stopping(bench), fleet.rate, restarts)?;
    let (lost, processor) = stopped.expect("it is built");
    let all = |way, lost, processor| Cost {
        way,
        lost,
        reconnect: 1.0,
        resumed: 0.0,
        span: Duration::ZERO,
        processor,
    };
    costs.push(all("a stop, then a start", lost, processor));
    for way in [Way::Closing, Way::Emptying] {
        match measure(bench, &mut || way.start(bench), fleet.rate, restarts)? {
            Some((lost, processor)) => costs.push(all(way.text(), lost, processor)),
            None => table::print(&format!("{}: not measured: not built", way.text())),
        }
    }
    let mut tls = || start_tls(bench, &folder).map(|(site, _)| Some(site));
    let (lost, processor) = measure(bench, &mut tls, fleet.rate, restarts)?.expect("it is built");
    let (reconnect, resumed, span, failed) = closes(bench, &folder)?;
    let way = "seamless, sockets taken over";
    costs.push(Cost { way, lost, reconnect, resumed, span, processor });
    let (full, resumed) = handshakes::cost(&folder)?;
    table::print(&format!(
        "{:<46}{:>14}{:>12}{:>10}{:>10}{:>12}",
        "a restart", "requests lost", "reconnects", "resumed", "within", "processor"
    ));
    for cost in &costs {
        table::print(&format!(
            "{:<46}{:>14.1}{:>10.0} %{:>8.0} %{:>10}{:>12}",
            cost.way,
            cost.lost,
            cost.reconnect * 100.0,
            cost.resumed * 100.0,
            within(cost.span),
            millis(cost.processor),
        ));
    }
    table::print(&format!(
        "processor time of the server for a TLS handshake, median: {} in full, {} resumed",
        millis(full),
        millis(resumed)
    ));
    print_day(fleet, &costs, full, resumed);
    print_bad(fleet);
    Ok(costs.last().is_some_and(|cost| cost.lost == 0.0) && failed == 0)
}

fn within(span: Duration) -> String {
    match span.is_zero() {
        true => "at once".to_owned(),
        false => format!("{:.1} s", span.as_secs_f64()),
    }
}

// ---- one host ----

/// Requests lost in a restart, and what a restart costs of the processors while nobody asks. `None` where the
/// server has not been built.
fn measure<'a>(
    bench: &Bench<'a>,
    start: &mut dyn FnMut() -> Result<Option<Site<'a>>, Box<dyn Error>>,
    rate: u32,
    restarts: usize,
) -> Result<Option<(f64, Duration)>, Box<dyn Error>> {
    let Some(mut site) = start()? else { return Ok(None) };
    let load = site.load().rate(rate);
    let load = site.start(load)?;
    for _ in 0..restarts {
        site.deployment.pass(PERIOD, &load)?;
        site.deployment.restart(&load)?;
    }
    let report = load.stop();
    site.end()?;
    let lost = report.failures_but(&[]) as f64 / restarts as f64;

    let before = processor_time()?;
    let Some(mut site) = start()? else { return Ok(None) };
    let load = site.load().clients(1).threads(1).every(SLOW);
    let load = site.start(load)?;
    for _ in 0..restarts {
        site.deployment.pass(PERIOD, &load)?;
        site.deployment.restart(&load)?;
    }
    load.stop();
    site.end()?;
    bench.check_interrupted()?;
    let used = processor_time()?.saturating_sub(before);
    Ok(Some((lost, used / (restarts as u32 + 1))))
}

/// Of all that we have started and that has ended.
fn processor_time() -> Result<Duration, Box<dyn Error>> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let times = [usage.user_time(), usage.system_time()];
    let micros = times.iter().map(|time| time.tv_sec() * 1_000_000 + time.tv_usec()).sum::<i64>();
    Ok(Duration::from_micros(micros.try_into()?))
}

/// Without restarts by the crate: TERM closes the listener and drains, and when it has ended, another one is started.
fn start_stopping<'a>(bench: &Bench<'a>) -> Result<Option<Site<'a>>, Box<dyn Error>> {
    let folder = bench.folder("stopping")?;
    let address = bench.port.address().to_string();
    let args = ["--listen", &address, "--pid-file", ""].map(OsString::from).to_vec();
    let site = Site::start_program(bench, "stopping", bin::example("reuseport"), args, &folder)?;
    Ok(Some(site))
}

/// The example `tls`, and the address of its TLS.
fn start_tls<'a>(
    bench: &Bench<'a>,
    folder: &Path,
) -> Result<(Site<'a>, SocketAddr), Box<dyn Error>> {
    let address = bench.port.address();
    let tls = SocketAddr::from(([127, 0, 0, 2], address.port()));
    let args = vec![folder.into(), address.to_string().into(), tls.to_string().into()];
    let site = Site::start_program(bench, "tls", bin::example("tls"), args, folder)?;
    Ok((site, tls))
}

/// What becomes of TLS connections that stay open: the share that is made anew, the share of these that resume,
/// how long that takes, and requests that failed.
fn closes(bench: &Bench, folder: &Path) -> Result<(f64, f64, Duration, u64), Box<dyn Error>> {
    let (mut site, tls) = start_tls(bench, folder)?;
    let load = site.load().clients(1).threads(1).every(SLOW);
    let load = site.start(load)?;
    let clients = Clients::start(tls, &folder.join("cert.pem"), OPEN)?;
    let (mut anew, mut resumed, mut spans) = (0, 0, Samples::new());
    for _ in 0..SPREADS {
        site.deployment.pass(PERIOD, &load)?;
        clients.mark();
        site.deployment.restart(&load)?;
        let seen = clients.since_mark();
        anew += seen.anew;
        resumed += seen.resumed;
        spans.add(seen.span);
        progress("TLS connections that stay open");
    }
    load.stop();
    let failed = clients.stop();
    site.end()?;
    let share = |part: usize, of: usize| part as f64 / of.max(1) as f64;
    Ok((share(anew, OPEN * SPREADS), share(resumed, anew), spans.median(), failed))
}

// ---- the fleet ----

fn print_day(fleet: Fleet, costs: &[Cost], full: Duration, resumed: Duration) {
    let Fleet { hosts, open, .. } = fleet;
    table::title(&format!(
        "{} hosts, a deploy a day on each, {} open TLS connections on each",
        thousands(hosts),
        thousands(open)
    ));
    table::print(&format!(
        "{:<46}{:>15}{:>15}{:>15}{:>14}{:>17}",
        "a day", "requests lost", "reconnects", "in full", "a second*", "processor hours"
    ));
    for cost in costs {
        let deploys = hosts as f64;
        let reconnects = open as f64 * cost.reconnect;
        let in_full = reconnects * (1.0 - cost.resumed);
        let handshakes =
            full.as_secs_f64() * in_full + resumed.as_secs_f64() * (reconnects - in_full);
        let processor = (cost.processor.as_secs_f64() + handshakes) * deploys / 3600.0;
        let peak = match cost.span.is_zero() {
            true => "at once".to_owned(),
            false => thousands((reconnects / cost.span.as_secs_f64()).round() as u64),
        };
        let whole = |number: f64| thousands((number * deploys).round() as u64);
        table::print(&format!(
            "{:<46}{:>15}{:>15}{:>15}{peak:>14}{processor:>17.2}",
            cost.way,
            whole(cost.lost),
            whole(reconnects),
            whole(in_full),
        ));
    }
    table::print("* handshakes a second on one host while it restarts");
}

/// How often a bad version answers wrongly.
const WRONG: f64 = 0.1;
/// Until somebody has seen it and has put the old version back.
const BY_PEOPLE: Duration = Duration::from_secs(600);
/// Until a check of the probation has seen it: it is asked each second.
const BY_CHECK: Duration = Duration::from_secs(2);
/// How long a host of one batch is watched before the next batch.
const BETWEEN: Duration = Duration::from_secs(60);

/// By arithmetic alone.
fn print_bad(fleet: Fleet) {
    table::title(&format!(
        "A version that answers 1 of 10 requests wrongly: people need {} min, a check {} s",
        BY_PEOPLE.as_secs() / 60,
        BY_CHECK.as_secs()
    ));
    table::print(&format!("{:<66}{:>8}{:>18}", "deploy", "hosts", "wrong answers"));
    let wrong = |hosts: u64, time: Duration| {
        hosts as f64 * f64::from(fleet.rate) * WRONG * time.as_secs_f64()
    };
    let tenth = fleet.hosts.div_ceil(10);
    let all = fleet.hosts;
    // The first host for the whole time, the tenth from the next batch on, and the rest after that.
    let later = |batches: u32| BY_PEOPLE.saturating_sub(BETWEEN * batches);
    let batches = wrong(1, BY_PEOPLE) + wrong(tenth - 1, later(1)) + wrong(all - tenth, later(2));
    for (plan, hosts, wrong) in [
        ("all at once", all, wrong(all, BY_PEOPLE)),
        ("serial: [1, 10%, 100%], a minute each, restarts succeed", all, batches),
        ("all at once, each with a probation and a check", all, wrong(all, BY_CHECK)),
        ("serial: [1, 10%, 100%] and a probation with a check", 1, wrong(1, BY_CHECK)),
        ("serial: [1, 10%, 100%], a version that does not start", 1, 0.0),
    ] {
        table::print(&format!(
            "{plan:<66}{:>8}{:>18}",
            thousands(hosts),
            thousands(wrong.round() as u64)
        ));
    }
    table::print(&format!(
        "without a takeover, the last line costs {} requests: its host is down until people come",
        thousands(wrong(1, BY_PEOPLE).mul_add(1.0 / WRONG, 0.0).round() as u64)
    ));
}
