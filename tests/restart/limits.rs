//! What old generations may cost: memory, and how many of them there are.

use std::{fs, path::Path};

use seamless_testing::{
    LIMIT,
    boxed::{Boxed, Isolation},
    http::{self, Connection, answer_of},
    process::Watched,
    scene,
    site::{SERVES_ON, Site, Started, User},
    supervisor::Supervisor,
    under_each_supervisor,
};

fn oom_score_adj(pid: u32) -> i32 {
    let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("/proc");
    text.trim().parse().expect("a number")
}

/// Not the one that serves: it has what it was started with. A higher value stays.
#[test]
fn p1_a_generation_that_drains_is_the_first_victim_of_a_lack_of_memory() {
    Boxed::new().private_net().run(|folder| {
        scene::each(folder, [(0, 900), (950, 950)], |folder, (before, wanted)| {
            let site = Site::at(folder).shared_socket().alone();
            let own = fs::read_to_string("/proc/self/oom_score_adj").expect("/proc");
            let start = || {
                let plain = site.command(&[SERVES_ON]);
                let mut command = std::process::Command::new("choom");
                command.args(["-n", &before.to_string(), "--"]).arg(plain.get_program());
                let mut started = site.spawn(command.args(plain.get_args()).stderr(site.log_end()));
                let daemon = started.wait_started();
                started.detach();
                daemon
            };
            let old = start();
            assert_eq!(http::wait_pid(&site.target), old.pid());
            assert_eq!(oom_score_adj(old.pid()), before);
            let request = Connection::unfinished(&site.target);
            let new = start();
            site.wait_drain(old.pid());
            assert_eq!((oom_score_adj(old.pid()), oom_score_adj(new.pid())), (wanted, before));
            assert!(request.finish().ends_with(&answer_of(old.pid())));
            old.wait_end(LIMIT);
            assert_eq!(fs::read_to_string("/proc/self/oom_score_adj").expect("/proc"), own);
        });
    });
}

/// Each with a request that does not end.
fn generations(site: &Site, count: usize, options: &[&str]) -> Vec<(Watched, Connection)> {
    let mut all: Vec<(Watched, Connection)> = Vec::new();
    for _ in 0..count {
        let (mut started, daemon) = site.start_ready(&[options, &[SERVES_ON]].concat());
        if let Some((old, _)) = all.last() {
            site.wait_drain(old.pid());
            scene::wait_let_go(old.pid());
        }
        started.detach();
        assert_eq!(http::wait_pid(&site.target), daemon.pid());
        all.push((daemon, Connection::unfinished(&site.target)));
    }
    all
}

#[test]
fn p1_a_start_is_refused_while_too_many_generations_drain() {
    Boxed::new().private_net().run(|folder| {
        let site = Site::at(folder).shared_socket().alone();
        let options = ["--max-draining=1", "--too-many=refuse"];
        let mut all = generations(&site, 2, &options);
        let refused: &mut Started = &mut site.start(&options);
        let error = refused.wait_error();
        assert!(error.text.contains("max_draining"), "{error:?}");
        let (serving, _) = &all[1];
        assert_eq!(http::pid(&site.target), serving.pid());
        assert!(!all[0].0.has_ended());
        // When one has ended, there is room.
        let (oldest, request) = all.remove(0);
        assert!(request.finish().ends_with(&answer_of(oldest.pid())));
        oldest.wait_end(LIMIT);
        let (_third, daemon) = site.start_ready(&options);
        scene::wait_let_go(all[0].0.pid());
        assert_eq!(http::wait_pid(&site.target), daemon.pid());
    });
}

#[test]
fn p1_the_oldest_generation_that_drains_makes_room() {
    Boxed::new().private_net().run(|folder| {
        let site = Site::at(folder).shared_socket().alone();
        let options = ["--max-draining=2", "--too-many=end-oldest"];
        let all = generations(&site, 4, &options);
        let pids: Vec<u32> = all.iter().map(|(daemon, _)| daemon.pid()).collect();
        let mut all = all.into_iter();
        let (oldest, _cut) = all.next().expect("the oldest");
        oldest.wait_end(LIMIT);
        let words = ["stage=takeover", "max_draining=2", &format!("predecessor={}", pids[0])];
        site.log.wait_words(&words, 1);
        assert_eq!(site.log.with(&["max_draining="]).len(), 1, "{}", site.log);
        for (daemon, request) in all.take(2) {
            assert!(request.finish().ends_with(&answer_of(daemon.pid())));
            daemon.wait_end(LIMIT);
        }
        assert_eq!(http::pid(&site.target), pids[3]);
    });
}

/// A restart: the first generation has a request that does not end, and the second one serves.
fn one_drains(site: &Site) -> ((Watched, Connection), Watched) {
    let first = site.daemon(1);
    let request = Connection::unfinished(&site.target);
    request.wait_accepted(first.pid());
    site.service().settle();
    site.service().restart();
    let second = site.daemon(2);
    site.wait_drain(first.pid());
    scene::wait_let_go(first.pid());
    ((first, request), second)
}

/// The supervisor tries again until there is room, and the generation that serves does so meanwhile.
fn p1_p3_a_supervisor_waits_for_room(kind: Supervisor, folder: &Path) {
    let options = format!("{SERVES_ON} --max-draining=1 --too-many=refuse");
    let site = Site::at(folder).user(User::Root).shared_socket().options(&options).under(kind);
    let ((first, request), second) = one_drains(&site);
    let other = Connection::unfinished(&site.target);
    other.wait_accepted(second.pid());
    site.service().settle();
    site.service().restart();
    let error = site.report.wait("error").text;
    assert!(error.contains("max_draining"), "{error}");
    site.report.wait_nth("error", 2);
    assert_eq!(http::pid(&site.target), second.pid());
    assert!(request.finish().ends_with(&answer_of(first.pid())));
    first.wait_end(LIMIT);
    let third = site.daemon(3);
    assert!(other.finish().ends_with(&answer_of(second.pid())));
    second.wait_end(LIMIT);
    assert_eq!(http::pid(&site.target), third.pid());
    site.assert_one_generation(third.pid());
}

/// It is not one of the service, so it ends nobody, whatever it would allow.
fn p1_p3_a_copy_that_is_refused_makes_no_room(kind: Supervisor, folder: &Path) {
    let site = Site::at(folder).user(User::Root).shared_socket().options(SERVES_ON).under(kind);
    let ((first, request), second) = one_drains(&site);
    let copy = Site::at(folder).user(User::Root).no_socket().alone();
    let error = copy.start(&["--max-draining=1", "--too-many=end-oldest"]).wait_error();
    assert!(error.text.contains("is supervised by somebody else"), "{error:?}");
    assert!(request.finish().ends_with(&answer_of(first.pid())));
    first.wait_end(LIMIT);
    assert_eq!(http::pid(&site.target), second.pid());
}

under_each_supervisor![
    Boxed::new().private_net().needs(Isolation::UserNamespaces) =>
        p1_p3_a_supervisor_waits_for_room,
        p1_p3_a_copy_that_is_refused_makes_no_room
];
