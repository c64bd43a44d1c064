//! What is shown: a line for each restart, below it one that is always new, and tables at the end.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use crate::{
    clients::Load,
    options::Options,
    stats::{Slice, Stats},
};

const REDRAW: Duration = Duration::from_millis(200);
/// A whole block of the bar.
const BLOCK: Duration = Duration::from_millis(2);
/// The longest bar, in blocks.
const LONGEST_BAR: usize = 24;

pub(crate) struct Screen {
    terminal: bool,
    drawn: Option<Instant>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Screen { terminal: io::stdout().is_terminal(), drawn: None }
    }

    pub(crate) fn clear(&mut self) {
        if self.drawn.take().is_some() {
            write("\r\x1b[K");
        }
    }

    pub(crate) fn line(&mut self, text: &str) {
        self.clear();
        write(&format!("{text}\n"));
    }

    /// The state of this moment, if somebody watches.
    pub(crate) fn live(&mut self, load: &Load) {
        if !self.terminal || self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return;
        }
        let (interval, seconds) = load.stats().so_far();
        write(&format!("\r{:69}{}\x1b[K", "", figures(&interval, seconds)));
        self.drawn = Some(Instant::now());
    }
}

/// If nobody reads any more, there is nobody to tell.
fn write(text: &str) {
    let mut output = io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// The line of one restart, and what its clients saw since the line before.
pub(crate) fn restart(
    turn: usize,
    of: usize,
    [handoff, answered, ended]: [Duration; 3],
    interval: &Slice,
    seconds: f64,
) -> String {
    let text = format!(
        "restart {turn:>2} of {of}: new one answers after {:>7}, old one gone after {:>7}",
        short(answered.max(handoff)),
        short(ended)
    );
    format!("{text:69}{}", figures(interval, seconds))
}

/// Requests a second, failures, and p99 as a number and a bar.
fn figures(interval: &Slice, seconds: f64) -> String {
    let p99 = interval.quantile(0.99);
    let rate = thousands((interval.answered as f64 / seconds.max(0.001)) as u64);
    let failed = thousands(interval.failed);
    format!("{rate:>8}/s {failed:>6} failed  p99 {:>7} {}", short(p99), bar(p99))
}

fn bar(time: Duration) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (time.as_secs_f64() / BLOCK.as_secs_f64() * 8.0).round() as usize;
    if eighths > LONGEST_BAR * 8 {
        return format!("{}…", "█".repeat(LONGEST_BAR));
    }
    format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8])
}

/// All that came of one run.
pub(crate) struct Outcome {
    pub(crate) elapsed: Duration,
    pub(crate) stats: Stats,
    /// For each restart, the time from the TERM until the launcher had ended.
    pub(crate) handoffs: Vec<Duration>,
}

impl Outcome {
    pub(crate) fn problems(&self, restarts: usize) -> Vec<String> {
        let mut problems = Vec::new();
        if self.stats.failed() > 0 {
            problems.push(format!("{} requests failed", thousands(self.stats.failed())));
        }
        let generations = self.stats.answers.len();
        if generations != restarts + 1 {
            problems.push(format!("{generations} generations answered, not {}", restarts + 1));
        }
        problems
    }

    pub(crate) fn table(&self, options: &Options) -> String {
        let stats = &self.stats;
        let requests = stats.answered() + stats.failed();
        let rate = stats.answered() as f64 / self.elapsed.as_secs_f64();
        let mut rows = vec![
            String::new(),
            row("requests", &thousands(requests), &format!("{} a second", thousands(rate as u64))),
            row("failed", &thousands(stats.failed()), ""),
        ];
        for (failure, count) in &stats.failures {
            rows.push(row(&format!("  {failure}"), &thousands(*count), ""));
        }
        if stats.again > 0 {
            let text = "their kept connection had ended, as HTTP allows";
            rows.push(row("sent again", &thousands(stats.again), text));
        }
        let expected = format!("of {} expected", options.restarts + 1);
        rows.push(row("generations", &stats.answers.len().to_string(), &expected));
        let mut handoffs = self.handoffs.clone();
        handoffs.sort();
        if let Some(longest) = handoffs.last() {
            let text = format!("the longest {}; from TERM to the launcher's end", millis(*longest));
            rows.push(row("handoff, median", &millis(handoffs[handoffs.len() / 2]), &text));
        }
        rows.push(format!(
            "\n{:<18}{:>11}{:>11}{:>11}{:>11}",
            "latency", "p50", "p99", "p99.9", "max"
        ));
        rows.push(latency("during restarts", &stats.during));
        rows.push(latency("outside restarts", &stats.outside));
        rows.push(format!("\n{:<18}{:>11}{:>11}{:>11}", "answers by PID", "", "first", "last"));
        for answers in &stats.answers {
            let at = |time: Duration| format!("{:.3} s", time.as_secs_f64());
            rows.push(format!(
                "  {:<16}{:>11}{:>11}{:>11}",
                answers.pid,
                thousands(answers.count),
                at(answers.first),
                at(answers.last)
            ));
        }
        rows.join("\n")
    }
}

/// A line for each way to restart.
pub(crate) fn comparison(outcomes: &[(String, Outcome)]) -> String {
    let mut rows = vec![format!(
        "\n{:<44}{:>11}{:>9}{:>27}",
        "the same load and restarts", "requests", "failed", "longest without an answer"
    )];
    for (name, outcome) in outcomes {
        let stats = &outcome.stats;
        rows.push(format!(
            "{name:<44}{:>11}{:>9}{:>27}",
            thousands(stats.answered() + stats.failed()),
            thousands(stats.failed()),
            millis(stats.longest_gap),
        ));
    }
    rows.join("\n")
}

fn row(name: &str, value: &str, text: &str) -> String {
    format!("{name:<26}{value:>11}   {text}").trim_end().to_owned()
}

fn latency(name: &str, slice: &Slice) -> String {
    if slice.answered == 0 {
        return row(name, "none", "");
    }
    let quantile = |part| millis(slice.quantile(part));
    let (p50, p99, p999) = (quantile(0.5), quantile(0.99), quantile(0.999));
    format!("{name:<18}{p50:>11}{p99:>11}{p999:>11}{:>11}", quantile(1.0))
}

fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// In at most seven characters.
fn short(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    let digits = usize::from(millis < 100.0);
    format!("{millis:.digits$} ms")
}

pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups.map(|group| std::str::from_utf8(group).expect("digits")).collect::<Vec<_>>().join(",")
}
