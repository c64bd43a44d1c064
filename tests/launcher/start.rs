//! The launcher: what it holds, what it hands to its daemon, and when it gives up on it.

use std::{
    fs::{self, File},
    os::unix::{ffi::OsStrExt, fs::MetadataExt, process::CommandExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    log::Log,
    process::{self, Watched, descriptors, signal},
    report::Report,
    scene,
    signal::{CONT, HUP, STOP, TERM, USR2},
    site::{SERVES_ON, Site},
    supervisor::{Service, Supervisor},
    under_each_supervisor, wait_for,
};

/// What the launcher of a service and its daemon hold beyond the three standard descriptors, when
/// the run script leaves two open.
fn descriptors_are_few_and_not_passed_on(kind: Supervisor, folder: &Path) {
    let options = format!("--at=before-daemon-init=raise:{STOP}");
    let run = format!("exec 7</dev/null 8</dev/zero\n{}", scene::script(folder, &options));
    let service = Service::new(kind, folder.join("service"), &run);
    let launcher = service.main_pid();
    let daemon = scene::stopped_child(launcher);

    // The daemon was started with what the run script left open, and the channel.
    let inherited = targets(daemon, folder);
    assert_eq!(inherited, ["/dev/null", "/dev/zero", "socket"]);

    // The launcher keeps its supervisor, its daemon, the channel, and two pairs to be woken by its
    // handlers: for signals that it understands and for those that it passes on. The numbers of the two
    // that were left open are not used again.
    Log::of(folder).wait(&[("stage", "launch")]);
    let held = ["/", "/"].into_iter().chain(["anon_inode:[pidfd]"; 2]).chain(["socket"; 5]);
    wait_targets(launcher, folder, &held.collect::<Vec<_>>());
    assert_eq!(process::stat(launcher).expect("the launcher").threads, 1);

    signal(daemon, CONT);
    Report::new(folder.join("report")).wait("started");
    // The daemon has besides: a pair for handlers, one for its threads and one for the thread that
    // hands over, with its listener; the supervisor as the launcher knows it, and the files; the
    // last pair is the probe's own.
    let files = ["web.pid", "web.pid.lock"];
    let held = ["/dev/null", "/dev/zero", "anon_inode:[pidfd]"].into_iter();
    let held: Vec<&str> = held.chain(["socket"; 10]).chain(files).collect();
    wait_targets(daemon, folder, &held);
    // A program that the daemon starts gets none of those.
    let passed_on: Vec<i32> = descriptors(daemon)
        .into_iter()
        .map(|(fd, _)| fd)
        .filter(|fd| !closes(daemon, *fd))
        .collect();
    assert_eq!(passed_on, [0, 1, 2, 7, 8]);
}

/// Waits until these are all; a report may still be open.
#[track_caller]
pub(crate) fn wait_targets(pid: u32, folder: &Path, expected: &[&str]) {
    let what = format!("{pid} holds {expected:?}: {:?}", targets(pid, folder));
    wait_for(what, LIMIT, || (targets(pid, folder) == expected).then_some(()));
}

/// What descriptors from 3 up are, without the numbers of sockets, sorted.
pub(crate) fn targets(pid: u32, folder: &Path) -> Vec<String> {
    let beyond = descriptors(pid).into_iter().filter(|(number, _)| *number > 2);
    let mut targets: Vec<String> = beyond
        .map(|(_, target)| {
            let target = target.strip_prefix(folder).unwrap_or(&target).to_string_lossy();
            target.split(":[").next().filter(|kind| *kind == "socket").unwrap_or(&target).to_owned()
        })
        .collect();
    targets.sort();
    targets
}

/// Is this descriptor close-on-exec?
fn closes(pid: u32, fd: i32) -> bool {
    const CLOEXEC: u32 = 0o2000000;
    let about = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).expect("the descriptor");
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:")).expect("its flags");
    u32::from_str_radix(flags.trim(), 8).expect("a number") & CLOEXEC != 0
}

/// Where threads run before `init`, the launcher leaves them and all descriptors alone.
fn threads_before_init_are_left_alone(kind: Supervisor, folder: &Path) {
    let run = format!(
        "exec 7</dev/null\n{}",
        scene::script(folder, "--threads-before-init=3 --no-wait --at=shutdown=exit:0")
    );
    let service = Service::new(kind, folder.join("service"), &run);
    let report = Report::new(folder.join("report"));
    for generation in 1..=3 {
        report.wait_nth("started", generation);
        let launcher = service.main_pid();
        assert_eq!(process::stat(launcher).expect("the launcher").threads, 4);
        assert!(targets(launcher, folder).contains(&"/dev/null".to_owned()));
        let daemon = Watched::new(report.named("started")[generation - 1].pid);
        if generation < 3 {
            service.restart();
            daemon.wait_end(LIMIT);
        }
    }
}

