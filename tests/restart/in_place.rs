//! Restart in place: on a reload signal the launcher itself starts the next generation, and stays.

use std::{
    fs,
    os::unix::{
        fs::{chown, symlink},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use seamless::{Config, ErrorKind};
use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed, Isolation},
    http::{self, Connection, FailureKind, Prober, Target, answer_of},
    process::{self, NOBODY, Watched, signal, stop_without_claim},
    report::{self, Event},
    scene,
    signal::{CONT, HUP, KILL, STOP, TERM, USR1, USR2},
    site::{SERVES_ON, Site, Started, User},
    supervisor::{Supervisor, write_script},
    under_each_supervisor, wait_for,
};

use crate::{
    launcher::start::wait_targets,
    supervisors::containers::{Container, Proc},
};

/// A service without a supervisor, that is probed all the time.
pub(super) struct Scene {
    pub(super) direct: Site,
    pub(super) started: Started,
    pub(super) target: Target,
    /// A link to the probe, or what is deployed instead.
    pub(super) program: PathBuf,
    pub(super) prober: Prober,
    /// The generations that have served, in order.
    pub(super) served: Vec<u32>,
}

impl Scene {
    #[track_caller]
    pub(super) fn new(folder: &Path, options: &[&str]) -> Scene {
        Self::start(folder, options, |_| {})
    }

    #[track_caller]
    pub(super) fn start(
        folder: &Path,
        options: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Scene {
        let target = Target::from(boxed::address());
        let direct = Site::alone(folder);
        let program = folder.join("program");
        symlink(bin::probe(), &program).expect("a link");
        let mut command = direct.command_of(&program, options);
        command.arg(format!("--tcp={target}"));
        // A shell ignores HUP for what it starts in the background.
        command.arg(format!("--reload-signal={HUP}"));
        prepare(&mut command);
        let started = direct.spawn(&mut command);
        let first = started.wait_started().pid();
        let prober = Prober::start(&target);
        prober.wait_pid(first);
        Scene { direct, started, target, program, prober, served: vec![first] }
    }

    /// A request that the current one has accepted, and that it cannot answer yet.
    #[track_caller]
    pub(super) fn hold(&self) -> Connection {
        // An older one accepts as long as it has the socket, which all of them share.
        let (_, older) = self.served.split_last().expect("the first");
        older.iter().copied().for_each(scene::wait_let_go);
        let request = Connection::unfinished(&self.target);
        request.wait_accepted(self.current());
        request
    }

    pub(super) fn launcher(&self) -> u32 {
        self.started.launcher.pid()
    }

    pub(super) fn current(&self) -> u32 {
        *self.served.last().expect("the first")
    }

    /// The next generation is the probe.
    pub(super) fn deploy_good(&self) {
        let new = self.program.with_extension("new");
        symlink(bin::probe(), &new).expect("a link");
        fs::rename(new, &self.program).expect("in place");
    }

    /// The next generation is the probe with further options.
    pub(super) fn deploy(&self, options: &str) {
        let probe = bin::probe();
        write_script(&self.program, &format!("exec '{}' \"$@\" {options}", probe.display()));
    }

    #[track_caller]
    pub(super) fn reload(&self) {
        signal(self.launcher(), HUP);
    }

    /// The next generation of this launcher has started, and answers.
    #[track_caller]
    pub(super) fn wait_taken_over(&mut self) {
        let new = self.direct.report.wait_nth("started", self.served.len() + 1).pid;
        self.prober.wait_pid(new);
        self.served.push(new);
        assert_eq!(process::stat(new).expect("it serves").ppid, self.launcher());
    }

    /// The generation before the current one drains for it, and ends.
    #[track_caller]
    pub(super) fn wait_drained(&self) {
        let old = self.served[self.served.len() - 2];
        assert_eq!(self.direct.report.wait_of(old, "wait").text, "TakenOver");
        Watched::new(old).wait_end(LIMIT);
    }

    /// So many restarts have failed, the last one for this reason; the old generation serves on.
    #[track_caller]
    pub(super) fn wait_failed(&self, nth: usize, why: &str) {
        let current = format!("current={}", self.current());
        let line = self.direct.log.wait_words(&["stage=reload-failed", &current], nth);
        assert!(line.contains(why), "{line}");
        self.prober.wait_more(3);
        assert_eq!(self.prober.seen().pids(), self.served);
    }

    /// The launcher has acted on every signal so far, and sleeps.
    pub(super) fn is_idle(&self) -> bool {
        let pending = process::signals(self.launcher()).is_some_and(|all| !all.pending.is_empty());
        !pending && process::stat(self.launcher()).is_some_and(|stat| stat.state == 'S')
    }

    #[track_caller]
    pub(super) fn wait_children(&self, expected: &[u32]) {
        let children = || {
            let mut children = process::children(self.launcher());
            children.sort_unstable();
            children
        };
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        wait_for(format!("only {expected:?}: {}", self.direct.log), LIMIT, || {
            (children() == expected).then_some(())
        });
    }

    #[track_caller]
    pub(super) fn finish(self) {
        self.finish_with(0);
    }

    /// No request has failed, and each generation has answered. As the last one ends, so does the
    /// launcher.
    #[track_caller]
    pub(super) fn finish_with(mut self, code: i32) {
        self.prober.wait_more(3);
        let probes = self.prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), self.served);
        assert_eq!(self.direct.report.named("started").len(), self.served.len());
        assert_eq!(self.direct.report.named("launch").len(), 1, "one launcher");
        signal(*self.served.last().expect("it serves"), TERM);
        assert_eq!(self.started.wait_end().code(), Some(code));
    }
}

