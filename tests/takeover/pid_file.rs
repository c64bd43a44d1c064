//! What may stand in the place of the PID file: the service starts and is taken over all the same,
//! and nobody else is harmed.
//!
//! The same for files and folders of other users, and for PIDs that are used again, is in
//! `tests/root`; for what is in the place of the lock file, and of the temporary one, in `files`.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    http::{self, Prober, Target},
    innocent::Innocent,
    process::{Watched, stop_without_claim},
    scene,
    signal::{CONT, TERM},
    site::Site,
    wait_for,
};

/// Where damage is done, and what it must leave alone.
struct Ground {
    direct: Site,
    target: Target,
    innocent: Innocent,
    precious: PathBuf,
    nowhere: PathBuf,
    /// Holds the lock on what it has put there.
    locked: Option<File>,
}

type Put = fn(&mut Ground, &Path);

impl Ground {
    fn new(folder: &Path) -> Self {
        let innocent = Innocent::start();
        let precious = folder.join("precious");
        fs::write(&precious, format!("{}\n", innocent.pid())).expect("a file");
        Ground {
            direct: Site::alone(folder),
            target: Target::from(folder.join("web.sock").as_path()),
            innocent,
            precious,
            nowhere: folder.join("nowhere"),
            locked: None,
        }
    }

    fn put(&mut self, put: Put) {
        let path = self.direct.pid_file();
        let _ = fs::remove_file(&path);
        self.locked = None;
        put(self, &path);
    }

    fn options(&self) -> [String; 2] {
        ["--successor-timeout=none".to_owned(), format!("--listen={}", self.target)]
    }

    /// `web.pid` is a daemon's again, and nothing else was touched.
    #[track_caller]
    fn assert_repaired(&self, daemon: &Watched, what: &str) {
        let path = self.direct.pid_file();
        let about = fs::symlink_metadata(&path).expect("the PID file");
        assert!(about.is_file(), "{what}");
        assert_eq!(about.mode() & 0o777, 0o644, "{what}: nobody else may write to it");
        assert_eq!(self.direct.named(), Some(daemon.pid()), "{what}");
        assert!(!daemon.has_ended(), "{what}");
        self.assert_unharmed(what);
    }

    #[track_caller]
    fn assert_unharmed(&self, what: &str) {
        self.innocent.assert_unharmed();
        let precious = fs::read_to_string(&self.precious).expect("the target of a link");
        assert_eq!(precious, format!("{}\n", self.innocent.pid()), "{what}");
        assert!(!self.nowhere.exists(), "{what}");
    }
}

fn write(path: &Path, content: impl AsRef<[u8]>) {
    fs::write(path, content).expect("a PID file");
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
}

/// Everything that is no PID file of ours.
const DAMAGE: [(&str, Put); 25] = [
    ("absent", |_, _| ()),
    ("empty", |_, path| write(path, "")),
    ("a newline", |_, path| write(path, "\n")),
    ("text", |_, path| write(path, "web server\n")),
    ("binary", |_, path| write(path, [0, 255, 254, 10, 0])),
    ("0", |_, path| write(path, "0\n")),
    ("1", |_, path| write(path, "1\n")),
    ("-1", |_, path| write(path, "-1\n")),
    ("an innocent group", |it, path| write(path, format!("-{}\n", it.innocent.pid()))),
    ("40 digits", |_, path| write(path, "9".repeat(40))),
    ("a number beyond all PIDs", |_, path| write(path, "4294967298\n")),
    ("a mebibyte of digits", |_, path| write(path, "9".repeat(1 << 20))),
    ("an innocent PID", |it, path| write(path, format!("{}\n", it.innocent.pid()))),
    ("an innocent PID as Go writes it", |it, path| write(path, it.innocent.pid().to_string())),
    ("an innocent PID among blanks", |it, path| write(path, format!(" {} \n", it.innocent.pid()))),
    ("the test's own PID", |_, path| write(path, format!("{}\n", std::process::id()))),
    ("an innocent PID, locked", |it, path| {
        write(path, format!("{}\n", it.innocent.pid()));
        let file = File::open(path).expect("the PID file");
        fs2::FileExt::lock_exclusive(&file).expect("the lock");
        it.locked = Some(file);
    }),
    ("world-writable", |it, path| {
        write(path, format!("{}\n", it.innocent.pid()));
        allow(path, 0o666);
    }),
    ("for nobody to read", |it, path| {
        write(path, format!("{}\n", it.innocent.pid()));
        allow(path, 0);
    }),
    ("a link to a file", |it, path| symlink(&it.precious, path).expect("a link")),
    ("a link to nowhere", |it, path| symlink(&it.nowhere, path).expect("a link")),
    ("a link to itself", |_, path| symlink(path, path).expect("a link")),
    ("a second name of a file", |it, path| fs::hard_link(&it.precious, path).expect("a link")),
    ("a fifo", |_, path| {
        assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
    }),
    ("a socket", |_, path| drop(UnixListener::bind(path).expect("a socket"))),
];

