//! P9: files that are removed by hand and processes that are KILLed, the supervisor among them, at
//! each stage. Whoever is left serves, and the next restart and the next stop work.
//!
//! Each service is asked every 20 ms, and no request fails, but where a test says so.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
};

use seamless_testing::{
    LIMIT, as_each_user,
    boxed::{Boxed, Isolation},
    http::{Connection, Prober, answer_of},
    innocent::Innocent,
    process::{self, NOBODY, Watched, stop_without_claim},
    report, scene,
    signal::{CONT, TERM},
    site::{ENDS_SOON, SERVES_ON, Site, User},
    supervisor::Supervisor,
    wait_for,
};

as_each_user![
    p9_restarts_when_files_were_removed,
    p9_successors_killed_while_they_take_over,
    p9_the_supervisor_killed_at_each_stage,
];

// ---- files ----

#[derive(Clone, Copy, Debug)]
enum Removed {
    PidFile,
    LockFile,
    Both,
    /// Renamed away, and made anew.
    Folder,
}

/// All of them at a time, each with a service of its own.
fn p9_restarts_when_files_were_removed(kind: Supervisor, folder: &Path, user: User) {
    let cases = [Removed::PidFile, Removed::LockFile, Removed::Both, Removed::Folder];
    scene::each(folder, cases, |folder, removed| {
        let site = Site::at(folder).user(user).options(SERVES_ON).under(kind);
        let prober = Prober::start(&site.target);
        let first = site.started(1);
        prober.wait_pid(first);
        let remove = |file| fs::remove_file(file).expect("it was there");
        match removed {
            Removed::PidFile => remove(site.pid_file()),
            Removed::LockFile => remove(site.lock_file()),
            Removed::Both => {
                remove(site.pid_file());
                remove(site.lock_file());
            }
            Removed::Folder => site.replace_run(),
        }
        let second = site.restart(first, SERVES_ON);
        prober.wait_pid(second);
        site.assert_one_generation(second);
        let third = site.restart(second, ENDS_SOON);
        prober.wait_pid(third);
        site.assert_one_generation(third);

        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), [first, second, third], "{removed:?}");
        site.stop();
        // Nor is anything left behind that keeps it from starting again.
        site.service().up();
        site.assert_one_generation(site.started(4));
        site.stop();
    });
}

/// Whose the folder is. In that of its user, a lock file that root has made is given to him; in
/// that of root's he may not open it, though he may write to the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FolderOf {
    User,
    Root,
}

/// Who makes the lock file anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Makes {
    /// The old daemon, in its next look round, as the user that it has become.
    Old,
    /// Its successor, before it gives up root.
    Successor,
}

/// It gives way to its successor, and that one is restarted, stopped and started as ever. A number
/// in the PID file, which is all that is left, gets nobody killed.
#[test]
fn p4_p5_a_service_that_gave_up_root_gives_way_without_the_lock_file() {
    let boxed = Boxed::new().needs(Isolation::Namespaces);
    boxed.run(|folder| {
        let cases =
            [FolderOf::User, FolderOf::Root].map(|of| [(of, Makes::Old), (of, Makes::Successor)]);
        scene::each(folder, cases.concat(), |folder, (of, makes)| {
            report::for_all_users(folder);
            match of {
                FolderOf::User => chown(folder, Some(NOBODY), None).expect("chown"),
                FolderOf::Root => {
                    let all = fs::Permissions::from_mode(0o777);
                    fs::set_permissions(folder, all).expect("its mode");
                }
            }
            let direct = Site::alone(folder);
            let options = [&format!("--at=after-init=user:{NOBODY}"), SERVES_ON];
            let (mut first, old) = direct.start_ready(&options);
            first.detach();
            direct.wait_checks(old.pid(), 1);
            stop_without_claim(&old);
            let innocent = Innocent::start();
            fs::remove_file(direct.lock_file()).expect("the lock file");
            fs::remove_file(direct.pid_file()).expect("the PID file");
            fs::write(direct.pid_file(), format!("{}\n", innocent.pid())).expect("a PID file");
            if makes == Makes::Old {
                old.signal(CONT);
                direct.log.wait_words(&["stage=check", "the record was lost: entered again"], 1);
                direct.log.wait_words(&["stage=check", "ours is back"], 1);
                assert_eq!(owner(&direct.lock_file()), NOBODY);
            }
            let (mut second, new) = direct.start_ready(&options);
            old.signal(CONT);
            let reason = direct.report.wait_of(old.pid(), "wait").text;
            assert_eq!(reason, "TakenOver", "{}", direct.log);
            old.wait_end(LIMIT);
            let roots = (of, makes) == (FolderOf::Root, Makes::Successor);
            assert_eq!(owner(&direct.lock_file()), if roots { 0 } else { NOBODY });
            let denied = direct.log.text().contains("cannot open");
            assert_eq!(denied, roots, "it looked at the PID file alone: {}", direct.log);

            // A restart, a stop and a start.
            second.detach();
            direct.wait_checks(new.pid(), 1);
            let (mut third, newest) = direct.start_ready(&options);
            assert_eq!(direct.report.wait_of(new.pid(), "wait").text, "TakenOver");
            new.wait_end(LIMIT);
            newest.signal(TERM);
            assert!(third.wait_end().success());
            if (of, makes) == (FolderOf::Root, Makes::Old) {
                // Nobody is left who vouches for a file that anybody could have put there.
                let text = direct.start(&options).wait_error().text;
                let hint = "of whom no live generation is known; remove it if it is a leftover";
                assert!(text.contains(&format!("{:?}", direct.lock_file())), "{text}");
                assert!(text.ends_with(hint), "{text}");
                fs::remove_file(direct.lock_file()).expect("the lock file");
            }
            let (fourth, last) = direct.start_ready(&options);
            let mut left = vec![fourth.launcher.pid(), last.pid()];
            left.sort_unstable();
            assert_eq!(scene::pids(folder), left);
            assert_eq!(direct.named(), Some(last.pid()));
            innocent.assert_unharmed();
        });
    });
}

