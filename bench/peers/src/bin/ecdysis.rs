//! The peer ecdysis: HUP makes the process fork and execute itself; the child inherits the listener.

use std::error::Error;

use ecdysis::tokio_ecdysis::{SignalKind, StopOnShutdown, TokioEcdysisBuilder};
use futures::StreamExt;
use seamless_bench_peers::{Draining, Options, app, converse};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::from_args()?;
    let mut ecdysis = TokioEcdysisBuilder::new(SignalKind::hangup())?;
    ecdysis.stop_on_signal(SignalKind::terminate())?;
    let mut incoming =
        ecdysis.build_listen_tcp(StopOnShutdown::Yes, options.listen, |socket, address| {
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(4096)?;
            Ok(socket.into())
        })?;
    let (serving, draining) = Draining::new();
    let app = app(&draining);
    let accept = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                stream = incoming.next() => match stream {
                    Some(Ok(stream)) => {
                        connections.spawn(converse(stream, app.clone(), draining.clone()));
                    }
                    Some(Err(error)) => eprintln!("cannot accept: {error}"),
                    None => break,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        while connections.join_next().await.is_some() {}
    });
    let (_ecdysis, ended) = ecdysis.ready()?;
    ended.await?;
    drop(serving);
    accept.await?;
    Ok(())
}
