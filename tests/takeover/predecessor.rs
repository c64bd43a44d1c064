//! Who takes over from whom: stale and foreign files, older generations, other services.

use std::{
    fs,
    io::Write,
    os::{fd::OwnedFd, unix::fs::MetadataExt, unix::net::UnixStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    http::{self, Target},
    innocent::Innocent,
    process::{self, Watched, stop_without_claim},
    signal::{CONT, TERM, USR1},
    site::{Site, identity},
    supervisor::{Service, Supervisor, write_script},
    under_each_supervisor, wait_for,
};

fn boot() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the boot id");
    boot.trim().to_owned()
}

fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").expect("the PID namespace").ino()
}

/// A line of the record.
fn entry(number: u64, daemon: &str, boot: &str, pid_namespace: u64, launcher: &str) -> String {
    format!(
        "generation={number} daemon={daemon} boot={boot} pid_namespace={pid_namespace} \
         launcher={launcher}\n"
    )
}

fn write_record(direct: &Site, last: u64, entries: &str) {
    let text = format!("seamless-record 1 last={last}\n{entries}end\n");
    fs::write(direct.lock_file(), text).expect("a record");
}

// ---- under a supervisor ----

under_each_supervisor![
    Boxed::new().private_net() =>
        p1_a_deploy_without_seamless_is_outlived_until_the_service_is_stopped,
        p5_another_service_with_the_same_pid_file_is_refused
];

/// The supervisor's status says up, so a successor is expected for as long as it takes.
fn p1_a_deploy_without_seamless_is_outlived_until_the_service_is_stopped(
    kind: Supervisor,
    folder: &Path,
) {
    let target = Target::from(boxed::address());
    let direct = Site::alone(folder);
    let run = format!(
        "{} --listen={target} --successor-timeout=100ms",
        bin::probe_script(folder, "").replace("exec 2>&1", "exec 2>>../log")
    );
    let service = Service::new(kind, folder.join("service"), &run);
    let old = Watched::new(http::wait_pid(&target));
    service.settle();
    write_script(&service.folder().join("run"), "exec sleep 1000");
    service.restart();
    direct.log.wait_words(&["stage=check", "finding=Seen", "supervisor=Up"], 3);
    assert_eq!(http::pid(&target), old.pid());
    service.down();
    direct.report.wait_of(old.pid(), "wait");
    assert_eq!(direct.report.wait("wait").text, "Stopped");
    old.wait_end(LIMIT);
}

// ---- stale and foreign files ----

#[test]
fn p5_a_stale_pid_file_costs_nobody_a_signal() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let innocent = Innocent::start();
        for newline in ["", "\n"] {
            fs::write(direct.pid_file(), format!("{}{newline}", innocent.pid())).expect("a file");
            let (mut started, daemon) = direct.start_ready(&[]);
            assert_eq!(direct.named(), Some(daemon.pid()));
            innocent.assert_unharmed();
            // A stop, too, signals what it finds.
            daemon.signal(TERM);
            assert!(started.wait_end().success());
            innocent.assert_unharmed();
        }
    });
}

#[test]
fn p5_a_pid_that_was_used_again_is_not_signalled() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let innocent = Innocent::start();
        let (pid, who) = (innocent.pid(), identity(innocent.pid()));
        let ticks = process::stat(pid).expect("sleep").start_ticks;
        let (boot, ns) = (boot(), pid_namespace());
        let gone = "3:1";
        let init = identity(1);
        for (what, entries) in [
            ("it started later", entry(1, &format!("{pid}:{}", ticks - 1), &boot, ns, gone)),
            ("it started earlier", entry(1, &format!("{pid}:{}", ticks + 1), &boot, ns, gone)),
            ("another boot", entry(1, &who, "00000000-0000-0000-0000-000000000000", ns, gone)),
            ("another PID namespace", entry(1, &who, &boot, ns + 1, gone)),
            // Unknown to who wrote it; and nobody holds the lock on the PID file.
            ("an unknown boot", entry(1, &who, "unknown", ns, gone)),
            ("an unknown PID namespace", entry(1, &who, &boot, 0, gone)),
            ("no PID", entry(1, "0:0", &boot, ns, gone)),
            ("a process group", entry(1, &format!("-{who}"), &boot, ns, gone)),
            ("everybody", entry(1, "-1:0", &boot, ns, gone)),
            ("init", entry(1, &init, &boot, ns, gone)),
            ("no start time", entry(1, &pid.to_string(), &boot, ns, gone)),
        ] {
            println!("{what}");
            fs::write(direct.pid_file(), format!("{pid}\n")).expect("a PID file");
            write_record(&direct, 1, &entries);
            let (mut started, daemon) = direct.start_ready(&[]);
            assert_eq!(direct.named(), Some(daemon.pid()), "{what}");
            innocent.assert_unharmed();
            daemon.signal(TERM);
            assert!(started.wait_end().success(), "{what}");
            innocent.assert_unharmed();
        }
        // The same record, but all of it true: now it would be ours.
        write_record(&direct, 1, &entry(1, &who, &boot, ns, gone));
        direct.start_ready(&[]);
        Watched::new(pid).wait_end(LIMIT);
    });
}

