//! Settings of a sandbox, each tried: which of them do no harm, and what the others cost.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    thread,
};

use seamless_testing::{
    bin,
    http::{self, Connection, Prober},
    process::{self, Watched},
    report, wait_for,
};

use super::{Web, run};
use crate::LIMIT;

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
    "SystemCallFilter=~@mount @reboot",
    "PrivateDevices=yes",
    "PrivateUsers=yes",
    "PrivateIPC=yes",
    "PrivateMounts=yes",
    "ProtectProc=ptraceable",
    "NoExecPaths=/home /var",
    "ProtectSystem=strict\nReadWritePaths=/tmp",
    "RemoveIPC=yes",
    "KeyringMode=private",
    "DevicePolicy=closed",
    "SecureBits=noroot-locked",
    "LimitNOFILE=256\nLimitNPROC=512\nTasksMax=64",
    "Nice=5\nOOMScoreAdjust=-100\nCPUWeight=50\nIOWeight=50",
    "Delegate=yes",
    "SystemCallFilter=~dup3\nSystemCallErrorNumber=EPERM",
    "SystemCallFilter=~dup3\nSystemCallErrorNumber=ENOSYS",
];

#[test]
fn p1_p2_p6_settings_of_a_sandbox_that_do_no_harm() {
    run(|systemd, folder| {
        // Some at a time: each is under load all the while.
        for (part, settings) in HARMLESS.chunks(8).enumerate() {
            thread::scope(|scope| {
                for (at, setting) in settings.iter().enumerate() {
                    let web = Web::new(systemd, folder, &format!("web-{part}-{at}"));
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
        }
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
            web.wait_looked(second);
            let named = if setting.contains("pidfd") {
                "setting=\"SystemCallFilter= without pidfd_open\""
            } else {
                "setting=\"ProcSubset=pid\""
            };
            assert_eq!(web.log.with(&["WARN", "setting="]).len(), 2, "{setting}: {}", web.log);
            assert_eq!(web.log.with(&["WARN", named]).len(), 2, "{setting}: {}", web.log);
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
        web.deploy("User=nobody\nProtectProc=invisible", "--successor-timeout=8s");
        web.control(&["start"]);
        let second = web.restart_unseen(web.started(1));
        let launches = web.log.with(&["stage=launch", "supervisor_kind=systemd"]);
        assert_eq!(launches.len(), 2, "{}", web.log);
        web.control(&["stop"]);
        web.wait_nothing_left();
        assert_eq!(web.report.wait_of(second, "wait").text, "Stopped");
    });
}

/// As a container in a unit: systemd's NOTIFY_SOCKET belongs to another PID namespace than the service, and the PID
/// that the launcher tells means nothing there.
#[test]
fn p3_p6_a_service_with_pids_of_its_own() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        let (probe, folder) = (bin::probe(), web.folder.display());
        let start = format!(
            "ExecStart=\nExecStart=/usr/bin/unshare --pid --fork --mount-proc {} \
             --pid-file={folder}/web.pid --report={folder}/report --tcp={} --drain-timeout=100s",
            probe.display(),
            web.target
        );
        web.write(&format!("NotifyAccess=all\nKillMode=control-group\n{start}"), "");
        web.control(&["start"]);
        let main = web.launcher();
        assert_eq!(process::stat(main).expect("it runs").comm, "unshare");
        assert_eq!(web.show("StatusText"), format!("serving: daemon {}", web.started(1)));
        let request = Connection::unfinished(&web.target);
        assert!(http::pid(&web.target) > 0);
        web.control(&["stop", "--no-block"]);
        web.report.wait("hook");
        assert!(request.try_finish().is_ok(), "{}", web.log);
        web.wait_show("ActiveState", "inactive");
        assert_eq!(web.show("Result"), "success");
        // systemd has told both of them.
        let reason = web.report.wait("wait").text;
        assert!(["Stopped", "Requested"].contains(&reason.as_str()), "{reason}");
        web.wait_nothing_left();
    });
}

