//! What the run does to the service. Each fault undoes what can be undone.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use seamless_testing::{
    bin,
    process::{self, Watched},
    signal::{CONT, STOP},
    supervisor::{Service, write_script},
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{
    judge::Judge,
    kernel::{self, Open, Place, Places},
    schedule::{Bad, Fault, Restart, Victim},
};

const PAUSE: Duration = Duration::from_millis(2);
/// More are released, oldest first.
const BYSTANDERS: usize = 12;
/// Tells a program that hangs from everybody else's.
const HANGS: &str = "1000001";

/// A process of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    pub start_ticks: u64,
    pub pid: u32,
    pub launcher: bool,
}

/// What all threads of the run share.
pub struct Stage {
    /// Of the PID file; a file system of its own.
    pub folder: PathBuf,
    pub log: PathBuf,
    /// What the supervisor runs: a link to the program, or a bad one.
    pub deployed: PathBuf,
    pub program: PathBuf,
    pub places: Places,
    pub service: Mutex<Service>,
    pub judge: Judge,
    pub bystanders: Mutex<Vec<Bystander>>,
    pub interrupted: Arc<AtomicBool>,
    /// Held by who looks at a process that is stopped, so that nobody continues it.
    pub signals: Mutex<()>,
}

/// A panic is told where it happens.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Stage {
    pub fn is_over(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed) || self.judge.is_violated()
    }

    /// Shorter where the run is over.
    pub fn sleep(&self, time: Duration) {
        let end = Instant::now() + time;
        while !self.is_over() && Instant::now() < end {
            thread::sleep(PAUSE.min(end.saturating_duration_since(Instant::now())));
        }
    }

    /// A line among those of the service.
    pub fn note(&self, what: &str) {
        let time = humantime::format_rfc3339_millis(SystemTime::now());
        let file = File::options().append(true).create(true).open(&self.log);
        let line = format!("[{time} SOAK] {what}\n");
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the log");
    }

    pub fn service(&self) -> MutexGuard<'_, Service> {
        lock(&self.service)
    }

    pub fn bystanders(&self) -> MutexGuard<'_, Vec<Bystander>> {
        lock(&self.bystanders)
    }

    /// The processes of the service, oldest first.
    pub fn members(&self) -> Vec<Member> {
        let all = process::all().into_iter().filter(|stat| self.is_member(stat.pid));
        let mut members: Vec<Member> = all
            .map(|stat| Member {
                start_ticks: stat.start_ticks,
                pid: stat.pid,
                launcher: process::variable(stat.pid, "SEAMLESS").is_none(),
            })
            .collect();
        members.sort();
        members
    }

    /// The sockets that take what arrives. The kernel's tables are long where others use the network,
    /// so the descriptors of the service are looked at first; `all`: they are not enough.
    pub fn open(&self, all: bool) -> Open {
        let known = self.judge.open();
        let held: HashSet<u64> =
            self.members().iter().flat_map(|member| kernel::sockets(member.pid)).collect();
        let nothing_new = known.len() == Place::ALL.len()
            && known
                .values()
                .all(|inodes| !inodes.is_empty() && inodes.iter().all(|one| held.contains(one)));
        if nothing_new && !all { known } else { self.places.open_since(&known) }
    }

    fn is_member(&self, pid: u32) -> bool {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == self.program)
    }

    fn find(&self, victim: Victim) -> Option<Watched> {
        let members = self.members();
        let mut daemons = members.iter().filter(|member| !member.launcher);
        let mut launchers = members.iter().filter(|member| member.launcher);
        let pid = match victim {
            Victim::OldestDaemon => daemons.next(),
            Victim::NewestDaemon => daemons.next_back(),
            Victim::OldestLauncher => launchers.next(),
            Victim::NewestLauncher => launchers.next_back(),
        }?
        .pid;
        // Held first: the number may be somebody else's by now.
        let process = Watched::new(pid);
        self.is_member(pid).then_some(process)
    }

    pub fn restart(&self, how: Restart) {
        let service = self.service();
        match how {
            Restart::Term => service.restart(),
            Restart::Hup => service.control(match service.kind().control_program() {
                "sv" => "hup",
                _ => "-h",
            }),
        }
    }

    pub fn deploy_good(&self) {
        let new = self.deployed.with_extension("good");
        symlink(&self.program, &new).expect("a link");
        fs::rename(new, &self.deployed).expect("the program in place");
    }

    /// Does it and undoes it; false where there was nobody to do it to.
    pub fn act(&self, fault: &Fault) -> bool {
        self.note(&format!("{fault:?}"));
        match fault {
            Fault::Kill(victim) => self.find(*victim).is_some_and(|process| self.kill(&process)),
            Fault::Stop(victim, time) => {
                let Some(process) = self.find(*victim) else { return false };
                let stopped = process.signal(STOP);
                self.note(&format!("stopped {}: {stopped}", process.pid()));
                self.sleep(*time);
                let _held = lock(&self.signals);
                process.signal(CONT);
                self.note(&format!("continued {}", process.pid()));
                stopped
            }
            Fault::Supervisor(time) => {
                let mut service = self.service();
                service.kill_supervisor();
                self.sleep(*time);
                service.start_supervisor();
                true
            }
            Fault::Deploy(bad, time) => {
                self.deploy(*bad);
                self.restart(Restart::Term);
                self.sleep(*time);
                self.deploy_good();
                if *bad != Bad::Exits {
                    self.restart(Restart::Term);
                    self.end_hanging();
                }
                true
            }
            Fault::Full(time) => self.fill(*time).is_ok(),
            Fault::ReadOnly(time) => {
                let attribute = |change| {
                    let mut chattr = Command::new("chattr");
                    chattr.arg(change).arg(&self.folder).status().is_ok_and(|end| end.success())
                };
                let done = attribute("+i");
                if done {
                    self.sleep(*time);
                    assert!(attribute("-i"), "the folder stays as it is");
                }
                done
            }
            Fault::Shortage(victim, time) => {
                self.find(*victim).is_some_and(|process| self.shortage(&process, *time))
            }
            Fault::Reuse(time) => self.reuse(*time),
            Fault::Peers(count, time) => self.peers(*count, *time),
            Fault::Busy(time) => {
                let burn = || Command::new("sh").args(["-c", "while :; do :; done"]).spawn();
                let count = thread::available_parallelism().map_or(2, usize::from);
                let burners: Vec<Child> = (0..count).filter_map(|_| burn().ok()).collect();
                self.sleep(*time);
                burners.into_iter().for_each(end);
                true
            }
            Fault::Down => self.down(),
            Fault::Inject { call, error, nth, time } => {
                let strace = format!(
                    "exec strace -D -f -qqq -o /dev/null --seccomp-bpf -e trace={call} -e signal=none \
                     -e inject={call}:error={error}:when={nth} '{}' \"$@\"",
                    self.program.display()
                );
                write_script(&self.deployed, &strace);
                self.restart(Restart::Term);
                self.sleep(*time);
                self.deploy_good();
                true
            }
        }
    }

    /// A daemon is stopped first, so that it can be seen whose requests end with it.
    fn kill(&self, process: &Watched) -> bool {
        let pid = process.pid();
        if process::variable(pid, "SEAMLESS").is_some() {
            let _held = lock(&self.signals);
            let mut held = HashSet::new();
            // A second time where somebody else continued it meanwhile.
            loop {
                if !process.signal(STOP) {
                    return false;
                }
                while !is_stopped(pid) && !process.has_ended() {
                    thread::sleep(PAUSE);
                }
                held.extend(self.places.clients_of(pid));
                if is_stopped(pid) || process.has_ended() {
                    break;
                }
            }
            self.note(&format!("KILL to {pid}, which holds {} connections", held.len()));
            self.judge.kills(held);
            process.kill()
        } else {
            self.note(&format!("KILL to {pid}"));
            process.kill()
        }
    }

    fn deploy(&self, bad: Bad) {
        let script = match bad {
            Bad::Exits => "exit 1".to_owned(),
            Bad::Hangs => format!("exec sleep {HANGS}"),
            Bad::HoldsClaim => format!("exec '{}' --hang \"$@\"", self.program.display()),
        };
        write_script(&self.deployed, &script);
    }

    /// One that knows nothing of its launcher's end may be left.
    fn end_hanging(&self) {
        for stat in process::all().into_iter().filter(|stat| stat.comm == "sleep") {
            let process = Watched::new(stat.pid);
            if process::command_line(stat.pid).get(1).is_some_and(|time| time == HANGS) {
                process.kill();
            }
        }
    }

    fn fill(&self, time: Duration) -> io::Result<()> {
        let path = self.folder.join("filler");
        let mut file = File::create(&path)?;
        while file.write_all(&[b'x'; 4096]).is_ok() {}
        self.sleep(time);
        fs::remove_file(path)
    }

    fn shortage(&self, process: &Watched, time: Duration) -> bool {
        let pid = process.pid();
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let Some(before) = line.and_then(|line| line.split_whitespace().next()) else {
            return false;
        };
        let set = |soft: &str| {
            let mut prlimit = Command::new("prlimit");
            prlimit.arg(format!("--pid={pid}")).arg(format!("--nofile={soft}:"));
            prlimit.stderr(Stdio::null()).status().is_ok_and(|end| end.success())
        };
        let done = set(&process::descriptors(pid).len().to_string());
        self.sleep(time);
        if !process.has_ended() {
            set(before);
        }
        done
    }

    fn reuse(&self, time: Duration) -> bool {
        let (end, mut seen, mut taken) = (Instant::now() + time, self.members(), false);
        while Instant::now() < end && !self.is_over() {
            for gone in seen.iter().filter(|one| !Path::new(&format!("/proc/{}", one.pid)).exists())
            {
                if let Some(bystander) = Bystander::with_pid(gone.pid) {
                    self.note(&format!("{} is somebody else now", gone.pid));
                    let mut bystanders = self.bystanders();
                    bystanders.push(bystander);
                    if bystanders.len() > BYSTANDERS {
                        bystanders.remove(0).release(&self.judge);
                    }
                    taken = true;
                }
            }
            seen = self.members();
            thread::sleep(PAUSE);
        }
        taken
    }

    fn peers(&self, count: usize, time: Duration) -> bool {
        let path = self.folder.join("web.pid.sock");
        let connect = || -> io::Result<Socket> {
            let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
            socket.set_nonblocking(true)?;
            socket.connect(&SockAddr::unix(&path)?)?;
            Ok(socket)
        };
        let garbage: Vec<u8> = (0..4000_u32).map(|at| ((at * 7919) >> 3) as u8).collect();
        let mut peers = Vec::new();
        for _ in 0..count {
            if let (Ok(silent), Ok(loud)) = (connect(), connect()) {
                let _ = loud.send(&garbage); // it may have been shown the door already
                peers.extend([silent, loud]);
            }
        }
        self.sleep(time);
        !peers.is_empty()
    }

    fn down(&self) -> bool {
        let service = self.service();
        self.judge.stops();
        service.down();
        service.wait_down();
        let begin = Instant::now();
        // A supervisor that was killed has left its launcher behind. If the new one was told before it had started the
        // service, nobody has told that launcher.
        let started_it =
            |pid| process::stat(pid).is_some_and(|stat| stat.ppid == service.supervisor_pid());
        let mut launchers = self.members().into_iter().filter(|member| member.launcher);
        if launchers.any(|launcher| !started_it(launcher.pid)) {
            let mut stop = Command::new(bin::support("seamless"));
            let ended =
                stop.arg("stop").arg(self.folder.join("web.pid")).stdout(Stdio::null()).status();
            self.note(&format!("seamless stop: {ended:?}"));
        }
        while !self.members().is_empty() && !self.is_over() {
            // Where no launcher ran, they end within a check, and drain.
            if begin.elapsed() > seamless_testing::LIMIT {
                self.judge.violation(format!("down, and these run: {:?}", self.members()));
            }
            thread::sleep(PAUSE);
        }
        service.up();
        true
    }
}

