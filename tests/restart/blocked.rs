//! Hooks that block for ever: the hammer, the limits, a stop, a takeover and `state()` work all the
//! same.

use std::{fs, path::Path};

use seamless_testing::{
    LIMIT,
    boxed::Boxed,
    http::{Connection, Prober, answer_of},
    process::Watched,
    scene,
    signal::{USR1, USR2},
    site::{Site, User},
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

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
    fn falls(self, site: &Site, daemon: &Watched) {
        let pid = daemon.pid();
        site.wait_drain(pid);
        if self == Hammer::ByHand {
            assert_state(site, daemon, "Draining");
            daemon.signal(USR2);
        }
        daemon.wait_end(LIMIT);
        assert_eq!(site.hooks(pid).last().map(String::as_str), Some("hammer"));
        let reason = if self == Hammer::ByHand { "USR2" } else { "drain_timeout" };
        site.log.wait(&[
            ("stage", "hammer"),
            ("daemon", &pid.to_string()),
            ("reason", reason),
            ("exit_code", "124"),
        ]);
        assert!(!site.report.names_of(pid).contains(&"wait".to_owned()));
    }
}

/// By either hammer at once, each with a service of its own.
fn by_each_hammer(folder: &Path, test: impl Fn(&Path, Hammer) + Sync) {
    scene::each(folder, [Hammer::DrainTimeout, Hammer::ByHand], test);
}

/// A service that tells its state on USR1, and ends with 7.
fn start(kind: Supervisor, folder: &Path, options: &str) -> Site {
    let site = Site::at(folder).user(User::Root).options(&with(options)).under(kind);
    site.note_finishes();
    site.service().settle();
    site
}

fn with(options: &str) -> String {
    format!("--on={USR1}=call:state --exit-code=7 {options}")
}

/// Its first `on_shutdown_request` hook runs.
#[track_caller]
fn wait_request_hook(site: &Site, daemon: &Watched) {
    assert_eq!(site.report.wait_of(daemon.pid(), "hook").text, "request");
}

/// It answers, and this.
#[track_caller]
fn assert_state(site: &Site, daemon: &Watched, state: &str) {
    let told = || -> Vec<String> {
        let called = site.report.named("called").into_iter();
        called.filter(|one| one.pid == daemon.pid()).map(|one| one.text).collect()
    };
    let before = told().len();
    daemon.signal(USR1);
    let text = wait_for("an answer of state()", LIMIT, || told().get(before).cloned());
    assert!(text.starts_with(&format!("state {state} Some(")), "not {state}: {text}");
}

