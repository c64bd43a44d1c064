//! Any process of a restart KILLed at any of its system calls: a sample of what `scripts/sweep` does,
//! another one in each run.

use std::{process::Command, time::Duration};

use seamless_testing::{
    bin,
    boxed::{Boxed, Isolation},
};

/// The seed is in what a failure prints; `SEAMLESS_TEST_SEED` makes it the same once more.
#[test]
fn p1_p2_p3_p4_p5_p8_p9_killed_at_any_system_call() {
    let boxed = Boxed::new().needs(Isolation::UserNamespaces).limit(Duration::from_secs(400));
    boxed.run(|_| {
        let mut sweep = Command::new(bin::support("sweep"));
        sweep.args(["--sample", "33", "--parallel", "17"]);
        assert!(sweep.status().expect("the sweep").success());
    });
}
