//! A machine that has no time: the service has the lowest priority, and others keep the processors busy.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use seamless_testing::{
    boxed::Boxed,
    http::{Connection, Prober, answer_of},
    process::Watched,
    site::Site,
    supervisor::Supervisor,
    under_each_supervisor, wait_for,
};

const RESTARTS: usize = 3;
/// How long a restart may take here.
const SLOW: Duration = Duration::from_secs(200);

/// A program that does nothing, as fast as it can.
struct Busy(Child);

impl Busy {
    fn start() -> Busy {
        let mut busy = Command::new("sh");
        busy.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
        Busy(busy.spawn().expect("sh"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.kill().expect("KILL");
        self.0.wait().expect("its end");
    }
}

/// With the time limits that a service has by default.
fn p1_p2_restarts_on_a_busy_machine(kind: Supervisor, folder: &Path) {
    // The lowest priority of all gets next to nothing where the other tests run too.
    let nice = std::env::var("SEAMLESS_TEST_NICE").unwrap_or("10".to_owned());
    let site = Site::at(folder)
        .shared_socket()
        .first(&format!("renice -n {nice} $$ >/dev/null"))
        .under(kind);
    let first = site.report.wait("started").pid;
    let prober = Prober::start(&site.target);
    prober.wait_pid(first);
    let processors = thread::available_parallelism().map_or(2, |count| count.get());
    let _busy: Vec<Busy> = (0..processors).map(|_| Busy::start()).collect();
    let mut pids = vec![first];
    for _ in 0..RESTARTS {
        let old = Watched::new(*pids.last().expect("one"));
        let request = Connection::unfinished(&site.target);
        request.wait_accepted(old.pid());
        site.service().restart();
        let what = format_args!("a successor of {}\n{site}", old.pid()).to_string();
        let new = wait_for(what, SLOW, || site.successor(old.pid()));
        site.wait_drain_logged(old.pid());
        assert!(request.finish().ends_with(&answer_of(old.pid())), "{site}");
        old.wait_end(SLOW);
        prober.wait_pid(new);
        pids.push(new);
    }
    prober.wait_more(3);
    let probes = prober.stop();
    probes.assert_all_answered();
    assert!(probes.requests() >= 10 * RESTARTS, "only {} requests", probes.requests());
    assert_eq!(probes.pids(), pids, "{site}");
    site.stop();
}

under_each_supervisor![
    Boxed::new().private_net().limit(Duration::from_secs(900)) => p1_p2_restarts_on_a_busy_machine
];