/// A new program file, put in place by a rename, is what the next generation runs.
fn p1_a_deploy_by_rename(kind: Supervisor, folder: &Path) {
    let program = folder.join("program");
    deploy(&program);
    let run = with_program(&scene::script(folder, ""), &program);
    let service = Service::new(kind, folder.join("service"), &run);
    let report = Report::new(folder.join("report"));
    for generation in 1..=2 {
        let daemon = report.wait_nth("started", generation).pid;
        let launcher = service.main_pid();
        let file = fs::metadata(&program).expect("the program").ino();
        assert_eq!((inode(launcher), inode(daemon)), (file, file), "generation {generation}");
        deploy(&program);
        let launcher = Watched::new(launcher);
        service.restart();
        launcher.wait_end(LIMIT);
    }
}

/// Puts a copy of the probe in place by a rename.
fn deploy(program: &Path) {
    let new = program.with_extension("new");
    fs::copy(bin::probe(), &new).expect("a copy");
    fs::rename(new, program).expect("in place");
}

fn with_program(script: &str, program: &Path) -> String {
    let probe = bin::probe().display().to_string();
    script.replace(&probe, &program.display().to_string())
}

/// Of the file that a process executes.
fn inode(pid: u32) -> u64 {
    fs::metadata(format!("/proc/{pid}/exe")).expect("its file").ino()
}

fn a_run_script_without_exec_is_warned_of(kind: Supervisor, folder: &Path) {
    let report = Report::new(folder.join("report"));
    let log = Log::of(folder);
    let warned = || {
        log.stage("launch").iter().any(|line| {
            line.field("reason").is_some_and(|reason| reason.contains("shell script without exec"))
        })
    };

    let run = scene::script(folder, "");
    let mut service = Service::new(kind, folder.join("service"), &run);
    let daemon = Watched::new(report.wait("started").pid);
    assert!(!warned(), "{log}");
    service.down();
    daemon.wait_end(LIMIT);
    service.kill_supervisor();

    let probe = format!("exec '{}'", bin::probe().display());
    let run = scene::script(folder, "").replace(&probe, &probe["exec ".len()..]);
    let _service = Service::new(kind, folder.join("without"), &format!("{run}\n:"));
    report.wait_nth("started", 2);
    wait_for("a warning", LIMIT, || warned().then_some(()));
}

mod supervised {
    use super::*;

    under_each_supervisor![
        descriptors_are_few_and_not_passed_on,
        threads_before_init_are_left_alone,
        p1_a_deploy_by_rename,
        a_run_script_without_exec_is_warned_of
    ];
}

#[test]
fn p6_a_released_launcher_exits_with_0() {
    boxed::run(|folder| {
        let options = "--at=request=hang --handoff-timeout=200ms --successor-timeout=200ms";
        let mut launcher = scene::start(folder, options);
        let daemon = Watched::new(Report::new(folder.join("report")).wait("started").pid);
        signal(launcher.id(), TERM);
        assert_eq!(launcher.wait().expect("its end").code(), Some(0));
        daemon.wait_end(LIMIT); // nobody comes
    });
}

/// Before its handlers are installed, nothing but KILL ends a daemon that hangs.
#[test]
fn p6_a_daemon_that_hangs_before_init_is_killed() {
    boxed::run(|folder| {
        let options = "--at=before-daemon-init=hang --handoff-timeout=200ms";
        let mut launcher = scene::start(folder, options);
        Log::of(folder).wait(&[("stage", "launch")]);
        let daemon = Watched::new(process::children(launcher.id())[0]);
        signal(launcher.id(), TERM);
        assert_eq!(launcher.wait().expect("its end").signal(), Some(9));
        assert!(daemon.has_ended());
        assert_eq!(Log::of(folder).stage("kill").len(), 1);
    });
}

/// The launcher runs the old file when it finds the new one in its place.
#[test]
fn a_program_that_was_replaced_meanwhile_is_the_daemon() {
    boxed::run(|folder| {
        let program = folder.join("program");
        deploy(&program);
        let old = fs::metadata(&program).expect("the program").ino();
        let mut launcher = stopped_before_init(folder, &program);
        deploy(&program);
        let new = fs::metadata(&program).expect("the program").ino();
        signal(launcher.id(), CONT);
        let daemon = scene::stopped_child(launcher.id());
        assert_eq!((inode(launcher.id()), inode(daemon)), (old, new));
        signal(daemon, CONT);
        Report::new(folder.join("report")).wait_of(daemon, "started");
        signal(daemon, TERM);
        assert_eq!(launcher.wait().expect("its end").code(), Some(0));
    });
}

