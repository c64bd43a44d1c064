//! P11: a new generation that fails in its probation costs only what it had accepted. Its predecessor stands by,
//! and serves again.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    handover::{End, add_to_record},
    http::{Prober, Target},
    innocent::Innocent,
    probation::{
        WINDOW, assert_nobody_refused, end, restart, site, wait_serves_again, wait_standby,
    },
    process::{self, Watched, take_claim},
    signal::{CONT, KILL, TERM, USR1},
    site::{SERVES_ON, Site},
    supervisor::Supervisor,
    systemd, under_each_supervisor, wait_for,
};

use serde_json::Value;

use super::in_place::Scene;
use crate::command::{Said, seamless};

under_each_supervisor![
    Boxed::new().private_net() =>
    p11_a_version_that_crashes_again_and_again_refuses_nobody,
    p11_each_end_of_a_new_generation_is_a_rollback,
    p11_an_unhealthy_generation_drains_when_the_old_one_serves,
    p11_an_unhealthy_generation_whose_request_hook_hangs_is_rolled_back,
    p11_unhealthy_in_the_first_and_in_the_last_second,
    p11_a_check_that_hangs_when_the_time_is_over_is_no_success,
    p11_who_passes_takes_over,
    p11_a_predecessor_that_is_slow_to_stand_by_is_waited_for,
    p11_a_predecessor_that_is_slow_to_serve_again_is_waited_for,
    p11_the_standby_killed_proves_the_new_one,
    p11_the_launcher_killed_in_the_window,
    p4_p11_the_proven_generation_stands_by_for_the_third,
    p9_p11_a_third_generation_takes_over_from_the_standby_if_the_second_one_hangs,
    p9_p11_a_third_generation_takes_over_from_the_standby_if_the_second_one_dies,
    p6_p11_a_stop_in_the_window_ends_all,
    p11_a_rejected_file_waits_unless_it_was_replaced,
    p11_a_rejected_file_does_not_wait_if_a_link_to_it_was_switched,
    p11_an_operator_ends_the_probation,
    p11_a_program_that_knows_that_it_works_commits,
    p11_a_commit_while_started_asks_for_a_standby_waits_for_the_probation,
    p11_restart_waits_for_the_commit_and_status_tells_of_the_probation,
    p11_who_serves_again_has_not_taken_over,
    p4_p11_the_one_that_stands_by_finds_the_third_if_the_second_dies,
    p11_a_generation_that_the_record_has_replaced_does_not_commit,
    p11_a_call_of_commit_that_comes_too_late_is_an_error,
];

#[test]
fn p11_under_s6() {
    Boxed::new().private_net().run(|folder| {
        p11_each_end_of_a_new_generation_is_a_rollback(Supervisor::S6, folder);
    });
}

#[test]
fn p11_the_launcher_killed_in_the_window_under_s6() {
    Boxed::new().private_net().run(|folder| {
        p11_the_launcher_killed_in_the_window(Supervisor::S6, folder);
    });
}

/// The machine leaves it no time for more than a second, when it has given its sockets.
fn p11_a_predecessor_that_is_slow_to_stand_by_is_waited_for(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let go = site.flag("go");
    let ready = format!("--at=ready=file:{}", go.display());
    site.deploy_options(&format!("{SERVES_ON} --standby {WINDOW} {ready}"));
    site.service().restart();
    site.report.wait_nth("socket", 2);
    first.stop();
    fs::write(go, "").expect("a file");
    thread::sleep(Duration::from_millis(1500));
    first.signal(CONT);
    let second = site.daemon(2);
    wait_standby(&site, &first, 2);
    prober.wait_pid(second.pid());
    second.kill();
    wait_serves_again(&site, &prober, &first, 1);
    assert_nobody_refused(&site, &prober.stop(), 1);
    end(&site);
}

