//! Restarts under full load, each request on a connection of its own. These tests run alone: they
//! saturate the machine.
//!
//! In a network namespace of its own with `net.ipv4.tcp_migrate_req=1`, where Linux hands what is
//! queued at a closing SO_REUSEPORT listener to another one instead of resetting it: what is lost
//! there, the crate or the example lost.

use std::{fs, path::Path, time::Duration};

use seamless_testing::{
    bin,
    boxed::Boxed,
    http,
    load::{Load, Target},
    process::Watched,
    supervisor::{Service, Supervisor, copy_folder},
};

const LIMIT: Duration = Duration::from_secs(20);
/// Requests from one restart to the next: what must be there for "no failure" to mean anything.
const FLOOR: u64 = 1_000;

/// The service folder that the repository ships, with this example in it.
fn shipped_service(supervisor: Supervisor, folder: &Path, example: &str, args: &str) -> Service {
    let name = match supervisor {
        Supervisor::Daemontools => "daemontools",
        Supervisor::Runit => "runit",
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
/// since the last time, and judges every request.
fn restarts(service: &Service, target: &Target, load: Load, restarts: usize, floor: u64) {
    let first = http::wait_pid(target);
    let running = load.start();
    assert!(running.wait_for_pid(first, LIMIT), "no answer under load");
    let more = || {
        let enough = running.requests() + floor;
        assert!(running.wait_for_requests(enough, LIMIT), "the newest generation does not answer");
    };
    let mut old = first;
    for restart in 1..=restarts {
        service.settle();
        more();
        let (launcher, daemon) = (Watched::new(service.main_pid()), Watched::new(old));
        running.mark_begin();
        service.restart();
        assert!(running.wait_for_pids(restart + 1, LIMIT), "restart {restart}: no new answer");
        launcher.wait_end(LIMIT);
        daemon.wait_end(LIMIT);
        running.mark_end();
        old = *running.pids().last().expect("an answer");
    }
    more();
    let report = running.stop();
    println!("{report}");
    report.assert_clean(floor * (restarts as u64 + 1), restarts + 1);
}

fn tcp(supervisor: Supervisor, folder: &Path, example: &str) -> (Service, Target) {
    let address = http::free_address();
    let service = shipped_service(supervisor, folder, example, &format!("--listen {address}"));
    (service, Target::Tcp(address))
}

fn boxed(test: impl FnOnce(&Path)) {
    Boxed::new().private_net().limit(Duration::from_secs(120)).run(test);
}

fn p1_p2_threads_128_clients(supervisor: Supervisor) {
    boxed(|folder| {
        let (service, target) = tcp(supervisor, folder, "threads");
        restarts(&service, &target, Load::new(target.clone()).clients(128), 5, FLOOR);
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
