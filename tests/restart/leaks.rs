//! Nothing leaks: what launcher and daemon hold at each stage of their lives, what the programs that
//! they start get of it, and that twenty restarts change none of that.

use std::{
    fs,
    path::{Path, PathBuf},
};

use seamless_testing::{
    LIMIT, as_each_user,
    boxed::Boxed,
    http::{Connection, Prober, answer_of},
    log::Log,
    process::{self, Watched, descriptors, signal},
    report::Report,
    scene,
    signal::{CONT, STOP},
    site::{ENDS_SOON, Site, User},
    supervisor::{Service, Supervisor},
    under_each_supervisor, wait_for,
};

use crate::launcher::start::{targets, wait_targets};

/// The supervisor and the daemon; the channel; a pair of sockets for the signals that it understands,
/// and one for those that it passes on.
const LAUNCHER: [&str; 7] =
    ["anon_inode:[pidfd]", "anon_inode:[pidfd]", "socket", "socket", "socket", "socket", "socket"];

/// The supervisor; so many sockets; and these files. Of the crate there are a pair of sockets for
/// signals, two for its threads, and the channel as long as there is a launcher.
fn daemon(sockets: usize, files: &[&'static str]) -> Vec<&'static str> {
    let sockets = std::iter::repeat_n("socket", sockets);
    std::iter::once("anon_inode:[pidfd]").chain(sockets).chain(files.iter().copied()).collect()
}

const CRATE: usize = 7;
/// And from `started` on the control socket.
const STARTED: usize = CRATE + 1;
const CHANNEL: usize = 1;
/// The probe's own: a pair for its signals; a listener and a pair to end it.
const PROBE: usize = 2;
const SERVER: usize = 3;
const CONNECTION: usize = 1;
const FILES: [&str; 2] = ["web.pid", "web.pid.lock"];
/// What is in the folder, also when all is over.
const FOLDER: [&str; 3] = ["web.pid", "web.pid.lock", "web.pid.sock"];

as_each_user![descriptors_at_each_stage];

fn descriptors_at_each_stage(kind: Supervisor, folder: &Path, user: User) {
    let site = Site::at(folder).user(user).under(kind);
    let held = |pid: u32, expected: &[&str]| wait_targets(pid, &site.run, expected);
    let [go, begin] = ["go", "begin"].map(|name| site.flag(name));

    // A generation whose `on_shutdown_request` hook waits, and then one that waits in its start.
    let first = site.started(1);
    let second = site.restart(first, &format!("--at=request=file:{}", go.display()));
    let launcher = site.launcher();
    held(launcher.pid(), &LAUNCHER);
    held(second, &daemon(STARTED + PROBE + SERVER, &FILES));
    let request = Connection::unfinished(&site.target);
    held(second, &daemon(STARTED + PROBE + SERVER + CONNECTION, &FILES));

    site.deploy_options(&format!("{ENDS_SOON} --at=after-init=file:{}", begin.display()));
    site.service().restart();
    site.report.wait_of(second, "hook");
    held(launcher.pid(), &LAUNCHER);
    held(second, &daemon(STARTED + PROBE + SERVER + CONNECTION, &FILES));
    fs::write(go, "").expect("a file");
    launcher.wait_end(LIMIT);
    held(second, &daemon(STARTED - CHANNEL + PROBE + SERVER + CONNECTION, &FILES));

    let third = site.report.wait_nth("init", 3).pid;
    let launcher = site.launcher();
    held(launcher.pid(), &LAUNCHER);
    held(third, &daemon(CRATE + PROBE, &["web.pid.lock"]));
    // The older one looks round meanwhile, and opens nothing for good.
    site.wait_checks(second, 2);
    held(second, &daemon(STARTED - CHANNEL + PROBE + SERVER + CONNECTION, &FILES));
    fs::write(begin, "").expect("a file");
    assert_eq!(site.started(3), third);
    held(third, &daemon(STARTED + PROBE + SERVER, &FILES));

    // Of its server one end of the pair is left; the PID file is its own, under a name no more.
    site.wait_drain(second);
    let draining = ["web.pid (deleted)", "web.pid.lock"];
    held(second, &daemon(STARTED - CHANNEL + PROBE + 1 + CONNECTION, &draining));
    assert!(request.finish().ends_with(&answer_of(second)));
    held(launcher.pid(), &LAUNCHER);

    // A drain with a launcher, at which nobody waits any more for the one that has ended.
    let request = Connection::unfinished(&site.target);
    held(third, &daemon(STARTED + PROBE + SERVER + CONNECTION, &FILES));
    if site.knows_a_stop() {
        Watched::new(second).wait_end(LIMIT);
        site.service().down();
        site.wait_drain(third);
        held(launcher.pid(), &LAUNCHER);
        held(third, &daemon(STARTED + PROBE + 1 + CONNECTION, &FILES));
    }
    assert!(request.finish().ends_with(&answer_of(third)));
    site.stop();
    assert_eq!(files(&site.run), FOLDER);
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

// ---- twenty restarts ----

/// The threads of a probe that serves: its main one, four of the crate, and those that take signals,
/// wait for the end and accept connections.
const IDLE: u32 = 8;

/// What can grow, of one generation that serves and has nothing to do.
#[derive(Debug, PartialEq, Eq)]
struct Size {
    launcher: Vec<String>,
    daemon: Vec<String>,
    threads: (u32, u32),
    /// Their names.
    environment: Vec<String>,
    files: Vec<String>,
    processes: usize,
    zombies: Vec<process::Stat>,
}

impl Size {
    #[track_caller]
    fn of(site: &Site, daemon: u32) -> Self {
        wait_targets(daemon, &site.run, &self::daemon(STARTED + PROBE + SERVER, &FILES));
        let launcher = site.service().main_pid();
        // What has ended in the box is taken away by its init.
        let zombies = || -> Vec<process::Stat> {
            process::all().into_iter().filter(|stat| stat.state == 'Z').collect()
        };
        wait_for(format!("no zombies: {:?}", zombies()), LIMIT, || {
            zombies().is_empty().then_some(())
        });
        let threads = |pid| process::stat(pid).expect("it serves").threads;
        // That of the last request may be ending.
        wait_for("no thread has a request", LIMIT, || (threads(daemon) == IDLE).then_some(()));
        let environment = fs::read(format!("/proc/{daemon}/environ")).expect("its environment");
        let names = environment.split(|byte| *byte == 0).map(|variable| {
            let name = variable.split(|byte| *byte == b'=').next().unwrap_or_default();
            String::from_utf8_lossy(name).into_owned()
        });
        Size {
            launcher: targets(launcher, &site.run),
            daemon: targets(daemon, &site.run),
            threads: (threads(launcher), threads(daemon)),
            environment: names.collect(),
            files: files(&site.run),
            processes: process::descendants(site.service().supervisor_pid()).len(),
            zombies: zombies(),
        }
    }
}

/// Its tests are in `at_full_length`.
pub(crate) fn twenty_restarts(kind: Supervisor, folder: &Path) {
    /// Pages that are touched or not by chance.
    const CHANCE: u64 = 128 << 10;
    let site = Site::at(folder).user(User::Root).under(kind);
    let memory = |daemon: u32| {
        let launcher = site.service().main_pid();
        [launcher, daemon].map(|pid| process::private_dirty(pid).expect("its memory"))
    };
    let prober = Prober::start(&site.target);
    let mut generations = vec![site.started(1)];
    prober.wait_pid(generations[0]);
    // The first has no predecessor: the second is the measure, once it has answered.
    generations.push(site.restart(generations[0], ""));
    prober.wait_pid(generations[1]);
    let probes = prober.stop();
    probes.assert_all_answered();
    assert_eq!(probes.pids(), generations);
    let before = Size::of(&site, generations[1]);
    assert_eq!(before.threads.0, 1);
    assert_eq!((before.processes, before.zombies.len()), (2, 0));
    assert_eq!(
        (&before.launcher[..], &before.files[..]),
        (&LAUNCHER.map(String::from)[..], &FOLDER.map(String::from)[..])
    );
    let memory_before = memory(generations[1]);
    let prober = Prober::start(&site.target);
    for _ in 0..20 {
        let options = if generations.len() < 21 { "" } else { ENDS_SOON };
        let old = *generations.last().expect("the first");
        prober.wait_pid(old);
        generations.push(site.restart(old, options));
    }
    let newest = generations[21];
    prober.wait_pid(newest);
    let probes = prober.stop();
    probes.assert_all_answered();
    assert_eq!(probes.pids(), generations[1..]);
    assert_eq!(Size::of(&site, newest), before);
    let memory_after = memory(newest);
    for (before, after) in memory_before.into_iter().zip(memory_after) {
        assert!(after <= before + CHANCE, "{memory_before:?} {memory_after:?}");
    }
    let record = fs::read_to_string(site.lock_file()).expect("the record");
    assert_eq!(record.lines().count(), 4, "the newest, and its predecessor: {record}");
    site.assert_one_generation(newest);
    site.stop();
    assert_eq!(files(&site.run), FOLDER);
}

// ---- what a program gets that is started by one of them ----

/// From every hook, and between them.
fn programs_inherit_nothing_of_the_crates(kind: Supervisor, folder: &Path) {
    const POINTS: [&str; 6] = ["launch", "after-init", "started", "request", "shutdown", "drained"];
    let spawn = POINTS.map(|point| format!("--at={point}=spawn:{point}")).join(" ");
    let hammer = "--drain-timeout=200ms --at=shutdown=hang --at=hammer=spawn:hammer";
    let service = Service::new(kind, folder.join("service"), &scene::script(folder, &spawn));
    let report = Report::new(folder.join("report"));
    let first = report.wait("started").pid;
    let launcher = service.main_pid();
    seamless_testing::supervisor::write_script(
        &service.folder().join("run"),
        &scene::script(folder, hammer),
    );
    service.settle();
    service.restart();
    let second = report.wait_nth("started", 2).pid;
    Watched::new(first).wait_end(LIMIT);
    let second_launcher = process::stat(second).expect("it serves").ppid;
    service.down();
    Watched::new(second).wait_end(LIMIT);

    let log = Log::of(folder);
    let parents = [[launcher, first], [second_launcher, second]];
    for (point, [launcher, daemon]) in
        POINTS.map(|point| (point, parents[0])).into_iter().chain([("hammer", parents[1])])
    {
        let started = report.named("spawned").into_iter().find_map(|event| {
            let (pid, name) = event.text.split_once(' ')?;
            (name == point).then(|| (event.pid, pid.parse::<u32>().expect("a PID")))
        });
        let (by, pid) = started.unwrap_or_else(|| panic!("{point}:\n{report}\n{log}"));
        assert_eq!(by, if point == "launch" { launcher } else { daemon });
        let file = folder.join("log");
        let expected: [(i32, PathBuf); 3] = [(0, "/dev/null".into()), (1, file.clone()), (2, file)];
        // It may be opening a library yet, and has no environment in the middle of its exec.
        wait_for(format!("{point}: only {expected:?}: {:?}", descriptors(pid)), LIMIT, || {
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            (descriptors(pid) == expected && !environment.is_empty()).then_some(())
        });
        let signals = process::signals(pid).expect("it waits");
        assert!(signals.blocked.is_empty() && signals.caught.is_empty(), "{point}: {signals:?}");
        assert!(process::catchable_signals().all(|one| !signals.ignored.contains(one)), "{point}");
        // Its environment is the daemon's, with two words that mean nothing to anybody but it.
        let ours = |name: &str| process::variable(pid, name);
        let channel =
            ours("SEAMLESS_CHANNEL").map(|number| number.parse::<i32>().expect("a number"));
        match point {
            "launch" => assert_eq!((ours("SEAMLESS"), channel), (None, None)),
            _ => {
                assert_eq!(ours("SEAMLESS"), Some(launcher.to_string()), "{point}");
                assert!(channel.is_some_and(|fd| fd > 2), "{point}");
            }
        }
        let environment = fs::read(format!("/proc/{pid}/environ")).expect("its environment");
        let others = environment.split(|byte| *byte == 0).filter(|variable| {
            variable.starts_with(b"SEAMLESS") && !variable.starts_with(b"SEAMLESS_TEST_")
        });
        assert_eq!(others.count(), if point == "launch" { 0 } else { 2 }, "{point}");
    }
}

/// Under a runtime the launcher keeps what the program had before `init`, all of it, and it works.
fn a_launcher_leaves_a_runtime_alone(kind: Supervisor, folder: &Path) {
    let options = format!("--runtime-before-init --at=before-init=raise:{STOP} {ENDS_SOON}");
    let run = format!("exec 7</dev/null 8</dev/zero\n{}", scene::script(folder, &options));
    let service = Service::new(kind, folder.join("service"), &run);
    let report = Report::new(folder.join("report"));
    let mut launcher = service.main_pid();
    for generation in 1..=2 {
        wait_for("it stops before init", LIMIT, || {
            (process::stat(launcher)?.state == 'T').then_some(())
        });
        let before = descriptors(launcher);
        let mut expected = targets(launcher, folder);
        assert!(expected.contains(&"anon_inode:[eventpoll]".to_owned()), "{expected:?}");
        signal(launcher, CONT);
        signal(scene::stopped_child(launcher), CONT);
        let daemon = Watched::new(report.wait_nth("started", generation).pid);
        assert_eq!(report.wait_nth("runtime", generation).pid, launcher);
        expected.extend(LAUNCHER.map(String::from));
        expected.sort();
        wait_targets(launcher, folder, &expected.iter().map(String::as_str).collect::<Vec<_>>());
        let after = descriptors(launcher);
        assert!(before.iter().all(|one| after.contains(one)), "{before:?} {after:?}");
        let threads = process::stat(launcher).expect("the launcher").threads;
        assert_eq!(threads, 2, "its own and one of the runtime's");
        if generation == 1 {
            service.settle();
            service.restart();
            launcher = service.main_pid_after(launcher);
            // The next one stands still yet, so this one serves on.
            assert!(!daemon.has_ended());
        }
    }
    service.down();
    scene::wait_all_ended(folder);
}

mod programs {
    use super::*;
    under_each_supervisor![
        Boxed::new().private_net() =>
        programs_inherit_nothing_of_the_crates,
        a_launcher_leaves_a_runtime_alone
    ];
}
