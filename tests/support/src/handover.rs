//! Either end of a takeover, played by a test: messages with descriptors over a Unix SEQPACKET
//! socket, and the record that makes this process a predecessor.

use std::{
    fs::{self, File},
    io::{IoSlice, IoSliceMut, Write},
    net::Shutdown,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    process,
};

use nix::{
    cmsg_space,
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg},
    },
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{
    LIMIT,
    process::as_user,
    site::{Site, identity},
    wait_for,
};

/// One end of a connection.
#[derive(Debug)]
pub struct End(Socket);

impl End {
    /// Connects to a daemon that hands over.
    #[track_caller]
    pub fn connect(path: &Path) -> Self {
        let socket = seqpacket();
        socket.connect(&SockAddr::unix(path).expect("an address")).expect("a connection");
        End(socket)
    }

    /// As another user; as root only.
    #[track_caller]
    pub fn connect_as(user: u32, path: &Path) -> Self {
        as_user(user, || End::connect(path))
    }

    #[track_caller]
    pub fn send(&self, text: &str) {
        self.send_with(text.as_bytes(), &[]);
    }

    /// False where the other side has closed.
    #[track_caller]
    pub fn try_send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> bool {
        let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control: &[_] = if fds.is_empty() { &[] } else { &rights };
        let parts = [IoSlice::new(bytes)];
        let fd = self.0.as_raw_fd();
        match sendmsg::<UnixAddr>(fd, &parts, control, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) => true,
            Err(nix::errno::Errno::EPIPE | nix::errno::Errno::ECONNRESET) => false,
            Err(error) => panic!("send: {error}"),
        }
    }

    #[track_caller]
    pub fn send_with(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        assert!(self.try_send(bytes, fds), "the other side has closed");
    }

    /// The next message and what came with it; `None` at the end.
    #[track_caller]
    pub fn receive(&self) -> Option<(String, Vec<OwnedFd>)> {
        let mut bytes = vec![0; 1 << 16];
        let mut control = cmsg_space!([RawFd; 253]);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received =
            match recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut parts, Some(&mut control), flags) {
                // It closed with something of ours unread; what it said before comes next.
                Err(nix::errno::Errno::ECONNRESET) => return self.receive(),
                received => received.expect("a message in time"),
            };
        let mut fds = Vec::new();
        for one in received.cmsgs().expect("all descriptors") {
            if let ControlMessageOwned::ScmRights(numbers) = one {
                // SAFETY: the kernel has just made them for us, and nobody else knows of them.
                #[allow(unsafe_code)]
                fds.extend(numbers.iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }));
            }
        }
        let length = received.bytes;
        (length > 0).then(|| (String::from_utf8_lossy(&bytes[..length]).into_owned(), fds))
    }

    /// Has it an unread message, or its end?
    pub fn has_message(&self) -> bool {
        let mut events = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll") > 0
    }

    /// Ends the connection, in both directions.
    pub fn shut(&self) {
        self.0.shutdown(Shutdown::Both).expect("the end");
    }

    #[track_caller]
    pub fn text(&self) -> String {
        self.receive().expect("a message").0
    }
}

/// Memory that can no longer be changed.
pub fn sealed(bytes: &[u8]) -> OwnedFd {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(c"state", flags).expect("memory"));
    file.write_all(bytes).expect("room");
    fcntl(
        &file,
        FcntlArg::F_ADD_SEALS(
            SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE,
        ),
    )
    .expect("seals");
    file.into()
}

/// What a daemon answers to `status`.
#[track_caller]
pub fn status(path: &Path) -> String {
    let end = End::connect(path);
    end.send("seamless-takeover 1 status");
    end.text()
}

fn seqpacket() -> Socket {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).expect("a socket");
    socket.set_read_timeout(Some(LIMIT)).expect("a time limit");
    socket.set_write_timeout(Some(LIMIT)).expect("a time limit");
    socket
}

/// This process, where a successor takes it for generation 1.
#[derive(Debug)]
pub struct Predecessor {
    listener: Socket,
    path: PathBuf,
}

impl Predecessor {
    /// Listens, and writes the record that proves it.
    pub fn new(direct: &Site) -> Self {
        let listener = Predecessor::unproven(direct);
        write_record(direct, process::id(), " state=serving");
        listener
    }

    /// Listens, and nothing says who that is.
    pub fn unproven(direct: &Site) -> Self {
        Predecessor::at(direct.socket())
    }

    /// Listens at this path: a successor that has taken over does so, too.
    pub fn at(path: PathBuf) -> Self {
        let listener = seqpacket();
        _ = fs::remove_file(&path);
        listener.bind(&SockAddr::unix(&path).expect("an address")).expect("bind");
        listener.listen(8).expect("listen");
        Predecessor { listener, path }
    }

    /// The next one that wants to take over.
    #[track_caller]
    pub fn accept(&self) -> End {
        let (socket, _) = self.listener.accept().expect("a successor in time");
        socket.set_read_timeout(Some(LIMIT)).expect("a time limit");
        End(socket)
    }
}

impl Drop for Predecessor {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.path);
    }
}

/// A record that lists one live generation, number 1.
pub fn write_record(direct: &Site, pid: u32, more: &str) {
    write_record_of(direct, &[(1, pid, more)]);
}

/// A record that lists these live generations: their numbers, their processes, and what else the lines say.
pub fn write_record_of(direct: &Site, generations: &[(u64, u32, &str)]) {
    let last = generations.iter().map(|(number, ..)| number).max().expect("a generation");
    let mut text = format!("seamless-record 1 last={last}\n");
    for (number, pid, more) in generations {
        text += &format!("{}{more}\n", line_of(*number, *pid));
    }
    fs::write(direct.lock_file(), text + "end\n").expect("a record");
}

/// Adds a line to the record: it lists this process as that generation as well.
pub fn add_to_record(lock_file: &Path, number: u64, pid: u32, more: &str) {
    let record = fs::read_to_string(lock_file).expect("the record");
    let line = format!("{}{more}", line_of(number, pid));
    let record = record.replacen("\nend\n", &format!("\n{line}\nend\n"), 1);
    fs::write(lock_file, record).expect("a record");
}

/// What a line of the record says of a process that lives.
fn line_of(number: u64, pid: u32) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("the boot id");
    let namespace = fs::metadata("/proc/self/ns/pid").expect("the PID namespace").ino();
    format!(
        "generation={number} daemon={} boot={} pid_namespace={namespace} launcher=3:1",
        identity(pid),
        boot.trim(),
    )
}

/// What each descriptor of a process is (`socket:[4711]`, a path…), in order; without the report,
/// which is open for the moment of an event.
pub fn targets(pid: u32) -> Vec<String> {
    let descriptors = crate::process::descriptors(pid);
    let mut targets: Vec<String> =
        descriptors.iter().map(|(_, target)| target.display().to_string()).collect();
    targets.retain(|target| !target.ends_with("/report"));
    targets.sort();
    targets
}

/// Waits until the descriptors of a process are these.
#[track_caller]
pub fn wait_targets(pid: u32, expected: &[String]) {
    let mut last = Vec::new();
    let what = format!("{pid} has these descriptors: {expected:#?}");
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for(&what, LIMIT, || {
            last = targets(pid);
            (last == expected).then_some(())
        });
    }));
    if done.is_err() {
        assert_eq!(last, expected, "descriptors of {pid}");
    }
}
