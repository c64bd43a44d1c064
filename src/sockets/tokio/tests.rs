use super::*;
use crate::sys::socket::is_nonblocking;
use std::os::fd::{AsFd, OwnedFd};
use std::task::Waker;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = ::tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

fn listener(nonblocking: bool) -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(nonblocking).expect("a flag");
    listener
}

#[test]
fn a_listener_is_made_without_a_runtime_and_accepts_in_one() {
    let mut listener = TcpListener::from_std(listener(true)).expect("a listener");
    let address = listener.local_addr().expect("an address");
    assert_eq!(
        format!("{listener:?}"),
        format!("TcpListener {{ address: {address}, ended: false }}")
    );
    block_on(async {
        let client = std::net::TcpStream::connect(address).expect("a connection");
        let (stream, peer) = listener.accept().await;
        assert_eq!(Some(peer), client.local_addr().ok());
        assert!(is_nonblocking(stream.as_fd()));
        let _client = std::net::TcpStream::connect(address).expect("a connection");
        let mut stream = listener.into_stream();
        let accepted = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await;
        assert!(is_nonblocking(accepted.expect("no drain").expect("no error").as_fd()));
    });
}

#[test]
fn a_unix_listener_does_the_same() {
    let path = std::env::temp_dir().join(format!("seamless-{}.sock", std::process::id()));
    let bound = unix::UnixListener::bind(&path).expect("a path");
    bound.set_nonblocking(true).expect("a flag");
    let mut listener = UnixListener::from_std(bound).expect("a listener");
    assert_eq!(listener.local_addr().expect("one").as_pathname(), Some(path.as_path()));
    block_on(async {
        let _client = unix::UnixStream::connect(&path).expect("a connection");
        let (stream, _) = listener.next().await.expect("no drain");
        assert!(is_nonblocking(stream.as_fd()));
    });
    std::fs::remove_file(path).expect("the path");
}

/// Nothing of this process has started: the predecessor may still block in `accept`.
#[test]
fn p11_the_mode_of_a_shared_socket_is_left_alone_until_this_generation_serves() {
    let shared = listener(false);
    let copy = OwnedFd::from(shared.try_clone().expect("a copy"));
    let mut listener = TcpListener::from_std(shared).expect("a listener");
    let address = listener.local_addr().expect("an address");
    let _client = std::net::TcpStream::connect(address).expect("a connection");
    block_on(async {
        let mut context = Context::from_waker(Waker::noop());
        assert!(listener.poll_next(&mut context).is_pending());
        assert!(listener.poll_next(&mut context).is_pending());
    });
    assert!(!is_nonblocking(copy.as_fd()));
}

#[test]
fn p10_a_call_outside_of_a_runtime_is_an_error() {
    let error = udp("127.0.0.1:0").expect_err("no runtime");
    assert_eq!(error.kind(), ErrorKind::System, "{error}");
    let error = unix_datagram("/nonexistent/socket").expect_err("no runtime");
    assert_eq!(error.kind(), ErrorKind::System, "{error}");
    let early = tcp("127.0.0.1:0").expect_err("no init");
    assert_eq!(early.kind(), ErrorKind::NotInitialized, "{early}");
}
