//! `http::health`: what a load balancer is told.

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    process::Watched,
    scene,
    signal::TERM,
    wait_for,
};

use super::{Web, connect_to};
use crate::command::seamless;

/// The status of an answer on a new connection, and its last line.
fn ask(address: std::net::SocketAddr, path: &str) -> (u32, String) {
    let mut connection = connect_to(address);
    connection.send(&format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"));
    let answer = connection.finish();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_default(), answer.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn p6_a_stop_is_told_to_balancers_before_anything_else_changes() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let mut web = Web::start(folder, format!("--listen={address} --leave=10m --idle-grace=1h"));
        assert_eq!(ask(address, "/health"), (200, "ok".to_owned()));
        assert_eq!(ask(address, "/ready").0, 200);
        // A restart is none of their business.
        let old = web.restart();
        old.wait_end(LIMIT);
        assert_eq!(ask(address, "/health"), (200, "ok".to_owned()));
        assert!(web.log().stage("leave").is_empty());

        let said = seamless("stop", &folder.join("web.pid"), &["--force", "--timeout=2s"]);
        said.assert(5, &["not yet"]);
        wait_for("it leaves", LIMIT, || (ask(address, "/health").0 == 503).then_some(()));
        assert_eq!(ask(address, "/health"), (503, "leaving".to_owned()));
        assert_eq!(ask(address, "/ready").0, 503);
        let daemon = Watched::new(web.daemon);
        assert_eq!(ask(address, "/"), (200, format!("Server pid: {}", daemon.pid())));
        // A connection that a balancer keeps open sees the drain as well.
        let mut kept = connect_to(address);
        kept.send("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = kept.read_until("leaving\n");
        assert!(head.starts_with("HTTP/1.1 503 ") && !head.contains("close"), "{head}");
        daemon.signal(TERM);
        scene::wait_let_go(daemon.pid());
        kept.send("GET /health HTTP/1.1\r\nHost: a\r\n");
        let last = kept.finish();
        assert!(last.starts_with("HTTP/1.1 503 ") && last.ends_with("draining\n"), "{last}");
        daemon.wait_end(LIMIT);
    });
}
