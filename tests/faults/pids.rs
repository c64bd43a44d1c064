//! A PID that is used again at each point of the handshake: whoever has it now gets no signal.
//!
//! Each point is held by strace, so that what is between two system calls takes as long as it has to.
//! What a file says of such a PID, however wrong, is in `tests/takeover/predecessor.rs`.

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{Boxed, Isolation},
    hold::Hold,
    innocent::{Likeness, Twin, next_pid},
    process::{self, Watched, stop_without_claim},
    report::{Event, Report},
    signal::{CONT, TERM, USR1},
    site::{Site, Started},
    supervisor::{Service, Supervisor, write_script},
    wait_for,
};
use socket2::{Domain, SockAddr, Socket, Type};

/// In a PID namespace of its own, whose next PID the test chooses.
fn run(test: impl FnOnce(&Path)) {
    Boxed::new().needs(Isolation::Namespaces).run(test);
}

fn place(folder: &Path, name: impl std::fmt::Display) -> (PathBuf, Site) {
    let place = folder.join(name.to_string());
    fs::create_dir(&place).expect("a folder");
    (place.clone(), Site::alone(&place))
}

// ---- who gets the PID ----

#[derive(Clone, Copy, Debug)]
enum Who {
    /// As like the dead one as can be.
    Twin,
    /// Of another service.
    Launcher,
    Daemon,
}

const ALL: [Who; 3] = [Who::Twin, Who::Launcher, Who::Daemon];

enum Bystander {
    Twin(Twin),
    /// Another service with a PID file of its own.
    Service(Box<Site>, Started, Watched),
}

/// KILLs a process, whose parent reaps it by `reap`, and gives its PID to a bystander.
#[track_caller]
fn give_away(process: &Watched, who: Who, folder: &Path, reap: impl FnOnce()) -> Bystander {
    let likeness = Likeness::of(process.pid());
    let before = process::stat(process.pid()).expect("it").start_ticks;
    process.kill();
    let bystander = take(process, likeness, who, folder, reap);
    let after = process::stat(process.pid()).expect("the bystander").start_ticks;
    assert!(after > before, "no later tick of the clock");
    bystander
}

/// The same with a process that ends by itself, of which this is the likeness.
#[track_caller]
fn take(
    process: &Watched,
    mut likeness: Likeness,
    who: Who,
    folder: &Path,
    reap: impl FnOnce(),
) -> Bystander {
    let pid = process.pid();
    process.wait_end(LIMIT);
    reap();
    wait_for("it is reaped", LIMIT, || process::stat(pid).is_none().then_some(()));
    let launcher = match who {
        Who::Twin => return Bystander::Twin(likeness.with_pid(pid)),
        Who::Launcher => pid,
        Who::Daemon => pid - 1,
    };
    let (_, other) = place(folder, "other");
    let (started, daemon) =
        wait_for(format!("{who:?} of another service with PID {pid}"), LIMIT, || {
            next_pid(launcher);
            let mut started = other.start(&["--catch-all"]);
            if started.launcher.pid() == launcher {
                let daemon = started.wait_started();
                if matches!(who, Who::Launcher) || daemon.pid() == pid {
                    return Some((started, daemon));
                }
            }
            started.launcher.kill();
            started.wait_end();
            None
        });
    Bystander::Service(Box::new(other), started, daemon)
}

impl Bystander {
    #[track_caller]
    fn assert_unharmed(&self) {
        match self {
            Bystander::Twin(twin) => twin.assert_unharmed(),
            Bystander::Service(direct, started, daemon) => {
                // What came before this signal has been taken before it.
                let before = direct.report.named("signal").len();
                started.launcher.signal(USR1);
                direct.report.wait_nth("signal", before + 1);
                let signals = direct.report.named("signal");
                assert!(signals.iter().all(|signal| signal.number() == USR1 as u64), "{signals:?}");
                assert_eq!(direct.report.names_of(daemon.pid())[..2], ["init", "started"]);
                let log = direct.log.text();
                for stage in ["signal", "handoff", "stop", "stop-early", "reload", "drain"] {
                    assert!(!log.contains(&format!("stage={stage} ")), "{log}");
                }
                assert!(!started.launcher.has_ended() && !daemon.has_ended(), "{log}");
            }
        }
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        if let Bystander::Service(_, started, daemon) = self {
            started.launcher.kill();
            daemon.kill();
        }
    }
}

