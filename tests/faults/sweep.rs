//! Any process of a restart KILLed at any of its system calls: a sample of what `scripts/sweep` does,
//! another one in each run.

use std::{process::Command, thread};

use seamless_campaigns::{
    strike::Role,
    sweep::{Case, Outcome, Scenario},
};
use seamless_testing::{
    bin,
    boxed::{Boxed, Isolation},
};

/// The seed is in what a failure prints; `SEAMLESS_TEST_SEED` makes it the same once more.
#[test]
fn p1_p2_p3_p4_p5_p8_p9_killed_at_any_system_call() {
    let boxed = Boxed::new().needs(Isolation::UserNamespaces);
    boxed.run(|_| {
        let mut sweep = Command::new(bin::support("sweep"));
        sweep.args(["--sample", "33", "--parallel", "17"]);
        assert!(sweep.status().expect("the sweep").success());
    });
}

/// Points at which a fault was found, all at a time.
///
/// A predecessor that is killed while it hands over: its successor goes on with the sockets that have
/// come, which are then its alone, and binds those that have not. And a successor that is killed when
/// it has put its files in the place of its predecessor's, which stays beside its launcher: that one
/// puts them back.
#[test]
fn p1_p2_p9_killed_half_way() {
    let boxed = Boxed::new().needs(Isolation::UserNamespaces);
    boxed.run(|_| {
        use Outcome::{New, Nobody, Old};
        use Role::{NewDaemon, OldDaemon};
        use Scenario::{Daemontools, InPlace};
        // By message, the old one sends its release, the offer, the sockets, which it has confirmed,
        // and the end.
        let cases = [
            (Daemontools, OldDaemon, "sendmsg:3", Nobody),
            (Daemontools, OldDaemon, "sendmsg:4", New),
            (InPlace, NewDaemon, "rename:2", Old),
            (InPlace, NewDaemon, "pidfd_send_signal:1", Old),
        ];
        thread::scope(|scope| {
            for (scenario, role, call, outcome) in cases {
                scope.spawn(move || {
                    let case = Case { scenario, role, at: call.parse().expect("a call") };
                    let verdict = case.run_boxed().unwrap_or_else(|text| panic!("{case}\n{text}"));
                    assert_eq!(verdict.outcome, outcome, "{case}: {verdict}");
                    assert!(outcome == Nobody || verdict.unserved == 0, "{case}: {verdict}");
                    // No further start was needed: not by the supervisor, nor for want of files.
                    let left = if outcome == Old { 1 } else { 2 };
                    assert_eq!(verdict.generation, left, "{case}: {verdict}");
                });
            }
        });
    });
}
