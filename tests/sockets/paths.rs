//! The paths of Unix sockets, and that of the control socket.

use std::{
    fs,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixListener},
    },
    path::Path,
};

use seamless_testing::{
    boxed::{self, Boxed},
    handover::{self},
    http::{self, Connection, Target, answer_of},
    process::stop_without_claim,
    site::Site,
};

use super::{LIMIT, TERM, next, origins, sockets};

// ---- Unix paths ----

#[test]
fn a_unix_path_has_its_mode_and_replaces_what_is_stale() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let path = folder.join("unix");
        drop(UnixListener::bind(&path).expect("a listener")); // leaves its path
        let leftover = folder.join("unix.new");
        drop(UnixListener::bind(&leftover).expect("a listener"));
        let datagram = folder.join("datagram");
        drop(UnixDatagram::bind(&datagram).expect("a socket"));
        let (_started, daemon) = direct.start_ready(&[
            &format!("--unix={},mode=612", path.display()),
            &format!("--unix-datagram={},mode=777", datagram.display()),
        ]);
        let mode =
            |path: &Path| fs::metadata(path).expect("a socket").permissions().mode() & 0o7777;
        assert_eq!((mode(&path), mode(&datagram)), (0o612, 0o777));
        assert_eq!(mode(&direct.socket()), 0o600);
        assert!(!leftover.exists());
        assert_eq!(http::pid(&Target::Unix(path)), daemon.pid());
    });
}

#[test]
fn p10_a_unix_path_of_somebody_else_is_an_error() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let path = folder.join("unix");
        let us = std::process::id();
        let in_use = format!("socket: cannot bind {path:?} (socket): address in use; ");
        let refused = |option: &str| {
            let option = format!("--{option}={}", path.display());
            direct.start(&[&option]).wait_error().text
        };
        let theirs = UnixListener::bind(&path).expect("a listener");
        let text = format!("{in_use}process {us}, which is no predecessor, listens there");
        assert_eq!(refused("unix"), text);
        assert_eq!(refused("unix-datagram"), format!("{in_use}somebody listens there"));
        drop(theirs);
        fs::remove_file(&path).expect("removed");
        let theirs = UnixDatagram::bind(&path).expect("a socket");
        assert_eq!(refused("unix-datagram"), format!("{in_use}somebody listens there"));
        drop(theirs);
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "mine").expect("a file");
        assert_eq!(refused("unix"), format!("{in_use}something that is no socket is there"));
        assert_eq!(fs::read_to_string(&path).expect("unharmed"), "mine");
        fs::remove_file(&path).expect("removed");
        fs::write(folder.join("unix.new"), "mine").expect("a file");
        let text = format!(
            "socket: cannot bind {path:?} (socket): {:?} is in the way and is not a socket",
            folder.join("unix.new")
        );
        assert_eq!(refused("unix"), text);
    });
}

/// A version before has bound the path by itself, and gives nothing: it is asked who listens, and is no stranger.
#[test]
fn p1_a_unix_path_at_which_a_predecessor_listens_is_replaced() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let path = folder.join("unix");
        let (mut started, old) = direct
            .start_ready(&[&format!("--listen={}", path.display()), "--successor-timeout=none"]);
        assert_eq!(http::pid(&Target::Unix(path.clone())), old.pid());
        started.detach();
        let (_started, new) = direct.start_ready(&[&format!("--unix={}", path.display())]);
        old.wait_end(LIMIT);
        assert_eq!(origins(folder, &new), ["bound"]);
        assert_eq!(http::pid(&Target::Unix(path)), new.pid());
    });
}

#[test]
fn a_unix_socket_that_lost_its_path_is_bound_anew() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let path = folder.join("unix");
        let option = format!("--unix={}", path.display());
        let first = direct.start_ready(&[&option]);
        fs::remove_file(&path).expect("removed");
        let second = next(&direct, first, &[&option]);
        direct.log.wait_words(&["refused=\"its path no longer names it: bound anew\""], 1);
        assert_eq!(http::pid(&Target::Unix(path.clone())), second.1.pid());
        // Now somebody else has it, and keeps it.
        fs::remove_file(&path).expect("removed");
        let _theirs = UnixListener::bind(&path).expect("a listener");
        let (mut started, daemon) = second;
        started.detach();
        let error = direct.start(&[&option]).wait_error().text;
        let text = format!(
            "socket: cannot bind {path:?} (socket): address in use; process {}, which is no \
             predecessor, listens there",
            std::process::id()
        );
        assert_eq!(error, text);
        assert!(!daemon.has_ended());
    });
}

#[test]
fn paths_longer_than_a_socket_address() {
    Boxed::new().private_net_without_migration().run(|folder| {
        // The folder is too long, or even the name by itself.
        for name in ["web.pid", &"n".repeat(200)] {
            let place = folder.join("d".repeat(120)).join(&name[..1]);
            fs::create_dir_all(&place).expect("a folder");
            let path = place.join(name);
            let unix = place.join(format!("{name}.unix"));
            let direct = Site::alone(&place);
            let options = [
                format!("--pid-file={}", path.display()),
                format!("--unix={}", unix.display()),
                "--tcp=127.0.0.1:0".to_owned(),
            ];
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            let first = direct.start_ready(&options);
            let (_started, second) = next(&direct, first, &options);
            assert_eq!(origins(&place, &second), ["predecessor"; 2]);
            let mut left: Vec<String> = fs::read_dir(&place)
                .expect("the folder")
                .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
                .collect();
            left.sort();
            let mut expected = ["", ".lock", ".sock", ".unix"].map(|end| format!("{name}{end}"));
            expected.sort();
            left.retain(|name| name != "log" && name != "report");
            assert_eq!(left, expected);
        }
    });
}

