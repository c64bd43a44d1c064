//! Two copies of a service with one PID file: the second is refused, and the first never notices.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    http::{self, Prober, Target},
    process, scene,
    site::Site,
    supervisor::{Service, Supervisor},
    under_each_supervisor, wait_for,
};

/// What the first has and must keep, to the byte.
#[derive(Debug, PartialEq, Eq)]
struct Belongings {
    pid_file: (u64, Vec<u8>),
    /// Its own line of the record.
    line: String,
    log: String,
}

impl Belongings {
    fn of(direct: &Site, daemon: u32, log: &Path) -> Self {
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        let own = record.lines().find(|line| line.contains(&format!("daemon={daemon}:")));
        let inode = fs::metadata(direct.pid_file()).expect("the PID file").ino();
        Belongings {
            pid_file: (inode, fs::read(direct.pid_file()).expect("the PID file")),
            line: own.expect("its line").to_owned(),
            log: fs::read_to_string(log).expect("its log"),
        }
    }
}

/// The second waits for the first to finish its start, and then finds the PID file taken; its
/// supervisor tries again and again. The first never notices.
fn p1_p5_a_second_service_with_the_same_pid_file(kind: Supervisor, folder: &Path) {
    let target = Target::from(boxed::address());
    let direct = Site::alone(folder);
    let (go, first_log) = (folder.join("go"), folder.join("first/own-log"));
    let run = |name: &str, options: &str| {
        let log = format!("exec 2>>'{}/{name}/own-log'", folder.display());
        bin::probe_script(folder, options).replace("exec 2>&1", &log)
    };
    let listen = format!("--listen={target}");
    let slow = format!("{listen} --at=after-init=file:{}", go.display());
    let first = Service::new(kind, folder.join("first"), &run("first", &slow));
    let holder = direct.report.wait("init").pid;
    // It has no listener: its requests would go to whoever has.
    let second = Service::new(kind, folder.join("second"), &run("second", ""));
    wait_for("the second waits", LIMIT, || {
        let log = fs::read_to_string(folder.join("second/own-log")).ok()?;
        let waits = |line: &str| {
            line.contains("stage=claim") && line.contains(&format!("holder={holder} "))
        };
        log.lines().any(waits).then_some(())
    });
    assert!(direct.report.named("error").is_empty());
    let launcher = first.main_pid();
    fs::write(&go, "").expect("a file");
    assert_eq!(http::wait_pid(&target), holder);
    direct.report.wait_of(holder, "started");
    wait_for("the first has started, and said so", LIMIT, || {
        has_started(&fs::read_to_string(&first_log).ok()?).then_some(())
    });
    let before = Belongings::of(&direct, holder, &first_log);
    assert_eq!(before.pid_file.1, format!("{holder}\n").as_bytes());
    let prober = Prober::start(&target);
    for nth in 1..=4 {
        let error = direct.report.wait_nth("error", nth).text;
        let text = format!(
            "started: cannot take over {:?} (started): generation 1 with daemon {holder} and \
             launcher {launcher} is supervised by somebody else",
            direct.pid_file(),
        );
        assert!(error.starts_with(&text), "{error}");
    }
    prober.wait_more(20);
    let probes = prober.stop();
    probes.assert_all_answered();
    assert_eq!(probes.pids(), [holder]);
    assert_eq!(Belongings::of(&direct, holder, &first_log), before);
    assert_eq!(first.main_pid(), launcher);

    // Both are what they were. (In the moment in which the first has no launcher, the second could
    // not tell it from a service whose supervisor has gone.)
    drop(second);
    first.settle();
    first.restart();
    let new = direct.report.wait_nth("started", 2).pid;
    assert_eq!(process::stat(new).expect("it").ppid, first.main_pid());
    assert_eq!(direct.report.wait_of(holder, "wait").text, "TakenOver");
    let errors = direct.report.named("error").len();
    let third = Service::new(kind, folder.join("third"), &run("third", ""));
    let error = direct.report.wait_nth("error", errors + 1).text;
    assert!(error.contains(&format!("with daemon {new} ")), "{error}");
    assert_eq!(direct.named(), Some(new));
    assert_eq!(http::pid(&target), new);
    drop(third);
}

