//! Settings of a sandbox, each tried: which of them do no harm, and what the others cost.

use std::{fs, os::unix::fs::PermissionsExt, thread};

use seamless_testing::{http, report};

use super::{Web, run};

/// With each of them a restart is not seen, and a stop is complete. The guide's page on hardened units has the
/// same list.
const HARMLESS: &[&str] = &[
    "NoNewPrivileges=yes",
    "ProtectProc=invisible",
    "ProtectSystem=full",
    "ProtectHome=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "MemoryDenyWriteExecute=yes",
    "SystemCallArchitectures=native",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "UMask=0077",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~close_range\nSystemCallErrorNumber=EPERM",
    "SystemCallFilter=~close_range\nSystemCallErrorNumber=ENOSYS",
];

#[test]
fn p1_p2_p6_settings_of_a_sandbox_that_do_no_harm() {
    run(|systemd, folder| {
        thread::scope(|scope| {
            for (at, setting) in HARMLESS.iter().enumerate() {
                let web = Web::new(systemd, folder, &format!("web-{at}"));
                web.deploy(setting, "");
                scope.spawn(move || {
                    web.control(&["start"]);
                    let first = web.started(1);
                    let second = web.restart_unseen(first);
                    web.wait_looked(second);
                    assert_eq!(web.log.with(&["WARN"]).len(), 0, "{setting}: {}", web.log);
                    web.control(&["stop"]);
                    web.wait_nothing_left();
                    assert_eq!(web.report.wait_of(second, "wait").text, "Stopped", "{setting}");
                });
            }
        });
    });
}

/// pidfds refused, or the boot ID hidden: the predecessor is known by its PID file.
#[test]
fn p1_p2_p6_settings_of_a_sandbox_with_which_less_is_known() {
    run(|systemd, folder| {
        let cases = [
            "ProcSubset=pid",
            "SystemCallFilter=~pidfd_open\nSystemCallErrorNumber=EPERM",
            "SystemCallFilter=~pidfd_open\nSystemCallErrorNumber=ENOSYS",
        ];
        for (at, setting) in cases.iter().enumerate() {
            let web = Web::new(systemd, folder, &format!("web-{at}"));
            web.deploy(setting, "");
            web.control(&["start"]);
            let second = web.restart_unseen(web.started(1));
            assert_eq!(http::pid(&web.target), second, "{setting}");
            web.control(&["stop"]);
            web.wait_nothing_left();
        }
    });
}

/// It is hidden from the new generation only, by a change of the unit.
#[test]
fn p1_p2_p6_a_sandbox_that_comes_with_a_deploy_and_goes_with_another() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        web.deploy("", "");
        web.control(&["start"]);
        let second = {
            let first = web.started(1);
            web.deploy("ProcSubset=pid", "");
            web.restart_unseen(first)
        };
        web.deploy("", "");
        web.control(&["restart"]);
        let third = web.started(3);
        // Until then, both may be asked.
        assert_eq!(web.report.wait_of(second, "wait").text, "TakenOver");
        assert_eq!(http::pid(&web.target), third);
        web.control(&["stop"]);
        web.wait_nothing_left();
    });
}

#[test]
fn p10_what_cannot_start_names_the_setting() {
    run(|systemd, folder| {
        let cases = [
            ("RestrictAddressFamilies=AF_INET", "AF_UNIX must be one of RestrictAddressFamilies="),
            ("SystemCallFilter=~socketpair\nSystemCallErrorNumber=EAFNOSUPPORT", "AF_UNIX must"),
        ];
        for (at, (setting, words)) in cases.into_iter().enumerate() {
            let web = Web::new(systemd, folder, &format!("web-{at}"));
            web.deploy(&format!("Restart=no\n{setting}"), "");
            let started = systemd.command(&["start", &web.unit]).output().expect("systemctl");
            assert!(!started.status.success(), "{setting}");
            let report = fs::read_to_string(web.report.path()).unwrap_or_default();
            assert!(report.contains(words), "{setting}: {report}{}", web.log);
        }
    });
}

/// A service that is not root sees no process of systemd's then.
#[test]
fn p1_p2_a_systemd_that_is_hidden_is_still_known() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        report::for_all_users(&web.folder);
        fs::set_permissions(&web.folder, fs::Permissions::from_mode(0o777)).expect("a mode");
        web.deploy("User=nobody\nProtectProc=invisible", "--successor-timeout=1s");
        web.control(&["start"]);
        let second = web.restart_unseen(web.started(1));
        let launches = web.log.with(&["stage=launch", "supervisor_kind=systemd"]);
        assert_eq!(launches.len(), 2, "{}", web.log);
        web.control(&["stop"]);
        web.wait_nothing_left();
        assert_eq!(web.report.wait_of(second, "wait").text, "Stopped");
    });
}
