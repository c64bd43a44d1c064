//! QUIC connections stay with their process (P14), by quinn on both sides.

mod early_data;
mod probation;
mod rotation;
mod service;

use std::time::{Duration, Instant};

use quinn::{Connection, ConnectionError};
use seamless_quic::client::{self, Failure, Settings};
use service::{Clients, LIMIT, Service, a_box, runtime};

/// Clients whose addresses change, groups that grow and shrink, and several generations that drain.
#[test]
fn p14_restarts_break_no_connection_and_send_no_packet_astray() {
    a_box().run(|folder| {
        let mut service = Service::new(folder);
        service.next(2);
        let settings = Settings {
            server: service.address,
            connections: 60,
            lifetime: Duration::from_secs(3),
            migrate: Some(Duration::from_millis(300)),
            time: Duration::from_secs(12),
            ..Settings::default()
        };
        let clients = std::thread::spawn(move || runtime().block_on(client::run(&settings)));
        for members in [3, 1, 4, 2, 2, 3] {
            // As an operator who is in a hurry; what is tested does not depend on it.
            std::thread::sleep(Duration::from_millis(1200));
            service.next(members);
        }
        let table = clients.join().expect("no panic").expect("clients");
        println!("{table}");
        assert_eq!(table.broken(), 0, "{table}");
        assert!(table.streams > 500 && table.migrations > 10, "{table}");
        // All connections are closed, so all but the newest have drained.
        for old in &service.daemons[..6] {
            old.wait_end(LIMIT);
        }
        service.assert_counted(2000);
    });
}

async fn echoes(connections: &[Connection]) -> Vec<Result<(), Failure>> {
    let mut all = Vec::new();
    for one in connections {
        all.push(client::stream(one, 5000, Instant::now()).await);
    }
    all
}

/// The newest generation dies: its connections are reset as soon as there is a successor, and those of an
/// older one go on, whatever their addresses.
#[test]
fn p14_a_crash_ends_the_connections_of_its_own_generation_alone() {
    a_box().run(|folder| {
        let mut service = Service::new(folder);
        service.next(2);
        let clients = Clients::new(service.address);
        let old = clients.connections(10);
        service.next(3);
        let new = clients.connections(10);
        service.kill_newest();
        let all_well = |connections: &[Connection]| {
            for echo in clients.runtime.block_on(echoes(connections)) {
                if let Err(error) = echo {
                    panic!("{}", client::chain(&*error));
                }
            }
        };
        all_well(&old);
        service.next_after_a_crash(2);
        all_well(&old);
        let began = Instant::now();
        for echo in clients.runtime.block_on(echoes(&new)) {
            let error = client::chain(&*echo.expect_err("its process is gone"));
            assert!(error.contains("reset by peer"), "{error}");
        }
        assert!(began.elapsed() < Duration::from_secs(8), "before the clients' own limit of 10 s");
        assert!(matches!(new[0].close_reason(), Some(ConnectionError::Reset)));
        let fresh = clients.connections(10);
        clients.move_on();
        all_well(&old);
        all_well(&fresh);
        // The oldest one dies as well.
        let first = service.daemons.remove(0);
        first.kill();
        first.wait_end(LIMIT);
        all_well(&fresh);
        service.next(2);
        all_well(&fresh);
    });
}
