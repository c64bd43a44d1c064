//! The channel between launcher and daemon: its messages. Pure: bytes in, values out, and back.

use crate::proto::control::frame::{self, Socket};
use crate::proto::generation::record::Identity;
use crate::proto::text::{Refused, VERSION};
use crate::proto::{Intent, Kind, Report, Scope};
use std::cmp::Ordering;
use std::fmt::Write as _;
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
        let text = match self {
            Aside::Alive => format!("{CHANNEL}{VERSION} alive"),
            Aside::Store(name) => format!("{CHANNEL}{VERSION} store {name}"),
            Aside::Remove(name) => format!("{CHANNEL}{VERSION} remove {name}"),
            Aside::NoKeeper => format!("{CHANNEL}{VERSION} no-keeper"),
            Aside::InPlace => format!("{CHANNEL}{VERSION} in-place"),
            Aside::Waits(left) => {
                format!("{CHANNEL}{VERSION} waits {WAITS}{}", left.as_millis())
            }
        };
        text.into_bytes()
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
            "waits" => {
                let millis = fields.split(' ').find_map(|field| field.strip_prefix(WAITS))?;
                Some(Aside::Waits(Duration::from_millis(millis.parse().ok()?)))
            }
            _ => None,
        }
    }
}

impl Given {
    pub(crate) fn format(&self) -> Vec<u8> {
        let text = match self {
            Given::Begin { generation, sockets, keep_sockets } => format!(
                "{CHANNEL}{VERSION} give generation={generation} sockets={sockets} keep_ms={}",
                keep_sockets.as_millis(),
            ),
            Given::Sockets(sockets) => {
                let lines: Vec<String> = sockets.iter().map(Socket::format).collect();
                format!("{CHANNEL}{VERSION} given count={}\n{}", sockets.len(), lines.join("\n"))
            }
            Given::End => format!("{CHANNEL}{VERSION} given-all"),
        };
        text.into_bytes()
    }

