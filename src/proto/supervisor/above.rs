//! What a TERM means below a parent that is no known supervisor: what stands above decides, from the
//! launcher's parent up to PID 1.

use super::{Kind, NamedBy};

/// What is seen above a launcher. It is only asked for if the parent is no known supervisor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Above {
    /// The launcher is PID 1, or its parent is, or its parent is outside of its PID namespace.
    pub(crate) at_the_top: bool,
    /// The launcher is PID 1 of its namespace: if it ends, the kernel ends every process in there.
    pub(crate) is_pid_1: bool,
    /// The PID namespace is not the machine's own. `false` if that is unknown.
    pub(crate) in_a_namespace: bool,
    /// The names of the processes from the parent up to PID 1. `None`: one that cannot be looked at.
    pub(crate) names: Vec<Option<String>>,
    /// The environment or the working folder is one that a supervisor gives to its services.
    pub(crate) has_traces: bool,
}

/// What was decided about a parent that is no known supervisor, and why, for the log. `None`: there is
/// nothing to say.
pub(crate) type Decided = (Kind, Option<&'static str>);

const IN_A_CONTAINER: &str = "in a PID namespace of its own, with no known supervisor up to PID 1: a TERM \
                              is a stop";
const AS_CONFIGURED: &str = "parent_restarts(false): a TERM is a stop";

/// `seen`: by the name of the parent, if a kind has that name. `said`: `Config::parent_restarts`.
pub(crate) fn decide(seen: Option<Kind>, above: &Above, said: Option<bool>) -> Decided {
    if let Some(kind) = seen.filter(|kind| kind.starts_again.is_supervisor()) {
        return (kind, None);
    }
    // The process of a script `/init` is called `init`, and is none.
    let seen = match above.names.first() {
        Some(Some(name)) if above.in_a_namespace => Kind::of_process(name),
        Some(_) | None => seen,
    };
    match said {
        // Whatever starts PID 1 again starts a new namespace: no process survives in the old one.
        Some(true) if !above.is_pid_1 => return (Kind::OTHER, None),
        Some(false) => return (Kind::NOBODY, Some(AS_CONFIGURED)),
        Some(true) | None => {}
    }
    match seen {
        Some(kind) => (kind, None),
        None if above.at_the_top => (Kind::NOBODY, None),
        None if above.in_a_namespace && !above.may_be_supervised() => {
            (Kind::NOBODY, Some(IN_A_CONTAINER))
        }
        None => (Kind::OTHER, None),
    }
}

impl Above {
    /// Is there a known supervisor somewhere above, or could there be one that cannot be seen?
    fn may_be_supervised(&self) -> bool {
        let is_known = |name: &String| Kind::of_process(name).is_some();
        let is_complete = !self.names.is_empty() && self.names.iter().all(Option::is_some);
        self.names.iter().flatten().any(is_known) || !is_complete && self.has_traces
    }
}

/// The variables that supervisors give to their services. A service that has none of them may still be
/// supervised: some kinds set none.
pub(crate) fn variables() -> impl Iterator<Item = &'static str> {
    Kind::all().filter_map(|kind| match kind.commands.as_ref()?.service {
        NamedBy::Folder => None,
        NamedBy::Unit => Some("INVOCATION_ID"), // `systemd.exec(5)`
        NamedBy::Variable { name, .. } => Some(name),
    })
}

#[cfg(test)]
mod tests {
    use super::{Above, decide, variables};
    use crate::proto::Kind;

    fn names(names: &[&str]) -> Vec<Option<String>> {
        names.iter().map(|name| (*name != "?").then(|| (*name).to_owned())).collect()
    }

    fn in_a_container(above: &[&str]) -> Above {
        Above { in_a_namespace: true, names: names(above), ..Above::default() }
    }

    #[track_caller]
    fn assert_is(kind: Kind, above: &Above) {
        assert_eq!(decide(None, above, None).0, kind, "{above:?}");
    }

