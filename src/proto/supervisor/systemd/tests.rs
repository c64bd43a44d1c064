use super::{
    Own, Properties, Reading, Unit, findings, job_kind, parse_time, reading, sandbox, unit_of,
};
use std::time::Duration;

fn properties(text: &str) -> Properties {
    Properties::parse(&text.replace(' ', "\n").replace('~', " "))
}

#[test]
fn the_unit_is_found_in_the_control_group() {
    let of = |name: &str, user| Some(Unit { name: name.to_owned(), user });
    for (cgroup, unit) in [
        ("0::/system.slice/web.service\n", of("web.service", false)),
        ("0::/system.slice/system-web.slice/web@a.service/worker", of("web@a.service", false)),
        (
            "0::/user.slice/user-7.slice/user@7.service/app.slice/web.service",
            of("web.service", true),
        ),
        ("0::/user.slice/user-7.slice/user@7.service/init.scope", None),
        ("0::/user.slice/user-7.slice/session-3.scope", None),
        ("9:name=systemd:/system.slice/web.service\n0::/\n", of("web.service", false)),
        (
            "0::/\n9:name=systemd:/system.slice/web.service\n4:memory:/a.service\n",
            of("web.service", false),
        ),
        ("0::/system.slice/_cpu.service", of("cpu.service", false)),
        ("9:name=systemd:/\n0::/system.slice/web.service\n", of("web.service", false)),
        ("0::/docker/4711", None),
        ("0::/", None),
        ("", None),
    ] {
        assert_eq!(unit_of(cgroup), unit, "{cgroup}");
    }
}

#[test]
fn a_job_says_what_a_term_means() {
    let list = "  12 other.service start waiting\n 123 web.service restart running\n";
    assert_eq!(job_kind(list, 123), Some("restart"));
    for (job, number) in
        [("Job=123", Some(123)), ("Job=1", Some(1)), ("Job=0", None), ("Job=", None)]
    {
        assert_eq!(properties(job).job(), number, "{job}");
    }
    assert_eq!(job_kind(list, 12), Some("start"));
    assert_eq!(job_kind(list, 1), None);
    assert_eq!(job_kind("No jobs running.", 0), None);
    let unit = properties("MainPID=7 ActiveState=deactivating Restart=no");
    assert_eq!(reading(&unit, Some("restart"), Some(7)), Some(Reading::Up));
    assert_eq!(reading(&unit, Some("try-restart"), Some(7)), Some(Reading::Up));
    assert_eq!(reading(&unit, Some("stop"), Some(7)), Some(Reading::Down));
    // Another process is the main one: nothing of this is about us.
    assert_eq!(reading(&unit, Some("stop"), Some(8)), None);
    assert_eq!(reading(&Properties::default(), None, Some(7)), None);
}

#[test]
fn without_a_job_it_is_as_the_unit_is_started_again() {
    for (settings, again) in [
        ("Restart=always", true),
        ("Restart=on-success", true),
        ("Restart=on-failure", false),
        ("Restart=on-abnormal", false),
        ("Restart=no", false),
        ("Restart=always RestartPreventExitStatus=3~0", false),
        ("Restart=always RestartPreventExitStatus=3~10", true),
        ("Restart=no RestartForceExitStatus=0", true),
        ("", false),
    ] {
        let unit = properties(&format!("MainPID=7 ActiveState=active {settings}"));
        let expected = if again { Reading::Up } else { Reading::Down };
        for job in [None, Some("start"), Some("reload")] {
            assert_eq!(reading(&unit, job, Some(7)), Some(expected), "{settings} {job:?}");
        }
    }
}