/// It is asked again until it answers. Meanwhile the one that fails serves, and does not commit.
fn p11_a_predecessor_that_is_slow_to_serve_again_is_waited_for(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    first.stop();
    thread::scope(|scope| {
        let asked = scope.spawn(|| seamless("rollback", &site.pid_file(), &[]));
        let slow = ["stage=rollback", &format!("daemon={}", second.pid()), "does not answer"];
        site.log.wait_words(&slow, 1);
        prober.wait_pid(second.pid());
        first.signal(CONT);
        assert_eq!(asked.join().expect("it has ended").code, 0, "{site}");
    });
    wait_serves_again(&site, &prober, &first, 1);
    second.wait_end(LIMIT);
    assert!(site.log.stage("commit").is_empty(), "{site}");
    assert_nobody_refused(&site, &prober.stop(), 0);
    end(&site);
}

/// A version that aborts at its 10th request, tried twice.
fn p11_a_version_that_crashes_again_and_again_refuses_nobody(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    restart(&site, &first, &format!("{WINDOW} --crash-after=10"));
    for times in 1..=2 {
        wait_serves_again(&site, &prober, &first, times);
    }
    // It waits now, for 4 s.
    site.log.wait(&[("stage", "init"), ("tries", "2")]);
    let probes = prober.stop();
    assert_nobody_refused(&site, &probes, 2);
    assert!(!first.has_ended());
    assert_eq!(site.report.named("started").len(), 3, "two tries\n{site}");
    end(&site);
}

/// By a signal and by each exit code, also by 0.
fn p11_each_end_of_a_new_generation_is_a_rollback(kind: Supervisor, folder: &Path) {
    for (name, options, signal) in [
        ("killed", "", KILL),
        ("exit-0", "--on=10=exit:0", USR1),
        ("exit-1", "--on=10=exit:1", USR1),
        ("by-hand", "", TERM),
    ] {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let (site, first, prober) = site(kind, &folder);
        let second = restart(&site, &first, &format!("{WINDOW} {options}"));
        let launcher = site.launcher();
        prober.wait_pid(second.pid());
        second.signal(signal);
        wait_serves_again(&site, &prober, &first, 1);
        if name != "by-hand" {
            // By the kernel's word, at once: silence counts after 2 s only.
            site.log.wait(&[("stage", "rollback"), ("cause", "ended")]);
        }
        launcher.wait_end(LIMIT);
        if signal != KILL {
            let code = if name == "exit-1" { "1" } else { "75" };
            let launcher = launcher.pid().to_string();
            site.log.wait(&[("stage", "end"), ("launcher", &launcher), ("exit_code", code)]);
        }
        let probes = prober.stop();
        assert_nobody_refused(&site, &probes, 1);
        wait_for(format_args!("its file\n{site}"), LIMIT, || {
            (site.named() == Some(first.pid())).then_some(())
        });
        end(&site);
    }
}

/// It says no, and it does not answer.
fn p11_an_unhealthy_generation_drains_when_the_old_one_serves(kind: Supervisor, folder: &Path) {
    for hangs in [false, true] {
        let folder = folder.join(if hangs { "hangs" } else { "says-no" });
        fs::create_dir_all(&folder).expect("a folder");
        let (site, first, prober) = site(kind, &folder);
        let flag = site.flag("unhealthy");
        let options = format!("{WINDOW} --unhealthy='{}'", flag.display());
        let second = restart(&site, &first, &options);
        prober.wait_pid(second.pid());
        match hangs {
            true => fs::create_dir(&flag).expect("a folder"),
            false => fs::write(&flag, "").expect("a file"),
        }
        wait_serves_again(&site, &prober, &first, 1);
        assert_eq!(site.report.wait_of(second.pid(), "wait").text, "RolledBack");
        second.wait_end(LIMIT);
        let seen = seamless("status", &site.pid_file(), &["--json"]).json();
        assert_eq!(seen["rejected"]["why"], "its probation_check has failed", "{seen}");
        let probes = prober.stop();
        probes.assert_all_answered();
        end(&site);
        _ = fs::remove_dir(&flag);
    }
}