#[test]
fn p5_p10_a_damaged_pid_file_without_a_predecessor() {
    boxed::run(|folder| {
        let mut ground = Ground::new(folder);
        for (what, put) in DAMAGE {
            println!("{what}");
            ground.put(put);
            let (mut started, daemon) = ground.direct.start_ready(&[]);
            ground.assert_repaired(&daemon, what);
            daemon.signal(TERM);
            assert!(started.wait_end().success(), "{what}");
            ground.assert_unharmed(what);
        }
    });
}

/// The damage is there when `started` looks: the successor has the claim by then, so that nobody
/// mends it before.
#[test]
fn p1_p5_p10_a_damaged_pid_file_does_not_hide_the_predecessor() {
    Boxed::new().run(|folder| {
        let mut ground = Ground::new(folder);
        let options = ground.options();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let (mut started, mut old) = ground.direct.start_ready(&options);
        let prober = Prober::start(&ground.target);
        let mut pids = vec![old.pid()];
        for (nth, (what, put)) in DAMAGE.into_iter().enumerate() {
            println!("{what}");
            prober.wait_pid(old.pid());
            started.detach();
            let go = folder.join(format!("go-{nth}"));
            let wait = format!("--at=after-init=file:{}", go.display());
            let next = ground.direct.start(&[&options[..], &[wait.as_str()]].concat());
            let new = next.wait_init();
            ground.put(put);
            fs::write(go, "").expect("a file");
            ground.direct.report.wait_of(new.pid(), "started");
            let reason = ground.direct.report.wait_of(old.pid(), "wait").text;
            assert_eq!(reason, "TakenOver", "{what}");
            ground.assert_repaired(&new, what);
            pids.push(new.pid());
            (started, old) = (next, new);
        }
        prober.wait_pid(old.pid());
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), pids);
    });
}

/// The same damage while nobody else comes: the detached daemon mends it, at the second look where
/// the file names a process that lives.
#[test]
fn p5_p10_a_detached_daemon_mends_its_pid_file() {
    // Each look comes a second after the last: some services, each with a part of the damage.
    boxed::run(|folder| {
        scene::each(folder, DAMAGE.chunks(7), |folder, damage| {
            let mut ground = Ground::new(folder);
            let options = ground.options();
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let (mut started, daemon) = ground.direct.start_ready(&options);
            started.detach();
            let prober = Prober::start(&ground.target);
            for (nth, (what, put)) in damage.iter().enumerate() {
                println!("{what}");
                // No look comes between the removal of its file and the damage.
                stop_without_claim(&daemon);
                ground.put(*put);
                daemon.signal(CONT);
                ground.direct.log.wait_words(&["stage=check", "ours is back"], nth + 1);
                ground.assert_repaired(&daemon, what);
            }
            let probes = prober.stop();
            probes.assert_all_answered();
            assert_eq!(probes.pids(), [daemon.pid()]);
            let (_second, new) = ground.direct.start_ready(&options);
            assert_eq!(ground.direct.report.wait_of(daemon.pid(), "wait").text, "TakenOver");
            ground.assert_repaired(&new, "at the end");
        })
    });
}

/// Reached through a link or not, it is the same folder.
#[test]
fn p4_the_folder_may_be_a_link() {
    boxed::run(|folder| {
        let (real, link) = (folder.join("real"), folder.join("link"));
        fs::create_dir(&real).expect("a folder");
        symlink("real", &link).expect("a link");
        let mut before: Option<(Site, Watched)> = None;
        for path in [&link, &real, &link] {
            let direct = Site::alone(path);
            let (mut started, daemon) = direct.start_ready(&["--successor-timeout=none"]);
            if let Some((direct, old)) = before {
                assert_eq!(direct.report.wait_of(old.pid(), "wait").text, "TakenOver");
            }
            assert_eq!(direct.named(), Some(daemon.pid()));
            started.detach();
            before = Some((direct, daemon));
        }
    });
}

