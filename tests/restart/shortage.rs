//! Short of descriptors: what cannot be known for now is asked again, and nothing weaker decides.

use std::{
    fs,
    os::unix::fs::chown,
    path::Path,
    process::{Command, Stdio},
};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed, Isolation},
    flight::InFlight,
    http::{self, Connection, Prober, answer_of},
    process::{NOBODY, Watched, as_user, descriptors},
    report,
    signal::{HUP, TERM, USR1},
    site::{SERVES_ON, Site},
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

const EMFILE: &str = "Too many open files (os error 24)";

/// How many descriptors each process of a service may have.
const FEW: usize = 64;

/// A probe that may have few descriptors.
fn limited(direct: &Site, options: &[&str]) -> Command {
    let probe = direct.command(options);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {FEW}\nexec \"$@\""), "sh"]);
    command.arg(probe.get_program()).args(probe.get_args());
    let log = fs::File::options().append(true).open(direct.pid_file().with_file_name("log"));
    command.stderr(log.expect("the log"));
    command
}

/// Takes all descriptors before `started`, and has one more of them at each attempt.
const ONE_MORE: [&str; 6] = [
    "--keep-report",
    "--at=after-init=hoard",
    "--at=after-init=call:started",
    "--at=after-init=hang",
    "--on=10=free:1",
    "--on=10=call:started",
];

/// Calls `started` again and again until it is not for want of descriptors that it fails. Returns
/// the errors, and what it said at last.
#[track_caller]
fn attempts(direct: &Site, daemon: &Watched, mut between: impl FnMut()) -> (Vec<String>, String) {
    let mut errors = Vec::new();
    loop {
        let said = direct.report.wait_nth("called", errors.len() + 1).text;
        if !said.ends_with(EMFILE) {
            return (errors, said);
        }
        between();
        errors.push(said);
        daemon.signal(USR1);
    }
}

/// With one descriptor there is a pidfd, and no start time to compare: that is no system without
/// `/proc`, where the lock on the PID file would have to do.
#[test]
fn p5_p10_a_start_that_is_short_of_descriptors_is_an_error_and_may_be_repeated() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
        first.detach();
        direct.wait_checks(old.pid(), 1);
        let second = direct.spawn(&mut limited(&direct, &ONE_MORE));
        let new = second.wait_init();
        let (errors, said) = attempts(&direct, &new, || {
            assert_eq!(direct.named(), Some(old.pid()));
            assert!(!direct.log.text().contains("stage=takeover"), "{}", direct.log);
            // The claim is kept.
            direct.log.wait_words(&[&format!("daemon={} finding=ClaimHeld", old.pid())], 1);
        });
        let start = |step: String| format!("started error: cannot look at {step}: {EMFILE}");
        let by_path = start(format!("{:?} (PID file)", direct.pid_file()));
        let by_pid = start(format!("process {} (takeover)", old.pid()));
        assert_eq!(errors[..2], [by_path, by_pid]);
        assert_eq!(said, "started ok");
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        assert_eq!(direct.named(), Some(new.pid()));
        let predecessor = format!("predecessor={} ", old.pid());
        direct.log.wait_words(&["stage=takeover", &predecessor, "signal=TERM"], 1);
    });
}

/// A second copy cannot tell yet that the first is somebody else's, and leaves it alone.
#[test]
fn p5_a_copy_that_is_short_of_descriptors_signals_nobody() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (first, daemon) = direct.start_ready(&[]);
        let second = direct.spawn(&mut limited(&direct, &ONE_MORE));
        let copy = second.wait_init();
        let (errors, said) = attempts(&direct, &copy, || ());
        assert!(errors.len() >= 3, "{errors:?}");
        assert!(said.starts_with("started error: cannot take over"), "{said}");
        assert_eq!(direct.named(), Some(daemon.pid()));
        assert!(!daemon.has_ended() && !first.launcher.has_ended());
        let log = direct.log.text();
        assert!(!log.contains(&format!("stage=signal daemon={}", daemon.pid())), "{log}");
    });
}

