//! What each command does at each stage of a restart: done under the real supervisor, watched from
//! outside, and compared with the table in the guide (`scripts/table` writes it).

mod table;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Child,
    thread,
};

use seamless_testing::{
    LIMIT,
    boxed::Boxed,
    http::{self, Connection, Prober, answer_of},
    process::{self, Watched},
    signal::CONT,
    site::{SERVES_ON, Site, User},
    supervisor::{Supervisor, Want},
    wait_for,
};

/// What a command is to the main process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sends {
    Nothing,
    /// TERM, and the service is wanted up.
    Term,
    /// TERM, and it is wanted down.
    Stop,
    Kill,
}

#[derive(Clone, Copy, Debug)]
struct Command {
    kind: Supervisor,
    word: &'static str,
    sends: Sends,
    /// What the supervisor wants afterwards, by its status.
    want: Want,
    /// At which it is tested.
    stages: &'static [Stage],
}

/// How far the newest generation has come. Except where it serves alone, a predecessor has a request
/// in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The program runs, and has not called `init`.
    BeforeInit,
    /// It waits for the claim, which a starter before it holds that hangs.
    Waiting,
    /// `init` has returned, `started` has not been called.
    Starting,
    Serving,
    /// The predecessor has let its launcher go, and the run script has not come to the program.
    Detached,
    /// It serves, and the predecessor drains.
    Draining,
}

impl Stage {
    const ALL: [Stage; 6] = [
        Stage::BeforeInit,
        Stage::Waiting,
        Stage::Starting,
        Stage::Serving,
        Stage::Detached,
        Stage::Draining,
    ];

    /// As the table calls it.
    fn name(self) -> &'static str {
        match self {
            Stage::BeforeInit => "before `init`",
            Stage::Waiting => "waiting for the claim",
            Stage::Starting => "starting",
            Stage::Serving => "serving",
            Stage::Detached => "detached",
            Stage::Draining => "draining",
        }
    }

    /// Is the supervisor's main process a launcher? Otherwise TERM has its default action.
    fn has_launcher(self) -> bool {
        !matches!(self, Stage::BeforeInit | Stage::Detached)
    }

    /// Does the predecessor wait for a successor?
    fn has_detached(self) -> bool {
        !matches!(self, Stage::Serving | Stage::Draining)
    }
}

macro_rules! commands {
    ($($module:ident: $kind:ident $word:literal sends $sends:ident, wants $want:ident;)+) => {
        const COMMANDS: &[Command] = &[$(Command {
            kind: Supervisor::$kind,
            word: $word,
            sends: Sends::$sends,
            want: Want::$want,
            stages: $module::STAGES,
        }),+];
        $(mod $module {
            commands![@cells $word,
                p1_p3_p4_p6_p8_before_init: BeforeInit,
                p1_p3_p4_p6_p8_waiting_for_the_claim: Waiting,
                p1_p3_p4_p6_p8_starting: Starting,
                p1_p3_p4_p6_p8_serving: Serving,
                p1_p3_p4_p6_p8_detached: Detached,
                p1_p3_p4_p6_p8_draining: Draining,
            ];
        })+
    };
    (@cells $word:literal, $($name:ident: $stage:ident,)+) => {
        use super::*;
        pub(super) const STAGES: &[Stage] = &[$(Stage::$stage),+];
        $(
            #[test]
            fn $name() {
                let command = COMMANDS.iter().find(|command| command.word == $word);
                cell(command.expect("its command"), Stage::$stage);
            }
        )+
    };
}

commands![
    svc_t: Daemontools "-t" sends Term, wants Up;
    svc_d: Daemontools "-d" sends Stop, wants Down;
    svc_u: Daemontools "-u" sends Nothing, wants Up;
    svc_k: Daemontools "-k" sends Kill, wants Up;
    svc_o: Daemontools "-o" sends Nothing, wants Nothing;
    svc_x: Daemontools "-x" sends Nothing, wants Up;
    svc_dx: Daemontools "-dx" sends Stop, wants Down;
    sv_restart: Runit "restart" sends Term, wants Up;
    sv_down: Runit "down" sends Stop, wants Down;
    sv_once: Runit "once" sends Nothing, wants Down;
    sv_exit: Runit "exit" sends Stop, wants Down;
    sv_kill: Runit "kill" sends Kill, wants Up;
];

fn cell(command: &Command, stage: Stage) {
    Boxed::new().private_net().run(|folder| {
        let mut scene = Scene::new(command.kind, folder);
        scene.reach(stage);
        let seen = scene.give(command, stage);
        table::check(command, stage, &seen.to_string());
    });
}

/// What became of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// The launcher or run script that was there goes on, and serves.
    NoEffect,
    /// It never served; another one does.
    StartsAnew,
    /// It served; another one does now.
    Restart,
    Stop {
        /// It was reported down while a generation had still to answer.
        at_once: bool,
        /// The supervisor has ended, too.
        exit: bool,
    },
}

