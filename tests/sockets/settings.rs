//! Mode, owner and backlog of sockets that are taken over: brought to what the new program asks for, and
//! left alone where it asks for nothing.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::Path,
    process::Command,
};

use seamless_testing::{
    boxed::{self, Boxed, Isolation},
    http::{self, Target},
    log::Log,
    process::NOBODY,
    site::{Site, User},
    wait_for,
};

use super::{LIMIT, next, origins};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a socket").mode() & 0o7777
}

#[test]
fn the_mode_of_a_path_is_what_the_new_program_asks_for() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let (unix, datagram) = (folder.join("unix"), folder.join("datagram"));
        let options = |stream: &str, datagrams: &str| {
            [
                format!("--unix={}{stream}", unix.display()),
                format!("--unix-datagram={}{datagrams}", datagram.display()),
            ]
        };
        let modes = || (mode(&unix), mode(&datagram));
        let first = options(",mode=600", ",mode=622");
        let mut generation = direct.start_ready(&first.each_ref().map(String::as_str));
        let files = [&unix, &datagram].map(|path| fs::metadata(path).expect("a socket").ino());
        assert_eq!(modes(), (0o600, 0o622));
        // Wider, narrower than the umask leaves, not asked for.
        for (stream, datagrams, expected) in [
            (",mode=666", ",mode=660", (0o666, 0o660)),
            (",mode=0", ",mode=777", (0, 0o777)),
            (",mode=640", "", (0o640, 0o777)),
            ("", "", (0o640, 0o777)),
        ] {
            let options = options(stream, datagrams);
            let options = options.each_ref().map(String::as_str);
            generation = next(&direct, generation, &options);
            assert_eq!(modes(), expected, "{options:?}");
            assert_eq!(origins(folder, &generation.1), ["predecessor"; 2]);
            let now = [&unix, &datagram].map(|path| fs::metadata(path).expect("a socket").ino());
            assert_eq!(now, files, "the sockets themselves");
            assert_eq!(http::pid(&Target::Unix(unix.clone())), generation.1.pid());
        }
        let changed = |line: &&seamless_testing::log::Line| line.field("file").is_some();
        assert_eq!(Log::of(folder).stage("socket").iter().filter(changed).count(), 5);
    });
}

/// The old program serves on as it did.
#[test]
fn p11_a_program_that_fails_before_it_serves_changes_no_mode() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let path = folder.join("unix");
        let option = |mode| format!("--unix={},mode={mode}", path.display());
        let (mut started, _old) = direct.start_ready(&[&option(600), "--successor-timeout=none"]);
        started.detach();
        for end in ["exit:3", "raise:9"] {
            let mut failed = direct.start(&[&option(666), &format!("--at=ready={end}")]);
            failed.wait_init();
            failed.wait_end();
            assert_eq!(mode(&path), 0o600);
        }
        // In force when it serves, and not before.
        let go = folder.join("go");
        let new = direct.start(&[&option(666), &format!("--at=ready=file:{}", go.display())]);
        let daemon = new.wait_init();
        direct.report.wait_of(daemon.pid(), "socket");
        assert_eq!(mode(&path), 0o600);
        fs::write(go, "").expect("a file");
        new.wait_started();
        assert_eq!(mode(&path), 0o666);
    });
}

fn the_owner(folder: &Path) {
    let direct = Site::alone(folder);
    let path = folder.join("unix");
    let option = |more| format!("--unix={}{more}", path.display());
    let owner = || {
        let about = fs::metadata(&path).expect("a socket");
        (about.uid(), about.gid(), about.mode() & 0o7777)
    };
    let mut generation = direct.start_ready(&[&option(",mode=600,uid=7")]);
    assert_eq!(owner(), (7, 0, 0o600));
    for (more, expected) in [
        (",gid=12", (7, 12, 0o600)),
        (",uid=9,mode=660", (9, 12, 0o660)),
        (",uid=0,gid=0", (0, 0, 0o660)),
        ("", (0, 0, 0o660)),
    ] {
        generation = next(&direct, generation, &[&option(more)]);
        assert_eq!(owner(), expected, "{more}");
        assert_eq!(origins(folder, &generation.1), ["predecessor"]);
    }
}

#[test]
fn the_owner_and_the_group_of_a_path_are_what_the_new_program_asks_for() {
    Boxed::new().private_net_without_migration().needs(Isolation::Namespaces).run(the_owner);
}

fn p10_who_may_not_change_it(folder: &Path) {
    let direct = Site::at(folder).user(User::ByItself { reads: true }).no_socket().alone();
    let path = folder.join("run/unix");
    let option = |more: &str| format!("--unix={}{more}", path.display());
    let as_nobody = format!("--at=after-init=user:{NOBODY}");
    let (mut started, old) =
        direct.start_ready(&[&as_nobody, &option(",mode=600"), "--successor-timeout=none"]);
    started.detach();
    let refused = |more: &str, what: &str| {
        let error = direct.start(&[&as_nobody, &option(more)]).wait_error().text;
        let text = format!(
            "started: cannot change unix {} to {what} (socket): Operation not permitted (os error 1); ",
            path.display()
        );
        assert!(error.starts_with(&text), "{error}");
        assert!(!old.has_ended());
        assert_eq!(mode(&path), 0o600);
    };
    refused(",uid=0", "owner 0:-");
    refused(",gid=0,mode=660", "mode 0660 and owner -:0");
    chown(&path, Some(0), Some(0)).expect("chown");
    refused(",mode=666", "mode 0666");
    // As it is already: nothing has to be changed.
    let (_started, new) = direct.start_ready(&[&as_nobody, &option(",mode=600,uid=0")]);
    assert_eq!(origins(folder, &new), ["predecessor"]);
}

#[test]
fn p10_a_mode_or_an_owner_that_may_not_be_changed_is_an_error_that_names_it() {
    Boxed::new()
        .private_net_without_migration()
        .needs(Isolation::Namespaces)
        .run(p10_who_may_not_change_it);
}

/// As the kernel tells it, of all listeners whose line holds this.
fn backlogs(kind: &str, address: &str) -> Vec<u32> {
    let listed = Command::new("ss").args([kind, "-lnH"]).output().expect("ss");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let lines = listed.lines().filter(|line| line.contains(address));
    let column = if kind == "-x" { 3 } else { 2 };
    lines
        .map(|line| line.split_whitespace().nth(column).expect("Send-Q").parse().expect("a number"))
        .collect()
}

#[test]
fn the_backlog_is_what_the_new_program_asks_for() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let [tcp, group] = [(); 2].map(|()| boxed::address());
        let path = folder.join("unix");
        let options = |more: &str| {
            [
                format!("--tcp={tcp}{more}"),
                format!("--unix={}{more}", path.display()),
                format!("--group={group},count=2{more}"),
            ]
        };
        let mut generation =
            direct.start_ready(&options(",backlog=7").each_ref().map(String::as_str));
        for (more, expected) in [("", 7), (",backlog=1000", 1000), ("", 1000), (",backlog=3", 3)] {
            generation = next(&direct, generation, &options(more).each_ref().map(String::as_str));
            let found = || {
                let mut all = backlogs("-t", &tcp.to_string());
                all.extend(backlogs("-x", "/unix"));
                all.extend(backlogs("-t", &group.to_string()));
                all
            };
            wait_for(format!("{expected} of each: {:?}", found()), LIMIT, || {
                (found() == [expected; 4]).then_some(())
            });
            assert_eq!(origins(folder, &generation.1), ["predecessor"; 4]);
        }
    });
}
