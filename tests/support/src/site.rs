//! A supervised service as each kind of user: root, one that its run script turns into, one that it
//! turns into by itself; and whether it can read its supervisor's status.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
};

use crate::{
    LIMIT, bin,
    boxed::{self, Isolation},
    http::Target,
    log::Log,
    process::{self, NOBODY, Watched},
    report::{self, Report},
    scene,
    supervisor::{Service, Supervisor, Want, write_script},
    wait_for,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Root, as the supervisor.
    Root,
    /// The run script changes the user: launcher and daemon are nobody.
    ByScript { reads: bool },
    /// The program gives up root after `init`: the daemon is nobody, the launcher is root.
    ByItself { reads: bool },
}

impl User {
    /// In a user namespace there is nobody but root.
    pub fn needs(self) -> Isolation {
        match self {
            User::Root => Isolation::UserNamespaces,
            User::ByScript { .. } | User::ByItself { .. } => Isolation::Namespaces,
        }
    }

    fn launcher_reads(self) -> bool {
        self != User::ByScript { reads: false }
    }

    pub fn daemon_reads(self) -> bool {
        match self {
            User::Root => true,
            User::ByScript { reads } | User::ByItself { reads } => reads,
        }
    }
}

/// Tests of scenarios `fn NAME(Supervisor, &Path, User)`, for each user and under each supervisor
/// (once in a module).
#[macro_export]
macro_rules! as_each_user {
    ($($scenario:ident),+ $(,)?) => {
        $crate::as_each_user![@ root, User::Root; $($scenario),+];
        $crate::as_each_user![
            @ by_script_status_readable, User::ByScript { reads: true }; $($scenario),+
        ];
        $crate::as_each_user![
            @ by_script_status_hidden, User::ByScript { reads: false }; $($scenario),+
        ];
        $crate::as_each_user![
            @ by_itself_status_readable, User::ByItself { reads: true }; $($scenario),+
        ];
        $crate::as_each_user![
            @ by_itself_status_hidden, User::ByItself { reads: false }; $($scenario),+
        ];
    };
    (@ $module:ident, $user:expr; $($scenario:ident),+) => {
        mod $module {
            use std::path::Path;
            use $crate::{boxed::Boxed, site::User, supervisor::Supervisor, under_each_supervisor};
            $(
                fn $scenario(kind: Supervisor, folder: &Path) {
                    super::$scenario(kind, folder, $user);
                }
            )+
            under_each_supervisor![
                Boxed::new().private_net().needs($user.needs()) => $($scenario),+
            ];
        }
    };
}

/// Only a successor ends a detached daemon, or who tells it: to see that it serves on.
pub const SERVES_ON: &str = "--successor-timeout=none";
/// For the last generation of a test: where a stop cannot be known, it ends soon all the same.
pub const ENDS_SOON: &str = "--successor-timeout=200ms";

/// A service, in a box with a network of its own.
pub struct Site {
    pub user: User,
    /// Of `report` and `log`.
    folder: PathBuf,
    /// Of `web.pid`, and of nothing else.
    pub run: PathBuf,
    pub target: Target,
    pub report: Report,
    pub log: Log,
    pub service: Service,
}

impl Site {
    /// Makes all that it needs in this folder; returns when its first generation has started.
    #[track_caller]
    pub fn new(kind: Supervisor, folder: &Path, user: User, options: &str) -> Site {
        let run = folder.join("run");
        fs::create_dir_all(&run).expect("a folder");
        give(&run, user);
        report::for_all_users(folder);
        if kind == Supervisor::S6 {
            // Otherwise it waits for a second from one launcher to the next.
            fs::create_dir_all(folder.join("service")).expect("a folder");
            fs::write(folder.join("service/notification-fd"), "3\n").expect("a file");
        }
        let target = Target::from(boxed::address());
        let first = script(kind, folder, user, &target, "", options);
        let site = Site {
            user,
            report: Report::new(folder.join("report")),
            log: Log::of(folder),
            target,
            service: Service::new(kind, folder.join("service"), &first),
            folder: folder.to_owned(),
            run,
        };
        site.started(1);
        site
    }

    /// A run script. `before` is what comes before the program in its command line; a generation
    /// that is started so does not listen, so that it can take no request into its death.
    pub fn script(&self, before: &str, options: &str) -> String {
        script(self.service.kind(), &self.folder, self.user, &self.target, before, options)
    }

    /// The next start runs this script.
    pub fn deploy(&self, script: &str) {
        write_script(&self.service.folder().join("run"), script);
    }

    pub fn deploy_options(&self, options: &str) {
        self.deploy(&self.script("", options));
    }

