//! What is printed.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    thread,
    time::Duration,
};

use seamless_campaigns::{deploy::Watcher, load::Running};

/// The machine, in a line.
pub(crate) fn machine() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    format!("{cores} cores, load average {load}, Linux {}", kernel.trim())
}

pub(crate) fn title(text: &str) {
    progress("");
    print(&format!("\n{text}\n"));
}

/// What is measured, and what it should be.
pub(crate) fn target(figure: &str, measured: &str, target: &str, reached: bool) {
    line(figure, measured, target, if reached { "ok" } else { "MISS" });
}

pub(crate) fn note(figure: &str, measured: &str) {
    line(figure, measured, "", "");
}

pub(crate) fn header() {
    line("figure", "measured", "target", "");
}

fn line(figure: &str, measured: &str, target: &str, verdict: &str) {
    print(&format!("{figure:<52}{measured:>22}{target:>13}  {verdict}"));
}

/// Where nobody reads any more there is nobody to tell.
pub(crate) fn print(text: &str) {
    progress("");
    let mut output = io::stdout().lock();
    let _ = writeln!(output, "{}", text.trim_end_matches(' ')).and_then(|()| output.flush());
}

pub(crate) fn millis(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1e3)
}

pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits"));
    groups.collect::<Vec<_>>().join(",")
}

/// A line that is always new, on a terminal; empty to remove it.
pub(crate) fn progress(text: &str) {
    let mut output = io::stderr().lock();
    if output.is_terminal() {
        let _ = write!(output, "\r{text}\x1b[K").and_then(|()| output.flush());
    }
}

/// Samples in order.
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn new() -> Self {
        Samples(Vec::new())
    }

    pub(crate) fn add(&mut self, sample: Duration) {
        let place = self.0.partition_point(|other| *other <= sample);
        self.0.insert(place, sample);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Duration> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The shortest that the given part does not exceed; nothing where there are none.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let rank = (self.0.len() as f64 * part).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied().unwrap_or_default()
    }

    pub(crate) fn median(&self) -> Duration {
        self.quantile(0.5)
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(samples: I) -> Self {
        let mut samples: Vec<Duration> = samples.into_iter().collect();
        samples.sort();
        Samples(samples)
    }
}

/// Tells what is going on.
pub(crate) struct Progress(pub(crate) String);

impl Watcher for Progress {
    fn live(&mut self, what: &str, load: Option<&Running>) {
        let requests = load.map_or(0, Running::requests);
        progress(&format!("{}: {what}; {} requests", self.0, thousands(requests)));
    }
}