/// What it fails of may be what the hook waits for.
fn p11_an_unhealthy_generation_whose_request_hook_hangs_is_rolled_back(
    kind: Supervisor,
    folder: &Path,
) {
    let (site, first, prober) = site(kind, folder);
    let go = site.flag("go");
    let hangs = format!("--at=request=file:{} --handoff-timeout=2s", go.display());
    let second = restart(&site, &first, &format!("{WINDOW} --unhealthy-at=1 {hangs}"));
    wait_serves_again(&site, &prober, &first, 1);
    assert_eq!(site.report.wait_of(second.pid(), "wait").text, "RolledBack");
    second.wait_end(LIMIT);
    let logged = site.log.stage("hooks");
    let hangs = logged.iter().filter_map(|line| line.field("hook"));
    assert_eq!(hangs.collect::<Vec<_>>(), ["on_shutdown_request"], "{site}");
    assert!(site.log.stage("commit").is_empty(), "{site}");
    let seen = seamless("status", &site.pid_file(), &["--json"]).json();
    assert_eq!(seen["rejected"]["why"], "its probation_check has failed", "{seen}");
    prober.stop().assert_all_answered();
    end(&site);
}

/// It is asked after 1 s, 2 s and so on.
fn p11_unhealthy_in_the_first_and_in_the_last_second(kind: Supervisor, folder: &Path) {
    for (time, calls) in [(WINDOW, 1), ("--probation=4s", 3)] {
        let folder = folder.join(calls.to_string());
        fs::create_dir_all(&folder).expect("a folder");
        let (site, first, prober) = site(kind, &folder);
        let second = restart(&site, &first, &format!("{time} --unhealthy-at={calls}"));
        wait_serves_again(&site, &prober, &first, 1);
        assert_eq!(site.report.wait_of(second.pid(), "wait").text, "RolledBack");
        second.wait_end(LIMIT);
        assert!(site.log.stage("commit").is_empty(), "{site}");
        let asked = site.report.names_of(second.pid());
        assert_eq!(asked.iter().filter(|name| *name == "check").count(), calls, "{site}");
        prober.stop().assert_all_answered();
        end(&site);
    }
}

/// It is asked after one second, and has 5 s to answer.
fn p11_a_check_that_hangs_when_the_time_is_over_is_no_success(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let hangs = site.flag("hangs");
    fs::create_dir(&hangs).expect("a folder");
    let options = format!("--probation=3s --unhealthy='{}'", hangs.display());
    let second = restart(&site, &first, &options);
    wait_serves_again(&site, &prober, &first, 1);
    assert_eq!(site.report.wait_of(second.pid(), "wait").text, "RolledBack");
    fs::remove_dir(hangs).expect("its folder");
    second.wait_end(LIMIT);
    assert!(site.log.stage("commit").is_empty(), "{site}");
    prober.stop().assert_all_answered();
    end(&site);
}

fn p11_who_passes_takes_over(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, "--probation=1s");
    first.wait_end(LIMIT);
    assert_eq!(site.report.wait_of(first.pid(), "wait").text, "TakenOver");
    prober.wait_pid(second.pid());
    site.assert_one_generation(second.pid());
    assert!(!site.run.join("web.pid.sock.standby").exists());
    prober.stop().assert_all_answered();
    let third = site.restart(second.pid(), SERVES_ON);
    site.assert_one_generation(third);
    site.stop();
}

fn p11_the_standby_killed_proves_the_new_one(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    first.kill();
    site.log.wait(&[("stage", "commit"), ("daemon", &second.pid().to_string())]);
    site.assert_one_generation(second.pid());
    prober.stop().assert_all_answered();
    site.stop();
}

/// The supervisor starts a third generation, while the second one is on probation.
fn p11_the_launcher_killed_in_the_window(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    site.deploy_options(&format!("{SERVES_ON} --probation=1s"));
    site.launcher().kill();
    let third = site.daemon(3);
    first.wait_end(LIMIT);
    second.wait_end(LIMIT);
    site.assert_one_generation(third.pid());
    prober.stop().assert_all_answered();
    site.stop();
}

