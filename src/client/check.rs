//! What would go wrong for a service in its surroundings.

mod facts;
mod judge;
#[cfg(test)]
mod tests;

pub use judge::{Finding, Severity};

use super::service::Service;
use crate::error::Result;
use facts::{Facts, Named};
use std::path::PathBuf;

/// A check of a service and its surroundings: files, users, kernel, supervisor and limits. It also
/// works before the service was ever started, but sees less then.
///
/// ```no_run
/// use seamless::client::{Check, Service};
///
/// let report = Check::of(&Service::at("/run/web/web.pid")?).user("web").run()?;
/// for finding in &report.findings {
///     println!("{}: {}; {}", finding.about, finding.says, finding.advice);
/// }
/// # Ok::<(), seamless::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is checked until `run`"]
pub struct Check {
    service: Service,
    named: Named,
}

/// What a [`Check`] has found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The problems first.
    pub findings: Vec<Finding>,
    /// What could not be looked at, and why.
    pub unknown: Vec<String>,
    /// Whether a generation runs.
    pub running: bool,
    /// The user that it was checked for.
    pub uid: u32,
    /// The name of that user, if it has one.
    pub user: Option<String>,
}

impl Check {
    /// A check of this service, for the user that it runs as. If it does not run, that is the owner
    /// of its PID file's folder.
    pub fn of(service: &Service) -> Check {
        Check { service: service.clone(), named: Named::default() }
    }

    /// Checks for this user, by name or number.
    pub fn user(mut self, user: impl Into<String>) -> Check {
        self.named.user = Some(user.into());
        self
    }

    /// Looks at this folder with `run` and `supervise/`. The default is that of the supervisor of
    /// the running generation.
    pub fn service_folder(mut self, folder: impl Into<PathBuf>) -> Check {
        self.named.folder = Some(folder.into());
        self
    }

    /// Looks at this systemd unit. A name without a dot gets `.service`. The default is that of the
    /// running generation.
    pub fn unit(mut self, unit: impl Into<String>) -> Check {
        self.named.unit = Some(unit.into());
        self
    }

    /// Looks at all there is. To try whether locks work, it makes a file in the PID file's folder
    /// and removes it again; nothing else is changed. It takes up to 5 s if the daemon does not
    /// answer, and up to 30 s more if systemd does not.
    ///
    /// # Errors
    ///
    /// [`InvalidConfig`](crate::ErrorKind::InvalidConfig): there is no such user.
    pub fn run(&self) -> Result<Report> {
        let mut unknown = Vec::new();
        let facts = Facts::gather(&self.service, &self.named, &mut unknown)?;
        let mut findings = judge::judge(&facts);
        findings.sort_by_key(|finding| finding.severity);
        Ok(Report {
            findings,
            unknown,
            running: facts.daemon.is_some(),
            uid: facts.who.uid,
            user: facts.who.name,
        })
    }
}

impl Report {
    /// Whether nothing would go wrong: there is no [`Severity::Problem`].
    pub fn is_ok(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity == Severity::Note)
    }
}
