//! P6 and P3: where the service is told to stop, requests in flight are answered, and it is not
//! reported down before every generation is gone.

use std::{fs, path::Path, thread, time::Duration};

use seamless_testing::{
    LIMIT, as_each_user,
    boxed::{self, Boxed},
    http::{Connection, Target, answer_of},
    process::{self, Watched},
    report::Report,
    scene,
    signal::TERM,
    site::{ENDS_SOON, Site, User},
    supervisor::{Supervisor, Want},
    wait_for,
};

pub(crate) fn p3_p6_down_with_a_request_in_flight(kind: Supervisor, folder: &Path, user: User) {
    let site = Site::at(folder).user(user).options(ENDS_SOON).under(kind);
    let daemon = site.started(1);
    let request = Connection::unfinished(&site.target);
    site.service().down();
    site.wait_drain(daemon);
    site.assert_not_down();
    assert!(request.finish().ends_with(&answer_of(daemon)));
    site.assert_ends();
    assert_eq!(site.report.wait_of(daemon, "wait").text, "Stopped");
}

/// `svc -t`, and `svc -d` when the successor serves and the predecessor still has a request.
pub(crate) fn p6_down_while_an_older_generation_drains(
    kind: Supervisor,
    folder: &Path,
    user: User,
) {
    let site = Site::at(folder).user(user).options(ENDS_SOON).under(kind);
    let old = site.started(1);
    let request = Connection::unfinished(&site.target);
    site.service().restart();
    let new = site.started(2);
    site.wait_drain(old);
    site.service().down();
    if site.knows_a_stop() {
        site.log.wait(&[("stage", "drained"), ("daemon", &new.to_string())]);
    } else {
        Watched::new(new).wait_end(LIMIT);
    }
    site.assert_not_down();
    assert!(request.finish().ends_with(&answer_of(old)));
    site.assert_ends();
}

/// `svc -t`, and `svc -d` when the successor has not come as far as `started`.
pub(crate) fn p6_down_while_a_successor_starts(kind: Supervisor, folder: &Path, user: User) {
    let site = Site::at(folder).user(user).options(ENDS_SOON).under(kind);
    let old = site.started(1);
    let request = Connection::unfinished(&site.target);
    site.deploy_options(&format!("{ENDS_SOON} --at=after-init=hang"));
    site.service().restart();
    let new = site.report.wait_nth("init", 2).pid;
    site.service().down();
    site.wait_drain(old);
    site.assert_not_down();
    assert!(request.finish().ends_with(&answer_of(old)));
    site.assert_ends();
    assert_eq!(site.report.names_of(new), ["init"]);
}

/// `svc -t`, and `svc -d` while the `on_shutdown_request` hooks run; the daemon releases its launcher
/// at the moment at which that finds out what the second TERM means.
fn p6_down_during_a_handoff(kind: Supervisor, folder: &Path, user: User) {
    let go = folder.join("go");
    let site = Site::at(folder)
        .user(user)
        .options(&format!("{ENDS_SOON} --at=request=file:{}", go.display()))
        .under(kind);
    let daemon = site.started(1);
    let launcher = site.launcher();
    site.service().restart();
    site.report.wait_of(daemon, "hook");
    site.service().down();
    wait_for("the CONT behind the TERM, or the end", LIMIT, || {
        let forwarded = site.log.stage("forward").iter().any(|line| line.is(&[("signal", "18")]));
        (forwarded || launcher.has_ended()).then_some(())
    });
    fs::write(go, "").expect("a file");
    site.assert_ends();
}

/// `svc -t`, and `svc -d` soon after: whoever runs then ends everything.
pub(crate) fn p6_down_soon_after_a_restart(kind: Supervisor, folder: &Path, user: User) {
    scene::each(folder, [0, 5, 50], |folder, distance| {
        let site = Site::at(folder).user(user).options(ENDS_SOON).under(kind);
        site.service().settle();
        site.service().restart();
        thread::sleep(Duration::from_millis(distance));
        site.service().down();
        site.service().wait_down();
        let left = site.pids();
        let a_launcher_was_told = !site.log.stage("stop").is_empty();
        if a_launcher_was_told {
            assert!(left.is_empty(), "{distance} ms: {left:?}\n{}", site.log);
        } else if !user.daemon_reads() {
            // No launcher ran, so it cannot know: by hand.
            site.running().iter().for_each(|process| _ = process.signal(TERM));
        }
        site.wait_all_ended();
        assert_eq!(site.service().status().want, Want::Down);
    });
}

/// The same, where the successor asks for its sockets after it was told to stop: the older generation
/// still has them, and a program that ended for want of them would end before it.
#[test]
fn p6_down_before_a_successor_asks_for_sockets() {
    Boxed::new().private_net().run(|folder| {
        let options = format!("{ENDS_SOON} --tcp={}", boxed::address());
        let site = Site::at(folder).user(User::Root).options(&options).under(Supervisor::Runit);
        let old = site.started(1);
        let request = Connection::unfinished(&site.target);
        let go = site.flag("go");
        site.deploy_options(&format!("{options} --at=after-init=file:{}", go.display()));
        site.service().restart();
        let new = Watched::new(site.report.wait_nth("init", 2).pid);
        site.service().down();
        site.wait_drain(old);
        fs::write(&go, "").expect("a file");
        wait_for("its end, or that it waits", LIMIT, || {
            let waits_in = fs::read_to_string(format!("/proc/{}/wchan", new.pid()));
            (new.has_ended() || waits_in.is_ok_and(|one| one.contains("futex"))).then_some(())
        });
        site.assert_not_down();
        assert!(request.finish().ends_with(&answer_of(old)));
        site.assert_ends();
        assert_eq!(site.report.names_of(new.pid()), ["init"]);
    });
}

as_each_user![
    p3_p6_down_with_a_request_in_flight,
    p6_down_while_an_older_generation_drains,
    p6_down_while_a_successor_starts,
    p6_down_during_a_handoff,
    p6_down_soon_after_a_restart,
];

/// Nobody would start the service again.
#[test]
fn p6_where_the_parent_has_gone_it_drains() {
    Boxed::new().private_net().run(|folder| {
        let target = Target::from(boxed::address());
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
        let request = Connection::unfinished(&target);
        launcher.signal(TERM);
        scene::wait_drain(&report, daemon);
        assert!(!launcher.has_ended());
        assert!(request.finish().ends_with(&answer_of(daemon)));
        assert_eq!(report.wait_of(daemon, "wait").text, "Stopped");
        scene::wait_all_ended(folder);
    });
}
