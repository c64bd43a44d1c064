//! P6 and P3: where the service is told to stop, requests in flight are answered, and it is not
//! reported down before every generation is gone.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use seamless_testing::{
    boxed::{Boxed, Isolation},
    http::{self, Target},
    process::{self, Watched, signal},
    report::Report,
    supervisor::{Supervisor, Want, write_script},
    under_each_supervisor, wait_for,
};

use crate::{
    scene::{self, LIMIT, Unfinished, answer_of},
    supervised::{As, Scene},
};

const TERM: i32 = 15;

/// Where nobody can know that it is to be down, its wait for a successor ends it.
fn scene(kind: Supervisor, folder: &Path, who: As) -> Scene {
    Scene::new(kind, folder, who, PATIENCE)
}

const PATIENCE: &str = "--successor-timeout=200ms";

fn down_with_a_request_in_flight(kind: Supervisor, folder: &Path, who: As) {
    let scene = scene(kind, folder, who);
    let daemon = scene.report.wait("started").pid;
    let request = Unfinished::start(&scene.target);
    scene.service.down();
    scene::wait_drain(&scene.report, daemon);
    scene.assert_not_down();
    assert!(request.finish().ends_with(&answer_of(daemon)));
    scene.assert_ends();
    assert_eq!(scene.report.wait_of(daemon, "wait").text, "Stopped");
}

/// `svc -t`, and `svc -d` when the successor serves and the predecessor still has a request.
fn down_while_an_older_generation_drains(kind: Supervisor, folder: &Path, who: As) {
    let scene = scene(kind, folder, who);
    let old = scene.report.wait("started").pid;
    let request = Unfinished::start(&scene.target);
    scene.service.restart();
    let new = scene.report.wait_nth("started", 2).pid;
    scene::wait_drain(&scene.report, old);
    scene.service.down();
    if scene.knows_a_stop() {
        scene.log.wait(&[("stage", "drained"), ("daemon", &new.to_string())]);
    } else {
        Watched::new(new).wait_end(LIMIT);
    }
    scene.assert_not_down();
    assert!(request.finish().ends_with(&answer_of(old)));
    scene.assert_ends();
}

/// `svc -t`, and `svc -d` when the successor has not come as far as `started`.
fn down_while_a_successor_starts(kind: Supervisor, folder: &Path, who: As) {
    let scene = scene(kind, folder, who);
    let old = scene.report.wait("started").pid;
    let request = Unfinished::start(&scene.target);
    scene.deploy(&scene.script(&format!("{PATIENCE} --at=after-init=hang")));
    scene.service.restart();
    let new = scene.report.wait_nth("init", 2).pid;
    scene.service.down();
    scene::wait_drain(&scene.report, old);
    scene.assert_not_down();
    assert!(request.finish().ends_with(&answer_of(old)));
    scene.assert_ends();
    assert_eq!(scene.report.names_of(new), ["init"]);
}

/// `svc -t`, and `svc -d` while the `on_shutdown_request` hooks run; the daemon releases its launcher
/// at the moment at which that finds out what the second TERM means.
fn down_during_a_handoff(kind: Supervisor, folder: &Path, who: As) {
    let go = folder.join("go");
    let scene =
        Scene::new(kind, folder, who, &format!("{PATIENCE} --at=request=file:{}", go.display()));
    let daemon = scene.report.wait("started").pid;
    let launcher = scene.launcher();
    scene.service.restart();
    scene.report.wait_of(daemon, "hook");
    scene.service.down();
    wait_for("the CONT behind the TERM, or the end", LIMIT, || {
        let forwarded = scene.log.stage("forward").iter().any(|line| line.is(&[("signal", "18")]));
        (forwarded || launcher.has_ended()).then_some(())
    });
    fs::write(go, "").expect("a file");
    scene.assert_ends();
}

/// `svc -t`, and `svc -d` soon after: whoever runs then ends everything.
fn down_soon_after_a_restart(kind: Supervisor, folder: &Path, who: As) {
    thread::scope(|scope| {
        for distance in [0, 5, 50] {
            let scene = scene(kind, &folder.join(distance.to_string()), who);
            scope.spawn(move || {
                scene.service.settle();
                scene.service.restart();
                thread::sleep(Duration::from_millis(distance));
                scene.service.down();
                scene.service.wait_down();
                let left = scene::running(&scene.folder).len();
                let a_launcher_was_told = !scene.log.stage("stop").is_empty();
                if a_launcher_was_told {
                    assert_eq!(left, 0, "{distance} ms:\n{}", scene.log);
                }
                scene::wait_all_ended(&scene.folder);
                assert_eq!(scene.service.status().want, Want::Down);
            });
        }
    });
}

/// Tests of these scenarios for one kind of user, under each supervisor.
macro_rules! stopped {
    ($module:ident, $who:expr, $boxed:expr => $($name:ident: $scenario:ident),+ $(,)?) => {
        mod $module {
            use super::*;
            $(
                fn $name(kind: Supervisor, folder: &Path) {
                    $scenario(kind, folder, $who);
                }
            )+
            under_each_supervisor![$boxed => $($name),+];
        }
    };
}

