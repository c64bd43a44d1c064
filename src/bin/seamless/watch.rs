//! `seamless watch`: one restart, stage by stage, for somebody at a terminal.

use crate::stages::Seen;
use crate::{ANSWER, Ask, End, GAP, complain, is_unread, words, written};
use seamless::client::{Look, Status};
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at the files.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two questions: the daemon may have to ask its supervisor for each.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Between two counts of the connections that are open.
const COUNT_AGAIN: Duration = Duration::from_millis(250);

pub(crate) fn run(ask: &Ask) -> End {
    let limit = ask.timeout.unwrap_or(Duration::MAX);
    let began = Instant::now();
    let question = |limit: Duration| {
        let (look, status) = ask.service.status(limit.min(ANSWER));
        (look, status.ok())
    };
    let (look, mut status) = question(limit);
    let (mut asked, first) = (Instant::now(), Seen::of(&look, status.as_ref()));
    let mut lines = Lines::new(began);
    match &first.newest {
        Some(newest) => lines.say(format_args!(
            "generation {} (daemon {}) {}",
            newest.number,
            newest.daemon,
            newest.state.unwrap_or("does not answer"),
        )),
        None => lines.say("no generation runs"),
    }
    let (mut last, mut gone) = (first.clone(), None);
    let failed = |seen: &Seen| seen.newest.as_ref().and_then(|newest| newest.failed);
    // How many restarts had failed before, as soon as that is known.
    let mut failures = failed(&first);
    loop {
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() {
            lines.clear();
            complain(format_args!("no restart has come to its end after {}", words::time(limit)));
            return End::NotYet;
        }
        thread::sleep(PAUSE.min(left));
        if is_unread() {
            return End::NotYet;
        }
        let mut look = ask.service.look();
        // Another process may be another stage of this one, too.
        if asked.elapsed() >= ASK_AGAIN || !last.has_the_same(&look) {
            (look, status) = question(left);
            asked = Instant::now();
        }
        let now = Seen::of(&look, status.as_ref());
        let number = |seen: &Seen| seen.newest.as_ref().map(|newest| newest.number);
        let rolled_back = number(&now).is_some() && number(&now) < number(&last);
        last.advance(now).iter().for_each(|line| lines.say(line));
        lines.live(&look, status.as_ref());
        let daemon = |seen: &Seen| seen.newest.as_ref().map(|newest| newest.daemon);
        failures = failures.or(failed(&last));
        match daemon(&last) {
            Some(pid) if daemon(&first) != Some(pid) && !last.keeps() && last.older.is_empty() => {
                lines.clear();
                return End::Done;
            }
            Some(_) if failed(&last) > failures || rolled_back => {
                lines.clear();
                return End::Stays;
            }
            Some(_) => gone = None,
            // What was down before is waited for.
            None if first.newest.is_none() => {}
            None if gone.get_or_insert_with(Instant::now).elapsed() >= GAP => {
                lines.clear();
                complain("nobody serves");
                return End::NobodyServes;
            }
            None => {}
        }
    }
}

/// Lines on a terminal, the last of which changes as long as something is under way.
#[derive(Debug)]
pub(crate) struct Lines {
    began: Instant,
    is_terminal: bool,
    /// A line is there that the next one replaces.
    is_live: bool,
    counted: Option<Instant>,
}

impl Lines {
    fn new(began: Instant) -> Lines {
        Lines { began, is_terminal: io::stdout().is_terminal(), is_live: false, counted: None }
    }

    /// A line that stays, with the time since the beginning.
    fn say(&mut self, text: impl Display) {
        self.clear();
        crate::say(format_args!("{:>7.2} s  {text}", self.began.elapsed().as_secs_f64()));
    }

    /// A line that the next one replaces: what is waited for. On a terminal only.
    fn live(&mut self, look: &Look, status: Option<&Status>) {
        if !self.is_terminal || self.counted.is_some_and(|at| at.elapsed() < COUNT_AGAIN) {
            return;
        }
        self.counted = Some(Instant::now());
        let mut parts = Vec::new();
        for older in look.older() {
            let open = older.connections().map(|open| words::count(open as u64, "connection"));
            let open = open.map(|open| format!(", {open} open")).unwrap_or_default();
            parts.push(format!("generation {} drains{open}", older.number()));
        }
        if let (true, Some(status)) = (parts.is_empty(), status) {
            parts.push(format!(
                "{}, {}",
                status.state_name(),
                match look.starting() {
                    Some(pid) => format!("process {pid} starts"),
                    None => "no start is under way".to_owned(),
                }
            ));
        }
        let text = format!("{:>7.2} s  {}", self.began.elapsed().as_secs_f64(), parts.join("; "));
        let mut out = io::stdout();
        // To the line's beginning, and what is left of the longer line before goes. What is wider than the terminal
        // is cut: in a second row it would stay.
        written(
            write!(out, "\r\x1b[?7l{}\x1b[K\x1b[?7h", words::line(&text))
                .and_then(|()| out.flush()),
        );
        self.is_live = true;
    }

    fn clear(&mut self) {
        if self.is_live {
            let mut out = io::stdout();
            written(write!(out, "\r\x1b[K").and_then(|()| out.flush()));
            self.is_live = false;
        }
    }
}