    #[test]
    fn in_a_container_a_wrapper_restarts_nothing() {
        for above in [
            &["sh", "tini"][..],
            &["sh", "dumb-init"],
            &["entrypoint.sh", "bash", "docker-init"],
            &["env", "sudo", "catatonit"],
            // Outside of every supervised service: s6-svscan starts the container's command once.
            &["sh", "s6-svscan"],
            &["node", "pause"],
        ] {
            assert_is(Kind::NOBODY, &in_a_container(above));
            let on_the_machine = Above { in_a_namespace: false, ..in_a_container(above) };
            assert_is(Kind::OTHER, &on_the_machine);
        }
    }

    #[test]
    fn a_known_supervisor_further_up_may_restart() {
        for above in [
            &["sh", "s6-supervise", "s6-svscan"][..],
            &["sh", "sh", "runsv", "runsvdir", "tini"],
            &["sh", "supervisord"],
            &["bash", "systemd"],
            &["sh", "init"],
            &["sh", "?", "supervise", "tini"],
        ] {
            assert_is(Kind::OTHER, &in_a_container(above));
        }
    }

    #[test]
    fn a_script_that_is_called_init_is_none() {
        let script = in_a_container(&["sh"]);
        assert_eq!(decide(Some(Kind::OTHER), &script, None).0, Kind::NOBODY);
        let program = in_a_container(&["init"]);
        assert_eq!(decide(Some(Kind::OTHER), &program, None).0, Kind::OTHER);
        // On a machine of its own, `init` may be a part of a program of another name: that of BusyBox.
        let busybox = Above { at_the_top: true, ..in_a_container(&["busybox"]) };
        let machine = Above { in_a_namespace: false, ..busybox };
        assert_eq!(decide(Some(Kind::OTHER), &machine, None).0, Kind::OTHER);
    }

    #[test]
    fn where_the_way_up_cannot_be_seen_traces_of_a_supervisor_count() {
        for above in [&[][..], &["?"], &["sh", "?"]] {
            let mut above = in_a_container(above);
            assert_is(Kind::NOBODY, &above);
            above.has_traces = true;
            assert_is(Kind::OTHER, &above);
        }
        // What can be seen counts more.
        let above = Above { has_traces: true, ..in_a_container(&["sh", "tini"]) };
        assert_is(Kind::NOBODY, &above);
    }

    /// They are the traces where the way up cannot be seen.
    #[test]
    fn services_are_known_by_what_their_supervisors_give_them() {
        let given: Vec<&str> = variables().collect();
        for name in ["INVOCATION_ID", "SUPERVISOR_PROCESS_NAME", "RC_SVCNAME"] {
            assert!(given.contains(&name), "{name}: {given:?}");
        }
    }

    #[test]
    fn the_program_may_know_better() {
        let container = in_a_container(&["sh", "tini"]);
        let machine = Above { in_a_namespace: false, ..container.clone() };
        let top = Above { at_the_top: true, ..container.clone() };
        for above in [&container, &machine, &top] {
            assert_eq!(decide(None, above, Some(true)).0, Kind::OTHER);
            assert_eq!(decide(None, above, Some(false)).0, Kind::NOBODY);
            assert_eq!(decide(Some(Kind::OTHER), above, Some(false)).0, Kind::NOBODY);
            // A known supervisor says itself what it wants.
            for said in [Some(true), Some(false), None] {
                assert_eq!(decide(Some(Kind::RUNIT), above, said), (Kind::RUNIT, None));
            }
        }
        let pid_1 = Above { is_pid_1: true, ..top };
        assert_eq!(decide(None, &pid_1, Some(true)).0, Kind::NOBODY);
    }

    #[test]
    fn the_log_tells_it_where_the_parent_alone_does_not() {
        let container = in_a_container(&["sh", "tini"]);
        assert!(decide(None, &container, None).1.is_some());
        let top = Above { at_the_top: true, ..container };
        assert_eq!(decide(None, &top, None).1, None);
        assert!(decide(None, &top, Some(false)).1.is_some());
    }
}
