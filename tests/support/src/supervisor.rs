//! Real daemontools, runit and s6.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, SystemTime},
};

use rustix::io::ioctl_fionread;

use crate::{
    LIMIT, boxed,
    process::{self, Watched},
    wait_for,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Supervisor {
    Daemontools,
    Runit,
    S6,
}

impl Supervisor {
    /// Those that every scenario is tested under. s6 shows what it wants in another format, and
    /// otherwise acts as daemontools.
    pub const ALL: [Supervisor; 2] = [Supervisor::Daemontools, Supervisor::Runit];

    /// The program that runs one service.
    pub fn program(self) -> &'static str {
        match self {
            Supervisor::Daemontools => "supervise",
            Supervisor::Runit => "runsv",
            Supervisor::S6 => "s6-supervise",
        }
    }

    /// What its commands are given to.
    pub fn control_program(self) -> &'static str {
        match self {
            Supervisor::Daemontools => "svc",
            Supervisor::Runit => "sv",
            Supervisor::S6 => "s6-svc",
        }
    }
}

/// Makes one boxed test per supervisor, `daemontools::NAME` and `runit::NAME`, of each function
/// `fn NAME(supervisor: Supervisor, folder: &Path)`.
///
/// `under_each_supervisor![a, b]`, or with a box of another kind:
/// `under_each_supervisor![Boxed::new().private_net() => c]` (once in a module).
#[macro_export]
macro_rules! under_each_supervisor {
    ($($scenario:ident),+ $(,)?) => {
        $crate::under_each_supervisor![$crate::boxed::Boxed::new() => $($scenario),+];
    };
    ($boxed:expr => $($scenario:ident),+ $(,)?) => {
        mod daemontools {
            $crate::under_each_supervisor![@tests Daemontools, $boxed, $($scenario),+];
        }
        mod runit {
            $crate::under_each_supervisor![@tests Runit, $boxed, $($scenario),+];
        }
    };
    (@tests $kind:ident, $boxed:expr, $($scenario:ident),+) => {
        #[allow(unused_imports)]
        use super::*;
        $(
            #[test]
            fn $scenario() {
                $boxed.run(|folder| super::$scenario($crate::supervisor::Supervisor::$kind, folder));
            }
        )+
    };
}

/// What the supervisor means the service to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    Up,
    Down,
    /// Neither: run once, or end. s6 calls that down.
    Nothing,
}

/// `supervise/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Of the main process, our launcher; none where the service is down.
    pub pid: Option<u32>,
    pub want: Want,
    pub paused: bool,
    /// Since when it has been as it is.
    pub since: SystemTime,
}

impl Status {
    fn parse(kind: Supervisor, bytes: &[u8]) -> Option<Self> {
        /// TAI64 label of 1970.
        const EPOCH: u64 = 1 << 62;
        // daemontools and runit count those of 1970 only, s6 all so far.
        let leap_seconds = if kind == Supervisor::S6 { 37 } else { 10 };
        let seconds = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
        let nanoseconds = u32::from_be_bytes(bytes.get(8..12)?.try_into().ok()?);
        let since = Duration::new(seconds.checked_sub(EPOCH + leap_seconds)?, nanoseconds);
        let since = SystemTime::UNIX_EPOCH + since;
        if kind == Supervisor::S6 {
            let pid = u64::from_be_bytes(bytes.get(24..32)?.try_into().ok()?);
            let flags = *bytes.last()?;
            return Some(Status {
                // While `./finish` runs, its PID stands there.
                pid: (pid != 0 && flags & 2 == 0).then_some(pid.try_into().ok()?),
                want: if flags & 4 != 0 { Want::Up } else { Want::Down },
                paused: flags & 1 != 0,
                since,
            });
        }
        let pid = u32::from_le_bytes(bytes.get(12..16)?.try_into().ok()?);
        Some(Status {
            pid: (pid != 0).then_some(pid),
            want: match bytes.get(17)? {
                b'u' => Want::Up,
                b'd' => Want::Down,
                _ => Want::Nothing,
            },
            paused: bytes.get(16)? == &1,
            since,
        })
    }
}

