//! `seamless list` and `seamless watch`: all services of a machine, and one restart stage by stage.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::{chown, symlink},
    path::Path,
    process::{self, Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed, Isolation},
    handover::{End, Predecessor},
    http::{Connection, answer_of},
    process::{NOBODY, as_user, stop_without_claim},
    signal::{CONT, HUP, TERM},
    site::{SERVES_ON, Site, User},
    supervisor::{Supervisor, write_script},
    wait_for,
};
use serde_json::Value;

use super::{Said, run, seamless};

fn list(arguments: &[&str]) -> Said {
    run(Command::new(bin::support("seamless")).arg("list").args(arguments))
}

/// A service of its own in this folder.
fn place(folder: &Path, name: &str) -> Site {
    let folder = folder.join(name);
    fs::create_dir_all(&folder).expect("a folder");
    Site::alone(&folder)
}

/// What the list says of each PID file.
fn states(said: &Said) -> Vec<(String, String)> {
    let json = said.json();
    let text = |one: &Value, name: &str| one[name].as_str().expect("a text").to_owned();
    let services = json.as_array().expect("a list");
    services.iter().map(|one| (text(one, "pid_file"), text(one, "state"))).collect()
}

#[test]
fn list_shows_what_runs_what_hangs_and_what_has_left_its_files() {
    Boxed::new().run(|folder| {
        let sites = ["deep/er/dns", "ended", "web"].map(|name| place(folder, name));
        let [dns, ended, web] = &sites;
        let (_one, dns_daemon) = dns.start_ready(&[SERVES_ON]);
        let (mut two, ended_daemon) = ended.start_ready(&[]);
        let (_three, _daemon) = web.start_ready(&[]);
        let all = folder.to_str().expect("a path");
        let named = |states: [&str; 3]| -> Vec<(String, String)> {
            let path = |site: &Site| site.pid_file().display().to_string();
            sites.iter().zip(states).map(|(site, state)| (path(site), state.to_owned())).collect()
        };
        // What looks like a lock file: of others, a FIFO, a link to a folder above.
        fs::write(folder.join("apt.lock"), "seamless-recorder 1").expect("a file");
        fs::write(folder.join(".lock"), "seamless-record 1 last=0\nend\n").expect("a file");
        let fifo = Command::new("mkfifo").arg(folder.join("fifo.lock")).status();
        assert!(fifo.expect("mkfifo").success());
        symlink(folder, folder.join("web/above")).expect("a link");

        let said = list(&["--json", all]);
        assert_eq!(states(&said), named(["serving", "serving", "serving"]));
        said.assert(0, &[]);
        // Without a folder it finds those that run, wherever their files are. The box shares /run.
        let mut running = states(&list(&["--json"]));
        running.retain(|(pid_file, _)| pid_file.starts_with(all));
        assert_eq!(running, named(["serving", "serving", "serving"]));

        ended_daemon.signal(TERM);
        assert!(two.wait_end().success());
        stop_without_claim(&dns_daemon);
        let said = list(&["--json", "--timeout=300ms", all]);
        assert_eq!(states(&said), named(["unknown", "none", "serving"]));
        said.assert(1, &["it is stopped (SIGSTOP)"]);
        dns_daemon.signal(CONT);
        let said = list(&[all]);
        said.assert(3, &["PID FILE", "serving", "none"]);
        assert_eq!(said.out.lines().count(), 4, "{}", said.out);
        let head = said.out.lines().next().expect("a line").find("STATE").expect("a column");
        for (line, state) in said.out.lines().skip(1).zip(["serving", "none", "serving"]) {
            assert!(line[head..].starts_with(state), "{}", said.out);
        }
        let one = list(&[web.folder().to_str().expect("a path")]);
        one.assert(0, &["serving"]);
        assert_eq!(one.out.lines().count(), 2, "{}", one.out);
        let nothing = folder.join("nothing");
        list(&[nothing.to_str().expect("a path")]).assert(0, &["cannot read", "No such file"]);
    });
}

/// What may not be read is named, and does not stand for a service that does not serve.
#[test]
fn list_names_what_it_may_not_read() {
    Boxed::new().needs(Isolation::Namespaces).run(|folder| {
        let web = place(folder, "web");
        let (_started, _daemon) = web.start_ready(&[]);
        let all = folder.to_str().expect("a path");
        let said = as_user(NOBODY, || list(&["--json", all]));
        assert!(states(&said).is_empty(), "{said:?}");
        said.assert(0, &["web.pid.lock", "Permission denied"]);
    });
}

