//! TERM or INT to launcher and daemon at once, which is what a kill of the whole group does: requests
//! in flight are answered, the service comes up again, and nobody is left behind.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use seamless_testing::{
    boxed::Boxed,
    direct::Direct,
    http::{self, Target},
    process::Watched,
    supervisor::{Supervisor, Want, write_script},
    under_each_supervisor, wait_for,
};

use crate::{
    scene::{self, LIMIT, Unfinished, answer_of},
    supervised::{As, Scene},
};

const INT: i32 = 2;
const TERM: i32 = 15;

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

/// Waits until only the newest generation listens: what connects from now on is its own.
#[track_caller]
fn wait_one_listener(target: &Target) {
    const LISTEN: &str = "0A";
    let Target::Tcp(address) = target else { panic!("no port: {target}") };
    let port = format!(":{:04X}", address.port());
    wait_for(format!("one listener at {target}"), LIMIT, || {
        // `0: 0100007F:1F90 00000000:0000 0A …`
        let sockets = fs::read_to_string("/proc/net/tcp").expect("the sockets");
        let listening = sockets.lines().filter(|line| {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            words.get(1).is_some_and(|local| local.ends_with(&port))
                && words.get(3) == Some(&LISTEN)
        });
        (listening.count() == 1).then_some(())
    });
}

/// In each way at once, each with a service of its own.
fn in_each_way(folder: &Path, test: impl Fn(&Path, (i32, First)) + Sync) {
    thread::scope(|scope| {
        for (number, way) in WAYS.into_iter().enumerate() {
            let (folder, test) = (folder.join(number.to_string()), &test);
            scope.spawn(move || {
                fs::create_dir(&folder).expect("a folder");
                println!("{}: {way:?}", folder.display());
                test(&folder, way);
            });
        }
    });
}

// ---- under a supervisor ----

/// What runit's `./finish` was given at the `nth` end of a launcher.
#[track_caller]
fn finish(scene: &Scene, nth: usize) -> String {
    wait_for(format!("{nth} lines of ./finish"), LIMIT, || {
        let text = fs::read_to_string(scene.service.folder().join("finishes")).ok()?;
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        Some(complete.lines().nth(nth - 1)?.to_owned())
    })
}

fn start(kind: Supervisor, folder: &Path) -> Scene {
    let scene = Scene::new(kind, folder, As::Root, "--exit-code=7");
    write_script(&scene.service.folder().join("finish"), "echo $1 $2 >>finishes");
    scene.service.settle();
    scene
}

/// One generation, and one more that drains already.
fn of_a_service(kind: Supervisor, folder: &Path, way: (i32, First), older: bool) {
    let scene = start(kind, folder);
    let mut daemons = vec![scene.daemon(1)];
    let mut requests = vec![Unfinished::start(&scene.target)];
    if older {
        scene.service.restart();
        daemons.push(scene.daemon(2));
        scene::wait_drain(&scene.report, daemons[0].pid());
        wait_one_listener(&scene.target);
        requests.push(Unfinished::start(&scene.target));
        scene.service.settle();
    }
    let launcher = scene.launcher();
    let newest = daemons.last().expect("one at least").pid();
    signal_all(&launcher, &daemons.iter().collect::<Vec<_>>(), way);
    scene::wait_drain(&scene.report, newest);

    let next = daemons.len() + 1;
    let (signal, _) = way;
    if signal == TERM {
        // The supervisor wants the service up, so it does not wait for those requests.
        launcher.wait_end(LIMIT);
        let new = scene.daemon(next);
        wait_one_listener(&scene.target);
        assert_eq!(http::pid(&scene.target), new.pid());
        assert!(daemons.iter().all(|daemon| !daemon.has_ended()), "{}", scene.log);
        let late =
            scene.log.stage("release").into_iter().find(|line| line.field("reason").is_some());
        assert!(late.is_none(), "{late:?}");
    }
    for (daemon, request) in daemons.iter().zip(requests) {
        assert!(!daemon.has_ended());
        assert!(request.finish().ends_with(&answer_of(daemon.pid())));
        daemon.wait_end(LIMIT);
    }
    launcher.wait_end(LIMIT);
    let new = scene.daemon(next);
    wait_one_listener(&scene.target);
    assert_eq!(http::pid(&scene.target), new.pid());
    scene.wait_alone(&new);
    if kind == Supervisor::Runit {
        // Let go, or as its daemon.
        let end = if signal == TERM { "0 0" } else { "7 0" };
        assert_eq!(finish(&scene, daemons.len()), end, "{way:?}");
    }

    scene.service.settle();
    scene.service.restart();
    scene.wait_alone(&scene.daemon(next + 1));
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
        let scene = start(kind, folder);
        let (launcher, daemon) = (scene.launcher(), scene.daemon(1));
        signal_all(&launcher, &[&daemon], way);
        launcher.wait_end(LIMIT);
        daemon.wait_end(LIMIT);
        let new = scene.daemon(2);
        wait_one_listener(&scene.target);
        assert_eq!(http::pid(&scene.target), new.pid());
        scene.wait_alone(&new);
        if kind == Supervisor::Runit {
            let end = finish(&scene, 1);
            assert!(end == "7 0" || (end == "0 0" && way.0 == TERM), "{way:?}: {end}");
        }
    });
}