// ---- the predecessor's PID ----

/// A detached daemon, whose parent is the box's init now.
fn predecessor(direct: &Site, options: &[&str]) -> Watched {
    let (mut started, old) = direct.start_ready(&[options, &["--successor-timeout=none"]].concat());
    started.detach();
    direct.wait_checks(old.pid(), 1);
    old
}

/// The lock on the PID file, as though its owner lived; where the successor's is there already, it
/// has that.
fn hold_pid_file(direct: &Site) -> File {
    let file = File::open(direct.pid_file()).expect("the PID file");
    let locked = fs2::FileExt::try_lock_exclusive(&file).is_ok();
    assert!(locked || direct.report.named("init").len() > 1, "it is the dead one's");
    file
}

/// It serves, and ends when told; the bystander has been left alone throughout.
#[track_caller]
fn assert_serves(direct: &Site, mut started: Started, daemon: &Watched, bystander: &Bystander) {
    direct.report.wait_of(daemon.pid(), "started");
    assert_eq!(direct.named(), Some(daemon.pid()));
    bystander.assert_unharmed();
    daemon.signal(TERM);
    assert!(started.wait_end().success());
    bystander.assert_unharmed();
}

#[test]
fn p5_before_the_successor_looks() {
    run(|folder| {
        for who in ALL {
            let (place, direct) = place(folder, format!("{who:?}"));
            let old = predecessor(&direct, &[]);
            let bystander = give_away(&old, who, &place, || ());
            let _held = hold_pid_file(&direct);
            let (started, new) = direct.start_ready(&[]);
            assert_serves(&direct, started, &new, &bystander);
        }
    });
}

/// The successor is held at this call about its predecessor, whose PID somebody else gets meanwhile.
fn held_in_started(call: &str, path: Option<&str>) {
    run(|folder| {
        for who in ALL {
            let (place, direct) = place(folder, format!("{who:?}"));
            let old = predecessor(&direct, &[]);
            let (started, new, go) = waiting(&direct, &place, &[]);
            let path = path.map(|name| PathBuf::from(format!("/proc/{}/{name}", old.pid())));
            let hold = Hold::at(new.pid(), &[call], 1, path.as_deref(), &place);
            fs::write(go, "").expect("a file");
            hold.wait();
            let bystander = give_away(&old, who, &place, || ());
            let _held = hold_pid_file(&direct);
            hold.release();
            assert_serves(&direct, started, &new, &bystander);
        }
    });
}

/// A daemon that goes on when this file is there.
fn waiting(direct: &Site, place: &Path, options: &[&str]) -> (Started, Watched, PathBuf) {
    let go = place.join("go");
    let wait = format!("--at=after-init=file:{}", go.display());
    let started = direct.start(&[&[wait.as_str()], options].concat());
    let new = started.wait_init();
    // Its other threads are through with their first calls.
    direct.log.wait_words(&["stage=report", &format!("daemon={} report=ready", new.pid())], 1);
    (started, new, go)
}

#[test]
fn p5_between_the_record_and_the_pidfd() {
    held_in_started("pidfd_open", None);
}

#[test]
fn p5_between_the_pidfd_and_the_look() {
    held_in_started("openat", Some("stat"));
}

#[test]
fn p5_between_the_look_and_the_term() {
    held_in_started("pidfd_send_signal", None);
}