#[test]
fn a_detached_daemon_is_wanted_until_its_unit_was_stopped() {
    for (state, job, wanted) in [
        ("ActiveState=active SubState=running", None, true),
        ("ActiveState=activating SubState=auto-restart", None, true),
        ("ActiveState=inactive SubState=dead-before-auto-restart", None, true),
        ("ActiveState=deactivating SubState=stop-sigterm", None, true),
        ("ActiveState=failed SubState=failed", None, true),
        ("ActiveState=inactive SubState=dead", None, false),
        ("ActiveState=inactive SubState=dead", Some("restart"), true),
        ("ActiveState=inactive SubState=dead", Some("start"), true),
        ("ActiveState=deactivating SubState=stop-sigterm", Some("stop"), false),
        ("ActiveState=failed SubState=failed", Some("stop"), false),
    ] {
        let expected = if wanted { Reading::Up } else { Reading::Down };
        assert_eq!(reading(&properties(state), job, None), Some(expected), "{state} {job:?}");
    }
}

#[test]
fn times_as_systemd_prints_them() {
    for (text, ms) in [
        ("1min 30s", Some(90_000)),
        ("100ms", Some(100)),
        ("0", Some(0)),
        ("1w 2d 3h", Some(((7 + 2) * 24 + 3) * 3_600_000)),
        ("2.500s", Some(2_500)),
        ("1y 1month", Some(31_557_600_000 + 2_629_800_000)),
        ("90000000", Some(90_000)),
        ("infinity", None),
        ("18446744073709549568s 18446744073709549568s", None),
        ("", None),
    ] {
        assert_eq!(parse_time(text), ms.map(Duration::from_millis), "{text:?}");
    }
}

const GOOD: &str = "Type=notify NotifyAccess=main KillMode=process KillSignal=15 \
    RestartKillSignal=15 SendSIGHUP=no SendSIGKILL=yes TimeoutStopUSec=1min~30s WatchdogUSec=0 \
    Restart=always RemainAfterExit=no StartLimitIntervalUSec=10s StartLimitBurst=5 \
    RuntimeDirectory= RuntimeDirectoryPreserve=no ExecReload=";

/// The settings that are found, of a good unit with one that is changed.
fn found(change: &str, own: &Own) -> Vec<String> {
    let unit = properties(&format!("{change} {GOOD}"));
    findings(&unit, own).into_iter().map(|one| one.setting.replace(' ', "~")).collect()
}

#[test]
fn a_good_unit_needs_no_warning() {
    let own = Own { notifies: true, folder: "/run/web".to_owned(), ..Own::default() };
    for change in [
        "",
        "Type=exec",
        "KillMode=mixed SendSIGKILL=no",
        "WatchdogUSec=30s",
        "TimeoutStopUSec=1s",
        "Restart=on-failure",
        "Type=exec NotifyAccess=none",
        "KillSignal=3 RestartKillSignal=3",
        "KillSignal=30 RestartKillSignal=15",
        "StartLimitIntervalUSec=0 StartLimitBurst=1",
        "StartLimitBurst=0", // no limit
        "StartLimitBurst=3",
        "RuntimeDirectory=web RuntimeDirectoryPreserve=restart",
        "RuntimeDirectory=other",
        "PrivateTmp=disconnected",
        "PrivateTmp=no DynamicUser=no ProcSubset=all PrivatePIDs=no",
        "RestrictAddressFamilies=AF_INET~AF_UNIX",
        "MemoryMax=infinity OOMPolicy=stop",
        "MemoryMax=1073741824 OOMPolicy=continue",
    ] {
        assert_eq!(found(change, &own), [""; 0], "{change}");
    }
    assert_eq!(found("Type=exec", &Own::default()), [""; 0]);
}

