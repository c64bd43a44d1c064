//! The PID file belongs to another service: who runs it, and how an operator restarts it.

use super::{Examined, Service};
use crate::error::{Error, ErrorKind};
use crate::proto::generation::verdict::Why;
use crate::proto::shell::quote;
use crate::sys::supervisor;

pub(super) fn already_running(service: &Service, other: &Examined, why: Why) -> Error {
    let generation = &other.generation;
    let (daemon, launcher) = (generation.daemon.pid, generation.launcher.pid);
    let text = format!(
        "cannot take over {:?} (started): generation {} with daemon {daemon} and launcher {launcher} {why}",
        service.pid_file, generation.number,
    );
    let error = Error::new(ErrorKind::AlreadyRunning, text);
    let own = format!("seamless restart {}", quote(&service.pid_file.to_string_lossy()));
    match (why, generation.supervisor) {
        (Why::HoldsFileElsewhere, _) => error.hint(format!("restart it there: {own}")),
        (_, Some(one)) => {
            let (who, command) = supervisor::in_words(launcher, one.pid);
            let command = command.map_or(own.clone(), |command| format!("{command}, or {own}"));
            error.hint(format!(
                "the service runs already, under {who}: to restart it, {command}; to run another one, give \
                 it another PID file"
            ))
        }
        (_, None) => error.hint(format!("the service runs already: to restart it, {own}")),
    }
}