pub(super) fn in_a_box(test: impl FnOnce(&Path)) {
    Boxed::new().private_net_without_migration().run(test);
}

// ---- a deploy after the other ----

/// By each way to ask for it. Requests in flight are answered by whoever has accepted them, two
/// restarts later.
#[test]
fn p1_p2_p3_the_launcher_stays_over_five_restarts() {
    in_a_box(|folder| {
        let restart = format!("--on={USR1}=call:restart");
        let mut scene = Scene::new(folder, &[&restart, "--exit-code=3"]);
        let first = scene.current();
        let request = scene.hold();
        let mut second = None;
        for nth in 1..=5 {
            match nth {
                1 | 2 => scene.reload(),
                3 => signal(scene.current(), USR2),
                4 => signal(scene.launcher(), USR2), // passed on
                _ => signal(scene.current(), USR1),
            }
            scene.wait_taken_over();
            match nth {
                1 => second = Some(scene.hold()),
                2 => {
                    scene.wait_children(&scene.served);
                    let second = second.take().expect("a request");
                    assert!(request_is_answered(second, scene.served[1]));
                    Watched::new(scene.served[1]).wait_end(LIMIT);
                }
                _ => scene.wait_drained(),
            }
            if nth == 5 {
                let called = scene.direct.report.wait_of(scene.served[4], "called");
                assert_eq!(called.text, "restart ok");
            }
        }
        assert!(request_is_answered(request, first));
        scene.wait_children(&[scene.current()]);
        scene.direct.log.wait_words(&["stage=reloaded"], 5);
        assert_eq!(scene.direct.named(), Some(scene.current()));
        scene.finish_with(3);
    });
}

pub(super) fn request_is_answered(request: Connection, by: u32) -> bool {
    request.finish().ends_with(&answer_of(by))
}

under_each_supervisor![
    Boxed::new().private_net_without_migration() =>
        p1_p2_the_supervised_pid_stays,
        p1_p6_term_ends_what_is_starting
];

fn site(kind: Supervisor, folder: &Path, options: &str) -> Site {
    let options = format!("--reload-signal={HUP} {options}");
    Site::at(folder).user(User::Root).shared_socket().options(&options).under(kind)
}

fn p1_p2_the_supervised_pid_stays(kind: Supervisor, folder: &Path) {
    let site = site(kind, folder, "");
    let launcher = site.launcher();
    let mut served = vec![site.started(1)];
    let prober = Prober::start(&site.target);
    prober.wait_pid(served[0]);
    for nth in 2..=6 {
        let old = Watched::new(*served.last().expect("one"));
        launcher.signal(HUP);
        let new = site.started(nth);
        prober.wait_pid(new);
        old.wait_end(LIMIT);
        assert_eq!(site.report.wait_of(old.pid(), "wait").text, "TakenOver");
        served.push(new);
    }
    assert_eq!(site.service().main_pid(), launcher.pid());
    // The supervisor's own restart still is one.
    let last = Watched::new(served[5]);
    site.service().settle();
    site.service().restart();
    let new = site.started(7);
    launcher.wait_end(LIMIT);
    last.wait_end(LIMIT);
    prober.wait_pid(new);
    served.push(new);
    let probes = prober.stop();
    probes.assert_all_answered();
    assert_eq!(probes.pids(), served);
    site.assert_one_generation(new);
    site.stop();
}

