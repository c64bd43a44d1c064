//! P1, P3 and P6 in a container in which something stands between PID 1 and the program: a wrapper, which
//! restarts nothing, or a known supervisor, which does.

use std::{fs, path::Path, process::Command};

use seamless_testing::{
    LIMIT, bin,
    boxed::{Boxed, Isolation},
    http::{self, Connection, answer_of},
    process::{self, Watched, signal},
    scene,
    signal::{INT, TERM},
    site::Site,
    supervisor::write_script,
    wait_for,
};

use super::containers::{Container, Proc};
use crate::command::{problems, run};

const WHY: &str =
    "in a PID namespace of its own, with no known supervisor up to PID 1: a TERM is a stop";

/// Passes TERM on and waits, as a good entrypoint does. The program is what follows.
const FORWARDS: &str = "trap 'kill $pid' TERM
\"$@\" & pid=$!
while kill -0 $pid 2>/dev/null; do wait $pid; code=$?; done
exit $code";

fn in_a_box(test: impl FnOnce(&Path)) {
    Boxed::new().private_net().needs(Isolation::UserNamespaces).run(test);
}

/// A request in flight is answered before the container ends, as the program ends.
#[track_caller]
fn assert_stops(container: &mut Container, how: i32, reason: &str) {
    let daemon = container.site.report.wait("started").pid;
    let request = Connection::unfinished(&container.site.target);
    signal(container.pid_1(), how);
    container.site.wait_drain(daemon);
    assert!(request.finish().ends_with(&answer_of(daemon)));
    assert_eq!(container.exit_code(), Some(9), "{}", container.site.log);
    let waits = container.site.report.named("wait");
    assert_eq!(waits.len(), 1, "{waits:?}");
    assert_eq!((waits[0].pid, waits[0].text.as_str()), (daemon, reason), "{}", container.site.log);
    assert_eq!(container.site.log.stage("drain").len(), 1, "{}", container.site.log);
}

/// The words that PID 1 and what follows consist of.
fn wrappers() -> Vec<Vec<&'static str>> {
    let shell = &["sh", "-c", FORWARDS, "wrapper"][..];
    let timeout = &["timeout", "1000"][..];
    let tini = &["tini", "--"][..];
    let reaper = &["tini", "-s", "--"][..];
    let dumb_init = &["dumb-init", "--"][..];
    let single = &["dumb-init", "--single-child", "--"][..];
    [
        &[tini, shell][..],
        &[dumb_init, shell],
        &[single, shell],
        &[single, timeout],
        &[tini, reaper],
        &[tini, shell, shell],
        &[shell, shell],
        &[tini, shell, timeout, reaper],
    ]
    .map(<[&[&str]]>::concat)
    .to_vec()
}

#[test]
fn p3_p6_behind_a_wrapper_a_term_is_a_stop_that_is_awaited() {
    in_a_box(|folder| {
        let wrappers = wrappers();
        scene::each(folder, wrappers.iter().map(Vec::as_slice), |folder, init| {
            let mut container = Container::start(folder, init, Proc::Own, "");
            let line = container.site.log.wait(&[("stage", "launch"), ("reason", WHY)]);
            assert!(line.holds(&["INFO"]));
            container.site.log.wait(&[("stage", "launch"), ("supervisor_kind", "nobody")]);
            assert_stops(&mut container, TERM, "Stopped");
        });
    });
}

/// Not behind a shell: what a shell starts in the background ignores INT.
#[test]
fn p3_p6_behind_a_wrapper_an_int_is_a_drain_that_is_awaited() {
    in_a_box(|folder| {
        let inits = [&["tini", "--"][..], &["dumb-init", "-c", "--"]];
        scene::each(folder, inits, |folder, init| {
            let init = [init, &["tini", "-s", "--"]].concat();
            let mut container = Container::start(folder, &init, Proc::Own, "");
            assert_stops(&mut container, INT, "Requested");
        });
    });
}

