//! P7: signals reach the daemon.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::SigSet;
use seamless_testing::{
    LIMIT, boxed,
    log::Log,
    process::{self, Watched, catchable_signals, signal, signals},
    report::Report,
    scene,
    signal::{CHLD, CONT, HUP, INT, STOP, TERM, USR2, WINCH},
    wait_for,
};

const TERMINAL_STOPS: [i32; 3] = [20, 21, 22];

/// Serves under a launcher that it never leaves, also after a USR2.
const STAYS: &str = "--catch-all --at=request=hang --exit-code=9";

#[test]
fn p7_every_signal_arrives() {
    boxed::run(|folder| {
        // It must not end before it has reported the INT that ends it.
        let reported = folder.join("reported");
        let options = format!("{STAYS} --at=drained=file:{}", reported.display());
        let mut launcher = scene::start(folder, &options);
        let report = Report::new(folder.join("report"));
        let daemon = report.wait("started").pid;
        // CHLD and TERM are the launcher's own. INT comes last: it ends the daemon.
        signal(launcher.id(), CHLD);
        let mut passed_on: Vec<i32> =
            catchable_signals().filter(|signal| ![TERM, CHLD, INT].contains(signal)).collect();
        passed_on.push(INT);
        for number in &passed_on {
            signal(launcher.id(), *number);
            wait_for(format!("signal {number} in the report:\n{report}"), LIMIT, || {
                arrived(&report, daemon).contains(number).then_some(())
            });
        }
        println!("{} signals passed on", passed_on.len());
        assert_eq!(passed_on.len(), 54);
        fs::write(reported, "").expect("a file");
        assert_eq!(launcher.wait().expect("its end").code(), Some(9));
        let mut arrived = arrived(&report, daemon);
        arrived.sort_unstable();
        passed_on.sort_unstable();
        assert_eq!(arrived, passed_on, "each once, and no CHLD");
    });
}

#[test]
fn p7_a_burst_of_every_kind_arrives() {
    boxed::run(|folder| {
        let launcher = scene::start(folder, STAYS).id();
        let report = Report::new(folder.join("report"));
        let daemon = report.wait("started").pid;
        // While the launcher is stopped they pile up. The CONT that lets it go on is one of them,
        // and takes back the kinds that would stop it.
        let burst: Vec<i32> = catchable_signals()
            .filter(|signal| ![TERM, CHLD, INT, CONT].contains(signal))
            .filter(|signal| !TERMINAL_STOPS.contains(signal))
            .chain([CONT])
            .collect();
        assert_eq!(burst.len(), 50);
        Watched::new(launcher).stop();
        let kill = burst.iter().fold(String::new(), |mut script, number| {
            writeln!(script, "kill -{number} {launcher}").expect("a line");
            script
        });
        assert!(scene::shell(&kill).status().expect("sh").success());
        wait_for(format!("all of them in the report:\n{report}"), LIMIT, || {
            let arrived = arrived(&report, daemon);
            burst.iter().all(|number| arrived.contains(number)).then_some(())
        });
    });
}

/// The signals that the daemon has reported, in order.
fn arrived(report: &Report, daemon: u32) -> Vec<i32> {
    let signals = report.named("signal").into_iter().filter(|event| event.pid == daemon);
    signals.map(|event| event.number() as i32).collect()
}

/// From the first moment on, a TERM is either the end of a launcher that has not started anything
/// yet, or acted on.
#[test]
fn p7_a_term_in_the_first_milliseconds_is_not_lost() {
    boxed::run(|folder| {
        let mut early = 0;
        for turn in 0..50 {
            let folder = folder.join(turn.to_string());
            fs::create_dir(&folder).expect("a folder");
            let mut launcher = scene::start(&folder, "--successor-timeout=200ms");
            let pid = launcher.id();
            let has_handlers = turn % 2 == 0;
            if has_handlers {
                wait_until_it_catches_term(pid);
            } else {
                spin(Duration::from_micros(100 * turn));
            }
            signal(pid, TERM);
            Watched::new(pid).wait_end(LIMIT);
            let status = launcher.wait().expect("its end");
            let nothing_started = Report::new(folder.join("report")).events().is_empty();
            match status.code() {
                Some(0) => {}
                _ if nothing_started && !has_handlers => early += 1,
                _ => panic!("turn {turn}: {status}"),
            }
        }
        println!("{early} of 50 ended before they had started a daemon");
        // Those that handed over find no successor, and no other is left.
        for turn in 0..50 {
            scene::wait_all_ended(&folder.join(turn.to_string()));
        }
    });
}

