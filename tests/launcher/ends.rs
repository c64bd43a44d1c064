//! P6: the supervisor sees how the daemon ended.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed, Isolation},
    process::{self, Watched},
    scene,
    signal::{HUP, TERM},
    site::Site,
    supervisor::{Service, Supervisor, write_script},
    wait_for,
};

/// How the probe is made to end; its exit code; else the signal.
const ENDS: [(&str, Option<i32>, Option<i32>); 7] = [
    ("exit:0", Some(0), None),
    ("exit:3", Some(3), None),
    ("raise:9", None, Some(9)),
    ("raise:6", None, Some(6)),
    ("raise:15", None, Some(15)),
    ("raise:34", None, Some(34)),
    ("raise:64", None, Some(64)),
];

#[test]
fn p6_runit_sees_how_the_daemon_ended() {
    boxed::run(|folder| {
        let start = |(number, (how, _, _))| {
            let folder = folder.join(format!("{number}"));
            let service = folder.join("service");
            fs::create_dir_all(&service).expect("a folder");
            write_script(&service.join("finish"), "echo $1 $2 >>finishes");
            let run = scene::script(&folder, &format!("--at=started={how}"));
            Service::new(Supervisor::Runit, service, &run)
        };
        let services: Vec<Service> = ENDS.into_iter().enumerate().map(start).collect();
        for (service, (how, code, signal)) in services.iter().zip(ENDS) {
            let finishes = service.folder().join("finishes");
            let seen = wait_for(format!("the end after {how}"), LIMIT, || {
                Some(fs::read_to_string(&finishes).ok()?.lines().next()?.to_owned())
            });
            let expected = format!("{} {}", code.unwrap_or(-1), signal.unwrap_or(0));
            assert_eq!(seen, expected, "{how}");
        }
    });
}

#[test]
fn p6_a_parent_sees_how_the_daemon_ended() {
    boxed::run(|folder| {
        for (how, code, signal) in ENDS {
            let seen = end(&mut scene::command(folder, &format!("--at=started={how}")));
            assert_eq!((seen.code(), seen.signal()), (code, signal), "{how}");
        }
    });
}

#[test]
fn p6_a_crash_dumps_one_core() {
    boxed::run(|folder| {
        let crash = |script: &str| {
            let script = format!("ulimit -c unlimited\ncd '{}'\n{script}", folder.display());
            end(&mut scene::shell(&script))
        };
        let daemon = crash(&scene::script(folder, "--at=started=abort"));
        assert_eq!(daemon.signal(), Some(6));
        assert!(!daemon.core_dumped(), "the daemon's own core is enough");
        // On a machine that dumps none at all, that was no test.
        println!("without a launcher, a core is dumped: {}", crash("kill -6 $$").core_dumped());
    });
}

#[test]
fn p6_as_pid_1_the_launcher_ends_with_128_and_the_signal() {
    Boxed::new().needs(Isolation::UserNamespaces).run(|folder| {
        for (how, code, signal) in ENDS {
            let run = folder.join("run");
            write_script(&run, &scene::script(folder, &format!("--at=started={how}")));
            let seen = end(Command::new("unshare")
                .args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"])
                .arg(&run));
            let expected = code.or(signal.map(|signal| 128 + signal));
            assert_eq!(seen.code(), expected, "{how}: {seen}");
        }
    });
}

fn end(command: &mut Command) -> ExitStatus {
    command.status().expect("a program")
}

/// The end of one process is no end of the service: the supervisor starts it again.
fn p6_a_daemon_that_ended_is_started_again(kind: Supervisor, folder: &Path) {
    let run = scene::script(folder, "--at=started=raise:9");
    let service = Service::new(kind, folder.join("service"), &run);
    let first = service.main_pid();
    service.main_pid_after(first);
}

seamless_testing::under_each_supervisor![p6_a_daemon_that_ended_is_started_again];

/// As the children of some desktops, and of programs that do not want to reap: what is ignored stays so over
/// `execve`, and then `wait(2)` would tell nothing.
#[test]
fn p6_a_parent_that_ignores_chld_changes_nothing() {
    Boxed::new().private_net().run(|folder| {
        let site = Site::at(folder).shared_socket().alone();
        let plain = site.command(&["--exit-code=7", "--parent-restarts=no", "--reload-signal=1"]);
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' CHLD; exec \"$@\"", "sh"]).arg(plain.get_program());
        let mut started =
            site.spawn(command.args(plain.get_args()).stdin(Stdio::null()).stderr(site.log_end()));
        let old = started.wait_started();
        started.launcher.signal(HUP);
        let new = Watched::new(site.report.wait_nth("started", 2).pid);
        old.wait_end(LIMIT);
        site.log.wait_words(&["stage=reloaded"], 1);
        wait_for(format!("no other child is left: {}", site.log), LIMIT, || {
            (process::children(started.launcher.pid()) == [new.pid()]).then_some(())
        });
        started.launcher.signal(TERM);
        assert_eq!(started.wait_end().code(), Some(7));
        assert!(new.has_ended());
    });
}
