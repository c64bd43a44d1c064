//! One restart in which open connections move, and one side is KILLed at one of its system calls: a connection
//! ends only if the process that was killed had it, and no client misses an answer or gets one twice.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use seamless_testing::{
    LIMIT, bin,
    process::{self, Watched},
    supervisor::{Service, Supervisor},
    wait_for,
};

use crate::{
    strike::{Family, Role, Strike},
    sweep::{Case, Outcome, Sockets, Verdict},
};

const CLIENTS: usize = 6;

/// A client of the service `moves`, which never connects again.
struct Client {
    stream: BufReader<TcpStream>,
    port: u16,
    sent: u64,
    answered: u64,
}

impl Client {
    fn to(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        stream.set_nodelay(true).expect("an option");
        let port = stream.local_addr().expect("ours").port();
        Client { stream: BufReader::new(stream), port, sent: 0, answered: 0 }
    }

    fn send(&mut self) {
        // If it has ended, the answer says so.
        if writeln!(self.stream.get_mut(), "{}", self.sent).is_ok() {
            self.sent += 1;
        }
    }

    /// Who has answered; `None`: the connection has ended.
    fn answer(&mut self) -> Option<u32> {
        let mut line = String::new();
        let count = self.stream.read_line(&mut line).unwrap_or(0);
        if count == 0 || !line.ends_with('\n') {
            return None;
        }
        let (pid, number) = line.trim_end().split_once(' ').expect("an answer");
        assert_eq!(number, self.answered.to_string(), "client {}, by {pid}", self.port);
        self.answered += 1;
        Some(pid.parse().expect("a PID"))
    }

    fn ask(&mut self) -> Option<u32> {
        self.send();
        self.answer()
    }
}

struct Site {
    folder: PathBuf,
    address: SocketAddr,
    service: Service,
}

impl Site {
    fn new(folder: &Path) -> Site {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, Sockets::PORT));
        fs::create_dir_all(folder.join("run")).expect("a folder");
        let script = format!(
            "exec >>'{folder}/log' 2>&1\nexec '{program}' --pid-file='{folder}/run/web.pid' \
             --listen={address} --again",
            folder = folder.display(),
            program = bin::support("moves").display(),
        );
        let service = Service::new(Supervisor::Daemontools, folder.join("service"), &script);
        Site { folder: folder.to_owned(), address, service }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn daemon(&self) -> Option<u32> {
        let text = fs::read_to_string(self.folder.join("run/web.pid")).ok()?;
        text.trim().parse().ok().filter(|pid| process::stat(*pid).is_some_and(|it| it.state != 'Z'))
    }

    /// All processes of the service, by PID.
    fn members(&self) -> BTreeSet<u32> {
        let option = format!("--pid-file={}/run/web.pid", self.folder.display());
        let all = process::all().into_iter().map(|one| one.pid);
        all.filter(|pid| process::command_line(*pid).contains(&option)).collect()
    }

    fn is_started(&self, daemon: u32) -> bool {
        let daemon = format!("daemon={daemon} ");
        let log = self.log();
        log.lines().any(|line| line.contains("stage=started") && line.contains(&daemon))
    }

    /// A daemon that has started, another one than this, and its launcher, and nobody else.
    #[track_caller]
    fn wait_only(&self, but: u32) -> u32 {
        wait_for(format!("another one than {but} alone:\n{}", self.log()), LIMIT, || {
            let daemon = self.daemon().filter(|pid| *pid != but)?;
            let members = self.members();
            let only = members.len() == 2 && members.contains(&daemon);
            (only && self.is_started(daemon)).then_some(daemon)
        })
    }
}

/// Panics where a promise is broken.
pub(crate) fn run(case: Case, folder: &Path) -> Verdict {
    let site = Site::new(folder);
    let old = site.wait_only(0);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::to(site.address)).collect();
    for one in &mut clients {
        assert_eq!(one.ask(), Some(old));
    }
    site.service.settle();
    let family = Family {
        supervisor: site.service.supervisor_pid(),
        launcher: site.service.main_pid(),
        daemon: old,
        program: fs::canonicalize(bin::support("moves")).expect("the program"),
        in_place: false,
    };
    let held_by = |victim| Sockets::of(victim).accepted;
    let strike = Strike::prepare(family, case.role, case.at, held_by);
    strike.begin();
    site.service.restart();
    // Half of them have a question on its way.
    clients.iter_mut().step_by(2).for_each(Client::send);
    let deadline = Instant::now() + LIMIT;
    let untouched = loop {
        if strike.blow().is_some_and(|blow| Watched::new(blow.pid).has_ended()) {
            break None;
        }
        let done = site.daemon().is_some_and(|pid| pid != old && site.is_started(pid));
        if done && Watched::new(old).has_ended() {
            if let Some(calls) = strike.end() {
                break Some(calls);
            }
        }
        assert!(Instant::now() < deadline, "neither a blow nor an end:\n{}", site.log());
        thread::sleep(Duration::from_millis(2));
    };
    let blow = strike.blow();
    let last = site.wait_only(old);
    let (mut alive, mut cut) = (0, 0);
    for (at, one) in clients.iter_mut().enumerate() {
        let mut answer = if at % 2 == 0 { one.answer() } else { one.ask() };
        let deadline = Instant::now() + LIMIT;
        while answer.is_some_and(|pid| pid != last) {
            assert!(Instant::now() < deadline, "{} is not served by {last}", one.port);
            answer = one.ask();
        }
        match (answer, &blow) {
            (Some(_), _) => alive += 1,
            (None, Some(blow)) => {
                let text = format!(
                    "{} has ended, and {} at {} had {:?}\n{}",
                    one.port,
                    blow.pid,
                    blow.call.name(),
                    blow.seen,
                    site.log()
                );
                assert!(blow.seen.contains(&one.port), "{text}");
                cut += 1;
            }
            (None, None) => panic!("{} has ended, and nobody was killed\n{}", one.port, site.log()),
        }
    }
    drop(clients); // a stop waits for them
    site.service.down();
    site.service.wait_down();
    let left = site.members();
    assert!(left.is_empty(), "it was down: {left:?}");
    Verdict {
        outcome: match (&blow, case.role) {
            (None, _) => Outcome::Untouched,
            (Some(_), Role::OldDaemon) => Outcome::New,
            (Some(_), _) => Outcome::Old,
        },
        calls: untouched
            .unwrap_or_else(|| blow.as_ref().map_or(0, |one| one.before.len() as u64 + 1)),
        call: blow.map_or_else(|| "-".to_owned(), |blow| blow.call.name()),
        generation: 2,
        answers: alive,
        held: cut,
        unserved: 0,
    }
}
