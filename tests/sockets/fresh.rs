//! Sockets that a generation has taken over and could not have bound itself: the log warns of them, and
//! `seamless check` finds them, long before a fresh start fails.

use std::{
    fs,
    os::unix::fs::chown,
    path::Path,
    process::{Command, Stdio},
};

use seamless_testing::{
    boxed::{self, Boxed, Isolation},
    http::{self, Target},
    log::Log,
    process::{NOBODY, Watched},
    site::{Site, Started, User},
};

use super::origins;
use crate::command::seamless;

const WARNING: &str = "a fresh start of the service would fail";

/// A generation that has all rights but this one.
#[track_caller]
fn start_without(direct: &Site, capability: &str, options: &[&str]) -> (Started, Watched) {
    let probe = direct.command(options);
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set=-{capability}")).arg(probe.get_program());
    command.args(probe.get_args()).stdin(Stdio::null()).stderr(direct.log_end());
    let started = direct.spawn(&mut command);
    let daemon = started.wait_started();
    (started, daemon)
}

/// The addresses that this daemon has warned of, and what it advises.
fn warned(folder: &Path, daemon: &Watched) -> Vec<(String, String)> {
    let lines = Log::of(folder).stage("socket").into_iter();
    let own = lines.filter(|line| {
        line.is(&[("daemon", &daemon.pid().to_string())])
            && line.field("reason").is_some_and(|reason| reason.contains(WARNING))
    });
    let field =
        |line: &seamless_testing::log::Line, name| line.field(name).expect("a field").to_owned();
    own.map(|line| (field(&line, "address"), field(&line, "remedy"))).collect()
}

/// Its `make` sets IP_FREEBIND: the machine does not have the address, and a fresh start binds it even so.
#[test]
fn a_socket_that_the_program_makes_itself_is_no_warning() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let options = ["--tcp=192.0.2.7:8080,make=freebind", "--tcp=127.0.0.1:8080"];
        let (mut started, first) = direct.start_ready(&options);
        started.detach();
        let (_started, second) = direct.start_ready(&options);
        first.wait_end(super::LIMIT);
        assert_eq!(origins(folder, &second), ["predecessor"; 2]);
        assert_eq!(warned(folder, &second), []);
    });
}

#[test]
fn a_privileged_port_that_a_generation_could_not_bind_itself_is_a_warning() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let unix = format!("--unix={}", folder.join("unix").display());
        let options = [
            "--tcp=127.0.0.1:80",
            "--udp=127.0.0.1:53",
            "--group=[::1]:443,count=2",
            "--tcp=127.0.0.1:8080",
            &unix,
        ];
        // Of its sockets alone: it runs under no supervisor that is known.
        let check = || {
            let report = seamless("check", &direct.pid_file(), &["--json"]).json();
            let findings = report["findings"].as_array().expect("a list").clone();
            let about = findings.into_iter().filter(|one| one["about"] == "sockets");
            about.map(|one| one.to_string()).collect::<Vec<String>>()
        };
        let (mut started, first) = direct.start_ready(&options);
        assert!(check().is_empty(), "{:?}", check());
        started.detach();
        let (mut started, second) = start_without(&direct, "net_bind_service", &options);
        first.wait_end(super::LIMIT);
        assert_eq!(origins(folder, &second), ["predecessor"; 6]);
        assert_eq!(
            http::pid(&Target::from("127.0.0.1:80".parse::<std::net::SocketAddr>().unwrap())),
            second.pid()
        );
        let found = warned(folder, &second);
        let addresses: Vec<&str> = found.iter().map(|(address, _)| address.as_str()).collect();
        assert_eq!(addresses, ["127.0.0.1:80", "127.0.0.1:53", "[::1]:443"]);
        for (_, remedy) in &found {
            assert!(remedy.starts_with("ports below 1024 need the capability"), "{remedy}");
            assert!(remedy.contains("AmbientCapabilities=CAP_NET_BIND_SERVICE"), "{remedy}");
        }
        let words = ["serves tcp 127.0.0.1:80", "serves udp 127.0.0.1:53", "serves tcp [::1]:443"];
        let found = check();
        assert_eq!(found.len(), 3, "{found:?}");
        for (one, word) in found.iter().zip(words) {
            assert!(one.contains(word) && one.contains("problem"), "{one}");
            assert!(one.contains("CAP_NET_BIND_SERVICE"), "{one}");
        }

        // Ports that need no right are fine, and so is a generation that has it again.
        fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "53").expect("of this network");
        assert!(check().is_empty(), "{:?}", check());
        started.detach();
        let (mut started, third) = start_without(&direct, "net_bind_service", &options);
        assert_eq!(warned(folder, &third), []);
        fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024")
            .expect("of this network");
        started.detach();
        let (_started, fourth) = direct.start_ready(&options);
        assert_eq!(warned(folder, &fourth), []);
        assert!(check().is_empty(), "{:?}", check());
    });
}

