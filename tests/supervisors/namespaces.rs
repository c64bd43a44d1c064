//! A service that sees another file system, other users or other processes than those who look at it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{Boxed, Isolation},
    http::{Connection, answer_of},
    process::{self, NOBODY, Watched},
    report::{self, Report},
    scene,
    signal::HUP,
    site::{SERVES_ON, Site},
    wait_for,
};

use crate::command::{Said, run};

fn in_a_box(test: impl FnOnce(&Path)) {
    Boxed::new().private_net().needs(Isolation::Namespaces).run(test);
}

fn seamless(verb: &str, pid_file: &Path) -> Said {
    run(Command::new(bin::support("seamless")).arg(verb).arg(pid_file))
}

// ---- chroot ----

/// The root that a run script changes to, with what a program needs to run.
struct Root {
    folder: PathBuf,
    site: Site,
}

impl Root {
    fn new(folder: &Path) -> Self {
        let root = folder.join("root");
        let site = Site::at(folder).shared_socket().alone();
        for name in ["proc", "run", "dev"] {
            fs::create_dir_all(root.join(name)).expect("a folder");
        }
        fs::write(root.join("dev/null"), "").expect("a file");
        fs::copy(bin::probe(), root.join("probe")).expect("a copy");
        Root { folder: root, site }
    }