/// A restart and then a stop by the supervisor, each while a candidate is starting.
fn p1_p6_term_ends_what_is_starting(kind: Supervisor, folder: &Path) {
    let go = folder.join("go");
    // The first one starts at once: it is the only one to find this file.
    fs::write(&go, "").expect("a file");
    let site = site(kind, folder, &format!("--at=after-init=file:{}", go.display()));
    let launcher = site.launcher();
    let first = site.daemon(1);
    let prober = Prober::start(&site.target);
    prober.wait_pid(first.pid());
    site.service().settle();
    fs::remove_file(&go).expect("the file");
    launcher.signal(HUP);
    let candidate = Watched::new(site.report.wait_nth("init", 2).pid);
    site.service().restart();
    candidate.wait_end(LIMIT);
    launcher.wait_end(LIMIT);
    assert!(!first.has_ended());
    // The one that the supervisor has started waits as well.
    let third = site.report.wait_nth("init", 3);
    assert_ne!(third.text, launcher.pid().to_string(), "another launcher");
    fs::write(&go, "").expect("a file");
    site.started(2);
    prober.wait_pid(third.pid);
    first.wait_end(LIMIT);
    let probes = prober.stop();
    probes.assert_all_answered();
    assert_eq!(probes.pids(), [first.pid(), third.pid]);

    fs::remove_file(&go).expect("the file");
    site.service().settle();
    let request = Connection::unfinished(&site.target);
    site.launcher().signal(HUP);
    let candidate = Watched::new(site.report.wait_nth("init", 4).pid);
    site.service().down();
    site.wait_drain(third.pid);
    site.assert_not_down();
    assert!(request_is_answered(request, third.pid));
    candidate.wait_end(LIMIT);
    site.assert_ends();
    assert_eq!(site.report.named("started").len(), 2);
}

// ---- bad deploys ----

/// In each way in which a start can fail; the old one serves on, and the next attempt works.
#[test]
fn p1_a_bad_deploy_leaves_the_old_one_serving() {
    in_a_box(|folder| {
        let mut scene = Scene::new(folder, &[]);
        fs::remove_file(&scene.program).expect("the program");
        scene.reload();
        scene.wait_failed(1, "No such file");
        write_script(&scene.program, "exit 1");
        scene.reload();
        scene.wait_failed(2, "exit_code 1");
        for (nth, (options, why)) in (3..).zip([
            ("--at=before-daemon-init=exit:3", "exit_code 3"),
            ("--at=after-init=exit:4", "exit_code 4"),
            ("--at=ready=raise:6", "signal 6"),
        ]) {
            scene.deploy(options);
            scene.reload();
            scene.wait_failed(nth, why);
        }
        scene.wait_children(&[scene.current()]);
        scene.deploy_good();
        scene.reload();
        scene.wait_taken_over();
        scene.wait_drained();
        scene.finish();
    });
}

