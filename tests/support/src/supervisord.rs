//! Real supervisord.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::{LIMIT, wait_for};

/// supervisord with one program, which is called `web`.
#[derive(Debug)]
pub struct Supervisord {
    folder: PathBuf,
    supervisord: Child,
}

/// What it says of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// `RUNNING`, `STOPPED`, `BACKOFF`, `EXITED`…
    pub state: String,
    /// Of the main process, our launcher; none where there is none.
    pub pid: Option<u32>,
}

impl Supervisord {
    /// Starts it in this folder; `program` is a file with a section `[program:web]`. Returns when it
    /// takes commands.
    #[track_caller]
    pub fn start(folder: &Path, program: &Path) -> Self {
        let (at, program) = (folder.display(), program.display());
        let settings = format!(
            "[unix_http_server]\nfile={at}/control\n\
             [supervisord]\nlogfile={at}/supervisord.log\npidfile={at}/supervisord.pid\nuser=root\n\
             childlogdir={at}\n\
             [rpcinterface:supervisor]\n\
             supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
             [supervisorctl]\nserverurl=unix://{at}/control\n\
             [include]\nfiles={program}\n"
        );
        fs::create_dir_all(folder).expect("a folder");
        fs::write(folder.join("supervisord.conf"), settings).expect("its settings");
        let child = Command::new("supervisord")
            .args(["--nodaemon", "--silent", "--configuration"])
            .arg(folder.join("supervisord.conf"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("supervisord: {error}; run scripts/setup"));
        let supervisord = Supervisord { folder: folder.to_owned(), supervisord: child };
        wait_for("supervisord takes commands", LIMIT, || supervisord.ask());
        supervisord
    }

    /// A command of `supervisorctl`; waits for its end. Tells whether it was content.
    #[track_caller]
    pub fn control(&self, words: &[&str]) -> bool {
        self.command(words).status().expect("supervisorctl").success()
    }

    /// The same, not waited for.
    #[track_caller]
    pub fn spawn_control(&self, words: &[&str]) -> Child {
        self.command(words).spawn().expect("supervisorctl")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut control = Command::new("supervisorctl");
        control.arg("--configuration").arg(self.folder.join("supervisord.conf")).args(words);
        control.stdin(Stdio::null());
        control
    }

    #[track_caller]
    pub fn info(&self) -> Info {
        self.ask().unwrap_or_else(|| panic!("no answer of supervisord in {:?}", self.folder))
    }

    #[track_caller]
    pub fn wait_state(&self, state: &str) {
        let what = format!("supervisord says {state}");
        wait_for(what, LIMIT, || (self.ask()?.state == state).then_some(()));
    }

    /// The PID of the main process; waits until it counts as running.
    #[track_caller]
    pub fn main_pid(&self) -> u32 {
        wait_for("a main process", LIMIT, || self.ask().filter(|info| info.state == "RUNNING")?.pid)
    }

    pub fn pid(&self) -> u32 {
        self.supervisord.id()
    }

    /// As `supervisorctl status`, which would take a third of a second of processor time each time.
    fn ask(&self) -> Option<Info> {
        let call = "<?xml version='1.0'?><methodCall><methodName>supervisor.getProcessInfo\
                    </methodName><params><param><value><string>web</string></value></param></params>\
                    </methodCall>";
        let mut socket = UnixStream::connect(self.folder.join("control")).ok()?;
        socket.set_read_timeout(Some(LIMIT)).ok()?;
        let head = "POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
                    Content-Type: text/xml";
        write!(socket, "{head}\r\nContent-Length: {}\r\n\r\n{call}", call.len()).ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let member = |name: &str, kind: &str| {
            let (_, rest) = answer.split_once(&format!("<name>{name}</name>"))?;
            let (_, rest) = rest.split_once(&format!("<value><{kind}>"))?;
            Some(rest.split_once('<')?.0.to_owned())
        };
        let pid = member("pid", "int")?.parse().ok()?;
        Some(Info { state: member("statename", "string")?, pid: (pid != 0).then_some(pid) })
    }
}

/// In a box everything dies anyway: what it supervised ends with the box.
impl Drop for Supervisord {
    fn drop(&mut self) {
        let _ = self.supervisord.kill();
        let _ = self.supervisord.wait();
    }
}
