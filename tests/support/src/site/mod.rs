//! A service under test: the probe, its files, its report and its log.
//!
//! ```no_run
//! # use std::path::Path;
//! # use seamless_testing::{site::{SERVES_ON, Site, User}, supervisor::Supervisor};
//! # fn examples(kind: Supervisor, folder: &Path, user: User) {
//! // Supervised; its first generation has started.
//! let site = Site::at(folder).user(user).options(SERVES_ON).under(kind);
//! site.service().restart();
//! let new = site.daemon(2);
//! // Its generations share one socket, and its run script does something first.
//! let site = Site::at(folder).shared_socket().first("ulimit -n 20").under(kind);
//! // Each generation is started by the test itself.
//! let site = Site::alone(folder);
//! let (started, daemon) = site.start_ready(&["--drain-timeout=1s"]);
//! # }
//! ```

mod plan;
mod start;
mod user;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

pub use plan::Plan;
pub use start::{Started, identity};
pub use user::User;

use crate::{
    LIMIT,
    http::Target,
    log::Log,
    process::{self, Watched},
    report::Report,
    scene,
    supervisor::{Service, Supervisor, Want, write_script},
    wait_for,
};

/// Only a successor ends a detached daemon, or somebody who tells it to stop: to see that it serves on.
pub const SERVES_ON: &str = "--successor-timeout=none";
/// For the last generation of a test: if a stop cannot be known, it ends soon all the same.
pub const ENDS_SOON: &str = "--successor-timeout=200ms";

/// A service in a folder of its own.
pub struct Site {
    plan: Plan,
    pub user: User,
    /// Of `report` and `log`, and of the supervisor's `service`.
    folder: PathBuf,
    /// Of `web.pid`.
    pub run: PathBuf,
    /// If it has no socket, a path that does not exist.
    pub target: Target,
    pub report: Report,
    pub log: Log,
    service: Option<Service>,
}

impl Site {
    /// What it is to be. By default its generations have a socket each, and `web.pid` is in this folder.
    pub fn at(folder: &Path) -> Plan {
        Plan::new(folder)
    }

    /// One without a supervisor and without a socket.
    pub fn alone(folder: &Path) -> Site {
        Site::at(folder).no_socket().alone()
    }

    /// Of its report, its log and the supervisor's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What supervises it.
    #[track_caller]
    pub fn service(&self) -> &Service {
        self.service.as_ref().expect("a service that is supervised")
    }

    #[track_caller]
    pub fn service_mut(&mut self) -> &mut Service {
        self.service.as_mut().expect("a service that is supervised")
    }

    /// A run script. `before` is what comes before the program in its command line; a generation
    /// that is started so does not listen, so that it can take no request into its death.
    pub fn script(&self, before: &str, options: &str) -> String {
        self.script_with(&self.plan.first, before, options)
    }

    fn script_with(&self, first: &str, before: &str, options: &str) -> String {
        let kind = self.service.as_ref().map(Service::kind);
        self.plan.script(kind, &self.target, first, before, options)
    }

    /// The next start runs this script.
    pub fn deploy(&self, script: &str) {
        write_script(&self.service().folder().join("run"), script);
    }

    pub fn deploy_options(&self, options: &str) {
        self.deploy(&self.script("", options));
    }

    /// The next start runs this before anything else, and has these further options.
    pub fn deploy_more(&self, first: &str, more: &str) {
        self.deploy(&self.script_with(first, "", &format!("{} {more}", self.plan.options)));
    }