    /// As a run script does it.
    fn start(&self, with_proc: bool) -> Child {
        let proc = if with_proc { "mount -t proc proc \"$root/proc\"" } else { ":" };
        let script = format!(
            "root=$1; shift
            for folder in usr lib lib64; do
                [ -d /$folder ] || continue
                mkdir -p $root/$folder && mount --bind /$folder $root/$folder || exit 99
            done
            mount --bind /dev/null $root/dev/null && {proc} || exit 99
            exec chroot \"$root\" \"$@\""
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh"]).arg(&self.folder).arg("/probe");
        command.args(["--pid-file=/run/web.pid", "--report=/run/report", "--reload-signal=1"]);
        command.args([SERVES_ON, &format!("--tcp={}", self.site.target)]);
        command.stdin(Stdio::null()).stderr(self.site.log_end());
        command.spawn().expect("unshare")
    }

    fn report(&self) -> Report {
        Report::new(self.folder.join("run/report"))
    }
}

/// With a `/proc` in there and without. The command asks from outside.
#[test]
fn p1_p2_p3_p6_a_service_in_a_chroot() {
    in_a_box(|folder| {
        scene::each(folder, [true, false], |folder, with_proc| {
            let root = Root::new(folder);
            let (report, pid_file) = (root.report(), root.folder.join("run/web.pid"));
            let mut launcher = root.start(with_proc);
            let old = Watched::new(report.wait("started").pid);
            let request = Connection::unfinished(&root.site.target);
            assert!(Watched::new(launcher.id()).signal(HUP));
            let second = report.wait_nth("started", 2).pid;
            scene::wait_drain(&report, old.pid());
            assert!(request.finish().ends_with(&answer_of(old.pid())));
            old.wait_end(LIMIT);
            let said = seamless("status", &pid_file);
            said.assert(0, &["generation 2", &second.to_string()]);
            // Without a `/proc` it does not know when it has started, and nobody invents it.
            assert_eq!(said.out.contains(&format!("{second}, for ")), with_proc, "{said:?}");
            seamless("restart", &pid_file).assert(0, &["took over from generation 2"]);
            assert_eq!(report.wait_of(second, "wait").text, "TakenOver");
            seamless("stop", &pid_file).assert(0, &["generation 3 has ended"]);
            assert!(launcher.wait().expect("its end").success());
        });
    });
}

/// A program that calls `chroot` itself, as soon as it serves. Its launcher stays outside, and so does the next
/// generation.
#[test]
fn p1_p3_p6_a_program_that_calls_chroot_when_it_serves() {
    in_a_box(|folder| {
        scene::each(folder, [true, false], |folder, in_place| {
            let site = Site::at(folder).shared_socket().alone();
            let empty = folder.join("empty");
            fs::create_dir(&empty).expect("a folder");
            let jail = format!("--at=started=chroot:{}", empty.display());
            let options = [SERVES_ON, &jail, "--keep-report", "--reload-signal=1"];
            let (mut first, old) = site.start_ready(&options);
            wait_for("it is in there", LIMIT, || {
                (fs::read_link(format!("/proc/{}/root", old.pid())).ok()? == empty).then_some(())
            });
            let request = Connection::unfinished(&site.target);
            let second = if in_place {
                first.launcher.signal(HUP);
                Watched::new(site.report.wait_nth("started", 2).pid)
            } else {
                first.detach();
                site.start_ready(&options).1
            };
            site.wait_drain(old.pid());
            assert!(request.finish().ends_with(&answer_of(old.pid())));
            old.wait_end(LIMIT);
            // It cannot look up who has sent its successor's TERM, so it may drain as at a TERM by hand.
            let reason = site.report.wait_of(old.pid(), "wait").text;
            assert!(["TakenOver", "Requested"].contains(&reason.as_str()), "{reason} {}", site.log);
            seamless("stop", &site.pid_file()).assert(0, &["generation 2 has ended"]);
            assert!(second.has_ended());
        });
    });
}

// ---- namespaces ----

/// A user without rights who becomes root in a user namespace, or nobody in it; with PIDs of its own or not.
#[test]
fn p1_p2_p3_p6_a_service_in_a_user_namespace() {
    in_a_box(|folder| {
        let own_pids = &["--map-root-user", "--pid", "--fork", "--mount-proc"][..];
        let foreign_proc = &["--map-root-user", "--pid", "--fork"][..];
        let cases = [&["--map-root-user"][..], &[], own_pids, foreign_proc];
        scene::each(folder, cases, |folder, namespaces| {
            let site = Site::at(folder).shared_socket().alone();
            report::for_all_users(folder);
            std::os::unix::fs::chown(folder, Some(NOBODY), Some(NOBODY)).expect("its folder");
            let plain = site.command(&[SERVES_ON, "--reload-signal=1"]);
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "--user"]);
            command.args(namespaces).arg(plain.get_program()).args(plain.get_args());
            command.stdin(Stdio::null()).stderr(site.log_end());
            let mut top = command.spawn().expect("setpriv");
            site.report.wait("started");
            // Their numbers out here, launcher first.
            let of_ours = || {
                let all = process::descendants(top.id()).into_iter().chain([top.id()]);
                let exe = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
                let mut all: Vec<u32> = all.filter(|pid| exe(pid) == Some(bin::probe())).collect();
                all.sort_unstable();
                all
            };
            let (launcher, old) = (of_ours()[0], Watched::new(of_ours()[1]));
            let request = Connection::unfinished(&site.target);
            process::signal(launcher, HUP);
            site.report.wait_nth("started", 2);
            assert!(request.finish().contains("Server pid: "));
            old.wait_end(LIMIT);
            let reason = site.report.wait("wait").text;
            assert_eq!(reason, "TakenOver", "{namespaces:?}: {}", site.log);
            let daemon = *of_ours().last().expect("it serves");
            // Who asks from outside is told where to ask.
            let asked = seamless("status", &site.pid_file());
            match namespaces {
                [] => asked.assert(0, &["generation 2"]),
                [_] => asked.assert(1, &[&format!("nsenter --target {daemon} --user")]),
                _ => asked.assert(1, &["another PID namespace: ask there"]),
            }
            let inside = |verb: &str, more: &[&str]| {
                let mut command = Command::new("nsenter");
                command.args(["--target", &daemon.to_string(), "--user"]).args(more);
                run(command.arg(bin::support("seamless")).arg(verb).arg(site.pid_file()))
            };
            if let [_] = namespaces {
                inside("stop", &[]).assert(0, &["generation 2 has ended"]);
            } else {
                if namespaces == own_pids {
                    inside("status", &["--pid", "--mount"]).assert(0, &["generation 2"]);
                }
                process::signal(launcher, 2);
            }
            assert!(top.wait().expect("its end").success(), "{}", site.log);
        });
    });
}
