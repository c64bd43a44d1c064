//! TERM or INT to launcher and daemon at once, which is what a kill of the whole group does: requests
//! in flight are answered, the service comes up again, and nobody is left behind.

use std::{os::unix::process::ExitStatusExt, path::Path};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    http::{self, Connection, Target, answer_of},
    process::Watched,
    scene,
    signal::{INT, TERM},
    site::{Site, User},
    supervisor::{Supervisor, Want},
    under_each_supervisor, wait_for,
};

/// How a kill of the group arrives: one signal after the other, with nothing in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Launcher,
    Daemon,
}

const WAYS: [(i32, First); 4] =
    [(TERM, First::Launcher), (TERM, First::Daemon), (INT, First::Launcher), (INT, First::Daemon)];

/// To a launcher and to daemons, in one order or the other.
fn signal_all(launcher: &Watched, daemons: &[&Watched], (signal, first): (i32, First)) {
    let mut all = vec![launcher];
    all.extend(daemons);
    if first == First::Daemon {
        all.reverse();
    }
    assert!(all[0].signal(signal), "{} has ended", all[0].pid());
    for process in &all[1..] {
        process.signal(signal); // the first may have made it end already
    }
}

/// In each way at once, each with a service of its own.
fn in_each_way(folder: &Path, test: impl Fn(&Path, (i32, First)) + Sync) {
    scene::each(folder, WAYS, test);
}

// ---- under a supervisor ----

/// What runit's `./finish` was given at the `nth` end of a launcher.
#[track_caller]
fn finish(site: &Site, nth: usize) -> String {
    wait_for(format!("{nth} lines of ./finish"), LIMIT, || site.finishes().get(nth - 1).cloned())
}

fn start(kind: Supervisor, folder: &Path) -> Site {
    let site = Site::at(folder).user(User::Root).options("--exit-code=7").under(kind);
    site.note_finishes();
    site.service().settle();
    site
}

/// One generation, and one more that drains already.
fn of_a_service(kind: Supervisor, folder: &Path, way: (i32, First), older: bool) {
    let site = start(kind, folder);
    let mut daemons = vec![site.daemon(1)];
    let mut requests = vec![Connection::unfinished(&site.target)];
    if older {
        site.service().restart();
        daemons.push(site.daemon(2));
        site.wait_drain(daemons[0].pid());
        http::wait_one_listener(&site.target);
        requests.push(Connection::unfinished(&site.target));
        site.service().settle();
    }
    let launcher = site.launcher();
    let newest = daemons.last().expect("one at least").pid();
    signal_all(&launcher, &daemons.iter().collect::<Vec<_>>(), way);
    site.wait_drain(newest);

    let next = daemons.len() + 1;
    let (signal, _) = way;
    if signal == TERM {
        // The supervisor wants the service up, so it does not wait for those requests.
        launcher.wait_end(LIMIT);
        let new = site.daemon(next);
        http::wait_one_listener(&site.target);
        assert_eq!(http::pid(&site.target), new.pid());
        assert!(daemons.iter().all(|daemon| !daemon.has_ended()), "{}", site.log);
        let late =
            site.log.stage("release").into_iter().find(|line| line.field("reason").is_some());
        assert!(late.is_none(), "{late:?}");
    }
    for (daemon, request) in daemons.iter().zip(requests) {
        assert!(!daemon.has_ended());
        assert!(request.finish().ends_with(&answer_of(daemon.pid())));
        daemon.wait_end(LIMIT);
    }
    launcher.wait_end(LIMIT);
    let new = site.daemon(next);
    http::wait_one_listener(&site.target);
    assert_eq!(http::pid(&site.target), new.pid());
    site.assert_one_generation(new.pid());
    if kind == Supervisor::Runit {
        // Let go, or as its daemon.
        let end = if signal == TERM { "0 0" } else { "7 0" };
        assert_eq!(finish(&site, daemons.len()), end, "{way:?}");
    }

    site.service().settle();
    site.service().restart();
    site.assert_one_generation(site.started(next + 1));
}

fn p1_p3_p6_of_one_generation(kind: Supervisor, folder: &Path) {
    in_each_way(folder, |folder, way| of_a_service(kind, folder, way, false));
}

fn p1_p3_p6_while_an_older_one_drains(kind: Supervisor, folder: &Path) {
    in_each_way(folder, |folder, way| of_a_service(kind, folder, way, true));
}