/// In the takeover of sockets: nobody has the socket's name any more, or nobody can be asked.
#[test]
fn p5_while_sockets_are_taken_over() {
    run(|folder| {
        let tcp = "--tcp=127.0.0.1:0";
        for call in ["connect", "getsockopt", "sendmsg", "recvmsg"] {
            let (place, direct) = place(folder, call);
            let old = predecessor(&direct, &[tcp]);
            let (started, new, go) = waiting(&direct, &place, &[tcp]);
            let hold = Hold::at(new.pid(), &[call], 1, None, &place);
            fs::write(&go, "").expect("a file");
            hold.wait();
            let bystander = give_away(&old, Who::Twin, &place, || ());
            hold.release();
            // Nobody is left to take over from: it binds anew, or has what has come.
            assert_eq!(started.wait_started().pid(), new.pid());
            assert_serves(&direct, started, &new, &bystander);
        }
    });
}

/// Told to stop, it waits for the end of an older generation, which is KILLed, and its PID used again.
#[test]
fn p5_p6_while_the_end_of_an_older_one_is_awaited() {
    run(|folder| {
        let report = Report::new(folder.join("report"));
        let drain = format!("--at=shutdown=file:{}", folder.join("never").display());
        let start = |options: &str| bin::probe_script(folder, options);
        let service = Service::new(Supervisor::Runit, folder.join("service"), &start(&drain));
        let old = Watched::new(report.wait("started").pid);
        write_script(&service.folder().join("run"), &start(""));
        service.settle();
        service.restart();
        let new = Watched::new(report.wait_nth("started", 2).pid);
        report.wait_of(old.pid(), "hook");
        wait_for("the old one drains", LIMIT, || {
            let drains = |hook: &Event| hook.pid == old.pid() && hook.text == "shutdown";
            report.named("hook").iter().any(drains).then_some(())
        });
        service.down();
        report.wait_of(new.pid(), "hook");
        assert!(!new.has_ended());
        let bystander = give_away(&old, Who::Twin, folder, || ());
        new.wait_end(LIMIT);
        service.wait_down();
        bystander.assert_unharmed();
    });
}

// ---- the launcher's PID ----

/// The successor asks whether its predecessor's launcher lives: it did, and now somebody else has its
/// PID, below the same supervisor even.
#[test]
fn p4_p5_the_old_launcher_while_the_successor_looks() {
    run(|folder| {
        for who in [Who::Twin, Who::Launcher] {
            let (place, direct) = place(folder, format!("{who:?}"));
            let (mut first, old) = direct.start_ready(&["--successor-timeout=none"]);
            let launcher = Watched::new(first.launcher.pid());
            let (started, new, go) = waiting(&direct, &place, &[]);
            let stat = PathBuf::from(format!("/proc/{}/stat", launcher.pid()));
            let hold = Hold::at(new.pid(), &["openat"], 2, Some(&stat), &place);
            fs::write(&go, "").expect("a file");
            hold.wait();
            let bystander = give_away(&launcher, who, &place, || _ = first.wait_end());
            hold.release();
            direct.report.wait_of(new.pid(), "started");
            assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
            assert_serves(&direct, started, &new, &bystander);
        }
    });
}

/// The daemon has told its launcher to go, and is about to send the signal that says so as well.
#[test]
fn p5_the_launcher_that_is_released() {
    run(|folder| {
        for who in [Who::Twin, Who::Launcher] {
            let (place, direct) = place(folder, format!("{who:?}"));
            let go = place.join("go");
            let wait = format!("--at=request=file:{}", go.display());
            // A signal that would end most processes.
            let options = ["--release-signal=10", "--successor-timeout=none", &wait];
            let (mut started, daemon) = direct.start_ready(&options);
            let launcher = Watched::new(started.launcher.pid());
            launcher.signal(TERM);
            direct.report.wait_of(daemon.pid(), "hook");
            // It reads what it is told only when the daemon has looked whether it lives.
            launcher.stop();
            let calls = ["kill", "pidfd_send_signal"];
            let hold = Hold::at(daemon.pid(), &calls, 1, None, &place);
            fs::write(&go, "").expect("a file");
            hold.wait();
            let likeness = Likeness::of(launcher.pid());
            launcher.signal(CONT);
            let bystander = take(&launcher, likeness, who, &place, || {
                assert!(started.wait_end().success());
            });
            hold.release();
            direct.wait_checks(daemon.pid(), 1);
            bystander.assert_unharmed();
            let (next, new) = direct.start_ready(&[]);
            assert_serves(&direct, next, &new, &bystander);
        }
    });
}

