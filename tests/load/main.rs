//! Restarts under load, most often as much as the machine gives: only a few of these tests run at once.
//!
//! Sockets that are taken over lose nothing with Linux as it is by default. Where old and new
//! generation have a socket each, the network is one with `net.ipv4.tcp_migrate_req=1`, where Linux
//! hands what is queued at a closing SO_REUSEPORT listener to another one instead of resetting it, but
//! for now and then a connection that is being made in that moment, which is asked for again: what is
//! lost there, the crate or the example lost.
//!
//! With `SEAMLESS_TEST_LONG=1` (`scripts/test --long`) sockets are taken over 20 times in each test,
//! and by 128 and by 512 clients where a short run takes one of the two.

mod demo;
mod frameworks;
mod http_servers;
mod soak;

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use seamless_campaigns::load::{Load, Target};
use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    http, is_long,
    process::{Watched, signal},
    signal::HUP,
    supervisor::{Service, Supervisor, copy_folder},
    wait_for,
};

/// Requests from one restart to the next: what must be there for "no failure" to mean anything.
const FLOOR: u64 = 1_000;

/// The service folder that the repository ships, with this example in it.
fn shipped_service(supervisor: Supervisor, folder: &Path, example: &str, args: &str) -> Service {
    let name = match supervisor {
        Supervisor::Daemontools => "daemontools",
        Supervisor::Runit => "runit",
        Supervisor::S6 => "s6",
    };
    let web = folder.join("web");
    copy_folder(&bin::root().join("examples/service").join(name).join("web"), &web);
    // Not watched by svscan here, so its log has no `log/run`; and nobody called `web` need exist.
    let (program, pid_file) = (bin::example(example), folder.join("run/web.pid"));
    let env = format!(
        "WEB_BIN={}\nWEB_PID_FILE={}\nWEB_ARGS='{args}'\nWEB_USER=\nexport RUST_LOG=warn\n",
        program.display(),
        pid_file.display(),
    );
    fs::write(web.join("env"), env).expect("env");
    fs::remove_dir_all(web.join("log")).expect("log");
    Service::supervise(supervisor, web)
}

/// Restarts this often, each time as soon as the supervisor lets it and `floor` requests have ended
/// since the last time was over, and judges every request.
fn restarts(service: &Service, target: &Target, load: Load, restarts: usize, floor: u64) {
    restarts_since(http::wait_pid(target), service, load, restarts, floor);
}

/// The same, where it is known which daemon answers.
fn restarts_since(first: u32, service: &Service, load: Load, restarts: usize, floor: u64) {
    let running = load.start();
    assert!(running.wait_for_pid(first, LIMIT), "no answer under load");
    let more = |since| {
        let enough = since + floor;
        assert!(running.wait_for_requests(enough, LIMIT), "the newest generation does not answer");
    };
    let (mut old, mut since) = (first, running.requests());
    for restart in 1..=restarts {
        service.settle();
        more(since);
        let (launcher, daemon) = (Watched::new(service.main_pid()), Watched::new(old));
        running.mark_begin();
        service.restart();
        assert!(running.wait_for_pids(restart + 1, LIMIT), "restart {restart}: no new answer");
        launcher.wait_end(LIMIT);
        daemon.wait_end(LIMIT);
        running.mark_end();
        since = running.requests();
        old = *running.pids().last().expect("an answer");
    }
    more(since);
    let report = running.stop();
    println!("{report}");
    report.assert_clean(floor * (restarts as u64 + 1), restarts + 1);
}

fn tcp(supervisor: Supervisor, folder: &Path, example: &str) -> (Service, Target) {
    let address = boxed::address();
    let service = shipped_service(supervisor, folder, example, &format!("--listen {address}"));
    (service, Target::Tcp(address))
}

fn boxed(test: impl FnOnce(&Path)) {
    Boxed::new().private_net().run(test);
}

fn p1_p2_threads_128_clients(supervisor: Supervisor) {
    boxed(|folder| {
        let (service, target) = tcp(supervisor, folder, "threads");
        restarts(&service, &target, Load::new(target.clone()).clients(128), 3, FLOOR);
    });
}

#[test]
fn p1_p2_threads_128_clients_daemontools() {
    p1_p2_threads_128_clients(Supervisor::Daemontools);
}

#[test]
fn p1_p2_threads_128_clients_runit() {
    p1_p2_threads_128_clients(Supervisor::Runit);
}