/// The second one drains, and the first one serves when the third one dies.
fn p4_p11_the_proven_generation_stands_by_for_the_third(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    site.service().settle();
    let third = restart(&site, &first, WINDOW);
    second.wait_end(LIMIT);
    assert_eq!(site.report.wait_of(second.pid(), "wait").text, "TakenOver");
    prober.wait_pid(third.pid());
    assert!(!first.has_ended());
    third.kill();
    wait_serves_again(&site, &prober, &first, 1);
    assert_nobody_refused(&site, &prober.stop(), 1);
    end(&site);
}

/// The third one has entered the record, and has not asked the first one to stand by for it yet.
fn p4_p11_the_one_that_stands_by_finds_the_third_if_the_second_dies(
    kind: Supervisor,
    folder: &Path,
) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    prober.stop().assert_all_answered();
    site.service().settle();
    site.deploy("exec sleep 1000");
    let third = Innocent::start();
    let record = fs::read_to_string(site.lock_file()).expect("the record");
    fs::write(site.lock_file(), record.replace("state=probation", "state=replaced")).expect("it");
    add_to_record(&site.lock_file(), 3, third.pid(), " state=probation");
    second.kill();
    second.wait_end(LIMIT);
    site.wait_checks(first.pid(), 1);
    // After two seconds without a word of the third it would serve beside it: for another cause.
    let rollbacks = site.log.stage("rollback");
    let ended = rollbacks.iter().filter(|line| line.is(&[("cause", "ended")])).count();
    assert_eq!(ended, 0, "it stands by for the third\n{site}");
    drop(third);
    let prober = Prober::start(&site.target);
    wait_serves_again(&site, &prober, &first, 1);
    prober.stop();
    end(&site);
}

/// The one that stands by was told to serve again while this one did not answer.
fn p11_a_generation_that_the_record_has_replaced_does_not_commit(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    let record = fs::read_to_string(site.lock_file()).expect("the record");
    fs::write(site.lock_file(), record.replace("state=probation", "state=replaced")).expect("it");
    let operator = End::connect(&site.socket());
    operator.send("seamless-takeover 1 commit");
    assert_eq!(operator.text(), "seamless-takeover 1 accepted");
    assert_eq!(site.report.wait_of(second.pid(), "wait").text, "RolledBack");
    second.wait_end(LIMIT);
    prober.wait_pid(first.pid());
    assert_nobody_refused(&site, &prober.stop(), 1);
    end(&site);
}

/// As before, but the program itself wants to commit.
fn p11_a_call_of_commit_that_comes_too_late_is_an_error(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let go = site.flag("go");
    let calls = format!("--on={USR1}=call:commit --at=drained=file:{}", go.display());
    let second = restart(&site, &first, &format!("{WINDOW} {calls}"));
    prober.wait_pid(second.pid());
    let record = fs::read_to_string(site.lock_file()).expect("the record");
    fs::write(site.lock_file(), record.replace("state=probation", "state=replaced")).expect("it");
    second.signal(USR1);
    let called = site.report.wait_of(second.pid(), "called").text;
    assert!(called.starts_with("commit error: cannot end the probation (commit): "), "{called}");
    fs::write(go, "").expect("a file");
    second.wait_end(LIMIT);
    assert!(site.log.stage("commit").is_empty(), "{site}");
    prober.wait_pid(first.pid());
    assert_nobody_refused(&site, &prober.stop(), 1);
    end(&site);
}

/// The second one is stopped: it gives nothing, and the first one has the sockets too.
fn p9_p11_a_third_generation_takes_over_from_the_standby_if_the_second_one_hangs(
    kind: Supervisor,
    folder: &Path,
) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    site.deploy_options(&format!("{SERVES_ON} --standby --probation=1s --takeover-timeout=2s"));
    process::stop_without_claim(&second);
    let launcher = site.launcher();
    launcher.kill();
    let third = site.daemon(3);
    let standby = first.pid().to_string();
    site.log.wait(&[
        ("stage", "transfer"),
        ("daemon", &third.pid().to_string()),
        ("standby", &standby),
    ]);
    second.signal(CONT);
    first.wait_end(LIMIT);
    second.wait_end(LIMIT);
    prober.wait_pid(third.pid());
    assert_nobody_refused(&site, &prober.stop(), 1);
    site.assert_one_generation(third.pid());
    site.stop();
}