fn owner(path: &Path) -> u32 {
    fs::metadata(path).expect("the file").uid()
}

// ---- successors ----

/// How far a successor has come in `started`. It stops there, at the end of a system call, by
/// `strace`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    /// The PID file names it, the record does not.
    Renamed,
    /// The record lists it.
    Recorded,
    /// It has sent TERM to its predecessor.
    Signalled,
}

impl Point {
    /// What comes before the program in a command line. The tracer is nobody's child, so that the
    /// program has its supervisor as its parent.
    fn stop(self, site: &Site) -> String {
        let (call, nth) = match self {
            Point::Renamed => ("rename", 1),
            Point::Recorded => ("ftruncate", 2), // the first is that of the claim
            Point::Signalled => ("pidfd_send_signal", 1),
        };
        let inject = format!("inject={call}:signal=STOP:when={nth}");
        let trace = site.flag("trace");
        format!("strace -DDD -f -qq -o '{}' -e trace={call} -e {inject}", trace.display())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victims {
    Daemon,
    /// Both at once.
    DaemonAndLauncher,
}

fn p9_successors_killed_while_they_take_over(kind: Supervisor, folder: &Path, user: User) {
    let site = Site::at(folder).user(user).options(SERVES_ON).under(kind);
    let prober = Prober::start(&site.target);
    let old = site.daemon(1);
    prober.wait_pid(old.pid());
    site.service().settle();
    site.deploy(&site.script(&Point::Renamed.stop(&site), SERVES_ON));
    site.service().restart();

    let (daemon, both) = (Victims::Daemon, Victims::DaemonAndLauncher);
    let rounds = [(Point::Renamed, daemon), (Point::Renamed, both), (Point::Recorded, both)];
    let mut back = 0;
    for (round, (point, victims)) in rounds.into_iter().enumerate() {
        let new = stopped_successor(&site, old.pid(), point);
        prober.wait_more(3);
        assert!(site.report.named("wait").is_empty(), "nobody was told to drain");
        // Until the old generation has seen to its file, nothing starts.
        site.deploy("exit 1");
        kill(&new, victims);
        back += 1;
        wait_for(format!("its file is back, {back}: {}", site.log), LIMIT, || {
            let mut lines = site.log.stage("check");
            lines.retain(|line| line.field("reason").is_some_and(|why| why.ends_with("is back")));
            (lines.len() >= back).then_some(())
        });
        assert_eq!(site.named(), Some(old.pid()), "{point:?} {victims:?}");
        let next = rounds.get(round + 1).map_or(Point::Signalled, |(point, _)| *point);
        site.deploy(&site.script(&next.stop(&site), SERVES_ON));
    }

    // The predecessor of this one drains, and it dies itself: nobody is left. From that TERM on until
    // the supervisor has started the next one, requests are refused.
    let new = stopped_successor_or_later(&site, old.pid());
    old.wait_end(LIMIT);
    assert_eq!(site.report.wait_of(old.pid(), "wait").text, "TakenOver");
    let probes = prober.stop();
    assert!(probes.answers.len() >= 9, "{probes:?}");
    assert_eq!(probes.pids(), [old.pid()]);
    let since = probes.answers.last().expect("answers").at;
    let early: Vec<_> = probes.failures.iter().filter(|failed| failed.at < since).collect();
    assert!(early.is_empty(), "while it served: {early:?}");
    site.deploy_options(SERVES_ON);
    kill(&new, both);
    let second = site.started(2);
    site.assert_one_generation(second);
    let prober = Prober::start(&site.target);
    prober.wait_pid(second);
    let third = site.restart(second, ENDS_SOON);
    prober.wait_pid(third);
    prober.stop().assert_all_answered();
    site.assert_one_generation(third);
    site.stop();
}

/// The launcher of the successor that stands still, and its daemon.
type Pair = [Watched; 2];

#[track_caller]
fn stopped_successor(site: &Site, old: u32, point: Point) -> Pair {
    let pair = stopped_successor_or_later(site, old);
    let record = fs::read_to_string(site.lock_file()).expect("the record");
    let daemon = pair[1].pid();
    let lists = |pid: u32| {
        let mut live = record.lines().filter(|line| line.starts_with("generation="));
        live.any(|line| line.contains(&format!(" daemon={pid}:")))
    };
    assert_eq!(lists(daemon), point == Point::Recorded, "{point:?}: {record}");
    assert!(lists(old), "{record}");
    pair
}

#[track_caller]
fn stopped_successor_or_later(site: &Site, old: u32) -> Pair {
    let daemon = wait_for(format!("a successor that stands still: {}", site.log), LIMIT, || {
        let named = site.named().filter(|named| *named != old)?;
        let trace = fs::read_to_string(site.flag("trace")).ok()?;
        let stopped = |line: &str| {
            line.split(' ').next() == Some(&named.to_string()) && line.ends_with("by SIGSTOP ---")
        };
        trace.lines().any(stopped).then_some(named)
    });
    let launcher = process::stat(daemon).expect("just seen").ppid;
    site.service().wait_until("its launcher", |status| status.pid == Some(launcher));
    [Watched::new(launcher), Watched::new(daemon)]
}

fn kill([launcher, daemon]: &Pair, victims: Victims) {
    daemon.kill();
    if victims == Victims::DaemonAndLauncher {
        launcher.kill();
    }
    daemon.wait_end(LIMIT);
    launcher.wait_end(LIMIT);
}

// ---- the supervisor ----

#[derive(Clone, Copy, Debug)]
enum Stage {
    Serving,
    /// Its TERM has arrived, and the launcher has not asked it yet what that means.
    Asked,
    /// Detached, and no launcher runs.
    Gap,
    /// Detached, and what is to be a successor's launcher has not seen its supervisor yet.
    Launching,
    /// Detached, and a successor is between `init` and `started`.
    SuccessorStarting,
    /// The same, and it hangs there.
    SuccessorHanging,
    /// A successor serves, and a request is still to be answered.
    Draining,
}

/// All of them at a time, each with a service of its own.
pub(crate) fn p9_the_supervisor_killed_at_each_stage(kind: Supervisor, folder: &Path, user: User) {
    let stages = [
        Stage::Serving,
        Stage::Asked,
        Stage::Gap,
        Stage::Launching,
        Stage::SuccessorStarting,
        Stage::SuccessorHanging,
        Stage::Draining,
    ];
    scene::each(folder, stages, |folder, stage| {
        let mut site = Site::at(folder).user(user).options(SERVES_ON).under(kind);
        let prober = Prober::start(&site.target);
        let first = site.started(1);
        prober.wait_pid(first);
        let request = Connection::unfinished(&site.target);
        let mut generations = vec![first];
        site.service().settle();
        let launcher = site.launcher();
        match stage {
            Stage::Serving => {
                site.service_mut().kill_supervisor();
                assert!(!launcher.has_ended());
                site.service_mut().start_supervisor();
            }
            Stage::Asked => {
                launcher.stop();
                site.service().restart();
                wait_for("its TERM", LIMIT, || {
                    process::signals(launcher.pid())?.pending.contains(TERM).then_some(())
                });
                site.service_mut().kill_supervisor();
                launcher.signal(CONT);
                launcher.wait_end(LIMIT);
                site.wait_checks(first, 1);
                let launcher = launcher.pid().to_string();
                site.log.wait(&[("stage", "handoff"), ("launcher", &launcher)]);
                site.service_mut().start_supervisor();
            }
            Stage::Gap => {
                site.deploy("exit 1");
                site.service().restart();
                launcher.wait_end(LIMIT);
                site.wait_checks(first, 1);
                site.service_mut().kill_supervisor();
                site.wait_checks(first, 1);
                site.deploy_options(SERVES_ON);
                site.service_mut().start_supervisor();
            }
            Stage::Launching => {
                let starts = site.flag("starts");
                let script = site.script("", SERVES_ON);
                site.deploy(&format!(
                    "touch '{}'\nwhile [ -d /proc/$PPID ]; do sleep 0.05; done\n{script}",
                    starts.display(),
                ));
                site.service().restart();
                wait_for("the script runs", LIMIT, || starts.exists().then_some(()));
                site.service_mut().kill_supervisor();
                let orphan = site.started(2);
                prober.wait_pid(orphan);
                generations.push(orphan);
                let launcher = process::stat(orphan).expect("it serves").ppid.to_string();
                let gone =
                    ("reason", "the supervisor has ended already: nobody restarts this launcher");
                site.log.wait(&[("stage", "launch"), ("launcher", &launcher), gone]);
                if user == User::Root {
                    let kind = format!("{kind:?}").to_lowercase();
                    let fields = [("launcher", &*launcher), ("supervisor_kind", &*kind)];
                    site.log.wait(&fields);
                }
                site.deploy_options(SERVES_ON);
                site.service_mut().start_supervisor();
            }
            Stage::SuccessorStarting => {
                let go = site.flag("go");
                site.deploy_options(&format!("{SERVES_ON} --at=after-init=file:{}", go.display()));
                site.service().restart();
                let starting = Watched::new(site.report.wait_nth("init", 2).pid);
                let launcher = Watched::new(process::stat(starting.pid()).expect("it").ppid);
                site.service_mut().kill_supervisor();
                site.service_mut().start_supervisor();
                site.log.wait(&[("stage", "claim"), ("holder", &starting.pid().to_string())]);
                assert!(!launcher.has_ended() && !starting.has_ended());
                fs::write(go, "").expect("a file");
                site.report.wait_of(starting.pid(), "started");
                generations.push(starting.pid());
                site.started(3);
                starting.wait_end(LIMIT);
                launcher.wait_end(LIMIT);
                assert_eq!(site.report.wait_of(starting.pid(), "wait").text, "TakenOver");
            }
            Stage::SuccessorHanging => {
                site.deploy_options(&format!(
                    "{SERVES_ON} --claim-timeout=500ms --at=after-init=hang"
                ));
                site.service().restart();
                let hanging = Watched::new(site.report.wait_nth("init", 2).pid);
                let launcher = Watched::new(process::stat(hanging.pid()).expect("it").ppid);
                site.service_mut().kill_supervisor();
                site.deploy_options(SERVES_ON);
                site.service_mut().start_supervisor();
                hanging.wait_end(LIMIT);
                launcher.wait_end(LIMIT);
                let hanging = hanging.pid().to_string();
                let ended = [("stage", "end"), ("daemon", &*hanging), ("cause", "supervisor-gone")];
                site.log.wait(&ended);
            }
            Stage::Draining => {
                site.service().restart();
                let second = site.started(2);
                prober.wait_pid(second);
                generations.push(second);
                site.wait_drain(first);
                let (launcher, second) = (site.service().main_pid(), Watched::new(second));
                let launcher = Watched::new(launcher);
                site.service_mut().kill_supervisor();
                assert!(!launcher.has_ended());
                site.service_mut().start_supervisor();
                site.started(3);
                second.wait_end(LIMIT);
                launcher.wait_end(LIMIT);
            }
        }
        site.started(generations.len() + 1);
        let latest = site.report.newest().expect("all of them").pid;
        assert!(!generations.contains(&latest));
        generations.push(latest);
        prober.wait_pid(latest);
        site.wait_drain(first);
        assert!(request.finish().ends_with(&answer_of(first)), "{stage:?}");
        site.assert_one_generation(latest);

        let next = site.restart(latest, ENDS_SOON);
        generations.push(next);
        prober.wait_pid(next);
        let probes = prober.stop();
        probes.assert_all_answered();
        // The one that was held up until it was replaced may have been too quick to be seen.
        let expected: Vec<u32> = match stage {
            Stage::SuccessorStarting => vec![first, latest, next],
            _ => generations,
        };
        for pid in &expected {
            assert!(probes.pids().contains(pid), "{stage:?}: {pid} of {:?}", probes.pids());
        }
        site.assert_one_generation(next);
        site.stop();
    });
}
