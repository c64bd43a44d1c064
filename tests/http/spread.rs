//! Connections leave one after the other, so that their clients do not all come back at once.

use std::time::{Duration, Instant};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    http::Connection,
    process::Watched,
    scene,
    signal::{TERM, USR2},
};

use super::{Answers as _, GET, Web, assert_ended, connect_to};

/// So many connections that have been asked once, and are idle.
fn idle(address: std::net::SocketAddr, count: usize, pid: u32) -> Vec<Connection> {
    let connect = |_| {
        let mut one = connect_to(address);
        one.send(GET);
        assert!(!one.answer_of(pid), "no drain yet");
        one
    };
    (0..count).map(connect).collect()
}

#[test]
fn p15_idle_connections_are_closed_spread_over_time() {
    const COUNT: usize = 60;
    const SPREAD: Duration = Duration::from_secs(4);
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let options = format!("--listen={address} --spread=4s --idle-grace=1ms");
        let mut web = Web::start(folder, options);
        let connections = idle(address, COUNT, web.daemon);
        let old = web.restart();
        scene::wait_let_go(old.pid());
        let began = Instant::now();
        let closed: Vec<_> = connections
            .into_iter()
            .map(|mut one| {
                std::thread::spawn(move || {
                    one.set_limit(SPREAD + LIMIT);
                    one.ends();
                    began.elapsed()
                })
            })
            .collect();
        let mut closed: Vec<Duration> =
            closed.into_iter().map(|one| one.join().expect("an end")).collect();
        closed.sort();
        println!("{closed:?}");
        // Whatever the load of the machine: none is closed before its moment.
        for (at, time) in closed.iter().enumerate() {
            let share = SPREAD.mul_f64(at as f64 / COUNT as f64);
            let early = Duration::from_millis(500);
            assert!(*time + early >= share, "the {at}th after {time:?}: {closed:?}");
        }
        assert!(closed[COUNT - 1] >= SPREAD / 2 && closed[COUNT / 4] < LIMIT, "{closed:?}");
        assert_ended(&web, &old);
    });
}

/// Until its moment a connection is served as always: its client need not know of a restart.
#[test]
fn p15_before_its_moment_a_connection_is_served_as_always() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        // The first one's moment is now, the second one's comes after half of the time.
        let options = format!("--listen={address} --spread=1h --idle-grace=1h --drain-timeout=9h");
        let mut web = Web::start(folder, options);
        let mut connections = idle(address, 2, web.daemon);
        let old = web.restart();
        scene::wait_let_go(old.pid());
        let says_close = connections.iter_mut().map(|one| {
            one.send(GET);
            one.answer_of(old.pid())
        });
        let mut says_close: Vec<bool> = says_close.collect();
        says_close.sort_unstable();
        assert_eq!(says_close, [false, true]);
        old.signal(USR2);
        old.wait_end(LIMIT);
    });
}

#[test]
fn on_a_stop_all_leave_at_once() {
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let options = format!("--listen={address} --spread=1h --idle-grace=1ms --drain-timeout=9h");
        let web = Web::start(folder, options);
        let connections = idle(address, 8, web.daemon);
        let daemon = Watched::new(web.daemon);
        daemon.signal(TERM);
        connections.into_iter().for_each(|mut one| {
            one.set_limit(LIMIT);
            one.ends();
        });
        daemon.wait_end(LIMIT);
    });
}

#[test]
fn the_spread_is_no_longer_than_a_third_of_the_limit() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let options =
            format!("--listen={address} --spread=1h --idle-grace=1ms --drain-timeout=30s");
        let mut web = Web::start(folder, options);
        let connections = idle(address, 16, web.daemon);
        let old = web.restart();
        let began = Instant::now();
        connections.into_iter().for_each(|mut one| {
            one.set_limit(LIMIT * 2);
            one.ends();
        });
        let took = began.elapsed();
        assert!(took < Duration::from_secs(25), "{took:?}, by the hammer?");
        assert_ended(&web, &old);
    });
}
