//! What the probe tells: one line an event, `PID NAME ARGUMENTS…`, from all generations into one
//! file, in the order in which it happened.

use std::{
    fmt::Display,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process,
};

use crate::{LIMIT, wait_for};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub pid: u32,
    pub name: String,
    /// The rest of the line.
    pub text: String,
}

impl Event {
    /// The text as a number.
    #[track_caller]
    pub fn number(&self) -> u64 {
        self.text.parse().unwrap_or_else(|_| panic!("no number: {self:?}"))
    }
}

/// Makes `report`, and `log` beside it, files that every user may write to: otherwise they would
/// belong to the first who writes, and that is root.
pub fn for_all_users(folder: &Path) {
    for name in ["report", "log"] {
        let file = folder.join(name);
        fs::write(&file, "").expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).expect("its mode");
    }
}

/// Adds one event of this process, by one write. The file is closed again: a launcher that
/// reports keeps no descriptor of it.
///
/// Tried again where it fails: what a test makes fail is the crate, not the report.
pub fn append(path: &Path, event: impl Display) {
    let event = event.to_string().replace('\n', " ");
    let line = format!("{} {event}\n", process::id());
    let append = || {
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(line.as_bytes())
    };
    let appended = append().or_else(|_| append()).or_else(|_| append());
    appended.unwrap_or_else(|error| panic!("report {}: {error}", path.display()));
}

/// The reader's side.
#[derive(Clone, Debug)]
pub struct Report {
    path: PathBuf,
}

impl Report {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Report { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(event).collect()
    }

    pub fn named(&self, name: &str) -> Vec<Event> {
        let mut events = self.events();
        events.retain(|event| event.name == name);
        events
    }

    /// The names of all events of one process, in order.
    pub fn names_of(&self, pid: u32) -> Vec<String> {
        let own = self.events().into_iter().filter(|event| event.pid == pid);
        own.map(|event| event.name).collect()
    }

    /// Waits for the first event of this name.
    #[track_caller]
    pub fn wait(&self, name: &str) -> Event {
        self.wait_nth(name, 1)
    }

    /// Waits for the `nth` event of this name, counted from 1 over all processes.
    #[track_caller]
    pub fn wait_nth(&self, name: &str, nth: usize) -> Event {
        self.wait_where(&format!("{name:?}, number {nth}"), |events| {
            events.iter().filter(|event| event.name == name).nth(nth - 1).cloned()
        })
    }

    /// The newest generation that has started, by its number: a daemon that waits for the claim may
    /// report its `started` before the one that gave it up does.
    pub fn newest(&self) -> Option<Event> {
        self.named("started").into_iter().max_by_key(Event::number)
    }

    /// Waits for the first event of this name from this process.
    #[track_caller]
    pub fn wait_of(&self, pid: u32, name: &str) -> Event {
        self.wait_where(&format!("{name:?} from {pid}"), |events| {
            events.iter().find(|event| event.pid == pid && event.name == name).cloned()
        })
    }

    #[track_caller]
    fn wait_where(&self, what: &str, find: impl Fn(&[Event]) -> Option<Event>) -> Event {
        wait_for(Missing { what, report: self }, LIMIT, || find(&self.events()))
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.events()
            .iter()
            .try_for_each(|event| writeln!(f, "{} {} {}", event.pid, event.name, event.text))
    }
}

/// The message where an event does not come: with all those that came.
struct Missing<'a> {
    what: &'a str,
    report: &'a Report,
}

impl Display for Missing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in the report:\n{}", self.what, self.report)
    }
}

fn event(line: &str) -> Event {
    let mut parts = line.splitn(3, ' ');
    let pid = parts.next().and_then(|pid| pid.parse().ok());
    let pid = pid.unwrap_or_else(|| panic!("not an event: {line:?}"));
    let mut part = || parts.next().unwrap_or_default().to_owned();
    Event { pid, name: part(), text: part() }
}
