//! The channel between launcher and daemon: its messages. Pure: bytes in, values out, and back.

use crate::proto::control::frame::{self, Socket};
use crate::proto::generation::record::Identity;
use crate::proto::text::{Refused, VERSION};
use crate::proto::{Intent, Kind, Report, Scope};
use std::cmp::Ordering;
use std::fmt::{Display, Write as _};
use std::str::FromStr;
use std::time::Duration;

/// What the launcher knows of its supervisor. A pidfd of it may come with the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) kind: Kind,
    /// The launcher itself: with its start time, so that it can be proven later.
    pub(crate) launcher: Option<Identity>,
    pub(crate) supervisor: Option<Identity>,
    /// The launcher restarts in place, so the daemon passes a wish for a restart on to it.
    pub(crate) in_place: bool,
    /// The launcher understands [`Report::Unhandled`]. One of an earlier version does not.
    pub(crate) takes_unhandled: bool,
    /// The folder that holds `supervise/`.
    pub(crate) folder: Option<Vec<u8>>,
}

/// A message from launcher to daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToDaemon {
    Hello(Hello),
    Intent(Intent),
    /// The daemon is to end if it has not started: another start follows, or the service is to end.
    Cancel,
    /// A generation that the same launcher has started later serves.
    TakenOver,
    /// A restart in place is about to begin.
    Prepare,
    /// A restart in place has failed or was refused, and why.
    ReloadFailed(String),
    /// A sign of life is wanted: [`Aside::Alive`].
    Ask,
}

/// What a daemon tells its launcher outside of the protocol. The launcher's machine does not see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Aside {
    Alive,
    /// The supervisor is to keep the descriptor that comes with this message, under this name without
    /// blanks.
    Store(String),
    /// The supervisor need not keep the descriptor of this name any more.
    Remove(String),
    /// The supervisor keeps the sockets, or would end a keeper at once.
    NoKeeper,
    /// A keeper is in place.
    InPlace,
    /// It waits in `init` for so long, since its program file has failed in its probation.
    Waits(Duration),
}

/// Sockets that are given over the channel: by a daemon to its launcher, and by a launcher to a keeper or
/// to a daemon that is starting. A chunk has the form of a chunk of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// This number of sockets follows. A keeper is to hold them for so long.
    Begin {
        generation: u64,
        sockets: usize,
        keep_sockets: Duration,
    },
    /// Each with the descriptor that came with it.
    Sockets(Vec<Socket>),
    End,
}

/// What the launcher tells a keeper first. Sockets follow, and a pidfd of the supervisor comes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ToKeeper {
    pub(crate) hello: Hello,
    /// How long the daemon had served.
    pub(crate) served: Duration,
    /// The user and the groups of the daemon: effective user, effective group, and the others.
    pub(crate) user: Option<(u32, u32, Vec<u32>)>,
    pub(crate) pid_file: Vec<u8>,
}

impl Aside {
    pub(crate) fn format(&self) -> Vec<u8> {
        match self {
            Aside::Alive => message("alive"),
            Aside::Store(name) => message(format_args!("store {name}")),
            Aside::Remove(name) => message(format_args!("remove {name}")),
            Aside::NoKeeper => message("no-keeper"),
            Aside::InPlace => message("in-place"),
            Aside::Waits(left) => message(format_args!("waits left_ms={}", left.as_millis())),
        }
    }

    /// `None`: something else.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Aside> {
        let (kind, fields) = split_message(bytes).ok()?;
        let name = || fields.split(' ').next().filter(|name| !name.is_empty()).map(str::to_owned);
        match kind {
            "alive" => Some(Aside::Alive),
            "store" => name().map(Aside::Store),
            "remove" => name().map(Aside::Remove),
            "no-keeper" => Some(Aside::NoKeeper),
            "in-place" => Some(Aside::InPlace),
            "waits" => millis(fields, "left_ms").map(Aside::Waits),
            _ => None,
        }
    }
}

impl Given {
    pub(crate) fn format(&self) -> Vec<u8> {
        match self {
            Given::Begin { generation, sockets, keep_sockets } => message(format_args!(
                "give generation={generation} sockets={sockets} keep_ms={}",
                keep_sockets.as_millis(),
            )),
            Given::Sockets(sockets) => {
                let lines: Vec<String> = sockets.iter().map(Socket::format).collect();
                message(format_args!("given count={}\n{}", sockets.len(), lines.join("\n")))
            }
            Given::End => message("given-all"),
        }
    }

