//! Facts about processes, from `/proc` and pidfds.

use std::{
    fs,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, fcntl_lock},
    process::{
        Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal,
    },
    thread::{Gid, Uid, set_thread_gid, set_thread_groups, set_thread_uid},
};
use socket2::Socket;

use crate::{
    LIMIT,
    signal::{CONT, KILL, STOP},
    tcp, wait_for,
};

/// A user without rights.
pub const NOBODY: u32 = 65534;

/// One process at one moment, from `/proc/PID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub pid: u32,
    pub comm: String,
    /// `R`, `S`, `T`, `Z`…
    pub state: char,
    pub ppid: u32,
    pub group: u32,
    pub session: u32,
    pub threads: u32,
    pub start_ticks: u64,
}

/// `None` where there is no such process.
pub fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold any character, these included.
    let (head, tail) = text.rsplit_once(')')?;
    let comm = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = tail.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        pid,
        comm,
        state: fields.first()?.chars().next()?,
        ppid: number(1)? as u32,
        group: number(2)? as u32,
        session: number(3)? as u32,
        threads: number(17)? as u32,
        start_ticks: number(19)?,
    })
}

/// Every process that we can see.
pub fn all() -> Vec<Stat> {
    let entries = fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(stat).collect()
}

pub fn children(pid: u32) -> Vec<u32> {
    let family = all().into_iter().filter(|stat| stat.ppid == pid);
    family.map(|stat| stat.pid).collect()
}

/// Children, their children and so on, parents first.
pub fn descendants(pid: u32) -> Vec<u32> {
    let all = all();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(all.iter().filter(|stat| stat.ppid == parent).map(|stat| stat.pid));
        next += 1;
    }
    found.split_off(1)
}

/// Stops this process and all below it, and gives those below: nobody starts another one any more. Does not panic, for
/// destructors.
pub fn stop_family(pid: u32) -> Vec<Watched> {
    let mut family = vec![Watched::new(pid)];
    let has_stopped = |one: &Watched| stat(one.pid()).is_none_or(|stat| "TtZ".contains(stat.state));
    let deadline = Instant::now() + LIMIT;
    loop {
        let all_stopped = family.iter().all(has_stopped);
        let mut more = descendants(pid);
        more.retain(|below| family.iter().all(|one| one.pid() != *below));
        if all_stopped && more.is_empty() || Instant::now() > deadline {
            return family.split_off(1);
        }
        family.extend(more.into_iter().map(Watched::new));
        family.iter().for_each(|one| {
            one.signal(STOP);
        });
        thread::sleep(Duration::from_millis(1));
    }
}

/// Open descriptors and what each is: a path, `socket:[123]`, `anon_inode:[eventpoll]`…
pub fn descriptors(pid: u32) -> Vec<(i32, PathBuf)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let mut found: Vec<(i32, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(entry.path()).ok()?))
        })
        .collect();
    found.sort();
    found
}

/// The name of the socket with this inode.
pub(crate) fn socket(inode: u32) -> PathBuf {
    format!("socket:[{inode}]").into()
}

/// The TCP sockets that listen by IPv4, at this port or at any, as [`descriptors`] names them.
pub fn listeners(port: Option<u16>) -> Vec<PathBuf> {
    tcp::listening(port).into_iter().map(socket).collect()
}

/// Waits until this process has closed each TCP socket that listens by IPv4, or has ended.
#[track_caller]
pub fn wait_listens_no_more(pid: u32) {
    wait_for(format!("{pid} listens no more"), LIMIT, || {
        let listeners = listeners(None);
        let held = descriptors(pid);
        (!held.iter().any(|(_, target)| listeners.contains(target))).then_some(())
    });
}

/// A variable of the environment that the process was started with.
pub fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environment.split(|&byte| byte == 0).find_map(|entry| {
        let entry = String::from_utf8_lossy(entry);
        let (key, value) = entry.split_once('=')?;
        (key == name).then(|| value.to_owned())
    })
}

pub fn command_line(pid: u32) -> Vec<String> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments = text.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    let mut arguments: Vec<String> = arguments.map(|one| one.into_owned()).collect();
    arguments.pop();
    arguments
}

/// A set of signals as `/proc/PID/status` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalSet(u64);