// ---- the daemon's PID, as its launcher knows it ----

/// The launcher is about to signal its daemon, which ends just then; and a thread of the program's in
/// the launcher waits for whatever child there is.
#[test]
fn p5_the_daemon_that_its_launcher_signals() {
    run(|folder| {
        for (name, signal) in [("handoff", TERM), ("passed-on", USR1)] {
            let (place, direct) = place(folder, name);
            let (mut started, daemon) = direct.start_ready(&["--at=launch=reap"]);
            let calls = ["kill", "pidfd_send_signal"];
            let hold = Hold::at(started.launcher.pid(), &calls, 1, None, &place);
            started.launcher.signal(signal);
            hold.wait();
            let bystander = give_away(&daemon, Who::Twin, &place, || ());
            hold.release();
            started.wait_end();
            bystander.assert_unharmed();
            let (next, new) = direct.start_ready(&[]);
            assert_serves(&direct, next, &new, &bystander);
        }
    });
}

/// A launcher that restarts in place: what it passes on goes to the daemon that serves, and none of it
/// to whoever has the PID of one that has ended.
#[test]
fn p5_p7_a_daemon_that_was_replaced_in_place() {
    run(|folder| {
        for who in [Who::Twin, Who::Launcher] {
            let (place, direct) = place(folder, format!("{who:?}"));
            let (mut started, old) =
                direct.start_ready(&["--reload-signal=1", "--on=10=call:time"]);
            let likeness = Likeness::of(old.pid());
            started.launcher.signal(1);
            let new = Watched::new(direct.report.wait_nth("started", 2).pid);
            let bystander = take(&old, likeness, who, &place, || ());
            // From here on its daemon is the new one.
            direct.log.wait_words(&["stage=reloaded"], 1);
            started.launcher.signal(USR1);
            assert!(direct.report.wait_of(new.pid(), "called").text.starts_with("time "));
            started.launcher.signal(1);
            let newest = direct.report.wait_nth("started", 3).pid;
            new.wait_end(LIMIT);
            assert_eq!(direct.named(), Some(newest));
            bystander.assert_unharmed();
            started.launcher.signal(TERM);
            started.wait_end();
            Watched::new(newest).kill();
            bystander.assert_unharmed();
        }
    });
}

// ---- the PID at the control socket ----

