//! What the tests set up and look at: the probe with its report and its log in one folder.

use std::{
    fmt::Debug,
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

pub use crate::LIMIT;
use crate::{
    bin,
    http::{self, Target},
    process::{self, Watched},
    report::Report,
    wait_for,
};
use socket2::Socket;

/// A run script for the probe: `web.pid`, `report` and `log` are in this folder.
pub fn script(folder: &Path, options: &str) -> String {
    format!("exec >>'{}/log'\n{}", folder.display(), bin::probe_script(folder, options))
}

/// Starts the probe without a supervisor: its parent is the test itself.
pub fn start(folder: &Path, options: &str) -> Child {
    command(folder, options).spawn().expect("sh")
}

/// The same, not started yet.
pub fn command(folder: &Path, options: &str) -> Command {
    shell(&script(folder, options))
}

pub fn shell(script: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).stdin(Stdio::null());
    shell
}

/// The only child of this process, once it has stopped itself (`raise:19`).
#[track_caller]
pub fn stopped_child(parent: u32) -> u32 {
    wait_stopped(|| process::children(parent))
}

/// The first of these processes, once it has stopped.
#[track_caller]
pub fn wait_stopped(processes: impl Fn() -> Vec<u32>) -> u32 {
    wait_for("a process that has stopped", LIMIT, || {
        let first = *processes().first()?;
        (process::stat(first)?.state == 'T').then_some(first)
    })
}

/// The launchers and daemons that keep their PID file in this folder and have not ended.
pub fn running(folder: &Path) -> Vec<Watched> {
    let option = format!("--pid-file={}/web.pid", folder.display());
    let held = process::all().into_iter().map(|stat| Watched::new(stat.pid));
    // A zombie has no command line.
    held.filter(|one| process::command_line(one.pid()).contains(&option)).collect()
}

/// Their PIDs, in order.
pub fn pids(folder: &Path) -> Vec<u32> {
    let mut pids: Vec<u32> = running(folder).iter().map(Watched::pid).collect();
    pids.sort_unstable();
    pids
}

#[track_caller]
pub fn wait_all_ended(folder: &Path) {
    for process in running(folder) {
        process.wait_end(LIMIT);
    }
    wait_for("nothing of the service runs", LIMIT, || running(folder).is_empty().then_some(()));
}

/// Waits until this daemon's `on_shutdown` hooks run.
#[track_caller]
pub fn wait_drain(report: &Report, daemon: u32) {
    wait_for(format!("{daemon} drains:\n{report}"), LIMIT, || {
        let hooks = report.named("hook");
        hooks.iter().any(|hook| hook.pid == daemon && hook.text == "shutdown").then_some(())
    });
}

/// The texts of the hooks that have run in this process.
pub fn hooks(report: &Report, pid: u32) -> Vec<String> {
    let hooks = report.named("hook").into_iter().filter(|hook| hook.pid == pid);
    hooks.map(|hook| hook.text).collect()
}

/// Waits until new connections reach one generation only.
#[track_caller]
pub fn wait_one_listener(target: &Target) {
    let Target::Tcp(address) = target else { panic!("no port: {target}") };
    wait_for(format!("one listener at {target}"), LIMIT, || {
        (process::listeners(Some(address.port())).len() == 1).then_some(())
    });
}

/// Waits until this process holds no TCP socket that listens, also where others hold the same one.
#[track_caller]
pub fn wait_let_go(pid: u32) {
    wait_for(format!("{pid} lets its sockets go"), LIMIT, || {
        let listening = process::listeners(None);
        let open = process::descriptors(pid);
        open.iter().all(|(_, what)| !listening.contains(what)).then_some(())
    });
}

/// Each case at once, each on a thread and in a folder of its own.
pub fn each<T: Copy + Debug + Send>(
    folder: &Path,
    cases: impl IntoIterator<Item = T>,
    test: impl Fn(&Path, T) + Sync,
) {
    thread::scope(|scope| {
        for (number, case) in cases.into_iter().enumerate() {
            let (folder, test) = (folder.join(format!("case-{number}")), &test);
            scope.spawn(move || {
                fs::create_dir_all(&folder).expect("a folder");
                println!("{}: {case:?}", folder.display());
                test(&folder, case);
            });
        }
    });
}

/// A request whose last line is still to be sent, so that its server cannot answer yet.
pub struct Unfinished(Socket);

impl Unfinished {
    #[track_caller]
    pub fn start(target: &Target) -> Self {
        let mut request = Self::connect(target);
        request.begin();
        request
    }

    /// A connection only: [`begin`](Self::begin) comes later.
    #[track_caller]
    pub fn connect(target: &Target) -> Self {
        let socket = http::connect(LIMIT, target);
        let socket = socket.unwrap_or_else(|error| panic!("{target}: {error}"));
        Unfinished(socket)
    }

    #[track_caller]
    pub fn begin(&mut self) {
        self.0.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n").expect("the first part");
    }

    /// Waits until this process has accepted it: where generations share a socket, the next one may
    /// be as quick.
    #[track_caller]
    pub fn wait_accepted(&self, pid: u32) {
        let client = self.0.local_addr().expect("its address").as_socket_ipv4().expect("by IPv4");
        let client = format!("0100007F:{:04X}", client.port());
        wait_for(format!("{pid} accepts a connection"), LIMIT, || {
            // `1: 0100007F:1F90 0100007F:A2B4 01 … inode …`, which is 0 before.
            let sockets = fs::read_to_string("/proc/net/tcp").expect("the sockets");
            // With many services, others may have had a client at the same port.
            let inodes = sockets.lines().filter_map(|line| {
                let words: Vec<&str> = line.split_ascii_whitespace().collect();
                (words.get(2) == Some(&client.as_str())).then(|| words.get(9).copied())?
            });
            let accepted: Vec<PathBuf> =
                inodes.map(|inode| format!("socket:[{inode}]").into()).collect();
            process::descriptors(pid).iter().any(|(_, what)| accepted.contains(what)).then_some(())
        });
    }

    /// Sends the rest, and returns all that the server answers until it closes the connection.
    #[track_caller]
    pub fn finish(mut self) -> String {
        self.0.write_all(b"\r\n").expect("the rest");
        let mut answer = String::new();
        self.0.read_to_string(&mut answer).expect("an answer, and then its end");
        answer
    }

    /// Sends the rest, and returns the answer as soon as it is there. The connection stays open.
    #[track_caller]
    pub fn answer(&mut self) -> String {
        self.0.write_all(b"\r\n").expect("the rest");
        let mut answer = String::new();
        while !(answer.contains("\r\n\r\nServer pid: ") && answer.ends_with('\n')) {
            let mut bytes = [0; 1024];
            let count = self.0.read(&mut bytes).expect("an answer");
            assert!(count > 0, "the connection ended: {answer:?}");
            answer.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        answer
    }

    /// Waits until the server closes the connection.
    #[track_caller]
    pub fn wait_closed(mut self) {
        assert_eq!(self.0.read(&mut [0]).expect("an orderly end"), 0);
    }
}

/// The body of every answer.
pub fn answer_of(pid: u32) -> String {
    format!("\r\n\r\nServer pid: {pid}\n")
}
