//! One generation starts at a time: the others wait for the claim.

use std::time::{Duration, Instant};

use seamless_testing::{
    LIMIT, boxed,
    process::{self, Watched},
    signal::{TERM, USR1},
    site::Site,
};

#[test]
fn a_second_starter_waits_for_the_first() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        // The first finishes when told to.
        let first = direct.start(&["--at=after-init=hang", "--on=10=call:started"]);
        let holder = first.wait_init();
        let second = direct.start(&["--at=after-init=hang"]);
        let words = ["stage=claim", &format!("holder={}", holder.pid()), "another generation"];
        direct.log.wait_words(&words, 1);
        assert_eq!(direct.report.named("init").len(), 1);
        holder.signal(USR1);
        assert_eq!(direct.report.wait("called").text, "started ok");
        let next = second.wait_init();

        // The first dies.
        let third = direct.start(&[]);
        direct.log.wait_words(&["stage=claim", &format!("holder={}", next.pid())], 1);
        assert_eq!(direct.report.named("init").len(), 2);
        next.kill();
        third.wait_init();
        direct.log.wait_words(&["stage=claim", "generation=3"], 1);
    });
}

#[test]
fn p10_a_claim_that_is_never_given_up_is_an_error_that_names_the_holder() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let first = direct.start(&["--at=after-init=hang"]);
        let first = first.wait_init();
        let holder = first.pid();
        let began = Instant::now();
        let mut second = direct.start(&["--claim-timeout=300ms"]);
        let text = format!(
            "init: cannot lock {:?} (claim): process {holder} is starting, and holds it for longer \
             than claim_timeout (300ms)",
            direct.lock_file(),
        );
        assert_eq!(second.wait_error().text, text);
        assert!(began.elapsed() >= Duration::from_millis(300));
        assert!(!first.has_ended(), "whoever started it is there to end it");
    });
}

/// Nothing is decided about generations that are starting: a stop ends a waiting one as well.
#[test]
fn a_starter_that_waits_for_the_claim_ends_when_told() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let first = direct.start(&["--at=after-init=hang"]);
        let holder = first.wait_init().pid();
        let mut second = direct.start(&[]);
        direct.log.wait_words(&["stage=claim", &format!("holder={holder}")], 1);
        second.launcher.signal(TERM);
        assert!(second.wait_end().success());
        // It lost its launcher.
        let third = direct.start(&[]);
        direct.log.wait_words(&["stage=claim", &format!("holder={holder}")], 2);
        let waiting = Watched::new(process::children(third.launcher.pid())[0]);
        third.launcher.kill();
        waiting.wait_end(LIMIT);
        assert_eq!(direct.report.named("init").len(), 1);
    });
}