// ---- the control socket ----

#[test]
fn a_takeover_socket_that_was_removed_is_put_back() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let options = ["--tcp=127.0.0.1:0", "--successor-timeout=none"];
        let (mut started, daemon) = direct.start_ready(&options);
        let bound = sockets(&direct, &daemon);
        started.detach();
        for stale in [false, true] {
            fs::remove_file(direct.socket()).expect("removed");
            if stale {
                drop(UnixListener::bind(direct.socket()).expect("a listener"));
            }
            direct
                .log
                .wait_words(&["nobody listened at the control socket"], 1 + usize::from(stale));
            let status = handover::status(&direct.socket());
            assert!(status.contains(&format!("daemon={}", daemon.pid())), "{status}");
        }
        assert_eq!(direct.named(), Some(daemon.pid()));
        let files = fs::read_dir(folder).expect("the folder").flatten();
        let names = files.filter_map(|file| file.file_name().into_string().ok());
        let of_flows: Vec<String> =
            names.filter(|name| name.starts_with("web.pid.sock.")).collect();
        assert!(of_flows.is_empty(), "it steers no flows: {of_flows:?}");
        let (_second, new) = direct.start_ready(&options);
        assert_eq!(sockets(&direct, &new), bound);
        daemon.wait_end(LIMIT);
    });
}

#[test]
fn a_predecessor_whose_takeover_socket_is_missing_is_waited_for() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let options = ["--tcp=127.0.0.1:0", "--successor-timeout=none"];
        let (mut started, daemon) = direct.start_ready(&options);
        started.detach();
        stop_without_claim(&daemon); // so that it puts nothing back
        fs::remove_file(direct.socket()).expect("removed");
        let error = direct.start(&options).wait_error().text;
        let text = format!(
            "socket: cannot take over at {:?} (takeover): nobody listens there, while generation 1 \
             with daemon {} should; it looks after it each second",
            direct.socket(),
            daemon.pid()
        );
        assert_eq!(error, text);
        daemon.signal(18);
        direct.log.wait_words(&["nobody listened at the control socket"], 1);
        let (_second, new) = direct.start_ready(&options);
        assert_eq!(sockets(&direct, &new), sockets(&direct, &daemon));
    });
}

/// It serves no more and sees to no control socket, though it may live for as long as a download
/// takes; the generation that took its sockets is dead.
#[test]
fn p1_p9_a_predecessor_that_drains_is_not_waited_for() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let address = boxed::address();
        let tcp = format!("--tcp={address}");
        let options = [tcp.as_str(), "--successor-timeout=none"];
        let (mut first, old) = direct.start_ready(&options);
        let request = Connection::unfinished(&Target::from(address));
        // What comes later is accepted later.
        assert_eq!(http::pid(&Target::from(address)), old.pid());
        first.detach();
        let (mut second, new) = direct.start_ready(&options);
        direct.wait_drain(old.pid());
        second.launcher.kill();
        new.kill();
        second.wait_end();
        new.wait_end(LIMIT);

        let (_third, newest) = direct.start_ready(&options);
        assert_eq!(origins(folder, &newest), ["bound"]);
        assert_eq!(http::wait_pid(&Target::from(address)), newest.pid());
        assert!(request.finish().ends_with(&answer_of(old.pid())));
        old.wait_end(LIMIT);
    });
}

#[test]
fn p10_a_takeover_socket_that_cannot_be_put_in_place_is_an_error() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let temporary = folder.join("web.pid.sock.new");
        fs::write(&temporary, "mine").expect("a file");
        let mut first = direct.start(&[]);
        let text = format!(
            "started: cannot bind {:?} (takeover): {temporary:?} is in the way and is not a socket",
            direct.socket()
        );
        assert_eq!(first.wait_error().text, text);
        fs::remove_file(&temporary).expect("removed");
        direct.start_ready(&[]);
    });
}

#[test]
fn status_is_answered_also_while_draining() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let go = folder.join("go");
        let (started, daemon) = direct.start_ready(&[
            "--tcp=127.0.0.1:0",
            "--udp=127.0.0.1:0",
            &format!("--at=shutdown=file:{}", go.display()),
        ]);
        let status = handover::status(&direct.socket());
        let (head, sockets) = status.split_once('\n').expect("lines");
        let words: Vec<&str> = head.split(' ').collect();
        let (daemon_word, launcher_word) =
            (format!("daemon={}", daemon.pid()), format!("launcher={}", started.launcher.pid()));
        assert_eq!(
            words[..7],
            [
                "seamless-takeover",
                "1",
                "status",
                "generation=1",
                "state=serving",
                &daemon_word,
                &launcher_word
            ]
        );
        assert!(words[7].starts_with("age_ms="), "{head}");
        assert_eq!(words[8], "sockets=2");
        let kinds: Vec<&str> = sockets.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(kinds, ["tcp", "udp"]);
        daemon.signal(TERM);
        direct.report.wait_of(daemon.pid(), "hook");
        let status = handover::status(&direct.socket());
        assert!(status.contains(" state=draining "), "{status}");
        assert!(status.contains(" sockets=0 "), "{status}");
        fs::write(go, "").expect("a file");
        daemon.wait_end(LIMIT);
    });
}
