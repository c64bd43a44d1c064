//! What Linux by itself loses where each generation has an SO_REUSEPORT listener of its own: no
//! program but this, one listener after the other, each emptied before it is closed.

use std::{
    error::Error,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};

use crate::{
    Bench, set_migration,
    table::{self, thousands},
};

const CLOSES: usize = 5_000;
const CLIENTS: usize = 4;
/// How long two listeners share the port.
const SHARED: Duration = Duration::from_millis(1);
const LIMIT: Duration = Duration::from_secs(1);

pub(crate) fn run(bench: &Bench) -> Result<(), Box<dyn Error>> {
    table::title("Connections lost by Linux as an SO_REUSEPORT listener is closed, queue emptied");
    for migrate in [false, true] {
        if !set_migration(migrate) {
            table::print("not measured: tcp_migrate_req cannot be set here");
            continue;
        }
        measure(bench, migrate)?;
    }
    set_migration(false);
    Ok(())
}

fn measure(bench: &Bench, migrate: bool) -> Result<(), Box<dyn Error>> {
    let address = bench.port.address();
    let mut old = bench.port.listen()?;
    let (over, lost) = (AtomicBool::new(false), Lost::default());
    thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        let clients: Vec<_> =
            (0..CLIENTS).map(|_| scope.spawn(|| ask(address, &over, &lost))).collect();
        let served = (0..CLOSES).try_for_each(|_| -> Result<(), Box<dyn Error>> {
            bench.check_interrupted()?;
            let new = bench.port.listen()?;
            let began = Instant::now();
            while began.elapsed() < SHARED {
                answer(&old)?;
                answer(&new)?;
            }
            while answer(&old)? {}
            old = new;
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        while clients.iter().any(|client| !client.is_finished()) {
            answer(&old)?;
        }
        served
    })?;
    table::print(&format!(
        "tcp_migrate_req {}: {} closes, {} connections: {} reset while connecting, {} after it, {} refused",
        if migrate { "on" } else { "off" },
        thousands(CLOSES as u64),
        thousands(lost.all.into_inner()),
        lost.connecting.into_inner(),
        lost.connected.into_inner(),
        lost.refused.into_inner(),
    ));
    Ok(())
}

#[derive(Default)]
struct Lost {
    all: AtomicU64,
    connecting: AtomicU64,
    connected: AtomicU64,
    refused: AtomicU64,
}

fn ask(address: SocketAddr, over: &AtomicBool, lost: &Lost) {
    let count = |counter: &AtomicU64| _ = counter.fetch_add(1, Ordering::Relaxed);
    while !over.load(Ordering::Relaxed) {
        let mut socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // It leaves no port behind that waits.
        socket.set_linger(Some(Duration::ZERO)).expect("to be reset at its end");
        socket.set_read_timeout(Some(LIMIT)).expect("a limit");
        count(&lost.all);
        match socket.connect(&address.into()).map_err(|error| error.kind()) {
            Ok(()) => {
                let answer = socket.write_all(b"?").and_then(|()| socket.read(&mut [0]));
                if !matches!(answer, Ok(1)) {
                    count(&lost.connected);
                }
            }
            Err(ErrorKind::ConnectionReset) => count(&lost.connecting),
            Err(ErrorKind::ConnectionRefused) => count(&lost.refused),
            Err(other) => panic!("cannot connect: {other}"),
        }
    }
}

/// The next connection, if there is one.
fn answer(listener: &TcpListener) -> std::io::Result<bool> {
    match listener.accept() {
        Ok((mut client, _)) => {
            client.set_read_timeout(Some(LIMIT))?;
            // It may have gone again.
            _ = client.read(&mut [0]).and_then(|_| client.write_all(b"!"));
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) if error.kind() == ErrorKind::ConnectionAborted => Ok(true),
        Err(error) => Err(error),
    }
}
