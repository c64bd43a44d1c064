//! Counters: they survive restarts, all generations share them, and `seamless status` shows them.

use std::{
    fs,
    os::{fd::AsFd, unix::fs::PermissionsExt},
};

use seamless::client::{NoAnswer, Service};
use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed, Isolation},
    handover::{Predecessor, write_record},
    process::{NOBODY, Watched, as_user},
    signal::USR1,
    site::Site,
    wait_for,
};
use serde_json::json;

use super::status;
use crate::sockets::next;

/// What the probe of this PID has counted.
fn counted(direct: &Site, daemon: &Watched) -> Vec<String> {
    let events = direct.report.named("counted").into_iter();
    events.filter(|event| event.pid == daemon.pid()).map(|event| event.text).collect()
}

#[test]
fn a_counter_goes_on_in_each_generation_also_in_one_that_drains() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let go = folder.join("go");
        let count = ["--at=after-init=count:requests", "--on=10=count:requests"];
        let guard = format!("--at=shutdown=guard:{}", go.display());
        let (mut started, old) = direct.start_ready(&[count[0], count[1], &guard]);
        assert_eq!(status(&direct.pid_file())["counters"], json!({"requests": 1}));
        started.detach();
        let (_started, new) =
            direct.start_ready(&[&count[..], &["--at=after-init=count:more"]].concat());
        direct.log.wait_words(&["stage=drain", &format!("daemon={}", old.pid())], 1);
        // The old one drains, and its count is not lost.
        for one in [&old, &new, &old] {
            let before = counted(&direct, one).len();
            one.signal(USR1);
            wait_for("a count", LIMIT, || (counted(&direct, one).len() > before).then_some(()));
        }
        assert_eq!(counted(&direct, &old), ["requests 1", "requests 3", "requests 5"]);
        assert_eq!(counted(&direct, &new), ["requests 2", "more 1", "requests 4"]);
        assert_eq!(status(&direct.pid_file())["counters"], json!({"more": 1, "requests": 5}));
        fs::write(go, "").expect("a file");
        old.wait_end(LIMIT);
        assert_eq!(status(&direct.pid_file())["counters"], json!({"more": 1, "requests": 5}));
    });
}

/// Nobody asks for a counter before `started`, or at all: they are carried on as long as anything is transferred.
#[test]
fn generations_that_do_not_count_carry_counters_on() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let first = direct.start_ready(&["--tcp=127.0.0.1:0", "--at=after-init=count:requests"]);
        let second = next(&direct, first, &["--tcp=127.0.0.1:0"]);
        assert_eq!(status(&direct.pid_file())["counters"], json!({"requests": 1}));
        let count = ["--tcp=127.0.0.1:0", "--at=started=count:requests"];
        let third = next(&direct, second, &count);
        wait_for("a count", LIMIT, || (counted(&direct, &third.1) == ["requests 2"]).then_some(()));
    });
}

#[test]
fn a_counter_that_cannot_be_shared_counts_in_its_process_and_the_log_says_so() {
    boxed::run(|folder| {
        let direct = Site::alone(folder);
        let long = "x".repeat(101);
        let (_started, daemon) = direct.start_ready(&[
            "--at=before-daemon-init=count:early",
            "--at=before-daemon-init=count:early",
            &format!("--at=after-init=count:{long}"),
            "--at=after-init=count:",
        ]);
        assert_eq!(
            counted(&direct, &daemon),
            ["early 1".to_owned(), "early 2".to_owned(), format!("{long} 1"), " 1".to_owned()]
        );
        let words = ["ERROR", "stage=counters", "name=\"early\"", "reason=\"init was not called"];
        direct.log.wait_words(&words, 1);
        let words = ["ERROR", "stage=counters", "reason=\"a name has 1 to 100 bytes\""];
        direct.log.wait_words(&words, 2);
        assert_eq!(status(&direct.pid_file())["counters"], json!({}));
    });
}

/// A predecessor whose memory is not as it should be: the counters begin at 0, and nothing else is lost.
#[test]
fn p10_memory_that_holds_no_counters_is_not_used() {
    Boxed::new().limit(std::time::Duration::from_secs(120)).run(|folder| {
        let direct = Site::alone(folder);
        let predecessor = Predecessor::new(&direct);
        let file = fs::File::open("/dev/null").expect("a file");
        let small = seamless_testing::handover::sealed(b"small");
        let whole = vec![0; 128 * 4097];
        let read_only = seamless_testing::handover::sealed(&whole);
        let why = "it is not sealed as it should be";
        for fd in [file.as_fd(), small.as_fd(), read_only.as_fd()] {
            write_record(&direct, std::process::id(), " state=serving");
            let before = direct.log.stage("counters").len();
            let started = direct.start(&["--at=after-init=count:requests", "--at=after-init=hang"]);
            let daemon = started.wait_init();
            let end = predecessor.accept();
            end.text();
            let say = |text: &str| format!("seamless-takeover 1 {text}");
            end.send(&say("offer generation=1 sockets=1 state=-"));
            let line = "descriptor asked=seamless/counters local=seamless/counters member=0";
            end.send_with(say(&format!("sockets count=1\n{line}")).as_bytes(), &[fd]);
            assert_eq!(end.text(), say("got 1"));
            end.send(&say("end"));
            assert_eq!(end.text(), say("done"));
            wait_for("a count", LIMIT, || {
                (counted(&direct, &daemon) == ["requests 1"]).then_some(())
            });
            let lines = direct.log.stage("counters");
            let reason = lines[before..].iter().find_map(|line| line.field("reason"));
            assert!(reason.is_some_and(|reason| reason.starts_with(why)), "{why}: {reason:?}");
            daemon.kill();
            daemon.wait_end(LIMIT);
        }
    });
}

/// A daemon that answers this user nothing is not one without counters.
#[test]
fn p10_counters_that_are_refused() {
    Boxed::new().needs(Isolation::Namespaces).run(|folder| {
        let direct = Site::alone(folder);
        let (_started, _daemon) = direct.start_ready(&["--at=after-init=count:requests"]);
        let service = Service::at(direct.pid_file()).expect("a service");
        let count = || service.counters(LIMIT).1.map(|all| all.len());
        assert_eq!(count(), Ok(1));
        // It can be looked at, at least.
        for (path, mode) in [(direct.lock_file(), 0o644), (direct.socket(), 0o666)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
        }
        let refused = as_user(NOBODY, count);
        assert!(matches!(refused, Err(NoAnswer::Refused(_))), "{refused:?}");
    });
}
