//! What other systems than Linux get: as with an empty PID path, and one line in the log that says so.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpStream, UdpSocket},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixStream},
        process::ExitStatusExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use seamless_testing::{
    LIMIT, process,
    signal::{HUP, INT, TERM, USR1, USR2},
};

/// The program, and what it has said so far.
struct Program {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
    folder: PathBuf,
}

impl Program {
    /// Returns when it is ready. `pid_file`: its name in a folder of the program's own, or nothing.
    fn start(name: &str, pid_file: &str) -> Program {
        let folder = std::env::temp_dir().join(format!("elsewhere-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let path = if pid_file.is_empty() { PathBuf::new() } else { folder.join(pid_file) };
        let log = fs::File::create(folder.join("log")).expect("a log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_elsewhere"))
            .args([&path, &folder])
            .env("RUST_LOG", "info")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut program = Program { child, lines, said: Vec::new(), folder };
        program.wait("ready");
        program
    }

    /// Waits until it has said a line that begins so, and returns the rest of the first one.
    #[track_caller]
    fn wait(&mut self, begin: &str) -> String {
        loop {
            if let Some(rest) = self.all(begin).into_iter().next() {
                return rest;
            }
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => self.said.push(line),
                Err(error) => panic!("no {begin:?}: {error}\n{:#?}\n{}", self.said, self.log()),
            }
        }
    }

    /// What follows in all lines that begin so.
    fn all(&self, begin: &str) -> Vec<String> {
        let rest = |line: &String| Some(line.strip_prefix(begin)?.trim().to_owned());
        self.said.iter().filter_map(rest).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).expect("a log")
    }

    fn signal(&self, signal: i32) {
        process::signal(self.child.id(), signal);
    }

    /// Exit code or signal.
    fn end(&mut self) -> (Option<i32>, Option<i32>) {
        let status = self.child.wait().expect("its end");
        while let Ok(line) = self.lines.recv() {
            self.said.push(line);
        }
        (status.code(), status.signal())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        _ = fs::remove_dir_all(&self.folder);
    }
}

fn is_echoed(mut stream: impl Read + Write) {
    stream.write_all(b"x").expect("sent");
    let mut byte = [0];
    stream.read_exact(&mut byte).expect("an echo");
    assert_eq!(byte, *b"x");
}

fn get(address: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    stream
}

#[test]
fn the_pid_file_is_ignored_and_one_line_says_so() {
    let mut program = Program::start("ignored", "web.pid");
    assert_eq!(program.wait("before"), "Starting None NotInitialized");
    // The process that was started is the one that serves, and it has started no other.
    let pid = program.child.id();
    assert_eq!(program.wait("init"), format!("{pid} AlreadyInitialized Serving"));
    assert_eq!(process::children(pid), []);
    assert_eq!(program.wait("inherited"), "None None");
    assert_eq!(program.wait("started"), "None Serving");
    assert_eq!(
        program.wait("restart"),
        "CannotRestart cannot restart (restart): this system is not Linux, so restarts are disabled"
    );
    assert_eq!(program.all("after takeover"), [""]);
    assert_eq!(program.all("launched"), [""; 0]);
    let mut files: Vec<_> = fs::read_dir(&program.folder).expect("a folder").collect();
    files.retain(|file| file.as_ref().is_ok_and(|file| file.file_name() != "log"));
    assert_eq!(files.len(), 2, "its two sockets: {files:?}");
    let log = program.log();
    assert_eq!(log.matches("this system is not Linux").count(), 1, "{log}");
    assert_eq!(log.matches("WARN").count(), 1, "{log}");
    assert!(!log.contains("no PID file"), "{log}");
}

#[test]
fn an_empty_path_is_what_it_is_under_linux() {
    let mut program = Program::start("empty", "");
    let log = program.log();
    assert!(log.contains("no PID file: restarts are disabled"), "{log}");
    assert!(!log.contains("not Linux"), "{log}");
    program.signal(TERM);
    assert_eq!(program.end(), (Some(0), None));
}

