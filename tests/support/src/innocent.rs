//! A process that has nothing to do with the service.

use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use crate::{LIMIT, process::Watched, wait_for};

/// It dies by the first signal, sent to it or to its process group, which is its own. It is KILLed
/// when the value goes.
#[derive(Debug)]
pub struct Innocent(Child);

impl Innocent {
    pub fn start() -> Self {
        Self::run(Command::new("sleep").arg("1000"))
    }

    pub fn run(command: &mut Command) -> Self {
        Innocent(command.stdin(Stdio::null()).process_group(0).spawn().expect("a process"))
    }

    /// With this very PID, which nobody has. For root in a PID namespace of the test's own.
    #[track_caller]
    pub fn with_pid(pid: u32) -> Self {
        wait_for(format!("a process with PID {pid}"), LIMIT, || {
            let last = (pid - 1).to_string();
            fs::write("/proc/sys/kernel/ns_last_pid", last).expect("ns_last_pid");
            Some(Innocent::start()).filter(|innocent| innocent.pid() == pid)
        })
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    #[track_caller]
    pub fn assert_unharmed(&self) {
        assert!(!Watched::new(self.pid()).has_ended(), "somebody signalled {}", self.pid());
    }
}

impl Drop for Innocent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
