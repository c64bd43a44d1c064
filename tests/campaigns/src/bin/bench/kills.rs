//! Many connections over many restarts, with either side KILLed somewhere in the move: what ends, and whether the
//! counters tell the truth.

use std::{error::Error, thread, time::Duration};

use seamless_testing::process::Watched;
use signal_hook::consts::SIGKILL;

use crate::{
    Bench,
    kept::{Clients, LIMIT, Pace, Site, allowed},
    table::{self, thousands},
};

/// Silent connections, and for each ten of them one that asks again and again.
pub(crate) const IDLE: usize = 10_000;
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(900));
const REST: Duration = Duration::from_millis(1500);
/// A process is killed within this time, from the takeover on.
const WITHIN: Duration = Duration::from_millis(250);
// What is kept counts from the first crash in a row, and no generation here serves for the 10 s that end one.
const OPTIONS: &str = "--pass=yes --max-connections=40000 --drain-timeout=60s --spread=5s --idle-grace=1s \
    --keep-sockets=10m";

/// Who is killed in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Nobody,
    Old,
    New,
}

pub(crate) fn run(bench: &Bench, idle: usize, restarts: usize) -> Result<bool, Box<dyn Error>> {
    let chatty = (idle / 10).max(1);
    let idle = allowed(idle + chatty).saturating_sub(chatty).max(1);
    table::title(&format!(
        "{} silent and {} chatty connections over {restarts} restarts, either side is KILLed in two of three",
        thousands(idle as u64),
        thousands(chatty as u64)
    ));
    let mut site = Site::start(bench, OPTIONS)?;
    let address = bench.port.address();
    let silent = Clients::start(address, idle, Pace::Idle { comes_back: true })?;
    let chatty = Clients::start_again(address, chatty, Pace::Between(PAUSE.0, PAUSE.1))?;
    let cut = || silent.closed() + chatty.failed();
    let (mut killed, mut unexcused, mut excused) = (0, 0, 0);
    for restart in 0..restarts {
        bench.pass(REST, &format!("restart {} of {restarts}", restart + 1))?;
        let victim = [Victim::Nobody, Victim::Old, Victim::New][restart % 3];
        let before = cut();
        let (old, _, taken_over) = site.hand_over()?;
        if victim != Victim::Nobody {
            thread::sleep(WITHIN.mul_f64(fastrand::f64()));
            killed += 1;
        }
        match victim {
            Victim::Nobody => {}
            Victim::Old => _ = old.signal(SIGKILL),
            Victim::New => {
                let new = Watched::new(site.daemon().ok_or("no PID file")?);
                new.signal(SIGKILL);
                new.wait_end(LIMIT);
                site.start_again(new.pid())?;
            }
        }
        if !old.ends_within(LIMIT) {
            return Err(format!("the old daemon stays\n{}", site.last_lines()).into());
        }
        bench.family.reap(old.pid());
        // What has been cut is noticed when it is used next.
        while taken_over.elapsed() < REST {
            thread::sleep(Duration::from_millis(20));
        }
        match victim {
            Victim::Nobody => unexcused += cut() - before,
            Victim::Old | Victim::New => excused += cut() - before,
        }
    }
    bench.pass(REST, "the last one serves")?;
    let (silent, chatty) = (silent.stop(), chatty.stop());
    let counted = site.counter("http_requests")?;
    let log = site.last_lines();
    site.end(bench)?;
    table::header();
    table::note("processes that were killed in the move", &thousands(killed));
    let text = thousands(unexcused as u64);
    table::target("cut in restarts without a kill", &text, "0", unexcused == 0);
    table::note("cut with a process that was killed", &thousands(excused as u64));
    let answered = silent.answered + chatty.answered;
    let failed = (silent.failed.len() + chatty.failed.len()) as u64;
    table::note("requests that were answered", &thousands(answered));
    table::note("requests without an answer", &thousands(failed));
    let text = format!("{} more than answered", counted as i64 - answered as i64);
    let is_true = (answered..=answered + failed).contains(&counted);
    table::target("http_requests, the counter", &text, "<= cut", is_true);
    let wrong = |one: &&String| one.contains("wrong answer");
    let wrong = silent.failed.iter().chain(&chatty.failed).filter(wrong).count();
    table::target("answers lost, doubled or mixed up", &thousands(wrong as u64), "0", wrong == 0);
    let clean = unexcused == 0 && wrong == 0 && is_true;
    if !clean {
        chatty.failed.iter().take(5).for_each(|one| table::print(&format!("  {one}")));
        table::print(&log);
    }
    Ok(clean)
}
