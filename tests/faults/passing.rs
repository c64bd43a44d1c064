//! System calls that fail while a connection moves to the next generation.

use std::{fs, path::Path, process::Child};

use seamless_testing::{
    LIMIT, bin,
    boxed::{self, Boxed},
    http::{Connection, Target, answer_of},
    log::Log,
    process::Watched,
    scene,
    signal::TERM,
    wait_for,
};

use super::injected::{Fault, Role, Tracer, When};

/// Starts a generation of the service `web`, which passes all connections. Gives its launcher and daemon.
#[track_caller]
fn start(folder: &Path, target: &Target, before: Option<u32>) -> (Child, Watched) {
    let options = format!(
        "--pid-file=web.pid --listen={target} --pass=yes --spread=1h --idle-grace=1h --drain-timeout=9h"
    );
    let launcher = scene::logged(folder, &bin::support("web"), &options).spawn().expect("sh");
    let daemon: u32 = wait_for("a daemon", LIMIT, || {
        let text = fs::read_to_string(folder.join("web.pid")).ok()?;
        text.trim().parse().ok().filter(|pid| Some(*pid) != before)
    });
    Log::of(folder).wait(&[("stage", "started"), ("daemon", &daemon.to_string())]);
    (launcher, Watched::new(daemon))
}

/// The other side would wait for it until this generation ends, take its connection back then, and serve what the next
/// generation serves as well.
#[test]
fn p13_the_answer_that_a_connection_was_taken_is_sent_again() {
    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    Boxed::new().private_net().run(|folder| {
        let target = Target::from(boxed::address());
        let (mut launcher, old) = start(folder, &target, None);
        let [mut idle, mut busy] = [(); 2].map(|()| Connection::to(&target));
        idle.send(GET);
        assert!(idle.answer().ends_with(&answer_of(old.pid())));
        busy.send("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12");
        busy.wait_accepted(old.pid());
        Watched::new(launcher.id()).signal(TERM);
        assert!(launcher.wait().expect("its end").success());
        let (mut launcher, new) = start(folder, &target, Some(old.pid()));
        // Then there is a link between the two.
        Log::of(folder).wait(&[("stage", "passing"), ("daemon", &old.pid().to_string())]);

        let (call, error, when) = ("sendmsg", "EPIPE", When::Nth(1));
        let fault = Fault { role: Role::NewDaemon, call, error, when };
        let mut tracer = Tracer::attach(folder, new.pid(), fault);
        busy.send("345");
        busy.read_until(&format!("Server pid: {}\n", old.pid()));
        old.wait_end(LIMIT);
        tracer.detach();
        assert!(tracer.has_met());
        for one in [&mut idle, &mut busy] {
            one.send(GET);
            assert!(one.answer().ends_with(&answer_of(new.pid())));
        }
        Watched::new(launcher.id()).signal(TERM);
        launcher.wait().expect("its end");
        new.signal(TERM);
        drop((idle, busy));
        new.wait_end(LIMIT);
    });
}
