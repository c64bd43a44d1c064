//! What a client sees of a service that runs from the sample unit as it is, and what it would see with
//! another `KillMode=`.

use std::{fs, path::Path, thread};

use seamless_testing::{
    bin, boxed,
    clients::{self, Case, Host, Program},
    http::Target,
    page,
    systemd::Systemd,
};

use super::run;

#[test]
fn p1_p2_p3_p6_p8_the_sample_unit() {
    cases("systemd", "");
}

/// With `systemctl reload` as the restart.
#[test]
fn p1_p2_p3_p6_p8_the_sample_unit_in_place() {
    let sample = include_str!("../../../examples/service/systemd/web.service.d/reload.conf");
    let seamless = bin::support("seamless").display().to_string();
    cases(IN_PLACE, &sample.replace("=seamless ", &format!("={seamless} ")));
}

const IN_PLACE: &str = "systemd, in place";

// Where the daemon does not outlive its launcher. The store is off: with it, connections would wait
// instead of being refused, also for a program that never serves.

/// The daemon is KILLed with its launcher.
#[test]
fn kill_mode_mixed() {
    cases("systemd, `KillMode=mixed`", "KillMode=mixed\nFileDescriptorStoreMax=0");
}

/// TERM goes to the daemon as well, and after `TimeoutStopSec=` KILL to what is left of it.
#[test]
fn kill_mode_control_group() {
    let settings = "KillMode=control-group\nTimeoutStopSec=1s\nFileDescriptorStoreMax=0";
    cases("systemd, `KillMode=control-group`", settings);
}

/// Each case with a service of its own, all under one systemd.
fn cases(row: &'static str, settings: &str) {
    run(|systemd, folder| {
        thread::scope(|scope| {
            for (at, case) in Case::ALL.into_iter().enumerate() {
                let mut host = Sample::new(systemd, folder, &format!("web-{at}"), row, settings);
                scope.spawn(move || {
                    let seen = clients::watch(&mut host, case).to_string();
                    page::check_cell(&clients::table(), row, case.name(), &seen);
                });
            }
        });
    });
}

/// The example `takeover` under `examples/service/systemd/web.service`.
struct Sample<'a> {
    systemd: &'a Systemd,
    unit: String,
    in_place: bool,
    target: Target,
    program: Program,
}

impl<'a> Sample<'a> {
    fn new(systemd: &'a Systemd, folder: &Path, name: &str, row: &str, settings: &str) -> Self {
        let in_place = row == IN_PLACE;
        let reload = if in_place { "--reload-signal HUP" } else { "" };
        let target = Target::from(boxed::address());
        let program = Program::new(folder.join(name), &bin::example("takeover"));
        let sample = bin::root().join("examples/service/systemd/web.service");
        let sample = fs::read_to_string(sample).expect("the sample");
        let unit = format!("{name}.service");
        // What `systemctl edit` would add: no user and no target of an installed system.
        let here = format!(
            "[Unit]\nDefaultDependencies=no\n[Service]\nUser=\n\
             Environment=\"WEB_ARGS=--listen {target} --startup-delay 200ms {reload}\"\n\
             StandardError=append:{}\n\
             ExecStart=\nExecStart={} --pid-file /run/%N/web.pid $WEB_ARGS\n{settings}",
            folder.join(format!("{name}.log")).display(),
            program.path().display(),
        );
        systemd.unit_with(&unit, &sample, &here);
        systemd.control(&["start", &unit]);
        // Put there by a thread of its own, after the start.
        let stored = if settings.contains("FileDescriptorStoreMax=0") { "0" } else { "1" };
        systemd.wait_show(&unit, "NFileDescriptorStore", stored);
        Sample { systemd, unit, in_place, target, program }
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
        let command = if self.in_place { "reload" } else { "restart" };
        self.control(&[command, "--no-block"]);
    }

    /// A reload is not tried again by itself.
    fn start_good(&mut self) {
        if self.in_place {
            self.restart();
        }
    }

    fn stop(&mut self) {
        self.control(&["stop", "--no-block"]);
    }

    fn wait_down(&mut self) {
        self.systemd.wait_stopped(&self.unit);
    }

    fn kill(&mut self) {
        self.control(&["kill", "--kill-who=main", "--signal=KILL"]);
    }
}
