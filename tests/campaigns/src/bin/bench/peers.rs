//! The crate beside its peers: each measurement on each server in turn, all in one run, in one table.

mod columns;

use std::error::Error;

use crate::{
    Bench,
    servers::Way,
    set_migration,
    table::{print, progress, title},
};

/// A figure of each server.
struct Column {
    head: [&'static str; 2],
    what: &'static str,
    measure: fn(&Bench, Server, usize) -> Measured,
}

type Measured = Result<Figure, Box<dyn Error>>;

/// What is measured, and whether that is what the crate promises.
struct Figure {
    text: String,
    clean: bool,
}

/// The crate, and what it is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Seamless,
    Ecdysis,
    Shellflip,
    Pingora,
    Nginx,
    Haproxy,
}

impl Server {
    pub(crate) const ALL: [Server; 6] = [
        Server::Seamless,
        Server::Ecdysis,
        Server::Shellflip,
        Server::Pingora,
        Server::Nginx,
        Server::Haproxy,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Server::Seamless => "seamless",
            Server::Ecdysis => "ecdysis",
            Server::Shellflip => "shellflip",
            Server::Pingora => "pingora",
            Server::Nginx => "nginx",
            Server::Haproxy => "haproxy",
        }
    }

    fn way(self) -> Way {
        match self {
            Server::Seamless => Way::TakeoverTcp,
            Server::Ecdysis => Way::Ecdysis,
            Server::Shellflip => Way::Shellflip,
            Server::Pingora => Way::Pingora,
            Server::Nginx => Way::Nginx,
            Server::Haproxy => Way::Haproxy,
        }
    }

    /// Where connections stay open, or TLS is asked for.
    fn way_of_http(self) -> Way {
        if self == Server::Seamless { Way::Web } else { self.way() }
    }

    /// How many restarts of these it has: one of pingora takes 6 s.
    fn restarts(self, count: usize) -> usize {
        if self == Server::Pingora { count.div_ceil(4) } else { count }
    }

    /// Why it is not measured at all, if so.
    fn is_missing(self) -> Option<&'static str> {
        match (self.way().is_here(), self) {
            (true, _) => None,
            (false, Server::Nginx | Server::Haproxy) => Some("not installed"),
            (false, _) => Some("not built"),
        }
    }
}

const COLUMNS: [Column; 8] = [
    Column {
        head: ["failed, of a", "restart: 128"],
        what: "requests that fail at full load of 128 clients",
        measure: |bench, server, restarts| columns::losses(bench, server, 128, restarts),
    },
    Column {
        head: ["", "512 clients"],
        what: "requests that fail at full load of 512 clients",
        measure: |bench, server, restarts| columns::losses(bench, server, 512, restarts),
    },
    Column {
        head: ["p99.9 to alone", "a restart lasts"],
        what: "latency over restarts",
        measure: columns::latency,
    },
    Column {
        head: ["closed", "of 1,000"],
        what: "connections that stay open",
        measure: columns::kept,
    },
    Column { head: ["TLS resumed,", "in full"], what: "TLS sessions", measure: columns::sessions },
    Column { head: ["no answer after", "a crash"], what: "crashes", measure: columns::crashes },
    Column {
        head: ["after a", "bad version"],
        what: "versions that end at once",
        measure: columns::bad_versions,
    },
    Column { head: ["memory of one,", "two versions"], what: "memory", measure: columns::memory },
];
const WIDTHS: [usize; 8] = [13, 12, 17, 10, 14, 20, 20, 20];

/// True where nothing of the crate's has failed.
pub(crate) fn run(
    bench: &Bench,
    servers: &[Server],
    restarts: usize,
) -> Result<bool, Box<dyn Error>> {
    title(&format!("The crate beside its peers, {restarts} restarts at full load"));
    set_migration(false);
    let (mut rows, mut reasons, mut clean) = (Vec::new(), Vec::new(), true);
    for server in servers {
        let name = server.name();
        if let Some(why) = server.is_missing() {
            rows.push(format!("{name:<10}not measured: {why}"));
            clean &= *server != Server::Seamless;
            continue;
        }
        let mut row = format!("{name:<10}");
        for (column, width) in COLUMNS.iter().zip(WIDTHS) {
            print(&format!("{name}: {}", column.what));
            let figure = (column.measure)(bench, *server, restarts);
            // What is left of a measurement that has failed.
            bench.family.end_all()?;
            bench.check_interrupted()?;
            let text = match figure {
                Ok(figure) => {
                    clean &= figure.clean || *server != Server::Seamless;
                    figure.text
                }
                Err(why) => {
                    clean &= *server != Server::Seamless;
                    reasons.push(format!("{name}, {}: {why}", column.what));
                    "-".to_owned()
                }
            };
            print(&format!("  {text}")); // for a run that ends early
            row += &format!("{text:>width$}");
        }
        rows.push(row);
    }
    progress("");
    for line in 0..2 {
        let heads = COLUMNS.iter().zip(WIDTHS);
        let heads = heads.map(|(column, width)| format!("{:>width$}", column.head[line]));
        print(&format!("{:<10}{}", "", heads.collect::<String>()));
    }
    rows.iter().for_each(|row| print(row));
    print(
        "TLS: of the handshakes in a restart and 10 s after it; those in full, of 32 clients, each restart",
    );
    print("without an answer: the median and the longest time");
    reasons.iter().for_each(|reason| print(reason));
    Ok(clean)
}