/// Before `init`, in its start, and stopped where no signal but KILL reaches it, with the claim in
/// its hands. A further reload ends it and starts the next one.
#[test]
fn p1_p4_a_deploy_that_hangs_blocks_nobody() {
    in_a_box(|folder| {
        let mut scene = Scene::new(folder, &["--handoff-timeout=300ms"]);
        let others = |scene: &Scene| {
            let mut children = process::children(scene.launcher());
            children.retain(|child| !scene.served.contains(child));
            children
        };
        for (nth, options) in (1..).zip([
            "--at=before-daemon-init=hang",
            "--at=after-init=hang",
            &format!("--at=after-init=raise:{STOP}"),
        ]) {
            scene.deploy(options);
            scene.reload();
            let hangs = match nth {
                1 => wait_for("a candidate that runs the probe", LIMIT, || {
                    let child = *others(&scene).first()?;
                    let runs = fs::read_link(format!("/proc/{child}/exe")).ok()?;
                    (runs == bin::probe()).then_some(child)
                }),
                // The first and the one after the first that hangs have reported theirs.
                2 => scene.direct.report.wait_nth("init", 3).pid,
                _ => scene::wait_stopped(|| others(&scene)),
            };
            let hangs = Watched::new(hangs);
            scene.prober.wait_more(3);
            assert!(!hangs.has_ended());
            scene.deploy_good();
            scene.reload();
            hangs.wait_end(LIMIT);
            scene.wait_taken_over();
            scene.wait_drained();
            scene.wait_children(&[scene.current()]);
            // It gave way to the next attempt, and nothing has failed.
            assert!(
                !scene.direct.log.text().contains("stage=reload-failed"),
                "{}",
                scene.direct.log
            );
        }
        scene.direct.log.wait_words(&["stage=cancel"], 3);
        scene.direct.log.wait_words(&["stage=kill", "its start was cancelled"], 1);
        scene.finish();
    });
}

/// The first of all may hang as well.
#[test]
fn p4_a_first_start_that_hangs_is_started_again() {
    in_a_box(|folder| {
        let direct = Site::alone(folder);
        let flag = folder.join("go");
        let wait = format!("--at=after-init=file:{}", flag.display());
        let mut started = direct.start(&["--reload-signal=1", &wait, "--exit-code=4"]);
        let first = started.wait_init();
        started.launcher.signal(HUP);
        first.wait_end(LIMIT);
        let second = direct.report.wait_nth("init", 2);
        fs::write(flag, "").expect("a file");
        assert_eq!(direct.report.wait("started").pid, second.pid);
        signal(second.pid, TERM);
        assert_eq!(started.wait_end().code(), Some(4), "{}", direct.log);
    });
}

// ---- many at once ----

/// As many drain as may, and then a restart is refused until one of them has ended.
#[test]
fn p3_a_restart_is_refused_while_too_many_drain() {
    in_a_box(|folder| {
        let mut scene = Scene::new(folder, &["--max-draining=2"]);
        let mut requests = vec![scene.hold()];
        for _ in 0..2 {
            scene.reload();
            scene.wait_taken_over();
            requests.push(scene.hold());
        }
        let [oldest, older] = [0, 1].map(|nth| Watched::new(scene.served[nth]));
        for nth in [1, 2] {
            scene.reload();
            scene.wait_failed(nth, "as many generations drain as max_draining allows");
        }
        scene.wait_children(&scene.served);
        assert!(request_is_answered(requests.remove(1), older.pid()));
        older.wait_end(LIMIT);
        scene.wait_children(&[oldest.pid(), scene.current()]);
        scene.reload();
        scene.wait_taken_over();
        assert!(request_is_answered(requests.remove(0), oldest.pid()));
        assert!(request_is_answered(requests.remove(0), scene.served[2]));
        scene.finish();
    });
}

/// In a burst of signals each takes back the one before it; in the end the newest serves alone.
#[test]
fn p1_p4_many_reloads_at_once() {
    in_a_box(|folder| {
        let scene = Scene::new(folder, &["--max-draining=20"]);
        for _ in 0..10 {
            scene.reload();
            scene.prober.wait_more(1);
        }
        let newest = wait_for(format!("one generation: {}", scene.direct.log), LIMIT, || {
            let newest = scene.direct.report.newest()?.pid;
            // With nothing left to do for the launcher, before and after the look at its children.
            let is_alone = || scene.is_idle() && process::children(scene.launcher()) == [newest];
            let is_named = scene.direct.named() == Some(newest);
            (is_alone() && is_named && is_alone() && newest != scene.current()).then_some(newest)
        });
        scene.prober.wait_pid(newest);
        let probes = scene.prober.stop();
        probes.assert_all_answered();
        assert!(probes.pids().len() >= 2);
        assert!(!scene.direct.log.text().contains("stage=reload-failed"), "{}", scene.direct.log);
    });
}