/// It has come to be the number of a thread: no process has it, and its own process is somebody
/// else's.
#[test]
fn p5_the_number_of_a_thread_is_nobody() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        // Of one with threads: the test itself.
        let own = std::process::id();
        let tasks = fs::read_dir("/proc/self/task").expect("threads");
        let mut tasks = tasks.map(|task| task.expect("one").file_name().into_string().expect("it"));
        let thread = tasks.find(|task| *task != own.to_string()).expect("a second thread");
        let who = identity(thread.parse().expect("a number"));
        write_record(&direct, 1, &entry(1, &who, &boot(), pid_namespace(), "3:1"));
        // As though it held the lock on the PID file, which counts where nothing can be proven.
        fs::write(direct.pid_file(), format!("{thread}\n")).expect("a PID file");
        let locked = fs::File::open(direct.pid_file()).expect("the PID file");
        fs2::FileExt::lock_exclusive(&locked).expect("the lock");
        let (_started, daemon) = direct.start_ready(&[]);
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        assert!(!record.contains(&who), "{record}");
        assert_eq!(direct.named(), Some(daemon.pid()));
        assert!(!direct.log.text().contains("stage=takeover"), "{}", direct.log);
    });
}

#[test]
fn p5_neither_we_nor_our_launcher_are_signalled() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        // It holds the claim, so that the record can be made to name the one who waits.
        let first = direct.start(&["--at=after-init=hang"]);
        let holder = first.wait_init();
        let second = direct.start(&["--on=10=call:restart"]);
        let launcher = second.launcher.pid();
        direct.log.wait_words(&["stage=claim", &format!("holder={}", holder.pid())], 1);
        let own = process::children(launcher)[0];
        let (boot, ns) = (boot(), pid_namespace());
        let entries = [launcher, own].map(identity);
        write_record(
            &direct,
            2,
            &format!(
                "{}{}",
                entry(1, &entries[0], &boot, ns, "3:1"),
                entry(2, &entries[1], &boot, ns, "3:1")
            ),
        );
        holder.kill();
        let daemon = second.wait_started();
        assert_eq!(daemon.pid(), own);
        // A TERM would have come before this signal, which the launcher passes on.
        second.launcher.signal(USR1);
        assert_eq!(direct.report.wait_of(own, "called").text, "restart ok");
        let log = direct.log.text();
        assert!(!log.contains("predecessor="), "{log}");
        assert!(!log.contains(&format!("stage=handoff launcher={launcher} ")), "{log}");
    });
}

/// Each start of a container is a PID namespace of its own, and the folder may outlive them all.
#[test]
fn generations_of_other_pid_namespaces_do_not_pile_up() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (boot, ns) = (boot(), pid_namespace());
        let entries: String = (1..=3).map(|n| entry(n, "7:70", &boot, ns + n, "6:69")).collect();
        fs::write(direct.pid_file(), "7\n").expect("a PID file");
        write_record(&direct, 3, &entries);
        let (_started, daemon) = direct.start_ready(&[]);
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        assert_eq!(record.lines().count(), 3, "{record}");
        assert!(record.contains(&format!("generation=4 daemon={}", identity(daemon.pid()))));
    });
}