/// `status` is asked for what is there: what it may not read is not said to be down, nor to serve.
#[test]
fn status_of_what_it_may_not_read_is_unknown() {
    Boxed::new().needs(Isolation::Namespaces).run(|folder| {
        let [web, own] = ["web", "own"].map(|name| place(folder, name));
        let (mut started, daemon) = web.start_ready(&[]);
        let pattern = format!("{}/*/*.pid", folder.display());
        let status = |options: &[&str]| seamless("status", Path::new(&pattern), options);
        status(&[]).assert(0, &[]);
        let denied = ["web.pid.lock", "Permission denied"];
        as_user(NOBODY, || status(&[])).assert(1, &denied);
        as_user(NOBODY, || seamless("status", folder, &["--json"])).assert(1, &denied);
        // One that serves and may be read says nothing of the other one, which is down.
        daemon.signal(TERM);
        assert!(started.wait_end().success());
        chown(own.folder(), Some(NOBODY), Some(NOBODY)).expect("chown");
        as_user(NOBODY, || {
            let (_own, _daemon) = own.start_ready(&[SERVES_ON]);
            seamless("status", &own.pid_file(), &[]).assert(0, &["generation 1 serves"]);
            status(&["--prometheus"]).assert(1, &denied);
        });
    });
}

/// At a limit of processes there are no threads.
#[test]
fn status_and_list_need_no_thread() {
    Boxed::new().needs(Isolation::Namespaces).run(|folder| {
        let sites = ["a", "b", "c"].map(|name| place(folder, name));
        let _running = sites.each_ref().map(|site| site.start_ready(&[]));
        // The limit is not for root. Nobody else runs as this user; it may look at what is root's in this box.
        let limited = |arguments: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "54321", "--inh-caps", "+dac_override,+sys_ptrace"]);
            command.args(["--ambient-caps", "+dac_override,+sys_ptrace", "prlimit", "--nproc=1"]);
            run(command.arg(bin::support("seamless")).args(arguments))
        };
        let paths = sites.each_ref().map(|site| site.pid_file().display().to_string());
        let all = folder.to_str().expect("a path");
        limited(&["list", all]).assert(1, &paths.each_ref().map(String::as_str));
        limited(&["status", &paths[0]]).assert(1, &["refuses"]);
        limited(&["status", all]).assert(1, &paths.each_ref().map(String::as_str));
    });
}

/// `seamless watch`, as it runs.
struct Watch {
    child: Child,
    lines: Receiver<String>,
}

impl Watch {
    fn start(command: &mut Command) -> Watch {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("seamless");
        let out = BufReader::new(child.stdout.take().expect("its output"));
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| send.send(line))
        });
        Watch { child, lines }
    }

    fn of(site: &Site, options: &[&str]) -> Watch {
        let seamless = bin::support("seamless");
        Watch::start(Command::new(seamless).arg("watch").arg(site.pid_file()).args(options))
    }

    /// Its next line, without the time.
    #[track_caller]
    fn line(&self) -> String {
        let line = self.lines.recv_timeout(LIMIT).expect("a line");
        line.split_once(" s  ").unwrap_or_else(|| panic!("{line}")).1.to_owned()
    }

    #[track_caller]
    fn wait(mut self) -> i32 {
        let status = wait_for("its end", LIMIT, || self.child.try_wait().expect("a child"));
        assert_eq!(self.lines.recv_timeout(LIMIT).ok(), None, "one line more");
        status.code().expect("an exit code")
    }
}

#[test]
fn watch_tells_a_restart_stage_by_stage() {
    Boxed::new().private_net().needs(Isolation::UserNamespaces).run(|folder| {
        let (go, on) = (folder.join("go"), folder.join("on"));
        let site = Site::at(folder)
            .user(User::Root)
            .options(&format!("{SERVES_ON} --at=request=file:{}", go.display()))
            .under(Supervisor::Daemontools);
        let first = site.started(1);
        let request = Connection::unfinished(&site.target);
        let watch = Watch::of(&site, &[]);
        assert_eq!(watch.line(), format!("generation 1 (daemon {first}) serving"));
        site.deploy_options(&format!("{SERVES_ON} --at=after-init=file:{}", on.display()));
        site.service().settle();
        site.service().restart();
        let name = format!("generation 1 (daemon {first})");
        assert_eq!(watch.line(), format!("{name} prepares: its on_shutdown_request hooks run"));
        fs::write(&go, "").expect("a file");
        assert_eq!(watch.line(), format!("{name} serves on, detached: its launcher has ended"));
        let starting = site.report.wait_nth("init", 2).pid;
        assert_eq!(watch.line(), format!("process {starting} starts"));
        fs::write(&on, "").expect("a file");
        let second = site.started(2);
        let took_over = format!("generation 2 (daemon {second}) took over from generation 1");
        assert_eq!(watch.line(), took_over);
        assert_eq!(watch.line(), format!("{name} drains"));
        assert!(request.finish().ends_with(&answer_of(first)));
        assert_eq!(watch.line(), format!("{name} has ended"));
        assert_eq!(watch.wait(), 0);

        // What does not come to its end.
        let watch = Watch::of(&site, &["--timeout=200ms"]);
        assert_eq!(watch.line(), format!("generation 2 (daemon {second}) serving"));
        assert_eq!(watch.wait(), 5);
        // A stop, with the service down for longer than a supervisor takes.
        let watch = Watch::of(&site, &[]);
        assert_eq!(watch.line(), format!("generation 2 (daemon {second}) serving"));
        site.stop();
        let mut last = watch.line();
        while !last.ends_with("has ended") {
            last = watch.line(); // how much of the drain is seen is a matter of time
        }
        assert_eq!(watch.wait(), 3);
    });
}

