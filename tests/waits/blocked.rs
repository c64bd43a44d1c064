//! Hooks that block for ever: the hammer, the limits, a stop, a takeover and `state()` work all the
//! same.

use std::{path::Path, thread};

use seamless_testing::{
    boxed::Boxed,
    http::Prober,
    process::Watched,
    supervisor::{Supervisor, write_script},
    under_each_supervisor, wait_for,
};

use crate::{
    scene::{self, LIMIT, Unfinished, answer_of},
    supervised::{As, Scene},
};

const USR1: i32 = 10;
const USR2: i32 = 12;

/// What ends a drain that never ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hammer {
    DrainTimeout,
    /// USR2 by an operator.
    ByHand,
}

impl Hammer {
    fn option(self) -> &'static str {
        match self {
            Hammer::DrainTimeout => "--drain-timeout=1s",
            Hammer::ByHand => "",
        }
    }

    /// It falls, once this daemon's `on_shutdown` hook runs.
    #[track_caller]
    fn falls(self, scene: &Scene, daemon: &Watched) {
        let pid = daemon.pid();
        scene::wait_drain(&scene.report, pid);
        if self == Hammer::ByHand {
            assert_state(scene, daemon, "Draining");
            daemon.signal(USR2);
        }
        daemon.wait_end(LIMIT);
        assert_eq!(hooks(scene, pid).last().map(String::as_str), Some("hammer"));
        let reason = if self == Hammer::ByHand { "USR2" } else { "drain_timeout" };
        scene.log.wait(&[
            ("stage", "hammer"),
            ("daemon", &pid.to_string()),
            ("reason", reason),
            ("exit_code", "124"),
        ]);
        assert!(!scene.report.names_of(pid).contains(&"wait".to_owned()));
    }
}

/// By either hammer at once, each with a service of its own.
fn by_each_hammer(folder: &Path, test: impl Fn(&Path, Hammer) + Sync) {
    thread::scope(|scope| {
        for hammer in [Hammer::DrainTimeout, Hammer::ByHand] {
            let (folder, test) = (folder.join(format!("{hammer:?}")), &test);
            scope.spawn(move || test(&folder, hammer));
        }
    });
}

/// A service that tells its state on USR1, and ends with 7.
fn start(kind: Supervisor, folder: &Path, options: &str) -> Scene {
    let scene = Scene::new(kind, folder, As::Root, &with(options));
    write_script(&scene.service.folder().join("finish"), "echo $1 $2 >>finishes");
    scene.service.settle();
    scene
}

fn with(options: &str) -> String {
    format!("--on={USR1}=call:state --exit-code=7 {options}")
}

/// The texts of the hooks that have run in this process.
fn hooks(scene: &Scene, pid: u32) -> Vec<String> {
    let hooks = scene.report.named("hook").into_iter().filter(|hook| hook.pid == pid);
    hooks.map(|hook| hook.text).collect()
}

/// Its first `on_shutdown_request` hook runs.
#[track_caller]
fn wait_request_hook(scene: &Scene, daemon: &Watched) {
    assert_eq!(scene.report.wait_of(daemon.pid(), "hook").text, "request");
}

/// It answers, and this.
#[track_caller]
fn assert_state(scene: &Scene, daemon: &Watched, state: &str) {
    let told = || -> Vec<String> {
        let called = scene.report.named("called").into_iter();
        called.filter(|one| one.pid == daemon.pid()).map(|one| one.text).collect()
    };
    let before = told().len();
    daemon.signal(USR1);
    let text = wait_for("an answer of state()", LIMIT, || told().get(before).cloned());
    assert!(text.starts_with(&format!("state {state} Some(")), "not {state}: {text}");
}

/// What runit's `./finish` was given last, once the service is down.
#[track_caller]
fn assert_seen(scene: &Scene, end: &str) {
    if scene.service.kind() == Supervisor::Runit {
        let finishes = scene.service.folder().join("finishes");
        let what = format!("./finish {end}");
        wait_for(what, LIMIT, || {
            let text = std::fs::read_to_string(&finishes).ok()?;
            (text.ends_with('\n') && text.lines().last() == Some(end)).then_some(())
        });
    }
}

// ---- stage 1 ----

/// How a launcher goes whose daemon does not let it go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goes {
    ByHandoffTimeout,
    Killed,
}