#[test]
fn p5_a_generation_of_another_pid_namespace_that_lives_is_refused() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (_first, daemon) = direct.start_ready(&[]);
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        let (ns, other) = (pid_namespace(), pid_namespace() + 1);
        let elsewhere =
            record.replace(&format!("pid_namespace={ns} "), &format!("pid_namespace={other} "));
        assert_ne!(record, elsewhere);
        fs::write(direct.lock_file(), elsewhere).expect("the record");
        let text = direct.start(&[]).wait_error().text;
        assert!(text.contains("generation 1 with daemon"), "{text}");
        let restart = format!("seamless restart {}", direct.pid_file().display());
        let why = format!(" runs in another PID namespace; restart it there: {restart}");
        assert!(text.ends_with(&why), "{text}");
        assert!(!daemon.has_ended());
        assert_eq!(direct.named(), Some(daemon.pid()));
    });
}

// ---- an older generation and the files ----

#[test]
fn p4_an_older_generation_leaves_a_newer_ones_file_alone() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        direct.wait_checks(old.pid(), 1);
        // The old one is stopped, so it neither reads a TERM nor looks round until all is over.
        stop_without_claim(&old);
        let (_second, new) = direct.start_ready(&[]);
        let inode = fs::metadata(direct.pid_file()).expect("the PID file").ino();
        old.signal(CONT);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        old.wait_end(LIMIT);
        assert_eq!(direct.named(), Some(new.pid()));
        assert_eq!(fs::metadata(direct.pid_file()).expect("the PID file").ino(), inode);
    });
}

/// The TERM of the takeover got lost: the older generation finds out by itself, with or without
/// being in the record.
#[test]
fn p4_an_older_generation_that_missed_its_term_drains() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        direct.wait_checks(old.pid(), 1);
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        let own = record.lines().find(|line| line.starts_with("generation=1 ")).expect("its line");
        // The successor does not know of it, and signals nobody.
        stop_without_claim(&old);
        write_record(&direct, 1, "");
        let (_second, new) = direct.start_ready(&[]);
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        let (head, rest) = record.split_once('\n').expect("lines");
        fs::write(direct.lock_file(), format!("{head}\n{own}\n{rest}")).expect("the record");
        old.signal(CONT);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        let log = direct.log.text();
        assert!(!log.contains("predecessor="), "a TERM was sent after all: {log}");
        assert_eq!(direct.named(), Some(new.pid()));
    });
}

/// It was slow to hear of its successor's TERM, and the next one has come, whose TERM merges with the first one.
#[test]
fn p13_a_generation_that_hears_late_knows_that_it_was_taken_over() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        stop_without_claim(&old);
        let (mut second, middle) = direct.start_ready(&["--successor-timeout=none"]);
        second.detach();
        let (_third, new) = direct.start_ready(&[]);
        middle.wait_end(LIMIT);
        assert_eq!(direct.named(), Some(new.pid()));
        old.signal(CONT);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        let from = format!("signal={TERM} from={}", middle.pid());
        assert_eq!(
            direct.log.with(&["stage=signal", &format!("daemon={}", old.pid()), &from]).len(),
            1
        );
    });
}

#[test]
fn p4_a_lost_record_does_not_stop_an_older_generation_from_draining() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (first, old) = direct.start_ready(&[]);
        // Attached, it does not look round. Nor can it act until the new one serves.
        stop_without_claim(&old);
        fs::remove_file(direct.lock_file()).expect("the lock file");
        first.launcher.kill();
        first.launcher.wait_end(LIMIT);
        let (_second, new) = direct.start_ready(&[]);
        old.signal(CONT);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        assert_eq!(direct.named(), Some(new.pid()));
    });
}

#[test]
fn a_record_that_was_removed_is_written_again() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        fs::remove_file(direct.lock_file()).expect("the lock file");
        direct.log.wait_words(&["the record was lost: entered again"], 1);
        let (_second, new) = direct.start_ready(&[]);
        assert_eq!(direct.report.wait_of(new.pid(), "started").number(), 2);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        let old = format!("predecessor={} ", old.pid());
        direct.log.wait_words(&["stage=takeover", &old, "signal=TERM"], 1);
    });
}