/// From root to another user: its TERM is refused, and the launcher, who is root, tells the old one.
#[test]
fn p4_a_generation_of_another_user_takes_over() {
    let boxed = Boxed::new().private_net_without_migration().needs(Isolation::Namespaces);
    boxed.run(|folder| {
        report::for_all_users(folder);
        chown(folder, Some(NOBODY), Some(NOBODY)).expect("chown");
        let mut scene = Scene::new(folder, &[]);
        scene.deploy(&format!("--at=ready=user:{NOBODY}"));
        scene.reload();
        scene.wait_taken_over();
        scene.direct.log.wait_words(&["signal=TERM", "Operation not permitted"], 1);
        scene.wait_drained();
        scene.wait_children(&[scene.current()]);
        scene
            .direct
            .log
            .wait_words(&["stage=takeover", "its successor's TERM did not reach it"], 1);
        scene.finish();
    });
}

// ---- ends ----

/// What becomes of the launcher where a process is killed, or ends by itself.
#[derive(Clone, Copy, Debug)]
enum Kill {
    /// The current one, while nobody else is there.
    Current,
    /// The one that is starting.
    Candidate,
    /// The current one, while another is starting, which then starts.
    CurrentBeforeSuccess,
    /// The same, and it fails.
    CurrentBeforeFailure,
    /// The newest, when its predecessor has not drained yet.
    Newest,
    /// The launcher, while one drains and one is starting.
    Launcher,
}

#[test]
fn p6_p8_p9_any_process_may_be_killed() {
    in_a_box(|folder| {
        let cases = [
            Kill::Current,
            Kill::Candidate,
            Kill::CurrentBeforeSuccess,
            Kill::CurrentBeforeFailure,
            Kill::Newest,
            Kill::Launcher,
        ];
        scene::each(folder, cases, killed);
    });
}

fn killed(folder: &Path, who: Kill) {
    let go = folder.join("go");
    let wait = format!("--at=after-init=file:{}", go.display());
    let mut scene = Scene::new(folder, &["--successor-timeout=none"]);
    let current = Watched::new(scene.current());
    let candidate = |scene: &Scene, options: &str| -> Event {
        scene.deploy(options);
        scene.reload();
        scene.direct.report.wait_nth("init", 2)
    };
    match who {
        Kill::Current => {
            current.kill();
            assert_eq!(scene.started.wait_end().signal(), Some(KILL));
        }
        Kill::Candidate => {
            let candidate = candidate(&scene, &wait);
            signal(candidate.pid, KILL);
            scene.wait_failed(1, "signal 9");
            scene.finish();
        }
        Kill::CurrentBeforeSuccess => {
            let candidate = candidate(&scene, &wait);
            current.kill();
            scene.direct.log.wait_words(&["stage=current-ended", "signal=9"], 1);
            fs::write(go, "").expect("a file");
            scene.wait_taken_over();
            assert_eq!(scene.current(), candidate.pid);
            signal(scene.current(), TERM);
            assert!(scene.started.wait_end().success(), "{}", scene.direct.log);
        }
        Kill::CurrentBeforeFailure => {
            let candidate = candidate(&scene, &wait);
            current.kill();
            scene.direct.log.wait_words(&["stage=current-ended", "signal=9"], 1);
            signal(candidate.pid, TERM);
            assert_eq!(scene.started.wait_end().signal(), Some(KILL), "as the one that served");
        }
        Kill::Newest => {
            let ready = format!("--at=ready=file:{}", go.display());
            let newest = candidate(&scene, &ready).pid;
            scene.direct.report.wait_of(newest, "socket");
            // Its TERM waits for a predecessor that does not run.
            stop_without_claim(&current);
            fs::write(go, "").expect("a file");
            scene.direct.report.wait_of(newest, "started");
            scene.direct.log.wait_words(&["stage=reloaded"], 1);
            signal(newest, KILL);
            scene.direct.log.wait_words(&["stage=reload-failed", "signal 9"], 1);
            current.signal(CONT);
            // It drains for one that is gone: nobody serves, and the launcher says so.
            assert_eq!(scene.started.wait_end().signal(), Some(KILL), "{}", scene.direct.log);
            current.wait_end(LIMIT);
            assert_eq!(scene.direct.report.wait_of(current.pid(), "wait").text, "TakenOver");
        }
        Kill::Launcher => {
            let request = scene.hold();
            scene.reload();
            scene.wait_taken_over();
            let second = Watched::new(scene.current());
            scene.deploy(&wait);
            scene.reload();
            let candidate = Watched::new(scene.direct.report.wait_nth("init", 3).pid);
            scene.started.launcher.kill();
            scene.started.wait_end();
            candidate.wait_end(LIMIT);
            assert!(request_is_answered(request, current.pid()));
            current.wait_end(LIMIT);
            scene.direct.wait_checks(second.pid(), 2);
            scene.prober.wait_more(3);
            let probes = scene.prober.stop();
            probes.assert_all_answered();
            assert_eq!(probes.pids(), scene.served);
            // The next launcher's daemon finds it.
            scene.direct.start_ready(&[]);
            assert_eq!(scene.direct.report.wait_of(second.pid(), "wait").text, "TakenOver");
        }
    }
}

