//! P6 and P3: a stop that comes at a bad moment, between launchers, while a successor starts, while
//! older generations drain; and one that is taken back at once.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
};

use seamless_testing::{
    LIMIT, as_each_user,
    http::{self, Connection, PATTERN, Prober, Target, answer_of},
    process::{self, Watched},
    signal::TERM,
    site::{ENDS_SOON, SERVES_ON, Site, User},
    supervisor::{Supervisor, Want},
};
use socket2::{Domain, SockAddr, Socket, Type};

as_each_user![
    p6_down_in_the_gap_between_launchers,
    p6_exit_in_the_gap_between_launchers,
    p6_down_and_up_in_the_gap_between_launchers,
    p6_down_and_up_while_a_successor_starts,
    p6_down_and_up_while_an_older_generation_drains,
    p6_down_while_two_older_generations_drain,
    p3_p6_down_during_a_long_download,
];

/// A service whose daemon is detached; its run script waits for the flag `go`. Any supervisor ends
/// that script by its TERM.
pub(super) fn in_the_gap(
    kind: Supervisor,
    folder: &Path,
    user: User,
    options: &str,
) -> (Site, Watched) {
    let site = Site::at(folder).user(user).options(options).under(kind);
    let old = site.daemon(1);
    let launcher = site.launcher();
    site.service().settle();
    let wait = format!("until [ -e '{}' ]; do sleep 0.05; done", site.flag("go").display());
    site.deploy(&format!("{wait}\n{}", site.script("", options)));
    site.service().restart();
    launcher.wait_end(LIMIT);
    let script = site.service().main_pid_after(launcher.pid());
    site.wait_checks(old.pid(), 1);
    assert!(process::children(script).iter().all(|child| *child != old.pid()));
    (site, old)
}

pub(crate) fn p6_down_in_the_gap_between_launchers(kind: Supervisor, folder: &Path, user: User) {
    let (site, old) = in_the_gap(kind, folder, user, SERVES_ON);
    let request = Connection::unfinished(&site.target);
    let prober = Prober::start(&site.target);
    prober.wait_pid(old.pid());
    site.service().down();
    site.service().wait_until("down", |status| status.want == Want::Down && status.pid.is_none());
    let before = site.checks(old.pid());
    if user.daemon_reads() {
        site.wait_drain(old.pid());
        // It may have been in the middle of one.
        let needed = site.checks(old.pid()) - before;
        assert!(needed <= 2, "not within one check, but {needed}:\n{}", site.log);
        prober.stop();
        assert!(request.finish().ends_with(&answer_of(old.pid())));
        assert_eq!(site.report.wait_of(old.pid(), "wait").text, "Stopped");
    } else {
        // It looks, and cannot know.
        site.wait_checks(old.pid(), 3);
        prober.wait_more(3);
        let probes = prober.stop();
        probes.assert_all_answered();
        assert_eq!(probes.pids(), [old.pid()]);
        assert_eq!(site.report.names_of(old.pid()), ["init", "started", "hook"]);
        assert_eq!(site.named(), Some(old.pid()));
        old.signal(TERM);
        site.wait_drain(old.pid());
        assert!(request.finish().ends_with(&answer_of(old.pid())));
        assert_eq!(site.report.wait_of(old.pid(), "wait").text, "Requested");
    }
    site.wait_all_ended();
    assert_eq!(site.service().status().want, Want::Down);
}

/// With the supervisor its last word is gone: `successor_timeout` decides, for every user.
pub(crate) fn p6_exit_in_the_gap_between_launchers(kind: Supervisor, folder: &Path, user: User) {
    let (mut site, old) = in_the_gap(kind, folder, user, "--successor-timeout=3s");
    let request = Connection::unfinished(&site.target);
    site.service().exit();
    site.wait_drain(old.pid());
    assert!(request.finish().ends_with(&answer_of(old.pid())));
    assert_eq!(site.report.wait_of(old.pid(), "wait").text, "Stopped");
    site.wait_all_ended();
    assert!(site.service_mut().wait_exit().success());
}

/// Whether the detached daemon has seen the stop or not: in the end the new one serves alone.
pub(crate) fn p6_down_and_up_in_the_gap_between_launchers(
    kind: Supervisor,
    folder: &Path,
    user: User,
) {
    let (site, old) = in_the_gap(kind, folder, user, SERVES_ON);
    let request = Connection::unfinished(&site.target);
    let script = site.launcher();
    down_and_up(&site);
    script.wait_end(LIMIT);
    site.service().main_pid_after(script.pid());
    fs::write(site.flag("go"), "").expect("a file");
    let new = site.started(2);
    site.wait_drain(old.pid());
    assert!(request.finish().ends_with(&answer_of(old.pid())));
    old.wait_end(LIMIT);
    assert_back(&site, new);
}

/// The successor hangs: either it is told to stop, and the older generation with it, or it is told
/// to make room. In both cases the next one comes up.
fn p6_down_and_up_while_a_successor_starts(kind: Supervisor, folder: &Path, user: User) {
    let site = Site::at(folder).user(user).options(SERVES_ON).under(kind);
    let old = site.daemon(1);
    let request = Connection::unfinished(&site.target);
    site.service().settle();
    site.deploy_options(&format!("{SERVES_ON} --at=after-init=hang"));
    site.service().restart();
    let starting = Watched::new(site.report.wait_nth("init", 2).pid);
    site.deploy_options(SERVES_ON);
    down_and_up(&site);
    // A stop waits for the request.
    site.wait_drain(old.pid());
    assert!(request.finish().ends_with(&answer_of(old.pid())));
    old.wait_end(LIMIT);
    starting.wait_end(LIMIT);
    assert_eq!(site.report.names_of(starting.pid())[0], "init");
    assert!(!site.report.names_of(starting.pid()).contains(&"started".to_owned()));
    assert_back(&site, site.started(2));
}