    /// `None`: something else, or not as it should be.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Given> {
        let (name, rest) = split_message(bytes).ok()?;
        match name {
            "give" => Some(Given::Begin {
                generation: number(rest, "generation")?,
                sockets: number(rest, "sockets")?,
                keep_sockets: Duration::from_millis(number(rest, "keep_ms")?),
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
    const HELLO: &[u8] = b"\0";

    pub(crate) fn format(&self) -> Vec<u8> {
        let served = self.served.as_millis();
        let mut text = format!("{CHANNEL}{VERSION} keep served_ms={served}");
        if let Some((user, group, groups)) = &self.user {
            let groups: Vec<String> = groups.iter().map(u32::to_string).collect();
            _ = write!(text, " user={user} group={group} groups={}", groups.join(","));
        }
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(Self::PID_FILE); // a path has no NUL byte
        bytes.extend_from_slice(&self.pid_file);
        bytes.extend_from_slice(Self::HELLO);
        bytes.extend(ToDaemon::Hello(self.hello.clone()).format());
        bytes
    }

    /// `None`: something else.
    pub(crate) fn parse(bytes: &[u8]) -> Option<ToKeeper> {
        let cut = |bytes: &[u8], by: &[u8]| {
            let at = bytes.windows(by.len()).position(|window| window == by)?;
            Some((bytes[..at].to_vec(), bytes[at + by.len()..].to_vec()))
        };
        let (head, hello) = cut(bytes, Self::HELLO)?;
        let (head, pid_file) = cut(&head, Self::PID_FILE)?;
        let ("keep", fields) = split_message(&head).ok()? else { return None };
        let Ok(Some(ToDaemon::Hello(hello))) = ToDaemon::parse(&hello) else { return None };
        let user = || {
            let groups =
                frame::field(fields, "groups")?.split(',').filter(|group| !group.is_empty());
            let groups = groups.map(|group| group.parse().ok()).collect::<Option<Vec<u32>>>()?;
            Some((number(fields, "user")?, number(fields, "group")?, groups))
        };
        let served = Duration::from_millis(number(fields, "served_ms")?);
        Some(ToKeeper { hello, served, user: user(), pid_file })
    }
}

fn number<T: std::str::FromStr>(fields: &str, key: &str) -> Option<T> {
    frame::field(fields, key)?.parse().ok()
}

/// A field of [`Report::Started`].
const DRAIN_TIMEOUT: &str = "drain_timeout_ms=";
/// A field of [`Aside::Waits`].
const WAITS: &str = "left_ms=";
/// A field of [`Report::Leaving`].
const LEAVE: &str = "leave_ms=";
/// The reason why a restart in place failed is cut to this number of characters.
const WHY_MAX: usize = 1000;

const CHANNEL: &str = "seamless/";
/// Longer than any message: a path has at most 4096 bytes.
pub(crate) const MESSAGE_MAX: usize = 8192;

impl ToDaemon {
    /// As one line, and no longer than fits.
    pub(crate) fn reload_failed(why: &str) -> ToDaemon {
        let line = why.chars().map(|one| if one.is_control() { ' ' } else { one });
        ToDaemon::ReloadFailed(line.take(WHY_MAX).collect())
    }

    pub(crate) fn format(&self) -> Vec<u8> {
        match self {
            ToDaemon::Hello(hello) => {
                let mut text = format!("{CHANNEL}{VERSION} hello kind={}", hello.kind.name);
                if let Some(launcher) = hello.launcher {
                    _ = write!(text, " launcher={launcher}");
                }
                if let Some(supervisor) = hello.supervisor {
                    _ = write!(text, " supervisor={supervisor}");
                }
                if hello.in_place {
                    text.push_str(" reload=1");
                }
                if hello.takes_unhandled {
                    text.push_str(" unhandled=1");
                }
                let mut bytes = text.into_bytes();
                if let Some(folder) = &hello.folder {
                    bytes.extend_from_slice(b" folder="); // last: a path may hold anything
                    bytes.extend_from_slice(folder);
                }
                bytes
            }
            ToDaemon::Intent(intent) => {
                format!("{CHANNEL}{VERSION} intent {}", intent.name()).into_bytes()
            }
            ToDaemon::Cancel => format!("{CHANNEL}{VERSION} cancel").into_bytes(),
            ToDaemon::TakenOver => format!("{CHANNEL}{VERSION} taken-over").into_bytes(),
            ToDaemon::Prepare => format!("{CHANNEL}{VERSION} prepare").into_bytes(),
            ToDaemon::ReloadFailed(why) => {
                format!("{CHANNEL}{VERSION} reload-failed {why}").into_bytes()
            }
            ToDaemon::Ask => format!("{CHANNEL}{VERSION} ask").into_bytes(),
        }
    }

    /// `Ok(None)`: a message that this version does not know.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<ToDaemon>, Refused> {
        const FOLDER: &[u8] = b" folder=";
        let at = bytes.windows(FOLDER.len()).position(|window| window == FOLDER);
        let (head, folder) = match at {
            Some(at) => (&bytes[..at], Some(bytes[at + FOLDER.len()..].to_vec())),
            None => (bytes, None),
        };
        let (name, fields) = split_message(head)?;
        let message = match name {
            "hello" => {
                let field = |key: &str| {
                    fields.split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix('='))
                };
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
                ToDaemon::Intent(Intent::from_name(word).unwrap_or(Intent::Unknown))
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

impl Report {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Report::Ready => "ready",
            Report::Started => "started",
            Report::Released => "released",
            Report::TakenOver => "taken-over",
            Report::Leaving => "leaving",
            Report::Draining => "draining",
            Report::Waiting => "waiting",
            Report::Reload => "reload",
            Report::Prepared => "prepared",
            Report::Unhandled => "unhandled",
            Report::Probation => "probation",
            Report::Committed => "committed",
            Report::RolledBack => "rolled-back",
            Report::Resumed => "resumed",
        }
    }

    pub(crate) fn format(self) -> Vec<u8> {
        format!("{CHANNEL}{VERSION} {}", self.name()).into_bytes()
    }

    /// [`Report::Started`], and how long a drain of this daemon may take: only now it is certain.
    pub(crate) fn format_started(drain_timeout: Option<Duration>) -> Vec<u8> {
        let mut message = Report::Started.format();
        if let Some(timeout) = drain_timeout {
            message.extend(format!(" {DRAIN_TIMEOUT}{}", timeout.as_millis()).bytes());
        }
        message
    }

    /// What [`format_started`](Report::format_started) has said of it.
    pub(crate) fn drain_timeout(started: &[u8]) -> Option<Duration> {
        let (_, fields) = split_message(started).ok()?;
        let millis = fields.split(' ').find_map(|field| field.strip_prefix(DRAIN_TIMEOUT))?;
        millis.parse().ok().map(Duration::from_millis)
    }

    /// [`Report::Leaving`], and how long that lasts.
    pub(crate) fn format_leaving(leave: Duration) -> Vec<u8> {
        let mut message = Report::Leaving.format();
        message.extend(format!(" {LEAVE}{}", leave.as_millis()).bytes());
        message
    }

    /// What [`format_leaving`](Report::format_leaving) has said of it.
    pub(crate) fn leave_time(leaving: &[u8]) -> Duration {
        let fields = split_message(leaving).map_or("", |(_, fields)| fields);
        let millis = fields.split(' ').find_map(|field| field.strip_prefix(LEAVE));
        millis.and_then(|millis| millis.parse().ok()).map_or(Duration::ZERO, Duration::from_millis)
    }

    /// `Ok(None)`: a message that this version does not know.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Report>, Refused> {
        let (name, _) = split_message(bytes)?;
        let all = [
            Report::Ready,
            Report::Started,
            Report::Released,
            Report::TakenOver,
            Report::Leaving,
            Report::Draining,
            Report::Waiting,
            Report::Reload,
            Report::Prepared,
            Report::Unhandled,
            Report::Probation,
            Report::Committed,
            Report::RolledBack,
            Report::Resumed,
        ];
        Ok(all.into_iter().find(|report| report.name() == name))
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

    fn from_name(name: &str) -> Option<Intent> {
        let stops = [Scope::Service, Scope::Generation].map(Intent::Stop);
        let all = [Intent::Restart, Intent::Unknown].into_iter().chain(stops);
        all.into_iter().find(|intent| intent.name() == name)
    }
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