#[test]
fn p10_a_program_that_was_removed_is_an_error() {
    boxed::run(|folder| {
        let program = folder.join("program");
        deploy(&program);
        let mut launcher = stopped_before_init(folder, &program);
        fs::remove_file(&program).expect("it was there");
        signal(launcher.id(), CONT);
        assert_eq!(launcher.wait().expect("its end").code(), Some(111));
        let report = Report::new(folder.join("report"));
        assert_eq!(report.events().len(), 1, "no daemon:\n{report}");
        let error = report.wait("error").text;
        let expected = format!("init: cannot start {program:?} again (launch): No such file");
        assert!(error.starts_with(&expected), "{error}");
        assert!(!folder.join("web.pid.lock").exists());
    });
}

/// The launcher to be, before it calls `init`; its daemon stops there as well.
fn stopped_before_init(folder: &Path, program: &Path) -> std::process::Child {
    let script = scene::script(folder, &format!("--at=before-init=raise:{STOP}"));
    let launcher = scene::shell(&with_program(&script, program)).spawn().expect("sh");
    wait_for("the program stops before init", LIMIT, || {
        (process::stat(launcher.id())?.state == 'T').then_some(())
    });
    launcher
}

#[test]
fn on_launch_runs_in_the_launcher_alone() {
    boxed::run(|folder| {
        let launcher = scene::start(folder, "").id();
        let report = Report::new(folder.join("report"));
        let daemon = report.wait("started").pid;
        assert_eq!(report.wait("launch").pid, launcher);
        assert_eq!(report.named("launch").len(), 1);
        assert_eq!(report.names_of(daemon), ["init", "started"]);
    });
}

#[test]
fn a_panic_in_on_launch_is_survived() {
    boxed::run(|folder| {
        let mut launcher = scene::start(folder, "--at=launch=panic --successor-timeout=200ms");
        Report::new(folder.join("report")).wait("started");
        Log::of(folder).wait(&[("hook", "on_launch"), ("panic", "as told")]);
        signal(launcher.id(), TERM);
        assert_eq!(launcher.wait().expect("its end").code(), Some(0));
        scene::wait_all_ended(folder);
    });
}

#[test]
fn the_daemon_is_started_as_the_launcher_was() {
    boxed::run(|folder| {
        let place = folder.join("a folder");
        fs::create_dir(&place).expect("a folder");
        let file = |name: &str| File::create(folder.join(name)).expect("a file");
        let odd = std::ffi::OsStr::from_bytes(b"caf\xe9 = \n'\"");
        let launcher = Command::new(bin::probe())
            .arg0("web server: main")
            .arg(format!("--pid-file={}", folder.join("web.pid").display()))
            .arg(format!("--report={}", folder.join("report").display()))
            .args(["--at", "two words\n'\"\"=hang", "--on", "10=exit:5"])
            .env("COLOUR", "green")
            .env("ODD", odd)
            .env("EMPTY", "")
            .env("SEAMLESS", "1") // left over from another service
            .current_dir(&place)
            .stdin(File::open("/dev/zero").expect("a file"))
            .stdout(file("output"))
            .stderr(file("errors"))
            .spawn()
            .expect("the probe");
        let pid = launcher.id();
        let daemon = Report::new(folder.join("report")).wait("started").pid;

        let arguments = process::command_line(pid);
        assert_eq!(arguments[0], "web server: main");
        assert_eq!(process::command_line(daemon), arguments);
        assert_eq!(process::variable(daemon, "SEAMLESS"), Some(pid.to_string()));
        let own = |pid| {
            let mut variables = environment(pid);
            variables.retain(|variable| !variable.starts_with(b"SEAMLESS"));
            variables
        };
        assert_eq!(own(daemon), own(pid));
        let odd = [b"ODD=", odd.as_bytes()].concat();
        assert!(own(daemon).contains(&odd) && own(daemon).contains(&b"COLOUR=green".to_vec()));
        let link = |pid, name: &str| fs::read_link(format!("/proc/{pid}/{name}")).expect("a link");
        assert_eq!(link(daemon, "cwd"), place);
        let standard = |pid| [0, 1, 2].map(|fd| link(pid, &format!("fd/{fd}")));
        let expected: [PathBuf; 3] =
            ["/dev/zero".into(), folder.join("output"), folder.join("errors")];
        assert_eq!(standard(daemon), expected);
        assert_eq!(standard(pid), expected);
        end(launcher);
    });
}

