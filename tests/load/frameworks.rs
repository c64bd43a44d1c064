//! `axum::serve` as a user writes it, in the example `axum`: keep-alive clients that never ask twice, and
//! clients with a connection for each request, together.

use std::path::Path;

use seamless_campaigns::load::Load;
use seamless_testing::{
    bin, boxed,
    http::{self, Target},
    process::Watched,
    strict::Strict,
    supervisor::{Service, Supervisor},
};

use crate::{FLOOR, LIMIT, boxed_by_default};

const RESTARTS: usize = 10;

#[test]
fn p1_p2_p3_axum_serve_keep_alive_and_new_connections_daemontools() {
    boxed_by_default(|folder: &Path| {
        let address = boxed::address();
        let (program, place) = (bin::example("axum"), folder.display());
        let run = format!(
            "export RUST_LOG=warn\nexec '{}' '{place}/web.pid' {address} 2>&1",
            program.display()
        );
        let service = Service::new(Supervisor::Daemontools, folder.join("service"), &run);
        let target = Target::Tcp(address);
        let mut newest = http::wait_pid(&target);
        let kept = Strict::new(&target).clients(64).start();
        let new = Load::new(target).clients(64).start();
        kept.wait_pid(newest);
        assert!(new.wait_for_pid(newest, LIMIT), "no answer under load");
        let more = || {
            kept.wait_more(FLOOR);
            assert!(new.wait_for_requests(new.requests() + FLOOR, LIMIT), "it does not answer");
        };
        for restart in 1..=RESTARTS {
            service.settle();
            more();
            let old = Watched::new(newest);
            service.restart();
            newest = kept.wait_another(newest);
            assert!(new.wait_for_pids(restart + 1, LIMIT), "restart {restart}: no new answer");
            old.wait_end(LIMIT);
        }
        more();
        let (kept, new) = (kept.stop(), new.stop());
        println!("{} answers, {} connections\n{new}", kept.total(), kept.connections);
        let floor = FLOOR * (RESTARTS as u64 + 1);
        kept.assert_clean(floor, RESTARTS + 1);
        new.assert_clean(floor, RESTARTS + 1);
    });
}
