//! Descriptors that the program keeps for its successor.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};
use seamless_testing::{
    boxed::{self, Boxed},
    process::{Watched, descriptors},
    site::Site,
    wait_for,
};

use super::{LIMIT, next};

/// What the probe of this PID reports under this name.
fn told(direct: &Site, daemon: &Watched, name: &str) -> Vec<String> {
    let events = direct.report.named(name).into_iter();
    events.filter(|event| event.pid == daemon.pid()).map(|event| event.text).collect()
}

/// How many descriptors of this file the process has open.
fn open(daemon: &Watched, path: &Path) -> usize {
    descriptors(daemon.pid()).iter().filter(|(_, target)| target == path).count()
}

fn is_locked(path: &Path) -> bool {
    let file = File::open(path).expect("the file");
    Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
}

#[test]
fn a_file_and_its_lock_go_from_generation_to_generation() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (plain, locked) = (folder.join("plain"), folder.join("locked"));
        let (plain, locked) = (plain.display(), locked.display());
        let old = direct.start_ready(&[
            &format!("--at=after-init=take:{plain}"),
            &format!("--at=after-init=keep:{plain}"),
            &format!("--at=after-init=lock:{locked}"),
        ]);
        let (path, lock) = (folder.join("plain"), folder.join("locked"));
        assert_eq!(told(&direct, &old.1, "took"), [format!("{plain} none")]);
        assert_eq!(told(&direct, &old.1, "kept"), [format!("{plain} ok"), format!("{locked} ok")]);
        let first = old.1.pid();
        let inode = fs::metadata(&path).expect("the file").ino();
        // The very file, although its path names another one now.
        fs::rename(&path, folder.join("moved")).expect("a new name");
        let new = next(
            &direct,
            old,
            &[
                &format!("--at=after-init=take:{plain}"),
                &format!("--at=after-init=take:{plain}"),
                &format!("--at=after-init=take:{locked}"),
            ],
        );
        let second = new.1.pid();
        let lock_inode = fs::metadata(&lock).expect("the file").ino();
        assert_eq!(
            told(&direct, &new.1, "took"),
            [format!("{plain} {inode}"), format!("{plain} none"), format!("{locked} {lock_inode}")]
        );
        let lines = fs::read_to_string(folder.join("moved")).expect("the file");
        assert_eq!(lines, format!("{first} keep\n{second} take\n"));
        // The first generation has ended, and nobody has unlocked it meanwhile.
        assert!(is_locked(&lock));
        // What was taken is not kept by itself.
        let third = next(&direct, new, &[&format!("--at=after-init=take:{locked}")]);
        assert_eq!(told(&direct, &third.1, "took"), [format!("{locked} none")]);
        assert!(!is_locked(&lock), "its last holder has ended");
    });
}

#[test]
fn what_nobody_takes_is_closed_and_what_is_forgotten_does_not_come() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (left, gone) = (folder.join("left"), folder.join("gone"));
        let old = direct.start_ready(&[
            &format!("--at=after-init=keep:{}", left.display()),
            &format!("--at=started=keep:{}", gone.display()),
            &format!("--at=started=forget:{}", gone.display()),
        ]);
        wait_for("one copy of the one that is kept", LIMIT, || {
            (open(&old.1, &left) == 1 && open(&old.1, &gone) == 0).then_some(())
        });
        let new = next(&direct, old, &[&format!("--at=ready=take:{}", gone.display())]);
        assert_eq!(told(&direct, &new.1, "took"), [format!("{} none", gone.display())]);
        assert_eq!(open(&new.1, &left), 0);
        direct.log.wait_words(&["stage=transfer", "sockets=0", "descriptors=1"], 2);
        direct.log.wait_words(
            &["stage=socket", "kind=descriptor", "from=predecessor", "closed=\"not asked for\""],
            1,
        );
    });
}

/// The launcher has one in the first place: it drops it.
#[test]
fn p12_the_last_one_that_outlives_a_crash_is_forgotten() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let gone = folder.join("gone");
        let (started, daemon) = direct.start_ready(&[
            &format!("--at=after-init=keep-crash:{}", gone.display()),
            &format!("--at=started=forget:{}", gone.display()),
        ]);
        direct.log.wait_words(&["stage=keep", "reason=\"no keeper is needed any more\""], 1);
        for process in [&started.launcher, &daemon] {
            wait_for("no copy", LIMIT, || (open(process, &gone) == 0).then_some(()));
        }
    });
}

#[test]
fn the_copy_is_closed_when_the_drain_begins() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let (kept, go) = (folder.join("kept"), folder.join("go"));
        let (mut started, old) = direct.start_ready(&[
            &format!("--at=after-init=keep:{}", kept.display()),
            &format!("--at=shutdown=guard:{}", go.display()),
        ]);
        assert_eq!(open(&old, &kept), 1);
        started.detach();
        let (_started, _new) = direct.start_ready(&[]);
        wait_for("no copy", LIMIT, || (open(&old, &kept) == 0).then_some(()));
        assert!(!old.has_ended(), "it drains");
        fs::write(go, "").expect("a file");
        old.wait_end(LIMIT);
    });
}

#[test]
fn a_descriptor_that_cannot_be_kept_is_an_error() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let long = format!("/{}", "x/../".repeat(60));
        let (_started, daemon) = direct.start_ready(&[
            "--at=after-init=keep-userfaultfd:uffd",
            "--at=after-init=keep-userfaultfd:",
            "--at=after-init=keep-userfaultfd:seamless/counters",
            &format!("--at=after-init=keep-userfaultfd:{long}"),
        ]);
        let step = |name: &str| format!("error: cannot keep {name:?} (descriptor):");
        assert_eq!(
            told(&direct, &daemon, "kept"),
            [
                format!(
                    "uffd {} anon_inode:[userfaultfd] belongs to the memory of the process that has \
                     made it",
                    step("uffd")
                ),
                format!(" {} it has no name", step("")),
                format!(
                    "seamless/counters {} names that begin with \"seamless/\" belong to the crate",
                    step("seamless/counters")
                ),
                format!("{long} {} a name has at most 255 bytes", step(&long)),
            ]
        );
    });
}

/// As many as fit into no single message, with long names.
#[test]
fn hundreds_of_descriptors_travel() {
    Boxed::new().limit(std::time::Duration::from_secs(120)).run(|folder| {
        let direct = Site::alone(folder);
        let path = |at: usize| folder.join(format!("{at:03}-{}", "x".repeat(150)));
        let keep: Vec<String> =
            (0..400).map(|at| format!("--at=after-init=keep:{}", path(at).display())).collect();
        let old = direct.start_ready(&keep.iter().map(String::as_str).collect::<Vec<_>>());
        let take: Vec<String> =
            (0..400).map(|at| format!("--at=after-init=take:{}", path(at).display())).collect();
        let new = next(&direct, old, &take.iter().map(String::as_str).collect::<Vec<_>>());
        let expected: Vec<String> = (0..400)
            .map(|at| {
                let path = path(at);
                format!("{} {}", path.display(), fs::metadata(&path).expect("a file").ino())
            })
            .collect();
        assert_eq!(told(&direct, &new.1, "took"), expected);
    });
}
