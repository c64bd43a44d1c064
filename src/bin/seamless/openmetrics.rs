//! `seamless status --openmetrics`: what Prometheus and others read (OpenMetrics 1.0).

use seamless::client::Counter;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Endings that a reader gives a meaning to.
const RESERVED: [&str; 8] =
    ["_total", "_created", "_info", "_bucket", "_count", "_sum", "_gcount", "_gsum"];
/// The beginning of our own names.
const OWN: &str = "seamless";

/// What is known of the service.
pub(crate) struct Metrics<'a> {
    /// A generation serves.
    pub(crate) serving: bool,
    pub(crate) generation: Option<u64>,
    /// How many older generations have not ended.
    pub(crate) draining: usize,
    /// How many sockets a successor would get.
    pub(crate) sockets: Option<u64>,
    pub(crate) counters: &'a [Counter],
}

impl Metrics<'_> {
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut gauge = |name: &str, about: &str, value: Option<u64>| {
            let Some(value) = value else { return };
            _ = writeln!(text, "# TYPE {OWN}_{name} gauge");
            _ = writeln!(text, "# HELP {OWN}_{name} {about}");
            _ = writeln!(text, "{OWN}_{name} {value}");
        };
        gauge("serving", "Whether a generation serves.", Some(self.serving.into()));
        gauge("generation", "The number of the newest generation.", self.generation);
        let draining = Some(self.draining as u64);
        gauge("draining", "How many older generations have not ended.", draining);
        gauge("sockets", "How many sockets a successor would get.", self.sockets);
        let mut families = BTreeSet::new();
        let mut others = Vec::new();
        for Counter { name, value, .. } in self.counters {
            match family(name).filter(|family| families.insert(family.to_owned())) {
                Some(family) => {
                    _ = writeln!(text, "# TYPE {family} counter\n{family}_total {value}");
                }
                None => others.push((name, value)),
            }
        }
        if !others.is_empty() {
            _ = writeln!(text, "# TYPE {OWN}_counter counter");
            _ = writeln!(
                text,
                "# HELP {OWN}_counter Counters whose names are no names of metrics."
            );
        }
        for (name, value) in others {
            _ = writeln!(text, "{OWN}_counter_total{{name=\"{}\"}} {value}", escaped(name));
        }
        text.push_str("# EOF");
        text
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
