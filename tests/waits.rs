//! What launcher and daemon promise, with real processes, by subject. All of these tests mostly wait, so
//! they are one program, of which many tests run at a time.
//!
//! A test of a promise is named after it, `p<N>_…`. Each runs in a box; with a supervisor, under
//! daemontools and under runit.

mod command;
mod fleet;
mod http;
mod launcher;
mod restart;
mod sockets;
mod stop;
mod supervisors;
mod takeover;

/// Tests that take half a minute or more each, whatever the machine. libtest starts tests in the order of
/// their names, so these start first, and the others run at the same time.
mod at_full_length {
    use std::path::Path;

    use seamless_testing::{boxed::Boxed, supervisor::Supervisor, under_each_supervisor};

    use crate::{
        http,
        restart::{deploys, leaks},
    };

    fn p1_deploys_that_hang_for_30_s_or_need_15_s_cost_no_request(kind: Supervisor, folder: &Path) {
        deploys::slow_with_real_figures(kind, folder);
    }

    fn twenty_restarts_leave_nothing_behind(kind: Supervisor, folder: &Path) {
        leaks::twenty_restarts(kind, folder);
    }

    under_each_supervisor![
        Boxed::new().private_net() =>
        p1_deploys_that_hang_for_30_s_or_need_15_s_cost_no_request,
        twenty_restarts_leave_nothing_behind
    ];

    #[test]
    fn limits_of_a_server_by_default() {
        Boxed::new().private_net().run(http::limits::default_limits);
    }
}
