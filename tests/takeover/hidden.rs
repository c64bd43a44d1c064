//! P5 and P6 if a sandbox hides from a generation, or from a command, what the others can see: what is unknown
//! on one side is unknown, and never gone.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{Boxed, Isolation},
    http::{self, Connection, answer_of},
    process::{Watched, signal},
    scene,
    signal::KILL,
    site::{SERVES_ON, Site},
};

use crate::command::{Said, run};

const NOTHING: &str = ":";
const SYS: &str = "mount -t tmpfs none /proc/sys";
/// As `ProcSubset=pid` of systemd does it.
const SUBSET: &str = "mount -t proc -o subset=pid proc /proc";
const ALL: &str = "mount -t tmpfs none /proc";

/// The same command, from which this is hidden.
fn hidden(how: &str, plain: &Command) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &format!("{how} || exit 99; exec \"$@\""), "sh"]);
    command.arg(plain.get_program()).args(plain.get_args()).stdin(Stdio::null());
    command
}

fn seamless(how: &str, verb: &str, site: &Site) -> Said {
    let mut plain = Command::new(bin::support("seamless"));
    plain.arg(verb).arg(site.pid_file());
    run(&mut hidden(how, &plain))
}

fn in_a_box(test: impl FnOnce(&Path)) {
    Boxed::new().private_net().needs(Isolation::Namespaces).run(test);
}

/// Hidden from the old generation, the new one, the command, in each direction.
#[test]
fn p4_p5_p6_what_is_hidden_from_one_of_them_is_not_gone() {
    in_a_box(|folder| {
        let cases = [
            [NOTHING, SYS, NOTHING],
            [SYS, NOTHING, NOTHING],
            [SYS, SYS, NOTHING],
            [NOTHING, NOTHING, SYS],
            [SYS, SYS, SYS],
            [NOTHING, SUBSET, NOTHING],
            [SUBSET, NOTHING, SUBSET],
            [NOTHING, ALL, NOTHING],
            [ALL, NOTHING, NOTHING],
            [NOTHING, NOTHING, ALL],
            [ALL, ALL, ALL],
        ];
        scene::each(folder, cases, |folder, [old, new, command]| {
            let site = Site::at(folder).shared_socket().alone();
            let start = |how| {
                let mut command = hidden(how, &site.command(&[SERVES_ON, "--parent-restarts=yes"]));
                let started = site.spawn(command.stderr(site.log_end()));
                let daemon = started.wait_started();
                (started, daemon)
            };
            let (mut first, old_daemon) = start(old);
            assert_eq!(http::wait_pid(&site.target), old_daemon.pid());
            first.detach();
            let request = Connection::unfinished(&site.target);
            request.wait_accepted(old_daemon.pid()); // otherwise the new one may
            let (mut second, new_daemon) = start(new);
            site.wait_drain(old_daemon.pid());
            assert!(request.finish().ends_with(&answer_of(old_daemon.pid())));
            old_daemon.wait_end(LIMIT);
            let reason = site.report.wait_of(old_daemon.pid(), "wait").text;
            assert_eq!(reason, "TakenOver", "{}", site.log);
            let pid = new_daemon.pid().to_string();
            seamless(command, "status", &site).assert(0, &["generation 2", &pid]);
            seamless(command, "stop", &site).assert(0, &["generation 2 has ended"]);
            assert!(new_daemon.has_ended(), "{}", site.log);
            second.wait_end();
            seamless(command, "stop", &site).assert(0, &["no generation runs"]);
        });
    });
}

/// The record may lack the daemon, or name another process: the lock on the PID file tells that it lives.
#[test]
fn p6_no_stop_is_reported_while_a_process_holds_the_pid_file() {
    in_a_box(|folder| {
        let cases = ["", "boot=00000000-0000-0000-0000-000000000000", "pid_namespace=1", "daemon="];
        scene::each(folder, cases, |folder, field| {
            let site = Site::at(folder).shared_socket().alone();
            let (_started, daemon) = site.start_ready(&["--keep-sockets=none"]);
            let record = fs::read_to_string(site.lock_file()).expect("the record");
            let key = field.split('=').next().unwrap_or_default();
            let words = record.split(' ').map(|word| match word.split_once('=') {
                Some(("daemon", _)) if key == "daemon" => format!("daemon={}:7", daemon.pid()),
                Some((name, _)) if name == key => field.to_owned(),
                _ => word.to_owned(),
            });
            let words: Vec<String> = words.collect();
            match field {
                "" => fs::remove_file(site.lock_file()).expect("removed"),
                _ => fs::write(site.lock_file(), words.join(" ")).expect("written"),
            }
            for verb in ["stop", "restart", "status"] {
                let said = seamless(NOTHING, verb, &site);
                assert_ne!(said.code, 0, "{verb} {field:?}: {said:?}");
            }
            assert!(!daemon.has_ended());
            assert_eq!(http::pid(&site.target), daemon.pid());
            // It holds the file no longer than it lives.
            signal(daemon.pid(), KILL);
            Watched::new(daemon.pid()).wait_end(LIMIT);
            // A keeper may hold the sockets after a crash: it ends by the first of these.
            assert_eq!(seamless(NOTHING, "stop", &site).code, 0);
            seamless(NOTHING, "stop", &site).assert(0, &["no generation runs"]);
        });
    });
}
