//! A process that is KILLed at the entry to its Nth system call, whichever call that is and
//! whichever of its threads makes it: by `ptrace(2)`.
//!
//! Where the process is still to be born, those that it descends from are followed from before the
//! restart on. Only the threads of the one to be killed stop at system calls; the others stop when
//! they start a process or a thread, or get a signal, and go on at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc, Mutex, MutexGuard,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use syscalls::Sysno;

use seamless_testing::{LIMIT, process::Watched};

/// Whose life it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    OldLauncher,
    OldDaemon,
    /// From the moment when it executes the program.
    NewLauncher,
    /// From its birth.
    NewDaemon,
}

impl Role {
    pub const ALL: [Role; 4] =
        [Role::OldLauncher, Role::OldDaemon, Role::NewLauncher, Role::NewDaemon];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::OldLauncher => "old-launcher",
            Role::OldDaemon => "old-daemon",
            Role::NewLauncher => "new-launcher",
            Role::NewDaemon => "new-daemon",
        })
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role = Role::ALL.into_iter().find(|role| role.to_string() == text);
        role.ok_or_else(|| format!("no such role: {text:?}"))
    }
}

/// At which of its calls, counted from 1: of all, or of those of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    pub kind: Option<Sysno>,
    pub nth: u64,
}

impl At {
    pub fn nth(nth: u64) -> Self {
        At { kind: None, nth }
    }

    fn is_counted(self, call: &Call) -> bool {
        self.kind.is_none_or(|kind| Some(kind) == call.kind())
    }
}

/// `57`, or `sendmsg:2`.
impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            None => write!(f, "{}", self.nth),
            Some(kind) => write!(f, "{kind}:{}", self.nth),
        }
    }
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("no call: {text:?}");
        let (kind, nth) = match text.split_once(':') {
            None => (None, text),
            Some((kind, nth)) => (Some(kind.parse().map_err(|_| wrong())?), nth),
        };
        Ok(At { kind, nth: nth.parse().map_err(|_| wrong())? })
    }
}

/// The service before the restart.
#[derive(Clone, Debug)]
pub struct Family {
    pub supervisor: u32,
    pub launcher: u32,
    pub daemon: u32,
    /// What launchers and daemons execute.
    pub program: PathBuf,
    /// The launcher starts the next daemon itself.
    pub in_place: bool,
}

/// One system call, as it was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    number: u64,
    pub arguments: [u64; 6],
}

impl Call {
    pub fn kind(&self) -> Option<Sysno> {
        usize::try_from(self.number).ok().and_then(Sysno::new)
    }

    pub fn name(&self) -> String {
        self.kind().map_or_else(|| self.number.to_string(), |kind| kind.name().to_owned())
    }

    /// What a thread that has stopped at its entry is about to do: `1 0x1 0x7ffe… …`, and then the
    /// stack and where it was called from.
    fn of(thread: Pid) -> Option<Call> {
        let line = fs::read_to_string(format!("/proc/{thread}/syscall")).ok()?;
        let mut words = line.split_ascii_whitespace();
        let number = words.next()?.parse().ok()?;
        let mut arguments = [0; 6];
        for argument in &mut arguments {
            *argument = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
        }
        Some(Call { number, arguments })
    }
}

/// How it died.
#[derive(Clone, Debug)]
pub struct Blow<T> {
    pub pid: u32,
    /// Just before the KILL.
    pub at: Instant,
    /// What was not executed any more.
    pub call: Call,
    /// What was, in order.
    pub before: Vec<Call>,
    /// What was seen when all its threads stood still, for the last time.
    pub seen: T,
}

/// What the tracing thread and the test share.
struct State<T> {
    counting: bool,
    calls: u64,
    /// The call has come: the blow is about to fall.
    due: bool,
    blow: Option<Blow<T>>,
}

/// A blow to come. What is traced is traced as long as this process lives.
pub struct Strike<T> {
    state: Arc<Mutex<State<T>>>,
    tracer: JoinHandle<()>,
}

