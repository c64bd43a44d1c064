//! P6, P3 and P1 in a PID namespace of its own, as a container has it: the program, or a small init
//! above it, is PID 1, and nobody starts anything again.

use std::{
    path::Path,
    process::{Child, Command},
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{Boxed, Isolation},
    http::{self, Connection, answer_of},
    process::{self, Watched, signal},
    scene,
    signal::{INT, KILL, TERM, USR2},
    site::Site,
    supervisor::write_script,
    wait_for,
};

/// What is PID 1. The run script is a shell script that executes the program.
const ITSELF: &[&str] = &[];
const TINI: &[&str] = &["tini", "--"];
const TINI_TO_THE_GROUP: &[&str] = &["tini", "-g", "--"];
const DUMB_INIT: &[&str] = &["dumb-init", "--"];

/// What the container sees at `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proc {
    Own,
    /// That of the machine: other processes under the same numbers.
    Foreign,
    None,
}

impl Proc {
    fn prepare(self) -> &'static str {
        match self {
            Proc::Own | Proc::Foreign => ":",
            Proc::None => "mount -t tmpfs none /proc",
        }
    }
}

pub(crate) struct Container {
    /// `unshare`, which ends as PID 1 ends.
    unshare: Child,
    pub(crate) site: Site,
}

impl Container {
    pub(crate) fn start(folder: &Path, init: &[&str], proc: Proc, options: &str) -> Self {
        let run = format!("{}\n", proc.prepare());
        Self::with_script(folder, init, proc, |probe| run + probe, options)
    }

    /// `script` makes its script of the one that executes the probe.
    pub(crate) fn with_script(
        folder: &Path,
        init: &[&str],
        proc: Proc,
        script: impl FnOnce(&str) -> String,
        options: &str,
    ) -> Self {
        let site = Site::at(folder).alone();
        let run = folder.join("run");
        let options = format!("--exit-code=9 {options}");
        write_script(&run, &script(&site.script("", &options)));
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--kill-child", "--mount"]);
        unshare.args((proc == Proc::Own).then_some("--mount-proc"));
        let unshare = unshare.args(init).arg(run).spawn().expect("unshare");
        Container { unshare, site }
    }

    /// A TERM is a restart: a request in flight is answered by the old daemon, twice.
    #[track_caller]
    pub(crate) fn assert_restarts(&self) {
        let mut old = self.site.report.wait("started").pid;
        for nth in 2..=3 {
            let request = Connection::unfinished(&self.site.target);
            let [launcher, _] = self.pair();
            signal(launcher, TERM);
            let new = self.site.report.wait_nth("started", nth).pid;
            self.site.wait_drain(old);
            assert!(request.finish().ends_with(&answer_of(old)));
            let reason = self.site.report.wait_of(old, "wait").text;
            assert_eq!(reason, "TakenOver", "{}", self.site.log);
            old = new;
        }
        self.pair();
        assert_eq!(http::pid(&self.site.target), old);
    }

    /// Seen from outside, as all that follow.
    pub(crate) fn pid_1(&self) -> u32 {
        process::children(self.unshare.id())[0]
    }

    /// The daemon that was started last.
    pub(crate) fn newest(&self) -> u32 {
        let pids = process::descendants(self.unshare.id()).into_iter().filter_map(process::stat);
        let probes = pids.filter(|stat| stat.comm == "probe");
        probes.max_by_key(|stat| (stat.start_ticks, stat.pid)).expect("a daemon").pid
    }

    /// The launcher and the daemon of the only generation.
    #[track_caller]
    pub(crate) fn pair(&self) -> [u32; 2] {
        let option = format!("--pid-file={}/web.pid", self.site.run.display());
        let program = bin::probe().display().to_string();
        wait_for(format!("launcher and daemon: {}", self.site.log), LIMIT, || {
            let mut pids = process::descendants(self.unshare.id());
            pids.retain(|pid| {
                let command = process::command_line(*pid);
                command.first() == Some(&program) && command.contains(&option)
            });
            <[u32; 2]>::try_from(pids).ok()
        })
    }

    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        Watched::new(self.unshare.id()).wait_end(LIMIT);
        self.unshare.wait().expect("its end").code()
    }
}

fn in_a_box(test: impl FnOnce(&Path)) {
    Boxed::new().private_net().needs(Isolation::UserNamespaces).run(test);
}