/// It would take itself for a launcher, and start a daemon, which would do the same, without end.
#[test]
fn p10_a_daemon_that_has_closed_its_channel_is_an_error_and_starts_nobody() {
    boxed::run(|folder| {
        let mut launcher = scene::start(folder, "--at=before-daemon-init=close-all");
        assert_eq!(launcher.wait().expect("its end").code(), Some(111));
        let report = Report::new(folder.join("report"));
        let error = report.wait("error").text;
        let expected = format!("init: cannot talk to launcher {} (channel)", launcher.id());
        assert!(error.starts_with(&expected), "{error}");
        assert!(error.ends_with("close only descriptors that the program has opened itself"));
        assert_eq!(report.events().len(), 2, "its `on_launch` and the error:\n{report}");
        assert_eq!(Log::of(folder).stage("launch").len(), 1);
        scene::wait_all_ended(folder);
    });
}

/// Its channel goes with the program that had it.
#[test]
fn a_daemon_that_executes_itself_anew_becomes_a_launcher() {
    boxed::run(|folder| {
        let again = folder.join("again");
        fs::write(&again, "").expect("a file");
        let options = format!("--at=started=again:{} --successor-timeout=200ms", again.display());
        let mut launcher = scene::start(folder, &options);
        let report = Report::new(folder.join("report"));
        let first = report.wait("started").pid;
        let launch = Log::of(folder).wait(&[("stage", "launch"), ("launcher", &first.to_string())]);
        let second = launch.field("daemon").expect("a field").parse().expect("a number");
        report.wait_of(second, "started");
        signal(launcher.id(), TERM);
        assert_eq!(launcher.wait().expect("its end").code(), Some(0));
        scene::wait_all_ended(folder);
    });
}

fn environment(pid: u32) -> Vec<Vec<u8>> {
    let text = fs::read(format!("/proc/{pid}/environ")).expect("its environment");
    let mut variables: Vec<Vec<u8>> = text.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
    variables.sort();
    variables
}

/// By a signal that the daemon ends at.
fn end(mut launcher: std::process::Child) {
    signal(launcher.id(), 10);
    assert_eq!(launcher.wait().expect("its end").code(), Some(5));
}

/// Another signal than CHLD may wake the launcher.
#[test]
fn a_release_signal_of_ones_own_works() {
    boxed::run(|folder| {
        let options = "--release-signal=34 --successor-timeout=200ms";
        let mut launcher = scene::start(folder, options);
        Report::new(folder.join("report")).wait("started");
        signal(launcher.id(), USR2);
        assert_eq!(launcher.wait().expect("its end").code(), Some(0));
        scene::wait_all_ended(folder);
    });
}

/// `ld.so PROGRAM`, as self-contained bundles do it: what the kernel has executed is the loader.
#[test]
fn p1_a_program_that_was_started_by_the_dynamic_loader() {
    Boxed::new().private_net().run(|folder| {
        let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
        let is_loader = |path: &&str| {
            let name = Path::new(path).file_name().unwrap_or_default();
            name.as_bytes().starts_with(b"ld-")
        };
        let mut loaders = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
        let loader = loaders.find(is_loader).expect("it is linked dynamically").to_owned();
        let loader = loader.as_str();
        scene::each(folder, [&[][..], &["--library-path", "/nowhere"]], |folder, options| {
            let site = Site::at(folder).shared_socket().alone();
            let start = || {
                let plain = site.command(&[SERVES_ON, "--reload-signal=1"]);
                let mut command = Command::new(loader);
                command.args(options).arg(plain.get_program()).args(plain.get_args());
                let started = site.spawn(command.stdin(Stdio::null()).stderr(site.log_end()));
                let daemon = started.wait_started();
                (started, daemon)
            };
            let (mut first, old) = start();
            let executed = fs::read_link(format!("/proc/{}/exe", old.pid())).expect("it runs");
            assert_eq!(executed, fs::canonicalize(loader).expect("the loader"));
            first.launcher.signal(HUP);
            let second = Watched::new(site.report.wait_nth("started", 2).pid);
            old.wait_end(LIMIT);
            assert_eq!(site.report.wait_of(old.pid(), "wait").text, "TakenOver");
            let words = |pid| process::command_line(pid);
            assert_eq!(words(second.pid()), words(first.launcher.pid()));
            first.detach();
            let (mut third, newest) = start();
            second.wait_end(LIMIT);
            newest.signal(2);
            assert!(third.wait_end().success(), "{}", site.log);
        });
    });
}
