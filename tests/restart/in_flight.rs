//! P3: what the old daemon has accepted, it answers; meanwhile the new one answers what is new.

use std::{
    fs,
    path::{Path, PathBuf},
};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    http::{self, Connection, Target, answer_of},
    process::{self, Watched},
    scene::script,
    supervisor::{Service, Supervisor},
    under_each_supervisor, wait_for,
};

/// A server program: its run script, and what it can do.
struct Server {
    run: String,
    target: Target,
    /// It honours `?delay=`.
    delays: bool,
    /// It keeps a connection for further requests.
    keeps_alive: bool,
}

impl Server {
    fn probe(folder: &Path) -> Self {
        let target = Target::from(boxed::address());
        let run = script(folder, &format!("--listen={target}"));
        Server { run, target, delays: true, keeps_alive: false }
    }

    fn hello(folder: &Path) -> Self {
        let target = Target::from(boxed::address());
        let run = example("hello", &format!("'{}/web.pid' {target}", folder.display()));
        Server { run, target, delays: false, keeps_alive: false }
    }

    fn quickstart(folder: &Path) -> Self {
        let target = Target::from(boxed::address());
        let run = example("axum", &format!("'{}/web.pid' {target}", folder.display()));
        Server { run, target, delays: false, keeps_alive: false }
    }

    fn on_port(name: &str, folder: &Path) -> Self {
        let target = Target::from(boxed::address());
        let options = format!("--listen {target} --pid-file '{}/web.pid'", folder.display());
        Server { run: example(name, &options), target, delays: true, keeps_alive: true }
    }

    fn unixsocket(folder: &Path) -> Self {
        let path = folder.join("web.sock");
        let place = folder.display();
        let options = format!("--unix-socket '{place}/web.sock' --pid-file '{place}/web.pid'");
        let target = Target::from(path.as_path());
        Server { run: example("unixsocket", &options), target, delays: true, keeps_alive: true }
    }
}

fn example(name: &str, options: &str) -> String {
    format!("exec 2>&1\nexec '{}' {options}", bin::example(name).display())
}

fn across_a_restart(kind: Supervisor, folder: &Path, server: &Server) {
    let service = Service::new(kind, folder.join("service"), &server.run);
    let pid_file = folder.join("web.pid");
    let old = wait_for("a first generation", LIMIT, || read(&pid_file));
    let daemon = Watched::new(old);
    let idle = server.keeps_alive.then(|| {
        let mut idle = Connection::unfinished(&server.target);
        let answer = idle.answer();
        assert!(!closes(&answer), "no drain yet: {answer}");
        idle
    });
    let silent = server.keeps_alive.then(|| Connection::to(&server.target));
    let delayed = server.delays.then(|| Connection::ask(&server.target, "/?delay=1500ms"));
    let request = Connection::unfinished(&server.target);
    // The last in its queue: then it has accepted all of them.
    if let Target::Tcp(_) = server.target {
        request.wait_accepted(old);
    }

    service.restart();
    let new = wait_for("a second generation", LIMIT, || read(&pid_file).filter(|new| *new != old));
    // Who connects while a listener of two is closed may be refused.
    if let Target::Tcp(_) = server.target {
        http::wait_one_listener(&server.target);
    }
    wait_for("the new daemon answers", LIMIT, || {
        let answer = Connection::unfinished(&server.target).answer();
        answer.ends_with(&answer_of(new)).then_some(())
    });
    if let Some(mut idle) = idle {
        idle.ends(); // so the drain has begun
    } else {
        process::wait_listens_no_more(old);
    }
    assert!(!daemon.has_ended(), "its request is not answered yet");
    let answer = request.finish();
    assert!(answer.ends_with(&answer_of(old)), "{answer}");
    assert!(closes(&answer), "the connection has no future: {answer}");
    if let Some(delayed) = delayed {
        assert_eq!(delayed.response().expect("an answer").pid, Some(old));
    }
    if let Some(mut silent) = silent {
        // Late, but its client may not send a first request again.
        silent.begin();
        let answer = silent.finish();
        assert!(answer.ends_with(&answer_of(old)), "{answer}");
    }
    daemon.wait_end(LIMIT);
    let answer = Connection::unfinished(&server.target).answer();
    assert!(answer.ends_with(&answer_of(new)), "{answer}");
}

fn read(pid_file: &PathBuf) -> Option<u32> {
    fs::read_to_string(pid_file).ok()?.trim().parse().ok()
}

fn closes(answer: &str) -> bool {
    answer.to_ascii_lowercase().contains("\r\nconnection: close\r\n")
}

fn p3_probe_answers_across_a_restart(kind: Supervisor, folder: &Path) {
    across_a_restart(kind, folder, &Server::probe(folder));
}

fn p3_hello_answers_across_a_restart(kind: Supervisor, folder: &Path) {
    across_a_restart(kind, folder, &Server::hello(folder));
}

fn p3_the_readmes_quick_start_answers_across_a_restart(kind: Supervisor, folder: &Path) {
    across_a_restart(kind, folder, &Server::quickstart(folder));
}

fn p3_threads_answers_across_a_restart(kind: Supervisor, folder: &Path) {
    across_a_restart(kind, folder, &Server::on_port("threads", folder));
}

fn p3_reuseport_answers_across_a_restart(kind: Supervisor, folder: &Path) {
    across_a_restart(kind, folder, &Server::on_port("reuseport", folder));
}

fn p3_unixsocket_answers_across_a_restart(kind: Supervisor, folder: &Path) {
    across_a_restart(kind, folder, &Server::unixsocket(folder));
}

fn p3_takeover_answers_across_a_restart(kind: Supervisor, folder: &Path) {
    across_a_restart(kind, folder, &Server::on_port("takeover", folder));
}

under_each_supervisor![
    Boxed::new().private_net() =>
    p3_probe_answers_across_a_restart,
    p3_hello_answers_across_a_restart,
    p3_the_readmes_quick_start_answers_across_a_restart,
    p3_threads_answers_across_a_restart,
    p3_reuseport_answers_across_a_restart,
    p3_unixsocket_answers_across_a_restart,
    p3_takeover_answers_across_a_restart
];