/// An intent that nobody knows is a restart: the launcher leaves, and those that drain go on.
#[test]
fn p3_a_launcher_that_leaves_lets_the_older_ones_drain() {
    in_a_box(|folder| {
        let mut scene = Scene::new(folder, &["--exit-code=5"]);
        let request = scene.hold();
        scene.reload();
        scene.wait_taken_over();
        let [old, new] = [0, 1].map(|nth| Watched::new(scene.served[nth]));
        scene.started.launcher.signal(TERM);
        assert!(scene.started.wait_end().success());
        assert!(!old.has_ended() && !new.has_ended());
        assert!(request_is_answered(request, old.pid()));
        old.wait_end(LIMIT);
        new.signal(TERM);
        new.wait_end(LIMIT);
    });
}

/// Somebody has removed the control socket: the next generation fails for want of it, and the one
/// after it finds it again.
#[test]
fn p4_a_takeover_socket_that_was_removed_comes_back() {
    in_a_box(|folder| {
        let mut scene = Scene::new(folder, &[]);
        let socket = scene.direct.socket();
        fs::remove_file(&socket).expect("removed");
        scene.reload();
        scene.wait_failed(1, "before it had taken over");
        scene.direct.log.wait_words(&["stage=check", "nobody listened at the control socket"], 1);
        assert!(socket.exists());
        scene.reload();
        scene.wait_taken_over();
        scene.wait_drained();
        scene.finish();
    });
}

// ---- in a container ----

/// PID 1 stays and reaps what is orphaned to it; a stop is over when all have ended, and then the
/// container ends as the generation that served.
fn p1_p3_p6_in_a_container(init: &'static [&'static str]) {
    Boxed::new().private_net().needs(Isolation::UserNamespaces).run(|folder| {
        let options = format!("--reload-signal={HUP} --at=started=orphan:0");
        let mut container = Container::start(folder, init, Proc::Own, &options);
        let first = container.site.report.wait("started").pid;
        let launcher = container.pair()[0];
        let prober = Prober::start(&container.site.target);
        prober.wait_pid(first);
        let mut served = vec![first];
        let oldest = Connection::unfinished(&container.site.target);
        let mut older = None;
        for nth in 2..=4 {
            signal(container.pid_1(), HUP);
            let new = container.site.report.wait_nth("started", nth).pid;
            prober.wait_pid(new);
            container.site.wait_drain(*served.last().expect("one"));
            served.push(new);
            older = Some(Connection::unfinished(&container.site.target));
        }
        // By hand there is a restart as well. What leaves an orphan looks like a daemon until it has.
        container.site.report.wait_nth("orphan", 4);
        signal(container.newest(), USR2);
        let last = container.site.report.wait_nth("started", 5).pid;
        prober.wait_pid(last);
        served.push(last);
        container.site.wait_drain(served[3]);
        wait_for(format!("no zombie: {}", container.site.log), LIMIT, || {
            let children = process::children(launcher).into_iter().filter_map(process::stat);
            children.into_iter().all(|child| child.state != 'Z').then_some(())
        });
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), served);
        signal(container.pid_1(), TERM);
        container.site.wait_drain(last);
        assert_eq!(container.site.report.wait_of(last, "wait").text, "Stopped");
        for (request, by) in [(older.expect("one"), served[3]), (oldest, first)] {
            assert!(!Watched::new(launcher).has_ended());
            assert!(request_is_answered(request, by));
        }
        assert_eq!(container.exit_code(), Some(9), "{}", container.site.log);
    });
}

