//! How long it takes to take over 1, 10, 100, 1,000 and 4,000 sockets, measured in the new daemon
//! around the calls: each at an address of its own, or all at port 0 and told apart by their names.

use std::{
    error::Error,
    io,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use seamless_testing::{
    bin,
    process::Watched,
    report::{Event, Report},
};
use signal_hook::consts::SIGTERM;

use crate::{
    Bench,
    table::{self, Samples, millis, progress},
};

const LIMIT: Duration = Duration::from_secs(20);
const COUNTS: [usize; 5] = [1, 10, 100, 1000, 4000];
/// Takeovers of each count.
const TURNS: usize = 11;

pub(crate) fn run(bench: &Bench) -> Result<(), Box<dyn Error>> {
    table::title(&format!(
        "Takeover of TCP sockets, median of {TURNS}, from the first call until all are there"
    ));
    table::print(&format!(
        "{:>8}{:>14}{:>14}{:>14}{:>14}{:>12}",
        "sockets", "first call", "all calls", "longest", "per socket", "target"
    ));
    for any_port in [false, true] {
        let name = if any_port { "by name" } else { "by address" };
        table::print(&format!("found {name}"));
        rows(bench, any_port, name)?;
    }
    Ok(())
}

fn rows(bench: &Bench, any_port: bool, name: &str) -> Result<(), Box<dyn Error>> {
    let mut per_socket = Vec::new();
    for count in COUNTS {
        let (first, all) = takeovers(bench, count, any_port)?;
        let each = all.median() / count as u32;
        per_socket.push(each);
        let limit = match count {
            1 => Some((Duration::from_millis(1), "< 1 ms")),
            4000 => Some((Duration::from_millis(50), "< 50 ms")),
            _ => None,
        };
        let (target, verdict) = match limit {
            Some((limit, text)) if all.median() < limit => (text, "ok"),
            Some((_, text)) => (text, "MISS"),
            None => ("", ""),
        };
        table::print(&format!(
            "{count:>8}{:>14}{:>14}{:>14}{:>14}{target:>12}  {verdict}",
            millis(first.median()),
            millis(all.median()),
            millis(all.quantile(1.0)),
            format!("{:.1} us", each.as_secs_f64() * 1e6),
        ));
    }
    let ratio = per_socket[4].as_secs_f64() / per_socket[3].as_secs_f64();
    table::target(
        &format!("a socket of 4,000 costs as one of 1,000, {name}"),
        &format!("{ratio:.2} times"),
        "<= 1.5",
        ratio <= 1.5,
    );
    Ok(())
}

/// How long the first call took, and all of them.
fn takeovers(
    bench: &Bench,
    count: usize,
    any_port: bool,
) -> Result<(Samples, Samples), Box<dyn Error>> {
    let folder = bench.folder("many")?;
    let report = Report::new(folder.join("report"));
    let (mut first, mut all) = (Samples::new(), Samples::new());
    let mut launcher = start(&folder, count, any_port)?;
    let mut old = wait_had(bench, &report, 1, &mut launcher)?;
    for turn in 1..=TURNS {
        progress(&format!("takeover {turn} of {TURNS} of {count} sockets"));
        let predecessor = Watched::new(old.pid);
        Watched::new(launcher.id()).signal(SIGTERM);
        let status = launcher.wait()?;
        if !status.success() {
            return Err(format!("the launcher ended with {status}").into());
        }
        launcher = start(&folder, count, any_port)?;
        let new = wait_had(bench, &report, turn + 1, &mut launcher)?;
        let [first_of_new, all_of_new, inodes, from] = numbers(&new)?;
        let [_, _, old_inodes, _] = numbers(&old)?;
        if inodes != old_inodes || from == 0 {
            return Err(format!("nothing was taken over: {new:?} after {old:?}").into());
        }
        first.add(Duration::from_nanos(first_of_new));
        all.add(Duration::from_nanos(all_of_new));
        if !predecessor.ends_within(LIMIT) {
            return Err("the predecessor does not end".into());
        }
        bench.family.reap(old.pid);
        old = new;
    }
    let daemon = Watched::new(old.pid);
    Watched::new(launcher.id()).signal(SIGTERM);
    launcher.wait()?;
    daemon.signal(SIGTERM);
    if !daemon.ends_within(LIMIT) {
        return Err("the last daemon does not end".into());
    }
    bench.family.reap(old.pid);
    Ok((first, all))
}

fn start(folder: &Path, count: usize, any_port: bool) -> io::Result<Child> {
    Command::new(bin::support("many"))
        .arg("--pid-file")
        .arg(folder.join("web.pid"))
        .arg("--report")
        .arg(folder.join("report"))
        .arg("--sockets")
        .arg(count.to_string())
        .args(any_port.then_some("--any-port"))
        .stdin(Stdio::null())
        .spawn()
}

fn wait_had(
    bench: &Bench,
    report: &Report,
    count: usize,
    launcher: &mut Child,
) -> Result<Event, Box<dyn Error>> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(event) = report.named("had").into_iter().nth(count - 1) {
            return Ok(event);
        }
        bench.check_interrupted()?;
        if let Some(status) = launcher.try_wait()? {
            return Err(format!("the service ended with {status}").into());
        }
        if Instant::now() > deadline {
            return Err("the service does not get its sockets".into());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn numbers(event: &Event) -> Result<[u64; 4], Box<dyn Error>> {
    let numbers: Result<Vec<u64>, _> = event.text.split(' ').map(str::parse).collect();
    numbers?.try_into().map_err(|_| format!("not four numbers: {event:?}").into())
}
