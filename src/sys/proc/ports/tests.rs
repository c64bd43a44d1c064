use super::*;
use std::net::TcpListener;
use std::process;

#[test]
fn who_holds_a_port_is_searched_for_a_limited_time() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let local = listener.local_addr().expect("its address");
    let holders = holders(false);
    let holder = holders.iter().find(|one| one.local == local).expect("listed in /proc");
    assert!(holder.is_held_by(process::id() as i32));
    assert_eq!(holder.find(Duration::ZERO), None);
}