#[test]
fn each_bad_setting_is_named() {
    let own = Own { notifies: true, folder: "/run/web".to_owned(), ..Own::default() };
    for setting in [
        "Type=forking",
        "Type=oneshot",
        "Type=notify-reload",
        "NotifyAccess=none",
        "KillMode=control-group",
        "KillMode=mixed",
        "KillMode=none",
        "KillSignal=2",
        "RestartKillSignal=9",
        "PIDFile=/run/web/web.pid",
        "SendSIGHUP=yes",
        "Restart=no",
        "RemainAfterExit=yes",
        "StartLimitBurst=2",
        "PrivateTmp=yes",
        "DynamicUser=yes",
        "ProcSubset=pid",
        "PrivatePIDs=yes",
        "RestrictAddressFamilies=AF_INET~AF_INET6",
    ] {
        assert_eq!(found(setting, &own), [setting]);
    }
    assert_eq!(found("TimeoutStopUSec=infinity", &own), ["TimeoutStopSec=infinity"]);
    let limited = Own { drain_timeout: Some(Duration::from_secs(60)), ..own.clone() };
    assert_eq!(found("TimeoutStopUSec=infinity", &limited), [""; 0]);
    assert_eq!(found("DynamicUser=yes PrivateTmp=yes", &own), ["DynamicUser=yes"]);
    for policy in ["OOMPolicy=stop", "OOMPolicy=kill"] {
        assert_eq!(found(&format!("MemoryMax=1073741824 {policy}"), &own), [policy]);
    }
    assert_eq!(found("StartLimitIntervalUSec=5min", &own), ["StartLimitBurst=5"]);
    assert_eq!(found("RuntimeDirectory=web", &own), ["RuntimeDirectoryPreserve=no"]);
    assert_eq!(found("RuntimeDirectory=x~web/a", &own), ["RuntimeDirectoryPreserve=no"]);
    assert_eq!(found("KillSignal=2 RestartKillSignal=2", &own), ["KillSignal=2"]);
    let reloads = Own { reloads: true, ..own.clone() };
    assert_eq!(found("", &reloads), ["ExecReload="]);
    assert_eq!(found("ExecReload={~path=/bin/kill~}", &reloads), [""; 0]);
    assert_eq!(found("Type=notify-reload", &reloads), [""; 0]);
    let silent = Own { notifies: false, drain_timeout: Some(Duration::from_secs(60)), ..own };
    assert_eq!(found("", &silent), ["Type=notify"]);
    assert_eq!(found("Type=exec WatchdogUSec=3s", &silent), ["WatchdogSec=3s"]);
    assert_eq!(found("Type=exec TimeoutStopUSec=59s", &silent), ["TimeoutStopSec=59s"]);
    assert_eq!(found("Type=exec TimeoutStopUSec=60s", &silent), [""; 0]);
    assert_eq!(found("Type=exec TimeoutStopUSec=infinity", &silent), [""; 0]);
}

#[test]
fn p11_settings_that_make_no_sense_with_a_probation() {
    let own = Own { notifies: true, probation: Some(Duration::from_secs(60)), ..Own::default() };
    let without = Own { notifies: true, ..Own::default() };
    for (change, expected) in [
        ("", &[][..]),
        ("Restart=on-failure", &[]),
        ("KillMode=mixed SendSIGKILL=no", &[]),
        ("StartLimitIntervalUSec=0", &[]),
        // Five starts take 2 + 4 + 8 + 16 s, and six 32 s more.
        ("StartLimitIntervalUSec=30s", &[]),
        ("StartLimitIntervalUSec=31s", &["StartLimitBurst=5"]),
        ("StartLimitIntervalUSec=31s StartLimitBurst=0", &[]), // no limit
        ("StartLimitIntervalUSec=60s StartLimitBurst=6", &[]),
        ("Restart=on-abnormal", &["Restart=on-abnormal"]),
        ("Restart=on-success", &["Restart=on-success"]),
        ("Restart=on-failure SuccessExitStatus=75", &["Restart=on-failure"]),
        ("Restart=on-success SuccessExitStatus=75", &[]),
        ("RestartPreventExitStatus=75", &["RestartPreventExitStatus=75"]),
        ("Restart=on-abnormal RestartForceExitStatus=75", &[]),
    ] {
        assert_eq!(found(change, &own), expected, "{change}");
        assert_eq!(found(change, &without), [""; 0], "{change}");
    }
    assert_eq!(found("Restart=no", &own), ["Restart=no"], "told once");
    for mode in ["KillMode=control-group", "KillMode=mixed"] {
        assert_eq!(found(mode, &own), [mode, mode], "also for the standby's sake");
    }
}

