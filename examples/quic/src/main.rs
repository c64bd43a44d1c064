//! A QUIC server whose connections survive restarts: each stream gets back what it sends. With `--connect`,
//! the client: it keeps streams running, and prints a table of what was lost.
//!
//! ```sh
//! quic --listen 127.0.0.1:4433 --pid-file /run/web/web.pid
//! quic --connect 127.0.0.1:4433 --connections 100 --time 1m   # restart the server meanwhile
//! ```

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use lexopt::{Arg::Long, Parser, ValueExt};
use seamless_quic::{client, ids, server};

const USAGE: &str = "\
quic --listen ADDRESS [--pid-file PATH] [--members N] [--drain-timeout TIME] [--probation TIME]
     [--id-lifetime TIME] [--early-data] [--without-steering]
quic --connect ADDRESS [--connections N] [--bytes N] [--pause TIME] [--lifetime TIME] [--migrate TIME]
     [--time TIME]";

enum Mode {
    Server(server::Settings),
    Client(client::Settings),
}

fn parse() -> Result<Mode, lexopt::Error> {
    let time = |parser: &mut Parser| -> Result<Duration, lexopt::Error> {
        parser.value()?.parse_with(humantime::parse_duration)
    };
    let mut client = client::Settings::default();
    let mut server = server::Settings {
        listen: client.server,
        pid_file: PathBuf::new(),
        members: 2,
        drain_timeout: None,
        probation: None,
        id_lifetime: ids::LIFETIME,
        early_data: false,
        steer: true,
    };
    let mut connects = false;
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("listen") => server.listen = parser.value()?.parse()?,
            Long("pid-file") => server.pid_file = parser.value()?.into(),
            Long("members") => server.members = parser.value()?.parse()?,
            Long("drain-timeout") => server.drain_timeout = Some(time(&mut parser)?),
            Long("probation") => server.probation = Some(time(&mut parser)?),
            Long("id-lifetime") => server.id_lifetime = time(&mut parser)?,
            Long("early-data") => server.early_data = true,
            Long("without-steering") => server.steer = false,
            Long("connect") => (connects, client.server) = (true, parser.value()?.parse()?),
            Long("connections") => client.connections = parser.value()?.parse()?,
            Long("bytes") => client.bytes = parser.value()?.parse()?,
            Long("pause") => client.pause = time(&mut parser)?,
            Long("lifetime") => client.lifetime = time(&mut parser)?,
            Long("migrate") => client.migrate = Some(time(&mut parser)?),
            Long("time") => client.time = time(&mut parser)?,
            other => return Err(other.unexpected()),
        }
    }
    Ok(if connects { Mode::Client(client) } else { Mode::Server(server) })
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let done = match parse() {
        Err(error) => {
            eprintln!("quic: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
        Ok(Mode::Server(settings)) => server::run(&settings).map(|()| true),
        Ok(Mode::Client(settings)) => connect(&settings),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// `false`: connections were broken.
fn connect(settings: &client::Settings) -> Result<bool, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let table = runtime.block_on(client::run(settings)).map_err(|error| error.to_string())?;
    print!("{table}");
    Ok(table.broken() == 0)
}
