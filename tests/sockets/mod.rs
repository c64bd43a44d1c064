//! Sockets and state that survive a restart: where they are found, how they are handed over, and what
//! hostile peers can do.

mod examples;
mod flows;
mod found;
mod fresh;
mod groups;
mod kept;
mod many;
mod overlaps;
mod own;
mod passing;
mod paths;
mod peers;
mod queues;
mod settings;
mod state;
mod tokio;

use std::path::Path;

use seamless_testing::{
    LIMIT,
    http::Target,
    log::Log,
    process::Watched,
    site::{Site, Started},
};

const TERM: i32 = 15;

/// What the probe of this PID has found or bound, in order.
fn sockets(direct: &Site, daemon: &Watched) -> Vec<String> {
    let events = direct.report.named("socket").into_iter();
    events.filter(|event| event.pid == daemon.pid()).map(|event| event.text).collect()
}

/// Where the sockets of this daemon came from, in the order in which it asked for them.
fn origins(folder: &Path, daemon: &Watched) -> Vec<String> {
    let daemon = daemon.pid().to_string();
    let lines = Log::of(folder).stage("socket").into_iter();
    let own =
        lines.filter(|line| line.is(&[("daemon", &daemon)]) && line.field("closed").is_none());
    own.filter_map(|line| Some(line.field("from")?.to_owned())).collect()
}

/// The next generation, ready, and the one before it at its end.
#[track_caller]
pub(crate) fn next(direct: &Site, old: (Started, Watched), options: &[&str]) -> (Started, Watched) {
    let (mut started, daemon) = old;
    started.detach();
    let next = direct.start_ready(options);
    assert_eq!(direct.report.wait_of(daemon.pid(), "wait").text, "TakenOver");
    daemon.wait_end(LIMIT);
    next
}

fn tcp_of(text: &str) -> Target {
    let address = text.rsplit_once(' ').expect("an address").1;
    Target::from(address.parse::<std::net::SocketAddr>().expect("an address"))
}
