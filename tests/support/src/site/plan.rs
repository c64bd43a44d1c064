//! What a service under test is to be.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Site, User};
use crate::{
    bin, boxed,
    http::Target,
    log::Log,
    report::{self, Report},
    supervisor::{Service, Supervisor},
};

/// Where its clients find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sockets {
    /// Each generation has a socket of its own.
    Own,
    /// The successor takes it over.
    Shared,
    None,
}

/// A service to be.
#[derive(Clone, Debug)]
#[must_use]
pub struct Plan {
    folder: PathBuf,
    run: PathBuf,
    user: Option<User>,
    sockets: Sockets,
    program: PathBuf,
    pub(super) first: String,
    pub(super) options: String,
}

impl Plan {
    pub(super) fn new(folder: &Path) -> Self {
        Plan {
            folder: folder.to_owned(),
            run: folder.to_owned(),
            user: None,
            sockets: Sockets::Own,
            program: bin::probe(),
            first: String::new(),
            options: String::new(),
        }
    }

    /// As whom it runs. `web.pid` is in a folder that is this user's, and in which nothing else is.
    pub fn user(mut self, user: User) -> Self {
        self.user = Some(user);
        self.run = self.folder.join("run");
        self
    }

    /// Of `web.pid`.
    pub fn run_folder(mut self, folder: &Path) -> Self {
        self.run = folder.to_owned();
        self
    }

    /// A successor takes the socket over.
    pub fn shared_socket(mut self) -> Self {
        self.sockets = Sockets::Shared;
        self
    }

    pub fn no_socket(mut self) -> Self {
        self.sockets = Sockets::None;
        self
    }

    /// Instead of the probe: a copy of it, or a script.
    pub fn program(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// What the run script does first. It may set further options as `$@`.
    pub fn first(mut self, lines: &str) -> Self {
        self.first = lines.to_owned();
        self
    }

    /// Of the probe, in its run script.
    pub fn options(mut self, options: &str) -> Self {
        self.options = options.to_owned();
        self
    }

    /// Nobody starts it but the test: see [`Site::start`].
    pub fn alone(self) -> Site {
        let target = match self.sockets {
            Sockets::Own | Sockets::Shared => Target::from(boxed::address()),
            Sockets::None => Target::from(self.folder.join("no.sock").as_path()),
        };
        if let Some(user) = self.user {
            fs::create_dir_all(&self.run).expect("a folder");
            user.give(&self.run);
            report::for_all_users(&self.folder);
        }
        Site {
            user: self.user.unwrap_or(User::Root),
            folder: self.folder.clone(),
            run: self.run.clone(),
            target,
            report: Report::new(self.folder.join("report")),
            log: Log::of(&self.folder),
            service: None,
            plan: self,
        }
    }

    /// Supervised; returns when its first generation has started.
    #[track_caller]
    pub fn under(self, kind: Supervisor) -> Site {
        let site = self.begin_under(kind);
        site.started(1);
        site
    }

    /// The same, for a first generation that may fail: returns when the supervisor takes commands.
    #[track_caller]
    pub fn begin_under(self, kind: Supervisor) -> Site {
        let mut site = self.alone();
        let service = site.folder.join("service");
        if kind == Supervisor::S6 {
            // Otherwise it waits for a second from one launcher to the next.
            fs::create_dir_all(&service).expect("a folder");
            fs::write(service.join("notification-fd"), "3\n").expect("a file");
        }
        let plan = &site.plan;
        let script = plan.script(Some(kind), &site.target, &plan.first, "", &plan.options);
        site.service = Some(Service::new(kind, service, &script));
        site
    }

    /// The options of the probe that say where it listens.
    pub(super) fn listen(&self, target: &Target) -> Option<String> {
        match self.sockets {
            Sockets::Own => Some(format!("--listen={target}")),
            Sockets::Shared => Some(format!("--tcp={target}")),
            Sockets::None => None,
        }
    }

    pub(super) fn program_file(&self) -> &Path {
        &self.program
    }

    pub(super) fn script(
        &self,
        kind: Option<Supervisor>,
        target: &Target,
        first: &str,
        before: &str,
        options: &str,
    ) -> String {
        let user = self.user.unwrap_or(User::Root);
        let (folder, run) = (self.folder.display(), self.run.display());
        let words = [
            "exec".to_owned(),
            before.to_owned(),
            kind.map_or("", |kind| user.change(kind)).to_owned(),
            format!("'{}'", self.program.display()),
            format!("--pid-file='{run}/web.pid' --report='{folder}/report'"),
            if kind == Some(Supervisor::S6) { "--notification-fd=3" } else { "" }.to_owned(),
            self.listen(target).filter(|_| before.is_empty()).unwrap_or_default(),
            user.options(options),
            // Otherwise they are what a supervisor may pass to a run script.
            if first.is_empty() { "" } else { "\"$@\"" }.to_owned(),
        ];
        let log = format!("exec >>'{folder}/log' 2>&1");
        let exec = joined(words.iter().map(String::as_str), " ");
        joined([first, &log, user.open(), &exec], "\n")
    }
}

/// Those that are not empty.
fn joined<'a>(parts: impl IntoIterator<Item = &'a str>, between: &str) -> String {
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(between)
}
