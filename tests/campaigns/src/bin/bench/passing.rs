//! Open connections that move to the successor: how long that takes, and what their clients see.

use std::{
    error::Error,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Bench,
    kept::{Asked, Clients, LIMIT, Pace, Report, Site, allowed},
    table::{self, Samples, millis, progress, thousands},
};

/// Connections that are silent, in the first part.
pub(crate) const IDLE: usize = 10_000;
/// Clients that ask all the time beside them.
const BUSY: usize = 8;
const BUSY_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));
/// From one restart to the next.
const REST: Duration = Duration::from_millis(1200);
/// Pauses around what a server of http counts: the grace of an idle connection, the next try of one that could
/// not be passed, the time in which the others leave; and short ones.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(5),
];
/// For how long the processor time of a new daemon is looked at, and how often.
const LOOKED_AT: Duration = Duration::from_secs(5);
const LOOKS: usize = 3;
pub(crate) const OPTIONS: &str = "--pass=yes --max-connections=40000 --drain-timeout=60s --spread=5s \
                       --idle-grace=1s --keep-alive=1h";

pub(crate) fn run(bench: &Bench, idle: usize, restarts: usize) -> Result<bool, Box<dyn Error>> {
    let idle = allowed(idle);
    let mut clean = moves(bench, idle, restarts)?;
    for clients in [64, idle] {
        clean &= keeps(bench, clients, restarts)?;
    }
    processor(bench, idle)?;
    Ok(clean)
}

/// Silent connections, and a few busy ones beside them.
fn moves(bench: &Bench, idle: usize, restarts: usize) -> Result<bool, Box<dyn Error>> {
    table::title(&format!(
        "{} silent connections and {BUSY} busy ones move, {restarts} restarts",
        thousands(idle as u64)
    ));
    let mut site = Site::start(bench, OPTIONS)?;
    let address = bench.port.address();
    bench.pass(REST, "it is idle")?;
    let open = site.open();
    let silent = Clients::start(address, idle, Pace::Idle { comes_back: false })?;
    let busy = Clients::start(address, BUSY, Pace::Between(BUSY_PAUSE.0, BUSY_PAUSE.1))?;
    let mut windows = Vec::new();
    for restart in 0..restarts {
        bench.pass(REST, &format!("restart {} of {restarts}", restart + 1))?;
        windows.push(site.restart(bench)?);
    }
    bench.pass(REST, "the last one serves")?;
    let closed = silent.closed();
    let (silent, busy) = (silent.stop(), busy.stop());
    // Those of the clients are closed one after the other.
    let began = Instant::now();
    while site.open() != open && began.elapsed() < LIMIT {
        bench.pass(Duration::from_millis(100), "the clients have gone")?;
    }
    let left = site.open();
    let log = site.last_lines();
    site.end(bench)?;

    let whole: Samples = windows.iter().map(|one| one.ended - one.told).collect();
    let moved: Samples = windows.iter().map(|one| one.ended - one.taken_over).collect();
    // The longest of each client in each restart: that one has met the move.
    let mut met = Samples::new();
    for one in &windows {
        for client in 0..BUSY {
            let theirs = busy.asked.iter().filter(|(number, _)| *number == client);
            let meets = theirs.filter(|(_, asked)| asked.meets(one.taken_over, one.ended));
            if let Some(longest) = meets.map(|(_, asked)| asked.took).max() {
                met.add(longest);
            }
        }
    }
    let calm = alone(&busy, &windows.iter().map(|one| (one.told, one.ended)).collect::<Vec<_>>());
    table::header();
    table::note("TERM to the launcher until the old daemon's end, median", &millis(whole.median()));
    let aim = Duration::from_millis(200);
    let (median, most) = (moved.median(), moved.quantile(1.0));
    table::target(
        "TERM of the successor until the old daemon's end, median",
        &millis(median),
        "<= 200 ms",
        median <= aim,
    );
    table::note("the same, the longest", &millis(most));
    let failed = silent.failed.len() + busy.failed.len();
    let text = format!("{closed}, {failed}");
    table::target("closed connections, failed requests", &text, "0, 0", closed + failed == 0);
    let text = format!("{}, {} at first", left.len(), open.len());
    table::target("descriptors without clients", &text, "the same", left == open);
    table::note("requests of busy clients, alone: p99", &millis(calm.quantile(0.99)));
    table::note("the one that meets the move: median", &millis(met.median()));
    let more = met.quantile(0.99).saturating_sub(calm.quantile(0.99));
    let text = format!("+{}", millis(more));
    table::target("the one that meets the move: p99", &text, "<= +5 ms", more.as_millis() <= 5);
    tell_failures(&silent, &log);
    tell_failures(&busy, &log);
    if left != open {
        table::print(&format!("  {left:?}\n  {open:?}"));
    }
    Ok(closed + failed == 0 && left == open)
}

