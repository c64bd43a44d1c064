//! The PROXY protocol: by hand, and as HAProxy and nginx send it.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    http::{Prober, Target},
    strict, wait_for,
};

use super::{Web, assert_ended, assert_took, certificate};

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [V2, &[0x20 | command, family], &length, rest].concat()
}

/// From 192.0.2.7:4711.
fn v2_tcp4(more: &[u8]) -> Vec<u8> {
    let ports = [4711u16.to_be_bytes(), 80u16.to_be_bytes()].concat();
    v2(1, 0x11, &[&[192, 0, 2, 7, 10, 0, 0, 1], ports.as_slice(), more].concat())
}

/// What it answers to who asks for his own address, behind these bytes; as often as asked for.
fn peers(mut stream: impl Read + Write, header: &[u8], pieces: bool) -> Vec<String> {
    let request = |last: bool| {
        let last = if last { "Connection: close\r\n" } else { "" };
        format!("GET /peer HTTP/1.1\r\nHost: a\r\n{last}\r\n").into_bytes()
    };
    let sent = [header, &request(false), &request(true)].concat();
    if pieces {
        sent.iter().for_each(|byte| stream.write_all(&[*byte]).expect("room"));
    } else {
        stream.write_all(&sent).expect("room");
    }
    let mut answers = String::new();
    stream.read_to_string(&mut answers).expect("answers and the end");
    let bodies = answers.split("HTTP/1.1 200 OK").skip(1);
    bodies.map(|one| one.rsplit("\r\n\r\n").next().expect("a body").to_owned()).collect()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    stream.set_nodelay(true).expect("a setting");
    stream
}

#[test]
fn the_peer_is_the_client_that_a_trusted_header_names() {
    Boxed::new().private_net().run(|folder| {
        let (address, unix) = (boxed::address(), folder.join("unix"));
        let _web = Web::start(
            folder,
            format!(
                "--listen={address} --unix-socket={} --proxy-protocol=127.0.0.1,unix",
                unix.display()
            ),
        );
        let long = vec![4; 4000];
        let tlv = [&[0xe0][..], &4000u16.to_be_bytes(), &long].concat();
        let v6 =
            [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[1], &[0; 16], &[0x12, 0x67, 0, 80]].concat();
        let named: [(Vec<u8>, &str); 6] = [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n".to_vec(), "192.0.2.7:4711"),
            (b"PROXY TCP6 2001:db8::1 ::1 4711 80\r\n".to_vec(), "[2001:db8::1]:4711"),
            (v2_tcp4(&[]), "192.0.2.7:4711"),
            (v2_tcp4(&[3, 0, 4, 1, 2, 3, 4]), "192.0.2.7:4711"),
            (v2_tcp4(&tlv), "192.0.2.7:4711"),
            (v2(1, 0x21, &v6), "[2001:db8::1]:4711"),
        ];
        for (header, expected) in &named {
            for pieces in [false, true] {
                let text = String::from_utf8_lossy(&header[..header.len().min(60)]);
                let stream = connect(address);
                assert_eq!(peers(stream, header, pieces), [*expected; 2], "{text}");
                let stream = UnixStream::connect(&unix).expect("a connection");
                assert_eq!(peers(stream, header, pieces), [*expected; 2], "{text}");
            }
        }
        // These name nobody: the peer is that of the socket.
        for header in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN 192.0.2.7 10.0.0.1 4711 80\r\n".to_vec(),
            v2(0, 0, &[]),
            v2(0, 0x11, &[0; 12]),
            v2(1, 0, &[]),
            v2(1, 0x31, &[0; 216]),
            v2(1, 0x12, &[0; 12]),
        ] {
            let stream = connect(address);
            let own = stream.local_addr().expect("ours").to_string();
            assert_eq!(peers(stream, &header, false), [own.as_str(); 2], "{header:?}");
            let stream = UnixStream::connect(&unix).expect("a connection");
            assert_eq!(peers(stream, &header, false), ["none"; 2], "{header:?}");
        }
    });
}

