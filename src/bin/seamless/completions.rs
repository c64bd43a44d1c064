//! The completions of shells: what `seamless --completions SHELL` prints.

use std::fmt::Write;

use super::table::{COMMANDS, Flag, GENERAL, Operand, Value};

/// `None` for a shell that is not known.
pub(crate) fn of(shell: &str) -> Option<String> {
    Some(match shell {
        "bash" => bash(),
        "zsh" => zsh(),
        "fish" => fish(),
        _ => return None,
    })
}

const UNITS: &str =
    "systemctl list-unit-files --type=service --no-legend --plain 2>/dev/null | cut -d ' ' -f 1";

fn bash() -> String {
    let names = COMMANDS.map(|command| command.name);
    let mut cases = String::new();
    for command in &COMMANDS {
        let options: Vec<String> =
            command.options.iter().map(|flag| format!("--{}", flag.name)).collect();
        let _ = writeln!(cases, "        {}) words='{}' ;;", command.name, options.join(" "));
    }
    let general = GENERAL.map(|(_, long, _)| format!("--{long}")).join(" ");
    format!(
        r#"# Completions of bash for seamless.
_seamless() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} command= words= i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
            {commands}) command=${{COMP_WORDS[i]}} && break ;;
        esac
    done
    case $before in
        --{time}) compopt +o default && return ;;
        --{user}) words=$(compgen -u) ;;
        --{until}) words='started committed' ;;
        --{unit}) words=$({UNITS}) ;;
        --{folder})
            mapfile -t COMPREPLY < <(compgen -d -- "$word")
            return ;;
    esac
    if [[ -z $words ]]; then
        # With nothing to offer, bash completes file names.
        [[ -z $command || $word == -* ]] || return 0
        case $command in
        '') words='{words} {general}' ;;
{cases}        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}}
complete -o default -F _seamless seamless
"#,
        commands = names.join(" | "),
        words = names.join(" "),
        time = option_of(Value::Time),
        user = option_of(Value::User),
        until = option_of(Value::Until),
        unit = option_of(Value::Unit),
        folder = option_of(Value::Folder),
    )
}

fn zsh() -> String {
    let mut text = "#compdef seamless\n# Completions of zsh for seamless.\n_seamless() {\n    \
                    local context state line\n    local -a commands=(\n"
        .to_owned();
    for command in &COMMANDS {
        let _ = writeln!(text, "        '{}:{}'", command.name, command.short);
    }
    text.push_str("    )\n    _arguments -C \\\n");
    for (short, long, about) in GENERAL {
        let _ = writeln!(text, "        '(- *)'{{-{short},--{long}}}'[{about}]' \\");
    }
    text.push_str(
        "        '1:command:->command' '*::argument:->argument' && return\n    case $state in\n        \
         command) _describe command commands ;;\n        argument)\n            case $words[1] in\n",
    );
    for command in &COMMANDS {
        let _ = write!(text, "                {}) _arguments ", command.name);
        for Flag { name, value, about, .. } in command.options {
            let value = match value {
                None => "",
                Some(Value::Time) => ":time: ",
                Some(Value::User) => ":user:_users",
                Some(Value::Until) => ":what:(started committed)",
                Some(Value::Folder) => ":folder:_directories",
                Some(Value::Unit) => ":unit:_seamless_units",
            };
            let _ = write!(text, "'--{name}[{about}]{value}' ");
        }
        text.push_str(match command.operand {
            Operand::PidFile => "'1:PID file:_files' ;;\n",
            Operand::PidFiles => "'*:PID file:_files' ;;\n",
            Operand::Folders => "'*:folder:_directories' ;;\n",
        });
    }
    let _ = write!(
        text,
        "            esac ;;\n    esac\n}}\n\
         _seamless_units() {{\n    local -a units=(${{(f)\"$({UNITS})\"}})\n    compadd -a units\n}}\n\
         if [[ $funcstack[1] == _seamless ]]; then\n    _seamless \"$@\"\nelse\n    compdef _seamless seamless\nfi\n"
    );
    text
}

fn fish() -> String {
    let names = COMMANDS.map(|command| command.name).join(" ");
    let mut text = "# Completions of fish for seamless.\n".to_owned();
    let none = format!("'not __fish_seen_subcommand_from {names}'");
    for (short, long, about) in GENERAL {
        let _ = writeln!(text, "complete -c seamless -n {none} -s {short} -l {long} -d '{about}'");
    }
    for command in &COMMANDS {
        let (name, short) = (command.name, command.short);
        let _ = writeln!(text, "complete -c seamless -f -n {none} -a {name} -d '{short}'");
        for Flag { name: option, value, about, .. } in command.options {
            let value = match value {
                None => String::new(),
                Some(Value::Time) => " -x".to_owned(),
                Some(Value::User) => " -x -a '(__fish_complete_users)'".to_owned(),
                Some(Value::Until) => " -x -a 'started committed'".to_owned(),
                Some(Value::Folder) => " -x -a '(__fish_complete_directories)'".to_owned(),
                Some(Value::Unit) => format!(" -x -a \"({UNITS})\""),
            };
            let _ = writeln!(
                text,
                "complete -c seamless -n '__fish_seen_subcommand_from {name}' -l {option} -d '{about}'{value}"
            );
        }
    }
    text
}

/// The option that wants this.
fn option_of(value: Value) -> &'static str {
    let mut flags = COMMANDS.iter().flat_map(|command| command.options);
    flags.find(|flag| flag.value == Some(value)).expect("each kind of value has an option").name
}
