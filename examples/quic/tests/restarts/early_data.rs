//! Clients that come back: early data (0-RTT), sessions that are resumed, and full handshakes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quinn::{Connecting, Connection, Endpoint};
use rustls::server::StoresServerSessions;
use seamless_quic::{
    client::{self, Failure},
    sessions::Sessions,
};
use seamless_testing::wait_for;
use tokio::runtime::Runtime;

use crate::service::{LIMIT, Service, a_box, runtime};

/// One with a store of its own for sessions.
struct Client {
    server: SocketAddr,
    endpoint: Endpoint,
    handshakes: Arc<AtomicU64>,
}

impl Client {
    fn new(server: SocketAddr) -> Client {
        let (endpoint, handshakes) = client::early_endpoint(server, true).expect("an endpoint");
        Client { server, endpoint, handshakes }
    }

    fn connect(&self) -> Connecting {
        self.endpoint.connect(self.server, "localhost").expect("an endpoint")
    }

    /// It has got the means to come back: the server sends them before it answers the first stream.
    async fn first(&self) -> Result<Connection, Failure> {
        let connection = self.connect().await?;
        client::stream(&connection, 100, Instant::now()).await?;
        client::stream(&connection, 100, Instant::now()).await?;
        assert_eq!(self.full_handshakes(), 1);
        Ok(connection)
    }

    fn full_handshakes(&self) -> u64 {
        self.handshakes.load(Ordering::Relaxed)
    }
}

/// Some that have been here.
fn clients(runtime: &Runtime, service: &Service, count: usize) -> Vec<(Client, Connection)> {
    runtime.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..count {
            let client = Client::new(service.address);
            let first = client.first().await.expect("a connection");
            clients.push((client, first));
        }
        clients
    })
}

/// A question with the first packet is answered by this process, in the first connection after that to the server.
async fn asks_early(client: &Client, pid: u32) {
    let Ok((connection, accepted)) = client.connect().into_0rtt() else {
        panic!("the client has no session for early data");
    };
    let answer = client::process(&connection).await;
    assert!(accepted.await, "the server has refused early data");
    assert_eq!(answer.expect("an answer"), pid);
    assert_eq!(client.full_handshakes(), 1);
    client::stream(&connection, 5000, Instant::now()).await.expect("an echo");
    connection.close(0_u8.into(), b"enough");
}

/// Clients of the first generation come back to the second one, and others to the third one: a session that was not
/// used goes on.
#[test]
fn p14_early_data_is_answered_by_the_new_generation() {
    a_box().run(|folder| {
        let mut service = Service::new(folder).option("--early-data");
        service.next(2);
        let first = service.newest();
        let runtime = runtime();
        let clients = clients(&runtime, &service, 16);
        for (members, part) in [(3, 0..8), (2, 8..16)] {
            service.next(members);
            let newest = service.newest();
            for (client, _) in &clients[part] {
                runtime.block_on(asks_early(client, newest));
            }
        }
        for (_, connection) in &clients {
            let answer = runtime.block_on(client::process(connection)).expect("an answer");
            assert_eq!(answer, first);
            connection.close(0_u8.into(), b"enough");
        }
        service.assert_nothing_astray();
    });
}

/// Each of them comes back again and again, with early data if it can. In the moment of a restart, early data may be
/// refused, and is then sent again. No connection fails.
#[test]
fn p14_clients_that_send_early_data_meet_a_restart_at_any_moment() {
    a_box().run(|folder| {
        let mut service = Service::new(folder).option("--early-data");
        service.next(2);
        let runtime = runtime();
        let clients = clients(&runtime, &service, 12);
        let over = Arc::new(AtomicBool::new(false));
        let counts: Vec<Arc<Count>> = clients.iter().map(|_| Arc::default()).collect();
        let tasks = clients.into_iter().zip(&counts).map(|((client, first), count)| {
            let (over, count) = (Arc::clone(&over), Arc::clone(count));
            first.close(0_u8.into(), b"enough");
            runtime.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    comes_back(&client, &count).await.map_err(|error| client::chain(&*error))?;
                }
                Ok::<u64, String>(client.full_handshakes() - 1)
            })
        });
        let tasks: Vec<_> = tasks.collect();
        let wait_more = || {
            let begun: Vec<u64> = counts.iter().map(|count| count.sum()).collect();
            wait_for("more connections", LIMIT, || {
                let more = counts.iter().zip(&begun).all(|(count, begun)| count.sum() > begun + 5);
                (more || tasks.iter().any(|task| task.is_finished())).then_some(())
            });
        };
        wait_more();
        for members in [3, 1, 2, 2, 4] {
            service.next(members);
            wait_more();
        }
        over.store(true, Ordering::Relaxed);
        let full: u64 = tasks
            .into_iter()
            .map(|task| runtime.block_on(task).expect("no panic").expect("no failure"))
            .sum();
        let sum = |part: fn(&Count) -> &AtomicU64| -> u64 {
            counts.iter().map(|count| part(count).load(Ordering::Relaxed)).sum()
        };
        let (accepted, refused) = (sum(|count| &count.accepted), sum(|count| &count.refused));
        let without = sum(|count| &count.without);
        println!("early data: {accepted} accepted, {refused} refused, {without} times none");
        println!("full handshakes: {full}");
        assert!(accepted > 12 * 6 * 4, "{accepted}");
        // Only those who came while a successor had the sessions, and did not serve yet.
        assert!(refused < accepted / 4 && full <= refused + without, "{refused} {without} {full}");
        service.assert_nothing_astray();
    });
}