stopped![
    root, As::Root, Boxed::new().private_net() =>
    p3_p6_down_with_a_request_in_flight: down_with_a_request_in_flight,
    p6_down_while_an_older_generation_drains: down_while_an_older_generation_drains,
    p6_down_while_a_successor_starts: down_while_a_successor_starts,
    p6_down_during_a_handoff: down_during_a_handoff,
    p6_down_soon_after_a_restart: down_soon_after_a_restart,
];
stopped![
    user_who_reads_the_status,
    As::UserWhoReads,
    Boxed::new().private_net().needs(Isolation::Namespaces) =>
    p3_p6_down_with_a_request_in_flight: down_with_a_request_in_flight,
    p6_down_while_an_older_generation_drains: down_while_an_older_generation_drains,
    p6_down_while_a_successor_starts: down_while_a_successor_starts,
    p6_down_during_a_handoff: down_during_a_handoff,
    p6_down_soon_after_a_restart: down_soon_after_a_restart,
];
stopped![
    gives_up_root_and_reads_the_status,
    As::GivesUpAndReads,
    Boxed::new().private_net().needs(Isolation::Namespaces) =>
    p3_p6_down_with_a_request_in_flight: down_with_a_request_in_flight,
    p6_down_while_an_older_generation_drains: down_while_an_older_generation_drains,
    p6_down_while_a_successor_starts: down_while_a_successor_starts,
    p6_down_during_a_handoff: down_during_a_handoff,
    p6_down_soon_after_a_restart: down_soon_after_a_restart,
];
// The last of the scenarios is left out: where no launcher runs, these services cannot know.
stopped![
    gives_up_root_and_cannot_read_it,
    As::GivesUp,
    Boxed::new().private_net().needs(Isolation::Namespaces) =>
    p3_p6_down_with_a_request_in_flight: down_with_a_request_in_flight,
    p6_down_while_an_older_generation_drains: down_while_an_older_generation_drains,
    p6_down_while_a_successor_starts: down_while_a_successor_starts,
    p6_down_during_a_handoff: down_during_a_handoff,
];
stopped![
    user_who_cannot_read_it,
    As::UserWhoDoesNot,
    Boxed::new().private_net().needs(Isolation::Namespaces) =>
    p3_p6_down_with_a_request_in_flight: down_with_a_request_in_flight,
    p6_down_while_an_older_generation_drains: down_while_an_older_generation_drains,
    p6_down_while_a_successor_starts: down_while_a_successor_starts,
    p6_down_during_a_handoff: down_during_a_handoff,
];

/// As a container runs it: the probe, or an init above it, is PID 1.
fn p6_a_container_drains(init: &'static [&'static str]) {
    let boxed = Boxed::new().private_net().needs(Isolation::UserNamespaces);
    boxed.run(|folder| {
        let target = Target::from(http::free_address());
        let run = folder.join("run");
        let options = format!("--listen={target} --exit-code=9");
        write_script(&run, &scene::script(folder, &options));
        let mut container = Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"])
            .args(init)
            .arg(&run)
            .spawn()
            .expect("unshare");
        let report = Report::new(folder.join("report"));
        let daemon = report.wait("started").pid;
        let request = Unfinished::start(&target);
        let pid_1 = process::children(container.id())[0];
        signal(pid_1, TERM);
        scene::wait_drain(&report, daemon);
        assert!(!Watched::new(pid_1).has_ended());
        assert!(request.finish().ends_with(&answer_of(daemon)));
        assert_eq!(container.wait().expect("its end").code(), Some(9));
        assert_eq!(report.wait("wait").text, "Stopped");
    });
}

#[test]
fn p6_as_pid_1_of_a_container_it_drains() {
    p6_a_container_drains(&[]);
}

#[test]
fn p6_under_tini_in_a_container_it_drains() {
    p6_a_container_drains(&["tini", "--"]);
}

/// Nobody would start the service again.
#[test]
fn p6_where_the_parent_has_gone_it_drains() {
    Boxed::new().private_net().run(|folder| {
        let target = Target::from(http::free_address());
        let script = scene::script(folder, &format!("--listen={target}"));
        let mut parent =
            scene::shell(&format!("({script}) & exec sleep 1000")).spawn().expect("sh");
        let report = Report::new(folder.join("report"));
        let daemon = report.wait("started").pid;
        let launcher = Watched::new(process::stat(daemon).expect("the daemon").ppid);
        parent.kill().expect("KILL");
        parent.wait().expect("its end");
        wait_for("a new parent", LIMIT, || {
            (process::stat(launcher.pid())?.ppid != parent.id()).then_some(())
        });
        let request = Unfinished::start(&target);
        launcher.signal(TERM);
        scene::wait_drain(&report, daemon);
        assert!(!launcher.has_ended());
        assert!(request.finish().ends_with(&answer_of(daemon)));
        assert_eq!(report.wait_of(daemon, "wait").text, "Stopped");
        scene::wait_all_ended(folder);
    });
}