/// Writes an executable script; `#!/bin/sh` is put before it where no `#!` is there. Renamed into
/// place, so that a service may be given a new run script at any time.
///
/// By a process of its own: what another thread starts while we have the file open for writing has it
/// open as well for a moment, and whoever executes the script then gets "Text file busy".
pub fn write_script(path: &Path, script: &str) {
    let first = if script.starts_with("#!") { "" } else { "#!/bin/sh\n" };
    let write = r#"cat >"$1.new" && chmod 755 "$1.new" && mv -f "$1.new" "$1""#;
    let mut writer = Command::new("sh")
        .args(["-c", write, "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sh");
    let mut input = writer.stdin.take().expect("a pipe");
    input.write_all(format!("{first}{script}\n").as_bytes()).expect("a script");
    drop(input);
    assert!(writer.wait().expect("its end").success(), "cannot write {}", path.display());
}

/// Copies a service folder, modes included, without what a supervisor has put there.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_name() == "supervise" {
            continue;
        } else if entry.file_type().expect("its type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

/// A service folder and the process that supervises it.
///
/// daemontools sleeps for a second after each start and handles commands only then: see
/// [`Service::settle`].
#[derive(Debug)]
pub struct Service {
    kind: Supervisor,
    folder: PathBuf,
    /// None once it was killed.
    supervisor: Option<Child>,
}

impl Service {
    /// Makes the folder with this run script, and supervises it.
    pub fn new(kind: Supervisor, folder: impl Into<PathBuf>, run: &str) -> Self {
        let folder = folder.into();
        fs::create_dir_all(&folder).expect("a service folder");
        write_script(&folder.join("run"), run);
        Self::supervise(kind, folder)
    }

    /// Supervises a folder that is there; returns when the supervisor takes commands.
    #[track_caller]
    pub fn supervise(kind: Supervisor, folder: impl Into<PathBuf>) -> Self {
        let mut service = Service { kind, folder: folder.into(), supervisor: None };
        service.start_supervisor();
        service
    }

    /// After [`Service::kill_supervisor`]: a new one, as svscan and runsvdir would start it.
    #[track_caller]
    pub fn start_supervisor(&mut self) {
        assert!(self.supervisor.is_none(), "{} is supervised already", self.folder.display());
        let program = self.kind.program();
        let child = Command::new(program).arg(&self.folder).stdin(Stdio::null()).spawn();
        self.supervisor =
            Some(child.unwrap_or_else(|error| panic!("{program}: {error}; run scripts/setup")));
        let what = format!("{program} takes commands for {}", self.folder.display());
        wait_for(what, LIMIT, || self.answers().then_some(()));
    }

    fn answers(&self) -> bool {
        let mut question = match self.kind {
            Supervisor::Daemontools => Command::new("svok"),
            Supervisor::Runit => self.command("status"),
            Supervisor::S6 => Command::new("s6-svok"),
        };
        if self.kind != Supervisor::Runit {
            question.arg(&self.folder);
        }
        let answer = question.stdout(Stdio::null()).stderr(Stdio::null()).status();
        answer.expect("svok, sv or s6-svok").success() && self.read_status().is_some()
    }

    pub fn kind(&self) -> Supervisor {
        self.kind
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn supervisor_pid(&self) -> u32 {
        self.supervisor.as_ref().expect("a supervisor").id()
    }

    /// `svc -t`, `sv term` or `s6-svc -t`.
    #[track_caller]
    pub fn restart(&self) {
        self.control(self.word("-t", "term"));
    }

    /// `svc -d`, `sv down` or `s6-svc -d`; does not wait.
    #[track_caller]
    pub fn down(&self) {
        self.control(self.word("-d", "down"));
    }

    /// `svc -u`, `sv up` or `s6-svc -u`; does not wait.
    #[track_caller]
    pub fn up(&self) {
        self.control(self.word("-u", "up"));
    }

    /// `svc -dx`, `sv exit` or `s6-svc -dx`; does not wait.
    #[track_caller]
    pub fn exit(&self) {
        self.control(self.word("-dx", "exit"));
    }

    /// Any command: an option of `svc` or `s6-svc` (`-k`, `-o`), a word for `sv` (`kill`, `restart`).
    #[track_caller]
    pub fn control(&self, command: &str) {
        let status = self.command(command).stdout(Stdio::null()).status();
        let status = status.expect("svc or sv");
        assert!(status.success(), "{} {command}: {status}", self.kind.control_program());
    }

    /// The same, not started yet.
    pub fn command(&self, command: &str) -> Command {
        let mut control = Command::new(self.kind.control_program());
        control.arg(command).arg(&self.folder);
        control
    }

    /// Waits until the supervisor has acted on every command that it was given.
    #[track_caller]
    pub fn wait_handled(&self) {
        let control = File::options()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(self.folder.join("supervise/control"))
            .expect("the commands");
        wait_for("the supervisor has read its commands, and sleeps", LIMIT, || {
            // In this order: it acts on what it has read before it sleeps again.
            let read = ioctl_fionread(&control).expect("FIONREAD") == 0;
            let sleeps = process::stat(self.supervisor_pid())?.state == 'S';
            (read && sleeps).then_some(())
        });
    }

    fn word(&self, daemontools: &'static str, runit: &'static str) -> &'static str {
        match self.kind {
            Supervisor::Daemontools | Supervisor::S6 => daemontools,
            Supervisor::Runit => runit,
        }
    }

    #[track_caller]
    pub fn status(&self) -> Status {
        self.read_status().unwrap_or_else(|| panic!("no status in {}", self.folder.display()))
    }

    fn read_status(&self) -> Option<Status> {
        Status::parse(self.kind, &fs::read(self.folder.join("supervise/status")).ok()?)
    }

    #[track_caller]
    pub fn wait_until(&self, what: &str, mut fact: impl FnMut(&Status) -> bool) -> Status {
        let what = format!("{what} ({})", self.folder.display());
        wait_for(what, LIMIT, || self.read_status().filter(|status| fact(status)))
    }

    /// The PID of the main process, our launcher; waits until there is one.
    #[track_caller]
    pub fn main_pid(&self) -> u32 {
        self.wait_until("a main process", |status| status.pid.is_some()).pid.expect("a PID")
    }

    /// The PID of the main process that comes after this one.
    #[track_caller]
    pub fn main_pid_after(&self, old: u32) -> u32 {
        let new = self
            .wait_until("another main process", |status| status.pid.is_some_and(|pid| pid != old));
        new.pid.expect("a PID")
    }

    /// Waits until no main process runs, and none is to be started: not the moment between two.
    #[track_caller]
    pub fn wait_down(&self) {
        self.wait_until("down", |status| status.pid.is_none() && status.want != Want::Up);
    }

    /// Waits until the main process has run for so long that the supervisor would replace it
    /// without a pause, and that daemontools handles commands at once.
    #[track_caller]
    pub fn settle(&self) {
        self.wait_until("up for more than a second", |status| {
            let up = SystemTime::now().duration_since(status.since).unwrap_or_default();
            status.pid.is_some() && up > Duration::from_millis(1100)
        });
    }

    /// KILL. What it supervised runs on.
    #[track_caller]
    pub fn kill_supervisor(&mut self) {
        let mut child = self.supervisor.take().expect("a supervisor");
        child.kill().expect("KILL");
        child.wait().expect("its end");
    }

    /// The end of the supervisor after [`Service::exit`].
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        let mut child = self.supervisor.take().expect("a supervisor");
        Watched::new(child.id()).wait_end(LIMIT);
        child.wait().expect("its end")
    }
}

/// Ends what is left. In a box everything dies anyway, so there it is a plain KILL; elsewhere the
/// service is asked first, since only it knows its detached generations.
impl Drop for Service {
    fn drop(&mut self) {
        let Some(mut child) = self.supervisor.take() else {
            return;
        };
        if boxed::folder().is_none() {
            let _ = self.command(self.word("-dx", "exit")).status();
            Watched::new(child.id()).ends_within(LIMIT);
        }
        // What was stopped starts nothing meanwhile that would be missed here.
        let family = process::stop_family(child.id());
        let _ = child.kill();
        let _ = child.wait();
        family.iter().for_each(|one| {
            one.kill();
        });
    }
}
