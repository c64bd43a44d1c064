//! SO_REUSEPORT as it is used most: when the drain begins the old process closes its listener, with
//! whatever is queued there. What it has accepted it answers. The restart itself is this crate's.

use std::error::Error;

use seamless_bench_peers::{Draining, Options, app, converse, reuse_port};
use tokio::task::JoinSet;

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::from_args()?;
    seamless::init(&options.pid_file)?;
    serve(&options)?;
    seamless::wait();
    Ok(())
}

#[tokio::main]
async fn serve(options: &Options) -> Result<(), Box<dyn Error>> {
    let listener = reuse_port(options.listen)?;
    seamless::started()?;
    let (serving, draining) = Draining::new();
    let app = app(&draining);
    let mut connections = JoinSet::new();
    let mut drain = seamless::draining().at_once();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, app.clone(), draining.clone()));
                }
                Err(error) => eprintln!("cannot accept: {error}"),
            },
            Some(_) = connections.join_next() => {}
            () = &mut drain => break,
        }
    }
    drop(listener);
    drop(serving);
    while connections.join_next().await.is_some() {}
    Ok(())
}