/// What runit's `./finish` was given last, once the service is down.
#[track_caller]
fn assert_seen(site: &Site, end: &str) {
    if site.service().kind() == Supervisor::Runit {
        wait_for(format!("./finish {end}"), LIMIT, || {
            site.finishes().last().is_some_and(|last| last == end).then_some(())
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
    let site = start(kind, folder, &options);
    let (launcher, old) = (site.launcher(), site.daemon(1));
    let request = Connection::unfinished(&site.target);
    let prober = Prober::start(&site.target);
    prober.wait_pid(old.pid());
    let go = folder.join("go");
    let waits = format!("--at=after-init=file:{}", go.display());
    site.deploy_options(&with(&format!("{options} {waits}")));
    site.service().restart();
    wait_request_hook(&site, &old);
    if goes == Goes::Killed {
        assert_state(&site, &old, "Serving");
        site.service().control(if kind == Supervisor::Runit { "kill" } else { "-k" });
    }
    launcher.wait_end(LIMIT);
    if goes == Goes::ByHandoffTimeout {
        let reason =
            "handoff_timeout: the daemon did not release its launcher and serves on detached";
        let launcher = launcher.pid().to_string();
        site.log.wait(&[("stage", "release"), ("launcher", &launcher), ("reason", reason)]);
    }

    // The successor starts; the old one has no launcher, and its hook still runs.
    site.report.wait_nth("init", 2);
    site.log.wait(&[("stage", "check"), ("daemon", &old.pid().to_string())]);
    assert_state(&site, &old, "Detached");
    fs::write(go, "").expect("a file");
    let new = site.daemon(2);
    site.wait_drain(old.pid());
    assert_state(&site, &old, "Draining");
    assert!(request.finish().ends_with(&answer_of(old.pid())));
    old.wait_end(LIMIT);
    assert_eq!(site.report.wait_of(old.pid(), "wait").text, "TakenOver");
    assert_eq!(site.hooks(old.pid()), ["request", "shutdown"]);
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
    let site = start(kind, folder, "--at=request=hang --handoff-timeout=1h");
    let daemon = site.daemon(1);
    let request = Connection::unfinished(&site.target);
    site.service().restart();
    wait_request_hook(&site, &daemon);
    site.service().down();
    site.wait_drain(daemon.pid());
    assert_state(&site, &daemon, "Draining");
    site.assert_not_down();
    assert!(request.finish().ends_with(&answer_of(daemon.pid())));
    site.assert_ends();
    assert_eq!(site.report.wait_of(daemon.pid(), "wait").text, "Stopped");
    assert_seen(&site, "7 0");
}

/// The launcher has gone by `handoff_timeout`, and `svc -d` comes while the successor starts.
fn p3_p6_stage_1_blocks_detached_and_the_service_is_stopped(kind: Supervisor, folder: &Path) {
    let options = "--at=request=hang --handoff-timeout=300ms";
    let site = start(kind, folder, options);
    let old = site.daemon(1);
    let request = Connection::unfinished(&site.target);
    site.deploy_options(&with("--at=after-init=hang"));
    site.service().restart();
    site.report.wait_nth("init", 2);
    site.service().down();
    site.wait_drain(old.pid());
    assert_state(&site, &old, "Draining");
    site.assert_not_down();
    assert!(request.finish().ends_with(&answer_of(old.pid())));
    site.assert_ends();
    assert_eq!(site.hooks(old.pid()), ["request", "shutdown"]);
}

// ---- stage 3, and both ----

/// Attached: the supervisor is told of no end before the hammer, and sees its code.
fn p6_stage_3_blocks_and_the_service_is_stopped(kind: Supervisor, folder: &Path) {
    by_each_hammer(folder, |folder, hammer| {
        let site = start(kind, folder, &format!("--at=shutdown=hang {}", hammer.option()));
        let daemon = site.daemon(1);
        site.service().down();
        site.wait_drain(daemon.pid());
        if hammer == Hammer::ByHand {
            site.assert_not_down();
        }
        hammer.falls(&site, &daemon);
        site.assert_ends();
        assert_eq!(site.hooks(daemon.pid()), ["shutdown", "hammer"]);
        assert_seen(&site, "124 0");
    });
}

/// Every hook there is blocks, in a daemon that is told to restart and then to stop.
fn p6_every_stage_blocks_and_the_service_is_stopped(kind: Supervisor, folder: &Path) {
    by_each_hammer(folder, |folder, hammer| {
        let options = "--at=request=hang --at=shutdown=hang --at=hammer=hang";
        let site = start(kind, folder, &format!("{options} {}", hammer.option()));
        let daemon = site.daemon(1);
        site.service().restart();
        wait_request_hook(&site, &daemon);
        site.service().down();
        hammer.falls(&site, &daemon);
        site.assert_ends();
        assert_eq!(site.hooks(daemon.pid()), ["request", "shutdown", "hammer"]);
        assert_seen(&site, "124 0");
    });
}

/// Detached: the successor serves meanwhile, and the old one ends by the hammer.
fn p1_every_stage_blocks_and_a_successor_serves(kind: Supervisor, folder: &Path) {
    by_each_hammer(folder, |folder, hammer| {
        let options = "--at=request=hang --at=shutdown=hang --at=hammer=hang";
        let limits = format!("--handoff-timeout=300ms {}", hammer.option());
        let site = start(kind, folder, &format!("{options} {limits}"));
        let old = site.daemon(1);
        site.deploy_options(&with(""));
        // A listener whose drain never begins is cut by the hammer with what it has accepted.
        let prober = (hammer == Hammer::ByHand).then(|| Prober::start(&site.target));
        site.service().restart();
        let new = site.daemon(2);
        if let Some(prober) = prober {
            site.wait_drain(old.pid());
            prober.wait_pid(new.pid());
            prober.stop().assert_all_answered();
        }
        hammer.falls(&site, &old);
        assert_state(&site, &new, "Serving");
        site.assert_one_generation(new.pid());
        assert_eq!(seamless_testing::http::pid(&site.target), new.pid());
        site.service().settle();
        site.service().restart();
        site.assert_one_generation(site.started(3));
    });
}

/// An older generation blocks, and the service is stopped: it is not down before that one is gone.
fn p6_stage_3_of_an_older_generation_blocks(kind: Supervisor, folder: &Path) {
    by_each_hammer(folder, |folder, hammer| {
        let site = start(kind, folder, &format!("--at=shutdown=hang {}", hammer.option()));
        let old = site.daemon(1);
        site.deploy_options(&with(""));
        site.service().restart();
        let new = site.daemon(2);
        site.service().down();
        site.wait_drain(new.pid());
        if hammer == Hammer::ByHand {
            site.log.wait(&[("stage", "drained"), ("daemon", &new.pid().to_string())]);
            assert_state(&site, &new, "Draining");
            site.assert_not_down();
        }
        hammer.falls(&site, &old);
        site.assert_ends();
        assert_eq!(site.report.wait_of(new.pid(), "wait").text, "Stopped");
        assert_seen(&site, "7 0");
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