#[test]
fn p10_wrong_headers_and_none_at_all_are_refused() {
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let web = Web::start(folder, format!("--listen={address} --proxy-protocol=127.0.0.0/8"));
        let long = [&b"PROXY UNKNOWN "[..], &[b'a'; 200], b"\r\n"].concat();
        for header in [
            &b""[..],
            b"PROXY\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4711\r\n",
            b"PROXY TCP4 2001:db8::1 ::1 4711 80\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 65536\r\n",
            b"PROXY TCP9 192.0.2.7 10.0.0.1 4711 80\r\n",
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\n",
            &long,
            &v2(2, 0x11, &[0; 12]),
            &v2(1, 0x11, &[0; 11]),
            &v2(1, 0x41, &[0; 12]),
            &V2[1..],
        ] {
            let mut stream = connect(address);
            _ = stream.write_all(&[header, b"GET /peer HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
            let mut answer = Vec::new();
            _ = stream.read_to_end(&mut answer); // reset: it has not read all
            assert_eq!(answer, b"", "{}", String::from_utf8_lossy(header));
        }
        let fine = peers(connect(address), &v2_tcp4(&[]), false);
        assert_eq!(fine, ["192.0.2.7:4711"; 2]);
        assert!(web.log().lines().iter().all(|line| !line.is(&[("stage", "hammer")])));
    });
}

#[test]
fn p10_a_peer_that_is_not_trusted_may_not_claim_an_address() {
    Boxed::new().private_net().run(|folder| {
        let (address, unix) = (boxed::address(), folder.join("unix"));
        let web = Web::start(
            folder,
            format!(
                "--listen={address} --unix-socket={} --proxy-protocol=10.0.0.0/8",
                unix.display()
            ),
        );
        for header in [b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n".to_vec(), v2_tcp4(&[])] {
            let mut stream = connect(address);
            _ = stream.write_all(&[&header[..], b"GET /peer HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
            let mut answer = Vec::new();
            _ = stream.read_to_end(&mut answer);
            assert_eq!(answer, b"");
        }
        let words = ["stage=http", "step=proxy", "peer=127.0.0.1", "not trusted"];
        web.log().wait_words(&words, 1);
        // Without a header it is served, and is who it is.
        let stream = connect(address);
        let own = stream.local_addr().expect("ours").to_string();
        assert_eq!(peers(stream, b"", false), [own.as_str(); 2]);
        let stream = UnixStream::connect(&unix).expect("a connection");
        assert_eq!(peers(stream, b"", true), ["none"; 2]);
    });
}

#[test]
fn a_header_that_does_not_come_in_time_ends_the_connection() {
    Boxed::new().private_net().run(|folder| {
        for (name, option, limit) in [
            ("default", "", Duration::from_secs(5)),
            ("shorter", "--header-timeout=700ms", Duration::from_millis(700)),
        ] {
            let place = folder.join(name);
            fs::create_dir(&place).expect("a folder");
            let address = boxed::address();
            let options = format!("--listen={address} {option} --proxy-protocol=127.0.0.1");
            let _web = Web::start(&place, options);
            let begin = Instant::now();
            let (mut silent, mut slow) = (connect(address), connect(address));
            slow.write_all(b"PROXY TCP4 192.0.2.7").expect("room");
            for stream in [&mut silent, &mut slow] {
                assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
            }
            assert_took(begin, limit);
        }
    });
}

#[test]
fn with_tls_the_header_comes_before_the_handshake() {
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let roots = strict::trusting([certificate(folder)], false);
        let _web = Web::start(folder, format!("--tls-listen={address} --proxy-protocol=127.0.0.1"));
        for pieces in [false, true] {
            let mut tcp = connect(address);
            let header = v2_tcp4(&[]);
            if pieces {
                header.iter().for_each(|byte| tcp.write_all(&[*byte]).expect("room"));
            } else {
                tcp.write_all(&header).expect("room");
            }
            let name = "localhost".try_into().expect("a name");
            let client = rustls::ClientConnection::new(roots.clone(), name).expect("a client");
            let stream = rustls::StreamOwned::new(client, tcp);
            assert_eq!(peers(stream, b"", false), ["192.0.2.7:4711"; 2]);
        }
    });
}