#[test]
fn p10_a_folder_that_leads_nowhere_is_an_error() {
    boxed::run(|folder| {
        symlink(folder.join("nowhere"), folder.join("dangling")).expect("a link");
        symlink("loop", folder.join("loop")).expect("a link");
        fs::write(folder.join("file"), "precious").expect("a file");
        for (name, why) in [
            ("missing", "No such file or directory (os error 2)"),
            ("dangling", "No such file or directory (os error 2)"),
            ("loop", "Too many levels of symbolic links (os error 40)"),
            ("file", "Not a directory (os error 20)"),
        ] {
            let direct = Site::alone(&folder.join(name));
            let mut command = Command::new(bin::probe());
            command.arg(format!("--pid-file={}", direct.pid_file().display()));
            let output = command.env("RUST_LOG", "off").output().expect("the probe");
            assert_eq!(output.status.code(), Some(111), "{name}");
            let error = String::from_utf8_lossy(&output.stderr);
            let text = format!("init: cannot open {:?} (claim): {why}", direct.lock_file());
            assert!(error.starts_with(&text), "{name}: {error}");
        }
        assert!(!folder.join("nowhere").exists());
        assert_eq!(fs::read_to_string(folder.join("file")).expect("the file"), "precious");
    });
}

#[test]
fn p10_a_folder_instead_of_a_file_is_an_error_of_init() {
    boxed::run(|folder| {
        let run = folder.join("run");
        fs::create_dir(&run).expect("a folder");
        let before = names_in(folder);
        let is_folder = "it is a folder; name a file in it, such as web.pid";
        for (path, why) in [
            (run.clone(), is_folder),
            (run.join(""), is_folder),
            (folder.join("new/"), is_folder),
            ("/".into(), "it names no file"),
            (run.join(".."), "it names no file"),
        ] {
            let mut command = Command::new(bin::probe());
            command.arg(format!("--pid-file={}", path.display()));
            let output = command.env("RUST_LOG", "off").output().expect("the probe");
            assert_eq!(output.status.code(), Some(111), "{path:?}");
            let error = String::from_utf8_lossy(&output.stderr);
            let text = format!("init: cannot use {path:?} (PID file): {why}\n");
            assert_eq!(error, text);
        }
        assert!(names_in(&run).is_empty());
        assert_eq!(names_in(folder), before);
    });
}

fn names_in(folder: &Path) -> Vec<OsString> {
    let entries = fs::read_dir(folder).expect("the folder");
    let mut names: Vec<OsString> =
        entries.map(|entry| entry.expect("a file").file_name()).collect();
    names.sort();
    names
}

/// Two writers never let go of the file: one replaces it by a rename, one writes into whatever is
/// there, longer and shorter each time. A generation is told by its TERM alone who takes over.
#[test]
fn p1_p4_p5_p10_a_pid_file_that_is_replaced_while_it_is_read() {
    Boxed::new().run(|folder| {
        let ground = Ground::new(folder);
        let options = ground.options();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let path = ground.direct.pid_file();
        let contents = [
            String::new(),
            format!("{}\n", ground.innocent.pid()),
            ground.innocent.pid().to_string(),
            "-1\n".to_owned(),
            "9".repeat(1 << 16),
            format!("{}\nand more\n", ground.innocent.pid()),
        ];
        let (over, renamed, written) =
            (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        let (mut started, mut old) = ground.direct.start_ready(&options);
        let prober = Prober::start(&ground.target);
        let mut pids = vec![old.pid()];
        let writing = || !over.load(Ordering::Relaxed);
        thread::scope(|scope| {
            let until = OnDrop(&over);
            scope.spawn(|| {
                let new = folder.join("other");
                for content in contents.iter().cycle().take_while(|_| writing()) {
                    write(&new, content);
                    fs::rename(&new, &path).expect("a rename");
                    renamed.fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                for content in contents.iter().cycle().take_while(|_| writing()) {
                    let mut file =
                        OpenOptions::new().write(true).open(&path).expect("the PID file");
                    file.write_all(content.as_bytes()).expect("its content");
                    file.set_len(content.len() as u64 / 2).expect("half of it");
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
            for _ in 0..2 {
                prober.wait_pid(old.pid());
                started.detach();
                ground.direct.wait_checks(old.pid(), 2);
                let (next, new) = ground.direct.start_ready(&options);
                ground.direct.report.wait_of(old.pid(), "wait");
                old.wait_end(LIMIT);
                assert!(!new.has_ended());
                ground.assert_unharmed("written over and over");
                pids.push(new.pid());
                (started, old) = (next, new);
            }
            prober.wait_pid(old.pid());
            for (what, count) in [("renamed", &renamed), ("written", &written)] {
                wait_for(format!("{what} 1000 times"), LIMIT, || {
                    (count.load(Ordering::Relaxed) > 1000).then_some(())
                });
            }
            drop(until);
        });
        started.detach();
        let named = || (ground.direct.named() == Some(old.pid())).then_some(());
        wait_for("it is mended", LIMIT, named);
        assert_eq!(http::pid(&ground.target), old.pid());
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), pids);
        let log = ground.direct.log.text();
        assert!(!log.contains("panicked"), "{log}");
    });
}

/// Set when it is dropped, also by a panic.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
