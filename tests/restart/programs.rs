//! Programs that are made of the crates that many programs are made of, see the guide.

use std::{
    path::Path,
    process::{Command, Output},
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    http::{self, Prober, Target},
    log::Log,
    process::Watched,
    supervisor::{Service, Supervisor},
    under_each_supervisor,
};

const RESTARTS: u32 = 3;

/// Restarts a service under load, and returns the PIDs of its launchers.
fn restarts(kind: Supervisor, folder: &Path, command: &str, target: &Target) -> Vec<u32> {
    let run = format!("exec 2>>'{}'\nexec {command}", folder.join("log").display());
    let service = Service::new(kind, folder.join("service"), &run);
    let mut pid = http::wait_pid(target);
    let mut daemon = Watched::new(pid);
    let mut launchers = vec![service.main_pid()];
    let prober = Prober::start(target);
    for _ in 0..RESTARTS {
        prober.wait_pid(pid);
        service.settle();
        service.restart();
        daemon.wait_end(LIMIT);
        launchers.push(service.main_pid_after(launchers[launchers.len() - 1]));
        pid = http::wait_pid(target);
        daemon = Watched::new(pid);
    }
    prober.wait_pid(pid);
    let probes = prober.stop();
    probes.assert_all_answered();
    assert_eq!(probes.pids().len(), launchers.len());
    launchers
}

/// With clap, anyhow and tracing, and a runtime that starts after `init`.
fn p1_p2_a_program_of_the_usual_crates_restarts(kind: Supervisor, folder: &Path) {
    let address = boxed::address();
    let (program, pid_file) = (bin::example("usual"), folder.join("web.pid"));
    let (program, pid_file) = (program.display(), pid_file.display());
    let command = format!("'{program}' --pid-file='{pid_file}' --listen={address}");
    let launchers = restarts(kind, folder, &command, &address.into());
    // Its tracing subscriber takes what launchers and daemons say to `log`, and what the program says.
    let log = Log::of(folder);
    for launcher in launchers {
        log.wait_words(&["seamless: stage=launch", &format!("launcher={launcher} ")], 1);
    }
    log.wait_words(&["seamless: stage=started"], RESTARTS as usize + 1);
    log.wait_words(&["usual: drained reason=TakenOver"], RESTARTS as usize);
    assert!(log.with(&["WARN"]).is_empty(), "{}", log.text());
}

/// The launcher has the threads of the runtime. It says so, once, and everything works.
fn p1_p2_init_below_tokio_main_works_and_warns(kind: Supervisor, folder: &Path) {
    let address = boxed::address();
    let (program, pid_file) = (bin::support("tokio_main"), folder.join("web.pid"));
    let command = format!("'{}' '{}' {address}", program.display(), pid_file.display());
    let launchers = restarts(kind, folder, &command, &address.into());
    let log = Log::of(folder);
    for launcher in &launchers {
        let from = format!("launcher={launcher} ");
        let warning = ["WARN", "stage=launch", &from, "threads=4 ", "call init first in main"];
        log.wait_words(&warning, 1);
        assert_eq!(log.with(&warning).len(), 1, "{}", log.text());
    }
}

under_each_supervisor![
    Boxed::new().private_net_without_migration() =>
    p1_p2_a_program_of_the_usual_crates_restarts,
    p1_p2_init_below_tokio_main_works_and_warns
];

fn usual(arguments: &[&str]) -> Output {
    Command::new(bin::example("usual")).args(arguments).output().expect("the program starts")
}

#[test]
fn p10_clap_ends_before_anything_is_started_and_anyhow_shows_every_cause() {
    boxed::run(|folder| {
        let help = usual(&["--help"]);
        assert_eq!(help.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&help.stdout).contains("--pid-file <PID_FILE>"));
        let wrong = usual(&["--pid-fil=web.pid"]);
        assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
        assert!(!String::from_utf8_lossy(&wrong.stderr).contains("stage="), "{wrong:?}");

        let missing = folder.join("missing/web.pid");
        let failed = usual(&[&format!("--pid-file={}", missing.display())]);
        // The launcher ends as its daemon.
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        let said = String::from_utf8_lossy(&failed.stderr);
        let (_, causes) = said.split_once("Error: cannot start\n\nCaused by:\n").expect(&said);
        assert!(causes.contains(&format!("\"{}.lock\"", missing.display())), "{causes}");
        assert!(causes.contains("No such file or directory"), "{causes}");
    });
}
