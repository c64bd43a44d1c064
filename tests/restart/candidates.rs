//! P11, P12: a program file that has failed waits in `init`, connected with the generation that serves. And what
//! operators reach while the new generation hangs.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
    time::{Duration, Instant, SystemTime},
};

use seamless_testing::{
    LIMIT, bin,
    boxed::Boxed,
    handover::End,
    probation::{WINDOW, assert_nobody_refused, end, restart, site, wait_serves_again},
    process::{self, Watched},
    signal::CONT,
    site::{SERVES_ON, Site},
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

use serde_json::Value;

use crate::command::{seamless, uptime};

under_each_supervisor![
    Boxed::new().private_net() =>
    p11_an_operator_s_restart_and_a_term_by_hand_skip_the_wait,
    p11_a_file_that_was_replaced_or_touched_while_it_waits_is_tried_at_once,
    p11_a_file_that_was_repaired_in_place_is_tried_at_once,
    p12_a_crash_beside_a_candidate_refuses_nobody,
    p11_rollback_and_status_reach_the_standby_if_the_new_one_hangs,
    p11_a_pause_begins_the_probation_anew,
    p11_a_wish_after_a_candidate_has_gone_is_for_the_next_one,
    p11_a_version_that_died_while_nobody_could_book_it_waits,
    p11_a_candidate_that_finds_no_ear_leaves_a_sign_in_the_record,
];

/// It waits after so many failures, and the generation that serves knows.
#[track_caller]
pub(super) fn wait_candidate(site: &Site, tries: usize) -> u32 {
    let waits = site.log.wait(&[("stage", "init"), ("tries", &tries.to_string())]);
    let candidate = waits.number("daemon");
    site.log.wait(&[("stage", "candidate"), ("candidate", &candidate.to_string())]);
    candidate
}

/// Until the file that is deployed has failed six times, and waits for 64 s: nothing here takes as long, however slow
/// the machine is. Returns who waits, and what `status` says.
#[track_caller]
fn wait_long_pause(site: &Site) -> (u32, Value) {
    loop {
        let seen = wait_for(format_args!("it waits\n{site}"), LIMIT, || {
            let seen = seamless("status", &site.pid_file(), &["--json"]).json();
            Some(seen).filter(|seen| !seen["rejected"]["candidate"].is_null())
        });
        if seen["rejected"]["tries"].as_u64() >= Some(6) {
            let candidate = seen["rejected"]["candidate"].as_u64().expect("a PID");
            return (candidate as u32, seen);
        }
        // It may have gone on by itself meanwhile.
        seamless("restart", &site.pid_file(), &["--wait=committed"]);
    }
}

fn p11_an_operator_s_restart_and_a_term_by_hand_skip_the_wait(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    site.deploy_options(&format!("{SERVES_ON} {WINDOW} --at=started=exit:1"));
    site.service().restart();
    let (candidate, seen) = wait_long_pause(&site);
    let tries = seen["rejected"]["tries"].as_u64().expect("a number");
    let left = seen["rejected"]["next_try"].as_f64().expect("a time");
    assert!(left > 0.0 && left <= 64.0, "{seen}");
    site.service().settle();
    let told = Instant::now();
    site.service().restart();
    site.log.wait(&[
        ("stage", "candidate"),
        ("candidate", &candidate.to_string()),
        ("cause", "told"),
    ]);
    wait_candidate(&site, tries as usize + 1);
    assert!(told.elapsed() < Duration::from_secs(60), "it has waited for 64 s\n{site}");
    // A version that works is the same file here: it is tried at once as well.
    site.deploy_options(&format!("{SERVES_ON} --standby --probation=1s"));
    site.service().settle();
    site.service().restart();
    first.wait_end(LIMIT);
    let started = site.report.named("started");
    // Each of those that have died may have held one.
    assert_nobody_refused(&site, &prober.stop(), started.len());
    site.assert_one_generation(started.last().expect("it has started").pid);
    site.stop();
}

/// `install` renames another file over it; what writes into the file changes its time.
fn p11_a_file_that_was_replaced_or_touched_while_it_waits_is_tried_at_once(
    kind: Supervisor,
    folder: &Path,
) {
    for replaced in [true, false] {
        let folder = folder.join(if replaced { "replaced" } else { "touched" });
        fs::create_dir_all(&folder).expect("a folder");
        let (site, first, prober) = site(kind, &folder);
        let program = folder.join("program");
        fs::copy(bin::probe(), &program).expect("a copy");
        let deploy = |options: &str| {
            let script = site.script("", &format!("{SERVES_ON} --standby {options}"));
            let (probe, program) = (bin::probe(), program.display().to_string());
            site.deploy(&script.replace(&probe.display().to_string(), &program));
        };
        deploy(&format!("{WINDOW} --at=started=exit:1"));
        site.service().restart();
        let (candidate, _) = wait_long_pause(&site);
        let launcher = site.launcher();
        deploy("--probation=1s");
        if replaced {
            let beside = folder.join("beside");
            fs::copy(bin::probe(), &beside).expect("a copy");
            fs::rename(beside, &program).expect("a rename");
        } else {
            let file = File::open(&program).expect("the program");
            file.set_modified(SystemTime::UNIX_EPOCH).expect("its time");
        }
        let launcher = launcher.pid().to_string();
        site.log.wait(&[("stage", "end"), ("launcher", &launcher), ("exit_code", "75")]);
        first.wait_end(LIMIT);
        // It has not waited.
        let last = site.report.named("started").last().expect("it has started").pid;
        assert_ne!(last, candidate);
        let waits = site.log.stage("init");
        assert!(waits.iter().all(|line| line.number("daemon") != last), "{site}");
        assert_nobody_refused(&site, &prober.stop(), site.report.named("started").len());
        site.assert_one_generation(last);
        site.stop();
    }
}

/// The same inode with new content. While it waits nobody can write to it (ETXTBSY), so it ends before that.
fn p11_a_file_that_was_repaired_in_place_is_tried_at_once(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let (program, repaired) = (folder.join("program"), folder.join("repaired"));
    fs::copy(bin::probe(), &program).expect("a copy");
    let file = || fs::metadata(&program).expect("the program");
    let script = |options: &str| {
        let script = site.script("", &format!("{SERVES_ON} --standby {options}"));
        let (probe, program) = (bin::probe(), program.display().to_string());
        script.replace(&probe.display().to_string(), &program)
    };
    site.deploy(&script(&format!("{WINDOW} --at=started=exit:1")));
    site.service().restart();
    let candidate = Watched::new(wait_long_pause(&site).0);
    let launcher = site.launcher();
    let (waits, before) = (site.log.stage("init").len(), file());
    let until = format!("until [ -e '{}' ]; do sleep 0.05; done", repaired.display());
    site.deploy(&format!("{until}\n{}", script("--probation=1s")));
    launcher.kill();
    candidate.wait_end(LIMIT);
    let mut write = std::process::Command::new("sh");
    write.args(["-c", r#"cat "$1" >"$2" && echo >>"$2""#, "sh"]).arg(bin::probe()).arg(&program);
    assert!(write.status().expect("sh").success());
    let after = file();
    assert_eq!((after.dev(), after.ino()), (before.dev(), before.ino()));
    assert_ne!((after.len(), after.modified().ok()), (before.len(), before.modified().ok()));
    fs::write(repaired, "").expect("a file");
    first.wait_end(LIMIT);
    let last = site.report.named("started").last().expect("it has started").pid;
    assert_ne!(last, candidate.pid());
    assert_eq!(site.log.stage("init").len(), waits, "it has not waited\n{site}");
    let runs = fs::metadata(format!("/proc/{last}/exe")).expect("its file");
    assert_eq!((runs.dev(), runs.ino()), (after.dev(), after.ino()));
    assert_nobody_refused(&site, &prober.stop(), site.report.named("started").len());
    site.assert_one_generation(last);
    site.stop();
}

/// The detached one has no launcher that could start a keeper.
fn p12_a_crash_beside_a_candidate_refuses_nobody(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    second.kill();
    wait_serves_again(&site, &prober, &first, 1);
    let candidate = wait_candidate(&site, 1);
    let has_copies = [("stage", "transfer"), ("candidate", &candidate.to_string())];
    site.log.wait(&has_copies);
    first.kill();
    let third = site.daemon(3);
    assert_eq!(third.pid(), candidate, "it goes on at once\n{site}");
    site.log.wait(&[
        ("stage", "transfer"),
        ("daemon", &candidate.to_string()),
        ("predecessor_generation", "1"),
    ]);
    prober.wait_pid(third.pid());
    site.service().settle();
    let fourth = site.restart(third.pid(), SERVES_ON);
    prober.wait_pid(fourth);
    // One was held by each of those that have died.
    assert_nobody_refused(&site, &prober.stop(), 2);
    site.assert_one_generation(fourth);
    site.stop();
}

fn p11_rollback_and_status_reach_the_standby_if_the_new_one_hangs(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    process::stop_without_claim(&second);
    let seen = wait_for(format_args!("it serves beside it\n{site}"), LIMIT, || {
        let said = seamless("status", &site.pid_file(), &["--json", "--timeout=500ms"]);
        let seen = said.json();
        let beside = seen["probation"]["standby_state"] == "detached";
        beside.then_some((said.code, seen))
    });
    assert_eq!((seen.0, &seen.1["serving"]), (0, &true.into()), "{seen:?}");
    assert_eq!(seen.1["probation"]["standby"]["daemon"], first.pid(), "{seen:?}");
    let said = seamless("rollback", &site.pid_file(), &["--timeout=4s"]);
    said.assert(0, &["generation 2 is rolled back"]);
    wait_for(format_args!("its file\n{site}"), LIMIT, || {
        (site.named() == Some(first.pid())).then_some(())
    });
    second.signal(CONT);
    assert_eq!(site.report.wait_of(second.pid(), "wait").text, "RolledBack");
    second.wait_end(LIMIT);
    assert!(!first.has_ended());
    assert_nobody_refused(&site, &prober.stop(), 1);
    end(&site);
}

/// It hangs until its time is over. That it lives then proves nothing.
fn p11_a_pause_begins_the_probation_anew(kind: Supervisor, folder: &Path) {
    const TIME: Duration = Duration::from_secs(8);
    let (site, first, prober) = site(kind, folder);
    let options = format!("--probation={}s", TIME.as_secs());
    let second = restart(&site, &first, &options);
    // Its thread for signals knows: otherwise the first time would begin after the pause.
    site.log.wait_words(&["stage=probation", "limit_ms"], 1);
    process::stop_without_claim(&second);
    let stopped = Instant::now();
    wait_serves_again(&site, &prober, &first, 1);
    thread::sleep(TIME.saturating_sub(stopped.elapsed()));
    let anew = Instant::now();
    second.signal(CONT);
    let of_second = second.pid().to_string();
    first.wait_end(LIMIT);
    assert!(anew.elapsed() >= TIME, "it has passed {:?} after the pause\n{site}", anew.elapsed());
    let lines = site.log.lines();
    let at = |stage: &str, field: &str| {
        let of_it = |line: &&seamless_testing::log::Line| {
            line.is(&[("stage", stage), ("daemon", &of_second)]) && line.field(field).is_some()
        };
        lines.iter().filter(of_it).count()
    };
    assert_eq!((at("probation", "elapsed_ms"), at("commit", "generation")), (1, 1), "{site}");
    prober.stop().assert_all_answered();
    site.assert_one_generation(second.pid());
    site.stop();
}

/// What has waited is killed, and what the supervisor starts now is not the service. An operator wants another try.
fn p11_a_wish_after_a_candidate_has_gone_is_for_the_next_one(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let fails = format!("{SERVES_ON} {WINDOW} --at=started=exit:1");
    site.deploy_options(&fails);
    site.service().restart();
    let (candidate, seen) = wait_long_pause(&site);
    let tries = seen["rejected"]["tries"].as_u64().expect("a number");
    let (candidate, launcher) = (Watched::new(candidate), site.launcher());
    site.service().settle();
    site.deploy("exec sleep 1000");
    launcher.kill();
    candidate.wait_end(LIMIT);
    let nothing = Watched::new(site.service().main_pid_after(launcher.pid()));
    // It has seen the end of that connection by then.
    site.wait_checks(first.pid(), 2);
    let operator = End::connect(&site.socket());
    operator.send("seamless-takeover 1 restart");
    assert_eq!(operator.text(), "seamless-takeover 1 accepted");
    site.deploy_options(&fails);
    nothing.kill();
    let told = Instant::now();
    wait_candidate(&site, tries as usize + 1);
    assert!(told.elapsed() < Duration::from_secs(60), "it has waited for 64 s\n{site}");
    assert_nobody_refused(&site, &prober.stop(), site.report.named("started").len());
    end(&site);
}

/// The one that stands by is stopped when the new one dies: the next start finds out by itself what has failed.
fn p11_a_version_that_died_while_nobody_could_book_it_waits(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    let second = restart(&site, &first, WINDOW);
    prober.wait_pid(second.pid());
    process::stop_without_claim(&first);
    second.kill();
    site.log.wait(&[("stage", "init"), ("tries", "1")]);
    first.signal(CONT);
    wait_serves_again(&site, &prober, &first, 1);
    assert_nobody_refused(&site, &prober.stop(), 1);
    end(&site);
}

/// What the record says of the last claim, and of the next try: in milliseconds since the boot.
fn signs(site: &Site) -> (u64, Option<u64>) {
    let record = fs::read_to_string(site.lock_file()).expect("the record");
    let head = record.lines().next().expect("a line");
    let field = |name: &str| {
        let (_, rest) = head.split_once(&format!(" {name}="))?;
        rest.split(' ').next()?.parse().ok()
    };
    (field("last").expect("a number"), field("next_try"))
}

/// The generation that serves is stopped when it comes. It tries again each second, and is connected at last.
fn p11_a_candidate_that_finds_no_ear_leaves_a_sign_in_the_record(kind: Supervisor, folder: &Path) {
    let (site, first, prober) = site(kind, folder);
    site.deploy_options(&format!("{SERVES_ON} {WINDOW} --at=started=exit:1"));
    site.service().restart();
    let (candidate, _) = wait_long_pause(&site);
    let (candidate, launcher) = (Watched::new(candidate), site.launcher());
    let waits = site.log.stage("candidate").len();
    process::stop_without_claim(&first);
    let (before, _) = signs(&site);
    launcher.kill();
    candidate.wait_end(LIMIT);
    wait_for(format_args!("signs in the record\n{site}"), LIMIT, || {
        let (last, next_try) = signs(&site);
        assert!(last >= before, "{last} after {before}");
        let left = next_try?.checked_sub((uptime() * 1000.0) as u64)?;
        (last >= before + 3 && left <= 64_000).then_some(())
    });
    first.signal(CONT);
    wait_for(format_args!("it is connected\n{site}"), LIMIT, || {
        (site.log.stage("candidate").len() > waits).then_some(())
    });
    assert_nobody_refused(&site, &prober.stop(), site.report.named("started").len());
    end(&site);
}