fn wait_until_it_catches_term(pid: u32) {
    let start = Instant::now();
    while !signals(pid).is_some_and(|signals| signals.caught.contains(TERM)) {
        assert!(start.elapsed() < LIMIT, "{pid} never catches TERM");
    }
}

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {}
}

/// The same with a daemon that is slow to install its handlers: the launcher holds the TERM back.
#[test]
fn p7_a_term_waits_for_the_handlers_of_the_daemon() {
    boxed::run(|folder| {
        let options = format!("--at=before-daemon-init=raise:{STOP} --at=after-init=hang");
        let mut launcher = scene::start(folder, &options);
        let daemon = scene::stopped_child(launcher.id());
        signal(launcher.id(), TERM);
        // Handled after the TERM, and of no consequence for the daemon.
        signal(launcher.id(), WINCH);
        Log::of(folder).wait(&[("stage", "forward"), ("signal", &WINCH.to_string())]);
        signal(daemon, CONT);
        // A USR2 before its handlers would have killed it.
        assert_eq!(launcher.wait().expect("its end").code(), Some(0));
        assert!(Report::new(folder.join("report")).named("started").is_empty());
    });
}

#[test]
fn p7_an_interrupt_from_a_terminal_arrives_once() {
    boxed::run(|folder| {
        // `script` makes the terminal; what it reads is typed there.
        let mut terminal = Command::new("script")
            .args(["--quiet", "--return", "--command", &scene::script(folder, STAYS), "/dev/null"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("script");
        let report = Report::new(folder.join("report"));
        let daemon = report.wait("started").pid;
        let launcher = process::stat(daemon).expect("the daemon").ppid;
        let mut keyboard = terminal.stdin.take().expect("its input");
        keyboard.write_all(b"\x03").expect("^C");
        assert_eq!(report.wait_of(daemon, "wait").text, "Requested");
        assert_eq!(terminal.wait().expect("its end").code(), Some(9));
        let mut interrupts = Log::of(folder).stage("signal");
        interrupts.retain(|line| line.number("daemon") == daemon);
        assert_eq!(interrupts.len(), 1, "{interrupts:?}");
        assert!(interrupts[0].is(&[("signal", "2")]), "{interrupts:?}");
        assert_eq!(interrupts[0].number("from"), launcher, "not from the terminal itself");
        drop(keyboard);
    });
}

#[test]
fn p7_what_was_ignored_at_the_start_stays_ignored() {
    boxed::run(|folder| {
        let script = format!("trap '' HUP INT TERM CHLD\n{}", scene::script(folder, ""));
        let launcher = scene::shell(&script).spawn().expect("sh").id();
        let daemon = Report::new(folder.join("report")).wait("started").pid;
        for pid in [launcher, daemon] {
            let signals = signals(pid).expect("its signals");
            assert!(signals.ignored.contains(HUP) && !signals.caught.contains(HUP));
            assert!(signals.ignored.contains(INT) && !signals.caught.contains(INT));
            assert!(signals.caught.contains(TERM), "the protocol's");
        }
        assert!(signals(launcher).expect("its signals").caught.contains(CHLD));
        assert!(signals(daemon).expect("its signals").caught.contains(USR2));
    });
}

#[test]
fn p7_nothing_stays_blocked() {
    boxed::run(|folder| {
        SigSet::all().thread_block().expect("a mask");
        let launcher = scene::start(folder, "--no-wait").id();
        SigSet::all().thread_unblock().expect("a mask");
        let daemon = Report::new(folder.join("report")).wait("started").pid;
        for pid in [launcher, daemon] {
            // While a thread is being made, the C library blocks everything in it.
            wait_for(format!("no thread of {pid} blocks a signal"), LIMIT, || {
                threads(pid).iter().all(|signals| signals.blocked.is_empty()).then_some(())
            });
        }
    });
}

/// The signals of each thread.
fn threads(pid: u32) -> Vec<process::Signals> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let numbers = threads.map(|thread| thread.expect("a thread").file_name());
    let found: Vec<_> =
        numbers.filter_map(|number| signals(number.to_str()?.parse().expect("a number"))).collect();
    assert!(!found.is_empty());
    found
}
