//! A box for a test with real processes: namespaces of its own under an init that reaps orphans at
//! once, a temporary folder in memory, a watchdog.
//!
//! ```no_run
//! # use seamless_testing::boxed;
//! #[test]
//! fn p8_no_orphan() {
//!     boxed::run(|folder| { /* everything that is started here dies with the box */ });
//! }
//! # fn main() {}
//! ```
//!
//! `run` starts the test's own binary again, inside, to run this one test; there the closure runs and
//! the process ends. So what stands after `run` in a test happens outside, when the box is gone, and
//! what stands before it happens twice. Output is shown only where the test fails.

use std::{
    cell::Cell,
    env,
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io::{self, Read},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    bin,
    process::{Watched, all, children, command_line, variable},
    wait_for,
};

/// Names the box to all that runs in it.
const FOLDER: &str = "SEAMLESS_TEST_BOX";
/// Set where the box belongs to the real root.
const ROOT: &str = "SEAMLESS_TEST_ROOT";
/// Set where the box may mount.
const MOUNTS: &str = "SEAMLESS_TEST_MOUNTS";
/// A file that collects what could not be tested here.
const LEFT_OUT: &str = "SEAMLESS_TEST_LEFT_OUT";

/// Set where the test runs in namespaces within the box that have been set up already.
const ENTERED: &str = "SEAMLESS_TEST_ENTERED";

/// Not libtest's 0, which also means that it ran no test at all.
const PASSED: i32 = 77;
const FAILED: i32 = 78;

/// How processes are kept together, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// Namespaces, as root.
    Namespaces,
    /// Namespaces in a user namespace, where the box believes to be root.
    UserNamespaces,
    /// No namespaces: at the end, whatever carries the box's name in its environment is killed.
    Sweep,
}

impl Isolation {
    /// The best that works here.
    pub fn available() -> Self {
        static FOUND: OnceLock<Isolation> = OnceLock::new();
        *FOUND.get_or_init(|| {
            let best_first = [Isolation::Namespaces, Isolation::UserNamespaces];
            best_first.into_iter().find(|one| one.works()).unwrap_or(Isolation::Sweep)
        })
    }

    pub fn works(self) -> bool {
        let mut attempt = self.command(false);
        attempt.arg("true").stdout(Stdio::null()).stderr(Stdio::null());
        attempt.status().is_ok_and(|status| status.success())
    }

