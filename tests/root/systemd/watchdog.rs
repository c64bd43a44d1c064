//! `WatchdogSec=`: a daemon that hangs is ended, and another one is started.

use std::fs;

use seamless_testing::{http, process::Watched};

use super::{LIMIT, Web, run};

#[test]
fn a_daemon_that_hangs_is_replaced() {
    run(|systemd, folder| {
        let stopped = Web::new(systemd, folder, "stopped");
        let unwell = Web::new(systemd, folder, "unwell");
        let well = unwell.folder.join("well");
        fs::write(&well, "").expect("a file");
        stopped.deploy("WatchdogSec=3s", "");
        unwell.deploy("WatchdogSec=3s", &format!("--on=6=sleep:1ms --watchdog={}", well.display()));
        for web in [&stopped, &unwell] {
            web.control(&["start"]);
        }
        let (hangs, ails) = (Watched::new(stopped.started(1)), Watched::new(unwell.started(1)));
        // Asked twice in each period, they answer: half of it, and the time of the watchdog itself.
        assert!(!hangs.ends_within(std::time::Duration::from_secs(4)));
        assert!(!ails.has_ended());
        hangs.stop();
        fs::remove_file(&well).expect("the file");
        ails.wait_end(LIMIT);
        fs::write(&well, "").expect("a file");
        for (web, old) in [(&stopped, &hangs), (&unwell, &ails)] {
            old.wait_end(LIMIT);
            let new = web.started(2);
            assert_eq!(http::wait_pid(&web.target), new);
            assert_ne!(new, old.pid());
            assert_eq!(web.show("NRestarts"), "1");
        }
        // It ends by systemd's ABRT; one that catches it is KILLed.
        assert_eq!(stopped.log.with(&["stage=end", "signal=6"]).len(), 1);
        assert!(
            !unwell.log.with(&["stage=watchdog", "the health check failed: it says no"]).is_empty()
        );
        assert_eq!(unwell.log.with(&["stage=kill", "signal=KILL", "watchdog"]).len(), 1);
        assert_eq!(unwell.log.with(&["stage=end", "signal=9"]).len(), 1);
    });
}