impl<T: Clone + Send + 'static> Strike<T> {
    /// Returns when everybody is traced who has to be. `look` is called with the PID of the one that
    /// is about to be killed.
    #[track_caller]
    pub fn prepare(
        family: Family,
        role: Role,
        at: At,
        look: impl Fn(u32) -> T + Send + 'static,
    ) -> Self {
        let state = State { counting: false, calls: 0, due: false, blow: None };
        let state = Arc::new(Mutex::new(state));
        let (ready, is_ready) = mpsc::channel();
        let shared = state.clone();
        let tracer = thread::spawn(move || {
            // The process that a thread traces is the thread's own.
            Tracer {
                role,
                at,
                counted: 0,
                state: shared,
                threads: BTreeMap::new(),
                parent: if family.in_place { family.launcher } else { family.supervisor },
                launcher: family.in_place.then_some(family.launcher),
                victim: None,
                before: Vec::new(),
                look,
                family,
            }
            .run(ready)
        });
        is_ready.recv_timeout(LIMIT).expect("processes that can be traced");
        Strike { state, tracer }
    }

    /// From now on calls count: the restart is about to be asked for.
    pub fn begin(&self) {
        self.state().counting = true;
    }

    /// The blow, once it has fallen.
    #[track_caller]
    pub fn blow(&self) -> Option<Blow<T>> {
        assert!(!self.tracer.is_finished(), "the thread that traces has panicked");
        self.state().blow.clone()
    }

    /// The restart is complete: what comes now does not count. How many calls there were; `None`
    /// where the blow has fallen, or is about to.
    pub fn end(&self) -> Option<u64> {
        let mut state = self.state();
        if state.due {
            return None;
        }
        state.counting = false;
        Some(state.calls)
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().expect("the thread that traces does not panic")
    }
}

struct Tracer<T, L> {
    family: Family,
    role: Role,
    at: At,
    counted: u64,
    state: Arc<Mutex<State<T>>>,
    /// Threads that are traced, and their processes.
    threads: BTreeMap<Pid, u32>,
    /// Who starts the first process that is new.
    parent: u32,
    /// Who starts the new daemon.
    launcher: Option<u32>,
    victim: Option<u32>,
    before: Vec<Call>,
    look: L,
}

impl<T, L: Fn(u32) -> T> Tracer<T, L> {
    fn run(mut self, ready: Sender<()>) -> ! {
        let root = match self.role {
            Role::OldLauncher => self.family.launcher,
            Role::OldDaemon => self.family.daemon,
            Role::NewLauncher | Role::NewDaemon => self.parent,
        };
        if let Role::OldLauncher | Role::OldDaemon = self.role {
            self.victim = Some(root);
        }
        let mut seized = self.seize(root);
        // At the first stop each gets to know whether it has to stop at its calls.
        seized.iter().for_each(|thread| _ = ptrace::interrupt(*thread));
        while !seized.is_empty() {
            let status = wait().expect("those that were seized");
            seized.retain(|thread| status.pid() != Some(*thread));
            self.step(status);
        }
        ready.send(()).expect("the test waits for it");
        while let Some(status) = wait() {
            self.step(status);
        }
        // Nobody is left to be traced. That this thread has ended is to mean that it has panicked.
        loop {
            thread::park();
        }
    }

    /// All threads of a process; those that they start meanwhile are traced as well.
    fn seize(&mut self, pid: u32) -> Vec<Pid> {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC;
        let mut asked = BTreeSet::new();
        let mut seized = Vec::new();
        loop {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("a process to trace");
            let threads = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
            let new: Vec<i32> = threads.filter(|thread| asked.insert(*thread)).collect();
            if new.is_empty() {
                return seized;
            }
            for thread in new.into_iter().map(Pid::from_raw) {
                match ptrace::seize(thread, options) {
                    Ok(()) => {
                        self.threads.insert(thread, pid);
                        seized.push(thread);
                    }
                    // It has ended, or one that is traced has started it.
                    Err(Errno::ESRCH | Errno::EPERM) => {}
                    Err(error) => panic!("cannot trace {thread} of {pid}: {error}"),
                }
            }
        }
    }

