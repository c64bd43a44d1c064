//! `seamless status --openmetrics` and `--prometheus`: what monitoring reads.
//!
//! OpenMetrics 1.0 names a counter without its `_total`, and the text format of Prometheus with it. So a reader of
//! one takes the counters of the other for values of no known type.

use seamless::client::{Counter, Generation, Look, NoAnswer, Status};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write as _};

/// Endings that a reader gives a meaning to.
const RESERVED: [&str; 8] =
    ["_total", "_created", "_info", "_bucket", "_count", "_sum", "_gcount", "_gsum"];
/// The beginning of our own names.
const OWN: &str = "seamless";
/// All that a service can be in. A later version may have others.
const STATES: [&str; 10] = [
    "none",
    "unknown",
    "starting",
    "serving",
    "handing-off",
    "detached",
    "leaving",
    "standby",
    "draining",
    "keeping",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    OpenMetrics,
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gauge,
    Counter,
    Info,
}

/// What is known of a service.
pub(crate) struct Seen {
    pub(crate) look: Look,
    pub(crate) status: Result<Status, NoAnswer>,
    /// If the newest generation does not answer: what the one says that stands by.
    pub(crate) standby: Option<Status>,
    /// `None` if that is unknown.
    pub(crate) counters: Option<Vec<Counter>>,
}

/// One value, and to what it belongs.
struct Sample {
    labels: Vec<(&'static str, String)>,
    value: String,
}

/// All metrics of these services: each family once, with all that belongs to it.
pub(crate) fn text(all: &[Seen], format: Format) -> String {
    let mut page = Page { format, text: String::new() };
    page.own(all);
    page.counters(all);
    match format {
        Format::OpenMetrics => page.text.push_str("# EOF"),
        Format::Prometheus => _ = page.text.pop(), // what is printed ends a line
    }
    page.text
}

struct Page {
    format: Format,
    text: String,
}

impl Page {
    fn own(&mut self, all: &[Seen]) {
        use Kind::{Gauge, Info};
        self.each(all, "serving", Gauge, "Whether a generation serves.", |seen| {
            Some(u8::from(seen.status().is_some_and(|status| status.state().serves())))
        });
        let about = "Whether it is known what runs: 0 if the newest generation does not answer, or may not be asked.";
        self.each(all, "answers", Gauge, about, |seen| Some(u8::from(seen.is_known())));
        self.many(all, "state", Gauge, "1 for the state of the newest generation.", |seen| {
            let now = seen.state();
            let other = Some(now).filter(|now| !STATES.contains(now));
            let states = STATES.into_iter().chain(other);
            let value = |state: &str| u8::from(state == now).to_string();
            states.map(|state| (vec![("state", state.to_owned())], value(state))).collect()
        });
        self.each(all, "generation", Gauge, "The number of the newest generation.", |seen| {
            Some(seen.newest()?.number())
        });
        self.each(all, "age_seconds", Gauge, "For how long its daemon runs.", |seen| {
            Some(seen.newest()?.age()?.as_secs_f64())
        });
        let about = "For how long it is in its state.";
        self.each(all, "state_age_seconds", Gauge, about, |seen| {
            Some(seen.status()?.state_age()?.as_secs_f64())
        });
        let about = "How many connections its daemon has open.";
        self.each(all, "connections", Gauge, about, |seen| seen.newest()?.connections());
        self.each(all, "sockets", Gauge, "How many sockets a successor would get.", |seen| {
            Some(seen.status()?.socket_count())
        });
        let about = "How long the transfer from its predecessor took.";
        self.each(all, "transfer_seconds", Gauge, about, |seen| {
            Some(seen.status()?.transfer_time()?.as_secs_f64())
        });
        let about = "Whether it has still to prove itself.";
        self.each(all, "probation", Gauge, about, |seen| {
            Some(u8::from(seen.newest()?.is_on_probation()))
        });
        let about = "How often the program file that was rejected has failed in a row.";
        self.each(all, "rejected_tries", Gauge, about, |seen| Some(seen.look.rejected()?.tries));
        self.each(all, "starting", Gauge, "Whether a further generation starts.", |seen| {
            seen.is_known().then(|| u8::from(seen.look.starting().is_some()))
        });
        for (role, does) in [("draining", "drain"), ("standby", "stand by")] {
            let about = &format!("How many older generations {does}.");
            self.each(all, role, Gauge, about, |seen| {
                let older = seen.look.older().iter().filter(|one| seen.role(one) == role);
                seen.is_known().then(|| older.count())
            });
        }
        let about = "For how long the daemon of an older generation runs.";
        self.many(all, "older_age_seconds", Gauge, about, |seen| {
            seen.of_older(|one| one.age().map(|age| age.as_secs_f64()))
        });
        let about = "How many connections an older generation has open.";
        self.many(all, "older_connections", Gauge, about, |seen| {
            seen.of_older(Generation::connections)
        });
        self.history(all);
        self.many(all, "service", Info, "What runs, and below which supervisor.", |seen| {
            let Some(newest) = seen.newest() else { return Vec::new() };
            let supervisor = newest.supervisor(seen.status());
            let version = seen.status().and_then(Status::version);
            let labels = [
                ("program", newest.program().map(|path| path.display().to_string())),
                ("supervisor", supervisor.map(|supervisor| supervisor.kind().to_owned())),
                ("version", version.map(str::to_owned)),
            ];
            let known = labels.into_iter().filter_map(|(name, value)| Some((name, value?)));
            vec![(known.collect(), "1".to_owned())]
        });
    }

