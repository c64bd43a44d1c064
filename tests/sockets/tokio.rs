//! `sockets::tokio`: a socket in the wrong mode, and a line protocol.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
};

use seamless_testing::{
    bin,
    boxed::{self, Boxed},
    http::{self, Target},
    process::Watched,
    scene::script,
    supervisor::{Service, Supervisor},
    under_each_supervisor, wait_for,
};

use super::LIMIT;

/// As a program inherits it whose earlier version asked for `sockets::tcp`.
fn p1_p2_a_blocking_socket_is_taken_over_and_the_drain_ends(kind: Supervisor, folder: &Path) {
    let address = boxed::address();
    let (pid_file, log) = (folder.join("web.pid"), folder.join("axum.log"));
    let options = format!("--tcp={address},blocking --accept=never");
    let run = format!(
        "if [ -e '{place}/deployed' ]; then\n    exec 2>>'{}'\n    exec '{}' '{}' {address}\nfi\n{}",
        log.display(),
        bin::example("axum").display(),
        pid_file.display(),
        script(folder, &options),
        place = folder.display(),
    );
    let mut service = Service::new(kind, folder.join("service"), &run);
    let read = || fs::read_to_string(&pid_file).ok()?.trim().parse::<u32>().ok();
    let blocks = Watched::new(wait_for("a first generation", LIMIT, read));
    service.settle();
    fs::write(folder.join("deployed"), "").expect("a file");
    service.restart();
    let target = Target::Tcp(address);
    let second = http::wait_pid(&target);
    blocks.wait_end(LIMIT);
    let second = Watched::new(second);
    let text = fs::read_to_string(&log).expect("the log");
    let changed = text.lines().find(|line| line.contains("nonblocking=true"));
    assert!(changed.is_some_and(|line| line.contains("INFO")), "{text}");
    assert!(!text.contains("asked for otherwise"), "{text}");

    // From now on it is in the right mode.
    service.settle();
    service.restart();
    second.wait_end(LIMIT);
    let third = Watched::new(http::wait_pid(&target));
    let text = fs::read_to_string(&log).expect("the log");
    assert_eq!(text.matches("nonblocking=").count(), 1, "{text}");

    service.exit();
    service.wait_exit();
    third.wait_end(LIMIT);
}

/// A client that asks on and on is served by the process that it has connected to; a new one by the
/// newest; and a stop waits for a client until it is silent.
fn p3_lines_are_answered_by_the_process_that_the_client_has(kind: Supervisor, folder: &Path) {
    let address = boxed::address();
    let pid_file = folder.join("web.pid");
    let run = format!(
        "exec 2>&1\nexec '{}' '{}' {address}",
        bin::example("lines").display(),
        pid_file.display()
    );
    let service = Service::new(kind, folder.join("service"), &run);
    let connect = || TcpStream::connect(address).ok().map(BufReader::new);
    let mut first = wait_for("a server", LIMIT, connect);
    let old = ask(&mut first, "one");
    first.get_mut().write_all(b"half a li").expect("a connection");
    let daemon = Watched::new(old);
    service.settle();
    service.restart();
    let new = wait_for("a second generation", LIMIT, || {
        Some(ask(&mut connect()?, "new")).filter(|new| *new != old)
    });
    first.get_mut().write_all(b"ne\n").expect("a connection");
    assert_eq!(answer(&mut first), (old, "half a line".to_owned()));
    assert_eq!(ask(&mut first, "more"), old);
    // The old one may still take connections until its drain has begun.
    wait_for("new ones are the new one's", LIMIT, || {
        (ask(&mut connect()?, "new") == new).then_some(())
    });
    assert!(!daemon.has_ended());
    drop(first);
    daemon.wait_end(LIMIT);
}

fn ask(client: &mut BufReader<TcpStream>, line: &str) -> u32 {
    client.get_mut().write_all(format!("{line}\n").as_bytes()).expect("a connection");
    let (pid, echo) = answer(client);
    assert_eq!(echo, line);
    pid
}

fn answer(client: &mut BufReader<TcpStream>) -> (u32, String) {
    let mut line = String::new();
    client.read_line(&mut line).expect("an answer");
    let (pid, echo) = line.trim_end().split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
    (pid.parse().expect("a PID"), echo.to_owned())
}

under_each_supervisor![
    Boxed::new().private_net_without_migration() =>
    p1_p2_a_blocking_socket_is_taken_over_and_the_drain_ends,
    p3_lines_are_answered_by_the_process_that_the_client_has,
];