impl fmt::Display for Seen {
    /// The words of the guide's legend.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Seen::NoEffect => "no effect",
            Seen::StartsAnew => "starts anew",
            Seen::Restart => "restart",
            Seen::Stop { at_once: false, exit: false } => "stop",
            Seen::Stop { at_once: false, exit: true } => "stop, exit",
            Seen::Stop { at_once: true, exit: false } => "down at once",
            Seen::Stop { at_once: true, exit: true } => "exit at once",
        })
    }
}

/// A request that its generation cannot answer yet.
struct InFlight {
    pid: u32,
    request: Connection,
}

struct Scene {
    /// It waits without limit for a successor, and for the claim: whoever ends, was told.
    site: Site,
    prober: Prober,
    /// What the supervisor started last.
    main: Watched,
    /// The newest daemon that has got as far as `init`; it is not always that of `main`.
    newest: u32,
    /// It holds the claim, and has been stopped.
    starter: Option<Watched>,
    requests: Vec<InFlight>,
}

impl Scene {
    /// The first generation serves, and has a request to answer.
    fn new(kind: Supervisor, folder: &Path) -> Self {
        let site = Site::at(folder).user(User::Root).options(SERVES_ON).under(kind);
        let mut scene = Scene {
            prober: Prober::start(&site.target),
            main: site.launcher(),
            newest: site.started(1),
            starter: None,
            requests: Vec::new(),
            site,
        };
        scene.send_request();
        scene
    }

    /// To the newest generation.
    fn send_request(&mut self) {
        http::wait_one_listener(&self.site.target);
        self.prober.wait_pid(self.newest);
        let request = Connection::unfinished(&self.site.target);
        // What the prober sends next comes behind it in the same queue.
        self.prober.wait_more(2);
        self.requests.push(InFlight { pid: self.newest, request });
    }

    fn hold(&self) -> PathBuf {
        self.site.flag("hold")
    }

    fn reach(&mut self, stage: Stage) {
        let hold = self.hold().display().to_string();
        let at = |point: &str| format!("--at={point}=file:{hold}");
        let wait = format!("until [ -e '{hold}' ]; do sleep 0.05; done");
        let (before, options) = match stage {
            Stage::Serving => return,
            Stage::BeforeInit => ("", at("before-init")),
            // A start that hangs is ended by then, and `sv restart` waits for 7 s.
            Stage::Waiting | Stage::Starting => {
                ("", format!("{} --handoff-timeout=3s", at("after-init")))
            }
            Stage::Detached => (wait.as_str(), String::new()),
            Stage::Draining => ("", String::new()),
        };
        let run = self.site.script("", &format!("{SERVES_ON} {options}"));
        self.site.deploy(&format!("{before}\n{run}"));
        self.site.service().restart();
        self.wait_next_main();
        match stage {
            Stage::Serving => {}
            // Then the supervisor makes no pause that could hide what comes of the command.
            Stage::Detached => self.site.service().settle(),
            Stage::BeforeInit => {
                self.site.service().settle();
                let pid = self.main.pid();
                wait_for("the program runs", LIMIT, || {
                    process::command_line(pid).contains(&options).then_some(())
                });
            }
            Stage::Starting => self.newest = self.site.report.wait_nth("init", 2).pid,
            Stage::Waiting => {
                let starter = Watched::new(self.site.report.wait_nth("init", 2).pid);
                starter.stop();
                self.main.kill();
                self.wait_next_main();
                let holder = starter.pid().to_string();
                let line = self.site.log.wait(&[("stage", "claim"), ("holder", &holder)]);
                self.newest = line.number("daemon");
                self.starter = Some(starter);
            }
            Stage::Draining => {
                let old = self.newest;
                self.newest = self.site.report.wait_nth("started", 2).pid;
                self.site.wait_drain(old);
                self.send_request();
            }
        }
    }

    fn wait_next_main(&mut self) {
        self.main = Watched::new(self.site.service().main_pid_after(self.main.pid()));
    }

    /// Gives the command and watches what comes of it, and what must hold whatever that is.
    fn give(&mut self, command: &Command, stage: Stage) -> Seen {
        self.prober.seen().assert_all_answered();
        // Not waited for: `sv restart` returns when the service has been started again.
        let mut control = self.site.service().command(command.word).spawn().expect("svc or sv");
        self.wait_taken(command.sends, &mut control);
        let seen = match command.sends {
            Sends::Stop => self.watch_stop(command, stage),
            Sends::Nothing | Sends::Term | Sends::Kill => self.watch_up(stage),
        };
        assert!(control.wait().expect("its end").success(), "svc or sv");
        assert_eq!(self.site.service().status().want, command.want);
        seen
    }

    /// The command has reached whom it is for: nothing that happens afterwards can outrun it.
    fn wait_taken(&self, sends: Sends, control: &mut Child) {
        if sends == Sends::Nothing {
            assert!(control.wait().expect("its end").success(), "svc or sv");
            return self.site.service().wait_handled();
        }
        let daemon = self.newest.to_string();
        let is_told = |stage| {
            let lines = self.site.log.stage(stage);
            lines.iter().any(|line| line.is(&[("daemon", &daemon), ("cause", "stop")]))
        };
        wait_for(format!("the signal is taken:\n{}", self.site.log), LIMIT, || {
            let told = sends == Sends::Stop && (is_told("stop-early") || is_told("drain"));
            (told || self.main.has_ended()).then_some(())
        });
    }

