//! What a client sees of a service that runs from the sample unit as it is, and what it would see with
//! another `KillMode=`.

use std::{fs, path::Path, thread};

use seamless_testing::{
    bin, boxed,
    clients::{self, Case, Host, Program},
    http::Target,
    systemd::Systemd,
};

use super::run;

#[test]
fn p1_p2_p3_p6_p8_the_sample_unit() {
    cases("", ["no failure", "answered, down", "no failure", "cut", "no failure"]);
}

/// Where the daemon does not outlive its launcher. The store is off: with it, connections would wait
/// instead of being refused, also for a program that never serves.
const LOST: [&str; 5] = ["cut, gap", "answered, down", "cut, gap", "cut, gap", "cut, gap"];

/// The daemon is KILLed with its launcher.
#[test]
fn kill_mode_mixed() {
    cases("KillMode=mixed\nFileDescriptorStoreMax=0", LOST);
}

/// TERM goes to the daemon as well, and after `TimeoutStopSec=` KILL to what is left of it.
#[test]
fn kill_mode_control_group() {
    cases("KillMode=control-group\nTimeoutStopSec=1s\nFileDescriptorStoreMax=0", LOST);
}

/// Each case with a service of its own, all under one systemd.
fn cases(settings: &str, expected: [&str; 5]) {
    run(|systemd, folder| {
        thread::scope(|scope| {
            let cases =
                Case::ALL.into_iter().zip(expected).enumerate().map(|(at, (case, expected))| {
                    let mut host = Sample::new(systemd, folder, &format!("web-{at}"), settings);
                    scope.spawn(move || {
                        (case, clients::watch(&mut host, case).to_string(), expected)
                    })
                });
            let cases: Vec<_> = cases.collect();
            let seen: Vec<_> = cases.into_iter().map(|case| case.join().expect("a case")).collect();
            let is_other = seen.iter().any(|(_, seen, expected)| seen != expected);
            assert!(!is_other, "case, seen, expected: {seen:?}");
        });
    });
}

/// The example `takeover` under `examples/service/systemd/web.service`.
struct Sample<'a> {
    systemd: &'a Systemd,
    unit: String,
    target: Target,
    program: Program,
}

impl<'a> Sample<'a> {
    fn new(systemd: &'a Systemd, folder: &Path, name: &str, settings: &str) -> Self {
        let target = Target::from(boxed::address());
        let program = Program::new(folder.join(name), &bin::example("takeover"));
        let sample = bin::root().join("examples/service/systemd/web.service");
        let sample = fs::read_to_string(sample).expect("the sample");
        let unit = format!("{name}.service");
        // What `systemctl edit` would add: no user and no target of an installed system.
        let here = format!(
            "[Unit]\nDefaultDependencies=no\n[Service]\nUser=\n\
             Environment=\"WEB_ARGS=--listen {target} --startup-delay 200ms\"\n\
             StandardError=append:{}\n\
             ExecStart=\nExecStart={} --pid-file /run/%N/web.pid $WEB_ARGS\n{settings}",
            folder.join(format!("{name}.log")).display(),
            program.path().display(),
        );
        systemd.unit_with(&unit, &sample, &here);
        systemd.control(&["start", &unit]);
        Sample { systemd, unit, target, program }
    }

    fn control(&self, command: &[&str]) {
        self.systemd.control(&[command, &[&self.unit]].concat());
    }
}

impl Host for Sample<'_> {
    fn target(&self) -> &Target {
        &self.target
    }

    fn program(&self) -> &Program {
        &self.program
    }

    fn restart(&mut self) {
        self.control(&["restart", "--no-block"]);
    }

    fn stop(&mut self) {
        self.control(&["stop", "--no-block"]);
    }

    fn wait_down(&mut self) {
        self.systemd.wait_show(&self.unit, "ActiveState", "inactive");
    }

    fn kill(&mut self) {
        self.control(&["kill", "--kill-who=main", "--signal=KILL"]);
    }
}