#[derive(Debug, Default)]
struct Count {
    accepted: AtomicU64,
    refused: AtomicU64,
    /// It had no session for early data.
    without: AtomicU64,
}

impl Count {
    fn sum(&self) -> u64 {
        let all = [&self.accepted, &self.refused, &self.without];
        all.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

async fn comes_back(client: &Client, count: &Count) -> Result<(), Failure> {
    let (connection, counted) = match client.connect().into_0rtt() {
        Ok((connection, accepted)) => {
            let echo = client::stream(&connection, 1000, Instant::now()).await;
            if accepted.await {
                echo?;
                (connection, &count.accepted)
            } else {
                (connection, &count.refused)
            }
        }
        Err(connecting) => (connecting.await?, &count.without),
    };
    client::stream(&connection, 1000, Instant::now()).await?;
    counted.fetch_add(1, Ordering::Relaxed);
    connection.close(0_u8.into(), b"enough");
    tokio::time::sleep(Duration::from_millis(5)).await;
    Ok(())
}

/// The sessions have died with it.
#[test]
fn p14_after_a_crash_early_data_is_refused_and_the_connection_goes_on() {
    a_box().run(|folder| {
        let mut service = Service::new(folder).option("--early-data");
        service.next(2);
        let runtime = runtime();
        let clients = clients(&runtime, &service, 4);
        service.kill_newest();
        service.next_after_a_crash(2);
        for (client, _) in &clients {
            runtime.block_on(async {
                let early = client.connect().into_0rtt();
                let (connection, accepted) = early.expect("a session for early data");
                let answer = client::process(&connection).await;
                assert!(!accepted.await);
                match answer.map_err(|error| client::chain(&*error)) {
                    Err(error) => assert!(error.contains("0-RTT rejected"), "{error}"),
                    // The handshake was faster than this thread: nothing was sent early.
                    Ok(answer) => assert_eq!(answer, service.newest()),
                }
                let again = client::process(&connection).await.expect("an answer");
                assert_eq!(again, service.newest());
                assert_eq!(client.full_handshakes(), 2);
            });
        }
    });
}

/// With a ticketer the sessions stand in the clients' tickets, which could be used twice. So nothing is sent early;
/// but the certificate is not sent and checked anew.
#[test]
fn p15_with_tickets_clients_resume_after_a_restart_without_early_data() {
    a_box().run(|folder| {
        let mut service = Service::new(folder);
        service.next(2);
        let runtime = runtime();
        let clients = clients(&runtime, &service, 4);
        let come_back = |service: &Service| {
            runtime.block_on(async {
                for (client, _) in &clients {
                    let Err(connecting) = client.connect().into_0rtt() else {
                        panic!("early data with a ticket");
                    };
                    let connection = connecting.await.expect("a connection");
                    let answer = client::process(&connection).await.expect("an answer");
                    assert_eq!(answer, service.newest());
                    client::stream(&connection, 100, Instant::now()).await.expect("an echo");
                }
            });
        };
        for members in [3, 2] {
            service.next(members);
            come_back(&service);
            assert!(clients.iter().all(|(client, _)| client.full_handshakes() == 1));
        }
        // After a crash the keys are new.
        service.kill_newest();
        service.next_after_a_crash(2);
        come_back(&service);
        assert!(clients.iter().all(|(client, _)| client.full_handshakes() == 2));
    });
}

#[test]
fn a_session_is_in_one_process_and_is_used_once() {
    let (old, new, third) = (Sessions::default(), Sessions::default(), Sessions::default());
    for number in 0..3 {
        old.put(vec![number], vec![number; 300]);
    }
    assert_eq!(old.take(&[1]), Some(vec![1; 300]));
    new.take_over(&old.hand_over());
    assert_eq!((old.take(&[0]), new.take(&[1])), (None, None));
    assert_eq!(new.take(&[0]), Some(vec![0; 300]));
    assert_eq!(new.take(&[0]), None);
    // What came while the successor started goes to the next one.
    old.put(vec![7], vec![7]);
    let bytes = [new.hand_over(), old.hand_over()].concat();
    assert!(new.hand_over().is_empty());
    // And what is damaged is left out.
    third.take_over(&bytes[..bytes.len() - 1]);
    assert_eq!(third.get(&[2]), Some(vec![2; 300]));
    assert_eq!(third.get(&[7]), None);
}
