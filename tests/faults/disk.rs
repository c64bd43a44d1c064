//! A disk that is full, or cannot be written to, under the PID file. Whoever serves goes on; a start
//! says what is wrong, and works as soon as it is mended.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use seamless_testing::{
    LIMIT,
    boxed::{Boxed, Isolation},
    http::{Connection, Prober, answer_of},
    process::Watched,
    scene,
    site::Site,
    supervisor::Supervisor,
    under_each_supervisor,
};

const OPTIONS: &str = "--accept=started --successor-timeout=none";

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// No block is left.
    Full,
    /// No inode is left.
    NoInodes,
    ReadOnly,
}

/// What the three do to a file system, each in its own way.
struct Disk {
    /// Of the PID file.
    folder: PathBuf,
    fault: Fault,
}

impl Disk {
    fn mount(folder: &Path, fault: Fault) -> Disk {
        let size = match fault {
            Fault::Full => "mode=755,size=256k",
            Fault::NoInodes => "mode=755,nr_inodes=32",
            Fault::ReadOnly => "mode=755",
        };
        let folder = folder.join("run");
        fs::create_dir_all(&folder).expect("a folder");
        mount(&["-t", "tmpfs", "-o", size, "tmpfs"], &folder);
        Disk { folder, fault }
    }

    fn fail(&self) {
        match self.fault {
            Fault::Full => {
                let mut fill = fs::File::create(self.folder.join("fill")).expect("a file");
                while fill.write_all(&[0; 4096]).is_ok() {}
                let error = fill.write_all(&[0]).expect_err("it is full");
                assert_eq!(error.kind(), io::ErrorKind::StorageFull);
            }
            Fault::NoInodes => {
                let file = |number| fs::write(self.folder.join(format!("fill-{number}")), "");
                let mut numbers = 0..;
                let full = numbers.find_map(|number: u32| file(number).err()).expect("it is full");
                assert_eq!(full.kind(), io::ErrorKind::StorageFull);
            }
            // Over it, since files are open for writing below.
            Fault::ReadOnly => {
                mount(&["--bind", &self.folder.display().to_string()], &self.folder);
                mount(&["-o", "remount,bind,ro"], &self.folder);
            }
        }
    }

    fn mend(&self) {
        match self.fault {
            Fault::Full | Fault::NoInodes => {
                for file in fs::read_dir(&self.folder).expect("the folder").flatten() {
                    if file.file_name().as_encoded_bytes().starts_with(b"fill") {
                        fs::remove_file(file.path()).expect("it is there");
                    }
                }
            }
            Fault::ReadOnly => {
                // Lazily: a start may be looking there just now.
                let umount = Command::new("umount")
                    .arg("--lazy")
                    .arg(&self.folder)
                    .status()
                    .expect("umount");
                assert!(umount.success());
            }
        }
    }

    fn error(&self) -> &'static str {
        match self.fault {
            Fault::Full | Fault::NoInodes => "No space left on device (os error 28)",
            Fault::ReadOnly => "Read-only file system (os error 30)",
        }
    }
}

fn mount(words: &[&str], on: &Path) {
    let status = Command::new("mount").args(words).arg(on).status().expect("mount");
    assert!(status.success(), "mount {words:?} {}: {status}", on.display());
}

/// The disk fails before the first start, before a restart, and before the stop.
fn a_disk_that_fails(kind: Supervisor, folder: &Path, fault: Fault) {
    let disk = Disk::mount(folder, fault);
    disk.fail();
    let site = Site::at(folder)
        .shared_socket()
        .run_folder(&disk.folder)
        .options(OPTIONS)
        .begin_under(kind);
    let first_error = site.report.wait_nth("error", 2).text;
    assert!(first_error.starts_with("init: cannot "), "{first_error}");
    assert!(first_error.contains("web.pid.lock\" (claim): "), "{first_error}");
    assert!(first_error.contains(disk.error()), "{first_error}");
    assert!(site.report.named("started").is_empty());
    disk.mend();
    let old = Watched::new(site.wait_successor(0));

    let prober = Prober::start(&site.target);
    let request = Connection::unfinished(&site.target);
    request.wait_accepted(old.pid());
    let done = AtomicBool::new(false);
    let last = thread::scope(|scope| {
        let whole = scope.spawn(|| watch_pid_file(&site.pid_file(), &done));
        let before = site.report.named("error").len();
        disk.fail();
        site.service().restart();
        let error = site.report.wait_nth("error", before + 2).text;
        assert!(error.contains(disk.error()) && error.contains("/web.pid"), "{error}");
        prober.wait_more(3);
        assert_eq!(prober.seen().pids(), [old.pid()]);
        assert_eq!(site.named(), Some(old.pid()), "{site}");
        disk.mend();
        let new = site.wait_successor(old.pid());
        site.wait_drain_logged(old.pid());
        assert!(request.finish().ends_with(&answer_of(old.pid())));
        old.wait_end(LIMIT);
        site.wait_alone(new);
        prober.wait_pid(new);
        done.store(true, Ordering::Relaxed);
        let seen = whole.join().expect("no panic");
        assert_eq!(seen, [old.pid(), new], "each whole, and in this order");
        new
    });
    let probes = prober.stop();
    probes.assert_all_answered();
    assert_eq!(probes.pids(), [old.pid(), last]);

    disk.fail();
    site.stop();
    assert_eq!(site.report.wait_of(last, "wait").text, "Stopped");
    disk.mend();
    site.service().up();
    let back = site.wait_successor(last);
    site.wait_alone(back);
    site.stop();
}

/// Who is named there, one after the other. It is never empty, cut or missing.
fn watch_pid_file(path: &Path, done: &AtomicBool) -> Vec<u32> {
    let mut seen = Vec::new();
    loop {
        let is_last = done.load(Ordering::Relaxed);
        let text = fs::read_to_string(path).expect("it is there");
        let pid = text.strip_suffix('\n').and_then(|pid| pid.parse().ok());
        let pid = pid.unwrap_or_else(|| panic!("not whole: {text:?}"));
        if seen.last() != Some(&pid) {
            seen.push(pid);
        }
        if is_last {
            return seen;
        }
        thread::yield_now();
    }
}

fn p1_p10_the_disk_fails(kind: Supervisor, folder: &Path) {
    scene::each(folder, [Fault::Full, Fault::NoInodes, Fault::ReadOnly], |folder, fault| {
        a_disk_that_fails(kind, folder, fault);
    });
}

under_each_supervisor![
    Boxed::new().private_net().needs(Isolation::UserNamespaces) => p1_p10_the_disk_fails
];
