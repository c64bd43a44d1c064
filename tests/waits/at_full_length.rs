//! Tests that take half a minute or more each, whatever the machine: other tests run beside them from the
//! first moment, since libtest starts tests in the order of their names.

use std::{path::Path, time::Duration};

use seamless_testing::{boxed::Boxed, supervisor::Supervisor, under_each_supervisor};

use crate::{deploys, http, leaks};

fn p1_deploys_that_hang_for_30_s_or_need_15_s_cost_no_request(kind: Supervisor, folder: &Path) {
    deploys::slow_with_real_figures(kind, folder);
}

fn twenty_restarts_leave_nothing_behind(kind: Supervisor, folder: &Path) {
    leaks::twenty_restarts(kind, folder);
}

under_each_supervisor![
    Boxed::new().private_net().limit(Duration::from_secs(240)) =>
    p1_deploys_that_hang_for_30_s_or_need_15_s_cost_no_request,
    twenty_restarts_leave_nothing_behind
];

#[test]
fn limits_of_a_server_by_default() {
    Boxed::new().private_net().limit(Duration::from_secs(300)).run(http::default_limits);
}