    /// What runs the program and the arguments that are added to it.
    pub fn command(self, private_net: bool) -> Command {
        /// Whatever descriptors cargo was started with, a box has none but the first three.
        const CLOSE: &str = r#"for fd in /proc/self/fd/*; do
            if ((${fd##*/} > 2)); then eval "exec ${fd##*/}>&-"; fi
        done; exec "$@""#;
        // A shell's background jobs ignore INT and QUIT, what `nohup` starts ignores HUP.
        let init = init();
        let mut words = vec!["-c", CLOSE, "box", "env", "--default-signal"];
        words.extend(match self {
            Isolation::Namespaces => &["unshare"][..],
            Isolation::UserNamespaces => &["unshare", "--user", "--map-root-user"],
            Isolation::Sweep => &["tini", "-s", "--"],
        });
        if self != Isolation::Sweep {
            words.extend(private_net.then_some("--net"));
            words.extend([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                &init,
                "--",
            ]);
        }
        let mut command = Command::new("bash");
        command.args(words);
        command
    }
}

/// tini by the name of a machine's init, of which nobody knows what it restarts. In a box of tini's own name,
/// as in a container, nothing would be restarted.
fn init() -> String {
    static INIT: OnceLock<String> = OnceLock::new();
    let link = || {
        let path = env::var_os("PATH").unwrap_or_default();
        let tini = env::split_paths(&path).map(|folder| folder.join("tini"));
        let tini = tini.into_iter().find(|file| file.exists()).expect("tini; run scripts/setup");
        let init = bin::probe().with_file_name("init");
        if fs::read_link(&init).ok().as_ref() != Some(&tini) {
            // Another test may do the same.
            let new = init.with_extension(process::id().to_string());
            std::os::unix::fs::symlink(tini, &new).expect("a link");
            fs::rename(&new, &init).expect("the link in its place");
        }
        init.display().to_string()
    };
    INIT.get_or_init(link).clone()
}

/// Runs `test` in a box with the usual settings.
#[track_caller]
pub fn run(test: impl FnOnce(&Path)) {
    Boxed::new().run(test);
}

/// The folder of the box we are in.
pub fn folder() -> Option<PathBuf> {
    env::var_os(FOLDER).map(PathBuf::from)
}

/// True in a box of the real root, who may be any user; not where a user namespace only calls us so.
pub fn by_root() -> bool {
    env::var_os(ROOT).is_some()
}

/// An address to listen on, another one at each call: nobody else has it, since the box has a network
/// of its own ([`Boxed::private_net`]) and clients get their ports from a higher range.
#[track_caller]
pub fn address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(8080);
    assert!(PRIVATE_NET.load(Ordering::Relaxed), "a test that listens has a network of its own");
    SocketAddr::from((Ipv4Addr::LOCALHOST, NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// In this box, once it is set up.
static PRIVATE_NET: AtomicBool = AtomicBool::new(false);
static MIGRATION: AtomicBool = AtomicBool::new(false);

/// Whether a connection failed by no fault of who listens. Where Linux moves what is queued from one
/// listener of a port to another, it still resets who connects in the very moment in which one of them
/// is closed: `scripts/bench --losses` counts them. Elsewhere such a reset is what somebody has lost;
/// and where nobody listens a connection is refused.
pub fn is_reset_by_linux(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionReset && MIGRATION.load(Ordering::Relaxed)
}

/// A box to be.
#[derive(Clone, Debug)]
pub struct Boxed {
    limit: Duration,
    private_net: bool,
    migration: bool,
    isolation: Option<Isolation>,
    needs: Isolation,
    env: Vec<(&'static str, String)>,
}

impl Default for Boxed {
    fn default() -> Self {
        Boxed {
            limit: Duration::from_secs(600),
            private_net: false,
            migration: true,
            isolation: None,
            needs: Isolation::Sweep,
            env: Vec::new(),
        }
    }
}

impl Boxed {
    pub fn new() -> Self {
        Self::default()
    }

    /// After this time the watchdog ends the box and the test has failed. Default: 600 s.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// A loopback of its own, where all ports are free and what is queued on a listener that closes
    /// moves to another one of its SO_REUSEPORT group (`net.ipv4.tcp_migrate_req`).
    pub fn private_net(mut self) -> Self {
        self.private_net = true;
        self
    }

    /// As [`private_net`](Self::private_net), but Linux as it is by default: what is queued on a
    /// listener that closes is reset.
    pub fn private_net_without_migration(mut self) -> Self {
        self.private_net = true;
        self.migration = false;
        self
    }

    /// Not what is best here. For tests of the boxes themselves.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = Some(isolation);
        self
    }

    /// Left out where nothing as good as this is available: `Namespaces` for a test that becomes
    /// another user, `UserNamespaces` for one that makes namespaces itself.
    pub fn needs(mut self, least: Isolation) -> Self {
        self.needs = least;
        self
    }

    /// A variable for all that runs in it.
    pub fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    #[track_caller]
    pub fn run(self, test: impl FnOnce(&Path)) {
        if let Err(failure) = self.try_run(test) {
            panic!("{failure}");
        }
    }

    /// The failure as a text: what the box printed, and what ran in it when time was up.
    pub fn try_run(self, test: impl FnOnce(&Path)) -> Result<(), String> {
        match folder() {
            None => self.outside(),
            Some(folder) => self.inside(&folder, test),
        }
    }

    fn inside(self, folder: &Path, test: impl FnOnce(&Path)) -> ! {
        // Standard input ends when the process outside ends, in whatever way.
        thread::spawn(|| {
            let _ = io::stdin().read(&mut [0]);
            process::exit(FAILED);
        });
        // libtest has begun a line.
        println!();
        let passed = catch_unwind(AssertUnwindSafe(|| {
            if env::var_os(ENTERED).is_some() {
                PRIVATE_NET.store(self.private_net, Ordering::Relaxed);
                return test(folder);
            }
            if env::var_os(MOUNTS).is_some() {
                // In memory: a disk that is busy with other things holds up writers for a minute.
                mount_tmpfs("755", folder);
                // What a KILLed process leaves there goes with the box, and its name, most often a
                // PID, means nobody of another box.
                let shared = Path::new("/dev/shm");
                if shared.is_dir() {
                    mount_tmpfs("1777", shared);
                }
            }
            if self.private_net {
                let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
                assert!(up.expect("ip; run scripts/setup").success(), "no loopback");
                let migrate = if self.migration { "1" } else { "0" };
                fs::write("/proc/sys/net/ipv4/tcp_migrate_req", migrate).expect("tcp_migrate_req");
                PRIVATE_NET.store(true, Ordering::Relaxed);
                MIGRATION.store(self.migration, Ordering::Relaxed);
            }
            test(folder);
        }));
        if passed.is_err() {
            eprintln!("Left in the box:\n{}", members(folder));
        }
        process::exit(if passed.is_ok() { PASSED } else { FAILED });
    }

    fn outside(self) -> Result<(), String> {
        thread_local!(static USED: Cell<bool> = const { Cell::new(false) });
        assert!(!USED.replace(true), "a test has one box: inside, the first would run again");
        let thread = thread::current();
        let name = thread.name().expect("a test's thread has its name");
        let isolation = self.isolation.unwrap_or_else(Isolation::available);
        if self.private_net && isolation == Isolation::Sweep {
            return left_out(name, "no private network without namespaces");
        }
        if isolation > self.needs {
            return left_out(name, &format!("it needs {:?}, there is {isolation:?}", self.needs));
        }
        bin::build();
        let folder = Folder::new();
        let (inner, output) = (folder.0.join("box"), folder.0.join("output"));
        DirBuilder::new().mode(0o755).create(&inner).expect("a folder for the box");
        let mut command = isolation.command(self.private_net);
        this_test(&mut command, name)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env(FOLDER, &inner)
            .env("TMPDIR", &inner)
            .env(bin::BUILT, "1")
            .stdin(Stdio::piped());
        if isolation == Isolation::Namespaces {
            command.env(ROOT, "1");
        }
        if isolation != Isolation::Sweep {
            command.env(MOUNTS, "1");
        }
        if env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "debug");
        }
        let file = File::options()
            .append(true)
            .create_new(true)
            .open(&output)
            .expect("a file for the output");
        command.stdout(file.try_clone().expect("the file again")).stderr(file);

        let mut top =
            command.spawn().map_err(|error| format!("{command:?}: {error}; run scripts/setup"))?;
        let in_time = Watched::new(top.id()).ends_within(self.limit);
        let mut left = String::new();
        if !in_time {
            left = format!("Running when time was up:\n{}", members(&inner));
            // Where there are namespaces, their init dies by this, and with it all that is in them.
            let init: Vec<Watched> = children(top.id()).into_iter().map(Watched::new).collect();
            top.kill().expect("KILL");
            if isolation != Isolation::Sweep {
                init.iter().for_each(|init| init.wait_end(Duration::from_secs(10)));
            }
        }
        let status = top.wait().expect("the end of the box");
        if isolation == Isolation::Sweep {
            sweep(&inner);
        }
        let how = match status.code() {
            _ if !in_time => format!("did not end within {:?}", self.limit),
            Some(PASSED) => return Ok(()),
            Some(FAILED) => "failed".to_owned(),
            Some(0) => "never ran: is its thread named after the test?".to_owned(),
            _ => format!("ended: {status}"),
        };
        let output = fs::read(&output).unwrap_or_default();
        Err(format!("{name} {how}\n{}{left}", String::from_utf8_lossy(&output)))
    }
}

fn mount_tmpfs(mode: &str, at: &Path) {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("mode={mode}"), "tmpfs"]).arg(at);
    assert!(mount.status().expect("mount").success(), "no file system of its own at {at:?}");
}

/// The test's own binary, to run this one test.
fn this_test<'a>(command: &'a mut Command, name: &str) -> &'a mut Command {
    command.arg(env::current_exe().expect("the test's binary")).args([
        name,
        "--exact",
        "--include-ignored",
        "--nocapture",
        "--test-threads=1",
    ])
}

