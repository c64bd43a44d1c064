//! A service that is not root asks systemd by D-Bus, as on an installed system.

use std::{fs, os::unix::fs::chown};

use seamless_testing::{
    http::{Connection, Prober},
    process::{self, NOBODY, Watched},
    report,
};

use super::{Web, run};
use crate::LIMIT;

/// From the start on the service is a user without rights: launcher and daemon are told all the same
/// whether a TERM means a restart or a stop, also by a systemd that is asked when no job is there
/// any more.
#[test]
fn p1_p2_p3_p6_p8_a_service_that_is_not_root() {
    run(|systemd, folder| {
        systemd.start_bus();
        let web = Web::new(systemd, folder, "web");
        report::for_all_users(&web.folder);
        chown(&web.folder, Some(NOBODY), Some(NOBODY)).expect("its folder");
        web.deploy("User=nobody\nGroup=nogroup", "");
        web.control(&["start"]);
        let first = web.started(1);
        let status = fs::read_to_string(format!("/proc/{first}/status")).expect("its status");
        assert!(status.contains(&format!("\nUid:\t{NOBODY}\t")), "{status}");
        let prober = Prober::start(&web.target);
        prober.wait_pid(first);

        web.control(&["restart"]);
        let second = web.started(2);
        prober.wait_pid(second);
        Watched::new(first).wait_end(LIMIT);

        // A TERM by hand is a restart where the unit is started again.
        systemd.control(&["kill", "--kill-who=main", "--signal=TERM", &web.unit]);
        let third = web.started(3);
        prober.wait_pid(third);
        Watched::new(second).wait_end(LIMIT);
        assert_eq!(web.log.with(&["stage=intent", "intent=unknown"]).len(), 0);

        // Does not wait for the request.
        let request = Connection::unfinished(&web.target);
        prober.wait_more(2);
        web.control(&["stop", "--no-block"]);
        assert_eq!(request.try_finish().expect("an answer").pid, Some(third));
        web.wait_nothing_left();
        assert_eq!(web.report.wait_of(third, "wait").text, "Stopped");
        let probes = prober.stop();
        assert_eq!(probes.pids(), [first, second, third]);
        assert_eq!(process::stat(third), None);
    });
}
