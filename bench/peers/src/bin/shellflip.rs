//! The peer shellflip: USR1 makes the process start its successor. It hands over data, no sockets
//! ("this library does not provide for socket inheritance or rebinding"), so both listen on one port
//! with SO_REUSEPORT, and the old one empties its queue before it closes it.

use std::{error::Error, io::ErrorKind};

use seamless_bench_peers::{Draining, Options, app, converse, reuse_port};
use shellflip::RestartConfig;
use tokio::{net::TcpStream, task::JoinSet};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::from_args()?;
    let listener = reuse_port(options.listen)?;
    let mut restart_socket = options.pid_file.into_os_string();
    restart_socket.push(".shellflip");
    let restart = RestartConfig {
        enabled: true,
        coordination_socket_path: restart_socket.into(),
        exit_on_error: false,
        ..RestartConfig::default()
    };
    let restarted = restart.try_into_restart_task()?;
    tokio::pin!(restarted);

    let (serving, draining) = Draining::new();
    let app = app(&draining);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, app.clone(), draining.clone()));
                }
                Err(error) => eprintln!("cannot accept: {error}"),
            },
            Some(_) = connections.join_next() => {}
            child = &mut restarted => {
                child?;
                break;
            }
        }
    }
    drop(serving);
    let listener = listener.into_std()?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                let stream = TcpStream::from_std(stream)?;
                connections.spawn(converse(stream, app.clone(), draining.clone()));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => eprintln!("cannot accept: {error}"),
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}