/// All threads.
fn is_stopped(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    let states = tasks.map(|task| {
        let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    });
    // `t`: somebody traces it; `Z`: it is about to be gone.
    let states: Option<Vec<char>> = states.collect();
    states.is_some_and(|all| all.iter().all(|one| "TtZ".contains(*one)))
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// A process that has nothing to do with the service, and keeps every signal that it is sent.
pub struct Bystander(Child);

impl Bystander {
    pub fn start() -> io::Result<Self> {
        let mut command = Command::new("env");
        command.args(["--block-signal", "sleep", "1000000"]).stdin(Stdio::null());
        command.spawn().map(Bystander)
    }

    /// With this PID, unless somebody else was faster.
    fn with_pid(pid: u32) -> Option<Self> {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).expect("ns_last_pid");
        let started = Self::start().ok()?;
        if started.0.id() == pid {
            return Some(started);
        }
        end(started.0);
        None
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn check(&self, judge: &Judge) {
        let pid = self.pid();
        let unharmed = !Watched::new(pid).has_ended()
            && process::signals(pid).is_some_and(|signals| signals.pending.is_empty());
        if !unharmed {
            let pending = process::signals(pid).map(|signals| signals.pending);
            judge.violation(format!("somebody signalled the bystander {pid}: {pending:?}"));
        }
    }

    fn release(self, judge: &Judge) {
        self.check(judge);
        end(self.0);
    }
}