// ---- how the daemon ends is how the container ends ----

fn ends_as_its_daemon(init: &'static [&'static str]) {
    in_a_box(|folder| {
        let cases = [
            ("--at=started=exit:0", 0),
            ("--at=started=exit:7", 7),
            ("--at=started=raise:6", 128 + 6),
            ("--at=started=raise:15", 128 + TERM),
            ("--at=after-init=exit:3", 3),
        ];
        scene::each(folder, cases, |folder, (options, code)| {
            let mut container = Container::start(folder, init, Proc::Own, options);
            assert_eq!(container.exit_code(), Some(code), "{options}: {}", container.site.log);
        });
        let mut container = Container::start(folder, init, Proc::Own, "");
        container.site.report.wait("started");
        let [_, daemon] = container.pair();
        signal(daemon, KILL);
        assert_eq!(container.exit_code(), Some(128 + KILL), "{}", container.site.log);
    });
}

/// TERM and INT, to PID 1, with a request in flight; then a daemon that never gets to `started`, or
/// not even to `init`.
fn ends_when_told(init: &'static [&'static str]) {
    in_a_box(|folder| {
        let cases = [(TERM, "Stopped"), (INT, "Requested")];
        scene::each(folder, cases, |folder, (how, reason)| {
            let mut container = Container::start(folder, init, Proc::Own, "");
            let daemon = container.site.report.wait("started").pid;
            assert_drains(&mut container, daemon, how, reason);
        });
        let hang = "--at=after-init=hang";
        let early = "--at=before-daemon-init=hang --handoff-timeout=300ms";
        // Before it leads a session of its own, it gets what its group gets.
        let to_the_group = [TINI_TO_THE_GROUP, DUMB_INIT].contains(&init);
        let killed = 128 + if to_the_group { TERM } else { KILL };
        let cases =
            [(hang, TERM, 0), (hang, INT, 0), (early, TERM, killed), (early, INT, 128 + INT)];
        scene::each(&folder.join("starting"), cases, |folder, (options, how, code)| {
            let mut container = Container::start(folder, init, Proc::Own, options);
            if options == hang {
                container.site.report.wait("init");
            } else {
                container.site.log.wait(&[("stage", "launch")]);
            }
            signal(container.pid_1(), how);
            let ended = container.exit_code();
            assert_eq!(ended, Some(code), "{options} {how}: {}", container.site.log);
            assert!(container.site.report.named("started").is_empty());
        });
    });
}

/// `daemon` is its PID inside.
#[track_caller]
fn assert_drains(container: &mut Container, daemon: u32, how: i32, reason: &str) {
    let request = Connection::unfinished(&container.site.target);
    signal(container.pid_1(), how);
    container.site.wait_drain(daemon);
    assert!(!Watched::new(container.pid_1()).has_ended());
    assert!(request.finish().ends_with(&answer_of(daemon)));
    assert_eq!(container.exit_code(), Some(9), "{}", container.site.log);
    let waits = container.site.report.named("wait");
    let [wait] = &waits[..] else { panic!("{waits:?}") };
    assert_eq!((wait.pid, wait.text.as_str()), (daemon, reason));
    // No matter how many were told, each has been told once.
    let drains = container.site.log.stage("drain");
    assert_eq!(drains.len(), 1, "{}", container.site.log);
}

// ---- what runs beside it ----

/// Two children that the daemon has left end, the first one by a real-time signal, and another one does not.
fn orphans_do_not_disturb(init: &'static [&'static str]) {
    in_a_box(|folder| {
        let options = ["--at=started=orphan:1000"; 3].join(" ");
        let mut container = Container::start(folder, init, Proc::Own, &options);
        let daemon = container.site.report.wait("started").pid;
        container.site.report.wait_nth("orphan", 3);
        let left = || {
            let all = process::descendants(container.unshare.id()).into_iter();
            all.filter_map(process::stat).filter(|stat| stat.comm == "sleep").collect::<Vec<_>>()
        };
        let ended: Vec<u32> = left().into_iter().map(|stat| stat.pid).take(2).collect();
        for (pid, number) in ended.into_iter().zip([40, KILL]) {
            let orphan = Watched::new(pid);
            signal(pid, number);
            orphan.wait_end(LIMIT);
        }
        wait_for(format!("one orphan, and no zombie: {:?}", left()), LIMIT, || {
            (left().len() == 1 && left()[0].state != 'Z').then_some(())
        });
        assert_eq!(left()[0].ppid, container.pid_1());
        let orphan = Watched::new(left()[0].pid);
        assert_eq!(http::pid(&container.site.target), daemon);
        assert_drains(&mut container, daemon, TERM, "Stopped");
        orphan.wait_end(LIMIT);
    });
}