    fn step(&mut self, status: WaitStatus) {
        const STOPPED: i32 = libc::PTRACE_EVENT_STOP;
        const EXECUTED: i32 = libc::PTRACE_EVENT_EXEC;
        match status {
            WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..) => {
                self.threads.remove(&thread);
            }
            WaitStatus::Stopped(thread, signal) => {
                self.meet(thread);
                self.resume(thread, Some(signal));
            }
            // As `SIGSTOP` has it: not before a CONT.
            WaitStatus::PtraceEvent(thread, signal, STOPPED) if signal != Signal::SIGTRAP => {
                self.meet(thread);
                listen(thread);
            }
            WaitStatus::PtraceEvent(thread, _, event) => {
                let process = self.meet(thread);
                let is_launcher = self.role == Role::NewLauncher && self.launcher == Some(process);
                if event == EXECUTED && is_launcher && self.runs_program(process) {
                    self.victim.get_or_insert(process);
                }
                self.resume(thread, None);
            }
            WaitStatus::PtraceSyscall(thread) => {
                let process = self.meet(thread);
                match self.due(thread, process) {
                    Some(call) => self.strike(thread, process, call),
                    None => self.resume(thread, None),
                }
            }
            WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
        }
    }

    /// The process that this thread belongs to. Who is seen for the first time gets its role.
    fn meet(&mut self, thread: Pid) -> u32 {
        if let Some(process) = self.threads.get(&thread) {
            return *process;
        }
        let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        let number = |name: &str| -> Option<u32> {
            status.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        let own = thread.as_raw().unsigned_abs();
        let process = number("Tgid:").unwrap_or(own);
        self.threads.insert(thread, process);
        let parent = number("PPid:");
        // s6 starts a process for `./finish` before, also if there is none.
        let is_traced = |pid: u32| self.threads.contains_key(&Pid::from_raw(pid as i32));
        let awaits = self.victim.is_none() && self.launcher.is_none_or(|before| !is_traced(before));
        if process == own && parent == Some(self.parent) && awaits {
            self.launcher = Some(process);
        } else if process == own
            && self.role == Role::NewDaemon
            && parent
                .is_some_and(|parent| self.launcher == Some(parent) && self.runs_program(parent))
        {
            self.victim.get_or_insert(process);
        }
        process
    }

    fn runs_program(&self, pid: u32) -> bool {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|path| path == self.family.program)
    }

    /// The call that a thread has stopped at, where it is to be killed there.
    fn due(&mut self, thread: Pid, process: u32) -> Option<Call> {
        const ENTRY: u8 = 1; // PTRACE_SYSCALL_INFO_ENTRY
        if self.victim != Some(process)
            || ptrace::syscall_info(thread).map(|info| info.op) != Ok(ENTRY)
        {
            return None;
        }
        let call = Call::of(thread)?; // it has been killed otherwise
        let mut state = self.state.lock().expect("the test does not panic with it");
        if !state.counting || state.due {
            return None;
        }
        state.calls += 1;
        self.counted += u64::from(self.at.is_counted(&call));
        if self.counted == self.at.nth && self.at.is_counted(&call) {
            state.due = true;
            return Some(call);
        }
        self.before.push(call);
        None
    }

    fn resume(&self, thread: Pid, signal: Option<Signal>) {
        let is_victim = self.victim.is_some() && self.threads.get(&thread).copied() == self.victim;
        let resumed = match is_victim {
            true => ptrace::syscall(thread, signal),
            false => ptrace::cont(thread, signal),
        };
        // ESRCH: somebody has killed it.
        assert!(matches!(resumed, Ok(()) | Err(Errno::ESRCH)), "{thread}: {resumed:?}");
    }

    /// Its other threads are stopped before anything is looked at: what is seen is then true until
    /// the end.
    fn strike(&mut self, thread: Pid, process: u32, call: Call) {
        let others = self.threads.iter().filter(|(_, of)| **of == process).map(|(one, _)| *one);
        let mut running: BTreeSet<Pid> = others.filter(|one| *one != thread).collect();
        running.iter().for_each(|one| _ = ptrace::interrupt(*one));
        while !running.is_empty() {
            let status = wait().expect("its threads");
            let one = status.pid().expect("a thread");
            let has_ended = matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
            if has_ended || self.meet(one) != process {
                running.remove(&one);
                self.step(status);
                continue;
            }
            running.remove(&one);
            if let WaitStatus::PtraceEvent(_, _, libc::PTRACE_EVENT_CLONE) = status {
                let born = ptrace::getevent(one).map(|born| Pid::from_raw(born as i32));
                // What it has started may have been met, and may even have ended, before this is told.
                let is_to_come = |born: &Pid| {
                    !self.threads.contains_key(born)
                        && Path::new(&format!("/proc/{process}/task/{born}")).exists()
                };
                running.extend(born.ok().filter(is_to_come));
            }
        }
        let seen = (self.look)(process);
        let victim = Watched::new(process);
        let at = Instant::now();
        assert!(victim.kill(), "{process} was there");
        let before = std::mem::take(&mut self.before);
        let blow = Blow { pid: process, at, call, before, seen };
        self.state.lock().expect("the test does not panic with it").blow = Some(blow);
    }
}

/// What became of one of the threads that this thread traces; `None` where there is none.
fn wait() -> Option<WaitStatus> {
    loop {
        // Not the children of other threads of this process: those are waited for there.
        match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)) {
            Ok(status) => return Some(status),
            Err(Errno::ECHILD) => return None,
            Err(Errno::EINTR) => {}
            Err(error) => panic!("waitpid: {error}"),
        }
    }
}

/// Leaves a process stopped, and hears of it again when it is continued.
fn listen(thread: Pid) {
    // SAFETY: this request takes no addresses.
    let done = unsafe { libc::ptrace(libc::PTRACE_LISTEN, thread.as_raw(), 0, 0) };
    let done = Errno::result(done);
    assert!(matches!(done, Ok(_) | Err(Errno::ESRCH)), "{thread}: {done:?}");
}