    /// `None`: something else, or not as it should be.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Given> {
        let (name, rest) = split_message(bytes).ok()?;
        match name {
            "give" => Some(Given::Begin {
                generation: number(rest, "generation")?,
                sockets: number(rest, "sockets")?,
                keep_sockets: millis(rest, "keep_ms")?,
            }),
            "given" => {
                let lines = rest.lines().skip(1).map(Socket::parse);
                lines.collect::<std::result::Result<_, _>>().ok().map(Given::Sockets)
            }
            "given-all" => Some(Given::End),
            _ => None,
        }
    }

    /// How many of the first of these fit into one message.
    pub(crate) fn chunk<'a>(sockets: impl IntoIterator<Item = &'a Socket>) -> usize {
        frame::chunk_within(MESSAGE_MAX - 256, sockets)
    }
}

impl ToKeeper {
    const PID_FILE: &[u8] = b" pid_file=";
    const HELLO: &[u8] = b"\0"; // which no path has

    pub(crate) fn format(&self) -> Vec<u8> {
        let mut text = format!("keep served_ms={}", self.served.as_millis());
        if let Some((user, group, groups)) = &self.user {
            let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
            _ = write!(text, " user={user} group={group} groups={}", groups.join(","));
        }
        let (head, hello) = (message(text), self.hello.format());
        [&head[..], Self::PID_FILE, &self.pid_file, Self::HELLO, &hello].concat()
    }

    /// `None`: something else.
    pub(crate) fn parse(bytes: &[u8]) -> Option<ToKeeper> {
        let (head, hello) = cut(bytes, Self::HELLO)?;
        let (head, pid_file) = cut(head, Self::PID_FILE)?;
        let ("keep", fields) = split_message(head).ok()? else { return None };
        let Ok(Some(ToDaemon::Hello(hello))) = ToDaemon::parse(hello) else { return None };
        let user = || {
            let groups =
                frame::field(fields, "groups")?.split(',').filter(|group| !group.is_empty());
            let groups = groups.map(|group| group.parse().ok()).collect::<Option<Vec<u32>>>()?;
            Some((number(fields, "user")?, number(fields, "group")?, groups))
        };
        let served = millis(fields, "served_ms")?;
        Some(ToKeeper { hello, served, user: user(), pid_file: pid_file.to_vec() })
    }
}

/// A field of [`Report::Started`].
const DRAIN_TIMEOUT: &str = "drain_timeout_ms";
/// A field of [`Report::Leaving`].
const LEAVE: &str = "leave_ms";
/// The reason why a restart in place failed is cut to this number of characters.
const WHY_MAX: usize = 1000;

const CHANNEL: &str = "seamless/";
/// Longer than any message: a path has at most 4096 bytes.
pub(crate) const MESSAGE_MAX: usize = 8192;

impl Hello {
    const FOLDER: &[u8] = b" folder=";

    fn format(&self) -> Vec<u8> {
        let mut text = format!("hello kind={}", self.kind.name);
        if let Some(launcher) = self.launcher {
            _ = write!(text, " launcher={launcher}");
        }
        if let Some(supervisor) = self.supervisor {
            _ = write!(text, " supervisor={supervisor}");
        }
        if self.in_place {
            text.push_str(" reload=1");
        }
        if self.takes_unhandled {
            text.push_str(" unhandled=1");
        }
        let mut bytes = message(text);
        if let Some(folder) = &self.folder {
            bytes.extend_from_slice(Self::FOLDER); // last: a path may hold anything
            bytes.extend_from_slice(folder);
        }
        bytes
    }
}

impl ToDaemon {
    /// As one line, and no longer than fits.
    pub(crate) fn reload_failed(why: &str) -> ToDaemon {
        let line = why.chars().map(|one| if one.is_control() { ' ' } else { one });
        ToDaemon::ReloadFailed(line.take(WHY_MAX).collect())
    }

    pub(crate) fn format(&self) -> Vec<u8> {
        match self {
            ToDaemon::Hello(hello) => hello.format(),
            ToDaemon::Intent(intent) => message(format_args!("intent {}", intent.name())),
            ToDaemon::Cancel => message("cancel"),
            ToDaemon::TakenOver => message("taken-over"),
            ToDaemon::Prepare => message("prepare"),
            ToDaemon::ReloadFailed(why) => message(format_args!("reload-failed {why}")),
            ToDaemon::Ask => message("ask"),
        }
    }

    /// `Ok(None)`: a message that this version does not know.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<ToDaemon>, Refused> {
        let (head, folder) = match cut(bytes, Hello::FOLDER) {
            Some((head, folder)) => (head, Some(folder.to_vec())),
            None => (bytes, None),
        };
        let (name, fields) = split_message(head)?;
        let message = match name {
            "hello" => {
                let field = |key| frame::field(fields, key);
                ToDaemon::Hello(Hello {
                    kind: field("kind").and_then(Kind::from_name).unwrap_or(Kind::OTHER),
                    launcher: field("launcher").and_then(Identity::parse),
                    supervisor: field("supervisor").and_then(Identity::parse),
                    in_place: field("reload") == Some("1"),
                    takes_unhandled: field("unhandled") == Some("1"),
                    folder,
                })
            }
            "intent" => {
                let word = fields.split(' ').next().unwrap_or_default();
                ToDaemon::Intent(Intent::from_name(word))
            }
            "cancel" => ToDaemon::Cancel,
            "taken-over" => ToDaemon::TakenOver,
            "prepare" => ToDaemon::Prepare,
            "reload-failed" => ToDaemon::ReloadFailed(fields.to_owned()),
            "ask" => ToDaemon::Ask,
            _ => return Ok(None),
        };
        Ok(Some(message))
    }
}