/// A script `/init` gives its name to the process, as the machine's init has it.
#[test]
fn p3_p6_below_a_script_that_is_called_init() {
    in_a_box(|folder| {
        let init = folder.join("init");
        write_script(&init, FORWARDS);
        let init = init.display().to_string();
        let deeper = ["sh", "-c", FORWARDS, "wrapper"];
        let cases = [vec![init.as_str()], [&[init.as_str()][..], &deeper].concat()];
        scene::each(folder, cases.iter().map(Vec::as_slice), |folder, init| {
            let mut container = Container::start(folder, init, Proc::Own, "");
            assert_stops(&mut container, TERM, "Stopped");
        });
    });
}

/// `unshare --pid --fork` without `--mount-proc`, and a container with no `/proc` at all.
#[test]
fn p3_p6_behind_a_wrapper_without_a_proc_of_its_own() {
    in_a_box(|folder| {
        let mut cases = vec![Proc::Foreign];
        // Without a `/proc`, Linux tells the namespace since 6.11.
        cases.extend((process::kernel() >= (6, 11)).then_some(Proc::None));
        scene::each(folder, cases, |folder, proc| {
            let init = ["tini", "--", "sh", "-c", FORWARDS, "wrapper"];
            let mut container = Container::start(folder, &init, proc, "");
            container.site.log.wait(&[("stage", "launch"), ("reason", WHY)]);
            assert_stops(&mut container, TERM, "Stopped");
        });
    });
}

/// What cannot be seen is not taken for nobody if a supervisor has left a trace.
#[test]
fn p1_without_proc_a_variable_of_a_supervisor_counts() {
    in_a_box(|folder| {
        let variables = ["SUPERVISOR_PROCESS_NAME=web", "RC_SVCNAME=web", "INVOCATION_ID=1"];
        scene::each(folder, variables, |folder, variable| {
            let init = ["tini", "--", "env", variable, "sh", "-c", FORWARDS, "wrapper"];
            let container = Container::start(folder, &init, Proc::None, "");
            container.site.log.wait(&[("stage", "launch"), ("supervisor_kind", "other")]);
            assert_eq!(container.site.log.with(&["a TERM is a stop"]).len(), 0);
        });
    });
}

/// `wrapped`: the run script does not `exec` the program. Then the launcher is told itself.
#[test]
fn p1_p2_below_a_known_supervisor_a_term_stays_a_restart() {
    in_a_box(|folder| {
        scene::each(folder, [false, true], |folder, wrapped| {
            let service = folder.join("service");
            fs::create_dir(&service).expect("a folder");
            let supervise = |probe: &str| {
                let script = match wrapped {
                    false => probe.to_owned(),
                    true => probe.replace("\nexec '", "\n'") + "\nexit 0",
                };
                assert_eq!(wrapped, script != probe);
                write_script(&service.join("run"), &script);
                format!("exec runsv '{}'", service.display())
            };
            // It stands in for s6-overlay and the like, which have a supervisor below PID 1 as well.
            let init = ["tini", "--"];
            let container = Container::with_script(folder, &init, Proc::Own, supervise, "");
            let kind = if wrapped { "other" } else { "runit" };
            container.site.log.wait(&[("stage", "launch"), ("supervisor_kind", kind)]);
            container.assert_restarts();
        });
    });
}

/// A restart by hand would have no successor.
#[test]
fn p1_behind_a_wrapper_a_restart_is_refused() {
    in_a_box(|folder| {
        let init = ["tini", "--", "sh", "-c", FORWARDS, "wrapper"];
        let mut container = Container::start(folder, &init, Proc::Own, "--on=10=call:restart");
        let daemon = container.site.report.wait("started").pid;
        signal(container.newest(), 10);
        let refused = container.site.report.wait("called").text;
        assert!(refused.contains("nobody would start the service again"), "{refused}");
        assert_eq!(http::pid(&container.site.target), daemon);
        assert_stops(&mut container, TERM, "Stopped");
    });
}