/// A stop cannot be taken back for those that were told: then the next generation comes when the
/// older ones have ended.
fn p6_down_and_up_while_an_older_generation_drains(kind: Supervisor, folder: &Path, user: User) {
    let site = Site::at(folder).user(user).options(SERVES_ON).under(kind);
    let oldest = site.daemon(1);
    let request = Connection::unfinished(&site.target);
    site.service().restart();
    let old = site.daemon(2);
    site.wait_drain(oldest.pid());
    down_and_up(&site);
    site.wait_drain(old.pid());
    assert!(!oldest.has_ended());
    assert!(request.finish().ends_with(&answer_of(oldest.pid())));
    oldest.wait_end(LIMIT);
    old.wait_end(LIMIT);
    assert_back(&site, site.started(3));
}

/// As quickly as it is possible: while the status says up, `sv up` sends nothing at all.
fn down_and_up(site: &Site) {
    site.service().down();
    if site.service().kind() == Supervisor::Runit {
        site.service().wait_until("wanted down", |status| status.want == Want::Down);
    }
    site.service().up();
}

/// It serves, alone, and the supervisor wants it so.
#[track_caller]
fn assert_back(site: &Site, new: u32) {
    site.assert_one_generation(new);
    let answer = Connection::unfinished(&site.target).finish();
    assert!(answer.ends_with(&answer_of(new)), "{answer}");
    assert_eq!(site.service().status().want, Want::Up);
    assert_eq!(site.report.newest().map(|newest| newest.pid), Some(new));
}

fn p6_down_while_two_older_generations_drain(kind: Supervisor, folder: &Path, user: User) {
    let site = Site::at(folder).user(user).options(ENDS_SOON).under(kind);
    let mut held = Vec::new();
    for nth in 1..=2 {
        let daemon = site.daemon(nth);
        held.push((Connection::unfinished(&site.target), daemon));
        site.service().restart();
        site.started(nth + 1);
        site.wait_drain(held[nth - 1].1.pid());
        http::wait_one_listener(&site.target);
    }
    let newest = site.daemon(3);
    site.service().down();
    site.wait_drain(newest.pid());
    let assert_not_down = || {
        if site.knows_a_stop() {
            site.log.wait(&[("stage", "drained"), ("daemon", &newest.pid().to_string())]);
            assert!(!newest.has_ended() && site.service().status().pid.is_some(), "{}", site.log);
        }
    };
    // The one in the middle first.
    for (request, daemon) in held.into_iter().rev() {
        assert_not_down();
        assert!(!daemon.has_ended());
        assert!(request.finish().ends_with(&answer_of(daemon.pid())));
        daemon.wait_end(LIMIT);
    }
    site.assert_ends();
}

/// The client reads slowly: it has part of the body, the buffers between are full, and the rest is
/// still in the server's hands when the restart and then the stop come.
fn p3_p6_down_during_a_long_download(kind: Supervisor, folder: &Path, user: User) {
    let site = Site::at(folder).user(user).options(ENDS_SOON).under(kind);
    let old = site.daemon(1);
    let mut first = Download::start(&site.target);
    first.read(1 << 20);
    site.service().restart();
    let new = site.daemon(2);
    site.wait_drain(old.pid());
    first.read(1 << 20);
    http::wait_one_listener(&site.target);
    let mut second = Download::start(&site.target);
    second.read(1 << 20);
    site.service().down();
    site.wait_drain(new.pid());
    for (mut download, daemon) in [(first, old), (second, new)] {
        download.read(1 << 20);
        assert!(!daemon.has_ended(), "its client waits for the rest");
        site.assert_not_down();
        download.finish();
    }
    site.assert_ends();
}

/// An answer of which more is to come than all buffers on the way hold.
struct Download {
    socket: Socket,
    /// Of the body.
    seen: usize,
}

impl Download {
    const LENGTH: usize = 24 << 20;

    #[track_caller]
    fn start(target: &Target) -> Self {
        let Target::Tcp(address) = target else { panic!("{target}") };
        let mut socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_read_timeout(Some(LIMIT)).expect("a time limit");
        socket.connect(&SockAddr::from(*address)).expect("a connection");
        let request = format!("GET /bytes/{} HTTP/1.1\r\nHost: localhost\r\n\r\n", Self::LENGTH);
        socket.write_all(request.as_bytes()).expect("the request is sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("the head");
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", Self::LENGTH)), "{head}");
        Download { socket, seen: 0 }
    }

    /// So many bytes more, and they are the right ones.
    #[track_caller]
    fn read(&mut self, count: usize) {
        let end = self.seen + count;
        let mut part = vec![0; PATTERN.len()];
        while self.seen < end {
            let at = self.seen % PATTERN.len();
            let expected = &PATTERN[at..PATTERN.len().min(at + end - self.seen)];
            let part = &mut part[..expected.len()];
            self.socket.read_exact(part).unwrap_or_else(|error| {
                panic!("after {} of {} bytes: {error}", self.seen, Self::LENGTH)
            });
            assert!(part == expected, "other bytes after {}", self.seen);
            self.seen += part.len();
        }
    }

    /// The rest, and then the end of the connection.
    #[track_caller]
    fn finish(mut self) {
        self.read(Self::LENGTH - self.seen);
        assert_eq!(self.socket.read(&mut [0]).expect("an orderly end"), 0);
    }
}