#[test]
fn sockets_of_every_kind_are_bound_anew() {
    let mut program = Program::start("sockets", "web.pid");
    program.wait("tcp");
    let addresses = program.all("tcp");
    assert_eq!(addresses.len(), 2);
    for address in addresses {
        is_echoed(TcpStream::connect(address).expect("a connection"));
    }
    let members = program.all("member");
    assert_eq!(members.len(), 2);
    assert_eq!(members[0], members[1]);
    assert_eq!(program.wait("taken"), "Socket");
    assert_eq!(program.wait("long"), "Socket");

    let udp = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    udp.connect(program.wait("udp")).expect("an address");
    udp.send(b"x").expect("sent");
    let mut byte = [0];
    assert_eq!(udp.recv(&mut byte).expect("an echo"), 1);

    let unix = program.folder.join("unix");
    is_echoed(UnixStream::connect(&unix).expect("a connection"));
    let mode = fs::metadata(&unix).expect("a file").permissions().mode();
    assert_eq!(mode & 0o7777, 0o666);
    let datagram = UnixDatagram::unbound().expect("a socket");
    datagram.send_to(b"abc", program.folder.join("datagram")).expect("sent");
    assert_eq!(program.wait("datagram"), "3");
}

/// By each signal that drains: what was accepted is answered, hooks and states come, and it ends with 0.
#[test]
fn term_and_int_drain() {
    for (signal, name) in [(TERM, "term"), (INT, "int")] {
        let mut program = Program::start(name, "web.pid");
        let slow = ["http", "axum"].map(|server| {
            let asked = get(&program.wait(server), "/slow");
            program.wait(&format!("asked {server}"));
            asked
        });
        let tcp = TcpStream::connect(program.wait("tcp")).expect("a connection");
        is_echoed(&tcp);
        program.signal(signal);
        assert_eq!(program.wait("shutdown"), "");
        // In the drain what is open is served on, and its end is waited for.
        is_echoed(&tcp);
        for mut slow in slow {
            let mut answer = String::new();
            slow.read_to_string(&mut answer).expect("an answer");
            assert!(answer.to_lowercase().contains("connection: close\r\n"), "{answer}");
            assert!(answer.ends_with("slow\n"), "{answer}");
        }
        assert!(program.child.try_wait().expect("its state").is_none());
        drop(tcp);
        assert_eq!(program.end(), (Some(0), None));
        assert_eq!(program.all("state"), ["Serving", "Draining"]);
        assert_eq!(program.all("before drain"), [""]);
        assert_eq!(program.all("before TERM").len(), usize::from(signal == TERM));
        assert_eq!(program.all("drained"), ["Requested Some(Requested)"]);
        assert_eq!(program.all("end"), ["Requested"]);
        assert_eq!(program.all("request"), [""; 0], "that is for restarts");
        let log = program.log();
        assert_eq!(log.matches("not Linux").count(), 1, "{log}");
    }
}

#[test]
fn usr2_changes_nothing_while_it_serves_and_ends_a_drain_by_force() {
    let mut program = Program::start("usr2", "web.pid");
    program.signal(USR2);
    program.signal(USR1);
    assert_eq!(program.wait("USR1"), "");
    let tcp = TcpStream::connect(program.wait("tcp")).expect("a connection");
    is_echoed(&tcp);
    program.signal(TERM);
    program.wait("shutdown");
    program.signal(USR2);
    assert_eq!(program.end(), (Some(124), None));
    assert_eq!(program.all("hammer"), [""]);
}

/// There is no launcher that would take it.
#[test]
fn a_reload_signal_has_its_default_action() {
    let mut program = Program::start("hup", "web.pid");
    program.signal(HUP);
    assert_eq!(program.end(), (None, Some(HUP)));
}