impl SignalSet {
    pub fn contains(self, signal: i32) -> bool {
        (1..=64).contains(&signal) && self.0 >> (signal - 1) & 1 == 1
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signals {
    pub caught: SignalSet,
    pub ignored: SignalSet,
    /// Of the main thread.
    pub blocked: SignalSet,
    /// To the process as a whole and not yet taken.
    pub pending: SignalSet,
}

pub fn signals(pid: u32) -> Option<Signals> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let set = |name| Some(SignalSet(u64::from_str_radix(field(&status, name)?, 16).ok()?));
    Some(Signals {
        caught: set("SigCgt")?,
        ignored: set("SigIgn")?,
        blocked: set("SigBlk")?,
        pending: set("ShdPnd")?,
    })
}

/// Every signal that a program can catch, real-time ones included; not those that mean a fault of
/// the program itself, nor the two that the C library keeps.
pub fn catchable_signals() -> impl Iterator<Item = i32> {
    const FAULTS: [i32; 4] = [4, 7, 8, 11];
    const C_LIBRARY: [i32; 2] = [32, 33];
    (1..=64).filter(|signal| {
        ![KILL, STOP].contains(signal) && !FAULTS.contains(signal) && !C_LIBRARY.contains(signal)
    })
}

/// Does the process hold an `fcntl` lock, of which the claim is the only one?
pub fn holds_claim(pid: u32) -> bool {
    // `1: POSIX  ADVISORY  WRITE 4711 00:1c:5 0 EOF`
    let pid = pid.to_string();
    let locks = fs::read_to_string("/proc/locks").expect("the locks");
    locks.lines().any(|lock| {
        let words: Vec<&str> = lock.split_ascii_whitespace().collect();
        words.get(1) == Some(&"POSIX") && words.get(4) == Some(&pid.as_str())
    })
}

/// Takes the claim of a service as soon as it is free, and keeps it until this process closes the lock file.
#[track_caller]
pub fn take_claim(lock_file: &fs::File) {
    let lock = FlockOperation::NonBlockingLockExclusive;
    wait_for("the claim", LIMIT, || fcntl_lock(lock_file, lock).ok());
}

/// Stops a daemon, but not in the middle of a look round, with the claim in its hands.
#[track_caller]
pub fn stop_without_claim(daemon: &Watched) {
    wait_for(format!("{} stops without a lock", daemon.pid()), LIMIT, || {
        daemon.stop();
        if holds_claim(daemon.pid()) {
            daemon.signal(CONT);
            return None;
        }
        Some(())
    });
}

/// Does something on a thread that is another user, without any group of ours; for root. Processes
/// that it starts are that user's too.
pub fn as_user<T: Send>(user: u32, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let act = scope.spawn(move || {
            // The kernel keeps users by thread.
            set_thread_groups(&[]).expect("root");
            set_thread_gid(Gid::from_raw(user)).expect("root");
            set_thread_uid(Uid::from_raw(user)).expect("root");
            act()
        });
        act.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Bytes of memory that the process has written to and shares with nobody.
pub fn private_dirty(pid: u32) -> Option<u64> {
    memory(pid, "Private_Dirty")
}

/// The proportional set size in bytes: memory that it shares with others counts in part.
pub fn proportional(pid: u32) -> Option<u64> {
    memory(pid, "Pss")
}

fn memory(pid: u32, name: &str) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let kilobytes: u64 = field(&rollup, name)?.strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// How often the threads of the process went to sleep: unchanged means that none woke up.
pub fn voluntary_switches(pid: u32) -> Option<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    tasks
        .map(|task| {
            let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            field(&status, "voluntary_ctxt_switches")?.parse::<u64>().ok()
        })
        .sum()
}

/// Waits until the threads of this name, or all of them, sleep at ten looks in a row: none of them spins. Some must be
/// there.
#[track_caller]
pub fn wait_rests(pid: u32, name: Option<&str>) {
    let mut rested = 0;
    wait_for(format!("{name:?} of {pid} rests"), LIMIT, || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
        let stats = tasks.flatten().filter_map(|task| {
            let text = fs::read_to_string(task.path().join("stat")).ok()?;
            let (head, tail) = text.rsplit_once(") ")?;
            let of_it = name.is_none_or(|name| head.ends_with(&format!("({name}")));
            of_it.then(|| tail.chars().next())?
        });
        let states: Vec<char> = stats.collect();
        let rests = !states.is_empty() && states.iter().all(|state| *state == 'S');
        rested = if rests { rested + 1 } else { 0 };
        (rested == 10).then_some(())
    });
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    text.lines().find_map(value).map(str::trim)
}