/// It dies in a hook of `hand_over`, when the third one has got nothing so far.
fn p9_p11_a_third_generation_takes_over_from_the_standby_if_the_second_one_dies(
    kind: Supervisor,
    folder: &Path,
) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, &format!("{WINDOW} --state=kill"));
    prober.wait_pid(second.pid());
    site.deploy_options(&format!("{SERVES_ON} --standby"));
    site.service().settle();
    site.service().restart();
    let third = site.daemon(3);
    site.log.wait(&[
        ("stage", "transfer"),
        ("daemon", &third.pid().to_string()),
        ("standby", &first.pid().to_string()),
    ]);
    second.wait_end(LIMIT);
    first.wait_end(LIMIT);
    prober.wait_pid(third.pid());
    assert_nobody_refused(&site, &prober.stop(), 1);
    site.assert_one_generation(third.pid());
    site.stop();
}

fn p6_p11_a_stop_in_the_window_ends_all(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    drop(prober);
    site.stop();
    assert!(first.has_ended() && second.has_ended());
}

/// A copy of the program is another file.
fn p11_a_rejected_file_waits_unless_it_was_replaced(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    let copy = folder.join("copy");
    fs::copy(bin::probe(), &copy).expect("a copy");
    second.kill();
    wait_serves_again(&site, &prober, &first, 1);
    // The same file waits in `init`; an operator ends it, and the copy starts at once.
    site.log.wait(&[("stage", "init"), ("tries", "1")]);
    let options = format!("{SERVES_ON} --standby --probation=1s");
    let probe = bin::probe().display().to_string();
    site.deploy(&site.script("", &options).replace(&probe, &copy.display().to_string()));
    site.launcher().kill();
    first.wait_end(LIMIT);
    let last = site.report.named("started").last().expect("the copy").pid;
    assert_eq!(fs::read_link(format!("/proc/{last}/exe")).ok(), Some(copy));
    assert_nobody_refused(&site, &prober.stop(), 1);
    site.stop();
}

/// A release is a folder of its own, and a deploy points a link to it.
fn p11_a_rejected_file_does_not_wait_if_a_link_to_it_was_switched(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let current = folder.join("current");
    let releases = ["bad", "good"].map(|name| {
        let release = folder.join(name);
        fs::create_dir(&release).expect("a folder");
        fs::copy(bin::probe(), release.join("probe")).expect("a copy");
        release
    });
    let switch = |to: &Path| {
        let new = folder.join("new");
        symlink(to, &new).expect("a link");
        fs::rename(new, &current).expect("its new target");
    };
    switch(&releases[0]);
    let options = format!("{SERVES_ON} --standby {WINDOW}");
    let script = site
        .script("", &options)
        .replace(&bin::probe().display().to_string(), &current.join("probe").display().to_string());
    site.deploy(&script);
    site.service().restart();
    let second = site.daemon(2);
    wait_standby(&site, &first, 2);
    second.kill();
    wait_serves_again(&site, &prober, &first, 1);
    site.log.wait(&[("stage", "init"), ("tries", "1")]);
    switch(&releases[1]);
    let third = site.daemon(3);
    let runs = fs::read_link(format!("/proc/{}/exe", third.pid())).ok();
    assert_eq!(runs, Some(releases[1].join("probe")), "{site}");
    assert_nobody_refused(&site, &prober.stop(), 1);
    end(&site);
}

