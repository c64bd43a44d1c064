//! `seamless check` and the log at a start say nothing of the sample units, nor of what is changed in them without
//! harm; and what `PIDFile=` would do, which the sample does not have.

use std::{fs, process::Command, thread};

use seamless_testing::bin;
use serde_json::Value;

use super::{Web, reload_by_command, run};

/// What people add by `systemctl edit`.
const HARMLESS: &[&str] = &[
    "",
    "Type=exec",
    "Nice=5\nLimitNOFILE=65536\nEnvironment=MODE=production\nTasksMax=4096",
    "Restart=on-failure\nRestartSec=5s",
    "TimeoutStopSec=10min\nTimeoutStartSec=5min",
    "MemoryHigh=1G\nCPUQuota=90%",
    "MemoryMax=1G\nOOMPolicy=continue",
    "KillSignal=SIGQUIT",
    "NoNewPrivileges=yes\nProtectSystem=full\nPrivateDevices=yes\nProtectHome=yes",
    "SystemCallFilter=@system-service\nRestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "FileDescriptorStoreMax=32\nStandardOutput=journal",
    "WatchdogSec=60s",
];

/// All that the command finds, notes as well.
fn findings(web: &Web<'_>) -> Value {
    let mut check = Command::new(bin::support("seamless"));
    check.arg("check").arg(web.folder.join("web.pid")).args(["--json", "--unit", &web.unit]);
    let output = check.output().expect("seamless");
    let mut said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    said["findings"].take()
}

#[test]
fn nothing_is_said_of_the_sample_unit() {
    run(|systemd, folder| {
        let examples = bin::root().join("examples/service/systemd");
        let read = |name: &str| fs::read_to_string(examples.join(name)).expect("the sample");
        let (sample, reload) = (read("web.service"), read("web.service.d/reload.conf"));
        let reloads = |at: usize| at % 2 == 1;
        thread::scope(|scope| {
            for (at, change) in HARMLESS.iter().enumerate() {
                let web = Web::new(systemd, folder, &format!("web-{at}"));
                let folder = web.folder.display();
                let (reload, option) = match reloads(at) {
                    true => (reload_by_command(&reload, &web.folder), "--reload-signal=1"),
                    false => (String::new(), ""),
                };
                let here = format!(
                    "[Unit]\nDefaultDependencies=no\n[Service]\nUser=\nRuntimeDirectory=\n\
                     Environment=RUST_LOG=debug\nStandardError=append:{folder}/log\n\
                     {reload}\n[Service]\nExecStart=\nExecStart={} --pid-file={folder}/web.pid \
                     --report={folder}/report --tcp={} {option}\n{change}",
                    bin::probe().display(),
                    web.target,
                );
                systemd.unit_with(&web.unit, &sample, &here);
                scope.spawn(move || {
                    web.control(&["start"]);
                    let daemon = web.started(1);
                    web.wait_looked(daemon);
                    assert_eq!(web.log.with(&["setting="]).len(), 0, "{change}: {}", web.log);
                    let mut found = findings(&web);
                    // Of this machine, and of a probe whose folder systemd has entered.
                    let others = ["somaxconn", "working-folder"];
                    let list = found.as_array_mut().expect("a list");
                    list.retain(|one| !others.iter().any(|other| one["about"] == *other));
                    assert_eq!(found, Value::Array(vec![]), "{change}");
                    web.control(&["stop"]);
                });
            }
        });
    });
}

/// Some units name the PID file of the program, as for `Type=forking`. systemd believes it when the launcher has
/// gone, and would KILL the daemon that serves on: that is said at the start, and once the line is gone, no restart
/// is seen.
#[test]
fn p1_p2_a_unit_that_names_the_pid_file() {
    run(|systemd, folder| {
        for (at, kind) in ["notify", "exec"].into_iter().enumerate() {
            let web = Web::new(systemd, folder, &format!("web-{at}"));
            let file = web.folder.join("web.pid");
            web.deploy(&format!("Type={kind}\nPIDFile={}", file.display()), "");
            web.control(&["start"]);
            let first = web.started(1);
            web.wait_looked(first);
            let named = format!("setting=\"PIDFile={}\"", file.display());
            assert_eq!(web.log.with(&["WARN", &named]).len(), 1, "{}", web.log);
            let found = findings(&web);
            let about = |one: &&Value| one["about"] == "unit";
            let says = found.as_array().expect("a list").iter().find(about).expect("it is found");
            assert!(says["says"].as_str().expect("a text").starts_with("PIDFile="), "{found}");
            web.deploy(&format!("Type={kind}"), "");
            web.restart_unseen(first);
            web.control(&["stop"]);
            web.wait_nothing_left();
        }
    });
}