/// Runs the rest of the test, which is in a box already, by this command: it enters namespaces that
/// were made in the box, and executes what follows.
#[track_caller]
pub(crate) fn go_on_in(mut command: Command) {
    let thread = thread::current();
    let name = thread.name().expect("a test's thread has its name");
    let mut child = this_test(&mut command, name)
        .env(ENTERED, "1")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run scripts/setup"));
    let _held = child.stdin.take(); // it ends when this process ends; `wait` would close it
    let status = child.wait().expect("its end");
    assert_eq!(status.code(), Some(PASSED), "the test within the box: {status}");
}

/// Does this process run where [`go_on_in`] has brought it?
pub(crate) fn has_entered() -> bool {
    env::var_os(ENTERED).is_some()
}

/// What runs in the box, a line each.
fn members(folder: &Path) -> String {
    let processes = all().into_iter().filter(|stat| is_member(stat.pid, folder));
    processes
        .map(|stat| {
            let command = command_line(stat.pid).join(" ");
            format!("  pid {} of {} {} {}: {command}\n", stat.pid, stat.ppid, stat.state, stat.comm)
        })
        .collect()
}

fn is_member(pid: u32, folder: &Path) -> bool {
    pid != process::id() && variable(pid, FOLDER).is_some_and(|value| Path::new(&value) == folder)
}

