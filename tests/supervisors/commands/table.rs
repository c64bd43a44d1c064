//! The guide's tables of what each command does.

use seamless_testing::{
    page::{self, Table},
    supervisor::Supervisor,
};

use super::{COMMANDS, Command, Stage};

/// Compares a result with the guide, or notes it.
#[track_caller]
pub(super) fn check(command: &Command, stage: Stage, seen: &str) {
    page::check_cell(&table(command.kind), &label(command), stage.name(), seen);
}

#[test]
fn the_tables_of_commands_are_complete() {
    let tested = |command: &Command| command.stages == Stage::ALL;
    assert!(COMMANDS.iter().all(tested), "each cell has its test");
    for kind in [Supervisor::Daemontools, Supervisor::Runit] {
        page::check_table(&table(kind));
    }
}

fn table(kind: Supervisor) -> Table {
    let commands = COMMANDS.iter().filter(|command| command.kind == kind);
    Table {
        name: format!("commands:{}", format!("{kind:?}").to_lowercase()),
        rows: commands.map(label).collect(),
        columns: Stage::ALL.map(|stage| stage.name().to_owned()).to_vec(),
    }
}

fn label(command: &Command) -> String {
    format!("`{} {}`", command.kind.control_program(), command.word)
}