/// A generation that starts, and its predecessor: the predecessor is told to end by hand, and has
/// nobody to take over from it until the next start.
fn p3_while_a_successor_starts(kind: Supervisor, folder: &Path) {
    in_each_way(folder, |folder, way| {
        let scene = start(kind, folder);
        let old = scene.daemon(1);
        let request = Unfinished::start(&scene.target);
        scene.deploy(&scene.script("--at=after-init=hang"));
        scene.service.restart();
        let starting = Watched::new(scene.report.wait_nth("init", 2).pid);
        let launcher = scene.launcher();
        scene.deploy(&scene.script(""));
        signal_all(&launcher, &[&starting, &old], way);
        launcher.wait_end(LIMIT);
        starting.wait_end(LIMIT);
        let new = scene.daemon(2);
        assert!(request.finish().ends_with(&answer_of(old.pid())));
        old.wait_end(LIMIT);
        scene.wait_alone(&new);
        assert_eq!(scene.report.names_of(starting.pid()), ["init"]);
    });
}

/// `svc -d` and a kill of the group: the service is down when everything has ended.
fn p3_p6_with_a_stop(kind: Supervisor, folder: &Path) {
    in_each_way(folder, |folder, way| {
        let scene = start(kind, folder);
        let (launcher, daemon) = (scene.launcher(), scene.daemon(1));
        let request = Unfinished::start(&scene.target);
        scene.service.down();
        // Else the TERM would come before the supervisor has heard of the stop, and mean a restart.
        scene.service.wait_until("it is to be down", |status| status.want == Want::Down);
        signal_all(&launcher, &[&daemon], way);
        scene::wait_drain(&scene.report, daemon.pid());
        scene.log.wait(&[("stage", "stop"), ("launcher", &launcher.pid().to_string())]);
        scene.assert_not_down();
        assert!(request.finish().ends_with(&answer_of(daemon.pid())));
        scene.assert_ends();
        if kind == Supervisor::Runit {
            assert_eq!(finish(&scene, 1), "7 0", "{way:?}");
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
            let direct = Direct::new(folder);
            let target = Target::from(http::free_address());
            let listen = format!("--listen={target}");
            let options = [listen.as_str(), "--exit-code=7"];
            let (mut first, older) = direct.start_ready(&options);
            let older_request = Unfinished::start(&target);
            first.detach();
            let (mut second, daemon) = direct.start_ready(&options);
            scene::wait_drain(&direct.report, older.pid());
            wait_one_listener(&target);
            let request = Unfinished::start(&target);

            let began = Instant::now();
            signal_all(&second.launcher, &[&daemon, &older], way);
            scene::wait_drain(&direct.report, daemon.pid());
            assert!(!daemon.has_ended() && !older.has_ended());
            assert!(request.finish().ends_with(&answer_of(daemon.pid())));
            daemon.wait_end(LIMIT);
            assert!(older_request.finish().ends_with(&answer_of(older.pid())));
            older.wait_end(LIMIT);
            let status = second.wait_end();
            let took = began.elapsed();
            assert_eq!(status.signal(), None);
            let let_go = way == (TERM, First::Launcher) && status.code() == Some(0);
            assert!(let_go || status.code() == Some(7), "{way:?}: {status}");
            assert!(took < Duration::from_secs(10), "not by handoff_timeout: {took:?}");
            assert!(scene::running(folder).is_empty());

            let (_third, new) = direct.start_ready(&options);
            assert_eq!(http::pid(&target), new.pid());
        });
    });
}
