//! What the author of a test must know. A test of a service reads like this:
//!
//! ```no_run
//! # use std::path::Path;
//! # use seamless_testing::{LIMIT, boxed::Boxed, http::Prober, site::Site, supervisor::Supervisor,
//! #     under_each_supervisor};
//! fn p1_some_generation_serves(kind: Supervisor, folder: &Path) {
//!     let site = Site::at(folder).options("--at=request=sleep:1s").under(kind);
//!     let (launcher, old) = (site.launcher(), site.daemon(1));
//!     let prober = Prober::start(&site.target);
//!     site.service().settle();
//!     site.service().restart();
//!     let new = site.started(2);
//!     prober.wait_pid(new);
//!     launcher.wait_end(LIMIT);
//!     old.wait_end(LIMIT);
//!     let probes = prober.stop();
//!     probes.assert_all_answered();
//!     assert_eq!(probes.pids(), [old.pid(), new]);
//! }
//! under_each_supervisor![Boxed::new().private_net() => p1_some_generation_serves];
//! # fn main() {}
//! ```
//!
//! The service and its surroundings:
//! - [`boxed`]: a test with real processes runs in namespaces of its own and leaves nothing behind
//! - [`site`]: a service under test, supervised or started by the test itself, as each kind of user
//! - [`report`]: what the test service `probe` tells, line by line; [`log`]: what the crate logs in it
//! - [`http`]: its clients: one request, one connection, a prober; [`strict`]: by HTTP/2 and TLS
//! - [`process`]: facts about processes, and waiting for them; [`signal`]: the numbers of signals
//! - [`scene`]: many cases at once, and what is common to services that are not a `Site`
//!
//! What supervises it: [`supervisor`] (daemontools, runit, s6), [`supervisord`], [`openrc`], [`systemd`].
//!
//! For some tests:
//! - [`clients`]: what a client sees while something is done to a service; [`page`]: the tables of it
//! - [`handover`]: either end of a takeover, played by a test
//! - [`probation`]: a service with generations that have to prove themselves
//! - [`hold`]: a process that is held at a system call; [`innocent`]: processes that must not be signalled
//! - [`bin`]: where the probe and the examples are
//!
//! Everything here panics if it cannot do its work: a test that meets such a panic has failed.

pub mod bin;
pub mod boxed;
pub mod calls;
pub mod clients;
pub mod flight;
pub mod handover;
pub mod hold;
pub mod http;
pub mod innocent;
pub mod log;
pub mod openrc;
pub mod page;
pub mod probation;
pub mod process;
pub mod report;
pub mod scene;
pub mod signal;
pub mod site;
pub mod strict;
pub mod supervisor;
pub mod supervisord;
pub mod systemd;
mod tcp;

use std::{
    fmt::Display,
    thread,
    time::{Duration, Instant},
};

/// How long anything may take that happens at once, on a machine whose processors are busy and whose
/// disk holds up a writer for half a minute. Nobody waits for it but a test that fails.
pub const LIMIT: Duration = Duration::from_secs(100);

/// `scripts/test --long`: tests restart their services many more times.
pub fn is_long() -> bool {
    std::env::var_os("SEAMLESS_TEST_LONG").is_some_and(|value| value == "1")
}

/// Between two looks at a fact that cannot be waited for otherwise: at first, and at last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(30));
/// Between two looks that take long themselves: `/proc/net/tcp` is milliseconds of processor time.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Looks until `fact` yields something, and panics with `what` where it does not within `limit`. The longer it takes,
/// and the longer each look takes, the longer are the pauses: so dozens of tests that wait leave the processors to
/// those that work.
#[track_caller]
pub fn wait_for<T>(what: impl Display, limit: Duration, mut fact: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        // The clock is read first: a fact that came true in time counts, however late we look.
        let waited = began.elapsed();
        if let Some(value) = fact() {
            return value;
        }
        assert!(waited < limit, "not within {limit:?}: {what}");
        let look = began.elapsed() - waited;
        thread::sleep((waited / 20).clamp(PAUSES.0, PAUSES.1).max((4 * look).min(LONGEST_PAUSE)));
    }
}
