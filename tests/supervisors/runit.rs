//! What only runit has: `./check` of the sample service, for which `sv` waits.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::Command,
    time::{Duration, Instant},
};

use seamless_testing::{
    bin,
    boxed::Boxed,
    http,
    site::{SERVES_ON, Site, User},
    supervisor::Supervisor,
    wait_for,
};

use crate::command::run;

/// `sv restart` says `ok` when the new generation serves, and `timeout` if it does not in time.
#[test]
fn p1_sv_waits_for_the_generation_that_it_has_started() {
    Boxed::new().private_net().run(|folder| {
        let site = Site::at(folder).user(User::Root).shared_socket().options(SERVES_ON);
        let site = site.under(Supervisor::Runit);
        let service = site.service().folder().to_owned();
        let sv = |seconds: &str, verb: &str| {
            run(Command::new("sv").args(["-w", seconds, verb]).arg(&service))
        };
        let sample = bin::root().join("examples/service/runit/web/check");
        fs::copy(sample, service.join("check")).expect("the sample");
        let env = format!(
            "WEB_PID_FILE={}\nSEAMLESS_COMMAND={}\n",
            site.pid_file().display(),
            bin::support("seamless").display()
        );
        fs::write(service.join("env"), env).expect("a file");
        let mode = fs::metadata(service.join("check")).expect("it").permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "sv ignores it otherwise");
        let first = site.started(1);
        site.service().settle();
        sv("7", "start").assert(0, &["ok: run: "]);

        // The new generation takes its time.
        site.deploy_options(&format!("{SERVES_ON} --at=ready=sleep:1500ms"));
        let began = Instant::now();
        sv("60", "restart").assert(0, &["ok: run: "]);
        assert!(began.elapsed() >= Duration::from_millis(1500));
        let second = site.report.wait_nth("started", 2).pid;
        assert_eq!(site.report.wait_of(first, "wait").text, "TakenOver");

        // It hangs: the old one serves on.
        site.service().settle();
        site.deploy_options(&format!("{SERVES_ON} --at=ready=hang --handoff-timeout=2s"));
        sv("2", "restart").assert(1, &["timeout: run: "]);
        assert_eq!(http::pid(&site.target), second);
        // The next wish lets it finish first, for its handoff_timeout; so long `sv` must wait as well.
        site.deploy_options(SERVES_ON);
        sv("60", "restart").assert(0, &["ok: run: "]);
        wait_for("the old one has ended", seamless_testing::LIMIT, || {
            site.report.names_of(second).contains(&"wait".to_owned()).then_some(())
        });
        assert_eq!(http::pid(&site.target), site.named().expect("it serves"));
    });
}