/// `seamless commit` and `seamless rollback`; and what they say without a probation.
fn p11_an_operator_ends_the_probation(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let seamless = |verb: &str| {
        let mut command = std::process::Command::new(bin::support("seamless"));
        let output = command.arg(verb).arg(site.pid_file()).output().expect("seamless");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(seamless("commit").0, Some(4), "it is not on probation");
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    assert_eq!(seamless("rollback").0, Some(0), "{site}");
    wait_serves_again(&site, &prober, &first, 1);
    second.wait_end(LIMIT);
    // The operator wants another try of the same file, at once.
    site.log.wait(&[("stage", "init"), ("tries", "1")]);
    assert_eq!(seamless("restart").0, Some(0), "{site}");
    let third = site.daemon(3);
    assert_eq!(seamless("commit").0, Some(0), "{site}");
    first.wait_end(LIMIT);
    prober.wait_pid(third.pid());
    prober.stop().assert_all_answered();
    site.assert_one_generation(third.pid());
    site.stop();
}

/// `commit` returns when the record says so. Without a probation it does nothing.
fn p11_a_program_that_knows_that_it_works_commits(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let go = site.flag("go");
    let knows = format!("--at=started=file:{} --at=started=call:commit", go.display());
    let second = restart(&site, &first, &format!("{WINDOW} {knows} --at=started=call:commit"));
    prober.wait_pid(second.pid());
    assert!(!first.has_ended() && site.report.named("called").is_empty());
    fs::write(go, "").expect("a file");
    assert_eq!(site.report.wait_of(second.pid(), "called").text, "commit ok");
    let status = seamless("status", &site.pid_file(), &["--json"]).json();
    assert_eq!(status["probation"], Value::Null, "{status}");
    site.report.wait_nth("called", 2);
    first.wait_end(LIMIT);
    prober.stop().assert_all_answered();
    site.assert_one_generation(second.pid());
    site.stop();
}

/// Another thread may know that it works before `started` has returned.
fn p11_a_commit_while_started_asks_for_a_standby_waits_for_the_probation(
    kind: Supervisor,
    folder: &Path,
) {
    let (site, first, prober) = site(kind, folder);
    let go = site.flag("go");
    let ready = format!("--at=ready=file:{} --on={USR1}=call:commit", go.display());
    site.deploy_options(&format!("{SERVES_ON} --standby {WINDOW} {ready}"));
    site.service().restart();
    site.report.wait_nth("socket", 2);
    first.stop();
    fs::write(go, "").expect("a file");
    let record = || fs::read_to_string(site.lock_file()).expect("the record");
    wait_for("it serves", LIMIT, || record().contains("state=probation").then_some(()));
    let second = Watched::new(site.named().expect("the PID file names it"));
    second.signal(USR1);
    wait_for("the call", LIMIT, || {
        process::signals(second.pid()).is_some_and(|of| of.pending.is_empty()).then_some(())
    });
    first.signal(CONT);
    assert_eq!(site.report.wait_of(second.pid(), "called").text, "commit ok");
    assert!(!record().contains("state=probation"), "{}", record());
    first.wait_end(LIMIT);
    prober.wait_pid(second.pid());
    prober.stop().assert_all_answered();
    site.assert_one_generation(second.pid());
    site.stop();
}

/// `seamless restart --wait committed`, and `seamless status` meanwhile.
fn p11_restart_waits_for_the_commit_and_status_tells_of_the_probation(
    kind: Supervisor,
    folder: &Path,
) {
    let (site, first, prober) = site(kind, folder);
    let status = || seamless("status", &site.pid_file(), &["--json"]).json();
    let restart = || seamless("restart", &site.pid_file(), &["--wait=committed", "--json"]);
    assert!(status()["probation"].is_null() && status()["rejected"].is_null());
    site.deploy_options(&format!("{SERVES_ON} --standby --probation=8s"));
    let said = thread::scope(|scope| {
        let said = scope.spawn(restart);
        let (waited, seen) = wait_for(format_args!("the probation\n{site}"), LIMIT, || {
            let waits = !said.is_finished(); // before the look: it may take long
            let seen = status();
            let standby = &seen["probation"]["standby"]["generation"];
            // It is in the record a moment before it is asked to stand by.
            (*standby == 1 && !seen["probation"]["left"].is_null()).then_some((waits, seen))
        });
        let left = seen["probation"]["left"].as_f64().expect("a time");
        assert!(left <= 8.0, "{seen}");
        assert_eq!(seen["probation"]["standby"]["daemon"], first.pid(), "{seen}");
        assert_eq!(seen["draining"].as_array().map(Vec::len), Some(0), "{seen}");
        assert!(waited, "it waits for the commit");
        said.join().expect("no panic")
    });
    let said_of = |said: &Said| {
        let said = said.json();
        let number = |name: &str| said[name].as_u64().expect("a number");
        (said["verdict"].clone(), number("generation"), number("old_generation"))
    };
    assert_eq!((said.code, said_of(&said)), (0, ("committed".into(), 2, 1)), "{said:?}");
    first.wait_end(LIMIT);
    let second = site.daemon(2);
    prober.wait_pid(second.pid());
    site.service().settle();
    // A bad version: the one that was committed serves again. Tried once more at once, it is as bad.
    site.deploy_options(&format!("{SERVES_ON} --standby {WINDOW} --crash-after=10"));
    let mut failed = 0;
    for times in 1..=2_usize {
        let said = restart();
        let (verdict, generation, old) = said_of(&said);
        // Where this comes late, the file is tried anew already, and that try is asked.
        let is_late = times == 2 && old > failed;
        assert!(old == 2 || is_late, "{said:?}\n{site}");
        assert_eq!((said.code, verdict), (4, "rolled-back".into()), "{said:?}\n{site}");
        assert_eq!(said.json()["reason"], "its process has ended");
        assert!(generation > failed.max(2), "{said:?}");
        failed = generation;
        wait_serves_again(&site, &prober, &second, times);
        let seen = wait_for(format_args!("it waits\n{site}"), LIMIT, || {
            Some(status()).filter(|seen| !seen["rejected"]["next_try"].is_null())
        });
        assert_eq!((&seen["daemon"], &seen["probation"]), (&second.pid().into(), &Value::Null));
        assert_eq!(seen["rejected"]["generation"], failed, "{seen}");
        let tries = seen["rejected"]["tries"].as_u64().expect("a number");
        assert!(tries == times as u64 || is_late && tries > 1, "{seen}");
        let left = seen["rejected"]["next_try"].as_f64().expect("a time");
        assert!(left <= f64::from(1 << tries), "{seen}");
    }
    assert_nobody_refused(&site, &prober.stop(), 3);
    end(&site);
}

/// A restart is asked of a generation on probation, which crashes before the next one starts: that the one before
/// it serves again is not what was asked for.
fn p11_who_serves_again_has_not_taken_over(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    site.service().settle();
    let go = site.flag("go");
    site.deploy_options(&format!("{SERVES_ON} --at=after-init=file:{}", go.display()));
    thread::scope(|scope| {
        let said = scope.spawn(|| seamless("restart", &site.pid_file(), &["--json"]));
        site.report.wait_nth("init", 3);
        second.signal(KILL);
        wait_serves_again(&site, &prober, &first, 1);
        assert!(!said.is_finished(), "it waits for the third");
        fs::write(&go, "").expect("a file");
        let said = said.join().expect("no panic").json();
        let third = site.daemon(3).pid();
        assert_eq!((&said["verdict"], &said["daemon"]), (&"committed".into(), &third.into()));
    });
    first.wait_end(LIMIT);
    assert_nobody_refused(&site, &prober.stop(), 1);
    site.service().settle();
    site.stop();
}

/// It waits for 2 s, and systemd gives a start 1 s: more time is asked for.
#[test]
fn p11_under_systemd_a_rejected_file_may_wait_for_longer_than_a_start_may_take() {
    systemd::run(Boxed::new().private_net(), |systemd, folder| {
        let direct = Site::alone(folder);
        let target = Target::from(boxed::address());
        systemd.unit(
            "web.service",
            &format!(
                "[Unit]\nDefaultDependencies=no\nStartLimitIntervalSec=0\n[Service]\nType=notify\n\
                 KillMode=process\nRestart=always\nRestartSec=0\nTimeoutStartSec=1s\n\
                 StandardError=append:{}\nEnvironment=RUST_LOG=debug\nExecStart={} --pid-file={} --report={} --tcp={target} {WINDOW}",
                direct.log.path().display(),
                bin::probe().display(),
                direct.pid_file().display(),
                direct.report.path().display(),
            ),
        );
        systemd.control(&["start", "web"]);
        let first = direct.daemon(1);
        let prober = Prober::start(&target);
        prober.wait_pid(first.pid());
        systemd.control(&["restart", "web"]);
        let second = direct.daemon(2);
        wait_standby(&direct, &first, 2);
        prober.wait_pid(second.pid());
        second.kill();
        wait_serves_again(&direct, &prober, &first, 1);
        let waits = direct.log.wait(&[("stage", "init"), ("tries", "1")]);
        let third = direct.daemon(3);
        assert_eq!(third.pid(), waits.number("daemon"), "its start was given up\n{direct}");
        assert_nobody_refused(&direct, &prober.stop(), 1);
        systemd.control(&["stop", "web"]);
        first.wait_end(LIMIT);
        third.wait_end(LIMIT);
    });
}

#[test]
fn p11_in_place() {
    Boxed::new().private_net().run(|folder| {
        let (serves, window) = (SERVES_ON, WINDOW);
        let scene = Scene::new(folder, &[serves, "--standby"]);
        let first = Watched::new(scene.current());
        scene.deploy(window);
        scene.reload();
        let second = scene.direct.daemon(2);
        wait_standby(&scene.direct, &first, 2);
        scene.prober.wait_pid(second.pid());
        second.kill();
        wait_serves_again(&scene.direct, &scene.prober, &first, 1);
        // Nobody waits in place. This one passes.
        scene.deploy("--probation=1s");
        scene.reload();
        let third = scene.direct.daemon(3);
        first.wait_end(LIMIT);
        scene.prober.wait_pid(third.pid());
        assert_nobody_refused(&scene.direct, &scene.prober.stop(), 1);
    });
}

/// Longer than a launcher waits before it tells older generations that a newer one has taken over.
const OVERDUE: Duration = Duration::from_millis(1200);

/// A second after the commit, the launcher tells older generations that they were taken over from. The one that
/// stands by by then is none of these.
#[test]
fn p11_in_place_the_next_version_comes_right_after_the_commit() {
    Boxed::new().private_net().run(|folder| {
        let scene = Scene::new(folder, &[SERVES_ON, "--standby"]);
        let first = Watched::new(scene.current());
        scene.deploy("--probation=1ms");
        scene.reload();
        let second = scene.direct.daemon(2);
        first.wait_end(LIMIT);
        let committed = Instant::now();
        scene.deploy(WINDOW);
        scene.reload();
        let third = scene.direct.daemon(3);
        wait_standby(&scene.direct, &second, 3);
        scene.prober.wait_pid(third.pid());
        thread::sleep(OVERDUE.saturating_sub(committed.elapsed())); // nothing is to happen
        third.kill();
        wait_serves_again(&scene.direct, &scene.prober, &second, 1);
        assert_nobody_refused(&scene.direct, &scene.prober.stop(), 2);
    });
}

/// Without `--timeout`, `seamless restart --wait committed` gives up no probation, however late the commit is written.
#[test]
fn restart_waits_for_a_commit_that_is_late() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&[SERVES_ON]);
        let wait = ["--wait=committed"];
        let said = thread::scope(|scope| {
            let said = scope.spawn(|| seamless("restart", &direct.pid_file(), &wait));
            first.wait_end();
            let (_second, _new) = direct.start_ready(&[SERVES_ON, "--probation=1s"]);
            // The record cannot be written while somebody else has the claim.
            let lock_file = File::options().read(true).write(true).open(direct.lock_file());
            let lock_file = lock_file.expect("the lock file");
            take_claim(&lock_file);
            let began = Instant::now();
            wait_for("what it once waited for", LIMIT, || {
                (said.is_finished() || began.elapsed() > Duration::from_secs(13)).then_some(())
            });
            drop(lock_file);
            let said = said.join().expect("no panic");
            old.wait_end(LIMIT);
            said
        });
        said.assert(0, &["generation 2 ", "took over from generation 1"]);
    });
}