/// Outside of a container a parent that is not known may restart, unless the program knows better.
#[test]
fn p3_p6_a_parent_that_restarts_nothing_outside_of_a_container() {
    in_a_box(|folder| {
        scene::each(folder, [None, Some("no"), Some("yes")], |folder, said| {
            let site = Site::at(folder).alone();
            let option = said.map(|said| format!("--parent-restarts={said}"));
            let (mut started, daemon) = site.start_ready(&[
                "--exit-code=9",
                "--successor-timeout=none",
                option.as_deref().unwrap_or("--accept=started"),
            ]);
            let request = Connection::unfinished(&site.target);
            started.launcher.signal(TERM);
            if said == Some("no") {
                site.wait_drain(daemon.pid());
                assert!(!started.launcher.has_ended());
                assert!(request.finish().ends_with(&answer_of(daemon.pid())));
                assert_eq!(started.wait_end().code(), Some(9));
                site.log.wait(&[
                    ("stage", "launch"),
                    ("reason", "parent_restarts(false): a TERM is a stop"),
                ]);
            } else {
                assert_eq!(started.wait_end().code(), Some(0));
                assert!(!daemon.has_ended());
                let launcher = Watched::new(daemon.pid());
                signal(daemon.pid(), TERM);
                assert!(request.finish().ends_with(&answer_of(daemon.pid())));
                launcher.wait_end(LIMIT);
            }
            wait_for("nothing is left", LIMIT, || site.pids().is_empty().then_some(()));
        });
    });
}

/// `STOPSIGNAL SIGQUIT` of an image, and PWR of LXC: as TERM. dumb-init may make one signal of another.
#[test]
fn p3_p6_a_container_is_stopped_by_the_signal_of_its_image() {
    const QUIT: i32 = 3;
    const PWR: i32 = 30;
    in_a_box(|folder| {
        let inits = [
            &["tini", "--"][..],
            &["tini", "-s", "--"],
            &["dumb-init", "--"],
            &["dumb-init", "--single-child", "--"],
            &["dumb-init", "--rewrite", "3:15", "--"],
        ];
        let cases = inits.into_iter().flat_map(|init| [(init, QUIT), (init, PWR)]);
        scene::each(folder, cases, |folder, (init, how)| {
            let mut container = Container::start(folder, init, Proc::Own, "");
            assert_stops(&mut container, how, "Stopped");
        });
    });
}

/// `seamless check` says it before the first TERM comes. A shell that passes TERM on is as good as none, and with a
/// restart in place nothing is wrong.
#[test]
fn check_of_a_service_behind_a_wrapper() {
    in_a_box(|folder| {
        const WAITS: &str = "\"$@\"; exit $?";
        let cases = [
            (FORWARDS, "", "does not restart services"),
            (FORWARDS, "--reload-signal=1", ""),
            (WAITS, "", "a shell, sh "),
            (WAITS, "--reload-signal=1", "a shell, sh "),
        ];
        scene::each(folder, cases, |folder, (shell, option, says)| {
            let init = ["tini", "--", "sh", "-c", shell, "wrapper"];
            let container = Container::start(folder, &init, Proc::Own, option);
            container.site.report.wait("started");
            let mut check = Command::new("nsenter");
            check.args(["--target", &container.newest().to_string(), "--pid", "--mount"]);
            check.arg(bin::support("seamless")).arg("check").arg(container.site.pid_file());
            let said = run(check.arg("--json"));
            let found = problems(&said);
            let about: Vec<_> = found.iter().filter(|(about, _)| about == "supervisor").collect();
            assert_eq!(about.len(), usize::from(!says.is_empty()), "{option}: {found:?}");
            assert!(about.iter().all(|(_, text)| text.contains(says)), "{option}: {found:?}");
            let warned = container.site.log.with(&["WARN", "without exec"]).len();
            assert_eq!(warned, usize::from(shell == WAITS), "{}", container.site.log);
        });
    });
}
