//! SIGSTOP of each process of a restart at each stage of it, for longer than every time limit: somebody
//! serves, or would as soon as it goes on, no request is lost, and one generation remains.

use std::{fs, path::Path, thread, time::Duration};

use seamless_testing::{
    LIMIT,
    boxed::Boxed,
    http::{self, Connection, Prober, answer_of},
    process::{self, Watched},
    scene,
    signal::CONT,
    site::Site,
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

const OPTIONS: &str = "--accept=started --handoff-timeout=1s --claim-timeout=1s \
                       --takeover-timeout=1s --successor-timeout=1s";
/// Longer than each of these.
const STOPPED: Duration = Duration::from_millis(2500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    OldLauncher,
    OldDaemon,
    NewLauncher,
    NewDaemon,
}
use Process::{NewDaemon, NewLauncher, OldDaemon, OldLauncher};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has been asked for yet.
    Serving,
    /// The old daemon's hook runs; its launcher waits for the release.
    Handoff,
    /// The old daemon is detached, the next launcher has not been executed.
    Gap,
    /// The next launcher is about to call `init`.
    BeforeInit,
    /// The next daemon is: it has no handlers yet.
    BeforeDaemonInit,
    /// The next daemon holds the claim.
    Claimed,
    /// It has taken the sockets over, and is about to call `started`.
    Ready,
    /// It serves, and the old one still answers a request.
    Drain,
}

/// Each process that there is at a stage.
const MATRIX: &[(Stage, &[Process])] = &[
    (Stage::Serving, &[OldLauncher, OldDaemon]),
    (Stage::Handoff, &[OldLauncher, OldDaemon]),
    (Stage::Gap, &[OldDaemon]),
    (Stage::BeforeInit, &[OldDaemon, NewLauncher]),
    (Stage::BeforeDaemonInit, &[OldDaemon, NewLauncher, NewDaemon]),
    (Stage::Claimed, &[OldDaemon, NewLauncher, NewDaemon]),
    (Stage::Ready, &[OldDaemon, NewLauncher, NewDaemon]),
    (Stage::Drain, &[OldDaemon, NewLauncher, NewDaemon]),
];

fn p1_p3_p4_each_process_is_stopped_at_each_stage(kind: Supervisor, folder: &Path) {
    let cases = MATRIX
        .iter()
        .flat_map(|(stage, processes)| processes.iter().map(|process| (*stage, *process)));
    scene::each(folder, cases, |folder, (stage, process)| {
        stop_and_continue(kind, folder, stage, process);
    });
}

under_each_supervisor![
    Boxed::new().private_net() => p1_p3_p4_each_process_is_stopped_at_each_stage
];

fn stop_and_continue(kind: Supervisor, folder: &Path, stage: Stage, process: Process) {
    let go = folder.join("go");
    let go = go.display();
    let (first, option) = match stage {
        Stage::Serving | Stage::Drain => (String::new(), String::new()),
        Stage::Handoff => (String::new(), format!("--at=request=file:{go}")),
        Stage::Gap => (format!("until [ -e '{go}' ]; do sleep 0.05; done"), String::new()),
        Stage::BeforeInit => (String::new(), format!("--at=before-init=file:{go}")),
        Stage::BeforeDaemonInit => (String::new(), format!("--at=before-daemon-init=file:{go}")),
        Stage::Claimed => (String::new(), format!("--at=after-init=file:{go}")),
        Stage::Ready => (String::new(), format!("--at=ready=file:{go}")),
    };
    let of_old = if stage == Stage::Handoff { &*option } else { "" };
    let site = Site::at(folder).shared_socket().options(&format!("{OPTIONS} {of_old}")).under(kind);
    let old = Watched::new(site.report.wait("started").pid);
    let launcher = Watched::new(site.service().main_pid());
    let prober = Prober::start_every(Duration::from_millis(100), &site.target);
    prober.wait_pid(old.pid());
    let request = Connection::unfinished(&site.target);
    request.wait_accepted(old.pid());
    site.deploy_more(&first, &option);
    site.service().settle();

    // To the stage.
    if stage != Stage::Serving {
        site.service().restart();
    }
    let next_launcher = || site.service().main_pid_after(launcher.pid());
    let next = match stage {
        Stage::Serving => (None, None),
        Stage::Handoff => {
            site.report.wait("hook");
            (None, None)
        }
        Stage::Gap => {
            launcher.wait_end(LIMIT);
            next_launcher();
            (None, None)
        }
        Stage::BeforeInit => {
            let next = next_launcher();
            wait_for("the program", LIMIT, || scene::pids(folder).contains(&next).then_some(()));
            (Some(next), None)
        }
        Stage::BeforeDaemonInit => {
            let next = next_launcher();
            let daemon = wait_for("a daemon", LIMIT, || {
                let child = *process::children(next).first()?;
                scene::pids(folder).contains(&child).then_some(child)
            });
            (Some(next), Some(daemon))
        }
        Stage::Claimed => (Some(next_launcher()), Some(site.report.wait_nth("init", 2).pid)),
        Stage::Ready => (Some(next_launcher()), Some(site.report.wait_nth("socket", 2).pid)),
        Stage::Drain => {
            site.wait_drain_logged(old.pid());
            (Some(next_launcher()), Some(site.report.wait_nth("started", 2).pid))
        }
    };

    let stopped = match process {
        OldLauncher => Some(launcher.pid()),
        OldDaemon => Some(old.pid()),
        NewLauncher => next.0,
        NewDaemon => next.1,
    };
    let stopped = Watched::new(stopped.expect("there is one at this stage"));
    stopped.stop();
    match stage {
        Stage::Serving => site.service().restart(),
        _ => fs::write(folder.join("go"), "").expect("a file"),
    }
    thread::sleep(STOPPED);
    // Only one that serves alone is missed.
    let serves_alone = match process {
        OldDaemon => !matches!(stage, Stage::Ready | Stage::Drain),
        NewDaemon => stage == Stage::Drain,
        OldLauncher | NewLauncher => false,
    };
    // The prober's own last request may be the stopped one's.
    if !serves_alone {
        for _ in 0..3 {
            http::wait_pid(&site.target);
        }
    }
    if process == OldDaemon && !matches!(stage, Stage::Ready | Stage::Drain) {
        launcher.wait_end(LIMIT);
        // It may have been stopped in its check, for which it holds the claim.
        let error = site.report.wait("error").text;
        let is_late = |limit: &&str| error.contains(limit);
        assert!(["(takeover_timeout)", "claim_timeout"].iter().any(is_late), "{error}\n{site}");
    }
    stopped.signal(CONT);

    // One remains.
    let new = site.wait_successor(old.pid());
    site.wait_drain_logged(old.pid());
    assert!(request.finish().ends_with(&answer_of(old.pid())), "{site}");
    old.wait_end(LIMIT);
    launcher.wait_end(LIMIT);
    let new = if site.named() == Some(new) { new } else { site.wait_successor(new) };
    site.wait_alone(new);
    prober.wait_pid(new);
    let probes = prober.stop();
    assert!(probes.failures.is_empty(), "{process:?} at {stage:?}: {:?}\n{site}", probes.failures);
    let pids = probes.pids();
    assert!(pids.first() == Some(&old.pid()) && pids.contains(&new), "{pids:?}, {new}\n{site}");
    site.stop();
}
