//! TLS sessions: clients of every kind resume them with the successor, and only where they may.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
    strict,
};

use super::{Web, assert_ended, certificate};

/// A request, and how the handshake went. The connection is read to its end, so the client has its tickets.
fn ask(config: &Arc<ClientConfig>, address: SocketAddr) -> std::io::Result<HandshakeKind> {
    let tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(LIMIT))?;
    let name = "localhost".try_into().expect("a name");
    let client = ClientConnection::new(config.clone(), name).expect("a client");
    let mut stream = StreamOwned::new(client, tcp);
    stream.write_all(b"GET /name HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    Ok(stream.conn.handshake_kind().expect("a handshake"))
}

#[track_caller]
fn kind(config: &Arc<ClientConfig>, address: SocketAddr) -> HandshakeKind {
    ask(config, address).expect("an answer")
}

/// With 300 clients: more than rustls's own memory has room for.
#[test]
fn p15_rustls_clients_resume_with_each_successor() {
    Boxed::new().private_net_without_migration().limit(LIMIT * 10).run(|folder| {
        let address = boxed::address();
        let trusted = certificate(folder);
        let mut web = Web::start(folder, format!("--tls-listen={address}"));
        let clients: Vec<Arc<ClientConfig>> =
            (0..300).map(|_| strict::trusting([trusted.clone()], false)).collect();
        let resumed = || {
            let kinds = clients.iter().map(|client| kind(client, address));
            kinds.filter(|kind| *kind == HandshakeKind::Resumed).count()
        };
        assert_eq!(resumed(), 0, "nobody has been here");
        assert_eq!(resumed(), 300, "without a restart");
        for _ in 0..3 {
            let old = web.restart();
            assert_ended(&web, &old);
            assert_eq!(resumed(), 300);
        }
        // Another certificate is another configuration.
        let other = certificate(folder);
        let both = strict::trusting([trusted, other], false);
        assert_eq!(kind(&both, address), HandshakeKind::Full);
        assert_eq!(kind(&both, address), HandshakeKind::Resumed);
        let old = web.restart();
        assert_ended(&web, &old);
        assert_eq!(kind(&both, address), HandshakeKind::Full);
        assert_eq!(kind(&both, address), HandshakeKind::Resumed);
    });
}

/// What `openssl s_client` says of its session.
fn openssl(folder: &Path, address: SocketAddr, version: &str, session: &[&str]) -> String {
    let mut client = Command::new("openssl");
    client.current_dir(folder).args(["s_client", "-connect", &address.to_string()]);
    client.args(["-servername", "localhost", "-CAfile", "cert.pem", "-ign_eof", version]);
    client.args(session).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut client = client.spawn().expect("openssl; run scripts/setup");
    let mut input = client.stdin.take().expect("a pipe");
    let request = b"GET /name HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    input.write_all(request).expect("a request");
    let output = client.wait_with_output().expect("its end");
    drop(input);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn p15_openssl_clients_resume_with_a_successor() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        certificate(folder);
        let mut web = Web::start(folder, format!("--tls-listen={address}"));
        let versions = [("-tls1_2", "12"), ("-tls1_3", "13")];
        for (version, file) in versions {
            let said = openssl(folder, address, version, &["-sess_out", file]);
            assert!(said.contains("\nNew, TLSv1."), "{said}");
        }
        let old = web.restart();
        assert_ended(&web, &old);
        for (version, file) in versions {
            let said = openssl(folder, address, version, &["-sess_in", file]);
            assert!(said.contains("\nReused, TLSv1."), "{said}");
        }
    });
}

/// One process of curl: its first request is answered by the old generation, the second by the new one.
#[test]
fn p15_curl_resumes_with_a_successor() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        certificate(folder);
        let mut web = Web::start(folder, format!("--tls-listen={address}"));
        let (old, url) = (web.daemon, format!("https://localhost:{}", address.port()));
        let mut curl = Command::new("curl");
        curl.current_dir(folder).args(["--silent", "--verbose", "--http1.1", "--max-time", "50"]);
        curl.args([
            "--cacert",
            "cert.pem",
            "--resolve",
            &format!("localhost:{}:127.0.0.1", address.port()),
        ]);
        curl.args([format!("{url}/?delay=3s"), format!("{url}/")]);
        curl.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let curl = curl.spawn().expect("curl");
        // It has been accepted once somebody else is answered.
        seamless_testing::wait_for("a request of curl", LIMIT, || {
            let counters = crate::command::counters_of(&folder.join("web.pid"));
            (counters["http_requests"] == 1).then_some(())
        });
        web.restart();
        let output = curl.wait_with_output().expect("its end");
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(out, format!("Server pid: {old}\nServer pid: {}\n", web.daemon), "{err}");
        // A certificate comes with a full handshake only.
        let full = err.lines().filter(|line| line.contains("TLS handshake, Certificate (11)"));
        assert_eq!(full.count(), 1, "{err}");
    });
}

/// A resumed session skips the client's certificate: so a ticket of a public place must not be good at a place
/// that asks for one.
#[test]
fn a_ticket_of_a_public_place_is_refused_at_a_place_with_client_certificates() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let trusted = certificate(folder);
        let authority =
            rcgen::generate_simple_self_signed(["ca".to_owned()]).expect("a certificate");
        fs::write(folder.join("ca.pem"), authority.cert.pem()).expect("ca.pem");
        let (public, mutual) = (boxed::address(), boxed::address());
        let options = format!("--labelled-listen={public}=public --mutual-listen={mutual}=mutual");
        let mut web = Web::start(folder, options);
        for _ in 0..2 {
            let client = strict::trusting([trusted.clone()], false);
            assert_eq!(kind(&client, public), HandshakeKind::Full);
            assert_eq!(kind(&client, public), HandshakeKind::Resumed);
            // The client offers its tickets by the name of the server, which is the same.
            ask(&client, mutual).expect_err("no certificate");
            let old = web.restart();
            assert_ended(&web, &old);
            assert_eq!(kind(&client, public), HandshakeKind::Resumed);
            ask(&client, mutual).expect_err("no certificate");
        }
    });
}

/// Each place has keys of its own, and each of them comes from the predecessor.
#[test]
fn p15_clients_of_two_places_resume_with_a_successor() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let trusted = certificate(folder);
        let places = [boxed::address(), boxed::address(), boxed::address()];
        let [first, second, third] = places;
        let mut web = Web::start(
            folder,
            format!(
                "--tls-listen={first} --labelled-listen={second}=second \
                 --labelled-listen={third}=third"
            ),
        );
        let clients = places.map(|_| strict::trusting([trusted.clone()], false));
        let kinds = || {
            let all = clients.iter().zip(places);
            all.map(|(client, address)| kind(client, address)).collect::<Vec<_>>()
        };
        assert_eq!(kinds(), [HandshakeKind::Full; 3]);
        let old = web.restart();
        assert_ended(&web, &old);
        assert_eq!(kinds(), [HandshakeKind::Resumed; 3]);
    });
}