    /// A file beside the report, which may tell the service something.
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
        Watched::new(self.service().main_pid())
    }

    /// From now on, runit's `./finish` notes how each launcher ended.
    pub fn note_finishes(&self) {
        write_script(&self.service().folder().join("finish"), "echo $1 $2 >>finishes");
    }

    /// What `./finish` has noted so far: a line each, its exit code (-1: a signal) and signal.
    pub fn finishes(&self) -> Vec<String> {
        let text = fs::read_to_string(self.service().folder().join("finishes")).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(str::to_owned).collect()
    }

    pub fn pid_file(&self) -> PathBuf {
        self.run.join("web.pid")
    }

    pub fn lock_file(&self) -> PathBuf {
        self.run.join("web.pid.lock")
    }

    /// Where a successor takes over.
    pub fn socket(&self) -> PathBuf {
        self.run.join("web.pid.sock")
    }

    /// What `web.pid` says; `None` if it is not there or says nothing.
    pub fn named(&self) -> Option<u32> {
        fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()
    }

    /// Renames the folder of `web.pid` away and makes another one in its place.
    pub fn replace_run(&self) {
        fs::rename(&self.run, self.run.with_extension("old")).expect("the folder");
        fs::create_dir(&self.run).expect("a folder");
        self.user.give(&self.run);
    }

    /// Does the launcher know a stop when it is told? If not, it lets go of its daemon.
    pub fn knows_a_stop(&self) -> bool {
        self.user.launcher_reads() || self.service().kind() != Supervisor::Runit
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
            (self.pids() == expected).then_some(())
        });
        self.service().wait_until("that launcher", |status| status.pid == Some(launcher));
        assert_eq!(self.named(), Some(daemon), "{}", self.log);
        // Those that have ended stay in it until the next generation enters it. One that ends has no
        // command line any more, by which it is found above, a moment before it is a zombie.
        wait_for(format_args!("it lives alone\n{self}"), LIMIT, || {
            let record = fs::read_to_string(self.lock_file()).expect("the record");
            let lines = record.lines().filter(|line| line.starts_with("generation="));
            let lives = lines.filter_map(|line| {
                let (_, identity) = line.split_once(" daemon=")?;
                let (identity, _) = identity.split_once(' ')?;
                let pid = identity.split(':').next()?.parse().ok()?;
                let lives = process::stat(pid).is_some_and(|stat| {
                    stat.state != 'Z' && format!("{pid}:{}", stat.start_ticks) == identity
                });
                lives.then_some(pid)
            });
            lives.eq([daemon]).then_some(())
        });
    }

    /// A restart from the daemon that serves; the one after it has these options.
    #[track_caller]
    pub fn restart(&self, old: u32, options: &str) -> u32 {
        let nth = self.report.named("started").len() + 1;
        let old = Watched::new(old);
        self.deploy_options(options);
        self.service().settle();
        self.service().restart();
        let new = self.started(nth);
        old.wait_end(LIMIT);
        assert_eq!(self.report.wait_of(old.pid(), "wait").text, "TakenOver");
        new
    }

    /// A generation still runs; the service must not be reported down.
    #[track_caller]
    pub fn assert_not_down(&self) {
        if self.knows_a_stop() {
            assert!(self.service().status().pid.is_some(), "down too early:\n{}", self.log);
        }
    }

    /// A stop of the generation that serves.
    #[track_caller]
    pub fn stop(&self) {
        self.service().down();
        self.assert_ends();
    }

    /// Told to stop, it ends, and is not reported down before where it can know.
    #[track_caller]
    pub fn assert_ends(&self) {
        self.service().wait_down();
        let left = self.pids();
        if self.knows_a_stop() {
            assert!(left.is_empty(), "{left:?} of the service that is down:\n{}", self.log);
        }
        self.wait_all_ended();
        assert_eq!(self.service().status().want, Want::Down);
    }

    /// The generation that has started and has the place of this one.
    pub fn successor(&self, old: u32) -> Option<u32> {
        let named = self.named().filter(|named| *named != old)?;
        self.report.names_of(named).contains(&"started".to_owned()).then_some(())?;
        (process::stat(named)?.state != 'Z').then_some(named)
    }

    #[track_caller]
    pub fn wait_successor(&self, old: u32) -> u32 {
        wait_for(format_args!("a successor of {old}\n{self}"), LIMIT, || self.successor(old))
    }

    /// The launchers and daemons of this service that have not ended.
    pub fn running(&self) -> Vec<Watched> {
        scene::running(&self.run)
    }

    /// Their PIDs, in order.
    pub fn pids(&self) -> Vec<u32> {
        scene::pids(&self.run)
    }

    #[track_caller]
    pub fn wait_all_ended(&self) {
        scene::wait_all_ended(&self.run);
    }

    /// Waits until this daemon's `on_shutdown` hooks run.
    #[track_caller]
    pub fn wait_drain(&self, daemon: u32) {
        scene::wait_drain(&self.report, daemon);
    }

    /// The texts of the hooks that have run in this process.
    pub fn hooks(&self, pid: u32) -> Vec<String> {
        scene::hooks(&self.report, pid)
    }

    /// Waits until this daemon has logged that it drains.
    #[track_caller]
    pub fn wait_drain_logged(&self, daemon: u32) {
        self.log.wait(&[("stage", "drain"), ("daemon", &daemon.to_string())]);
    }

    /// One launcher, its daemon, and nothing else of the service.
    #[track_caller]
    pub fn wait_alone(&self, daemon: u32) {
        wait_for(format_args!("{daemon} is alone\n{self}"), LIMIT, || {
            let launcher = self.service().status().pid?;
            let mut expected = [launcher, daemon];
            expected.sort_unstable();
            let is_child = process::stat(daemon)?.ppid == launcher;
            (is_child && self.pids() == expected).then_some(())
        });
    }
}

/// What a failed test has to tell.
impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processes = self.pids();
        write!(f, "{}\n{}\nrunning: {processes:?}", self.log, self.report)
    }
}
