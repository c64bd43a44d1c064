//! Generations that the test itself starts: to the crate, it is a supervisor of an unknown kind.

use std::{
    fs::File,
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use super::Site;
use crate::{
    LIMIT,
    process::{Watched, stat},
    report::{Event, Report},
    signal::TERM,
    wait_for,
};

impl Site {
    /// A probe that is ready to be started.
    pub fn command(&self, options: &[&str]) -> Command {
        self.command_of(self.plan.program_file(), options)
    }

    /// The same, of a copy of the probe.
    pub fn command_of(&self, program: &Path, options: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .arg(format!("--pid-file={}", self.pid_file().display()))
            .arg(format!("--report={}", self.report.path().display()))
            .args(self.plan.listen(&self.target))
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
        Started { launcher: Watched::new(child.id()), child, report: self.report.clone() }
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
}

/// A launcher that the test has started.
#[derive(Debug)]
pub struct Started {
    child: Child,
    pub launcher: Watched,
    report: Report,
}

impl Started {
    /// Waits for this launcher's daemon to return from `init`.
    #[track_caller]
    pub fn wait_init(&self) -> Watched {
        let launcher = self.launcher.pid().to_string();
        let what = format!("a daemon of launcher {launcher}; {}", self.report);
        let init = wait_for(what, LIMIT, || {
            let inits = self.report.named("init");
            inits.into_iter().find(|event| event.text == launcher)
        });
        Watched::new(init.pid)
    }

    #[track_caller]
    pub fn wait_started(&self) -> Watched {
        let daemon = self.wait_init();
        self.report.wait_of(daemon.pid(), "started");
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

    /// The same, once: if the launcher has been let go before, nothing happens.
    #[track_caller]
    pub fn detach_if_attached(&mut self) {
        if !self.launcher.has_ended() {
            self.detach();
        }
    }

    /// The error that it ended with: the probe reports it and ends with 111. The last one, where
    /// several probes failed.
    #[track_caller]
    pub fn wait_error(&mut self) -> Event {
        let status = self.wait_end();
        assert_eq!(status.code(), Some(111), "{}", self.report);
        self.report.named("error").pop().expect("an error")
    }
}

/// What the record says of a process that lives: `PID:TICKS`.
pub fn identity(pid: u32) -> String {
    format!("{pid}:{}", stat(pid).expect("a process").start_ticks)
}
