//! The table of all signals in the guide (`signals.md`) is what happens: each signal is sent to a launcher
//! and to a daemon in each state.

use std::{collections::BTreeMap, fs, os::unix::process::ExitStatusExt, path::Path};

use seamless_testing::{
    LIMIT, boxed, process, scene,
    signal::{CONT, HUP, TERM},
    site::Site,
    wait_for,
};

const PAGE: &str = include_str!("../../src/guide/signals.md");

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "POLL", "PWR", "SYS",
];
/// Of the real-time signals, which are all alike.
const REAL_TIME: [i32; 3] = [34, 35, 64];

/// To whom the signal is sent: a column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Launcher = 1,
    Starting = 2,
    Serving = 3,
    Draining = 4,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    to: To,
    signal: i32,
    reloads: bool,
    /// What the table says of this, and of a daemon that serves.
    says: &'static str,
    serving: &'static str,
}

/// The rows: the signals' names, and the columns.
fn table() -> BTreeMap<&'static str, Vec<&'static str>> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| ")).skip(2);
    let mut table = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        for name in cells[0].split(", ") {
            assert!(table.insert(name, cells.clone()).is_none(), "{name} twice");
        }
    }
    table
}

fn name_of(signal: i32) -> &'static str {
    NAMES.get(signal as usize - 1).copied().unwrap_or("34 to 64")
}