    /// A file that tells the service something.
    pub fn flag(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The daemon that was the `nth` to get through `started`.
    #[track_caller]
    pub fn started(&self, nth: usize) -> u32 {
        self.report.wait_nth("started", nth).pid
    }

    /// The same, watched.
    #[track_caller]
    pub fn daemon(&self, nth: usize) -> Watched {
        Watched::new(self.started(nth))
    }

    /// The main process that the supervisor knows now.
    #[track_caller]
    pub fn launcher(&self) -> Watched {
        Watched::new(self.service.main_pid())
    }

    /// From now on, runit's `./finish` notes how each launcher ended.
    pub fn note_finishes(&self) {
        write_script(&self.service.folder().join("finish"), "echo $1 $2 >>finishes");
    }

    /// What `./finish` has noted so far: a line each, its exit code (-1: a signal) and signal.
    pub fn finishes(&self) -> Vec<String> {
        let text = fs::read_to_string(self.service.folder().join("finishes")).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(str::to_owned).collect()
    }

    pub fn pid_file(&self) -> PathBuf {
        self.run.join("web.pid")
    }

    pub fn lock_file(&self) -> PathBuf {
        self.run.join("web.pid.lock")
    }

    pub fn named(&self) -> Option<u32> {
        fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()
    }

    /// Renames the folder of `web.pid` away and makes another one in its place.
    pub fn replace_run(&self) {
        fs::rename(&self.run, self.run.with_extension("old")).expect("the folder");
        fs::create_dir(&self.run).expect("a folder");
        give(&self.run, self.user);
    }

    /// Does the launcher know a stop when it is told? If not, it lets go of its daemon.
    pub fn knows_a_stop(&self) -> bool {
        self.user.launcher_reads() || self.service.kind() != Supervisor::Runit
    }

    /// How often a detached daemon has looked round.
    pub fn checks(&self, daemon: u32) -> usize {
        let daemon = daemon.to_string();
        let mut lines = self.log.stage("check");
        lines.retain(|line| line.is(&[("daemon", &daemon)]) && line.field("finding").is_some());
        lines.len()
    }

    /// Waits for so many more of them; the first may have begun before this call.
    #[track_caller]
    pub fn wait_checks(&self, daemon: u32, count: usize) {
        let enough = self.checks(daemon) + count;
        wait_for(format!("{count} looks of {daemon}:\n{}", self.log), LIMIT, || {
            (self.checks(daemon) >= enough).then_some(())
        });
    }

    /// Nothing is left but this daemon, which the files name, and the launcher that the supervisor
    /// knows.
    #[track_caller]
    pub fn assert_one_generation(&self, daemon: u32) {
        let launcher = process::stat(daemon).expect("it serves").ppid;
        let mut expected = vec![launcher, daemon];
        expected.sort_unstable();
        wait_for(format!("only {expected:?}:\n{}", self.log), LIMIT, || {
            (scene::pids(&self.run) == expected).then_some(())
        });
        self.service.wait_until("that launcher", |status| status.pid == Some(launcher));
        assert_eq!(self.named(), Some(daemon), "{}", self.log);
        let record = fs::read_to_string(self.lock_file()).expect("the record");
        // Those that have ended stay in it until the next generation enters it.
        let lines = record.lines().filter(|line| line.starts_with("generation="));
        let mut lives = lines.filter_map(|line| {
            let (_, identity) = line.split_once(" daemon=")?;
            let (identity, _) = identity.split_once(' ')?;
            let pid = identity.split(':').next()?.parse().ok()?;
            let lives = process::stat(pid).is_some_and(|stat| {
                stat.state != 'Z' && format!("{pid}:{}", stat.start_ticks) == identity
            });
            lives.then_some(pid)
        });
        assert_eq!((lives.next(), lives.next()), (Some(daemon), None), "{record}");
    }

    /// A restart from the daemon that serves; the one after it has these options.
    #[track_caller]
    pub fn restart(&self, old: u32, options: &str) -> u32 {
        let nth = self.report.named("started").len() + 1;
        let old = Watched::new(old);
        self.deploy_options(options);
        self.service.settle();
        self.service.restart();
        let new = self.started(nth);
        old.wait_end(LIMIT);
        assert_eq!(self.report.wait_of(old.pid(), "wait").text, "TakenOver");
        new
    }

    /// A generation still runs; the service must not be reported down.
    #[track_caller]
    pub fn assert_not_down(&self) {
        if self.knows_a_stop() {
            assert!(self.service.status().pid.is_some(), "down too early:\n{}", self.log);
        }
    }

    /// A stop of the generation that serves.
    #[track_caller]
    pub fn stop(&self) {
        self.service.down();
        self.assert_ends();
    }

    /// Told to stop, it ends, and is not reported down before where it can know.
    #[track_caller]
    pub fn assert_ends(&self) {
        self.service.wait_down();
        let left = scene::pids(&self.run);
        if self.knows_a_stop() {
            assert!(left.is_empty(), "{left:?} of the service that is down:\n{}", self.log);
        }
        scene::wait_all_ended(&self.run);
        assert_eq!(self.service.status().want, Want::Down);
    }
}

fn give(run: &Path, user: User) {
    if user != User::Root {
        chown(run, Some(NOBODY), Some(NOBODY)).expect("chown");
    }
}

fn script(
    kind: Supervisor,
    folder: &Path,
    user: User,
    target: &Target,
    before: &str,
    options: &str,
) -> String {
    let change = match (user, kind) {
        (User::Root | User::ByItself { .. }, _) => "",
        (User::ByScript { .. }, Supervisor::Daemontools) => "setuidgid nobody",
        (User::ByScript { .. }, Supervisor::Runit) => "chpst -u nobody",
        (User::ByScript { .. }, Supervisor::S6) => "s6-setuidgid nobody",
    };
    let options = match user {
        // First, before anything that it is made to do there.
        User::ByItself { .. } => format!("--at=after-init=user:{NOBODY} {options}"),
        User::Root | User::ByScript { .. } => options.to_owned(),
    };
    let ready = if kind == Supervisor::S6 { "--notification-fd=3" } else { "" };
    let open = if user != User::Root && user.daemon_reads() { "chmod 755 supervise" } else { ":" };
    let (probe, folder) = (bin::probe(), folder.display());
    let probe = probe.display();
    let listen = if before.is_empty() { format!("--listen={target}") } else { String::new() };
    format!(
        "exec >>'{folder}/log' 2>&1\n{open}\nexec {before} {change} '{probe}' \
         --pid-file='{folder}/run/web.pid' --report='{folder}/report' {ready} {listen} {options}"
    )
}
