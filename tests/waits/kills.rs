//! P9: files that are removed by hand and processes that are KILLed, the supervisor among them, at
//! each stage. Whoever is left serves, and the next restart and the next stop work.
//!
//! Each service is asked every 20 ms, and no request fails, but where a test says so.

use std::{fs, path::Path, process::Command, thread};

use seamless_testing::{
    boxed::{Boxed, Isolation},
    direct::Direct,
    http::Prober,
    process::{self, Watched},
    supervisor::Supervisor,
    wait_for,
};

use crate::scene::{self, LIMIT, Unfinished, answer_of};
use crate::users::{ENDS_SOON, Site, User, as_each_user};

/// Only a successor ends a detached daemon: where it is to be seen that it serves on.
const SERVES_ON: &str = "--successor-timeout=none";

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
    each(cases, |number, removed| {
        let site = Site::new(kind, folder, number, user, SERVES_ON);
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
        site.service.up();
        site.assert_one_generation(site.started(4));
        site.stop();
    });
}

/// The lock file is removed, and its successor, as root, makes another: it may not open that one, and
/// has made none itself, which its next start would refuse. The PID file tells it enough.
#[test]
fn p4_a_service_that_gave_up_root_gives_way_without_the_lock_file() {
    Boxed::new().needs(Isolation::Namespaces).run(|folder| {
        let direct = Direct::new(folder);
        for file in [direct.report.path(), &folder.join("log")] {
            fs::write(file, "").expect("a file");
            let mode = Command::new("chmod").arg("666").arg(file).status();
            assert!(mode.expect("chmod").success());
        }
        let run = Command::new("chown").arg("nobody").arg(folder).status();
        assert!(run.expect("chown").success());
        let options = ["--at=after-init=user:65534", SERVES_ON];
        let (mut first, old) = direct.start_ready(&options);
        first.detach();
        direct.wait_checks(old.pid(), 1);
        fs::remove_file(direct.lock_file()).expect("the lock file");
        direct.wait_log(&["stage=check", "it was removed; the next start makes it anew"], 1);
        direct.wait_checks(old.pid(), 1);
        assert!(!direct.lock_file().exists() && !old.has_ended());
        let (mut second, new) = direct.start_ready(&options);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        old.wait_end(LIMIT);
        assert_eq!(direct.named(), Some(new.pid()));
        second.detach();
        direct.wait_checks(new.pid(), 1);
        assert!(!new.has_ended());
    });
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
    let site = Site::new(kind, folder, 0, user, SERVES_ON);
    let prober = Prober::start(&site.target);
    let old = Watched::new(site.started(1));
    prober.wait_pid(old.pid());
    site.service.settle();
    site.deploy(&site.script(&Point::Renamed.stop(&site), SERVES_ON));
    site.service.restart();

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
    let listed = record.contains(&format!(" daemon={daemon}:"));
    assert_eq!(listed, point == Point::Recorded, "{point:?}: {record}");
    assert!(record.contains(&format!(" daemon={old}:")), "{record}");
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
    site.service.wait_until("its launcher", |status| status.pid == Some(launcher));
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
    /// Detached, and no launcher runs.
    Gap,
    /// Detached, and a successor is between `init` and `started`.
    SuccessorStarting,
    /// A successor serves, and a request is still to be answered.
    Draining,
}

/// All of them at a time, each with a service of its own.
fn p9_the_supervisor_killed_at_each_stage(kind: Supervisor, folder: &Path, user: User) {
    let stages = [Stage::Serving, Stage::Gap, Stage::SuccessorStarting, Stage::Draining];
    each(stages, |number, stage| {
        let mut site = Site::new(kind, folder, number, user, SERVES_ON);
        let prober = Prober::start(&site.target);
        let first = site.started(1);
        prober.wait_pid(first);
        let request = Unfinished::start(&site.target);
        let mut generations = vec![first];
        site.service.settle();
        let launcher = Watched::new(site.service.main_pid());
        match stage {
            Stage::Serving => {
                site.service.kill_supervisor();
                assert!(!launcher.has_ended());
                site.service.start_supervisor();
            }
            Stage::Gap => {
                site.deploy("exit 1");
                site.service.restart();
                launcher.wait_end(LIMIT);
                site.wait_checks(first, 1);
                site.service.kill_supervisor();
                site.wait_checks(first, 1);
                site.deploy_options(SERVES_ON);
                site.service.start_supervisor();
            }
            Stage::SuccessorStarting => {
                let go = site.flag("go");
                site.deploy_options(&format!("{SERVES_ON} --at=after-init=file:{}", go.display()));
                site.service.restart();
                let starting = Watched::new(site.report.wait_nth("init", 2).pid);
                let launcher = Watched::new(process::stat(starting.pid()).expect("it").ppid);
                site.service.kill_supervisor();
                site.service.start_supervisor();
                site.log.wait(&[("stage", "claim"), ("holder", &starting.pid().to_string())]);
                assert!(!launcher.has_ended() && !starting.has_ended());
                fs::write(go, "").expect("a file");
                assert_eq!(site.started(2), starting.pid());
                generations.push(starting.pid());
                let third = site.started(3);
                starting.wait_end(LIMIT);
                launcher.wait_end(LIMIT);
                assert_eq!(site.report.wait_of(starting.pid(), "wait").text, "TakenOver");
                assert_ne!(third, starting.pid());
            }
            Stage::Draining => {
                site.service.restart();
                let second = site.started(2);
                prober.wait_pid(second);
                generations.push(second);
                scene::wait_drain(&site.report, first);
                let (launcher, second) = (site.service.main_pid(), Watched::new(second));
                let launcher = Watched::new(launcher);
                site.service.kill_supervisor();
                assert!(!launcher.has_ended());
                site.service.start_supervisor();
                site.started(3);
                second.wait_end(LIMIT);
                launcher.wait_end(LIMIT);
            }
        }
        let latest = site.started(generations.len() + 1);
        generations.push(latest);
        prober.wait_pid(latest);
        scene::wait_drain(&site.report, first);
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

/// Each case on a thread of its own, numbered.
fn each<T: Copy + Send>(cases: impl IntoIterator<Item = T>, test: impl Fn(u16, T) + Sync) {
    thread::scope(|scope| {
        for (number, case) in (0..).zip(cases) {
            let test = &test;
            scope.spawn(move || test(number, case));
        }
    });
}