/// Kills all that carries the name of the box, until nothing is left that could start more.
fn sweep(folder: &Path) {
    wait_for("all processes of the box end", Duration::from_secs(10), || {
        let pids = all().into_iter().map(|stat| stat.pid);
        // First held, then looked at: the number cannot come to mean another process in between.
        let held = pids.map(Watched::new).filter(|process| is_member(process.pid(), folder));
        let left: Vec<Watched> = held.filter(Watched::kill).collect();
        left.is_empty().then_some(())
    });
}

/// Where a machine cannot do what a test needs: said, collected, and a failure under `CI=true`.
fn left_out(test: &str, why: &str) -> Result<(), String> {
    let line = format!("{test}: {why}");
    if env::var_os("CI").is_some_and(|value| value == "true") {
        return Err(line);
    }
    eprintln!("left out: {line}");
    if let Some(path) = env::var_os(LEFT_OUT) {
        let file = File::options().append(true).create(true).open(path);
        let mut file = file.expect("the list of what is left out");
        io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).expect("a line in it");
    }
    Ok(())
}

/// A temporary folder that goes with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = OsString::from(format!("seamless-{}-{count}", process::id()));
            let path = env::temp_dir().join(name);
            match DirBuilder::new().mode(0o755).create(&path) {
                Ok(()) => return Folder(path),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if fs::remove_dir_all(&self.0).is_err() {
            // A test may have taken its folders' write permission away.
            permit(&self.0);
            if let Err(error) = fs::remove_dir_all(&self.0) {
                eprintln!("{} stays: {error}", self.0.display());
            }
        }
    }
}

fn permit(folder: &Path) {
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            permit(&entry.path());
        }
    }
}
