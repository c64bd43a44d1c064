//! What servers count, in all generations together.

use std::process::{Command, Stdio};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    http::Target,
    process::Watched,
    signal::KILL,
    strict::Strict,
};
use serde_json::json;

use super::Web;
use crate::command::counters_of;

/// What the clients saw, and not one less or more: nothing is cut here.
#[test]
fn servers_of_http_count_through_restarts_under_load() {
    const RESTARTS: usize = 5;
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let mut web = Web::start(folder, format!("--listen={address}"));
        let running = Strict::new(&Target::Tcp(address)).path("/?delay=5ms").clients(4).start();
        for _ in 0..RESTARTS {
            running.wait_pid(web.daemon);
            running.wait_more(20);
            let old = web.restart();
            running.wait_pid(web.daemon);
            old.wait_end(LIMIT);
        }
        let seen = running.stop();
        let counters = counters_of(&folder.join("web.pid"));
        assert_eq!(counters["http_requests"].as_u64(), Some(seen.total()));
        assert_eq!(counters["http_failures"], 0);
        assert!(counters["http_connections"].as_u64() >= Some(4), "{counters}");
    });
}

#[test]
fn a_503_of_the_request_timeout_is_a_failure() {
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let _web = Web::start(folder, format!("--listen={address} --request-timeout=10ms"));
        let code = |path: &str| {
            let url = format!("http://{address}{path}");
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", &url]);
            let output = curl.stdin(Stdio::null()).output().expect("curl");
            String::from_utf8(output.stdout).expect("a number")
        };
        assert_eq!([code("/name"), code("/?delay=10s"), code("/nowhere")], ["200", "503", "404"]);
        let expected = json!({
            "http_connections": 3, "http_requests": 3, "http_failures": 1, "http_passed": 0
        });
        assert_eq!(counters_of(&folder.join("web.pid")), expected);
    });
}

/// Also with daemons that are killed: what was counted and not answered was cut.
#[test]
fn counters_go_on_through_kills() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let mut web = Web::start(folder, format!("--listen={address} --pass=yes"));
        let running = Strict::new(&Target::Tcp(address)).path("/?delay=5ms").clients(4).start();
        for round in 0..6 {
            running.wait_pid(web.daemon);
            running.wait_more(20);
            let old = web.daemon;
            if round % 3 == 2 {
                // A crash: the launcher mirrors it, and the counters live on with the keeper.
                Watched::new(old).signal(KILL);
                _ = web.launcher.wait();
                web.start_again(old);
            } else {
                let old = web.restart();
                if round % 3 == 1 {
                    old.signal(KILL);
                }
                old.wait_end(LIMIT);
            }
        }
        running.wait_pid(web.daemon);
        let seen = running.stop();
        let counters = counters_of(&folder.join("web.pid"));
        let counted = counters["http_requests"].as_u64().expect("a number");
        let cut = seen.failures.len() as u64;
        assert!(
            (seen.total()..=seen.total() + cut).contains(&counted),
            "{counted} {cut}: {seen:?}"
        );
        // At most one request of each client for each process that was killed.
        assert!(cut <= 4 * 4, "{:?}", seen.failures);
    });
}
