//! The help and the manual page.

use std::fmt::Write;

use super::table::{COMMANDS, Command, EVERYWHERE, Flag, GENERAL, PREFACE, PRINTS, PROGRAM};

/// Columns of the help.
const WIDTH: usize = 100;
/// Where the text of a command begins.
const INDENT: usize = 9;

/// What `seamless --help` prints.
pub(crate) fn help() -> String {
    let mut text = format!("seamless: {PROGRAM}\n\n");
    for (number, command) in COMMANDS.iter().enumerate() {
        let first = if number == 0 { "usage:" } else { "" };
        let name = command.name;
        let (operand, options) = (command.operand.name(), options(command, "", ""));
        let _ = writeln!(text, "{first:6} seamless {name:<7} {operand} {options}");
    }
    text.push('\n');
    wrap(&mut text, "", 0, PREFACE);
    for command in &COMMANDS {
        text.push('\n');
        wrap(&mut text, &format!("{:<INDENT$}", command.name), INDENT, command.about);
        for (code, meaning) in command.ends {
            wrap(&mut text, &format!("{:INDENT$}{code}  ", ""), INDENT + 3, meaning);
        }
    }
    let ends = EVERYWHERE.map(|(code, meaning)| format!("{code}  {meaning}")).join("; ");
    let general = GENERAL.map(|(short, long, _)| format!("-{short}, --{long}"));
    let prints = PRINTS.map(|(name, value, _)| format!("--{name} {value}").trim_end().to_owned());
    let all = [general, prints].concat().join("; ");
    text.push('\n');
    wrap(&mut text, "", 0, &format!("All: {ends}. {all}."));
    text
}

/// `[--json] [--timeout TIME]`, with this before each word that is typed, and that before each value.
fn options(command: &Command, typed: &str, value: &str) -> String {
    let mut text = String::new();
    for Flag { name, value: wants, or_next, .. } in command.options {
        if !text.ends_with("| ") {
            text.push('[');
        }
        let _ = write!(text, "{typed}--{name}");
        if let Some(wants) = wants {
            let _ = write!(text, " {value}{}", wants.name());
        }
        if !typed.is_empty() {
            text.push_str("\\fR");
        }
        text.push_str(if *or_next { " | " } else { "] " });
    }
    text.trim_end().to_owned()
}

/// Adds the text in lines of at most [`WIDTH`] columns: `first`, and then so many spaces before each.
fn wrap(text: &mut String, first: &str, indent: usize, words: &str) {
    let mut line = first.to_owned();
    for word in words.split(' ') {
        if line.chars().count() + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{}", line.trim_end());
            line = " ".repeat(indent);
        }
        line.push_str(word);
        line.push(' ');
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

/// The manual page `seamless(1)`, what `seamless --man` prints.
pub(crate) fn page() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let mut page = format!(
        ".TH SEAMLESS 1 \"\" \"seamless {version}\" \"User Commands\"\n\
         .SH NAME\nseamless \\- {PROGRAM}\n.SH SYNOPSIS\n"
    );
    for (number, command) in COMMANDS.iter().enumerate() {
        if number > 0 {
            page.push_str(".br\n");
        }
        let options = escape(&options(command, "\\fB", "\\fI"));
        let (name, operand) = (command.name, command.operand.name());
        let _ = writeln!(page, "\\fBseamless {name}\\fR \\fI{operand}\\fR {options}");
    }
    let _ = writeln!(page, ".SH DESCRIPTION\n{}\n.SH COMMANDS", escape(PREFACE));
    for command in &COMMANDS {
        let _ = writeln!(page, ".SS {}\n{}", command.name, escape(command.about));
        page.push_str(".PP\nExit status:\n");
        for (code, meaning) in command.ends {
            let _ = writeln!(page, ".TP 4\n.B {code}\n{}", escape(meaning));
        }
    }
    page.push_str(".SH OPTIONS\n");
    for flag in flags() {
        let takers = COMMANDS.iter().filter(|command| takes(command, flag.name));
        let takers: Vec<&str> = takers.map(|command| command.name).collect();
        let value =
            flag.value.map(|value| format!(" \\fI{}\\fR", value.name())).unwrap_or_default();
        let _ = writeln!(
            page,
            ".TP\n\\fB\\-\\-{}\\fR{value}\n{} For: {}.",
            flag.name,
            escape(flag.about),
            takers.join(", ")
        );
    }
    for (short, long, about) in GENERAL {
        let _ = writeln!(page, ".TP\n\\fB\\-{short}\\fR, \\fB\\-\\-{long}\\fR\n{about}");
    }
    for (name, value, about) in PRINTS {
        let _ = writeln!(page, ".TP\n\\fB\\-\\-{name}\\fR {value}\n{about}");
    }
    let _ = writeln!(page, ".SH EXIT STATUS\nBeside what is listed with each command:");
    for (code, meaning) in EVERYWHERE {
        let _ = writeln!(page, ".TP 4\n.B {code}\n{meaning}");
    }
    page
}

/// For roff: a hyphen that is typed is no hyphen of a word, and a dot that begins a line no request.
fn escape(text: &str) -> String {
    let text = text.replace("--", "\\-\\-").replace(". ", ".\n");
    text.lines()
        .map(|line| if line.starts_with('.') { format!("\\&{line}") } else { line.to_owned() })
        .collect::<Vec<_>>()
        .join("\n")
}

pub(crate) fn takes(command: &Command, name: &str) -> bool {
    command.options.iter().any(|flag| flag.name == name)
}

/// Each option once.
fn flags() -> Vec<Flag> {
    let mut flags: Vec<Flag> = Vec::new();
    for flag in COMMANDS.iter().flat_map(|command| command.options) {
        if flags.iter().all(|other| other.name != flag.name) {
            flags.push(*flag);
        }
    }
    flags
}