#[test]
fn a_pid_file_that_was_removed_does_not_hide_the_predecessor() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        // While attached: nobody puts it back, and nobody needs it.
        fs::remove_file(direct.pid_file()).expect("the PID file");
        stop_without_claim(&old);
        first.launcher.kill();
        first.wait_end();
        let (mut second, newer) = direct.start_ready(&["--successor-timeout=none"]);
        old.signal(CONT);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");

        // While detached: it comes back.
        second.detach();
        fs::remove_file(direct.pid_file()).expect("the PID file");
        direct.log.wait_words(&["the PID file named no live generation: ours is back"], 1);
        assert_eq!(direct.named(), Some(newer.pid()));
        let (_third, newest) = direct.start_ready(&[]);
        assert_eq!(direct.report.wait_of(newer.pid(), "wait").text, "TakenOver");
        assert_eq!(direct.named(), Some(newest.pid()));
    });
}

/// KILLed after its files were in place, before its TERM went out. To stop it just there, the record
/// names another older generation, and the line that logs the TERM to that one goes into a socket
/// that is full.
#[test]
fn p9_a_successor_killed_before_its_term_leaves_the_predecessor_serving() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        direct.wait_checks(old.pid(), 1);
        let older = Innocent::start();
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        let (head, rest) = record.split_once('\n').expect("lines");
        let entry = entry(0, &identity(older.pid()), &boot(), pid_namespace(), "3:1");
        fs::write(direct.lock_file(), format!("{head}\n{entry}{rest}")).expect("the record");
        let (full, _keeps_open) = full_socket();
        let mut command = direct.command(&[]);
        // Level and words of the lines that are logged.
        let second = direct.spawn(command.stderr(full).env("RUST_LOG", "info/signal=TERM"));
        let new = second.wait_init();
        Watched::new(older.pid()).wait_end(LIMIT);
        assert_eq!(direct.named(), Some(new.pid()));
        let record = fs::read_to_string(direct.lock_file()).expect("the record");
        assert!(record.contains(&identity(new.pid())), "{record}");
        new.kill();
        second.launcher.wait_end(LIMIT);

        let back = ["stage=check", &format!("daemon={} ", old.pid()), "ours is back"];
        direct.log.wait_words(&back, 1);
        assert_eq!(direct.named(), Some(old.pid()));
        assert_eq!(direct.report.names_of(old.pid()), ["init", "started", "hook"], "no drain");
        let (_third, newest) = direct.start_ready(&[]);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        assert_eq!(direct.named(), Some(newest.pid()));
    });
}

/// A socket to which not a byte more can be written, and the end that keeps it so.
fn full_socket() -> (OwnedFd, UnixStream) {
    let (mut write, read) = UnixStream::pair().expect("a socket pair");
    write.set_nonblocking(true).expect("O_NONBLOCK");
    while write.write(&[0]).is_ok() {}
    write.set_nonblocking(false).expect("no O_NONBLOCK");
    (write.into(), read)
}

// ---- somebody else's service ----