fn stage_1_and_a_takeover(kind: Supervisor, folder: &Path, goes: Goes) {
    let timeout = if goes == Goes::Killed { "1h" } else { "300ms" };
    let options = format!("--at=request=hang --handoff-timeout={timeout}");
    let scene = start(kind, folder, &options);
    let (launcher, old) = (scene.launcher(), scene.daemon(1));
    let request = Unfinished::start(&scene.target);
    let prober = Prober::start(&scene.target);
    prober.wait_pid(old.pid());
    let go = folder.join("go");
    let waits = format!("--at=after-init=file:{}", go.display());
    scene.deploy(&scene.script(&with(&format!("{options} {waits}"))));
    scene.service.restart();
    wait_request_hook(&scene, &old);
    if goes == Goes::Killed {
        assert_state(&scene, &old, "Serving");
        scene.service.control(if kind == Supervisor::Runit { "kill" } else { "-k" });
    }
    launcher.wait_end(LIMIT);
    if goes == Goes::ByHandoffTimeout {
        let reason =
            "handoff_timeout: the daemon did not release its launcher and serves on detached";
        let launcher = launcher.pid().to_string();
        scene.log.wait(&[("stage", "release"), ("launcher", &launcher), ("reason", reason)]);
    }

    // The successor starts; the old one has no launcher, and its hook still runs.
    scene.report.wait_nth("init", 2);
    scene.log.wait(&[("stage", "check"), ("daemon", &old.pid().to_string())]);
    assert_state(&scene, &old, "Detached");
    std::fs::write(go, "").expect("a file");
    let new = scene.daemon(2);
    scene::wait_drain(&scene.report, old.pid());
    assert_state(&scene, &old, "Draining");
    assert!(request.finish().ends_with(&answer_of(old.pid())));
    old.wait_end(LIMIT);
    assert_eq!(scene.report.wait_of(old.pid(), "wait").text, "TakenOver");
    assert_eq!(hooks(&scene, old.pid()), ["request", "shutdown"]);
    prober.wait_pid(new.pid());
    let probes = prober.stop();
    probes.assert_all_answered();
    assert_eq!(probes.pids(), [old.pid(), new.pid()]);
}

fn p1_p3_stage_1_blocks_until_handoff_timeout(kind: Supervisor, folder: &Path) {
    stage_1_and_a_takeover(kind, folder, Goes::ByHandoffTimeout);
}

fn p1_p3_p8_stage_1_blocks_and_the_launcher_is_killed(kind: Supervisor, folder: &Path) {
    stage_1_and_a_takeover(kind, folder, Goes::Killed);
}

/// `svc -t`, and `svc -d` while the launcher waits for the hook.
fn p3_p6_stage_1_blocks_and_the_service_is_stopped(kind: Supervisor, folder: &Path) {
    let scene = start(kind, folder, "--at=request=hang --handoff-timeout=1h");
    let daemon = scene.daemon(1);
    let request = Unfinished::start(&scene.target);
    scene.service.restart();
    wait_request_hook(&scene, &daemon);
    scene.service.down();
    scene::wait_drain(&scene.report, daemon.pid());
    assert_state(&scene, &daemon, "Draining");
    scene.assert_not_down();
    assert!(request.finish().ends_with(&answer_of(daemon.pid())));
    scene.assert_ends();
    assert_eq!(scene.report.wait_of(daemon.pid(), "wait").text, "Stopped");
    assert_seen(&scene, "7 0");
}

/// The launcher has gone by `handoff_timeout`, and `svc -d` comes while the successor starts.
fn p3_p6_stage_1_blocks_detached_and_the_service_is_stopped(kind: Supervisor, folder: &Path) {
    let options = "--at=request=hang --handoff-timeout=300ms";
    let scene = start(kind, folder, options);
    let old = scene.daemon(1);
    let request = Unfinished::start(&scene.target);
    scene.deploy(&scene.script(&with("--at=after-init=hang")));
    scene.service.restart();
    scene.report.wait_nth("init", 2);
    scene.service.down();
    scene::wait_drain(&scene.report, old.pid());
    assert_state(&scene, &old, "Draining");
    scene.assert_not_down();
    assert!(request.finish().ends_with(&answer_of(old.pid())));
    scene.assert_ends();
    assert_eq!(hooks(&scene, old.pid()), ["request", "shutdown"]);
}

// ---- stage 3, and both ----

