//! HTTP/2, frame by frame: what a client sees of a drain that reads slowly, or has a tunnel.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    thread::sleep,
    time::Duration,
};

use seamless_testing::{
    LIMIT,
    boxed::{self, Boxed},
};

use super::{Web, assert_ended};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// Of DATA and HEADERS.
const END_STREAM: u8 = 1;
/// Of SETTINGS and PING.
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Of the static table (RFC 7541, appendix A), as they stand there or with a value.
const METHOD_GET: u8 = 0x82;
const SCHEME_HTTP: u8 = 0x86;
const STATUS_200: u8 = 0x88;
const AUTHORITY: u8 = 1;
const METHOD: u8 = 2;
const PATH: u8 = 4;

struct Client(TcpStream);

struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

fn with_value(name: u8, value: &str) -> Vec<u8> {
    let length = u8::try_from(value.len()).expect("a short value");
    [&[name, length], value.as_bytes()].concat()
}

impl Client {
    /// The server may send so many bytes of each answer.
    fn new(address: SocketAddr, window: u32) -> Client {
        let mut socket = TcpStream::connect(address).expect("a connection");
        socket.set_read_timeout(Some(LIMIT)).expect("a limit");
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("sent");
        let mut client = Client(socket);
        client.send(SETTINGS, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat());
        client
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
        let length = u8::try_from(payload.len()).expect("a short frame");
        let head = [0, 0, length, kind, flags, 0, 0, 0, stream];
        self.0.write_all(&[&head, payload].concat()).expect("sent");
    }

    fn get(&mut self, path: &str) {
        let fields = [vec![METHOD_GET, SCHEME_HTTP], with_value(PATH, path)].concat();
        let fields = [fields, with_value(AUTHORITY, "a")].concat();
        self.send(HEADERS, END_HEADERS | END_STREAM, 1, &fields);
    }

    /// The next frame of this kind. What the server asks meanwhile is answered.
    #[track_caller]
    fn next(&mut self, kind: u8) -> Frame {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).expect("a frame");
            let [a, b, c, this, flags, ..] = head;
            let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
            self.0.read_exact(&mut payload).expect("the whole of it");
            match this {
                SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => self.send(PING, ACK, 0, &payload),
                _ => {}
            }
            if this == kind {
                return Frame { kind, flags, payload };
            }
        }
    }

    #[track_caller]
    fn ends(&mut self) {
        assert_eq!(self.0.read(&mut [0]).expect("an orderly end"), 0);
    }
}

/// The app has given the whole of its answer, which waits in the server.
#[test]
fn p3_a_client_that_pauses_in_a_drain_gets_the_rest_of_its_answer() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let times = "--idle-grace=100ms --header-timeout=1s";
        let mut web = Web::start(folder, format!("--listen={address} {times}"));
        let mut client = Client::new(address, 100);
        client.get("/download?pieces=1&every=1ms");
        let mut answer = client.next(DATA).payload;
        assert_eq!(answer.len(), 100);
        let old = web.restart();
        // Ours, and two of the library: the last one when its PING is answered.
        for _ in 0..3 {
            assert_eq!(client.next(GOAWAY).kind, GOAWAY);
        }
        sleep(Duration::from_millis(3500)); // longer than any silence of a client that has gone
        assert!(!old.has_ended());
        client.send(WINDOW_UPDATE, 0, 1, &2000_u32.to_be_bytes());
        loop {
            let part = client.next(DATA);
            answer.extend(part.payload);
            if part.flags & END_STREAM != 0 {
                break;
            }
        }
        assert_eq!(answer, [b'x'; 1000]);
        client.ends();
        assert_ended(&web, &old);
    });
}

/// It is a stream of many: its connection is told of the drain as all others.
#[test]
fn p3_a_tunnel_by_http2_is_held_and_its_connection_is_told() {
    Boxed::new().private_net_without_migration().run(|folder| {
        let address = boxed::address();
        let mut web = Web::start(folder, format!("--listen={address} --idle-grace=1h"));
        let mut client = Client::new(address, 1000);
        let fields = [with_value(METHOD, "CONNECT"), with_value(AUTHORITY, "a:1")].concat();
        client.send(HEADERS, END_HEADERS, 1, &fields);
        assert_eq!(client.next(HEADERS).payload[0], STATUS_200);
        let old = web.restart();
        assert_eq!(client.next(GOAWAY).payload[..4], [0x7f, 0xff, 0xff, 0xff]);
        client.send(DATA, 0, 1, b"through the tunnel");
        assert_eq!(client.next(DATA).payload, b"through the tunnel");
        assert!(!old.has_ended());
        drop(client);
        assert_ended(&web, &old);
    });
}