    /// What the record counts.
    fn history(&mut self, all: &[Seen]) {
        use seamless::client::History;
        type Count = fn(History) -> u64;
        let counts: [(&str, &str, Count); 5] = [
            ("starts", "Generations that have begun to serve.", |all| all.starts),
            ("restarts", "Generations that took over from one that served.", |all| all.restarts),
            ("failed_starts", "Starts that ended before they served.", |all| all.failed_starts),
            ("crashes", "Generations that served and ended untold.", |all| all.crashes),
            ("rollbacks", "Generations that failed in their probation.", |all| all.rollbacks),
        ];
        for (name, about, count) in counts {
            self.each(all, name, Kind::Counter, about, |seen| {
                let is_read = seen.look.unknown().is_none();
                is_read.then(|| count(seen.look.history()))
            });
        }
    }

    /// What the programs count. The counters of one name are one family, whatever service they are of.
    fn counters(&mut self, all: &[Seen]) {
        let mut families: BTreeMap<&str, Vec<Sample>> = BTreeMap::new();
        let mut others = Vec::new();
        for seen in all {
            let mut taken = BTreeSet::new();
            for Counter { name, value, .. } in seen.counters.iter().flatten() {
                let value = value.to_string();
                match family(name).filter(|family| taken.insert(*family)) {
                    Some(family) => {
                        let sample = Sample { labels: vec![seen.label()], value };
                        families.entry(family).or_default().push(sample);
                    }
                    None => {
                        let labels = vec![seen.label(), ("name", name.clone())];
                        others.push(Sample { labels, value });
                    }
                }
            }
        }
        for (name, samples) in families {
            self.family(name, Kind::Counter, "A counter of the program.", &samples);
        }
        let about = "Counters whose names are no names of metrics.";
        self.family(&format!("{OWN}_other"), Kind::Counter, about, &others);
    }

    /// At most one value of each service.
    fn each<T: Display>(
        &mut self,
        all: &[Seen],
        name: &str,
        kind: Kind,
        about: &str,
        of: impl Fn(&Seen) -> Option<T>,
    ) {
        self.many(all, name, kind, about, |seen| {
            of(seen).map(|value| (vec![], value.to_string())).into_iter().collect()
        });
    }

