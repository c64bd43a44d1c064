//! `seamless commit` and `seamless rollback`.

use crate::{ANSWER, Ask, End, GAP, complain, say, words};
use seamless::client::NoAnswer;
use std::thread;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(20);

/// Ends the probation: passed, or failed.
pub(crate) fn run(asked: &Ask, passed: bool) -> End {
    let limit = asked.limit();
    let (look, told) = match passed {
        true => asked.service.commit(limit.min(ANSWER)),
        false => asked.service.rollback(limit.min(ANSWER)),
    };
    let began = Instant::now();
    let path = look.pid_file().display();
    match told {
        Ok(()) => {}
        Err(NoAnswer::NobodyRuns) => {
            complain(format_args!("{path}: no generation runs"));
            return End::NobodyServes;
        }
        Err(why) => {
            complain(&why);
            return if matches!(why, NoAnswer::Refused(_)) { End::Stays } else { End::Error };
        }
    }
    let Some(number) = look.newest().map(|newest| newest.number()) else { return End::Error };
    let mut gone = None::<Instant>;
    while began.elapsed() < limit {
        let seen = asked.service.look();
        let serves = seen.newest().filter(|one| !one.is_draining() && !one.is_keeper());
        match serves.map(|one| (one.number() == number, one.is_on_probation())) {
            _ if seen.unknown().is_some() => {} // the next look may tell
            Some((true, true)) => gone = None,
            Some((true, false)) if passed => {
                let after = words::time(began.elapsed());
                say(format_args!("generation {number} has taken over, after {after}"));
                return End::Done;
            }
            Some((true, false)) => {
                complain(format_args!("generation {number} has passed its probation meanwhile"));
                return End::Stays;
            }
            Some((false, _)) if passed => {
                complain(format_args!("generation {number} has failed meanwhile"));
                return End::Stays;
            }
            Some((false, _)) => {
                say(format_args!("generation {number} is rolled back"));
                return End::Done;
            }
            None if gone.get_or_insert_with(Instant::now).elapsed() >= GAP => {
                complain(format_args!("{path}: nobody serves"));
                return End::NobodyServes;
            }
            None => {}
        }
        thread::sleep(PAUSE);
    }
    if let Some(why) = asked.service.look().unknown() {
        complain(format_args!("unknown what came of it: {why}"));
        return End::Error;
    }
    complain(format_args!("not yet: generation {number} is still on probation"));
    End::NotYet
}