// ---- a restart that nobody would follow ----

/// By USR2 to the launcher, which passes it on, and to the daemon.
fn p1_a_restart_by_hand_is_refused(init: &'static [&'static str]) {
    in_a_box(|folder| {
        let mut container = Container::start(folder, init, Proc::Own, "");
        let daemon = container.site.report.wait("started").pid;
        for (number, pid) in (1..).zip(container.pair()) {
            signal(pid, USR2);
            wait_for(format!("a refusal: {}", container.site.log), LIMIT, || {
                let mut refused = container.site.log.stage("signal");
                refused.retain(|line| {
                    line.field("refused") == Some("nobody would start the service again")
                });
                (refused.len() == number).then_some(())
            });
            assert_eq!(http::pid(&container.site.target), daemon);
            assert_eq!(container.site.report.names_of(daemon), ["init", "started"]);
        }
        assert_drains(&mut container, daemon, TERM, "Stopped");
    });
}

macro_rules! in_containers {
    ($($name:ident: $scenario:ident($init:expr)),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                $scenario($init);
            }
        )+
    };
}

in_containers![
    p6_as_pid_1_it_ends_as_its_daemon: ends_as_its_daemon(ITSELF),
    p6_under_tini_it_ends_as_its_daemon: ends_as_its_daemon(TINI),
    p6_under_dumb_init_it_ends_as_its_daemon: ends_as_its_daemon(DUMB_INIT),
    p3_p6_as_pid_1_it_ends_when_told: ends_when_told(ITSELF),
    p3_p6_under_tini_it_ends_when_told: ends_when_told(TINI),
    p3_p6_under_tini_for_groups_it_ends_when_told: ends_when_told(TINI_TO_THE_GROUP),
    p3_p6_under_dumb_init_it_ends_when_told: ends_when_told(DUMB_INIT),
    p6_as_pid_1_it_reaps_orphans: orphans_do_not_disturb(ITSELF),
    p6_under_tini_orphans_do_not_disturb: orphans_do_not_disturb(TINI),
    p1_as_pid_1_a_restart_by_hand_is_refused: p1_a_restart_by_hand_is_refused(ITSELF),
    p1_under_tini_a_restart_by_hand_is_refused: p1_a_restart_by_hand_is_refused(TINI),
];

// ---- without a /proc of its own ----

/// It drains and passes its code on, as with one.
#[test]
fn p3_p6_without_proc_it_ends_when_told() {
    in_a_box(|folder| {
        let inits = [Proc::None, Proc::Foreign].map(|proc| [(ITSELF, proc), (TINI, proc)]);
        scene::each(folder, inits.concat(), |folder, (init, proc)| {
            let mut container = Container::start(folder, init, proc, "");
            let daemon = container.site.report.wait("started").pid;
            container.site.log.wait(&[
                ("stage", "init"),
                (
                    "reason",
                    "no /proc of ours: older generations are known by the lock on the PID \
                            file alone",
                ),
            ]);
            assert_drains(&mut container, daemon, TERM, "Stopped");
        });
    });
}

/// A shell that starts it again and again is a supervisor of an unknown kind, which the program has to know.
/// Without a `/proc` of its own, the predecessor is known by its lock, the launcher's end by the channel.
#[test]
fn p4_below_a_shell_loop_a_restart_works() {
    in_a_box(|folder| {
        scene::each(folder, [Proc::Own, Proc::None, Proc::Foreign], |folder, proc| {
            let again = |probe: &str| {
                let start = probe.replace("\nexec '", "\nwhile '");
                assert_ne!(start, probe);
                format!("{}\n{start}; do :; done", proc.prepare())
            };
            let options = "--successor-timeout=none --parent-restarts=yes";
            let container = Container::with_script(folder, TINI, proc, again, options);
            container.assert_restarts();
        });
    });
}