/// Who listens at a socket is known by the PID that it had then. That process is dead, others hold its
/// socket, and a predecessor has its PID now: it gets neither our trust nor a message. Linux 6.5 tells.
#[test]
fn p5_p10_the_pid_of_a_listener_that_is_dead() {
    run(|folder| {
        let direct = Site::alone(folder);
        let planted = folder.join("planted");
        let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("a socket");
        listener.bind(&SockAddr::unix(&planted).expect("an address")).expect("bind");
        let inherited = OwnedFd::from(listener.try_clone().expect("the same"));
        let mut dead = Command::new("perl");
        dead.args(["-e", "listen(STDIN, 128) or die"]).stdin(Stdio::from(inherited));
        let options = ["--tcp=127.0.0.1:0", "--successor-timeout=none"];
        // The PID before is a launcher's then.
        let (mut first, old) = wait_for("a daemon with the PID of the dead", LIMIT, || {
            let mut dead = dead.spawn().expect("perl");
            let pid = dead.id();
            assert!(dead.wait().expect("its end").success());
            next_pid(pid - 1);
            let mut started = direct.start(&options);
            let daemon = started.wait_started();
            if daemon.pid() == pid {
                return Some((started, daemon));
            }
            started.launcher.kill();
            started.wait_end();
            daemon.kill();
            daemon.wait_end(LIMIT);
            None
        });
        first.detach();
        direct.wait_checks(old.pid(), 1);
        let good = folder.join("good");
        fs::rename(direct.socket(), &good).expect("the control socket");
        fs::rename(&planted, direct.socket()).expect("another");
        let text = direct.start(&options).wait_error().text;
        let why = format!(
            "nobody listens there, while generation 1 with daemon {} should; it looks after it each second",
            old.pid()
        );
        assert_eq!(
            text,
            format!("socket: cannot take over at {:?} (takeover): {why}", direct.socket())
        );
        // Nor does the command believe it.
        let said = Command::new(bin::support("seamless"))
            .args(["stop", "--force", "--timeout=300ms"])
            .arg(direct.pid_file())
            .output()
            .expect("seamless");
        let said = String::from_utf8_lossy(&said.stderr);
        assert!(said.contains("not proven to be generation"), "{said}");
        // All that have connected have gone, and said nothing.
        listener.set_nonblocking(true).expect("O_NONBLOCK");
        let mut connections = 0;
        while let Ok((connection, _)) = listener.accept() {
            connections += 1;
            let mut bytes = [std::mem::MaybeUninit::uninit(); 64];
            assert_eq!(connection.recv(&mut bytes).expect("its end"), 0);
        }
        assert!(connections > 1);
        fs::rename(&good, direct.socket()).expect("the control socket");
        let (_second, new) = direct.start_ready(&options);
        assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
        assert!(!new.has_ended());
    });
}

// ---- the command ----

/// The command is held at each call about the daemon that it is to stop.
#[test]
fn p5_the_daemon_that_the_command_stops() {
    run(|folder| {
        let points = [
            ("never", None),
            ("pidfd_open", None),
            ("openat", Some("stat")),
            ("pidfd_send_signal", None),
        ];
        for (call, path) in points {
            let (place, direct) = place(folder, call);
            let old = predecessor(&direct, &[]);
            // Its successor has taken its control socket and died: it cannot be asked, so it is signalled.
            stop_without_claim(&old);
            let record = fs::read_to_string(direct.lock_file()).expect("the record");
            let record = record.replace("state=serving", "state=draining");
            fs::write(direct.lock_file(), record).expect("the record");
            fs::remove_file(direct.socket()).expect("the socket");
            let mut command = Command::new("sh");
            let script = "kill -STOP $$; exec \"$@\"";
            command.args(["-c", script, "sh"]).arg(bin::support("seamless"));
            command.args(["stop", "--timeout=2s"]).arg(direct.pid_file());
            let command = command.stdin(Stdio::null()).stdout(direct.log_end());
            let mut child = command.stderr(direct.log_end()).spawn().expect("sh");
            let command = Watched::new(child.id());
            wait_for("the command waits", LIMIT, || {
                (process::stat(child.id())?.state == 'T').then_some(())
            });
            let path = path.map(|name| PathBuf::from(format!("/proc/{}/{name}", old.pid())));
            let hold = (call != "never")
                .then(|| Hold::at(child.id(), &[call], 1, path.as_deref(), &place));
            if let Some(hold) = &hold {
                command.signal(CONT);
                hold.wait();
            }
            let bystander = give_away(&old, Who::Twin, &place, || ());
            match hold {
                Some(hold) => hold.release(),
                None => _ = command.signal(CONT),
            }
            command.wait_end(LIMIT);
            let code = child.wait().expect("its end").code();
            assert!(code.is_some_and(|code| code <= 1), "{call}: {code:?}\n{}", direct.log);
            bystander.assert_unharmed();
        }
    });
}