/// Clients that ask again after pauses of every length.
fn keeps(bench: &Bench, clients: usize, restarts: usize) -> Result<bool, Box<dyn Error>> {
    table::title(&format!(
        "{} clients that never retry, with pauses around every limit, {restarts} restarts",
        thousands(clients as u64)
    ));
    let mut site = Site::start(bench, OPTIONS)?;
    let running = Clients::start(bench.port.address(), clients, Pace::Around(&PAUSES))?;
    let mut windows = Vec::new();
    for restart in 0..restarts {
        bench.pass(REST, &format!("restart {} of {restarts}", restart + 1))?;
        let one = site.restart(bench)?;
        windows.push((one.told, one.ended));
    }
    bench.pass(REST, "the last one serves")?;
    let to = Instant::now();
    let report = running.stop();
    let log = site.last_lines();
    site.end(bench)?;
    let during: Samples = windows
        .iter()
        .flat_map(|(from, to)| {
            let met = report.asked.iter().filter(move |(_, one)| one.meets(*from, *to));
            met.map(|(_, one)| one.took)
        })
        .collect();
    let calm = alone(&report, &windows);
    table::header();
    let failed = report.failed.len();
    let text = format!("{failed} of {}", thousands((report.asked.len() + failed) as u64));
    table::target("requests that failed", &text, "0", failed == 0);
    let opened = clients + failed;
    table::target(
        "connections that were opened",
        &thousands(opened as u64),
        &thousands(clients as u64),
        failed == 0,
    );
    table::note("p99.9 alone", &millis(calm.quantile(0.999)));
    let text = format!("{} ({})", millis(during.quantile(0.999)), thousands(during.count() as u64));
    table::note("p99.9 over restarts (requests)", &text);
    // Not the first seconds and the last ones, in which all of them connect and end at once.
    let from = windows.first().map_or(to, |one| one.0);
    let all = report.asked.iter().filter(|(_, one)| one.is_within(from, to));
    let all: Samples = all.map(|(_, one)| one.took).collect();
    let ratio = all.quantile(0.999).as_secs_f64() / calm.quantile(0.999).as_secs_f64();
    let text = format!("{ratio:.2} times");
    table::target("p99.9 from the first restart on to alone", &text, "<= 1.05", ratio <= 1.05);
    tell_failures(&report, &log);
    Ok(failed == 0)
}

/// Requests of the times in which nothing was restarted.
fn alone(report: &Report, windows: &[(Instant, Instant)]) -> Samples {
    let after = Duration::from_millis(250);
    let calm = windows.windows(2).map(|two| (two[0].1 + after, two[1].0));
    let calm: Vec<(Instant, Instant)> = calm.collect();
    let is_calm = |one: &Asked| calm.iter().any(|(from, to)| one.is_within(*from, *to));
    report.asked.iter().filter(|(_, one)| is_calm(one)).map(|(_, one)| one.took).collect()
}

fn tell_failures(report: &Report, log: &str) {
    for failure in report.failed.iter().take(5) {
        table::print(&format!("  {failure}"));
    }
    if !report.failed.is_empty() {
        table::print(log);
    }
}

/// What a daemon uses of the processors in its first seconds, and the same clients when nothing is restarted.
fn processor(bench: &Bench, clients: usize) -> Result<(), Box<dyn Error>> {
    table::title(&format!(
        "Processor time in {} s, {} clients with keep-alive, {LOOKS} times",
        LOOKED_AT.as_secs(),
        thousands(clients as u64)
    ));
    let mut site = Site::start(bench, OPTIONS)?;
    let running = Clients::start(bench.port.address(), clients, Pace::Around(&PAUSES))?;
    let (mut usual, mut first) = (Samples::new(), Samples::new());
    for look in 0..LOOKS {
        progress(&format!("look {} of {LOOKS}", look + 1));
        bench.pass(LOOKED_AT, "pauses are mixed")?;
        let before = site.processor_time().ok_or("no daemon")?;
        thread::sleep(LOOKED_AT);
        usual.add(site.processor_time().ok_or("no daemon")? - before);
        let restart = site.restart(bench)?;
        thread::sleep(LOOKED_AT.saturating_sub(restart.taken_over.elapsed()));
        first.add(site.processor_time().ok_or("no daemon")?);
    }
    running.stop();
    site.end(bench)?;
    table::header();
    table::note("left alone, median", &millis(usual.median()));
    table::note("of a new daemon from its start on, median", &millis(first.median()));
    let ratio = first.median().as_secs_f64() / usual.median().as_secs_f64();
    table::target("ratio", &format!("{ratio:.2} times"), "<= 1.1", ratio <= 1.1);
    Ok(())
}