/// Each trial delays the takeover.
#[test]
fn of_many_sockets_the_first_are_tried() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        let options: Vec<String> =
            (1..=20).map(|host| format!("--tcp=127.0.0.{host}:80")).collect();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let (mut started, first) = direct.start_ready(&options);
        started.detach();
        let (_started, second) = start_without(&direct, "net_bind_service", &options);
        first.wait_end(super::LIMIT);
        assert_eq!(origins(folder, &second), ["predecessor"; 20]);
        assert_eq!(warned(folder, &second).len(), 16);
    });
}

fn ip(words: &[&str]) {
    assert!(Command::new("ip").args(words).status().expect("ip").success());
}

#[test]
fn an_address_that_the_machine_has_lost_is_a_warning() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let direct = Site::alone(folder);
        ip(&["address", "add", "10.7.7.7/32", "dev", "lo"]);
        let port = boxed::address().port();
        let options = [format!("--tcp=10.7.7.7:{port}"), format!("--udp=10.7.7.7:{port}")];
        let options = options.each_ref().map(String::as_str);
        let (mut started, _first) = direct.start_ready(&options);
        started.detach();
        ip(&["address", "del", "10.7.7.7/32", "dev", "lo"]);
        let (_started, second) = direct.start_ready(&options);
        let found = warned(folder, &second);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found.iter().all(|(_, remedy)| remedy.starts_with("give the machine this address"))
        );
    });
}

fn the_folder_of_a_unix_path(folder: &Path) {
    let direct = Site::at(folder).user(User::ByItself { reads: true }).no_socket().alone();
    let place = folder.join("place");
    fs::create_dir(&place).expect("a folder");
    chown(&place, Some(NOBODY), Some(NOBODY)).expect("chown");
    let as_nobody = format!("--at=after-init=user:{NOBODY}");
    let unix = format!("--unix={}", place.join("unix").display());
    let datagram = format!("--unix-datagram={}", place.join("datagram").display());
    let options = [as_nobody.as_str(), &unix, &datagram];
    let (mut started, _first) = direct.start_ready(&options);
    started.detach();
    let (mut started, second) = direct.start_ready(&options);
    assert_eq!(warned(folder, &second), []);
    started.detach();
    chown(&place, Some(0), Some(0)).expect("chown");
    let (_started, third) = direct.start_ready(&options);
    assert_eq!(origins(folder, &third), ["predecessor"; 2]);
    let found = warned(folder, &third);
    assert_eq!(found.len(), 2, "{found:?}");
    let advice = "let the user of the service write to the folder of the path";
    assert!(found.iter().all(|(_, remedy)| remedy == advice), "{found:?}");
}

#[test]
fn a_unix_path_in_a_folder_that_may_not_be_written_is_a_warning() {
    Boxed::new()
        .private_net_without_migration()
        .needs(Isolation::Namespaces)
        .run(the_folder_of_a_unix_path);
}
