//! The example `ws`: WebSockets that move between two frames, or in the middle of one.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use seamless_testing::{LIMIT, boxed::Boxed, wait_for};

use super::Moves;

/// A client that connects once.
struct Socket(TcpStream);

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// One frame; `last`: of its message.
fn frame(opcode: u8, last: bool, payload: &[u8]) -> Vec<u8> {
    let masked = payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    let length = u8::try_from(payload.len()).expect("short");
    assert!(length < 126);
    let head = [u8::from(last) << 7 | opcode, 0x80 | length];
    head.into_iter().chain(MASK).chain(masked).collect()
}

impl Socket {
    #[track_caller]
    fn to(address: SocketAddr) -> Socket {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        stream.set_nodelay(true).expect("an option");
        let head = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("a request");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        let answer = String::from_utf8(answer).expect("text");
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        // That of the RFC's example.
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
        Socket(stream)
    }

    #[track_caller]
    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("sent");
    }

    /// The next frame: its opcode and its payload.
    #[track_caller]
    fn next(&mut self) -> (u8, String) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).expect("a frame, and no end");
        assert!(head[0] & 0x80 != 0 && head[1] < 126, "{head:?}");
        let mut payload = vec![0; head[1].into()];
        self.0.read_exact(&mut payload).expect("a whole frame");
        (head[0] & 0x0f, String::from_utf8_lossy(&payload).into_owned())
    }

    /// The PID that has answered the text of this number.
    #[track_caller]
    fn answer(&mut self, number: u64, text: &str) -> u32 {
        let (opcode, answer) = self.next();
        assert_eq!(opcode, 1, "{answer}");
        let words: Vec<&str> = answer.splitn(3, ' ').collect();
        assert_eq!((words[0], words[2]), (&*number.to_string(), text));
        words[1].parse().expect("a PID")
    }
}

#[test]
fn p13_websockets_and_their_sessions_notice_no_restart() {
    const CLIENTS: usize = 8;
    Boxed::new().private_net().run(|folder| {
        let mut service = Moves::ws(folder);
        let clients: Vec<Socket> = (0..CLIENTS).map(|_| Socket::to(service.address)).collect();
        let (done, all) = (AtomicBool::new(false), AtomicU64::new(0));
        let pause = || thread::sleep(Duration::from_millis(3));
        thread::scope(|scope| {
            let asking: Vec<_> = clients
                .into_iter()
                .enumerate()
                .map(|(client, mut one)| {
                    let (done, all) = (&done, &all);
                    scope.spawn(move || {
                        let mut number = 0;
                        while !done.load(Ordering::Relaxed) {
                            let text = format!("{client}/{number}");
                            // A message in two frames with a ping between them, each frame in two pieces.
                            let half = text.len() / 2;
                            let pieces = [
                                frame(1, false, &text.as_bytes()[..half]),
                                frame(9, true, b"there?"),
                                frame(0, true, &text.as_bytes()[half..]),
                            ];
                            for piece in pieces {
                                one.send(&piece[..piece.len() / 2]);
                                pause();
                                one.send(&piece[piece.len() / 2..]);
                                pause();
                            }
                            assert_eq!(one.next(), (10, "there?".to_owned()));
                            one.answer(number, &text);
                            number += 1;
                            all.fetch_add(1, Ordering::Relaxed);
                        }
                        (one, number)
                    })
                })
                .collect();
            for _ in 0..5 {
                let enough = all.load(Ordering::Relaxed) + 2 * CLIENTS as u64;
                wait_for("answers", LIMIT, || {
                    (all.load(Ordering::Relaxed) >= enough).then_some(())
                });
                let old = service.restart("");
                old.wait_end(LIMIT);
            }
            done.store(true, Ordering::Relaxed);
            for one in asking {
                let (mut one, number) = one.join().expect("no break");
                one.send(&frame(1, true, b"the last"));
                assert_eq!(one.answer(number, "the last"), service.daemon);
                one.send(&frame(8, true, &[3, 232]));
                assert_eq!(one.next().0, 8);
                assert_eq!(one.0.read(&mut [0]).expect("an orderly end"), 0);
            }
        });
        assert!(service.log().with(&["connection stays"]).is_empty(), "{}", service.log());
    });
}
