//! A logger with a file of its own, set up before `init`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use seamless_testing::{
    LIMIT,
    log::{Line, Log},
    process::{Watched, descriptors},
    report::Report,
    scene,
    supervisor::{Service, Supervisor},
    under_each_supervisor,
};

/// A restart and a stop. Returns the log, and the PIDs of launchers and daemons.
fn a_whole_life(kind: Supervisor, folder: &Path, options: &str) -> (Vec<Line>, Vec<u32>, Vec<u32>) {
    let own = folder.join("own");
    fs::create_dir(&own).expect("a folder");
    let log = Log::of(&own);
    let path = own.join("log");
    let run = scene::script(folder, &format!("--log-file='{}' {options}", path.display()));
    let service = Service::new(kind, folder.join("service"), &run);
    let report = Report::new(folder.join("report"));
    let (mut launchers, mut daemons) = (Vec::new(), Vec::new());
    for nth in 1..=2 {
        let daemon = Watched::new(report.wait_nth("started", nth).pid);
        let launcher = Watched::new(service.main_pid());
        log.wait(&[("stage", "started"), ("daemon", &daemon.pid().to_string())]);
        launchers.push(launcher.pid());
        daemons.push(daemon.pid());
        service.settle();
        let holds = |pid| descriptors(pid).iter().any(|(_, target)| *target == path);
        assert!(holds(daemon.pid()), "the daemon has its own");
        assert_eq!(holds(launcher.pid()), options.contains("--keep-log"));
        if nth == 1 {
            service.restart();
        } else {
            service.down();
            service.wait_down();
        }
        launcher.wait_end(LIMIT);
        daemon.wait_end(LIMIT);
    }
    (log.lines(), launchers, daemons)
}

/// How many lines of this stage have these PIDs in this field. The last line of a launcher that
/// ends as its daemon did has the same name as the daemon's, and an exit code; a daemon whose
/// launcher has left already says so with an error, and one that waits for the claim, which its
/// predecessor takes for each look round, names the holder.
fn count(lines: &[Line], stage: &str, field: &str, pids: &[u32]) -> usize {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let has = |line: &&Line| {
        line.is(&[("stage", stage)]) && pids.iter().any(|pid| line.field(field) == Some(pid))
    };
    let other = |line: &&Line| {
        ["exit_code", "error", "holder"].iter().any(|field| line.field(field).is_some())
    };
    lines.iter().filter(has).filter(|line| !other(line)).count()
}

fn launchers_lines(lines: &[Line], launchers: &[u32]) -> Vec<usize> {
    let stages = ["launch", "handoff", "release", "stop"];
    let mut counts: Vec<usize> =
        stages.iter().map(|stage| count(lines, stage, "launcher", launchers)).collect();
    counts.push(lines.iter().filter(|line| line.field("exit_code") == Some("0")).count());
    counts
}

#[track_caller]
fn assert_daemons_lines(lines: &[Line], daemons: &[u32]) {
    for (stage, expected) in [
        ("claim", 2),
        ("started", 2),
        ("prepare", 1),
        ("detached", 1),
        ("takeover", 1),
        ("drain", 2),
        ("wait-returns", 2),
    ] {
        assert_eq!(count(lines, stage, "daemon", daemons), expected, "{stage}: {lines:#?}");
    }
}

fn a_logger_whose_file_is_kept_open(kind: Supervisor, folder: &Path) {
    let (lines, launchers, daemons) = a_whole_life(kind, folder, "--keep-log");
    assert_eq!(launchers_lines(&lines, &launchers), [2, 1, 1, 1, 1], "{lines:#?}");
    assert_daemons_lines(&lines, &daemons);
}

fn a_logger_whose_file_is_closed_loses_the_launchers_lines_alone(kind: Supervisor, folder: &Path) {
    // The launcher opens files of its own: the report, under the number that was the log's.
    let (lines, launchers, daemons) = a_whole_life(kind, folder, "");
    assert_eq!(launchers_lines(&lines, &launchers), [0; 5], "{lines:#?}");
    assert_daemons_lines(&lines, &daemons);
    // They went nowhere else either.
    let mut files = Vec::new();
    collect(folder, &mut files);
    assert!(files.len() >= 6, "{files:?}");
    for file in files.iter().filter(|file| **file != folder.join("own/log")) {
        let content = String::from_utf8_lossy(&fs::read(file).expect("a file")).into_owned();
        assert!(!content.contains("stage="), "{}: {content}", file.display());
    }
}

/// What the launcher is given by its daemon has the lowest numbers that are free: first the memory of the counters.
fn p9_a_logger_whose_file_is_closed_writes_into_nothing_that_is_kept(
    kind: Supervisor,
    folder: &Path,
) {
    let (log, kept) = (folder.join("own.log"), folder.join("kept"));
    let options = format!(
        "--log-file='{}' --at=after-init=count:starts --at=after-init=keep-crash:'{}'",
        log.display(),
        kept.display()
    );
    let service = Service::new(kind, folder.join("service"), &scene::script(folder, &options));
    let report = Report::new(folder.join("report"));
    for nth in 1..=3 {
        let daemon = Watched::new(report.wait_nth("started", nth).pid);
        let counted = report.named("counted").into_iter().map(|event| event.text);
        let expected: Vec<String> = (1..=nth).map(|value| format!("starts {value}")).collect();
        assert_eq!(counted.collect::<Vec<_>>(), expected);
        if nth < 3 {
            service.settle();
            service.restart(); // of which the launcher logs each stage
            daemon.wait_end(LIMIT);
        }
    }
    let lines = fs::read_to_string(&kept).expect("a file");
    assert!(lines.lines().all(|line| line.ends_with(" keep-crash")), "{lines}");
    service.down();
    service.wait_down();
}

/// The regular files below a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let kind = entry.file_type().expect("its type");
        if kind.is_dir() {
            collect(&entry.path(), files);
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
}

under_each_supervisor![
    a_logger_whose_file_is_kept_open,
    a_logger_whose_file_is_closed_loses_the_launchers_lines_alone,
    p9_a_logger_whose_file_is_closed_writes_into_nothing_that_is_kept
];