/// Nobody is seen to come, nor to be missing: it serves on, and what it cannot know it does not
/// decide.
#[test]
fn p1_a_look_round_that_is_short_of_descriptors_decides_nothing() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let options =
            ["--keep-report", "--successor-timeout=1500ms", "--on=10=hoard", "--on=1=free:1000"];
        let mut first = direct.spawn(&mut limited(&direct, &options));
        let old = first.wait_started();
        first.detach();
        // The channel to its launcher is closed by then.
        direct.wait_checks(old.pid(), 1);
        wait_for("no descriptor is left", LIMIT, || {
            old.signal(USR1); // again: one may have been in use for a moment
            (descriptors(old.pid()).len() == FEW).then_some(())
        });
        direct.log.wait_words(&["stage=check", "finding=Unknown"], 1);
        fs::remove_file(direct.pid_file()).expect("the PID file");
        let daemon = format!("daemon={} ", old.pid());
        direct.log.wait_words(&["stage=check", &daemon, "finding=Unknown"], 5);
        let line = direct.log.wait_words(&["stage=check", &daemon, "error="], 1);
        assert!(line.contains(EMFILE), "{line}");
        assert_eq!(direct.named(), None);
        assert!(!old.has_ended());
        assert!(direct.report.names_of(old.pid()).iter().all(|name| name != "wait"));

        old.signal(HUP);
        direct.log.wait_words(&["stage=check", &daemon, "ours is back"], 1);
        assert_eq!(direct.named(), Some(old.pid()));
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "Stopped", "nobody came");
    });
}

/// Told to stop, it cannot find the older generation for now: it does not forget it.
fn p6_a_stop_that_is_short_of_descriptors(kind: Supervisor, folder: &Path) {
    // Neither closes its listener before it may: that would be a descriptor to be had.
    let go = folder.join("go");
    let options =
        format!("--keep-report --on=10=hoard --on=1=free:1000 --at=shutdown=file:{}", go.display());
    let site = Site::at(folder).first(&format!("ulimit -n {FEW}")).options(&options).under(kind);
    let old = Watched::new(http::wait_pid(&site.target));
    let request = Connection::unfinished(&site.target);
    wait_for("the request is accepted", LIMIT, || {
        let before = descriptors(old.pid()).len();
        (before > 0 && http::pid(&site.target) == old.pid()).then_some(())
    });
    site.service().settle();
    site.service().restart();
    let new = Watched::new(site.report.wait_nth("started", 2).pid);
    site.wait_drain(old.pid());
    wait_for("no descriptor is left", LIMIT, || {
        new.signal(USR1); // again: one may have been in use for a moment
        (descriptors(new.pid()).len() == FEW).then_some(())
    });

    site.service().settle();
    site.service().down();
    site.wait_drain(new.pid());
    let new_daemon = new.pid().to_string();
    let told = |count: usize| {
        wait_for(format!("{count} times told: {site}"), LIMIT, || {
            let lines = site.log.stage("stop-older").into_iter();
            let of_new = lines.filter(|line| line.is(&[("daemon", &new_daemon)]));
            let short = of_new.filter(|line| line.field("error").is_some());
            (short.count() >= count).then_some(())
        });
    };
    told(2);
    assert!(!old.has_ended() && !new.has_ended());
    new.signal(HUP);
    // The TERM of the takeover, and that of the stop.
    wait_for(format!("it is told: {site}"), LIMIT, || {
        let told = site.log.stage("takeover").into_iter();
        let told = told.filter(|line| line.is(&[("daemon", &new_daemon), ("signal", "TERM")]));
        (told.count() == 2).then_some(())
    });
    fs::write(go, "").expect("a file");
    site.log.wait(&[("stage", "drained"), ("daemon", &new_daemon)]);
    assert!(!new.has_ended(), "it ends after the older one");
    assert!(site.service().status().pid.is_some(), "not down yet");
    assert!(request.finish().ends_with(&answer_of(old.pid())));
    old.wait_end(LIMIT);
    new.wait_end(LIMIT);
    site.service().wait_down();
}

/// Connections use up every descriptor, while restart follows restart.
fn p1_p3_restarts_while_connections_use_up_all_descriptors(kind: Supervisor, folder: &Path) {
    let site =
        Site::at(folder).first(&format!("ulimit -n {FEW}")).options("--keep-report").under(kind);
    let first = http::wait_pid(&site.target);
    let mut generations = vec![Watched::new(first)];
    // More than one can accept: the rest waits in its queue.
    let connections: Vec<Connection> =
        (0..FEW + 16).map(|_| Connection::unfinished(&site.target)).collect();
    wait_for("no descriptor is left", LIMIT, || (descriptors(first).len() == FEW).then_some(()));
    for restart in 2..=4 {
        site.service().settle();
        let launcher = Watched::new(site.service().main_pid());
        assert!(descriptors(launcher.pid()).len() < FEW / 2);
        site.service().restart();
        let new = site.report.wait_nth("started", restart).pid;
        launcher.wait_end(LIMIT);
        generations.push(Watched::new(new));
        assert_eq!(site.named(), Some(new));
        site.wait_drain(generations[restart - 2].pid());
    }
    assert!(!generations[0].has_ended(), "it has promised answers");
    // In the order in which they came: each that is answered makes room for one of the queue.
    for connection in connections {
        assert!(connection.finish().ends_with(&answer_of(first)));
    }
    for old in &generations[..3] {
        old.wait_end(LIMIT);
    }
    assert_eq!(http::pid(&site.target), generations[3].pid());
    assert!(site.report.named("error").is_empty(), "{site}");
    site.service().down();
    site.service().wait_down();
    site.wait_all_ended();
}