#[test]
fn watch_tells_a_restart_in_place_that_fails() {
    Boxed::new().run(|folder| {
        let site = Site::alone(folder);
        let program = folder.join("program");
        symlink(bin::probe(), &program).expect("a link");
        let reload = format!("--reload-signal={HUP}");
        let started = site.spawn(&mut site.command_of(&program, &[SERVES_ON, &reload]));
        let daemon = started.wait_started();
        let watch = Watch::of(&site, &[]);
        assert_eq!(watch.line(), format!("generation 1 (daemon {}) serving", daemon.pid()));
        fs::remove_file(&program).expect("the link");
        write_script(&program, "exit 3");
        started.launcher.signal(HUP);
        let mut last = watch.line();
        while !last.starts_with("a restart has failed: ") {
            last = watch.line();
        }
        assert_eq!(watch.wait(), 4);

        // A later one is told of what happens now, also if the daemon does not answer at first.
        stop_without_claim(&daemon);
        let watch = Watch::of(&site, &[]);
        assert_eq!(watch.line(), format!("generation 1 (daemon {}) does not answer", daemon.pid()));
        daemon.signal(CONT);
        fs::remove_file(&program).expect("the script");
        symlink(bin::probe(), &program).expect("a link");
        let said = restart_at_terminal(&site);
        said.assert(0, &["generation 2 ", "took over from generation 1 after"]);
        assert!(!said.out.contains("a restart has failed"), "{}", said.out);
        while watch.line() != format!("generation 1 (daemon {}) has ended", daemon.pid()) {}
        assert_eq!(watch.wait(), 0);
    });
}

/// Each question may make the daemon ask its supervisor, by another process.
#[test]
fn watch_asks_now_and_then() {
    boxed::run(|folder| {
        let site = Site::alone(folder);
        let daemon = Predecessor::new(&site);
        let watch = Watch::of(&site, &["--timeout=2s"]);
        let answer = format!("status generation=1 state=serving daemon={}", process::id());
        let asked = thread::scope(|scope| {
            let asked = scope.spawn(|| {
                let ends = std::iter::from_fn(|| Some(daemon.accept()));
                let questions = ends.map_while(|end| {
                    end.receive()?;
                    end.send(&format!("seamless-takeover 1 {answer}"));
                    Some(())
                });
                questions.count()
            });
            assert_eq!(watch.line(), format!("generation 1 (daemon {}) serving", process::id()));
            assert_eq!(watch.wait(), 5);
            End::connect(&site.socket()).shut();
            asked.join().expect("no panic")
        });
        assert!(asked < 12, "{asked} questions in two seconds");
    });
}

/// On a terminal, a line that changes stays in one row.
#[test]
fn the_line_of_watch_that_changes_is_cut() {
    boxed::run(|folder| {
        let site = Site::alone(folder);
        let (_started, _daemon) = site.start_ready(&[SERVES_ON]);
        let (seamless, pid_file) = (bin::support("seamless"), site.pid_file());
        let command =
            format!("{} watch {} --timeout=500ms", seamless.display(), pid_file.display());
        let said = run(Command::new("script").args(["-qec", &command, "/dev/null"]));
        let live = said.out.split('\r').find(|part| part.contains("no start is under way"));
        let live = live.unwrap_or_else(|| panic!("{said:?}"));
        assert!(live.starts_with("\x1b[?7l") && live.contains("\x1b[K\x1b[?7h"), "{live:?}");
    });
}

/// At a terminal of its own.
fn restart_at_terminal(site: &Site) -> Said {
    let seamless = bin::support("seamless");
    let command = format!("{} restart {}", seamless.display(), site.pid_file().display());
    run(Command::new("script").args(["-qec", &command, "/dev/null"]))
}

/// At a terminal `restart` tells the stages; a script gets the verdict alone.
#[test]
fn restart_tells_its_stages_at_a_terminal() {
    Boxed::new().private_net().needs(Isolation::UserNamespaces).run(|folder| {
        let site =
            Site::at(folder).user(User::Root).options(SERVES_ON).under(Supervisor::Daemontools);
        let first = site.started(1);
        site.service().settle();
        let said = restart_at_terminal(&site);
        let second = site.started(2);
        let took_over = format!("generation 2 (daemon {second}) took over from generation 1");
        said.assert(0, &[&format!(" s  {took_over}\r\n"), &format!("{took_over} after")]);
        assert!(said.out.contains(&format!("generation 1 (daemon {first})")), "{}", said.out);

        let said = seamless("restart", &site.pid_file(), &[]);
        said.assert(0, &["took over from generation 2"]);
        assert_eq!((said.out.lines().count(), said.err.as_str()), (1, ""), "{said:?}");
    });
}