    fn watch_up(&mut self, stage: Stage) -> Seen {
        let first = self.requests[0].pid;
        if stage.has_detached() {
            // The first of them may have begun before the command.
            self.site.wait_checks(first, 2);
        }
        // Before what holds it now goes away: otherwise it might still start.
        self.end_starter();
        fs::write(self.hold(), "").expect("a file");
        // P1, P4, P8: in the end one generation serves, the newest, and nothing else is left.
        let (launcher, daemon) = self.wait_serving();
        self.finish_requests();
        self.wait_left(&[self.site.service().supervisor_pid(), launcher.pid(), daemon]);
        self.prober.wait_more(5);
        let probes = self.prober.seen();
        probes.assert_all_answered();
        assert_eq!(probes.answers.last().map(|answer| answer.pid), Some(daemon));
        assert_eq!(probes.pids().first(), Some(&first));
        assert_eq!(self.site.service().status().pid, Some(launcher.pid()));
        assert_eq!(self.site.report.newest().map(|newest| newest.pid), Some(daemon));
        let mut older = self.site.report.named("started");
        older.retain(|event| event.pid != daemon);
        for old in older {
            assert_eq!(self.site.report.wait_of(old.pid, "wait").text, "TakenOver");
        }
        let main = self.main.pid().to_string();
        let inits = self.site.report.named("init").into_iter().filter(|init| init.text == main);
        let mut names = inits.flat_map(|init| self.site.report.names_of(init.pid));
        match names.any(|name| name == "started") {
            _ if launcher.pid() == self.main.pid() => Seen::NoEffect,
            true => Seen::Restart,
            false => Seen::StartsAnew,
        }
    }

    fn watch_stop(&mut self, command: &Command, stage: Stage) -> Seen {
        self.end_starter();
        for InFlight { pid, .. } in &self.requests {
            self.site.wait_drain(*pid);
        }
        // Where nobody took the TERM, the supervisor need not have noticed yet.
        let ended = self.main.has_ended().then_some(self.main.pid());
        let status = self
            .site
            .service()
            .wait_until("what is true", |status| ended.is_none() || status.pid != ended);
        let at_once = status.pid.is_none();
        self.finish_requests();
        self.site.service().wait_down();
        // P6: where a launcher runs, all are gone by now.
        let left = self.site.pids();
        assert!(at_once || left.is_empty(), "down, and there are {left:?}");
        assert!(!(at_once && stage.has_launcher()), "down, and it had requests to answer");
        // P8.
        self.site.wait_all_ended();
        let supervisor = Watched::new(self.site.service().supervisor_pid());
        let exit = ["-dx", "exit"].contains(&command.word);
        if exit {
            supervisor.wait_end(LIMIT);
        }
        self.wait_left(&[self.site.service().supervisor_pid()]);
        assert_eq!(supervisor.has_ended(), exit);
        let answers = self.prober.seen().answers.len();
        self.prober.wait_more(3);
        // One may have been noted late.
        assert!(self.prober.seen().answers.len() <= answers + 1, "somebody answers");
        Seen::Stop { at_once, exit: supervisor.has_ended() }
    }

    /// It goes on, and finds that its launcher has gone.
    fn end_starter(&self) {
        if let Some(starter) = &self.starter {
            starter.signal(CONT);
            starter.wait_end(LIMIT);
        }
    }

    /// P3: each by the generation that has accepted it.
    fn finish_requests(&mut self) {
        for InFlight { pid, request } in self.requests.drain(..) {
            assert!(request.finish().ends_with(&answer_of(pid)));
        }
    }

    /// The launcher that the supervisor knows, and its daemon, which serves and does not drain.
    fn wait_serving(&self) -> (Watched, u32) {
        wait_for(format!("a generation serves:\n{}", self.site.report), LIMIT, || {
            let launcher = Watched::new(self.site.service().status().pid?);
            let inits = self.site.report.named("init");
            let parent = launcher.pid().to_string();
            let daemon = inits.into_iter().find(|init| init.text == parent)?.pid;
            let names = self.site.report.names_of(daemon);
            let serves = names.last().is_some_and(|name| name == "started");
            (serves && !launcher.has_ended()).then_some((launcher, daemon))
        })
    }

    /// Waits until nothing runs in this box but the test and these.
    fn wait_left(&self, left: &[u32]) {
        let own = std::process::id();
        wait_for(format!("only {left:?} are left"), LIMIT, || {
            let all = process::all().into_iter().filter(|stat| stat.state != 'Z');
            let mut others = all.filter(|stat| ![1, own].contains(&stat.pid));
            others.all(|stat| left.contains(&stat.pid)).then_some(())
        });
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}\n{}", self.site.report, self.site.log);
        }
    }
}
