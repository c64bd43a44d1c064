//! `seamless commit` and `seamless rollback`.

use crate::{ANSWER, Ask, End, complain, say, words};
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
    while began.elapsed() < limit {
        let seen = asked.service.look();
        let of_it =
            seen.newest().filter(|newest| newest.number() == number && !newest.is_draining());
        match (of_it.map(|newest| newest.is_on_probation()), passed) {
            (Some(true), _) => thread::sleep(PAUSE),
            (Some(false), true) => {
                let after = words::time(began.elapsed());
                say(format_args!("generation {number} has taken over, after {after}"));
                return End::Done;
            }
            (Some(false), false) => {
                complain(format_args!("generation {number} has passed its probation meanwhile"));
                return End::Stays;
            }
            (None, true) => {
                complain(format_args!("generation {number} has failed meanwhile"));
                return End::Stays;
            }
            (None, false) => {
                say(format_args!("generation {number} is rolled back"));
                return End::Done;
            }
        }
    }
    complain(format_args!("not yet: generation {number} is still on probation"));
    End::NotYet
}