#[test]
fn p7_the_table_of_signals_has_each_of_them() {
    let mut names: Vec<&str> = table().into_keys().collect();
    let mut expected = [&NAMES[..], &["34 to 64", "a reload signal"]].concat();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

#[test]
fn p7_each_signal_does_what_the_table_says() {
    boxed::run(|folder| {
        let table = table();
        let numbers = (1..=31).chain(REAL_TIME).map(|number| (number, false));
        let all = numbers.chain([(HUP, true)]);
        let cases: Vec<Case> = all
            .flat_map(|(signal, reloads)| {
                let name = if reloads { "a reload signal" } else { name_of(signal) };
                let row = &table[name];
                [To::Launcher, To::Starting, To::Serving, To::Draining].map(|to| Case {
                    to,
                    signal,
                    reloads,
                    says: row[to as usize],
                    serving: row[To::Serving as usize],
                })
            })
            .collect();
        assert_eq!(cases.len(), 4 * 35);
        for (nth, some) in cases.chunks(12).enumerate() {
            let folder = folder.join(nth.to_string());
            fs::create_dir(&folder).expect("a folder");
            scene::each(&folder, some.iter().copied(), does);
        }
    });
}

fn does(folder: &Path, case: Case) {
    let site = Site::alone(folder);
    let (go, drain) = (folder.join("go"), folder.join("drain"));
    let mut options = vec![
        "--exit-code=7".to_owned(),
        "--successor-timeout=none".to_owned(),
        format!("--at=shutdown=file:{}", drain.display()),
    ];
    if case.reloads {
        options.push(format!("--reload-signal={HUP}"));
    }
    match case.to {
        To::Starting => options.push(format!("--at=after-init=file:{}", go.display())),
        To::Launcher | To::Serving | To::Draining => {}
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut started = site.start(&options);
    let daemon = started.wait_init();
    if case.to != To::Starting {
        started.wait_started();
    }
    if case.to == To::Draining {
        daemon.signal(TERM);
        site.wait_drain(daemon.pid());
    }
    let target = if case.to == To::Launcher { &started.launcher } else { &daemon };
    if case.says.ends_with("at the second") {
        assert!(target.signal(case.signal));
        // The handler of Rust's runtime has gone.
        wait_for(format!("{case:?}: {site}"), LIMIT, || {
            let caught = process::signals(target.pid())?.caught;
            (!caught.contains(case.signal)).then_some(())
        });
    } else if case.to == To::Launcher && case.serving.ends_with("at the second") {
        assert!(target.signal(case.signal));
        wait_for(format!("{case:?}: {site}"), LIMIT, || {
            (!process::signals(daemon.pid())?.caught.contains(case.signal)).then_some(())
        });
    }
    assert!(target.signal(case.signal), "{case:?}");
    let generations = |count| _ = site.report.wait_nth("started", count);
    let says = match (case.to, case.says) {
        (To::Launcher, "passed on") => case.serving,
        (_, says) => says,
    };
    println!("{case:?}");
    match (case.to, says) {
        (To::Launcher, "ends" | "ends at the second") => {
            assert_eq!(started.wait_end().signal(), Some(case.signal));
            site.wait_checks(daemon.pid(), 1);
            assert!(!daemon.has_ended());
            return;
        }
        (To::Launcher, "restart or stop") => {
            site.log.wait(&[("stage", "intent")]);
        }
        (_, "default" | "default at the second") => {
            daemon.wait_end(LIMIT);
            assert_eq!(started.wait_end().signal(), Some(case.signal), "{case:?}: {site}");
            return;
        }
        (To::Starting, "ends") => {
            daemon.wait_end(LIMIT);
            assert_eq!(started.wait_end().code(), Some(0), "{case:?}: {site}");
            return;
        }
        (_, "forced exit") => {
            assert_eq!(started.wait_end().code(), Some(124), "{case:?}: {site}");
            return;
        }
        (_, "drains") => site.wait_drain(daemon.pid()),
        // It leaves its launcher, or its launcher starts the next one.
        (To::Launcher | To::Serving, "restart") => {
            assert_eq!(started.wait_end().code(), Some(0), "{case:?}: {site}");
            site.log.wait(&[("stage", "detached")]);
        }
        (_, "restart in place") => {
            fs::write(&go, "").expect("a file");
            generations(2);
        }
        (_, "stops") => {
            wait_for(format!("{case:?}: {site}"), LIMIT, || {
                let stopped = if case.says == "passed on" { daemon.pid() } else { target.pid() };
                (process::stat(stopped)?.state == 'T').then_some(())
            });
            daemon.signal(CONT);
            started.launcher.signal(CONT);
        }
        (_, "ignored") => {
            wait_for(format!("{case:?}: {site}"), LIMIT, || {
                let pending = process::signals(target.pid())?.pending;
                (!pending.contains(case.signal)).then_some(())
            });
        }
        (_, other) => panic!("{other:?} is no word of the table: {case:?}"),
    }
    // It goes on as if nothing had been.
    fs::write(&go, "").expect("a file");
    fs::write(&drain, "").expect("a file");
    site.report.wait_of(daemon.pid(), "started");
    for one in site.report.named("started") {
        _ = process::Watched::new(one.pid).signal(TERM);
    }
    let reason = site.report.wait_of(daemon.pid(), "wait").text;
    let unasked = ["ignored", "stops"].contains(&says);
    assert!(!unasked || reason == "Requested", "{case:?}: {reason} {site}");
    daemon.wait_end(LIMIT);
    started.launcher.wait_end(LIMIT);
}

/// Handlers of the program: the column of those.
#[test]
fn p7_signals_that_the_program_handles_are_the_programs() {
    boxed::run(|folder| {
        let table = table();
        let site = Site::alone(folder);
        let drain = folder.join("drain");
        let hold = format!("--at=shutdown=file:{}", drain.display());
        let (mut started, daemon) = site.start_ready(&["--catch-all", "--exit-code=7", &hold]);
        let seen = |number: i32| {
            let events = site.report.named("signal").into_iter();
            events.filter(|event| event.text == number.to_string()).count()
        };
        let mut programs: Vec<i32> = REAL_TIME.to_vec();
        programs.extend((1..=31).filter(|number| table[name_of(*number)][5] == "the program's"));
        assert_eq!(programs.len(), 25, "{programs:?}");
        for draining in [false, true] {
            if draining {
                daemon.signal(TERM);
                site.wait_drain(daemon.pid());
            }
            for number in &programs {
                let before = seen(*number);
                daemon.signal(*number);
                wait_for(format!("{number} {site}"), LIMIT, || {
                    (seen(*number) > before).then_some(())
                });
                if table[name_of(*number)][1] == "ignored" {
                    continue;
                }
                let before = seen(*number);
                started.launcher.signal(*number);
                wait_for(format!("{number} by the launcher {site}"), LIMIT, || {
                    (seen(*number) > before).then_some(())
                });
            }
        }
        assert_eq!(seen(TERM), 1, "both");
        fs::write(drain, "").expect("a file");
        assert_eq!(site.report.wait_of(daemon.pid(), "wait").text, "Requested");
        assert_eq!(started.wait_end().code(), Some(7), "{site}");
    });
}