/// A process held by a pidfd: the number may be used again, this still means the same process.
#[derive(Debug)]
pub struct Watched {
    pid: u32,
    /// `None`: it had ended, and was reaped, before we looked.
    handle: Option<OwnedFd>,
}

impl Watched {
    /// A descriptor of the TCP listener that this process has at this address.
    #[track_caller]
    pub fn listener_at(&self, address: SocketAddr) -> Socket {
        let pid = Pid::from_raw(self.pid() as i32).expect("a PID");
        let held = pidfd_open(pid, PidfdFlags::empty()).expect("a pidfd");
        let is_it = |socket: &Socket| {
            let at = socket.local_addr().ok().and_then(|local| local.as_socket());
            at == Some(address) && socket.is_listener().unwrap_or(false)
        };
        let mut sockets = descriptors(self.pid()).into_iter().filter_map(|(number, _)| {
            Some(Socket::from(pidfd_getfd(&held, number, PidfdGetfdFlags::empty()).ok()?))
        });
        sockets.find(is_it).unwrap_or_else(|| panic!("no listener at {address}"))
    }

    pub fn new(pid: u32) -> Self {
        let number = Pid::from_raw(pid as i32).expect("a PID is not 0");
        let handle = match pidfd_open(number, PidfdFlags::empty()) {
            Ok(handle) => Some(handle),
            Err(rustix::io::Errno::SRCH) => None,
            Err(error) => panic!("pidfd_open({pid}): {error}"),
        };
        Watched { pid, handle }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// True as soon as all its threads are gone, reaped or not.
    pub fn has_ended(&self) -> bool {
        self.ends_within(Duration::ZERO)
    }

    pub fn ends_within(&self, limit: Duration) -> bool {
        let Some(handle) = &self.handle else {
            return true;
        };
        let limit = Timespec::try_from(limit).expect("a limit that fits");
        let mut events = [PollFd::new(handle, PollFlags::IN)];
        loop {
            match poll(&mut events, Some(&limit)) {
                Ok(ready) => return ready > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("poll on the pidfd of {}: {error}", self.pid),
            }
        }
    }

    #[track_caller]
    pub fn wait_end(&self, limit: Duration) {
        let ended = self.ends_within(limit);
        assert!(ended, "process {} has not ended within {limit:?}: {:?}", self.pid, stat(self.pid));
    }

    /// False where the process has ended already.
    pub fn signal(&self, signal: i32) -> bool {
        let Some(handle) = &self.handle else {
            return false;
        };
        if let Some(named) = Signal::from_named_raw(signal) {
            return match pidfd_send_signal(handle, named) {
                Ok(()) => true,
                Err(rustix::io::Errno::SRCH) => false,
                Err(error) => panic!("signal {signal} to {}: {error}", self.pid),
            };
        }
        // Real-time signals: rustix knows no safe way to name them, the shell does.
        if self.has_ended() {
            return false;
        }
        let kill = format!("kill -{signal} {}", self.pid);
        Command::new("sh").args(["-c", &kill]).status().expect("sh").success()
    }

    /// STOP, and waits until it has reached every thread: the others run on until the one that takes
    /// the signal has been scheduled.
    #[track_caller]
    pub fn stop(&self) {
        assert!(self.signal(Signal::STOP.as_raw()), "process {} has ended", self.pid);
        wait_for(format!("all threads of {} stop", self.pid), LIMIT, || {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).ok()?;
            let states = tasks.map(|task| {
                let stat = fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
                stat.rsplit_once(") ")?.1.chars().next()
            });
            states.collect::<Option<Vec<char>>>()?.iter().all(|state| *state == 'T').then_some(())
        });
    }

    pub fn kill(&self) -> bool {
        self.signal(Signal::KILL.as_raw())
    }
}

/// Sends one signal; the process must be there.
#[track_caller]
pub fn signal(pid: u32, signal: i32) {
    assert!(Watched::new(pid).signal(signal), "signal {signal}: process {pid} has ended");
}

/// The version of the kernel: the first two numbers.
pub fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    (numbers.next().expect("a version"), numbers.next().unwrap_or(0))
}
