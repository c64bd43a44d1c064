//! A line protocol over TCP without a lost question: `lines [PID_FILE [ADDRESS]]`. Each line is answered
//! with the PID and the line.
//!
//! Such a protocol usually has no message for "please connect again", so a server can only close. Here an
//! old process goes on answering as long as its client asks. It closes a connection when no question has come for
//! the time `QUIET`. A client that asks again after a longer pause must expect that its connection was closed, as
//! with every server that closes idle connections.

use std::{env, error::Error, io, process, time::Duration};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};

/// How long a client may be silent before its connection is closed in the drain.
const QUIET: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let pid_file = args.next().unwrap_or("/run/web/web.pid".into());
    let address = args.next().unwrap_or("127.0.0.1:8080".into());
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();

    seamless::Config::new(pid_file).drain_timeout(Duration::from_secs(3600)).init()?;
    Runtime::new()?.block_on(async {
        let mut listener = seamless::sockets::tokio::tcp(address)?;
        seamless::started()?;
        while let Some((stream, _)) = listener.next().await {
            let guard = seamless::drain_guard(); // the process lives until the last one is closed
            tokio::spawn(async move {
                if let Err(error) = answer(stream).await {
                    log::debug!("connection: {error}");
                }
                drop(guard);
            });
        }
        seamless::finished().await;
        Ok(())
    })
}

async fn answer(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut draining = seamless::draining().at_once();
    let mut line = Vec::new();
    loop {
        line.clear();
        // Bytes that are read stay in `line` if the drain begins in the middle of a line.
        let read = tokio::select! {
            biased;
            read = stream.read_until(b'\n', &mut line), if !draining.has_begun() => read?,
            () = &mut draining => match timeout(QUIET, stream.read_until(b'\n', &mut line)).await {
                Ok(read) => read?,
                Err(_) => return Ok(()),
            },
        };
        if read == 0 && line.is_empty() {
            return Ok(());
        }
        let answer = [format!("{} ", process::id()).as_bytes(), &line].concat();
        stream.get_mut().write_all(&answer).await?;
    }
}