    /// Values of each service, with their further labels.
    fn many(
        &mut self,
        all: &[Seen],
        name: &str,
        kind: Kind,
        about: &str,
        of: impl Fn(&Seen) -> Vec<(Vec<(&'static str, String)>, String)>,
    ) {
        let samples: Vec<Sample> = all
            .iter()
            .flat_map(|seen| {
                of(seen).into_iter().map(|(more, value)| Sample {
                    labels: std::iter::once(seen.label()).chain(more).collect(),
                    value,
                })
            })
            .collect();
        self.family(&format!("{OWN}_{name}"), kind, about, &samples);
    }

    fn family(&mut self, name: &str, kind: Kind, about: &str, samples: &[Sample]) {
        if samples.is_empty() {
            return;
        }
        let full = match kind {
            Kind::Gauge => name.to_owned(),
            Kind::Counter => format!("{name}_total"),
            Kind::Info => format!("{name}_info"),
        };
        let (named, word) = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Info) => (name, "info"),
            (Format::OpenMetrics, Kind::Counter) => (name, "counter"),
            (Format::Prometheus, Kind::Counter) => (full.as_str(), "counter"),
            (_, Kind::Gauge) | (Format::Prometheus, Kind::Info) => (full.as_str(), "gauge"),
        };
        _ = writeln!(self.text, "# HELP {named} {about}\n# TYPE {named} {word}");
        for Sample { labels, value } in samples {
            let labels =
                labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
            let labels = labels.collect::<Vec<_>>().join(",");
            _ = writeln!(self.text, "{full}{{{labels}}} {value}");
        }
    }
}

impl Seen {
    pub(crate) fn status(&self) -> Option<&Status> {
        self.status.as_ref().ok()
    }

    fn newest(&self) -> Option<&Generation> {
        self.look.newest()
    }

    fn is_known(&self) -> bool {
        matches!(self.status, Ok(_) | Err(NoAnswer::NobodyRuns))
    }

    pub(crate) fn state(&self) -> &'static str {
        match &self.status {
            Ok(status) => status.state_name(),
            Err(NoAnswer::NobodyRuns) => "none",
            Err(_) => "unknown",
        }
    }

    fn label(&self) -> (&'static str, String) {
        ("pid_file", self.look.pid_file().display().to_string())
    }

    /// What an older generation does.
    fn role(&self, older: &Generation) -> &'static str {
        match older {
            one if one.is_keeper() => "keeping",
            one if self.look.standby().is_some_and(|standby| standby.is_same(one)) => "standby",
            _ => "draining",
        }
    }

    /// A value of each older generation that has one.
    fn of_older<T: Display>(
        &self,
        of: impl Fn(&Generation) -> Option<T>,
    ) -> Vec<(Vec<(&'static str, String)>, String)> {
        let older = self.look.older().iter();
        older
            .filter_map(|one| {
                let generation = one.number().to_string();
                let labels = vec![("generation", generation), ("state", self.role(one).to_owned())];
                Some((labels, of(one)?.to_string()))
            })
            .collect()
    }
}

/// The name of a metric for a counter, if it can be one.
fn family(name: &str) -> Option<&str> {
    let name = name.strip_suffix("_total").unwrap_or(name);
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    let mut bytes = name.bytes();
    let is_name = bytes.next().is_some_and(is_first)
        && bytes.all(|byte| is_first(byte) || byte.is_ascii_digit());
    let is_taken = name.starts_with(OWN) || RESERVED.iter().any(|end| name.ends_with(end));
    (is_name && !is_taken).then_some(name)
}

/// As the value of a label.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::{escaped, family};

    #[test]
    fn names_of_metrics() {
        for (name, expected) in [
            ("requests", Some("requests")),
            ("http_requests_total", Some("http_requests")),
            ("a:b_9", Some("a:b_9")),
            ("_", Some("_")),
            ("9lives", None),
            ("", None),
            ("_total", None),
            ("a b", None),
            ("größe", None),
            ("seamless_x", None),
            ("time_created", None),
            ("x_total_total", None),
            ("x_sum", None),
        ] {
            assert_eq!(family(name), expected, "{name}");
        }
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
