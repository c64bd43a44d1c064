//! Behind real proxies that keep their connections, and clients that never retry: nothing fails, for no connection is
//! closed.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    is_long, wait_for,
};

use super::{
    Answers as _, Web, assert_ended, connect_to,
    proxied::{LoadBalancer, start},
};

/// For clients that never retry, and servers that must not close a connection.
const STAYS: &str = "--pass=yes --spread=1h --idle-grace=1h --drain-timeout=9h";
const POST: &str = "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345";

fn haproxy(folder: &Path, at: SocketAddr, to: SocketAddr) -> LoadBalancer {
    let settings = format!(
        "global\n  maxconn 1000\ndefaults\n  mode http\n  timeout connect 50s\n  timeout client 60s\n  \
         timeout server 60s\n  timeout http-keep-alive 60s\n  http-reuse always\n  retries 0\n\
         listen web\n  bind {at}\n  server web {to} pool-purge-delay 60s\n"
    );
    fs::write(folder.join("haproxy.cfg"), settings).expect("settings");
    start(folder, Command::new("/usr/sbin/haproxy").args(["-db", "-f", "haproxy.cfg"]), at)
}

fn nginx(folder: &Path, at: SocketAddr, to: SocketAddr) -> LoadBalancer {
    let settings = format!(
        "daemon off;\nmaster_process off;\npid {0}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 1000; }}\nhttp {{\n  access_log off;\n  \
         client_body_temp_path {0}/body;\n  proxy_temp_path {0}/proxy;\n  fastcgi_temp_path {0}/f;\n  \
         uwsgi_temp_path {0}/u;\n  scgi_temp_path {0}/s;\n  keepalive_timeout 60s;\n  \
         upstream web {{ server {to}; keepalive 16; }}\n  server {{ listen {at};\n    \
         location / {{ proxy_pass http://web; proxy_http_version 1.1;\n      \
         proxy_set_header Connection \"\"; proxy_next_upstream off; }} }}\n}}\n",
        folder.display()
    );
    fs::write(folder.join("nginx.conf"), settings).expect("settings");
    let conf = folder.join("nginx.conf");
    let mut command = Command::new("/usr/sbin/nginx");
    start(folder, command.arg("-c").arg(conf).args(["-e", "stderr"]), at)
}

/// `scripts/test --long` restarts 100 times.
fn restarts() -> usize {
    if is_long() { 100 } else { 4 }
}

fn a_box() -> Boxed {
    let limit = Duration::from_secs(if is_long() { 1200 } else { 120 });
    Boxed::new().private_net_without_migration().limit(limit)
}

type Begin = fn(&Path, SocketAddr, SocketAddr) -> LoadBalancer;

#[test]
fn p13_posts_through_proxies_that_keep_their_connections() {
    const CLIENTS: u64 = 8;
    a_box().run(|folder| {
        let all: [(&str, Begin); 2] = [("haproxy", haproxy), ("nginx", nginx)];
        for (name, begin) in all {
            println!("{name}");
            let place = folder.join(name);
            fs::create_dir(&place).expect("a folder");
            let (address, front) = (boxed::address(), boxed::address());
            let mut web = Web::start(&place, format!("--listen={address} {STAYS}"));
            let _balancer = begin(&place, front, address);
            let (done, all) = (AtomicBool::new(false), AtomicU64::new(0));
            thread::scope(|scope| {
                for client in 0..CLIENTS {
                    let (done, all) = (&done, &all);
                    scope.spawn(move || {
                        let mut one = connect_to(front);
                        one.set_limit(LIMIT);
                        let mut asked = 0;
                        while !done.load(Ordering::Relaxed) {
                            one.send(POST);
                            let head = one.read_until("\r\n\r\n");
                            assert!(head.starts_with("HTTP/1.1 200 "), "{client}, {asked}: {head}");
                            one.read_until("Server pid: ");
                            one.read_until("\n");
                            all.fetch_add(1, Ordering::Relaxed);
                            asked += 1;
                            thread::sleep(Duration::from_millis((asked * 7 + client * 13) % 61));
                        }
                    });
                }
                for _ in 0..restarts() {
                    let enough = all.load(Ordering::Relaxed) + 3 * CLIENTS;
                    wait_for("answers", LIMIT, || {
                        (all.load(Ordering::Relaxed) >= enough).then_some(())
                    });
                    let old = web.restart();
                    assert_ended(&web, &old);
                }
                done.store(true, Ordering::Relaxed);
            });
            let counters = crate::command::counters_of(&place.join("web.pid"));
            assert_eq!(counters["http_failures"], 0);
            assert!(counters["http_passed"].as_u64() > Some(0), "{counters}");
        }
    });
}

/// Python's client does not look before it writes, and loses a request on a connection that was closed.
const PYTHON: &str = r#"
import http.client, os, random, sys, threading, time
host, stop, asked, failed = sys.argv[1], sys.argv[2], [0], []
def client(number):
    connection = http.client.HTTPConnection(host, timeout=50)
    try:
        while not os.path.exists(stop):
            connection.request("POST", "/upload", body=b"12345")
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 200 and text.startswith(b"5 bytes\n"), (answer.status, text)
            asked[0] += 1
            time.sleep(random.random() / 10)
    except Exception as error:
        failed.append(f"{number}: {error!r}")
threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
for one in threads: one.start()
for one in threads: one.join()
print(asked[0], failed)
sys.exit(1 if failed or not asked[0] else 0)
"#;

#[test]
fn p13_pythons_client_loses_nothing() {
    let client = |address: SocketAddr, stop: &Path| {
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", PYTHON, &address.to_string()]).arg(stop);
        python
    };
    loses_nothing(client, |_| ());
}

/// So does Go's: `hey` lets it send no request twice.
#[test]
fn p13_gos_client_loses_nothing() {
    let client = |address: SocketAddr, stop: &Path| {
        // A shell without job control has its background jobs ignore INT.
        let until = "hey -n 1000000 -c 8 -q 20 -m POST -d 12345 \"http://$0/upload\" & \
                     until [ -e \"$1\" ]; do sleep 0.05; done; kill -INT $!; wait $!";
        let mut hey = Command::new("/bin/bash");
        hey.args(["-mc", until, &address.to_string()]).arg(stop);
        hey
    };
    loses_nothing(client, |said| {
        let of_answers = said.lines().map(str::trim).filter(|line| line.ends_with("responses"));
        let of_answers: Vec<_> = of_answers.collect();
        assert!(matches!(*of_answers, [one] if one.starts_with("[200]\t")), "{said}");
        assert!(!said.contains("Error distribution"), "{said}");
    });
}

/// Eight clients, which `command` starts, ask until there is a file. What they have said is looked at.
fn loses_nothing(command: impl FnOnce(SocketAddr, &Path) -> Command, look: impl FnOnce(&str)) {
    a_box().run(|folder| {
        let address = boxed::address();
        let mut web = Web::start(folder, format!("--listen={address} {STAYS}"));
        let stop = folder.join("stop");
        let mut clients = command(address, &stop);
        clients.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let clients = clients.spawn().expect("run scripts/setup");
        let counter = |name: &str| {
            let counters = crate::command::counters_of(&folder.join("web.pid"));
            counters[name].as_u64().unwrap_or(0)
        };
        let wait_requests = |more: u64| {
            let enough = counter("http_requests") + more;
            wait_for("requests", LIMIT, || (counter("http_requests") >= enough).then_some(()));
        };
        wait_requests(100);
        for _ in 0..restarts() {
            wait_requests(24);
            let old = web.restart();
            assert_ended(&web, &old);
            assert_eq!(closed_by(address), [""; 0], "a client had to come back");
        }
        fs::write(stop, "").expect("a file");
        let output = clients.wait_with_output().expect("its end");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        look(&said);
    });
}

/// The connections that the server has closed before its client did, which the kernel lists for a minute.
/// How many there are tells nothing: Go opens some that it does not need.
fn closed_by(server: SocketAddr) -> Vec<String> {
    const CLOSED_FIRST: [&str; 4] = ["04", "05", "06", "0B"]; // FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSING
    let server = format!("0100007F:{:04X}", server.port());
    let sockets = fs::read_to_string("/proc/net/tcp").expect("the sockets");
    // `1: 0100007F:1F90 0100007F:A2B4 06 …`
    let here = |line: &&str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        words.get(1) == Some(&server.as_str())
            && words.get(3).is_some_and(|state| CLOSED_FIRST.contains(state))
    };
    sockets.lines().filter(here).map(str::to_owned).collect()
}

/// Half of a chunk has come: the request is answered where it was asked. Then the connection leaves, if its moment has
/// come, or moves after the next request.
#[test]
fn p13_half_a_chunk_is_served_to_its_end() {
    Boxed::new().private_net().run(|folder| {
        let address = boxed::address();
        let mut web = Web::start(folder, format!("--listen={address} {STAYS} --header-timeout=1h"));
        let mut both = [connect_to(address), connect_to(address)];
        for one in &mut both {
            one.send(
                "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12",
            );
            one.wait_accepted(web.daemon);
        }
        wait_for("the requests", LIMIT, || {
            let counters = crate::command::counters_of(&folder.join("web.pid"));
            (counters["http_requests"] == 2).then_some(())
        });
        let old = web.restart();
        let mut left = both.each_mut().map(|one| {
            one.send("345\r\n0\r\n\r\n");
            one.answer_of(old.pid())
        });
        for (one, left) in both.iter_mut().zip(&mut left).filter(|(_, left)| !**left) {
            // Where its body ends, only the library knows.
            one.send(super::GET);
            *left = one.answer_of(old.pid());
        }
        // The first moment is the begin of the drain, of which a connection learns a moment later. The second one is
        // in half an hour.
        assert_ne!(left, [true; 2]);
        assert_ended(&web, &old);
        for (one, left) in both.iter_mut().zip(left) {
            if left {
                one.ends();
            } else {
                one.send(super::GET);
                assert!(!one.answer_of(web.daemon));
            }
        }
    });
}
