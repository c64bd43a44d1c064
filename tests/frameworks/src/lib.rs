//! What the services in `src/bin` share. Each of them is what a user of that framework writes:
//! `NAME PID_FILE ADDRESS`. The guide shows them.

pub mod pids;

use std::{env, process};

/// The words of the command line.
pub fn arguments() -> (String, String) {
    env_logger::init();
    let mut words = env::args().skip(1);
    let mut next = || words.next().expect("NAME PID_FILE ADDRESS");
    (next(), next())
}

/// What each service answers.
pub fn hello() -> String {
    format!("Server pid: {}\n", process::id())
}
