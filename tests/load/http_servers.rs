//! The example `http` at full load: HTTP/1 and HTTP/2, clients that never ask twice.

use std::path::Path;

use seamless_testing::{
    bin, boxed,
    http::{self, Target},
    process::Watched,
    strict::Strict,
    supervisor::{Service, Supervisor},
};

use crate::{FLOOR, LIMIT, boxed_by_default, takeovers};

fn p2_http(supervisor: Supervisor, load: impl Fn(Strict) -> Strict) {
    boxed_by_default(|folder: &Path| {
        let address = boxed::address();
        let (program, place) = (bin::example("http"), folder.display());
        let run = format!(
            "export RUST_LOG=warn\nexec '{}' '{place}/web.pid' {address} 2>&1",
            program.display()
        );
        let service = Service::new(supervisor, folder.join("service"), &run);
        let target = Target::Tcp(address);
        let mut newest = http::wait_pid(&target);
        let running = load(Strict::new(&target)).start();
        running.wait_pid(newest);
        for _ in 0..takeovers() {
            service.settle();
            running.wait_more(FLOOR);
            let old = Watched::new(newest);
            service.restart();
            newest = running.wait_another(newest);
            old.wait_end(LIMIT);
        }
        running.wait_more(FLOOR);
        let seen = running.stop();
        println!("{:?}, {} connections", seen.answers, seen.connections);
        seen.assert_clean(FLOOR * (takeovers() as u64 + 1), takeovers() + 1);
    });
}

#[test]
fn p1_p2_p3_http1_128_clients_runit() {
    p2_http(Supervisor::Runit, |strict| strict.clients(128));
}

#[test]
fn p1_p2_p3_http2_128_streams_daemontools() {
    p2_http(Supervisor::Daemontools, |strict| strict.clients(8).http2(16));
}
