//! Many services: those that the command line names, and what they answer.

use crate::openmetrics::Seen;
use crate::{End, complain};
use seamless::client::Service;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// How many services are asked at a time: one that hangs takes the whole time limit.
const AT_A_TIME: usize = 32;

/// Asks them all, many at a time.
pub(crate) fn see(services: &[Service], limit: Duration, with_counters: bool) -> Vec<Seen> {
    let ask = |service: &Service| {
        let (look, status) = service.status(limit);
        let standby = match &status {
            Ok(_) => None,
            Err(_) => service.standby_status(&look, limit).and_then(Result::ok),
        };
        let is_asked = with_counters && status.is_ok();
        let counters = is_asked.then(|| service.counters(limit).1.ok()).flatten();
        Seen { look, status, standby, counters }
    };
    let mut seen = Vec::new();
    for some in services.chunks(AT_A_TIME) {
        let Some((last, others)) = some.split_last() else { continue };
        thread::scope(|scope| {
            let on_thread = |one| thread::Builder::new().spawn_scoped(scope, move || ask(one)).ok();
            let asked: Vec<_> = others.iter().map(|one| (one, on_thread(one))).collect();
            let last = ask(last);
            seen.extend(asked.into_iter().filter_map(|(one, thread)| match thread {
                Some(thread) => thread.join().ok(),
                None => Some(ask(one)), // no thread was to be had
            }));
            seen.push(last);
        });
    }
    seen
}

pub(crate) fn worst(ends: impl Iterator<Item = End>) -> End {
    ends.max_by_key(|end| (*end == End::Error, *end as u8)).unwrap_or(End::Done)
}

/// The services that operands stand for.
pub(crate) struct Named {
    pub(crate) services: Vec<Service>,
    /// They are one PID file.
    pub(crate) is_one: bool,
    /// Whether each folder and each lock file could be read: if not, there may be more services.
    pub(crate) is_all: bool,
}

/// The services that these operands stand for; if there are none, how the command ends.
pub(crate) fn named(operands: &[PathBuf]) -> Result<Named, (End, String)> {
    let mut services: Vec<Service> = Vec::new();
    let (mut is_one, mut is_all) = (operands.len() == 1, true);
    for operand in operands {
        let is_pattern =
            operand.as_os_str().as_encoded_bytes().iter().any(|byte| b"*?[".contains(byte));
        let found = if operand.is_dir() {
            Service::find(std::slice::from_ref(operand))
        } else if is_pattern && !operand.exists() {
            Service::find_matching(operand)
        } else {
            services.push(Service::at(operand).map_err(|error| (End::Usage, error.to_string()))?);
            continue;
        };
        is_one = false;
        is_all &= found.notes.is_empty();
        found.notes.iter().for_each(complain);
        if found.services.is_empty() {
            complain(format_args!("{}: no service has its files there", operand.display()));
        }
        services.extend(found.services);
    }
    let mut named = BTreeSet::new();
    services.retain(|service| named.insert(service.pid_file().to_owned()));
    match (services.is_empty(), is_all) {
        (true, true) => Err((End::NobodyServes, "no service is known".to_owned())),
        (true, false) => Err((End::Error, "no service is known: not all could be read".to_owned())),
        (false, _) => Ok(Named { services, is_one, is_all }),
    }
}
