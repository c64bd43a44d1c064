//! The program's calls.

use super::outcome::Slot;
use super::{Admit, Connection, NotPassed, Passing, Waiting, give};
use crate::driver::handed::refused_name;
use crate::driver::shared::PROCESS;
use crate::error::{Error, ErrorKind, Result};
use crate::proto::State;
use crate::proto::control::frame::Passed;
use crate::proto::control::frame::passing::LOAD_MAX;
use crate::proto::control::passing::{Reason, may_pass};
use crate::shutdown::{DrainGuard, Draining, lock};
use crate::sys::socket;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

/// Why a kind cannot have this name.
fn refused_kind(kind: &str) -> Option<String> {
    let empty = kind.is_empty().then(|| "a kind of connections needs a name".to_owned());
    empty.or_else(|| refused_name(kind))
}

pub(crate) fn accept(kind: &str, admit: Admit) -> Result<()> {
    let refuse = |error, why: &str| {
        let text = format!("cannot accept connections of kind {kind:?} (connections): {why}");
        Err(Error::new(error, text))
    };
    if let Some(why) = refused_kind(kind) {
        return refuse(ErrorKind::InvalidConfig, &why);
    }
    let Some(daemon) = PROCESS.daemon() else {
        return refuse(ErrorKind::NotInitialized, "init was not called, or failed");
    };
    // A predecessor passes its connections as soon as we have started.
    if daemon.state() != State::Starting {
        return refuse(ErrorKind::InvalidConfig, "it has to be called before started");
    }
    lock(&PROCESS.connections.kinds).insert(kind.to_owned(), Arc::new(Mutex::new(admit)));
    Ok(())
}

pub(crate) fn pass(kind: &str, connection: Connection) -> Passing {
    let about = Passed {
        kind: kind.to_owned(),
        state: connection.state.len() as u64,
        unread: connection.unread.len() as u64,
    };
    let is_usable = refused_kind(kind).is_none()
        && about.load() <= LOAD_MAX
        && socket::is_connection(connection.fd.as_fd());
    let allowed = match is_usable {
        true => may_pass(Draining::of(&PROCESS.shutdown).reason()),
        false => Err(Reason::Unusable),
    };
    let service = PROCESS.daemon().and_then(|daemon| daemon.service.as_ref());
    match allowed.and_then(|()| service.ok_or(Reason::NoSuccessor)) {
        Err(reason) => Passing::refused(NotPassed { connection, reason }),
        Ok(service) => {
            let slot = Arc::new(Slot::new());
            let guard = DrainGuard::of(&PROCESS.shutdown);
            let waiting = Waiting { about, connection, slot: slot.clone(), _guard: guard };
            give::add(waiting, service);
            Passing::new(slot)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LOAD_MAX, accept, pass};
    use crate::driver::passing::{Connection, Reason};
    use crate::error::ErrorKind;
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    fn connection() -> Connection {
        Connection::new(UnixStream::pair().expect("a pair").0)
    }

    /// No drain has begun here.
    fn stays(kind: &str, connection: Connection) -> Reason {
        pass(kind, connection).wait().expect_err("it stays").reason
    }

    #[test]
    fn what_can_never_be_passed_stays_for_that_reason() {
        assert_eq!(stays("kind", connection()), Reason::NotDraining);
        for kind in ["", &"k".repeat(256)] {
            assert_eq!(stays(kind, connection()), Reason::Unusable, "{kind:?}");
        }
        let file = Connection::new(File::open("/dev/null").expect("a file"));
        assert_eq!(stays("kind", file), Reason::Unusable);
        let mut large = connection();
        large.state = vec![0; LOAD_MAX as usize];
        assert_eq!(stays("kind", large), Reason::NotDraining);
        let mut large = connection();
        (large.state, large.unread) = (vec![0; LOAD_MAX as usize], vec![0]);
        assert_eq!(stays("kind", large), Reason::Unusable);
    }

    #[test]
    fn p10_a_kind_of_connections_needs_a_name() {
        let refused = |kind: &str| accept(kind, Box::new(|_| None)).expect_err("refused").kind();
        assert_eq!(refused(""), ErrorKind::InvalidConfig);
        assert_eq!(refused(&"k".repeat(256)), ErrorKind::InvalidConfig);
        assert_eq!(refused("kind"), ErrorKind::NotInitialized);
    }
}
