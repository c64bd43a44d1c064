//! Connection IDs that change in the middle of a connection's life.

use quinn::Connection;
use seamless_testing::wait_for;

use crate::service::{Clients, LIMIT, Service, a_box};

/// quinn keeps five IDs in store for each connection, and replaces them all when their time is over.
const STORE: u64 = 5;

/// So many IDs has the client given up.
fn given_up(connection: &Connection) -> u64 {
    connection.stats().frame_tx.retire_connection_id
}

/// Waits until each of these connections has used up its IDs once more.
#[track_caller]
fn wait_other_ids<'a>(connections: impl IntoIterator<Item = &'a Connection>) {
    let goals = connections.into_iter().map(|one| (one, given_up(one) + STORE));
    let goals: Vec<(&Connection, u64)> = goals.collect();
    wait_for("other connection IDs", LIMIT, || {
        let reached = |(one, goal): &(&Connection, u64)| {
            if let Some(why) = one.close_reason() {
                panic!("{why}");
            }
            given_up(one) >= *goal
        };
        goals.iter().all(reached).then_some(())
    });
}

/// Over several restarts, with three generations or more at a time, and groups that grow and shrink. The clients also
/// change their addresses, which takes another ID each time.
///
/// IDs live for two seconds: where packets of one replacement arrive after the next one, quinn's client takes that for
/// more IDs than it may get, and ends the connection.
#[test]
fn p14_connection_ids_change_in_mid_life_and_lead_to_the_same_process() {
    a_box().run(|folder| {
        let mut service = Service::new(folder).option("--id-lifetime=2s");
        let clients = Clients::new(service.address);
        let mut generations = Vec::new();
        for members in [2, 3, 1, 4, 2] {
            service.next(members);
            let connections = clients.connections(5);
            generations.push((service.newest(), clients.traffic(&connections), connections));
            let all = || generations.iter().flat_map(|(_, _, connections)| connections);
            wait_other_ids(all());
            clients.move_on();
            wait_other_ids(all());
            for (pid, traffic, connections) in &generations {
                traffic.wait_rounds();
                clients.assert_reach(connections, *pid);
            }
            // The places in the group of one that ends are used again by the next one.
            if generations.len() == 4 {
                let (_, traffic, connections) = generations.remove(1);
                clients.end_well(traffic);
                clients.close(connections);
                service.daemons.remove(1).wait_end(LIMIT);
            }
        }
        for (pid, traffic, connections) in generations {
            clients.end_well(traffic);
            clients.assert_reach(&connections, pid);
            clients.close(connections);
        }
        service.assert_nothing_astray();
        assert_eq!(service.sum(" of_ended="), 0, "{}", service.log().text());
    });
}
