//! The probe, started by the test itself: to the crate, that is a supervisor of an unknown kind.

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use crate::{
    LIMIT, bin,
    log::Log,
    process::{Watched, holds_claim, stat},
    report::{Event, Report},
    signal::{CONT, TERM},
    wait_for,
};

/// A folder with `web.pid`, `report`, and `log`, to which every generation appends.
#[derive(Clone, Debug)]
pub struct Direct {
    folder: PathBuf,
    pub report: Report,
    pub log: Log,
}

impl Direct {
    pub fn new(folder: &Path) -> Self {
        Direct {
            folder: folder.to_owned(),
            report: Report::new(folder.join("report")),
            log: Log::of(folder),
        }
    }

    pub fn pid_file(&self) -> PathBuf {
        self.folder.join("web.pid")
    }

    pub fn lock_file(&self) -> PathBuf {
        self.folder.join("web.pid.lock")
    }

    /// Where a successor takes over.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("web.pid.sock")
    }

    /// What `web.pid` says; `None` where it is not there or says nothing.
    pub fn named(&self) -> Option<u32> {
        fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok()
    }

    /// A probe that is ready to be started.
    pub fn command(&self, options: &[&str]) -> Command {
        self.command_of(&bin::probe(), options)
    }

    /// The same, of a copy of the probe.
    pub fn command_of(&self, program: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .arg(format!("--pid-file={}", self.pid_file().display()))
            .arg(format!("--report={}", self.report.path().display()))
            .args(options)
            .stdin(Stdio::null())
            .stderr(self.log_end());
        command
    }

    /// Starts a probe. It may fail before it is ready.
    pub fn start(&self, options: &[&str]) -> Started {
        self.spawn(&mut self.command(options))
    }

    pub fn spawn(&self, command: &mut Command) -> Started {
        let child = command.spawn().expect("the probe");
        Started { launcher: Watched::new(child.id()), child, direct: self.clone() }
    }

    /// Starts a probe and waits until `started` has returned.
    #[track_caller]
    pub fn start_ready(&self, options: &[&str]) -> (Started, Watched) {
        let started = self.start(options);
        let daemon = started.wait_started();
        (started, daemon)
    }

    /// The end of the log, for a probe's standard error.
    pub fn log_end(&self) -> OwnedFd {
        let log = File::options().append(true).create(true).open(self.log.path());
        log.expect("a log").into()
    }

    /// Stops a daemon, but not in the middle of a look round, with the claim in its hands.
    #[track_caller]
    pub fn stop(&self, daemon: &Watched) {
        wait_for(format!("{} stops without a lock", daemon.pid()), LIMIT, || {
            daemon.stop();
            if holds_claim(daemon.pid()) {
                daemon.signal(CONT);
                return None;
            }
            Some(())
        });
    }

    /// Waits for so many more looks round of this detached daemon.
    #[track_caller]
    pub fn wait_checks(&self, daemon: u32, count: usize) {
        let daemon = format!("daemon={daemon} ");
        let words = ["stage=check", &daemon, "finding="];
        let seen = self.log.with(&words).len();
        self.log.wait_words(&words, seen + count);
    }
}

/// A launcher that the test has started.
#[derive(Debug)]
pub struct Started {
    child: Child,
    pub launcher: Watched,
    direct: Direct,
}

impl Started {
    /// Waits for this launcher's daemon to return from `init`.
    #[track_caller]
    pub fn wait_init(&self) -> Watched {
        let launcher = self.launcher.pid().to_string();
        let what = format!("a daemon of launcher {launcher}; {}", self.direct.report);
        let init = wait_for(what, LIMIT, || {
            let inits = self.direct.report.named("init");
            inits.into_iter().find(|event| event.text == launcher)
        });
        Watched::new(init.pid)
    }

    #[track_caller]
    pub fn wait_started(&self) -> Watched {
        let daemon = self.wait_init();
        self.direct.report.wait_of(daemon.pid(), "started");
        daemon
    }

    /// Waits for the end of the launcher, and reaps it.
    #[track_caller]
    pub fn wait_end(&mut self) -> ExitStatus {
        self.launcher.wait_end(LIMIT);
        self.child.wait().expect("its end")
    }

    /// A handoff, as an unknown supervisor asks for it: afterwards the daemon is detached.
    #[track_caller]
    pub fn detach(&mut self) {
        self.launcher.signal(TERM);
        assert!(self.wait_end().success(), "a launcher that was let go");
    }

    /// The error that it ended with: the probe reports it and ends with 111. The last one, where
    /// several probes failed.
    #[track_caller]
    pub fn wait_error(&mut self) -> Event {
        let status = self.wait_end();
        assert_eq!(status.code(), Some(111), "{}", self.direct.report);
        self.direct.report.named("error").pop().expect("an error")
    }
}

/// What the record says of a process that lives: `PID:TICKS`.
pub fn identity(pid: u32) -> String {
    format!("{pid}:{}", stat(pid).expect("a process").start_ticks)
}
