//! What the kernel's tables say about the service.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use seamless_campaigns::load::Origin;
use seamless_testing::process;

/// Where the service is to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Tcp,
    Group,
    Unix,
    Udp,
}

impl Place {
    pub const ALL: [Place; 4] = [Place::Tcp, Place::Group, Place::Unix, Place::Udp];
}

#[derive(Clone, Debug)]
pub struct Places {
    pub tcp: SocketAddr,
    pub group: SocketAddr,
    pub udp: SocketAddr,
    pub unix: PathBuf,
}

/// Inodes of the sockets that take what arrives.
pub type Open = BTreeMap<Place, BTreeSet<u64>>;

/// A table is read in parts, and a line may be missed where others come and go meanwhile: what is
/// not found in so many tables is not there.
const READS: usize = 5;

/// A line of `/proc/net/tcp`.
struct Entry {
    local: SocketAddr,
    listens: bool,
    inode: u64,
}

fn entries(table: &str) -> Vec<Entry> {
    let text = fs::read_to_string(format!("/proc/net/{table}")).expect("a table of sockets");
    let entry = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let address = |word: &str| {
            let (ip, port) = word.split_once(':')?;
            let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.to_ne_bytes());
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_str_radix(port, 16).ok()?))
        };
        Some(Entry {
            local: address(words.get(1)?)?,
            listens: words.get(3) == Some(&"0A"),
            inode: words.get(9)?.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

/// Inodes of the Unix sockets at this path: those that listen, those that were connected to. They were
/// bound beside it, and the table keeps that name.
fn unix(path: &Path) -> (BTreeSet<u64>, BTreeSet<u64>) {
    const LISTENS: u64 = 1 << 16;
    let text = fs::read_to_string("/proc/net/unix").expect("the Unix sockets");
    let (mut listening, mut connected) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        if !words.get(7).is_some_and(|name| is_beside(name, path)) {
            continue;
        }
        let flags = u64::from_str_radix(words[3], 16).expect("flags");
        let inode = words[6].parse().expect("an inode");
        if flags & LISTENS != 0 { &mut listening } else { &mut connected }.insert(inode);
    }
    (listening, connected)
}

impl Places {
    /// What is open, where this was open before.
    pub fn open_since(&self, before: &Open) -> Open {
        let mut open = self.open();
        for _ in 1..READS {
            let is_there =
                |(place, inodes): (&Place, &BTreeSet<u64>)| inodes.is_subset(&open[place]);
            if before.iter().all(is_there) {
                break;
            }
            for (place, inodes) in self.open() {
                open.entry(place).or_default().extend(inodes);
            }
        }
        open
    }

    pub fn open(&self) -> Open {
        let tcp = entries("tcp");
        let listening = |address: SocketAddr| -> BTreeSet<u64> {
            let found = tcp.iter().filter(|entry| entry.listens && entry.local == address);
            found.map(|entry| entry.inode).collect()
        };
        let udp = entries("udp").into_iter().filter(|entry| entry.local == self.udp);
        [
            (Place::Tcp, listening(self.tcp)),
            (Place::Group, listening(self.group)),
            (Place::Unix, unix(&self.unix).0),
            (Place::Udp, udp.map(|entry| entry.inode).collect()),
        ]
        .into()
    }

    /// The clients' ends of the connections that this process has accepted.
    pub fn clients_of(&self, pid: u32) -> HashSet<Origin> {
        let held = sockets(pid);
        let mut clients = HashSet::new();
        // Only this knows which Unix sockets are connected with each other.
        let mut ss = Command::new("ss");
        let output = ss.args(["-H", "-n", "-e", "-t", "-x", "state", "connected"]).output();
        for line in String::from_utf8_lossy(&output.expect("ss").stdout).lines() {
            // u_str ESTAB 0 0 /run/soak/web.sock.new 4711 * 4712
            // tcp ESTAB 0 0 127.0.0.1:8080 127.0.1.1:4711 ino:4713 sk:1
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            if words.first() == Some(&"tcp") {
                let inode = words.iter().find_map(|word| word.strip_prefix("ino:")?.parse().ok());
                let remote = words.get(5).and_then(|word| word.parse().ok());
                if inode.is_some_and(|inode| held.contains(&inode)) {
                    clients.extend(remote.map(Origin::Tcp));
                }
            } else if words
                .get(5)
                .and_then(|own| own.parse().ok())
                .is_some_and(|own| held.contains(&own))
            {
                let peer = words.get(7).and_then(|peer| peer.parse().ok());
                clients.extend(peer.map(Origin::Unix));
            }
        }
        clients
    }

    /// What the process has open, by kind, without the connections of clients.
    pub fn descriptors(&self, pid: u32) -> BTreeMap<String, usize> {
        let open: HashSet<u64> = self.open().into_values().flatten().collect();
        // What comes and goes meanwhile belongs to a request.
        let mut lasting: BTreeSet<(i32, PathBuf)> = process::descriptors(pid).into_iter().collect();
        let mut accepted = HashSet::new();
        for _ in 0..READS {
            let tcp = entries("tcp").into_iter().filter(|entry| !entry.listens);
            accepted.extend(tcp.map(|entry| entry.inode).chain(unix(&self.unix).1));
            let now: BTreeSet<(i32, PathBuf)> = process::descriptors(pid).into_iter().collect();
            lasting = &lasting & &now;
        }
        let mut kinds = BTreeMap::new();
        for (_, target) in lasting {
            let target = target.to_string_lossy().into_owned();
            let kind = match inode(&target) {
                Some(inode) if accepted.contains(&inode) => continue,
                Some(inode) if open.contains(&inode) => "server socket".to_owned(),
                Some(_) => "socket".to_owned(),
                None if target.starts_with("pipe:") => "pipe".to_owned(),
                None => target,
            };
            *kinds.entry(kind).or_insert(0) += 1;
        }
        kinds
    }
}

fn is_beside(name: &str, path: &Path) -> bool {
    path.to_str().is_some_and(|path| name.starts_with(path))
}

/// Inodes of the process's sockets.
pub fn sockets(pid: u32) -> HashSet<u64> {
    let descriptors = process::descriptors(pid);
    descriptors.iter().filter_map(|(_, target)| inode(&target.to_string_lossy())).collect()
}

fn inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}
