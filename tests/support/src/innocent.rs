//! Processes that have nothing to do with the service.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    process::{Child, Command, Stdio},
    thread,
};

use nix::sys::signal::SigSet;

use crate::{
    LIMIT,
    process::{self, Watched, catchable_signals},
    wait_for,
};

/// Set for a probe that only stands by.
const BYSTANDER: &str = "SEAMLESS_TEST_BYSTANDER";

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
            next_pid(pid);
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

/// The next process that is started gets this PID, if nobody has it: for root in a PID namespace of
/// the test's own, where others may start processes as well.
pub fn next_pid(pid: u32) {
    fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("ns_last_pid");
}

/// As like a process of the probe's as can be: same program, name, arguments, environment, folder.
/// But it does nothing at all, and every signal that is sent to it shows. It is KILLed when the value
/// goes.
#[derive(Debug)]
pub struct Twin(Child);

/// What makes a [`Twin`], noted while the process lives.
#[derive(Debug)]
pub struct Likeness(Command);

impl Likeness {
    /// Of a process of the probe's.
    #[track_caller]
    pub fn of(pid: u32) -> Self {
        let file = |name: &str| format!("/proc/{pid}/{name}");
        let words = |name: &str| -> Vec<OsString> {
            let text = fs::read(file(name)).expect("a process");
            let mut words: Vec<OsString> =
                text.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).into()).collect();
            words.pop();
            words
        };
        let mut command = Command::new(fs::read_link(file("exe")).expect("its program"));
        let arguments = words("cmdline");
        command.arg0(&arguments[0]).args(&arguments[1..]).env_clear();
        for variable in words("environ") {
            let at = variable.as_bytes().iter().position(|byte| *byte == b'=').expect("a name");
            let (name, value) = variable.as_bytes().split_at(at);
            command.env(OsStr::from_bytes(name), OsStr::from_bytes(&value[1..]));
        }
        command.env(BYSTANDER, "1").stdin(Stdio::null()).stderr(Stdio::null());
        Likeness(command)
    }

    /// With this PID, which nobody has.
    #[track_caller]
    pub fn with_pid(&mut self, pid: u32) -> Twin {
        let twin = wait_for(format!("a process with PID {pid}"), LIMIT, || {
            next_pid(pid);
            let twin = Twin(self.0.spawn().expect("the probe"));
            (twin.pid() == pid).then_some(twin)
        });
        wait_for("a bystander that blocks all signals", LIMIT, || {
            let blocked = process::signals(pid).expect("a process").blocked;
            catchable_signals().all(|signal| blocked.contains(signal)).then_some(())
        });
        twin
    }
}

impl Twin {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    #[track_caller]
    pub fn assert_unharmed(&self) {
        let pid = self.pid();
        assert!(!Watched::new(pid).has_ended(), "somebody killed {pid}");
        let signals = process::signals(pid).expect("a process");
        assert!(signals.pending.is_empty(), "somebody signalled {pid}: {signals:?}");
        let state = process::stat(pid).expect("a process").state;
        assert!(!['T', 't'].contains(&state), "somebody stopped {pid}");
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// For the probe: only stands by, if it was started for that.
pub fn stand_by_if_told() {
    if env::var_os(BYSTANDER).is_some() {
        SigSet::all().thread_block().expect("blocked signals");
        loop {
            thread::park();
        }
    }
}
