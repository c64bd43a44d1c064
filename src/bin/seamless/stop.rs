//! `seamless stop`.

use crate::{ANSWER, Ask, End, complain, say, words};
use seamless::client::{Look, NoAnswer, Service, Supervisor, Wish};
use std::thread;
use std::time::{Duration, Instant};

/// How long the PID file may name a generation that the record does not list yet.
const TAKEOVER: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) fn run(asked: &Ask) -> End {
    let timeout = asked.limit();
    let began = Instant::now();
    let service = &asked.service;
    let (seen, status) = service.status(timeout.min(ANSWER));
    let (newest, status) = match (seen.newest(), status) {
        (None, _) | (_, Err(NoAnswer::NobodyRuns)) if seen.unknown().is_none() => {
            return match still_held(service) {
                Some(seen) => is_held(&seen),
                None => {
                    let path = service.pid_file().display();
                    say(words::line(&format!("{path}: no generation runs")));
                    seen.notes().iter().for_each(complain);
                    End::Done
                }
            };
        }
        (Some(newest), Ok(status)) => (newest, Some(status)),
        (Some(newest), Err(NoAnswer::NotListening(_))) => (newest, None),
        (_, Err(why)) => {
            complain(why);
            return End::Error;
        }
        (None, Ok(_)) => return End::Done, // only a generation answers
    };
    let status = status.as_ref();
    let supervisor = newest.supervisor(status);
    let attached = newest.launcher(status).is_some();
    if let Some(one) = supervisor.as_ref().filter(|one| attached && one.starts_again()) {
        let instead = instead(one);
        if !asked.force {
            complain(format_args!(
                "{} stays: {} would start it again at once; to keep it down: {instead} (or --force)",
                words::generation(newest),
                one.kind(),
            ));
            return End::Stays;
        }
    }
    // A takeover may have come in between: all that are told to end are waited for.
    let (told, answer) = service.stop(timeout.min(ANSWER));
    match answer {
        Ok(()) | Err(NoAnswer::NobodyRuns) => {}
        Err(why) => {
            complain(format_args!("cannot stop daemon {}: {why}", newest.daemon()));
            return End::Error;
        }
    }
    let last = told.newest().unwrap_or(newest).number();
    if let Err(end) = wait_for_all(&told, began, timeout) {
        return end;
    }
    say(format_args!(
        "generation {last} has ended after {}{}",
        words::time(began.elapsed()),
        if told.older().is_empty() { "" } else { ", and every older one" },
    ));
    let later = service.look();
    if let Some(new) = later.newest().filter(|new| new.number() > last) {
        complain(format_args!("{} was started meanwhile and serves", words::generation(new)));
        return End::Stays;
    }
    if let Some(held) = still_held(service) {
        return is_held(&held);
    }
    if let Some(starting) = later.starting() {
        complain(format_args!("process {starting} is starting: a new generation may serve soon"));
    }
    if let Some(one) = supervisor.filter(Supervisor::starts_again) {
        complain(format_args!(
            "{} wants the service up and starts it again; to keep it down: {}",
            one.kind(),
            instead(&one),
        ));
    }
    End::Done
}

/// A process that holds the PID file may be a takeover under way, which is over soon.
fn still_held(service: &Service) -> Option<Look> {
    let began = Instant::now();
    loop {
        let look = service.look();
        look.holder()?;
        if began.elapsed() >= TAKEOVER {
            return Some(look);
        }
        thread::sleep(PAUSE);
    }
}

/// A service that somebody holds is not reported as stopped.
fn is_held(look: &Look) -> End {
    let who = match look.holder() {
        Some(pid) if pid > 0 => format!("process {pid}"),
        _ => "a process".to_owned(),
    };
    complain(format_args!(
        "{who} holds {}, and is not known as a generation of this service: not stopped",
        look.pid_file().display(),
    ));
    look.notes().iter().for_each(complain);
    End::Error
}

fn instead(supervisor: &Supervisor) -> String {
    let command = supervisor.command(Wish::Stop);
    command.map_or("tell the supervisor".to_owned(), |command| format!("`{command}`"))
}

/// Waits for the end of all that lived.
fn wait_for_all(seen: &Look, began: Instant, timeout: Duration) -> Result<(), End> {
    let left = || timeout.saturating_sub(began.elapsed());
    for one in seen.generations() {
        while !one.wait_end(left()) {
            if left().is_zero() {
                return Err(not_yet(seen, timeout));
            }
        }
    }
    Ok(())
}

fn not_yet(seen: &Look, timeout: Duration) -> End {
    for one in seen.generations().iter().filter(|one| !one.has_ended()) {
        let open = one.connections().map(|count| words::count(count as u64, "connection"));
        complain(format_args!(
            "not yet: {} still drains after {}{}",
            words::generation(one),
            words::time(timeout),
            open.map(|open| format!(", with {open} open")).unwrap_or_default(),
        ));
    }
    End::NotYet
}