#[test]
fn p5_a_second_copy_started_by_hand_is_refused() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, daemon) = direct.start_ready(&[]);
        let launcher = first.launcher.pid();
        let before = fs::metadata(direct.pid_file()).expect("the PID file").ino();

        // By another parent, and on its own.
        let copy = format!(
            "'{}' --pid-file='{}' --report='{}' & wait $!",
            bin::probe().display(),
            direct.pid_file().display(),
            direct.report.path().display()
        );
        let status = Command::new("sh").args(["-c", &copy]).status().expect("sh");
        assert_eq!(status.code(), Some(111));
        let text = format!(
            "started: cannot take over {:?} (started): generation 1 with daemon {} and launcher \
             {launcher} is supervised by somebody else; the service runs already, under ",
            direct.pid_file(),
            daemon.pid(),
        );
        let error = direct.report.wait("error").text;
        assert!(error.starts_with(&text), "{error}");
        let restart = format!("to restart it, seamless restart {}; ", direct.pid_file().display());
        assert!(error.contains(&restart), "{error}");

        // One that tries again.
        let again =
            ["--at=after-init=call:started", "--at=after-init=hang", "--on=10=call:started"];
        let second = direct.start(&again);
        let waiting = second.wait_init();
        let refused = direct.report.wait_of(waiting.pid(), "called").text;
        assert!(refused.starts_with("started error: cannot take over"), "{refused}");

        // The first has noticed nothing.
        assert!(!daemon.has_ended() && !first.launcher.has_ended());
        assert_eq!(direct.named(), Some(daemon.pid()));
        assert_eq!(fs::metadata(direct.pid_file()).expect("the PID file").ino(), before);
        let signalled = format!("stage=signal daemon={}", daemon.pid());
        assert!(!direct.log.text().contains(&signalled), "{}", direct.log);

        // One that asks for a socket before, and goes on.
        let asking = ["--at=after-init=tcp:127.0.0.1:0", "--at=after-init=hang"];
        let asks = direct.start(&asking);
        let asks = asks.wait_init();
        let refused = direct.report.wait_of(asks.pid(), "called").text;
        assert!(refused.starts_with("tcp error: cannot take over"), "{refused}");

        // The claim was given up, or this one would wait for it.
        let mut third = direct.start(&["--claim-timeout=10s", "--at=after-init=exit:4"]);
        assert_eq!(third.wait_end().code(), Some(4));

        daemon.signal(TERM);
        assert!(first.wait_end().success());
        waiting.signal(USR1);
        wait_for("the retry", LIMIT, || {
            let calls = direct.report.named("called");
            calls.iter().any(|call| call.text == "started ok").then_some(())
        });
        assert_eq!(direct.named(), Some(waiting.pid()));
    });
}

/// Two services that were given one PID file by mistake.
fn p5_another_service_with_the_same_pid_file_is_refused(kind: Supervisor, folder: &Path) {
    let target = Target::from(boxed::address());
    let direct = Site::alone(folder);
    let run =
        |options: &str| bin::probe_script(folder, options).replace("exec 2>&1", "exec 2>>../log");
    let listen = format!("--listen={target}");
    let first = Service::new(kind, folder.join("first"), &run(&listen));
    let old = direct.report.wait("started").pid;
    let _second = Service::new(kind, folder.join("second"), &run(""));
    for nth in 1..=2 {
        let error = direct.report.wait_nth("error", nth).text;
        assert!(error.contains("is supervised by somebody else"), "{error}");
    }
    assert_eq!(http::pid(&target), old);
    assert_eq!(direct.named(), Some(old));
    assert!(!direct.log.text().contains(&format!("stage=signal daemon={old}")));
    first.down();
    let new = direct.report.wait_nth("started", 2).pid;
    assert_eq!(direct.named(), Some(new));
}

// ---- how long a detached daemon waits ----

#[test]
fn a_detached_daemon_drains_when_nobody_comes() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=1500ms"]);
        let began = Instant::now();
        first.detach();
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "Stopped");
        assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
        old.wait_end(LIMIT);
    });
}

#[test]
fn p1_a_detached_daemon_waits_while_somebody_is_starting() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=1s"]);
        // Stopped until the claim is held, so that no time passes unseen.
        stop_without_claim(&old);
        assert!(first.launcher.kill());
        first.wait_end();
        let second = direct.start(&["--at=after-init=hang"]);
        let starting = second.wait_init();
        old.signal(CONT);
        let held = format!("daemon={} finding=ClaimHeld", old.pid());
        direct.log.wait_words(&[&held], 3);
        assert!(direct.report.named("wait").is_empty());
        let began = Instant::now();
        starting.kill();
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "Stopped");
        assert!(began.elapsed() >= Duration::from_secs(1), "it waited anew: {:?}", began.elapsed());
    });
}

#[test]
fn p1_a_start_that_failed_renews_the_wait() {
    boxed::run(|folder| {
        const WAIT: Duration = Duration::from_secs(4);
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=4s"]);
        first.detach();
        direct.wait_checks(old.pid(), 2);
        let began = Instant::now();
        let mut second = direct.start(&["--at=after-init=exit:3"]);
        assert_eq!(second.wait_end().code(), Some(3));
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "Stopped");
        assert!(began.elapsed() >= WAIT, "{:?}", began.elapsed());
    });
}