#[test]
fn p1_p3_p6_as_pid_1() {
    p1_p3_p6_in_a_container(&[]);
}

#[test]
fn p1_p3_p6_under_tini() {
    p1_p3_p6_in_a_container(&["tini", "--"]);
}

#[test]
fn p1_p3_p6_under_tini_and_a_wrapper() {
    const FORWARDS: &str = "for one in HUP TERM; do trap \"kill -$one \\$pid\" $one; done
\"$@\" & pid=$!
while kill -0 $pid 2>/dev/null; do wait $pid; code=$?; done
exit $code";
    p1_p3_p6_in_a_container(&["tini", "--", "sh", "-c", FORWARDS, "wrapper"]);
}

// ---- what it holds, and what it hands on ----

/// The supervisor; the pairs for signals; what it was started with; each daemon, and a channel to it.
#[test]
fn descriptors_after_twenty_restarts() {
    in_a_box(|folder| {
        let mut scene = Scene::start(folder, &[], |command| {
            use std::os::fd::{AsRawFd, OwnedFd};
            let null = fs::File::open("/dev/zero").expect("a file");
            let inherited: OwnedFd = nix::unistd::dup(&null).expect("not close-on-exec");
            command.stdout(Stdio::null());
            assert!(inherited.as_raw_fd() > 2);
            std::mem::forget(inherited);
        });
        let launcher = scene.launcher();
        // The last socket is a duplicate of the listener.
        let held = ["/dev/zero", "anon_inode:[pidfd]", "anon_inode:[pidfd]"].into_iter();
        let held: Vec<&str> = held.chain(["socket"; 6]).collect();
        wait_targets(launcher, folder, &held);
        for _ in 0..20 {
            scene.reload();
            scene.wait_taken_over();
            scene.wait_drained();
        }
        scene.wait_children(&[scene.current()]);
        wait_targets(launcher, folder, &held);
        assert_eq!(process::stat(launcher).expect("the launcher").threads, 1);
        let inherited = process::descriptors(scene.current());
        assert!(inherited.iter().any(|(_, what)| what == Path::new("/dev/zero")), "{inherited:?}");
        scene.finish();
    });
}

/// A link in the path by which the program was executed is followed anew, and a file that was
/// replaced is found.
#[test]
fn p1_the_file_is_the_one_that_is_there_now() {
    in_a_box(|folder| {
        let mut scene = Scene::new(folder, &[]);
        let probe = |name: &str| {
            let file = folder.join(name);
            fs::copy(bin::probe(), &file).expect("a copy");
            file
        };
        for name in ["release-1", "release-2"] {
            let file = probe(name);
            let new = scene.program.with_extension("new");
            symlink(&file, &new).expect("a link");
            fs::rename(new, &scene.program).expect("in place");
            scene.reload();
            scene.wait_taken_over();
            scene.wait_drained();
            let runs = fs::read_link(format!("/proc/{}/exe", scene.current())).expect("its file");
            assert_eq!(runs, file);
        }
        scene.finish();
    });
}

/// Ignored at the start, it counts all the same: the program has given it a meaning.
#[test]
fn p7_a_reload_signal_that_nohup_ignores_counts() {
    in_a_box(|folder| {
        let direct = Site::alone(folder);
        let mut command = Command::new("nohup");
        let probe = direct.command(&["--reload-signal=1"]);
        command.arg(probe.get_program()).args(probe.get_args());
        command.stdin(Stdio::null()).stdout(direct.log_end()).stderr(direct.log_end());
        let mut started = direct.spawn(&mut command);
        let first = started.wait_started();
        started.launcher.signal(HUP);
        let second = direct.report.wait_nth("started", 2);
        assert_eq!(second.pid, direct.report.wait_nth("init", 2).pid);
        first.wait_end(LIMIT);
        signal(second.pid, TERM);
        assert!(started.wait_end().success());
    });
}

