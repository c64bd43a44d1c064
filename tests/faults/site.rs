//! A supervised service of the probe, in a folder of its own.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use seamless_testing::{
    boxed,
    http::Target,
    process,
    report::Report,
    supervisor::{Service, Supervisor, write_script},
    wait_for,
};

use crate::scene::{self, LIMIT};
use seamless_testing::log::Log;

pub(crate) struct Site {
    /// Of `report` and `log`.
    pub(crate) folder: PathBuf,
    /// Of `web.pid`: the same, but where a test says otherwise.
    run: PathBuf,
    options: String,
    pub(crate) target: Target,
    pub(crate) report: Report,
    pub(crate) log: Log,
    pub(crate) service: Service,
}

impl Site {
    /// Its sockets are taken over. `first`: what the run script does before it executes the probe; it
    /// may set further options as `$@`.
    #[track_caller]
    pub(crate) fn new(kind: Supervisor, folder: &Path, first: &str, options: &str) -> Site {
        Self::with_run_folder(kind, folder, folder, first, options)
    }

    /// The same, with the PID file in another folder.
    #[track_caller]
    pub(crate) fn with_run_folder(
        kind: Supervisor,
        folder: &Path,
        run: &Path,
        first: &str,
        options: &str,
    ) -> Site {
        let target = Target::from(boxed::address());
        let options = format!("--tcp={target} --pid-file='{}/web.pid' {options}", run.display());
        let script = Self::script(folder, first, &options);
        Site {
            folder: folder.to_owned(),
            run: run.to_owned(),
            options,
            target,
            report: Report::new(folder.join("report")),
            log: Log::of(folder),
            service: Service::new(kind, folder.join("service"), &script),
        }
    }

    fn script(folder: &Path, first: &str, options: &str) -> String {
        format!("{first}\n{}", scene::script(folder, &format!("{options} \"$@\"")))
    }

    /// For the next start: another beginning of the script, and more options.
    pub(crate) fn deploy(&self, first: &str, options: &str) {
        let options = format!("{} {options}", self.options);
        let script = Self::script(&self.folder, first, &options);
        write_script(&self.service.folder().join("run"), &script);
    }

    pub(crate) fn pid_file(&self) -> PathBuf {
        self.run.join("web.pid")
    }

    pub(crate) fn named(&self) -> Option<u32> {
        fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()
    }

    /// The generation that has started and has the place of this one.
    pub(crate) fn successor(&self, old: u32) -> Option<u32> {
        let named = self.named().filter(|named| *named != old)?;
        self.report.names_of(named).contains(&"started".to_owned()).then_some(())?;
        (process::stat(named)?.state != 'Z').then_some(named)
    }

    #[track_caller]
    pub(crate) fn wait_successor(&self, old: u32) -> u32 {
        wait_for(format_args!("a successor of {old}\n{self}"), LIMIT, || self.successor(old))
    }

    /// Waits until this daemon drains.
    #[track_caller]
    pub(crate) fn wait_drain(&self, daemon: u32) {
        self.log.wait(&[("stage", "drain"), ("daemon", &daemon.to_string())]);
    }

    /// One launcher, its daemon, and nothing else of the service.
    #[track_caller]
    pub(crate) fn wait_alone(&self, daemon: u32) {
        wait_for(format_args!("{daemon} is alone\n{self}"), LIMIT, || {
            let launcher = self.service.status().pid?;
            let mut expected = [launcher, daemon];
            expected.sort_unstable();
            let is_child = process::stat(daemon)?.ppid == launcher;
            (is_child && scene::pids(&self.run) == expected).then_some(())
        });
    }

    /// Nothing of it is left.
    #[track_caller]
    pub(crate) fn stop(&self) {
        self.service.down();
        scene::wait_all_ended(&self.run);
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processes = scene::pids(&self.run);
        write!(f, "{}\n{}\nrunning: {processes:?}", self.log, self.report)
    }
}