/// Each report and its name.
const REPORTS: [(Report, &str); 14] = [
    (Report::Ready, "ready"),
    (Report::Started, "started"),
    (Report::Released, "released"),
    (Report::TakenOver, "taken-over"),
    (Report::Leaving, "leaving"),
    (Report::Draining, "draining"),
    (Report::Waiting, "waiting"),
    (Report::Reload, "reload"),
    (Report::Prepared, "prepared"),
    (Report::Unhandled, "unhandled"),
    (Report::Probation, "probation"),
    (Report::Committed, "committed"),
    (Report::RolledBack, "rolled-back"),
    (Report::Resumed, "resumed"),
];

impl Report {
    pub(crate) fn name(self) -> &'static str {
        let row = REPORTS.iter().find(|(report, _)| *report == self);
        row.expect("each report has a name").1
    }

    pub(crate) fn format(self) -> Vec<u8> {
        message(self.name())
    }

    fn format_with(self, key: &str, time: Duration) -> Vec<u8> {
        message(format_args!("{} {key}={}", self.name(), time.as_millis()))
    }

    /// [`Report::Started`], and how long a drain of this daemon may take: only now it is certain.
    pub(crate) fn format_started(drain_timeout: Option<Duration>) -> Vec<u8> {
        match drain_timeout {
            Some(timeout) => Report::Started.format_with(DRAIN_TIMEOUT, timeout),
            None => Report::Started.format(),
        }
    }

    /// What [`format_started`](Report::format_started) has said of it.
    pub(crate) fn drain_timeout(started: &[u8]) -> Option<Duration> {
        time(started, DRAIN_TIMEOUT)
    }

    /// [`Report::Leaving`], and how long that lasts.
    pub(crate) fn format_leaving(leave: Duration) -> Vec<u8> {
        Report::Leaving.format_with(LEAVE, leave)
    }

    /// What [`format_leaving`](Report::format_leaving) has said of it.
    pub(crate) fn leave_time(leaving: &[u8]) -> Duration {
        time(leaving, LEAVE).unwrap_or_default()
    }

    /// `Ok(None)`: a message that this version does not know.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Report>, Refused> {
        let (word, _) = split_message(bytes)?;
        let row = REPORTS.iter().find(|(_, name)| *name == word);
        Ok(row.map(|(report, _)| *report))
    }
}

impl Intent {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Intent::Restart => "restart",
            Intent::Stop(Scope::Service) => "stop",
            Intent::Stop(Scope::Generation) => "stop-generation",
            Intent::Unknown => "unknown",
        }
    }

    /// An intent that a later version has added is unknown here.
    fn from_name(name: &str) -> Intent {
        let known =
            [Intent::Restart, Intent::Stop(Scope::Service), Intent::Stop(Scope::Generation)];
        known.into_iter().find(|intent| intent.name() == name).unwrap_or(Intent::Unknown)
    }
}

fn message(text: impl Display) -> Vec<u8> {
    format!("{CHANNEL}{VERSION} {text}").into_bytes()
}

fn number<T: FromStr>(fields: &str, key: &str) -> Option<T> {
    frame::field(fields, key)?.parse().ok()
}

fn time(message: &[u8], key: &str) -> Option<Duration> {
    let (_, fields) = split_message(message).ok()?;
    millis(fields, key)
}

fn millis(fields: &str, key: &str) -> Option<Duration> {
    number(fields, key).map(Duration::from_millis)
}

/// What stands before `by`, and what stands behind it.
fn cut<'a>(bytes: &'a [u8], by: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(by.len()).position(|window| window == by)?;
    Some((&bytes[..at], &bytes[at + by.len()..]))
}

fn split_message(bytes: &[u8]) -> Result<(&str, &str), Refused> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refused::Foreign)?;
    let text = text.strip_prefix(CHANNEL).ok_or(Refused::Foreign)?;
    let (version, message) = text.split_once(' ').ok_or(Refused::Foreign)?;
    let version: u32 = version.parse().map_err(|_| Refused::Foreign)?;
    match version.cmp(&VERSION) {
        Ordering::Equal => Ok(message.split_once(' ').unwrap_or((message, ""))),
        Ordering::Greater => Err(Refused::Version(version)),
        Ordering::Less => Err(Refused::Foreign),
    }
}

#[cfg(test)]
mod tests;
