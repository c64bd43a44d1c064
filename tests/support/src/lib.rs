//! What the tests, the demo and the benchmark share.
//!
//! - [`boxed`]: a test with real processes runs in namespaces of its own and leaves nothing behind
//! - [`supervisor`]: real daemontools, runit and s6
//! - [`supervisord`]: real supervisord
//! - [`openrc`]: real OpenRC, with its supervise-daemon
//! - [`process`]: facts about processes, and waiting for them
//! - [`handover`]: either end of a takeover, played by a test
//! - [`http`]: single requests, and a prober that asks every 20 ms
//! - [`clients`]: what a client sees while something is done to a service
//! - [`readme`]: tables of the README that tests write and check
//! - [`hold`]: a process that is held at a system call
//! - [`innocent`]: processes that must not be signalled
//! - [`report`]: the line-by-line report that the test service `probe` writes
//! - [`log`]: what launchers and daemons have logged
//! - [`site`]: a service under test
//! - [`signal`]: the numbers of signals
//! - [`systemd`]: a real systemd as PID 1 of its own namespaces
//! - [`strict`]: HTTP clients that never ask twice
//! - [`bin`]: where the probe and the examples are
//!
//! ```no_run
//! # use std::{path::Path, time::Duration};
//! # use seamless_testing::{bin, boxed::{self, Boxed}, http::{self, Prober, Target}, process::Watched,
//! #     report::Report, supervisor::{Service, Supervisor}, under_each_supervisor};
//! fn p1_some_generation_serves(supervisor: Supervisor, folder: &Path) {
//!     let target = Target::from(boxed::address());
//!     let report = Report::new(folder.join("report"));
//!     let run = bin::probe_script(folder, &format!("--listen={target} --at=request=sleep:1s"));
//!     let service = Service::new(supervisor, folder.join("service"), &run);
//!     let old = http::wait_pid(&target);
//!     let (launcher, daemon) = (Watched::new(service.main_pid()), Watched::new(old));
//!     let prober = Prober::start(&target);
//!     service.settle();
//!     service.restart();
//!     let new = report.wait_nth("started", 2).pid;
//!     prober.wait_pid(new);
//!     launcher.wait_end(Duration::from_secs(5));
//!     daemon.wait_end(Duration::from_secs(5));
//!     let probes = prober.stop();
//!     probes.assert_all_answered();
//!     assert_eq!(probes.pids(), [old, new]);
//! }
//! under_each_supervisor![Boxed::new().private_net() => p1_some_generation_serves];
//! # fn main() {}
//! ```
//!
//! Everything here panics where it cannot do its work: a test that meets such a panic has failed.

pub mod bin;
pub mod boxed;
pub mod clients;
pub mod handover;
pub mod hold;
pub mod http;
pub mod innocent;
pub mod log;
pub mod openrc;
pub mod process;
pub mod readme;
pub mod report;
pub mod scene;
pub mod signal;
pub mod site;
pub mod strict;
pub mod supervisor;
pub mod supervisord;
pub mod systemd;

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// How long anything may take that happens at once, on a machine whose processors are busy and whose
/// disk holds up a writer for half a minute. Nobody waits for it but a test that fails.
pub const LIMIT: Duration = Duration::from_secs(50);

/// Between two looks at a fact that cannot be waited for otherwise.
const PAUSE: Duration = Duration::from_millis(2);

/// Looks until `fact` yields something, and panics with `what` where it does not within `limit`.
#[track_caller]
pub fn wait_for<T>(what: impl Display, limit: Duration, mut fact: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        // The clock is read first: a fact that came true in time counts, however late we look.
        let late = Instant::now() >= deadline;
        if let Some(value) = fact() {
            return value;
        }
        assert!(!late, "not within {limit:?}: {what}");
        thread::sleep(PAUSE);
    }
}
