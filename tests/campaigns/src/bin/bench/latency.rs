//! Latencies during restarts and while the same server is left alone, in one run.
//!
//! Requests come at a fixed rate, each on a connection of its own; latency counts from when each was
//! due. Windows: a restart lasts from the TERM until the predecessor has ended, and a request counts
//! to it if any part of it fell within. That is what the target is for. It is short, some
//! milliseconds in which two processes are started, so what a client sees around a restart is told
//! too: the time from the TERM on until 250 ms later, or until the predecessor's end if that is
//! later. The server is left alone from 250 ms after the predecessor's end until the next TERM; a
//! request counts to that if all of it fell within.

use std::{error::Error, time::Duration};

use seamless_campaigns::load::{Record, Report};

use crate::{
    Bench,
    servers::{Site, Way},
    table::{self, Samples, millis, thousands},
};

/// What a restart has moved is at rest again after so long.
const AFTERMATH: Duration = Duration::from_millis(250);
const CYCLE: Duration = Duration::from_millis(700);
const AIM: f64 = 1.2;

pub(crate) fn run(bench: &Bench, rate: u32, restarts: usize) -> Result<bool, Box<dyn Error>> {
    table::title(&format!(
        "Latency at {rate} requests a second (open loop, a connection each); {restarts} restarts"
    ));
    table::print(&format!(
        "{:<46}{:>9}{:>11}{:>11}{:>11}{:>11}",
        "", "requests", "p50", "p99", "p99.9", "max"
    ));
    crate::set_migration(false);
    let mut clean = true;
    for way in [Way::TakeoverTcp, Way::Emptying, Way::Ecdysis, Way::Shellflip] {
        let restarts = if way.is_takeover() { restarts } else { restarts.div_ceil(4) };
        clean &= measure(bench, way, rate, restarts)? == 0 || !way.is_takeover();
    }
    Ok(clean)
}

/// Gives the number of failed requests.
fn measure(bench: &Bench, way: Way, rate: u32, restarts: usize) -> Result<u64, Box<dyn Error>> {
    let Some(mut site) = way.start(bench)? else {
        table::print(&format!("{}: not built", way.text()));
        return Ok(0);
    };
    let seen = sample(&mut site, rate, restarts)?;
    site.end()?;
    let Seen { report, during, around, alone, lasts } = &seen;

    let failed = report.failures_but(&[]);
    let generations = report.answers.len();
    table::print(&format!(
        "{}: {} failed, {generations} of {} generations answered, a restart lasts {}",
        way.text(),
        thousands(failed),
        restarts + 1,
        millis(lasts.median()),
    ));
    for (text, samples) in [
        ("during restarts: TERM to the old one's end", during),
        ("around restarts: at least 250 ms from the TERM", around),
        ("left alone", alone),
    ] {
        table::print(&format!(
            "  {text:<44}{:>9}{:>11}{:>11}{:>11}{:>11}",
            thousands(samples.count() as u64),
            millis(samples.quantile(0.5)),
            millis(samples.quantile(0.99)),
            millis(samples.quantile(0.999)),
            millis(samples.quantile(1.0)),
        ));
    }
    if during.count() < 1000 {
        table::print("  of so few requests during restarts p99.9 is the longest: raise --restarts");
    }
    let (strict, wide) = (seen.ratio(during), seen.ratio(around));
    if way == Way::TakeoverTcp {
        let text = format!("{strict:.2} times");
        table::target("  p99.9 during restarts to left alone", &text, "<= 1.2", strict <= AIM);
    } else {
        table::note("  p99.9 during restarts to left alone", &format!("{strict:.2} times"));
    }
    table::note("  p99.9 around restarts to left alone", &format!("{wide:.2} times"));
    table::note("  the generator's own lateness, p99.9", &millis(report.late.quantile(0.999)));
    Ok(failed)
}

/// The latencies of a server.
pub(crate) struct Seen {
    pub(crate) report: Report,
    during: Samples,
    /// In the time from the TERM on until 250 ms later, and until the old one has ended.
    pub(crate) around: Samples,
    pub(crate) alone: Samples,
    /// How long each restart took.
    pub(crate) lasts: Samples,
}

impl Seen {
    /// The p99.9 of these to that of a server that is left alone.
    pub(crate) fn ratio(&self, samples: &Samples) -> f64 {
        samples.quantile(0.999).as_secs_f64() / self.alone.quantile(0.999).as_secs_f64()
    }
}

pub(crate) fn sample(site: &mut Site, rate: u32, restarts: usize) -> Result<Seen, Box<dyn Error>> {
    // One thread: the generator should not be what the server waits for.
    let load = site.load().threads(1).rate(rate).keep_records();
    let load = site.start(load)?;
    site.deployment.pass(Duration::from_secs(1), &load)?;
    let mut windows = Vec::new();
    for _ in 0..restarts {
        let begin = load.elapsed();
        site.deployment.restart(&load)?;
        windows.push((begin, load.elapsed()));
        site.deployment.pass(CYCLE, &load)?;
    }
    let whole = load.elapsed();
    let report = load.stop();

    let answered: Vec<&Record> = report.records.iter().filter(|one| one.outcome.is_ok()).collect();
    let touching = |begin: Duration, end: Duration| {
        let from = answered.partition_point(|one| one.begin + Duration::from_secs(1) < begin);
        let touches = move |one: &&&Record| one.begin <= end && one.begin + one.latency >= begin;
        let near = answered[from..].iter().take_while(move |one| one.begin <= end);
        near.filter(touches).map(|one| one.latency).collect::<Vec<_>>()
    };
    let during: Samples = windows.iter().flat_map(|(begin, end)| touching(*begin, *end)).collect();
    let around = windows.iter().map(|(begin, end)| (*begin, (*begin + AFTERMATH).max(*end)));
    let around: Samples = around.flat_map(|(begin, end)| touching(begin, end)).collect();
    let next = windows.iter().skip(1).map(|(begin, _)| *begin).chain([whole]);
    let calm: Vec<_> = windows.iter().map(|(_, end)| *end + AFTERMATH).zip(next).collect();
    let within = |one: &Record| {
        let after = calm.partition_point(|(begin, _)| *begin <= one.begin);
        after > 0 && one.begin + one.latency < calm[after - 1].1
    };
    let alone: Samples = answered.iter().filter(|one| within(one)).map(|one| one.latency).collect();
    let lasts = windows.iter().map(|(begin, end)| *end - *begin).collect();
    Ok(Seen { during, around, alone, lasts, report })
}
