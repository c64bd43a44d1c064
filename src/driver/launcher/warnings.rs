//! Settings of the supervisor under which a restart would cost requests: said as soon as they are
//! known.

use crate::driver::log::note;
use crate::proto::Kind;
use crate::sys::process;
use crate::sys::supervisor::Supervisor;

/// At the start, in the launcher.
pub(in crate::driver) fn warn_at_launch(supervisor: &Supervisor) {
    if let Some(signal) = supervisor.other_down_signal() {
        note!(
            Warn,
            "stage=launch launcher={} down_signal={signal:?} reason=\"s6-svc -r and -d send it instead \
             of TERM, and it is passed on: without a handoff, each restart is an interruption; remove \
             the file down-signal\"",
            process::own_pid(),
        );
    }
}

/// Before the launcher leaves with this code. `asked`: by a TERM, so perhaps by `supervisorctl
/// restart`, which starts the service whatever the code is.
pub(in crate::driver) fn warn_at_release(supervisor: &Supervisor, code: i32, asked: bool) {
    if supervisor.kind == Kind::Supervisord && code == 0 && !asked {
        note!(
            Warn,
            "stage=release launcher={} exit_code={code} reason=\"supervisord starts nothing after \
             code 0 unless autorestart=true: set that, or a release_code that is not among its \
             exitcodes\"",
            process::own_pid(),
        );
    }
}