/// Has its launcher heard all of a start? Two threads of the daemon tell it.
fn has_started(log: &str) -> bool {
    ["report=ready", "report=started"].iter().all(|report| log.contains(report))
}

under_each_supervisor![
    Boxed::new().private_net() =>
    p1_p5_a_second_service_with_the_same_pid_file,
    p1_p5_a_copy_by_hand_of_a_service_with_sockets
];

/// A copy by hand of a service that takes its sockets over: which service runs, under whom, and how it is
/// restarted.
fn p1_p5_a_copy_by_hand_of_a_service_with_sockets(kind: Supervisor, folder: &Path) {
    let target = Target::from(boxed::address());
    let direct = Site::alone(folder);
    let run = scene::script(folder, &format!("--tcp={target}"));
    let service = Service::new(kind, folder.join("service"), &run);
    let daemon = direct.report.wait("started").pid;
    let launcher = service.main_pid();
    let supervisor = process::stat(launcher).expect("it").ppid;
    service.settle();
    let prober = Prober::start(&target);
    let other = format!("--tcp={}", boxed::address());
    // The same socket, one of its own, a Unix socket, state alone.
    let copies = [
        vec![format!("--tcp={target}")],
        vec![other.clone()],
        vec![format!("--unix={}", folder.join("unix").display())],
        vec!["--inherit".to_owned(), other],
    ];
    for options in copies {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let error = direct.start(&options).wait_error().text;
        let name = format!("{kind:?}").to_lowercase();
        // A program that asks for the state first learns it from `started`.
        let step = if options[0] == "--inherit" { "started" } else { "socket" };
        let text = format!(
            "{step}: cannot take over {:?} (started): generation 1 with daemon {daemon} and launcher \
             {launcher} is supervised by somebody else; the service runs already, under {name} (process \
             {supervisor}): to restart it, ",
            direct.pid_file(),
        );
        assert!(error.starts_with(&text), "{error}");
        let command = match kind {
            Supervisor::Daemontools => "svc -t",
            Supervisor::Runit => "sv term",
            Supervisor::S6 => "s6-svc -t",
        };
        let folder = service.folder().display();
        let commands =
            format!("{command} {folder}, or seamless restart {}", direct.pid_file().display());
        assert!(error.contains(&commands), "{error}");
    }
    prober.wait_more(20);
    let probes = prober.stop();
    probes.assert_all_answered();
    assert_eq!(probes.pids(), [daemon]);
    assert_eq!(service.main_pid(), launcher);
}

/// The same by hand, beside a service under a supervisor: several copies at once.
#[test]
fn p1_p5_copies_that_are_started_by_hand_beside_a_service() {
    Boxed::new().private_net().run(|folder| {
        let target = Target::from(boxed::address());
        let direct = Site::alone(folder);
        let log = folder.join("first/own-log");
        let run = bin::probe_script(folder, &format!("--listen={target}"))
            .replace("exec 2>&1", &format!("exec 2>>'{}'", log.display()));
        let first = Service::new(Supervisor::Runit, folder.join("first"), &run);
        let daemon = http::wait_pid(&target);
        direct.report.wait_of(daemon, "started");
        wait_for("it has started, and said so", LIMIT, || {
            has_started(&fs::read_to_string(&log).ok()?).then_some(())
        });
        let before = Belongings::of(&direct, daemon, &log);
        let prober = Prober::start(&target);
        // The first copy has the claim when the others come.
        let go = folder.join("go");
        let slow = direct.start(&[&format!("--at=after-init=file:{}", go.display())]);
        let holder = slow.wait_init();
        let mut copies: Vec<_> = (0..3).map(|_| direct.start(&["--claim-timeout=60s"])).collect();
        direct.log.wait_words(&["stage=claim", &format!("holder={} ", holder.pid())], 3);
        fs::write(go, "").expect("a file");
        copies.push(slow);
        for copy in &mut copies {
            let error = copy.wait_error().text;
            let text = format!("generation 1 with daemon {daemon} and launcher");
            assert!(error.contains(&text), "{error}");
        }
        assert_eq!(direct.report.named("error").len(), 4);
        prober.wait_more(20);
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), [daemon]);
        assert_eq!(Belongings::of(&direct, daemon, &log), before);
        first.down();
        first.wait_down();
    });
}
