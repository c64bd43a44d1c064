//! `seamless stop`.

use super::look::{ANSWER, Live, Seen, Unasked, ask, ask_status, unexpected};
use super::supervisor::{Supervising, Wish};
use super::{Ask, End, complain, say, words};
use crate::proto::control::frame::{Answer, Request};
use crate::sys::signals::SIGTERM;
use crate::sys::{proc, wait};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn run(asked: &Ask) -> End {
    let timeout = asked.timeout.unwrap_or(TIMEOUT);
    let began = Instant::now();
    let path = &asked.pid_file;
    let (seen, status) = ask_status(path, timeout.min(ANSWER));
    let mute = match &status {
        Ok(_) => false,
        Err(Unasked::Mute) => true,
        Err(Unasked::Nobody) => {
            say(format_args!("{}: no generation runs", path.display()));
            seen.notes.iter().for_each(complain);
            return End::Done;
        }
        Err(Unasked::Failed(why)) => {
            complain(why);
            return End::Error;
        }
    };
    let newest = seen.newest().expect("it was asked");
    let supervising = Supervising::of(newest, status.as_ref().ok());
    let attached = newest.is_attached(status.as_ref().ok());
    if let Some(one) = supervising.as_ref().filter(|one| attached && one.restarts()) {
        let instead = instead(one);
        if !asked.force {
            complain(format_args!(
                "generation {} (daemon {}) stays: {} would start it again at once; to keep it down: \
                 {instead} (or --force)",
                newest.number(),
                newest.pid(),
                one.kind,
            ));
            return End::Stays;
        }
    }
    let stopped = if mute {
        // Proven, and by its pidfd: nobody else gets it.
        let held = newest.held.as_ref();
        held.map_or(Err("it cannot be proven, so it is not signalled".to_owned()), |held| {
            held.signal(SIGTERM).map_err(|error| error.to_string())
        })
    } else {
        match ask(path, &Request::Stop, timeout.min(ANSWER)) {
            (_, Ok(Answer::Accepted)) | (_, Err(Unasked::Nobody)) => Ok(()),
            (_, Ok(other)) => Err(unexpected(&other)),
            (_, Err(Unasked::Mute)) => Err("it cannot be asked".to_owned()),
            (_, Err(Unasked::Failed(why))) => Err(why),
        }
    };
    if let Err(why) = stopped {
        complain(format_args!("cannot stop daemon {}: {why}", newest.pid()));
        return End::Error;
    }
    let last = newest.number();
    if let Err(end) = wait_for_all(&seen, began, timeout) {
        return end;
    }
    say(format_args!(
        "generation {last} has ended after {}{}",
        words::time(began.elapsed()),
        if seen.older().is_empty() { "" } else { ", and every older one" },
    ));
    let later = Seen::look(path);
    if let Some(new) = later.newest().filter(|new| new.number() > last) {
        complain(format_args!(
            "generation {} (daemon {}) was started meanwhile and serves",
            new.number(),
            new.pid()
        ));
        return End::Stays;
    }
    if let Some(starting) = later.starting {
        complain(format_args!("process {starting} is starting: a new generation may serve soon"));
    }
    if let Some(one) = supervising.filter(Supervising::restarts) {
        complain(format_args!(
            "{} wants the service up and starts it again; to keep it down: {}",
            one.kind,
            instead(&one),
        ));
    }
    End::Done
}

fn instead(supervising: &Supervising) -> String {
    let command = supervising.command(Wish::Stop);
    command.map_or("tell the supervisor".to_owned(), |command| format!("`{command}`"))
}

/// Waits for the end of all that lived.
fn wait_for_all(seen: &Seen, began: Instant, timeout: Duration) -> Result<(), End> {
    loop {
        let left: Vec<&Live> = seen.live.iter().filter(|live| !live.has_ended()).collect();
        if left.is_empty() {
            return Ok(());
        }
        let rest = timeout.saturating_sub(began.elapsed());
        if rest.is_zero() {
            for live in left {
                let connections = proc::connections(live.pid()).map_or(String::new(), |count| {
                    format!(", with {} open", words::count(count as u64, "connection"))
                });
                complain(format_args!(
                    "not yet: generation {} (daemon {}) still drains after {}{connections}",
                    live.number(),
                    live.pid(),
                    words::time(timeout),
                ));
            }
            return Err(End::NotYet);
        }
        let ends: Vec<_> =
            left.iter().filter_map(|live| Some(live.held.as_ref()?.as_fd())).collect();
        // Without pidfds there is nothing to wait on.
        let pause = if ends.len() == left.len() { rest } else { PAUSE.min(rest) };
        wait::readable(&ends, Some(pause));
    }
}