#[test]
fn p1_p2_reuseport_512_clients_daemontools() {
    boxed(|folder| {
        let (service, target) = tcp(Supervisor::Daemontools, folder, "reuseport");
        restarts(&service, &target, Load::new(target.clone()).clients(512), 3, FLOOR);
    });
}

#[test]
fn p1_p2_reuseport_keep_alive_runit() {
    boxed(|folder| {
        let (service, target) = tcp(Supervisor::Runit, folder, "reuseport");
        restarts(&service, &target, Load::new(target.clone()).clients(128).keep_alive(), 3, FLOOR);
    });
}

#[test]
fn p1_p2_unixsocket_128_clients_runit() {
    boxed(|folder| {
        let socket = folder.join("web.sock");
        let args = format!("--unix-socket {}", socket.display());
        let service = shipped_service(Supervisor::Runit, folder, "unixsocket", &args);
        let target = Target::Unix(socket);
        restarts(&service, &target, Load::new(target.clone()).clients(128), 3, FLOOR);
    });
}

/// The next restart begins before the last one has drained: requests of 300 ms keep each old
/// generation busy while its successors come and go.
#[test]
fn p1_p2_p3_slow_requests_across_restarts_runit() {
    boxed(|folder| {
        let (service, target) = tcp(Supervisor::Runit, folder, "threads");
        let load = Load::new(target.clone()).clients(256).path("/?delay=300ms");
        restarts(&service, &target, load, 3, 256);
    });
}

/// How often sockets are taken over in a test.
fn takeovers() -> usize {
    if is_long() { 20 } else { 3 }
}

/// How many clients ask: all of these in a long run, the first in a short one.
fn clients(counts: [usize; 2]) -> impl Iterator<Item = usize> {
    counts.into_iter().take(if is_long() { 2 } else { 1 })
}

/// Linux as it is by default.
fn boxed_by_default(test: impl FnOnce(&Path)) {
    let limit = Duration::from_secs(if is_long() { 600 } else { 120 });
    Boxed::new().private_net_without_migration().limit(limit).run(test);
}

fn p2_takeover(supervisor: Supervisor, count: usize) {
    boxed_by_default(|folder| {
        let (service, target) = tcp(supervisor, folder, "takeover");
        restarts(&service, &target, Load::new(target.clone()).clients(count), takeovers(), FLOOR);
    });
}

#[test]
fn p1_p2_takeover_128_clients_daemontools() {
    p2_takeover(Supervisor::Daemontools, 128);
}

#[test]
fn p1_p2_takeover_128_clients_runit() {
    p2_takeover(Supervisor::Runit, 128);
}

#[test]
fn p1_p2_takeover_512_clients_daemontools() {
    p2_takeover(Supervisor::Daemontools, 512);
}

#[test]
fn p1_p2_takeover_512_clients_runit() {
    p2_takeover(Supervisor::Runit, 512);
}

/// In place: the supervised process stays.
fn p2_takeover_in_place(supervisor: Supervisor, keep_alive: bool) {
    boxed_by_default(|folder| {
        let address = boxed::address();
        let args = format!("--listen {address} --reload-signal HUP");
        let service = shipped_service(supervisor, folder, "takeover", &args);
        let target = Target::Tcp(address);
        let mut old = http::wait_pid(&target);
        let launcher = service.main_pid();
        let load = Load::new(target).clients(128);
        let running = if keep_alive { load.keep_alive() } else { load }.start();
        assert!(running.wait_for_pid(old, LIMIT), "no answer under load");
        for reload in 1..=takeovers() {
            let enough = running.requests() + FLOOR;
            assert!(running.wait_for_requests(enough, LIMIT), "the newest does not answer");
            let daemon = Watched::new(old);
            running.mark_begin();
            signal(launcher, HUP);
            assert!(running.wait_for_pids(reload + 1, LIMIT), "reload {reload}: no new answer");
            daemon.wait_end(LIMIT);
            running.mark_end();
            old = *running.pids().last().expect("an answer");
        }
        let enough = running.requests() + FLOOR;
        assert!(running.wait_for_requests(enough, LIMIT), "the last does not answer");
        assert_eq!(service.main_pid(), launcher);
        let report = running.stop();
        println!("{report}");
        report.assert_clean(FLOOR * (takeovers() as u64 + 1), takeovers() + 1);
    });
}

#[test]
fn p1_p2_takeover_in_place_daemontools() {
    p2_takeover_in_place(Supervisor::Daemontools, false);
}