/// Attached: the supervisor is told of no end before the hammer, and sees its code.
fn p6_stage_3_blocks_and_the_service_is_stopped(kind: Supervisor, folder: &Path) {
    by_each_hammer(folder, |folder, hammer| {
        let scene = start(kind, folder, &format!("--at=shutdown=hang {}", hammer.option()));
        let daemon = scene.daemon(1);
        scene.service.down();
        scene::wait_drain(&scene.report, daemon.pid());
        if hammer == Hammer::ByHand {
            scene.assert_not_down();
        }
        hammer.falls(&scene, &daemon);
        scene.assert_ends();
        assert_eq!(hooks(&scene, daemon.pid()), ["shutdown", "hammer"]);
        assert_seen(&scene, "124 0");
    });
}

/// Every hook there is blocks, in a daemon that is told to restart and then to stop.
fn p6_every_stage_blocks_and_the_service_is_stopped(kind: Supervisor, folder: &Path) {
    by_each_hammer(folder, |folder, hammer| {
        let options = "--at=request=hang --at=shutdown=hang --at=hammer=hang";
        let scene = start(kind, folder, &format!("{options} {}", hammer.option()));
        let daemon = scene.daemon(1);
        scene.service.restart();
        wait_request_hook(&scene, &daemon);
        scene.service.down();
        hammer.falls(&scene, &daemon);
        scene.assert_ends();
        assert_eq!(hooks(&scene, daemon.pid()), ["request", "shutdown", "hammer"]);
        assert_seen(&scene, "124 0");
    });
}

/// Detached: the successor serves meanwhile, and the old one ends by the hammer.
fn p1_every_stage_blocks_and_a_successor_serves(kind: Supervisor, folder: &Path) {
    by_each_hammer(folder, |folder, hammer| {
        let options = "--at=request=hang --at=shutdown=hang --at=hammer=hang";
        let limits = format!("--handoff-timeout=300ms {}", hammer.option());
        let scene = start(kind, folder, &format!("{options} {limits}"));
        let old = scene.daemon(1);
        scene.deploy(&scene.script(&with("")));
        // A listener whose drain never begins is cut by the hammer with what it has accepted.
        let prober = (hammer == Hammer::ByHand).then(|| Prober::start(&scene.target));
        scene.service.restart();
        let new = scene.daemon(2);
        if let Some(prober) = prober {
            scene::wait_drain(&scene.report, old.pid());
            prober.wait_pid(new.pid());
            prober.stop().assert_all_answered();
        }
        hammer.falls(&scene, &old);
        assert_state(&scene, &new, "Serving");
        scene.wait_alone(&new);
        assert_eq!(seamless_testing::http::pid(&scene.target), new.pid());
        scene.service.settle();
        scene.service.restart();
        scene.wait_alone(&scene.daemon(3));
    });
}

/// An older generation blocks, and the service is stopped: it is not down before that one is gone.
fn p6_stage_3_of_an_older_generation_blocks(kind: Supervisor, folder: &Path) {
    by_each_hammer(folder, |folder, hammer| {
        let scene = start(kind, folder, &format!("--at=shutdown=hang {}", hammer.option()));
        let old = scene.daemon(1);
        scene.deploy(&scene.script(&with("")));
        scene.service.restart();
        let new = scene.daemon(2);
        scene.service.down();
        scene::wait_drain(&scene.report, new.pid());
        if hammer == Hammer::ByHand {
            scene.log.wait(&[("stage", "drained"), ("daemon", &new.pid().to_string())]);
            assert_state(&scene, &new, "Draining");
            scene.assert_not_down();
        }
        hammer.falls(&scene, &old);
        scene.assert_ends();
        assert_eq!(scene.report.wait_of(new.pid(), "wait").text, "Stopped");
        assert_seen(&scene, "7 0");
    });
}

under_each_supervisor![
    Boxed::new().private_net() =>
    p1_p3_stage_1_blocks_until_handoff_timeout,
    p1_p3_p8_stage_1_blocks_and_the_launcher_is_killed,
    p3_p6_stage_1_blocks_and_the_service_is_stopped,
    p3_p6_stage_1_blocks_detached_and_the_service_is_stopped,
    p6_stage_3_blocks_and_the_service_is_stopped,
    p6_every_stage_blocks_and_the_service_is_stopped,
    p1_every_stage_blocks_and_a_successor_serves,
    p6_stage_3_of_an_older_generation_blocks
];
