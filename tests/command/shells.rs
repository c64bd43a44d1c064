//! What shells make of `seamless --completions`, and `man` of `seamless --man`.

use std::{fs, path::Path, process::Command};

use seamless_testing::{bin, boxed::Boxed};

/// Runs a program that must succeed and complain about nothing.
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; run scripts/setup"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{program} {args:?}: {complaint}");
    String::from_utf8(output.stdout).expect("text")
}

/// The completions in a file of this folder.
fn script(folder: &Path, shell: &str) -> String {
    let seamless = bin::support("seamless");
    let script = run(seamless.to_str().expect("a path"), &["--completions", shell]);
    let file = folder.join(format!("seamless.{shell}"));
    fs::write(&file, script).expect("a script");
    file.to_str().expect("a path").to_owned()
}

/// What is offered after a command line, in words.
type Case = (&'static str, &'static [&'static str]);

const CASES: [Case; 8] = [
    ("seamless ", &["check", "commit", "list", "restart", "rollback", "status", "stop", "watch"]),
    ("seamless st", &["status", "stop"]),
    ("seamless status --", &["--json", "--openmetrics", "--prometheus", "--timeout"]),
    ("seamless list --", &["--json", "--timeout"]),
    ("seamless check --u", &["--unit", "--user"]),
    ("seamless check --user roo", &["root"]),
    ("seamless restart --wait co", &["committed"]),
    ("seamless restart web.pid --", &["--json", "--timeout", "--wait"]),
];

#[test]
fn bash_completes_commands_and_their_options() {
    Boxed::new().run(|folder| {
        let file = script(folder, "bash");
        for (line, offered) in CASES {
            let program = format!(
                r#"source '{file}'
                read -ra COMP_WORDS <<<'{line}'
                [[ '{line}' == *' ' ]] && COMP_WORDS+=('')
                COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
                _seamless
                printf '%s\n' "${{COMPREPLY[@]}}""#
            );
            let output = run("bash", &["-c", &program]);
            let words = output.lines().filter(|word| !matches!(*word, "--help" | "--version"));
            check(line, words, offered);
        }
    });
}

#[test]
fn fish_completes_commands_and_their_options() {
    Boxed::new().run(|folder| {
        let file = script(folder, "fish");
        for (line, offered) in CASES {
            let program = format!("cd {}; source {file}; complete -C '{line}'", folder.display());
            let output = run("fish", &["--no-config", "-c", &program]);
            let words = output.lines().map(|line| line.split('\t').next().unwrap_or(line));
            check(line, words, offered);
        }
    });
}

/// zsh completes on a terminal only, so this is one.
#[test]
fn zsh_completes_commands_and_their_options() {
    Boxed::new().run(|folder| {
        let (file, dump) = (script(folder, "zsh"), folder.join("zcompdump"));
        let dump = dump.display();
        for (line, offered) in CASES {
            let seen: Vec<String> =
                offered.iter().map(|word| format!("$all == *'{word}'*")).collect();
            let seen = seen.join(" && ");
            let program = format!(
                r#"zmodload zsh/zpty
                zpty shell 'TERM=dumb zsh -f -i'
                zpty -w shell 'PS1= PROMPT_EOL_MARK=; stty -echo; bindkey "^I" list-choices'
                zpty -w shell 'autoload -Uz compinit; compinit -u -d {dump}; source {file}; echo re""ady'
                zpty -r shell begin '*ready*'
                zpty -w -n shell $'{line}\t'
                integer tries=0
                until [[ {seen} ]] || ((tries++ == 2000)); do
                    if zpty -r -t shell more; then all+=$more; else sleep 0.01; fi
                done
                print -rn -- "$all"
                zpty -d shell"#
            );
            let output = run("zsh", &["-f", "-c", &program]);
            for word in offered {
                assert!(output.contains(word), "{line:?}: no {word} in {output:?}");
            }
            assert!(offered.contains(&"--force") || !output.contains("--force"), "{output:?}");
        }
    });
}

#[track_caller]
fn check<'a>(line: &str, words: impl Iterator<Item = &'a str>, offered: &[&str]) {
    let mut words: Vec<&str> = words.collect();
    words.sort_unstable();
    assert_eq!(words, offered, "{line:?}");
}

#[test]
fn man_shows_the_page_without_a_complaint() {
    Boxed::new().run(|folder| {
        let seamless = bin::support("seamless");
        let page = run(seamless.to_str().expect("a path"), &["--man"]);
        let file = folder.join("seamless.1");
        fs::write(&file, page).expect("a page");
        let file = file.to_str().expect("a path");
        // groff says on standard error what it does not understand.
        let text =
            run("groff", &["-man", "-Tascii", "-P-c", "-P-b", "-P-u", "-ww", "-rLL=100n", file]);
        for words in ["seamless restart PIDFILE", "Exit status:", "--service FOLDER"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    });
}