#[test]
fn p10_a_reload_signal_that_cannot_be_used_is_an_error() {
    boxed::run(|_| {
        for signal in [0, -1, 2, 4, 8, 9, 11, 12, 13, 15, 17, 18, 19, 32, 65, i32::MAX] {
            let error = Config::new("/nonexistent/web.pid").reload_signals([1, signal]).init();
            let error = error.expect_err("no such signal");
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{signal}");
            assert_eq!(
                error.to_string(),
                format!(
                    "cannot restart on signal {signal} (reload_signals): it cannot be caught, or has \
                     another meaning here"
                )
            );
        }
        let release = Config::new("/nonexistent/web.pid").release_signal(USR1);
        let error = release.reload_signals([USR1]).init().expect_err("the release");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let none = Config::new("/nonexistent/web.pid").max_draining(0).init();
        let error = none.expect_err("no restart at all");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert_eq!(
            error.to_string(),
            "cannot restart with no generation that drains (max_draining): it must be 1 or more"
        );
    });
}

/// The current one crashes while the next one starts, which has taken nothing over yet: it gets what the
/// launcher holds.
#[test]
fn p12_in_place_a_crash_during_a_start_refuses_nobody() {
    Boxed::new().private_net().run(|folder| {
        let go = folder.join("go");
        let mut scene = Scene::new(folder, &[]);
        scene.deploy(&format!("--at=after-init=file:{}", go.display()));
        scene.reload();
        let next = scene.direct.report.wait_nth("init", 2).pid;
        Watched::new(scene.current()).kill();
        scene.direct.log.wait(&[("stage", "current-ended")]);
        let waits = Connection::unfinished(&scene.target);
        fs::write(go, "").expect("a file");
        scene.wait_taken_over();
        assert_eq!(scene.current(), next);
        assert!(waits.finish().ends_with(&answer_of(next)));
        let refused = |probes: seamless_testing::http::Probes| {
            let failed = probes.failures_by_kind();
            assert_eq!(failed.get(&FailureKind::Refused), None, "{failed:?}");
        };
        refused(scene.prober.stop());
    });
}

/// It dies in a hook of `hand_over`, when the next one has connected and got nothing so far.
#[test]
fn p12_in_place_a_crash_in_the_transfer_refuses_nobody() {
    Boxed::new().private_net().run(|folder| {
        let mut scene = Scene::new(folder, &["--state=kill"]);
        let crashed = scene.current();
        scene.reload();
        scene.wait_taken_over();
        let next = scene.current();
        scene.direct.log.wait(&[("daemon", &crashed.to_string()), ("stage", "current-ended")]);
        let fields = [("stage", "transfer"), ("predecessor_generation", "1"), ("sockets", "1")];
        scene.direct.log.wait(&fields);
        assert_eq!(process::stat(next).expect("it serves").ppid, scene.launcher());
        let failed = scene.prober.stop().failures_by_kind();
        assert_eq!(failed.get(&FailureKind::Refused), None, "{failed:?}");
    });
}

/// As systemd-tmpfiles and tmpreaper clean folders below `/tmp`: all of it is gone, the sockets too.
#[test]
fn p1_p4_a_folder_that_was_cleaned_costs_one_restart() {
    Boxed::new().private_net().run(|folder| {
        let site = Site::at(folder).shared_socket().alone();
        let run = site.pid_file().parent().expect("a folder").to_owned();
        let unix = run.join("unix");
        let listen = format!("--unix={}", unix.display());
        let (started, old) = site.start_ready(&[&listen, SERVES_ON, "--reload-signal=1"]);
        let prober = Prober::start(&site.target);
        prober.wait_pid(old.pid());
        for name in ["web.pid", "web.pid.lock", "web.pid.sock", "unix"] {
            fs::remove_file(run.join(name)).expect("a file");
        }
        started.launcher.signal(HUP);
        let error = site.report.wait("error").text;
        assert!(error.contains("; this service itself holds tcp "), "{error}");
        assert!(error.ends_with("restart again"), "{error}");
        site.log.wait_words(&["nobody listened at the control socket"], 1);
        assert_eq!(site.named(), Some(old.pid()));
        started.launcher.signal(HUP);
        assert_eq!(site.report.wait_of(old.pid(), "wait").text, "TakenOver", "{}", site.log);
        let new = site.report.wait_nth("started", 2).pid;
        prober.wait_pid(new);
        prober.stop().assert_all_answered();
        assert_eq!(http::pid(&Target::Unix(unix)), new);
    });
}
