//! A service with many sockets, for `scripts/bench`: reports how long it took to have them.
//!
//! `many --pid-file PATH --report FILE --sockets COUNT`, each at an address of its own, or with
//! `--any-port` at port 0 and under a name of its own, reports
//! `had FIRST ALL INODES PREDECESSOR`: nanoseconds until the first socket was there, and all were;
//! the sum of their inodes, which tells the same sockets from others; and the generation that handed
//! them over, 0 where they were bound.

use std::{
    error::Error,
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::AsRawFd,
    path::PathBuf,
    time::Instant,
};

use lexopt::prelude::*;
use seamless::sockets;
use seamless_testing::report;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut pid_file, mut report_file, mut count) = (PathBuf::new(), PathBuf::new(), 1);
    let mut any_port = false;
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("pid-file") => pid_file = args.value()?.into(),
            Long("report") => report_file = args.value()?.into(),
            Long("sockets") => count = args.value()?.parse()?,
            Long("any-port") => any_port = true,
            _ => return Err(arg.unexpected().into()),
        }
    }
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    seamless::init(&pid_file)?;

    let get = |number: usize| {
        if any_port {
            return sockets::Options::new().name(number.to_string()).tcp((Ipv4Addr::LOCALHOST, 0));
        }
        let [.., high, low] = (number as u32).to_be_bytes();
        sockets::tcp(SocketAddr::from((Ipv4Addr::new(127, 77, high, low), 7777)))
    };
    let mut had: Vec<TcpListener> = Vec::with_capacity(count);
    let begin = Instant::now();
    let mut first = None;
    for number in 0..count {
        had.push(get(number)?);
        first.get_or_insert_with(|| begin.elapsed());
    }
    let all = begin.elapsed();
    let first = first.unwrap_or_default();

    let inodes: u64 = had.iter().map(inode).sum::<io::Result<_>>()?;
    let predecessor = seamless::inherited_from().unwrap_or(0);
    seamless::started()?;
    report::append(
        &report_file,
        format!("had {} {} {inodes} {predecessor}", first.as_nanos(), all.as_nanos()),
    );
    seamless::wait();
    Ok(())
}

/// That of the socket, whatever the process and the number.
fn inode(socket: &TcpListener) -> io::Result<u64> {
    let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd()))?;
    let text = link.to_string_lossy();
    let number =
        text.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("no inode: {text}")))
}