#[test]
fn p6_a_stop_needs_time_to_leave_and_to_drain() {
    let seconds = |count| Some(Duration::from_secs(count));
    for (leave, drain, notifies, stop, is_found) in [
        (10, seconds(60), false, "1min~30s", false),
        (30, seconds(60), false, "1min~30s", true),
        (30, seconds(60), true, "1min~30s", false), // it is extended
        (30, None, true, "1min~30s", false),
        (60, None, true, "1min~30s", true),
        (60, None, true, "infinity", true), // nothing limits that stop at all
        (60, seconds(60), false, "infinity", false),
        (5, seconds(60), false, "30s", true),
        (0, seconds(100), false, "1min~30s", true), // the drain alone
    ] {
        let own =
            Own { leave_time: seconds(leave), drain_timeout: drain, notifies, ..Own::default() };
        let found = found(&format!("Type=exec TimeoutStopUSec={stop}"), &own);
        let expected = format!("TimeoutStopSec={stop}");
        let expected = if is_found { vec![expected] } else { Vec::new() };
        assert_eq!(found, expected, "{leave} {drain:?} {notifies} {stop}");
    }
}

/// With a `~` before it, the list is of what is refused.
#[test]
fn unix_sockets_are_found_in_both_kinds_of_lists() {
    for (list, is_found) in [
        ("AF_INET AF_UNIX", false),
        ("AF_INET", true),
        ("none", true),
        ("~AF_PACKET", false),
        ("~AF_UNIX AF_PACKET", true),
        ("", false),
    ] {
        let unit = Properties::parse(&format!("RestrictAddressFamilies={list}\nRestart=always"));
        let found = findings(&unit, &Own::default());
        let named = found.iter().any(|one| one.setting.starts_with("RestrictAddressFamilies="));
        assert_eq!(named, is_found, "{list}");
    }
}

#[test]
fn a_finding_says_what_happens_and_what_to_do() {
    let own = Own { notifies: true, ..Own::default() };
    let unit = properties(&format!("KillMode=mixed {GOOD}"));
    assert_eq!(
        findings(&unit, &own)[0].to_string(),
        "KillMode=mixed: a restart KILLs the daemon that serves on detached, and all that is in \
         flight; set KillMode=process"
    );
}

#[test]
fn p12_a_keeper_that_systemd_would_end_is_not_started() {
    for (mode, stored, lives) in [
        ("process", false, true),
        ("none", false, true),
        ("process", true, false),
        ("control-group", false, false),
        ("mixed", false, false),
    ] {
        let unit = Properties::parse(&format!("KillMode={mode}\n"));
        assert_eq!(super::lets_a_keeper_live(&unit, stored), lives, "{mode} {stored}");
    }
}

#[test]
fn a_filter_that_refuses_a_call_that_is_needed_is_named() {
    let needed = sandbox::CALLS.join(" ");
    for (filter, call) in [
        ("", None),
        ("~mount umount2:EPERM", None),
        (&format!("read {needed} write"), None),
        (&format!("read {} write", needed.replace(" flock", "")), Some("flock")),
        ("read write pidfd_send_signal", Some("pidfd_open")),
        ("~reboot pidfd_open", Some("pidfd_open")),
        ("~pidfd_send_signal", Some("pidfd_send_signal")),
        ("~bind:ENOSYS listen", Some("bind")),
    ] {
        let unit = Properties::parse(&format!("SystemCallFilter={filter}\n"));
        let found = sandbox::refused_call(&unit);
        // Without pidfds it starts, and knows less.
        let starts = found.as_ref().is_some_and(|found| found.why.starts_with("without pidfds"));
        assert_eq!(starts, call.is_some_and(|call| call.starts_with("pidfd_")), "{filter}");
        let found = found.map(|found| found.setting);
        assert_eq!(found, call.map(|call| format!("SystemCallFilter= without {call}")), "{filter}");
    }
}
