//! The figures of steered groups: `scripts/bench --flows`.
//!
//! It measures 500 QUIC connections, each with one stream after the other, 100 ms apart, over 50 restarts. It measures
//! the same without a restart, before and after that, since the machine may do other work, and without steering. Then it
//! measures what the program in the kernel costs for each packet. If root starts it, it goes on as `nobody`. It fails if a
//! connection breaks, or a packet reaches the wrong generation.

use std::{
    error::Error,
    fs::{self, File},
    io,
    net::{SocketAddr, UdpSocket},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use lexopt::{Arg::Long, Parser, ValueExt};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid},
};
use seamless::sockets::{Options, Steer, quic::ConnectionIds};
use seamless_quic::client::{self, Table};

const NOBODY: u32 = 65534;
const USAGE: &str = "\
flows [--connections N] [--restarts N] [--every TIME] [--pause TIME] [--members N] [--packets N]";
/// So many packets are counted at least, in a run of full length.
const MANY: u64 = 1_000_000;

struct Settings {
    connections: usize,
    restarts: u32,
    every: Duration,
    /// Between two streams of a connection.
    pause: Duration,
    members: usize,
    /// Of each round of the measurement of a packet's cost.
    packets: u32,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if Uid::effective().is_root() {
        let mut again = Command::new(std::env::current_exe()?);
        let status = again.args(std::env::args_os().skip(1)).uid(NOBODY).gid(NOBODY).status()?;
        return Ok(status.code().map_or(ExitCode::FAILURE, |code| ExitCode::from(code as u8)));
    }
    let mut settings = Settings {
        connections: 500,
        restarts: 50,
        every: Duration::from_secs(1),
        pause: Duration::from_millis(100),
        members: 2,
        packets: 50_000,
    };
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("flows") => {}
            Long("connections") => settings.connections = parser.value()?.parse()?,
            Long("restarts") => settings.restarts = parser.value()?.parse()?,
            Long("every") => {
                settings.every = parser.value()?.parse_with(humantime::parse_duration)?
            }
            Long("pause") => {
                settings.pause = parser.value()?.parse_with(humantime::parse_duration)?
            }
            Long("members") => settings.members = parser.value()?.parse()?,
            Long("packets") => settings.packets = parser.value()?.parse()?,
            Long("help") => {
                println!("{USAGE}");
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    println!("as user {}\n", Uid::effective());
    let cost = cost(&settings)?;
    let before = run(&settings, "alone", 0, true)?;
    let restarted = run(&settings, "restarted", settings.restarts, true)?;
    let after = run(&settings, "alone again", 0, true)?;
    let few = settings.restarts.min(5);
    run(&settings, "without steering", few, false)?;
    let share = restarted.table.rate() / ((before.table.rate() + after.table.rate()) / 2.0);
    let (broken, astray) = (restarted.table.broken(), restarted.astray);
    println!("| figure | measured | aim |\n| --- | --- | --- |");
    println!("| broken connections of {} | {broken} | 0 |", restarted.table.connections);
    println!("| packets at the wrong generation, of {} | {astray} | 0 |", restarted.packets);
    println!("| throughput over restarts, as a share of that without | {share:.3} | 0.97 |");
    println!("| the program's cost for a packet | {cost:.0} ns | |");
    let is_full = settings.connections >= 500 && settings.restarts >= 50;
    let is_well = broken == 0 && astray == 0 && (!is_full || restarted.packets >= MANY);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

// ---- restarts ----

/// Starts one generation after the other, as a supervisor would.
struct Service {
    folder: PathBuf,
    address: SocketAddr,
    members: usize,
    steer: bool,
    launcher: Option<Child>,
}

impl Service {
    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn daemon(&self) -> Option<i32> {
        let text = fs::read_to_string(self.folder.join("web.pid")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    }

    /// The next generation, once it serves.
    fn start(&mut self) -> Result<(), Box<dyn Error>> {
        let before = self.daemon();
        if let Some(mut launcher) = self.launcher.take() {
            kill(Pid::from_raw(launcher.id() as i32), Signal::SIGTERM)?;
            launcher.wait()?;
        }
        let log = File::options().append(true).create(true).open(self.log())?;
        let mut command = Command::new(std::env::current_exe()?.with_file_name("quic"));
        command
            .args(["--listen", &self.address.to_string(), "--members", &self.members.to_string()])
            .args(["--drain-timeout", "1m", "--pid-file"])
            .arg(self.folder.join("web.pid"))
            .args((!self.steer).then_some("--without-steering"))
            .stdin(Stdio::null())
            .stderr(log);
        self.launcher = Some(command.spawn()?);
        let began = Instant::now();
        while self.daemon().is_none_or(|daemon| Some(daemon) == before) {
            if began.elapsed() > Duration::from_secs(30) {
                return Err(format!("no generation has started; see {:?}", self.log()).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// All generations end.
    fn stop(&mut self) -> Result<(), Box<dyn Error>> {
        let Some(mut launcher) = self.launcher.take() else { return Ok(()) };
        kill(Pid::from_raw(launcher.id() as i32), Signal::SIGINT)?;
        let daemon = self.daemon();
        launcher.wait()?;
        // Detached: nobody could ask the supervisor.
        if let Some(daemon) = daemon {
            _ = kill(Pid::from_raw(daemon), Signal::SIGTERM);
        }
        let began = Instant::now();
        let started = |text: &str| text.matches(" listens on ").count();
        loop {
            let text = fs::read_to_string(self.log())?;
            if text.matches(" has drained").count() >= started(&text)
                || began.elapsed() > Duration::from_secs(90)
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What was seen by the clients, and by the servers.
struct Seen {
    table: Table,
    packets: u64,
    astray: u64,
}

fn run(
    settings: &Settings,
    name: &str,
    restarts: u32,
    steer: bool,
) -> Result<Seen, Box<dyn Error>> {
    let folder =
        std::env::temp_dir().join(format!("seamless-flows-{}-{restarts}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let address = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    let mut service = Service { folder, address, members: settings.members, steer, launcher: None };
    service.start()?;
    let ends = Arc::new(AtomicBool::new(false));
    let client = client::Settings {
        server: address,
        connections: settings.connections,
        lifetime: settings.every * 4,
        migrate: Some(settings.every),
        pause: settings.pause,
        time: Duration::from_secs(3600),
        ends: Arc::clone(&ends),
        ..client::Settings::default()
    };
    let clients = std::thread::spawn(move || -> Result<Table, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        runtime.block_on(client::run(&client)).map_err(|error| error.to_string())
    });
    for _ in 0..restarts {
        std::thread::sleep(settings.every);
        service.start()?;
    }
    // As long for a short run, and for one without restarts.
    std::thread::sleep(settings.every * 10_u32.saturating_sub(restarts).max(2));
    ends.store(true, Ordering::Relaxed);
    let table = clients.join().expect("no panic")?;
    service.stop()?;
    let log = fs::read_to_string(service.log())?;
    let sum = |field: &str| -> u64 {
        let numbers = log.split(field).skip(1).filter_map(|rest| {
            rest.split(|byte: char| !byte.is_ascii_digit()).next()?.parse::<u64>().ok()
        });
        numbers.sum()
    };
    println!("{name}: {} connections, {restarts} restarts", settings.connections);
    print!("{table}");
    let (packets, astray, of_ended) = (sum(" packets="), sum(" astray="), sum(" of_ended="));
    if steer {
        println!(
            "packets at the servers: {packets}; at the wrong generation: {astray}; of generations that had ended: \
             {of_ended}"
        );
    }
    println!();
    clean(&service.folder);
    Ok(Seen { table, packets, astray })
}

fn clean(folder: &Path) {
    _ = fs::remove_dir_all(folder);
}

// ---- the cost of the program ----

/// Packets from one socket to a group in this process, one after the other: with a program and without, in
/// turns, so that both see the same machine.
fn cost(settings: &Settings) -> Result<f64, Box<dyn Error>> {
    seamless::init("")?;
    let members = Options::new()
        .nonblocking(true)
        .steer(Steer::Quic)
        .udp_group("127.0.0.1:0", settings.members)?;
    let plain = plain(settings.members)?;
    let client = UdpSocket::bind("127.0.0.1:0")?;
    let mut packet = vec![0x40];
    packet.extend(ConnectionIds::new(&members[0])?.generate());
    packet.resize(1200, 7);
    let (mut with, mut without) = (Duration::MAX, Duration::MAX);
    // The least of many short rounds: other work of the machine only adds.
    for _ in 0..20 {
        with = with.min(round(&client, &members, &packet, settings.packets)?);
        without = without.min(round(&client, &plain, &packet, settings.packets)?);
    }
    let each = |time: Duration| time.as_nanos() as f64 / f64::from(settings.packets);
    println!(
        "one packet, sent and received on loopback: {:.0} ns with the program, {:.0} ns without: {:.0} ns for \
         the program\n",
        each(with),
        each(without),
        each(with) - each(without)
    );
    seamless::started()?;
    Ok(each(with) - each(without))
}

fn plain(members: usize) -> io::Result<Vec<UdpSocket>> {
    use socket2::{Domain, Socket, Type};
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut all = Vec::new();
    for _ in 0..members {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        let socket = UdpSocket::from(socket);
        address = socket.local_addr()?;
        all.push(socket);
    }
    Ok(all)
}

fn round(
    client: &UdpSocket,
    members: &[UdpSocket],
    packet: &[u8],
    packets: u32,
) -> io::Result<Duration> {
    let address = members[0].local_addr()?;
    let mut bytes = [0; 2048];
    let mut receive = |member: &UdpSocket| member.recv(&mut bytes).is_ok();
    client.send_to(packet, address)?;
    // All packets of this client go to one member.
    let at = members.iter().position(&mut receive).ok_or(io::ErrorKind::NotFound)?;
    let began = Instant::now();
    for _ in 0..packets {
        client.send_to(packet, address)?;
        if !receive(&members[at]) {
            return Err(io::Error::other("a packet was lost"));
        }
    }
    Ok(began.elapsed())
}