// ---- real ones ----

/// Ends with the test.
pub(super) struct LoadBalancer(Child);

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

pub(super) fn start(folder: &Path, command: &mut Command, at: SocketAddr) -> LoadBalancer {
    let log = fs::File::create(folder.join("balancer-log")).expect("a log");
    let command = command.current_dir(folder).stdin(Stdio::null());
    let command = command.stdout(log.try_clone().expect("a log")).stderr(log);
    let balancer = LoadBalancer(command.spawn().expect("a load balancer"));
    wait_for("it listens", LIMIT, || TcpStream::connect(at).ok());
    balancer
}

fn haproxy(folder: &Path, at: SocketAddr, to: SocketAddr, how: &str) -> LoadBalancer {
    let settings = format!(
        "global\n  maxconn 1000\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 60s\n  \
         timeout server 60s\nlisten web\n  bind {at}\n  server web {to} {how}\n"
    );
    fs::write(folder.join("haproxy.cfg"), settings).expect("settings");
    start(folder, Command::new("/usr/sbin/haproxy").args(["-db", "-f", "haproxy.cfg"]), at)
}

fn nginx(folder: &Path, at: SocketAddr, to: SocketAddr, _: &str) -> LoadBalancer {
    let settings = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nmaster_process off;\n\
         pid {0}/nginx.pid;\nerror_log stderr;\nevents {{ worker_connections 1000; }}\nstream {{\n  \
         server {{ listen {at}; proxy_pass {to}; proxy_protocol on; }}\n}}\n",
        folder.display()
    );
    fs::write(folder.join("nginx.conf"), settings).expect("settings");
    let conf = folder.join("nginx.conf");
    let mut command = Command::new("/usr/sbin/nginx");
    start(folder, command.arg("-c").arg(conf).args(["-e", "stderr"]), at)
}

type Begin = fn(&Path, SocketAddr, SocketAddr, &str) -> LoadBalancer;

#[test]
fn p2_restarts_behind_real_load_balancers_lose_nothing() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let all: [(&str, Begin, &str); 3] = [
            ("haproxy-1", haproxy, "send-proxy"),
            ("haproxy-2", haproxy, "send-proxy-v2"),
            ("nginx", nginx, ""),
        ];
        for (name, begin, how) in all {
            println!("{name}");
            let place = folder.join(name);
            fs::create_dir(&place).expect("a folder");
            let (address, front) = (boxed::address(), boxed::address());
            let options = format!("--listen={address} --proxy-protocol=127.0.0.1");
            let mut web = Web::start(&place, options);
            let _balancer = begin(&place, front, address, how);
            let client = || {
                let stream = connect(front);
                let own = stream.local_addr().expect("ours").to_string();
                assert_eq!(peers(stream, b"", false), [own.as_str(); 2]);
            };
            client();
            let target = Target::from(front);
            let every = Duration::from_millis(1);
            let probers = [(); 4].map(|()| Prober::start_every(every, &target));
            let mut expected = vec![web.daemon];
            for _ in 0..3 {
                probers.iter().for_each(|prober| prober.wait_pid(web.daemon));
                let old = web.restart();
                expected.push(web.daemon);
                client();
                assert_ended(&web, &old);
            }
            for prober in probers {
                prober.wait_pid(web.daemon);
                let probes = prober.stop();
                probes.assert_all_answered();
                assert_eq!(probes.pids(), expected);
            }
        }
    });
}