/// A soft limit of 64 is enough for everything, launcher and takeover included.
fn p1_restarts_under_a_soft_limit_lose_nothing(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).first(&format!("ulimit -Sn {FEW}")).under(kind);
    let mut old = Watched::new(http::wait_pid(&site.target));
    let probers: Vec<Prober> = (0..4).map(|_| Prober::start(&site.target)).collect();
    let mut pids = vec![old.pid()];
    for restart in 2..=4 {
        site.service().settle();
        probers.iter().for_each(|prober| prober.wait_pid(old.pid()));
        site.service().restart();
        let new = site.report.wait_nth("started", restart).pid;
        old.wait_end(LIMIT);
        pids.push(new);
        old = Watched::new(new);
    }
    for prober in probers {
        prober.wait_pid(old.pid());
        prober.wait_more(20);
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), pids);
    }
    old.signal(TERM);
    old.wait_end(LIMIT);
}

/// Something in the program has used up the descriptors, and a restart would cure it. The hard limit is higher.
fn p1_p4_a_daemon_without_a_descriptor_left_can_be_restarted(kind: Supervisor, folder: &Path) {
    let options = "--keep-report --on=10=hoard --takeover-timeout=5s";
    let site = Site::at(folder).shared_socket().first(&format!("ulimit -Sn {FEW}"));
    let site = site.options(options).under(kind);
    let old = Watched::new(http::wait_pid(&site.target));
    wait_for("no descriptor is left", LIMIT, || {
        old.signal(USR1); // again: one may have been in use for a moment
        (descriptors(old.pid()).len() == FEW).then_some(())
    });
    // They wait in the queue.
    let waits: Vec<Connection> = (0..8).map(|_| Connection::unfinished(&site.target)).collect();
    site.service().settle();
    site.service().restart();
    let new = site.report.wait_nth("started", 2).pid;
    for connection in waits {
        let answer = connection.finish();
        let by = [old.pid(), new];
        assert!(by.iter().any(|pid| answer.ends_with(&answer_of(*pid))), "{answer}");
    }
    old.wait_end(LIMIT);
    assert_eq!(http::pid(&site.target), new);
    assert!(site.report.named("error").is_empty(), "{site}");
    let transfers = site.log.stage("transfer");
    assert!(transfers.iter().all(|line| line.field("error").is_none()), "{site}");
    site.service().down();
    site.service().wait_down();
}

under_each_supervisor![
    Boxed::new().private_net() =>
        p1_p4_a_daemon_without_a_descriptor_left_can_be_restarted,
        p6_a_stop_that_is_short_of_descriptors,
        p1_p3_restarts_while_connections_use_up_all_descriptors,
        p1_restarts_under_a_soft_limit_lose_nothing
];

/// Other processes of the same user have so many descriptors in messages that this one may add none
/// (ETOOMANYREFS, `unix(7)`): a start that needs none to be sent succeeds, and a restart is tried again later.
#[test]
fn p1_a_start_while_too_many_descriptors_of_the_user_are_on_their_way() {
    Boxed::new().private_net().needs(Isolation::Namespaces).run(|folder| {
        let site = Site::at(folder).shared_socket().alone();
        report::for_all_users(folder);
        chown(folder, Some(NOBODY), Some(NOBODY)).expect("its folder");
        let plain = site.command(&[SERVES_ON, "--reload-signal=1"]);
        let mut command = Command::new("prlimit");
        command.args(["--nofile=64:64", "setpriv", "--reuid=65534", "--regid=65534"]);
        command.args(["--clear-groups"]).arg(plain.get_program()).args(plain.get_args());
        command.stdin(Stdio::null()).stderr(site.log_end());
        let in_flight = as_user(NOBODY, || InFlight::new(100));
        let started = site.spawn(&mut command);
        let old = started.wait_started();
        // No socket can be transferred now: the old one serves on, and the log says why. The old one tries again
        // until the time is over, and it depends on the machine on which side that is seen first.
        started.launcher.signal(HUP);
        site.log.wait_words(&["stage=reload-failed"], 1);
        wait_for("the reason", LIMIT, || {
            let text = site.log.text();
            let reasons = ["Too many references", "it was not through within"];
            reasons.iter().any(|reason| text.contains(reason)).then_some(())
        });
        assert_eq!(http::pid(&site.target), old.pid());
        drop(in_flight);
        started.launcher.signal(HUP);
        assert_eq!(site.report.wait_of(old.pid(), "wait").text, "TakenOver", "{}", site.log);
    });
}