/// Each start of a unit with `PrivateTmp=yes` gets a new `/tmp`, and systemd removes the one of the generation that
/// still drains: its files are gone. The log has said so.
#[test]
fn what_a_private_tmp_costs_a_generation_that_drains() {
    run(|systemd, folder| {
        for (at, (value, is_kept)) in [("yes", false), ("no", true)].into_iter().enumerate() {
            let web = Web::new(systemd, folder, &format!("web-{at}"));
            // All of this test lies below `/tmp` itself.
            let programs = bin::probe().parent().expect("a folder").display().to_string();
            let shown = format!("BindPaths={} {programs}", web.folder.display());
            web.deploy(&format!("PrivateTmp={value}\n{shown}"), "--drain-timeout=100s");
            web.control(&["start"]);
            let old = web.started(1);
            web.wait_looked(old);
            let named = web.log.with(&["WARN", "setting=\"PrivateTmp=yes\""]).len();
            assert_eq!(named, usize::from(!is_kept), "{}", web.log);
            let file = format!("/proc/{old}/root/tmp/of-the-first-{at}");
            fs::write(&file, "").expect("a file in its /tmp");
            let request = Connection::unfinished(&web.target);
            request.wait_accepted(old);
            web.control(&["restart"]);
            web.started(2);
            let exists = || fs::exists(&file).expect("a look");
            if is_kept {
                assert!(exists());
            } else {
                wait_for("systemd has removed its /tmp", LIMIT, || (!exists()).then_some(()));
            }
            assert_eq!(request.try_finish().expect("an answer").pid, Some(old));
            web.control(&["stop"]);
        }
    });
}

/// A user that systemd makes for the unit is the same after a restart. The setting implies `PrivateTmp=yes`, with
/// what that costs. Where no program can look such a user up (`nss-systemd`), the service cannot ask systemd either, and
/// its stop is noticed when no successor has come.
#[test]
fn p1_p2_p3_a_dynamic_user_stays_and_its_tmp_does_not() {
    run(|systemd, folder| {
        let web = Web::new(systemd, folder, "web");
        report::for_all_users(&web.folder);
        // Who it is, is not known before the start.
        fs::set_permissions(&web.folder, fs::Permissions::from_mode(0o777)).expect("a mode");
        let own = web.folder.display();
        let programs = bin::probe().parent().expect("a folder").display().to_string();
        let settings = format!("DynamicUser=yes\nBindPaths={own} {programs}\nReadWritePaths={own}");
        web.deploy(&settings, "--drain-timeout=100s --successor-timeout=8s");
        web.control(&["start"]);
        let first = web.started(1);
        let drained = Watched::new(first);
        let user = |pid: u32| fs::metadata(format!("/proc/{pid}")).expect("a process").uid();
        let by = user(first);
        assert!((61184..=65519).contains(&by), "a dynamic user: {by}");
        web.log.wait_words(&["systemd cannot be asked", &format!("daemon={first} ")], 1);
        let file = format!("/proc/{first}/root/tmp/of-the-first");
        fs::write(&file, "").expect("a file in its /tmp");
        let request = Connection::unfinished(&web.target);
        request.wait_accepted(first);

        let prober = Prober::start(&web.target);
        prober.wait_pid(first);
        web.control(&["restart"]);
        let second = web.started(2);
        prober.wait_pid(second);
        prober.stop().assert_all_answered();
        assert_eq!(user(second), by);
        wait_for("systemd has removed its /tmp", LIMIT, || {
            (!fs::exists(&file).expect("a look")).then_some(())
        });
        assert_eq!(request.try_finish().expect("an answer").pid, Some(first));
        drained.wait_end(LIMIT); // its report was below that `/tmp`
        web.control(&["stop"]);
        web.wait_nothing_left();
    });
}