/// A daemon that has nothing more to do ends before its launcher knows what the TERM means.
fn p6_without_a_request(kind: Supervisor, folder: &Path) {
    in_each_way(folder, |folder, way| {
        let site = start(kind, folder);
        let (launcher, daemon) = (site.launcher(), site.daemon(1));
        signal_all(&launcher, &[&daemon], way);
        launcher.wait_end(LIMIT);
        daemon.wait_end(LIMIT);
        let new = site.daemon(2);
        http::wait_one_listener(&site.target);
        assert_eq!(http::pid(&site.target), new.pid());
        site.assert_one_generation(new.pid());
        if kind == Supervisor::Runit {
            let end = finish(&site, 1);
            assert!(end == "7 0" || (end == "0 0" && way.0 == TERM), "{way:?}: {end}");
        }
    });
}

/// A generation that starts, and its predecessor: the predecessor is told to end by hand, and has
/// nobody to take over from it until the next start.
fn p3_while_a_successor_starts(kind: Supervisor, folder: &Path) {
    in_each_way(folder, |folder, way| {
        let site = start(kind, folder);
        let old = site.daemon(1);
        let request = Connection::unfinished(&site.target);
        site.deploy_options("--at=after-init=hang");
        site.service().restart();
        let starting = Watched::new(site.report.wait_nth("init", 2).pid);
        let launcher = site.launcher();
        site.deploy_options("");
        signal_all(&launcher, &[&starting, &old], way);
        launcher.wait_end(LIMIT);
        starting.wait_end(LIMIT);
        let new = site.daemon(2);
        assert!(request.finish().ends_with(&answer_of(old.pid())));
        old.wait_end(LIMIT);
        site.assert_one_generation(new.pid());
        assert_eq!(site.report.names_of(starting.pid()), ["init"]);
    });
}

/// `svc -d` and a kill of the group: the service is down when everything has ended.
fn p3_p6_with_a_stop(kind: Supervisor, folder: &Path) {
    in_each_way(folder, |folder, way| {
        let site = start(kind, folder);
        let (launcher, daemon) = (site.launcher(), site.daemon(1));
        let request = Connection::unfinished(&site.target);
        site.service().down();
        // Else the TERM would come before the supervisor has heard of the stop, and mean a restart.
        site.service().wait_until("it is to be down", |status| status.want == Want::Down);
        signal_all(&launcher, &[&daemon], way);
        site.wait_drain(daemon.pid());
        site.log.wait(&[("stage", "stop"), ("launcher", &launcher.pid().to_string())]);
        site.assert_not_down();
        assert!(request.finish().ends_with(&answer_of(daemon.pid())));
        site.assert_ends();
        if kind == Supervisor::Runit {
            assert_eq!(finish(&site, 1), "7 0", "{way:?}");
        }
    });
}

under_each_supervisor![
    Boxed::new().private_net() =>
    p1_p3_p6_of_one_generation,
    p1_p3_p6_while_an_older_one_drains,
    p6_without_a_request,
    p3_while_a_successor_starts,
    p3_p6_with_a_stop
];

// ---- without a supervisor ----

/// Nobody says whether the service is to come up again. Where the launcher is asked first, it may be
/// let go before the daemon is; else it ends as its daemon does.
#[test]
fn p3_p6_without_a_supervisor() {
    Boxed::new().private_net().run(|folder| {
        in_each_way(folder, |folder, way| {
            let direct = Site::alone(folder);
            let target = Target::from(boxed::address());
            let listen = format!("--listen={target}");
            let options = [listen.as_str(), "--exit-code=7"];
            let (mut first, older) = direct.start_ready(&options);
            let older_request = Connection::unfinished(&target);
            first.detach();
            let (mut second, daemon) = direct.start_ready(&options);
            direct.wait_drain(older.pid());
            http::wait_one_listener(&target);
            let request = Connection::unfinished(&target);

            signal_all(&second.launcher, &[&daemon, &older], way);
            direct.wait_drain(daemon.pid());
            assert!(!daemon.has_ended() && !older.has_ended());
            assert!(request.finish().ends_with(&answer_of(daemon.pid())));
            daemon.wait_end(LIMIT);
            assert!(older_request.finish().ends_with(&answer_of(older.pid())));
            older.wait_end(LIMIT);
            let status = second.wait_end();
            assert_eq!(status.signal(), None);
            let let_go = way == (TERM, First::Launcher) && status.code() == Some(0);
            assert!(let_go || status.code() == Some(7), "{way:?}: {status}");
            assert!(!direct.log.text().contains("handoff_timeout"), "{}", direct.log);
            assert!(scene::running(folder).is_empty());

            let (_third, new) = direct.start_ready(&options);
            assert_eq!(http::pid(&target), new.pid());
        });
    });
}
