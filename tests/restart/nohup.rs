//! A service that was started by `nohup` is restarted by hand, as any other.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    http::{self, Prober, Target},
    process::{self, Watched},
    report::Report,
    scene,
    signal::{HUP, TERM, USR2},
};

/// The command of a terminal's user, in this folder.
fn nohup(folder: &Path, target: &Target) -> String {
    format!(
        "cd '{folder}' && exec nohup '{probe}' --pid-file=web.pid --report='{folder}/report' \
         --listen={target} --successor-timeout=none",
        folder = folder.display(),
        probe = bin::probe().display(),
    )
}

#[track_caller]
fn assert_ignores_hup(pid: u32) {
    let signals = process::signals(pid).expect("a process");
    assert!(signals.ignored.contains(HUP) && !signals.caught.contains(HUP), "{pid}");
    process::signal(pid, HUP);
}

/// Launcher and daemon go on ignoring HUP. TERM for the launcher or USR2 for the daemon, then a
/// start: that is a restart.
#[test]
fn p1_p7_a_service_under_nohup_is_restarted_by_hand() {
    Boxed::new().private_net().run(|folder| {
        let target = Target::from(boxed::address());
        let report = Report::new(folder.join("report"));
        let start = || -> Child {
            let output = File::options().append(true).create(true).open(folder.join("nohup.out"));
            let output = output.expect("nohup.out");
            let mut command = scene::shell(&nohup(folder, &target));
            command.stderr(output.try_clone().expect("the same")).stdout(output);
            command.spawn().expect("sh")
        };
        let mut launcher = start();
        let mut old = Watched::new(http::wait_pid(&target));
        let prober = Prober::start(&target);
        let mut pids = vec![old.pid()];
        for (nth, by) in [TERM, USR2, TERM].into_iter().enumerate() {
            report.wait_nth("started", nth + 1);
            prober.wait_pid(old.pid());
            assert_ignores_hup(launcher.id());
            assert_ignores_hup(old.pid());
            process::signal(if by == TERM { launcher.id() } else { old.pid() }, by);
            assert!(launcher.wait().expect("its end").success());
            assert_ignores_hup(old.pid());
            launcher = start();
            let new = report.wait_nth("started", nth + 2).pid;
            assert_eq!(report.wait_of(old.pid(), "wait").text, "TakenOver");
            old.wait_end(LIMIT);
            prober.wait_pid(new);
            pids.push(new);
            old = Watched::new(new);
        }
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), pids);
        let output = fs::read_to_string(folder.join("nohup.out")).expect("nohup.out");
        for stage in ["stage=launch ", "stage=takeover ", "stage=handoff ", "stage=drain "] {
            assert!(output.contains(stage), "{stage} in {output}");
        }
        old.signal(TERM);
        assert!(launcher.wait().expect("its end").success());
    });
}

/// The terminal closes, and the next start, from another one, takes over from the launcher that was
/// left behind.
#[test]
fn p1_a_service_under_nohup_outlives_its_terminal() {
    Boxed::new().private_net().run(|folder| {
        let target = Target::from(boxed::address());
        let report = Report::new(folder.join("report"));
        // `nohup` writes to nohup.out where its output is a terminal.
        let from_terminal = |nth: usize| {
            let wait =
                format!("until grep -c ' started ' report | grep -qx {nth}; do sleep 0.05; done");
            let command =
                format!("({}) & cd '{}'; {wait}", nohup(folder, &target), folder.display());
            let mut script = Command::new("script");
            script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::null()).stdout(Stdio::null());
            assert!(script.status().expect("script; run scripts/setup").success());
            let daemon = report.wait_nth("started", nth).pid;
            let launcher = process::stat(daemon).expect("the daemon").ppid;
            [launcher, daemon].map(Watched::new)
        };
        let mut before = from_terminal(1);
        let prober = Prober::start(&target);
        let mut pids = vec![before[1].pid()];
        for nth in 2..=3 {
            prober.wait_pid(before[1].pid());
            for process in &before {
                assert!(!process.has_ended());
                assert_ignores_hup(process.pid());
            }
            let next = from_terminal(nth);
            assert_eq!(report.wait_of(before[1].pid(), "wait").text, "TakenOver");
            before.iter().for_each(|process| process.wait_end(LIMIT));
            pids.push(next[1].pid());
            before = next;
        }
        prober.wait_pid(before[1].pid());
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), pids);
        let output = fs::read_to_string(folder.join("nohup.out")).expect("nohup.out");
        assert!(output.contains("stage=takeover "), "{output}");
        before[1].signal(TERM);
        before.iter().for_each(|process| process.wait_end(LIMIT));
    });
}