#[test]
fn p1_p2_takeover_in_place_keep_alive_runit() {
    p2_takeover_in_place(Supervisor::Runit, true);
}

fn p2_takeover_keep_alive(supervisor: Supervisor, counts: [usize; 2]) {
    boxed_by_default(|folder| {
        let (service, target) = tcp(supervisor, folder, "takeover");
        for count in clients(counts) {
            let load = Load::new(target.clone()).clients(count).keep_alive();
            restarts(&service, &target, load, takeovers(), FLOOR);
        }
    });
}

#[test]
fn p1_p2_takeover_keep_alive_daemontools() {
    p2_takeover_keep_alive(Supervisor::Daemontools, [128, 512]);
}

#[test]
fn p1_p2_takeover_keep_alive_runit() {
    p2_takeover_keep_alive(Supervisor::Runit, [512, 128]);
}

fn p2_takeover_unix_socket(supervisor: Supervisor, counts: [usize; 2]) {
    boxed_by_default(|folder| {
        let socket = folder.join("web.sock");
        let args = format!("--listen {} --unix-socket {}", boxed::address(), socket.display());
        let service = shipped_service(supervisor, folder, "takeover", &args);
        let target = Target::Unix(socket);
        for count in clients(counts) {
            let load = Load::new(target.clone()).clients(count);
            restarts(&service, &target, load, takeovers(), FLOOR);
        }
    });
}

#[test]
fn p1_p2_takeover_unix_socket_daemontools() {
    p2_takeover_unix_socket(Supervisor::Daemontools, [512, 128]);
}

#[test]
fn p1_p2_takeover_unix_socket_runit() {
    p2_takeover_unix_socket(Supervisor::Runit, [128, 512]);
}

/// One socket for each worker thread, all on one port.
fn p2_takeover_group(supervisor: Supervisor, counts: [usize; 2]) {
    boxed_by_default(|folder| {
        let address = boxed::address();
        let args = format!("--listen {address} --workers 4");
        let service = shipped_service(supervisor, folder, "takeover", &args);
        let target = Target::Tcp(address);
        for count in clients(counts) {
            let load = Load::new(target.clone()).clients(count);
            restarts(&service, &target, load, takeovers(), FLOOR);
        }
    });
}

#[test]
fn p1_p2_takeover_group_daemontools() {
    p2_takeover_group(Supervisor::Daemontools, [128, 512]);
}

#[test]
fn p1_p2_takeover_group_runit() {
    p2_takeover_group(Supervisor::Runit, [512, 128]);
}

/// Connections come at a fixed rate, whether or not the server keeps up: one that it does keep up
/// with where other tests take most of the machine, since a queue that overflows loses them as well.
fn p2_takeover_open_loop(supervisor: Supervisor) {
    boxed_by_default(|folder| {
        let (service, target) = tcp(supervisor, folder, "takeover");
        restarts(&service, &target, Load::new(target.clone()).rate(500), takeovers(), FLOOR / 2);
    });
}

#[test]
fn p1_p2_takeover_open_loop_daemontools() {
    p2_takeover_open_loop(Supervisor::Daemontools);
}

#[test]
fn p1_p2_takeover_open_loop_runit() {
    p2_takeover_open_loop(Supervisor::Runit);
}

/// A queue of datagrams is short: the rate leaves seconds before it overflows.
fn p2_takeover_udp(supervisor: Supervisor) {
    boxed_by_default(|folder| {
        let address = boxed::address();
        let service = shipped_service(supervisor, folder, "udp", &format!("--listen {address}"));
        let first = wait_udp_pid(address);
        let load = Load::datagrams(address).rate(200);
        restarts_since(first, &service, load, takeovers(), FLOOR / 5);
    });
}

fn wait_udp_pid(address: SocketAddr) -> u32 {
    wait_for("an answer by UDP", LIMIT, || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(address).expect("an address");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        socket.send(b"first").ok()?;
        let mut answer = [0; 100];
        let length = socket.recv(&mut answer).ok()?;
        let answer = std::str::from_utf8(&answer[..length]).expect("text");
        answer.strip_prefix("Server pid: ")?.strip_suffix("\nfirst")?.parse().ok()
    })
}

#[test]
fn p1_p2_takeover_udp_daemontools() {
    p2_takeover_udp(Supervisor::Daemontools);
}

#[test]
fn p1_p2_takeover_udp_runit() {
    p2_takeover_udp(Supervisor::Runit);
}
