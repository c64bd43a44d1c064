//! `KillSignal=` and `RestartKillSignal=`: which of them are understood, and what the others do.

use std::thread;

use seamless_testing::{
    http::{Connection, Prober},
    process::Watched,
};

use super::{Web, run};
use crate::LIMIT;

/// QUIT and PWR mean what TERM means: a restart that is not seen, and a stop that waits.
#[test]
fn p1_p2_p3_p6_quit_and_pwr_are_understood() {
    run(|systemd, folder| {
        let cases = [
            "KillSignal=SIGQUIT",
            "KillSignal=SIGPWR",
            "RestartKillSignal=SIGQUIT",
            "KillSignal=SIGQUIT\nRestartKillSignal=SIGTERM",
        ];
        thread::scope(|scope| {
            for (at, setting) in cases.into_iter().enumerate() {
                let web = Web::new(systemd, folder, &format!("web-{at}"));
                web.deploy(setting, "--drain-timeout=100s");
                scope.spawn(move || {
                    web.control(&["start"]);
                    let second = web.restart_unseen(web.started(1));
                    web.wait_looked(second);
                    assert_eq!(web.log.with(&["setting="]).len(), 0, "{setting}: {}", web.log);
                    let request = Connection::unfinished(&web.target);
                    request.wait_accepted(second);
                    web.control(&["stop", "--no-block"]);
                    web.report.wait_of(second, "hook");
                    assert_eq!(request.try_finish().expect("an answer").pid, Some(second));
                    assert_eq!(web.report.wait_of(second, "wait").text, "Stopped", "{setting}");
                    web.wait_show("ActiveState", "inactive");
                    assert_eq!(web.show("Result"), "success", "{setting}");
                    web.wait_nothing_left();
                });
            }
        });
    });
}

/// INT is a drain: what is in flight is answered, and until the next generation serves nobody accepts. The
/// others end the daemon, and the log has said so at its start.
#[test]
fn p3_other_signals_are_named_before_they_cost_anything() {
    run(|systemd, folder| {
        let cases = [("SIGINT", 2, true), ("SIGUSR1", 10, false), ("SIGHUP", 1, false)];
        thread::scope(|scope| {
            for (name, number, is_answered) in cases {
                let web = Web::new(systemd, folder, &format!("web-{number}"));
                web.deploy(&format!("KillSignal={name}"), "--drain-timeout=100s");
                scope.spawn(move || {
                    web.control(&["start"]);
                    let old = Watched::new(web.started(1));
                    web.wait_looked(old.pid());
                    let setting = format!("setting=\"KillSignal={number}\"");
                    let words = ["WARN", "stage=systemd", setting.as_str(), "KillSignal=SIGTERM"];
                    assert_eq!(web.log.with(&words).len(), 1, "{name}: {}", web.log);
                    let request = Connection::unfinished(&web.target);
                    request.wait_accepted(old.pid());
                    web.control(&["restart", "--no-block"]);
                    match is_answered {
                        true => _ = web.report.wait_of(old.pid(), "hook"),
                        false => old.wait_end(LIMIT),
                    }
                    assert_eq!(request.try_finish().is_ok(), is_answered, "{name}");
                    old.wait_end(LIMIT);
                    let new = web.started(2);
                    let prober = Prober::start(&web.target);
                    prober.wait_pid(new);
                    prober.stop();
                });
            }
        });
    });
}
